//! When a watch that has failed is tried again.

use std::time::Duration;

use kube_runtime::utils;

use crate::{allocation::moment::Moment, lifecycle::backoff::Backoff};

/// Within seconds, for ever: nobody reacts to what a watch does not show, so what the API server's absence costs must not grow with it.
/// kube's own waits for up to a minute; and a watch that goes on from where it was, and learns only then that this is too long ago, waits
/// once more.
#[derive(Default)]
pub struct Retries {
    /// Failures in a row.
    failures: u32,
}

const SOON: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(4) };

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        Some(SOON.delay(self.failures, Moment::here().jitter()))
    }
}

impl utils::Backoff for Retries {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
