//! The machine of every address on one set of facts, with pace, permits, seats and tickets.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    super::{
        act::Deed,
        decide::{
            Address, Effect,
            facts::{Claim, Entry, Facts, Labels, Life, Mode, NodeObject, Target, Users, Wanted, Whereabouts},
            leaving::{self, Cause},
            state::{Reason, State},
        },
        observe::Subject,
        tables::{Key, Tables},
    },
    Entries, Scene, Wish, wanted,
};
use crate::{
    api,
    cloud::{Change, limits::Urgency},
    lifecycle::{
        flight,
        pass::{self, End, Step},
    },
};

/// What a pass does with one address, beside its entry.
pub struct Turn {
    pub before: Entry,
    pub after: Entry,
    pub steps: Vec<Step<State, Reason>>,
    pub forgotten: bool,
    /// What is to be done once the entry is written, and the keys that it holds.
    pub deed: Option<(Deed, flight::Ticket<Key>)>,
    /// The entry's intent was written new by this pass.
    pub new_intent: bool,
    /// The address is this allocation's: what is known of it may be forgotten with the entry.
    pub claimed: bool,
    /// The machine asked for what it may not: a bug, told and not done.
    pub refused: Option<String>,
    /// Nothing keeps it but what is being asked: who uses it on its node, a permit, or the machine where it goes; where it has made
    /// no step, whether the machine of its node in trouble still runs.
    pub is_being_asked: bool,
    /// It has a permit (F2) and will act on it, now or as soon as it has read what it needs.
    pub keeps_permit: bool,
}

impl Turn {
    /// The address has made one step, and what is about to be known takes it to the next: it has left one node, and looks at
    /// where it goes; or it has to leave, and nothing keeps it but what is being asked; or its node is in trouble, and whether
    /// its machine is lost, which says more, is being asked. What a person asked for stands nowhere else, so that is written
    /// first.
    pub fn is_between(&self) -> bool {
        let at_once = self.deed.is_some() || leaving::is_moving(&self.after);
        let asked = self.is_being_asked && !at_once;
        match self.steps.as_slice() {
            [] => asked && self.after.reason == Reason::NodeNotReady && self.before.reason != Reason::NodeNotReady,
            [step] => match (step.from, step.to) {
                (State::Releasing, Some(State::Detached)) => true,
                (State::Attached, Some(State::Draining)) => asked,
                _ => false,
            },
            _ => false,
        }
    }

    /// Nothing but the sentence and the plan has changed.
    pub fn says_the_same(&self) -> bool {
        !self.forgotten && self.steps.is_empty() && unworded(&self.before) == unworded(&self.after)
    }
}

fn unworded(entry: &Entry) -> Entry {
    let planned_node = entry.planned_node.clone().filter(|_| leaving::is_moving(entry));
    Entry { message: String::new(), planned_node, ..entry.clone() }
}

/// The turns of all addresses, one after another: who moves now is in motion for those that follow. `unreadable`: they go to
/// a machine which cannot be read for now.
pub(super) fn all(
    subject: &Subject,
    scene: &Scene,
    entries: &Entries,
    facts: &mut [Facts],
    unreadable: &BTreeSet<IpAddr>,
    tables: &mut Tables,
    wishes: &mut Vec<Wish>,
) -> Vec<Turn> {
    let most = subject.object.spec.strategy.max_unavailable.resolve(wanted(facts)).max(1);
    let mut motion = entries.known.iter().zip(facts.iter()).filter(|(entry, facts)| in_motion(entry, facts)).count();
    let mut turns = Vec::with_capacity(entries.known.len());
    for (entry, facts) in entries.known.iter().zip(facts) {
        let moved_before = in_motion(entry, facts);
        facts.turn = moved_before || motion < most;
        let turn = one(subject, scene, entry, facts, unreadable.contains(&entry.ip), tables, wishes);
        let unlabels = turn.deed.as_ref().is_some_and(|(deed, _)| matches!(deed.effect, Effect::Unlabel { .. }));
        if !moved_before && (in_motion(&turn.after, facts) || unlabels) {
            motion += 1;
        }
        turns.push(turn);
    }
    turns
}

