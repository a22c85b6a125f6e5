//! The operator is granted what it uses, and nothing else: the API server's audit log beside the roles of the release.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::collections::BTreeSet;

use acts::{ACCOUNT, Theatre, allocation, cast, deployment, pool, reserve, running, template, until_unlabelled};
use anyhow::{Result, ensure};
use e2e::{
    cluster::{AuditEvent, Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{Api, ResourceExt};

static THEATRE: Theatre = Theatre::new();

/// Granted and used by nothing here, each with the reason why it stays.
const UNUSED: &[(&str, &str)] = &[(
    "update netinfra.darkbrains.com netipallocations/finalizers",
    "OpenShift's OwnerReferencesPermissionEnforcement asks for it where an allocation owns something",
)];

/// Of these there is one that is ours, and its name is known: nothing is granted on the others, but for making the Lease,
/// which cannot be limited to a name.
const BY_NAME: &[&str] = &["leases", "customresourcedefinitions", "namespaces"];

/// With everything on that asks for a right of its own.
const ALL_ON: &[&str] = &["tracing.enabled=true", "tracing.endpoint=http://127.0.0.1:1"];

#[test]
fn every_verb_used_is_granted_and_every_verb_granted_is_used() -> Result<()> {
    THEATRE.bare(async |stage| {
        stage.install(ALL_ON).await?;
        stage.until_led(None).await?;
        cast(stage).await?;
        drain_a_deployment_past_its_budget(stage).await?;
        use_a_stateful_set(stage).await?;
        use_a_daemon_set(stage).await?;
        delete_with_detach_and_with_retain(stage).await?;
        // A standby and a second leader ask for more than the first leader of all.
        let leader = stage.until_led(None).await?;
        stage.cluster.kubectl(&["delete", "pod", &leader, "-n", NAMESPACE]).await?;
        stage.until_led(Some(&leader)).await?;
        cast(stage).await?;

        let granted = granted(stage).await?;
        let nameless = |verb: &&String| !verb.starts_with("create ") && BY_NAME.iter().any(|kind| verb.ends_with(kind));
        let broad: Vec<_> = granted.iter().filter(nameless).collect();
        ensure!(broad.is_empty(), "granted on all, where one is meant: {broad:?}");
        let excused: BTreeSet<String> = UNUSED.iter().map(|(verb, _)| (*verb).to_owned()).collect();
        wait_for("all that is granted is used", PATIENCE, || async {
            let used = used(&stage.cluster.audit()?, &granted);
            let idle: Vec<_> = granted.difference(&used).filter(|verb| !excused.contains(*verb)).cloned().collect();
            Ok(Seen::when(idle.is_empty(), idle))
        })
        .await?;
        let events = stage.cluster.audit()?;
        let refused: Vec<_> = events.iter().filter(|event| event.user == ACCOUNT && event.code == 403).collect();
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        let used = used(&events, &granted);
        let beyond: Vec<_> = used.difference(&granted).collect();
        ensure!(beyond.is_empty(), "used by a right that is not the release's own: {beyond:?}");
        let stale: Vec<_> = excused.iter().filter(|verb| used.contains(*verb) || !granted.contains(*verb)).collect();
        ensure!(stale.is_empty(), "excused, but used or not granted any more: {stale:?}");
        Ok(())
    })
}

/// `VERB GROUP RESOURCE`, for every verb that the release grants; with the name, where it is granted for that alone.
async fn granted(stage: &Stage) -> Result<BTreeSet<String>> {
    let cluster: ClusterRole = Api::all(stage.client()?).get(RELEASE).await?;
    let here: Role = Api::namespaced(stage.client()?, NAMESPACE).get(RELEASE).await?;
    let rules = cluster.rules.into_iter().flatten().chain(here.rules.into_iter().flatten());
    Ok(rules.flat_map(|rule| expand(&rule)).collect())
}

fn expand(rule: &PolicyRule) -> Vec<String> {
    let mut verbs = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                match rule.resource_names.as_deref().unwrap_or_default() {
                    [] => verbs.push(spelled(verb, group, resource)),
                    names => verbs.extend(names.iter().map(|name| named(&spelled(verb, group, resource), name))),
                }
            }
        }
    }
    verbs
}

