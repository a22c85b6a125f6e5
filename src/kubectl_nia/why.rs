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
        claims::{self, Claims},
        decide::{
            facts::Claim,
            placement::{Candidate, Verdict},
        },
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

/// Whose the address is, by the operator's own rule where several name it.
///
/// # Errors
/// No allocation knows it.
pub fn find(all: &[NetIPAllocation], ip: IpAddr) -> Result<Found<'_>, Refusal> {
    let claims = Claims::of(all);
    let known = all.iter().filter_map(|object| {
        let entry = entry(object, ip);
        (entry.is_some() || lists(object, ip)).then_some(Found { ip, object, entry })
    });
    let rank = |found: &Found<'_>| {
        let uid = found.object.metadata.uid.as_deref().unwrap_or_default();
        let created = found.object.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        // Where nobody claims it any more, each of those that still remember it might.
        (claims.claim(ip, uid) != Claim::Ours, created, found.object.name_any())
    };
    known.min_by_key(rank).ok_or_else(|| {
        let sentence = format!("{ip} is no address of any NetIPAllocation here; `kubectl nia` lists those that are");
        Refusal::new(Exit::Unknown, sentence)
    })
}

fn entry(object: &NetIPAllocation, ip: IpAddr) -> Option<&AddressStatus> {
    object.status.iter().flat_map(|status| &status.addresses).find(|entry| entry.ip.parse() == Ok(ip))
}

/// It asks for the address, and will go on asking.
fn lists(object: &NetIPAllocation, ip: IpAddr) -> bool {
    object.metadata.deletion_timestamp.is_none() && claims::listed(object).0.contains(&ip)
}

/// That status is not of what the spec says, if it is not.
pub fn unseen(object: &NetIPAllocation) -> Option<String> {
    let name = object.name_any();
    match object.status.as_ref().and_then(|status| status.observed_generation) {
        None => Some(format!("no operator of this version has looked at NetIPAllocation {name} yet")),
        Some(seen) if object.metadata.generation.is_some_and(|now| seen < now) => {
            Some(format!("the spec of NetIPAllocation {name} has been edited, and the operator has not seen that yet"))
        }
        Some(_) => None,
    }
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
    let message = entry.message.as_deref().unwrap_or_default();
    // The operator's sentence of a drain has both; not every sentence has.
    let words: Vec<&str> = message.split_whitespace().map(|word| word.trim_end_matches([';', ','])).collect();
    let says_where = |node: &&String| words.windows(3).any(|three| three == ["to", "node", node.as_str()]);
    let says_when = |leaves: &String| message.contains(leaves);
    let said = (!message.is_empty()).then(|| format!("The operator says: {message}."));
    let next = entry.planned_node.as_ref().filter(|node| !says_where(node));
    let next = next.map(|node| format!("It goes to node {node} next."));
    let deadline = entry.deadline_time.as_ref().map(|time| format!("leaves at {} whatever runs", clock(time.0)));
    let deadline = deadline.filter(|leaves| !says_when(leaves)).map(|leaves| format!("It {leaves}."));
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
    told.extend(unseen(object).map(|said| format!("Note that {said}.")));
    if let Some(request) = object.annotations().get(api::MOVE_ANNOTATION) {
        told.push(format!("A move is asked for and not answered yet: {request}."));
    }
    told.extend(rivals(object, others, ip));
    told
}

