//! The same story at every cloud: addresses are found by their tags, come and go with them, move with their pods, outlive
//! outsiders, replaced machines and revoked credentials, and cost the same few calls at rest however many they are.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{collections::BTreeMap, net::IpAddr, sync::Mutex};

use acts::{Theatre, pool, program::on_stage, reserve, running, until_labelled, until_unlabelled};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{NodeSpec, Seen, wait_for},
    stage::{PATIENCE, Stage, Venue},
    world::{Holder, Machine, Outcome},
};
use ip_address_controller::{
    api::{AddressStatus, Condition},
    cloud::Provider,
};

static GCP: Theatre = Theatre::at(&Venue::GCP);
static AWS: Theatre = Theatre::at(&Venue::AWS);
static AZURE: Theatre = Theatre::at(&Venue::AZURE);

/// One control plane is enough for two cores.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn the_story_comes_true_at_google_cloud() -> Result<()> {
    let _turn = TURN.lock();
    GCP.alone(story)
}

#[test]
fn the_story_comes_true_at_aws() -> Result<()> {
    let _turn = TURN.lock();
    AWS.alone(story)
}

#[test]
fn the_story_comes_true_at_azure() -> Result<()> {
    let _turn = TURN.lock();
    AZURE.alone(story)
}

const NAME: &str = "tagged";
const IPS: [&str; 3] = ["203.0.113.11", "203.0.113.12", "203.0.113.13"];
/// Surveys that are looked at: longer than anything that is kept fresh on the side (30 s).
const WINDOW: usize = 8;

async fn story(stage: &'static Stage) -> Result<()> {
    a_node_that_can_never_take_one_is_named(stage).await?;
    reserve(stage, &IPS)?;
    tag(stage, &IPS[..2], NAME)?;
    pool(stage, NAME, 4).await?;
    a_missing_permission_is_named_in_status(stage).await?;

    // Found by their tags, and only those that carry them.
    for ip in &IPS[..2] {
        let node = stage.until_attached(NAME, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(&node), "the cloud disagrees on {ip}");
        until_labelled(stage, &node, NAME, ip).await?;
    }
    ensure!(stage.address(NAME, IPS[2]).await?.is_none(), "one without the tag was taken");
    the_self_test_names_a_missing_permission(stage).await?;
    at_rest_only_surveys_are_paid_for(stage).await?;

    // A tag that comes brings its address.
    tag(stage, &IPS[2..], NAME)?;
    stage.until_attached(NAME, IPS[2]).await?;
    stage.cluster.apply(&app()).await?;
    spread(stage).await?;
    one_tag_that_goes_waits_for_the_users(stage).await?;
    most_tags_that_go_at_once_are_not_believed(stage).await?;
    a_drained_node_gives_its_address_up_after_its_pods(stage).await?;
    what_an_outsider_takes_off_is_placed_again(stage).await?;
    what_an_outsider_moves_to_a_selected_node_is_adopted_there(stage).await?;
    a_machine_under_the_name_of_a_nodes_machine_is_not_touched(stage).await?;
    revoked_credentials_are_said_and_move_nothing(stage).await?;
    a_deletion_leaves_everything_as_it_was(stage).await
}

/// With the reason and what to use instead, and it is not tried.
async fn a_node_that_can_never_take_one_is_named(stage: &Stage) -> Result<()> {
    let (name, ip) = ("never", "203.0.113.19");
    let (provider_id, word) = stage.venue.unsupported;
    let node = NodeSpec::new(name).label("role", name).provider_id(provider_id);
    let node = node.label("topology.kubernetes.io/region", stage.venue.region);
    stage.cluster.add_node(node.label("topology.kubernetes.io/zone", stage.venue.zones[0])).await?;
    reserve(stage, &[ip])?;
    stage.cluster.apply(&allocation(stage, name, &format!("reservedIPs: [{ip}]"))).await?;
    let said = |address: &AddressStatus| address.message.as_deref().is_some_and(|message| message.contains(word));
    let entry = stage.until("the node is named", name, ip, said).await?;
    ensure!(entry.reason.as_deref() == Some("NoEligibleNode"), "{entry:?}");
    ensure!(stage.world.mutations().is_empty(), "it was tried: {:?}", stage.world.mutations());
    stage.cluster.kubectl(&["delete", "nia", name]).await?;
    stage.cluster.kubectl(&["delete", "node", name]).await?;
    Ok(())
}

