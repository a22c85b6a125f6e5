//! One pass over one allocation: observe, decide, record, act; and what an ended effect leaves behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, core::DeserializeGuard};
use kube_runtime::controller::Action;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{
    Controller, PodsByNode,
    act::{Deed, Done, pods::Asked},
    claims::Claims,
    decide::{
        Address, Effect,
        facts::{Claim, Entry, Facts, Labels, Mode, NodeObject, Wanted},
        leaving::{self, Cause},
        placement::Plan,
        state::{Reason, State},
        users::Workload,
    },
    ledger::{ReadError, number},
    memory::{self, Owed, Stored},
    observe::{self, Eyes, SEND_WINDOW, Subject, Surroundings, dead_at, scope_at},
    owed,
    record::{self, Written, conditions, tell::Told},
    selection::Selection,
    subject_key,
    tables::{Key, Tables, Uid},
};
use crate::{
    api::{self, AddressStatus, NetIPAllocation},
    cloud::{CloudError, ErrorKind, MachineId, ProviderId, Restore, Restored, Scope, limits::Urgency},
    lifecycle::{
        Outcome, Transition,
        backoff::Backoff,
        finalizer, flight,
        pass::{self, End, Step},
    },
    metrics::{self, Ended, Eviction},
};

/// Why a pass failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the status was not written: {0}")]
    NotWritten(String),
    #[error("the finalizer was not written: {0}")]
    Finalizer(Box<kube::Error>),
    #[error("whether the CRD is being deleted cannot be told: {0}")]
    Crd(String),
    #[error("leadership is not proven for long enough")]
    NotLeading,
}

/// What a pass does with one address, beside its entry.
struct Turn {
    before: Entry,
    after: Entry,
    steps: Vec<Step<State, Reason>>,
    forgotten: bool,
    deed: Option<(Deed, flight::Ticket<Key>, Option<OwnedSemaphorePermit>)>,
    /// The entry's intent was written new by this pass.
    new_intent: bool,
    /// The address is this allocation's: what is known of it may be forgotten with the entry.
    claimed: bool,
}

/// What is known when a pass begins to decide.
struct Entries {
    known: Vec<Entry>,
    foreign: Vec<AddressStatus>,
    owed: Vec<Owed>,
}

impl Controller {
    /// For kube's applier: one pass, its outcome told, and when to look again.
    pub async fn reconcile(
        self: Arc<Self>,
        object: Arc<DeserializeGuard<NetIPAllocation>>,
    ) -> Result<Action, PassError> {
        let name = object.name_any();
        let began = Instant::now();
        if let Some(waited) = self.wake.waited(&name) {
            metrics::queued(waited);
        }
        let result = match &object.0 {
            Err(invalid) => {
                tracing::warn!(crd = name, error = invalid.error, "this object cannot be decoded and is left alone");
                Ok((Duration::from_secs(300), Outcome::Waiting))
            }
            Ok(cached) => self.pass(cached).await,
        };
        let spent = began.elapsed();
        let outcome = result.as_ref().map_or(Outcome::Failed, |(_, outcome)| *outcome);
        for observer in &self.observers {
            observer.passed(&name, outcome, spent);
        }
        match result {
            Ok((recheck, _)) => {
                self.succeeded(&name);
                Ok(Action::requeue(recheck))
            }
            Err(error) => Err(error),
        }
    }

    /// When a failed pass is tried again.
    pub fn after_failure(&self, name: &str, error: &PassError) -> Action {
        let attempts = self.failed(name);
        tracing::warn!(crd = name, %error, attempts, "pass failed, trying again");
        Action::requeue(Backoff::TRANSIENT.delay(attempts, rand_unit()))
    }

    async fn pass(self: &Arc<Self>, cached: &NetIPAllocation) -> Result<(Duration, Outcome), PassError> {
        let name = cached.name_any();
        let seen = cached.uid().map(|uid| (uid, number(cached)));
        let seen = seen.as_ref().map(|(uid, version)| (uid.as_str(), *version));
        let Some(object) = self.ledger.newest(&name, seen).await? else {
            self.forget(&name);
            return Ok((Duration::from_secs(3600), Outcome::Rested));
        };
        metrics::allocation_seen(&name);

        let terminating = object.metadata.deletion_timestamp.is_some();
        // Observe changes nothing, not even on the way out.
        let retain = terminating && (self.observes(&object) || self.retains(&object).await?);
        let object = self.with_finalizer(object, terminating).await?;
        let subject = self.subject(object, terminating, retain);
        let entries = read_entries(&subject, terminating);

        // Observe.
        let around = observe::surroundings(
            &self.nodes,
            &self.view,
            subject.scope.as_ref().ok(),
            &self.config.disruption_taints,
            Timestamp::now(),
        );
        if let Ok(scope) = &subject.scope {
            self.view.keep_surveyed(scope, subject.survey_age());
        }
        let workload = self.pods.workload(subject.object.spec.workload().as_ref()).await;
        let claims = Claims::of(self.ledger.all().iter().map(AsRef::as_ref));
        let pods = self.pods_of_leaving_nodes(&subject, &around, &claims, &workload, &entries).await;

        // Decide.
        let permits = self.permitted(&subject.name);
        let (turns, facts, plan, debts) = self.decide(&subject, &around, &claims, &workload, &pods, &entries, &permits);

        // Record, and only then act.
        self.finish_pass(&subject, &around, &workload, entries, turns, facts, plan, debts, terminating, retain).await
    }

