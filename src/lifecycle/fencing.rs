//! May this request leave now? Pure arithmetic on instants that the caller read.

use std::time::{Duration, Instant};

/// Why a request must not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Leadership is proven only for less than the request may take.
    LeadershipEnds,
    /// The intent may not be sent for as long as the request may take.
    IntentEnds,
    /// The process is stopping.
    Stopping,
}

impl Refusal {
    /// For messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::LeadershipEnds => "leadership is not proven for long enough",
            Refusal::IntentEnds => "the operation's time to send is over",
            Refusal::Stopping => "the process is stopping",
        }
    }
}

/// A request with time-out `timeout` may leave at `now` only if leadership (until `proof`) and the intent (until
/// `send_before`, where there is one) both outlast it: whatever it does, it does before another may lead.
///
/// # Errors
/// The reason why not.
pub fn may_send(now: Instant, timeout: Duration, proof: Instant, send_before: Option<Instant>) -> Result<(), Refusal> {
    let end = now + timeout;
    if end > proof {
        return Err(Refusal::LeadershipEnds);
    }
    if send_before.is_some_and(|last| end > last) {
        return Err(Refusal::IntentEnds);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn leaves_only_if_proof_and_intent_outlast_the_timeout() {
        let now = Instant::now();
        assert_eq!(may_send(now, SECOND, now + SECOND, None), Ok(()));
        assert_eq!(may_send(now, SECOND * 2, now + SECOND, None), Err(Refusal::LeadershipEnds));
        assert_eq!(may_send(now, SECOND * 2, now + SECOND * 9, Some(now + SECOND)), Err(Refusal::IntentEnds));
        assert_eq!(may_send(now, SECOND, now + SECOND * 9, Some(now + SECOND)), Ok(()));
    }
}
