//! What keeps an address on its node and what does not, and how long: the cells of the table of leaving that depend on what
//! the API server and real pods do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::PATIENCE,
    world::Fault,
};
use ip_address_controller::{api::AddressStatus, settings::DISRUPTION_TAINTS};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};

use crate::story::{Story, parse, tell, used_by};
use futures::{StreamExt, TryStreamExt};

const HOLD: &str = "netinfra.darkbrains.com/hold";

/// Whether the sentence of an address contains this text.
fn says(text: &str) -> impl Fn(&AddressStatus) -> bool {
    move |address| address.message.as_ref().is_some_and(|said| said.contains(text))
}

impl Story {
    /// Until the gauge of an address says so; 0 is as good as silence.
    async fn gauge(&self, ip: &str, name: &str, wanted: Option<f64>) -> Result<()> {
        wait_for(&format!("{name} of {ip} is {wanted:?}"), PATIENCE, || async {
            let said = self.stage.gauges(&self.name, ip).await?.get(name).copied().filter(|said| *said != 0.0);
            Ok(Seen::when(said == wanted, said))
        })
        .await
    }

    /// How often the API server was asked to evict this pod.
    fn asked_to_go(&self, pod: &str) -> Result<usize> {
        let audit = self.stage.cluster.audit()?;
        Ok(audit.iter().filter(|event| event.subresource == "eviction" && event.name == pod).count())
    }

    /// The node of the pool of two that is not this one.
    fn other(&self, node: &str) -> String {
        format!("{}-{}", self.name, if node.ends_with('a') { 'b' } else { 'a' })
    }
}

#[tokio::test]
async fn p6_a_pod_with_the_hold_annotation_keeps_the_address_and_is_not_asked_to_go() -> Result<()> {
    tell("hold", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &format!("{}  drain: {{policy: Evict}}", used_by("Deployment", "hold"))).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "hold", 1, "").await?;
        let pods = story.running("hold", 1).await?;
        let pod = &pods[0].0;
        story.kubectl(&format!("annotate pod {pod} {HOLD}=true")).await?;
        let before = story.changed();

        story.kubectl(&format!("cordon {node}")).await?;
        let draining = story.until(&ip, says(&format!("{pod} (holds)"))).await?;
        ensure!(draining.state == "Draining", "{draining:?}");
        story.another_look().await?;
        ensure!(story.changed() == before && story.asked_to_go(pod)? == 0, "the pod was not left in peace");
        story.labelled(&node, Some(&ip)).await?;
        story.gauge(&ip, "netipallocation_ip_holding_pods", Some(1.0)).await?;
        story.gauge(&ip, "netipallocation_ip_releasing", None).await?;

        // Long enough for it to be seen that it is taken off.
        let slow = Fault::Latency(Duration::from_secs(4));
        story.stage.world.fail_next_of("instances.deleteAccessConfig", &node, slow);
        story.kubectl(&format!("annotate pod {pod} {HOLD}-")).await?;
        story.gauge(&ip, "netipallocation_ip_releasing", Some(1.0)).await?;
        ensure!(story.said(&ip, "Draining", "NodeCordoned").await?.operation.is_some(), "not being taken off");
        story.gauge(&ip, "netipallocation_ip_holding_pods", None).await?;
        story.attached_to(&ip, &story.other(&node)).await?;
        ensure!(story.asked_to_go(pod)? > 0, "it went, but not by the Eviction API");
        story.gauge(&ip, "netipallocation_ip_releasing", None).await?;
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}

