//! Nodes whose pods are asked to go because no address is there any more: which, and when again. Pure.
//!
//! Of an address that somebody else took off, status tells for an hour: whoever leads asks for as long as a pod stays, whatever
//! the leader before had heard. That a stray label was taken off stands nowhere; it dies with the leader.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    allocation::decide::state::Reason,
    api::{Mode, NetIPAllocation},
};

/// Pods are asked again after so long: a PodDisruptionBudget may have said no, or the request was lost.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// For so long it is looked whether somebody stayed where an address was taken off.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// By name of the node.
#[derive(Default)]
pub(super) struct Evicting(BTreeMap<String, Asking>);

struct Asking {
    /// Since when no address is there.
    since: Timestamp,
    /// When its pods were asked last.
    asked: Option<Instant>,
    /// Nobody stays, and nobody comes while the label is off.
    done: bool,
}

impl Evicting {
    /// No address is there since then. What is known of a time before says nothing about it.
    pub fn left(&mut self, node: String, since: Timestamp) {
        if self.0.get(&node).is_none_or(|known| known.since < since) {
            self.0.insert(node, Asking { since, asked: None, done: false });
        }
    }

    /// Forgets nodes that have an address or are about to, and what is over.
    pub fn forget(&mut self, has_address: impl Fn(&str) -> bool, now: Timestamp) {
        self.0.retain(|node, asking| {
            let over = asking.done && now.duration_since(asking.since) >= REMEMBERED;
            !over && !has_address(node)
        });
    }

    /// Nobody is to be asked, nor was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose pods are to be asked now.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let due = |asking: &Asking| asking.asked.is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN);
        self.0.iter().filter(|(_, asking)| !asking.done && due(asking)).map(|(node, _)| node.clone()).collect()
    }

    /// Its pods were asked, and whether any may still be there.
    pub fn asked(&mut self, node: &str, now: Instant, stays: bool) {
        if let Some(asking) = self.0.get_mut(node) {
            asking.asked = Some(now);
            asking.done = !stays;
        }
    }
}

/// Nodes that somebody else took an address off a short time ago, with when that was, as the ledgers in status tell it.
pub(super) fn drifted<'a>(
    all: impl IntoIterator<Item = &'a NetIPAllocation>,
    now: Timestamp,
) -> Vec<(String, Timestamp)> {
    let acting = all.into_iter().filter(|object| object.spec.mode != Mode::Observe);
    let moves = acting.filter_map(|object| object.status.as_ref()).flat_map(|status| &status.addresses);
    let drifts = moves.filter_map(|address| address.last_move.as_ref());
    drifts
        .filter(|ledger| ledger.reason == Reason::Drifted.as_str())
        .filter(|ledger| now.duration_since(ledger.finish_time.0) < REMEMBERED)
        .filter_map(|ledger| Some((ledger.from_node.clone()?, ledger.finish_time.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// An allocation with an address that has left this node for that reason, at second 0.
    fn left(node: &str, reason: &str, mode: &str) -> NetIPAllocation {
        let ledger = json!({
            "fromNode": node, "reason": reason, "startTime": at(-5).to_string(), "finishTime": at(0).to_string(),
        });
        serde_json::from_value(json!({
            "apiVersion": "netinfra.darkbrains.com/v1alpha1", "kind": "NetIPAllocation",
            "metadata": {"name": "sip"},
            "spec": {"reservedIPs": ["203.0.113.7"], "mode": mode},
            "status": {"addresses": [{"ip": "203.0.113.7", "state": "Detached", "lastMove": ledger}]},
        }))
        .unwrap()
    }

    /// What a leader knows who reads this status.
    fn leader(all: &[NetIPAllocation], now: Timestamp) -> Evicting {
        let mut evicting = Evicting::default();
        drifted(all, now).into_iter().for_each(|(node, since)| evicting.left(node, since));
        evicting
    }

    #[test]
    fn p7_after_a_drift_pods_that_a_budget_keeps_are_asked_until_none_stays_also_by_the_next_leader() {
        let status = [left("node-a", "Drifted", "Enforce")];
        let began = Instant::now();
        let later = |seconds| began + Duration::from_secs(seconds);
        let mut first = leader(&status, at(1));
        assert_eq!(first.due(began), ["node-a"]);
        first.asked("node-a", began, true);
        assert!(first.due(later(9)).is_empty(), "the budget said no a moment ago");
        assert_eq!(first.due(later(10)), ["node-a"]);
        drop(first);

        let mut second = leader(&status, at(60));
        assert_eq!(second.due(later(60)), ["node-a"], "it has heard nothing of the first one's requests");
        second.asked("node-a", later(60), false);
        drifted(&status, at(90)).into_iter().for_each(|(node, since)| second.left(node, since));
        assert!(second.due(later(90)).is_empty(), "the last pod has gone");
    }

    #[test]
    fn p7_nobody_is_asked_on_a_node_that_an_address_has_left_in_another_way_or_long_ago() {
        assert!(drifted(&[left("node-a", "NodeCordoned", "Enforce")], at(1)).is_empty());
        assert!(drifted(&[left("node-a", "Drifted", "Observe")], at(1)).is_empty(), "nothing is done for it");
        assert!(drifted(&[left("node-a", "Drifted", "Enforce")], at(3600)).is_empty());
    }

    #[test]
    fn a_node_that_gets_an_address_again_is_left_alone_until_that_is_taken_off_too() {
        let mut evicting = leader(&[left("node-a", "Drifted", "Enforce")], at(1));
        evicting.forget(|node| node == "node-a", at(2));
        assert!(evicting.due(Instant::now()).is_empty());
        evicting.left("node-a".to_owned(), at(100));
        assert_eq!(evicting.due(Instant::now()), ["node-a"]);
    }

    #[test]
    fn a_node_is_asked_anew_when_an_address_is_taken_off_it_once_more_and_forgotten_when_all_is_over() {
        let mut evicting = Evicting::default();
        let now = Instant::now();
        evicting.left("node-a".to_owned(), at(0));
        evicting.asked("node-a", now, false);
        evicting.left("node-a".to_owned(), at(0));
        assert!(evicting.due(now).is_empty());
        evicting.left("node-a".to_owned(), at(10));
        assert_eq!(evicting.due(now), ["node-a"]);
        evicting.forget(|_| false, at(7200));
        assert_eq!(evicting.due(now), ["node-a"], "somebody may still stay");
        evicting.asked("node-a", now, false);
        evicting.forget(|_| false, at(7200));
        assert!(evicting.0.is_empty());
    }
}
