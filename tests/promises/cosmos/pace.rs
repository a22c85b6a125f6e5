//! How fast a process may ask its cloud, in a world that has a pace: the queue, the token bucket and the slots that ship
//! (`cloud::limits::queue`), and around them what `cloud::limits`, `Controller::{ask_permit, take_permits, put_back}` and `CloudView` do
//! with them. A world has one scope, so a process has one queue.
//!
//! Where a world has no pace, everything is to be had at once, and whenever time passes everybody looks. With one, an
//! allocation is looked at when it is woken or when its last pass has said so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::{
    allocation::{
        moment::Moment,
        observe::answers::{Asking, Question, Reply},
        round::{Round, Wish},
    },
    cloud::{
        Interface, Provider, Scope,
        limits::queue::{Need, Queue, Rate, Ticket, Turn, Urgency},
    },
    lifecycle::backoff::Backoff,
};

use super::{
    cloud::Order,
    errand::{Call, Errand},
};

/// `MAX_CONCURRENT_EFFECTS` as it ships.
pub const SLOTS: u32 = 32;
/// A permit that no pass has used for so long goes to somebody else: `allocation::PERMIT_KEPT`.
const PERMIT_KEPT: Duration = Duration::from_secs(30);
/// Between two looks of the sweep: `allocation::stray::EVERY`.
const SWEEP: Duration = Duration::from_secs(2);
/// Google Cloud lists so many addresses at once: `cloud::gcp::read::PAGE`.
const PAGE: usize = 500;

/// An allocation, and the address or machine that a change is about.
type Key = (String, String);

/// What a request to the cloud was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The first page of a survey.
    Survey,
    /// A further one.
    Page,
    Find,
    Inspect,
    /// Whose the address is that a machine has (Google Cloud).
    Whose,
    /// A change, by the cloud's name of the call.
    Change(&'static str),
    /// The end of a change is waited for.
    Wait,
}

/// A request to the cloud.
#[derive(Clone, Debug)]
pub struct Made {
    pub at: Instant,
    pub what: What,
    pub urgency: Urgency,
    /// The allocation on whose turn it was made.
    pub whose: String,
    /// The address that the change is about; `None` for a read that is none of a change's.
    pub address: Option<IpAddr>,
    /// Nobody had waited for its token.
    pub overdrawn: bool,
    /// Tokens that changes had taken and not spent, just before it left.
    pub reserved: u32,
}

/// A turn at the queue.
#[derive(Clone, Debug)]
pub struct Served {
    pub at: Instant,
    pub urgency: Urgency,
    pub whose: String,
    /// A change; else a read.
    pub change: bool,
    /// Somebody more urgent waited, who could have been served as well.
    pub passed_over: bool,
}

/// A pass.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    pub whose: String,
    /// It wrote the status.
    pub wrote: bool,
    /// What it took of this thread in truth, where the kernel counts that. Nothing depends on it.
    pub cost: Option<Duration>,
}

/// What came of it, over all terms, for those who count.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub made: Vec<Made>,
    pub served: Vec<Served>,
    pub looks: Vec<Look>,
}

/// For what tokens are waited.
#[derive(Clone, Debug)]
enum For {
    /// With the tokens of so many requests.
    Change(Key, u32),
    Read(Question, Scope),
}

#[derive(Clone, Debug)]
struct Waiter {
    party: String,
    what: For,
}

/// A question that waits or is on its way.
#[derive(Clone, Debug)]
struct Reading {
    /// While it waits,
    ticket: Ticket,
    /// for whom, and how urgently.
    whose: String,
    urgency: Urgency,
}

/// A slot, and the tokens that are left of those that were waited for: `allocation::Permit`.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    urgency: Urgency,
    left: u32,
    since: Instant,
}

/// What somebody has got.
#[derive(Clone, Debug)]
pub enum Got {
    /// A permit, for this allocation.
    Permit(String),
    /// The token of a question, which may be asked now.
    Read(Question, Scope),
}

/// See the module. One per term: a process starts with a full bucket.
#[derive(Clone, Debug)]
pub struct Pace {
    kind: Provider,
    queue: Queue<Waiter>,
    /// Whoever is first need not ask before.
    not_before: Option<Instant>,
    /// Those who wait for a permit.
    asked: BTreeMap<Key, Ticket>,
    held: BTreeMap<Key, Permit>,
    /// Allocations that have got a permit and have not been looked at since.
    arrivals: BTreeSet<String>,
    /// Tokens that changes have taken and not spent.
    reserved: u32,
    reads: BTreeMap<Question, Reading>,
    /// When an allocation is to be looked at again.
    rechecks: BTreeMap<String, Instant>,
    /// Passes that have failed in a row.
    failures: BTreeMap<String, u32>,
    swept: Instant,
}

impl Pace {
    pub fn new(rate: Rate, slots: u32, kind: Provider, now: Instant) -> Self {
        Self {
            kind,
            queue: Queue::new(rate, slots, now),
            not_before: None,
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
            arrivals: BTreeSet::new(),
            reserved: 0,
            reads: BTreeMap::new(),
            rechecks: BTreeMap::new(),
            failures: BTreeMap::new(),
            swept: now,
        }
    }

