//! One process of the operator: the pure middle of its passes is the code that ships
//! (`allocation::round`, `tables`, `ledger::versions`, `observe`), the shell around it is mirrored here call by call from
//! `src/allocation/pass.rs`, `pass/deeds.rs` and `stray.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ip_address_controller::{
    allocation::{
        act::{Deed, Done},
        claims::Claims,
        decide::{
            Effect,
            facts::{Failure, Mode},
            users::Workload,
            ways,
        },
        ledger::{Versions, number},
        memory::{self, Owed, Stored},
        moment::Moment,
        observe::{
            Subject, Surroundings,
            answers::{Answers, Question, Questions, Reply},
            nodes::{Roster, SlimNode},
            requested::{self, Answer},
        },
        record::{
            cadence::{Cadence, Timing},
            stands,
        },
        round::{self, DebtState, Entries, PodsByNode, Record, Scene, Turn},
        tables::{Key, Tables, left_to_send},
    },
    api::{self, NetIPAllocation},
    cloud::{CloudError, ErrorKind, MachineId, Scope},
    lifecycle::{fencing, finalizer, flight::Ticket},
    metrics::WriteFailure,
};
use kube::ResourceExt;

use super::{
    cloud::{Cloud, RequestId},
    cluster::{Cache, Cluster, Refused},
    errand::{Call, Ended, Errand, Intent, Recent, Rules as Calls, Terms},
    pace::{self, Got, Journal, Pace, Permit},
};

/// Rules of the core that a mutant leaves out; all true in the code that ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// F1: a change is sent only while the proof of leadership outlasts it.
    pub proof: bool,
    /// F3: a pass acts on what this process has written or read live, not on what its watch shows.
    pub own_versions: bool,
    /// F5: an intent whose requests may still take effect is not given up.
    pub dead_intents: bool,
    /// F5: the operation of an attach stays in status until no request of it can take effect.
    pub unanswered_attaches: bool,
    /// F6: a new leader reads everything anew.
    pub take_over: bool,
    /// R1: a read counts only if it began after the last change.
    pub fresh_reads: bool,
    /// S1: a machine or address that another entry sits on is taken.
    pub seats: bool,
    /// The node that an address gives up its own for is nobody else's target meanwhile.
    pub promises: bool,
    /// S2: of two that name one address, one acts.
    pub claims: bool,
    /// L4: what a machine had before is written down when the address leaves it.
    pub debts: bool,
    /// The two phases of Draining: what is being cut is not kept after all.
    pub point_of_no_return: bool,
    /// Messages and conditions are written too. They are read by people alone, and each change of one is a write.
    pub tells: bool,
    /// The rules between two calls of one effect.
    pub calls: Calls,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            proof: true,
            own_versions: true,
            dead_intents: true,
            unanswered_attaches: true,
            take_over: true,
            fresh_reads: true,
            seats: true,
            promises: true,
            claims: true,
            debts: true,
            point_of_no_return: true,
            tells: true,
            calls: Calls::default(),
        }
    }
}

/// Time-out of one change; at most a third of the Lease's duration (F1).
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a Lease that is not renewed counts.
pub const LEASE: Duration = Duration::from_secs(15);
/// How much longer a standby waits, and how much earlier a holder steps down.
pub const SKEW: Duration = Duration::from_secs(2);

/// A question under way.
#[derive(Clone, Debug)]
pub struct Asking {
    pub scope: Scope,
    pub began: Instant,
    /// As the cloud showed it when the question reached it; of a survey, the first half.
    pub seen: Reply,
    /// The answer never comes; whoever waits for it gives up after a while.
    pub lost: bool,
}

/// What an effect is of.
#[derive(Clone, Debug)]
pub enum Matter {
    Deed(Box<Deed>),
    Debt(Owed),
}

/// The number of an effect under way.
pub type FlightId = u16;

/// An effect under way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub allocation: String,
    pub matter: Matter,
    ticket: Ticket<Key>,
    /// In a world with a pace: what a change of the cloud has waited for.
    permit: Option<Permit>,
    pub errand: Errand,
    /// A request of it is under way; its answer is waited for.
    pub sent: Option<(RequestId, Instant)>,
    /// How old the watches were that it was decided on.
    pub watched: Instant,
}

impl Flight {
    /// Whether it excludes others from this.
    pub fn holds(&self, key: &Key) -> bool {
        match (&self.matter, key) {
            (Matter::Deed(deed), Key::Address(ip)) => deed.ip == *ip,
            (Matter::Deed(deed), Key::Machine(place)) => deed.machine == *place,
            (Matter::Debt(owed), Key::Machine(place)) => owed.machine.place == *place,
            (Matter::Debt(_), Key::Address(_)) => false,
        }
    }
}

