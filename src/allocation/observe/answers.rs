//! What the clouds have answered: surveys, and answers to calls by id. Pure: asking is [`super::cloud_view`]'s.
//!
//! An answer carries the instant at which its read began; the read filter judges it (R1).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    allocation::moment::Moment,
    cloud::{
        CloudError, ErrorKind, Holder, ProviderId, Reach, Reservation, Scope, Seat, Survey, Verified, Whereabouts,
        limits::Urgency,
    },
};

/// A read, good or not.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    pub began: Instant,
    pub result: Result<T, CloudError>,
}

/// A read of a cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Every reserved address of a scope.
    Survey(Scope),
    /// One address, by id.
    Find(Scope, IpAddr),
    /// One machine, by id.
    Inspect(ProviderId),
}

/// What a pass wants to know.
pub type Questions = BTreeMap<Question, Asking>;

/// For the survey of a scope that is to be kept surveyed.
pub fn survey_of(scope: &Scope) -> Questions {
    let asking = Asking { scope: scope.clone(), urgency: Urgency::Survey };
    Questions::from([(Question::Survey(scope.clone()), asking)])
}

/// How a question is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Whose rate budget it is asked on.
    pub scope: Scope,
    /// Of the most urgent of those who want to know.
    pub urgency: Urgency,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Reply {
    Survey(Result<Arc<Survey>, CloudError>),
    Find(Result<Whereabouts, CloudError>),
    Inspect(Result<Seat, CloudError>),
}

/// The last answer to each question.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    surveys: BTreeMap<Scope, Answer<Arc<Survey>>>,
    /// The last survey that succeeded.
    good: BTreeMap<Scope, Arc<Survey>>,
    finds: BTreeMap<(Scope, IpAddr), Answer<Whereabouts>>,
    inspects: BTreeMap<ProviderId, Answer<Seat>>,
}

impl Answers {
    /// The answer to a question that was asked at `began`.
    pub fn arrived(&mut self, question: &Question, began: Instant, reply: Reply) {
        match (question, reply) {
            (Question::Survey(scope), Reply::Survey(result)) => {
                if let Ok(survey) = &result {
                    self.good.insert(scope.clone(), survey.clone());
                }
                self.surveys.insert(scope.clone(), Answer { began, result });
            }
            (Question::Find(scope, ip), Reply::Find(result)) => {
                let key = (scope.clone(), *ip);
                // An effect may have read it later than this call began.
                if self.finds.get(&key).is_none_or(|known| known.began <= began) {
                    self.finds.insert(key, Answer { began, result });
                }
            }
            (Question::Inspect(machine), Reply::Inspect(result)) => {
                self.inspects.insert(machine.clone(), Answer { began, result });
            }
            (Question::Survey(_) | Question::Find(..) | Question::Inspect(_), _) => {}
        }
    }

    /// Whether the last survey of `scope`, good or not, is younger than `age`.
    pub fn is_surveyed(&self, scope: &Scope, age: Duration, moment: &Moment) -> bool {
        self.surveys.get(scope).is_some_and(|known| moment.since(known.began) < age)
    }

    /// When the read that answered the question last began.
    pub fn began(&self, question: &Question) -> Option<Instant> {
        match question {
            Question::Survey(scope) => self.surveys.get(scope).map(|answer| answer.began),
            Question::Find(scope, ip) => self.found(scope, *ip).map(|answer| answer.began),
            Question::Inspect(machine) => self.inspected(machine).map(|answer| answer.began),
        }
    }

    /// The last survey that succeeded, and the failure since, if there is one.
    pub fn survey(&self, scope: &Scope) -> (Option<Arc<Survey>>, Option<CloudError>) {
        let failure = self.surveys.get(scope).and_then(|answer| answer.result.as_ref().err().cloned());
        (self.good.get(scope).cloned(), failure)
    }

    /// The survey of each resource group that is looked at in this account and region, if none has failed. One that was
    /// not asked for within `age` is nobody's any more.
    pub fn surveys_at(&self, home: &Scope, age: Duration, moment: &Moment) -> Option<Vec<Arc<Survey>>> {
        let there = |scope: &Scope| {
            scope.provider == home.provider && scope.account == home.account && scope.region == home.region
        };
        let asked = self.surveys.iter().filter(|(scope, answer)| there(scope) && moment.since(answer.began) <= age);
        asked.map(|(_, answer)| answer.result.as_ref().ok().cloned()).collect()
    }

    /// The last answer about one address, whatever its age.
    pub fn found(&self, scope: &Scope, ip: IpAddr) -> Option<&Answer<Whereabouts>> {
        self.finds.get(&(scope.clone(), ip))
    }

    /// The last answer about one machine, whatever its age.
    pub fn inspected(&self, machine: &ProviderId) -> Option<&Answer<Seat>> {
        self.inspects.get(machine)
    }

    /// An effect's own closing read (R3).
    pub fn verified(&mut self, scope: &Scope, ip: IpAddr, machine: &ProviderId, verified: &Verified) {
        let reservation = Reservation {
            holder: verified.holder.clone(),
            name: String::new(),
            network_tier: None,
            reach: Reach::default(),
            tags: BTreeMap::default(),
        };
        let answer = Answer { began: verified.began, result: Ok(Whereabouts::Here(reservation)) };
        self.finds.insert((scope.clone(), ip), answer);
        self.inspects.remove(machine);
    }

    /// What was known of the machine is no longer so.
    pub fn changed(&mut self, machine: &ProviderId) {
        self.inspects.remove(machine);
    }

    /// Forgets answers that are too old to be of use, so that nothing grows with the cluster's history.
    pub fn prune(&mut self, moment: &Moment) {
        self.finds.retain(|_, answer| moment.since(answer.began) < KEPT);
        self.inspects.retain(|_, answer| moment.since(answer.began) < KEPT);
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
