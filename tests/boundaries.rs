//! Who may know whom (front page of `src/lib.rs`): reads the `use` lines and paths of `src/` and fails with a sentence
//! where a module knows what it must not. Unit tests inside modules may know more and are not read.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, fs, path::Path};

const PROVIDERS: [&str; 3] = ["gcp", "aws", "azure"];

/// A part of `src/`, what it must not know, and why.
struct Rule {
    part: &'static str,
    /// Paths, or beginnings of crate names that end in `_`.
    not: &'static [&'static str],
    because: &'static str,
}

/// What the middle of a pass must do without.
const PURE: &[&str] = &[
    "tokio",
    "tokio_",
    "futures",
    "async",
    "await",
    "metrics",
    "metrics_",
    "tracing",
    "tracing_",
    "kube::Api",
    "kube::Client",
    "Timestamp::now",
    "SystemTime::now",
    "Instant::now",
    "Uuid::new_v4",
];

const fn modelled(part: &'static str) -> Rule {
    Rule { part, not: PURE, because: "the model checker runs it: clients, clocks and chance stay outside" }
}

const RULES: &[Rule] = &[
    Rule {
        part: "lifecycle",
        not: &[
            "crate::api",
            "crate::allocation",
            "crate::cloud",
            "crate::leader",
            "crate::http",
            "crate::metrics",
            "crate::settings",
            "crate::telemetry",
        ],
        because: "the framework knows Kubernetes objects, and no address, cloud or NetIPAllocation",
    },
    Rule {
        part: "api",
        not: &["crate"],
        because: "the resource is types without logic and knows nothing else of ours",
    },
    Rule {
        part: "allocation::decide",
        not: &[
            "kube",
            "kube_",
            "k8s_",
            "tokio",
            "tokio_",
            "futures",
            "async_trait",
            "async",
            "await",
            "google_",
            "aws_",
            "azure_",
            "reqwest",
            "hyper",
            "warp",
            "metrics",
            "metrics_",
            "tracing",
            "tracing_",
            "crate::api",
            "crate::http",
            "crate::leader",
            "crate::metrics",
            "crate::settings",
            "crate::telemetry",
            "crate::cloud::gcp",
            "crate::cloud::aws",
            "crate::cloud::azure",
            "crate::allocation::observe",
            "crate::allocation::act",
            "crate::allocation::record",
            "crate::allocation::watch",
            "crate::lifecycle::finalizer",
        ],
        because: "a decision is a pure function of entry and facts",
    },
    Rule {
        part: "allocation::decide",
        not: &[
            "Timestamp::now",
            "SystemTime::now",
            "Instant::now",
            "Uuid::new_v4",
            "std::env",
            "std::fs",
            "std::net::TcpStream",
        ],
        because: "time and chance are facts",
    },
    modelled("allocation::round"),
    modelled("allocation::tables"),
    modelled("allocation::claims"),
    modelled("allocation::taints"),
    modelled("allocation::selection"),
    modelled("allocation::owed"),
    Rule {
        part: "allocation::journey",
        not: PURE,
        because: "the model checker runs it, and every leader has to come to the same answer",
    },
    modelled("allocation::observe::answers"),
    modelled("allocation::observe::requested"),
    modelled("allocation::observe::candidates"),
    modelled("allocation::observe::failover"),
    modelled("allocation::observe::life"),
    modelled("allocation::observe::subject"),
    modelled("allocation::observe::targets"),
    modelled("allocation::observe::verdict"),
    modelled("allocation::observe::whereabouts"),
    Rule {
        part: "kubectl_nia::rehearsal",
        not: PURE,
        because: "a plan is the round's own, on what was read before: it asks nobody and waits for nobody",
    },
    Rule { part: "kubectl_nia::plan", not: PURE, because: "it tells what was read before" },
    Rule { part: "kubectl_nia::answer", not: PURE, because: "it judges what was read before" },
    Rule { part: "kubectl_nia::why", not: PURE, because: "it tells what was read before" },
    Rule { part: "kubectl_nia::relocation", not: PURE, because: "it judges what was read before" },
    Rule { part: "kubectl_nia::history", not: PURE, because: "it tells what was read before" },
    modelled("allocation::ledger::versions"),
    Rule {
        part: "allocation",
        not: &["google_", "aws_", "azure_", "crate::cloud::gcp", "crate::cloud::aws", "crate::cloud::azure"],
        because: "the controller knows clouds by the trait alone",
    },
    Rule {
        part: "cloud",
        not: &["kube", "kube_", "k8s_", "crate::allocation", "crate::api", "crate::leader", "crate::lifecycle"],
        because: "a cloud knows neither Kubernetes nor allocations",
    },
    Rule {
        part: "leader",
        not: &["crate::allocation", "crate::api", "crate::cloud"],
        because: "leadership is about the Lease alone",
    },
    Rule { part: "settings", not: &["crate::allocation::decide"], because: "settings are told, they decide nothing" },
    Rule { part: "telemetry", not: &["crate::allocation::decide"], because: "telemetry tells, it decides nothing" },
    Rule { part: "http", not: &["crate::allocation::decide"], because: "http serves, it decides nothing" },
];

