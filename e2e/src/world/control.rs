//! Control operations: what a test does to the cloud behind the operator's back.

use std::{net::IpAddr, time::Duration};

use super::{
    Actor, Address, Change, Fault, Hold, Latency, MachineKey, NewMachine, Point, Power, Quota, RateLimit, Refusal,
    Tier, World,
};

/// Making and changing the cloud behind the operator's back. Machines are found by name; names are unique per test.
impl World {
    /// Makes an account known, and one of its regions.
    pub fn add_region(&self, account: &str, region: &str) {
        self.change(|state| state.inventory.add_place(account, region, None));
    }

    /// Makes an account known, and one of its zones with its region.
    pub fn add_zone(&self, account: &str, region: &str, zone: &str) {
        self.change(|state| state.inventory.add_place(account, region, Some(zone)));
    }

    /// Reserves an address; account and region exist from then on.
    pub fn add_address(&self, address: Address) {
        self.change(|state| {
            state.inventory.add_address(address);
            state.witness();
        });
    }

    /// Ends a reservation; a machine that had the address loses it.
    pub fn remove_address(&self, ip: IpAddr) {
        self.change(|state| {
            state.free(ip, Actor::Outsider);
            state.inventory.remove_address(ip);
        });
    }

    /// Starts a machine; account, region and zone exist from then on. Returns the cloud's number of it.
    pub fn add_machine(&self, machine: NewMachine) -> u64 {
        self.change(|state| {
            let key = state.inventory.add_machine(machine);
            state.witness();
            state.inventory.machine(&key).map_or(0, |machine| machine.id)
        })
    }

    /// Switches a machine to this power state.
    pub fn set_power(&self, name: &str, power: Power) {
        self.change(|state| {
            if let Some(key) = state.key(name) {
                state.inventory.switch(&key, power);
            }
        });
    }

    /// Stops a machine: a reserved address stays with it, an ephemeral one goes.
    pub fn stop_machine(&self, name: &str) {
        self.set_power(name, Power::Stopped);
    }

    /// Starts a machine again.
    pub fn start_machine(&self, name: &str) {
        self.set_power(name, Power::Running);
    }

    /// Deletes a machine; a reserved address on it becomes free.
    pub fn delete_machine(&self, name: &str) {
        self.change(|state| {
            if let Some(key) = state.key(name) {
                state.remove_machine(&key);
            }
        });
    }

    /// Deletes a machine, but its interface stays behind with what is on it.
    pub fn leave_interface(&self, name: &str) {
        self.change(|state| {
            let key = state.key(name);
            if let Some(machine) = key.and_then(|key| state.inventory.machine_mut(&key)) {
                machine.left_behind = true;
            }
        });
    }

    /// Somebody edits a machine's interface, but not its address.
    pub fn touch_interface(&self, name: &str) {
        self.change(|state| {
            let key = state.key(name);
            if let Some(machine) = key.and_then(|key| state.inventory.machine_mut(&key)) {
                machine.generation = machine.generation.wrapping_add(1);
            }
        });
    }

    /// Deletes a machine and starts another of the same name, with an ephemeral address if the old one started with one.
    /// Returns the new number.
    pub fn replace_machine(&self, name: &str) -> Option<u64> {
        self.change(|state| {
            let key = state.key(name)?;
            let old = state.remove_machine(&key)?;
            let new = NewMachine::new(&key.account, &old.region, &key.zone, &key.name);
            let key = state.inventory.add_machine(if old.had_own { new } else { new.private() });
            state.inventory.machine(&key).map(|machine| machine.id)
        })
    }

    /// An outsider takes the address from wherever it is and puts it on this machine, instead of what that had.
    ///
    /// # Errors
    /// When the cloud would refuse that to anybody (other region, not reserved, no such machine).
    pub fn move_address(&self, ip: IpAddr, name: &str) -> Result<(), Refusal> {
        self.change(|state| {
            let machine = state.key(name).ok_or_else(|| Refusal::NoSuchMachine(MachineKey::new("", "", name)))?;
            let tier = state.inventory.address(ip).map_or(Tier::Premium, |address| address.tier);
            state.free(ip, Actor::Outsider);
            state.strip(&machine, Actor::Outsider);
            let config = "outsider".to_owned();
            state.apply(
                &Change::Attach { machine, config, ip: Some(ip), tier, ptr: None, displace: false },
                Actor::Outsider,
            )
        })
    }

