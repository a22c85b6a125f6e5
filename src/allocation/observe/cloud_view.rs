//! What is known of the clouds, shared by all allocations: surveys, and answers to calls by id.
//!
//! Nobody waits here: a question that has no fresh answer is asked beside the pass, once, and its answer wakes the
//! allocations. An answer carries the instant at which its read began; the read filter judges it (R1).

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::cloud::{
    Cloud, CloudError, ErrorKind, Holder, Provider, ProviderId, Reach, Reservation, Scope, Seat, Survey, Verified,
    Whereabouts,
    connect::Clouds,
    limits::{Limits, Urgency},
};

/// A read, good or not.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    pub began: Instant,
    pub result: Result<T, CloudError>,
}

/// Called with nothing whenever an answer has arrived.
pub type Arrived = Arc<dyn Fn() + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct CloudView {
    clouds: Clouds,
    limits: Limits,
    arrived: Arrived,
    stop: CancellationToken,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    surveys: HashMap<Scope, Answer<Arc<Survey>>>,
    /// The last survey that succeeded.
    good: HashMap<Scope, Arc<Survey>>,
    finds: HashMap<(Scope, IpAddr), Answer<Whereabouts>>,
    inspects: HashMap<ProviderId, Answer<Seat>>,
    asked: HashSet<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Survey(Scope),
    Find(Scope, IpAddr),
    Inspect(ProviderId),
}

impl CloudView {
    pub fn new(clouds: Clouds, limits: Limits, arrived: Arrived, stop: CancellationToken) -> Self {
        Self { clouds, limits, arrived, stop, known: Arc::default() }
    }

    /// The cloud of a provider, once it is connected.
    pub fn cloud(&self, provider: Provider) -> Option<Arc<dyn Cloud>> {
        self.clouds.get(provider)
    }

    /// Why there is no such cloud yet: the sentence for status.
    pub fn why_not(&self, provider: Provider) -> String {
        match self.clouds.failure(provider) {
            Some(error) => format!("{provider} cannot be reached: {error}; {}", error.kind.remedy()),
            None => format!("connects to {provider}"),
        }
    }

    /// Keeps the survey of `scope` no older than `age`.
    pub fn keep_surveyed(&self, scope: &Scope, age: Duration) {
        let fresh = self.lock().surveys.get(scope).is_some_and(|known| known.began.elapsed() < age);
        if !fresh {
            self.ask(Question::Survey(scope.clone()), scope.clone());
        }
    }

    /// The last survey that succeeded, and the failure since, if there is one.
    pub fn survey(&self, scope: &Scope) -> (Option<Arc<Survey>>, Option<CloudError>) {
        let known = self.lock();
        let failure = known.surveys.get(scope).and_then(|answer| answer.result.as_ref().err().cloned());
        (known.good.get(scope).cloned(), failure.or_else(|| self.clouds.failure(scope.provider)))
    }

    /// The survey of each resource group that is looked at in this account and region, if none has failed. One that was
    /// not asked for within `age` is nobody's any more.
    pub fn surveys_at(&self, home: &Scope, age: Duration) -> Option<Vec<Arc<Survey>>> {
        let there = |scope: &Scope| {
            scope.provider == home.provider && scope.account == home.account && scope.region == home.region
        };
        let known = self.lock();
        let asked = known.surveys.iter().filter(|(scope, answer)| there(scope) && answer.began.elapsed() <= age);
        asked.map(|(_, answer)| answer.result.as_ref().ok().cloned()).collect()
    }

    /// The last answer about one address; asked anew when it is older than `age`.
    pub fn find(&self, scope: &Scope, ip: IpAddr, age: Duration) -> Option<Answer<Whereabouts>> {
        let known = self.lock().finds.get(&(scope.clone(), ip)).cloned();
        if known.as_ref().is_none_or(|answer| answer.began.elapsed() >= age) {
            self.ask(Question::Find(scope.clone(), ip), scope.clone());
        }
        known
    }

    /// The last answer about one address, whatever its age.
    pub fn found(&self, scope: &Scope, ip: IpAddr) -> Option<Answer<Whereabouts>> {
        self.lock().finds.get(&(scope.clone(), ip)).cloned()
    }

