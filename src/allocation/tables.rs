//! What this process knows beside status: reads, flights, intents, seats, failures. One lock, held for no await.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    decide::{
        facts::{Entry, Failure, NotReady, User},
        failover::Breaker,
        state::State,
    },
    moment::Moment,
};
use crate::{
    cloud::{CloudError, ErrorKind, MachineId, ProviderId},
    lifecycle::{
        backoff::Backoff,
        flight::{Flights, Intents, Ticket},
        reads::ReadFilter,
        seats::Seats,
    },
};

/// Uid of an allocation.
pub type Uid = String;

/// What effects exclude each other on, and what reads are filtered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Address(IpAddr),
    Machine(ProviderId),
}

/// Sits on a machine that no address of ours may be put on: it is owed one of its own.
pub const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// An intent may be sent for so long after it was written (F5).
pub const SEND_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// For how long an intent may still be sent. One that was written by a clock ahead of ours looks as if that were longer than
/// any may be: then it is as good as just written, or nobody could change his mind until our clock has caught up.
pub fn left_to_send(send_before: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(send_before.duration_since(now).min(SEND_WINDOW)).unwrap_or_default()
}

/// A node that refused an address comes last for it for so long (S4).
const REFUSAL: SignedDuration = SignedDuration::from_mins(10);

/// All of it. Every method is a plain step; the caller holds the lock.
#[derive(Clone, Debug)]
pub struct Tables {
    pub flights: Flights<Key>,
    pub intents: Intents<IpAddr, Uuid>,
    pub reads: ReadFilter<Key>,
    pub seats: Seats<ProviderId, IpAddr, Uid>,
    /// The nodes, by name, to which addresses go that have left others for them, or are about to. Where several are meant for one
    /// (a status was restored), it is the first one's.
    pub promised: Seats<String, IpAddr, Uid>,
    /// The nodes, by name, to which addresses go next. Nothing is promised yet: whoever has the choice goes elsewhere, or all
    /// who share a pool would look at one machine, one after another.
    pub sought: Seats<String, IpAddr, Uid>,
    pub breakers: BTreeMap<Uid, Breaker>,
    /// Operations of which this process has ended an effect: their next attempt needs a new id (F9).
    spent: BTreeMap<IpAddr, Uuid>,
    failures: BTreeMap<IpAddr, Failure>,
    refusals: BTreeMap<IpAddr, BTreeMap<String, Timestamp>>,
    evictions: BTreeMap<String, Asked>,
    debts: BTreeMap<MachineId, Paying>,
    readiness: BTreeMap<String, Readiness>,
    /// The life of each held Node that was seen last, by its uid.
    lives: BTreeMap<String, String>,
    /// Until when what the last leader changed may not be shown.
    inherited: BTreeMap<IpAddr, Instant>,
    /// By machine: a Node of the same name may be another machine's.
    absent: BTreeMap<ProviderId, Timestamp>,
}

/// A pod that was asked to go.
#[derive(Clone, Debug)]
struct Asked {
    blocked: Option<String>,
    again: Timestamp,
    refusals: u32,
}

/// How this process has seen a node last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Without a break since then; `became`: it was Ready before, so this is when it began.
    NotReady {
        since: Timestamp,
        became: bool,
    },
}

/// What this process knows of paying a debt.
#[derive(Clone, Debug)]
enum Paying {
    /// Settled, or (with a text) refused for good.
    Ended(Option<String>),
    Failed {
        attempt: Uuid,
        kind: ErrorKind,
        attempts: u32,
        retry: Timestamp,
    },
}

impl Tables {
    /// For a process that became responsible at `birth`.
    pub fn new(birth: Instant) -> Self {
        Self {
            flights: Flights::new(),
            intents: Intents::new(),
            reads: ReadFilter::new(birth),
            seats: Seats::new(),
            promised: Seats::new(),
            sought: Seats::new(),
            breakers: BTreeMap::new(),
            spent: BTreeMap::new(),
            failures: BTreeMap::new(),
            refusals: BTreeMap::new(),
            evictions: BTreeMap::new(),
            debts: BTreeMap::new(),
            readiness: BTreeMap::new(),
            lives: BTreeMap::new(),
            inherited: BTreeMap::new(),
            absent: BTreeMap::new(),
        }
    }

