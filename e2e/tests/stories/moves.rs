//! `netinfra.darkbrains.com/move=IP[=NODE]`: what a person asks for by name, how it is answered, and what happens then.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::PATIENCE,
};
use ip_address_controller::api::{AddressStatus, MOVE_ANNOTATION};
use kube::ResourceExt;

use crate::story::{Story, tell, used_by};

const HOLD: &str = "netinfra.darkbrains.com/hold";

impl Story {
    /// Asks, as a person does.
    async fn ask(&self, text: &str) -> Result<()> {
        self.kubectl(&format!("annotate nia {} {MOVE_ANNOTATION}={text}", self.name)).await.map(drop)
    }

    /// Waits until the request is answered in these words, and its annotation gone.
    async fn answered(&self, reason: &str, words: &str) -> Result<()> {
        wait_for(&format!("{reason} about {}: {words}", self.name), PATIENCE, || async {
            let events = self.events().await?;
            let told = events.iter().any(|(_, said, note)| said == reason && note.starts_with(words));
            let answers: Vec<_> = events.into_iter().filter(|(_, said, _)| said.starts_with("Move")).collect();
            Ok(Seen::when(told && self.asked().await?.is_none(), answers))
        })
        .await
    }

    /// The request that stands there.
    async fn asked(&self) -> Result<Option<String>> {
        Ok(self.allocation().await?.annotations().get(MOVE_ANNOTATION).cloned())
    }

    /// How many answers there were.
    async fn answers(&self) -> Result<usize> {
        Ok(self.events().await?.iter().filter(|(_, said, _)| said.starts_with("Move")).count())
    }

    async fn mode(&self, mode: &str) -> Result<()> {
        self.kubectl(&format!("patch nia {} --type=merge -p {{\"spec\":{{\"mode\":\"{mode}\"}}}}", self.name))
            .await
            .map(drop)
    }

    /// A pod that runs on the node of the address, and holds it.
    async fn held_by_a_pod(&self) -> Result<String> {
        self.run("Deployment", &self.name, 1, "").await?;
        let pods = self.running(&self.name, 1).await?;
        let (pod, _) = pods.into_iter().next().context("no pod")?;
        self.kubectl(&format!("annotate pod {pod} {HOLD}=true")).await?;
        Ok(pod)
    }
}

fn plans(node: &str) -> impl Fn(&AddressStatus) -> bool {
    move |address| address.state == "Draining" && address.planned_node.as_deref() == Some(node)
}

/// The names but this one.
fn others(nodes: &[String], node: &str) -> Vec<String> {
    nodes.iter().filter(|other| *other != node).cloned().collect()
}

