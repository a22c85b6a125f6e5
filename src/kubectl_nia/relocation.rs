//! `kubectl nia move IP [NODE]`: what is asked of the operator, what is refused beforehand, and how it goes on. Pure.

use std::{net::IpAddr, time::Duration};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    cli::Order,
    refusal::{Exit, Refusal},
    rehearsal::{self, Cluster, Then, Users},
    why,
};
use crate::{
    allocation::{
        decide::{placement::Verdict, state::Reason},
        moment::Moment,
    },
    api::{AddressStatus, LastMove, MOVE_ANNOTATION, Mode, NetIPAllocation},
};

/// Without --wait an operator is given so long to answer: one that leads answers within a pass.
const ANSWER: Duration = Duration::from_secs(15);
/// With --wait it may have to be elected first: the Lease of the one before has to run out, and to be taken over.
const ELECTION: Duration = Duration::from_secs(120);

/// How long what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the answer.
    pub answer: Duration,
    /// For the end of the move; `None`: the answer is all.
    pub end: Option<Duration>,
}

impl Patience {
    pub fn of(order: &Order) -> Self {
        match order.wait {
            true => Self { answer: ELECTION.min(order.timeout), end: Some(order.timeout) },
            false => Self { answer: ANSWER, end: None },
        }
    }

    /// Whether it is an operator's fault that it has not answered by then, and not the user's haste.
    fn is_ample(self) -> bool {
        self.end.is_none() || self.answer >= ELECTION
    }
}

/// A move that can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub allocation: String,
    /// The version of the object on which this was judged: another one is not written over.
    pub version: Option<String>,
    pub ip: IpAddr,
    pub from: String,
    /// Where it would go by what is known here.
    pub to: String,
    /// Whether a person named that node.
    pub named: bool,
    /// It was to leave its node already when it was asked for.
    pub leaving: bool,
    /// What was remembered when it was asked for: another one is this move's.
    pub last_move: Option<LastMove>,
}

impl Request {
    /// The annotation's value.
    pub fn text(&self) -> String {
        if self.named { format!("{}={}", self.ip, self.to) } else { self.ip.to_string() }
    }

    /// What is asked for, in words.
    pub fn sentence(&self) -> String {
        let Self { ip, from, to, .. } = self;
        format!("{ip} is asked to move from node {from} to node {to}")
    }

    /// The merge patch that asks.
    pub fn patch(&self) -> Value {
        json!({"metadata": {"resourceVersion": self.version, "annotations": {MOVE_ANNOTATION: self.text()}}})
    }

    /// The merge patch that takes the request back from this version of the object.
    pub fn take_back(object: &NetIPAllocation) -> Value {
        json!({"metadata": {"resourceVersion": object.resource_version(), "annotations": {MOVE_ANNOTATION: null}}})
    }

    fn is_pending(&self, object: &NetIPAllocation) -> bool {
        object.annotations().get(MOVE_ANNOTATION) == Some(&self.text())
    }

    /// What status says is the move that was asked for, and not a drain for another reason that came meanwhile. An address
    /// that was leaving anyway is told by where it goes as well.
    fn has_begun(&self, entry: &AddressStatus) -> bool {
        let asked = Some(Reason::MoveRequested.as_str());
        if !self.leaving {
            let left = entry.last_move.as_ref().filter(|_| entry.last_move != self.last_move);
            let is_asked = entry.reason.as_deref() == asked || left.map(|left| left.reason.as_str()) == asked;
            return entry.state != "Attached" && is_asked;
        }
        let next = if entry.state == "Attaching" { &entry.node } else { &entry.planned_node };
        entry.reason.as_deref() == asked && (!self.named || next.as_ref() == Some(&self.to))
    }
}