    /// Takes address and machine for an effect, or neither.
    pub fn begin(&mut self, ip: IpAddr, machine: ProviderId) -> Option<Ticket<Key>> {
        self.flights.begin([Key::Address(ip), Key::Machine(machine)])
    }

    /// Whether an effect holds the address or the machine.
    pub fn busy(&self, ip: IpAddr, machine: Option<&ProviderId>) -> bool {
        self.flights.is_busy(&Key::Address(ip))
            || machine.is_some_and(|machine| self.flights.is_busy(&Key::Machine(machine.clone())))
    }

    /// A cloud effect ended well; its closing read began at `verified`.
    ///
    /// A detach does not make good the refusal of the attach that it undoes: that one's back-off stands.
    pub fn succeeded(&mut self, ip: IpAddr, machine: &ProviderId, operation: Uuid, verified: Instant, attach: bool) {
        let lag = read_lag(machine);
        self.reads.close(&Key::Address(ip), verified, lag);
        self.reads.close(&Key::Machine(machine.clone()), verified, lag);
        self.intents.ended(&ip, true);
        self.spent.insert(ip, operation);
        if attach || !self.failures.get(&ip).is_some_and(|failure| refuses_node(failure.kind)) {
            self.failures.remove(&ip);
        }
    }

    /// A cloud effect failed, and ended at `ended`.
    pub fn failed(
        &mut self,
        ip: IpAddr,
        node: &str,
        machine: &ProviderId,
        operation: Uuid,
        error: &CloudError,
        ended: &Moment,
    ) {
        let now = ended.now;
        self.reads.raise(&Key::Address(ip), ended.instant + read_lag(machine));
        self.changed(machine, ended.instant);
        self.intents.ended(&ip, error.settled);
        self.spent.insert(ip, operation);
        let attempts = self.failures.get(&ip).map_or(1, |known| known.attempts.saturating_add(1));
        let delay = backoff(error.kind).delay(attempts, ended.jitter());
        let retry = now.checked_add(delay).unwrap_or(now);
        self.failures.insert(ip, Failure { kind: error.kind, message: error.to_string(), attempts, retry });
        if refuses_node(error.kind) {
            self.refusals.entry(ip).or_default().insert(node.to_owned(), now);
        }
    }

    /// An entry as the last leader left it: what it changed a moment ago may not be shown yet, where reads lag (R1). `lag`:
    /// that of the cloud that the spec names, for an entry without a machine.
    pub fn inherit(&mut self, entry: &Entry, lag: Duration, moment: &Moment) {
        // A request of an open intent may have left until the last permitted instant.
        let moved = entry.operation.as_ref().map_or(entry.since, |operation| entry.since.max(operation.send_before));
        let age = Duration::try_from(moment.now.duration_since(moved)).unwrap_or_default();
        let lag = entry.machine.as_ref().map_or(lag, |machine| lag.max(read_lag(&machine.place)));
        let left = lag.saturating_sub(age);
        if left.is_zero() {
            return;
        }
        self.reads.raise(&Key::Address(entry.ip), moment.instant + left);
        let until = self.inherited.entry(entry.ip).or_insert(moment.instant);
        *until = (*until).max(moment.instant + left);
        if let Some(machine) = &entry.machine {
            self.reads.raise(&Key::Machine(machine.place.clone()), moment.instant + left);
        }
    }

    /// Whether a read of the address that began then may not show yet what the last leader changed.
    pub fn may_not_show(&self, ip: IpAddr, began: Instant) -> bool {
        self.inherited.get(&ip).is_some_and(|until| began < *until)
    }

    /// Something about the machine may have changed until `at`.
    pub fn changed(&mut self, machine: &ProviderId, at: Instant) {
        self.reads.raise(&Key::Machine(machine.clone()), at + read_lag(machine));
    }