/// What a process knows while it leads. It dies with the term.
#[derive(Clone, Debug)]
pub struct Term {
    pub began: Instant,
    /// Leadership is proven until then (F1).
    pub proof: Instant,
    pub versions: Versions,
    pub tables: Tables,
    pub answers: Answers,
    pub asking: BTreeMap<Question, Arc<Asking>>,
    /// By the smallest number that is free. Shared by the states that a search keeps, until one of them changes it.
    pub flights: BTreeMap<FlightId, Arc<Flight>>,
    /// Nodes as its own writes returned them: they count at once.
    pub(super) written: BTreeMap<String, Arc<SlimNode>>,
    /// Uids of Nodes that the API server did not find.
    pub(super) gone: BTreeSet<String>,
    /// Allocations that are to be looked at.
    pub woken: BTreeSet<String>,
    /// What status lacks and may wait for. That no third write begins within a second is not played: it is like a write that is
    /// refused, and when the last ones were would be a state of its own each time.
    pub cadences: BTreeMap<String, Cadence>,
    /// Without one, slots and tokens are always to be had, and everybody looks whenever time passes.
    pub pace: Option<Box<Pace>>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Process {
    pub id: u8,
    pub paused: bool,
    pub cache: Cache,
    /// When the cache was brought up to date.
    pub synced: Instant,
    pub term: Option<Term>,
    pub recent: Recent,
}

/// A write of a pass to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    /// Puts the finalizer on.
    Finalizer,
    Status,
    /// Answers a request to move: its annotation goes.
    Move,
    /// Takes the finalizer off.
    Release,
}

/// What goes wrong with a write of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteFault {
    /// Refused for sure.
    Refused,
    /// No answer, and it did not happen.
    Lost,
    /// No answer, but it did happen.
    Unanswered,
    /// The process dies before it.
    CrashBefore,
    /// It happened, and the process dies before it hears of it.
    CrashAfter,
}

/// A fault, and the one write of a pass that it befalls; `None`: each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    pub write: Option<Write>,
    pub fault: WriteFault,
}

impl Break {
    /// Whichever writes the pass makes.
    pub fn each(fault: WriteFault) -> Self {
        Self { write: None, fault }
    }

    /// That of the status alone.
    pub fn status(fault: WriteFault) -> Self {
        Self { write: Some(Write::Status), fault }
    }
}

/// What the sender of a write hears.
enum Heard<T> {
    Done(T),
    Refused(Refused),
    /// No answer in time; with what came of it, which the sender does not know.
    Silence(Option<T>),
    /// It was not sent: leadership is not proven for long enough.
    Closed,
    /// The process is dead; with what came of it.
    Died(Option<T>),
}

/// What a pass did to the outside, for those who judge.
#[derive(Debug, Default)]
pub struct Passed {
    /// Versions of the status before and after, if it was written.
    pub status: Option<(Arc<NetIPAllocation>, Arc<NetIPAllocation>)>,
    pub record: Option<Told>,
    /// The finalizer went.
    pub released: Option<Arc<NetIPAllocation>>,
    /// Machines that it leaves as they are: the cloud refused what was to be done there.
    pub refused: Vec<MachineId>,
    /// What was sent to the API server to change something, in this order.
    pub writes: Vec<Write>,
    /// The fault that was to befall it did.
    pub befell: bool,
    /// The process died on the way.
    pub died: bool,
}

/// Of a record, what is durable.
#[derive(Debug)]
pub struct Told {
    /// Each with what is wrong with it, if anything is.
    pub turns: Vec<(memory_entry::Entry, memory_entry::Entry, Option<String>)>,
    pub struck: Vec<Owed>,
}

/// The entry's type, named once.
pub mod memory_entry {
    pub use ip_address_controller::allocation::decide::facts::Entry;
}

impl Term {
    /// Take-over (F6): everything read live. Mirrors `Controller::take_over`.
    pub fn begin(cluster: &Cluster, proof: Instant, moment: &Moment) -> Self {
        let mut term = Self::blank(Versions::of(cluster.allocations().values().cloned()), proof, moment);
        for object in cluster.allocations().values() {
            round::inherit(&mut term.tables, object, moment);
        }
        term.woken = cluster.allocations().keys().cloned().collect();
        term
    }

    /// The mutant without F6: whatever the watch shows.
    pub fn from_cache(cache: &Cache, proof: Instant, moment: &Moment) -> Self {
        let mut term = Self::blank(Versions::of(cache.allocations.values().cloned()), proof, moment);
        term.woken = cache.allocations.keys().cloned().collect();
        term
    }

    fn blank(versions: Versions, proof: Instant, moment: &Moment) -> Self {
        Self {
            began: moment.instant,
            proof,
            versions,
            tables: Tables::new(moment.instant),
            answers: Answers::default(),
            asking: BTreeMap::new(),
            flights: BTreeMap::new(),
            written: BTreeMap::new(),
            gone: BTreeSet::new(),
            woken: BTreeSet::new(),
            cadences: BTreeMap::new(),
            pace: None,
        }
    }

    /// The questions whose answers are still to come.
    pub fn awaited(&self) -> impl Iterator<Item = &Question> {
        self.asking.iter().filter(|(_, asking)| !asking.lost).map(|(question, _)| question)
    }