/// Judges an order by what the cluster says, with the operator's own rules.
///
/// # Errors
/// Why it would be of no use to ask, and what to do.
pub fn prepare(cluster: &Cluster, order: &Order, moment: &Moment) -> Result<Request, Refusal> {
    let refused = |sentence: String| Refusal::new(Exit::Refused, sentence);
    let ip = order.ip;
    let found = why::find(&cluster.allocations, ip)?;
    let (object, name) = (found.object, found.object.name_any());
    if object.status.as_ref().and_then(|status| status.observed_generation).is_none_or(|seen| seen < 0) {
        let sentence = format!(
            "no operator of version 2 has looked at NetIPAllocation {name}; check that it is installed and that \
             somebody leads: kubectl get lease -A"
        );
        return Err(Refusal::new(Exit::NotInstalled, sentence));
    }
    if object.metadata.deletion_timestamp.is_some() {
        return Err(refused(format!("NetIPAllocation {name} is being deleted, and its addresses move nowhere else")));
    }
    if let Some(pending) = object.annotations().get(MOVE_ANNOTATION) {
        return Err(refused(format!(
            "another move of NetIPAllocation {name} is not answered yet ({pending}); wait for it, or take it back: \
             kubectl annotate nia {name} {MOVE_ANNOTATION}-"
        )));
    }
    if object.spec.mode != Mode::Enforce {
        return Err(refused(format!(
            "NetIPAllocation {name} is in mode {:?}, in which nothing moves by choice; set spec.mode to Enforce first",
            object.spec.mode
        )));
    }
    if found.entry.is_some_and(|entry| entry.reason.as_deref() == Some(Reason::Observing.as_str())) {
        return Err(refused(format!(
            "the operator only observes and moves nothing: CONTROLLER_MODE is Observe, or was a moment ago; \
             `kubectl nia why {ip}` shows when it says otherwise"
        )));
    }
    let from = match found.entry {
        Some(AddressStatus { state, node: Some(node), .. }) if state == "Attached" => node.clone(),
        // By request, and to where it goes anyway.
        Some(entry)
            if is_moving(entry) && order.node.as_ref().is_none_or(|to| entry.planned_node.as_ref() == Some(to)) =>
        {
            return Err(refused(format!(
                "{ip} is moving already, because somebody has asked for it; `kubectl nia why {ip}` says where to"
            )));
        }
        // Until something is under way the operator changes its way.
        Some(AddressStatus { state, node: Some(node), operation: None, .. }) if state == "Draining" => node.clone(),
        Some(entry) if entry.state == "Unassigned" => {
            return Err(refused(format!(
                "{ip} is on no node, and goes to one as soon as one can take it; `kubectl nia why {ip}` says what it waits for"
            )));
        }
        Some(entry) => {
            return Err(refused(format!(
                "{ip} is {}, so it is moving already; `kubectl nia why {ip}` says where to",
                entry.state
            )));
        }
        None => {
            return Err(refused(format!(
                "no operator has looked at {ip} yet; wait until `kubectl nia` shows its state"
            )));
        }
    };
    let judged = rehearsal::verdicts(cluster, &name, moment);
    let fitting: Vec<&str> =
        judged.iter().filter(|node| node.verdict == Verdict::Eligible).map(|node| node.name.as_str()).collect();
    let instead = match fitting.as_slice() {
        [] => "no node can take it now".to_owned(),
        [first, ..] => format!("for example {first} can take it"),
    };
    if let Some(node) = &order.node {
        let verdict = judged.iter().find(|candidate| candidate.name == *node).map(|candidate| candidate.verdict);
        let known = cluster.nodes.iter().any(|known| known.name_any() == *node);
        match verdict {
            _ if *node == from && found.entry.is_some_and(is_moving) => {
                return Err(refused(format!(
                    "{ip} is on node {node} still; to take its move back: kubectl annotate nia {name} {MOVE_ANNOTATION}={ip}={node}"
                )));
            }
            _ if *node == from => return Err(refused(format!("{ip} is on node {node} already"))),
            None if !known => {
                let sentence = format!("there is no node {node}; {instead}");
                return Err(Refusal::new(Exit::Unknown, sentence));
            }
            None => {
                return Err(refused(format!(
                    "node {node} is not selected by spec.nodeSelector of NetIPAllocation {name}; {instead}"
                )));
            }
            Some(Verdict::Eligible) => {}
            Some(verdict) => {
                return Err(refused(format!("node {node} cannot take {ip} ({}); {instead}", verdict.as_str())));
            }
        }
    }
    let mut request = Request {
        allocation: name.clone(),
        version: object.resource_version(),
        ip,
        from,
        to: order.node.clone().unwrap_or_default(),
        named: order.node.is_some(),
        leaving: found.entry.is_some_and(|entry| entry.state != "Attached"),
        last_move: found.entry.and_then(|entry| entry.last_move.clone()),
    };
    let mut then = cluster.clone();
    then.ask(&name, &request.text());
    let outlooks = rehearsal::rehearse(&then, &Users::default(), moment);
    let outlook = outlooks.iter().find(|outlook| outlook.allocation == name);
    if let Some(why) = outlook.and_then(|outlook| outlook.refused_move.as_ref()) {
        return Err(refused(why.clone()));
    }
    let prospect = outlook.and_then(|outlook| outlook.addresses.iter().find(|prospect| prospect.ip == ip));
    match prospect.map(|prospect| (&prospect.then, &prospect.message)) {
        Some((Then::Goes(node), _)) => {
            request.to.clone_from(node);
            Ok(request)
        }
        Some((Then::Stays | Then::Stranded | Then::Kept | Then::LetGo | Then::Waits, message)) => {
            Err(refused(format!("{ip} would not move: {message}")))
        }
        None => Err(refused(format!("{ip} is not planned for; `kubectl nia why {ip}` says more"))),
    }
}

