//! `kubectl nia why IP`: the story of one address, in sentences. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    refusal::{Exit, Refusal},
    table::{Cell, Paint, Tone, age, clock, lines, tone},
};
use crate::{
    allocation::{
        claims,
        decide::placement::{Candidate, Verdict},
    },
    api::{self, AddressStatus, Condition, LastMove, NetIPAllocation},
};

/// An address, the allocation that has or asks for it, and what status says.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub ip: IpAddr,
    pub object: &'a NetIPAllocation,
    /// `None`: no operator has looked at it yet.
    pub entry: Option<&'a AddressStatus>,
}

/// Whose the address is: of several that name it, the one that has it on a node, else the older.
///
/// # Errors
/// No allocation knows it.
pub fn find(all: &[NetIPAllocation], ip: IpAddr) -> Result<Found<'_>, Refusal> {
    let known = all.iter().filter_map(|object| {
        let mut entries = object.status.iter().flat_map(|status| &status.addresses);
        let entry = entries.find(|entry| entry.ip.parse() == Ok(ip));
        (entry.is_some() || claims::listed(object).0.contains(&ip)).then_some(Found { ip, object, entry })
    });
    let rank = |found: &Found<'_>| {
        let holds = found.entry.is_some_and(|entry| entry.node.is_some());
        let created = found.object.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        (!holds, created, found.object.name_any())
    };
    known.min_by_key(rank).ok_or_else(|| {
        let sentence = format!("{ip} is no address of any NetIPAllocation here; `kubectl nia` lists those that are");
        Refusal::new(Exit::Unknown, sentence)
    })
}

/// The story. `nodes`: the verdict on each selected node, or why there is none.
pub fn story(
    found: Found<'_>,
    others: &[&NetIPAllocation],
    nodes: Result<&[Candidate], &Refusal>,
    now: Timestamp,
    paint: Paint,
) -> Vec<String> {
    let Found { ip, object, entry } = found;
    let name = object.name_any();
    let mut told = Vec::new();
    match entry {
        None => told.push(format!("{ip} of NetIPAllocation {name}: no operator has looked at it yet.")),
        Some(entry) => {
            let since = entry
                .last_transition_time
                .as_ref()
                .map_or_else(String::new, |time| format!(", since {} ({})", clock(time.0), age(time.0, now)));
            let reason = entry.reason.as_deref().unwrap_or("no reason given");
            let state = paint.on(tone(&entry.state), &entry.state);
            told.push(format!("{ip} of NetIPAllocation {name} {}: {state} ({reason}){since}.", place(entry)));
            told.extend(waits(entry));
        }
    }
    told.extend(around(object, others, ip));
    told.push(
        entry
            .and_then(|entry| entry.last_move.as_ref())
            .map_or_else(|| "No move of it is remembered.".to_owned(), last_move),
    );
    match nodes {
        Err(refusal) => told.push(format!("What speaks for or against each node is not known: {refusal}.")),
        Ok([]) => told.push("No node is selected; check spec.nodeSelector against the nodes' labels.".to_owned()),
        Ok(nodes) => {
            told.push("The nodes of its pool, as far as they can be judged without asking the cloud:".to_owned());
            told.extend(verdicts(nodes, entry.and_then(|entry| entry.node.as_deref()), paint));
        }
    }
    told
}

fn place(entry: &AddressStatus) -> String {
    let node = entry.node.as_deref().unwrap_or("its node");
    match (entry.state.as_str(), entry.operation.as_ref().map(|operation| operation.type_.as_str())) {
        ("Attached", _) => format!("is on node {node}"),
        ("Attaching", _) => format!("is being put on node {node}"),
        ("Draining", Some("Detach")) => format!("is being taken off node {node}"),
        ("Draining", _) => format!("is on node {node}, and is to leave it"),
        ("Detached", _) => "is off its last node, and looks for the next".to_owned(),
        ("Unassigned", _) => "is on no node".to_owned(),
        _ => "is in a state that this version does not know".to_owned(),
    }
}

