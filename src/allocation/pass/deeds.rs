//! Beginning what was written, and telling how it ended.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use kube::ResourceExt;
use tracing::{Instrument as _, Span, field};

use super::super::{
    Controller, Permit,
    act::{Deed, Done, Noted, pods::Asked},
    decide::{Effect, facts::User},
    journey,
    memory::Owed,
    moment::Moment,
    observe::Subject,
    record::{audience, events::Event, tell::Word},
    round::{self, Debt, DebtState, Turn},
    tables::Key,
    watch::Cause,
};
use crate::{
    api::NetIPAllocation,
    cloud::{CloudError, ErrorKind, Restore, limits},
    lifecycle::{Trace, flight},
    metrics::{self, Ended, Eviction},
    telemetry::traces,
};

impl Controller {
    /// Starts what was written. `permit`: what was waited for, if the deed is one of the cloud's (F2).
    pub(super) fn begin(self: &Arc<Self>, subject: &Subject, turn: Turn, permit: Option<Permit>, moment: &Moment) {
        round::begun(&turn, &mut self.tables(), moment);
        let Some((deed, ticket)) = turn.deed else { return };
        let (me, name, stored) = (self.clone(), subject.name.clone(), subject.object.clone());
        let (span, provider) = (span(&deed), deed.scope.provider);
        let trace = journey::trace_of_deed(&turn.after, &subject.uid, moment.now);
        if let Some(trace) = trace {
            traces::follow(&span, trace);
        }
        let effect = async move {
            tracing::info!(effect = ?deed.effect, "effect begins");
            let mut noted = Vec::new();
            let allowance = permit.map(|permit| permit.allowance);
            let cloud = me.view.cloud(deed.scope.provider);
            // A provider that panics must not hold address and machine for ever: what it sent is not known.
            let work = AssertUnwindSafe(me.actor.perform(&deed, cloud.as_deref(), &mut noted)).catch_unwind();
            let done = limits::spending(allowance, work).await.unwrap_or_else(|_| {
                Done::Failed(CloudError::new(ErrorKind::Unknown, "effect", "the provider panicked").unsettled())
            });
            if let Some(why) = failure(&done) {
                tell_span_failed(why);
            }
            noted.into_iter().for_each(|noted| me.tell_noted(&stored, &deed, noted, trace));
            me.ended(&stored, &deed, done, ticket, trace);
            me.wake.one(&name, Cause::Effect);
        };
        self.run_effect(provider, effect.instrument(span));
    }

    /// What an ended effect leaves behind.
    fn ended(
        &self,
        object: &NetIPAllocation,
        deed: &Deed,
        done: Done,
        ticket: flight::Ticket<Key>,
        trace: Option<Trace>,
    ) {
        let done = {
            let mut tables = self.tables();
            tables.flights.end(ticket);
            let done = round::believed(deed, done, &tables);
            round::ended(deed, &done, &mut tables, &mut self.view.answers(), &Moment::here());
            done
        };
        let name = object.name_any();
        match done {
            Done::Node(Some(node)) => self.nodes.wrote(*node),
            Done::Node(None) => self.nodes.gone(deed.node_uid.clone()),
            Done::Asked(asked) => {
                for (user, answer) in asked {
                    self.tell_asked(object, deed, &user, answer, trace);
                }
            }
            Done::Verified(_) => count(deed, &name, Ended::Success),
            Done::Failed(error) => self.tell_failed(object, deed, &error, trace),
            Done::HeldBack(why) => tracing::info!(crd = name, ip = %deed.ip, why, "effect held back"),
            Done::NodeFailed(why) => self.tell_not_patched(object, deed, &why, trace),
        }
    }

    fn tell_noted(&self, object: &NetIPAllocation, deed: &Deed, noted: Noted, trace: Option<Trace>) {
        let ip = deed.ip.to_string();
        let (event, node, note) = match noted {
            Noted::Asked(user, answer) => return self.tell_asked(object, deed, &user, answer, trace),
            Noted::NotPatched(why) => return self.tell_not_patched(object, deed, &why, trace),
            Noted::Labeled(node) => {
                (Event::NodeLabeled, node.clone(), format!("node {node} carries ip.ready for {ip}"))
            }
            Noted::Unlabeled(node) => {
                (Event::NodeUnlabeled, node.clone(), format!("node {node} does not carry ip.ready for {ip} any more"))
            }
        };
        self.teller.say(object, Word::new(event, &ip, note).on(Some(&node)).during(trace));
    }

    fn tell_failed(&self, object: &NetIPAllocation, deed: &Deed, error: &CloudError, trace: Option<Trace>) {
        let (node, event) = match &deed.effect {
            Effect::Attach { node, .. } => (node, Event::IPAttachFailed),
            Effect::Detach { node, .. } => (node, Event::IPDetachFailed),
            Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => return,
        };
        tracing::warn!(crd = object.name_any(), ip = %deed.ip, node, %error, "effect failed");
        count(deed, &object.name_any(), Ended::Error);
        let note = format!("{} on node {node}: {error}; {}", deed.ip, error.kind.remedy());
        self.teller.say(object, Word::new(event, &deed.ip.to_string(), note).on(Some(node)).during(trace));
    }