fn is_moving(entry: &AddressStatus) -> bool {
    entry.state == "Draining" && entry.reason.as_deref() == Some(Reason::MoveRequested.as_str())
}

/// How a move that was asked for stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request stands, and the operator says nothing of it.
    Unheard,
    /// The request stands, and what the operator says it waits for.
    Waits(String),
    /// The operator has taken the request off, and status does not show what it has made of it: an event says so.
    Answered,
    /// Under way, in a line.
    Going(String),
    /// It is there. The sentence.
    Arrived(String),
    /// It ended otherwise.
    Ended(Refusal),
}

/// What the allocation says of the move. `begun`: it has been seen under way, or is known to be accepted.
pub fn progress(request: &Request, object: Option<&NetIPAllocation>, begun: bool) -> Progress {
    let Request { ip, from, allocation, .. } = request;
    let ended = |sentence: String| Progress::Ended(Refusal::new(Exit::Refused, sentence));
    let Some(object) = object else { return ended(format!("NetIPAllocation {allocation} was deleted meanwhile")) };
    let mut entries = object.status.iter().flat_map(|status| &status.addresses);
    let Some(entry) = entries.find(|entry| entry.ip.parse() == Ok(*ip)) else {
        return ended(format!("{ip} was taken out of NetIPAllocation {allocation} meanwhile"));
    };
    let said = entry.message.as_deref().unwrap_or_default();
    let line = || format!("{ip} {}: {said}", entry.state);
    // Told of this move, and not of the one before it.
    let moved = || entry.last_move.as_ref().filter(|_| entry.last_move != request.last_move).map(why::last_move);
    match (entry.state.as_str(), entry.node.as_ref()) {
        ("Attached", Some(node)) if node != from => {
            let moved = moved().unwrap_or_default();
            if request.named && *node != request.to {
                return ended(
                    format!("{ip} is on node {node} and not on {}. {moved}", request.to).trim_end().to_owned(),
                );
            }
            Progress::Arrived(format!("{ip} is on node {node}. {moved}").trim_end().to_owned())
        }
        ("Attached", _) if begun => ended(match moved() {
            Some(moved) => format!("{ip} is back on node {from}. {moved}"),
            None => format!("{ip} stays on node {from}: the move was taken back; `kubectl nia history {ip}` says more"),
        }),
        ("Unassigned", _) if has_failed(entry) => {
            let reason = entry.reason.as_deref().unwrap_or_default();
            ended(format!(
                "{ip} has left node {from} and is on none ({reason}): {said}; `kubectl nia why {ip}` says more"
            ))
        }
        _ if begun || request.has_begun(entry) => Progress::Going(line()),
        _ if !request.is_pending(object) => Progress::Answered,
        _ if waits(entry) => Progress::Waits(line()),
        _ => Progress::Unheard,
    }
}

/// Trying on does not help: somebody has to do something first.
fn has_failed(entry: &AddressStatus) -> bool {
    let for_good =
        [Reason::AddressNotFound, Reason::AddressInUse, Reason::WrongRegion, Reason::DuplicateClaim, Reason::Denied];
    for_good.iter().any(|reason| entry.reason.as_deref() == Some(reason.as_str()))
}

