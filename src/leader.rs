//! Leader election over one `coordination.k8s.io` Lease, and the proof of leadership that every mutation asks for (F1).
//!
//! Knows nothing of addresses, clouds or allocations. It does not end the process: [`Term::lost`] says when, main does.
//!
//! How it goes:
//! - every write is a `replace` on the resourceVersion last read, so of two writers one gets a conflict; who gets it
//!   reads again;
//! - the leader renews every [retry period](LeaseConfig::retry_period) and believes in itself until the instant *before*
//!   its last successful renewal was sent, plus duration, less skew, by its own monotonic clock;
//! - a standby takes a Lease that nobody holds at once, and a held one when *it* has seen no change for duration plus
//!   skew, by its own monotonic clock. Wall clocks are never compared.
//!
//! What it assumes: the API server orders writes; clocks of two machines differ in *rate* by less than two skews per
//! duration; an identity belongs to one process at a time. What it cannot see: a Lease that a person empties or deletes
//! while it is held is free to a process that starts just then, and its holder notices at its next renewal.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ip_address_controller::leader::{Candidate, LeaseConfig};
//! # async fn example(client: kube::Client, work: impl Future<Output = ()>) {
//! let candidate = Candidate::new(client, LeaseConfig {
//!     namespace: "kube-system".into(),
//!     name: "ip-address-controller-leader".into(),
//!     identity: "pod-a_0f3c".into(),
//!     duration: Duration::from_secs(60),
//!     skew: Duration::from_secs(2),
//! });
//! let term = candidate.lead().await;
//! tokio::select! {
//!     () = term.lost() => std::process::exit(1),
//!     () = work => term.release().await,
//! }
//! # }
//! ```

mod calls;
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod proof;
mod rules;
mod term;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, future};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::Client;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::{
    calls::{CallError, Calls, Changes},
    proof::Standing,
    rules::{Claim, Memory},
};
pub use self::{proof::Proof, term::Term};

/// Which Lease, in whose name, and for how long a renewal counts.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    pub namespace: String,
    pub name: String,
    /// Unique to this process: `<pod>_<uid>`. Two processes of one identity would both lead.
    pub identity: String,
    /// How long others respect a Lease that does not change.
    pub duration: Duration,
    /// What leader and standby each add for the difference of their clocks. Less than half of `duration`, or the proof
    /// never outlasts a mutation (a third) and a renewal's wait (a sixth).
    pub skew: Duration,
}

impl LeaseConfig {
    /// Between two renewals, and the time limit of each call: a sixth of the duration, at most 5 s, so that several
    /// calls in a row may fail before leadership does.
    pub fn retry_period(&self) -> Duration {
        (self.duration / 6).min(Duration::from_secs(5))
    }
}

/// A process that wants to lead. Clones share what they have heard.
#[derive(Clone, Debug)]
pub struct Candidate {
    calls: Calls,
    config: LeaseConfig,
    heard: Arc<Mutex<Heard>>,
}

/// What the last answer of the server said, for readiness and metrics.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    at: Option<Instant>,
    transitions: i32,
}

/// How one look at the Lease ended.
#[expect(clippy::large_enum_variant, reason = "one at a time, moved once")]
enum Look {
    Leads(Term),
    /// Somebody else may lead; the version seen (if there is a Lease) and when it will be dead.
    Waits(Option<String>, Instant),
    /// Somebody was faster: look again.
    Again,
}

impl Candidate {
    /// The client's own retries must be off (`default_retry = false`): the election does its own, and counts on a call
    /// being one request.
    pub fn new(client: Client, config: LeaseConfig) -> Self {
        Self { calls: Calls::new(client, &config), config, heard: Arc::default() }
    }

