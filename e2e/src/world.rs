//! One model of a cloud, for every test, the wire simulator, the demo and the benchmarks.
//!
//! A [`World`] holds accounts with reserved addresses and machines, answers calls through a pipeline that the façades
//! share (credentials, rate limit, script of faults, holds, latency, permissions), carries changes out as operations
//! that take time, and remembers what was called and what took effect. It knows no provider's wire and no Kubernetes.
//!
//! Three ways in:
//! - [`World::read`], [`World::submit`] and the operations: what a façade calls for a request that came in;
//! - control operations ([`World::add_machine`], [`World::move_address`], [`World::fail_next`], [`World::hold`], …): what a
//!   test does to the cloud behind the operator's back;
//! - witnesses ([`World::calls`], [`World::holder`], [`World::attaches`], [`World::removals`], [`World::violations`]): what a
//!   test asks afterwards.
//!
//! A call that has arrived runs to its end even when its caller goes away, as in a real cloud. All time is tokio's, so
//! that tests can pause it; only time stamps that are shown on the wire are the wall clock's.

mod call;
mod control;
mod fault;
mod hold;
mod inventory;
mod ledger;
mod operation;
mod past;
mod pipeline;
mod refusal;
mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use self::{
    call::{Budgets, Log},
    fault::Script,
    hold::Gates,
    ledger::Ledger,
    past::Past,
};
pub use self::{
    call::{Call, Outcome, Quota, RateLimit},
    fault::Fault,
    hold::{Hold, Point},
    inventory::{
        Address, Change, Done, External, GLOBAL, Holder, Inventory, Machine, MachineKey, NewMachine, Power, Tier,
    },
    ledger::{Actor, Removal},
    operation::{Operation, Phase},
    refusal::Refusal,
};

/// How long a healthy cloud takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// From a request to its answer.
    pub answer: Duration,
    /// From the acceptance of a change to its effect, at least.
    pub operation: Duration,
    /// Up to so much longer, each a little otherwise than the one before; the same in every run.
    pub spread: Duration,
}

impl Latency {
    /// How long the operation of that number takes.
    fn of_operation(&self, number: usize) -> Duration {
        // Multiples of the golden ratio fill the interval evenly, whatever their count.
        let share = (number as f64 * 0.618_033_988_749_894_9).fract();
        self.operation + self.spread.mul_f64(share)
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody asks for credentials, as in a test without a wire.
    Trusted,
    /// The bearer token of the request, if it had one.
    Bearer(Option<String>),
}

/// Where a call goes; a place that does not exist is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Account,
    Region(String),
    Zone(String),
}

/// A call as it arrives.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Resource and method as the cloud calls them, for example `addresses.list`.
    pub method: String,
    pub account: String,
    pub place: Place,
    /// What it is about, as a path; for the log, and for faults that are meant for one thing.
    pub target: String,
    /// What cuts a list, in the cloud's words; empty where nothing does.
    pub filter: String,
    pub caller: Caller,
    /// Permissions that the caller needs, in the provider's words.
    pub permissions: Vec<String>,
}

/// What the caller gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Given(T),
    Refused(Refusal),
    /// No answer, ever; the connection stays open.
    Silence,
    /// The connection is closed.
    Closed,
}

/// A simulated cloud. Cheap to clone; all clones are the same cloud.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Moves with every change, so that waiting needs no polling.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    inventory: Inventory,
    past: Past,
    own_returns_after: Duration,
    operations: BTreeMap<String, Operation>,
    /// Operations by account and the request id that the caller gave.
    requests: BTreeMap<(String, String), String>,
    latency: Latency,
    log: Log,
    budgets: Budgets,
    script: Script,
    gates: Gates,
    ledger: Ledger,
    tokens: BTreeSet<String>,
    tokens_issued: u64,
    revoked: bool,
    denied: BTreeSet<String>,
}

