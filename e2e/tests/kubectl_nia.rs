//! The plugin `kubectl nia` on a real control plane, run by kubectl itself: each verb, what it refuses, and its exit codes.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{path::PathBuf, process::Stdio};

use acts::{
    OPERATOR, Theatre, allocation, at_rest, deployment, in_time, pool, program::Ended, reserve, running, still_there,
    surveys, until_moved,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
};
use ip_address_controller::{
    api::{AddressStatus, FINALIZER, HOLD_ANNOTATION, MOVE_ANNOTATION, NetIPAllocation},
    kubectl_nia::refusal::Exit,
};
use kube::ResourceExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

static THEATRE: Theatre = Theatre::new();

const NAME: &str = "plugin";
const IPS: [&str; 2] = ["203.0.113.180", "203.0.113.181"];
/// No allocation's.
const STRANGER: &str = "203.0.113.189";
/// Somebody else's, on a machine of the pool: only the cloud knows.
const HIDDEN: &str = "203.0.113.188";
/// Of an allocation whose pod holds it.
const HELD: &str = "203.0.113.186";
/// Of an allocation that has no node to go to.
const NOWHERE: &str = "203.0.113.187";

#[test]
fn every_verb_of_the_plugin_does_what_its_page_says_and_refuses_in_one_sentence() -> Result<()> {
    THEATRE.bare(async |stage| {
        let user = User::admin(stage);
        without_the_crd(&user).await?;
        stage.install(&[]).await?;
        stage.until_led(None).await?;
        let nodes = at_rest(stage, NAME, &IPS).await?;
        for (ip, node) in IPS.iter().zip(&nodes) {
            let quiet = format!("is on node {node}");
            stage.until("a sentence that stays", NAME, ip, |is| is.message.as_ref() == Some(&quiet)).await?;
        }
        stage.world.clear_calls();
        list_in_every_form(&user, &nodes).await?;
        tell_why(&user, &nodes).await?;
        plan_without_a_change(stage, &user, &nodes).await?;
        count_what_a_drain_makes_worse(stage, &user, &nodes).await?;
        complete(&user).await?;
        go_by_the_context(stage, &user).await?;
        refuse(stage, &user, &nodes).await?;
        still_there(stage, NAME, &IPS, &nodes).await?;
        name_the_missing_right(stage, &nodes).await?;
        pass_the_clusters_and_the_operators_refusal_on(stage, &user, &nodes).await?;
        move_and_remember(stage, &user, &nodes).await?;
        wait_for_a_pod_that_holds(stage, &user).await?;
        release_without_an_operator(stage, &user).await
    })
}

/// Somebody with a kubeconfig, and the plugin beside kubectl.
struct User<'a> {
    stage: &'a Stage,
    kubeconfig: PathBuf,
}

impl<'a> User<'a> {
    fn admin(stage: &'a Stage) -> Self {
        Self { stage, kubeconfig: stage.cluster.kubeconfig().to_owned() }
    }

    /// One with the rights of a ServiceAccount, and no others.
    async fn account(stage: &'a Stage, name: &str) -> Result<Self> {
        Ok(Self { stage, kubeconfig: stage.cluster.kubeconfig_for_service_account("default", name).await? })
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        self.stage.kubectl_with_plugin(&self.kubeconfig, args)
    }

    async fn kubectl(&self, args: &[&str]) -> Result<Ended> {
        let output = in_time("kubectl ends", self.command(args)?.output()).await??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
    }

    async fn nia(&self, args: &[&str]) -> Result<Ended> {
        self.kubectl(&[&["nia"], args].concat()).await
    }

    /// What it said, having ended so.
    async fn said(&self, args: &[&str], exit: Exit) -> Result<String> {
        let ended = self.nia(args).await?;
        ensure!(ended.code == Some(exit.code().into()), "kubectl nia {args:?} should end with {exit:?}: {ended:#?}");
        ensure!(!ended.out.contains('\x1b'), "colours beside a terminal: {ended:#?}");
        Ok(ended.out)
    }

    /// One sentence, with these words in it, and nothing on stdout.
    async fn refused(&self, args: &[&str], exit: Exit, words: &str) -> Result<()> {
        let ended = self.nia(args).await?;
        ensure!(ended.code == Some(exit.code().into()), "kubectl nia {args:?} should end with {exit:?}: {ended:#?}");
        ensure!(ended.out.is_empty() && ended.err.lines().count() == 1, "not one sentence: {ended:#?}");
        ensure!(ended.err.contains(words), "{words:?} is not in {:?}", ended.err);
        Ok(())
    }
}