#[tokio::test]
async fn p6_at_the_deadline_the_address_leaves_although_a_pod_holds_it_and_not_before() -> Result<()> {
    tell("deadline", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &format!("{}  drain: {{timeoutSeconds: 4}}", used_by("Deployment", "deadline"))).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "deadline", 1, "").await?;
        let pods = story.running("deadline", 1).await?;
        story.kubectl(&format!("annotate pod {} {HOLD}=true", pods[0].0)).await?;

        story.kubectl(&format!("cordon {node}")).await?;
        let draining = story.said(&ip, "Draining", "NodeCordoned").await?;
        let deadline = draining.deadline_time.context("no deadline in status")?.0;
        ensure!(draining.message.unwrap_or_default().contains("leaves at"), "it does not say when");
        story.attached_to(&ip, &story.other(&node)).await?;
        let cut = story.changes(&node).into_iter().rfind(|call| call.method == "instances.deleteAccessConfig");
        let cut = Timestamp::now() - jiff::SignedDuration::try_from(cut.context("never detached")?.at.elapsed())?;
        ensure!(cut >= deadline, "cut at {cut}, before the deadline {deadline}");
        ensure!(story.running("deadline", 1).await? == pods, "the pod was disturbed");
        ensure!(story.asked_to_go(&pods[0].0)? == 0, "policy Wait asks nobody to go");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_pods_that_have_failed_or_succeeded_hold_nothing() -> Result<()> {
    tell("finished", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], "").await?;
        let node = story.attached(&ip).await?;
        let pods =
            ["Failed", "Succeeded", "Running"].map(|phase| (format!("finished-{}", phase.to_lowercase()), phase));
        for (name, _) in &pods {
            story.stage.cluster.apply(&bare_pod(name, &node)).await?;
            // kwok knows no containers that end: the phase is what a kubelet would write.
            story.running(name, 1).await?;
        }
        for (name, phase) in pods.iter().filter(|(_, phase)| *phase != "Running") {
            let status = format!(r#"{{"status":{{"phase":"{phase}"}}}}"#);
            story.kubectl(&format!("patch pod {name} --subresource=status --type=merge -p {status}")).await?;
        }

        story.kubectl(&format!("cordon {node}")).await?;
        let waits = story.until(&ip, says("waits for 1 pod")).await?.message.unwrap_or_default();
        ensure!(waits.contains("finished-running"), "{waits}");
        story.kubectl("delete pod finished-running --wait=false").await?;
        story.attached_to(&ip, &story.other(&node)).await?;
        for (name, phase) in pods.iter().filter(|(_, phase)| *phase != "Running") {
            let left = story.pods(name).await?;
            let found = left.first().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
            ensure!(found == Some(phase), "pod {name} was to lie there as {phase}, and is {found:?}");
        }
        Ok(())
    })
    .await
}

/// A pod of nobody, that asks for an address and can end.
fn bare_pod(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  nodeSelector: {{ip.ready: 'true'}}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{{name: pretended, image: pretended}}]
"
    )
}

#[tokio::test]
async fn p7_policy_evict_asks_the_users_of_the_address_by_the_eviction_api_and_nobody_else() -> Result<()> {
    tell("evict", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &format!("{}  drain: {{policy: Evict}}", used_by("StatefulSet", "evict"))).await?;
        let node = story.attached(&ip).await?;
        story.run("StatefulSet", "evict", 2, "").await?;
        story.run("Deployment", "evict-guest", 1, "").await?;
        let pods = story.running("evict", 2).await?;
        let guest = story.running("evict-guest", 1).await?;

        story.kubectl(&format!("cordon {node}")).await?;
        let to = story.other(&node);
        story.attached_to(&ip, &to).await?;
        story.event("PodEvicted").await?;
        let again = story.running("evict", 2).await?;
        ensure!(again.iter().all(|(_, on)| *on == to), "the pods have not followed: {again:?}");
        for (pod, _) in &pods {
            ensure!(story.asked_to_go(pod)? == 1, "{pod} was asked {} times", story.asked_to_go(pod)?);
        }
        ensure!(story.running("evict-guest", 1).await? == guest, "who does not use the address was disturbed");
        ensure!(story.asked_to_go(&guest[0].0)? == 0, "who does not use the address was asked to go");
        let deleted = story.stage.cluster.audit()?.into_iter().filter(|event| {
            event.verb.starts_with("delete")
                && event.resource == "pods"
                && event.user.ends_with(":ip-address-controller")
        });
        ensure!(deleted.count() == 0, "the operator has deleted pods itself");
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}

