//! Tells what is durable: one event, one counter, one span per transition. Never before the status write.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource, core::error_boundary::InvalidObject};
use kube_runtime::events::{Event as Published, EventType, Recorder, Reporter};

use super::{audience, events::Event, note::note};
use crate::{
    allocation::{
        decide::{
            self,
            facts::Entry,
            leaving::Cause,
            state::{Reason, State},
            story, ways,
        },
        memory::clip,
        observe::nodes::{Nodes, SlimNode},
    },
    api::{NetIPAllocation, WorkloadRef},
    cloud::Provider,
    lifecycle::{Observer, Outcome, Passed, State as _, Trace, Transition, pass::Step},
    metrics,
};

/// Who says so, in events.
const CONTROLLER: &str = "netinfra.darkbrains.com/ip-address-controller";

/// Of an event's action: 128 characters may be used, and the id of a trace follows.
const MOST: usize = 128 - 33;

/// Publishes events and counts transitions.
#[derive(Clone)]
pub struct Teller {
    client: Client,
    nodes: Nodes,
    reporter: Reporter,
    /// Remembers for minutes what it has said, to fold repeats into it.
    recorder: Recorder,
}

/// A transition that is durable.
pub struct Told<'a> {
    pub object: &'a NetIPAllocation,
    pub before: &'a Entry,
    pub after: &'a Entry,
    pub step: Step<State, Reason>,
    /// Of the journey that it is a part of.
    pub trace: Option<Trace>,
}

/// What an event says, and whom it concerns.
#[derive(Clone, Debug)]
pub struct Word {
    event: Event,
    /// Keeps apart what must not be folded into one.
    action: String,
    note: String,
    node: Option<String>,
    workload: Option<WorkloadRef>,
    trace: Option<Trace>,
}

impl Word {
    /// `action`: the address, pod or node that it is about; empty where there is none.
    pub fn new(event: Event, action: &str, note: String) -> Self {
        let action = if action.is_empty() { event.as_str().to_owned() } else { clip(action, MOST) };
        Self { event, action, note, node: None, workload: None, trace: None }
    }

    /// The node that it happened on.
    pub fn on(self, node: Option<&str>) -> Self {
        Self { node: node.map(str::to_owned), ..self }
    }

    /// The workload that it concerns.
    pub fn of(self, workload: Option<WorkloadRef>) -> Self {
        Self { workload, ..self }
    }

    /// The journey that it is a part of.
    pub fn during(self, trace: Option<Trace>) -> Self {
        Self { trace, ..self }
    }

    /// A repeat within minutes is folded into the event that it repeats, and that keeps its note: so those of another
    /// journey are apart, or they would lead to the wrong trace.
    fn published(&self, related: Option<ObjectReference>) -> Published {
        let journey = self.trace.map(|trace| format!(" {trace}")).unwrap_or_default();
        Published {
            type_: self.event.kind(),
            reason: self.event.as_str().to_owned(),
            note: Some(note(&self.note, self.trace)),
            action: format!("{}{journey}", self.action),
            secondary: related,
        }
    }
}

