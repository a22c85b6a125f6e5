//! One term of leadership: renewed by a task of its own, lost or released.
//!
//! Knows no work that is done under it; who works asks the [`Proof`].

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::{Candidate, Complaint, Proof, Standing, calls::CallError, rules};

/// How long [`Term::release`] tries: less than any grace period, since the next leader comes anyway when the Lease is
/// dead.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// This process leads, as long as the [`proof`](Term::proof) says so.
///
/// Dropping it ends the proof and stops the renewals, and leaves the Lease to die of age; [`release`](Term::release)
/// hands it over at once.
#[derive(Debug)]
#[must_use = "dropping a Term gives leadership up"]
pub struct Term {
    candidate: Candidate,
    proof: Proof,
    transitions: i32,
    renewal: JoinHandle<Lease>,
    stop: DropGuard,
}

impl Term {
    /// `lease` is what the server answered when it was taken.
    pub(super) fn begin(candidate: Candidate, lease: Lease, standing: Standing) -> Self {
        let stop = CancellationToken::new();
        let proof = standing.proof();
        let renewal =
            Renewal { candidate: candidate.clone(), standing: Revoked(standing), complaint: Complaint::default() };
        Self {
            transitions: rules::transitions(&lease),
            renewal: tokio::spawn(renewal.run(lease, stop.clone())),
            candidate,
            proof,
            stop: stop.drop_guard(),
        }
    }

    /// To be asked before each mutation. Outlives the term, and then says no.
    pub fn proof(&self) -> Proof {
        self.proof.clone()
    }

    /// How often the Lease had changed hands when this term began.
    pub fn transitions(&self) -> i32 {
        self.transitions
    }

    /// Returns when the proof has run out, or somebody else holds the Lease, whichever is first. From then on nothing
    /// may be sent; the process is to end.
    pub async fn lost(&self) {
        self.proof.ended().await;
    }

    /// Hands the Lease over: ends the proof, then clears holder, times and duration, so that a standby takes it at once.
    ///
    /// Tries for 2 s, then gives up; the Lease then dies of age. Nothing may be in flight any more (F6): what is sent
    /// after this is not proven.
    pub async fn release(self) {
        let Self { candidate, proof, renewal, stop, .. } = self;
        drop(stop);
        let handed_over = timeout(RELEASE_LIMIT, async {
            // The task revokes the proof as it ends; only then may another lead.
            proof.ended().await;
            match renewal.await {
                Ok(lease) => hand_over(&candidate, lease).await,
                Err(error) => Err(CallError::Failed(error.to_string())),
            }
        });
        match handed_over.await {
            Ok(Ok(())) => info!(lease = %candidate.config.name, "leadership released"),
            Ok(Err(error)) => warn!(%error, "leadership not released, the Lease must die of age"),
            Err(_) => {
                warn!("leadership not released within {RELEASE_LIMIT:?}, the Lease must die of age")
            }
        }
    }
}

/// Clears the Lease if it is ours. A renewal that was cut short may have changed the version: then it is read once more.
async fn hand_over(candidate: &Candidate, mut lease: Lease) -> Result<(), CallError> {
    loop {
        match candidate.calls.replace(&rules::released(&lease)).await {
            Ok(_) | Err(CallError::Missing) => return Ok(()),
            Err(CallError::Conflict) => match candidate.calls.read().await? {
                Some(now) if rules::holder(&now) == Some(&candidate.config.identity) => lease = now,
                _ => return Ok(()),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Revokes when it goes, however it goes: end of the task, panic, runtime shut down.
struct Revoked(Standing);

impl Drop for Revoked {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

struct Renewal {
    candidate: Candidate,
    standing: Revoked,
    complaint: Complaint,
}

/// How one renewal ended.
enum Renewed {
    /// The Lease as it is now.
    Yes(Lease),
    /// Still ours, but in another version: try at once with this one.
    Again(Lease),
    /// Not known; the next tick tries with what was read last.
    Unknown(CallError),
    /// Somebody else's, or gone.
    Lost(String),
}

impl Renewal {
    /// Renews until told to stop or until leadership is lost; returns the Lease as last read.
    async fn run(mut self, mut lease: Lease, stop: CancellationToken) -> Lease {
        let proof = self.standing.0.proof();
        let period = self.candidate.config.retry_period();
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let renewed = tokio::select! {
                biased;
                () = stop.cancelled() => return lease,
                // Also while a renewal hangs: it is dropped then.
                () = proof.ended() => {
                    warn!("leadership lost: no renewal was answered in time");
                    return lease;
                }
                renewed = async { tick.tick().await; self.renew(&lease).await } => renewed,
            };
            match renewed {
                Renewed::Yes(now) => {
                    self.complaint.over();
                    lease = now;
                }
                Renewed::Again(now) => {
                    lease = now;
                    tick.reset_after(period / 20);
                }
                Renewed::Unknown(error) => self.complaint.about(&error),
                Renewed::Lost(to) => {
                    warn!("leadership lost: {to}");
                    return lease;
                }
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Renewed {
        let Candidate { calls, config, .. } = &self.candidate;
        let sent = Instant::now();
        match calls.replace(&rules::taken(lease, config, Timestamp::now())).await {
            Ok(now) => {
                self.candidate.hear(Some(&now));
                if self.standing.0.extend(rules::proven_until(sent, config)) {
                    Renewed::Yes(now)
                } else {
                    Renewed::Lost("the answer came after the proof had run out".to_owned())
                }
            }
            Err(CallError::Conflict) => match calls.read().await {
                Ok(Some(now)) => match rules::holder(&now) {
                    Some(holder) if holder == config.identity => Renewed::Again(now),
                    Some(other) => Renewed::Lost(format!("{other} holds the Lease")),
                    None => Renewed::Lost("somebody emptied the Lease".to_owned()),
                },
                Ok(None) => Renewed::Lost(CallError::Missing.to_string()),
                Err(error) => Renewed::Unknown(error),
            },
            // Not created anew: a standby may be doing just that.
            Err(CallError::Missing) => Renewed::Lost(CallError::Missing.to_string()),
            Err(error @ CallError::Failed(_)) => Renewed::Unknown(error),
        }
    }
}
