//! Asking the clouds, beside the passes: nobody waits here. A question is asked once at a time, as urgently as the most
//! urgent of those who ask it. A survey wakes all allocations, any other answer those that asked.

use std::{
    collections::{BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    super::watch::{Cause, Wake},
    answers::{Answers, Asking, Question, Questions, Reply},
};
use crate::cloud::{
    Cloud, CloudError, Provider,
    connect::Clouds,
    limits::{Limits, Need, Place, Urging},
};

/// See the module.
#[derive(Clone)]
pub struct CloudView {
    clouds: Clouds,
    limits: Limits,
    wake: Wake,
    stop: CancellationToken,
    answers: Arc<Mutex<Answers>>,
    /// Those that wait or are on their way.
    asked: Arc<Mutex<HashMap<Question, Asked>>>,
}

/// A question that is open.
struct Asked {
    since: Instant,
    urging: Urging,
    /// The allocations that want to know.
    by: BTreeSet<String>,
}

impl CloudView {
    pub fn new(clouds: Clouds, limits: Limits, wake: Wake, stop: CancellationToken) -> Self {
        Self { clouds, limits, wake, stop, answers: Arc::default(), asked: Arc::default() }
    }

    /// The cloud of a provider, once it is connected.
    pub fn cloud(&self, provider: Provider) -> Option<Arc<dyn Cloud>> {
        self.clouds.get(provider)
    }

    /// Why a provider cannot be connected to now.
    pub fn failure(&self, provider: Provider) -> Option<CloudError> {
        self.clouds.failure(provider)
    }

    /// Why there is no such cloud yet, if that is known: the sentence for status.
    pub fn why_not(&self, provider: Provider) -> Option<String> {
        let error = self.clouds.failure(provider)?;
        Some(format!("{provider} cannot be reached: {error}; {}", error.kind.remedy()))
    }

    /// What is known. Held for no await.
    pub fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks each question that is not being asked already. One that was answered after `party` had looked, at `looked`, wakes
    /// it at once.
    pub fn ask(&self, party: &str, questions: Questions, looked: Instant) {
        for (question, asking) in questions {
            let Some(cloud) = self.clouds.get(asking.scope.provider) else { continue };
            if self.answers().began(&question).is_some_and(|began| began >= looked) {
                self.wake.one(party, Cause::Cloud);
                continue;
            }
            let Asking { scope, urgency } = asking;
            let mut asked = self.asked();
            if let Some(open) = asked.get_mut(&question) {
                open.urging.to(urgency);
                open.by.insert(party.to_owned());
                continue;
            }
            let place = self.limits.join(&scope, urgency, party, Need::Read);
            let by = BTreeSet::from([party.to_owned()]);
            asked.insert(question.clone(), Asked { since: Instant::now(), urging: place.urging(), by });
            tokio::spawn(self.clone().ask_one(question, place, cloud));
        }
    }

    /// Since when the question is open.
    pub fn asks_since(&self, question: &Question) -> Option<Instant> {
        self.asked().get(question).map(|open| open.since)
    }

    async fn ask_one(self, question: Question, place: Place, cloud: Arc<dyn Cloud>) {
        let answering = async {
            let allowance = place.served().await;
            allowance.spend_on(self.answer(&question, &*cloud)).await;
        };
        // A provider that panics must not leave the question open for ever.
        let answered = self.stop.run_until_cancelled(AssertUnwindSafe(answering).catch_unwind()).await;
        if let Some(Err(_)) = answered {
            tracing::error!(?question, "a provider panicked over this question");
        }
        let open = self.asked().remove(&question);
        match question {
            Question::Survey(_) => self.wake.in_turn(Cause::Cloud),
            Question::Find(..) | Question::Inspect(_) => {
                open.into_iter().flat_map(|open| open.by).for_each(|name| self.wake.one(&name, Cause::Cloud));
            }
        }
    }

    async fn answer(&self, question: &Question, cloud: &dyn Cloud) {
        let began = Instant::now();
        let reply = match question {
            Question::Survey(scope) => {
                let result = cloud.survey(scope).await.map(Arc::new);
                if let Err(error) = &result {
                    tracing::warn!(%scope, %error, "survey failed");
                }
                Reply::Survey(result)
            }
            Question::Find(scope, ip) => Reply::Find(cloud.find(scope, *ip).await),
            Question::Inspect(machine) => Reply::Inspect(cloud.inspect(machine).await),
        };
        self.answers().arrived(question, began, reply);
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Question, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