impl Teller {
    pub fn new(client: Client, nodes: Nodes, instance: String) -> Self {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client.clone(), reporter.clone()), reporter, client, nodes }
    }

    /// Of what repeats nothing, nothing is remembered either: thousands of addresses may move at once.
    fn once(&self) -> Self {
        Self { recorder: Recorder::new(self.client.clone(), self.reporter.clone()), ..self.clone() }
    }

    /// One transition.
    pub fn moved(&self, told: &Told<'_>) {
        let Told { object, before, after, step, trace } = told;
        let crd_name = object.metadata.name.clone().unwrap_or_default();
        let to = target(step.to);
        let node = after.node.as_deref().or(before.node.as_deref());
        let trace_id = trace.map(tracing::field::display);
        let span_id = trace.map(|trace| format!("{:016x}", trace.root()));
        tracing::info!(trace_id, span_id, crd = crd_name, ip = %after.ip, node = node.unwrap_or("none"), from = step.from.label(), to, reason = step.reason.as_str(), "address moved on");
        if let Some((event, note)) = sentence(before, after, step) {
            let word = Word::new(event, &after.ip.to_string(), note);
            self.once().say(object, word.on(node).of(object.spec.workload()).during(*trace));
        }
    }

    /// An event about an allocation. What drains a node, and what its pods are asked, is said there and to them as well.
    pub fn say(&self, object: &NetIPAllocation, word: Word) {
        let about = object.object_ref(&());
        let node = word.node.as_deref().and_then(|name| self.nodes.get(name)).map(|node| audience::node(&node));
        let me = self.clone();
        // Beside the pass: an event that cannot be written holds nothing up.
        tokio::spawn(async move {
            me.publish(&word.published(node.clone()), &about).await;
            if word.event.is_heard_beside() {
                me.beside(&word, &about, node).await;
            }
        });
    }

    /// An event about a node on which no allocation has an address.
    pub fn say_of_node(&self, node: &SlimNode, word: Word) {
        let (me, about) = (self.clone(), audience::node(node));
        tokio::spawn(async move {
            me.publish(&word.published(None), &about).await;
            me.beside(&word, &about, None).await;
        });
    }

    async fn beside(&self, word: &Word, about: &ObjectReference, node: Option<ObjectReference>) {
        let event = word.published(Some(about.clone()));
        if let Some(node) = node {
            self.publish(&event, &node).await;
        }
        if let Some(workload) = &word.workload
            && let Some(workload) = audience::workload(&self.client, workload).await
        {
            self.publish(&event, &workload).await;
        }
    }

    /// An object that cannot be decoded: nothing can be written into its status, so an event has to say it.
    pub fn undecodable(&self, invalid: &InvalidObject) {
        let text =
            format!("this object cannot be read and is left alone, addresses stay where they are: {}", invalid.error);
        let event = Published {
            type_: EventType::Warning,
            reason: Event::InvalidSpec.as_str().to_owned(),
            note: Some(note(&text, None)),
            action: "Decode".to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(NetIPAllocation::api_version(&()).into_owned()),
            kind: Some(NetIPAllocation::kind(&()).into_owned()),
            name: invalid.metadata.name.clone(),
            uid: invalid.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let me = self.clone();
        tokio::spawn(async move { me.publish(&event, &about).await });
    }

    async fn publish(&self, event: &Published, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(event, about).await {
            tracing::warn!(reason = event.reason, %error, "publishing an event failed");
        }
    }
}

/// Counts what is durable: the metrics of transitions and passes.
#[derive(Clone, Copy, Debug)]
pub struct Counted;

impl Counted {
    /// Before the first transition of an allocation at a cloud, so that it shows as an increase.
    pub fn known(crd_name: &str, provider: Provider) {
        metrics::cloud_known(provider, &State::ALL.map(|state| state.label()));
        for (from, to, reason) in ways::all() {
            metrics::transition_known(crd_name, provider, [from.label(), target(to), reason.as_str()]);
        }
    }
}

impl Observer<State> for Counted {
    fn moved(&self, transition: &Transition<State>) {
        let Transition { object, kind, from, to, reason, spent, gap, .. } = transition;
        let Some(provider) = Provider::parse(kind) else { return };
        metrics::moved(metrics::Transition {
            crd_name: object,
            provider,
            from: from.label(),
            to: target(*to),
            reason,
            spent: Some(*spent),
        });
        if let Some(gap) = gap {
            metrics::gap_closed(provider, *gap);
        }
    }

    fn passed(&self, passed: &Passed<'_>) {
        let failed = passed.outcome == Outcome::Failed;
        let ended = if failed { metrics::Ended::Error } else { metrics::Ended::Success };
        metrics::reconciled(passed.object, ended, passed.spent);
    }
}

/// The word for where a transition leads.
fn target(to: Option<State>) -> &'static str {
    to.map_or("Forgotten", State::label)
}

