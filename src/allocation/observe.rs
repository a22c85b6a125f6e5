//! Cluster + cloud → facts. Pure: what a pass does not know yet it notes as a question, which is asked beside it.

pub mod answers;
mod candidates;
pub mod cloud_view;
mod failover;
mod life;
pub mod nodes;
pub mod pods;
pub mod requested;
mod subject;
mod targets;
mod verdict;
mod whereabouts;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use kube::ResourceExt;

pub use self::subject::{Subject, provider, scope};
use self::{
    answers::{Answer, Answers, Asking, Question, Questions},
    nodes::{Roster, SlimNode},
    requested::requested_move,
};
use super::{
    claims::Claims,
    decide::{
        facts::{
            Adoptable, Claim, Drain, Entry, Facts, Fresh, Mode, Operation, OperationKind, Read, Target, User, Users,
            Whereabouts,
        },
        leaving,
        state::{Reason, State},
        users::{self, Pod, Workload},
    },
    journey, memory,
    moment::Moment,
    tables::{Key, NOBODY, SEND_WINDOW, Tables, left_to_send},
};
use crate::{
    api,
    cloud::{CloudError, Interface, Provider, ProviderId, Scope, Seat, Survey, limits::Urgency},
};

/// A contradiction between survey and entry is looked into at once, but not more often.
const CONFIRM: Duration = Duration::from_secs(5);
/// A machine about to be changed was read no longer ago; the effect reads it once more itself (F7).
const FRESH_SEAT: Duration = Duration::from_secs(30);

/// The nodes around an allocation, as one pass sees them.
pub struct Surroundings {
    pub nodes: Arc<Roster>,
    pub survey: Option<Arc<Survey>>,
    pub survey_error: Option<CloudError>,
    /// Of the clouds that are used here those that are not connected. Where an attempt has failed, the sentence for status.
    pub unconnected: BTreeMap<Provider, Option<String>>,
    pub disruption_taints: Vec<String>,
    pub moment: Moment,
}

impl Surroundings {
    /// An attempt to connect to it has failed, and none has succeeded since.
    pub fn cannot_connect(&self, provider: Provider) -> bool {
        matches!(self.unconnected.get(&provider), Some(Some(_)))
    }

    pub fn node(&self, name: &str) -> Option<&Arc<SlimNode>> {
        self.nodes.named(name)
    }

    fn node_at(&self, place: &ProviderId) -> Option<&Arc<SlimNode>> {
        self.nodes.on(place)
    }
}

/// One pass's eyes: everything that is needed to make facts, with the tables locked by the caller.
pub struct Eyes<'a> {
    pub subject: &'a Subject,
    pub around: &'a Surroundings,
    pub answers: &'a Answers,
    pub claims: &'a Claims,
    pub workload: &'a Workload,
    pub pods: &'a BTreeMap<String, Vec<Pod>>,
    pub permits: &'a BTreeSet<IpAddr>,
    /// What these eyes looked for and did not find fresh.
    pub questions: RefCell<Questions>,
}

