//! Debts to machines: when one is made, due, or struck off (L4).

use std::collections::BTreeSet;

use super::{
    super::{
        decide::{
            facts::{Entry, Facts, Life},
            state::{Reason, State},
        },
        memory::{self, Owed},
        observe::{Subject, Surroundings},
        owed,
        tables::{Key, SEND_WINDOW, Tables},
    },
    Entries, Scene, Turn, Wish,
};
use crate::{
    cloud::{Change, limits::Urgency},
    lifecycle::flight,
};

/// A debt, and what this pass does about it.
pub struct Debt {
    pub owed: Owed,
    pub state: DebtState,
}

/// See [`Debt`].
pub enum DebtState {
    Waits,
    /// Has a permit, which it keeps: it begins with the write that its address is about to need anyway.
    Ready,
    /// Settled; the text says why if it could not be paid.
    Struck(Option<String>),
    /// An attempt begins once it is written.
    Paying(flight::Ticket<Key>),
}

/// The debts in status, and those that the turns make. One that is new may begin with the very write that makes it.
pub(super) fn all(
    subject: &Subject,
    scene: &Scene,
    entries: &Entries,
    turns: &[(&Turn, &Facts)],
    permits: &BTreeSet<String>,
    tables: &mut Tables,
    wishes: &mut Vec<Wish>,
) -> Vec<Debt> {
    let mut debts: Vec<Debt> =
        entries.owed.iter().map(|owed| one(subject, scene, owed, permits, tables, wishes)).collect();
    for (turn, facts) in turns {
        let Some(owed) = new_debt(turn, facts) else { continue };
        tables.renew_debt(&owed.machine);
        debts.push(if turn.is_between() {
            in_advance(subject, scene, owed, permits, wishes)
        } else {
            one(subject, scene, &owed, permits, tables, wishes)
        });
    }
    debts
}

/// Its address is off, which is written together with where it goes: the permit is asked for until then, the machine not.
fn in_advance(
    subject: &Subject,
    scene: &Scene,
    owed: Owed,
    permits: &BTreeSet<String>,
    wishes: &mut Vec<Wish>,
) -> Debt {
    let state = match permitted(subject, scene, &owed, permits, wishes) {
        true => DebtState::Ready,
        false => DebtState::Waits,
    };
    Debt { owed, state }
}

fn one(
    subject: &Subject,
    scene: &Scene,
    owed: &Owed,
    permits: &BTreeSet<String>,
    tables: &mut Tables,
    wishes: &mut Vec<Wish>,
) -> Debt {
    let moment = &scene.around.moment;
    let place = &owed.machine.place;
    if let Some(paid) = tables.paid(&owed.machine) {
        return Debt { owed: owed.clone(), state: DebtState::Struck(paid) };
    }
    let spent = owed.attempt.is_some_and(|(id, _)| tables.restore_spent(&owed.machine, id));
    let due = Owed { retry: tables.restore_retry(&owed.machine).or(owed.retry), ..owed.clone() };
    let busy = tables.flights.is_busy(&Key::Machine(place.clone()));
    let send_before = memory::whole_seconds(moment.now.checked_add(SEND_WINDOW).unwrap_or(moment.now));
    let next = owed::next(&due, moment.now, busy, spent, moment.id(place.as_str()), send_before);
    let waits = Debt { owed: due.clone(), state: DebtState::Waits };
    let owed = match next {
        owed::Next::Wait => return waits,
        owed::Next::Repeat => due,
        owed::Next::Begin(begun) => begun,
    };
    if !permitted(subject, scene, &owed, permits, wishes) {
        return waits;
    }
    match tables.flights.begin([Key::Machine(place.clone())]) {
        Some(ticket) => Debt { owed, state: DebtState::Paying(ticket) },
        None => waits,
    }
}

/// Whether it may be paid now; a permit that is missing is wished for (F2).
fn permitted(
    subject: &Subject,
    scene: &Scene,
    owed: &Owed,
    permits: &BTreeSet<String>,
    wishes: &mut Vec<Wish>,
) -> bool {
    let place = &owed.machine.place;
    let Some(scope) = subject.scope_at(place) else { return false };
    if !subject.pays || scene.around.unconnected.contains_key(&scope.provider) {
        return false;
    }
    let permitted = permits.contains(place.as_str());
    if !permitted {
        wishes.push(Wish { subject: place.to_string(), scope, change: Change::Restore, urgency: Urgency::Placement });
    }
    permitted
}

/// Whether the object must stay for this debt although it is let go with Retain: it can be paid, and trying is not in vain
/// (where the cloud denies us, Retain is the way out).
pub(super) fn must_pay(subject: &Subject, around: &Surroundings, owed: &Owed, tables: &Tables) -> bool {
    let scope = subject.scope_at(&owed.machine.place);
    let heard = scope.is_some_and(|scope| !around.cannot_connect(scope.provider));
    subject.pays && heard && !tables.is_restore_in_vain(&owed.machine)
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

/// What a machine is owed after edge 9, unless it is gone, or another allocation has the address there: then its entry
/// remembers what the machine had before, or has adopted it, and nobody knows (L4). Nothing can be given back meanwhile.
fn new_debt(turn: &Turn, facts: &Facts) -> Option<Owed> {
    let left = turn.steps.iter().any(|step| step.from == State::Releasing && step.to == Some(State::Detached));
    let gone = facts.holder.as_ref().is_some_and(|holder| matches!(holder.life, Life::Gone | Life::Replaced));
    let machine = turn.before.machine.clone()?;
    if !left || gone || facts.is_theirs_on(&machine) {
        return None;
    }
    Some(Owed {
        machine,
        node: turn.before.node.clone()?,
        own: turn.before.restore.clone()?,
        attempt: None,
        retry: None,
    })
}
