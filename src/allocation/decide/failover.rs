//! NotReady is not dead: when too many nodes look unhealthy at once, the fault is more likely in the network between
//! them and the API server than in the nodes, and moving every address would be the outage (design §3.4).

use jiff::{SignedDuration, Timestamp};

/// How many of the selected nodes look unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Selected nodes, and gone ones that entries name, whose machines are not proven dead.
    pub nodes: usize,
    /// Of these: NotReady for however short, or gone.
    pub unhealthy: usize,
}

impl Health {
    /// All, or more than `max_unhealthy` (never below 2).
    pub fn is_mass_failure(self, max_unhealthy: usize) -> bool {
        self.unhealthy > 0 && (self.unhealthy == self.nodes || self.unhealthy > max_unhealthy.max(2))
    }
}

/// The breaker of one allocation: opens at once, closes after a quiet time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// When a mass failure was last seen.
    last_seen: Option<Timestamp>,
}

impl Breaker {
    /// As another process left it: `seen` is when a mass failure was last known of.
    pub fn restored(seen: Option<Timestamp>) -> Self {
        Self { last_seen: seen }
    }

    /// Whether involuntary moves are frozen: now, or until the share has stayed below for `quiet`.
    pub fn frozen(&mut self, now: Timestamp, mass_failure: bool, quiet: SignedDuration) -> bool {
        if mass_failure {
            self.last_seen = Some(now);
        }
        if self.last_seen.is_some_and(|seen| now.duration_since(seen) >= quiet) {
            self.last_seen = None;
        }
        self.last_seen.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mass(nodes: usize, unhealthy: usize) -> bool {
        Health { nodes, unhealthy }.is_mass_failure(nodes.div_ceil(2))
    }

    #[test]
    fn all_or_more_than_the_share_but_never_below_two_freezes() {
        assert!(!mass(4, 0));
        assert!(mass(1, 1), "all");
        assert!(!mass(3, 1));
        assert!(!mass(3, 2), "two of three is not more than two");
        assert!(mass(3, 3));
        assert!(!mass(10, 5));
        assert!(mass(10, 6));
        assert!(!mass(0, 0));
    }

    #[test]
    fn the_breaker_opens_at_once_and_closes_after_a_quiet_time() {
        let quiet = SignedDuration::from_secs(300);
        let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap();
        let mut breaker = Breaker::default();
        assert!(!breaker.frozen(at(0), false, quiet));
        assert!(breaker.frozen(at(1), true, quiet));
        assert!(breaker.frozen(at(200), false, quiet));
        assert!(breaker.frozen(at(250), true, quiet), "seen again: the quiet time begins anew");
        assert!(breaker.frozen(at(549), false, quiet));
        assert!(!breaker.frozen(at(550), false, quiet));
    }
}
