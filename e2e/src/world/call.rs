//! The log of calls, and how many of them are allowed.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::Ask;

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
    /// When it was answered; of a mutation, when it took effect or failed. Not while it runs.
    pub ended: Option<Instant>,
    /// Resource and method as the cloud calls them, for example `instances.addAccessConfig`.
    pub method: String,
    /// What it was about, as a path.
    pub target: String,
    /// What cut a list, in the cloud's words; empty where nothing did.
    pub filter: String,
    pub mutating: bool,
    pub outcome: Outcome,
}

/// At most so many calls of an account in a window of time; the windows follow each other without gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub calls: u32,
    pub window: Duration,
}

/// What clouds publish of how often they may be called: a token bucket of each account for some of its calls.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// In the cloud's own words.
    pub name: &'static str,
    /// Whether a call of this method counts, and whether it would change something.
    pub covers: fn(method: &str, mutating: bool) -> bool,
    /// Calls at once after a pause.
    pub burst: u32,
    /// Calls a second in the long run.
    pub per_second: f64,
}

/// The log. Numbers of calls stay valid when it is cleared.
#[derive(Debug, Default)]
pub(super) struct Log {
    calls: Vec<Call>,
    cleared: usize,
}

impl Log {
    pub(super) fn open(&mut self, ask: &Ask, mutating: bool) -> usize {
        self.calls.push(Call {
            at: Instant::now(),
            ended: None,
            method: ask.method.clone(),
            target: ask.target.clone(),
            filter: ask.filter.clone(),
            mutating,
            outcome: Outcome::Running,
        });
        self.cleared.saturating_add(self.calls.len()).saturating_sub(1)
    }

    pub(super) fn end(&mut self, number: usize, outcome: Outcome) {
        if let Some(call) = number.checked_sub(self.cleared).and_then(|at| self.calls.get_mut(at)) {
            call.outcome = outcome;
            call.ended = Some(Instant::now());
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
    quotas: Vec<Quota>,
    /// By account and quota: when it was counted last, and what was left then.
    buckets: BTreeMap<(String, &'static str), (Instant, f64)>,
}

impl Budgets {
    /// Sets another limit; every account starts with a full window.
    pub(super) fn set(&mut self, limit: Option<RateLimit>) {
        self.limit = limit;
        self.windows.clear();
    }

    /// Sets other quotas; every account starts with full buckets.
    pub(super) fn publish(&mut self, quotas: Vec<Quota>) {
        self.quotas = quotas;
        self.buckets.clear();
    }

    /// Spends one call; false when none is left of a limit that it falls under.
    pub(super) fn spend(&mut self, account: &str, method: &str, mutating: bool) -> bool {
        let now = Instant::now();
        let covering: Vec<Quota> =
            self.quotas.iter().filter(|quota| (quota.covers)(method, mutating)).copied().collect();
        covering.iter().all(|quota| self.draw(account, quota, now)) && self.count(account)
    }

    fn draw(&mut self, account: &str, quota: &Quota, now: Instant) -> bool {
        let burst = f64::from(quota.burst);
        let (counted, left) = self.buckets.entry((account.to_owned(), quota.name)).or_insert((now, burst));
        *left = (*left + now.duration_since(*counted).as_secs_f64() * quota.per_second).min(burst);
        *counted = now;
        let has = *left >= 1.0;
        *left -= if has { 1.0 } else { 0.0 };
        has
    }

    fn count(&mut self, account: &str) -> bool {
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
