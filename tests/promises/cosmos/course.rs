//! The course of events: everything that can happen next, and what it does. Three drivers choose among it: a fixed order
//! with one fault (`broken_steps`), chance (`random_lives`), and all of it (`model`).
//!
//! Between two actions a microsecond passes, so that no two instants are equal; seconds pass by [`Action::Elapse`] alone,
//! and only while no process that runs has anything left to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ip_address_controller::{
    allocation::{
        decide::users::{Owner, Pod},
        moment::Moment,
        observe::answers::Question,
    },
    api::{self, AddressStatus, NetIPAllocationSpec},
    cloud::{ErrorKind, MachineId, Provider, ProviderId, limits::Rate},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    cloud::{Cloud, Landed, Meta, RequestId, Sender},
    cluster::Cluster,
    cost,
    errand::{Answer, Call, Recent, Reply},
    excuses::Excuses,
    pace::{Journal, Look, Pace, SLOTS},
    process::{Break, FlightId, LEASE, Process, Rules, SKEW, TIMEOUT, Term, Write, WriteFault},
};
use crate::invariants;

/// What a person, a kubelet, the scheduler or the cloud's own people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    Cordon(String),
    Uncordon(String),
    Taint(String, String),
    Untaint(String, String),
    /// Takes it out of the pool, by the label that the selectors name.
    Deselect(String),
    Select(String),
    NotReady(String),
    Ready(String),
    DeleteNode(String),
    /// The Node object comes back, on the machine of its name.
    Rejoin(String),
    /// Our labels are taken off by hand.
    Unlabel(String),
    /// The label that names the address of the node is made to name this one.
    Mislabel(String, IpAddr),
    StopMachine(String),
    StartMachine(String),
    VanishMachine(String),
    /// Another machine takes the name; the Node object goes and comes again.
    ReplaceMachine(String),
    /// The same, and the Node object stays.
    ReplaceUnderNode(String),
    Delete(String),
    Remove(String, IpAddr),
    Add(String, IpAddr),
    Mode(String, api::Mode),
    Retain(String),
    RemoveStatus(String),
    /// What the first allocation remembers the second is said to remember as well: restored from before a move, or copied.
    CopyStatus(String, String),
    /// The entry of this address is made to say something else.
    Falsify(String, IpAddr, Lie),
    Move(String, IpAddr),
    /// To a node that may be another one's, cordoned, or its own.
    MoveTo(String, IpAddr, String),
    StartPod(String, String),
    /// A DaemonSet's, whom a cordon does not keep away.
    StartDaemon(String, String),
    /// One that asks for no address: it uses one where nobody does who asks.
    StartStranger(String, String),
    /// Its readiness fails.
    Unready(String),
    /// Its PodDisruptionBudget allows none to go, or does again.
    Guard(String, bool),
    EndPod(String),
    Hold(String, bool),
    OutsiderDetaches(IpAddr),
    OutsiderAttaches(IpAddr, String),
}

/// What somebody writes into an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Draining,
    Unassigned,
    Detached,
    /// Another life of its machine.
    Instance,
    NoOperation,
    NoRestore,
}

/// What goes wrong with one call of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallFault {
    /// The other side says no, for a moment.
    Fails,
    /// It says no for good (the cloud alone).
    Denied,
    /// No answer, and no effect.
    Lost,
    /// No answer, but it took effect.
    Unanswered,
    /// The process dies before it.
    CrashBefore,
    /// It took effect, and the process dies before it hears of it.
    CrashAfter,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process's watches catch up.
    Sync(u8),
    Pass(u8, String),
    BrokenPass(u8, String, Break),
    /// All answers that were on their way to a process arrive.
    Answers(u8),
    Answer(u8, Question),
    /// The question has no good answer.
    Unanswered(u8, Question),
    /// None of the questions of a process has one, for this reason.
    NoAnswers(u8, ErrorKind),
    /// The answers to all questions of a process are lost: it gives them up after a while.
    LoseAnswers(u8),
    /// Whoever is first at the budget of a process gets what it waits for, if that is there.
    Grant(u8),
    /// The next call of an effect; a request to the cloud is sent and its answer waited for.
    Step(u8, FlightId),
    BrokenStep(u8, FlightId, CallFault),
    /// A request takes effect, and who still waits for it hears of it.
    Land(RequestId),
    /// An effect no longer waits for its request, which may still land.
    TimeOut(u8, FlightId),
    /// A request is lost for ever.
    Lose(RequestId),
    /// AWS shows what is.
    CatchUp,
    TakeOver(u8),
    /// It gets the Lease, and cannot read the allocations, or dies before it has: it has to begin again.
    BrokenTakeOver(u8),
    /// A process whose proof has run out, or whose Lease another holds, ends its term.
    EndTerm(u8),
    /// SIGTERM: the Lease is released.
    StepDown(u8),
    Crash(u8),
    Pause(u8),
    Resume(u8),
    Elapse(Duration),
    Outside(Outside),
}

impl Lie {
    pub const ALL: [Lie; 6] =
        [Lie::Draining, Lie::Unassigned, Lie::Detached, Lie::Instance, Lie::NoOperation, Lie::NoRestore];