    /// The deed was held back (a pod that came late, a node that could not be written): nothing was sent to the cloud.
    /// The attempt counts as spent, so that the next one waits for `retry`.
    pub fn held_back(&mut self, ip: IpAddr, operation: Uuid, message: String, now: Timestamp) {
        self.intents.ended(&ip, true);
        self.spent.insert(ip, operation);
        let attempts = self.failures.get(&ip).map_or(1, |known| known.attempts.saturating_add(1));
        let retry = now.checked_add(HELD_BACK.delay(attempts, 0.0)).unwrap_or(now);
        self.failures.insert(ip, Failure { kind: ErrorKind::Unavailable, message, attempts, retry });
    }

    /// Labelling, or taking labels off, failed.
    pub fn node_failed(&mut self, ip: IpAddr, message: String, now: Timestamp, jitter: f64) {
        let attempts = self.failures.get(&ip).map_or(1, |known| known.attempts.saturating_add(1));
        let retry = now.checked_add(Backoff::TRANSIENT.delay(attempts, jitter)).unwrap_or(now);
        self.failures.insert(ip, Failure { kind: ErrorKind::Unavailable, message, attempts, retry });
    }

    /// Address or labels are as they should be, however that came about.
    pub fn clear_failure(&mut self, ip: IpAddr) {
        self.failures.remove(&ip);
    }

    /// The last failure of the address, until it succeeds.
    pub fn failure(&self, ip: IpAddr) -> Option<&Failure> {
        self.failures.get(&ip)
    }

    /// Whether an effect of this operation has ended here.
    pub fn is_spent(&self, ip: IpAddr, operation: Uuid) -> bool {
        self.spent.get(&ip) == Some(&operation)
    }

    /// When an address that is being released was read off its machine, by the detach that this process has ended well.
    pub fn left(&self, entry: &Entry) -> Option<Instant> {
        let operation = entry.operation.as_ref().filter(|_| entry.state == State::Releasing)?;
        self.reads.closed(&Key::Address(entry.ip)).filter(|_| self.is_spent(entry.ip, operation.id))
    }

    /// The node cannot take the address now: others come first.
    pub fn refuse(&mut self, ip: IpAddr, node: &str, now: Timestamp) {
        self.refusals.entry(ip).or_default().insert(node.to_owned(), now);
    }

    /// Nodes that refused the address a moment ago.
    pub fn refused(&mut self, ip: IpAddr, now: Timestamp) -> BTreeSet<String> {
        let Some(nodes) = self.refusals.get_mut(&ip) else { return BTreeSet::new() };
        nodes.retain(|_, then| now.duration_since(*then) < REFUSAL);
        nodes.keys().cloned().collect()
    }

    /// Since when the node is NotReady, if it is; `said` is what its condition says.
    ///
    /// That was said by another machine's clock, and would cut a grace short or draw it out by as much as the clocks
    /// differ: it counts only where this process has not seen the change itself.
    pub fn not_ready(&mut self, node: &str, said: Option<Timestamp>, now: Timestamp) -> Option<NotReady> {
        let seen = self.readiness.entry(node.to_owned());
        let Some(said) = said else {
            *seen.or_insert(Readiness::Ready) = Readiness::Ready;
            return None;
        };
        let seen = seen.or_insert(Readiness::NotReady { since: now, became: false });
        if *seen == Readiness::Ready {
            *seen = Readiness::NotReady { since: now, became: true };
        }
        match *seen {
            Readiness::NotReady { since, became: true } => Some(NotReady { since, seen_since: since }),
            Readiness::NotReady { since, became: false } => Some(NotReady { since: said, seen_since: since }),
            Readiness::Ready => None,
        }
    }

    /// The Node of a held address was seen. Created anew under its name, it may stand for another machine of that name: what
    /// was read before says nothing about it (R1), and since when the other was NotReady neither.
    pub fn seen_life(&mut self, node: &str, uid: Option<&str>, machine: &ProviderId, now: Instant) {
        let Some(uid) = uid else { return };
        match self.lives.get(node) {
            Some(known) if known == uid => return,
            Some(_) => {
                self.readiness.remove(node);
                self.changed(machine, now);
            }
            None => {}
        }
        self.lives.insert(node.to_owned(), uid.to_owned());
    }

