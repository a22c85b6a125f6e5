//! What must never be otherwise (design §2), in one list: judged after every step of every life, whoever drives it.
//!
//! Each sentence begins with the promise that is broken. They judge the truth (what the cloud and the API server hold), not
//! what the operator believes. What outsiders and failing machines change behind its back is excused until it could know
//! ([`super::cosmos::excuses::Excuses`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ip_address_controller::{
    allocation::{
        claims::listed,
        decide::{
            facts::{Entry, User},
            failover::Health,
            leaving::{self, Cause},
            state::{Reason, State},
            users::{self, Pod},
        },
        memory::{self, Stored},
        observe::nodes::SlimNode,
    },
    api::{
        ADDRESS_LABEL, ALLOCATION_LABEL, AddressStatus, DeletionPolicy, DrainPolicy, Mode, NetIPAllocation,
        READY_LABEL, READY_VALUE,
    },
    cloud::{Holder, MachineId, Power, Provider, ProviderId, Whereabouts},
    lifecycle::State as _,
};
use jiff::SignedDuration;
use kube::ResourceExt;

use super::cosmos::{
    cloud::{Cloud, Landed, Meta, Order, OwnReturns, Slot},
    course::{Cosmos, POOL},
    errand::Call,
    process::{DISRUPTION, Flight, FlightId, Passed, workload},
};

type Judged = Result<(), String>;

fn broken<T>(sentence: impl Into<String>) -> Result<T, String> {
    Err(sentence.into())
}

/// Every entry that is stored, with the allocation's name.
fn entries(cosmos: &Cosmos) -> Vec<(String, Entry)> {
    cosmos
        .cluster
        .allocations()
        .iter()
        .flat_map(|(name, object)| of(object).map(|entry| (name.clone(), entry)))
        .collect()
}

/// The same of those entries alone that name this machine.
fn entries_at(cosmos: &Cosmos, place: &ProviderId) -> Vec<(String, Entry)> {
    let named = |stored: &AddressStatus| {
        let machine = stored.machine_id.as_ref().and_then(|id| id.parse::<MachineId>().ok());
        machine.is_some_and(|machine| machine.place == *place)
    };
    let objects = cosmos.cluster.allocations().iter();
    let stored = objects.flat_map(|(name, object)| object.status.iter().map(move |status| (name, status)));
    stored
        .flat_map(|(name, status)| status.addresses.iter().map(move |stored| (name, stored)))
        .filter(|(_, stored)| named(stored))
        .filter_map(|(name, stored)| match memory::read(stored) {
            Stored::Known(entry) => Some((name.clone(), *entry)),
            Stored::Foreign(_) => None,
        })
        .collect()
}

/// The entries of its status that are understood.
pub fn of(object: &NetIPAllocation) -> impl Iterator<Item = Entry> + '_ {
    object.status.iter().flat_map(|status| &status.addresses).filter_map(|stored| match memory::read(stored) {
        Stored::Known(entry) => Some(*entry),
        Stored::Foreign(_) => None,
    })
}

/// Entries that were edited until nobody understands them: they are left alone, and said.
fn not_understood(object: &NetIPAllocation) -> impl Iterator<Item = &AddressStatus> {
    let stored = object.status.iter().flat_map(|status| &status.addresses);
    stored.filter(|stored| matches!(memory::read(stored), Stored::Foreign(_)))
}

fn is_not_understood(object: &NetIPAllocation, ip: IpAddr) -> bool {
    not_understood(object).any(|stored| stored.ip == ip.to_string())
}

/// `ip.ready=true` on a node whose machine has not the address that the labels name.
pub fn mislabelled(cloud: &Cloud, node: &SlimNode) -> bool {
    if !is_labelled(node) {
        return false;
    }
    let named: Option<IpAddr> = node.label(ADDRESS_LABEL).and_then(|text| text.parse().ok());
    named.is_none_or(|ip| {
        let machine = node.place().and_then(|place| cloud.machine(&place));
        machine.is_none_or(|machine| !machine.exists || machine.slot != Slot::Reserved(ip))
    })
}

fn is_labelled(node: &SlimNode) -> bool {
    node.label(READY_LABEL) == Some(READY_VALUE)
}

/// In every state.
pub fn state(cosmos: &Cosmos) -> Judged {
    for (name, node) in cosmos.cluster.nodes() {
        // What an outsider has moved is believed to be there until the next read (P12).
        let named: Option<IpAddr> = node.label(ADDRESS_LABEL).and_then(|text| text.parse().ok());
        let excused = cosmos.excuses.nodes.contains(name) || named.is_some_and(|ip| cosmos.excuses.has(ip));
        if mislabelled(&cosmos.cloud, node) && !excused {
            return broken(format!(
                "P4: node {name} says that it has {:?}, and has not",
                node.label(ADDRESS_LABEL).unwrap_or("no address")
            ));
        }
    }
    Ok(())
}

/// Before a request to the cloud is sent.
pub fn sends(cosmos: &Cosmos, process: u8, allocation: &str, order: &Order, meta: &Meta) -> Judged {
    leads(cosmos, process, order.call())?;
    let Some(object) = cosmos.cluster.allocation(allocation) else { return Ok(()) };
    let status = object.status.clone().unwrap_or_default();
    let intended = of(object).any(|entry| entry.operation.is_some_and(|operation| operation.id == meta.operation));
    let owed = status.owed.iter().filter_map(memory::read_owed);
    let owed = owed.filter_map(|owed| owed.attempt).any(|(id, _)| id == meta.operation);
    if !intended && !owed && !cosmos.excuses.is_edited(allocation) {
        return broken(format!("P2: {} was sent for {:?} without an intent in status", order.call(), meta.address));
    }
    Ok(())
}