fn one(
    subject: &Subject,
    scene: &Scene,
    entry: &Entry,
    facts: &mut Facts,
    unreadable: bool,
    tables: &mut Tables,
    wishes: &mut Vec<Wish>,
) -> Turn {
    let has_permit = facts.permit;
    let [with, without] = [true, false].map(|permit| {
        facts.permit = permit;
        pass::run::<Address>(entry.clone(), facts)
    });
    facts.permit = has_permit;
    let acts = matches!(&with.end, End::Perform(effect) if is_of_cloud(effect));
    // A permit would be of no use until its machine can be read: somebody else has the slot meanwhile (P11).
    let waits_for_machine = unreadable && !acts;
    let permit_is_of_use = acts || (!waits_for_machine && with.entry != without.entry);
    if permit_is_of_use
        && !has_permit
        && let Ok(scope) = subject.scope_of(&with.entry)
    {
        let (subject, change) = (entry.ip.to_string(), change_to_come(with.entry.state));
        wishes.push(Wish { subject, scope, change, urgency: urgency(entry, facts) });
    }
    let mut made = if has_permit || waits_for_machine { with } else { without };
    if let End::Perform(Effect::Attach { machine, .. }) = &made.end
        && entry.state != State::Attaching
        && !tables.seats.take(&subject.uid, machine.place.clone(), entry.ip)
    {
        // A rival was faster; the next pass plans anew.
        made = pass::Pass { entry: entry.clone(), steps: Vec::new(), end: End::Wait(Duration::from_secs(1)) };
    }
    let intent = |entry: &Entry| entry.operation.as_ref().map(|operation| operation.id);
    let mut turn = Turn {
        before: entry.clone(),
        forgotten: matches!(made.end, End::Forgotten),
        new_intent: intent(&made.entry).is_some() && intent(&made.entry) != intent(entry),
        after: made.entry,
        steps: made.steps,
        deed: None,
        claimed: facts.claim == Claim::Ours,
        refused: None,
        is_being_asked: false,
        keeps_permit: has_permit && permit_is_of_use,
    };
    match made.end {
        End::Perform(effect) => {
            turn.deed = deed(subject, scene, &turn.after, facts, effect, tables);
            if turn.deed.is_none() && turn.new_intent {
                // No intent without its deed at hand (F2).
                turn = Turn { after: entry.clone(), steps: Vec::new(), new_intent: false, ..turn };
            }
        }
        End::Refused(why) => turn.refused = Some(why),
        End::Rest | End::Wait(_) | End::Forgotten => {}
    }
    let looks = has_permit && matches!(facts.target, Target::Looking { .. }) && leaving::may_go(&turn.after, facts);
    let wished = permit_is_of_use && !has_permit;
    let lives = facts.holder_of(&turn.after).map(|holder| holder.life);
    turn.is_being_asked = match turn.steps.as_slice() {
        [] => lives == Some(Life::Unknown),
        _ => wished || looks || matches!(facts.users_of(&turn.after), Users::Unknown),
    };
    turn
}

/// The deed with all that it depends on, and the keys that it holds from now on; `None` while they are held by another or
/// the cloud that it needs is not connected.
fn deed(
    subject: &Subject,
    scene: &Scene,
    entry: &Entry,
    facts: &Facts,
    effect: Effect,
    tables: &mut Tables,
) -> Option<(Deed, flight::Ticket<Key>)> {
    let place = entry.machine.as_ref()?.place.clone();
    let scope = subject.scope_of(entry).ok()?;
    if is_of_cloud(&effect) && scene.around.unconnected.contains_key(&scope.provider) {
        return None;
    }
    let ticket = tables.begin(entry.ip, place.clone())?;
    let cause = Cause::of(entry.reason);
    let node = entry.node.as_ref().and_then(|name| scene.around.node(name));
    let left_by = entry.node.as_ref().and_then(|name| {
        let whose = node?.label(api::ALLOCATION_LABEL)?.to_owned();
        (whose != subject.name && !scene.claims.holds(&whose, name)).then_some(whose)
    });
    let deed = Deed {
        effect,
        node_uid: node.and_then(|node| node.metadata.uid.clone()),
        left_by,
        taints: scene.claims.taints().clone(),
        ip: entry.ip,
        machine: place.clone(),
        allocation: subject.name.clone(),
        scope,
        workload: scene.workload.clone(),
        cause,
        evict: entry.reason == Reason::Drifted
            || cause.is_some_and(|cause| cause.row().always_evicts || (cause.row().may_evict && facts.drain.evict)),
    };
    Some((deed, ticket))
}

