//! What the probes are told.
//!
//! Knows no cause: whoever finds one says so here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, interval};

/// How often [`Health::beat`] beats.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);

/// Without a beat for so long the event loop counts as stuck. Six beats: a busy node may delay some, and the kubelet asks
/// three times, 15 s apart, before it acts.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// Shared state of the probes; clones are one. Begins alive and not ready.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    beat: Instant,
    not_ready: Option<String>,
    stopping: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            beat: Instant::now(),
            not_ready: Some("starting".to_owned()),
            stopping: false,
        })))
    }

    /// Ready from now on, unless [stopping](Self::stopping).
    pub fn ready(&self) {
        self.with(|state| {
            if !state.stopping {
                state.not_ready = None;
            }
        });
    }

    /// Not ready from now on; `reason` is one line for the person who reads the probe's answer.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.with(|state| {
            if !state.stopping {
                state.not_ready = Some(reason);
            }
        });
    }

    /// Not ready for good: the process is about to end, and nothing that is still running may say otherwise.
    pub fn stopping(&self) {
        self.with(|state| {
            state.stopping = true;
            state.not_ready = Some("stopping".to_owned());
        });
    }

    /// The event loop turns.
    pub fn heartbeat(&self) {
        self.with(|state| state.beat = Instant::now());
    }

    /// Beats for ever, to be run as a task of the loop that is watched.
    pub async fn beat(self) {
        let mut tick = interval(HEARTBEAT_PERIOD);
        loop {
            tick.tick().await;
            self.heartbeat();
        }
    }

    /// For the gauge `controller_ready`.
    pub fn is_ready(&self) -> bool {
        self.why_not_ready().is_none()
    }

    /// For the gauge `controller_healthy`.
    pub fn is_healthy(&self) -> bool {
        self.stale_for().is_none()
    }

    pub(super) fn why_not_ready(&self) -> Option<String> {
        self.with(|state| state.not_ready.clone())
    }

    /// The age of the last beat, if it is too old.
    pub(super) fn stale_for(&self) -> Option<Duration> {
        let age = self.with(|state| state.beat.elapsed());
        (age >= HEARTBEAT_LIMIT).then_some(age)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