fn shows(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

/// The node of the pool without an address.
fn spare(nodes: &[String]) -> Result<String> {
    let pool = (0..=IPS.len()).map(|number| format!("{NAME}-{number}"));
    pool.into_iter().find(|node| !nodes.contains(node)).context("no spare node")
}

async fn without_the_crd(user: &User<'_>) -> Result<()> {
    for args in [&["why", STRANGER][..], &["move", STRANGER], &["plan"], &["history"], &[]] {
        user.refused(args, Exit::NotInstalled, "does not know NetIPAllocations; install the operator's chart").await?;
    }
    user.refused(&["mvoe", STRANGER], Exit::Usage, "see --help").await?;
    for help in [&["move", "--help"][..], &["help", "move"]] {
        shows(&user.said(help, Exit::Done).await?, &["Usage: kubectl nia move", "Example:"])?;
    }
    Ok(())
}

async fn list_in_every_form(user: &User<'_>, nodes: &[String]) -> Result<()> {
    let table = user.said(&[], Exit::Done).await?;
    ensure!(table.lines().count() == 1 + IPS.len(), "{table}");
    for (ip, node) in IPS.iter().zip(nodes) {
        let line = table.lines().find(|line| line.starts_with(ip)).context("an address is not shown")?;
        shows(line, &[node, "Attached", "Verified", NAME])?;
    }
    shows(&user.said(&["-o", "wide"], Exit::Done).await?, &["MESSAGE", &format!("is on node {}", nodes[0])])?;
    let json: Value = serde_json::from_str(&user.said(&["-o", "json", "-A"], Exit::Done).await?)?;
    let yaml: Value = serde_yaml::from_str(&user.said(&["-o", "yaml"], Exit::Done).await?)?;
    ensure!(json == yaml, "{json} is not {yaml}");
    let shown: Vec<(&str, &str)> = json["addresses"]
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|row| Some((row["address"].as_str()?, row["node"].as_str()?)))
        .collect();
    let wanted: Vec<(&str, &str)> = IPS.iter().copied().zip(nodes.iter().map(String::as_str)).collect();
    ensure!(shown == wanted, "{json}");
    Ok(())
}

async fn tell_why(user: &User<'_>, nodes: &[String]) -> Result<()> {
    let told = user.said(&["why", IPS[0]], Exit::Done).await?;
    let here = format!("{} of NetIPAllocation {NAME} is on node {}: Attached (Verified), since", IPS[0], nodes[0]);
    shows(&told, &[&here, "It last came to node", "trace ", "has this address", "Eligible"])?;
    user.refused(&["why", STRANGER], Exit::Unknown, "is no address of any NetIPAllocation").await
}

async fn plan_without_a_change(stage: &Stage, user: &User<'_>, nodes: &[String]) -> Result<()> {
    let spare = spare(nodes)?;
    let before = stage.allocation(NAME).await?.context("no allocation")?;
    let now = user.said(&["plan"], Exit::Done).await?;
    shows(&now, &["As things are:", "stays", "0 of 2 addresses move", "eligible nodes left: 1"])?;
    for (option, reason, done) in [("--drain", "NodeCordoned", "drained"), ("--lose", "MachineGone", "lost")] {
        let told = user.said(&["plan", option, &nodes[0]], Exit::Done).await?;
        let line = told.lines().find(|line| line.starts_with(IPS[0])).context("the address is not shown")?;
        shows(line, &[&nodes[0], &spare, reason])?;
        shows(&told, &["1 of 2 addresses move, 0 without a fitting node, eligible nodes left: 0"])?;
        ensure!(!told.lines().any(|line| line.starts_with(IPS[1])), "what stays has a line: {told}");
        let answer = format!("{} can be {done}: its address has somewhere to go.", nodes[0]);
        ensure!(told.lines().last() == Some(answer.as_str()), "{told}");
    }
    let told = user.said(&["plan", NAME, "--add", STRANGER], Exit::Done).await?;
    let line = told.lines().find(|line| line.starts_with(STRANGER)).context("the address is not shown")?;
    shows(line, &[&spare])?;
    let told = user.said(&["plan", "--drain", &nodes[0], "--drain", &spare], Exit::Stranded).await?;
    shows(&told, &["NO NODE", "NoTarget", "1 without a fitting node"])?;
    let answer = format!("{spare} cannot be drained: {} would have no fitting node.", IPS[0]);
    shows(told.lines().last().unwrap_or_default(), &[&answer])?;
    user.refused(&["plan", "--drain", "nowhere"], Exit::Unknown, "there is no node nowhere").await?;
    user.refused(&["plan", "nobody"], Exit::Unknown, "there is no NetIPAllocation nobody").await?;

    let after = stage.allocation(NAME).await?.context("no allocation")?;
    // Its version may be another: what the operator counts it writes some seconds late.
    let meta = |object: &NetIPAllocation| (object.metadata.generation, object.annotations().clone());
    ensure!(meta(&before) == meta(&after) && before.spec == after.spec, "the allocation was changed");
    for node in nodes.iter().chain([&spare]) {
        let spec = stage.node(node).await?.and_then(|node| node.spec).unwrap_or_default();
        ensure!(!spec.unschedulable.unwrap_or_default(), "{node} was cordoned");
    }
    still_there(stage, NAME, &IPS, nodes).await
}

