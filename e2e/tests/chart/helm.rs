//! Helm as a person runs it, without a cluster; and what it renders, parsed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use anyhow::{Context, Result, bail};
use e2e::stage::{NAMESPACE, RELEASE, chart};
use serde_json::Value;

/// Both are in use, and they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    Three,
    Four,
}

pub const BOTH: [Major; 2] = [Major::Three, Major::Four];

/// How Helm ended.
#[derive(Debug)]
pub struct Ended {
    pub success: bool,
    pub out: String,
    pub err: String,
}

/// The folder with `helm` and `helm3`; built once on a machine.
static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
    // What takes long is told.
    let output = Command::new(script).arg("helm3").stderr(Stdio::inherit()).output().expect("e2e/tools/build");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "e2e/tools/build helm3: {}", output.status);
    PathBuf::from(out.lines().last().expect("the tools' build names a folder"))
});

static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Runs it. It knows no cluster.
pub fn run(major: Major, args: &[&str]) -> Result<Ended> {
    let program = BIN.join(match major {
        Major::Three => "helm3",
        Major::Four => "helm",
    });
    let output = Command::new(program)
        .args(args)
        .env_clear()
        .env("HOME", HOME.path())
        .env("KUBECONFIG", HOME.path().join("none"))
        .output()
        .with_context(|| format!("{major:?}: helm {}", args.join(" ")))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) })
}

/// `helm template` of the chart with further arguments: its objects, in the order in which they come.
///
/// # Errors
/// What Helm refused, in its words.
pub fn template(major: Major, args: &[&str]) -> Result<Vec<Value>> {
    objects(&text(major, args)?)
}

/// The same as text.
///
/// # Errors
/// What Helm refused, in its words.
pub fn text(major: Major, args: &[&str]) -> Result<String> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let mut all = vec!["template", RELEASE, &*chart, "--namespace", NAMESPACE];
    all.extend(args);
    let ended = run(major, &all)?;
    if !ended.success {
        bail!("{}", ended.err);
    }
    Ok(ended.out)
}

/// `helm template` with these `--set-json` values, by Helm 4.
///
/// # Errors
/// What Helm refused, in its words.
pub fn with(values: &[&str]) -> Result<Vec<Value>> {
    let args: Vec<&str> = values.iter().flat_map(|value| ["--set-json", value]).collect();
    template(Major::Four, &args)
}

fn objects(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let values = documents.map(<Value as serde::Deserialize>::deserialize).collect::<Result<Vec<_>, _>>()?;
    Ok(values.into_iter().filter(|value| !value.is_null()).collect())
}

/// The file of `ci/` for each shape in which the chart is installed.
pub fn shapes() -> Vec<(String, String)> {
    let mut shapes: Vec<_> = std::fs::read_dir(chart().join("ci"))
        .expect("ci/")
        .map(|file| file.expect("a file of ci/").path())
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name.trim_end_matches("-values.yaml").to_owned(), path.to_string_lossy().into_owned())
        })
        .collect();
    shapes.sort();
    shapes
}

/// The only object of this kind, the simulator's left aside.
///
/// # Errors
/// When there is none, or more than one.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = of_kind(objects, kind);
    found.retain(|object| !of_simulator(object));
    match found.as_slice() {
        [object] => Ok(object),
        several => bail!("{} objects of kind {kind}", several.len()),
    }
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Whether it is there to try the operator with.
pub fn of_simulator(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/component"] == "simulator"
}

/// What messages call an object.
pub fn called(object: &Value) -> String {
    format!("{} {}", text_of(&object["kind"]), text_of(&object["metadata"]["name"]))
}

pub fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The pod template of the Deployment.
///
/// # Errors
/// When there is no Deployment.
pub fn pod(objects: &[Value]) -> Result<&Value> {
    Ok(&only(objects, "Deployment")?["spec"]["template"])
}

/// The variables of the operator's container.
///
/// # Errors
/// When there is no Deployment.
pub fn environment(objects: &[Value]) -> Result<Vec<(String, Value)>> {
    let env = &pod(objects)?["spec"]["containers"][0]["env"];
    let env = env.as_array().context("no environment")?;
    Ok(env.iter().map(|entry| (text_of(&entry["name"]).to_owned(), entry["value"].clone())).collect())
}
