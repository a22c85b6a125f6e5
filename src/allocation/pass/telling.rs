//! Telling what one pass made durable: events, metrics, gauges, and the answer to a request to move.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;

use super::super::{
    Controller,
    claims::Unusable,
    decide::{
        facts::{Entry, Facts, Holder, Mode},
        leaving,
        placement::Verdict,
        state::{Reason, State},
    },
    journey,
    memory::clip,
    observe::{
        Subject, Surroundings,
        requested::{Answer, requested_move},
    },
    record::{
        conditions,
        events::Event,
        request,
        tell::{Told, Word},
    },
    round::{DebtState, Record, Scene},
};
use super::course::Course;
use crate::{
    api::{self, AddressStatus, NetIPAllocation, NetIPAllocationStatus},
    lifecycle::Transition,
    metrics,
};

impl Controller {
    pub(super) fn tell(
        &self,
        subject: &Subject,
        stored: &NetIPAllocation,
        record: &Record,
        scene: &Scene,
        course: &mut Course,
    ) {
        let now = scene.around.moment.now;
        let is_new = |unusable: &&Unusable| names(stored, unusable) && !names(&subject.object, unusable);
        for unusable in subject.selection.unusable.iter().filter(is_new) {
            let note = format!("\"{}\" {}", unusable.text, unusable.why);
            self.teller.say(stored, Word::new(Event::InvalidSpec, &unusable.text, note));
        }
        self.tell_turned(subject, stored);
        let provider = subject.scope.as_ref().ok().map(|scope| scope.provider);
        for turn in &record.turns {
            if let Some(why) = &turn.refused {
                tracing::error!(crd = subject.name, ip = %turn.before.ip, error = why, "the machine asked for what it may not");
            }
            let mut entered = journey::entered(&turn.before);
            for step in &turn.steps {
                let journey = journey::of_step(&turn.before, &turn.after, *step, &subject.uid, now);
                let trace = journey.as_ref().map(|journey| journey.trace);
                if let Some(trace) = trace {
                    course.moved(trace);
                }
                let told = Told { object: stored, before: &turn.before, after: &turn.after, step: *step, trace };
                self.teller.moved(&told);
                let transition = Transition {
                    object: subject.name.clone(),
                    subject: turn.before.ip.to_string(),
                    kind: provider.map_or("none", |provider| provider.as_str()),
                    node: turn.after.node.clone().or_else(|| turn.before.node.clone()),
                    from: step.from,
                    to: step.to,
                    reason: step.reason.as_str(),
                    spent: Duration::try_from(now.duration_since(entered)).unwrap_or_default(),
                    gap: turn
                        .after
                        .last_move
                        .as_ref()
                        .filter(|_| (step.from, step.to) == (State::Attaching, Some(State::Attached)))
                        .and_then(|journey| Duration::try_from(journey.gap?).ok()),
                    entered,
                    at: now,
                    journey,
                };
                for observer in &self.observers {
                    observer.moved(&transition);
                }
                entered = now;
            }
            let (old, new) = (turn.before.reason, turn.after.reason);
            if old != new
                && let Some(event) = Event::of(new)
            {
                let note = format!("{} {}", turn.after.ip, turn.after.message);
                let word = Word::new(event, &turn.after.ip.to_string(), note).on(turn.after.node.as_deref());
                let trace = journey::trace(&turn.after, &subject.uid);
                self.teller.say(stored, word.of(stored.spec.workload()).during(trace));
            }
        }
        for debt in &record.debts {
            if let DebtState::Struck(Some(why)) = &debt.state {
                let node = &debt.owed.node;
                let note = format!("node {node} does not get an external address of its own back: {why}");
                self.teller.say(stored, Word::new(Event::RestoreFailed, node, note).on(Some(node)));
            }
        }
    }

    /// Conditions that say something else than before, and no address does: the spec as a whole, and the cloud.
    fn tell_turned(&self, subject: &Subject, stored: &NetIPAllocation) {
        let conditions = |object: &NetIPAllocation| object.status.clone().unwrap_or_default().conditions;
        let before = conditions(&subject.object);
        for condition in conditions(stored) {
            let same = |known: &api::Condition| known.type_ == condition.type_ && known.reason == condition.reason;
            if let Some(event) = Event::of_condition(&condition.type_, &condition.reason)
                && !before.iter().any(same)
                // Each of these has said so by its own name.
                && (event != Event::InvalidSpec || subject.selection.unusable.is_empty())
            {
                self.teller.say(stored, Word::new(event, &condition.type_, condition.message));
            }
        }
    }

