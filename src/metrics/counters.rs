//! What is counted and timed when it happens.
//!
//! A counter that is born at 1 shows no increase, so each set of series is created at 0 as soon as its subject is known:
//! [`allocation_seen`], [`cloud_operation_known`], [`cloud_known`], [`transition_known`].

use std::time::Duration;

use metrics::{counter, histogram};

use super::names::*;
use crate::cloud::{ErrorKind, Provider};

/// How something ended that can only go well or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Success,
    Error,
}

impl Ended {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Success, Self::Error];

    /// The word in metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

impl<T, E> From<&Result<T, E>> for Ended {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Success } else { Self::Error }
    }
}

/// What became of a request to evict a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    Evicted,
    /// A PodDisruptionBudget says wait.
    Blocked,
    Error,
}

impl Eviction {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Evicted, Self::Blocked, Self::Error];

    /// The word in metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Blocked => "blocked",
            Self::Error => "error",
        }
    }
}

/// Why a status write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// Another version was there: normal life.
    Conflict,
    Forbidden,
    /// The object is refused by its own schema.
    Invalid,
    TooLarge,
    /// No answer in time: it may have been written.
    Timeout,
    /// Everything else, a server that cannot be reached above all.
    Unavailable,
}

impl WriteFailure {
    /// Only the answer may have been lost: it may have been written.
    pub fn is_unanswered(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }

    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::Conflict, Self::Forbidden, Self::Invalid, Self::TooLarge, Self::Timeout, Self::Unavailable];

    /// The word in metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One edge that an address has gone along.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    pub crd_name: &'a str,
    pub provider: Provider,
    /// Label of the state left; the new state's is `to`.
    pub from: &'static str,
    pub to: &'static str,
    /// A word of the closed list of reasons.
    pub reason: &'static str,
    /// Time spent in `from`, if its beginning is known.
    pub spent: Option<Duration>,
}

/// Series without a subject. How often the Lease has changed hands is not ours to count: told as 0 before the Lease is
/// read, it would seem to have changed hands all those times just now.
pub(super) fn born() {
    evictions_born("");
    count_node_patch_errors("", 0);
    let _ = histogram!(QUEUE_WAIT);
}

fn evictions_born(crd_name: &str) {
    for outcome in Eviction::ALL.map(Eviction::label) {
        counter!(POD_EVICTIONS, "crd_name" => crd_name.to_owned(), "outcome" => outcome).increment(0);
    }
}

/// Creates the counters and histograms of an allocation at 0. Repeating it changes nothing.
pub fn allocation_seen(crd_name: &str) {
    let crd_name = crd_name.to_owned();
    for ended in Ended::ALL.map(Ended::label) {
        for name in [RECONCILE, IP_ATTACH, IP_DETACH] {
            counter!(name, "crd_name" => crd_name.clone(), "status" => ended).increment(0);
        }
    }
    evictions_born(&crd_name);
    count_node_patch_errors(&crd_name, 0);
    for reason in WriteFailure::ALL.map(WriteFailure::label) {
        counter!(STATUS_WRITE_ERRORS, "crd_name" => crd_name.clone(), "reason" => reason).increment(0);
    }
    let _ = histogram!(RECONCILE_DURATION, "crd_name" => crd_name);
}

/// Creates the series of a call to a cloud at 0. Repeating it changes nothing.
pub fn cloud_operation_known(provider: Provider, operation: &'static str) {
    let cloud = provider.as_str();
    for ended in Ended::ALL.map(Ended::label) {
        counter!(CLOUD_API_REQUESTS, "provider" => cloud, "operation" => operation, "outcome" => ended).increment(0);
    }
    for kind in ErrorKind::ALL {
        count_cloud_error(provider, operation, kind, 0);
    }
    let _ = histogram!(CLOUD_API_DURATION, "provider" => cloud, "operation" => operation);
    if provider == Provider::Gcp {
        let _ = histogram!(GCP_API_DURATION, "operation" => operation);
    }
}