/// An address that has no node already is not the drain's fault; one that the mode keeps on the node is.
async fn count_what_a_drain_makes_worse(stage: &Stage, user: &User<'_>, nodes: &[String]) -> Result<()> {
    let lost = "plugin-strangers";
    reserve(stage, &[NOWHERE])?;
    let cordoned = &pool(stage, lost, 1).await?[0];
    stage.cluster.kubectl(&["cordon", cordoned]).await?;
    stage.cluster.apply(&allocation(lost, &[NOWHERE], "")).await?;
    let stranded = |is: &AddressStatus| is.reason.as_deref() == Some("NoEligibleNode");
    stage.until("it has no node to go to", lost, NOWHERE, stranded).await?;
    user.said(&["plan"], Exit::Stranded).await?;
    let told = user.said(&["plan", "--drain", &nodes[0]], Exit::Done).await?;
    let line = told.lines().find(|line| line.starts_with(NOWHERE)).context("the address is not shown")?;
    shows(line, &["NO NODE"])?;
    stage.cluster.kubectl(&["delete", "nia", lost, "--timeout=60s"]).await?;

    set_mode(stage, "Hold").await?;
    let told = user.said(&["plan", "--drain", &nodes[0]], Exit::Stranded).await?;
    shows(&told, &["KEPT", "1 kept on a node that it must leave"])?;
    let spare = spare(nodes)?;
    let told = user.said(&["plan", "--drain", &spare], Exit::Done).await?;
    shows(&told, &[&format!("{spare} can be drained: it has no reserved address.")])?;
    set_mode(stage, "Enforce").await?;
    still_there(stage, NAME, &IPS, nodes).await
}

async fn set_mode(stage: &Stage, mode: &str) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"mode":"{mode}"}}}}"#);
    stage.cluster.kubectl(&["patch", "nia", NAME, "--type=merge", "-p", &patch]).await.map(drop)
}

/// A kubeconfig whose own context leads nowhere.
async fn go_by_the_context(stage: &Stage, user: &User<'_>) -> Result<()> {
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(&user.kubeconfig)?)?;
    let here = config["current-context"].as_str().context("no context")?.to_owned();
    let mut add = |list: &str, item: Value| config[list].as_array_mut().map(|items| items.push(item));
    add("clusters", json!({"name": "nowhere", "cluster": {"server": "http://127.0.0.1:9"}})).context("no clusters")?;
    add("contexts", json!({"name": "nowhere", "context": {"cluster": "nowhere", "user": ""}}))
        .context("no contexts")?;
    config["current-context"] = "nowhere".into();
    let kubeconfig = stage.cluster.dir().join("nowhere.kubeconfig");
    std::fs::write(&kubeconfig, serde_yaml::to_string(&config)?)?;
    let elsewhere = User { stage, kubeconfig };
    elsewhere.refused(&[], Exit::Failed, "the cluster cannot be asked to list netipallocations").await?;
    shows(&elsewhere.said(&["--context", &here], Exit::Done).await?, &IPS)?;
    let addresses = elsewhere.said(&["__complete", "--context", &here, "why", ""], Exit::Done).await?;
    shows(&addresses, &IPS)?;
    let none = elsewhere.said(&["__complete", "why", ""], Exit::Done).await?;
    ensure!(none.trim() == ":4", "{none}");
    Ok(())
}