/// The condition says which, and what to do; once it is granted all goes on by itself.
async fn a_missing_permission_is_named_in_status(stage: &Stage) -> Result<()> {
    stage.world.deny(stage.venue.survey_permission);
    stage.cluster.apply(&allocation(stage, NAME, &format!("addressSelector: {{matchTags: {{pool: {NAME}}}}}"))).await?;
    let said = condition(stage, "CredentialsValid", "Denied").await?;
    ensure!(said.status == "False" && said.message.contains("ip-address-controller check"), "{said:?}");
    ensure!(said.message.contains(stage.venue.survey_permission), "it is not named: {said:?}");
    ensure!(stage.world.mutations().is_empty(), "something was changed unseen");
    stage.world.allow(stage.venue.survey_permission);
    condition(stage, "CredentialsValid", "Accepted").await.map(drop)
}

async fn the_self_test_names_a_missing_permission(stage: &Stage) -> Result<()> {
    let before = stage.world.mutations().len();
    let fine = on_stage(stage, &["check"]).await?;
    ensure!(fine.code == Some(0) && fine.out.lines().all(|line| line.starts_with("ok ")), "{fine:?}");
    println!("{}: check says\n{}", stage.venue.provider, fine.out);
    stage.world.deny(stage.venue.attach_permission);
    let denied = on_stage(stage, &["check"]).await?;
    stage.world.allow(stage.venue.attach_permission);
    ensure!(denied.code == Some(1), "{denied:?}");
    let mut failed = denied.out.lines().filter(|line| line.starts_with("FAIL"));
    ensure!(failed.any(|line| line.contains(stage.venue.attach_permission)), "it is not named: {denied:?}");
    ensure!(
        stage.world.mutations().iter().skip(before).all(|call| matches!(call.outcome, Outcome::Refused(_))),
        "the self-test changed something"
    );
    Ok(())
}

/// Only calls of surveys, one of each kind for each survey, whatever the number of nodes and addresses.
async fn at_rest_only_surveys_are_paid_for(stage: &Stage) -> Result<()> {
    let survey = stage.venue.survey;
    let counted = |world: &e2e::world::World| {
        let mut counts = BTreeMap::new();
        world.calls().iter().for_each(|call| *counts.entry(call.method.clone()).or_insert(0_usize) += 1);
        counts
    };
    let surveyed = async |times: usize| {
        let seen = stage.world.until(|world| {
            let last = survey.last().copied().unwrap_or_default();
            (counted(world).get(last).copied().unwrap_or_default() >= times).then_some(())
        });
        tokio::time::timeout(PATIENCE, seen).await.with_context(|| format!("{times} surveys"))
    };
    // What the attaches asked beside the surveys is over by then.
    stage.world.clear_calls();
    surveyed(WINDOW).await?;
    stage.world.clear_calls();
    surveyed(WINDOW).await?;
    let counts = counted(&stage.world);
    println!("{}: calls of {WINDOW} surveys at rest: {counts:?}", stage.venue.provider);
    ensure!(counts.keys().all(|method| survey.contains(&method.as_str())), "calls beside the surveys: {counts:?}");
    for method in survey {
        let count = counts.get(*method).copied().unwrap_or_default();
        // The window may begin or end between two calls of one survey, which are made at the same time.
        ensure!((WINDOW - 1..=WINDOW + 1).contains(&count), "{method} was called {count} times in {WINDOW} surveys");
    }
    Ok(())
}