/// The operator has looked at it, and does nothing for now.
fn waits(entry: &AddressStatus) -> bool {
    let words = [Reason::NoTarget, Reason::Held, Reason::Observing];
    words.iter().any(|reason| entry.reason.as_deref() == Some(reason.as_str()))
}

/// A request that was not followed in time, and was taken back. `waits`: what the operator has said meanwhile.
pub fn unanswered(request: &Request, waits: Option<&str>, patience: Patience) -> Refusal {
    let (ip, waited) = (request.ip, patience.answer.as_secs());
    let back = "the request was taken back and nothing was moved";
    match waits {
        Some(said) => Refusal::new(Exit::TimedOut, format!("the move has not begun after {waited} s ({said}); {back}")),
        None if patience.is_ample() => Refusal::new(
            Exit::NotInstalled,
            format!(
                "no operator has answered in {waited} s: none leads, it is too old for moves, or it does not serve this \
                 allocation (CONTROLLER_MODE, WATCH_LABEL_SELECTOR); {back}; kubectl get lease -A shows who leads"
            ),
        ),
        None => Refusal::new(
            Exit::TimedOut,
            format!(
                "the request to move {ip} was not answered in {waited} s; {back}; try again with a longer --timeout"
            ),
        ),
    }
}

/// A move that is not done in time.
pub fn late(request: &Request, limit: Duration) -> Refusal {
    let (ip, limit) = (request.ip, limit.as_secs());
    let sentence = format!(
        "{ip} has not arrived after {limit} s; the move goes on, `kubectl nia why {ip}` says what it waits for"
    );
    Refusal::new(Exit::TimedOut, sentence)
}

/// Somebody has interrupted before anything was written.
pub fn unasked() -> Refusal {
    Refusal::new(Exit::Interrupted, "interrupted: nothing was asked for")
}

/// The operator has answered in the moment in which the request was to be taken back.
pub fn overtaken(request: &Request) -> Refusal {
    let ip = request.ip;
    let sentence = format!(
        "interrupted: the request to move {ip} was answered in this moment; `kubectl nia history {ip}` says how"
    );
    Refusal::new(Exit::Interrupted, sentence)
}

/// A request that was taken back because somebody does not wait for its answer any more.
pub fn withdrawn(request: &Request) -> Refusal {
    let ip = request.ip;
    Refusal::new(
        Exit::Interrupted,
        format!("interrupted: the request to move {ip} was taken back and nothing was moved"),
    )
}

/// Somebody does not look at the move any more.
pub fn interrupted(request: &Request, begun: bool) -> Refusal {
    lost(request, &Refusal::new(Exit::Interrupted, "interrupted"), begun)
}

