//! `netinfra.darkbrains.com/move=IP[=NODE]`: what it asks for, whether that can be done, and the answer. Pure.
//!
//! A request is one-shot. What can be followed is in status with the pass that reads it, as a drain for
//! [`Reason::MoveRequested`]; what cannot is refused with one sentence. What must wait for the mode, for a node or for a turn
//! keeps its annotation meanwhile, so that taking it off takes the request back. A drain that has begun is taken back by asking
//! for the node where the address still is.

use std::net::IpAddr;

use kube::ResourceExt;

use super::super::{
    claims::Claims,
    decide::{
        facts::{Claim, Entry, Facts, Wanted},
        placement::{Candidate, Need, Plan, Verdict},
        state::{Reason, State},
    },
};
use crate::api::{self, NetIPAllocation};

/// What an allocation is asked for; `None` without the annotation, or where its text is of another form.
pub fn requested_move(object: &NetIPAllocation) -> Option<(IpAddr, Option<&str>)> {
    let text = object.annotations().get(api::MOVE_ANNOTATION)?;
    let (ip, node) = match text.split_once('=') {
        Some((_, "")) => return None,
        Some((ip, node)) => (ip, Some(node)),
        None => (text.as_str(), None),
    };
    Some((ip.parse().ok()?, node))
}

/// Why the node that a person names cannot take the address now. `candidates`: the nodes that the spec selects.
pub fn unfit(node: &str, need: &Need, candidates: &[Candidate], exists: bool) -> Option<String> {
    let ip = need.ip;
    let Some(candidate) = candidates.iter().find(|candidate| candidate.name == node) else {
        return Some(match exists {
            true => {
                format!("node {node} is not selected by spec.nodeSelector; name a node that is, or give it the labels")
            }
            false => format!("there is no node {node}; name one that `kubectl get nodes` shows"),
        });
    };
    let what = match candidate.verdict {
        Verdict::Eligible if !need.reach.covers(&candidate.zone) => {
            format!("is in zone {}, where the address cannot go", candidate.zone)
        }
        Verdict::Eligible if need.refused.contains(node) => {
            return Some(format!(
                "the cloud has just refused {ip} on node {node}; name another node, or ask again in 10 minutes"
            ));
        }
        Verdict::Eligible => return None,
        Verdict::HoldsAddress => "holds an address or is about to".to_owned(),
        Verdict::MachineNotRunning => "has a machine that does not run".to_owned(),
        other => format!("is {}", other.words()),
    };
    let why = candidate.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!("node {node} cannot take {ip}: it {what}{why}; name another node, or none to have one chosen"))
}

/// What a person is told of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is in status, or done anyway.
    Accepted(String),
    /// What is wrong, and what to do.
    Refused(String),
}

/// The answer to the request that stands in `object`, from what a pass has made of it; `None` without one, and while it waits.
///
/// `facts` are those of `entries`, in the same order.
pub fn answer(
    object: &NetIPAllocation,
    entries: &[Entry],
    facts: &[Facts],
    plan: &Plan,
    claims: &Claims,
) -> Option<Answer> {
    let text = object.annotations().get(api::MOVE_ANNOTATION)?;
    let refused = |why: String| Some(Answer::Refused(why));
    let Some((ip, node)) = requested_move(object) else {
        return refused(format!(
            "\"{text}\" is not of the form IP or IP=NODE; ask again with an address of status.addresses in it"
        ));
    };
    let Some((entry, facts)) = entries.iter().zip(facts).find(|(entry, _)| entry.ip == ip) else {
        return refused(match claims.claim(ip, &object.uid().unwrap_or_default()) {
            Claim::Other(name) => format!("{ip} is an address of NetIPAllocation {name}; annotate that one"),
            Claim::Ours => format!("{ip} is no address of this allocation; name one of status.addresses"),
        });
    };
    match facts.wanted {
        _ if facts.deleting => return refused(format!("{ip} is let go of, because the allocation is being deleted")),
        Wanted::RemovedFromSpec => {
            return refused(format!("{ip} is let go of; put it back into spec.reservedIPs and ask again"));
        }
        Wanted::NotMatched => {
            return refused(format!("{ip} is let go of; have spec.addressSelector match it and ask again"));
        }
        Wanted::Yes => {}
    }
    let here = entry.node.as_deref();
    match entry.state {
        State::Unassigned => refused(format!(
            "{ip} is on no node ({}); it goes to one as soon as it can, ask again when it is Attached",
            entry.reason.as_str()
        )),
        State::Attached | State::Draining => {
            if node.is_some() && node == here {
                return stays(entry, facts);
            }
            // What status has is accepted, also where the node has become unfit before that could be told.
            let begun = entry.state == State::Draining && entry.reason == Reason::MoveRequested;
            let as_asked = node.is_none() || node == entry.planned_node.as_deref();
            if begun && as_asked {
                return Some(Answer::Accepted(accepted(entry)));
            }
            plan.refused_move.clone().map(Answer::Refused)
        }
        State::Attaching | State::Releasing | State::Detached => on_its_way(entry, node),
    }
}