#[tokio::test]
async fn a_node_out_of_service_is_left_at_once_whoever_holds() -> Result<()> {
    tell("dead", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "dead")).await?;
        let node = story.attached(&ip).await?;
        story.run_slowly("Deployment", "dead", 1, 60, "").await?;
        let pods = story.running("dead", 1).await?;
        story.kubectl(&format!("annotate pod {} {HOLD}=true", pods[0].0)).await?;

        // As the Kubernetes documentation says it for a machine that will not come back by itself.
        story.kubectl(&format!("taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")).await?;
        let to = story.other(&node);
        story.attached_to(&ip, &to).await?;
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!(moved.reason == "OutOfService", "{moved:?}");
        story.labelled(&node, None).await?;
        ensure!(story.asked_to_go(&pods[0].0)? == 0, "a pod on a dead node was asked to go");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_a_cordon_that_comes_and_goes_moves_nothing_and_never_takes_the_label_off() -> Result<()> {
    tell("flap", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "flap")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "flap", 1, "").await?;
        let pods = story.running("flap", 1).await?;
        let before = story.changed();
        let flaps = async {
            for turn in 0..6 {
                story.kubectl(&format!("cordon {node}")).await?;
                // Every other time it is seen to drain; else the uncordon comes as it may.
                if turn % 2 == 0 {
                    story.said(&ip, "Draining", "NodeCordoned").await?;
                }
                story.kubectl(&format!("uncordon {node}")).await?;
                if turn % 2 == 0 {
                    story.said(&ip, "Attached", "Verified").await?;
                }
            }
            story.another_look().await?;
            story.attached_to(&ip, &node).await
        };
        tokio::select! {
            seen = unlabelled(story) => anyhow::bail!("the label was off: {:?}", seen?.metadata.labels),
            done = flaps => done?,
        }
        ensure!(story.changed() == before, "the cloud was asked to change something");
        ensure!(story.running("flap", 1).await? == pods, "the pod was disturbed");
        Ok(())
    })
    .await
}

/// Waits for a version of a node that had an address of the story's and has no label any more.
async fn unlabelled(story: &Story) -> Result<Node> {
    let api: Api<Node> = Api::all(story.stage.client()?);
    let pool = format!("pool={}", story.name);
    let now = api.list(&ListParams::default().labels(&pool)).await?;
    let labelled = |node: &Node| node.labels().contains_key("ip.ready");
    let held: Vec<String> = now.items.iter().filter(|node| labelled(node)).map(ResourceExt::name_any).collect();
    ensure!(!held.is_empty(), "no node is labelled");
    let version = now.metadata.resource_version.unwrap_or_default();
    let mut versions = api.watch(&WatchParams::default().labels(&pool), &version).await?.boxed();
    while let Some(event) = versions.try_next().await? {
        if let WatchEvent::Modified(node) = event
            && held.contains(&node.name_any())
            && !labelled(&node)
        {
            return Ok(node);
        }
    }
    anyhow::bail!("the watch has ended")
}

/// What cluster-autoscaler, Karpenter, Google's and Amazon's handlers and the cloud controllers write before a machine goes.
const SAYS: [&str; 7] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "cloud.google.com/impending-node-termination",
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "node.cloudprovider.kubernetes.io/shutdown",
];

