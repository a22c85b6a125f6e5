//! Tells what is durable: one event, one counter, one span per transition. Never before the status write.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource, core::error_boundary::InvalidObject};
use kube_runtime::events::{Event as Published, EventType, Recorder, Reporter};

use super::events::Event;
use crate::{
    allocation::{
        decide::{
            facts::Entry,
            state::{Reason, State},
        },
        memory::clip,
    },
    api::NetIPAllocation,
    cloud::Provider,
    lifecycle::{Observer, Outcome, Passed, State as _, Trace, Transition, pass::Step},
    metrics,
};

/// Who says so, in events.
const CONTROLLER: &str = "netinfra.darkbrains.com/ip-address-controller";

/// Publishes events and counts transitions.
#[derive(Clone)]
pub struct Teller {
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

impl Teller {
    pub fn new(client: Client, instance: String) -> Self {
        Self {
            recorder: Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) }),
        }
    }

    /// One transition.
    pub fn moved(&self, told: &Told<'_>) {
        let Told { object, before, after, step, trace } = told;
        let crd_name = object.metadata.name.clone().unwrap_or_default();
        let to = step.to.map_or("Forgotten", |to| to.label());
        let node = after.node.as_deref().or(before.node.as_deref()).unwrap_or("none");
        let trace_id = trace.map(tracing::field::display);
        tracing::info!(trace_id, crd = crd_name, ip = %after.ip, node, from = step.from.label(), to, reason = step.reason.as_str(), "address moved on");
        if let Some((event, note)) = sentence(before, after, step) {
            self.say_of(object, event, &after.ip.to_string(), note, Some(node));
        }
    }

    /// An event; `action` keeps apart what must not be folded into one.
    pub fn say(&self, object: &NetIPAllocation, event: Event, action: &str, note: String) {
        self.say_of(object, event, action, note, None);
    }

    fn say_of(&self, object: &NetIPAllocation, event: Event, action: &str, note: String, node: Option<&str>) {
        let reason = event.as_str();
        let event = Published {
            type_: event.kind(),
            reason: reason.to_owned(),
            note: Some(clip(&note, 1024)),
            action: if action.is_empty() { reason.to_owned() } else { clip(action, 128) },
            secondary: node.filter(|node| *node != "none").map(|node| ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            }),
        };
        self.publish(event, object.object_ref(&()));
    }

    /// An object that cannot be decoded: nothing can be written into its status, so an event has to say it.
    pub fn undecodable(&self, invalid: &InvalidObject) {
        let note =
            format!("this object cannot be read and is left alone, addresses stay where they are: {}", invalid.error);
        let event = Published {
            type_: EventType::Warning,
            reason: Event::InvalidSpec.as_str().to_owned(),
            note: Some(clip(&note, 1024)),
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
        self.publish(event, about);
    }

    /// Beside the pass: an event that cannot be written holds nothing up.
    fn publish(&self, event: Published, about: ObjectReference) {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::warn!(reason = event.reason, %error, "publishing an event failed");
            }
        });
    }
}

/// Counts what is durable: the metrics of transitions and passes.
#[derive(Clone, Copy, Debug)]
pub struct Counted;

impl Observer<State> for Counted {
    fn moved(&self, transition: &Transition<State>) {
        let Transition { object, kind, from, to, reason, spent, gap, .. } = transition;
        let Some(provider) = Provider::parse(kind) else { return };
        let to = to.map_or("Forgotten", |to| to.label());
        metrics::moved(metrics::Transition {
            crd_name: object,
            provider,
            from: from.label(),
            to,
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

/// The event of a transition, where people look for one.
fn sentence(before: &Entry, after: &Entry, step: &Step<State, Reason>) -> Option<(Event, String)> {
    let ip = after.ip;
    let here = after.node.as_deref().unwrap_or("?");
    let there = before.node.as_deref().unwrap_or("?");
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
                Some(from) => (Event::IPReallocated, format!("{ip} moved from node {from} to node {here}")),
                None => (Event::IPAttached, format!("{ip} is on node {here}")),
            })
        }
        (_, State::Draining) => {
            Some((Event::IPDraining, format!("{ip} is to leave node {here}: {}", step.reason.as_str())))
        }
        (State::Attached, State::Releasing) => {
            Some((Event::IPDrifted, format!("{ip} is no longer on node {here}: somebody else took it off")))
        }
        (_, State::Detached) => Some((Event::IPDetached, format!("{ip} is off node {there}"))),
        (_, State::Unassigned | State::Attaching | State::Releasing) => None,
    }
}