fn waits(entry: &AddressStatus) -> Vec<String> {
    let said = entry.message.as_deref().filter(|message| !message.is_empty());
    let said = said.map(|message| format!("The operator says: {message}."));
    let next = entry.planned_node.as_ref().map(|node| format!("It goes to node {node} next."));
    let deadline = entry.deadline_time.as_ref().map(|time| format!("It leaves at {} whatever runs.", clock(time.0)));
    [said, next, deadline].into_iter().flatten().collect()
}

/// What else has to do with it: an allocation that is not well, edits that are not seen, a request, rivals.
fn around(object: &NetIPAllocation, others: &[&NetIPAllocation], ip: IpAddr) -> Vec<String> {
    let mut told = Vec::new();
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let worth = |condition: &&Condition| match condition.type_.as_str() {
        "Ready" | "AddressesValid" | "CredentialsValid" | "WorkloadFound" => condition.status != "True",
        "FailoverFrozen" | "Stalled" => condition.status == "True",
        _ => false,
    };
    told.extend(conditions.filter(worth).map(|condition| {
        let Condition { type_, status, reason, message, .. } = condition;
        format!("The allocation's condition {type_} is {status} ({reason}): {message}.")
    }));
    if object.metadata.deletion_timestamp.is_some() {
        told.push(format!("The allocation is being deleted, with deletionPolicy {:?}.", object.spec.deletion_policy));
    }
    if object.spec.mode != api::Mode::Enforce {
        told.push(format!("The allocation is in mode {:?}.", object.spec.mode));
    }
    let seen = object.status.as_ref().and_then(|status| status.observed_generation);
    if seen.is_some() && seen != object.metadata.generation {
        told.push("The spec has been edited, and the operator has not seen that yet.".to_owned());
    }
    if let Some(request) = object.annotations().get(api::MOVE_ANNOTATION) {
        told.push(format!("A move is asked for and not answered yet: {request}."));
    }
    for other in others.iter().filter(|other| claims::listed(other).0.contains(&ip)) {
        told.push(format!("NetIPAllocation {} names it as well; take it out of one of the two.", other.name_any()));
    }
    told
}

/// `It last moved from node a to node b (NodeCordoned): …`.
pub fn last_move(moved: &LastMove) -> String {
    let way = match (&moved.from_node, &moved.to_node) {
        (Some(from), Some(to)) if from == to => format!("It last left node {from} and came back"),
        (Some(from), Some(to)) => format!("It last moved from node {from} to node {to}"),
        (None, Some(to)) => format!("It last came to node {to}"),
        (Some(from), None) => format!("It last left node {from}"),
        (None, None) => "It last moved".to_owned(),
    };
    let gap = moved.gap_seconds.map_or_else(String::new, |gap| format!(", on no node for {gap} s"));
    let trace = moved.trace_id.as_ref().map_or_else(String::new, |trace| format!(", trace {trace}"));
    let (began, ended) = (clock(moved.start_time.0), clock(moved.finish_time.0));
    format!("{way} ({}): decided {began}, done {ended}{gap}{trace}.", moved.reason)
}