/// Before an effect changes a Node or a pod.
pub fn changes(cosmos: &Cosmos, process: u8, flight: FlightId, call: &Call) -> Judged {
    match call {
        Call::PatchLabels { node, labels, .. } => {
            leads(cosmos, process, &format!("a patch of node {node}"))?;
            let term = cosmos.process(process).term.as_ref();
            let flight = term.and_then(|term| term.flights.get(&flight));
            match flight.filter(|_| labels.get(READY_LABEL).is_some_and(Option::is_none)) {
                Some(flight) => unlabels(cosmos, flight, node),
                None => Ok(()),
            }
        }
        Call::Evict(user) => {
            leads(cosmos, process, "an eviction")?;
            let pods = cosmos.cluster.pods().values().flatten();
            match pods.into_iter().find(|pod| pod.uid == user.uid) {
                Some(pod) if pod.mirror => broken(format!("P7: pod {} is a mirror", pod.name)),
                Some(pod) => {
                    let term = cosmos.process(process).term.as_ref();
                    let flight = term.and_then(|term| term.flights.get(&flight));
                    flight.map_or(Ok(()), |flight| evicts(cosmos, flight, pod))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// P7: who is asked to go uses an address that is leaving its node, holds it not, and is asked because cause or policy say so.
fn evicts(cosmos: &Cosmos, flight: &Flight, pod: &Pod) -> Judged {
    let (name, ip) = (&flight.allocation, flight.errand.address());
    if cosmos.held.get(&pod.uid).is_some_and(|since| *since < flight.watched) {
        return broken(format!("P7: pod {} holds the address, and was asked to go", pod.name));
    }
    let Some(object) = cosmos.cluster.allocation(name) else { return Ok(()) };
    let Some(entry) = of(object).find(|entry| Some(entry.ip) == ip) else { return Ok(()) };
    if cosmos.excuses.is_edited(name) {
        return Ok(());
    }
    let on = cosmos.cluster.pods().iter().find(|(_, pods)| pods.iter().any(|other| other.uid == pod.uid));
    let leaves = matches!(entry.state, State::Draining | State::Releasing);
    if !leaves || on.map(|(node, _)| node) != entry.node.as_ref() {
        return broken(format!("P7: pod {} was asked to go, and {} does not leave its node", pod.name, entry.ip));
    }
    let (_, beside) = on.filter(|_| !pod.finished).unzip();
    // One that came late is asked on the word of a live list, which may show no others that are newer.
    let known = beside.into_iter().flatten().filter(|other| other.uid == pod.uid || is_known(cosmos, flight, other));
    let known: Vec<Pod> = known.map(|pod| Pod::clone(pod)).collect();
    if !known.is_empty() && !users::users(&known, &workload(object, &cosmos.cluster)).iter().any(|it| it.uid == pod.uid)
    {
        return broken(format!("P7: pod {} was asked to go, and does not use {}", pod.name, entry.ip));
    }
    // Where the address has been taken off already, by an outsider or by an attach that is undone, nobody keeps it by staying.
    let Some(cause) = Cause::of(entry.reason) else { return Ok(()) };
    let evicts = object.spec.drain.policy == DrainPolicy::Evict;
    if entry.state == State::Draining && !(cause.row().always_evicts || (cause.row().may_evict && evicts)) {
        return broken(format!("P7: pod {} was asked to go for {cause:?}, against the policy", pod.name));
    }
    Ok(())
}

/// Whoever decided on this effect saw the pod.
fn is_known(cosmos: &Cosmos, flight: &Flight, pod: &Pod) -> bool {
    cosmos.started.get(&pod.uid).is_none_or(|since| *since < flight.watched)
}

/// P6: while an address drains its labels do not go above a DaemonSet's pod in service, which its controller would end past its
/// PodDisruptionBudget: it is asked to go, or waited for. One that comes once the address is released came late.
fn unlabels(cosmos: &Cosmos, flight: &Flight, node: &str) -> Judged {
    let (name, ip) = (&flight.allocation, flight.errand.address());
    let Some(object) = cosmos.cluster.allocation(name) else { return Ok(()) };
    let Some(entry) = of(object).find(|entry| Some(entry.ip) == ip) else { return Ok(()) };
    if entry.state != State::Draining || waits(cosmos, name, &entry).is_none_or(|(_, on)| on != node) {
        return Ok(());
    }
    let there = entry.machine.as_ref().is_some_and(|named| cosmos.cloud.on(entry.ip).as_ref() == Some(&named.place));
    if !there || cosmos.excuses.has(entry.ip) {
        return Ok(());
    }
    let pods: Vec<Pod> =
        cosmos.cluster.pods_of(node).into_iter().filter(|pod| pod.gated && is_known(cosmos, flight, pod)).collect();
    // On a node that is about to be ended none is in service for long.
    let spared = cosmos.spared.get(node).is_some_and(|since| *since >= flight.watched);
    let ends = spared || cosmos.cluster.node(node).is_some_and(|node| is_disrupted(node));
    let holds = |uid: &String| cosmos.held.get(uid).is_some_and(|since| *since < flight.watched);
    let stays = |uid: &String| !ends || holds(uid);
    let users = users::users(&pods, &workload(object, &cosmos.cluster));
    let in_service = |user: &&User| user.daemon && user.ready && user.terminating_until.is_none() && stays(&user.uid);
    match users.iter().find(in_service) {
        Some(user) => broken(format!(
            "P6: the labels of node {node} went while pod {} of a DaemonSet used {}",
            user.name, entry.ip
        )),
        None => Ok(()),
    }
}

fn leads(cosmos: &Cosmos, process: u8, what: &str) -> Judged {
    if cosmos.leads(process) {
        return Ok(());
    }
    let holder = cosmos.cluster.lease.holder;
    broken(format!("P8: process {process} sent {what} without proof for long enough, and {holder:?} held the Lease"))
}

/// After a request has landed.
pub fn landed(cosmos: &Cosmos, landed: &Landed) -> Judged {
    let meta = &landed.request.meta;
    let call = landed.request.order.call();
    match &landed.removed {
        Some((place, Slot::Reserved(ip))) => {
            let entries = entries_at(cosmos, place);
            let edited = cosmos.excuses.is_edited_about(Some(*ip), Some(place));
            // Somebody put it there between our read and our change: AWS cannot be told to refuse then, and Google Cloud knows
            // the access config by a name that people use again. But never on a machine that no entry of ours names.
            let moved = cosmos.excuses.has(*ip) && cosmos.cloud.kind() != Provider::Azure;
            if moved && (edited || !entries.is_empty()) {
                return Ok(());
            }
            let asked = cosmos.excuses.is_edited_about(meta.address, Some(place));
            if meta.address != Some(*ip) && !edited && !asked {
                return broken(format!("P1: {call} for {:?} took {ip} off {place}", meta.address));
            }
            let named = entries.iter().filter(|(_, entry)| entry.ip == *ip);
            let states: Vec<State> = named.clone().map(|(_, entry)| entry.state).collect();
            if !states.contains(&State::Releasing) && !edited {
                return broken(format!("P1: {call} cut {ip} off {place} while its entries there are {states:?}"));
            }
            // Whose mode is Observe has nothing: it says what it sees.
            let theirs = named.clone().find(|(name, entry)| {
                matches!(entry.state, State::Attached | State::Draining) && !observes(cosmos, name)
            });
            if let Some((name, _)) = theirs.filter(|_| !edited) {
                return broken(format!("P5: {call} cut {ip} off {place}, where allocation {name} has it"));
            }
            for (name, entry) in named.filter(|(_, entry)| entry.state == State::Releasing) {
                another_life(cosmos, entry, place, call)?;
                unused(cosmos, name, entry)?;
                if has_arrived(entry) && !cosmos.meddled {
                    return broken(format!("P9: {call} cut {ip} off {place}, and nobody had done anything"));
                }
            }
        }
        Some((place, Slot::Own)) => {
            let said = entries_at(cosmos, place).iter().any(|(_, entry)| {
                (entry.restore.is_some() || entry.state == State::Releasing) && entry.state.is_open_intent()
            });
            // AWS gives it back by itself, and may do so between our read and our change.
            let returns = cosmos.cloud.kind() == Provider::Aws && cosmos.cloud.returns == OwnReturns::AtOnce;
            // Another machine has taken the name between our read and our change: Google Cloud knows names alone.
            let renamed = meta.address.is_some_and(|ip| cosmos.excuses.has(ip));
            let edited = cosmos.excuses.is_edited_about(meta.address, Some(place));
            if !said && !returns && !renamed && !edited {
                return broken(format!(
                    "P10: {call} took the own address of {place}, and no entry says that it is owed"
                ));
            }
        }
        Some((_, Slot::Empty)) | None => {}
    }
    if let Some((place, Slot::Reserved(ip))) = &landed.put {
        let entries = entries_at(cosmos, place);
        let waited = entries.iter().any(|(_, entry)| entry.ip == *ip && !entry.state.at_rest());
        if !waited && !cosmos.excuses.is_edited_about(Some(*ip), Some(place)) {
            return broken(format!("P2: {call} put {ip} on {place}, and no entry waits for it there"));
        }
        for (_, entry) in entries.iter().filter(|(_, entry)| entry.ip == *ip) {
            another_life(cosmos, entry, place, call)?;
        }
    }
    Ok(())
}

fn observes(cosmos: &Cosmos, name: &str) -> bool {
    cosmos.cluster.allocation(name).is_some_and(|object| object.spec.mode == Mode::Observe)
}

/// F8: the machine is the one that the entry names, not another under its name.
fn another_life(cosmos: &Cosmos, entry: &Entry, place: &ProviderId, call: &str) -> Judged {
    let (Some(named), Some(machine)) = (&entry.machine, cosmos.cloud.machine(place)) else { return Ok(()) };
    let excused = cosmos.excuses.has(entry.ip) || cosmos.excuses.is_edited_about(Some(entry.ip), Some(place));
    if machine.instance != named.instance && !excused {
        return broken(format!("P1: {call} changed {place}, which is another machine than {named}"));
    }
    Ok(())
}

/// An attach that is undone was never verified: nobody could use the address.
fn has_arrived(entry: &Entry) -> bool {
    entry.last_move.as_ref().is_some_and(|journey| journey.to.is_some())
}

/// For what cause, and from which node, an address leaves that its users are waited for.
fn waits<'a>(cosmos: &Cosmos, name: &str, entry: &'a Entry) -> Option<(Cause, &'a str)> {
    let leaves = matches!(entry.state, State::Draining | State::Releasing);
    let cause = Cause::of(entry.reason).filter(|cause| leaves && cause.row().waits_for_users)?;
    let over = entry.deadline.is_some_and(|deadline| cosmos.now >= deadline);
    let node = entry.node.as_deref().filter(|_| !over && has_arrived(entry))?;
    let object = cosmos.cluster.allocation(name)?;
    let excused = cosmos.excuses.nodes.contains(node) || cosmos.excuses.is_edited(name);
    (!excused && !is_unattended(cosmos, object, entry, node)).then_some((cause, node))
}

/// P6: what is cut by choice is used by nobody.
fn unused(cosmos: &Cosmos, name: &str, entry: &Entry) -> Judged {
    let Some(object) = cosmos.cluster.allocation(name) else { return Ok(()) };
    let Some((cause, node)) = waits(cosmos, name, entry) else { return Ok(()) };
    let evicts = cause.row().always_evicts || (cause.row().may_evict && object.spec.drain.policy == DrainPolicy::Evict);
    let gated: Vec<_> = cosmos.cluster.pods_of(node).into_iter().filter(|pod| pod.gated).collect();
    let users = users::users(&gated, &workload(object, &cosmos.cluster));
    match users.into_iter().find(|user| leaving::keeps(cause, user, evicts)) {
        Some(user) => broken(format!("P6: {} was cut off node {node} while pod {} used it", entry.ip, user.name)),
        None => Ok(()),
    }
}

/// Nobody is there to ask or to wait for: the node has not answered for long enough, or its machine does not run.
fn is_unattended(cosmos: &Cosmos, object: &NetIPAllocation, entry: &Entry, node: &str) -> bool {
    let runs = entry.machine.as_ref().is_some_and(|named| {
        let machine = cosmos.cloud.machine(&named.place).filter(|machine| machine.exists);
        machine.is_some_and(|it| it.power == Power::Running && it.instance == named.instance)
    });
    let said = cosmos.cluster.node(node).is_none_or(|node| node.out_of_service());
    !runs || said || is_down(cosmos, object, node)
}

/// The node has been NotReady, or gone, for the allocation's grace.
fn is_down(cosmos: &Cosmos, object: &NetIPAllocation, node: &str) -> bool {
    let grace = SignedDuration::from_secs(object.spec.failover.not_ready_seconds.into());
    cosmos.down.get(node).is_some_and(|since| cosmos.now.duration_since(*since) >= grace)
}

/// After a pass.
pub fn passed(cosmos: &Cosmos, process: u8, led: bool, name: &str, passed: &Passed) -> Judged {
    if let Some(write) = passed.writes.first().filter(|_| !led) {
        return broken(format!("P8: process {process} wrote {write:?} of {name} and does not hold the Lease"));
    }
    if let (Some(told), Some((object, _))) = (&passed.record, &passed.status) {
        in_turn(cosmos, process, object, &told.turns)?;
    }
    for (before, after, refused) in passed.record.iter().flat_map(|told| &told.turns) {
        if let Some(why) = refused {
            return broken(format!("edges: {why}"));
        }
        if let Some((object, _)) = &passed.status {
            truthful(cosmos, before, after)?;
            patient(cosmos, process, object, before, after)?;
            held(cosmos, object, before, after)?;
        }
    }
    if passed.status.is_some() && cosmos.is_judged() {
        one_seat(cosmos)?;
        one_target(cosmos)?;
    }
    match &passed.released {
        Some(object) => released(cosmos, object),
        None => Ok(()),
    }
}

/// P3: nothing is written of an address while the truth is otherwise.
fn truthful(cosmos: &Cosmos, before: &Entry, after: &Entry) -> Judged {
    let ip = after.ip;
    let place = before.machine.as_ref().map(|machine| &machine.place);
    // Who has the same address by an edited status may have it there.
    let edited = cosmos.excuses.is_edited_about(Some(ip), place);
    if cosmos.excuses.has(ip) || edited {
        return Ok(());
    }
    // The very machine, and not one that came under its name.
    let is_on = |said: &MachineId| {
        let machine = cosmos.cloud.machine(&said.place).filter(|machine| machine.instance == said.instance);
        machine.is_some_and(|machine| machine.slot == Slot::Reserved(ip))
    };
    let there = before.machine.as_ref().is_some_and(is_on);
    if after.reason == Reason::AddressNotFound && cosmos.cloud.find(ip) != Whereabouts::NotFound {
        return broken(format!("P3: {ip} is said not to exist, and does"));
    }
    // One that is gone never comes back: this is never so because a read is old.
    let lives = |said: &MachineId| {
        cosmos.cloud.machine(&said.place).is_some_and(|machine| machine.exists && machine.instance == said.instance)
    };
    let gone = before.reason != after.reason && matches!(after.reason, Reason::MachineGone | Reason::NodeReplaced);
    if gone && let Some(machine) = before.machine.as_ref().filter(|machine| lives(machine)) {
        return broken(format!("P3: {ip} leaves {machine} as one that is gone, and it is there"));
    }
    if before.state == State::Attached && after.reason == Reason::Drifted && there {
        return broken(format!("P3: {ip} is said to have drifted from {place:?}, and is there"));
    }
    let off = matches!(after.state, State::Detached | State::Unassigned | State::Attaching);
    let left = before.state == State::Releasing && off && after.machine != before.machine;
    if left && there {
        return broken(format!("P3: {ip} is said to be off {place:?}, and is there"));
    }
    if after.state == State::Attached
        && before.state != State::Attached
        && let Some(machine) = &after.machine
        && !is_on(machine)
    {
        return broken(format!("P4: {ip} is said to be on {machine}, and is on {:?}", cosmos.cloud.on(ip)));
    }
    Ok(())
}

/// §3.4: NotReady is not dead. A node that is given up for it has been NotReady, or gone, for long enough, and not together
/// with too many others, as the watches of the process say. `object`: as it was before the pass.
fn patient(cosmos: &Cosmos, process: u8, object: &NetIPAllocation, before: &Entry, after: &Entry) -> Judged {
    let fault = matches!(after.reason, Reason::NodeNotReady | Reason::NodeGone);
    let begins = before.state != State::Releasing && after.state == State::Releasing;
    let Some(node) = after.node.as_ref().filter(|_| fault && begins) else { return Ok(()) };
    if !is_down(cosmos, object, node) {
        return broken(format!("P6: {} was given up for {:?} of node {node} before its time", after.ip, after.reason));
    }
    let cached = &cosmos.process(process).cache.nodes;
    if [cached, cosmos.cluster.nodes()].iter().all(|nodes| is_mass_failure(cosmos, nodes, object)) {
        return broken(format!("P6: {} was given up for {:?} while most nodes are down", after.ip, after.reason));
    }
    Ok(())
}

/// Mode Hold begins no move by choice: nothing leaves a node that works, but with its allocation, and nothing goes to a node
/// that has not left one before. `object`: as it was before the pass.
fn held(cosmos: &Cosmos, object: &NetIPAllocation, before: &Entry, after: &Entry) -> Judged {
    if object.spec.mode != Mode::Hold || cosmos.excuses.is_edited(&object.name_any()) || cosmos.excuses.has(after.ip) {
        return Ok(());
    }
    let choice = Cause::of(after.reason).filter(|cause| cause.row().by_choice && *cause != Cause::AllocationDeleted);
    let leaves = match (before.state, after.state) {
        (State::Attached, State::Draining | State::Releasing) | (State::Draining, State::Releasing) => choice.is_some(),
        _ => false,
    };
    let works = before.node.as_ref().and_then(|node| cosmos.cluster.node(node));
    if leaves && works.is_some_and(|node| node.not_ready_since().is_none()) {
        return broken(format!("Hold: {} leaves {:?} for {:?}", after.ip, before.node, after.reason));
    }
    let goes = before.state.at_rest() && after.state == State::Attaching;
    if goes && before.last_move.as_ref().is_none_or(|journey| journey.to.is_some()) {
        return broken(format!("Hold: {} goes to {:?}, and has left no node for it", after.ip, after.node));
    }
    Ok(())
}

/// `strategy.maxUnavailable`: who begins to leave by choice, still labelled, is no more than that many with those that are on
/// their way. Others may be: what is lost waits for no turn. `object`: as it was before the pass.
fn in_turn(cosmos: &Cosmos, process: u8, object: &NetIPAllocation, turns: &[(Entry, Entry, Option<String>)]) -> Judged {
    if object.metadata.deletion_timestamp.is_some() || cosmos.excuses.is_edited(&object.name_any()) {
        return Ok(());
    }
    let wanted = wanted(object);
    let addresses = turns.iter().filter(|(before, ..)| wanted.contains(&before.ip)).count();
    let most = object.spec.strategy.max_unavailable.resolve(addresses).max(1);
    let on_its_way = |entry: &Entry| matches!(entry.state, State::Attaching | State::Releasing | State::Detached);
    for (place, (before, after, _)) in turns.iter().enumerate() {
        let paced = Cause::of(after.reason).is_some_and(|cause| cause.row().paced);
        let begins = matches!(before.state, State::Attached | State::Draining) && after.state == State::Releasing;
        // As the watch of the process shows it, and as it is: the one may be older than its own last write.
        let shown = [cosmos.cluster.nodes(), &cosmos.process(process).cache.nodes];
        let labelled = |node| shown.iter().all(|nodes| nodes.get(node).is_some_and(|it| is_labelled(it)));
        // What somebody else has taken off already has nothing to wait for.
        let there =
            after.machine.as_ref().is_some_and(|machine| cosmos.cloud.on(after.ip).as_ref() == Some(&machine.place));
        if !(paced && begins && there && after.node.as_ref().is_some_and(labelled)) {
            continue;
        }
        let earlier = turns.iter().take(place).filter(|(_, after, _)| on_its_way(after));
        let later = turns.iter().skip(place + 1).filter(|(before, ..)| on_its_way(before));
        let others = earlier.count() + later.count();
        if others >= most {
            return broken(format!(
                "maxUnavailable {most}: {} leaves for {:?} while {others} others are on their way",
                after.ip, after.reason
            ));
        }
    }
    Ok(())
}

/// Of the selected nodes, and those that are gone and that entries name, all, or more than may be, are not Ready or gone while
/// their machines run: whether those count or not whose machines were stopped, started or replaced a moment ago. A node that
/// is Ready counts whatever became of its machine: only of a suspect is it asked.
fn is_mass_failure(cosmos: &Cosmos, nodes: &BTreeMap<String, Arc<SlimNode>>, object: &NetIPAllocation) -> bool {
    let selected = nodes.values().filter(|node| node.matches(&object.spec.node_selector));
    let mut judged: Vec<(Option<ProviderId>, bool)> =
        selected.map(|node| (node.place(), node.not_ready_since().is_some())).collect();
    let named = of(object).filter_map(|entry| Some((entry.node?, entry.machine?.place)));
    let gone: BTreeMap<String, ProviderId> = named.filter(|(node, _)| !nodes.contains_key(node)).collect();
    judged.extend(gone.into_values().map(|place| (Some(place), true)));
    let runs = |place: &Option<ProviderId>| {
        let machine = place.as_ref().and_then(|place| cosmos.cloud.machine(place));
        machine.is_some_and(|it| it.exists && it.power == Power::Running)
    };
    let stirred = |place: &Option<ProviderId>| {
        let then = place.as_ref().and_then(|place| cosmos.stirred.get(place));
        then.is_some_and(|then| cosmos.instant.duration_since(*then) < STIRRED)
    };
    let mass = |counts: &dyn Fn(&Option<ProviderId>) -> bool| {
        let counted = judged.iter().filter(|(place, down)| !down || counts(place));
        let (nodes, unhealthy) = counted.fold((0, 0), |(all, some), (_, down)| (all + 1, some + usize::from(*down)));
        Health { nodes, unhealthy }.is_mass_failure(object.spec.failover.max_unhealthy.resolve(nodes))
    };
    mass(&runs) && mass(&|place| runs(place) && !stirred(place))
}

/// Longer than what was read of a machine's life is believed, and than AWS may be behind with it.
const STIRRED: Duration = Duration::from_secs(150);

/// P5: no machine is meant for two addresses.
fn one_seat(cosmos: &Cosmos) -> Judged {
    let mut all = entries(cosmos);
    all.retain(|(_, entry)| !cosmos.excuses.has(entry.ip));
    let mut meant: BTreeMap<&ProviderId, (&str, IpAddr)> = BTreeMap::new();
    for (name, entry) in all.iter().filter(|(_, entry)| !entry.state.at_rest()) {
        let Some(machine) = &entry.machine else { continue };
        if cosmos.excuses.is_edited_about(Some(entry.ip), Some(&machine.place)) {
            continue;
        }
        let (first, ip) = *meant.entry(&machine.place).or_insert((name.as_str(), entry.ip));
        if ip != entry.ip {
            return broken(format!("P5: {ip} of {first} and {} of {name} are meant for one machine", entry.ip));
        }
    }
    Ok(())
}

/// P5: no two addresses give up their nodes for one. Who comes second has no target, and stays where it is.
fn one_target(cosmos: &Cosmos) -> Judged {
    if cosmos.excuses.is_any_edited() {
        return Ok(());
    }
    let mut given: BTreeMap<String, (&str, IpAddr)> = BTreeMap::new();
    for (name, object) in cosmos.cluster.allocations() {
        let wanted = wanted(object);
        let given_up =
            |entry: &Entry| has_given_up(entry) && wanted.contains(&entry.ip) && !cosmos.excuses.has(entry.ip);
        for entry in of(object).filter(given_up) {
            let Some(node) = entry.planned_node else { continue };
            let (first, ip) = *given.entry(node.clone()).or_insert((name, entry.ip));
            if ip == entry.ip || gives_way(cosmos, entry.ip, &node) {
                continue;
            }
            if !gives_way(cosmos, ip, &node) {
                return broken(format!(
                    "P5: {ip} of {first} and {} of {name} gave up their nodes for {node}",
                    entry.ip
                ));
            }
            given.insert(node, (name, entry.ip));
        }
    }
    Ok(())
}

/// It keeps nobody from that node any more: another one is promised to it, and its status says so with the next write, for which a new
/// plan alone is no reason; or the cloud denies it, and nothing comes of it for now.
fn gives_way(cosmos: &Cosmos, ip: IpAddr, planned: &str) -> bool {
    let Some(term) = cosmos.leader().and_then(|leader| leader.term.as_ref()) else { return false };
    let nobody = IpAddr::from([0, 0, 0, 0]);
    let promised = |node: &String| term.tables.promised.others(node, &nobody).any(|(going, _)| *going == ip);
    let denied = term.tables.failure(ip).is_some_and(|failure| failure.kind.is_denial());
    denied || cosmos.names.keys().any(|node| node != planned && promised(node))
}

/// It has left its node, or is about to, for a cause for which it would have stayed without a target.
fn has_given_up(entry: &Entry) -> bool {
    let cause = match entry.state {
        State::Releasing => Cause::of(entry.reason),
        State::Detached => entry.last_move.as_ref().and_then(|last| Cause::of(Reason::parse(&last.reason)?)),
        State::Unassigned | State::Attaching | State::Attached | State::Draining => None,
    };
    cause.is_some_and(|cause| cause.row().needs_target)
}

/// The addresses that an object asks for.
fn wanted(object: &NetIPAllocation) -> BTreeSet<IpAddr> {
    if object.metadata.deletion_timestamp.is_some() { BTreeSet::new() } else { listed(object).0 }
}

/// What is judged after every action where the world is small, and in a large one only after some: at the end, whole.
pub fn whole(cosmos: &Cosmos) -> Judged {
    state(cosmos)?;
    one_seat(cosmos)?;
    one_target(cosmos)
}

/// The finalizer went: nothing of the object's is left outside, unless it was to stay.
fn released(cosmos: &Cosmos, object: &NetIPAllocation) -> Judged {
    let name = object.name_any();
    if object.spec.mode == Mode::Observe {
        return Ok(());
    }
    let retained = object.spec.deletion_policy == DeletionPolicy::Retain;
    let edited = cosmos.excuses.is_edited(&name);
    // With Retain open intents are ended first (design §3.2); what was sent twice for an address that is where it was to go changes
    // nothing.
    let ends = |entry: &Entry, cuts: bool| if retained { entry.state.is_open_intent() && !edited } else { !cuts };
    let under_way = cosmos.cloud.requests().values().any(|request| {
        request.meta.address.is_some_and(|ip| object.spec.reserved_ips.contains(&ip.to_string()))
            && of(object)
                .filter(|entry| ends(entry, request.order.cuts()))
                .any(|entry| entry.operation.is_some_and(|operation| operation.id == request.meta.operation))
    });
    if under_way {
        return broken(format!("P9: {name} went while a request was under way"));
    }
    if retained || edited {
        return Ok(());
    }
    if let Some(entry) = of(object).next() {
        return broken(format!("P9: {name} went while it had an entry for {}", entry.ip));
    }
    let labelled = cosmos.cluster.nodes().values().find(|node| node.label(ALLOCATION_LABEL) == Some(name.as_str()));
    if let Some(node) = labelled.filter(|node| !cosmos.excuses.nodes.contains(&node.name_any())) {
        return broken(format!("P9: {name} went and left its labels on node {}", node.name_any()));
    }
    Ok(())
}

/// When everything has come to rest: nothing is held that should not be, and everything is where it should be.
pub fn rest(cosmos: &Cosmos) -> Judged {
    let all = entries(cosmos);
    for (name, entry) in &all {
        let used = is_used_by_a_stranger(cosmos, name, entry);
        if entry.state.is_open_intent() && !used {
            return broken(format!("P12: {} of {name} rests in {:?}: {}", entry.ip, entry.state, entry.message));
        }
    }
    for (name, node) in cosmos.cluster.nodes() {
        // What an object has left behind as it was is for the sweep, and so is a label that says nobody's name.
        let ours = node.label(ALLOCATION_LABEL).is_some_and(|whose| match cosmos.cluster.allocation(whose) {
            Some(object) => object.spec.mode != Mode::Observe,
            None => !cosmos.left.contains(whose),
        });
        if mislabelled(&cosmos.cloud, node) && ours && !cosmos.excuses.is_any_edited() {
            return broken(format!("P4: node {name} rests with a label, and its address is elsewhere"));
        }
    }
    one_each(cosmos, &all)?;
    labelled(cosmos, &all)?;
    let_go(cosmos, &all)?;
    adopted(cosmos, &all)?;
    // Mode Observe changes nothing: what is owed stays written down.
    let pays = |object: &NetIPAllocation| object.spec.mode != Mode::Observe;
    let owed = |pays_now: bool| {
        let objects = cosmos.cluster.allocations().values().filter(move |object| pays(object) == pays_now);
        objects.flat_map(|object| &object.status).flat_map(|status| &status.owed).filter_map(memory::read_owed)
    };
    if let Some(owed) = owed(true).next() {
        return broken(format!("P10: {} is still owed an address of its own", owed.machine));
    }
    for (place, machine) in cosmos.cloud.machines() {
        let told = cosmos.struck.iter().any(|struck| struck.place == *place)
            || owed(false).any(|owed| owed.machine.place == *place);
        if machine.exists && machine.had_own && machine.slot == Slot::Empty && !told && !is_excused(cosmos, place) {
            return broken(format!("P10: {place} had an address of its own before, and has none"));
        }
    }
    Ok(())
}

/// It is being let go of, and a pod that asks for no address has come to its node meanwhile, which nothing keeps away: it may use
/// this one for all that anybody knows.
fn is_used_by_a_stranger(cosmos: &Cosmos, name: &str, entry: &Entry) -> bool {
    let Some((_, node)) = waits(cosmos, name, entry).filter(|_| entry.state == State::Releasing) else { return false };
    let Some(object) = cosmos.cluster.allocation(name) else { return false };
    let pods = cosmos.cluster.pods_of(node);
    let users = users::users(&pods, &workload(object, &cosmos.cluster));
    users.iter().any(|user| pods.iter().any(|pod| pod.uid == user.uid && !pod.gated))
}

/// Outsiders have had their hands on it.
fn is_excused(cosmos: &Cosmos, place: &ProviderId) -> bool {
    cosmos.excuses.machines.contains(place) || cosmos.excuses.is_any_edited()
}

/// The allocation of that name, if it may be acted for and stays.
fn enforced<'a>(cosmos: &'a Cosmos, name: &str) -> Option<&'a Arc<NetIPAllocation>> {
    let object = cosmos.cluster.allocation(name)?;
    let stays = object.metadata.deletion_timestamp.is_none();
    Some(object).filter(|object| stays && object.spec.mode == Mode::Enforce)
}

/// P5: over all allocations one entry has something of an address.
fn one_each(cosmos: &Cosmos, all: &[(String, Entry)]) -> Judged {
    let acts = |name: &str| cosmos.cluster.allocation(name).is_some_and(|object| object.spec.mode != Mode::Observe);
    let mut known: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, entry) in all.iter().filter(|(name, entry)| entry.state != State::Unassigned && acts(name)) {
        if let Some(other) = known.insert(entry.ip, name) {
            return broken(format!("P5: both {other} and {name} rest with an entry for {}", entry.ip));
        }
    }
    Ok(())
}

fn is_disrupted(node: &SlimNode) -> bool {
    node.disrupted(&[DISRUPTION.to_owned()]).is_some()
}

/// Its machine runs, and nothing speaks against the node.
fn is_well(cosmos: &Cosmos, node: &SlimNode) -> bool {
    let machine = node.place().and_then(|place| cosmos.cloud.machine(&place));
    node.label(POOL).is_some()
        && !node.cordoned()
        && node.not_ready_since().is_none()
        && !is_disrupted(node)
        && !node.out_of_service()
        && machine.is_some_and(|machine| machine.exists && machine.power == Power::Running)
}

/// P4: a node that works says of the address that is verified on it that it has it.
fn labelled(cosmos: &Cosmos, all: &[(String, Entry)]) -> Judged {
    for (name, entry) in all.iter().filter(|(name, entry)| {
        entry.state == State::Attached && enforced(cosmos, name).is_some() && !cosmos.excuses.is_edited(name)
    }) {
        let Some(node) = entry.node.as_ref().and_then(|node| cosmos.cluster.node(node)) else { continue };
        let says = is_labelled(node) && node.label(ADDRESS_LABEL).and_then(|text| text.parse().ok()) == Some(entry.ip);
        let machine = node.place().and_then(|place| cosmos.cloud.machine(&place));
        let there = machine.is_some_and(|machine| machine.slot == Slot::Reserved(entry.ip));
        if is_well(cosmos, node) && there && !says {
            return broken(format!("P4: {} of {name} is on node {}, which does not say so", entry.ip, node.name_any()));
        }
    }
    Ok(())
}

/// P12: an address that sits on a selected node is that of the one allocation that wants it.
fn adopted(cosmos: &Cosmos, all: &[(String, Entry)]) -> Judged {
    let mut claims: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for (name, object) in cosmos.cluster.allocations() {
        for ip in object.spec.reserved_ips.iter().filter_map(|text| text.parse().ok()) {
            claims.entry(ip).or_default().insert(name);
        }
    }
    let mut seats: BTreeMap<&ProviderId, Vec<(&str, &Entry)>> = BTreeMap::new();
    for (name, entry) in all {
        claims.entry(entry.ip).or_default().insert(name);
        if let Some(machine) = entry.machine.as_ref().filter(|_| !entry.state.at_rest()) {
            seats.entry(&machine.place).or_default().push((name, entry));
        }
    }
    let nodes: BTreeMap<_, _> =
        cosmos.cluster.nodes().values().filter_map(|node| Some((node.place()?, node))).collect();
    let machines = cosmos.cloud.machines().iter();
    let sits: BTreeMap<IpAddr, &ProviderId> = machines
        .filter_map(|(place, machine)| match machine.slot {
            Slot::Reserved(ip) => Some((ip, place)),
            Slot::Own | Slot::Empty => None,
        })
        .collect();
    let kept = cosmos.cluster.allocations().values().flat_map(|object| not_understood(object));
    let kept = kept.filter_map(|stored| stored.machine_id.as_ref()?.parse::<MachineId>().ok());
    let kept: BTreeSet<ProviderId> = kept.map(|machine| machine.place).collect();
    for (ip, claims) in claims {
        let mut claims = claims.into_iter();
        let (Some(name), None) = (claims.next(), claims.next()) else { continue };
        let wants = |object: &&Arc<NetIPAllocation>| object.spec.reserved_ips.contains(&ip.to_string());
        let Some(object) = enforced(cosmos, name).filter(wants) else { continue };
        if is_not_understood(object, ip) {
            continue;
        }
        let Some(place) = sits.get(&ip).copied() else { continue };
        let selected = |node: &&&Arc<SlimNode>| is_well(cosmos, node) && node.matches(&object.spec.node_selector);
        let Some(node) = nodes.get(place).filter(selected) else { continue };
        let seated = seats.get(place).map_or(&[][..], Vec::as_slice);
        let ours =
            seated.iter().any(|(_, entry)| entry.ip == ip && matches!(entry.state, State::Attached | State::Draining));
        let taken = seated.iter().any(|(_, entry)| entry.ip != ip) || kept.contains(place);
        if !taken && !ours {
            return broken(format!("P12: {ip} of {name} sits on node {}, and rests unadopted", node.name_any()));
        }
    }
    Ok(())
}

/// Nodes that could take an address now, each with the entries that plan to go there; none where there are no more than addresses
/// that are held up while they are let go of: they are promised to those.
fn free<'a>(cosmos: &'a Cosmos, all: &'a [(String, Entry)]) -> Vec<(&'a String, Vec<&'a Entry>)> {
    let (mut taken, mut plans) = (BTreeSet::new(), BTreeMap::<&String, Vec<&Entry>>::new());
    for (_, entry) in all {
        taken.extend(entry.node.as_ref().filter(|_| !entry.state.at_rest()));
        entry.planned_node.iter().for_each(|node| plans.entry(node).or_default().push(entry));
    }
    for object in cosmos.cluster.allocations().values() {
        taken.extend(not_understood(object).filter_map(|stored| stored.node.as_ref()));
    }
    // Nobody takes the seat of a machine that is owed an address of its own.
    let objects = cosmos.cluster.allocations().values();
    let debts = objects.flat_map(|object| &object.status).flat_map(|status| &status.owed);
    let owed: BTreeSet<ProviderId> = debts.filter_map(memory::read_owed).map(|owed| owed.machine.place).collect();
    let nodes = cosmos.cluster.nodes().iter();
    let free = nodes.filter(|(name, node)| {
        let place = node.place();
        let machine = place.as_ref().and_then(|place| cosmos.cloud.machine(place));
        let empty = machine.is_some_and(|machine| !matches!(machine.slot, Slot::Reserved(_)));
        empty && !taken.contains(name) && !place.is_some_and(|place| owed.contains(&place)) && is_well(cosmos, node)
    });
    let free: Vec<_> = free.map(|(name, _)| (name, plans.remove(name).unwrap_or_default())).collect();
    let held_up = all.iter().filter(|(_, entry)| entry.state.is_open_intent()).count();
    if free.len() > held_up { free } else { Vec::new() }
}