/// kubectl itself asks the plugin.
async fn complete(user: &User<'_>) -> Result<()> {
    let verbs = user.kubectl(&["__complete", "nia", ""]).await?;
    shows(&verbs.out, &["why", "plan", "move", "history"])?;
    let addresses = user.kubectl(&["__complete", "nia", "why", ""]).await?;
    shows(&addresses.out, &IPS)?;
    let nodes = user.kubectl(&["__complete", "nia", "plan", "--drain", NAME]).await?;
    shows(&nodes.out, &[&format!("{NAME}-0"), &format!("{NAME}-1")])?;
    let script = user.said(&["completion"], Exit::Done).await?;
    shows(&script, &["#!/bin/sh", "exec kubectl-nia __complete"])
}

async fn refuse(stage: &Stage, user: &User<'_>, nodes: &[String]) -> Result<()> {
    let spare = spare(nodes)?;
    let ip = IPS[0];
    user.refused(&["move", STRANGER], Exit::Unknown, "is no address of any NetIPAllocation").await?;
    user.refused(&["move", ip, "nowhere"], Exit::Unknown, "there is no node nowhere").await?;
    user.refused(&["move", ip, &nodes[0]], Exit::Refused, "already").await?;
    user.refused(&["move", ip, &nodes[1]], Exit::Refused, "HoldsAddress").await?;
    user.refused(&["move", ip, "operator-host"], Exit::Refused, "not selected by spec.nodeSelector").await?;
    stage.cluster.kubectl(&["cordon", &spare]).await?;
    user.refused(&["move", ip, &spare, "--wait"], Exit::Refused, "(Cordoned); no node can take it now").await?;
    user.refused(&["move", ip], Exit::Refused, "would not move").await?;
    stage.cluster.kubectl(&["uncordon", &spare]).await?;

    set_mode(stage, "Hold").await?;
    user.refused(&["move", ip], Exit::Refused, "mode Hold").await?;
    // The operator does not answer in this mode, so the request stands.
    let request = format!("{MOVE_ANNOTATION}={ip}");
    stage.cluster.kubectl(&["annotate", "nia", NAME, &request]).await?;
    user.refused(&["move", IPS[1]], Exit::Refused, "another move of NetIPAllocation plugin is not answered yet")
        .await?;
    stage.cluster.kubectl(&["annotate", "nia", NAME, &format!("{MOVE_ANNOTATION}-")]).await?;
    set_mode(stage, "Enforce").await?;
    let object = stage.allocation(NAME).await?.context("no allocation")?;
    ensure!(!object.annotations().contains_key(MOVE_ANNOTATION), "something was asked for: {:?}", object.annotations());
    Ok(())
}

/// Accounts that may do nothing, look at allocations, and look at nodes as well.
async fn name_the_missing_right(stage: &Stage, nodes: &[String]) -> Result<()> {
    for name in ["nobody", "onlooker", "planner"] {
        stage.cluster.kubectl(&["create", "serviceaccount", name]).await?;
    }
    for (role, resource, names) in [
        ("see-allocations", "netipallocations.netinfra.darkbrains.com", &["onlooker", "planner"][..]),
        ("see-nodes", "nodes", &["planner"]),
    ] {
        let resource = format!("--resource={resource}");
        stage.cluster.kubectl(&["create", "clusterrole", role, "--verb=list", &resource]).await?;
        for name in names {
            let (binding, account) = (format!("{role}-{name}"), format!("--serviceaccount=default:{name}"));
            let role = format!("--clusterrole={role}");
            stage.cluster.kubectl(&["create", "clusterrolebinding", &binding, &role, &account]).await?;
        }
    }
    let ip = IPS[0];
    let nobody = User::account(stage, "nobody").await?;
    for args in [&["why", ip][..], &["plan"], &["move", ip], &["history"], &["release", NAME], &[], &["--watch"]] {
        nobody.refused(args, Exit::Forbidden, "you may not list netipallocations").await?;
    }
    let onlooker = User::account(stage, "onlooker").await?;
    let told = onlooker.said(&["why", ip], Exit::Done).await?;
    shows(&told, &[&format!("is on node {}", nodes[0]), "you may not list nodes"])?;
    let told = onlooker.said(&["history", ip], Exit::Done).await?;
    shows(&told, &["LastMove", "Events are not shown: you may not list events"])?;
    onlooker.refused(&["plan"], Exit::Forbidden, "verb \"list\" on resource \"nodes\"").await?;
    onlooker.refused(&["release", NAME], Exit::Forbidden, "you may not list nodes").await?;
    // The list comes first, and is allowed.
    let watched = onlooker.nia(&["--watch"]).await?;
    ensure!(watched.code == Some(Exit::Forbidden.code().into()), "{watched:#?}");
    shows(&watched.out, &IPS)?;
    shows(&watched.err, &["you may not watch netipallocations"])?;
    let planner = User::account(stage, "planner").await?;
    let told = planner.said(&["plan", "--drain", &nodes[0]], Exit::Done).await?;
    shows(&told, &["Who uses the addresses is not known: you may not list pods", "NodeCordoned"])?;
    planner.refused(&["move", ip], Exit::Forbidden, "verb \"patch\" on resource \"netipallocations\"").await?;
    still_there(stage, NAME, &IPS, nodes).await
}

