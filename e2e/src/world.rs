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
mod fault;
mod hold;
mod inventory;
mod ledger;
mod operation;
mod refusal;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use self::{
    call::{Budgets, Log},
    fault::Script,
    hold::Gates,
    ledger::Ledger,
};
pub use self::{
    call::{Call, Outcome, RateLimit},
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
    /// From the acceptance of a change to its effect.
    pub operation: Duration,
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
        let done = self.inventory.apply(change)?;
        match done {
            Done::Attached(External { ip: Some(ip), reserved: true, .. }) if by == Actor::Api => {
                let count = self.ledger.attaches.entry(ip).or_default();
                *count = count.saturating_add(1);
            }
            Done::Attached(_) => {}
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
    fn free(&mut self, ip: IpAddr) {
        if let Some(address) = self.inventory.address_mut(ip) {
            address.foreign = None;
        }
        if let Some(Holder::Machine(machine)) = self.inventory.holder(ip) {
            self.strip(&machine);
        }
    }

    /// Takes whatever a machine has.
    fn strip(&mut self, machine: &MachineKey) {
        let config =
            self.inventory.machine(machine).and_then(|machine| Some(machine.external.as_ref()?.config.clone()));
        if let Some(config) = config {
            let change = Change::Detach { machine: machine.clone(), config };
            // Cannot be refused: the configuration was read under the same lock.
            let _ = self.apply(&change, Actor::Outsider);
        }
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

/// Making and changing the cloud behind the operator's back. Machines are found by name; names are unique per test.
impl World {
    /// An empty cloud without latency, limits or faults.
    pub fn new() -> Self {
        let inner = Inner { state: Mutex::default(), changes: watch::Sender::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Makes an account known, and one of its regions.
    pub fn add_region(&self, account: &str, region: &str) {
        self.change(|state| state.inventory.add_place(account, region, None));
    }

    /// Makes an account known, and one of its zones with its region.
    pub fn add_zone(&self, account: &str, region: &str, zone: &str) {
        self.change(|state| state.inventory.add_place(account, region, Some(zone)));
    }

    /// Reserves an address; account and region exist from then on.
    pub fn add_address(&self, address: Address) {
        self.change(|state| {
            state.inventory.add_address(address);
            state.witness();
        });
    }

    /// Ends a reservation; a machine that had the address loses it.
    pub fn remove_address(&self, ip: IpAddr) {
        self.change(|state| {
            state.free(ip);
            state.inventory.remove_address(ip);
        });
    }

    /// Starts a machine; account, region and zone exist from then on. Returns the cloud's number of it.
    pub fn add_machine(&self, machine: NewMachine) -> u64 {
        self.change(|state| {
            let key = state.inventory.add_machine(machine);
            state.witness();
            state.inventory.machine(&key).map_or(0, |machine| machine.id)
        })
    }

    /// Switches a machine to this power state.
    pub fn set_power(&self, name: &str, power: Power) {
        self.change(|state| {
            if let Some(key) = state.key(name) {
                state.inventory.switch(&key, power);
            }
        });
    }

    /// Stops a machine: a reserved address stays with it, an ephemeral one goes.
    pub fn stop_machine(&self, name: &str) {
        self.set_power(name, Power::Stopped);
    }

    /// Starts a machine again.
    pub fn start_machine(&self, name: &str) {
        self.set_power(name, Power::Running);
    }

    /// Deletes a machine; a reserved address on it becomes free.
    pub fn delete_machine(&self, name: &str) {
        self.change(|state| {
            if let Some(key) = state.key(name) {
                state.remove_machine(&key);
            }
        });
    }

    /// Deletes a machine and starts another of the same name with an ephemeral address. Returns the new number.
    pub fn replace_machine(&self, name: &str) -> Option<u64> {
        self.change(|state| {
            let key = state.key(name)?;
            let old = state.remove_machine(&key)?;
            let key = state.inventory.add_machine(NewMachine::new(&key.account, &old.region, &key.zone, &key.name));
            state.inventory.machine(&key).map(|machine| machine.id)
        })
    }

    /// An outsider takes the address from wherever it is and puts it on this machine, instead of what that had.
    ///
    /// # Errors
    /// When the cloud would refuse that to anybody (other region, not reserved, no such machine).
    pub fn move_address(&self, ip: IpAddr, name: &str) -> Result<(), Refusal> {
        self.change(|state| {
            let machine = state.key(name).ok_or_else(|| Refusal::NoSuchMachine(MachineKey::new("", "", name)))?;
            let tier = state.inventory.address(ip).map_or(Tier::Premium, |address| address.tier);
            state.free(ip);
            state.strip(&machine);
            let config = "outsider".to_owned();
            state.apply(&Change::Attach { machine, config, ip: Some(ip), tier, ptr: None }, Actor::Outsider)
        })
    }

    /// An outsider takes the address off whatever holds it.
    pub fn free_address(&self, ip: IpAddr) {
        self.change(|state| state.free(ip));
    }

    /// Something that is no machine takes the address, for example `forwardingRules/web`.
    pub fn give_to_foreign(&self, ip: IpAddr, foreign: &str) {
        self.change(|state| {
            state.free(ip);
            if let Some(address) = state.inventory.address_mut(ip) {
                address.foreign = Some(foreign.to_owned());
            }
        });
    }

    /// Sets a label or tag of an address.
    pub fn tag_address(&self, ip: IpAddr, key: &str, value: &str) {
        self.change(|state| {
            if let Some(address) = state.inventory.address_mut(ip) {
                address.tags.insert(key.to_owned(), value.to_owned());
            }
        });
    }

    /// How long things take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.change(|state| state.latency = latency);
    }

    /// Limits the calls of each account from now on.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.change(|state| state.budgets.set(limit));
    }

    /// The next call of this method meets the fault. `instances.*` and `*` stand for any method that fits.
    pub fn fail_next(&self, method: &str, fault: Fault) {
        self.fail_next_of(method, "", fault);
    }

    /// The next call of this method whose target contains the text meets the fault.
    pub fn fail_next_of(&self, method: &str, target: &str, fault: Fault) {
        self.change(|state| state.script.add(method, target, fault, false));
    }

    /// Every call of this method meets the fault, until [`World::clear_faults`].
    pub fn fail_every(&self, method: &str, fault: Fault) {
        self.change(|state| state.script.add(method, "", fault, true));
    }

    /// No more faults from now on.
    pub fn clear_faults(&self) {
        self.change(|state| state.script.clear());
    }

    /// Calls of this method wait at this point while the [`Hold`] lives.
    pub fn hold(&self, method: &str, point: Point) -> Hold {
        let id = self.change(|state| state.gates.add(method, point));
        Hold { world: self.clone(), id }
    }

    /// Takes a permission from everybody, in the provider's words.
    pub fn deny(&self, permission: &str) {
        self.change(|state| state.denied.insert(permission.to_owned()));
    }

    /// Gives a permission back.
    pub fn allow(&self, permission: &str) {
        self.change(|state| state.denied.remove(permission));
    }

    /// Makes every token invalid and issues no more.
    pub fn revoke_credentials(&self) {
        self.change(|state| {
            state.tokens.clear();
            state.revoked = true;
        });
    }

    /// Issues tokens again.
    pub fn restore_credentials(&self) {
        self.change(|state| state.revoked = false);
    }
}

/// Asking the cloud what is so, and what has been.
impl World {
    /// Who holds a reserved address; `None` when it is not reserved.
    pub fn holder(&self, ip: IpAddr) -> Option<Holder> {
        self.look(|state| state.inventory.holder(ip))
    }

    /// Name of the machine that holds a reserved address.
    pub fn machine_of(&self, ip: IpAddr) -> Option<String> {
        match self.holder(ip) {
            Some(Holder::Machine(key)) => Some(key.name),
            Some(Holder::Nobody | Holder::Foreign(_)) | None => None,
        }
    }

    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Option<Machine> {
        self.look(|state| state.key(name).and_then(|key| state.inventory.machine(&key).cloned()))
    }

    /// The external address of the machine of that name.
    pub fn external_ip(&self, name: &str) -> Option<IpAddr> {
        self.machine(name)?.external?.ip
    }

    /// Every call since the log was cleared, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.look(|state| state.log.all())
    }

    /// The calls that would change something.
    pub fn mutations(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.mutating).collect()
    }

    /// Empties the log of calls.
    pub fn clear_calls(&self) {
        self.change(|state| state.log.clear());
    }

    /// How often an API call has put this reserved address on a machine with effect.
    pub fn attaches(&self, ip: IpAddr) -> u32 {
        self.look(|state| state.ledger.attaches.get(&ip).copied().unwrap_or_default())
    }

    /// Every address that has left a machine.
    pub fn removals(&self) -> Vec<Removal> {
        self.look(|state| state.ledger.removals.clone())
    }

    /// What no cloud would let be, at any instant so far: an address in two places. Must be empty.
    pub fn violations(&self) -> Vec<String> {
        self.look(|state| state.ledger.violations.clone())
    }

    /// Waits until the world is so that `seen` returns something. Put a time-out around it.
    pub async fn until<T>(&self, seen: impl Fn(&World) -> Option<T>) -> T {
        let mut changes = self.inner.changes.subscribe();
        loop {
            if let Some(found) = seen(self) {
                return found;
            }
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }
}

/// What a façade calls for a request that came in.
impl World {
    /// A token that is accepted until it is revoked; `None` while credentials are revoked.
    pub fn issue_token(&self) -> Option<String> {
        self.change(|state| {
            if state.revoked {
                return None;
            }
            state.tokens_issued = state.tokens_issued.wrapping_add(1);
            let token = format!("simulated-token-{}", state.tokens_issued);
            state.tokens.insert(token.clone());
            Some(token)
        })
    }

    /// Whether a permission is still granted.
    pub fn permits(&self, permission: &str) -> bool {
        self.look(|state| !state.denied.contains(permission))
    }

    /// A call that changes nothing. Faults about effects and operations count as the same fault without them.
    pub async fn read<T: Send + 'static>(
        &self,
        ask: Ask,
        look: impl FnOnce(&Inventory) -> Result<T, Refusal> + Send + 'static,
    ) -> Answer<T> {
        let world = self.clone();
        uncancelled(async move { world.answer_read(ask, move |state| look(&state.inventory)).await }).await
    }

    /// The state of an operation.
    pub async fn operation(&self, ask: Ask, zone: String, name: String) -> Answer<Operation> {
        let world = self.clone();
        let account = ask.account.clone();
        uncancelled(
            async move { world.answer_read(ask, move |state| state.operation(account, zone, name).cloned()).await },
        )
        .await
    }

    /// The state of an operation when it is done, or after `patience`.
    pub async fn operation_done(&self, ask: Ask, zone: String, name: String, patience: Duration) -> Answer<Operation> {
        let world = self.clone();
        uncancelled(async move {
            let done = world.wait_for(|state| match state.operations.get(&name) {
                Some(operation) if operation.phase != Phase::Done => None,
                _ => Some(()),
            });
            // Not done in time is an answer, not an error: the caller sees the phase.
            let _ = tokio::time::timeout(patience, done).await;
            let account = ask.account.clone();
            world.answer_read(ask, move |state| state.operation(account, zone, name).cloned()).await
        })
        .await
    }

    /// A change: checked at once, then carried out as an operation. A repeated `request_id` gets the first operation.
    pub async fn submit(&self, ask: Ask, request_id: Option<String>, change: Change) -> Answer<Operation> {
        let world = self.clone();
        uncancelled(async move { world.answer_submit(ask, request_id, change).await }).await
    }
}

/// The pipeline.
impl World {
    /// Logs the call and finds out what it meets.
    async fn arrive(&self, ask: &Ask, mutating: bool) -> (usize, Result<Option<Fault>, Refusal>) {
        let (number, met) = self.change(|state| {
            let number = state.log.open(&ask.method, &ask.target, mutating);
            let met = if !state.knows(&ask.caller) {
                Err(Refusal::Unauthenticated)
            } else if !state.budgets.spend(&ask.account) {
                Err(Refusal::Throttled)
            } else {
                Ok(state.script.take(&ask.method, &ask.target))
            };
            (number, met)
        });
        if met.is_ok() {
            self.pause(&ask.method, Point::Arrival).await;
        }
        (number, met)
    }

    fn end<T>(&self, number: usize, outcome: Outcome, answer: Answer<T>) -> Answer<T> {
        self.change(|state| state.log.end(number, outcome));
        answer
    }

    fn refuse<T>(&self, number: usize, refusal: Refusal) -> Answer<T> {
        self.end(number, Outcome::Refused(format!("{refusal:?}")), Answer::Refused(refusal))
    }

    async fn answer_read<T>(&self, ask: Ask, look: impl FnOnce(&State) -> Result<T, Refusal>) -> Answer<T> {
        let (number, met) = self.arrive(&ask, false).await;
        let mut latency = self.look(|state| state.latency.answer);
        let lost = Outcome::NoAnswer { effect: false };
        match met {
            Err(refusal) => return self.refuse(number, refusal),
            Ok(Some(Fault::Refuse { status, reason, message })) => {
                return self.refuse(number, Refusal::Scripted { status, reason, message });
            }
            Ok(Some(Fault::Hang | Fault::HangAfterEffect | Fault::LandLate(_))) => {
                return self.end(number, lost, Answer::Silence);
            }
            Ok(Some(Fault::Close | Fault::CloseAfterEffect)) => {
                return self.end(number, lost, Answer::Closed);
            }
            Ok(Some(Fault::Latency(override_))) => latency = override_,
            Ok(Some(Fault::FailLate { .. } | Fault::EffectAfterDone(_)) | None) => {}
        }
        sleep(latency).await;
        let seen = self.look(|state| state.admits(&ask).and_then(|()| look(state)));
        self.pause(&ask.method, Point::Answer).await;
        match seen {
            Ok(seen) => self.end(number, Outcome::Done, Answer::Given(seen)),
            Err(refusal) => self.refuse(number, refusal),
        }
    }

    async fn answer_submit(&self, ask: Ask, request_id: Option<String>, change: Change) -> Answer<Operation> {
        let (number, met) = self.arrive(&ask, true).await;
        let latency = self.look(|state| state.latency);
        let mut fate = Fate { latency: latency.operation, failure: None, after_done: None, answered: true };
        let mut fault = None;
        match met {
            Err(refusal) => return self.refuse(number, refusal),
            Ok(Some(Fault::Refuse { status, reason, message })) => {
                return self.refuse(number, Refusal::Scripted { status, reason, message });
            }
            Ok(Some(Fault::Hang)) => {
                return self.end(number, Outcome::NoAnswer { effect: false }, Answer::Silence);
            }
            Ok(Some(Fault::Close)) => {
                return self.end(number, Outcome::NoAnswer { effect: false }, Answer::Closed);
            }
            Ok(Some(Fault::FailLate { status, code, message })) => {
                fate.failure = Some(Refusal::Scripted { status, reason: code, message });
            }
            Ok(Some(Fault::Latency(override_))) => fate.latency = override_,
            Ok(Some(Fault::EffectAfterDone(delay))) => fate.after_done = Some(delay),
            Ok(Some(late @ (Fault::LandLate(_) | Fault::HangAfterEffect | Fault::CloseAfterEffect))) => {
                fate.answered = false;
                fault = Some(late);
            }
            Ok(None) => {}
        }
        if let Some(Fault::LandLate(delay)) = &fault {
            sleep(*delay).await;
        }
        sleep(latency.answer).await;
        let operation = match self.accept(&ask, request_id, change, number, fate) {
            Ok(operation) => operation,
            // A request whose answer is lost gets none, well or not.
            Err(_) if matches!(fault, Some(Fault::LandLate(_) | Fault::HangAfterEffect)) => {
                return self.end(number, Outcome::NoAnswer { effect: false }, Answer::Silence);
            }
            Err(refusal) => return self.refuse(number, refusal),
        };
        match fault {
            Some(Fault::LandLate(_) | Fault::HangAfterEffect) => Answer::Silence,
            Some(Fault::CloseAfterEffect) => {
                self.carried_out(&operation.name).await;
                Answer::Closed
            }
            _ => {
                if let Some(gate) = self.change(|state| state.gates.stop(&ask.method, Point::Answer)) {
                    self.carried_out(&operation.name).await;
                    self.wait_for(|state| (!state.gates.stands(gate)).then_some(())).await;
                }
                Answer::Given(operation)
            }
        }
    }

    /// Checks a change and starts its operation.
    fn accept(
        &self,
        ask: &Ask,
        request_id: Option<String>,
        change: Change,
        number: usize,
        fate: Fate,
    ) -> Result<Operation, Refusal> {
        let request = request_id.map(|id| (ask.account.clone(), id));
        let (operation, fresh) = self.change(|state| {
            state.admits(ask)?;
            if let Some(known) =
                request.as_ref().and_then(|key| state.operations.get(state.requests.get(key)?)).cloned()
            {
                state.log.end(number, Outcome::Done);
                return Ok((known, false));
            }
            state.inventory.accepts(&change)?;
            let id = state.inventory.number();
            let operation = Operation {
                name: format!("operation-{id}"),
                id,
                method: ask.method.clone(),
                machine_id: state.inventory.machine(change.machine()).map_or(0, |machine| machine.id),
                change,
                phase: Phase::Pending,
                effective: false,
                failure: None,
                inserted: Timestamp::now(),
                started: None,
                ended: None,
            };
            if let Some(key) = request {
                state.requests.insert(key, operation.name.clone());
            }
            state.operations.insert(operation.name.clone(), operation.clone());
            Ok((operation, true))
        })?;
        if fresh {
            let world = self.clone();
            let name = operation.name.clone();
            tokio::spawn(async move { world.carry_out(&name, number, fate).await });
        }
        Ok(operation)
    }

    /// An operation's life, from acceptance to its end.
    async fn carry_out(&self, name: &str, number: usize, fate: Fate) {
        let half = fate.latency / 2;
        sleep(half).await;
        self.step(name, |operation| {
            operation.phase = Phase::Running;
            operation.started = Some(Timestamp::now());
        });
        sleep(fate.latency.saturating_sub(half)).await;
        let finish = |operation: &mut Operation| {
            operation.phase = Phase::Done;
            operation.ended = Some(Timestamp::now());
        };
        if let Some(delay) = fate.after_done {
            self.step(name, finish);
            sleep(delay).await;
        }
        self.take_effect(name, number, fate.failure, fate.answered);
        if fate.after_done.is_none() {
            let method = self.look(|state| state.operations.get(name).map(|operation| operation.method.clone()));
            self.pause(&method.unwrap_or_default(), Point::Done).await;
            self.step(name, finish);
        }
    }

    fn take_effect(&self, name: &str, number: usize, failure: Option<Refusal>, answered: bool) {
        self.change(|state| {
            let Some(operation) = state.operations.get(name).cloned() else {
                return;
            };
            let key = operation.change.machine();
            let same_machine = state.inventory.machine(key).is_some_and(|machine| machine.id == operation.machine_id);
            let result = match failure {
                Some(failure) => Err(failure),
                None if !same_machine => Err(Refusal::NoSuchMachine(key.clone())),
                None => state.apply(&operation.change, Actor::Api),
            };
            let outcome = match &result {
                Ok(()) if answered => Outcome::Done,
                Ok(()) => Outcome::NoAnswer { effect: true },
                Err(refusal) => Outcome::FailedLate(format!("{refusal:?}")),
            };
            state.log.end(number, outcome);
            if let Some(operation) = state.operations.get_mut(name) {
                operation.effective = result.is_ok();
                operation.failure = result.err();
            }
        });
    }

    fn step(&self, name: &str, step: impl FnOnce(&mut Operation)) {
        self.change(|state| {
            if let Some(operation) = state.operations.get_mut(name) {
                step(operation);
            }
        });
    }

    /// Until the change of an operation is in force, or has failed.
    async fn carried_out(&self, name: &str) {
        self.wait_for(|state| match state.operations.get(name) {
            Some(operation) => {
                (operation.effective || operation.failure.is_some() || operation.phase == Phase::Done).then_some(())
            }
            None => Some(()),
        })
        .await;
    }

    /// Waits while a gate holds this method at this point.
    async fn pause(&self, method: &str, point: Point) {
        if let Some(gate) = self.change(|state| state.gates.stop(method, point)) {
            self.wait_for(|state| (!state.gates.stands(gate)).then_some(())).await;
        }
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    async fn wait_for<T>(&self, seen: impl Fn(&State) -> Option<T>) -> T {
        self.until(|world| world.look(&seen)).await
    }
}

impl State {
    fn operation(&self, account: String, zone: String, name: String) -> Result<&Operation, Refusal> {
        self.operations
            .get(&name)
            .filter(|operation| {
                operation.change.machine().account == account && operation.change.machine().zone == zone
            })
            .ok_or(Refusal::NoSuchOperation { account, zone, name })
    }
}

/// What is decided about an operation when it is accepted.
struct Fate {
    latency: Duration,
    failure: Option<Refusal>,
    after_done: Option<Duration>,
    answered: bool,
}

/// Runs to the end even when the caller goes away: a request that has reached a cloud cannot be taken back.
async fn uncancelled<T: Send + 'static>(call: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    // The task fails only when the runtime ends, and then there is nobody to answer.
    tokio::spawn(call).await.unwrap_or(Answer::Closed)
}

/// tokio rounds up to a millisecond, even from nothing.
async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