impl Eyes<'_> {
    /// The facts of every entry, targets and turns not yet filled in.
    pub fn facts(&self, entries: &[Entry], tables: &mut Tables) -> Vec<Facts> {
        let frozen = self.frozen(entries, tables);
        entries.iter().map(|entry| self.of(entry, frozen, tables)).collect()
    }

    fn of(&self, entry: &Entry, frozen: bool, tables: &mut Tables) -> Facts {
        let spec = &self.subject.object.spec;
        let moment = &self.around.moment;
        let now = moment.now;
        if let Some(operation) = &entry.operation
            && let Ok(scope) = self.subject.scope_of(entry)
        {
            tables.intents.seen(&entry.ip, operation.id, dead_at(operation, scope.provider, moment), false);
        }
        let id = moment.id(&entry.ip.to_string());
        let place = entry.machine.as_ref().map(|machine| &machine.place);
        if let (Some(place), Some(node)) = (place, entry.node.as_ref().and_then(|name| self.around.node(name))) {
            tables.seen_life(&node.name_any(), node.metadata.uid.as_deref(), place, moment.instant);
        }
        let read = self.read(entry, tables);
        let claim = self.claims.claim(entry.ip, &self.subject.uid);
        let rival_here = match (&claim, &entry.node) {
            (Claim::Other(name), Some(node)) => self.claims.is_on(entry.ip, name, node),
            (Claim::Other(_), None) | (Claim::Ours, _) => false,
        };
        let spent = entry
            .operation
            .as_ref()
            .is_some_and(|operation| tables.is_spent(entry.ip, operation.id) || now >= operation.send_before);
        Facts {
            now,
            wanted: self.subject.selection.of_address(entry.ip, &self.subject.object),
            claim,
            rival_here,
            deleting: self.subject.deleting,
            mode: self.subject.mode,
            finalizer: crate::lifecycle::finalizer::is_set(&*self.subject.object, api::FINALIZER),
            intent_dead: tables.intents.dead(&entry.ip, moment.instant),
            operation_spent: spent,
            in_flight: tables.busy(entry.ip, place),
            holder: self.holder(entry, tables),
            adoptable: self.adoptable(entry, &read, tables),
            read,
            users: self.users(entry, tables),
            target: Target::None(String::new()),
            turn: false,
            permit: self.permits.contains(&entry.ip),
            frozen,
            not_ready_grace: SignedDuration::from_secs(spec.failover.not_ready_seconds.into()),
            left: tables.left(entry).map(|since| moment.then(since)),
            drain: Drain {
                evict: spec.drain.policy == api::DrainPolicy::Evict,
                timeout: spec.drain.timeout_seconds.map(|seconds| SignedDuration::from_secs(seconds.into())),
            },
            move_requested: self.move_requested(entry),
            stay_requested: self.stay_requested(entry),
            failure: tables.failure(entry.ip).cloned(),
            fresh: Fresh {
                id,
                send_before: memory::whole_seconds(now.checked_add(SEND_WINDOW).unwrap_or(now)),
                journey: journey::trace(entry, &self.subject.uid),
            },
        }
    }

    /// Keeps the survey of `scope` no older than the interval asks.
    pub fn keep_surveyed(&self, scope: &Scope) {
        if !self.answers.is_surveyed(scope, self.subject.survey_age(), &self.around.moment) {
            self.ask(Question::Survey(scope.clone()), scope, Urgency::Survey);
        }
    }

    /// The answer about one machine; asked anew when it is older than `age`, and of no use when it is older than twice
    /// that: a machine read of yesterday proves nothing today.
    fn inspect(&self, scope: &Scope, machine: &ProviderId, age: Duration, urgency: Urgency) -> Option<&Answer<Seat>> {
        let known = self.answers.inspected(machine);
        if known.is_none_or(|answer| self.since(answer.began) >= age) {
            self.ask(Question::Inspect(machine.clone()), scope, urgency);
        }
        known.filter(|answer| self.since(answer.began) < age * 2)
    }

    fn ask(&self, question: Question, scope: &Scope, urgency: Urgency) {
        let mut questions = self.questions.borrow_mut();
        let asking = questions.entry(question).or_insert_with(|| Asking { scope: scope.clone(), urgency });
        asking.urgency = asking.urgency.min(urgency);
    }

    fn since(&self, began: Instant) -> Duration {
        self.around.moment.since(began)
    }

    /// Asked only of an address that looks for a place: where one is held, the survey tells all, and its machine is read
    /// by nobody.
    fn adoptable(&self, entry: &Entry, read: &Read, tables: &Tables) -> Adoptable {
        if !matches!(entry.state, State::Unassigned | State::Detached) {
            return Adoptable::No(String::new());
        }
        let ip = entry.ip;
        let (Whereabouts::On(place), Ok(scope)) = (&read.place, &self.subject.scope) else {
            return Adoptable::No(String::new());
        };
        let Some(node) = self.around.node_at(place) else {
            return Adoptable::No("its machine has no Node in this cluster".to_owned());
        };
        // The same machine in the Node's words, which may say more than the address's (AWS: the zone).
        let place = &node.place().unwrap_or_else(|| place.clone());
        let name = node.name_any();
        if !node.matches(&self.subject.object.spec.node_selector) {
            return Adoptable::No(format!("node {name}, which spec.nodeSelector does not select"));
        }
        // What the machine is owed cannot be paid while this address is there, so that is no reason to leave it to nobody.
        if tables.seats.others(place, &ip).any(|(sitting, _)| *sitting != NOBODY) {
            return Adoptable::No(format!("node {name}, which has another address by now"));
        }
        let surveyed = self.around.survey.as_ref().map_or(FRESH_SEAT, |survey| self.since(survey.began));
        let counted = self
            .inspect(scope, place, FRESH_SEAT.min(surveyed.max(CONFIRM)), Urgency::Placement)
            .filter(|answer| tables.reads.counts([&Key::Machine(place.clone())], answer.began));
        let overtaken = |began: Instant| self.around.survey.as_ref().is_some_and(|survey| survey.began > began);
        match counted.map(|answer| (answer.began, &answer.result)) {
            None => Adoptable::Looking { node: name },
            Some((_, Err(error))) => Adoptable::Unreachable { node: name, why: error.to_string() },
            Some((_, Ok(seat))) if seat.interface == Interface::Reserved(ip) => {
                Adoptable::Yes { node: name, machine: seat.machine.clone() }
            }
            // Read before it came, perhaps; once it was found to be elsewhere, that stands until a newer read says otherwise.
            Some((began, Ok(_))) if overtaken(began) && entry.reason != Reason::AddressInUse => {
                Adoptable::Looking { node: name }
            }
            Some((_, Ok(_))) => Adoptable::No(format!("node {name}, but not its primary interface")),
        }
    }

    fn users(&self, entry: &Entry, tables: &Tables) -> Users {
        if *self.workload == Workload::Unknown {
            return Users::Unknown;
        }
        let Some(pods) = entry.node.as_ref().and_then(|node| self.pods.get(node)) else { return Users::Unknown };
        let complete = |mut user: User| {
            tables.tell_asked(&mut user);
            user
        };
        Users::Known(users::users(pods, self.workload).into_iter().map(complete).collect())
    }

    /// A drain for another reason becomes the move: it would begin else where the address has just arrived. In mode Hold it
    /// waits, and may still be taken back.
    fn move_requested(&self, entry: &Entry) -> bool {
        let may_begin = match entry.state {
            State::Attached => true,
            State::Draining => self.subject.mode == Mode::Enforce,
            State::Unassigned | State::Attaching | State::Releasing | State::Detached => false,
        };
        let Some((ip, node)) = requested_move(&self.subject.object).filter(|_| may_begin) else { return false };
        ip == entry.ip && node.is_none_or(|node| entry.node.as_deref() != Some(node))
    }

    /// A drain that a person asked for ends where a person asks for the node that it leaves.
    fn stay_requested(&self, entry: &Entry) -> bool {
        let here = requested_move(&self.subject.object)
            .is_some_and(|(ip, node)| ip == entry.ip && node.is_some() && node == entry.node.as_deref());
        here && leaving::is_moving(entry)
    }
}

/// When nothing of an intent can do harm any more, on this process's monotonic clock (F5).
///
/// A detach whose requests name what they take off (F7) is dead when it is born: landing late it hits nothing
/// (`docs/decisions/0002-late-detach.md`).
pub fn dead_at(operation: &Operation, provider: Provider, moment: &Moment) -> Instant {
    if operation.kind == OperationKind::Detach && provider.late_detach_hits_nothing() {
        return moment.instant;
    }
    moment.instant + left_to_send(operation.send_before, moment.now) + provider.settle_time()
}