/// What only admission, and only the operator knows to be against a move.
async fn pass_the_clusters_and_the_operators_refusal_on(
    stage: &Stage,
    user: &User<'_>,
    nodes: &[String],
) -> Result<()> {
    let ip = IPS[0];
    stage.cluster.kubectl(&["create", "serviceaccount", "mover"]).await?;
    let verbs = "--verb=get,list,watch,patch";
    let resource = "--resource=netipallocations.netinfra.darkbrains.com";
    stage.cluster.kubectl(&["create", "clusterrole", "ask-for-moves", verbs, resource]).await?;
    for role in ["ask-for-moves", "see-nodes"] {
        let (name, role) = (format!("{role}-mover"), format!("--clusterrole={role}"));
        let account = "--serviceaccount=default:mover";
        stage.cluster.kubectl(&["create", "clusterrolebinding", &name, &role, account]).await?;
    }
    let mover = User::account(stage, "mover").await?;
    mover.refused(&["move", ip], Exit::Refused, "you need create on pods/eviction there").await?;

    let held = format!("{NAME}-held");
    stage.add_node(&held, stage.venue.zones[0], &[("role", NAME)]).await?;
    reserve(stage, &[HIDDEN])?;
    stage.world.move_address(HIDDEN.parse()?, &held).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    surveys(stage, 2).await?;
    for wait in [&[][..], &["--wait"]] {
        let ended = user.nia(&[&["move", ip, &held], wait].concat()).await?;
        ensure!(ended.code == Some(Exit::Refused.code().into()) && ended.out.is_empty(), "{ended:#?}");
        let said = format!("the operator refuses: node {held} cannot take {ip}: it holds an address or is about to");
        shows(ended.err.lines().last().unwrap_or_default(), &[&said])?;
    }
    stage.cluster.kubectl(&["delete", "node", &held]).await?;
    stage.world.delete_machine(&held);
    still_there(stage, NAME, &IPS, nodes).await
}