    /// Since when this process has missed the Node object (or seen it again). One that is back may stand for another machine
    /// of its name, like one that was created anew.
    pub fn seen_absent(&mut self, machine: &ProviderId, absent: bool, moment: &Moment) -> Timestamp {
        if !absent {
            if self.absent.remove(machine).is_some() {
                self.changed(machine, moment.instant);
            }
            return moment.now;
        }
        *self.absent.entry(machine.clone()).or_insert(moment.now)
    }

    /// A pod was asked to go; `blocked` is why it may not yet.
    pub fn asked(&mut self, pod: &str, blocked: Option<String>, now: Timestamp, jitter: f64) {
        let refusals = match (&blocked, self.evictions.get(pod)) {
            (Some(_), Some(known)) => known.refusals.saturating_add(1),
            (Some(_), None) => 1,
            (None, _) => 0,
        };
        // Accepted: its deletion shows in a moment; asked again only if that gets lost.
        let delay = if refusals == 0 { Duration::from_secs(30) } else { EVICTION_REFUSED.delay(refusals, jitter) };
        let again = now.checked_add(delay).unwrap_or(now);
        self.evictions.insert(pod.to_owned(), Asked { blocked, again, refusals });
    }

    /// Completes a user with what was heard when it was asked to go.
    pub fn tell_asked(&self, user: &mut User) {
        if let Some(asked) = self.evictions.get(&user.uid) {
            user.eviction_blocked = asked.blocked.clone();
            user.ask_again = Some(asked.again);
        }
    }

    /// A debt is settled, or (with a text) refused for good.
    pub fn restored(&mut self, machine: &MachineId, refused: Option<String>) {
        self.debts.insert(machine.clone(), Paying::Ended(refused));
    }

    /// An attempt to pay a debt failed.
    pub fn restore_failed(&mut self, machine: &MachineId, attempt: Uuid, error: &CloudError, ended: &Moment) {
        let now = ended.now;
        let attempts = match self.debts.get(machine) {
            Some(Paying::Failed { attempts, .. }) => attempts.saturating_add(1),
            Some(Paying::Ended(_)) | None => 1,
        };
        let retry = now.checked_add(backoff(error.kind).delay(attempts, ended.jitter())).unwrap_or(now);
        self.debts.insert(machine.clone(), Paying::Failed { attempt, kind: error.kind, attempts, retry });
    }

    /// How the debt ended, if it has.
    pub fn paid(&self, machine: &MachineId) -> Option<Option<String>> {
        match self.debts.get(machine)? {
            Paying::Ended(refused) => Some(refused.clone()),
            Paying::Failed { .. } => None,
        }
    }

    /// Whether an effect of this attempt has ended here.
    pub fn restore_spent(&self, machine: &MachineId, id: Uuid) -> bool {
        matches!(self.debts.get(machine), Some(Paying::Failed { attempt, .. }) if *attempt == id)
    }

    /// Whether the cloud denied the last attempt, or so many have failed that the machine itself may be why: one that is
    /// stopped takes nothing.
    pub fn is_restore_in_vain(&self, machine: &MachineId) -> bool {
        let in_vain = |kind: ErrorKind, attempts| kind.is_denial() || attempts >= IN_VAIN;
        matches!(self.debts.get(machine), Some(Paying::Failed { kind, attempts, .. }) if in_vain(*kind, *attempts))
    }

    /// Not tried again before.
    pub fn restore_retry(&self, machine: &MachineId) -> Option<Timestamp> {
        match self.debts.get(machine)? {
            Paying::Failed { retry, .. } => Some(*retry),
            Paying::Ended(_) => None,
        }
    }

    /// A debt that was just made: how an earlier one to the same machine ended says nothing about it.
    pub fn renew_debt(&mut self, machine: &MachineId) {
        if matches!(self.debts.get(machine), Some(Paying::Ended(_))) {
            self.debts.remove(machine);
        }
    }

    /// A debt that is out of status.
    pub fn forget_debt(&mut self, machine: &MachineId) {
        self.debts.remove(machine);
    }

