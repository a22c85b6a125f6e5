//! Whose an address is, over all allocations (P5, S2, S3), and what else one of them must know of the others. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    decide::{
        facts::Claim,
        leaving::Cause,
        state::{Reason, State},
    },
    memory,
    observe::nodes::SlimNode,
    tables::Uid,
    taints::NodeTaints,
};
use crate::{
    api::{self, AddressStatus, NetIPAllocation},
    cloud::limits::Urgency,
    lifecycle::State as _,
};

/// An allocation, as far as others must know it.
#[derive(Debug)]
struct Claimant {
    uid: Uid,
    name: String,
    created: Timestamp,
}

/// One allocation's standing with one address.
#[derive(Clone, Debug)]
struct Standing {
    whose: Arc<Claimant>,
    /// The node that its entry names.
    node: Option<String>,
    /// Its entry holds the address, or is about to: it keeps it whatever its age (S3).
    incumbent: bool,
    /// Its entry says Attached: of two incumbents, the one that was verified.
    verified: bool,
    /// The labels of a node say so: that is all that is left of an incumbent whose status is lost.
    labelled: bool,
}

impl Standing {
    /// Of several that name an address, the smallest has it.
    fn rank(&self) -> (bool, bool, bool, Timestamp, &str) {
        (!self.verified, !self.incumbent, !self.labelled, self.whose.created, &self.whose.uid)
    }
}

/// All claims of all allocations.
///
/// Made anew from all entries there are whenever one has changed, so of an entry no more is read than its standing and its plan.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    addresses: BTreeMap<IpAddr, Vec<Standing>>,
    /// The nodes that the entries of each allocation name, by the allocation's name.
    nodes: BTreeMap<String, HashSet<String>>,
    /// Which allocations plan to go to a node, by its name; the most urgent first.
    plans: HashMap<String, BTreeSet<(Urgency, Uid)>>,
    taints: Arc<NodeTaints>,
}

impl Claims {
    /// From every allocation as it may be acted on.
    pub fn of<'a>(allocations: impl IntoIterator<Item = &'a NetIPAllocation>) -> Self {
        let allocations: Vec<&NetIPAllocation> = allocations.into_iter().collect();
        let taints = Arc::new(NodeTaints::of(allocations.iter().copied()));
        let mut claims: BTreeMap<IpAddr, Vec<Standing>> = BTreeMap::new();
        let mut nodes: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        let mut plans: HashMap<String, BTreeSet<(Urgency, Uid)>> = HashMap::new();
        for allocation in allocations {
            let whose = Arc::new(Claimant {
                uid: allocation.uid().unwrap_or_default(),
                name: allocation.name_any(),
                created: allocation.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
            });
            let mut held: BTreeMap<IpAddr, State> = BTreeMap::new();
            let mut on: BTreeMap<IpAddr, String> = BTreeMap::new();
            // For a while there may be two lives of one name.
            let named = nodes.entry(whose.name.clone()).or_default();
            for stored in allocation.status.iter().flat_map(|status| &status.addresses) {
                named.extend(stored.node.clone());
                on.extend(stored.ip.parse().ok().zip(stored.node.clone()));
                if let Some(planned) = &stored.planned_node {
                    plans.entry(planned.clone()).or_default().insert((urgency(stored), whose.uid.clone()));
                }
                // What a newer version wrote there holds the address.
                let foreign = || Some((stored.ip.parse().ok()?, State::Attaching));
                held.extend(memory::standing(stored).or_else(foreign));
            }
            let wanted =
                if allocation.metadata.deletion_timestamp.is_some() { BTreeSet::new() } else { listed(allocation).0 };
            for ip in wanted.iter().chain(held.keys()).copied().collect::<BTreeSet<_>>() {
                let state = held.get(&ip).copied();
                // Detached included: it is between two nodes of its own.
                let incumbent = state.is_some_and(|state| state != State::Unassigned);
                if !incumbent && !wanted.contains(&ip) {
                    continue;
                }
                claims.entry(ip).or_default().push(Standing {
                    whose: whose.clone(),
                    node: on.get(&ip).cloned(),
                    incumbent,
                    verified: matches!(state, Some(State::Attached | State::Draining)),
                    labelled: false,
                });
            }
        }
        Self { addresses: claims, nodes, plans, taints }
    }

    /// The same, beside what the labels of the nodes say: after a restore without status the allocation on whose node an
    /// address sits keeps it, whatever its age (P5).
    #[must_use]
    pub fn labelled(mut self, nodes: &[Arc<SlimNode>]) -> Self {
        for node in nodes {
            let (Some(name), Some(ip)) = (node.label(api::ALLOCATION_LABEL), node.label(api::ADDRESS_LABEL)) else {
                continue;
            };
            let standings = ip.parse().ok().and_then(|ip: IpAddr| self.addresses.get_mut(&ip));
            for standing in standings.into_iter().flatten().filter(|standing| standing.whose.name == name) {
                standing.labelled = true;
            }
        }
        self
    }

    /// The taints that allocations keep on nodes without an address.
    pub fn taints(&self) -> &Arc<NodeTaints> {
        &self.taints
    }

    /// Whether that allocation has an address on that node, or one on its way from or to it.
    pub fn holds(&self, allocation: &str, node: &str) -> bool {
        self.nodes.get(allocation).is_some_and(|named| named.contains(node))
    }

    /// Whether an entry of any allocation names that node.
    pub fn names(&self, node: &str) -> bool {
        self.nodes.values().any(|named| named.contains(node))
    }

    /// Whether the entry of that allocation for that address names that node.
    pub fn is_on(&self, ip: IpAddr, allocation: &str, node: &str) -> bool {
        let mut standings = self.addresses.get(&ip).into_iter().flatten();
        standings.any(|standing| standing.whose.name == allocation && standing.node.as_deref() == Some(node))
    }

    /// Whether another allocation than the one of this uid plans to go to that node: one that has the choice goes elsewhere.
    pub fn others_plan(&self, node: &str, uid: &str) -> bool {
        self.plans.get(node).is_some_and(|all| all.iter().any(|(_, other)| other != uid))
    }

    /// Of several allocations that plan to go to one node, all but the most urgent plan anew, and of those all but one.
    pub fn yields(&self, node: &str, uid: &str) -> bool {
        self.plans.get(node).and_then(BTreeSet::first).is_some_and(|(_, first)| first != uid)
    }

    /// Whether the address is that allocation's. Nobody else's is ours.
    pub fn claim(&self, ip: IpAddr, uid: &str) -> Claim {
        let all = self.addresses.get(&ip).into_iter().flatten();
        match all.min_by(|one, other| one.rank().cmp(&other.rank())) {
            Some(standing) if standing.whose.uid != uid => Claim::Other(standing.whose.name.clone()),
            Some(_) | None => Claim::Ours,
        }
    }
}