async fn one_tag_that_goes_waits_for_the_users(stage: &Stage) -> Result<()> {
    let ip = IPS[2];
    let node = stage.until_attached(NAME, ip).await?;
    tag(stage, &[ip], "another")?;
    let waits = |address: &AddressStatus| {
        address.state == "Draining"
            && address.reason.as_deref() == Some("NotMatched")
            && address.message.as_deref().is_some_and(|said| said.contains("waits for 1 pod"))
    };
    stage.until("it waits for its user", NAME, ip, waits).await?;
    ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(&node), "it left under a pod");
    stage.cluster.kubectl(&["scale", &format!("deployment/{NAME}"), "--replicas=2"]).await?;
    // Whichever pod the scale-down takes: the one on this node has to go.
    stage.cluster.kubectl(&["drain", &node, "--ignore-daemonsets"]).await?;
    wait_for("the address is forgotten", PATIENCE, || async {
        let address = stage.address(NAME, ip).await?;
        Ok(Seen::when(address.is_none(), address))
    })
    .await?;
    ensure!(stage.world.holder(ip.parse()?) == Some(Holder::Nobody), "it is not free");
    until_unlabelled(stage, &node).await?;
    stage.cluster.kubectl(&["uncordon", &node]).await?;
    Ok(())
}

async fn most_tags_that_go_at_once_are_not_believed(stage: &Stage) -> Result<()> {
    spread(stage).await?;
    let before = places(stage);
    tag(stage, &IPS[..2], "another")?;
    condition(stage, "AddressesValid", "SelectorLost").await?;
    tag(stage, &IPS[..2], NAME)?;
    condition(stage, "AddressesValid", "AllFound").await?;
    ensure!(places(stage) == before, "an address has moved: {:?}", places(stage));
    Ok(())
}

async fn a_drained_node_gives_its_address_up_after_its_pods(stage: &Stage) -> Result<()> {
    let ip: IpAddr = IPS[0].parse()?;
    let node = stage.until_attached(NAME, IPS[0]).await?;
    let attaches = stage.world.attaches(ip);
    let drain = ["drain", node.as_str(), "--ignore-daemonsets"];
    let (_, users) = tokio::try_join!(stage.cluster.kubectl(&drain), async {
        let off = stage.world.until(|world| (world.machine_of(ip).as_ref() != Some(&node)).then_some(()));
        acts::in_time("the address leaves", off).await?;
        let mut pods = stage.pods("default", &format!("app={NAME}")).await?;
        pods.retain(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&node));
        Ok(pods.len())
    })?;
    ensure!(users == 0, "it left under {users} pods");
    let next = stage.until("it is elsewhere", NAME, IPS[0], |address| {
        address.state == "Attached" && address.node.as_ref() != Some(&node)
    });
    let moved = next.await?;
    ensure!(stage.world.attaches(ip) == attaches + 1, "it was attached more than once");
    println!("{}: moved, {:?}", stage.venue.provider, moved.last_move);
    stage.cluster.kubectl(&["uncordon", &node]).await?;
    spread(stage).await
}

async fn what_an_outsider_takes_off_is_placed_again(stage: &Stage) -> Result<()> {
    let (ip, address): (_, IpAddr) = (IPS[0], IPS[0].parse()?);
    stage.until_attached(NAME, ip).await?;
    let attaches = stage.world.attaches(address);
    stage.world.free_address(address);
    let back = stage.until("it drifted and was placed again", NAME, ip, |entry| {
        let journey = entry.last_move.as_ref();
        entry.state == "Attached" && journey.is_some_and(|it| it.reason == "Drifted" && it.to_node.is_some())
    });
    let node = back.await?.node.context("it is on no node")?;
    until_labelled(stage, &node, NAME, ip).await?;
    ensure!(stage.world.machine_of(address) == Some(node), "the cloud disagrees");
    ensure!(stage.world.attaches(address) == attaches + 1, "it was attached more than once");
    spread(stage).await
}