    /// The labels of a deed's node could not be changed: pods cannot come to the address, or still do.
    fn tell_not_patched(&self, object: &NetIPAllocation, deed: &Deed, why: &str, trace: Option<Trace>) {
        let (name, node) = (object.name_any(), deed.effect.node());
        tracing::warn!(crd = name, ip = %deed.ip, node, error = why, "effect failed");
        metrics::node_patch_failed(&name);
        let note = format!("labels of {} on node {node} could not be changed: {why}", deed.ip);
        let word = Word::new(Event::NodePatchFailed, &deed.ip.to_string(), note);
        self.teller.say(object, word.on(Some(node)).during(trace));
    }

    fn tell_asked(&self, object: &NetIPAllocation, deed: &Deed, user: &User, answer: Asked, trace: Option<Trace>) {
        let name = object.name_any();
        let pod = &format!("{}/{}", user.namespace, user.name);
        let node = deed.effect.node();
        let say = |event, note| {
            let workload = audience::controller(&user.namespace, user.controller.as_ref());
            self.teller.say(object, Word::new(event, pod, note).on(Some(node)).of(workload).during(trace));
        };
        let outcome = match answer {
            Asked::Accepted => {
                say(Event::PodEvicted, format!("pod {pod} was asked to leave node {node}, and goes"));
                Eviction::Evicted
            }
            Asked::Blocked(why) => {
                say(Event::EvictionBlocked, format!("pod {pod} may not leave node {node} yet: {why}"));
                Eviction::Blocked
            }
            Asked::Failed(why) => {
                tracing::warn!(crd = name, pod, error = why, "asking a pod to go failed");
                Eviction::Error
            }
        };
        metrics::evicted(&name, outcome);
    }

    /// Makes the attempt to pay a debt that was written. `trace`: of the journey that left it.
    pub(super) fn pay(self: &Arc<Self>, subject: &Subject, debt: Debt, permit: Option<Permit>, trace: Option<Trace>) {
        let owed = debt.owed;
        let DebtState::Paying(ticket) = debt.state else { return };
        let scope = subject.scope_at(&owed.machine.place);
        let cloud = scope.as_ref().and_then(|scope| self.view.cloud(scope.provider));
        let (Some((operation, before)), Some(scope), Some(cloud)) = (owed.attempt, scope, cloud) else {
            self.tables().flights.end(ticket);
            return;
        };
        let order = Restore {
            scope: scope.clone(),
            machine: owed.machine.clone(),
            operation,
            own: owed.own.clone(),
            gate: self.actor.gate_until(before),
        };
        let span = restore_span(&subject.name, &owed);
        if let Some(trace) = trace {
            traces::follow(&span, trace);
        }
        let (me, name) = (self.clone(), subject.name.clone());
        let effect = async move {
            let allowance = permit.map(|permit| permit.allowance);
            let restoring = AssertUnwindSafe(cloud.restore(&order)).catch_unwind();
            let result = limits::spending(allowance, restoring).await.unwrap_or_else(|_| {
                Err(CloudError::new(ErrorKind::Unknown, "restore", "the provider panicked").unsettled())
            });
            if let Err(error) = &result {
                tell_span_failed(&error.message);
                tracing::warn!(crd = name, node = owed.node, %error, "giving the node its own address back failed");
            }
            {
                let mut tables = me.tables();
                tables.flights.end(ticket);
                round::paid(&owed, &result, &mut tables, &mut me.view.answers(), &Moment::here());
            }
            me.wake.one(&name, Cause::Effect);
        };
        self.run_effect(scope.provider, effect.instrument(span));
    }
}

/// Why an effect failed, if it did.
fn failure(done: &Done) -> Option<&str> {
    match done {
        Done::Failed(CloudError { message, .. }) | Done::NodeFailed(message) => Some(message),
        Done::Asked(asked) => asked.iter().find_map(|(_, asked)| match asked {
            Asked::Failed(why) => Some(why.as_str()),
            Asked::Accepted | Asked::Blocked(_) => None,
        }),
        Done::Node(_) | Done::Verified(_) | Done::HeldBack(_) => None,
    }
}

/// The span of the effect that runs now is a failed one.
fn tell_span_failed(why: &str) {
    let span = Span::current();
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", why);
}

/// The span of giving a machine an address of its own back.
fn restore_span(allocation: &str, owed: &Owed) -> Span {
    let place = owed.machine.place.place();
    tracing::info_span!(
        "effect",
        otel.name = "netipallocation.restore",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
        netipallocation.name = allocation,
        k8s.node.name = owed.node,
        cloud.provider = place.as_ref().map(|place| place.provider.as_str()),
        cloud.availability_zone = place.as_ref().map(|place| place.zone.as_str()),
    )
}

/// The span of an effect, which the calls that it makes are in.
fn span(deed: &Deed) -> Span {
    let name = match &deed.effect {
        Effect::Attach { .. } => "netipallocation.attach",
        Effect::Detach { .. } => "netipallocation.detach",
        Effect::Label { .. } => "netipallocation.node.label",
        Effect::Unlabel { .. } => "netipallocation.node.unlabel",
        Effect::Evict { .. } => "netipallocation.pod.evict",
    };
    tracing::info_span!(
        "effect",
        otel.name = name,
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
        netipallocation.name = deed.allocation,
        netipallocation.ip = %deed.ip,
        k8s.node.name = deed.effect.node(),
        cloud.provider = deed.scope.provider.as_str(),
        cloud.availability_zone = deed.machine.place().map(|place| place.zone.as_str()),
    )
}

fn count(deed: &Deed, name: &str, ended: Ended) {
    match &deed.effect {
        Effect::Attach { .. } => metrics::attached(name, ended),
        Effect::Detach { .. } => metrics::detached(name, ended),
        Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => {}
    }
}
