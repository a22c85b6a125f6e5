//! Google's own description of Compute Engine v1, from the Go module that carries it, and what it allows.

use std::{path::Path, process::Command, sync::OnceLock};

use serde_json::{Map, Value};

/// The discovery document, read once per test process.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = Path::new(&module_dir()).join("compute/v1/compute-api.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap()
    })
}

/// Where Go keeps the module that `tools/googleapi.mod` pins; fetched if it is not there yet.
fn module_dir() -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let output = Command::new("go")
        .args(["mod", "download", "-modfile=googleapi.mod", "-json", "google.golang.org/api"])
        .current_dir(tools)
        .output()
        .unwrap_or_else(|error| {
            panic!("this test needs Go 1.26 or later on the PATH to find Google's API description: {error}")
        });
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match said["Dir"].as_str() {
        Some(dir) => dir.to_owned(),
        None => panic!(
            "go could not fetch google.golang.org/api: {}{}",
            said["Error"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The description of a method such as `compute.addresses.list`.
pub fn method(id: &str) -> &'static Value {
    let mut parts = id.split('.').skip(1);
    let (resource, name) = (parts.next().unwrap(), parts.next().unwrap());
    let found = &document()["resources"][resource]["methods"][name];
    assert_eq!(found["id"], id, "Google describes no method {id}");
    found
}

/// The schema behind a reference.
pub fn schema(reference: &Value) -> &'static Value {
    &document()["schemas"][reference["$ref"].as_str().unwrap()]
}

/// Panics unless the body is what the method answers: every field exists, with that type.
pub fn check_answer(id: &str, body: &Value) {
    if let Err(wrong) = fits(body, &method(id)["response"], id) {
        panic!("{wrong}");
    }
}

/// Whether a value is what the schema says, all the way down. Says where it is not.
pub fn fits(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(value, &document()["schemas"][name], at);
    }
    let wrong = |wanted: &str| Err(format!("{at}: {value} is not {wanted}"));
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(fields)) => {
            let none = Map::new();
            let known = schema["properties"].as_object().unwrap_or(&none);
            for (name, field) in fields {
                let of_field = known.get(name).or_else(|| schema.get("additionalProperties"));
                let of_field = of_field.ok_or_else(|| format!("{at}: there is no field {name}"))?;
                fits(field, of_field, &format!("{at}.{name}"))?;
            }
            Ok(())
        }
        ("array", Value::Array(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(number, item)| fits(item, &schema["items"], &format!("{at}[{number}]"))),
        ("string", Value::String(text)) => {
            let allowed = schema["enum"].as_array();
            if allowed.is_some_and(|allowed| !allowed.iter().any(|word| word == text)) {
                return wrong("a word of the enum");
            }
            match schema["format"].as_str() {
                Some("uint64") if text.parse::<u64>().is_err() => wrong("a uint64"),
                Some("int64") if text.parse::<i64>().is_err() => wrong("an int64"),
                Some("byte") if !text.len().is_multiple_of(4) => wrong("base64"),
                _ => Ok(()),
            }
        }
        ("boolean", Value::Bool(_)) => Ok(()),
        ("integer", Value::Number(number)) => match schema["format"].as_str() {
            Some("int32") if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => Ok(()),
            Some("uint32") if number.as_u64().is_some_and(|number| u32::try_from(number).is_ok()) => Ok(()),
            _ => wrong("an integer of that size"),
        },
        ("number", Value::Number(_)) | ("any", _) => Ok(()),
        (wanted, _) => wrong(wanted),
    }
}
