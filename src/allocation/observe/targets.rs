//! Where each address goes that needs a node: chosen for all of an allocation together, so that no two go to one (S1).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Eyes, FRESH_SEAT,
    requested::{self, requested_move},
};
use crate::{
    allocation::{
        decide::{
            facts::{Entry, Facts, Mode, Target, Wanted, Whereabouts},
            leaving,
            placement::{self, Candidate, Need, Plan, Verdict},
            state::State,
        },
        tables::{Key, Tables, refuses_node},
    },
    cloud::{Interface, Power, Seat, limits::Urgency},
};

impl Eyes<'_> {
    /// Chooses nodes for all addresses that need one, and has the machines read of those that may begin (F2). With the
    /// addresses that go to a machine which cannot be read for now.
    pub fn plan(&self, entries: &[Entry], facts: &mut [Facts], tables: &mut Tables) -> (Plan, BTreeSet<IpAddr>) {
        let mut candidates = self.candidates(tables);
        for candidate in candidates.iter_mut().filter(|candidate| candidate.verdict == Verdict::Eligible) {
            let (name, uid) = (&candidate.name, &self.subject.uid);
            candidate.last_choice |= self.claims.others_plan(name, uid) || tables.sought.is_anothers(name, uid);
        }
        let mut by_zone: BTreeMap<String, usize> = BTreeMap::new();
        for node in entries.iter().filter_map(|entry| self.around.node(entry.node.as_deref()?)) {
            *by_zone.entry(node.zone().to_owned()).or_default() += 1;
        }
        let reach = |ip| {
            let listed = self.around.survey.as_ref().and_then(|survey| survey.addresses.get(&ip));
            listed.map(|reservation| reservation.reach.clone()).unwrap_or_default()
        };
        let need = |entry: &Entry, named: Option<&str>, tables: &mut Tables| Need {
            ip: entry.ip,
            planned: named.map(str::to_owned).or_else(|| self.still_planned(entry)),
            refused: tables.refused(entry.ip, self.around.moment.now),
            reach: reach(entry.ip),
        };
        let mut refused_move = None;
        let mut needs: Vec<(u8, Need)> = Vec::new();
        for (entry, facts) in entries.iter().zip(facts.iter_mut()) {
            let mut named = None;
            if facts.move_requested {
                named = requested_move(&self.subject.object).and_then(|(_, node)| node);
                // It goes to the node that a person names, or stays.
                refused_move =
                    named.and_then(|node| self.unfit(node, entries, &candidates, &need(entry, named, tables)));
                facts.move_requested = refused_move.is_none();
                // In mode Hold it keeps no node from an address that has lost its own.
                named = named.filter(|_| facts.move_requested && facts.mode != Mode::Hold);
            }
            if let Some(urgency) = urgency(entry, facts) {
                needs.push((urgency, need(entry, named, tables)));
            }
        }
        let mut plan = placement::place(&needs, &candidates, &by_zone);
        plan.refused_move = refused_move;
        let (mut unreadable, mut sought) = (BTreeSet::new(), Vec::new());
        for (entry, facts) in entries.iter().zip(facts.iter_mut()) {
            let goes_next = goes_next(entry, facts);
            facts.target = match plan.targets.get(&entry.ip) {
                None => Target::None(plan.verdicts(entry.ip)),
                Some(node) if goes_next => self.seat(entry, node, tables),
                // A plan only: the machine is read when the address is about to go there.
                Some(node) => Target::Looking { node: node.clone() },
            };
            if let Some(node) = facts.target.node().filter(|_| goes_next) {
                sought.push((node.to_owned(), entry.ip));
            }
            if let Target::Looking { node } = &facts.target
                && goes_next
            {
                if self.is_unreadable(node) {
                    // Another node is tried with the next pass (P11).
                    tables.refuse(entry.ip, node, self.around.moment.now);
                }
                if !self.may_be_read(node, tables) {
                    unreadable.insert(entry.ip);
                }
            }
            // A node's refusal delays only what goes to that node: another one is tried at once (P11).
            let refused = tables.refused(entry.ip, self.around.moment.now);
            let elsewhere = facts.target.node().is_some_and(|node| !refused.contains(node));
            if matches!(entry.state, State::Unassigned | State::Detached)
                && elsewhere
                && facts.failure.as_ref().is_some_and(|failure| refuses_node(failure.kind))
            {
                facts.failure = None;
            }
        }
        if self.subject.mode == Mode::Observe {
            sought.clear();
        }
        tables.sought.set(&self.subject.uid, sought);
        (plan, unreadable)
    }

    /// Where it was planned to go, unless another allocation goes there. What a person asked for stays.
    fn still_planned(&self, entry: &Entry) -> Option<String> {
        let planned = entry.planned_node.as_ref()?;
        let stays = leaving::is_moving(entry) || !self.claims.yields(planned, &self.subject.uid);
        stays.then(|| planned.clone())
    }

    /// Why the node that a person names cannot have the address now.
    fn unfit(&self, node: &str, entries: &[Entry], candidates: &[Candidate], need: &Need) -> Option<String> {
        let first = entries.iter().find(|other| other.ip != need.ip && other.planned_node.as_deref() == Some(node));
        let planned = first.map(|other| {
            format!("node {node} is planned for {}; name another node, or none to have one chosen", other.ip)
        });
        planned.or_else(|| requested::unfit(node, need, candidates, self.around.node(node).is_some()))
    }

    fn seat(&self, entry: &Entry, node: &str, tables: &Tables) -> Target {
        let looking = || Target::Looking { node: node.to_owned() };
        let (Some(object), Ok(scope)) = (self.around.node(node), &self.subject.scope) else { return looking() };
        let Some(place) = object.place() else { return looking() };
        // Permit first: what is read here is soon too old, and where many wait for a permit none would ever be young enough.
        // Whoever holds one keeps it while it looks, so this goes before all that still wait for one.
        let answer = match self.permits.contains(&entry.ip) {
            true => self.inspect(scope, &place, FRESH_SEAT, Urgency::Look),
            false => self.answers.inspected(&place).filter(|answer| self.since(answer.began) < FRESH_SEAT),
        };
        let counted = answer.filter(|answer| tables.reads.counts([&Key::Machine(place.clone())], answer.began));
        match counted.map(|answer| &answer.result) {
            Some(Ok(Seat { machine, power: Power::Running, interface }))
                if object.instance().is_none_or(|instance| instance == machine.instance) =>
            {
                let own = match interface {
                    Interface::Empty => None,
                    Interface::Ephemeral(own) => Some(own.clone()),
                    Interface::Reserved(_) => return looking(),
                };
                Target::Seat { node: node.to_owned(), machine: machine.clone(), own }
            }
            Some(_) | None => looking(),
        }
    }

    /// Its machine was asked about and could not be told, or is another one than the Node says.
    fn is_unreadable(&self, node: &str) -> bool {
        let Some(object) = self.around.node(node) else { return false };
        let Some(answer) = object.place().and_then(|place| self.answers.inspected(&place)) else { return false };
        match &answer.result {
            Err(_) => true,
            Ok(seat) => object.instance().is_some_and(|instance| instance != seat.machine.instance),
        }
    }

    /// Whether it is of use to read its machine now: not a moment after that failed, and not while a read may show what was
    /// before the last change.
    fn may_be_read(&self, node: &str, tables: &Tables) -> bool {
        let Some(place) = self.around.node(node).and_then(|object| object.place()) else { return false };
        let lately = self.answers.inspected(&place).is_some_and(|answer| self.since(answer.began) < FRESH_SEAT);
        let failed = lately && self.is_unreadable(node);
        !failed && tables.reads.counts([&Key::Machine(place)], self.around.moment.instant)
    }
}

