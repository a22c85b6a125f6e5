//! What was so a while ago: what a reader of an eventually consistent cloud sees.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Inventory;

/// Inventories that are no longer in force, each until when it was, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Past {
    lag: Duration,
    kept: VecDeque<(Instant, Inventory)>,
}

impl Past {
    pub(super) fn set(&mut self, lag: Duration) {
        self.lag = lag;
        self.kept.clear();
    }

    pub(super) fn lags(&self) -> bool {
        !self.lag.is_zero()
    }

    /// This one has just been replaced.
    pub(super) fn keep(&mut self, inventory: Inventory) {
        while self.kept.front().is_some_and(|(until, _)| until.elapsed() >= self.lag) {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), inventory));
    }

    /// What was in force so long ago; `None` if it still is.
    pub(super) fn seen(&self) -> Option<&Inventory> {
        self.kept.iter().find(|(until, _)| until.elapsed() < self.lag).map(|(_, inventory)| inventory)
    }
}