    // The queue.

    /// Asks a question once at a time, as urgently as whoever asks it; whether it is news. Mirrors `CloudView::ask`.
    pub fn ask(&mut self, party: &str, question: Question, asking: Asking) -> bool {
        let Asking { scope, urgency } = asking;
        if let Some(Reading { ticket, .. }) = self.reads.get(&question) {
            let ticket = *ticket;
            self.urge(ticket, urgency);
            return false;
        }
        let ticket = self.join(party, urgency, Need::Read, For::Read(question.clone(), scope));
        self.reads.insert(question, Reading { ticket, whose: party.to_owned(), urgency });
        true
    }

    /// Waits for a permit; whether that is news. Mirrors `Controller::ask_permit`.
    pub fn ask_permit(&mut self, name: &str, wish: &Wish) -> bool {
        let key = (name.to_owned(), wish.subject.clone());
        if let Some(ticket) = self.asked.get(&key).copied() {
            self.urge(ticket, wish.urgency);
            return false;
        }
        let requests = self.kind.requests_of(wish.change);
        let what = For::Change(key.clone(), requests);
        let ticket = self.join(name, wish.urgency, Need::Change { requests }, what);
        self.asked.insert(key, ticket);
        true
    }

    fn join(&mut self, party: &str, urgency: Urgency, need: Need, what: For) -> Ticket {
        self.not_before = None;
        self.queue.join(urgency, party, need, Waiter { party: party.to_owned(), what })
    }

    fn urge(&mut self, ticket: Ticket, urgency: Urgency) {
        if self.queue.raise(ticket, urgency) {
            self.not_before = None;
        }
    }

    /// Whether somebody may be served now.
    pub fn can_serve(&self, now: Instant) -> bool {
        self.queue.first().is_some() && self.not_before.is_none_or(|then| then <= now)
    }

