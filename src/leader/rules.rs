//! The rules of the election, as pure functions: when a Lease is dead, who may take it, what each write changes, how
//! long a renewal proves leadership.
//!
//! Knows no client and reads no clock: every instant and time is an argument. Two kinds of time meet here and are never
//! compared: the monotonic instants by which this process decides, and the wall-clock times that it writes into the
//! Lease for people and other tools to read.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use tokio::time::Instant;

use super::LeaseConfig;

/// Until when a renewal that was answered well proves leadership; `sent` is taken before it left (F1).
///
/// A standby counts at least duration + skew from an instant after the server applied the renewal, so between the last
/// moment of one leader and the first of the next lie two skews, for clocks that do not run equally fast.
pub(super) fn proven_until(sent: Instant, config: &LeaseConfig) -> Instant {
    sent + config.duration.saturating_sub(config.skew)
}

/// Who a Lease says holds it; an empty name is nobody.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|name| !name.is_empty())
}

/// How often the Lease has changed hands, as it says itself.
pub(super) fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}

/// What a candidate may do now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// There is no Lease and none was seen held: create it.
    Create,
    /// Nobody holds it, its holder is dead, or it is ours already: take it.
    Take,
    /// Somebody else may lead until this instant, if nothing changes.
    NotBefore(Instant),
}

/// What one candidate remembers of the Lease: the version it saw last and since when.
///
/// This memory is the whole of a standby's judgement. `renewTime` is never looked at: it is another machine's clock.
#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: Option<Sighting>,
}

#[derive(Debug)]
struct Sighting {
    version: Option<String>,
    held: bool,
    dead_at: Instant,
}

impl Memory {
    /// Takes note of a read that was answered at `now`; `None` is "there is no Lease".
    ///
    /// A Lease that vanishes counts as unchanged: whoever held it has its proof still.
    pub(super) fn saw(&mut self, lease: Option<&Lease>, now: Instant, config: &LeaseConfig) {
        let Some(lease) = lease else { return };
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_some_and(|seen| seen.version == version) {
            return;
        }
        self.seen = Some(Sighting { version, held: holder(lease).is_some(), dead_at: now + patience(lease, config) });
    }

    /// What `config.identity` may do at `now`, having just [seen](Self::saw) this Lease.
    pub(super) fn claim(&self, lease: Option<&Lease>, now: Instant, config: &LeaseConfig) -> Claim {
        let dead_at = self.seen.as_ref().filter(|seen| seen.held).map(|seen| seen.dead_at);
        let other_may_lead = dead_at.filter(|at| now < *at);
        match (lease, other_may_lead) {
            (None, Some(at)) => Claim::NotBefore(at),
            (None, None) => Claim::Create,
            // The identity belongs to one process at a time (pod uid), so this is a write of ours whose answer was
            // lost, or a container that was started again.
            (Some(lease), _) if holder(lease) == Some(config.identity.as_str()) => Claim::Take,
            (Some(lease), Some(at)) if holder(lease).is_some() => Claim::NotBefore(at),
            (Some(_), _) => Claim::Take,
        }
    }
}

/// The longest LEASE_DURATION that can be set: a Lease that says more is not of our making, and must not keep everybody
/// away for ever.
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// How long an unchanged Lease is respected: the longer of the holder's own duration and ours, and the skew. The holder's
/// counts because it steps down by the duration it was started with, which an upgrade may have changed.
fn patience(lease: &Lease, config: &LeaseConfig) -> Duration {
    let theirs = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    config.duration.max(theirs.min(LONGEST)) + config.skew
}