impl State {
    /// Everything about a call that does not depend on what it asks.
    fn admits(&self, ask: &Ask) -> Result<(), Refusal> {
        if let Some(permission) = ask.permissions.iter().find(|permission| self.denied.contains(*permission)) {
            return Err(Refusal::Denied { permission: permission.clone(), target: ask.target.clone() });
        }
        if !self.inventory.has_account(&ask.account) {
            return Err(Refusal::NoSuchAccount(ask.account.clone()));
        }
        match &ask.place {
            Place::Region(name) if !self.inventory.regions(&ask.account).contains(&name.as_str()) => {
                Err(Refusal::NoSuchPlace { what: "region", name: name.clone() })
            }
            Place::Zone(name) if !self.inventory.has_zone(&ask.account, name) => {
                Err(Refusal::NoSuchPlace { what: "zone", name: name.clone() })
            }
            Place::Account | Place::Region(_) | Place::Zone(_) => Ok(()),
        }
    }

    fn knows(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Trusted => true,
            Caller::Bearer(token) => token.as_ref().is_some_and(|token| self.tokens.contains(token)),
        }
    }

    /// Carries a change out, and writes down who did what.
    fn apply(&mut self, change: &Change, by: Actor) -> Result<(), Refusal> {
        let machine_id = self.inventory.machine(change.machine()).map_or(0, |machine| machine.id);
        if let Change::Take { ip, .. } = change {
            self.inventory.accepts(change)?;
            self.free(*ip, by);
        }
        let done = self.inventory.apply(change)?;
        match done {
            Done::Attached { external, displaced } => {
                if let Some(displaced) = displaced {
                    self.removed(change.machine().clone(), machine_id, &displaced, by);
                }
                if let (Some(ip), true, Actor::Api) = (external.ip, external.reserved, by) {
                    let count = self.ledger.attaches.entry(ip).or_default();
                    *count = count.saturating_add(1);
                }
            }
            Done::Detached(external) => self.removed(change.machine().clone(), machine_id, &external, by),
        }
        self.witness();
        Ok(())
    }

    fn removed(&mut self, machine: MachineKey, machine_id: u64, external: &External, by: Actor) {
        self.ledger.removals.push(Removal {
            at: tokio::time::Instant::now(),
            by,
            machine,
            machine_id,
            ip: external.ip,
            reserved: external.reserved,
        });
    }

    /// Takes down what is wrong now, so that a passing wrong is not missed.
    fn witness(&mut self) {
        let faults = self.inventory.faults();
        self.ledger.violations.extend(faults);
    }

    fn remove_machine(&mut self, key: &MachineKey) -> Option<Machine> {
        let machine = self.inventory.remove_machine(key)?;
        if let Some(external) = &machine.external {
            self.removed(key.clone(), machine.id, external, Actor::Lifecycle);
        }
        Some(machine)
    }

    /// Takes an address from wherever it sits.
    fn free(&mut self, ip: IpAddr, by: Actor) {
        if let Some(address) = self.inventory.address_mut(ip) {
            address.foreign = None;
        }
        if let Some(Holder::Machine(machine)) = self.inventory.holder(ip) {
            self.strip(&machine, by);
        }
    }

    /// Takes whatever a machine has.
    fn strip(&mut self, machine: &MachineKey, by: Actor) {
        let config =
            self.inventory.machine(machine).and_then(|machine| Some(machine.external.as_ref()?.config.clone()));
        if let Some(config) = config {
            let change = Change::Detach { machine: machine.clone(), config };
            // Cannot be refused: the configuration was read under the same lock.
            let _ = self.apply(&change, by);
        }
    }

    /// What a reader sees: what is in force, or what was so much earlier.
    fn shown(&self) -> &Inventory {
        self.past.seen().unwrap_or(&self.inventory)
    }

    fn key(&self, name: &str) -> Option<MachineKey> {
        self.inventory.machines().find(|machine| machine.key.name == name).map(|machine| machine.key.clone())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The one way to the state: every change wakes whoever waits for one.
impl World {
    /// An empty cloud without latency, limits or faults.
    pub fn new() -> Self {
        let inner = Inner { state: Mutex::default(), changes: watch::Sender::new(0) };
        Self { inner: Arc::new(inner) }
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.past.lags().then(|| state.inventory.clone());
        let changed = change(&mut state);
        if let Some(before) = before.filter(|before| *before != state.inventory) {
            state.past.keep(before);
        }
        drop(state);
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    async fn wait_for<T>(&self, seen: impl Fn(&State) -> Option<T>) -> T {
        self.until(|world| world.look(&seen)).await
    }
}