async fn what_an_outsider_moves_to_a_selected_node_is_adopted_there(stage: &Stage) -> Result<()> {
    let (ip, address): (_, IpAddr) = (IPS[0], IPS[0].parse()?);
    let from = stage.until_attached(NAME, ip).await?;
    let other = stage.until_attached(NAME, IPS[1]).await?;
    let to = (0..4).map(|n| format!("{NAME}-{n}")).find(|node| *node != from && *node != other).context("no node")?;
    let attaches = stage.world.attaches(address);
    stage.world.move_address(address, &to).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    let found = stage.until("it is adopted where it is", NAME, ip, |entry| {
        entry.state == "Attached" && entry.node.as_ref() == Some(&to)
    });
    ensure!(found.await?.reason.as_deref() == Some("Adopted"));
    until_labelled(stage, &to, NAME, ip).await?;
    until_unlabelled(stage, &from).await?;
    wait_for("a user runs where it is", PATIENCE, || async {
        let pods = stage.pods("default", &format!("app={NAME}")).await?;
        let on: Vec<_> = pods.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        Ok(Seen::when(on.contains(&to), on))
    })
    .await?;
    ensure!(stage.world.machine_of(address) == Some(to), "it was moved on");
    ensure!(stage.world.attaches(address) == attaches, "it was put on again");
    spread(stage).await
}

/// The address was lost with the old machine; the new one keeps what it has. The old one had lost its own to the outsider.
async fn a_machine_under_the_name_of_a_nodes_machine_is_not_touched(stage: &Stage) -> Result<()> {
    let (ip, address): (_, IpAddr) = (IPS[0], IPS[0].parse()?);
    let from = stage.until_attached(NAME, ip).await?;
    // It cannot come back here, and as long as its pod runs nothing but the fault makes it leave.
    stage.cluster.kubectl(&["cordon", &from]).await?;
    stage.until("it waits for its user", NAME, ip, |entry| entry.state == "Draining").await?;
    let attaches = stage.world.attaches(address);
    let number = stage.world.replace_machine(&from).context("no machine to replace")?;
    let machine = stage.world.machine(&from).context("the new machine is gone")?;
    renew_node(stage, &machine).await?;
    let moved = stage
        .until("it is elsewhere", NAME, ip, |entry| entry.state == "Attached" && entry.node.as_ref() != Some(&from));
    let moved = moved.await?;
    println!("{}: replaced, {:?}", stage.venue.provider, moved.last_move);
    let to = moved.node.unwrap_or_default();
    until_labelled(stage, &to, NAME, ip).await?;
    until_unlabelled(stage, &from).await?;
    ensure!(stage.world.machine_of(address) == Some(to), "the cloud disagrees");
    ensure!(stage.world.attaches(address) == attaches + 1, "it was attached more than once");
    let touched: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.machine_id == number).collect();
    ensure!(touched.is_empty(), "the new machine was touched: {touched:?}");
    stage.cluster.kubectl(&["uncordon", &from]).await?;
    spread(stage).await
}

/// What kubelet and cloud controller make of a new machine under an old name: Google Cloud's Node says its number, that of AWS
/// has another provider ID and is another Node, and that of Azure stays as it is.
async fn renew_node(stage: &Stage, machine: &Machine) -> Result<()> {
    let name = machine.key.name.as_str();
    match stage.venue.provider {
        Provider::Gcp => {
            let number = format!("container.googleapis.com/instance_id={}", machine.id);
            stage.cluster.kubectl(&["annotate", "node", name, "--overwrite", &number]).await?;
        }
        Provider::Aws => {
            stage.cluster.kubectl(&["delete", "node", name]).await?;
            stage.cluster.add_node(stage.venue.node(machine).label("role", NAME)).await?;
        }
        Provider::Azure => {}
    }
    Ok(())
}