/// What an allocation that has the address and one that names it as well are to each other.
fn rivals(object: &NetIPAllocation, others: &[&NetIPAllocation], ip: IpAddr) -> Vec<String> {
    let naming: Vec<&NetIPAllocation> = others.iter().copied().filter(|other| lists(other, ip)).collect();
    if lists(object, ip) {
        let each = |other: &&NetIPAllocation| {
            format!("NetIPAllocation {} names it as well; take it out of one of the two.", other.name_any())
        };
        return naming.iter().map(each).collect();
    }
    // It is let go of here, so it goes to whom it would be without this one.
    let claims = Claims::of(naming.iter().copied());
    let next =
        naming.iter().find(|other| claims.claim(ip, other.metadata.uid.as_deref().unwrap_or_default()) == Claim::Ours);
    next.map(|next| format!("NetIPAllocation {} names it, and gets it next.", next.name_any())).into_iter().collect()
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
            (None, true) => "the last choice: it may end soon".to_owned(),
            (None, false) => String::new(),
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
        entry.message = Some(
            "waits for 1 pod of Deployment voip/sip on node node-a: sip-1 (Running); no deadline; goes to node node-c next"
                .to_owned(),
        );
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
            "sip-1 (Running); no deadline; goes to node node-c next.",
            "It last moved from node node-b to node node-a (MoveRequested): decided",
            "on no node for 2 s, trace 0af7.",
            "  node-a   us-west1-a   HoldsAddress   has this address",
            "  node-c   us-west1-a   Eligible",
        ] {
            assert!(told.contains(part), "{part:?} is not in\n{told}");
        }
        assert!(!told.contains("It goes to node"), "the operator has said so: {told}");
    }

    #[test]
    fn where_it_goes_and_until_when_is_said_where_the_operators_sentence_lacks_it() {
        let mut entry = AddressStatus {
            message: Some("nobody uses it on node node-a; goes to node node-c1 next".to_owned()),
            planned_node: Some("node-c".to_owned()),
            deadline_time: Some(Time(at(0))),
            ..AddressStatus::default()
        };
        let more = ["It goes to node node-c next.", "It leaves at 2027-01-15T08:00:00Z whatever runs."];
        assert_eq!(waits(&entry)[1..], more);
        entry.message = None;
        assert_eq!(waits(&entry), more);
        entry.message =
            Some("nobody uses it; leaves at 2027-01-15T08:00:00Z whatever runs; goes to node node-c next".to_owned());
        assert_eq!(waits(&entry).len(), 1, "{:?}", waits(&entry));
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
    fn of_two_that_have_no_node_the_one_that_the_operator_lets_have_it_is_the_one() {
        let (mut older, mut younger) = (object("older", &[IP]), object("younger", &[IP]));
        younger.metadata.creation_timestamp = Some(Time(at(0)));
        attach(&mut younger, IP, "node-a");
        let entry = &mut younger.status.as_mut().unwrap().addresses[0];
        entry.state = "Detached".to_owned();
        entry.node = None;
        attach(&mut older, IP, "node-a");
        let entry = &mut older.status.as_mut().unwrap().addresses[0];
        entry.state = "Unassigned".to_owned();
        let all = [older, younger];
        assert_eq!(find(&all, ip(IP)).unwrap().object.name_any(), "younger", "it is between two nodes of its own");
    }

    #[test]
    fn who_gets_it_next_is_said_where_the_one_that_has_it_lets_it_go() {
        let (mut has, next, later) = (object("has", &[]), object("next", &[IP]), object("later", &[IP]));
        attach(&mut has, IP, "node-a");
        let mut later = later;
        later.metadata.creation_timestamp = Some(Time(at(0)));
        let all = [has, later, next];
        let found = find(&all, ip(IP)).unwrap();
        assert_eq!(found.object.name_any(), "has");
        let told = story(found, &[&all[1], &all[2]], Ok(&[]), at(0), Paint(false)).join("\n");
        assert!(told.contains("NetIPAllocation next names it, and gets it next."), "{told}");
        assert!(!told.contains("take it out") && !told.contains("NetIPAllocation later"), "{told}");
    }

    #[test]
    fn what_status_is_not_about_is_told() {
        let mut voip = object("voip", &[IP]);
        assert_eq!(unseen(&voip), None);
        voip.metadata.generation = Some(2);
        assert!(unseen(&voip).unwrap().contains("has been edited"));
        voip.status.as_mut().unwrap().observed_generation = None;
        assert!(unseen(&voip).unwrap().contains("no operator of this version has looked at NetIPAllocation voip"));
    }

    #[test]
    fn what_no_operator_has_seen_is_said_so() {
        let all = [object("voip", &[IP])];
        let told = story(find(&all, ip(IP)).unwrap(), &[], Ok(&[]), at(0), Paint(false)).join("\n");
        assert!(told.contains("no operator has looked at it yet") && told.contains("No move of it"), "{told}");
    }
}