/// How urgently an address goes to where it is planned to go.
fn urgency(stored: &AddressStatus) -> Urgency {
    let open = stored.last_move.as_ref().filter(|journey| journey.to_node.is_none());
    let reasons = stored.reason.as_deref().into_iter().chain(open.map(|journey| journey.reason.as_str()));
    match stored.state.as_str() {
        _ if reasons.into_iter().any(Cause::is_fault) => Urgency::Failover,
        state if state == State::Unassigned.label() => Urgency::Placement,
        _ => Urgency::Drain,
    }
}

/// The addresses that a spec lists, and the texts that are none of use.
pub fn listed(allocation: &NetIPAllocation) -> (BTreeSet<IpAddr>, Vec<Unusable>) {
    let mut good = BTreeSet::new();
    let mut unusable = Vec::new();
    for text in &allocation.spec.reserved_ips {
        match text.parse::<IpAddr>() {
            Err(_) => unusable.push(Unusable::invalid(text, "is not an IP address".to_owned())),
            Ok(IpAddr::V6(_)) => unusable.push(Unusable::invalid(
                text,
                "is an IPv6 address; only IPv4 addresses can be kept on nodes".to_owned(),
            )),
            Ok(ip) if !good.insert(ip) => {
                unusable.push(Unusable::invalid(text, format!("names {ip} a second time; dropped")));
            }
            Ok(_) => {}
        }
    }
    (good, unusable)
}

/// A text in `spec.reservedIPs` that cannot be used. Old objects may hold such; new ones are refused by the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    pub text: String,
    /// What is wrong, and what to do.
    pub why: String,
    pub reason: Reason,
}

impl Unusable {
    fn invalid(text: &str, why: String) -> Self {
        let why = format!("{why}; take it out of spec.reservedIPs");
        Self { text: text.to_owned(), why, reason: Reason::InvalidAddress }
    }

