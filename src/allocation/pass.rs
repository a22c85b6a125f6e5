//! One pass over one allocation: observe, decide, record, act.

mod debts;
mod deeds;
mod entries;
mod telling;
mod turn;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{ResourceExt, core::DeserializeGuard};
use kube_runtime::controller::Action;

pub(super) use self::entries::seat;
use self::{
    debts::{DebtState, new_debt, tell_debt},
    deeds::rand_unit,
    entries::{Entries, held_places, read_entries},
    turn::{Decided, Scene},
};
use super::{
    Controller, PodsByNode,
    claims::Claims,
    decide::{
        facts::{Entry, Facts, Mode},
        state::{Reason, State},
    },
    ledger::{ReadError, number},
    memory::Owed,
    observe::{self, Subject},
    record::{self, Written, conditions},
    selection::Selection,
};
use crate::{
    api::{self, NetIPAllocation},
    lifecycle::{Outcome, backoff::Backoff, finalizer},
    metrics::{self},
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
                if self.is_news(&name, &invalid.error) {
                    tracing::warn!(
                        crd = name,
                        error = invalid.error,
                        "this object cannot be decoded and is left alone"
                    );
                    self.teller.undecodable(invalid);
                }
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
        let entries = read_entries(&subject);

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
        let node_taint = self.node_taint(&subject, &claims).await;
        let mut scene = Scene { around, claims, workload, pods: PodsByNode::new(), node_taint };
        scene.pods = self.pods_of_leaving_nodes(&subject, &scene, &entries).await;

        // Decide.
        let decided = self.decide(&subject, &scene, &entries);

        // Record, and only then act.
        self.finish(&subject, &scene, &entries, decided).await
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
            terminating,
            retain,
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

    /// Writes what was decided, and then begins it; tells what is durable; lets go of what may go.
    async fn finish(
        self: &Arc<Self>,
        subject: &Subject,
        scene: &Scene,
        entries: &Entries,
        decided: Decided,
    ) -> Result<(Duration, Outcome), PassError> {
        let Decided { mut turns, facts, plan, debts } = decided;
        let Scene { around, workload, .. } = scene;
        let (terminating, retain) = (subject.terminating, subject.retain);
        let mut owed: Vec<Owed> = debts
            .iter()
            .filter(|debt| !matches!(debt.state, DebtState::Struck(_)))
            .map(|debt| debt.owed.clone())
            .collect();
        owed.extend(turns.iter().zip(&facts).filter_map(|(turn, facts)| new_debt(turn, facts)));
        for turn in &mut turns {
            tell_debt(&mut turn.after, &owed);
        }
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
            node_taint: scene.node_taint.as_ref(),
            plan: &plan,
            workload,
            cloud_error: around.survey_error.as_ref(),
            scope_error: subject.scope.as_ref().err().map(String::as_str),
            surveyed,
            blind: !surveyed && (around.survey.is_some() || self.began.elapsed() >= subject.blind_after()),
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
        for turn in turns {
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
            let empty = kept.is_empty() && entries.foreign.is_empty() && !owes && scene.node_taint.is_none();
            let done = if retain { !open } else { empty };
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
}

/// A look again while something is on its way; changes and answers wake earlier.
const RECHECK: Duration = Duration::from_secs(5);