/// It is asked for the node where it is: that takes back a move which has begun, once status says so.
fn stays(entry: &Entry, facts: &Facts) -> Option<Answer> {
    let (ip, here) = (entry.ip, entry.node.as_deref().unwrap_or_default());
    if !facts.stay_requested {
        return Some(Answer::Refused(format!(
            "{ip} is on node {here} already; name another node, or none to have one chosen"
        )));
    }
    match (entry.state, entry.reason) {
        (State::Draining, Reason::MoveRequested) => None,
        (State::Draining, other) => Some(Answer::Accepted(format!(
            "the move is taken back, but {ip} is to leave node {here} for another reason: {}",
            other.as_str()
        ))),
        _ => Some(Answer::Accepted(format!("the move is taken back: {ip} stays on node {here}"))),
    }
}

/// Nothing of it can be changed any more. Where that is what was asked for, it is the request itself, or as good.
fn on_its_way(entry: &Entry, node: Option<&str>) -> Option<Answer> {
    let to = match entry.state {
        State::Attaching => entry.node.as_deref(),
        _ => entry.planned_node.as_deref(),
    };
    let open = entry.last_move.as_ref().filter(|journey| journey.to.is_none());
    let asked = entry.reason == Reason::MoveRequested
        || open.is_some_and(|journey| journey.reason == Reason::MoveRequested.as_str());
    Some(match node {
        Some(_) if node == to => Answer::Accepted(accepted(entry)),
        None if asked => Answer::Accepted(accepted(entry)),
        Some(_) | None => {
            let to = to.map_or("its next node".to_owned(), |node| format!("node {node}"));
            Answer::Refused(format!("{} is on its way to {to}; ask again when it is Attached", entry.ip))
        }
    })
}

