//! What the truth may differ in from what the operator says, for a while: outsiders and failing machines change it behind the
//! operator's back. An excuse ends when the operator has read later than it began and says what is true.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
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
    cloud::{MachineId, ProviderId, Whereabouts},
};

use super::{
    cloud::{Order, Slot},
    course::Cosmos,
    errand::Call,
};
use crate::invariants;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Excuses {
    /// Addresses that outsiders have moved, or whose machines failed, and when: a read and the truth may differ.
    pub addresses: BTreeMap<IpAddr, Instant>,
    /// Machines that outsiders had their hands on: nobody owes them what they had before, until they have it again.
    pub machines: BTreeSet<ProviderId>,
    /// Nodes whose labels may be wrong until the operator has seen it.
    pub nodes: BTreeSet<String>,
    /// When status was last edited by hand, by allocation,
    pub edited: BTreeMap<String, Instant>,
    /// which addresses that was about, and on which machines they were or were said to be.
    edited_addresses: BTreeSet<IpAddr>,
    edited_machines: BTreeSet<ProviderId>,
}

impl Excuses {
    /// Whether what is read of the address may not be so.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains_key(&ip)
    }

    /// Whether what the status of this allocation says may be what somebody wrote into it.
    pub fn is_edited(&self, allocation: &str) -> bool {
        self.edited.contains_key(allocation)
    }

    /// The same of any allocation.
    pub fn is_any_edited(&self) -> bool {
        !self.edited.is_empty()
    }

    /// Whether what any of them says of this address, or of this machine, may be what somebody wrote into it.
    pub fn is_edited_about(&self, ip: Option<IpAddr>, place: Option<&ProviderId>) -> bool {
        ip.is_some_and(|ip| self.edited_addresses.contains(&ip))
            || place.is_some_and(|place| self.edited_machines.contains(place))
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
        let all = self.cluster.allocations().keys().flat_map(|name| self.entries(name));
        all.filter(move |entry| entry.ip == ip)
    }

    fn entries(&self, allocation: &str) -> impl Iterator<Item = Entry> {
        self.cluster.allocation(allocation).into_iter().flat_map(|object| invariants::of(object))
    }

    /// Somebody edits the status of this object, in which stands what its machines are owed.
    pub fn excuse_an_edit(&mut self, name: &str) {
        let about = self.said_or_asked(name);
        self.excuse_an_edit_about(name, &about);
    }

    /// The same, of what it says of these addresses.
    pub fn excuse_an_edit_about(&mut self, name: &str, ips: &[IpAddr]) {
        self.excuses.edited.insert(name.to_owned(), self.instant);
        for ip in ips {
            let named = self.entries_of(*ip).filter_map(|entry| Some(entry.machine?.place));
            let machines: Vec<ProviderId> = named.chain(self.cloud.on(*ip)).collect();
            self.excuses.edited_machines.extend(machines);
        }
        self.excuses.edited_addresses.extend(ips);
        if let Some(object) = self.cluster.allocation(name).cloned() {
            self.excuse_debts(&object);
        }
    }

    /// The addresses that this allocation asks for, or says something of.
    pub(super) fn said_or_asked(&self, name: &str) -> Vec<IpAddr> {
        let object = self.cluster.allocation(name);
        let asked = object.into_iter().flat_map(|object| &object.spec.reserved_ips);
        asked.filter_map(|text| text.parse().ok()).chain(self.entries(name).map(|entry| entry.ip)).collect()
    }

    fn excuse_debts(&mut self, object: &NetIPAllocation) {
        let owed = object.status.iter().flat_map(|status| &status.owed).filter_map(memory::read_owed);
        self.excuses.machines.extend(owed.map(|owed| owed.machine.place));
        self.excuse_what_was_displaced(object);
    }

    /// An object goes and its addresses stay: what their machines had before them nobody knows any more.
    pub(super) fn excuse_what_was_displaced(&mut self, object: &NetIPAllocation) {
        let named =
            object.status.iter().flat_map(|status| &status.addresses).filter_map(|stored| match memory::read(stored) {
                Stored::Known(entry) => entry.machine.map(|machine| machine.place),
                Stored::Foreign(_) => None,
            });
        self.excuses.machines.extend(named);
    }

    /// An object goes that leaves everything as it is, half-done swaps too: what it has is excused.
    pub(super) fn excuse_what_is_left(&mut self, object: &NetIPAllocation) {
        self.excuse_debts(object);
        for stored in object.status.iter().flat_map(|status| &status.addresses) {
            if let Stored::Known(entry) = memory::read(stored) {
                self.excuse(entry.ip);
            }
        }
    }

    /// After a pass: what the process has read since, and says as it is, excuses nothing any more.
    pub(super) fn end_excuses(&mut self, id: u8) {
        if self.excuses.addresses.is_empty() && !self.excuses.is_any_edited() {
            if !self.excuses.machines.is_empty() {
                self.forgive_nothing_more();
            }
            return;
        }
        let Some(term) = &self.process(id).term else { return };
        let Some(survey) = term.answers.survey(&self.cloud.scope()).0 else { return };
        let asked = term.asking.values().map(|asking| asking.began).min();
        let is_read = |since: Instant| {
            let then = since + BELIEVED;
            survey.began > then && asked.is_none_or(|asked| asked > then)
        };
        let is_over = |(ip, since): &(&IpAddr, &Instant)| is_read(**since) && self.is_understood(**ip);
        let over: Vec<IpAddr> = self.excuses.addresses.iter().filter(is_over).map(|(ip, _)| *ip).collect();
        let edited = self.excuses.edited.values().max().copied();
        let put_right = edited.is_some_and(is_read) && self.is_put_right();
        self.excuses.addresses.retain(|ip, _| !over.contains(ip));
        if put_right {
            self.excuses.edited.clear();
            self.excuses.edited_addresses.clear();
            self.excuses.edited_machines.clear();
        }
    }

    /// Every address that is asked for, and every label, has an entry again, and what those say is so. One that nobody
    /// understands stays as it is.
    fn is_put_right(&self) -> bool {
        let objects = || self.cluster.allocations().values();
        let said = || objects().flat_map(|object| &object.status).flat_map(|status| &status.addresses);
        let said: BTreeSet<IpAddr> = said().filter_map(|stored| stored.ip.parse().ok()).collect();
        let stays = |object: &&Arc<NetIPAllocation>| object.metadata.deletion_timestamp.is_none();
        let asked = objects().filter(stays).flat_map(|object| &object.spec.reserved_ips);
        let asked: BTreeSet<IpAddr> = asked.filter_map(|text| text.parse().ok()).collect();
        let terms = self.processes.iter().filter_map(|process| process.term.as_ref());
        let pays = terms.flat_map(|term| term.flights.values()).any(|flight| flight.errand.address().is_none());
        let has_entry = |node: &str, object: &NetIPAllocation| {
            object.status.iter().flat_map(|status| &status.addresses).any(|stored| stored.node.as_deref() == Some(node))
        };
        let labelled = self.cluster.nodes().iter().all(|(name, node)| {
            let says = |whose: &str| self.cluster.allocation(whose).is_some_and(|object| has_entry(name, object));
            node.label(api::ALLOCATION_LABEL).is_none_or(says)
        });
        labelled && !pays && asked.is_subset(&said) && said.iter().all(|ip| self.is_understood(*ip))
    }

    /// A machine that has an address of its own again, and is not about to lose it, has it to lose like any other.
    fn forgive_nothing_more(&mut self) {
        let named = self.cluster.allocations().values().flat_map(|object| &object.status);
        let named = named.flat_map(|status| &status.addresses).filter_map(|stored| stored.machine_id.as_ref());
        let named: BTreeSet<ProviderId> = named.filter_map(|id| Some(id.parse::<MachineId>().ok()?.place)).collect();
        let cloud = &self.cloud;
        let is_own = |place: &ProviderId| cloud.machine(place).is_some_and(|machine| machine.slot == Slot::Own);
        self.excuses.machines.retain(|place| named.contains(place) || !is_own(place));
    }

    /// Nothing of it is under way, nor of another address to the machine where it sits, and what status and labels say is so.
    fn is_understood(&self, ip: IpAddr) -> bool {
        let on = self.cloud.on(ip);
        let hits = |order: &Order| on.as_ref().is_some_and(|on| order.machine() == Some(on));
        let mut sent = self.cloud.requests().values();
        let sent = sent.any(|request| request.meta.address == Some(ip) || hits(&request.order));
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
