//! What one pass reads out of an object: its entries, debts and seats.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::SignedDuration;
use kube::ResourceExt;

use super::super::{
    claims::{self, Unusable},
    decide::{facts::Entry, state::State},
    memory::{self, Owed, Stored},
    moment::Moment,
    observe::{self, Subject, nodes::Roster},
    tables::{NOBODY, Tables},
};
use crate::{
    api::{AddressStatus, NetIPAllocation},
    cloud::{MachineId, Provider, ProviderId},
};

/// What is known when a pass begins to decide.
pub struct Entries {
    /// By address.
    pub known: Vec<Entry>,
    /// Written by a newer version, or by hand: kept as they are.
    pub foreign: Vec<AddressStatus>,
    pub owed: Vec<Owed>,
}

impl Entries {
    /// The clouds that a pass has to do with: that of the spec, and those of machines that are named here.
    pub fn providers(&self, subject: &Subject) -> BTreeSet<Provider> {
        let machines = self.known.iter().filter_map(|entry| entry.machine.as_ref());
        let machines = machines.chain(self.owed.iter().map(|owed| &owed.machine));
        let named = machines.filter_map(|machine| Some(machine.place.place()?.provider));
        named.chain(subject.scope.iter().map(|scope| scope.provider)).collect()
    }

    /// The entries in status, and new ones for what the spec asks for beside them.
    pub fn of(subject: &Subject, nodes: &Roster, moment: &Moment) -> Self {
        let mut entries = read(subject, moment);
        entries.known.iter_mut().for_each(|entry| name_by_machine(entry, nodes));
        entries
    }

    /// Every machine that these have a say in; none that has been paid, also where status does not say so yet.
    pub(super) fn seats(&self, is_paid: impl Fn(&MachineId) -> bool) -> Vec<(ProviderId, IpAddr)> {
        let owed: Vec<Owed> = self.owed.iter().filter(|owed| !is_paid(&owed.machine)).cloned().collect();
        seats_of(&self.known, &owed, &self.foreign)
    }
}

/// The machine says which node it is: a name that a person wrote beside it must not make its node look gone.
fn name_by_machine(entry: &mut Entry, nodes: &Roster) {
    let Some(machine) = &entry.machine else { return };
    let named = entry.node.as_deref().and_then(|name| nodes.named(name));
    if named.is_none_or(|node| node.place().as_ref() != Some(&machine.place))
        && let Some(node) = nodes.on(&machine.place)
    {
        entry.node = node.metadata.name.clone();
    }
}

fn read(subject: &Subject, moment: &Moment) -> Entries {
    let status = subject.object.status.clone().unwrap_or_default();
    let mut known: BTreeMap<IpAddr, Entry> = BTreeMap::new();
    let mut foreign = Vec::new();
    for stored in &status.addresses {
        match memory::read(stored) {
            // Not an address at all: told anew from the spec each time.
            _ if Unusable::is_told_anew(stored.reason.as_deref()) => {}
            Stored::Known(entry) => {
                known.entry(entry.ip).or_insert(*entry);
            }
            Stored::Foreign(status) => foreign.push(*status),
        }
    }
    if !subject.terminating {
        let now = memory::whole_seconds(moment.now);
        for ip in subject.selection.wanted() {
            let text = ip.to_string();
            if foreign.iter().all(|status| status.ip != text) {
                known.entry(ip).or_insert_with(|| Entry::new(ip, now));
            }
        }
    }
    for entry in known.values_mut().filter(|entry| entry.state == State::Draining) {
        // An edit of drain.timeoutSeconds counts for a drain that is under way.
        let timeout =
            subject.object.spec.drain.timeout_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
        entry.deadline = timeout.and_then(|timeout| entry.since.checked_add(timeout).ok());
    }
    Entries {
        known: known.into_values().collect(),
        foreign,
        owed: status.owed.iter().filter_map(memory::read_owed).collect(),
    }
}

/// What a leader learns of an object that another one led (F6): the seats of all that is held or owed are taken, and what
/// was changed a moment ago may not be shown yet.
pub fn inherit(tables: &mut Tables, object: &NetIPAllocation, moment: &Moment) {
    let status = object.status.clone().unwrap_or_default();
    let (mut known, mut foreign) = (Vec::new(), Vec::new());
    for stored in &status.addresses {
        match memory::read(stored) {
            Stored::Known(entry) => known.push(*entry),
            Stored::Foreign(status) => foreign.push(*status),
        }
    }
    let lag = observe::provider(&object.spec).map(Provider::read_lag).unwrap_or_default();
    for entry in &known {
        tables.inherit(entry, lag, moment);
    }
    let owed: Vec<Owed> = status.owed.iter().filter_map(memory::read_owed).collect();
    let uid = object.uid().unwrap_or_default();
    tables.seats.set(&uid, seats_of(&known, &owed, &foreign));
    // Until the first pass over it says where they really go.
    let stays = object.metadata.deletion_timestamp.is_none();
    let wanted = claims::listed(object).0;
    let going = known.iter().filter(|entry| matches!(entry.state, State::Releasing | State::Detached));
    let going = going.filter(|entry| stays && wanted.contains(&entry.ip));
    tables.promised.set(&uid, going.filter_map(|entry| Some((entry.planned_node.clone()?, entry.ip))));
}

/// Every machine that an allocation has a say in: those of its entries, those that it owes an address, and those that
/// entries name which it does not understand.
fn seats_of(entries: &[Entry], owed: &[Owed], foreign: &[AddressStatus]) -> Vec<(ProviderId, IpAddr)> {
    let held = entries.iter().filter_map(|entry| Some((entry.machine.as_ref()?.place.clone(), entry.ip)));
    let due = owed.iter().map(|owed| (owed.machine.place.clone(), NOBODY));
    let unknown = foreign.iter().filter_map(|status| {
        let machine: MachineId = status.machine_id.as_ref()?.parse().ok()?;
        Some((machine.place, status.ip.parse().unwrap_or(NOBODY)))
    });
    held.chain(due).chain(unknown).collect()
}