fn accepted(entry: &Entry) -> String {
    let ip = entry.ip;
    match (entry.state, &entry.node, &entry.planned_node) {
        (State::Attaching, Some(to), _) => format!("{ip} goes to node {to}"),
        (_, Some(from), Some(to)) => format!("{ip} is to leave node {from}, and goes to node {to} next"),
        (_, Some(from), None) => format!("{ip} is to leave node {from}"),
        (_, None, Some(to)) => format!("{ip} goes to node {to}"),
        (_, None, None) => format!("{ip} goes to its next node"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        allocation::decide::facts::Journey,
        api::{AddressStatus, NetIPAllocationSpec, NetIPAllocationStatus},
        cloud::Reach,
    };

    const IP: &str = "203.0.113.7";

    fn object(text: Option<&str>) -> NetIPAllocation {
        let spec = NetIPAllocationSpec { reserved_ips: vec![IP.to_owned()], ..Default::default() };
        let mut object = NetIPAllocation::new("sip", spec);
        object.metadata.uid = Some("sip".to_owned());
        object.metadata.annotations = text.map(|text| [(api::MOVE_ANNOTATION.to_owned(), text.to_owned())].into());
        object
    }

    /// On node-a.
    fn entry(state: State, reason: Reason) -> Entry {
        let entry = Entry::new(IP.parse().unwrap(), Timestamp::UNIX_EPOCH);
        Entry { state, reason, node: Some("node-a".to_owned()), ..entry }
    }

    fn facts() -> Facts {
        Facts::plain(Timestamp::UNIX_EPOCH)
    }

    fn answer_to(text: &str, entry: &Entry) -> Option<Answer> {
        let object = object(Some(text));
        answer(&object, std::slice::from_ref(entry), &[facts()], &Plan::default(), &Claims::of([&object]))
    }

    fn refusal(text: &str, entry: &Entry) -> String {
        match answer_to(text, entry) {
            Some(Answer::Refused(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn acceptance(text: &str, entry: &Entry) -> String {
        match answer_to(text, entry) {
            Some(Answer::Accepted(how)) => how,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn an_address_with_or_without_a_node_is_read_and_nothing_else() {
        let ip: IpAddr = IP.parse().unwrap();
        assert_eq!(requested_move(&object(None)), None);
        assert_eq!(requested_move(&object(Some(IP))), Some((ip, None)));
        assert_eq!(requested_move(&object(Some("203.0.113.7=node-b"))), Some((ip, Some("node-b"))));
        assert_eq!(requested_move(&object(Some("2001:db8::1=node-b"))).map(|(_, node)| node), Some(Some("node-b")));
        for text in ["", "not-an-ip", "203.0.113.7=", "=node-b", "=", "203.0.113", "203.0.113.7/32", " 203.0.113.7"] {
            assert_eq!(requested_move(&object(Some(text))), None, "{text:?}");
            let why = refusal(text, &entry(State::Attached, Reason::Verified));
            assert!(why.starts_with(&format!("\"{text}\" is not of the form IP or IP=NODE; ask again")), "{why}");
        }
    }

    #[test]
    fn an_address_that_is_not_the_allocations_is_refused_with_the_name_of_the_one_that_has_it() {
        let attached = entry(State::Attached, Reason::Verified);
        for text in ["203.0.113.8", "2001:db8::1", "::ffff:203.0.113.7"] {
            let why = refusal(text, &attached);
            assert_eq!(why, format!("{text} is no address of this allocation; name one of status.addresses"));
        }
        let asked = object(Some("203.0.113.8"));
        let mut other = object(None);
        other.metadata.name = Some("media".to_owned());
        other.metadata.uid = Some("media".to_owned());
        other.spec.reserved_ips = vec!["203.0.113.8".to_owned()];
        other.status = Some(NetIPAllocationStatus {
            addresses: vec![AddressStatus {
                ip: "203.0.113.8".into(),
                state: "Unassigned".into(),
                ..Default::default()
            }],
            ..Default::default()
        });
        let said = answer(&asked, &[attached], &[facts()], &Plan::default(), &Claims::of([&asked, &other]));
        let why = "203.0.113.8 is an address of NetIPAllocation media; annotate that one";
        assert_eq!(said, Some(Answer::Refused(why.to_owned())));
    }

    #[test]
    fn a_move_that_has_begun_is_taken_back_by_asking_for_the_node_where_it_is() {
        let asked = object(Some("203.0.113.7=node-a"));
        let facts = Facts { stay_requested: true, ..facts() };
        let said = |entry: Entry| {
            answer(&asked, &[entry], std::slice::from_ref(&facts), &Plan::default(), &Claims::of([&asked]))
        };
        let accepted = |how: &str| Some(Answer::Accepted(how.to_owned()));
        let stays = "the move is taken back: 203.0.113.7 stays on node node-a";
        assert_eq!(said(entry(State::Attached, Reason::Verified)), accepted(stays));
        assert_eq!(said(entry(State::Draining, Reason::MoveRequested)), None, "an effect is under way");
        let drains = "the move is taken back, but 203.0.113.7 is to leave node node-a for another reason: NodeCordoned";
        assert_eq!(said(entry(State::Draining, Reason::NodeCordoned)), accepted(drains));
    }

    #[test]
    fn one_that_is_there_already_or_nowhere_is_refused() {
        let attached = entry(State::Attached, Reason::Verified);
        let already = "203.0.113.7 is on node node-a already; name another node, or none to have one chosen";
        assert_eq!(refusal("203.0.113.7=node-a", &attached), already);
        assert_eq!(refusal("203.0.113.7=node-a", &entry(State::Draining, Reason::NodeCordoned)), already);
        let nowhere = Entry { node: None, ..entry(State::Unassigned, Reason::NoEligibleNode) };
        assert_eq!(
            refusal(IP, &nowhere),
            "203.0.113.7 is on no node (NoEligibleNode); it goes to one as soon as it can, ask again when it is Attached"
        );
    }

    #[test]
    fn one_that_is_let_go_of_is_refused_with_the_way_to_keep_it() {
        let said = |facts: Facts| {
            let object = object(Some(IP));
            let entry = entry(State::Draining, Reason::RemovedFromSpec);
            match answer(&object, &[entry], &[facts], &Plan::default(), &Claims::of([&object])) {
                Some(Answer::Refused(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        assert!(said(Facts { deleting: true, ..facts() }).ends_with("the allocation is being deleted"));
        assert!(
            said(Facts { wanted: Wanted::RemovedFromSpec, ..facts() }).contains("put it back into spec.reservedIPs")
        );
        assert!(said(Facts { wanted: Wanted::NotMatched, ..facts() }).contains("spec.addressSelector"));
    }

    #[test]
    fn it_waits_until_the_drain_that_was_asked_for_is_in_status() {
        for waits in [
            entry(State::Attached, Reason::Verified),
            entry(State::Attached, Reason::NoTarget),
            entry(State::Attached, Reason::Held),
            entry(State::Draining, Reason::NodeCordoned),
        ] {
            assert_eq!(answer_to(IP, &waits), None, "{waits:?}");
            assert_eq!(answer_to("203.0.113.7=node-b", &waits), None, "{waits:?}");
        }
        let planned =
            |node: &str| Entry { planned_node: Some(node.to_owned()), ..entry(State::Draining, Reason::MoveRequested) };
        let how = "203.0.113.7 is to leave node node-a, and goes to node node-b next";
        assert_eq!(acceptance(IP, &planned("node-b")), how);
        assert_eq!(acceptance("203.0.113.7=node-b", &planned("node-b")), how);
        assert_eq!(answer_to("203.0.113.7=node-c", &planned("node-b")), None, "the second of two, not written yet");
    }

    #[test]
    fn one_that_is_on_its_way_is_accepted_where_it_was_asked_to_go_and_refused_else() {
        let released =
            Entry { planned_node: Some("node-b".to_owned()), ..entry(State::Releasing, Reason::MoveRequested) };
        acceptance(IP, &released);
        acceptance("203.0.113.7=node-b", &released);
        let why = "203.0.113.7 is on its way to node node-b; ask again when it is Attached";
        assert_eq!(refusal("203.0.113.7=node-c", &released), why);

        let drained = Entry { reason: Reason::NodeCordoned, ..released.clone() };
        assert_eq!(refusal(IP, &drained), why, "or it would be moved off the node where it has just arrived");

        // The same pass may have taken it further, or the one that wrote it could not take the annotation off.
        let journey = |reason: Reason| Journey {
            from: Some("node-a".to_owned()),
            to: None,
            reason: reason.as_str().to_owned(),
            start: Timestamp::UNIX_EPOCH,
            finish: Timestamp::UNIX_EPOCH,
            gap: None,
            trace_id: None,
        };
        let attaching = |reason: Reason| Entry {
            node: Some("node-b".to_owned()),
            last_move: Some(journey(reason)),
            ..entry(State::Attaching, Reason::Attaching)
        };
        assert_eq!(acceptance(IP, &attaching(Reason::MoveRequested)), "203.0.113.7 goes to node node-b");
        acceptance("203.0.113.7=node-b", &attaching(Reason::MoveRequested));
        assert_eq!(refusal(IP, &attaching(Reason::NodeCordoned)), why);
        let first = Entry { last_move: None, ..attaching(Reason::NodeCordoned) };
        assert_eq!(refusal(IP, &first), why, "a first attach");
    }

    #[test]
    fn a_node_that_cannot_take_it_is_refused_with_the_reason() {
        let candidate = |name: &str, verdict: Verdict| Candidate {
            name: name.to_owned(),
            zone: "z1".to_owned(),
            verdict,
            why: None,
            last_choice: false,
        };
        let candidates: Vec<Candidate> =
            Verdict::ALL.iter().map(|verdict| candidate(verdict.as_str(), *verdict)).collect();
        let need = Need {
            ip: IP.parse().unwrap(),
            planned: None,
            refused: BTreeSet::from(["refused".to_owned()]),
            reach: Reach::Region,
        };
        assert_eq!(unfit("Eligible", &need, &candidates, true), None);
        let cordoned = unfit("Cordoned", &need, &candidates, true).unwrap();
        assert_eq!(
            cordoned,
            "node Cordoned cannot take 203.0.113.7: it is cordoned; name another node, or none to have one chosen"
        );
        for verdict in Verdict::ALL.iter().filter(|verdict| **verdict != Verdict::Eligible) {
            let why = unfit(verdict.as_str(), &need, &candidates, true).unwrap();
            assert!(why.contains(": it ") && why.ends_with("name another node, or none to have one chosen"), "{why}");
        }
        let unknown = unfit("gone", &need, &candidates, false).unwrap();
        assert_eq!(unknown, "there is no node gone; name one that `kubectl get nodes` shows");
        assert!(unfit("other", &need, &candidates, true).unwrap().contains("is not selected by spec.nodeSelector"));
        let refused = [candidate("refused", Verdict::Eligible)];
        assert!(unfit("refused", &need, &refused, true).unwrap().contains("ask again in 10 minutes"));
        let far = Need { reach: Reach::Zones(BTreeSet::from(["z2".to_owned()])), ..need };
        assert!(unfit("Eligible", &far, &candidates, true).unwrap().contains("is in zone z1"));
    }
}