    fn subject(&self, object: Arc<NetIPAllocation>, terminating: bool, retain: bool) -> Subject {
        let scope = observe::scope(&object.spec, &self.nodes.all(), &held_places(&object));
        let survey = scope.as_ref().ok().and_then(|scope| self.view.survey(scope).0);
        let mode = match object.spec.mode {
            _ if self.config.observe_only || retain => Mode::Observe,
            api::Mode::Enforce => Mode::Enforce,
            api::Mode::Hold => Mode::Hold,
            api::Mode::Observe => Mode::Observe,
        };
        Subject {
            uid: object.uid().unwrap_or_default(),
            name: object.name_any(),
            scope,
            mode,
            deleting: terminating && !retain,
            selection: Selection::of(&object, survey.as_deref()),
            interval: Duration::from_secs(u64::try_from(object.spec.reconcile_interval).unwrap_or(30).max(5)),
            object,
        }
    }

    fn observes(&self, object: &NetIPAllocation) -> bool {
        self.config.observe_only || object.spec.mode == api::Mode::Observe
    }

    /// Set before the first deed, while anything may be begun.
    async fn with_finalizer(
        &self,
        object: Arc<NetIPAllocation>,
        terminating: bool,
    ) -> Result<Arc<NetIPAllocation>, PassError> {
        if terminating || self.observes(&object) || finalizer::is_set(&*object, api::FINALIZER) {
            return Ok(object);
        }
        self.may_write()?;
        let set = finalizer::set(&self.api, &*object, api::FINALIZER);
        match tokio::time::timeout(self.config.mutation_timeout, set).await {
            Ok(Ok(stored)) => Ok(self.ledger.put(stored)),
            Ok(Err(error)) => {
                self.ledger.forget(&object.name_any());
                Err(PassError::Finalizer(Box::new(error)))
            }
            Err(_) => {
                self.ledger.forget(&object.name_any());
                Err(PassError::NotWritten("no answer in time".to_owned()))
            }
        }
    }

    fn may_write(&self) -> Result<(), PassError> {
        use crate::cloud::Gate as _;
        self.actor.gate().open_for(self.config.mutation_timeout).map_err(|_| PassError::NotLeading)
    }

    /// Watches the pods of nodes that an address is leaving, and of no others.
    async fn pods_of_leaving_nodes(
        &self,
        subject: &Subject,
        around: &Surroundings,
        claims: &Claims,
        workload: &Workload,
        entries: &Entries,
    ) -> PodsByNode {
        let none = BTreeMap::new();
        let permits = BTreeSet::new();
        let leaving: BTreeSet<String> = {
            let mut tables = self.tables();
            let eyes = self.eyes(subject, around, claims, workload, &none, &permits);
            let facts = eyes.facts(&entries.known, &mut tables);
            entries
                .known
                .iter()
                .zip(&facts)
                .filter(|(entry, facts)| match entry.state {
                    State::Draining | State::Releasing => true,
                    State::Attached => leaving::cause(entry, facts).is_some(),
                    State::Unassigned | State::Attaching | State::Detached => false,
                })
                .filter_map(|(entry, _)| entry.node.clone())
                .collect()
        };
        self.pods.want(&subject.uid, leaving.clone());
        let mut pods = BTreeMap::new();
        for node in leaving {
            if let Some(known) = self.pods.of(&node).await {
                pods.insert(node, known);
            }
        }
        pods
    }

