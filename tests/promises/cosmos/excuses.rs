//! What the truth may differ in from what the operator says, for a while: outsiders and failing machines change it behind the
//! operator's back. An excuse ends when the operator has read later than it began and says what is true.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::{
    allocation::{
        decide::{
            facts::Entry,
            state::{Reason, State},
        },
        memory::{self, Stored},
        observe::nodes::SlimNode,
    },
    api::{self, NetIPAllocation},
    cloud::{ProviderId, Whereabouts},
};

use super::{cloud::Slot, course::Cosmos, errand::Call};
use crate::invariants;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Excuses {
    /// Addresses that outsiders have moved, or whose machines failed, and when: a read and the truth may differ.
    pub addresses: BTreeMap<IpAddr, Instant>,
    /// Machines that outsiders had their hands on: nobody owes them what they had before.
    pub machines: BTreeSet<ProviderId>,
    /// Nodes whose labels may be wrong until the operator has seen it.
    pub nodes: BTreeSet<String>,
    /// Status or labels were edited by hand.
    pub edited: bool,
}

impl Excuses {
    /// Whether what is read of the address may not be so.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains_key(&ip)
    }
}

/// Longer than any read is believed for.
const BELIEVED: Duration = Duration::from_secs(120);

impl Cosmos {
    /// The truth of this address changes behind the operator's back.
    pub(super) fn excuse(&mut self, ip: IpAddr) {
        self.excuses.addresses.insert(ip, self.instant);
        let on = self.cloud.on(ip);
        let named = self.entries_of(ip).filter_map(|entry| Some(entry.machine?.place));
        let machines: Vec<ProviderId> = named.chain(on.clone()).collect();
        self.excuses.machines.extend(machines);
        let text = ip.to_string();
        let named = |node: &SlimNode| node.label(api::ADDRESS_LABEL) == Some(text.as_str());
        for (name, node) in self.cluster.nodes() {
            if named(node) || (on.is_some() && node.place() == on) {
                self.excuses.nodes.insert(name.clone());
            }
        }
        // What is written by an effect under way now may be wrong when it lands.
        let labelling = self.processes.iter().flat_map(|process| &process.term).flat_map(|term| term.flights.values());
        for flight in labelling.filter(|flight| flight.errand.address() == Some(ip)) {
            if let Call::PatchLabels { node, .. } | Call::ReadNode(node) = flight.errand.next() {
                self.excuses.nodes.insert(node);
            }
        }
    }

    fn entries_of(&self, ip: IpAddr) -> impl Iterator<Item = Entry> {
        let objects = self.cluster.allocations().values();
        let stored = objects.flat_map(|object| &object.status).flat_map(|status| &status.addresses);
        stored.filter_map(move |stored| match memory::read(stored) {
            Stored::Known(entry) if entry.ip == ip => Some(*entry),
            Stored::Known(_) | Stored::Foreign(_) => None,
        })
    }

    /// An object goes that leaves everything as it is, half-done swaps too: what it has is excused.
    pub(super) fn excuse_what_is_left(&mut self, object: &NetIPAllocation) {
        let status = object.status.clone().unwrap_or_default();
        let owed = status.owed.iter().filter_map(memory::read_owed).map(|owed| owed.machine.place);
        self.excuses.machines.extend(owed);
        for stored in &status.addresses {
            if let Stored::Known(entry) = memory::read(stored) {
                self.excuses.machines.extend(entry.machine.clone().map(|machine| machine.place));
                self.excuse(entry.ip);
            }
        }
    }

    /// After a pass: what the process has read since, and says as it is, excuses nothing any more.
    pub(super) fn end_excuses(&mut self, id: u8) {
        if self.excuses.addresses.is_empty() {
            return;
        }
        let Some(term) = &self.process(id).term else { return };
        let Some(survey) = term.answers.survey(&self.cloud.scope()).0 else { return };
        let asked = term.asking.values().map(|asking| asking.began).min();
        let is_over = |(ip, since): &(&IpAddr, &Instant)| {
            let then = **since + BELIEVED;
            survey.began > then && asked.is_none_or(|asked| asked > then) && self.is_understood(**ip)
        };
        let over: Vec<IpAddr> = self.excuses.addresses.iter().filter(is_over).map(|(ip, _)| *ip).collect();
        self.excuses.addresses.retain(|ip, _| !over.contains(ip));
    }

    /// Nothing of it is under way, and what status and labels say is so.
    fn is_understood(&self, ip: IpAddr) -> bool {
        let sent = self.cloud.requests().values().any(|request| request.meta.address == Some(ip));
        let terms = self.processes.iter().filter_map(|process| process.term.as_ref());
        let flies = terms.flat_map(|term| term.flights.values()).any(|flight| flight.errand.address() == Some(ip));
        let text = ip.to_string();
        let named = |node: &SlimNode| node.label(api::ADDRESS_LABEL) == Some(text.as_str());
        let mislabelled = |node: &SlimNode| named(node) && invariants::mislabelled(&self.cloud, node);
        let is_said = self.cluster.nodes().values().all(|node| !mislabelled(node))
            && self.entries_of(ip).all(|entry| entry.operation.is_none() && self.is_so(&entry));
        !sent && !flies && is_said
    }

    fn is_so(&self, entry: &Entry) -> bool {
        match (entry.state, &entry.machine) {
            (State::Unassigned | State::Detached, _) => {
                entry.reason != Reason::AddressNotFound || self.cloud.find(entry.ip) == Whereabouts::NotFound
            }
            (State::Attached | State::Draining, Some(named)) => {
                let machine = self.cloud.machine(&named.place).filter(|machine| machine.exists);
                machine.is_some_and(|it| it.instance == named.instance && it.slot == Slot::Reserved(entry.ip))
            }
            (State::Attached | State::Draining | State::Attaching | State::Releasing, _) => false,
        }
    }
}