/// In the same words: with the name, unless it is granted for all.
fn used(events: &[AuditEvent], granted: &BTreeSet<String>) -> BTreeSet<String> {
    let ours = events.iter().filter(|event| event.user == ACCOUNT && !event.resource.is_empty());
    ours.map(|event| {
        let resource = match event.subresource.as_str() {
            "" => event.resource.clone(),
            subresource => format!("{}/{subresource}", event.resource),
        };
        let any = spelled(&event.verb, &event.group, &resource);
        if granted.contains(&any) { any } else { named(&any, &event.name) }
    })
    .collect()
}

fn named(verb: &str, name: &str) -> String {
    format!("{verb} {name}")
}

fn spelled(verb: &str, group: &str, resource: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("{verb} {group} {resource}")
}

/// Evict, refused by a budget more than once, then granted.
async fn drain_a_deployment_past_its_budget(stage: &Stage) -> Result<()> {
    let (name, ip) = ("evicted", "203.0.113.20");
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    let more = format!("workloadRef: {{kind: Deployment, name: {name}}}\n  drain: {{policy: Evict}}");
    stage.cluster.apply(&deployment(name, 1, 1)).await?;
    let budget = format!(
        "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}, namespace: default}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: {name}}}}}}}
"
    );
    stage.cluster.apply(&budget).await?;
    stage.cluster.apply(&allocation(name, &[ip], &more)).await?;
    let from = stage.until_attached(name, ip).await?;
    let pod = running(stage, name, 1).await?[0].name_any();
    stage.cluster.kubectl(&["cordon", &from]).await?;
    wait_for("the budget has refused twice", PATIENCE, || async {
        let refusals = stage
            .cluster
            .audit()?
            .iter()
            .filter(|event| event.subresource == "eviction" && event.name == pod && event.code == 429)
            .count();
        Ok(Seen::when(refusals >= 2, refusals))
    })
    .await?;
    stage.cluster.kubectl(&["delete", "pdb", name]).await?;
    moved(stage, name, ip, &from).await
}

async fn use_a_stateful_set(stage: &Stage) -> Result<()> {
    let (name, ip) = ("stateful", "203.0.113.21");
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    let set = format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}, namespace: default}}
spec:
  serviceName: {name}
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template: {}
",
        template(name, 1)
    );
    stage.cluster.apply(&set).await?;
    let more = format!("workloadRef: {{kind: StatefulSet, name: {name}}}\n  drain: {{policy: Evict}}");
    stage.cluster.apply(&allocation(name, &[ip], &more)).await?;
    let from = stage.until_attached(name, ip).await?;
    running(stage, name, 1).await?;
    stage.cluster.kubectl(&["cordon", &from]).await?;
    moved(stage, name, ip, &from).await
}

async fn use_a_daemon_set(stage: &Stage) -> Result<()> {
    let (name, ip) = ("daemons", "203.0.113.22");
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    let set = format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template: {}
",
        template(name, 1)
    );
    stage.cluster.apply(&set).await?;
    let more = format!("workloadRef: {{kind: DaemonSet, name: {name}}}\n  drain: {{policy: Evict}}");
    stage.cluster.apply(&allocation(name, &[ip], &more)).await?;
    let from = stage.until_attached(name, ip).await?;
    running(stage, name, 1).await?;
    stage.cluster.kubectl(&["cordon", &from]).await?;
    moved(stage, name, ip, &from).await
}

async fn delete_with_detach_and_with_retain(stage: &Stage) -> Result<()> {
    let (name, ip) = ("deleted", "203.0.113.23");
    reserve(stage, &[ip])?;
    pool(stage, name, 1).await?;
    stage.cluster.apply(&allocation(name, &[ip], "")).await?;
    let node = stage.until_attached(name, ip).await?;
    stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await?;
    until_unlabelled(stage, &node).await?;
    ensure!(stage.world.machine_of(ip.parse()?).is_none());

    stage.cluster.apply(&allocation(name, &[ip], "deletionPolicy: Retain")).await?;
    let node = stage.until_attached(name, ip).await?;
    stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await?;
    ensure!(stage.world.machine_of(ip.parse()?) == Some(node.clone()));
    ensure!(acts::labels(stage, &node).await?.len() == 3);
    Ok(())
}

async fn moved(stage: &Stage, name: &str, ip: &str, from: &str) -> Result<()> {
    stage
        .until(&format!("{ip} has left {from}"), name, ip, |entry| {
            entry.state == "Attached" && entry.node.as_deref().is_some_and(|node| node != from)
        })
        .await
        .map(|_| ())
}
