//! Deciding: the machine of every address on one set of facts, with pace, permits, seats and tickets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

use super::super::{
    Controller, PodsByNode,
    act::Deed,
    claims::Claims,
    decide::{
        Address, Effect,
        facts::{Claim, Entry, Facts, Labels, NodeObject, Wanted},
        leaving::{self, Cause},
        placement::Plan,
        state::{Reason, State},
        users::Workload,
    },
    observe::{Eyes, Subject, Surroundings},
    subject_key,
    tables::{Key, Tables},
};
use super::{
    debts::Debt,
    entries::{Entries, seats_of},
};
use crate::{
    api::{self, AppliedTaint},
    cloud::limits::Urgency,
    lifecycle::{
        flight,
        pass::{self, End, Step},
    },
};

/// What a pass does with one address, beside its entry.
pub(super) struct Turn {
    pub(super) before: Entry,
    pub(super) after: Entry,
    pub(super) steps: Vec<Step<State, Reason>>,
    pub(super) forgotten: bool,
    pub(super) deed: Option<(Deed, flight::Ticket<Key>, Option<OwnedSemaphorePermit>)>,
    /// The entry's intent was written new by this pass.
    pub(super) new_intent: bool,
    /// The address is this allocation's: what is known of it may be forgotten with the entry.
    pub(super) claimed: bool,
}

/// What one pass sees around its addresses.
pub(super) struct Scene {
    pub(super) around: Surroundings,
    pub(super) claims: Claims,
    pub(super) workload: Workload,
    /// The pods of the nodes that an address is leaving.
    pub(super) pods: PodsByNode,
    /// What `status.nodeTaint` says next.
    pub(super) node_taint: Option<AppliedTaint>,
}

/// What one pass makes of its addresses, not yet durable.
pub(super) struct Decided {
    pub(super) turns: Vec<Turn>,
    /// Of each turn, in the same order.
    pub(super) facts: Vec<Facts>,
    pub(super) plan: Plan,
    pub(super) debts: Vec<Debt>,
}

impl Controller {
    /// Watches the pods of nodes that an address is leaving, and of no others.
    pub(super) async fn pods_of_leaving_nodes(
        &self,
        subject: &Subject,
        scene: &Scene,
        entries: &Entries,
    ) -> PodsByNode {
        let permits = BTreeSet::new();
        let leaving: BTreeSet<String> = {
            let mut tables = self.tables();
            let eyes = self.eyes(subject, scene, &permits);
            let facts = eyes.facts(&entries.known, &mut tables);
            entries
                .known
                .iter()
                .zip(&facts)
                .filter(|(entry, facts)| match entry.state {
                    State::Draining | State::Releasing => true,
                    State::Attached => leaving::cause(entry, facts).is_some(),
                    State::Unassigned | State::Attaching | State::Detached => false,
                })
                .filter_map(|(entry, _)| entry.node.clone())
                .collect()
        };
        self.pods.want(&subject.uid, leaving.clone());
        let mut pods = BTreeMap::new();
        for node in leaving {
            if let Some(known) = self.pods.of(&node).await {
                pods.insert(node, known);
            }
        }
        pods
    }

    /// Runs the machine of every address on one set of facts; takes seats and tickets for what is to be done.
    pub(super) fn decide(self: &Arc<Self>, subject: &Subject, scene: &Scene, entries: &Entries) -> Decided {
        let permits = self.permitted(&subject.name);
        let held: BTreeSet<IpAddr> = permits.iter().filter_map(|subject| subject.parse().ok()).collect();
        let eyes = self.eyes(subject, scene, &held);
        let mut tables = self.tables();
        tables.seats.set(&subject.uid, seats_of(&entries.known, &entries.owed, &entries.foreign));
        let mut facts = eyes.facts(&entries.known, &mut tables);
        let plan = eyes.plan(&entries.known, &mut facts, &mut tables);

        let wanted = facts.iter().filter(|facts| facts.wanted == Wanted::Yes).count();
        let most = subject.object.spec.strategy.max_unavailable.resolve(wanted).max(1);
        let mut motion = entries.known.iter().zip(&facts).filter(|(entry, facts)| in_motion(entry, facts)).count();
        let mut used = BTreeSet::new();
        let mut turns = Vec::with_capacity(entries.known.len());
        for (entry, facts) in entries.known.iter().zip(facts.iter_mut()) {
            let moved_before = in_motion(entry, facts);
            facts.turn = moved_before || motion < most;
            let mut turn = self.turn(subject, scene, entry, facts, &mut tables);
            if turn.deed.as_ref().is_some_and(|(deed, ..)| is_of_cloud(&deed.effect)) {
                used.insert(subject_key(entry.ip));
            }
            let unlabels = turn.deed.as_ref().is_some_and(|(deed, ..)| matches!(deed.effect, Effect::Unlabel { .. }));
            if !moved_before && (in_motion(&turn.after, facts) || unlabels) {
                motion += 1;
            }
            if let Some((deed, _, permit)) = &mut turn.deed
                && is_of_cloud(&deed.effect)
            {
                *permit = self.use_permit(&subject.name, &subject_key(entry.ip));
            }
            turns.push(turn);
        }
        let debts = self.debts(subject, entries, &permits, &mut tables, &mut used);
        drop(tables);
        self.return_permits(&subject.name, &used);
        Decided { turns, facts, plan, debts }
    }