    /// The answer about one machine; asked anew when it is older than `age`, and of no use when it is older than twice
    /// that: a machine read of yesterday proves nothing today.
    pub fn inspect(&self, scope: &Scope, machine: &ProviderId, age: Duration) -> Option<Answer<Seat>> {
        let known = self.inspected(machine);
        if known.as_ref().is_none_or(|answer| answer.began.elapsed() >= age) {
            self.ask(Question::Inspect(machine.clone()), scope.clone());
        }
        known.filter(|answer| answer.began.elapsed() < age * 2)
    }

    /// The last answer about one machine, whatever its age.
    pub fn inspected(&self, machine: &ProviderId) -> Option<Answer<Seat>> {
        self.lock().inspects.get(machine).cloned()
    }

    /// An effect's own closing read (R3).
    pub fn verified(&self, scope: &Scope, ip: IpAddr, machine: &ProviderId, verified: &Verified) {
        let mut known = self.lock();
        let reservation = Reservation {
            holder: verified.holder.clone(),
            name: String::new(),
            network_tier: None,
            reach: Reach::default(),
            tags: Default::default(),
        };
        let answer = Answer { began: verified.began, result: Ok(Whereabouts::Here(reservation)) };
        known.finds.insert((scope.clone(), ip), answer);
        known.inspects.remove(machine);
    }

    /// What was known of the machine is no longer so.
    pub fn changed(&self, machine: &ProviderId) {
        self.lock().inspects.remove(machine);
    }

    /// Forgets answers that are too old to be of use, so that nothing grows with the cluster's history.
    pub fn prune(&self) {
        let mut known = self.lock();
        known.finds.retain(|_, answer| answer.began.elapsed() < KEPT);
        known.inspects.retain(|_, answer| answer.began.elapsed() < KEPT);
    }

    fn ask(&self, question: Question, scope: Scope) {
        let Some(cloud) = self.clouds.get(scope.provider) else { return };
        if !self.lock().asked.insert(question.clone()) {
            return;
        }
        let view = self.clone();
        tokio::spawn(async move {
            let urgency = match question {
                Question::Survey(_) => Urgency::Survey,
                Question::Find(..) | Question::Inspect(_) => Urgency::Drain,
            };
            let answering = async {
                view.limits.acquire(&scope, urgency).await;
                view.answer(&question, &*cloud).await;
            };
            // A provider that panics must not leave the question open for ever.
            let answered = view.stop.run_until_cancelled(AssertUnwindSafe(answering).catch_unwind()).await;
            if let Some(Err(_)) = answered {
                tracing::error!(?question, "a provider panicked over this question");
            }
            view.lock().asked.remove(&question);
            (view.arrived)();
        });
    }

    async fn answer(&self, question: &Question, cloud: &dyn Cloud) {
        let began = Instant::now();
        match question {
            Question::Survey(scope) => {
                let result = cloud.survey(scope).await.map(Arc::new);
                if let Err(error) = &result {
                    tracing::warn!(%scope, %error, "survey failed");
                }
                let mut known = self.lock();
                if let Ok(survey) = &result {
                    known.good.insert(scope.clone(), survey.clone());
                }
                known.surveys.insert(scope.clone(), Answer { began, result });
            }
            Question::Find(scope, ip) => {
                let result = cloud.find(scope, *ip).await;
                let mut known = self.lock();
                // An effect may have read it later than this call began.
                let newer = known.finds.get(&(scope.clone(), *ip)).is_some_and(|answer| answer.began > began);
                if !newer {
                    known.finds.insert((scope.clone(), *ip), Answer { began, result });
                }
            }
            Question::Inspect(machine) => {
                let result = cloud.inspect(machine).await;
                self.lock().inspects.insert(machine.clone(), Answer { began, result });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers are kept for so long: beyond every age at which one is still of use.
const KEPT: Duration = Duration::from_secs(1200);

/// Whether the cloud says for sure that the machine does not exist.
pub fn is_gone(answer: &Answer<Seat>) -> bool {
    answer.result.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound)
}

/// The machine that holds a reservation.
pub fn holder(reservation: &Reservation) -> Option<&ProviderId> {
    match &reservation.holder {
        Holder::Machine(machine) => Some(machine),
        Holder::Free | Holder::Foreign(_) => None,
    }
}