    #[allow(clippy::too_many_arguments)]
    fn eyes<'a>(
        &'a self,
        subject: &'a Subject,
        around: &'a Surroundings,
        claims: &'a Claims,
        workload: &'a Workload,
        pods: &'a PodsByNode,
        permits: &'a BTreeSet<IpAddr>,
    ) -> Eyes<'a> {
        Eyes { subject, around, view: &self.view, claims, workload, pods, permits }
    }

    /// Runs the machine of every address on one set of facts; takes seats and tickets for what is to be done.
    #[allow(clippy::too_many_arguments)]
    fn decide(
        self: &Arc<Self>,
        subject: &Subject,
        around: &Surroundings,
        claims: &Claims,
        workload: &Workload,
        pods: &PodsByNode,
        entries: &Entries,
        permits: &BTreeSet<String>,
    ) -> (Vec<Turn>, Vec<Facts>, Plan, Vec<Debt>) {
        let held: BTreeSet<IpAddr> = permits.iter().filter_map(|subject| subject.parse().ok()).collect();
        let eyes = self.eyes(subject, around, claims, workload, pods, &held);
        let mut tables = self.tables();
        tables.seats.set(&subject.uid, seats_of(&entries.known, &entries.owed, &entries.foreign));
        let mut facts = eyes.facts(&entries.known, &mut tables);
        let plan = eyes.plan(&entries.known, &mut facts, &mut tables);

        let wanted = facts.iter().filter(|facts| facts.wanted == Wanted::Yes).count();
        let most = subject.object.spec.strategy.max_unavailable.resolve(wanted).max(1);
        let mut motion = entries.known.iter().zip(&facts).filter(|(entry, facts)| in_motion(entry, facts)).count();
        let mut used = BTreeSet::new();
        let mut turns = Vec::with_capacity(entries.known.len());
        for (entry, facts) in entries.known.iter().zip(facts.iter_mut()) {
            let moved_before = in_motion(entry, facts);
            facts.turn = moved_before || motion < most;
            let mut turn = self.turn(subject, entry, facts, workload, &mut tables);
            if turn.deed.as_ref().is_some_and(|(deed, ..)| is_of_cloud(&deed.effect)) {
                used.insert(subject_key(entry.ip));
            }
            let unlabels = turn.deed.as_ref().is_some_and(|(deed, ..)| matches!(deed.effect, Effect::Unlabel { .. }));
            if !moved_before && (in_motion(&turn.after, facts) || unlabels) {
                motion += 1;
            }
            if let Some((deed, _, permit)) = &mut turn.deed
                && is_of_cloud(&deed.effect)
            {
                *permit = self.use_permit(&subject.name, &subject_key(entry.ip));
            }
            turns.push(turn);
        }
        let debts = self.debts(subject, entries, permits, &mut tables, &mut used);
        drop(tables);
        self.return_permits(&subject.name, &used);
        (turns, facts, plan, debts)
    }

    /// One address.
    fn turn(
        self: &Arc<Self>,
        subject: &Subject,
        entry: &Entry,
        facts: &mut Facts,
        workload: &Workload,
        tables: &mut Tables,
    ) -> Turn {
        let has_permit = facts.permit;
        facts.permit = true;
        let mut made = pass::run::<Address>(entry.clone(), facts);
        facts.permit = has_permit;
        if let End::Perform(effect) = &made.end
            && is_of_cloud(effect)
            && !has_permit
        {
            if let Ok(scope) = scope_of(&made.entry, subject) {
                self.ask_permit(&subject.name, &subject_key(entry.ip), &scope, urgency(entry, facts));
            }
            made = pass::run::<Address>(entry.clone(), facts);
        }
        if let End::Perform(Effect::Attach { machine, .. }) = &made.end
            && entry.state != State::Attaching
            && !tables.seats.take(&subject.uid, machine.place.clone(), entry.ip)
        {
            // A rival was faster; the next pass plans anew.
            made = pass::Pass { entry: entry.clone(), steps: Vec::new(), end: End::Wait(Duration::from_secs(1)) };
        }
        let mut turn = Turn {
            before: entry.clone(),
            forgotten: matches!(made.end, End::Forgotten),
            new_intent: made.entry.operation.as_ref().map(|o| o.id) != entry.operation.as_ref().map(|o| o.id)
                && made.entry.operation.is_some(),
            after: made.entry,
            steps: made.steps,
            deed: None,
            claimed: facts.claim == Claim::Ours,
        };
        match made.end {
            End::Perform(effect) => {
                let place = turn.after.machine.as_ref().map(|machine| machine.place.clone());
                if let (Some(place), Ok(scope)) = (place, scope_of(&turn.after, subject))
                    && let Some(cloud) = self.view.cloud(scope.provider).cloned()
                    && let Some(ticket) = tables.begin(entry.ip, place)
                {
                    let cause = Cause::of(turn.after.reason);
                    let node_uid = turn.after.node.as_ref().and_then(|node| self.nodes.get(node)?.metadata.uid.clone());
                    let deed = Deed {
                        effect,
                        node_uid,
                        ip: entry.ip,
                        allocation: subject.name.clone(),
                        scope,
                        cloud,
                        workload: workload.clone(),
                        cause,
                        evict: cause.is_some_and(|cause| {
                            cause.row().always_evicts || (cause.row().may_evict && facts.drain.evict)
                        }),
                    };
                    turn.deed = Some((deed, ticket, None));
                } else if turn.new_intent {
                    // No intent without its deed at hand (F2).
                    turn = Turn { after: entry.clone(), steps: Vec::new(), new_intent: false, ..turn };
                }
            }
            End::Refused(why) => {
                tracing::error!(crd = subject.name, ip = %entry.ip, error = why, "the machine asked for what it may not")
            }
            End::Rest | End::Wait(_) | End::Forgotten => {}
        }
        turn
    }

    fn debts(
        self: &Arc<Self>,
        subject: &Subject,
        entries: &Entries,
        permits: &BTreeSet<String>,
        tables: &mut Tables,
        used: &mut BTreeSet<String>,
    ) -> Vec<Debt> {
        let now = Timestamp::now();
        let send_before = memory::whole_seconds(now.checked_add(SEND_WINDOW).unwrap_or(now));
        entries
            .owed
            .iter()
            .filter_map(|owed| {
                let place = &owed.machine.place;
                if let Some(paid) = tables.paid(&owed.machine) {
                    return Some(Debt { owed: owed.clone(), state: DebtState::Struck(paid) });
                }
                let spent = owed.attempt.is_some_and(|(id, _)| tables.restore_spent(&owed.machine, id));
                let retry = tables.restore_retry(&owed.machine);
                let due = Owed { retry: retry.or(owed.retry), ..owed.clone() };
                let busy = tables.flights.is_busy(&Key::Machine(place.clone()));
                let next = owed::next(&due, now, busy, spent, Uuid::new_v4(), send_before);
                let waits = || Some(Debt { owed: due.clone(), state: DebtState::Waits });
                let owed = match next {
                    owed::Next::Wait => return waits(),
                    owed::Next::Repeat => due.clone(),
                    owed::Next::Begin(begun) => begun,
                };
                let key = place.to_string();
                let Some(scope) = scope_at(place, &subject.object.spec) else { return waits() };
                if subject.mode == Mode::Observe {
                    return waits();
                }
                if !permits.contains(&key) {
                    self.ask_permit(&subject.name, &key, &scope, Urgency::Placement);
                    return waits();
                }
                let Some(ticket) = tables.flights.begin([Key::Machine(place.clone())]) else { return waits() };
                used.insert(key.clone());
                let permit = self.use_permit(&subject.name, &key);
                Some(Debt { owed, state: DebtState::Paying { ticket, permit } })
            })
            .collect()
    }

    #[allow(clippy::too_many_arguments)]
    async fn finish_pass(
        self: &Arc<Self>,
        subject: &Subject,
        around: &Surroundings,
        workload: &Workload,
        entries: Entries,
        mut turns: Vec<Turn>,
        facts: Vec<Facts>,
        plan: Plan,
        debts: Vec<Debt>,
        terminating: bool,
        retain: bool,
    ) -> Result<(Duration, Outcome), PassError> {
        let mut owed: Vec<Owed> = debts
            .iter()
            .filter(|debt| !matches!(debt.state, DebtState::Struck(_)))
            .map(|debt| debt.owed.clone())
            .collect();
        owed.extend(turns.iter().zip(&facts).filter_map(|(turn, facts)| new_debt(turn, facts)));
        for debt in owed.iter().filter(|owed| owed.attempt.is_none()) {
            self.tables().renew_debt(&debt.machine);
        }
        let (kept, kept_facts): (Vec<Entry>, Vec<Facts>) = turns
            .iter()
            .zip(&facts)
            .filter(|(turn, _)| !turn.forgotten)
            .map(|(turn, facts)| (turn.after.clone(), facts.clone()))
            .unzip();
        let surveyed = around.survey.as_ref().is_some_and(|survey| survey.began.elapsed() < subject.blind_after());
        let status = conditions::status(&conditions::Picture {
            object: &subject.object,
            entries: &kept,
            facts: &kept_facts,
            foreign: &entries.foreign,
            unusable: if terminating { &[] } else { &subject.selection.unusable },
            held: subject.selection.held.as_deref(),
            owed: &owed,
            plan: &plan,
            workload,
            cloud_error: around.survey_error.as_ref(),
            scope_error: subject.scope.as_ref().err().map(String::as_str),
            surveyed,
            blind: around.survey.is_some() && !surveyed,
            terminating,
            now: around.now,
        });
        let changed = subject.object.status.as_ref() != Some(&status);
        let stored = if changed {
            let written = record::write(
                &self.api,
                &self.ledger,
                &self.actor.gate(),
                self.config.mutation_timeout,
                &subject.object,
                status,
            )
            .await;
            match written {
                Written::Yes(stored) => stored,
                Written::No(why) => {
                    self.abandon(turns, debts);
                    return Err(PassError::NotWritten(why));
                }
            }
        } else {
            subject.object.clone()
        };

        self.tell(subject, &stored, &turns, around.now);
        self.gauge(subject, &stored, &kept, &kept_facts, &plan, around);
        let moved = turns.iter().any(|turn| !turn.steps.is_empty());
        let acts = turns.iter().any(|turn| turn.deed.is_some());
        for turn in &turns {
            if turn.forgotten {
                if turn.claimed {
                    self.tables().forget(turn.before.ip);
                }
            } else if turn.steps.iter().any(|step| step.to == Some(State::Attached)) {
                // A lost attach that landed after all: what it failed with is of no interest any more.
                self.tables().clear_failure(turn.before.ip);
            }
        }
        let rest = turns.iter().all(|turn| turn.forgotten || turn.deed.is_none());
        for turn in turns.drain(..) {
            self.begin(subject, turn, around.now);
        }
        let owes = !owed.is_empty();
        for debt in debts {
            self.pay(subject, &stored, debt);
        }
        self.answer_move(&stored, &kept).await;
        if terminating {
            // An open intent is ended first, unless the cloud denies us and nothing of it is under way: Retain is the way out.
            let open = kept.iter().zip(&kept_facts).any(|(entry, facts)| {
                let hopeless =
                    facts.intent_dead && !facts.in_flight && (facts.failure.is_some() || subject.scope.is_err());
                entry.state.is_open_intent() && !hopeless
            });
            let done = if retain { !open } else { kept.is_empty() && entries.foreign.is_empty() && !owes };
            if done && rest && self.release(&stored).await? {
                self.forget(&subject.name);
                return Ok((Duration::from_secs(3600), Outcome::Rested));
            }
        }
        let outcome = match (acts, moved) {
            (true, _) => Outcome::Acted,
            (false, true) => Outcome::Moved,
            (false, false) if kept.iter().all(|entry| entry.state == State::Attached) => Outcome::Rested,
            (false, false) => Outcome::Waiting,
        };
        let settled = outcome == Outcome::Rested
            && !owes
            && kept.iter().all(|entry| matches!(entry.reason, Reason::Verified | Reason::Adopted));
        let recheck = if settled { subject.interval } else { subject.interval.min(RECHECK) };
        Ok((if moved { Duration::from_millis(100) } else { recheck }, outcome))
    }

    /// The write was refused: nothing is done, tickets go back.
    fn abandon(&self, turns: Vec<Turn>, debts: Vec<Debt>) {
        let mut tables = self.tables();
        for (_, ticket, _) in turns.into_iter().filter_map(|turn| turn.deed) {
            tables.flights.end(ticket);
        }
        for debt in debts {
            if let DebtState::Paying { ticket, .. } = debt.state {
                tables.flights.end(ticket);
            }
        }
    }

    /// A request to move is one-shot: once status has it, the annotation goes. What cannot be done is refused in an event.
    /// Failing here is harmless: the annotation is read again with the next pass.
    async fn answer_move(&self, stored: &Arc<NetIPAllocation>, entries: &[Entry]) {
        let Some(text) = stored.annotations().get(api::MOVE_ANNOTATION) else { return };
        let asked = observe::requested_move(stored);
        let entry = asked.and_then(|(ip, _)| entries.iter().find(|entry| entry.ip == ip));
        let (accepted, note) = match (asked, entry) {
            (None, _) => (false, format!("\"{text}\" is not of the form IP or IP=NODE")),
            (Some((ip, _)), None) => (false, format!("{ip} is no address of this allocation")),
            (Some((ip, _)), Some(entry)) if entry.reason == Reason::MoveRequested && entry.state != State::Attached => {
                (true, format!("{ip} is to leave node {}", entry.node.as_deref().unwrap_or("?")))
            }
            (Some((ip, Some(node))), Some(entry)) if entry.node.as_deref() == Some(node) => {
                (false, format!("{ip} is on node {node} already"))
            }
            (Some((ip, _)), Some(entry)) if entry.state == State::Unassigned => {
                (false, format!("{ip} is on no node; it goes to one as soon as one can take it"))
            }
            (Some(_), Some(_)) => return,
        };
        let patch = serde_json::json!({"metadata": {
            "resourceVersion": stored.resource_version(),
            "annotations": {api::MOVE_ANNOTATION: null},
        }});
        if self.may_write().is_err() {
            return;
        }
        let params = kube::api::PatchParams::default();
        let patch = kube::api::Patch::Merge(patch);
        let name = stored.name_any();
        let write = self.api.patch(&name, &params, &patch);
        if let Ok(Ok(written)) = tokio::time::timeout(self.config.mutation_timeout, write).await {
            self.ledger.put(written);
            if accepted {
                self.teller.note(stored, "MoveAccepted", text, note, None);
            } else {
                self.teller.warn(stored, "MoveRefused", text, note);
            }
        }
    }

    fn tell(&self, subject: &Subject, stored: &NetIPAllocation, turns: &[Turn], now: Timestamp) {
        let provider = subject.scope.as_ref().ok().map(|scope| scope.provider);
        for turn in turns {
            for step in &turn.steps {
                let told = Told { object: stored, before: &turn.before, after: &turn.after, step: *step };
                self.teller.moved(&told);
                let transition = Transition {
                    object: subject.name.clone(),
                    subject: turn.before.ip.to_string(),
                    kind: provider.map_or("none", |provider| provider.as_str()),
                    from: step.from,
                    to: step.to,
                    reason: step.reason.as_str(),
                    spent: Duration::try_from(now.duration_since(turn.before.since)).unwrap_or_default(),
                    gap: turn
                        .after
                        .last_move
                        .as_ref()
                        .filter(|_| (step.from, step.to) == (State::Attaching, Some(State::Attached)))
                        .and_then(|journey| Duration::try_from(journey.gap?).ok()),
                };
                for observer in &self.observers {
                    observer.moved(&transition);
                }
            }
            let (old, new) = (turn.before.reason, turn.after.reason);
            if old != new
                && let Some(reason) = warning(new)
            {
                self.teller.warn(
                    stored,
                    reason,
                    &turn.after.ip.to_string(),
                    format!("{} {}", turn.after.ip, turn.after.message),
                );
            }
        }
    }

    /// Starts what was written.
    fn begin(self: &Arc<Self>, subject: &Subject, turn: Turn, now: Timestamp) {
        let Some((deed, ticket, permit)) = turn.deed else { return };
        {
            let mut tables = self.tables();
            if let Some(operation) = &turn.after.operation
                && is_of_cloud(&deed.effect)
            {
                if turn.new_intent {
                    tables.intents.seen(
                        &turn.after.ip,
                        operation.id,
                        dead_at(operation.send_before, deed.scope.provider, now),
                        true,
                    );
                }
                tables.intents.sending(&turn.after.ip);
            }
        }
        let (me, name, stored) = (self.clone(), subject.name.clone(), subject.object.clone());
        self.run_effect(deed.scope.provider, async move {
            tracing::info!(crd = name, ip = %deed.ip, effect = ?deed.effect, "effect begins");
            // A provider that panics must not hold address and machine for ever: what it sent is not known.
            let performed = AssertUnwindSafe(me.actor.perform(&deed)).catch_unwind().await;
            let done = performed.unwrap_or_else(|_| {
                Done::Failed(CloudError::new(ErrorKind::Unknown, "effect", "the provider panicked").unsettled())
            });
            me.ended(&stored, &deed, done, ticket);
            drop(permit);
            me.wake.one(&name);
        });
    }

    /// What an ended effect leaves behind.
    fn ended(&self, object: &NetIPAllocation, deed: &Deed, done: Done, ticket: flight::Ticket<Key>) {
        let now = Timestamp::now();
        let mut tables = self.tables();
        tables.flights.end(ticket);
        let cloudy = match &deed.effect {
            Effect::Attach { node, machine, operation, .. } => Some((node, machine, *operation, true)),
            Effect::Detach { node, machine, operation, .. } => Some((node, machine, *operation, false)),
            Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => None,
        };
        match (done, cloudy) {
            (Done::Node(written), _) => {
                tables.clear_failure(deed.ip);
                if let Some(node) = written {
                    self.nodes.wrote(*node);
                }
            }
            (Done::Asked(asked), _) => {
                for (user, answer) in asked {
                    self.asked(
                        object,
                        &mut tables,
                        &user.uid,
                        &format!("{}/{}", user.namespace, user.name),
                        answer,
                        now,
                    );
                }
            }
            (Done::Verified(verified), Some((_, machine, operation, attach))) => {
                tables.succeeded(deed.ip, &machine.place, operation, verified.began, attach);
                self.view.verified(&deed.scope, deed.ip, &machine.place, &verified);
                count(attach, &object.name_any(), Ended::Success);
            }
            (Done::Failed(error), Some((node, machine, operation, attach))) => {
                tracing::warn!(crd = object.name_any(), ip = %deed.ip, node, %error, "effect failed");
                tables.failed(deed.ip, node, &machine.place, operation, &error, Instant::now(), now, rand_unit());
                self.view.changed(&machine.place);
                count(attach, &object.name_any(), Ended::Error);
                let reason = if attach { "IPAttachFailed" } else { "IPDetachFailed" };
                self.teller.warn(
                    object,
                    reason,
                    &deed.ip.to_string(),
                    format!("{} on node {node}: {error}; {}", deed.ip, error.kind.remedy()),
                );
            }
            (Done::HeldBack(why), Some((_, _, operation, _))) => {
                tracing::info!(crd = object.name_any(), ip = %deed.ip, why, "effect held back");
                let retry = now.checked_add(HELD_BACK).unwrap_or(now);
                tables.held_back(deed.ip, operation, why, retry);
            }
            (Done::NodeFailed(why), _) => {
                tracing::warn!(crd = object.name_any(), ip = %deed.ip, error = why, "effect failed");
                tables.node_failed(deed.ip, why, now, rand_unit());
            }
            (Done::Verified(_) | Done::Failed(_) | Done::HeldBack(_), None) => {}
        }
    }

    fn asked(
        &self,
        object: &NetIPAllocation,
        tables: &mut Tables,
        uid: &str,
        pod: &str,
        answer: Asked,
        now: Timestamp,
    ) {
        let name = object.name_any();
        let (outcome, blocked) = match answer {
            Asked::Accepted => {
                self.teller.note(object, "PodEvicted", pod, format!("pod {pod} was asked to go and goes"), None);
                (Eviction::Evicted, None)
            }
            Asked::Blocked(why) => {
                self.teller.warn(object, "EvictionBlocked", pod, format!("pod {pod} may not go yet: {why}"));
                (Eviction::Blocked, Some(why))
            }
            Asked::Failed(why) => {
                tracing::warn!(crd = name, pod, error = why, "asking a pod to go failed");
                (Eviction::Error, Some(why))
            }
        };
        metrics::evicted(&name, outcome);
        tables.asked(uid, blocked, now, rand_unit());
    }

    fn pay(self: &Arc<Self>, subject: &Subject, stored: &Arc<NetIPAllocation>, debt: Debt) {
        let owed = debt.owed;
        let (ticket, permit) = match debt.state {
            DebtState::Waits => return,
            DebtState::Struck(why) => {
                self.tables().forget_debt(&owed.machine);
                if let Some(why) = why {
                    self.teller.warn(
                        stored,
                        "RestoreFailed",
                        &owed.node,
                        format!("node {} does not get an external address of its own back: {why}", owed.node),
                    );
                }
                return;
            }
            DebtState::Paying { ticket, permit } => (ticket, permit),
        };
        let scope = scope_at(&owed.machine.place, &subject.object.spec);
        let (Some((operation, before)), Some(scope)) = (owed.attempt, scope) else { return };
        let Some(cloud) = self.view.cloud(scope.provider).cloned() else { return };
        let order = Restore {
            scope: scope.clone(),
            machine: owed.machine.clone(),
            operation,
            own: owed.own.clone(),
            gate: self.actor.gate_until(before),
        };
        let (me, name) = (self.clone(), subject.name.clone());
        self.run_effect(scope.provider, async move {
            let restoring = AssertUnwindSafe(cloud.restore(&order)).catch_unwind().await;
            let result = restoring.unwrap_or_else(|_| {
                Err(CloudError::new(ErrorKind::Unknown, "restore", "the provider panicked").unsettled())
            });
            {
                let mut tables = me.tables();
                tables.flights.end(ticket);
                tables.reads.raise(&Key::Machine(order.machine.place.clone()), Instant::now());
                me.view.changed(&order.machine.place);
                match result {
                    Ok(Restored::Given | Restored::MachineGone) => tables.restored(&order.machine, None),
                    Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => {
                        tables.restored(&order.machine, Some(error.to_string()));
                    }
                    Err(error) => {
                        tracing::warn!(crd = name, node = owed.node, %error, "giving the node its own address back failed");
                        tables.restore_failed(&order.machine, operation, &error, Timestamp::now(), rand_unit());
                    }
                }
            }
            drop(permit);
            me.wake.one(&name);
        });
    }

    fn gauge(
        &self,
        subject: &Subject,
        stored: &NetIPAllocation,
        entries: &[Entry],
        facts: &[Facts],
        plan: &Plan,
        around: &Surroundings,
    ) {
        let status = stored.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let size = |n: i32| usize::try_from(n).unwrap_or_default();
        let addresses = entries.iter().map(|entry| metrics::AddressGauges {
            ip: entry.ip.to_string(),
            node: entry
                .node
                .clone()
                .filter(|_| matches!(entry.state, State::Attached | State::Draining | State::Releasing)),
            state: entry.state.shown(),
            reason: entry.reason.as_str(),
        });
        let labelled = around.nodes.iter().filter(|node| {
            node.label(api::READY_LABEL) == Some(api::READY_VALUE)
                && node.label(api::ALLOCATION_LABEL) == Some(&subject.name)
        });
        self.gauges.allocation(
            &subject.name,
            &metrics::AllocationGauges {
                ready,
                reserved: size(status.reserved_count),
                attached: size(status.attached_count),
                unattached: size(status.unattached_count),
                required: size(status.required_count),
                conflicting: entries.iter().filter(|entry| entry.reason == Reason::DuplicateClaim).count(),
                eligible_nodes: plan
                    .counts
                    .get(&super::decide::placement::Verdict::Eligible)
                    .copied()
                    .unwrap_or_default(),
                spare_nodes: plan.spare,
                failover_frozen: facts.iter().any(|facts| facts.frozen),
                reconcile_interval: subject.interval,
                last_success: around.survey.as_ref().map(|survey| {
                    around.now.as_second() - i64::try_from(survey.began.elapsed().as_secs()).unwrap_or_default()
                }),
                deletion: stored.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()),
                provider: subject.scope.as_ref().ok().map(|scope| scope.provider),
                region: subject.scope.as_ref().map(|scope| scope.region.clone()).unwrap_or_default(),
                mode: match subject.mode {
                    Mode::Enforce => "Enforce",
                    Mode::Hold => "Hold",
                    Mode::Observe => "Observe",
                },
                addresses: addresses.collect(),
                verdicts: plan.counts.iter().map(|(verdict, n)| (verdict.as_str(), *n)).collect(),
                labelled_nodes: labelled.map(|node| node.name_any()).collect(),
            },
        );
    }

    /// Everything that is known of an object that is gone. kube's applier runs no pass for such, so this is called where
    /// the end is seen: when our finalizer goes, and by the sweep for objects that went without us.
    pub(super) fn forget(&self, name: &str) {
        self.gauges.forget(name);
        self.return_permits(name, &BTreeSet::new());
        for uid in self.ledger.forget(name) {
            self.forget_uid(&uid);
        }
    }

    /// The same for one life of an object: one of its name may have taken its place.
    pub(super) fn forget_uid(&self, uid: &Uid) {
        self.ledger.forget_uid(uid);
        let mut tables = self.tables();
        tables.seats.drop_owner(uid);
        tables.breakers.remove(uid);
        drop(tables);
        self.pods.want(uid, BTreeSet::new());
    }
}

