//! What Azure's own SDK for Go knows: methods, fields with their types, words of enums. Microsoft generates it from the
//! description of the API; its source is read as text, there is nothing to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

/// The two modules.
pub struct Sdk {
    /// HTTP method, path and API version.
    pub methods: BTreeSet<(String, String, String)>,
    /// Name in JSON and type in Go of each field of each struct.
    fields: BTreeMap<String, BTreeMap<String, String>>,
    enums: BTreeMap<String, BTreeSet<String>>,
}

/// Read once per test process.
pub fn sdk() -> &'static Sdk {
    static SDK: OnceLock<Sdk> = OnceLock::new();
    SDK.get_or_init(|| {
        let mut sdk = Sdk { methods: BTreeSet::new(), fields: BTreeMap::new(), enums: BTreeMap::new() };
        // Both have a SubResource and the like; those of the network come last, and they are the same.
        for module in ["compute/armcompute/v6", "network/armnetwork/v6"] {
            sdk.read(&module_dir(module));
        }
        sdk
    })
}

/// Where Go keeps a module that `tools/azureapi.mod` pins; fetched if it is not there yet.
fn module_dir(module: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let module = format!("github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/{module}");
    let output = Command::new("go")
        .args(["mod", "download", "-modfile=azureapi.mod", "-json", &module])
        .current_dir(tools)
        .output()
        .unwrap_or_else(|error| panic!("this test needs Go 1.26 or later on the PATH to find Azure's SDK: {error}"));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match said["Dir"].as_str() {
        Some(dir) => dir.into(),
        None => panic!(
            "go could not fetch {module}: {}{}",
            said["Error"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

impl Sdk {
    fn read(&mut self, folder: &Path) {
        let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        self.read_enums(&file("constants.go"));
        self.read_fields(&file("models.go"), &file("models_serde.go"));
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().ends_with("_client.go") {
                self.read_methods(&fs::read_to_string(path).unwrap());
            }
        }
    }

    /// `IPVersionIPv4 IPVersion = "IPv4"`.
    fn read_enums(&mut self, source: &str) {
        for line in source.lines() {
            if let [_, kind, "=", word] = line.split_whitespace().collect::<Vec<_>>().as_slice() {
                let word = word.trim_matches('"').to_owned();
                self.enums.entry((*kind).to_owned()).or_default().insert(word);
            }
        }
    }

    /// A struct says its fields' types, its MarshalJSON says their names in JSON.
    fn read_fields(&mut self, models: &str, serde: &str) {
        let mut types = BTreeMap::new();
        for part in models.split("\ntype ").skip(1) {
            let Some((name, body)) = part.split_once(" struct {") else { continue };
            for line in body.lines().take_while(|line| *line != "}") {
                if let [field, kind] = line.split_whitespace().collect::<Vec<_>>().as_slice() {
                    types.insert((name.to_owned(), (*field).to_owned()), (*kind).to_owned());
                }
            }
        }
        for part in serde.split("\nfunc (").skip(1) {
            let Some((receiver, body)) = part.split_once(") MarshalJSON() ([]byte, error) {") else { continue };
            let name = receiver.split_whitespace().nth(1).unwrap();
            let fields = self.fields.entry(name.to_owned()).or_default();
            for line in body.lines().take_while(|line| *line != "}") {
                let Some(json) = between(line, "(objectMap, \"", "\"") else { continue };
                let field = line.rsplit_once('.').unwrap().1.trim_end_matches(')');
                fields.insert(json.to_owned(), types[&(name.to_owned(), field.to_owned())].clone());
            }
        }
    }

    fn read_methods(&mut self, source: &str) {
        for part in source.split("CreateRequest(ctx context.Context").skip(1) {
            let body = part.split("\n}\n").next().unwrap();
            let (Some(path), Some(method), Some(version)) = (
                between(body, "urlPath := \"", "\""),
                between(body, "http.Method", ","),
                between(body, "\"api-version\", \"", "\""),
            ) else {
                continue;
            };
            self.methods.insert((method.to_uppercase(), path.to_owned(), version.to_owned()));
        }
    }

    /// Whether a value is what the type says, all the way down. Says where it is not.
    pub fn fits(&self, value: &Value, kind: &str, at: &str) -> Result<(), String> {
        let wrong = |wanted: &str| Err(format!("{at}: {value} is not {wanted}"));
        if let Some(items) = kind.strip_prefix("[]") {
            let Some(values) = value.as_array() else { return wrong("a list") };
            return (0..).zip(values).try_for_each(|(n, value)| self.fits(value, items, &format!("{at}[{n}]")));
        }
        if let Some(values) = kind.strip_prefix("map[string]") {
            let Some(fields) = value.as_object() else { return wrong("a map") };
            return fields.iter().try_for_each(|(name, value)| self.fits(value, values, &format!("{at}.{name}")));
        }
        match kind.trim_start_matches('*') {
            "string" if value.is_string() => Ok(()),
            "bool" if value.is_boolean() => Ok(()),
            "int32" if value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => Ok(()),
            "time.Time" if value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()) => Ok(()),
            "any" => Ok(()),
            kind if self.enums.contains_key(kind) => {
                let known = value.as_str().is_some_and(|word| self.enums[kind].contains(word));
                if known { Ok(()) } else { wrong(&format!("a word of {kind}")) }
            }
            kind if self.fields.contains_key(kind) => {
                let Some(fields) = value.as_object() else { return wrong(kind) };
                fields.iter().try_for_each(|(name, value)| {
                    let of_field = self.fields[kind].get(name);
                    let of_field = of_field.ok_or_else(|| format!("{at}: {kind} has no field {name}"))?;
                    self.fits(value, of_field, &format!("{at}.{name}"))
                })
            }
            kind => wrong(kind),
        }
    }
}