/// The event of a transition, where people look for one.
fn sentence(before: &Entry, after: &Entry, step: &Step<State, Reason>) -> Option<(Event, String)> {
    let ip = after.ip;
    let here = after.node.as_deref().unwrap_or("?");
    let there = before.node.as_deref().unwrap_or("?");
    // A pass may have gone on to where the entry names no node any more.
    let left = before.node.as_deref().unwrap_or(here);
    match (step.from, step.to?) {
        (State::Unassigned, State::Attached) => Some((
            Event::IPAttached,
            format!("{ip} was found on node {here} and is adopted; what the node had before is not known and not owed"),
        )),
        (_, State::Attached) if step.from == State::Draining => {
            Some((Event::DrainCancelled, format!("{ip} stays on node {here}: the cause to leave is gone")))
        }
        (_, State::Attached) => {
            let from = after.last_move.as_ref().and_then(|journey| journey.from.as_deref());
            Some(match from {
                Some(from) if from == here => (Event::IPAttached, format!("{ip} is on node {here} again")),
                Some(from) => (Event::IPReallocated, format!("{ip} moved from node {from} to node {here}")),
                None => (Event::IPAttached, format!("{ip} is on node {here}")),
            })
        }
        (_, State::Draining) => {
            let waits = Cause::of(step.reason).is_some_and(|cause| cause.row().waits_for_users);
            let deadline = after.deadline.filter(|_| waits);
            let until = deadline.map(|deadline| format!("; leaves at {} whatever runs", story::clock(deadline)));
            let next = after.planned_node.as_ref().map(|node| format!("; goes to node {node} next"));
            let cause = step.reason.as_str();
            let rest = [until, next].into_iter().flatten().collect::<String>();
            Some((Event::IPDraining, format!("{ip} is to leave node {left}: {cause}{rest}")))
        }
        (State::Attached | State::Draining, State::Releasing) if step.reason == Reason::Drifted => {
            Some((Event::IPDrifted, format!("{ip} is no longer on node {left}: somebody else took it off")))
        }
        (_, State::Detached) if before.state != State::Releasing && after.last_move.is_none() => Some((
            Event::IPDetached,
            format!("{ip} stays on node {there}, where another allocation has it: this one lets go of its entry"),
        )),
        (_, State::Detached) if decide::never_arrived(before) => {
            Some((Event::IPDetached, format!("{ip} is not on node {there}: its attach was undone")))
        }
        (_, State::Detached) => Some((Event::IPDetached, format!("{ip} is off node {there}"))),
        (_, State::Unassigned | State::Attaching | State::Releasing) => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::allocation::decide::facts::Journey;

    fn entry(state: State, node: Option<&str>, moved: Option<(&str, Option<&str>)>) -> Entry {
        let last_move = moved.map(|(from, to)| Journey {
            from: Some(from.to_owned()),
            to: to.map(str::to_owned),
            reason: "NodeCordoned".to_owned(),
            start: Timestamp::UNIX_EPOCH,
            finish: Timestamp::UNIX_EPOCH,
            gap: None,
            trace_id: None,
        });
        let ip = std::net::Ipv4Addr::new(203, 0, 113, 7).into();
        Entry { state, node: node.map(str::to_owned), last_move, ..Entry::new(ip, Timestamp::UNIX_EPOCH) }
    }

    fn said(before: &Entry, after: &Entry, reason: Reason) -> Option<(Event, String)> {
        sentence(before, after, &Step { from: before.state, to: Some(after.state), reason })
    }

    #[test]
    fn an_address_that_is_back_on_its_node_has_not_moved() {
        let before = entry(State::Attaching, Some("a"), Some(("a", None)));
        let back = entry(State::Attached, Some("a"), Some(("a", Some("a"))));
        let (event, note) = said(&before, &back, Reason::Verified).unwrap();
        assert_eq!((event, note.as_str()), (Event::IPAttached, "203.0.113.7 is on node a again"));
        let moved = entry(State::Attached, Some("b"), Some(("a", Some("b"))));
        assert_eq!(said(&before, &moved, Reason::Verified).unwrap().0, Event::IPReallocated);
    }

    #[test]
    fn a_drain_names_its_node_its_end_and_its_next_node_also_when_the_pass_went_on() {
        let before = entry(State::Attached, Some("a"), Some(("z", Some("a"))));
        let until = Timestamp::from_second(60).unwrap();
        let planned = Entry {
            deadline: Some(until),
            planned_node: Some("b".to_owned()),
            ..entry(State::Draining, Some("a"), None)
        };
        let (event, note) = said(&before, &planned, Reason::NodeCordoned).unwrap();
        assert_eq!(event, Event::IPDraining);
        assert_eq!(
            note,
            "203.0.113.7 is to leave node a: NodeCordoned; leaves at 1970-01-01T00:01:00Z whatever runs; goes to node b next"
        );
        let gone = Entry { deadline: Some(until), ..entry(State::Draining, None, None) };
        let (_, note) = said(&before, &gone, Reason::MachineGone).unwrap();
        assert_eq!(note, "203.0.113.7 is to leave node a: MachineGone", "nobody is waited for");
    }

    #[test]
    fn what_somebody_else_took_off_has_drifted_also_during_a_drain() {
        for state in [State::Attached, State::Draining] {
            let before = entry(state, Some("a"), Some(("z", Some("a"))));
            let after = entry(State::Releasing, Some("a"), Some(("z", Some("a"))));
            assert_eq!(said(&before, &after, Reason::Drifted).unwrap().0, Event::IPDrifted, "{state:?}");
            assert_eq!(said(&before, &after, Reason::NodeCordoned), None, "{state:?}");
        }
    }

    #[test]
    fn an_attach_that_was_undone_was_never_there() {
        let undone = entry(State::Releasing, Some("b"), Some(("a", None)));
        let after = entry(State::Detached, None, Some(("a", None)));
        let (event, note) = said(&undone, &after, Reason::Released).unwrap();
        assert_eq!((event, note.as_str()), (Event::IPDetached, "203.0.113.7 is not on node b: its attach was undone"));
    }
}