/// A look again while something is on its way; changes and answers wake earlier.
const RECHECK: Duration = Duration::from_secs(5);
/// A deed that was held back is tried again after so long.
const HELD_BACK: Duration = Duration::from_secs(3);

/// A debt, and what this pass does about it.
struct Debt {
    owed: Owed,
    state: DebtState,
}

enum DebtState {
    Waits,
    /// Settled; the text says why if it could not be paid.
    Struck(Option<String>),
    Paying {
        ticket: flight::Ticket<Key>,
        permit: Option<OwnedSemaphorePermit>,
    },
}

fn read_entries(subject: &Subject, terminating: bool) -> Entries {
    let status = subject.object.status.clone().unwrap_or_default();
    let mut known: Vec<Entry> = Vec::new();
    let mut foreign = Vec::new();
    for stored in &status.addresses {
        match memory::read(stored) {
            // Not an address at all: told anew from the spec each time.
            _ if stored.reason.as_deref() == Some(Reason::InvalidAddress.as_str()) => {}
            Stored::Known(entry) if known.iter().all(|other| other.ip != entry.ip) => known.push(*entry),
            Stored::Known(_) => {}
            Stored::Foreign(status) => foreign.push(*status),
        }
    }
    if !terminating {
        let now = memory::whole_seconds(Timestamp::now());
        for ip in &subject.selection.wanted() {
            let text = ip.to_string();
            if known.iter().all(|entry| entry.ip != *ip) && foreign.iter().all(|status| status.ip != text) {
                known.push(Entry::new(*ip, now));
            }
        }
    }
    for entry in known.iter_mut().filter(|entry| entry.state == State::Draining) {
        // An edit of drain.timeoutSeconds counts for a drain that is under way.
        let timeout =
            subject.object.spec.drain.timeout_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
        entry.deadline = timeout.and_then(|timeout| entry.since.checked_add(timeout).ok());
    }
    known.sort_by_key(|entry| entry.ip);
    Entries { known, foreign, owed: status.owed.iter().filter_map(memory::read_owed).collect() }
}