/// Condition and event say so, and once there are good ones again all goes on by itself.
async fn revoked_credentials_are_said_and_move_nothing(stage: &Stage) -> Result<()> {
    let before = places(stage);
    let changes = stage.world.mutations().len();
    stage.world.revoke_credentials();
    let said = condition(stage, "CredentialsValid", "Unauthenticated").await?;
    ensure!(said.status == "False" && said.message.contains("ip-address-controller check"), "{said:?}");
    wait_for("an event says so", PATIENCE, || async {
        let about = format!("involvedObject.name={NAME},reason=CredentialsFailed");
        let told = stage.cluster.kubectl(&["get", "events", "--field-selector", &about]).await?;
        Ok(Seen::when(!told.is_empty(), told))
    })
    .await?;
    ensure!(places(stage) == before, "an address has moved: {:?}", places(stage));
    for (ip, node) in IPS.iter().zip(before.iter().flatten()) {
        until_labelled(stage, node, NAME, ip).await?;
    }
    stage.world.restore_credentials();
    condition(stage, "CredentialsValid", "Accepted").await?;
    ensure!(places(stage) == before, "an address has moved: {:?}", places(stage));
    ensure!(stage.world.mutations().len() == changes, "something was changed");
    Ok(())
}

async fn a_deletion_leaves_everything_as_it_was(stage: &Stage) -> Result<()> {
    stage.cluster.kubectl(&["scale", &format!("deployment/{NAME}"), "--replicas=0"]).await?;
    stage.cluster.kubectl(&["delete", "nia", NAME, "--wait=false"]).await?;
    wait_for("the allocation is gone", PATIENCE, || async {
        let object = stage.allocation(NAME).await?;
        Ok(Seen::when(object.is_none(), object.map(|object| object.status)))
    })
    .await?;
    for ip in IPS {
        let holder = stage.world.holder(ip.parse()?);
        ensure!(holder == Some(Holder::Nobody), "{ip} is not free: {holder:?}");
    }
    for n in 0..4 {
        let node = format!("{NAME}-{n}");
        until_unlabelled(stage, &node).await?;
        let own = stage.world.until(|world| {
            let external = world.machine(&node)?.external;
            let has_own = external.is_some_and(|external| !external.reserved && external.ip.is_some());
            (has_own == stage.venue.own_addresses).then_some(())
        });
        acts::in_time(&format!("{node} is as it was"), own).await?;
    }
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

/// The machines of the two that are always tagged.
fn places(stage: &Stage) -> Vec<Option<String>> {
    IPS[..2].iter().map(|ip| stage.world.machine_of(ip.parse().unwrap())).collect()
}

/// Every pod runs, each where an address is.
async fn spread(stage: &Stage) -> Result<()> {
    let replicas = stage.cluster.kubectl(&["get", "deployment", NAME, "-o", "jsonpath={.spec.replicas}"]).await?;
    running(stage, NAME, replicas.trim().parse()?).await.map(drop)
}

/// Gives the addresses this value of the tag that the allocation selects by.
fn tag(stage: &Stage, ips: &[&str], value: &str) -> Result<()> {
    for ip in ips {
        stage.world.tag_address(ip.parse()?, "pool", value);
    }
    Ok(())
}

/// Waits until the condition has this reason.
async fn condition(stage: &Stage, kind: &str, reason: &str) -> Result<Condition> {
    wait_for(&format!("{kind} says {reason}"), PATIENCE, || async {
        let status = stage.allocation(NAME).await?.and_then(|object| object.status).unwrap_or_default();
        let said = status.conditions.into_iter().find(|condition| condition.type_ == kind);
        Ok(match said {
            Some(said) if said.reason == reason => Seen::Yes(said),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// An allocation on the pool of its name, with this line to say which addresses.
fn allocation(stage: &Stage, name: &str, addresses: &str) -> String {
    format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {name}}}
spec:
  {addresses}
  workloadRef: {{kind: Deployment, name: {NAME}, namespace: default}}
  nodeSelector: {{role: {name}}}
  cloud: {{provider: {}, region: {}}}
  reconcileInterval: 5
",
        stage.venue.provider, stage.venue.region
    )
}

/// Three pods, one to a node that has an address.
fn app() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}, namespace: default}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: {NAME}}}}}
  template:
    metadata: {{labels: {{app: {NAME}}}}}
    spec:
      nodeSelector: {{ip.ready: 'true', role: {NAME}}}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {{matchLabels: {{app: {NAME}}}}}
      terminationGracePeriodSeconds: 2
      containers: [{{name: main, image: registry.example/main}}]
"
    )
}