    /// Waits until this process leads. Never fails: it retries, and logs each distinct error once.
    ///
    /// May be dropped at any time. If that happens just while the Lease is being taken, nobody leads until it is dead.
    pub async fn lead(&self) -> Term {
        let mut memory = Memory::default();
        let mut changes = None;
        let mut complaint = Complaint::default();
        let mut stood_by = false;
        loop {
            match self.look(&mut memory).await {
                Ok(Look::Leads(term)) => {
                    complaint.over();
                    info!(lease = %self.config.name, identity = %self.config.identity, "leading");
                    return term;
                }
                Ok(Look::Waits(version, dead_at)) => {
                    complaint.over();
                    if !std::mem::replace(&mut stood_by, true) {
                        info!(lease = %self.config.name, identity = %self.config.identity, "standing by");
                    }
                    let tick = Instant::now() + self.config.retry_period();
                    tokio::select! {
                        () = sleep_until(tick.min(dead_at)) => {}
                        () = self.change(&mut changes, version) => {}
                    }
                }
                // A breath between two looks, should a server answer every write with a conflict.
                Ok(Look::Again) => sleep(self.config.retry_period() / 20).await,
                Err(error) => {
                    complaint.about(&error);
                    sleep(self.config.retry_period()).await;
                }
            }
        }
    }

    /// Whether the server has answered within the last two lease durations: the election is alive, as leader or as
    /// standby. A replica for which this is false is not ready.
    pub fn alive(&self) -> bool {
        self.heard().at.is_some_and(|at| at.elapsed() < self.config.duration.saturating_mul(2))
    }

    /// How often the Lease has changed hands, as it said when last heard of.
    pub fn transitions(&self) -> Option<i32> {
        let Heard { at, transitions } = self.heard();
        at.map(|_| transitions)
    }

    async fn look(&self, memory: &mut Memory) -> Result<Look, CallError> {
        let lease = self.calls.read().await?;
        let now = Instant::now();
        self.hear(lease.as_ref());
        memory.saw(lease.as_ref(), now, &self.config);
        let wanted = match (memory.claim(lease.as_ref(), now, &self.config), &lease) {
            (Claim::NotBefore(dead_at), _) => {
                let version = lease.and_then(|lease| lease.metadata.resource_version);
                return Ok(Look::Waits(version, dead_at));
            }
            (Claim::Take, Some(lease)) => rules::taken(lease, &self.config, Timestamp::now()),
            (Claim::Take | Claim::Create, _) => rules::created(&self.config, Timestamp::now()),
        };
        let sent = Instant::now();
        let answer = if lease.is_some() { self.calls.replace(&wanted).await } else { self.calls.create(&wanted).await };
        match answer {
            Ok(lease) => {
                self.hear(Some(&lease));
                let standing = Standing::new(rules::proven_until(sent, &self.config));
                Ok(Look::Leads(Term::begin(self.clone(), lease, standing)))
            }
            Err(CallError::Conflict | CallError::Missing) => Ok(Look::Again),
            Err(error) => Err(error),
        }
    }

    /// Returns when the Lease has changed, or may have: a server ends each stream after some minutes. Only a hint: where a stream fails,
    /// this is silent, and the tick goes on.
    async fn change(&self, changes: &mut Option<(Instant, Changes)>, version: Option<String>) {
        if changes.is_none()
            && let Some(version) = version
        {
            *changes = self.calls.changes(&version).await.ok().map(|stream| (Instant::now(), stream));
        }
        if let Some((opened, stream)) = changes {
            let heard = stream.next().await.is_some();
            // One that fails as soon as it is opened is not opened again before the tick.
            let lasted = opened.elapsed() >= self.config.retry_period();
            if !heard {
                *changes = None;
            }
            if heard || lasted {
                return;
            }
        }
        future::pending().await
    }

    fn hear(&self, lease: Option<&Lease>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.at = Some(Instant::now());
        if let Some(lease) = lease {
            heard.transitions = rules::transitions(lease);
        }
    }

    fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says each distinct error once, and once that it is over.
#[derive(Debug, Default)]
struct Complaint(Option<String>);

impl Complaint {
    fn about(&mut self, error: &CallError) {
        let text = error.to_string();
        if self.is_new(&text) {
            warn!(error = %text, "leader election: call failed, retrying");
        }
    }

    fn is_new(&mut self, text: &str) -> bool {
        self.0.replace(text.to_owned()).as_deref() != Some(text)
    }

    fn over(&mut self) {
        if self.0.take().is_some() {
            info!("leader election: the API server answers again");
        }
    }
}