/// The machines that status names.
fn held_places(object: &NetIPAllocation) -> Vec<ProviderId> {
    let status = object.status.iter();
    let held = status.clone().flat_map(|status| &status.addresses).filter_map(|stored| match memory::read(stored) {
        Stored::Known(entry) => Some(entry.machine?.place),
        Stored::Foreign(_) => None,
    });
    let owed = status.flat_map(|status| &status.owed).filter_map(|owed| Some(memory::read_owed(owed)?.machine.place));
    held.chain(owed).collect()
}

/// Takes the seats of everything that status says is held or owed.
pub(super) fn seat(tables: &mut Tables, object: &NetIPAllocation) {
    let status = object.status.clone().unwrap_or_default();
    let (mut known, mut foreign) = (Vec::new(), Vec::new());
    for stored in &status.addresses {
        match memory::read(stored) {
            Stored::Known(entry) => known.push(*entry),
            Stored::Foreign(status) => foreign.push(*status),
        }
    }
    let owed: Vec<Owed> = status.owed.iter().filter_map(memory::read_owed).collect();
    tables.seats.set(&object.uid().unwrap_or_default(), seats_of(&known, &owed, &foreign));
}

/// Every machine that an allocation has a say in: those of its entries, those that it owes an address, and those that
/// entries name which it does not understand.
fn seats_of(entries: &[Entry], owed: &[Owed], foreign: &[AddressStatus]) -> Vec<(ProviderId, IpAddr)> {
    let held = entries.iter().filter_map(|entry| Some((entry.machine.as_ref()?.place.clone(), entry.ip)));
    let due = owed.iter().map(|owed| (owed.machine.place.clone(), NOBODY));
    let unknown = foreign.iter().filter_map(|status| {
        let machine: MachineId = status.machine_id.as_ref()?.parse().ok()?;
        Some((machine.place, status.ip.parse().unwrap_or(NOBODY)))
    });
    held.chain(due).chain(unknown).collect()
}