    fn tell(self, entry: &mut AddressStatus) {
        let forget = |entry: &mut AddressStatus, state: &str| {
            entry.state = state.to_owned();
            entry.reason = Some("Released".to_owned());
            (entry.node, entry.machine_id, entry.operation) = (None, None, None);
        };
        match self {
            Lie::Draining => entry.state = "Draining".to_owned(),
            Lie::Unassigned => forget(entry, "Unassigned"),
            Lie::Detached => forget(entry, "Detached"),
            Lie::Instance => entry.machine_id = entry.machine_id.take().map(|id| id.replace('#', "#1")),
            Lie::NoOperation => entry.operation = None,
            Lie::NoRestore => entry.restore = None,
        }
    }
}

impl CallFault {
    pub const ALL: [CallFault; 6] = [
        CallFault::Fails,
        CallFault::Denied,
        CallFault::Lost,
        CallFault::Unanswered,
        CallFault::CrashBefore,
        CallFault::CrashAfter,
    ];
}

impl Action {
    /// What happens instead, if this is a call to the outside that the fault can befall: of a pass the write that is named, or
    /// whichever it makes.
    pub fn befallen(&self, fault: CallFault, write: Option<Write>) -> Option<Action> {
        let broken =
            |id: &u8, name: &str, fault| Some(Action::BrokenPass(*id, name.to_owned(), Break { write, fault }));
        match self {
            Action::Step(id, flight) => Some(Action::BrokenStep(*id, *flight, fault)),
            Action::Pass(id, name) => match fault {
                CallFault::Fails => broken(id, name, WriteFault::Refused),
                CallFault::Lost => broken(id, name, WriteFault::Lost),
                CallFault::Unanswered => broken(id, name, WriteFault::Unanswered),
                CallFault::CrashBefore => broken(id, name, WriteFault::CrashBefore),
                CallFault::CrashAfter => broken(id, name, WriteFault::CrashAfter),
                // The API server denies nothing for good.
                CallFault::Denied => None,
            },
            Action::Answers(id) => match fault {
                CallFault::Fails => Some(Action::NoAnswers(*id, ErrorKind::Unavailable)),
                CallFault::Denied => Some(Action::NoAnswers(*id, ErrorKind::Denied)),
                CallFault::Lost => Some(Action::LoseAnswers(*id)),
                CallFault::CrashBefore => Some(Action::Crash(*id)),
                // A read changes nothing: unanswered it is lost, and a crash after it is one before it.
                CallFault::Unanswered | CallFault::CrashAfter => None,
            },
            // Whether it fails or dies, it has the Lease and knows nothing.
            Action::TakeOver(id) if fault == CallFault::Fails => Some(Action::BrokenTakeOver(*id)),
            _ => None,
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Cosmos {
    pub rules: Rules,
    pub cloud: Cloud,
    pub cluster: Cluster,
    pub processes: Vec<Arc<Process>>,
    pub excuses: Excuses,
    pub now: Timestamp,
    pub instant: Instant,
    /// When the Lease was renewed last.
    pub renewed: Instant,
    ids: u128,
    /// Names of machines, as Nodes have them.
    pub names: BTreeMap<String, ProviderId>,
    /// Debts that the operator has told it cannot pay.
    pub struck: BTreeSet<MachineId>,
    /// The writes that the last pass sent.
    pub wrote: Vec<Write>,
    /// So many faults have befallen a call.
    pub befallen: u64,
    /// Something else than leaders, clouds and time has had a hand in it since the first status was written.
    pub meddled: bool,
    /// When the hold annotation was put on a pod, by its uid.
    pub held: BTreeMap<String, Instant>,
    /// When a pod was started, by its uid.
    pub started: BTreeMap<String, Instant>,
    /// When a node was last not to be ended any more.
    pub spared: BTreeMap<String, Instant>,
    /// Since when a node has been NotReady, or its object gone, for all that any watch has shown.
    pub down: BTreeMap<String, Timestamp>,
    /// When a machine was last stopped, started or replaced.
    pub stirred: BTreeMap<ProviderId, Instant>,
    /// Allocations that went, and left everything as it was because somebody said so.
    pub left: BTreeSet<String>,
    /// Since when what AWS shows is not what is.
    pub(super) behind: Option<Instant>,
    /// Requests that were sent, over all time.
    pub sent: u64,
    /// Requests that changed the cloud.
    pub landed: u64,
    /// So often an address was put on a machine by the operator.
    pub placed: u64,
    /// How fast each process may ask its cloud. Without one everything is always to be had, and nothing is counted.
    pub pace: Option<Rate>,
    /// How many changes a process that has a pace may have under way.
    pub slots: u32,
    pub journal: Journal,
    /// The API server answers nobody: no Lease is renewed or taken. What else that means is the driver's.
    pub unreachable: bool,
    /// What must be so of the whole world is judged after every action, or, in a large world, after every so many.
    pub judged_every: u32,
}

/// A whole second, so that nothing is rounded by accident.
pub const BIRTH: i64 = 1_800_000_000;

impl fmt::Debug for Cosmos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {}", self.now)?;
        for (name, object) in self.cluster.allocations() {
            for entry in object.status.iter().flat_map(|status| &status.addresses) {
                let on = self.cloud.on(entry.ip.parse().map_err(|_| fmt::Error)?);
                writeln!(
                    f,
                    "  {name} {} {} {} node {:?} operation {:?}, in truth on {:?}: {}",
                    entry.ip,
                    entry.state,
                    entry.reason.as_deref().unwrap_or_default(),
                    entry.node,
                    entry.operation.as_ref().map(|operation| operation.type_.clone()),
                    on.map(|place| place.to_string()),
                    entry.message.as_deref().unwrap_or_default(),
                )?;
            }
        }
        for process in &self.processes {
            let flights = process.term.iter().flat_map(|term| term.flights.values());
            let flights: Vec<String> = flights.map(|flight| format!("{:?}", flight.errand.next())).collect();
            writeln!(
                f,
                "  process {} leads {} paused {} flights {flights:?}",
                process.id,
                process.term.is_some(),
                process.paused
            )?;
        }
        Ok(())
    }
}

/// Every action is told with `TRACE=1`.
fn tells() -> bool {
    static TELLS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TRACE").is_some());
    *TELLS
}

/// How long an effect waits for one request, as long as it is polled; and a question for its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The label that selects a pool's nodes.
pub const POOL: &str = "pool";

impl Cosmos {
    /// `processes` of the operator, of which none leads yet.
    pub fn new(kind: Provider, processes: u8, rules: Rules, instant: Instant) -> Self {
        let process = |id| {
            Arc::new(Process {
                id,
                paused: false,
                cache: Default::default(),
                synced: instant,
                term: None,
                recent: Recent::default(),
            })
        };
        Self {
            rules,
            cloud: Cloud::new(kind),
            cluster: Cluster::default(),
            processes: (0..processes).map(process).collect(),
            excuses: Excuses::default(),
            now: Timestamp::from_second(BIRTH).unwrap(),
            instant,
            renewed: instant,
            ids: 0,
            names: BTreeMap::new(),
            struck: BTreeSet::new(),
            wrote: Vec::new(),
            befallen: 0,
            meddled: false,
            held: BTreeMap::new(),
            started: BTreeMap::new(),
            spared: BTreeMap::new(),
            down: BTreeMap::new(),
            stirred: BTreeMap::new(),
            left: BTreeSet::new(),
            behind: None,
            sent: 0,
            landed: 0,
            placed: 0,
            pace: None,
            slots: SLOTS,
            journal: Journal::default(),
            unreachable: false,
            judged_every: 1,
        }
    }