#[tokio::test]
async fn p7_a_move_asks_users_to_go_whatever_the_policy_and_waits_for_their_budget() -> Result<()> {
    tell("mover", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("abcd").await?;
        story.allocate(&[&ip], &used_by("Deployment", "mover")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "mover", 1, "").await?;
        let pods = story.running("mover", 1).await?;
        let budget = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: mover-pdb}
spec: {minAvailable: 1, selector: {matchLabels: {app: mover}}}
";
        story.stage.cluster.apply(budget).await?;
        story.kubectl("wait pdb/mover-pdb --for=jsonpath={.status.currentHealthy}=1 --timeout=60s").await?;
        let before = story.changed();

        // Not the one that would be chosen, which is the first of another zone.
        let to = others(&nodes, &node).pop().context("no other node")?;
        story.ask(&format!("{ip}={to}")).await?;
        let accepted = format!("{ip} is to leave node {node}, and goes to node {to} next");
        story.answered("MoveAccepted", &accepted).await?;
        let blocked = |is: &AddressStatus| is.message.as_ref().is_some_and(|said| said.contains("mover-pdb"));
        let waits = story.until(&ip, blocked).await?;
        ensure!(waits.state == "Draining" && waits.reason.as_deref() == Some("MoveRequested"), "{waits:?}");
        ensure!(waits.planned_node.as_deref() == Some(&to), "{waits:?}");
        // So that nobody comes in the place of who goes.
        story.labelled(&node, None).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        ensure!(story.running("mover", 1).await? == pods, "the pod went past its budget");

        story.kubectl("delete pdb mover-pdb").await?;
        story.attached_to(&ip, &to).await?;
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!(moved.reason == "MoveRequested" && moved.from_node.as_deref() == Some(&node), "{moved:?}");
        let audit = story.stage.cluster.audit()?;
        let evicted = audit.iter().any(|event| event.subresource == "eviction" && event.name == pods[0].0);
        ensure!(evicted, "the pod went, but not by the Eviction API");
        story.nothing_left_before_the_pods(&node, &pods)?;
        // One-shot: nothing brings it back, or moves it on.
        story.another_look().await?;
        ensure!(story.holder(&ip).as_deref() == Some(&to), "the address is on {:?}", story.holder(&ip));
        ensure!(story.answers().await? == 1, "{:?}", story.events().await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_move_that_cannot_be_followed_is_refused_in_one_sentence_and_nothing_moves() -> Result<()> {
    tell("refusal", async |story| {
        let (ip, second, nowhere, other) = (story.ip(), story.ip(), story.unreserved(), story.ip());
        let nodes = story.nodes("abcde").await?;
        let (cordoned, outside) = ("refusal-e", "refusal-outside");
        story.kubectl(&format!("cordon {cordoned}")).await?;
        story.stage.add_node(outside, e2e::stage::ZONES[0], &[("pool", "refusal-none")]).await?;
        story.allocate(&[&ip, &second, &nowhere], "").await?;
        let node = story.attached(&ip).await?;
        let taken = story.attached(&second).await?;
        story.said(&nowhere, "Unassigned", "AddressNotFound").await?;
        story.stage.cluster.apply(&story.manifest("refusal-other", &[&other], "")).await?;
        story.stage.until_attached("refusal-other", &other).await?;
        let before = story.changed();

        let form = "is not of the form IP or IP=NODE";
        let or_none = "name another node, or none to have one chosen";
        for (text, said) in [
            ("not-an-ip".to_owned(), format!("\"not-an-ip\" {form}")),
            (format!("{ip}="), format!("\"{ip}=\" {form}")),
            (format!("={}", nodes[1]), format!("\"={}\" {form}", nodes[1])),
            ("2001:db8::1".to_owned(), "2001:db8::1 is no address of this allocation".to_owned()),
            (other.clone(), format!("{other} is an address of NetIPAllocation refusal-other; annotate that one")),
            (nowhere.clone(), format!("{nowhere} is on no node (AddressNotFound)")),
            (format!("{ip}={node}"), format!("{ip} is on node {node} already; {or_none}")),
            (format!("{ip}=nobody"), "there is no node nobody".to_owned()),
            (format!("{ip}={outside}"), format!("node {outside} is not selected by spec.nodeSelector")),
            (format!("{ip}={cordoned}"), format!("node {cordoned} cannot take {ip}: it is cordoned; {or_none}")),
            (format!("{ip}={taken}"), format!("node {taken} cannot take {ip}: it holds an address or is about to")),
        ] {
            story.ask(&text).await?;
            story.answered("MoveRefused", &said).await.with_context(|| text)?;
        }
        // Asked again in the same words it is answered again, for the reason that there is by now.
        story.kubectl(&format!("label node {cordoned} pool-")).await?;
        let said = format!("node {cordoned} is not selected by spec.nodeSelector");
        wait_for(&said, PATIENCE, || async {
            if story.asked().await?.is_none() {
                story.ask(&format!("{ip}={cordoned}")).await?;
            }
            let events = story.events().await?;
            let told = events.iter().any(|(_, reason, note)| reason == "MoveRefused" && note.starts_with(&said));
            Ok(Seen::when(told, events))
        })
        .await?;

        story.another_look().await?;
        ensure!(story.changed() == before, "something was moved");
        ensure!(story.holder(&ip) == Some(node.clone()), "the address is on {:?}", story.holder(&ip));
        story.labelled(&node, Some(&ip)).await?;
        story.kubectl("delete nia refusal-other --timeout=60s").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn of_two_moves_the_last_counts_and_a_node_that_can_take_it_no_more_is_passed_over() -> Result<()> {
    tell("twice", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("abc").await?;
        story.allocate(&[&ip], &used_by("Deployment", "twice")).await?;
        let node = story.attached(&ip).await?;
        let pod = story.held_by_a_pod().await?;
        let [first, second] = others(&nodes, &node).try_into().map_err(|_| anyhow::anyhow!("not two other nodes"))?;
        let before = story.changed();

        story.ask(&format!("{ip}={first}")).await?;
        story.answered("MoveAccepted", &format!("{ip} is to leave node {node}, and goes to node {first} next")).await?;
        story.ask(&format!("{ip}={second}")).await?;
        story
            .answered("MoveAccepted", &format!("{ip} is to leave node {node}, and goes to node {second} next"))
            .await?;
        story.until(&ip, plans(&second)).await?;

        story.kubectl(&format!("cordon {second}")).await?;
        story.until(&ip, plans(&first)).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod that holds it");

        story.kubectl(&format!("annotate pod {pod} {HOLD}-")).await?;
        story.attached_to(&ip, &first).await?;
        story.another_look().await?;
        ensure!(story.holder(&ip) == Some(first), "the address is on {:?}", story.holder(&ip));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_accepted_move_is_taken_back_by_asking_for_the_node_where_the_address_is() -> Result<()> {
    tell("undone", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "undone")).await?;
        let node = story.attached(&ip).await?;
        let pod = story.held_by_a_pod().await?;
        let pods = story.running("undone", 1).await?;
        let to = others(&nodes, &node).pop().context("no other node")?;
        let before = story.changed();

        story.ask(&format!("{ip}={to}")).await?;
        story.answered("MoveAccepted", &format!("{ip} is to leave node {node}, and goes to node {to} next")).await?;
        story.labelled(&node, None).await?;

        story.ask(&format!("{ip}={node}")).await?;
        story.answered("MoveAccepted", "the move is taken back").await?;
        story.attached_to(&ip, &node).await?;
        // Nothing of it is left: not for a pod that holds no more, either.
        story.kubectl(&format!("annotate pod {pod} {HOLD}-")).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left");
        ensure!(story.holder(&ip).as_ref() == Some(&node), "the address is on {:?}", story.holder(&ip));
        story.labelled(&node, Some(&ip)).await?;
        ensure!(story.running("undone", 1).await? == pods, "the pod was disturbed");
        let audit = story.stage.cluster.audit()?;
        let asked = audit.iter().any(|event| event.subresource == "eviction" && event.name == pod);
        ensure!(!asked, "the pod was asked to go");
        ensure!(story.answers().await? == 2, "{:?}", story.events().await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_without_a_node_stands_while_there_is_none_and_is_followed_when_one_comes() -> Result<()> {
    tell("waiting", async |story| {
        let ip = story.ip();
        story.nodes("a").await?;
        story.allocate(&[&ip], "").await?;
        let node = story.attached(&ip).await?;
        let before = story.changed();

        story.ask(&ip).await?;
        story.said(&ip, "Attached", "NoTarget").await?;
        story.another_look().await?;
        ensure!(story.asked().await?.as_ref() == Some(&ip), "the request does not stand");
        ensure!(story.answers().await? == 0, "{:?}", story.events().await?);
        ensure!(story.changed() == before, "the address has left for nowhere");
        story.labelled(&node, Some(&ip)).await?;

        let to = story.nodes("b").await?.pop().context("no node has come")?;
        story.answered("MoveAccepted", &ip).await?;
        story.attached_to(&ip, &to).await?;
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!(moved.reason == "MoveRequested" && moved.from_node == Some(node), "{moved:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_move_of_an_address_that_drains_already_moves_it_once() -> Result<()> {
    tell("hurried", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("abc").await?;
        story.allocate(&[&ip], &used_by("Deployment", "hurried")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "hurried", 1, "").await?;
        let pods = story.running("hurried", 1).await?;
        story.kubectl(&format!("cordon {node}")).await?;
        story.said(&ip, "Draining", "NodeCordoned").await?;
        story.another_look().await?;
        ensure!(story.running("hurried", 1).await? == pods, "policy Wait asks nobody to go");

        let to = others(&nodes, &node).pop().context("no other node")?;
        story.ask(&format!("{ip}={to}")).await?;
        story.answered("MoveAccepted", &format!("{ip} ")).await?;
        story.attached_to(&ip, &to).await?;
        story.nothing_left_before_the_pods(&node, &pods)?;
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!(moved.reason == "MoveRequested" && moved.from_node == Some(node), "{moved:?}");
        story.another_look().await?;
        ensure!(story.holder(&ip) == Some(to), "it was moved again, to {:?}", story.holder(&ip));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_move_that_is_asked_for_in_mode_hold_waits_and_is_followed_when_that_is_over() -> Result<()> {
    tell("patient", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("ab").await?;
        story.allocate(&[&ip], "  mode: Hold").await?;
        // Hold puts nothing on by choice.
        story.said(&ip, "Unassigned", "Held").await?;
        story.mode("Enforce").await?;
        let node = story.attached(&ip).await?;
        story.mode("Hold").await?;
        let before = story.changed();
        let to = others(&nodes, &node).pop().context("no other node")?;

        let text = format!("{ip}={to}");
        story.ask(&text).await?;
        let says = |is: &AddressStatus| is.message.as_ref().is_some_and(|said| said.contains("MoveRequested"));
        let held = story.until(&ip, says).await?;
        ensure!(held.state == "Attached" && held.reason.as_deref() == Some("Held"), "{held:?}");
        story.another_look().await?;
        ensure!(story.changed() == before, "the address was moved by choice");
        ensure!(story.asked().await? == Some(text), "it is neither followed nor refused yet, and can be taken back");

        // What cannot be followed is said at once.
        story.kubectl(&format!("annotate nia patient {MOVE_ANNOTATION}={ip}=nobody --overwrite")).await?;
        story.answered("MoveRefused", "there is no node nobody").await?;

        story.ask(&format!("{ip}={to}")).await?;
        story.until(&ip, says).await?;
        story.mode("Enforce").await?;
        story.answered("MoveAccepted", &ip).await?;
        story.attached_to(&ip, &to).await
    })
    .await
}
