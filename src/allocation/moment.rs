//! When a pass runs, and its chance: facts like all others, so that a decision can be repeated.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use uuid::Uuid;

/// One instant on both clocks, and a source of ids that nobody has used.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall clock: what status and Nodes are compared with.
    pub now: Timestamp,
    /// Monotonic clock: what reads, intents and proofs are compared with.
    pub instant: Instant,
    /// Of this moment alone; every id that it gives is made from it.
    pub chance: Uuid,
}

impl Moment {
    /// Now, by this process's clocks.
    pub fn here() -> Self {
        Self { now: Timestamp::now(), instant: Instant::now(), chance: Uuid::new_v4() }
    }

    /// The id of this moment for `what`: another for each moment and each `what` (F9).
    pub fn id(&self, what: &str) -> Uuid {
        let half = |which: u8| {
            let mut hasher = DefaultHasher::new();
            (self.chance, which, what).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        uuid::Builder::from_random_bytes(((half(0) << 64) | half(1)).to_be_bytes()).into_uuid()
    }

    /// In [0, 1): spreads retries.
    pub fn jitter(&self) -> f64 {
        f64::from(self.chance.as_fields().0) / (f64::from(u32::MAX) + 1.0)
    }

    /// What the wall clock said then.
    pub fn then(&self, began: Instant) -> Timestamp {
        self.now.checked_sub(self.since(began)).unwrap_or(self.now)
    }

    /// How long ago that was; zero for what began after this moment.
    pub fn since(&self, began: Instant) -> Duration {
        self.instant.saturating_duration_since(began)
    }
}
