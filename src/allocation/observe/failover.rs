//! Whether so many nodes fail at once that nobody moves: the world is seen wrongly, perhaps.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;

use super::{Eyes, answers::is_gone};
use crate::{
    allocation::{
        decide::{
            facts::Entry,
            failover::{Breaker, Health},
        },
        tables::Tables,
    },
    cloud::{Power, ProviderId, limits::Urgency},
};

/// A machine that was read stopped or gone counts as dead for so long, among those that decide about a mass failure.
const PROVEN_FOR: Duration = Duration::from_secs(120);

impl Eyes<'_> {
    /// §3.4, over the selected nodes and the gone ones that entries name.
    pub(super) fn frozen(&self, entries: &[Entry], tables: &mut Tables) -> bool {
        let spec = &self.subject.object.spec;
        let mut judged = self.around.nodes.selected(&spec.node_selector).len();
        let unready = self.around.nodes.unready().iter().filter(|node| node.matches(&spec.node_selector));
        let mut suspects: Vec<Option<ProviderId>> = unready.map(|node| node.place()).collect();
        let held = entries.iter().filter_map(|entry| Some((entry.node.as_ref()?, entry.machine.as_ref()?)));
        let mut gone = BTreeMap::new();
        // One that stands and is not selected any more says nothing of the others.
        for (name, machine) in held.filter(|(name, _)| self.around.node(name).is_none()) {
            gone.entry(name).or_insert(machine);
        }
        judged += gone.len();
        suspects.extend(gone.into_values().map(|machine| Some(machine.place.clone())));
        let mass = |nodes: usize, unhealthy: usize| {
            Health { nodes, unhealthy }.is_mass_failure(spec.failover.max_unhealthy.resolve(nodes))
        };
        let suspected = mass(judged, suspects.len());
        // Whether they run is asked, and asked again, for as long as the answer matters: spares that are stopped must not
        // freeze the others' failover.
        if suspected && let Ok(scope) = &self.subject.scope {
            for place in suspects.iter().flatten() {
                self.inspect(scope, place, PROVEN_FOR / 2, Urgency::Failover);
            }
        }
        let dead = suspects.iter().flatten().filter(|place| self.proven_dead(place)).count();
        let proven = mass(judged - dead, suspects.len() - dead);
        let answered = suspects.iter().flatten().all(|place| self.lately_inspected(place));
        // A new leader goes on where the last one stood.
        let frozen_before = || {
            let conditions = self.subject.object.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "FailoverFrozen" && condition.status == "True")
        };
        let quiet = SignedDuration::from_secs(spec.failover.not_ready_seconds.into());
        let breaker = tables.breakers.entry(self.subject.uid.clone());
        let breaker = breaker.or_insert_with(|| Breaker::restored(frozen_before().then_some(self.around.moment.now)));
        // While the answers are on their way nothing moves, but that alone does not trip the breaker.
        breaker.frozen(self.around.moment.now, proven && answered, quiet) || (suspected && proven)
    }

    fn lately_inspected(&self, place: &ProviderId) -> bool {
        self.answers.inspected(place).is_some_and(|answer| self.since(answer.began) < PROVEN_FOR)
    }

    fn proven_dead(&self, place: &ProviderId) -> bool {
        self.answers.inspected(place).filter(|answer| self.since(answer.began) < PROVEN_FOR).is_some_and(|answer| {
            is_gone(answer) || answer.result.as_ref().is_ok_and(|seat| seat.power == Power::Stopped)
        })
    }
}