fn verdicts(nodes: &[Candidate], own: Option<&str>, paint: Paint) -> Vec<String> {
    let row = |node: &Candidate| {
        let here = own == Some(node.name.as_str());
        let tone = if node.verdict == Verdict::Eligible { Tone::Good } else { Tone::Plain };
        let words = match (&node.why, node.last_choice) {
            (Some(why), _) => why.clone(),
            (None, _) if here => "has this address".to_owned(),
            (None, true) if node.verdict == Verdict::Eligible => "the last choice: it may end soon".to_owned(),
            (None, _) => String::new(),
        };
        let verdict = Cell { text: node.verdict.as_str().to_owned(), tone };
        vec![Cell::plain(format!("  {}", node.name)), Cell::of(Some(&node.zone)), verdict, Cell::plain(words)]
    };
    let rows: Vec<Vec<Cell>> = nodes.iter().map(row).collect();
    lines(&rows, &mut Vec::new(), paint).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::kubectl_nia::{
        refusal::NODES,
        samples::{at, attach, ip, object},
    };

    const IP: &str = "203.0.113.7";

    fn candidate(name: &str, verdict: Verdict) -> Candidate {
        Candidate { name: name.to_owned(), zone: "us-west1-a".to_owned(), verdict, why: None, last_choice: false }
    }

    #[test]
    fn the_story_says_where_it_is_what_it_waits_for_and_what_speaks_against_each_node() {
        let mut voip = object("voip", &[IP]);
        attach(&mut voip, IP, "node-a");
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.state = "Draining".to_owned();
        entry.reason = Some("NodeCordoned".to_owned());
        entry.message = Some("waits for 1 pod".to_owned());
        entry.planned_node = Some("node-c".to_owned());
        entry.last_move = Some(LastMove {
            from_node: Some("node-b".to_owned()),
            to_node: Some("node-a".to_owned()),
            reason: "MoveRequested".to_owned(),
            start_time: Time(at(0)),
            finish_time: Time(at(9)),
            gap_seconds: Some(2),
            trace_id: Some("0af7".to_owned()),
        });
        let all = [voip];
        let nodes = [candidate("node-a", Verdict::HoldsAddress), candidate("node-c", Verdict::Eligible)];
        let told = story(find(&all, ip(IP)).unwrap(), &[], Ok(&nodes), at(0), Paint(false)).join("\n");
        for part in [
            "203.0.113.7 of NetIPAllocation voip is on node node-a, and is to leave it: Draining (NodeCordoned), since",
            "(60m)",
            "The operator says: waits for 1 pod.",
            "It goes to node node-c next.",
            "It last moved from node node-b to node node-a (MoveRequested): decided",
            "on no node for 2 s, trace 0af7.",
            "  node-a   us-west1-a   HoldsAddress   has this address",
            "  node-c   us-west1-a   Eligible",
        ] {
            assert!(told.contains(part), "{part:?} is not in\n{told}");
        }
    }

    #[test]
    fn what_the_user_may_not_see_is_named_and_the_rest_is_told() {
        let mut voip = object("voip", &[IP]);
        attach(&mut voip, IP, "node-a");
        let all = [voip];
        let refusal = Refusal::forbidden("list", &NODES);
        let told = story(find(&all, ip(IP)).unwrap(), &[], Err(&refusal), at(0), Paint(false)).join("\n");
        assert!(told.contains("is on node node-a") && told.contains("you may not list nodes"), "{told}");
    }

    #[test]
    fn the_allocation_that_has_it_is_the_one_and_rivals_are_named() {
        let (older, mut younger) = (object("older", &[IP]), object("younger", &[IP]));
        younger.metadata.creation_timestamp = Some(Time(at(0)));
        attach(&mut younger, IP, "node-a");
        let all = [older, younger];
        let found = find(&all, ip(IP)).unwrap();
        assert_eq!(found.object.name_any(), "younger");
        let told = story(found, &[&all[0]], Ok(&[]), at(0), Paint(false)).join("\n");
        assert!(told.contains("NetIPAllocation older names it as well"), "{told}");
        let refusal = find(&all, ip("203.0.113.8")).unwrap_err();
        assert_eq!(refusal.exit, Exit::Unknown);
    }

    #[test]
    fn what_no_operator_has_seen_is_said_so() {
        let all = [object("voip", &[IP])];
        let told = story(find(&all, ip(IP)).unwrap(), &[], Ok(&[]), at(0), Paint(false)).join("\n");
        assert!(told.contains("no operator has looked at it yet") && told.contains("No move of it"), "{told}");
    }
}