/// The first of these that the address of this allocation could go to: nobody else plans to.
fn goes_to<'a>(
    cosmos: &Cosmos,
    free: &[(&'a String, Vec<&Entry>)],
    object: &NetIPAllocation,
    entry: &Entry,
) -> Option<&'a String> {
    let mut free = free.iter().filter(|(_, plans)| plans.iter().all(|planned| std::ptr::eq(*planned, entry)));
    let selects = |node: &String| cosmos.cluster.node(node).is_some_and(|it| it.matches(&object.spec.node_selector));
    free.find(|(node, _)| entry.node.as_ref() != Some(node) && selects(node)).map(|(node, _)| *node)
}

/// A pod on the node keeps an address there that leaves for this cause.
fn is_used(cosmos: &Cosmos, object: &NetIPAllocation, cause: Cause, node: &str) -> bool {
    let evicts = object.spec.drain.policy == DrainPolicy::Evict;
    let evicts = cause.row().always_evicts || (cause.row().may_evict && evicts);
    let users = users::users(&cosmos.cluster.pods_of(node), &workload(object, &cosmos.cluster));
    users.iter().any(|user| leaving::keeps(cause, user, evicts))
}

/// P9: an object that is deleted goes, unless somebody uses an address of it.
fn let_go(cosmos: &Cosmos, all: &[(String, Entry)]) -> Judged {
    let objects = cosmos.cluster.allocations().iter();
    for (name, object) in objects.filter(|(_, object)| object.metadata.deletion_timestamp.is_some()) {
        let leaves = |state| matches!(state, State::Draining | State::Releasing);
        let leaving = all.iter().filter(|(whose, entry)| whose == name && leaves(entry.state));
        let used = leaving.map(|(_, entry)| entry).any(|entry| {
            let cause = Cause::of(entry.reason).unwrap_or(Cause::AllocationDeleted);
            entry.node.as_ref().is_some_and(|node| is_used(cosmos, object, cause, node))
        });
        let understood = || all.iter().any(|(whose, _)| whose == name);
        if !used && (not_understood(object).next().is_none() || understood()) {
            return broken(format!("P9: {name} is deleted, and stays although nobody uses what it has"));
        }
    }
    Ok(())
}