/// Whether it is on no node, or nothing but that keeps it on its own, so that the next thing is where it goes.
fn goes_next(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Unassigned | State::Detached => true,
        // It is known to be off; that is written together with where it goes.
        State::Releasing => !facts.in_flight && entry.machine.as_ref().is_some_and(|at| facts.read.is_off(at)),
        State::Attached | State::Draining => leaving::may_go(entry, facts),
        State::Attaching => false,
    }
}

/// Mode Hold keeps it where it is.
fn is_held(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Unassigned => !leaving::is_half_moved(entry),
        State::Attached | State::Draining => {
            leaving::cause(entry, facts).is_none_or(|cause| !leaving::permitted(cause, entry, facts))
        }
        State::Attaching | State::Releasing | State::Detached => false,
    }
}

/// Which addresses look for a node, the most urgent first.
fn urgency(entry: &Entry, facts: &Facts) -> Option<u8> {
    if facts.wanted != Wanted::Yes || facts.deleting {
        return None;
    }
    // It must not have the node of one that goes on.
    if facts.mode == Mode::Hold && is_held(entry, facts) {
        return None;
    }
    match entry.state {
        State::Detached => Some(0),
        State::Unassigned if leaving::is_half_moved(entry) && facts.read.place == Whereabouts::Free => Some(0),
        // It is letting go: one that may still stay where it is comes after it.
        State::Releasing => Some(1),
        State::Draining => Some(2),
        State::Attached => leaving::cause(entry, facts).map(|_| 2),
        State::Unassigned => match facts.read.place {
            Whereabouts::Free | Whereabouts::Awaited | Whereabouts::Unknown(_) => Some(3),
            Whereabouts::On(_)
            | Whereabouts::Unasked(_)
            | Whereabouts::Foreign(_)
            | Whereabouts::NotFound
            | Whereabouts::OtherRegion(_) => None,
        },
        State::Attaching => None,
    }
}