/// Creates the histograms of the addresses at a cloud, empty: how long they were on no node, and in each of these states.
pub fn cloud_known(provider: Provider, states: &[&'static str]) {
    let cloud = provider.as_str();
    let _ = histogram!(IP_GAP_SECONDS, "provider" => cloud);
    for state in states {
        let _ = histogram!(IP_STATE_SECONDS, "provider" => cloud, "state" => *state);
    }
}

/// Creates the counter of a transition at 0: from which state, to which, for which reason. Repeating it changes nothing.
pub fn transition_known(crd_name: &str, provider: Provider, way: [&'static str; 3]) {
    count_transition(crd_name, provider, way, 0);
}

/// A call to a cloud was answered, or given up, after `spent`. Google's are told under version 1's names as well.
pub fn cloud_call(provider: Provider, operation: &'static str, result: Result<(), ErrorKind>, spent: Duration) {
    let cloud = provider.as_str();
    let outcome = Ended::from(&result).label();
    counter!(CLOUD_API_REQUESTS, "provider" => cloud, "operation" => operation, "outcome" => outcome).increment(1);
    histogram!(CLOUD_API_DURATION, "provider" => cloud, "operation" => operation).record(spent);
    if provider == Provider::Gcp {
        histogram!(GCP_API_DURATION, "operation" => operation).record(spent);
    }
    if let Err(kind) = result {
        count_cloud_error(provider, operation, kind, 1);
    }
}

fn count_cloud_error(provider: Provider, operation: &'static str, kind: ErrorKind, by: u64) {
    let (cloud, kind) = (provider.as_str(), kind.label());
    counter!(CLOUD_API_ERRORS, "provider" => cloud, "operation" => operation, "error_type" => kind).increment(by);
    if provider == Provider::Gcp {
        counter!(GCP_API_ERRORS, "operation" => operation, "error_type" => kind).increment(by);
    }
}

/// A pass over an allocation ended. Only a failure is an error: waiting is not.
pub fn reconciled(crd_name: &str, ended: Ended, spent: Duration) {
    let crd_name = crd_name.to_owned();
    counter!(RECONCILE, "crd_name" => crd_name.clone(), "status" => ended.label()).increment(1);
    histogram!(RECONCILE_DURATION, "crd_name" => crd_name).record(spent);
}

/// An allocation waited so long between its wake and its pass.
pub fn queued(waited: Duration) {
    histogram!(QUEUE_WAIT).record(waited);
}

/// An address changed its state, and status says so.
pub fn moved(transition: Transition<'_>) {
    let Transition { crd_name, provider, from, to, reason, spent } = transition;
    count_transition(crd_name, provider, [from, to, reason], 1);
    if let Some(spent) = spent {
        histogram!(IP_STATE_SECONDS, "provider" => provider.as_str(), "state" => from).record(spent);
    }
}

fn count_transition(crd_name: &str, provider: Provider, [from, to, reason]: [&'static str; 3], by: u64) {
    let (crd_name, provider) = (crd_name.to_owned(), provider.as_str());
    counter!(
        IP_TRANSITIONS,
        "crd_name" => crd_name, "provider" => provider, "from" => from, "to" => to, "reason" => reason,
    )
    .increment(by);
}

/// A moved address is on a node again, after it was on none for `gap`.
pub fn gap_closed(provider: Provider, gap: Duration) {
    histogram!(IP_GAP_SECONDS, "provider" => provider.as_str()).record(gap);
}

/// An attachment ended.
pub fn attached(crd_name: &str, ended: Ended) {
    counter!(IP_ATTACH, "crd_name" => crd_name.to_owned(), "status" => ended.label()).increment(1);
}

/// A detachment ended.
pub fn detached(crd_name: &str, ended: Ended) {
    counter!(IP_DETACH, "crd_name" => crd_name.to_owned(), "status" => ended.label()).increment(1);
}

/// An eviction was asked for and answered; of a pod on a node that is no allocation's, the name is empty.
pub fn evicted(crd_name: &str, outcome: Eviction) {
    counter!(POD_EVICTIONS, "crd_name" => crd_name.to_owned(), "outcome" => outcome.label()).increment(1);
}

/// The labels or taints of a node could not be changed; on behalf of no single allocation, the name is empty.
pub fn node_patch_failed(crd_name: &str) {
    count_node_patch_errors(crd_name, 1);
}

fn count_node_patch_errors(crd_name: &str, by: u64) {
    counter!(NODE_PATCH_ERRORS, "crd_name" => crd_name.to_owned()).increment(by);
}

/// A status write failed.
pub fn status_write_failed(crd_name: &str, reason: WriteFailure) {
    counter!(STATUS_WRITE_ERRORS, "crd_name" => crd_name.to_owned(), "reason" => reason.label()).increment(1);
}

/// The Lease says that it has changed hands so often. A smaller number than before changes nothing.
pub fn leader_transitions(so_often: i32) {
    counter!(LEADER_TRANSITIONS).absolute(u64::try_from(so_often).unwrap_or(0));
}
