//! Beginning what was written, and what an ended effect leaves behind.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::FutureExt;
use jiff::Timestamp;
use kube::ResourceExt;
use uuid::Uuid;

use super::super::{
    Controller,
    act::{Deed, Done, pods::Asked},
    decide::Effect,
    observe::{Subject, dead_at},
    tables::{Key, Tables},
};
use super::{
    debts::{Debt, DebtState},
    turn::{Turn, is_of_cloud},
};
use crate::{
    api::NetIPAllocation,
    cloud::{CloudError, ErrorKind},
    lifecycle::flight,
    metrics::{self, Ended, Eviction},
};

impl Controller {
    /// The write was refused: nothing is done, tickets go back.
    pub(super) fn abandon(&self, turns: Vec<Turn>, debts: Vec<Debt>) {
        let mut tables = self.tables();
        for (_, ticket, _) in turns.into_iter().filter_map(|turn| turn.deed) {
            tables.flights.end(ticket);
        }
        for debt in debts {
            if let DebtState::Paying { ticket, .. } = debt.state {
                tables.flights.end(ticket);
            }
        }
    }

    /// Starts what was written.
    pub(super) fn begin(self: &Arc<Self>, subject: &Subject, turn: Turn, now: Timestamp) {
        let Some((deed, ticket, permit)) = turn.deed else { return };
        {
            let mut tables = self.tables();
            if let Some(operation) = &turn.after.operation
                && is_of_cloud(&deed.effect)
            {
                if turn.new_intent {
                    tables.intents.seen(
                        &turn.after.ip,
                        operation.id,
                        dead_at(operation, deed.scope.provider, now),
                        true,
                    );
                }
                tables.intents.sending(&turn.after.ip);
            }
        }
        let (me, name, stored) = (self.clone(), subject.name.clone(), subject.object.clone());
        self.run_effect(deed.scope.provider, async move {
            tracing::info!(crd = name, ip = %deed.ip, effect = ?deed.effect, "effect begins");
            // A provider that panics must not hold address and machine for ever: what it sent is not known.
            let performed = AssertUnwindSafe(me.actor.perform(&deed)).catch_unwind().await;
            let done = performed.unwrap_or_else(|_| {
                Done::Failed(CloudError::new(ErrorKind::Unknown, "effect", "the provider panicked").unsettled())
            });
            me.ended(&stored, &deed, done, ticket);
            drop(permit);
            me.wake.one(&name);
        });
    }

    /// What an ended effect leaves behind.
    fn ended(&self, object: &NetIPAllocation, deed: &Deed, done: Done, ticket: flight::Ticket<Key>) {
        let now = Timestamp::now();
        let mut tables = self.tables();
        tables.flights.end(ticket);
        let cloudy = match &deed.effect {
            Effect::Attach { node, machine, operation, .. } => Some((node, machine, *operation, true)),
            Effect::Detach { node, machine, operation, .. } => Some((node, machine, *operation, false)),
            Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => None,
        };
        match (done, cloudy) {
            (Done::Node(written), _) => {
                tables.clear_failure(deed.ip);
                match written {
                    Some(node) => self.nodes.wrote(*node),
                    None => self.nodes.gone(deed.node_uid.clone()),
                }
            }
            (Done::Asked(asked), _) => {
                for (user, answer) in asked {
                    self.asked(
                        object,
                        &mut tables,
                        &user.uid,
                        &format!("{}/{}", user.namespace, user.name),
                        answer,
                        now,
                    );
                }
            }
            (Done::Verified(verified), Some((_, machine, operation, attach))) => {
                tables.succeeded(deed.ip, &machine.place, operation, verified.began, attach);
                self.view.verified(&deed.scope, deed.ip, &machine.place, &verified);
                count(attach, &object.name_any(), Ended::Success);
            }
            (Done::Failed(error), Some((node, machine, operation, attach))) => {
                tracing::warn!(crd = object.name_any(), ip = %deed.ip, node, %error, "effect failed");
                tables.failed(deed.ip, node, &machine.place, operation, &error, Instant::now(), now, rand_unit());
                self.view.changed(&machine.place);
                count(attach, &object.name_any(), Ended::Error);
                let reason = if attach { "IPAttachFailed" } else { "IPDetachFailed" };
                self.teller.warn(
                    object,
                    reason,
                    &deed.ip.to_string(),
                    format!("{} on node {node}: {error}; {}", deed.ip, error.kind.remedy()),
                );
            }
            (Done::HeldBack(why), Some((_, _, operation, _))) => {
                tracing::info!(crd = object.name_any(), ip = %deed.ip, why, "effect held back");
                tables.held_back(deed.ip, operation, why, now);
            }
            (Done::NodeFailed(why), _) => {
                tracing::warn!(crd = object.name_any(), ip = %deed.ip, error = why, "effect failed");
                tables.node_failed(deed.ip, why, now, rand_unit());
            }
            (Done::Verified(_) | Done::Failed(_) | Done::HeldBack(_), None) => {}
        }
    }

    fn asked(
        &self,
        object: &NetIPAllocation,
        tables: &mut Tables,
        uid: &str,
        pod: &str,
        answer: Asked,
        now: Timestamp,
    ) {
        let name = object.name_any();
        let (outcome, blocked) = match answer {
            Asked::Accepted => {
                self.teller.note(object, "PodEvicted", pod, format!("pod {pod} was asked to go and goes"), None);
                (Eviction::Evicted, None)
            }
            Asked::Blocked(why) => {
                self.teller.warn(object, "EvictionBlocked", pod, format!("pod {pod} may not go yet: {why}"));
                (Eviction::Blocked, Some(why))
            }
            Asked::Failed(why) => {
                tracing::warn!(crd = name, pod, error = why, "asking a pod to go failed");
                (Eviction::Error, Some(why))
            }
        };
        metrics::evicted(&name, outcome);
        tables.asked(uid, blocked, now, rand_unit());
    }
}

fn count(attach: bool, name: &str, ended: Ended) {
    if attach { metrics::attached(name, ended) } else { metrics::detached(name, ended) }
}

/// In [0, 1), from the operation ids' source of randomness.
pub(super) fn rand_unit() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / (f64::from(u32::MAX) + 1.0)
}
