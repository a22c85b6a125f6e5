//! `kubectl nia move IP [NODE]`: what is asked of the operator, what is refused beforehand, and how it goes on. Pure.

use std::net::IpAddr;

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
    api::{AddressStatus, MOVE_ANNOTATION, Mode, NetIPAllocation},
};

/// A move that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Request {
    /// The annotation's value.
    pub fn text(&self) -> String {
        if self.named { format!("{}={}", self.ip, self.to) } else { self.ip.to_string() }
    }

    /// The merge patch that asks.
    pub fn patch(&self) -> Value {
        json!({"metadata": {"resourceVersion": self.version, "annotations": {MOVE_ANNOTATION: self.text()}}})
    }

    /// The merge patch that takes the request back from the version `object`, if it still stands there.
    pub fn take_back(&self, object: &NetIPAllocation) -> Option<Value> {
        self.is_pending(object).then(|| {
            let version = object.resource_version();
            json!({"metadata": {"resourceVersion": version, "annotations": {MOVE_ANNOTATION: null}}})
        })
    }

    fn is_pending(&self, object: &NetIPAllocation) -> bool {
        object.annotations().get(MOVE_ANNOTATION) == Some(&self.text())
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
    let from = match found.entry {
        Some(AddressStatus { state, node: Some(node), .. }) if state == "Attached" => node.clone(),
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
        Some((Then::Stays | Then::Stranded | Then::LetGo | Then::Waits, message)) => {
            Err(refused(format!("{ip} would not move: {message}")))
        }
        None => Err(refused(format!("{ip} is not planned for; `kubectl nia why {ip}` says more"))),
    }
}

/// How a move that was asked for stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not heard of by the operator yet.
    Unheard,
    /// Under way, in a line.
    Going(String),
    /// It is there. The sentence.
    Arrived(String),
    /// The operator took the request off, and the address has not left: an event says why.
    Answered,
    /// It ended otherwise.
    Ended(Refusal),
}

/// What the allocation says of the move. `left`: it has been seen under way.
pub fn progress(request: &Request, object: Option<&NetIPAllocation>, left: bool) -> Progress {
    let Request { ip, from, allocation, .. } = request;
    let ended = |sentence: String| Progress::Ended(Refusal::new(Exit::Refused, sentence));
    let Some(object) = object else { return ended(format!("NetIPAllocation {allocation} was deleted meanwhile")) };
    let mut entries = object.status.iter().flat_map(|status| &status.addresses);
    let Some(entry) = entries.find(|entry| entry.ip.parse() == Ok(*ip)) else {
        return ended(format!("{ip} was taken out of NetIPAllocation {allocation} meanwhile"));
    };
    let said = entry.message.as_deref().unwrap_or_default();
    let line = || format!("{ip} {}: {said}", entry.state);
    let waits = [Reason::NoTarget, Reason::Held, Reason::Observing].map(Reason::as_str);
    match (entry.state.as_str(), entry.node.as_ref()) {
        ("Attached", Some(node)) if node != from => {
            let moved = entry.last_move.as_ref().map(why::last_move).unwrap_or_default();
            if request.named && *node != request.to {
                return ended(format!("{ip} is on node {node} and not on {}. {moved}", request.to));
            }
            Progress::Arrived(format!("{ip} is on node {node}. {moved}").trim_end().to_owned())
        }
        ("Attached", _) if left => {
            ended(format!("{ip} stays on node {from}: the move was taken back; `kubectl nia history {ip}` says more"))
        }
        ("Attached", _) if !request.is_pending(object) => Progress::Answered,
        // The operator has seen it, and waits.
        ("Attached", _) if waits.contains(&entry.reason.as_deref().unwrap_or_default()) => Progress::Going(line()),
        ("Attached", _) => Progress::Unheard,
        _ => Progress::Going(line()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let moving = changed(|object| object.status.as_mut().unwrap().addresses[0].state = "Draining".to_owned());
        refused(&moving, None, Exit::Refused, "is Draining, so it is moving already");
        let old = changed(|object| object.status.as_mut().unwrap().observed_generation = None);
        refused(&old, None, Exit::NotInstalled, "no operator of version 2");
        let stranger = prepare(&cluster(), &Order { ip: ip("203.0.113.99"), ..order(None) }, &moment(0)).unwrap_err();
        assert_eq!(stranger.exit, Exit::Unknown);
    }

    #[test]
    fn a_move_is_followed_until_it_is_there_or_ended_otherwise() {
        let mut cluster = cluster();
        let request = prepared(&cluster, Some("node-b")).unwrap();
        let voip = &mut cluster.allocations[0];
        voip.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), request.text());
        assert_eq!(progress(&request, Some(voip), false), Progress::Unheard);
        assert!(
            request.take_back(voip).is_some_and(|patch| patch["metadata"]["annotations"][MOVE_ANNOTATION].is_null())
        );
        voip.annotations_mut().remove(MOVE_ANNOTATION);
        assert_eq!(request.take_back(voip), None, "not ours any more");
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
