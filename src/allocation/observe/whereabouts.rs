//! Where an address is, as far as a read says that counts (R2).

use std::time::{Duration, Instant};

use super::{
    CONFIRM, Eyes, FRESH_SEAT,
    answers::{Answer, Question},
};
use crate::{
    allocation::{
        decide::{
            facts::{Entry, Read, Whereabouts},
            leaving,
            state::State,
        },
        tables::{Key, Tables},
    },
    cloud::{self, ErrorKind, Interface, Scope, limits::Urgency},
};

/// An address that the survey does not list is looked for by id no more often (R2).
const LOOK_AGAIN: Duration = Duration::from_secs(600);

impl Eyes<'_> {
    /// The newest read that counts for the entry. A survey that contradicts the entry, or says nothing, raises a
    /// question by id; only its answer proves absence (R2).
    pub(super) fn read(&self, entry: &Entry, tables: &Tables) -> Read {
        let unknown = |why: String| Read { place: Whereabouts::Unknown(why), live: false };
        let awaited = Read { place: Whereabouts::Awaited, live: false };
        let scope = match self.subject.scope_of(entry) {
            Ok(scope) => scope,
            Err(why) => return Read { place: Whereabouts::Unasked(why), live: false },
        };
        let scope = &scope;
        match self.around.unconnected.get(&scope.provider) {
            Some(Some(why)) => return unknown(why.clone()),
            Some(None) => return awaited,
            None => {}
        }
        let keys: Vec<Key> = std::iter::once(Key::Address(entry.ip))
            .chain(entry.machine.as_ref().map(|machine| Key::Machine(machine.place.clone())))
            .collect();
        let counts = |began: Instant| tables.reads.counts(&keys, began);
        self.keep_surveyed(scope);
        let (newest, survey_error) = self.answers.survey(scope);
        let survey = newest
            .as_ref()
            .filter(|survey| counts(survey.began) && self.since(survey.began) < self.subject.blind_after());
        let listed = survey.and_then(|survey| Some((survey.began, survey.addresses.get(&entry.ip)?)));
        // An answer by id that a later survey has overtaken stays overtaken, even when that survey is too old to be used;
        // but one that began before the end of a change says nothing.
        let overtaken = |began: Instant| {
            newest.as_ref().is_some_and(|survey| {
                survey.began > began && counts(survey.began) && survey.addresses.contains_key(&entry.ip)
            })
        };
        let found =
            self.answers.found(scope, entry.ip).filter(|answer| counts(answer.began) && !overtaken(answer.began));

        let expected = entry.machine.as_ref().filter(|_| entry.state != State::Unassigned);
        let live = found.filter(|answer| self.since(answer.began) < LOOK_AGAIN);
        if let Some(Answer { result: Ok(place), .. }) = live {
            let read = Read { place: whereabouts(place), live: true };
            // What is known by id to be missing is looked for again before it is believed for ever.
            if expected.is_some_and(|machine| !read.is_on(machine)) {
                self.find(scope, entry, self.subject.interval);
            }
            if is_of_the_lost(entry, expected, &read) {
                self.find(scope, entry, CONFIRM);
            }
            if let (cloud::Whereabouts::NotFound, Some(machine)) = (place, expected)
                && let Some(why) = self.contradicts(machine, entry, scope, tables)
            {
                return unknown(why);
            }
            return read;
        }
        if let Some((_, reservation)) = listed {
            let read = Read { place: of_holder(&reservation.holder), live: false };
            if is_of_the_lost(entry, expected, &read) || expected.is_some_and(|machine| !read.is_on(machine)) {
                self.find(scope, entry, CONFIRM);
            }
            return read;
        }
        if survey.is_some() || tables.failure(entry.ip).is_some() || entry.state.is_open_intent() {
            self.find(scope, entry, if survey.is_some() && expected.is_none() { LOOK_AGAIN } else { CONFIRM });
        }
        if let Some(Answer { result: Err(error), .. }) = found {
            return unknown(error.to_string());
        }
        match &survey_error {
            Some(error) => unknown(format!("{error}; {}", error.kind.remedy())),
            None if newest.is_some_and(|survey| self.since(survey.began) >= self.subject.blind_after()) => {
                unknown("the last read of the cloud is too old, and no other has ended since".to_owned())
            }
            None => awaited,
        }
    }

    /// Has an entry's address looked for by id, unless the answer is younger than `age`.
    fn find(&self, scope: &Scope, entry: &Entry, age: Duration) {
        if self.answers.found(scope, entry.ip).is_none_or(|answer| self.since(answer.began) >= age) {
            self.ask(Question::Find(scope.clone(), entry.ip), scope, hurry(entry));
        }
    }

    /// Why an address that the cloud does not list is not believed to be gone from its machine: credentials of another
    /// account, or with fewer rights, get short lists too (P3). The machine itself has to show that it is off, or to be gone
    /// with its Node.
    fn contradicts(&self, machine: &cloud::MachineId, entry: &Entry, scope: &Scope, tables: &Tables) -> Option<String> {
        let Some(answer) = self.inspect(scope, &machine.place, FRESH_SEAT, hurry(entry)) else {
            return Some("is not listed; its machine is being looked at".to_owned());
        };
        if !tables.reads.counts([&Key::Machine(machine.place.clone())], answer.began) {
            return Some("is not listed; its machine cannot be looked at yet".to_owned());
        }
        let ready = self.around.node_at(&machine.place).is_some_and(|node| node.not_ready_since().is_none());
        match &answer.result {
            Ok(seat) if seat.machine == *machine && seat.interface == Interface::Reserved(entry.ip) => {
                Some("is not listed, but its machine has it".to_owned())
            }
            Ok(_) => None,
            Err(error) if error.kind == ErrorKind::NotFound && !ready => None,
            Err(error) => Some(format!("is not listed, and its machine cannot be read: {error}")),
        }
    }
}

/// What a lost machine was read to hold before it was lost it may hold no more, and the next survey is far.
fn is_of_the_lost(entry: &Entry, expected: Option<&cloud::MachineId>, read: &Read) -> bool {
    expected.is_none() && read.place != Whereabouts::Free && leaving::has_left_by_fault(entry)
}

/// For what an entry is read by id.
fn hurry(entry: &Entry) -> Urgency {
    match entry.state {
        _ if leaving::has_left_by_fault(entry) => Urgency::Failover,
        // It is not where it should be.
        State::Attached => Urgency::Failover,
        State::Unassigned => Urgency::Placement,
        State::Attaching | State::Draining | State::Releasing | State::Detached => Urgency::Drain,
    }
}

fn whereabouts(place: &cloud::Whereabouts) -> Whereabouts {
    match place {
        cloud::Whereabouts::Here(reservation) => of_holder(&reservation.holder),
        cloud::Whereabouts::OtherRegion(region) => Whereabouts::OtherRegion(region.clone()),
        cloud::Whereabouts::NotFound => Whereabouts::NotFound,
    }
}

fn of_holder(holder: &cloud::Holder) -> Whereabouts {
    match holder {
        cloud::Holder::Free => Whereabouts::Free,
        cloud::Holder::Machine(machine) => Whereabouts::On(machine.clone()),
        cloud::Holder::Foreign(what) => Whereabouts::Foreign(what.clone()),
    }
}