    /// When whoever is first has its tokens, as far as that is known.
    pub fn next_turn(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.queue.first().is_some())
    }

    /// Whoever is first gets what it waits for, if that is there. `knows`: whether there is an object of that name.
    pub fn serve(&mut self, now: Instant, knows: impl Fn(&str) -> bool, journal: &mut Journal) -> Option<Got> {
        let ticket = self.queue.first()?;
        let urgency = self.queue.urgency(ticket)?;
        let passed_over = self.queue.passes_over();
        let Waiter { party, what } = self.queue.first_waiter()?.clone();
        match self.queue.ask(ticket, now) {
            Turn::Yours => self.not_before = None,
            Turn::At(then) => {
                self.not_before = Some(then);
                return None;
            }
            // Nobody is before the first.
            Turn::Behind => return None,
        }
        let change = matches!(what, For::Change(..));
        journal.served.push(Served { at: now, urgency, whose: party.clone(), change, passed_over });
        match what {
            For::Change(key, left) => {
                self.reserved += left;
                self.asked.remove(&key);
                let name = key.0.clone();
                let permit = Permit { urgency, left, since: now };
                let not_held = if knows(&name) { self.held.insert(key, permit) } else { Some(permit) };
                if let Some(not_held) = not_held {
                    self.give_back(not_held);
                }
                self.arrivals.insert(name.clone());
                Some(Got::Permit(name))
            }
            For::Read(question, scope) => {
                if let Some(reading) = self.reads.get_mut(&question) {
                    reading.urgency = urgency;
                }
                let what = first_request(&question);
                let reserved = self.reserved;
                journal.made.push(Made {
                    at: now,
                    what,
                    urgency,
                    whose: party,
                    address: None,
                    overdrawn: false,
                    reserved,
                });
                Some(Got::Read(question, scope))
            }
        }
    }

    // Permits.

    /// Allocations that have got a permit and have not been looked at since.
    pub fn arrivals(&self) -> &BTreeSet<String> {
        &self.arrivals
    }

    /// Whose permits a pass takes: `Controller::take_permits`.
    pub fn permitted(&self, name: &str) -> BTreeSet<String> {
        self.held.keys().filter(|(whose, _)| whose == name).map(|(_, subject)| subject.clone()).collect()
    }

    /// What of them a round uses; what it keeps is put back, the others go back: `Controller::put_back`.
    pub fn use_permits(&mut self, name: &str, round: &Round) -> BTreeMap<String, Permit> {
        let mut used = BTreeMap::new();
        for ((whose, subject), permit) in std::mem::take(&mut self.held) {
            if whose == name && round.used.contains(&subject) {
                used.insert(subject, permit);
            } else if whose != name || round.kept.contains(&subject) {
                self.held.insert((whose, subject), permit);
            } else {
                self.give_back(permit);
            }
        }
        used
    }

    /// What a pass could not use because its status was not written, as old as it is. Mirrors `Controller::put_back`.
    pub fn keep(&mut self, name: &str, permits: BTreeMap<String, Permit>) {
        self.held.extend(permits.into_iter().map(|(subject, permit)| ((name.to_owned(), subject), permit)));
    }

    /// Slot and tokens go back. Mirrors the drop of a `Permit`.
    pub fn give_back(&mut self, permit: Permit) {
        self.reserved -= permit.left;
        self.queue.give_back(permit.left);
        self.queue.free_slot();
        self.not_before = None;
    }

    /// Mirrors `Controller::return_permits` and `Controller::forget`.
    pub fn forget(&mut self, name: &str) {
        self.rechecks.remove(name);
        self.failures.remove(name);
        self.return_those(|(whose, _), _| whose == name);
    }

    fn return_those(&mut self, goes: impl Fn(&Key, &Permit) -> bool) {
        for (key, permit) in std::mem::take(&mut self.held) {
            if goes(&key, &permit) {
                self.give_back(permit);
            } else {
                self.held.insert(key, permit);
            }
        }
    }

    // Requests.

    /// A request of an effect leaves, and spends a token of its permit or one that who asks next waits for. Mirrors
    /// `limits::spend`.
    pub fn spend(
        &mut self,
        permit: &mut Permit,
        whose: &str,
        address: Option<IpAddr>,
        what: What,
        now: Instant,
        journal: &mut Journal,
    ) {
        let overdrawn = permit.left == 0;
        let (urgency, reserved) = (permit.urgency, self.reserved);
        journal.made.push(Made { at: now, what, urgency, whose: whose.to_owned(), address, overdrawn, reserved });
        if overdrawn {
            self.queue.overdraw();
        } else {
            permit.left -= 1;
            self.reserved -= 1;
        }
    }

    /// A question was answered. What that took beyond its first request is overdrawn.
    pub fn heard(&mut self, question: &Question, reply: &Reply, now: Instant, journal: &mut Journal) {
        let Some(Reading { whose, urgency, .. }) = self.reads.remove(question) else { return };
        for what in further_requests(self.kind, reply) {
            let (whose, reserved) = (whose.clone(), self.reserved);
            journal.made.push(Made { at: now, what, urgency, whose, address: None, overdrawn: true, reserved });
            self.queue.overdraw();
        }
    }

    /// A question has no good answer.
    pub fn unheard(&mut self, question: &Question) {
        self.reads.remove(question);
    }

    // When to look.

    /// A pass begins. Until it has ended well it counts as one that fails. Mirrors `Controller::after_failure`.
    pub fn begins(&mut self, name: &str, moment: &Moment) {
        self.arrivals.remove(name);
        let failures = self.failures.entry(name.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        let again = moment.instant + Backoff::TRANSIENT.delay(*failures, moment.jitter());
        self.rechecks.insert(name.to_owned(), again);
    }

    /// It has ended well, and the allocation is to be looked at again then.
    pub fn ended_well(&mut self, name: &str, again: Instant) {
        self.failures.remove(name);
        self.rechecks.insert(name.to_owned(), again);
    }

    /// Allocations that are to be looked at by now, each told once.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.rechecks.iter().filter(|(_, then)| **then <= now);
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.rechecks.remove(name);
        }
        due
    }

    /// Whether the sweep looks now; permits that no pass has used for long go back then.
    pub fn sweeps(&mut self, now: Instant) -> bool {
        let sweeps = now.saturating_duration_since(self.swept) >= SWEEP;
        if sweeps {
            self.swept = now;
            self.return_those(|_, permit| now.saturating_duration_since(permit.since) >= PERMIT_KEPT);
        }
        sweeps
    }
}

fn first_request(question: &Question) -> What {
    match question {
        Question::Survey(_) => What::Survey,
        Question::Find(..) => What::Find,
        Question::Inspect(_) => What::Inspect,
    }
}

/// Beyond the first: further pages, and at Google Cloud whose the address is that a machine has. Those of the other clouds
/// are not counted.
fn further_requests(kind: Provider, reply: &Reply) -> Vec<What> {
    match reply {
        Reply::Survey(Ok(survey)) if kind == Provider::Gcp => {
            vec![What::Page; survey.addresses.len().div_ceil(PAGE).saturating_sub(1)]
        }
        Reply::Inspect(Ok(seat)) if kind == Provider::Gcp && seat.interface != Interface::Empty => vec![What::Whose],
        Reply::Survey(_) | Reply::Find(_) | Reply::Inspect(_) => Vec::new(),
    }
}

/// The requests to the cloud that a call of an effect takes. `accepted`: the cloud takes the change on, and its end is waited
/// for (Google Cloud and Azure).
pub fn requests(call: &Call, errand: &Errand, accepted: bool) -> Vec<What> {
    match call {
        Call::ReadNode(_) | Call::PatchLabels { .. } | Call::ListPods(_) | Call::Evict(_) => Vec::new(),
        Call::Inspect(_) => vec![What::Inspect],
        Call::Find(_) if errand.asks_whose() => vec![What::Find, What::Whose],
        Call::Find(_) => vec![What::Find],
        Call::Send(order) => {
            let change = What::Change(order.call());
            let waits =
                matches!(order, Order::DeleteConfig { .. } | Order::AddConfig { .. } | Order::PutInterface { .. });
            if accepted && waits { vec![change, What::Wait] } else { vec![change] }
        }
    }
}