/// The first Lease of all, held by `config.identity`.
pub(super) fn created(config: &LeaseConfig, at: Timestamp) -> Lease {
    taken(
        &Lease {
            metadata: ObjectMeta {
                name: Some(config.name.clone()),
                namespace: Some(config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        },
        config,
        at,
    )
}

/// `lease` in the hands of `config.identity`. The resourceVersion stays that of `lease`, so the write is a
/// compare-and-swap; fields that are not ours stay as they were.
pub(super) fn taken(lease: &Lease, config: &LeaseConfig, at: Timestamp) -> Lease {
    let ours_already = holder(lease) == Some(config.identity.as_str());
    let first = lease.spec.is_none();
    edited(lease, |spec| {
        if !ours_already {
            spec.acquire_time = Some(MicroTime(at));
            let before = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(if first { before } else { before.saturating_add(1) });
        }
        spec.holder_identity = Some(config.identity.clone());
        spec.lease_duration_seconds = Some(whole_seconds(config.duration));
        spec.renew_time = Some(MicroTime(at));
    })
}

/// `lease` in nobody's hands: a standby takes it at once.
pub(super) fn released(lease: &Lease) -> Lease {
    edited(lease, |spec| {
        spec.holder_identity = None;
        spec.acquire_time = None;
        spec.renew_time = None;
        spec.lease_duration_seconds = None;
    })
}

fn edited(lease: &Lease, edit: impl FnOnce(&mut LeaseSpec)) -> Lease {
    let mut lease = lease.clone();
    edit(lease.spec.get_or_insert_default());
    lease
}

/// Rounded up: a reader that believes the number must not think us dead too early.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds.max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "pod-a_1";

    fn config() -> LeaseConfig {
        LeaseConfig {
            namespace: "ns".into(),
            name: "lease".into(),
            identity: ME.into(),
            duration: Duration::from_secs(60),
            skew: Duration::from_secs(2),
        }
    }

    fn lease(version: &str, holder: Option<&str>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some("lease".into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_proof_is_counted_from_the_sending_and_ends_a_skew_early() {
        let sent = Instant::now();
        assert_eq!(proven_until(sent, &config()), sent + seconds(58));
    }

    #[test]
    fn the_first_candidate_of_all_creates_the_lease() {
        let now = Instant::now();
        assert_eq!(Memory::default().claim(None, now, &config()), Claim::Create);
        let new = created(&config(), Timestamp::UNIX_EPOCH);
        assert_eq!((holder(&new), transitions(&new)), (Some(ME), 0));
        assert_eq!(new.metadata.resource_version, None);
    }

    #[test]
    fn a_free_lease_is_taken_at_once_even_if_it_was_held_a_moment_ago() {
        let (t, c) = (Instant::now(), config());
        let mut memory = Memory::default();
        memory.saw(Some(&lease("1", Some("b"))), t, &c);
        for free in [None, Some("")] {
            let free = lease("2", free);
            memory.saw(Some(&free), t + seconds(1), &c);
            assert_eq!(memory.claim(Some(&free), t + seconds(1), &c), Claim::Take);
        }
    }

    #[test]
    fn a_held_lease_is_dead_when_unchanged_for_duration_and_skew_since_this_process_saw_it() {
        let (t, c) = (Instant::now(), config());
        let held = lease("1", Some("b"));
        let mut memory = Memory::default();
        memory.saw(Some(&held), t, &c);
        memory.saw(Some(&held), t + seconds(50), &c);
        let almost = t + seconds(62) - Duration::from_nanos(1);
        assert_eq!(memory.claim(Some(&held), almost, &c), Claim::NotBefore(t + seconds(62)));
        assert_eq!(memory.claim(Some(&held), t + seconds(62), &c), Claim::Take);
    }

    #[test]
    fn any_change_of_the_lease_starts_the_count_again() {
        let (t, c) = (Instant::now(), config());
        let mut memory = Memory::default();
        memory.saw(Some(&lease("1", Some("b"))), t, &c);
        let renewed = lease("2", Some("b"));
        memory.saw(Some(&renewed), t + seconds(30), &c);
        assert_eq!(memory.claim(Some(&renewed), t + seconds(70), &c), Claim::NotBefore(t + seconds(92)));
    }

    #[test]
    fn a_holder_with_a_longer_duration_is_given_its_own() {
        let (t, c) = (Instant::now(), config());
        let mut held = lease("1", Some("b"));
        held.spec.as_mut().unwrap().lease_duration_seconds = Some(100);
        let mut memory = Memory::default();
        memory.saw(Some(&held), t, &c);
        assert_eq!(memory.claim(Some(&held), t, &c), Claim::NotBefore(t + seconds(102)));
    }

    #[test]
    fn a_shorter_or_senseless_duration_in_the_lease_hurries_nobody() {
        let (t, c) = (Instant::now(), config());
        for said in [1, 0, -5, i32::MIN] {
            let mut held = lease("1", Some("b"));
            held.spec.as_mut().unwrap().lease_duration_seconds = Some(said);
            let mut memory = Memory::default();
            memory.saw(Some(&held), t, &c);
            assert_eq!(memory.claim(Some(&held), t, &c), Claim::NotBefore(t + seconds(62)));
        }
    }

    #[test]
    fn a_duration_that_nobody_can_have_set_keeps_the_lease_from_nobody_for_ever() {
        let (t, c) = (Instant::now(), config());
        let mut held = lease("1", Some("b"));
        held.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
        let mut memory = Memory::default();
        memory.saw(Some(&held), t, &c);
        assert_eq!(memory.claim(Some(&held), t, &c), Claim::NotBefore(t + LONGEST + seconds(2)));
    }

    #[test]
    fn a_lease_deleted_under_its_holder_is_waited_out_like_an_unchanged_one() {
        let (t, c) = (Instant::now(), config());
        let mut memory = Memory::default();
        memory.saw(Some(&lease("1", Some("b"))), t, &c);
        memory.saw(None, t + seconds(10), &c);
        assert_eq!(memory.claim(None, t + seconds(10), &c), Claim::NotBefore(t + seconds(62)));
        assert_eq!(memory.claim(None, t + seconds(62), &c), Claim::Create);
    }

    #[test]
    fn a_lease_deleted_after_its_release_is_created_at_once() {
        let (t, c) = (Instant::now(), config());
        let mut memory = Memory::default();
        memory.saw(Some(&lease("1", None)), t, &c);
        assert_eq!(memory.claim(None, t, &c), Claim::Create);
    }

    #[test]
    fn our_own_lease_is_taken_again_without_counting_a_transition() {
        let (t, c) = (Instant::now(), config());
        let ours = lease("1", Some(ME));
        let mut memory = Memory::default();
        memory.saw(Some(&ours), t, &c);
        assert_eq!(memory.claim(Some(&ours), t, &c), Claim::Take);
        assert_eq!(transitions(&taken(&ours, &c, Timestamp::UNIX_EPOCH)), 4);
    }

    #[test]
    fn taking_keeps_the_version_it_was_decided_on_and_counts_the_transition() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let before = lease("7", Some("b"));
        let after = taken(&before, &config(), at);
        assert_eq!(after.metadata, before.metadata);
        let spec = after.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some(ME));
        assert_eq!(spec.lease_transitions, Some(5));
        assert_eq!(spec.lease_duration_seconds, Some(60));
        assert_eq!(spec.acquire_time, Some(MicroTime(at)));
        assert_eq!(spec.renew_time, Some(MicroTime(at)));
    }

    #[test]
    fn renewing_leaves_the_time_of_acquisition() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let held = taken(&lease("7", None), &config(), first);
        let spec = taken(&held, &config(), later).spec.unwrap();
        assert_eq!(spec.acquire_time, Some(MicroTime(first)));
        assert_eq!(spec.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn releasing_clears_all_but_the_count_of_transitions() {
        let held = taken(&lease("7", None), &config(), Timestamp::UNIX_EPOCH);
        let free = released(&held);
        assert_eq!(free.metadata, held.metadata);
        assert_eq!(free.spec.unwrap(), LeaseSpec { lease_transitions: Some(5), ..LeaseSpec::default() });
    }

    #[test]
    fn a_duration_is_written_in_whole_seconds_rounded_up() {
        let cases = [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)];
        for (millis, written) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), written, "{millis} ms");
        }
    }
}