#[tokio::test]
async fn each_taint_that_says_that_a_machine_is_about_to_go_sends_its_address_away_early_and_a_guess_does_not()
-> Result<()> {
    tell("early", async |story| {
        // Guesses, which only make a node the last choice.
        let guesses = ["DeletionCandidateOfClusterAutoscaler", "aws-node-termination-handler/rebalance-recommendation"];
        ensure!(DISRUPTION_TAINTS == SAYS, "the program has another list: {DISRUPTION_TAINTS:?}");
        let taints: Vec<&str> = SAYS.into_iter().chain(guesses).collect();
        let ips: Vec<String> = taints.iter().map(|_| story.ip()).collect();
        let letters: String = ('a'..).take(2 * taints.len()).collect();
        story.nodes(&letters).await?;
        story.allocate(&ips.iter().map(String::as_str).collect::<Vec<_>>(), "").await?;
        let mut from = Vec::new();
        for ip in &ips {
            from.push(story.attached(ip).await?);
        }
        for (node, taint) in from.iter().zip(&taints) {
            story.kubectl(&format!("taint node {node} {taint}=soon:NoSchedule")).await?;
        }
        for ((ip, node), taint) in ips.iter().zip(&from).zip(SAYS) {
            let moved = |is: &AddressStatus| is.state == "Attached" && is.node.as_ref() != Some(node);
            let is = story.until(ip, moved).await.with_context(|| format!("taint {taint}"))?;
            ensure!(is.last_move.as_ref().is_some_and(|moved| moved.reason == "Disrupted"), "{taint}: {is:?}");
        }
        story.another_look().await?;
        for (ip, node) in ips.iter().zip(&from).skip(SAYS.len()) {
            story.attached_to(ip, node).await?;
            ensure!(story.stage.world.attaches(parse(ip)) == 1, "{ip} was moved on a guess");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_a_node_about_to_go_still_waits_for_the_users_of_its_address() -> Result<()> {
    tell("spot", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "spot")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "spot", 1, "").await?;
        let pods = story.running("spot", 1).await?;
        let before = story.changed();

        story.kubectl(&format!("taint node {node} aws-node-termination-handler/spot-itn=soon:NoSchedule")).await?;
        story.said(&ip, "Draining", "Disrupted").await?;
        story.until(&ip, says(&pods[0].0)).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        story.kubectl(&format!("delete pod {} --wait=false", pods[0].0)).await?;
        story.attached_to(&ip, &story.other(&node)).await?;
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}

/// Waits until each is on another node than it was.
async fn all_moved(story: &Story, ips: &[String], from: &[String]) -> Result<()> {
    for (ip, from) in ips.iter().zip(from) {
        story.until(ip, |is| is.state == "Attached" && is.node.as_ref() != Some(from)).await?;
    }
    Ok(())
}

/// Moves four addresses at once and says how many were in motion at the same time.
async fn most_in_motion(story: &Story, most: &str) -> Result<usize> {
    let ips = [story.ip(), story.ip(), story.ip(), story.ip()];
    story.nodes("abcdefgh").await?;
    let list: Vec<&str> = ips.iter().map(String::as_str).collect();
    story.allocate(&list, &format!("  strategy: {{maxUnavailable: {most}}}")).await?;
    let mut from = Vec::new();
    for ip in &ips {
        from.push(story.attached(ip).await?);
    }
    story.kubectl(&format!("cordon {}", from.join(" "))).await?;
    all_moved(story, &ips, &from).await?;
    let absences = ips.iter().map(|ip| crate::drain::absence(story, ip)).collect::<Result<Vec<_>>>()?;
    let off_at = |at: tokio::time::Instant| absences.iter().filter(|(off, on)| *off <= at && at <= *on).count();
    absences.iter().map(|(off, _)| off_at(*off)).max().context("none was off")
}

#[tokio::test]
async fn max_unavailable_as_a_number_is_how_many_are_in_motion() -> Result<()> {
    tell("number", async |story| {
        let most = most_in_motion(story, "3").await?;
        ensure!((2..=3).contains(&most), "{most} were off at once");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn max_unavailable_in_percent_is_of_the_addresses_and_rounded_up() -> Result<()> {
    tell("percent", async |story| {
        // 30 % of 4 are 1.2, and that is 2.
        let most = most_in_motion(story, "30%").await?;
        ensure!(most == 2, "{most} were off at once");
        Ok(())
    })
    .await
}
