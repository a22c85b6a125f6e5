//! The log of calls, and how many of them are allowed.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// How a call ended, as seen in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not ended: held, slow, or an operation that runs.
    Running,
    /// Answered well; of a mutation: carried out.
    Done,
    /// Answered with an error; the text is the refusal.
    Refused(String),
    /// Accepted, then failed; the text is the refusal.
    FailedLate(String),
    /// Never answered, by a [`super::Fault`]; of a mutation: whether it is carried out all the same.
    NoAnswer { effect: bool },
}

/// One call, in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub at: Instant,
    /// Resource and method as the cloud calls them, for example `instances.addAccessConfig`.
    pub method: String,
    /// What it was about, as a path.
    pub target: String,
    pub mutating: bool,
    pub outcome: Outcome,
}

/// At most so many calls of an account in a window of time; the windows follow each other without gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub calls: u32,
    pub window: Duration,
}

/// The log. Numbers of calls stay valid when it is cleared.
#[derive(Debug, Default)]
pub(super) struct Log {
    calls: Vec<Call>,
    cleared: usize,
}

impl Log {
    pub(super) fn open(&mut self, method: &str, target: &str, mutating: bool) -> usize {
        self.calls.push(Call {
            at: Instant::now(),
            method: method.to_owned(),
            target: target.to_owned(),
            mutating,
            outcome: Outcome::Running,
        });
        self.cleared.saturating_add(self.calls.len()).saturating_sub(1)
    }

    pub(super) fn end(&mut self, number: usize, outcome: Outcome) {
        if let Some(call) = number.checked_sub(self.cleared).and_then(|at| self.calls.get_mut(at)) {
            call.outcome = outcome;
        }
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.calls.clone()
    }

    pub(super) fn clear(&mut self) {
        self.cleared = self.cleared.saturating_add(self.calls.len());
        self.calls.clear();
    }
}

/// What is left of the rate limit, per account.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    pub(super) limit: Option<RateLimit>,
    windows: BTreeMap<String, (Instant, u32)>,
}

impl Budgets {
    /// Sets another limit; every account starts with a full window.
    pub(super) fn set(&mut self, limit: Option<RateLimit>) {
        self.limit = limit;
        self.windows.clear();
    }

    /// Spends one call; false when none is left.
    pub(super) fn spend(&mut self, account: &str) -> bool {
        let Some(limit) = self.limit else { return true };
        let now = Instant::now();
        let (began, spent) = self.windows.entry(account.to_owned()).or_insert((now, 0));
        if now.duration_since(*began) >= limit.window {
            (*began, *spent) = (now, 0);
        }
        let left = *spent < limit.calls;
        *spent = spent.saturating_add(u32::from(left));
        left
    }
}
