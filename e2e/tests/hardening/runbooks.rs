//! The commands in `docs/runbooks`, run as a person would: those that look as they stand, those that change something as
//! a dry run that the API server judges.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use e2e::stage::Stage;
use kube::ResourceExt;

use super::acts::{allocation, cast, deployment, pool, reserve, running};

/// Verbs that only look.
const LOOKS: &[&str] = &["get", "describe", "auth"];
/// Verbs that change something, all of which know `--dry-run=server`.
const CHANGES: &[&str] = &["annotate", "delete", "patch", "scale", "taint", "uncordon"];
/// Not to be run here: the pretended kubelet serves neither logs nor exec, an editor is a person's, a restart is no dry run, and
/// the plugin has tests of its own (`kubectl_nia.rs`).
const LEFT: &[&str] = &["logs", "exec", "edit", "rollout", "apply", "nia"];

pub async fn play(stage: &Stage) -> Result<()> {
    let (name, ip) = ("runbook", "203.0.113.40");
    reserve(stage, &[ip])?;
    pool(stage, name, 1).await?;
    stage.cluster.apply(&deployment(name, 1, 1)).await?;
    stage.cluster.apply(&allocation(name, &[ip], &format!("workloadRef: {{kind: Deployment, name: {name}}}"))).await?;
    let node = stage.until_attached(name, ip).await?;
    let user = running(stage, name, 1).await?[0].name_any();
    let operator = cast(stage).await?[0].name_any();

    let commands = commands()?;
    ensure!(commands.len() > 40, "only {} commands are found", commands.len());
    let mut wrong = Vec::new();
    let mut run = 0;
    for command in &commands {
        let mut args = words(command).with_context(|| command.clone())?;
        let ours = args.iter().any(|arg| arg == "ip-address-controller");
        let pod = if ours { &operator } else { &user };
        for arg in args.iter_mut().filter(|arg| !arg.starts_with("custom-columns")) {
            *arg =
                arg.replace("NAME", name).replace("NODE", &node).replace("POD", pod).replace("=IP", &format!("={ip}"));
        }
        let verbs = [LOOKS, CHANGES, LEFT].concat();
        let verb = args.iter().find(|arg| verbs.contains(&arg.as_str())).cloned();
        match verb.as_deref().with_context(|| format!("no verb that is known: {command}"))? {
            verb if LEFT.contains(&verb) => continue,
            verb if CHANGES.contains(&verb) => args.push("--dry-run=server".to_owned()),
            _ => {}
        }
        run += 1;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match stage.cluster.kubectl(&args).await {
            // What is asked of a condition, an address or a node is there to be told.
            Ok(said) if said.is_empty() && command.contains("range .status.addresses") => {
                wrong.push(format!("{command}: says nothing"));
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("{command}: {error:#}")),
        }
    }
    println!("ran {run} of {} commands", commands.len());
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Every command line that begins with kubectl, in a block or in a sentence.
fn commands() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for page in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks"))? {
        let text = fs::read_to_string(page?.path())?;
        let parts: Vec<&str> = text.split("```").collect();
        let blocks = parts.iter().skip(1).step_by(2).flat_map(|block| block.lines().skip(1)).map(str::to_owned);
        let sentences: String =
            parts.iter().step_by(2).flat_map(|part| part.lines()).flat_map(|line| [line.trim(), " "]).collect();
        let inline = sentences.split('`').skip(1).step_by(2).map(str::to_owned);
        found.extend(blocks.chain(inline).filter_map(|line| line.strip_prefix("kubectl ").map(str::to_owned)));
    }
    Ok(found)
}

/// As a shell would split it.
fn words(command: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | ';' | '&' | '$') => bail!("needs a shell"),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "an open quote");
    words.extend(word);
    Ok(words)
}