/// Sits on a machine that no address of ours may take: it is owed one of its own.
const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Unlabelled and not yet Attached; at rest without a node does not count.
fn in_motion(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Attaching | State::Releasing | State::Detached => true,
        State::Draining => facts.holder.as_ref().is_some_and(|holder| match &holder.object {
            NodeObject::Present(view) => view.labels == Labels::Off,
            NodeObject::Absent { .. } => true,
        }),
        State::Unassigned | State::Attached => false,
    }
}

fn is_of_cloud(effect: &Effect) -> bool {
    matches!(effect, Effect::Attach { .. } | Effect::Detach { .. })
}

fn urgency(entry: &Entry, facts: &Facts) -> Urgency {
    let fault = leaving::cause(entry, facts).is_some_and(|cause| !cause.row().by_choice)
        || entry.last_move.as_ref().is_some_and(|journey| journey.to.is_none() && Cause::is_fault(&journey.reason));
    match entry.state {
        _ if fault => Urgency::Failover,
        State::Unassigned => Urgency::Placement,
        State::Attaching | State::Attached | State::Draining | State::Releasing | State::Detached => Urgency::Drain,
    }
}

/// Where an entry is read and changed: where its machine stands, else what the spec says.
fn scope_of(entry: &Entry, subject: &Subject) -> Result<Scope, String> {
    match entry.machine.as_ref().and_then(|machine| scope_at(&machine.place, &subject.object.spec)) {
        Some(scope) => Ok(scope),
        None => subject.scope.clone(),
    }
}

