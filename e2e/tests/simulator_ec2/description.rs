//! AWS's own description of EC2 and STS, from the Go module that carries it, and what it allows.

use std::{path::Path, process::Command, sync::OnceLock};

use serde_json::Value;

/// Elements that are younger than that module. The real client, which is younger too, reads each of them in a test.
const YOUNGER: &[(&str, &str)] = &[("Instance", "operator"), ("Address", "serviceManaged")];

/// A service's description, read once per test process.
fn document(action: &str) -> &'static Value {
    static EC2: OnceLock<Value> = OnceLock::new();
    static STS: OnceLock<Value> = OnceLock::new();
    let (document, path) = match action {
        "AssumeRoleWithWebIdentity" => (&STS, "models/apis/sts/2011-06-15/api-2.json"),
        _ => (&EC2, "models/apis/ec2/2016-11-15/api-2.json"),
    };
    document.get_or_init(|| {
        let path = Path::new(&module_dir()).join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap()
    })
}

/// Where Go keeps the module that `tools/awsapi.mod` pins; fetched if it is not there yet.
fn module_dir() -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let output = Command::new("go")
        .args(["mod", "download", "-modfile=awsapi.mod", "-json", "github.com/aws/aws-sdk-go"])
        .current_dir(tools)
        .output()
        .unwrap_or_else(|error| {
            panic!("this test needs Go 1.26 or later on the PATH to find AWS's API description: {error}")
        });
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match said["Dir"].as_str() {
        Some(dir) => dir.to_owned(),
        None => panic!(
            "go could not fetch github.com/aws/aws-sdk-go: {}{}",
            said["Error"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The parameters of an action, as they are called on the wire, each with its shape.
pub fn parameters(action: &str) -> Vec<(String, &'static Value)> {
    let document = document(action);
    let input = &document["operations"][action]["input"]["shape"];
    let members = document["shapes"][input.as_str().unwrap_or_else(|| panic!("AWS describes no {action}"))]["members"]
        .as_object()
        .unwrap();
    members
        .iter()
        .map(|(name, member)| {
            let told = member["queryName"].as_str().or(member["locationName"].as_str()).unwrap_or(name);
            let (first, rest) = told.split_at(1);
            (format!("{}{rest}", first.to_uppercase()), &document["shapes"][member["shape"].as_str().unwrap()])
        })
        .collect()
}

/// Panics unless the body is what the action answers: every element exists, with that type.
pub fn check_answer(action: &str, body: &Value) {
    let document = document(action);
    match document["operations"][action]["output"]["shape"].as_str() {
        Some(shape) => {
            if let Err(wrong) = fits(document, body, shape, action) {
                panic!("{wrong}");
            }
        }
        None => assert_eq!(*body, serde_json::json!({}), "{action} answers nothing"),
    }
}

/// The same for a shape of EC2's by name. Says what is wrong.
pub fn is_a(shape: &str, body: &Value) -> Result<(), String> {
    fits(document(""), body, shape, shape)
}

fn fits(document: &'static Value, value: &Value, shape: &str, at: &str) -> Result<(), String> {
    let described = &document["shapes"][shape];
    let wrong = |wanted: &str| Err(format!("{at}: {value} is not {wanted}"));
    match (described["type"].as_str().unwrap_or_default(), value) {
        ("structure", Value::Object(fields)) => {
            let members = described["members"].as_object().unwrap();
            for (name, field) in fields {
                if YOUNGER.contains(&(shape, name.as_str())) {
                    continue;
                }
                let called = |(member, of): &(&String, &Value)| of["locationName"].as_str().unwrap_or(member) == name;
                let member = members.iter().find(called).ok_or_else(|| format!("{at}: there is no element {name}"))?.1;
                fits(document, field, member["shape"].as_str().unwrap(), &format!("{at}.{name}"))?;
            }
            Ok(())
        }
        ("list", Value::Array(items)) => {
            if described["member"]["locationName"].as_str().is_some_and(|name| name != "item") {
                return wrong("a list of items");
            }
            let inner = described["member"]["shape"].as_str().unwrap();
            items.iter().enumerate().try_for_each(|(n, item)| fits(document, item, inner, &format!("{at}[{n}]")))
        }
        ("string", Value::String(text)) => match described["enum"].as_array() {
            Some(allowed) if !allowed.iter().any(|word| word == text) => wrong("a word of the enum"),
            _ => Ok(()),
        },
        ("boolean", Value::Bool(_)) => Ok(()),
        ("integer", Value::Number(number)) if number.as_i64().is_some() => Ok(()),
        ("timestamp", Value::String(text)) if text.parse::<jiff::Timestamp>().is_ok() => Ok(()),
        (wanted, _) => wrong(wanted),
    }
}
