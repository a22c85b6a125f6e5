//! One pass over one allocation: observe, decide, record, act.

mod course;
mod deeds;
mod telling;

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use kube::{ResourceExt, core::DeserializeGuard};
use kube_runtime::controller::Action;

use self::course::Course;
use super::{
    Claimed, Controller, PermitsBySubject,
    claims::Claims,
    decide::facts::Mode,
    journey,
    ledger::{ReadError, number},
    moment::Moment,
    observe::{
        Subject, Surroundings,
        answers::{Question, survey_of},
        nodes::Roster,
        requested,
    },
    record::{self, Written, cadence::Timing, tell::Counted},
    round::{self, Entries, PodsByNode, Record, Round, Scene},
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
        let under_way = self.wake.begins(&name);
        if let Some((waited, _)) = under_way.woken {
            metrics::queued(waited);
        }
        let rested = self.resting().remove(&name);
        let mut course = match under_way.woken {
            Some((_, cause)) => Course::begin(cause.label()),
            // Nothing has changed: a failed pass is tried again, or it is time to look again.
            None if self.has_failed(&name) => Course::begin("retry"),
            None => Course::begin("recheck").after_rest(rested),
        };
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
            Ok(cached) => {
                self.undecodable().remove(&name);
                self.pass(cached, &mut course).await
            }
        };
        if let Some((_, cause)) = under_way.woken.filter(|_| course.is_put_off()) {
            self.wake.put_off(&name, cause);
        }
        let spent = began.elapsed();
        let outcome = result.as_ref().map_or(Outcome::Failed, |(_, outcome)| *outcome);
        let error = result.as_ref().err().map(ToString::to_string);
        let passed = course.passed(&name, outcome, spent, error.as_deref());
        for observer in &self.observers {
            observer.passed(&passed);
        }
        if matches!(outcome, Outcome::Rested | Outcome::Waiting) {
            tracing::debug!(crd = name, outcome = outcome.label(), "nothing changed");
        }
        match result {
            Ok((recheck, outcome)) => {
                self.succeeded(&name);
                if outcome == Outcome::Rested && recheck > round::RECHECK && self.ledger.knows(&name) {
                    self.resting().insert(name);
                }
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

    async fn pass(
        self: &Arc<Self>,
        cached: &NetIPAllocation,
        course: &mut Course,
    ) -> Result<(Duration, Outcome), PassError> {
        course.enter("netipallocation.observe");
        let name = cached.name_any();
        let seen = cached.uid().map(|uid| (uid, number(cached)));
        let seen = seen.as_ref().map(|(uid, version)| (uid.as_str(), *version));
        let Some(object) = self.ledger.newest(&name, seen).await? else {
            self.forget(&name);
            return Ok((Duration::from_secs(3600), Outcome::Rested));
        };
        let terminating = object.metadata.deletion_timestamp.is_some();
        // Observe changes nothing, not even on the way out.
        let retain = terminating && (self.observes(&object) || self.retains(&object).await?);
        let object = self.with_finalizer(object, terminating).await?;
        let nodes = self.nodes.all();
        let subject = Subject::of(object, retain, self.config.observe_only, &nodes, &self.view.answers());

        course.concerns(&subject.uid, subject.object.metadata.generation);
        if course.rests() && self.waits_for_survey(&subject) {
            return Ok((round::RECHECK, Outcome::Waiting));
        }
        if let Ok(scope) = &subject.scope {
            Counted::known(&subject.name, scope.provider);
        }

        // Observe.
        let moment = Moment::here();
        let entries = Entries::of(&subject, &nodes, &moment);
        let named = subject.object.spec.workload();
        let workload = self.pods.workload(named.as_ref(), false).await;
        let claims = self.claims(&nodes);
        let around = self.surroundings(&subject, &entries, nodes, moment);
        let no_taint_left = self.no_taint_left(&subject, &claims).await;
        let mut scene = Scene { around, claims, workload, pods: PodsByNode::new(), no_taint_left };
        scene.pods = self.pods_of_leaving_nodes(&subject, &scene, &entries).await;
        if !scene.pods.is_empty() {
            scene.workload = self.pods.workload(named.as_ref(), true).await;
        }

        // Decide.
        course.enter("netipallocation.plan");
        let mut permits = self.take_permits(&subject.name);
        let round = {
            let permitted = permits.keys().cloned().collect();
            let mut tables = self.tables();
            round::decide(&subject, &scene, &entries, &self.view.answers(), &permitted, &mut tables)
        };
        let unused = permits.extract_if(|subject, _| !round.used.contains(subject));
        self.put_back(&subject.name, unused.filter(|(subject, _)| round.kept.contains(subject)).collect());
        self.ask(&subject, &scene, &round);

        // Record, and only then act.
        self.finish(&subject, &scene, &entries, round, permits, course).await
    }

    /// Whether a survey is due and is just being made: it wakes the allocation, and until then there is nothing to decide. One
    /// that has to wait long itself is not waited for.
    fn waits_for_survey(&self, subject: &Subject) -> bool {
        let Ok(scope) = &subject.scope else { return false };
        let now = Moment::here();
        if self.view.answers().is_surveyed(scope, subject.survey_age(), &now) {
            return false;
        }
        self.view.ask(&subject.name, survey_of(scope), now.instant);
        self.view.asks_since(&Question::Survey(scope.clone())).is_some_and(|since| since.elapsed() < round::RECHECK)
    }

    /// All claims; made anew only when an allocation or a node has changed.
    pub(super) fn claims(&self, nodes: &Arc<Roster>) -> Arc<Claims> {
        let revision = self.ledger.revision();
        let mut last = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*last
            && known.revision == revision
            && Arc::ptr_eq(&known.nodes, nodes)
        {
            return known.claims.clone();
        }
        let claims = Arc::new(self.ledger.claims().labelled(nodes));
        *last = Some(Claimed { revision, nodes: nodes.clone(), claims: claims.clone() });
        claims
    }

    /// What one pass sees of the cluster and of the clouds' state.
    fn surroundings(&self, subject: &Subject, entries: &Entries, nodes: Arc<Roster>, moment: Moment) -> Surroundings {
        let (mut survey, mut survey_error) = (None, None);
        if let Ok(scope) = &subject.scope {
            (survey, survey_error) = self.view.answers().survey(scope);
            survey_error = survey_error.or_else(|| self.view.failure(scope.provider));
        }
        // Only these are connected: an operator that serves one cloud has the credentials of no other.
        let used = entries.providers(subject);
        let unconnected = used
            .into_iter()
            .filter(|provider| self.view.cloud(*provider).is_none())
            .map(|provider| (provider, self.view.why_not(provider)))
            .collect();
        Surroundings {
            nodes,
            survey,
            survey_error,
            unconnected,
            disruption_taints: self.config.disruption_taints.clone(),
            moment,
        }
    }

    /// Watches the pods of nodes that an address is leaving, and of no others.
    async fn pods_of_leaving_nodes(&self, subject: &Subject, scene: &Scene, entries: &Entries) -> PodsByNode {
        let (leaving, questions) = {
            let mut tables = self.tables();
            round::leaving_nodes(subject, scene, entries, &self.view.answers(), &mut tables)
        };
        self.view.ask(&subject.name, questions, scene.around.moment.instant);
        self.pods.want(&subject.uid, &subject.name, leaving.clone());
        let mut pods = PodsByNode::new();
        for node in leaving {
            if let Some(known) = self.pods.of(&node).await {
                pods.insert(node, known);
            }
        }
        pods
    }

    /// What the round wants to know, and the permits that it waits for.
    fn ask(self: &Arc<Self>, subject: &Subject, scene: &Scene, round: &Round) {
        self.view.ask(&subject.name, round.questions.clone(), scene.around.moment.instant);
        for wish in &round.wishes {
            self.ask_permit(&subject.name, wish);
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
        round: Round,
        mut permits: PermitsBySubject,
        course: &mut Course,
    ) -> Result<(Duration, Outcome), PassError> {
        let mut record = round.record(subject, scene, entries, &self.tables(), self.began);
        self.wake.wants(&subject.name, record.interest());
        let news = record.news(subject.object.status.as_ref());
        let timing =
            self.cadences().entry(subject.name.clone()).or_default().timing(news, subject.interval, Instant::now());
        let (mut unsaid, mut unwritten) = (None, Duration::MAX);
        let stored = match timing {
            Timing::Nothing => subject.object.clone(),
            Timing::HeldBack(wait) => {
                unsaid = Some(record.hold_back(subject.object.status.as_ref()));
                unwritten = wait;
                subject.object.clone()
            }
            Timing::Paced(wait) => {
                record.abandon(&mut self.tables());
                self.put_back(&subject.name, permits);
                course.put_off();
                return Ok((wait, Outcome::Waiting));
            }
            Timing::Now => {
                course.enter("netipallocation.status.patch");
                match self.write(subject, &record).await {
                    Written::Yes(stored) => {
                        self.cadences().entry(subject.name.clone()).or_default().wrote(Instant::now());
                        stored
                    }
                    Written::No(why) => {
                        record.abandon(&mut self.tables());
                        // One that went back to the queue would be granted, and wake the allocation, again and again.
                        self.put_back(&subject.name, permits);
                        return Err(PassError::NotWritten(why));
                    }
                }
            }
        };
        record.written(&mut self.tables());
        course.leave();
        self.tell(subject, &stored, &record, scene, course);
        let (outcome, recheck) = (record.outcome(), record.recheck(subject).min(unwritten));
        // No deed waits for the gauges.
        for turn in std::mem::take(&mut record.turns) {
            let permit = permits.remove(&turn.before.ip.to_string());
            self.begin(subject, turn, permit, &scene.around.moment);
        }
        for debt in std::mem::take(&mut record.debts) {
            let permit = permits.remove(debt.owed.machine.place.as_str());
            let trace = journey::trace_of_debt(&record.kept, &debt.owed.node);
            self.pay(subject, debt, permit, trace);
        }
        let status = unsaid.or_else(|| stored.status.clone()).unwrap_or_default();
        self.gauge(subject, &stored, &status, &record, &scene.around);
        let Record { kept, facts, plan, may_go, .. } = record;
        if subject.mode != Mode::Observe {
            let answer = requested::answer(&stored, &kept, &facts, &plan, &scene.claims);
            self.answer_move(&stored, &kept, answer).await;
        }
        if subject.terminating && may_go && self.release(&stored).await? {
            self.forget(&subject.name);
            return Ok((Duration::from_secs(3600), Outcome::Rested));
        }
        Ok((recheck, outcome))
    }

    async fn write(&self, subject: &Subject, record: &Record) -> Written {
        let (gate, limit) = (self.actor.gate(), self.config.mutation_timeout);
        record::write(&self.api, &self.ledger, &gate, limit, &subject.object, record.status.clone()).await
    }
}

/// In [0, 1), from the operation ids' source of randomness.
fn rand_unit() -> f64 {
    Moment::here().jitter()
}
