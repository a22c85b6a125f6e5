//! Whether a promise was broken, by what was heard, by the cloud's own account of what left which machine, and by the API
//! server's own account of who asked what. Watches are late; those two are exact.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use e2e::{
    cluster::AuditEvent,
    stage::{ACCOUNT, Stage},
    world::{Actor, Removal},
};
use ip_address_controller::allocation::decide::{leaving::Cause, state::Reason};
use jiff::{SignedDuration, Timestamp};

use crate::{
    ground::wall_clock,
    witness::{AddressWord, Heard, NodeWord, Witness},
};

/// A pod counts as a user that the operator must have known when it was there for so long before the address was given up:
/// longer than any watch is late.
const KNOWN: Duration = Duration::from_secs(30);
/// A label that goes before its address goes so long before at most, where it was not heard of in time.
const BEFORE: SignedDuration = SignedDuration::from_secs(60);

/// What the API server was asked, sorted.
struct Asked {
    /// When the operator changed which node.
    patches: BTreeMap<String, Vec<Timestamp>>,
    /// When each pod was deleted for the last time.
    ends: BTreeMap<String, Timestamp>,
    /// Pods that the operator asked to go.
    evicted: Vec<String>,
}

impl Asked {
    fn of(events: Vec<AuditEvent>) -> Result<Self> {
        let mut asked = Self { patches: BTreeMap::new(), ends: BTreeMap::new(), evicted: Vec::new() };
        for event in events.into_iter().filter(|event| event.code < 300) {
            let ours = event.user == ACCOUNT;
            match (event.resource.as_str(), event.subresource.as_str(), event.verb.as_str()) {
                ("nodes", "", "patch" | "update") if ours => {
                    asked.patches.entry(event.name).or_default().push(event.time.parse()?);
                }
                ("pods", "", "delete") => {
                    asked.ends.insert(event.name, event.time.parse()?);
                }
                ("pods", "eviction", _) if ours => asked.evicted.push(event.name),
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// The broken promises, in sentences. `since`: so many addresses had left a machine when it was judged before.
///
/// # Errors
/// When the API server's account cannot be read.
pub fn judge(stage: &Stage, witness: &Witness, since: usize) -> Result<Vec<String>> {
    let asked = Asked::of(stage.cluster.audit()?)?;
    let mut broken: Vec<String> = stage.world.violations().into_iter().map(|why| format!("P5: {why}")).collect();
    let removals = stage.world.removals();
    let heard = witness.heard();
    broken.extend(heard.broken.iter().cloned());
    for removal in removals.iter().skip(since).filter(|gone| gone.by == Actor::Api && gone.reserved) {
        let Some(ip) = removal.ip.map(|ip| ip.to_string()) else { continue };
        broken.extend(never_named(&heard, removal, &ip));
        broken.extend(labelled(&heard, &asked, removal, &ip)?);
        broken.extend(used(&heard, &asked, removal, &ip)?);
    }
    // Somebody else's pods: they run in the pool of an allocation that names its workload.
    let bystanders = asked.evicted.iter().filter(|pod| pod.starts_with("bystander"));
    broken.extend(bystanders.map(|pod| format!("P7: pod {pod} was asked to go, and uses no address")));
    broken.sort();
    broken.dedup();
    Ok(broken)
}

/// P1: from a machine that its entry names.
fn never_named(heard: &Heard, removal: &Removal, ip: &str) -> Option<String> {
    let named = heard.named.contains(&(ip.to_owned(), removal.machine_id.to_string()));
    (!named)
        .then(|| format!("P1: {ip} was taken off {}#{}, which no entry has named", removal.machine, removal.machine_id))
}

/// P4: the label goes off before the address does.
fn labelled(heard: &Heard, asked: &Asked, removal: &Removal, ip: &str) -> Result<Option<String>> {
    let node = &removal.machine.name;
    let words = heard.nodes.get(node).map(Vec::as_slice).unwrap_or_default();
    let last = words.iter().rev().find(|word| word.at <= removal.at);
    if last.is_none_or(|word| word.address.as_deref() != Some(ip)) {
        return Ok(None);
    }
    // It may have gone without having been heard of yet.
    let cut = wall_clock(removal.at)?;
    let patches = asked.patches.get(node).map(Vec::as_slice).unwrap_or_default();
    let taken_off = patches.iter().any(|at| *at <= cut && *at >= cut - BEFORE);
    Ok((!taken_off).then(|| format!("P4: {ip} was taken off {node} at {cut}, while the node was still labelled")))
}

/// P6: nobody uses it when it leaves by choice; a pod that holds is such a user.
fn used(heard: &Heard, asked: &Asked, removal: &Removal, ip: &str) -> Result<Option<String>> {
    let (node, cut) = (&removal.machine.name, wall_clock(removal.at)?);
    let words = heard.addresses.get(ip).map(Vec::as_slice).unwrap_or_default();
    // The newest first: what was said of it since it came to this node.
    let stay: Vec<&AddressWord> = words
        .iter()
        .rev()
        .skip_while(|word| word.at > removal.at)
        .take_while(|word| word.node.as_ref() == Some(node))
        .collect();
    let cause = stay.first().and_then(|word| Cause::of(Reason::parse(&word.reason)?));
    // An attach that is undone was never verified: nobody could use it.
    let arrived = stay.iter().any(|word| word.state == "Attached");
    if !arrived || !cause.is_some_and(|cause| cause.row().waits_for_users) {
        return Ok(None);
    }
    // From then on there was no way back.
    let decided = stay.iter().take_while(|word| word.operation.as_deref() == Some("Detach")).last();
    let decided = decided.map_or(removal.at, |word| word.at);
    if !was_well(heard.nodes.get(node).map(Vec::as_slice).unwrap_or_default(), decided - KNOWN, removal.at) {
        return Ok(None);
    }
    let users = heard
        .pods
        .iter()
        .filter(|(_, pod)| pod.node == *node && pod.app.starts_with("soak-") && pod.since + KNOWN <= decided);
    let user = users.map(|(name, _)| name).find(|name| asked.ends.get(*name).is_none_or(|end| *end >= cut));
    Ok(user.map(|pod| format!("P6: {ip} was taken off {node} at {cut}, while pod {pod} used it")))
}

/// The node was there and Ready all the time: else nobody is there to ask or to wait for.
fn was_well(words: &[NodeWord], from: tokio::time::Instant, to: tokio::time::Instant) -> bool {
    let began = words.iter().rposition(|word| word.at <= from).unwrap_or_default();
    let meanwhile = words.iter().skip(began).take_while(|word| word.at <= to);
    meanwhile.fold(!words.is_empty(), |well, word| well && word.there && word.ready)
}