#[test]
fn no_module_knows_what_it_must_not() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > 20, "only {} files found", files.len());
    let all: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
            offences(&name, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_rules_are_about_modules_that_exist() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for rule in RULES {
        let file = src.join(format!("{}.rs", rule.part.replace("::", "/")));
        assert!(file.exists(), "{} is gone: change the rule with it", rule.part);
    }
}

#[test]
fn each_kind_of_trespass_is_caught() {
    for (file, source, told) in [
        ("lifecycle/pass.rs", "use crate::cloud::Cloud;", "crate::cloud::Cloud"),
        ("lifecycle/pass.rs", "use crate::{lifecycle::machine, api::{self, Spec}};", "crate::api"),
        ("lifecycle/pass.rs", "fn f() -> super::super::allocation::X {}", "crate::allocation::X"),
        ("lifecycle.rs", "fn f(x: &super::api::Spec) {}", "crate::api::Spec"),
        ("api.rs", "use crate::cloud::Provider;", "crate::cloud::Provider"),
        ("allocation/decide.rs", "use kube::Api;", "kube::Api"),
        ("allocation/decide/users.rs", "use k8s_openapi::api::core::v1::Pod;", "k8s_openapi"),
        ("allocation/decide/users.rs", "pub async fn users() {}", "async"),
        ("allocation/decide.rs", "let now = jiff::Timestamp::now();", "Timestamp::now"),
        ("allocation/decide.rs", "tracing::info!(\"x\");", "tracing"),
        ("allocation/decide.rs", "use super::observe::Observed;", "crate::allocation::observe"),
        ("allocation/act.rs", "use google_cloud_compute_v1::client::Instances;", "google_cloud"),
        ("allocation/observe.rs", "use crate::cloud::gcp::Gcp;", "crate::cloud::gcp"),
        ("cloud.rs", "use kube::Client;", "kube::Client"),
        ("cloud/gcp.rs", "use crate::allocation::decide::Effect;", "crate::allocation"),
        ("cloud/gcp/calls.rs", "use super::super::aws::Aws;", "crate::cloud::aws"),
        ("cloud/aws.rs", "use google_cloud_gax::Error;", "google_cloud_gax"),
        ("cloud/metered.rs", "use google_cloud_gax::Error;", "google_cloud_gax"),
        ("telemetry.rs", "use google_cloud_gax::Error;", "google_cloud_gax"),
        ("leader.rs", "use crate::cloud::Cloud;", "crate::cloud::Cloud"),
    ] {
        let found = offences(file, source);
        assert!(found.iter().any(|line| line.contains(told)), "{file}: {source}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_told() {
    for (file, source) in [
        ("lifecycle/finalizer.rs", "use kube::{Api, api::Patch};"),
        ("lifecycle.rs", "//! Not crate::cloud, and \"crate::api\".\npub use pass::run;"),
        ("allocation/decide.rs", "use crate::{cloud::{ErrorKind, MachineId}, lifecycle};"),
        ("allocation/decide.rs", "let text = \"kube::Api // async\"; // tokio::spawn"),
        ("allocation/decide.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use kube::Api; }"),
        ("allocation/observe.rs", "use kube::Api; use crate::cloud::Cloud;"),
        ("cloud.rs", "pub mod gcp; fn connect() { gcp::Gcp::new() }"),
        ("cloud/gcp.rs", "use google_cloud_compute_v1::client::Instances; use super::{Cloud, Scope};"),
        ("cloud/gcp/calls.rs", "use google_cloud_gax::Error; use super::super::Scope;"),
    ] {
        assert_eq!(offences(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

/// What `file` (relative to `src/`) knows and must not, in sentences.
fn offences(file: &str, source: &str) -> Vec<String> {
    let module = file.trim_end_matches(".rs").replace('/', "::");
    let known = paths(&module, source);
    let mut found = BTreeSet::new();
    let mut tell = |path: &str, because: &str| {
        found.insert(format!("src/{file} knows `{path}`: {because}"));
    };
    for path in &known {
        for rule in RULES.iter().filter(|rule| is_within(&module, rule.part)) {
            let own = rule.part != "api" || !is_within(path, "crate::api");
            if own && rule.not.iter().any(|not| touches(path, not)) {
                tell(path, rule.because);
            }
        }
        for (sdk, provider) in [("google_", "gcp"), ("aws_", "aws"), ("azure_", "azure")] {
            if touches(path, sdk) && !is_within(&module, &format!("cloud::{provider}")) {
                tell(path, "an SDK is known to its own provider alone");
            }
        }
        for provider in PROVIDERS.iter().filter(|p| is_within(&module, &format!("cloud::{p}"))) {
            for other in PROVIDERS.iter().filter(|other| *other != provider) {
                if is_within(path, &format!("crate::cloud::{other}")) {
                    tell(path, "providers do not know each other");
                }
            }
        }
    }
    found.into_iter().collect()
}

fn is_within(path: &str, part: &str) -> bool {
    path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"))
}

fn touches(path: &str, not: &str) -> bool {
    // A call is forbidden by whatever way its type came into scope.
    let call = not.contains("::") && !not.starts_with("crate");
    let sdk = not.ends_with('_') && path.starts_with(not);
    sdk || is_within(path, not) || (call && path.ends_with(not))
}

/// Every path in the code, with `self`, `super` and `use` trees resolved, and the bare words `async` and `await`.
fn paths(module: &str, source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let mut paths = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        if token == "use" {
            let end = tokens[at..].iter().position(|t| t == ";").map_or(tokens.len(), |n| at + n);
            let mut rest = &tokens[at + 1..end];
            tree("", &mut rest, &mut |path| {
                paths.insert(resolve(module, path));
            });
            at = end;
        } else if is_word(token) {
            let mut path = token.to_owned();
            while tokens.get(at + 1).is_some_and(|t| t == "::") && tokens.get(at + 2).is_some_and(|t| is_word(t)) {
                path = format!("{path}::{}", tokens[at + 2]);
                at += 2;
            }
            if path.contains("::") || path == "async" || path == "await" {
                paths.insert(resolve(module, &path));
            }
        }
        at += 1;
    }
    paths
}

/// `a::{b, c::d as e}` → `a::b`, `a::c::d`.
fn tree(prefix: &str, rest: &mut &[String], emit: &mut dyn FnMut(&str)) {
    let mut path = prefix.to_owned();
    let mut open = false;
    while let Some((token, after)) = rest.split_first() {
        *rest = after;
        match token.as_str() {
            "{" => {
                open = true;
                while let Some(next) = rest.first() {
                    if next == "}" {
                        *rest = &rest[1..];
                        break;
                    }
                    tree(&path, rest, emit);
                }
            }
            "," => break,
            "::" => {}
            "as" => *rest = rest.get(1..).unwrap_or_default(),
            word => path = if path.is_empty() { word.to_owned() } else { format!("{path}::{word}") },
        }
        if rest.first().is_some_and(|next| next == "}") {
            break;
        }
    }
    if !open && !path.is_empty() {
        emit(path.trim_end_matches("::self"));
    }
}

fn resolve(module: &str, path: &str) -> String {
    let mut here: Vec<&str> = std::iter::once("crate").chain(module.split("::")).collect();
    let mut parts = path.split("::").peekable();
    match parts.peek() {
        Some(&"self") => {
            parts.next();
        }
        Some(&"super") => {
            while parts.next_if_eq(&"super").is_some() {
                here.pop();
            }
        }
        _ => return path.to_owned(),
    }
    here.extend(parts);
    here.join("::")
}

/// Words and punctuation of the code before its unit tests; comments and literals are left out.
fn tokens(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut tokens = Vec::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => {
                            chars.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ':' if chars.next_if_eq(&':').is_some() => tokens.push("::".to_owned()),
            c if is_word_part(c) => {
                let mut word = c.to_string();
                while let Some(c) = chars.next_if(|c| is_word_part(*c)) {
                    word.push(c);
                }
                tokens.push(word);
            }
            c if c.is_whitespace() => {}
            // A quote is a character literal or a lifetime; a literal quote would open a string that is none.
            '\'' => {
                if chars.next_if_eq(&'"').is_some() {
                    chars.next();
                }
            }
            c => tokens.push(c.to_string()),
        }
    }
    tokens
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_word_part)
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