async fn move_and_remember(stage: &Stage, user: &User<'_>, nodes: &[String]) -> Result<()> {
    let (ip, from, to) = (IPS[0], &nodes[0], spare(nodes)?);
    let mut watch = user.command(&["nia", "--watch", "-o", "json"])?.stdout(Stdio::piped()).spawn()?;
    let mut changes = BufReader::new(watch.stdout.take().context("no stdout")?).lines();
    for _ in IPS {
        in_time("the watch shows what there is", changes.next_line()).await??;
    }

    let moved = user.nia(&["move", ip, &to, "--wait", "--timeout", "110s"]).await?;
    ensure!(moved.code == Some(0), "{moved:#?}");
    shows(
        &moved.out,
        &[&format!("{ip} is on node {to}. It last moved from node {from} to node {to} (MoveRequested)")],
    )?;
    shows(&moved.err, &[&format!("{ip} is asked to move from node {from} to node {to}")])?;
    let entry = until_moved(stage, NAME, ip, from).await?;
    ensure!(entry.last_move.as_ref().is_some_and(|moved| moved.reason == "MoveRequested"), "{entry:?}");
    let object = stage.allocation(NAME).await?.context("no allocation")?;
    ensure!(!object.annotations().contains_key(MOVE_ANNOTATION), "the request still stands");
    let arrived = async {
        while let Some(line) = changes.next_line().await? {
            let row: Value = serde_json::from_str(&line)?;
            if row["address"] == ip && row["state"] == "Attached" && row["node"] == to.as_str() {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    in_time("the watch shows the move", arrived).await??;
    watch.kill().await?;

    // The node that it left has got an address of its own again, and may take another one.
    nothing_is_owed(stage, NAME).await?;
    // Without --wait it is asked, and followed until it is answered.
    let asked = user.said(&["move", ip], Exit::Done).await?;
    shows(&asked, &[&format!("{ip} is asked to move from node {to} to node {from}, and the operator follows")])?;
    until_moved(stage, NAME, ip, &to).await?;
    // Events are written beside the pass.
    wait_for("the history tells of the move", PATIENCE, || async {
        let told = user.said(&["history", ip], Exit::Done).await?;
        let whole = ["IPDraining", "IPReallocated", "MoveAccepted", "LastMove", "MoveRequested"];
        Ok(Seen::when(whole.iter().all(|part| told.contains(part)) && !told.contains(IPS[1]), told))
    })
    .await?;
    user.refused(&["history", STRANGER], Exit::Unknown, "is no address of any NetIPAllocation").await
}

async fn nothing_is_owed(stage: &Stage, name: &str) -> Result<()> {
    wait_for("nothing is owed", PATIENCE, || async {
        let owed = stage.allocation(name).await?.and_then(|object| object.status).map(|status| status.owed);
        Ok(Seen::when(owed.as_ref().is_some_and(Vec::is_empty), owed))
    })
    .await
}

/// Whoever plans a drain, asks why, or waits for a move is told of the pod by name; and what has begun goes on.
async fn wait_for_a_pod_that_holds(stage: &Stage, user: &User<'_>) -> Result<()> {
    let name = "plugin-calls";
    reserve(stage, &[HELD])?;
    pool(stage, name, 2).await?;
    let workload = format!("workloadRef: {{kind: Deployment, name: {name}, namespace: default}}");
    stage.cluster.apply(&allocation(name, &[HELD], &workload)).await?;
    let node = stage.until_attached(name, HELD).await?;
    stage.cluster.apply(&deployment(name, 1, 1)).await?;
    let pod = running(stage, name, 1).await?.first().context("no pod")?.name_any();
    stage.cluster.kubectl(&["annotate", "pod", &pod, &format!("{HOLD_ANNOTATION}=true")]).await?;

    let told = user.said(&["plan", "--drain", &node], Exit::Done).await?;
    let line = told.lines().find(|line| line.starts_with(HELD)).context("the address is not shown")?;
    shows(line, &[&pod, "hold"])?;

    stage.cluster.kubectl(&["cordon", &node]).await?;
    let waits = |is: &AddressStatus| is.message.as_ref().is_some_and(|said| said.contains(&pod));
    stage.until("the pod is waited for", name, HELD, waits).await?;
    shows(&user.said(&["why", HELD], Exit::Done).await?, &["Draining", &pod, "hold"])?;

    let late = user.nia(&["move", HELD, "--wait", "--timeout", "10s"]).await?;
    ensure!(late.code == Some(Exit::TimedOut.code().into()), "{late:#?}");
    shows(&late.err, &[&pod, "hold", "the move goes on"])?;
    ensure!(stage.world.machine_of(HELD.parse()?).as_ref() == Some(&node), "the address has left under a pod");

    stage.cluster.kubectl(&["annotate", "pod", &pod, &format!("{HOLD_ANNOTATION}-")]).await?;
    until_moved(stage, name, HELD, &node).await?;
    let follows = running(stage, name, 1).await?;
    ensure!(follows.iter().all(|other| other.name_any() != pod), "{pod} still runs");
    nothing_is_owed(stage, name).await
}

async fn release_without_an_operator(stage: &Stage, user: &User<'_>) -> Result<()> {
    let leads = "an operator runs, and would put back what is taken off";
    user.refused(&["release", NAME], Exit::Refused, leads).await?;
    let held = stage.allocation(NAME).await?.context("no allocation")?;
    ensure!(held.finalizers().iter().any(|name| name == FINALIZER), "{:?}", held.finalizers());
    stage.cluster.kubectl(&["scale", "deployment", "ip-address-controller", "-n", NAMESPACE, "--replicas=0"]).await?;
    wait_for("the operator is gone", PATIENCE, || async {
        let pods = stage.pods(NAMESPACE, OPERATOR).await?;
        Ok(Seen::when(pods.is_empty(), pods.len()))
    })
    .await?;
    take_back_what_nobody_answers(stage, user).await?;
    // Nobody has looked at this one, and nobody will.
    reserve(stage, &[STRANGER])?;
    stage.cluster.apply(&allocation("unseen", &[STRANGER], "")).await?;
    user.refused(&["move", STRANGER], Exit::NotInstalled, "no operator of version 2 has looked at").await?;
    shows(&user.said(&["why", STRANGER], Exit::Done).await?, &["no operator has looked at it yet"])?;

    user.refused(&["release", "nobody"], Exit::Unknown, "there is no NetIPAllocation nobody").await?;
    let finalizer = json!({"metadata": {"finalizers": [FINALIZER]}}).to_string();
    stage.cluster.kubectl(&["patch", "nia", "unseen", "--type=merge", "-p", &finalizer]).await?;
    // Whoever does not read on does not stop it halfway.
    let mut release = user.command(&["nia", "release", "--all"])?.stdout(Stdio::piped()).spawn()?;
    drop(release.stdout.take());
    let ended = in_time("the release ends", release.wait()).await??;
    ensure!(ended.code() == Some(Exit::Done.code().into()), "{ended:?}");
    let unseen = stage.allocation("unseen").await?.context("no allocation")?;
    ensure!(unseen.finalizers().is_empty(), "{:?}", unseen.finalizers());
    shows(&user.said(&["release", NAME], Exit::Done).await?, &["released plugin"])?;
    let object = stage.allocation(NAME).await?.context("no allocation")?;
    ensure!(object.finalizers().is_empty(), "{:?}", object.finalizers());
    for number in 0..=IPS.len() {
        let labels = acts::labels(stage, &format!("{NAME}-{number}")).await?;
        ensure!(labels.is_empty(), "{labels:?}");
    }
    for ip in IPS {
        ensure!(stage.world.machine_of(ip.parse()?).is_some(), "{ip} was taken off its machine");
    }
    Ok(())
}

async fn take_back_what_nobody_answers(stage: &Stage, user: &User<'_>) -> Result<()> {
    let ip = IPS[0];
    for (more, exit, said) in [
        (&[][..], Exit::NotInstalled, "no operator has answered in 15 s"),
        (&["--wait", "--timeout", "2s"][..], Exit::TimedOut, "was not answered in 2 s"),
    ] {
        let ended = user.nia(&[&["move", ip], more].concat()).await?;
        ensure!(ended.code == Some(exit.code().into()) && ended.out.is_empty(), "{ended:#?}");
        let last = ended.err.lines().last().unwrap_or_default();
        shows(last, &[said, "the request was taken back and nothing was moved"])?;
        let object = stage.allocation(NAME).await?.context("no allocation")?;
        ensure!(!object.annotations().contains_key(MOVE_ANNOTATION), "the request still stands");
    }
    take_back_what_is_interrupted(stage, user).await
}

async fn take_back_what_is_interrupted(stage: &Stage, user: &User<'_>) -> Result<()> {
    let requested = async || {
        let object = stage.allocation(NAME).await?.context("no allocation")?;
        anyhow::Ok(object.annotations().contains_key(MOVE_ANNOTATION))
    };
    let waiting = user.command(&["nia", "move", IPS[0], "--wait"])?.stderr(Stdio::piped()).spawn()?;
    wait_for("the request stands", PATIENCE, || async { Ok(Seen::when(requested().await?, ())) }).await?;
    let pid = i32::try_from(waiting.id().context("it has ended")?)?;
    kill(Pid::from_raw(pid), Signal::SIGINT)?;
    let ended = in_time("the interrupted move ends", waiting.wait_with_output()).await??;
    ensure!(ended.status.code() == Some(Exit::Interrupted.code().into()), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    shows(told.lines().last().unwrap_or_default(), &["was taken back and nothing was moved"])?;
    ensure!(!requested().await?, "the request still stands");
    Ok(())
}
