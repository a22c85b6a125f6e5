//! Debts to machines: when one is made, paid, or struck off.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::super::{
    Controller,
    decide::{
        facts::{Entry, Facts, Life, Mode},
        state::{Reason, State},
    },
    memory::{self, Owed},
    observe::{SEND_WINDOW, Subject},
    owed,
    tables::{Key, Tables},
};
use super::{deeds::rand_unit, entries::Entries, turn::Turn};
use crate::{
    api::NetIPAllocation,
    cloud::{CloudError, ErrorKind, Restore, Restored, limits::Urgency},
    lifecycle::flight,
};

/// A debt, and what this pass does about it.
pub(super) struct Debt {
    pub(super) owed: Owed,
    pub(super) state: DebtState,
}

pub(super) enum DebtState {
    Waits,
    /// Settled; the text says why if it could not be paid.
    Struck(Option<String>),
    Paying {
        ticket: flight::Ticket<Key>,
        permit: Option<OwnedSemaphorePermit>,
    },
}

impl Controller {
    pub(super) fn debts(
        self: &Arc<Self>,
        subject: &Subject,
        entries: &Entries,
        permits: &BTreeSet<String>,
        tables: &mut Tables,
        used: &mut BTreeSet<String>,
    ) -> Vec<Debt> {
        let now = Timestamp::now();
        let send_before = memory::whole_seconds(now.checked_add(SEND_WINDOW).unwrap_or(now));
        entries
            .owed
            .iter()
            .filter_map(|owed| {
                let place = &owed.machine.place;
                if let Some(paid) = tables.paid(&owed.machine) {
                    return Some(Debt { owed: owed.clone(), state: DebtState::Struck(paid) });
                }
                let spent = owed.attempt.is_some_and(|(id, _)| tables.restore_spent(&owed.machine, id));
                let retry = tables.restore_retry(&owed.machine);
                let due = Owed { retry: retry.or(owed.retry), ..owed.clone() };
                let busy = tables.flights.is_busy(&Key::Machine(place.clone()));
                let next = owed::next(&due, now, busy, spent, Uuid::new_v4(), send_before);
                let waits = || Some(Debt { owed: due.clone(), state: DebtState::Waits });
                let owed = match next {
                    owed::Next::Wait => return waits(),
                    owed::Next::Repeat => due.clone(),
                    owed::Next::Begin(begun) => begun,
                };
                let key = place.to_string();
                let Some(scope) = subject.scope_at(place) else { return waits() };
                if subject.mode == Mode::Observe {
                    return waits();
                }
                if !permits.contains(&key) {
                    self.ask_permit(&subject.name, &key, &scope, Urgency::Placement);
                    return waits();
                }
                let Some(ticket) = tables.flights.begin([Key::Machine(place.clone())]) else { return waits() };
                used.insert(key.clone());
                let permit = self.use_permit(&subject.name, &key);
                Some(Debt { owed, state: DebtState::Paying { ticket, permit } })
            })
            .collect()
    }

    pub(super) fn pay(self: &Arc<Self>, subject: &Subject, stored: &Arc<NetIPAllocation>, debt: Debt) {
        let owed = debt.owed;
        let (ticket, permit) = match debt.state {
            DebtState::Waits => return,
            DebtState::Struck(why) => {
                self.tables().forget_debt(&owed.machine);
                if let Some(why) = why {
                    self.teller.warn(
                        stored,
                        "RestoreFailed",
                        &owed.node,
                        format!("node {} does not get an external address of its own back: {why}", owed.node),
                    );
                }
                return;
            }
            DebtState::Paying { ticket, permit } => (ticket, permit),
        };
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
        let (me, name) = (self.clone(), subject.name.clone());
        self.run_effect(scope.provider, async move {
            let restoring = AssertUnwindSafe(cloud.restore(&order)).catch_unwind().await;
            let result = restoring.unwrap_or_else(|_| {
                Err(CloudError::new(ErrorKind::Unknown, "restore", "the provider panicked").unsettled())
            });
            {
                let mut tables = me.tables();
                tables.flights.end(ticket);
                tables.changed(&order.machine.place, Instant::now());
                me.view.changed(&order.machine.place);
                match result {
                    Ok(Restored::Given | Restored::MachineGone) => tables.restored(&order.machine, None),
                    Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => {
                        tables.restored(&order.machine, Some(error.to_string()));
                    }
                    Err(error) => {
                        tracing::warn!(crd = name, node = owed.node, %error, "giving the node its own address back failed");
                        tables.restore_failed(&order.machine, operation, &error, Timestamp::now(), rand_unit());
                    }
                }
            }
            drop(permit);
            me.wake.one(&name);
        });
    }
}

/// While a detached address waits, what its last node gets back is the news.
pub(super) fn tell_debt(entry: &mut Entry, owed: &[Owed]) {
    let told = matches!(entry.reason, Reason::Released | Reason::Restoring | Reason::RestoreFailed);
    let left = entry.last_move.as_ref().and_then(|journey| journey.from.as_ref());
    if entry.state == State::Detached
        && told
        && let Some(debt) = owed.iter().find(|debt| Some(&debt.node) == left)
    {
        entry.reason = if debt.retry.is_some() { Reason::RestoreFailed } else { Reason::Restoring };
    }
}

/// What a machine is owed after edge 9, unless it is gone.
pub(super) fn new_debt(turn: &Turn, facts: &Facts) -> Option<Owed> {
    let left = turn.steps.iter().any(|step| step.from == State::Releasing && step.to == Some(State::Detached));
    let gone = facts.holder.as_ref().is_some_and(|holder| matches!(holder.life, Life::Gone | Life::Replaced));
    if !left || gone {
        return None;
    }
    Some(Owed {
        machine: turn.before.machine.clone()?,
        node: turn.before.node.clone()?,
        own: turn.before.restore.clone()?,
        attempt: None,
        retry: None,
    })
}