    /// None of them ever comes.
    pub fn lose_answers(&mut self) {
        self.asking.values_mut().for_each(|asking| Arc::make_mut(asking).lost = true);
    }

    pub fn wake_all(&mut self, cluster_names: impl IntoIterator<Item = String>) {
        let known: Vec<String> = self.versions.all().map(|object| object.name_any()).collect();
        self.woken.extend(known);
        self.woken.extend(cluster_names);
    }

    /// Mirrors `LeaderGate::open_for`: the real send check.
    pub fn may_send(&self, rules: &Rules, now: Instant, send_before: Option<Instant>) -> Result<(), &'static str> {
        let proof = if rules.proof { self.proof } else { now + LEASE * 100 };
        fencing::may_send(now, TIMEOUT, proof, send_before).map_err(fencing::Refusal::as_str)
    }

    /// The watch cache, with this process's own writes on top. Mirrors `observe::nodes::Nodes`.
    fn nodes(&self, cache: &Cache) -> Roster {
        let gone = |node: &SlimNode| node.metadata.uid.as_ref().is_some_and(|uid| self.gone.contains(uid));
        let newer = |cached: &Arc<SlimNode>| match self.written.get(&cached.name_any()) {
            Some(own) if own.uid() == cached.uid() && number(&**own) > number(&**cached) => own.clone(),
            _ => cached.clone(),
        };
        Roster::of(cache.nodes.values().filter(|node| !gone(node)).map(newer).collect())
    }

    /// What is over is forgotten. Mirrors `Controller::forget_the_gone`.
    pub fn prune(&mut self, cache: &Cache, cluster: &Cluster, moment: &Moment) {
        let known: Vec<Arc<NetIPAllocation>> = self.versions.all().cloned().collect();
        for object in known {
            let name = object.name_any();
            if cache.allocations.get(&name).is_some_and(|cached| cached.uid() == object.uid()) {
                continue;
            }
            match cluster.allocation(&name) {
                None => self.forget(&name),
                Some(live) if live.uid() == object.uid() => {}
                Some(live) => {
                    self.versions.read(live.clone());
                    if let Some(uid) = object.uid() {
                        self.forget_uid(&uid);
                    }
                }
            }
        }
        let nodes: BTreeSet<String> = cache.nodes.keys().cloned().collect();
        let machines = cache.nodes.values().filter_map(|node| node.place()).collect();
        self.tables.prune(moment, &nodes, &machines);
        self.answers.prune(moment);
        let cached = |name: &str, own: &Arc<SlimNode>| {
            cache.nodes.get(name).is_some_and(|node| node.uid() == own.uid() && number(&**own) > number(&**node))
        };
        self.written.retain(|name, own| cached(name, own));
        let uids: BTreeSet<String> = cache.nodes.values().filter_map(|node| node.uid()).collect();
        self.gone.retain(|uid| uids.contains(uid));
    }

    fn forget(&mut self, name: &str) {
        for uid in self.versions.forget(name) {
            self.forget_uid(&uid);
        }
        self.woken.remove(name);
        self.cadences.remove(name);
        if let Some(pace) = &mut self.pace {
            pace.forget(name);
        }
    }

    /// Time has passed: what is over is forgotten, and who is due is woken.
    pub fn later(&mut self, cache: &Cache, cluster: &Cluster, moment: &Moment) {
        let Some(pace) = &mut self.pace else {
            self.prune(cache, cluster, moment);
            self.wake_all(cache.allocations.keys().cloned());
            return;
        };
        let (due, sweeps) = (pace.due(moment.instant), pace.sweeps(moment.instant));
        self.woken.extend(due);
        if sweeps {
            self.prune(cache, cluster, moment);
        }
    }

    /// Whoever is first at the cloud's budget gets what it waits for, if that is there.
    pub fn serve(&mut self, cloud: &Cloud, moment: &Moment, journal: &mut Journal) {
        let Self { pace: Some(pace), versions, .. } = self else { return };
        let got = pace.serve(moment.instant, |name| versions.knows(name), journal);
        match got {
            Some(Got::Permit(name)) => {
                self.woken.insert(name);
            }
            Some(Got::Read(question, scope)) => {
                let seen = seen(&question, cloud, moment.instant);
                self.asking.insert(question, Arc::new(Asking { scope, began: moment.instant, seen, lost: false }));
            }
            None => {}
        }
    }

    /// An effect makes this call, and its requests spend its tokens.
    pub fn spends(&mut self, id: FlightId, call: &Call, accepted: bool, now: Instant, journal: &mut Journal) {
        let Self { pace: Some(pace), flights, .. } = self else { return };
        let Some(flight) = flights.get_mut(&id).map(Arc::make_mut) else { return };
        let Flight { allocation, permit: Some(permit), errand, .. } = flight else { return };
        for what in pace::requests(call, errand, accepted) {
            pace.spend(permit, allocation, errand.address(), what, now, journal);
        }
    }

    fn keep(&mut self, name: &str, permits: BTreeMap<String, Permit>) {
        if let Some(pace) = &mut self.pace {
            pace.keep(name, permits);
        }
    }

    fn give_back(&mut self, permits: BTreeMap<String, Permit>) {
        if let Some(pace) = &mut self.pace {
            permits.into_values().for_each(|permit| pace.give_back(permit));
        }
    }

    fn forget_uid(&mut self, uid: &str) {
        self.versions.forget_uid(uid);
        self.tables.forget_owner(&uid.to_owned());
    }

    /// One pass over one allocation. Mirrors `Controller::pass` and `finish`.
    pub fn pass(
        &mut self,
        name: &str,
        (cache, synced): (&Cache, Instant),
        cluster: &mut Cluster,
        cloud: &Cloud,
        rules: &Rules,
        moment: &Moment,
        broken: Option<Break>,
    ) -> Passed {
        let mut passed = Passed::default();
        self.woken.remove(name);
        if let Some(pace) = &mut self.pace {
            pace.begins(name, moment);
        }
        let cached = cache.allocations.get(name);
        let seen = cached.and_then(|object| Some((object.uid()?, number(&**object))));
        let known = self.versions.newest(seen.as_ref().map(|(uid, version)| (uid.as_str(), *version)));
        let object = match known {
            _ if !rules.own_versions => cached.cloned(),
            Some(known) => Some(known),
            None => {
                let live = cluster.allocation(name).cloned();
                if let Some(live) = &live {
                    self.versions.read(live.clone());
                }
                live
            }
        };
        let Some(mut object) = object else {
            self.forget(name);
            return passed;
        };
        let terminating = object.metadata.deletion_timestamp.is_some();
        let observes = object.spec.mode == api::Mode::Observe;
        let retain = terminating && (observes || object.spec.deletion_policy == api::DeletionPolicy::Retain);
        if !terminating && !observes && !finalizer::is_set(&*object, api::FINALIZER) {
            let version = object.resource_version().unwrap_or_default();
            let set = || cluster.set_finalizer(name, &version, api::FINALIZER);
            match self.send(Write::Finalizer, rules, moment, broken, &mut passed, set) {
                Heard::Done(stored) => {
                    self.versions.wrote(stored.clone());
                    object = stored;
                }
                Heard::Refused(_) | Heard::Silence(_) => {
                    self.versions.forget(name);
                    self.wake_after_failure(name, rules);
                    return passed;
                }
                Heard::Closed | Heard::Died(_) => return passed,
            }
        }
        self.forget_rules(&object, rules, moment);
        let nodes = Arc::new(self.nodes(cache));
        let subject = Subject::of(object, retain, false, &nodes, &self.answers);
        let entries = Entries::of(&subject, &nodes, moment);
        let claims = Arc::new(match rules.claims {
            true => self.versions.claims().labelled(&nodes),
            false => Claims::default(),
        });
        let (survey, survey_error) = subject.scope.as_ref().map_or((None, None), |scope| self.answers.survey(scope));
        let around = Surroundings {
            nodes,
            survey,
            survey_error,
            unconnected: BTreeMap::new(),
            disruption_taints: vec![DISRUPTION.to_owned()],
            moment: *moment,
        };
        let workload = workload(&subject.object, cluster);
        let mut scene = Scene { around, claims, workload, pods: PodsByNode::new(), no_taint_left: true };
        let (leaving, questions) = round::leaving_nodes(&subject, &scene, &entries, &self.answers, &mut self.tables);
        scene.pods = leaving
            .into_iter()
            .map(|node| {
                let pods = cache.pods.get(&node).into_iter().flatten().map(|pod| (**pod).clone()).collect();
                (node, pods)
            })
            .collect();
        self.ask(name, questions, cloud, moment);
        let permits = match &self.pace {
            Some(pace) => pace.permitted(name),
            // Slots and tokens are always to be had here (F2 has tests of its own).
            None => entries
                .known
                .iter()
                .map(|entry| entry.ip.to_string())
                .chain(entries.owed.iter().map(|owed| owed.machine.place.to_string()))
                .collect(),
        };
        let round = round::decide(&subject, &scene, &entries, &self.answers, &permits, &mut self.tables);
        let mut permits = self.pace.as_mut().map(|pace| pace.use_permits(name, &round)).unwrap_or_default();
        self.ask(name, round.questions.clone(), cloud, moment);
        if let Some(pace) = &mut self.pace {
            for wish in &round.wishes {
                pace.ask_permit(name, wish);
            }
        }
        let mut record = round.record(&subject, &scene, &entries, &self.tables, self.began);
        if !rules.debts {
            record.status.owed.clear();
        }
        if !rules.point_of_no_return {
            forget_the_phase(&mut record);
        }
        if !rules.unanswered_attaches {
            let arrived = record.status.addresses.iter_mut().filter(|entry| entry.state == "Attached");
            arrived.for_each(|entry| entry.operation = None);
        }
        if !rules.tells {
            record.status.conditions.clear();
            record.status.observed_generation = None;
            record.status.addresses.iter_mut().for_each(|entry| entry.message = None);
        }
        let before = subject.object.clone();
        let news = record.news(before.status.as_ref());
        let cadence = self.cadences.entry(name.to_owned()).or_default();
        let mut unwritten = Duration::MAX;
        let stored = match cadence.timing(news, subject.interval, moment.instant) {
            Timing::Nothing => before,
            Timing::HeldBack(wait) | Timing::Paced(wait) => {
                record.hold_back(before.status.as_ref());
                unwritten = wait;
                before
            }
            Timing::Now => match self.write(&before, &record, cluster, rules, moment, broken, &mut passed) {
                Written::Stored(stored) => {
                    self.cadences.remove(name);
                    passed.status = Some((before, stored.clone()));
                    stored
                }
                Written::Died(stored) => {
                    if let Some(stored) = stored {
                        passed.record = Some(told(&record));
                        passed.status = Some((before, stored));
                    }
                    return passed;
                }
                Written::Closed => {
                    record.abandon(&mut self.tables);
                    self.keep(name, permits);
                    return passed;
                }
                Written::Unheard => {
                    record.abandon(&mut self.tables);
                    self.keep(name, permits);
                    self.wake_after_failure(name, rules);
                    return passed;
                }
            },
        };
        passed.record = Some(told(&record));
        record.written(&mut self.tables);
        if let Some(pace) = &mut self.pace {
            let recheck = record.recheck(&subject).min(unwritten);
            pace.ended_well(name, moment.instant + recheck);
        }
        let may_go = record.may_go;
        let Record { turns, debts, kept, facts, plan, .. } = record;
        for turn in turns {
            let permit = permits.remove(&turn.before.ip.to_string());
            self.take_off(&subject, turn, permit, cloud, rules, moment, synced);
        }
        for debt in debts {
            let permit = permits.remove(debt.owed.machine.place.as_str());
            if let DebtState::Paying(ticket) = debt.state
                && let Some((operation, send_before)) = debt.owed.attempt
            {
                let intent = Intent {
                    kind: cloud.kind(),
                    machine: debt.owed.machine.clone(),
                    operation,
                    send_before: instant(send_before, moment),
                };
                let errand = Errand::restore(rules.calls, intent);
                self.fly(name, Matter::Debt(debt.owed), permit, ticket, errand, synced);
            }
        }
        self.give_back(permits);
        if subject.mode != Mode::Observe {
            let answer = requested::answer(&stored, &kept, &facts, &plan, &scene.claims);
            self.answer_move(&stored, answer.as_ref(), cluster, rules, moment, broken, &mut passed);
        }
        if subject.terminating && may_go && !passed.died {
            self.release(&stored, cluster, rules, moment, broken, &mut passed);
        }
        passed
    }

    /// Sends a write, once, if the gate is open; what the fault makes of it, if it befalls this one. Every write of a pass is
    /// one of these.
    fn send<T>(
        &self,
        write: Write,
        rules: &Rules,
        moment: &Moment,
        broken: Option<Break>,
        passed: &mut Passed,
        happens: impl FnOnce() -> Result<T, Refused>,
    ) -> Heard<T> {
        if self.may_send(rules, moment.instant, None).is_err() {
            return Heard::Closed;
        }
        passed.writes.push(write);
        let fault = broken.filter(|broken| broken.write.is_none_or(|befallen| befallen == write));
        passed.befell |= fault.is_some();
        let Some(Break { fault, .. }) = fault else { return happens().map_or_else(Heard::Refused, Heard::Done) };
        passed.died = matches!(fault, WriteFault::CrashBefore | WriteFault::CrashAfter);
        match fault {
            WriteFault::Refused => Heard::Refused(Refused::Conflict),
            WriteFault::Lost => Heard::Silence(None),
            WriteFault::Unanswered => Heard::Silence(happens().ok()),
            WriteFault::CrashBefore => Heard::Died(None),
            WriteFault::CrashAfter => Heard::Died(happens().ok()),
        }
    }

    /// The object goes. Mirrors `Controller::release`.
    fn release(
        &mut self,
        stored: &Arc<NetIPAllocation>,
        cluster: &mut Cluster,
        rules: &Rules,
        moment: &Moment,
        broken: Option<Break>,
        passed: &mut Passed,
    ) {
        let (name, version) = (stored.name_any(), stored.resource_version().unwrap_or_default());
        let cleared = match finalizer::is_set(&**stored, api::FINALIZER) {
            true => {
                let clear = || cluster.clear_finalizer(&name, &version, api::FINALIZER);
                self.send(Write::Release, rules, moment, broken, passed, clear)
            }
            false => Heard::Done(stored.clone()),
        };
        let gone = match &cleared {
            Heard::Done(_) | Heard::Refused(Refused::NotFound) => true,
            Heard::Silence(done) | Heard::Died(done) => done.is_some(),
            Heard::Refused(_) | Heard::Closed => false,
        };
        if gone {
            passed.refused = self.refused(stored);
            passed.released = Some(stored.clone());
        }
        match cleared {
            Heard::Done(_) | Heard::Refused(Refused::NotFound) => self.forget(&name),
            Heard::Refused(_) => {
                self.versions.forget(&name);
                self.woken.insert(name);
            }
            // Whether it has gone is found out by asking again.
            Heard::Silence(_) => {
                self.woken.insert(name);
            }
            Heard::Closed | Heard::Died(_) => {}
        }
    }

    /// The machines of debts and half-done swaps that the cloud refused: Retain is the way out, and says so.
    fn refused(&self, object: &NetIPAllocation) -> Vec<MachineId> {
        let status = object.status.clone().unwrap_or_default();
        let owed = status.owed.iter().filter_map(memory::read_owed).map(|owed| owed.machine);
        let owed = owed.filter(|machine| self.tables.is_restore_in_vain(machine));
        let entries = status.addresses.iter().filter_map(|address| match memory::read(address) {
            Stored::Known(entry) => Some(entry),
            Stored::Foreign(_) => None,
        });
        let half_done = entries.filter(|entry| {
            let refused = |failure: &Failure| failure.kind.is_denial();
            entry.restore.is_some() && entry.operation.is_some() && self.tables.failure(entry.ip).is_some_and(refused)
        });
        owed.chain(half_done.filter_map(|entry| entry.machine)).collect()
    }

    /// Decided anew at once, on what was read live. Who acts on the watch cache waits for its news; and where it is said when
    /// to look, it is tried again after a while, as everywhere.
    fn wake_after_failure(&mut self, name: &str, rules: &Rules) {
        if rules.own_versions && self.pace.is_none() {
            self.woken.insert(name.to_owned());
        }
    }

    /// What a mutant does not remember.
    fn forget_rules(&mut self, object: &NetIPAllocation, rules: &Rules, moment: &Moment) {
        if !rules.dead_intents {
            self.tables.intents = ip_address_controller::lifecycle::flight::Intents::new();
            for entry in object.status.iter().flat_map(|status| &status.addresses) {
                if let Stored::Known(entry) = memory::read(entry)
                    && let Some(operation) = &entry.operation
                {
                    self.tables.intents.seen(&entry.ip, operation.id, moment.instant, true);
                }
            }
        }
        if !rules.fresh_reads {
            self.tables.reads = ip_address_controller::lifecycle::reads::ReadFilter::new(
                moment.instant.checked_sub(Duration::from_secs(86_400)).unwrap_or(moment.instant),
            );
        }
        if !rules.seats {
            self.tables.seats = ip_address_controller::lifecycle::seats::Seats::new();
        }
        if !rules.promises {
            self.tables.promised = ip_address_controller::lifecycle::seats::Seats::new();
        }
    }

    /// Mirrors `record::write`.
    fn write(
        &mut self,
        before: &Arc<NetIPAllocation>,
        record: &Record,
        cluster: &mut Cluster,
        rules: &Rules,
        moment: &Moment,
        broken: Option<Break>,
        passed: &mut Passed,
    ) -> Written {
        let (name, version) = (before.name_any(), before.resource_version().unwrap_or_default());
        let replace = || cluster.replace_status(&name, &version, record.status.clone());
        let failure = match self.send(Write::Status, rules, moment, broken, passed, replace) {
            Heard::Done(stored) => {
                self.versions.wrote(stored.clone());
                return Written::Stored(stored);
            }
            Heard::Closed => return Written::Closed,
            Heard::Died(done) => return Written::Died(done),
            Heard::Refused(_) => WriteFailure::Conflict,
            Heard::Silence(_) => WriteFailure::Timeout,
        };
        let Some(live) = cluster.allocation(&name).cloned() else {
            self.versions.forget(&name);
            return Written::Unheard;
        };
        self.versions.read(live.clone());
        let sent = NetIPAllocation { status: Some(record.status.clone()), ..(**before).clone() };
        if stands(failure, &sent, &live) { Written::Stored(live) } else { Written::Unheard }
    }

    fn ask(&mut self, party: &str, questions: Questions, cloud: &Cloud, moment: &Moment) {
        for (question, asked) in questions {
            if let Some(pace) = &mut self.pace {
                pace.ask(party, question, asked);
                continue;
            }
            self.asking.entry(question.clone()).or_insert_with(|| {
                Arc::new(Asking {
                    scope: asked.scope,
                    began: moment.instant,
                    seen: seen(&question, cloud, moment.instant),
                    lost: false,
                })
            });
        }
    }

    /// An answer arrives.
    pub fn answer(&mut self, question: &Question, cloud: &Cloud, now: Instant, journal: &mut Journal) {
        let Some(Asking { began, mut seen, .. }) = self.asking.remove(question).map(Arc::unwrap_or_clone) else {
            return;
        };
        // A survey is many pages: what is on the last one was read last.
        if let (Question::Survey(scope), Reply::Survey(Ok(first))) = (question, &mut seen) {
            let last = cloud.survey(scope, began);
            let half = first.addresses.len().div_ceil(2);
            let mut whole = (**first).clone();
            for (ip, reservation) in last.addresses.into_iter().skip(half) {
                whole.addresses.insert(ip, reservation);
            }
            *first = Arc::new(whole);
        }
        if let Some(pace) = &mut self.pace {
            pace.heard(question, &seen, now, journal);
        }
        self.answers.arrived(question, began, seen);
    }

    /// The question has no good answer.
    pub fn unanswered(&mut self, question: &Question, kind: ErrorKind) {
        let Some(Asking { began, .. }) = self.asking.remove(question).map(Arc::unwrap_or_clone) else { return };
        let error = || CloudError::new(kind, "read", "no answer now");
        let reply = match question {
            Question::Survey(_) => Reply::Survey(Err(error())),
            Question::Find(..) => Reply::Find(Err(error())),
            Question::Inspect(_) => Reply::Inspect(Err(error())),
        };
        if let Some(pace) = &mut self.pace {
            pace.unheard(question);
        }
        self.answers.arrived(question, began, reply);
        let all: Vec<String> = self.versions.all().map(|object| object.name_any()).collect();
        self.woken.extend(all);
    }

    fn take_off(
        &mut self,
        subject: &Subject,
        turn: Turn,
        permit: Option<Permit>,
        cloud: &Cloud,
        rules: &Rules,
        moment: &Moment,
        watched: Instant,
    ) {
        round::begun(&turn, &mut self.tables, moment);
        let Some((deed, ticket)) = turn.deed else { return };
        let terms = |node: &str| Terms {
            ip: deed.ip,
            allocation: deed.allocation.clone(),
            node: node.to_owned(),
            node_uid: deed.node_uid.clone(),
            left_by: deed.left_by.clone(),
            workload: deed.workload.clone(),
            cause: deed.cause,
            evict: deed.evict,
        };
        let intent = |machine: &MachineId, operation, send_before| Intent {
            kind: cloud.kind(),
            machine: machine.clone(),
            operation,
            send_before: instant(send_before, moment),
        };
        let errand = match &deed.effect {
            Effect::Label { node } => Some(Errand::label(rules.calls, terms(node))),
            Effect::Unlabel { node } => Some(Errand::unlabel(rules.calls, terms(node))),
            Effect::Evict { node, pods } => Errand::evict(rules.calls, terms(node), pods.clone()),
            Effect::Attach { node, machine, operation, send_before, may_displace_own } => Some(Errand::attach(
                rules.calls,
                terms(node),
                intent(machine, *operation, *send_before),
                *may_displace_own,
            )),
            Effect::Detach { node, machine, operation, send_before, cut } => {
                Some(Errand::detach(rules.calls, terms(node), intent(machine, *operation, *send_before), *cut))
            }
        };
        match errand {
            Some(errand) => self.fly(&subject.name, Matter::Deed(Box::new(deed)), permit, ticket, errand, watched),
            None => self.tables.flights.end(ticket),
        }
    }

    fn fly(
        &mut self,
        name: &str,
        matter: Matter,
        permit: Option<Permit>,
        ticket: Ticket<Key>,
        errand: Errand,
        watched: Instant,
    ) {
        let free = (0..=FlightId::MAX).find(|id| !self.flights.contains_key(id)).unwrap_or_default();
        let flight = Flight { allocation: name.to_owned(), matter, ticket, permit, errand, sent: None, watched };
        self.flights.insert(free, Arc::new(flight));
    }

    pub fn flight_mut(&mut self, id: FlightId) -> Option<&mut Flight> {
        self.flights.get_mut(&id).map(Arc::make_mut)
    }

    /// An effect has ended. Mirrors `Controller::ended` and the end of `pay`.
    pub fn landed(&mut self, id: FlightId, ended: Ended, moment: &Moment) {
        let Some(flight) = self.flights.remove(&id).map(Arc::unwrap_or_clone) else { return };
        self.tables.flights.end(flight.ticket);
        if let (Some(pace), Some(permit)) = (&mut self.pace, flight.permit) {
            pace.give_back(permit);
        }
        match (&flight.matter, ended) {
            (Matter::Deed(deed), ended) => {
                let done = match ended {
                    Ended::Node(node) => {
                        match &node {
                            Some(node) => {
                                self.written.insert(node.name_any(), node.clone());
                            }
                            None => self.gone.extend(deed.node_uid.clone()),
                        }
                        Done::Node(node.map(|node| Box::new((*node).clone())))
                    }
                    Ended::Asked(asked) => Done::Asked(asked),
                    Ended::Verified(verified) => Done::Verified(verified),
                    Ended::HeldBack(why) => Done::HeldBack(why),
                    Ended::Failed(error) => Done::Failed(error),
                    Ended::NodeFailed(why) => Done::NodeFailed(why),
                    Ended::Restored(_) => return,
                };
                let done = round::believed(deed, done, &self.tables);
                round::ended(deed, &done, &mut self.tables, &mut self.answers, moment);
            }
            (Matter::Debt(owed), Ended::Restored(restored)) => {
                round::paid(owed, &Ok(restored), &mut self.tables, &mut self.answers, moment);
            }
            (Matter::Debt(owed), Ended::Failed(error)) => {
                round::paid(owed, &Err(error), &mut self.tables, &mut self.answers, moment);
            }
            (Matter::Debt(_), _) => {}
        }
        self.woken.insert(flight.allocation);
    }

    /// A Node that an effect wrote on its way.
    pub fn wrote(&mut self, node: Arc<SlimNode>) {
        self.written.insert(node.name_any(), node);
    }

    /// Mirrors `Controller::answer_move` without its words.
    fn answer_move(
        &mut self,
        stored: &Arc<NetIPAllocation>,
        answer: Option<&Answer>,
        cluster: &mut Cluster,
        rules: &Rules,
        moment: &Moment,
        broken: Option<Break>,
        passed: &mut Passed,
    ) {
        if answer.is_none() {
            return;
        }
        let (name, version) = (stored.name_any(), stored.resource_version().unwrap_or_default());
        let clear = || cluster.clear_move(&name, &version);
        // Failing is harmless: the annotation is read again by the next pass.
        if let Heard::Done(written) = self.send(Write::Move, rules, moment, broken, passed, clear) {
            self.versions.wrote(written);
        }
    }
}