/// The move can be followed no further, for this reason.
pub fn lost(request: &Request, why: &Refusal, begun: bool) -> Refusal {
    let Request { ip, allocation, .. } = request;
    let rest = match begun {
        true => format!("the move goes on, `kubectl nia why {ip}` says how"),
        false => format!("the request stands, kubectl annotate nia {allocation} {MOVE_ANNOTATION}- takes it back"),
    };
    Refusal::new(why.exit, format!("{why}; {rest}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::kubectl_nia::samples::{at, attach, ip, labelled, moment, node, nodes, object};

    const IP: &str = "203.0.113.7";

    fn cluster() -> Cluster {
        let mut voip = object("voip", &[IP]);
        attach(&mut voip, IP, "node-a");
        let nodes = nodes(vec![labelled("node-a", "voip", IP), node("node-b", "voip"), node("other", "fax")]);
        Cluster { allocations: vec![voip], nodes, ..Cluster::default() }
    }

    fn order(node: Option<&str>) -> Order {
        Order { ip: ip(IP), node: node.map(str::to_owned), wait: true, timeout: Duration::from_secs(1) }
    }

    fn prepared(cluster: &Cluster, node: Option<&str>) -> Result<Request, Refusal> {
        prepare(cluster, &order(node), &moment(0))
    }

    fn refused(cluster: &Cluster, node: Option<&str>, exit: Exit, part: &str) {
        let refusal = prepared(cluster, node).unwrap_err();
        assert_eq!(refusal.exit, exit, "{refusal}");
        assert!(refusal.sentence.contains(part), "{part:?} is not in {refusal}");
    }

    #[test]
    fn a_request_is_for_the_version_that_was_judged() {
        let request = prepared(&cluster(), None).unwrap();
        assert_eq!((request.to.as_str(), request.text().as_str()), ("node-b", IP));
        let patch = request.patch();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["annotations"][MOVE_ANNOTATION], IP);
        let named = prepared(&cluster(), Some("node-b")).unwrap();
        assert_eq!(named.text(), "203.0.113.7=node-b");
    }

    #[test]
    fn a_node_that_cannot_take_it_is_refused_with_its_verdict() {
        refused(&cluster(), Some("node-a"), Exit::Refused, "is on node node-a already");
        refused(&cluster(), Some("node-z"), Exit::Unknown, "there is no node node-z; for example node-b can take it");
        refused(&cluster(), Some("other"), Exit::Refused, "not selected by spec.nodeSelector");
        let mut drained = cluster();
        drained.drain("node-b");
        refused(&drained, Some("node-b"), Exit::Refused, "node node-b cannot take 203.0.113.7 (Cordoned); no node can");
        refused(&drained, None, Exit::Refused, "would not move");
    }

    #[test]
    fn a_node_that_is_planned_for_another_address_is_refused_in_the_operators_words() {
        const OTHER: &str = "203.0.113.8";
        let mut two = cluster();
        two.allocations[0].spec.reserved_ips.push(OTHER.to_owned());
        attach(&mut two.allocations[0], OTHER, "node-c");
        let entry = two.allocations[0].status.as_mut().unwrap().addresses.last_mut().unwrap();
        entry.state = "Draining".to_owned();
        entry.reason = Some("NodeCordoned".to_owned());
        entry.planned_node = Some("node-b".to_owned());
        let mut drained = labelled("node-c", "voip", OTHER);
        drained.spec.unschedulable = Some(true);
        two.nodes.extend(nodes(vec![drained, node("node-d", "voip")]));
        refused(&two, Some("node-b"), Exit::Refused, "node node-b is planned for 203.0.113.8; name another node");
        assert_eq!(prepared(&two, None).unwrap().to, "node-d");
    }

    #[test]
    fn what_would_hang_or_be_refused_by_the_operator_is_not_asked() {
        let changed = |change: fn(&mut NetIPAllocation)| {
            let mut cluster = cluster();
            change(&mut cluster.allocations[0]);
            cluster
        };
        let hold = changed(|object| object.spec.mode = Mode::Hold);
        refused(&hold, None, Exit::Refused, "mode Hold");
        let pending = changed(|object| {
            object.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), "203.0.113.8".to_owned());
        });
        refused(&pending, None, Exit::Refused, "kubectl annotate nia voip netinfra.darkbrains.com/move-");
        let leaving = changed(|object| object.metadata.deletion_timestamp = Some(Time(at(0))));
        refused(&leaving, None, Exit::Refused, "being deleted");
        let moving = changed(|object| object.status.as_mut().unwrap().addresses[0].state = "Detached".to_owned());
        refused(&moving, None, Exit::Refused, "is Detached, so it is moving already");
        let observing = changed(|object| {
            object.status.as_mut().unwrap().addresses[0].reason = Some("Observing".to_owned());
        });
        refused(&observing, None, Exit::Refused, "only observes and moves nothing: CONTROLLER_MODE");
        let old = changed(|object| object.status.as_mut().unwrap().observed_generation = None);
        refused(&old, None, Exit::NotInstalled, "no operator of version 2");
        let stranger = prepare(&cluster(), &Order { ip: ip("203.0.113.99"), ..order(None) }, &moment(0)).unwrap_err();
        assert_eq!(stranger.exit, Exit::Unknown);
    }

    /// The cluster with the address to leave its node for this reason.
    fn leaving(reason: &str) -> Cluster {
        let mut cluster = cluster();
        let entry = &mut cluster.allocations[0].status.as_mut().unwrap().addresses[0];
        entry.state = "Draining".to_owned();
        entry.reason = Some(reason.to_owned());
        entry.planned_node = Some("node-b".to_owned());
        Arc::make_mut(&mut cluster.nodes[0]).spec.unschedulable = Some(true);
        cluster.nodes.push(Arc::new(node("node-d", "voip")));
        cluster
    }

    #[test]
    fn an_address_that_is_to_leave_may_be_asked_for_while_nothing_is_under_way() {
        let request = prepared(&leaving("NodeCordoned"), None).unwrap();
        assert_eq!((request.from.as_str(), request.leaving), ("node-a", true));
        assert_eq!(prepared(&leaving("NodeCordoned"), Some("node-d")).unwrap().to, "node-d");
        assert_eq!(prepared(&leaving("MoveRequested"), Some("node-d")).unwrap().to, "node-d");
        for same in [None, Some("node-b")] {
            refused(&leaving("MoveRequested"), same, Exit::Refused, "because somebody has asked for it");
        }
        let mut cut = leaving("NodeCordoned");
        let entry = &mut cut.allocations[0].status.as_mut().unwrap().addresses[0];
        let detach = json!({"id": "0af7", "type": "Detach", "startTime": "2027-01-15T08:00:00Z"});
        entry.operation = Some(serde_json::from_value(detach).unwrap());
        refused(&cut, None, Exit::Refused, "is Draining, so it is moving already");
    }

    #[test]
    fn a_drain_that_was_there_before_is_not_taken_for_the_move() {
        let mut cluster = leaving("NodeCordoned");
        let request = prepared(&cluster, Some("node-d")).unwrap();
        let voip = &mut cluster.allocations[0];
        voip.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), request.text());
        assert_eq!(progress(&request, Some(voip), false), Progress::Unheard);
        voip.annotations_mut().remove(MOVE_ANNOTATION);
        assert_eq!(progress(&request, Some(voip), false), Progress::Answered, "only an event says what");
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.reason = Some("MoveRequested".to_owned());
        assert_eq!(progress(&request, Some(voip), false), Progress::Answered, "to another node than the one named");
        voip.status.as_mut().unwrap().addresses[0].planned_node = Some("node-d".to_owned());
        assert!(matches!(progress(&request, Some(voip), false), Progress::Going(_)));
    }

    #[test]
    fn a_drain_that_came_meanwhile_is_not_taken_for_the_move_either() {
        let mut cluster = cluster();
        let request = prepared(&cluster, None).unwrap();
        let voip = &mut cluster.allocations[0];
        voip.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), request.text());
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.state = "Draining".to_owned();
        entry.reason = Some("NodeCordoned".to_owned());
        assert_eq!(progress(&request, Some(voip), false), Progress::Unheard);
        voip.annotations_mut().remove(MOVE_ANNOTATION);
        assert_eq!(progress(&request, Some(voip), false), Progress::Answered, "only an event says what");
        voip.status.as_mut().unwrap().addresses[0].reason = Some("MoveRequested".to_owned());
        assert!(matches!(progress(&request, Some(voip), false), Progress::Going(_)));

        // Seen only when it is off its node already.
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.state = "Detached".to_owned();
        entry.reason = Some("AddressReleased".to_owned());
        entry.node = None;
        assert_eq!(progress(&request, Some(voip), false), Progress::Answered);
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.last_move = Some(LastMove {
            from_node: Some("node-a".to_owned()),
            to_node: None,
            reason: "MoveRequested".to_owned(),
            start_time: Time(at(0)),
            finish_time: Time(at(9)),
            gap_seconds: None,
            trace_id: None,
        });
        assert!(matches!(progress(&request, Some(voip), false), Progress::Going(_)));
    }

    #[test]
    fn a_move_that_has_failed_for_good_has_ended_and_one_that_came_home_says_so() {
        let mut cluster = cluster();
        let request = prepared(&cluster, None).unwrap();
        let voip = &mut cluster.allocations[0];
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.last_move = Some(LastMove {
            from_node: Some("node-a".to_owned()),
            to_node: Some("node-a".to_owned()),
            reason: "MoveRequested".to_owned(),
            start_time: Time(at(0)),
            finish_time: Time(at(9)),
            gap_seconds: Some(2),
            trace_id: None,
        });
        let Progress::Ended(home) = progress(&request, Some(voip), true) else { panic!("it is home") };
        assert!(home.sentence.contains("is back on node node-a. It last left node node-a and came back"), "{home}");
        let entry = &mut voip.status.as_mut().unwrap().addresses[0];
        entry.state = "Unassigned".to_owned();
        entry.node = None;
        for (reason, ends) in [("AddressInUse", true), ("Denied", true), ("NoEligibleNode", false)] {
            voip.status.as_mut().unwrap().addresses[0].reason = Some(reason.to_owned());
            let told = progress(&request, Some(voip), true);
            assert_eq!(matches!(&told, Progress::Ended(_)), ends, "{reason}: {told:?}");
        }
    }

    #[test]
    fn who_does_not_wait_long_enough_is_not_told_that_there_is_no_operator() {
        let request = prepared(&cluster(), None).unwrap();
        let ends = |wait: bool, seconds: u64, waits: Option<&str>| {
            let order = Order { wait, timeout: Duration::from_secs(seconds), ..order(None) };
            let refusal = unanswered(&request, waits, Patience::of(&order));
            assert!(refusal.sentence.contains("taken back"), "{refusal}");
            refusal.exit
        };
        assert_eq!(ends(true, 10, None), Exit::TimedOut);
        assert_eq!(ends(true, 600, None), Exit::NotInstalled);
        assert_eq!(ends(false, 600, None), Exit::NotInstalled);
        assert_eq!(ends(true, 600, Some("203.0.113.7 Attached: has no node to go to")), Exit::TimedOut);
    }

    #[test]
    fn whoever_can_follow_no_further_is_told_what_stands() {
        let request = prepared(&cluster(), None).unwrap();
        let why = Refusal::new(Exit::Forbidden, "you may not watch netipallocations");
        let told = lost(&request, &why, false);
        assert!(told.exit == Exit::Forbidden && told.sentence.contains("the request stands"), "{told}");
        assert!(lost(&request, &why, true).sentence.contains("the move goes on"));
        let told = interrupted(&request, true);
        assert!(told.exit == Exit::Interrupted && told.sentence.contains("the move goes on"), "{told}");
        assert!(withdrawn(&request).sentence.contains("taken back and nothing was moved"));
    }

    #[test]
    fn a_move_is_followed_until_it_is_there_or_ended_otherwise() {
        let mut cluster = cluster();
        let request = prepared(&cluster, Some("node-b")).unwrap();
        let voip = &mut cluster.allocations[0];
        voip.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), request.text());
        assert_eq!(progress(&request, Some(voip), false), Progress::Unheard);
        voip.status.as_mut().unwrap().addresses[0].reason = Some("NoTarget".to_owned());
        assert!(matches!(progress(&request, Some(voip), false), Progress::Waits(_)));
        let back = Request::take_back(voip);
        assert!(
            back["metadata"]["annotations"][MOVE_ANNOTATION].is_null() && back["metadata"]["resourceVersion"] == "7"
        );
        voip.annotations_mut().remove(MOVE_ANNOTATION);
        assert_eq!(progress(&request, Some(voip), false), Progress::Answered);
        assert!(matches!(progress(&request, Some(voip), true), Progress::Ended(_)), "taken back on the way");

        let entry = |voip: &mut NetIPAllocation, state: &str, node: Option<&str>| {
            let entry = &mut voip.status.as_mut().unwrap().addresses[0];
            entry.state = state.to_owned();
            entry.node = node.map(str::to_owned);
            entry.message = Some("waits for 1 pod".to_owned());
        };
        entry(voip, "Draining", Some("node-a"));
        let line = "203.0.113.7 Draining: waits for 1 pod".to_owned();
        assert_eq!(progress(&request, Some(voip), true), Progress::Going(line));
        entry(voip, "Detached", None);
        assert!(matches!(progress(&request, Some(voip), true), Progress::Going(_)));
        entry(voip, "Attached", Some("node-b"));
        assert!(matches!(progress(&request, Some(voip), true), Progress::Arrived(_)));
        entry(voip, "Attached", Some("node-c"));
        assert!(matches!(progress(&request, Some(voip), true), Progress::Ended(_)), "not where it was asked to");
        assert!(matches!(progress(&request, None, true), Progress::Ended(_)));
    }
}