    /// Forgets an allocation that is gone.
    pub fn forget_owner(&mut self, uid: &Uid) {
        self.seats.drop_owner(uid);
        self.promised.drop_owner(uid);
        self.sought.drop_owner(uid);
        self.breakers.remove(uid);
    }

    /// Forgets an address that is nobody's any more.
    pub fn forget(&mut self, ip: IpAddr) {
        self.failures.remove(&ip);
        self.refusals.remove(&ip);
        self.spent.remove(&ip);
        self.inherited.remove(&ip);
        self.intents.forget(&ip);
        self.reads.forget(&Key::Address(ip));
    }

    /// Forgets what is over, so that nothing grows with the cluster's history: pods asked long ago, nodes that are gone and
    /// named by no entry (their clocks start anew should they come back), and when machines were changed that no Node is any
    /// more. `nodes`: the names of all; `machines`: what they stand for.
    pub fn prune(&mut self, moment: &Moment, nodes: &BTreeSet<String>, machines: &BTreeSet<ProviderId>) {
        let now = moment.now;
        self.reads.retain(|key, floor| match key {
            Key::Address(_) => true,
            Key::Machine(place) => machines.contains(place) || moment.since(floor) < READS_KEPT,
        });
        self.evictions.retain(|_, asked| now.duration_since(asked.again) < FORGET_AFTER);
        self.readiness.retain(|node, _| nodes.contains(node));
        self.lives.retain(|node, _| nodes.contains(node));
        self.absent.retain(|_, since| now.duration_since(*since) < ABSENCE);
    }
}

/// Longer than what was read of a single machine is kept: no read from before the change is left then.
const READS_KEPT: Duration = Duration::from_secs(3600);
/// A passing failure is over by then.
const IN_VAIN: u32 = 5;
/// A pod that was asked to go is remembered for so long after it might be asked again.
const FORGET_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// A Node that is gone is remembered beyond the longest `failover.notReadySeconds`, 30 days.
const ABSENCE: SignedDuration = SignedDuration::from_hours(31 * 24);
/// A deed that was held back looks again soon at first: most pods that come late leave at once.
const HELD_BACK: Backoff = Backoff { first: Duration::from_secs(3), most: Duration::from_secs(30) };
/// A budget that allows nothing now is asked again after seconds, not at once and not after minutes.
const EVICTION_REFUSED: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_secs(30) };

/// How far what the machine's cloud shows lags behind what is so (R1).
fn read_lag(machine: &ProviderId) -> Duration {
    machine.place().map_or(Duration::ZERO, |place| place.provider.read_lag())
}

fn backoff(kind: ErrorKind) -> Backoff {
    match kind {
        ErrorKind::Throttled => Backoff::THROTTLED,
        ErrorKind::Denied
        | ErrorKind::Unauthenticated
        | ErrorKind::Quota
        | ErrorKind::Unsupported
        | ErrorKind::Invalid => Backoff::PERMANENT,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => Backoff::TRANSIENT,
    }
}

