//! How long to wait before trying again, by class of failure. Retries never stop and never hammer.

use std::time::Duration;

/// Growth of the delay for one class of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// A conflict or a hiccup: soon, up to half a minute.
    pub const TRANSIENT: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
    /// Quotas that refill on the minute: not before that.
    pub const THROTTLED: Backoff = Backoff { first: Duration::from_secs(60), most: Duration::from_secs(600) };
    /// What a person must mend: seldom.
    pub const PERMANENT: Backoff = Backoff { first: Duration::from_secs(30), most: Duration::from_secs(600) };

    /// Delay before attempt number `attempts + 1`, where `attempts` have failed in a row (0 gives no delay).
    ///
    /// Doubles from `first` to `most`. `jitter` in [0, 1] takes off up to a quarter, so that subjects that failed
    /// together do not return together.
    pub fn delay(self, attempts: u32, jitter: f64) -> Duration {
        if attempts == 0 {
            return Duration::ZERO;
        }
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX));
        doubled.min(self.most).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p11_delays_double_and_are_capped() {
        let seconds: Vec<u64> = (0..8).map(|n| Backoff::TRANSIENT.delay(n, 0.0).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(Backoff::TRANSIENT.delay(u32::MAX, 0.0), Duration::from_secs(30));
    }

    #[test]
    fn p11_jitter_takes_off_a_quarter_at_most() {
        assert_eq!(Backoff::THROTTLED.delay(1, 1.0), Duration::from_secs(45));
        assert_eq!(Backoff::THROTTLED.delay(1, 7.0), Duration::from_secs(45));
    }
}