/// How the write of a status ended.
enum Written {
    Stored(Arc<NetIPAllocation>),
    /// Leadership is not proven for long enough: tried again when time has passed.
    Closed,
    /// It does not stand, or that is not known: decided anew on a live read.
    Unheard,
    /// The process is dead; with what stands, if it was written.
    Died(Option<Arc<NetIPAllocation>>),
}

/// The taint that says that a node is about to go.
pub const DISRUPTION: &str = "ToBeDeletedByClusterAutoscaler";

/// What transitions are counted by.
static WAYS: LazyLock<Vec<ways::Way>> = LazyLock::new(ways::all);

fn told(record: &Record) -> Told {
    Told {
        turns: record
            .turns
            .iter()
            .map(|turn| {
                let unknown = turn.steps.iter().find(|step| !WAYS.contains(&(step.from, step.to, step.reason)));
                let wrong = turn.refused.clone().or_else(|| unknown.map(|step| format!("no known way: {step:?}")));
                (turn.before.clone(), turn.after.clone(), wrong)
            })
            .collect(),
        struck: record
            .debts
            .iter()
            .filter(|debt| matches!(debt.state, DebtState::Struck(_)))
            .map(|debt| debt.owed.clone())
            .collect(),
    }
}

/// The mutant that knows no point of no return: what is being cut is kept after all once the cause to leave is gone.
fn forget_the_phase(record: &mut Record) {
    use ip_address_controller::allocation::decide::{leaving, state::State};
    let turns = record.turns.iter().filter(|turn| turn.before.state == State::Releasing);
    let kept: Vec<String> = turns
        .filter(|turn| {
            let facts = record.kept.iter().zip(&record.facts).find(|(entry, _)| entry.ip == turn.before.ip);
            let holding = memory_entry::Entry { state: State::Draining, ..turn.before.clone() };
            turn.after.state == State::Releasing
                && facts.is_some_and(|(_, facts)| leaving::cause(&holding, facts).is_none())
        })
        .map(|turn| turn.before.ip.to_string())
        .collect();
    for entry in record.status.addresses.iter_mut().filter(|entry| kept.contains(&entry.ip)) {
        entry.state = "Attached".to_owned();
        entry.operation = None;
    }
}

/// Whose pods use the addresses of the allocation.
pub fn workload(object: &NetIPAllocation, cluster: &Cluster) -> Workload {
    match object.spec.workload() {
        None => Workload::Unnamed,
        Some(reference) if cluster.workloads.contains(&reference.to_string()) => Workload::Named {
            kind: format!("{:?}", reference.kind),
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            gated: true,
        },
        Some(_) => Workload::Missing,
    }
}

fn seen(question: &Question, cloud: &Cloud, began: Instant) -> Reply {
    match question {
        Question::Survey(scope) => Reply::Survey(Ok(Arc::new(cloud.survey(scope, began)))),
        Question::Find(_, ip) => Reply::Find(Ok(cloud.find(*ip))),
        Question::Inspect(machine) => Reply::Inspect(cloud.inspect(machine)),
    }
}

/// The instant of a time that status names, on this process's monotonic clock. Mirrors `Actor::gate_until`.
pub fn instant(then: jiff::Timestamp, moment: &Moment) -> Instant {
    moment.instant + left_to_send(then, moment.now)
}