    /// An outsider takes the address off whatever holds it.
    pub fn free_address(&self, ip: IpAddr) {
        self.change(|state| state.free(ip, Actor::Outsider));
    }

    /// Something that is no machine takes the address, for example `forwardingRules/web`.
    pub fn give_to_foreign(&self, ip: IpAddr, foreign: &str) {
        self.change(|state| {
            state.free(ip, Actor::Outsider);
            if let Some(address) = state.inventory.address_mut(ip) {
                address.foreign = Some(foreign.to_owned());
            }
        });
    }

    /// Sets a label or tag of an address.
    pub fn tag_address(&self, ip: IpAddr, key: &str, value: &str) {
        self.change(|state| {
            if let Some(address) = state.inventory.address_mut(ip) {
                address.tags.insert(key.to_owned(), value.to_owned());
            }
        });
    }

    /// How long things take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.change(|state| state.latency = latency);
    }

    /// Reads show what was so much earlier, from now on: the cloud is eventually consistent.
    pub fn set_read_lag(&self, lag: Duration) {
        self.change(|state| state.past.set(lag));
    }

    /// How long a machine is without an address where its cloud gives it one of its own again by itself.
    pub fn set_own_returns_after(&self, delay: Duration) {
        self.change(|state| state.own_returns_after = delay);
    }

    /// Limits the calls of each account from now on.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.change(|state| state.budgets.set(limit));
    }

    /// Limits the calls of each account as clouds publish it, from now on.
    pub fn publish_quotas(&self, quotas: Vec<Quota>) {
        self.change(|state| state.budgets.publish(quotas));
    }

    /// The next call of this method meets the fault. `instances.*` and `*` stand for any method that fits.
    pub fn fail_next(&self, method: &str, fault: Fault) {
        self.fail_next_of(method, "", fault);
    }

    /// The next call of this method whose target contains the text meets the fault.
    pub fn fail_next_of(&self, method: &str, target: &str, fault: Fault) {
        self.change(|state| state.script.add(method, target, fault, false));
    }

    /// Every call of this method meets the fault, until [`World::clear_faults`].
    pub fn fail_every(&self, method: &str, fault: Fault) {
        self.change(|state| state.script.add(method, "", fault, true));
    }

    /// No more faults from now on.
    pub fn clear_faults(&self) {
        self.change(|state| state.script.clear());
    }

    /// Calls of this method wait at this point while the [`Hold`] lives.
    pub fn hold(&self, method: &str, point: Point) -> Hold {
        self.hold_of(method, "", point)
    }

    /// Calls of this method whose target contains the text wait so.
    pub fn hold_of(&self, method: &str, target: &str, point: Point) -> Hold {
        let id = self.change(|state| state.gates.add(method, target, point));
        Hold { world: self.clone(), id }
    }

    /// Knows no request id any more: one that comes again is a new request.
    pub fn forget_requests(&self) {
        self.change(|state| state.requests.clear());
    }

    /// Takes a permission from everybody, in the provider's words.
    pub fn deny(&self, permission: &str) {
        self.change(|state| state.denied.insert(permission.to_owned()));
    }

    /// Gives a permission back.
    pub fn allow(&self, permission: &str) {
        self.change(|state| state.denied.remove(permission));
    }

    /// Accepts this token, too: a key that somebody was given for good.
    pub fn accept_token(&self, token: &str) {
        self.change(|state| state.tokens.insert(token.to_owned()));
    }

    /// Makes every token invalid and issues no more.
    pub fn revoke_credentials(&self) {
        self.change(|state| {
            state.tokens.clear();
            state.revoked = true;
        });
    }

    /// Issues tokens again.
    pub fn restore_credentials(&self) {
        self.change(|state| state.revoked = false);
    }
}