/// Unlabelled and not yet Attached; at rest without a node does not count.
fn in_motion(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Attaching | State::Releasing | State::Detached => true,
        State::Draining => facts.holder.as_ref().is_some_and(|holder| match &holder.object {
            NodeObject::Present(view) => view.labels == Labels::Off,
            NodeObject::Absent { .. } => true,
        }),
        // Its labels are off while it waits to be let go of.
        State::Attached => entry.reason == Reason::Drifted,
        State::Unassigned => false,
    }
}

/// The node that an address goes to which has let go of another one for it, or is about to and has no pods there any more: of
/// two allocations that drain onto one spare node, the one that comes second stays where it is (design §3.3, *needs a target
/// first*). None where nothing comes of it for now, so that nobody is kept from it for long.
pub(super) fn promise(turn: &Turn, facts: &Facts) -> Option<(String, IpAddr)> {
    let entry = &turn.after;
    let goes = match entry.state {
        State::Releasing | State::Detached => true,
        State::Draining => in_motion(entry, facts),
        State::Unassigned => leaving::is_half_moved(entry) && facts.read.place == Whereabouts::Free,
        State::Attaching | State::Attached => false,
    };
    let may =
        facts.wanted == Wanted::Yes && !facts.deleting && facts.claim == Claim::Ours && facts.mode != Mode::Observe;
    let denied = facts.failure.as_ref().is_some_and(|failure| failure.kind.is_denial());
    let node = facts.target.node().filter(|_| goes && may && !denied && !turn.forgotten)?;
    Some((node.to_owned(), entry.ip))
}

/// Whether an effect changes the cloud: it needs a permit, and an intent in status.
pub fn is_of_cloud(effect: &Effect) -> bool {
    matches!(effect, Effect::Attach { .. } | Effect::Detach { .. })
}

/// What a permit is used for by an address that has come so far.
fn change_to_come(state: State) -> Change {
    match state {
        State::Unassigned | State::Attaching | State::Detached => Change::Attach,
        State::Attached | State::Draining | State::Releasing => Change::Detach,
    }
}

fn urgency(entry: &Entry, facts: &Facts) -> Urgency {
    let fault =
        leaving::cause(entry, facts).is_some_and(|cause| !cause.row().by_choice) || leaving::has_left_by_fault(entry);
    match entry.state {
        _ if fault => Urgency::Failover,
        State::Unassigned => Urgency::Placement,
        State::Attaching | State::Attached | State::Draining | State::Releasing | State::Detached => Urgency::Drain,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn turn(reason: Reason, is_being_asked: bool) -> Turn {
        let before = Entry {
            state: State::Attached,
            reason: Reason::Verified,
            ..Entry::new(IpAddr::from([203, 0, 113, 7]), Timestamp::UNIX_EPOCH)
        };
        Turn {
            after: Entry { reason, ..before.clone() },
            before,
            steps: Vec::new(),
            forgotten: false,
            deed: None,
            new_intent: false,
            claimed: true,
            refused: None,
            is_being_asked,
            keeps_permit: false,
        }
    }

    #[test]
    fn that_a_node_is_in_trouble_is_not_written_while_its_machine_is_asked_about() {
        assert!(turn(Reason::NodeNotReady, true).is_between());
        assert!(!turn(Reason::NodeNotReady, false).is_between(), "its machine runs");
        assert!(!turn(Reason::FailoverFrozen, true).is_between(), "who is frozen is told at once");
        let mut said = turn(Reason::NodeNotReady, true);
        said.before.reason = Reason::NodeNotReady;
        assert!(!said.is_between(), "it stands there");
    }
}