/// What a machine is owed after edge 9, unless it is gone.
fn new_debt(turn: &Turn, facts: &Facts) -> Option<Owed> {
    use super::decide::facts::Life;
    let left = turn.steps.iter().any(|step| step.from == State::Releasing && step.to == Some(State::Detached));
    let gone = facts.holder.as_ref().is_some_and(|holder| matches!(holder.life, Life::Gone | Life::Replaced));
    if !left || gone {
        return None;
    }
    Some(Owed {
        machine: turn.before.machine.clone()?,
        node: turn.before.node.clone()?,
        own: turn.before.restore.clone()?,
        attempt: None,
        retry: None,
    })
}

fn count(attach: bool, name: &str, ended: Ended) {
    if attach { metrics::attached(name, ended) } else { metrics::detached(name, ended) }
}

/// Reasons that come with a warning when they appear.
fn warning(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::NoEligibleNode
        | Reason::NoTarget
        | Reason::AddressNotFound
        | Reason::WrongRegion
        | Reason::AddressInUse
        | Reason::DuplicateClaim
        | Reason::HolderUnreachable
        | Reason::FailoverFrozen
        | Reason::NodeNotReady
        | Reason::QuotaExceeded
        | Reason::Denied
        | Reason::CloudUnavailable => Some(reason.as_str()),
        _ => None,
    }
}

/// In [0, 1), from the operation ids' source of randomness.
pub(super) fn rand_unit() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / (f64::from(u32::MAX) + 1.0)
}