    /// Whether the whole world is judged after the action that happens now.
    pub fn is_judged(&self) -> bool {
        self.ids.is_multiple_of(u128::from(self.judged_every))
    }

    /// A machine with its Node, in the pool.
    pub fn node(&mut self, name: &str, own: bool) -> MachineId {
        let machine = self.cloud.add_machine(name, own);
        self.names.insert(name.to_owned(), machine.place.clone());
        self.join(name);
        machine
    }

    fn join(&mut self, name: &str) {
        let mut labels = self.cloud.node_labels();
        labels.insert(POOL.to_owned(), "sip".to_owned());
        let place = self.names.get(name).cloned().unwrap();
        self.cluster.add_node(name, &place, &labels, self.now);
    }

    /// An allocation of reserved addresses on the pool. `more`: further fields of the spec.
    pub fn allocate(&mut self, name: &str, ips: &[IpAddr], more: serde_json::Value) {
        self.meddled |= self.cluster.allocations().values().any(|object| object.status.is_some());
        for ip in ips {
            self.cloud.reserve(*ip);
        }
        let scope = self.cloud.scope();
        let mut spec = serde_json::json!({
            "reservedIPs": ips,
            "nodeSelector": {POOL: "sip"},
            "cloud": {"provider": scope.provider.as_str(), "region": scope.region},
            "reconcileInterval": 30,
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let spec: NetIPAllocationSpec = serde_json::from_value(spec).unwrap();
        self.cluster.apply(name, spec, self.now);
    }

    /// The moment of the next action; no two are the same.
    fn tick(&mut self) -> Moment {
        self.ids += 1;
        self.instant += Duration::from_micros(1);
        self.now += SignedDuration::from_micros(1);
        Moment { now: self.now, instant: self.instant, chance: Uuid::from_u128(self.ids) }
    }

    pub fn process(&self, id: u8) -> &Process {
        self.processes.iter().find(|process| process.id == id).unwrap()
    }

    fn process_mut(&mut self, id: u8) -> &mut Process {
        one_of(&mut self.processes, id).unwrap()
    }

    fn term_mut(&mut self, id: u8) -> Option<&mut Term> {
        self.process_mut(id).term.as_mut()
    }

    /// Whom the API server takes for the leader, if it runs.
    pub fn leader(&self) -> Option<&Process> {
        let holder = self.cluster.lease.holder?;
        let mut leading = self.processes.iter().filter(|process| process.term.is_some() && !process.paused);
        leading.find(|process| process.id == holder).map(AsRef::as_ref)
    }

    /// Whether a process holds the Lease, and its proof of that outlasts the answer to what it sends now (F1).
    pub fn leads(&self, id: u8) -> bool {
        let proven = |term: &Term| term.proof >= self.instant + TIMEOUT;
        self.cluster.lease.holder == Some(id) && self.process(id).term.as_ref().is_some_and(proven)
    }

    pub fn place(&self, node: &str) -> Option<&ProviderId> {
        self.names.get(node)
    }

    /// What goes on by itself: no fault, nothing from outside.
    pub fn going_on(&self, batch: bool) -> Vec<Action> {
        let mut all = Vec::new();
        for process in self.processes.iter().filter(|process| !process.paused) {
            let id = process.id;
            let Some(term) = &process.term else { continue };
            if term.proof <= self.instant {
                all.push(Action::EndTerm(id));
            }
            all.extend(
                term.flights.iter().filter(|(_, flight)| flight.sent.is_none()).map(|(f, _)| Action::Step(id, *f)),
            );
            let mut awaited = term.awaited().cloned().peekable();
            if batch && awaited.peek().is_some() {
                all.push(Action::Answers(id));
            } else {
                all.extend(awaited.map(|question| Action::Answer(id, question)));
            }
            if term.pace.as_ref().is_some_and(|pace| pace.can_serve(self.instant)) {
                all.push(Action::Grant(id));
            }
            if self.cluster.is_ahead_of(&process.cache) {
                all.push(Action::Sync(id));
            }
            all.extend(term.woken.iter().map(|name| Action::Pass(id, name.clone())));
        }
        all.extend(self.cloud.requests().keys().map(|id| Action::Land(*id)));
        if self.cloud.is_behind() {
            all.push(Action::CatchUp);
        }
        all.extend(
            self.processes.iter().filter(|process| self.may_lead(process)).map(|process| Action::TakeOver(process.id)),
        );
        all
    }

    /// Nothing that runs has anything left to do before time passes.
    pub fn is_idle(&self) -> bool {
        self.processes.iter().filter(|process| !process.paused).all(|process| {
            let Some(term) = &process.term else { return true };
            term.proof > self.instant
                && term.flights.is_empty()
                && term.awaited().next().is_none()
                && term.woken.is_empty()
                && term.pace.as_ref().is_none_or(|pace| !pace.can_serve(self.instant))
                && !self.cluster.is_ahead_of(&process.cache)
        })
    }

    /// Nobody who runs leads, and a standby has to wait until the Lease has run out: what the last leader sent is still on its way.
    pub fn waits_for_a_lease(&self) -> bool {
        let mut running = self.processes.iter().filter(|process| !process.paused).peekable();
        running.peek().is_some() && running.all(|process| process.term.is_none() && !self.may_lead(process))
    }

    fn may_lead(&self, process: &Process) -> bool {
        if process.paused || process.term.is_some() || self.unreachable {
            return false;
        }
        match self.cluster.lease.holder {
            None => true,
            // A container that was started again in the same pod.
            Some(holder) if holder == process.id => true,
            Some(_) => self.instant >= self.renewed + LEASE + SKEW,
        }
    }

    /// For a trace: the call that an action makes.
    fn called_by(&self, action: &Action) -> String {
        let Action::Step(id, flight) = action else { return String::new() };
        let term = self.process(*id).term.as_ref();
        let flight = term.and_then(|term| term.flights.get(flight));
        flight.map(|flight| format!(": {:?}", flight.errand.next())).unwrap_or_default()
    }

    /// It happens.
    ///
    /// # Errors
    /// The promise that it breaks, and how.
    pub fn happen(&mut self, action: &Action) -> Result<(), String> {
        let moment = self.tick();
        if tells() {
            println!("{} {action:?}{}", self.now, self.called_by(action));
        }
        match action {
            Action::Sync(id) => {
                let cache = self.cluster.snapshot();
                let well = |name: &String| cache.nodes.get(name).is_some_and(|node| node.not_ready_since().is_none());
                self.down.retain(|name, _| !well(name));
                let (cluster, process) = (&self.cluster, one_of(&mut self.processes, *id));
                if let Some(process) = process {
                    process.cache = cache;
                    process.synced = moment.instant;
                    if let Some(term) = &mut process.term {
                        term.prune(&process.cache, cluster, &moment);
                        term.wake_all(process.cache.allocations.keys().cloned());
                    }
                }
            }
            Action::Pass(id, name) => self.pass(*id, name, None, &moment)?,
            Action::BrokenPass(id, name, broken) => self.pass(*id, name, Some(*broken), &moment)?,
            Action::Answers(id) => {
                let questions: Vec<Question> =
                    self.process(*id).term.iter().flat_map(|term| term.awaited().cloned()).collect();
                for question in questions {
                    self.answer(*id, &question);
                }
            }
            Action::Answer(id, question) => self.answer(*id, question),
            Action::Unanswered(id, question) => {
                if let Some(term) = self.term_mut(*id) {
                    term.unanswered(question, ErrorKind::Unavailable);
                }
            }
            Action::NoAnswers(id, kind) => {
                self.befallen += 1;
                if let Some(term) = self.term_mut(*id) {
                    for question in term.awaited().cloned().collect::<Vec<_>>() {
                        term.unanswered(&question, *kind);
                    }
                }
            }
            Action::LoseAnswers(id) => {
                self.befallen += 1;
                if let Some(term) = self.term_mut(*id) {
                    term.lose_answers();
                }
            }
            Action::Grant(id) => {
                let Self { cloud, processes, journal, .. } = self;
                if let Some(term) = one_of(processes, *id).and_then(|process| process.term.as_mut()) {
                    term.serve(cloud, &moment, journal);
                }
            }
            Action::Step(id, flight) => self.step(*id, *flight, None, &moment)?,
            Action::BrokenStep(id, flight, fault) => {
                self.befallen += 1;
                self.step(*id, *flight, Some(*fault), &moment)?;
            }
            Action::Land(request) => {
                self.land(*request, true, &moment)?;
            }
            Action::TimeOut(id, flight) => {
                if let Some(term) = self.term_mut(*id)
                    && let Some((_, began)) = term.flight_mut(*flight).and_then(|flight| flight.sent.take())
                {
                    self.answered(*id, *flight, Answer::Silence, began, &moment);
                }
            }
            Action::Lose(request) => {
                self.cloud.lose(*request);
            }
            Action::CatchUp => self.cloud.catch_up(),
            Action::TakeOver(id) => self.take_over(*id, &moment),
            Action::BrokenTakeOver(id) => {
                self.befallen += 1;
                self.take_lease(*id);
            }
            Action::EndTerm(id) => self.end(*id),
            Action::Crash(id) => {
                self.befallen += 1;
                self.end(*id);
            }
            Action::StepDown(id) => {
                self.end(*id);
                if self.cluster.lease.holder == Some(*id) {
                    self.cluster.steal_lease(None);
                }
            }
            Action::Pause(id) => self.process_mut(*id).paused = true,
            Action::Resume(id) => {
                self.process_mut(*id).paused = false;
                self.renew(self.instant);
                self.time_out(&moment);
            }
            Action::Elapse(time) => self.elapse(*time),
            Action::Outside(outside) => {
                self.meddled = true;
                self.outside(outside, &moment);
            }
        }
        self.excuses
            .nodes
            .retain(|name| self.cluster.node(name).is_some_and(|node| invariants::mislabelled(&self.cloud, node)));
        self.behind = self.cloud.is_behind().then(|| self.behind.unwrap_or(self.instant));
        if self.is_judged() { invariants::state(self) } else { Ok(()) }
    }

    fn pass(&mut self, id: u8, name: &str, broken: Option<Break>, moment: &Moment) -> Result<(), String> {
        let leads = self.leads(id);
        let Self { cluster, cloud, rules, processes, pace, journal, .. } = self;
        let Some(process) = one_of(processes, id) else { return Ok(()) };
        let Some(term) = &mut process.term else { return Ok(()) };
        let before = pace.and_then(|_| cost::so_far());
        let watched = (&process.cache, process.synced);
        let passed = term.pass(name, watched, cluster, cloud, rules, moment, broken);
        self.wrote.clone_from(&passed.writes);
        self.befallen += u64::from(passed.befell);
        if pace.is_some() {
            let cost = before.and_then(|before| cost::so_far()?.checked_sub(before));
            let wrote = passed.status.is_some();
            journal.looks.push(Look { at: moment.instant, whose: name.to_owned(), wrote, cost });
        }
        if passed.died {
            self.end(id);
        }
        if let Some(record) = &passed.record {
            self.struck.extend(record.struck.iter().map(|owed| owed.machine.clone()));
        }
        self.struck.extend(passed.refused.iter().cloned());
        if let Some(object) = &passed.released {
            let observes = object.spec.mode == api::Mode::Observe;
            let retains = object.spec.deletion_policy == api::DeletionPolicy::Retain;
            if observes {
                self.excuse_what_is_left(object);
            } else if retains {
                self.excuse_what_was_displaced(object);
            }
            if observes || retains {
                self.left.insert(name.to_owned());
            }
        }
        invariants::passed(self, id, leads, name, &passed)?;
        self.end_excuses(id);
        Ok(())
    }

    fn answer(&mut self, id: u8, question: &Question) {
        let Self { cloud, processes, cluster, journal, instant, .. } = self;
        if let Some(term) = one_of(processes, id).and_then(|process| process.term.as_mut()) {
            term.answer(question, cloud, *instant, journal);
            term.wake_all(cluster.allocations().keys().cloned().collect::<Vec<_>>());
        }
    }

    fn step(&mut self, id: u8, flight: FlightId, fault: Option<CallFault>, moment: &Moment) -> Result<(), String> {
        if fault == Some(CallFault::CrashBefore) {
            self.end(id);
            return Ok(());
        }
        let rules = self.rules;
        let Some(term) = self.term_mut(id) else { return Ok(()) };
        let Some(under_way) = term.flights.get(&flight) else { return Ok(()) };
        let call = under_way.errand.next();
        let send_before = under_way.errand.send_before();
        if call.is_change()
            && let Err(why) = term.may_send(&rules, moment.instant, send_before)
        {
            self.answered(id, flight, Answer::Closed(why), moment.instant, moment);
            return Ok(());
        }
        if self.pace.is_some() {
            let refused = matches!(fault, Some(CallFault::Fails | CallFault::Denied | CallFault::Lost));
            let Self { processes, journal, .. } = self;
            if let Some(term) = one_of(processes, id).and_then(|process| process.term.as_mut()) {
                term.spends(flight, &call, !refused, moment.instant, journal);
            }
        }
        let no = |call: &Call, kind| match call {
            Call::ReadNode(_) | Call::PatchLabels { .. } | Call::ListPods(_) | Call::Evict(_) => {
                Answer::Refused("the API server says no".to_owned())
            }
            Call::Inspect(_) | Call::Find(_) | Call::Send(_) => {
                Answer::Failed(ip_address_controller::cloud::CloudError::new(kind, "call", "it says no"))
            }
        };
        match fault {
            Some(CallFault::Fails) => {
                let answer = no(&call, ip_address_controller::cloud::ErrorKind::Unavailable);
                self.answered(id, flight, answer, moment.instant, moment);
                return Ok(());
            }
            Some(CallFault::Denied) => {
                let answer = no(&call, ip_address_controller::cloud::ErrorKind::Denied);
                self.answered(id, flight, answer, moment.instant, moment);
                return Ok(());
            }
            Some(CallFault::Lost) => {
                self.answered(id, flight, Answer::Silence, moment.instant, moment);
                return Ok(());
            }
            Some(CallFault::Unanswered | CallFault::CrashAfter) | None => {}
            Some(CallFault::CrashBefore) => return Ok(()),
        }
        if let Some(answer) = call.read(&self.cloud, &self.cluster) {
            let answer = if fault == Some(CallFault::Unanswered) { Answer::Silence } else { answer };
            if fault == Some(CallFault::CrashAfter) {
                self.end(id);
            } else {
                self.answered(id, flight, answer, moment.instant, moment);
            }
            return Ok(());
        }
        if let Call::Send(order) = &call {
            return self.send(id, flight, order.clone(), fault, moment);
        }
        invariants::changes(self, id, flight, &call)?;
        let written = call.write(&mut self.cluster, moment.now);
        match fault {
            Some(CallFault::CrashAfter) => self.end(id),
            Some(CallFault::Unanswered) => self.answered(id, flight, Answer::Silence, moment.instant, moment),
            _ => {
                if let Some(answer) = written {
                    self.answered(id, flight, answer, moment.instant, moment);
                }
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        id: u8,
        flight: FlightId,
        order: super::cloud::Order,
        fault: Option<CallFault>,
        moment: &Moment,
    ) -> Result<(), String> {
        let settle = self.cloud.kind().settle_time();
        let Some(under_way) = self.process(id).term.as_ref().and_then(|term| term.flights.get(&flight)) else {
            return Ok(());
        };
        let Some(intent) = under_way.errand.intent_behind() else { return Ok(()) };
        let meta = Meta {
            sender: Sender { process: id, effect: u64::from(flight) },
            operation: intent.operation,
            address: under_way.errand.address(),
            latest: intent.send_before + settle,
        };
        invariants::sends(self, id, &under_way.allocation, &order, &meta)?;
        self.sent += 1;
        let request = self.cloud.send(order, meta);
        if let Some(under_way) = self.term_mut(id).and_then(|term| term.flight_mut(flight)) {
            under_way.sent = Some((request, moment.instant));
        }
        match fault {
            Some(CallFault::Unanswered) => {
                self.land(request, false, moment)?;
                if let Some(under_way) = self.term_mut(id).and_then(|term| term.flight_mut(flight)) {
                    under_way.sent = None;
                }
                self.answered(id, flight, Answer::Silence, moment.instant, moment);
            }
            Some(CallFault::CrashAfter) => {
                self.end(id);
                self.land(request, false, moment)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A request takes effect; who waits for it hears of it, if the answer is not lost.
    fn land(&mut self, request: RequestId, heard: bool, moment: &Moment) -> Result<(), String> {
        let landed = self.cloud.land(request);
        self.landed += u64::from(landed.removed.is_some() || landed.put.is_some());
        self.placed += u64::from(matches!(landed.put, Some((_, super::cloud::Slot::Reserved(_)))));
        let Landed { request: told, result, .. } = &landed;
        let sender = told.meta.sender;
        let answer = match result {
            Ok(said) => Answer::Done(said.clone()),
            Err(error) => Answer::Failed(error.clone()),
        };
        invariants::landed(self, &landed)?;
        if !heard {
            return Ok(());
        }
        let effect = FlightId::try_from(sender.effect).unwrap_or_default();
        let process = self.process_mut(sender.process);
        if process.paused {
            return Ok(());
        }
        let waits = process.term.as_mut().and_then(|term| term.flight_mut(effect));
        if let Some(flight) = waits
            && let Some((waited, began)) = flight.sent
            && waited == request
        {
            flight.sent = None;
            self.answered(sender.process, effect, answer, began, moment);
        }
        Ok(())
    }

    fn answered(&mut self, id: u8, flight: FlightId, answer: Answer, began: Instant, moment: &Moment) {
        let Some(process) = one_of(&mut self.processes, id) else { return };
        let Process { term: Some(term), recent, .. } = process else { return };
        let Some(under_way) = term.flight_mut(flight) else { return };
        let ended = under_way.errand.answered(Reply { answer, began, now: moment.instant }, recent);
        let written = under_way.errand.take_written();
        if let Some(node) = written {
            term.wrote(node);
        }
        if let Some(ended) = ended {
            term.landed(flight, ended, moment);
        }
    }

    fn take_lease(&mut self, id: u8) {
        self.cluster.steal_lease(Some(id));
        self.renewed = self.instant;
    }

    fn take_over(&mut self, id: u8, moment: &Moment) {
        self.take_lease(id);
        let proof = self.instant + LEASE - SKEW;
        let Self { cloud, cluster, rules, processes, pace, slots, .. } = self;
        if let Some(process) = one_of(processes, id) {
            if process.cache.nodes.is_empty() {
                process.cache = cluster.snapshot();
                process.synced = moment.instant;
            }
            let mut term = match rules.take_over {
                true => Term::begin(cluster, proof, moment),
                false => Term::from_cache(&process.cache, proof, moment),
            };
            term.pace = pace.map(|rate| Box::new(Pace::new(rate, *slots, cloud.kind(), moment.instant)));
            process.term = Some(term);
        }
    }

    /// What a process knew dies with its term; what it has sent does not.
    fn end(&mut self, id: u8) {
        let process = self.process_mut(id);
        process.term = None;
        process.recent = Recent::default();
    }

    /// Time passes. Who leads renews; pods that terminate end.
    fn elapse(&mut self, time: Duration) {
        let before = self.instant;
        self.instant += time;
        self.now += SignedDuration::try_from(time).unwrap_or_default();
        let now = self.instant;
        self.renew(before);
        let over: Vec<String> = self
            .cluster
            .pods()
            .values()
            .flatten()
            .filter(|pod| pod.terminating_until.is_some_and(|until| until <= self.now) && !pod.hold)
            .map(|pod| pod.uid.clone())
            .collect();
        for uid in over {
            self.cluster.end_pod(&uid);
        }
        // AWS lags by less than what its reads are not believed for (R1).
        if self.behind.is_some_and(|since| now.duration_since(since) >= self.cloud.kind().read_lag()) {
            self.cloud.catch_up();
        }
        self.cloud.expire(now);
        let moment = Moment { now: self.now, instant: now, chance: Uuid::nil() };
        self.time_out(&moment);
        let Self { cluster, processes, .. } = self;
        for process in processes.iter_mut().filter(|process| !process.paused).map(Arc::make_mut) {
            if let Some(term) = &mut process.term {
                term.later(&process.cache, cluster, &moment);
            }
        }
    }

    /// Who leads, runs, and had proof at `then` has renewed the Lease since.
    fn renew(&mut self, then: Instant) {
        if self.unreachable {
            return;
        }
        let (now, holder) = (self.instant, self.cluster.lease.holder);
        let holds = |process: &&mut Arc<Process>| !process.paused && holder == Some(process.id);
        for process in self.processes.iter_mut().filter(holds).map(Arc::make_mut) {
            if let Some(term) = process.term.as_mut().filter(|term| term.proof > then) {
                term.proof = now + LEASE - SKEW;
                self.renewed = now;
            }
        }
    }

    fn start(&mut self, node: &str, pod: Pod) {
        if let Ok(pod) = self.cluster.start_pod(node, pod) {
            self.started.insert(pod.uid.clone(), self.instant);
        }
    }

    /// No effect waits for an answer for ever.
    fn time_out(&mut self, moment: &Moment) {
        let running = self.processes.iter().filter(|process| !process.paused);
        let terms = running.filter_map(|process| Some((process.id, process.term.as_ref()?)));
        let waiting =
            terms.flat_map(|(id, term)| term.flights.iter().map(move |(flight, what)| (id, *flight, what.sent)));
        let over: Vec<_> = waiting
            .filter_map(|(id, flight, sent)| Some((id, flight, sent?.1)))
            .filter(|(_, _, began)| moment.since(*began) >= PATIENCE)
            .collect();
        self.give_up_lost_answers(moment);
        for (id, flight, began) in over {
            if let Some(flight) = self.term_mut(id).and_then(|term| term.flight_mut(flight)) {
                flight.sent = None;
            }
            self.answered(id, flight, Answer::Silence, began, moment);
        }
    }

    /// No question waits for its answer for ever.
    fn give_up_lost_answers(&mut self, moment: &Moment) {
        let running = self.processes.iter_mut().filter(|process| !process.paused);
        for term in running.filter_map(|process| Arc::make_mut(process).term.as_mut()) {
            let lost = term.asking.iter().filter(|(_, asking)| asking.lost && moment.since(asking.began) >= PATIENCE);
            for question in lost.map(|(question, _)| question.clone()).collect::<Vec<_>>() {
                term.unanswered(&question, ErrorKind::Timeout);
            }
        }
    }

    fn outside(&mut self, outside: &Outside, moment: &Moment) {
        let now = moment.now;
        match outside {
            Outside::Cordon(node) => {
                let _ = self.cluster.cordon(node, true);
            }
            Outside::Uncordon(node) => {
                let _ = self.cluster.cordon(node, false);
            }
            Outside::Taint(node, key) => {
                let _ = self.cluster.taint(node, key, "NoSchedule");
            }
            Outside::Untaint(node, key) => {
                self.spared.insert(node.clone(), moment.instant);
                let _ = self.cluster.untaint(node, key);
            }
            Outside::Deselect(node) => {
                let _ = self.cluster.label(node, POOL, None);
            }
            Outside::Select(node) => {
                let _ = self.cluster.label(node, POOL, Some("sip"));
            }
            Outside::NotReady(node) => {
                self.down.entry(node.clone()).or_insert(now);
                let _ = self.cluster.set_ready(node, false, now);
            }
            Outside::Ready(node) => {
                let _ = self.cluster.set_ready(node, true, now);
            }
            Outside::DeleteNode(node) => {
                self.down.entry(node.clone()).or_insert(now);
                self.cluster.delete_node(node);
            }
            Outside::Rejoin(node) => self.join(node),
            Outside::Unlabel(node) => {
                for key in [api::READY_LABEL, api::ALLOCATION_LABEL, api::ADDRESS_LABEL] {
                    let _ = self.cluster.label(node, key, None);
                }
            }
            Outside::Mislabel(node, ip) => {
                if self.cluster.node(node).is_some_and(|node| node.label(api::READY_LABEL).is_some()) {
                    self.excuses.nodes.insert(node.clone());
                    let _ = self.cluster.label(node, api::ADDRESS_LABEL, Some(&ip.to_string()));
                }
            }
            Outside::StopMachine(node) => self.at_machine(node, Cloud::stop),
            Outside::StartMachine(node) => self.at_machine(node, Cloud::start),
            Outside::VanishMachine(node) => self.at_machine(node, Cloud::vanish),
            Outside::ReplaceMachine(node) => {
                self.replace(node);
                self.cluster.delete_node(node);
                self.join(node);
            }
            Outside::ReplaceUnderNode(node) => self.replace(node),
            Outside::Delete(name) => {
                let _ = self.cluster.delete(name, now);
            }
            Outside::Remove(name, ip) => {
                let text = ip.to_string();
                let _ = self.cluster.edit(name, |spec| spec.reserved_ips.retain(|other| *other != text));
            }
            Outside::Add(name, ip) => {
                self.cloud.reserve(*ip);
                let text = ip.to_string();
                let _ = self.cluster.edit(name, |spec| {
                    spec.reserved_ips.retain(|other| *other != text);
                    spec.reserved_ips.push(text);
                });
            }
            Outside::Mode(name, mode) => {
                let _ = self.cluster.edit(name, |spec| spec.mode = *mode);
            }
            Outside::Retain(name) => {
                let _ = self.cluster.edit(name, |spec| spec.deletion_policy = api::DeletionPolicy::Retain);
            }
            Outside::RemoveStatus(name) => {
                self.excuse_an_edit(name);
                let _ = self.cluster.remove_status(name);
            }
            Outside::CopyStatus(from, to) => {
                if let Some(status) = self.cluster.allocation(from).and_then(|object| object.status.clone()) {
                    let about = [self.said_or_asked(from), self.said_or_asked(to)].concat();
                    self.excuse_an_edit_about(to, &about);
                    let _ = self.cluster.edit_status(to, |its| *its = status);
                }
            }
            Outside::Falsify(name, ip, lie) => {
                self.excuse_an_edit_about(name, &[*ip]);
                let text = ip.to_string();
                let _ = self.cluster.edit_status(name, |status| {
                    let told = status.addresses.iter_mut().filter(|entry| entry.ip == text);
                    told.for_each(|entry| lie.tell(entry));
                });
            }
            Outside::Move(name, ip) => {
                let _ = self.cluster.annotate(name, api::MOVE_ANNOTATION, Some(&ip.to_string()));
            }
            Outside::MoveTo(name, ip, node) => {
                let _ = self.cluster.annotate(name, api::MOVE_ANNOTATION, Some(&format!("{ip}={node}")));
            }
            Outside::StartPod(node, name) => self.start(node, pod(name)),
            Outside::StartDaemon(node, name) => {
                let owner = Owner { kind: "DaemonSet".to_owned(), name: "kamailio".to_owned() };
                self.start(node, Pod { owner: Some(owner), returns: true, ..pod(name) });
            }
            Outside::StartStranger(node, name) => {
                let owner = Owner { kind: "Deployment".to_owned(), name: "stranger".to_owned() };
                self.start(node, Pod { owner: Some(owner), gated: false, ..pod(name) });
            }
            Outside::Unready(uid) => {
                let _ = self.cluster.set_pod_ready(uid, false);
            }
            Outside::Guard(uid, true) => {
                self.cluster.guarded.insert(uid.clone());
            }
            Outside::Guard(uid, false) => {
                self.cluster.guarded.remove(uid);
            }
            Outside::EndPod(uid) => self.cluster.end_pod(uid),
            Outside::Hold(uid, hold) => {
                if *hold {
                    self.held.entry(uid.clone()).or_insert(moment.instant);
                } else {
                    self.held.remove(uid);
                }
                let _ = self.cluster.hold(uid, *hold);
            }
            Outside::OutsiderDetaches(ip) => {
                self.excuse(*ip);
                self.cloud.outsider_detaches(*ip);
            }
            Outside::OutsiderAttaches(ip, node) => {
                self.excuse(*ip);
                if let Some(place) = self.names.get(node).cloned() {
                    self.excuses.machines.insert(place.clone());
                    if let Some(super::cloud::Slot::Reserved(there)) =
                        self.cloud.machine(&place).map(|machine| machine.slot)
                    {
                        self.excuse(there);
                    }
                    self.cloud.outsider_attaches(*ip, &place);
                }
            }
        }
    }

    fn at_machine(&mut self, node: &str, act: impl Fn(&mut Cloud, &ProviderId)) {
        let Some(place) = self.names.get(node).cloned() else { return };
        if let Some(super::cloud::Slot::Reserved(ip)) = self.cloud.machine(&place).map(|machine| machine.slot) {
            self.excuse(ip);
        }
        self.excuses.nodes.insert(node.to_owned());
        self.excuses.machines.insert(place.clone());
        self.stirred.insert(place.clone(), self.instant);
        act(&mut self.cloud, &place);
    }

    fn replace(&mut self, node: &str) {
        let mut next = None;
        let place = self.names.get(node).cloned();
        self.at_machine(node, |_, _| {});
        if let Some(place) = place {
            // Between the read of a machine and the change of it another may take its name: Google Cloud knows names alone.
            let named = self
                .cluster
                .allocations()
                .values()
                .flat_map(|object| &object.status)
                .flat_map(|status| &status.addresses);
            let at_it = |entry: &&api::AddressStatus| {
                let machine = entry.machine_id.as_ref().and_then(|id| id.parse::<MachineId>().ok());
                machine.is_some_and(|machine| machine.place == place)
            };
            let ips: Vec<IpAddr> = named.filter(at_it).filter_map(|entry| entry.ip.parse().ok()).collect();
            for ip in ips {
                self.excuse(ip);
            }
            next = Some(self.cloud.replace(&place).place);
        }
        if let Some(next) = next {
            self.names.insert(node.to_owned(), next);
        }
    }
}

fn one_of(processes: &mut [Arc<Process>], id: u8) -> Option<&mut Process> {
    processes.iter_mut().find(|process| process.id == id).map(Arc::make_mut)
}

/// A pod that asks for a node with an address.
pub fn pod(name: &str) -> Pod {
    Pod {
        namespace: "voip".to_owned(),
        name: name.to_owned(),
        uid: String::new(),
        finished: false,
        ready: true,
        terminating_until: None,
        hold: false,
        returns: false,
        owner: Some(Owner { kind: "Deployment".to_owned(), name: "kamailio".to_owned() }),
        gated: true,
        mirror: false,
    }
}