    fn eyes<'a>(&'a self, subject: &'a Subject, scene: &'a Scene, permits: &'a BTreeSet<IpAddr>) -> Eyes<'a> {
        let Scene { around, claims, workload, pods, node_taint: _ } = scene;
        Eyes { subject, around, view: &self.view, claims, workload, pods, permits }
    }

    /// One address.
    fn turn(
        self: &Arc<Self>,
        subject: &Subject,
        scene: &Scene,
        entry: &Entry,
        facts: &mut Facts,
        tables: &mut Tables,
    ) -> Turn {
        let has_permit = facts.permit;
        facts.permit = true;
        let mut made = pass::run::<Address>(entry.clone(), facts);
        facts.permit = has_permit;
        if let End::Perform(effect) = &made.end
            && is_of_cloud(effect)
            && !has_permit
        {
            if let Ok(scope) = subject.scope_of(&made.entry) {
                self.ask_permit(&subject.name, &subject_key(entry.ip), &scope, urgency(entry, facts));
            }
            made = pass::run::<Address>(entry.clone(), facts);
        }
        if let End::Perform(Effect::Attach { machine, .. }) = &made.end
            && entry.state != State::Attaching
            && !tables.seats.take(&subject.uid, machine.place.clone(), entry.ip)
        {
            // A rival was faster; the next pass plans anew.
            made = pass::Pass { entry: entry.clone(), steps: Vec::new(), end: End::Wait(Duration::from_secs(1)) };
        }
        let mut turn = Turn {
            before: entry.clone(),
            forgotten: matches!(made.end, End::Forgotten),
            new_intent: made.entry.operation.as_ref().map(|o| o.id) != entry.operation.as_ref().map(|o| o.id)
                && made.entry.operation.is_some(),
            after: made.entry,
            steps: made.steps,
            deed: None,
            claimed: facts.claim == Claim::Ours,
        };
        match made.end {
            End::Perform(effect) => {
                let place = turn.after.machine.as_ref().map(|machine| machine.place.clone());
                if let (Some(place), Ok(scope)) = (place, subject.scope_of(&turn.after))
                    && let Some(cloud) = self.view.cloud(scope.provider)
                    && let Some(ticket) = tables.begin(entry.ip, place)
                {
                    let cause = Cause::of(turn.after.reason);
                    let left_by = turn.after.node.as_ref().and_then(|name| {
                        let whose = self.nodes.get(name)?.label(api::ALLOCATION_LABEL)?.to_owned();
                        (whose != subject.name && !scene.claims.holds(&whose, name)).then_some(whose)
                    });
                    let node_uid = turn.after.node.as_ref().and_then(|node| self.nodes.get(node)?.metadata.uid.clone());
                    let deed = Deed {
                        effect,
                        node_uid,
                        left_by,
                        taints: scene.claims.taints().clone(),
                        ip: entry.ip,
                        allocation: subject.name.clone(),
                        scope,
                        cloud,
                        workload: scene.workload.clone(),
                        cause,
                        evict: cause.is_some_and(|cause| {
                            cause.row().always_evicts || (cause.row().may_evict && facts.drain.evict)
                        }),
                    };
                    turn.deed = Some((deed, ticket, None));
                } else if turn.new_intent {
                    // No intent without its deed at hand (F2).
                    turn = Turn { after: entry.clone(), steps: Vec::new(), new_intent: false, ..turn };
                }
            }
            End::Refused(why) => {
                tracing::error!(crd = subject.name, ip = %entry.ip, error = why, "the machine asked for what it may not")
            }
            End::Rest | End::Wait(_) | End::Forgotten => {}
        }
        turn
    }
}

/// Unlabelled and not yet Attached; at rest without a node does not count.
fn in_motion(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Attaching | State::Releasing | State::Detached => true,
        State::Draining => facts.holder.as_ref().is_some_and(|holder| match &holder.object {
            NodeObject::Present(view) => view.labels == Labels::Off,
            NodeObject::Absent { .. } => true,
        }),
        State::Unassigned | State::Attached => false,
    }
}

pub(super) fn is_of_cloud(effect: &Effect) -> bool {
    matches!(effect, Effect::Attach { .. } | Effect::Detach { .. })
}

fn urgency(entry: &Entry, facts: &Facts) -> Urgency {
    let fault = leaving::cause(entry, facts).is_some_and(|cause| !cause.row().by_choice)
        || entry.last_move.as_ref().is_some_and(|journey| journey.to.is_none() && Cause::is_fault(&journey.reason));
    match entry.state {
        _ if fault => Urgency::Failover,
        State::Unassigned => Urgency::Placement,
        State::Attaching | State::Attached | State::Draining | State::Releasing | State::Detached => Urgency::Drain,
    }
}