    /// `status`: what this pass has seen, written or not.
    pub(super) fn gauge(
        &self,
        subject: &Subject,
        stored: &NetIPAllocation,
        status: &NetIPAllocationStatus,
        record: &Record,
        around: &Surroundings,
    ) {
        let Record { kept: entries, facts, plan, .. } = record;
        let moment = &around.moment;
        let says = |kind: &str, said: &str| {
            status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == said)
        };
        let size = |n: i32| usize::try_from(n).unwrap_or_default();
        // As status has them: those that no entry understands, and texts that are no address, too.
        let known: HashMap<String, (&Entry, &Facts)> =
            entries.iter().zip(facts).map(|(entry, facts)| (entry.ip.to_string(), (entry, facts))).collect();
        let addresses = status.addresses.iter().map(|address| address_gauges(address, known.get(&address.ip).copied()));
        let labelled = around.nodes.labelled_for(&subject.name).iter();
        self.gauges.allocation(
            &subject.name,
            metrics::AllocationGauges {
                ready: says("Ready", "True"),
                reserved: size(status.reserved_count),
                attached: size(status.attached_count),
                unattached: size(status.unattached_count),
                required: size(status.required_count),
                conflicting: entries.iter().filter(|entry| entry.reason == Reason::DuplicateClaim).count(),
                eligible_nodes: plan.counts.get(&Verdict::Eligible).copied().unwrap_or_default(),
                spare_nodes: plan.spare,
                workload_found: !says("WorkloadFound", "False"),
                failover: Duration::from_secs(stored.spec.failover.not_ready_seconds.try_into().unwrap_or_default()),
                failover_frozen: facts.iter().any(|facts| facts.frozen),
                reconcile_interval: subject.interval,
                last_success: around.survey.as_ref().map(|survey| {
                    moment.now.as_second() - i64::try_from(moment.since(survey.began).as_secs()).unwrap_or_default()
                }),
                deletion: stored.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()),
                provider: subject.scope.as_ref().ok().map(|scope| scope.provider),
                region: subject.scope.as_ref().map(|scope| scope.region.clone()).unwrap_or_default(),
                mode: match subject.mode {
                    Mode::Enforce => "Enforce",
                    Mode::Hold => "Hold",
                    Mode::Observe => "Observe",
                },
                addresses: addresses.collect(),
                verdicts: plan.counts.iter().map(|(verdict, n)| (verdict.as_str(), *n)).collect(),
                labelled_nodes: labelled.map(|node| node.name_any()).collect(),
            },
        );
    }

    /// A request to move is one-shot: once status has it, the annotation goes. What cannot be done is refused in an event.
    /// Failing here is harmless: the annotation is read again with the next pass.
    pub(super) async fn answer_move(&self, stored: &Arc<NetIPAllocation>, entries: &[Entry], answer: Option<Answer>) {
        let Some((answer, text)) = answer.zip(stored.annotations().get(api::MOVE_ANNOTATION)) else { return };
        let (event, note) = match answer {
            Answer::Accepted(how) => (Event::MoveAccepted, how),
            Answer::Refused(why) => (Event::MoveRefused, why),
        };
        if self.may_write().is_err() {
            return;
        }
        if request::take_off(&self.api, &self.ledger, self.config.mutation_timeout, stored).await {
            let asked = requested_move(stored);
            let entry = entries.iter().find(|entry| asked.is_some_and(|(ip, _)| ip == entry.ip));
            let trace = entry.and_then(|entry| journey::trace(entry, &stored.uid().unwrap_or_default()));
            // Each request has an answer of its own, also one that is asked again in the same words.
            let action = format!("{} of {}", clip(text, 64), stored.resource_version().unwrap_or_default());
            self.teller.say(stored, Word::new(event, &action, note).during(trace));
        }
    }
}

/// Of what status says of an address, and of its entry where there is one.
fn address_gauges(address: &AddressStatus, known: Option<(&Entry, &Facts)>) -> metrics::AddressGauges {
    let placed = known.filter(|(entry, _)| matches!(entry.state, State::Attached | State::Draining | State::Releasing));
    let down = placed.and_then(|(entry, facts)| facts.holder_of(entry).and_then(Holder::down_since));
    metrics::AddressGauges {
        ip: address.ip.clone(),
        node: known.filter(|(entry, _)| conditions::holds(entry)).and_then(|(entry, _)| entry.node.clone()),
        state: address.state.clone(),
        reason: address.reason.clone().unwrap_or_default(),
        node_down_since: down.map(Timestamp::as_second),
        holding_pods: known.map_or(0, |(entry, facts)| leaving::holding_pods(entry, facts)),
        releasing: known.is_some_and(|(entry, _)| entry.state == State::Releasing),
    }
}

/// Whether status says of this text of the spec that it cannot be used.
fn names(object: &NetIPAllocation, unusable: &Unusable) -> bool {
    object.status.iter().flat_map(|status| &status.addresses).any(|address| address.ip == unusable.text)
}