    /// Words in status that a later pass writes anew from the spec.
    pub fn is_told_anew(reason: Option<&str>) -> bool {
        [Reason::InvalidAddress, Reason::TooManyAddresses].iter().any(|known| Some(known.as_str()) == reason)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;
    use crate::api::{AddressStatus, NetIPAllocationSpec, NetIPAllocationStatus};

    const IP: &str = "203.0.113.7";

    fn allocation(name: &str, created: i64, state: Option<&str>) -> NetIPAllocation {
        let spec = NetIPAllocationSpec { reserved_ips: vec![IP.into()], ..Default::default() };
        let mut object = NetIPAllocation::new(name, spec);
        object.metadata.uid = Some(name.into());
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
        object.status = state.map(|state| NetIPAllocationStatus {
            addresses: vec![AddressStatus {
                ip: IP.into(),
                state: state.into(),
                node: Some("a".into()),
                machine_id: Some("gce://p/us-west1-a/a#1".into()),
                ..Default::default()
            }],
            ..Default::default()
        });
        object
    }

    fn owner(all: &[NetIPAllocation]) -> Vec<&str> {
        let claims = Claims::of(all);
        let ip = IP.parse().unwrap();
        all.iter()
            .map(|a| a.metadata.uid.as_deref().unwrap())
            .filter(|uid| claims.claim(ip, uid) == Claim::Ours)
            .collect()
    }

    #[test]
    fn of_two_that_do_not_hold_it_the_older_has_it() {
        assert_eq!(owner(&[allocation("young", 2, None), allocation("old", 1, None)]), ["old"]);
        assert_eq!(owner(&[allocation("b", 1, None), allocation("a", 1, None)]), ["a"], "then the smaller uid");
    }

    #[test]
    fn an_incumbent_keeps_it_whatever_the_age_of_the_challenger() {
        assert_eq!(owner(&[allocation("young", 2, Some("Attached")), allocation("old", 1, None)]), ["young"]);
        assert_eq!(
            owner(&[allocation("young", 2, Some("Attached")), allocation("old", 1, Some("Unassigned"))]),
            ["young"]
        );
    }

    #[test]
    fn p5_of_two_that_have_lost_their_status_the_one_on_whose_node_it_sits_keeps_it() {
        let node = |name: &str, ip: &str| {
            let labels = [(api::ALLOCATION_LABEL, name), (api::ADDRESS_LABEL, ip)];
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let metadata = ObjectMeta { name: Some("node-a".to_owned()), labels: Some(labels), ..Default::default() };
            Arc::new(SlimNode { metadata, ..SlimNode::default() })
        };
        let ip = IP.parse().unwrap();
        let whose = |challenger: Option<&str>, nodes: &[Arc<SlimNode>]| {
            let all = [allocation("young", 2, None), allocation("old", 1, challenger)];
            let claims = Claims::of(&all).labelled(nodes);
            ["young", "old"].into_iter().find(|uid| claims.claim(ip, uid) == Claim::Ours).unwrap()
        };
        assert_eq!(whose(None, &[]), "old");
        assert_eq!(whose(None, &[node("young", IP)]), "young");
        assert_eq!(whose(None, &[node("young", "203.0.113.8"), node("stranger", IP)]), "old");
        assert_eq!(whose(Some("Attached"), &[node("young", IP)]), "old", "status says more");
    }

    #[test]
    fn of_those_that_plan_to_go_to_one_node_all_but_one_go_elsewhere() {
        let planning = |name: &str| {
            let mut object = allocation(name, 1, Some("Draining"));
            for address in object.status.iter_mut().flat_map(|status| &mut status.addresses) {
                address.planned_node = Some("node-x".to_owned());
            }
            object
        };
        let claims = Claims::of(&[planning("a"), planning("b"), allocation("c", 1, None)]);
        assert!(["a", "b", "c"].iter().all(|uid| claims.others_plan("node-x", uid)));
        assert_eq!(["a", "b"].map(|uid| claims.yields("node-x", uid)), [false, true]);
        let mut urgent = planning("b");
        let entries = urgent.status.iter_mut().flat_map(|status| &mut status.addresses);
        entries.for_each(|entry| entry.reason = Some("MachineGone".to_owned()));
        let claims_of_one_lost = Claims::of(&[planning("a"), urgent]);
        assert_eq!(["a", "b"].map(|uid| claims_of_one_lost.yields("node-x", uid)), [true, false]);
        assert!(!claims.others_plan("node-y", "a") && !claims.yields("node-y", "a"));
        assert!(!Claims::of(&[planning("a")]).others_plan("node-x", "a"), "its own plan");
    }

    #[test]
    fn a_node_is_held_by_the_allocations_whose_entries_name_it() {
        let claims = Claims::of(&[allocation("a", 1, Some("Attached")), allocation("b", 1, None)]);
        assert!(claims.holds("a", "a"));
        assert!(!claims.holds("a", "b") && !claims.holds("b", "a") && !claims.holds("nobody", "a"));
    }

    #[test]
    fn what_a_newer_version_wrote_holds_its_address() {
        assert_eq!(owner(&[allocation("young", 2, Some("Parking")), allocation("old", 1, None)]), ["young"]);
    }

    #[test]
    fn one_that_is_being_deleted_claims_only_what_it_holds() {
        let mut gone = allocation("old", 1, None);
        gone.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(5).unwrap()));
        assert_eq!(owner(&[allocation("young", 2, None), gone.clone()]), ["young"]);
        gone.status = allocation("old", 1, Some("Attached")).status;
        assert_eq!(owner(&[allocation("young", 2, None), gone]), ["old"]);
    }

    #[test]
    fn two_spellings_are_one_address_and_nonsense_is_named() {
        let mut object = allocation("a", 1, None);
        object.spec.reserved_ips = vec![IP.into(), IP.into(), "nonsense".into(), "2001:db8::1".into()];
        let (good, unusable) = listed(&object);
        assert_eq!(good.len(), 1);
        assert_eq!(unusable.len(), 3);
    }
}