/// P12: an address that drains leaves when nobody uses it any more, it has somewhere to go, and it is its turn.
fn drained(cosmos: &Cosmos, all: &[(String, Entry)], free: &[(&String, Vec<&Entry>)]) -> Judged {
    for (name, entry) in all.iter().filter(|(_, entry)| entry.state == State::Draining) {
        let Some(object) = cosmos.cluster.allocation(name).filter(|object| object.spec.mode == Mode::Enforce) else {
            continue;
        };
        let cause = Cause::of(entry.reason).filter(|cause| cause.row().by_choice);
        let (Some(cause), Some(node)) = (cause, &entry.node) else { continue };
        let goes = !cause.row().needs_target || goes_to(cosmos, free, object, entry).is_some();
        let others = |(other, entry): &&(String, Entry)| other == name && !entry.state.at_rest();
        let turn = all.iter().filter(others).filter(|(_, entry)| entry.state != State::Attached).count() == 1;
        if goes && turn && !is_used(cosmos, object, cause, node) {
            return broken(format!("P12: {} of {name} rests on node {node}, which it has to leave", entry.ip));
        }
    }
    Ok(())
}

/// P12: everything that can be placed is placed, whatever its entry gives for a reason, and what can leave has left.
pub fn placed(cosmos: &Cosmos) -> Judged {
    let all = entries(cosmos);
    let free = free(cosmos, &all);
    drained(cosmos, &all, &free)?;
    let mut known: BTreeMap<(&str, IpAddr), &Entry> = BTreeMap::new();
    let mut claims: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for (name, entry) in &all {
        known.insert((name, entry.ip), entry);
        claims.entry(entry.ip).or_default().insert(name);
    }
    let asked = |object: &NetIPAllocation| -> Vec<IpAddr> {
        object.spec.reserved_ips.iter().filter_map(|text| text.parse().ok()).collect()
    };
    for (name, object) in cosmos.cluster.allocations() {
        // An entry that nobody understands has its address all the same.
        let kept = not_understood(object).filter_map(|stored| stored.ip.parse().ok());
        for ip in asked(object).into_iter().chain(kept) {
            claims.entry(ip).or_default().insert(name);
        }
    }
    let objects = cosmos.cluster.allocations().iter();
    for (name, object) in objects.filter(|(_, object)| object.metadata.deletion_timestamp.is_none()) {
        for ip in asked(object) {
            let Some(entry) = known.get(&(name.as_str(), ip)) else {
                if is_not_understood(object, ip) {
                    continue;
                }
                return broken(format!("P12: {name} asks for {ip}, and has no entry for it"));
            };
            let may_go = match object.spec.mode {
                Mode::Enforce => true,
                Mode::Hold => leaving::is_half_moved(entry),
                Mode::Observe => false,
            };
            let waits = may_go && entry.state.at_rest();
            let yields = entry.reason == Reason::DuplicateClaim && claims.get(&ip).is_some_and(|all| all.len() > 1);
            let is_free = || cosmos.cloud.holder(ip) == Holder::Free && cosmos.cloud.find(ip) != Whereabouts::NotFound;
            if waits
                && !yields
                && is_free()
                && let Some(node) = goes_to(cosmos, &free, object, entry)
            {
                return broken(format!(
                    "P12: {ip} of {name} waits ({:?}: {}) although node {node} could take it",
                    entry.reason, entry.message
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
