//! The way of a call through the cloud, the same for every façade: log, credentials, rate limit, faults, holds,
//! latency, permissions; then the answer, or an operation that carries a change out.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Actor, Answer, Ask, Change, Fault, Inventory, MachineKey, Operation, Outcome, Phase, Point, Refusal, State, Tier,
    World,
};

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

    /// A look at what there is that is no call, for a façade that has to resolve names.
    pub fn peek<T>(&self, look: impl FnOnce(&Inventory) -> T) -> T {
        self.look(|state| look(&state.inventory))
    }

    /// A call that changes nothing. Faults about effects and operations count as the same fault without them.
    pub async fn read<T: Send + 'static>(
        &self,
        ask: Ask,
        look: impl FnOnce(&Inventory) -> Result<T, Refusal> + Send + 'static,
    ) -> Answer<T> {
        let world = self.clone();
        uncancelled(async move { world.answer_read(ask, move |state| look(state.shown())).await }).await
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
        self.submit_if(ask, request_id, change, |_| Ok(())).await
    }

    /// The same, if the check passes at the moment of acceptance.
    pub async fn submit_if(
        &self,
        ask: Ask,
        request_id: Option<String>,
        change: Change,
        check: impl FnOnce(&Inventory) -> Result<(), Refusal> + Send + 'static,
    ) -> Answer<Operation> {
        let world = self.clone();
        uncancelled(async move { world.answer_submit(ask, request_id, change, check).await }).await
    }

    /// A change that is answered when it has ended. The `rule` is the provider's own, looked at with all others.
    pub async fn perform(
        &self,
        ask: Ask,
        change: Change,
        rule: impl FnOnce(&Inventory) -> Result<(), Refusal> + Send + 'static,
    ) -> Answer<Operation> {
        let world = self.clone();
        uncancelled(async move {
            let name = match world.answer_submit(ask, None, change, rule).await {
                Answer::Given(operation) => operation.name,
                other => return other,
            };
            let ended = |operation: &Operation| {
                operation.phase == Phase::Done && (operation.effective || operation.failure.is_some())
            };
            let operation =
                world.wait_for(|state| state.operations.get(&name).filter(|operation| ended(operation)).cloned()).await;
            match operation.failure {
                Some(failure) => Answer::Refused(failure),
                None => Answer::Given(operation),
            }
        })
        .await
    }

    /// What is in force, for a façade that has to find out what a request is about.
    pub fn inventory<T>(&self, look: impl FnOnce(&Inventory) -> T) -> T {
        self.look(|state| look(&state.inventory))
    }

    /// Gives a machine that has no external address one of its own again, after the while that this takes.
    pub async fn own_returns(&self, machine: &MachineKey, config: &str) {
        let world = self.clone();
        let (machine, config) = (machine.clone(), config.to_owned());
        let (id, delay) = self.look(|state| (state.id(&machine), state.own_returns_after));
        let give = move || {
            world.change(|state| {
                if state.id(&machine) == id {
                    let change =
                        Change::Attach { machine, config, ip: None, tier: Tier::default(), ptr: None, displace: false };
                    // One that has an address by now needs none.
                    let _ = state.apply(&change, Actor::Lifecycle);
                }
            });
        };
        if delay.is_zero() {
            return give();
        }
        tokio::spawn(async move {
            sleep(delay).await;
            give();
        });
    }
}

/// The pipeline.
impl World {
    /// Logs the call and finds out what it meets.
    async fn arrive(&self, ask: &Ask, mutating: bool) -> (usize, Result<Option<Fault>, Refusal>) {
        let (number, met) = self.change(|state| {
            let number = state.log.open(ask, mutating);
            let met = if !state.knows(&ask.caller) {
                Err(Refusal::Unauthenticated)
            } else if !state.budgets.spend(&ask.account, &ask.method, mutating) {
                Err(Refusal::Throttled)
            } else {
                Ok(state.script.take(&ask.method, &ask.target))
            };
            (number, met)
        });
        if met.is_ok() {
            self.pause(&ask.method, &ask.target, Point::Arrival).await;
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
        self.pause(&ask.method, &ask.target, Point::Answer).await;
        match seen {
            Ok(seen) => self.end(number, Outcome::Done, Answer::Given(seen)),
            Err(refusal) => self.refuse(number, refusal),
        }
    }

    async fn answer_submit(
        &self,
        ask: Ask,
        request_id: Option<String>,
        change: Change,
        rule: impl FnOnce(&Inventory) -> Result<(), Refusal>,
    ) -> Answer<Operation> {
        let (number, met) = self.arrive(&ask, true).await;
        let latency = self.look(|state| state.latency);
        let mut fate = Fate { latency: latency.of_operation(number), failure: None, after_done: None, answered: true };
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
        let operation = match self.accept(&ask, request_id, change, rule, number, fate) {
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
                if let Some(gate) = self.change(|state| state.gates.stop(&ask.method, &ask.target, Point::Answer)) {
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
        rule: impl FnOnce(&Inventory) -> Result<(), Refusal>,
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
            rule(&state.inventory)?;
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
            let (name, ask) = (operation.name.clone(), ask.clone());
            tokio::spawn(async move { world.carry_out(&name, &ask, number, fate).await });
        }
        Ok(operation)
    }

    /// An operation's life, from acceptance to its end.
    async fn carry_out(&self, name: &str, ask: &Ask, number: usize, fate: Fate) {
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
            self.pause(&ask.method, &ask.target, Point::Done).await;
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

    /// Waits while a gate holds such a call at this point.
    async fn pause(&self, method: &str, target: &str, point: Point) {
        if let Some(gate) = self.change(|state| state.gates.stop(method, target, point)) {
            self.wait_for(|state| (!state.gates.stands(gate)).then_some(())).await;
        }
    }
}

impl State {
    /// The cloud's number of a machine; 0 is none.
    fn id(&self, machine: &MachineKey) -> u64 {
        self.inventory.machine(machine).map_or(0, |machine| machine.id)
    }

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
