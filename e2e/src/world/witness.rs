//! Witnesses: what a test asks afterwards, and how it waits for it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Call, Holder, Machine, Removal, World};

/// Asking the cloud what is so, and what has been.
impl World {
    /// Who holds a reserved address; `None` when it is not reserved.
    pub fn holder(&self, ip: IpAddr) -> Option<Holder> {
        self.look(|state| state.inventory.holder(ip))
    }

    /// Name of the machine that holds a reserved address.
    pub fn machine_of(&self, ip: IpAddr) -> Option<String> {
        match self.holder(ip) {
            Some(Holder::Machine(key)) => Some(key.name),
            Some(Holder::Nobody | Holder::Foreign(_)) | None => None,
        }
    }

    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Option<Machine> {
        self.look(|state| state.key(name).and_then(|key| state.inventory.machine(&key).cloned()))
    }

    /// The external address of the machine of that name.
    pub fn external_ip(&self, name: &str) -> Option<IpAddr> {
        self.machine(name)?.external?.ip
    }

    /// The external address of each machine that has one, by the machine's name.
    pub fn external_ips(&self) -> BTreeMap<String, IpAddr> {
        let ip = |machine: &Machine| Some((machine.key.name.clone(), machine.external.as_ref()?.ip?));
        self.look(|state| state.inventory.machines().filter_map(ip).collect())
    }

    /// Every call since the log was cleared, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.look(|state| state.log.all())
    }

    /// The calls that would change something.
    pub fn mutations(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.mutating).collect()
    }

    /// The machine that an operation of that name changes, by name.
    pub fn machine_of_operation(&self, operation: &str) -> Option<String> {
        self.look(|state| Some(state.operations.get(operation)?.change.machine().name.clone()))
    }

    /// Empties the log of calls.
    pub fn clear_calls(&self) {
        self.change(|state| state.log.clear());
    }

    /// How often an API call has put this reserved address on a machine with effect.
    pub fn attaches(&self, ip: IpAddr) -> u32 {
        self.look(|state| state.ledger.attaches.get(&ip).copied().unwrap_or_default())
    }

    /// Every address that has left a machine.
    pub fn removals(&self) -> Vec<Removal> {
        self.look(|state| state.ledger.removals.clone())
    }

    /// What no cloud would let be, at any instant so far: an address in two places. Must be empty.
    pub fn violations(&self) -> Vec<String> {
        self.look(|state| state.ledger.violations.clone())
    }

    /// Waits until the world is so that `seen` returns something. Put a time-out around it.
    pub async fn until<T>(&self, seen: impl Fn(&World) -> Option<T>) -> T {
        let mut changes = self.inner.changes.subscribe();
        loop {
            if let Some(found) = seen(self) {
                return found;
            }
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }
}