/// The cloud says that this node cannot take this address, now or ever: try another (P11).
pub fn refuses_node(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Conflict | ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Quota => {
            true
        }
        ErrorKind::Denied
        | ErrorKind::Unauthenticated
        | ErrorKind::Throttled
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Provider;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + s).unwrap()
    }

    fn refusal(kind: ErrorKind) -> CloudError {
        CloudError::new(kind, "instances.addAccessConfig", "no")
    }

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    fn fail(tables: &mut Tables, kind: ErrorKind, now: Timestamp) {
        let machine = ProviderId::new("gce://p/us-west1-a/a");
        let ended = Moment { now, instant: Instant::now(), chance: Uuid::nil() };
        tables.failed(IP, "a", &machine, Uuid::from_u128(1), &refusal(kind), &ended);
    }

    #[test]
    fn p11_failures_in_a_row_wait_longer_by_their_kind() {
        let mut tables = Tables::new(Instant::now());
        let mut waits = |kind, n: usize| {
            tables.clear_failure(IP);
            (0..n).for_each(|_| fail(&mut tables, kind, at(0)));
            tables.failure(IP).unwrap().retry.duration_since(at(0)).as_secs()
        };
        assert_eq!([1, 2, 3].map(|n| waits(ErrorKind::Unavailable, n)), [1, 2, 4]);
        assert_eq!([1, 2, 3].map(|n| waits(ErrorKind::Denied, n)), [30, 60, 120]);
        assert_eq!(waits(ErrorKind::Throttled, 1), 60, "quotas refill on the minute");
    }

    #[test]
    fn p11_a_node_that_refused_comes_last_for_ten_minutes_and_a_hiccup_is_no_refusal() {
        let mut tables = Tables::new(Instant::now());
        fail(&mut tables, ErrorKind::Timeout, at(0));
        assert!(tables.refused(IP, at(1)).is_empty());
        fail(&mut tables, ErrorKind::Unsupported, at(0));
        assert_eq!(tables.refused(IP, at(599)), BTreeSet::from(["a".to_owned()]));
        assert!(tables.refused(IP, at(600)).is_empty());
    }

    #[test]
    fn p11_undoing_an_attach_does_not_make_its_refusal_good() {
        let machine = ProviderId::new("gce://p/us-west1-a/a");
        let mut tables = Tables::new(Instant::now());
        fail(&mut tables, ErrorKind::Quota, at(0));
        tables.succeeded(IP, &machine, Uuid::from_u128(2), Instant::now(), false);
        assert!(tables.failure(IP).is_some(), "the next attach still waits");
        tables.succeeded(IP, &machine, Uuid::from_u128(3), Instant::now(), true);
        assert!(tables.failure(IP).is_none());
    }

    #[test]
    fn p11_a_pod_that_may_not_go_is_asked_again_soon_and_forgotten_when_it_is_over() {
        let mut tables = Tables::new(Instant::now());
        let mut user = User { uid: "1".into(), ..User::plain("sip") };
        tables.asked("1", Some("budget".into()), at(0), 0.0);
        tables.tell_asked(&mut user);
        assert_eq!((user.eviction_blocked.as_deref(), user.ask_again), (Some("budget"), Some(at(5))));
        tables.prune(&Moment { now: at(2000), ..Moment::here() }, &BTreeSet::new(), &BTreeSet::new());
        user.ask_again = None;
        tables.tell_asked(&mut user);
        assert_eq!(user.ask_again, None);
    }

    #[test]
    fn p5_a_node_that_is_promised_is_taken_for_others_until_that_allocation_is_gone() {
        let mut tables = Tables::new(Instant::now());
        let [red, blue] = ["red", "blue"].map(str::to_owned);
        tables.promised.set(&red, [("c".to_owned(), IP)]);
        assert!(tables.promised.is_anothers("c", &blue));
        assert!(!tables.promised.is_anothers("c", &red) && !tables.promised.is_anothers("d", &blue));
        tables.forget_owner(&red);
        assert!(!tables.promised.is_anothers("c", &blue));
    }

    #[test]
    fn a_node_that_two_seek_is_the_first_ones_and_the_other_looks_elsewhere() {
        let mut tables = Tables::new(Instant::now());
        let [red, blue] = ["red", "blue"].map(str::to_owned);
        let later = IpAddr::from([203, 0, 113, 200]);
        tables.sought.set(&blue, [("c".to_owned(), later)]);
        assert!(tables.sought.is_anothers("c", &red) && !tables.sought.is_anothers("c", &blue));
        tables.sought.set(&red, [("c".to_owned(), IP)]);
        assert!(!tables.sought.is_anothers("c", &red) && tables.sought.is_anothers("c", &blue));
        tables.forget_owner(&red);
        assert!(!tables.sought.is_anothers("c", &blue));
    }

    #[test]
    fn a_node_that_is_created_anew_was_not_not_ready_before_that() {
        let mut tables = Tables::new(Instant::now());
        let machine = ProviderId::new("gce://prod/us-west1-a/n");
        for uid in ["1", "2"] {
            let began = if uid == "1" { 0 } else { 600 };
            tables.seen_life("n", Some(uid), &machine, Instant::now());
            assert_eq!(tables.not_ready("n", None, at(began)), None, "life {uid}");
            let since = tables.not_ready("n", Some(at(began + 10)), at(began + 10)).map(|known| known.since);
            assert_eq!(since, Some(at(began + 10)), "life {uid}");
            tables.seen_life("n", Some(uid), &machine, Instant::now());
            assert_eq!(
                tables.not_ready("n", Some(at(0)), at(began + 20)).map(|known| known.since),
                since,
                "life {uid}"
            );
        }
        tables.seen_life("n", Some("3"), &machine, Instant::now());
        let since = tables.not_ready("n", Some(at(900)), at(901)).map(|known| known.since);
        assert_eq!(since, Some(at(900)), "NotReady from its beginning, and no longer");
    }

    #[test]
    fn when_a_machine_was_changed_is_forgotten_an_hour_after_its_node_has_gone() {
        let began = Moment::here();
        let mut tables = Tables::new(began.instant);
        let [gone, there] = ["gone", "there"].map(|name| ProviderId::new(format!("gce://prod/us-west1-a/{name}")));
        let later = |seconds| Moment { instant: began.instant + Duration::from_secs(seconds), ..began };
        for place in [&gone, &there] {
            tables.changed(place, later(60).instant);
        }
        let counts = |tables: &Tables, place: &ProviderId| {
            tables.reads.counts([&Key::Machine(place.clone())], later(30).instant)
        };
        let machines = BTreeSet::from([there.clone()]);
        tables.prune(&later(600), &BTreeSet::new(), &machines);
        assert!(!counts(&tables, &gone) && !counts(&tables, &there));
        tables.prune(&later(4000), &BTreeSet::new(), &machines);
        assert!(counts(&tables, &gone) && !counts(&tables, &there));
    }

    #[test]
    fn an_intent_of_a_clock_that_is_ahead_is_not_waited_for_until_ours_has_caught_up() {
        assert_eq!(left_to_send(at(30), at(0)), Duration::from_secs(30));
        assert_eq!(left_to_send(at(0), at(30)), Duration::ZERO, "its time is over");
        assert_eq!(left_to_send(at(3600), at(0)), Duration::from_secs(60), "nobody writes one for an hour");
    }

    #[test]
    fn a_node_that_was_seen_to_become_not_ready_is_so_since_then_whatever_another_clock_says() {
        let mut tables = Tables::new(Instant::now());
        let (ahead, behind) = (at(-600), at(600));
        let unseen = tables.not_ready("n", Some(ahead), at(0));
        assert_eq!(unseen, Some(NotReady { since: ahead, seen_since: at(0) }), "it was so before this process looked");
        assert_eq!(tables.not_ready("n", Some(ahead), at(5)), unseen);
        for said in [ahead, behind] {
            assert_eq!(tables.not_ready("n", None, at(10)), None);
            let seen = Some(NotReady { since: at(20), seen_since: at(20) });
            assert_eq!(tables.not_ready("n", Some(said), at(20)), seen);
            assert_eq!(tables.not_ready("n", Some(said), at(30)), seen);
        }
    }

    #[test]
    fn a_new_leader_does_not_believe_reads_of_what_the_last_one_changed_a_moment_ago() {
        let born = Instant::now();
        let counts = |provider: Provider, machine: Option<&str>, now: i64, after: u64| {
            let mut tables = Tables::new(born);
            let machine = machine.map(|machine| machine.parse().unwrap());
            let entry = Entry { machine, ..Entry::new(IP, at(0)) };
            let moment = Moment { now: at(now), instant: born, chance: Uuid::nil() };
            tables.inherit(&entry, provider.read_lag(), &moment);
            let began = born + Duration::from_secs(after);
            let counts = tables.reads.counts([&Key::Address(IP)], began);
            assert_eq!(tables.may_not_show(IP, began), !counts);
            counts
        };
        for machine in [Some("aws:///us-west-2a/i-0abc#i-0abc"), None] {
            let aws = |now, after| counts(Provider::Aws, machine, now, after);
            assert!(!aws(5, 24) && aws(5, 25), "30 s after it was written");
            assert!(aws(31, 0));
        }
        assert!(counts(Provider::Gcp, Some("gce://p/us-west1-a/a#17"), 0, 0), "what Google shows does not lag");
    }
}
