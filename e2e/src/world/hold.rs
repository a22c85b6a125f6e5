//! Holding calls back at a chosen point, to see what the operator does while they are there.

use std::collections::BTreeMap;

use super::{World, fault::matches};

/// Where a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// On arrival: nothing was looked at or changed.
    Arrival,
    /// Answer ready and change carried out, answer not yet given.
    Answer,
    /// Mutations: accepted and answered, change carried out, operation not yet shown as done.
    Done,
}

#[derive(Debug)]
struct Gate {
    method: String,
    /// A part of the target; empty is any.
    target: String,
    point: Point,
    /// Whoever comes now passes; those who wait go on waiting.
    closed: bool,
    waiting: usize,
    arrived: usize,
}

/// The gates that stand.
#[derive(Debug, Default)]
pub(super) struct Gates {
    gates: BTreeMap<u64, Gate>,
    next: u64,
}

impl Gates {
    pub(super) fn add(&mut self, method: &str, target: &str, point: Point) -> u64 {
        self.next = self.next.wrapping_add(1);
        let (method, target) = (method.to_owned(), target.to_owned());
        self.gates.insert(self.next, Gate { method, target, point, closed: false, waiting: 0, arrived: 0 });
        self.next
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.gates.remove(&id);
    }

    /// A call comes to a point: the gate that holds it, if any.
    pub(super) fn stop(&mut self, method: &str, target: &str, point: Point) -> Option<u64> {
        let (id, gate) = self.gates.iter_mut().find(|(_, gate)| {
            !gate.closed && gate.point == point && matches(&gate.method, method) && target.contains(&gate.target)
        })?;
        gate.waiting = gate.waiting.saturating_add(1);
        gate.arrived = gate.arrived.saturating_add(1);
        Some(*id)
    }

    fn close(&mut self, id: u64) {
        if let Some(gate) = self.gates.get_mut(&id) {
            gate.closed = true;
        }
    }

    pub(super) fn stands(&self, id: u64) -> bool {
        self.gates.contains_key(&id)
    }

    fn counts(&self, id: u64) -> (usize, usize) {
        self.gates.get(&id).map(|gate| (gate.waiting, gate.arrived)).unwrap_or_default()
    }
}

/// Calls of one method wait while this lives; dropping it lets them go.
#[must_use = "calls are held only while this lives"]
#[derive(Debug)]
pub struct Hold {
    pub(super) world: World,
    pub(super) id: u64,
}

impl Hold {
    /// Until `count` calls have come to the point.
    pub async fn arrived(&self, count: usize) {
        self.world.wait_for(|state| (state.gates.counts(self.id).1 >= count).then_some(())).await;
    }

    /// How many calls wait now. A call whose caller has gone away still waits: its request has left.
    pub fn waiting(&self) -> usize {
        self.world.look(|state| state.gates.counts(self.id).0)
    }

    /// Holds nobody who comes from now on; those who wait go on waiting: requests that will land late.
    pub fn take_no_more(&self) {
        self.world.change(|state| state.gates.close(self.id));
    }

    /// Lets them go, and all that come later.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.world.change(|state| state.gates.remove(self.id));
    }
}
