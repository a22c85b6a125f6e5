//! Whose an address is, over all allocations (P5, S2, S3), and what else one of them must know of the others. Pure.

mod claimant;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

pub use self::claimant::Claimant;
use self::claimant::Standing;
use super::{
    decide::{facts::Claim, state::Reason},
    observe::nodes::{Roster, SlimNode},
    tables::Uid,
    taints::NodeTaints,
};
use crate::{
    api::{self, NetIPAllocation},
    cloud::limits::Urgency,
};

/// All claims of all allocations.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claimants: Vec<Arc<Claimant>>,
    /// Which allocations plan to go to a node, by its name; the most urgent first.
    plans: HashMap<String, BTreeSet<(Urgency, Uid)>>,
    taints: Arc<NodeTaints>,
    nodes: Arc<Roster>,
    /// What the labels of the nodes say, looked at only where several claim one address.
    labels: OnceLock<HashMap<String, HashSet<IpAddr>>>,
}

impl Claims {
    /// From every allocation as it may be acted on.
    pub fn of<'a>(allocations: impl IntoIterator<Item = &'a NetIPAllocation>) -> Self {
        let allocations: Vec<&NetIPAllocation> = allocations.into_iter().collect();
        let claimants = allocations.iter().map(|allocation| Arc::new(Claimant::of(allocation))).collect();
        Self::among(claimants, NodeTaints::of(allocations))
    }

    /// The same, of what is known of each already.
    pub fn among(claimants: Vec<Arc<Claimant>>, taints: NodeTaints) -> Self {
        let mut plans: HashMap<String, BTreeSet<(Urgency, Uid)>> = HashMap::new();
        for claimant in &claimants {
            for (node, urgency) in &claimant.plans {
                plans.entry(node.clone()).or_default().insert((*urgency, claimant.uid.clone()));
            }
        }
        Self { claimants, plans, taints: Arc::new(taints), ..Self::default() }
    }

    /// The same, beside what the labels of the nodes say: after a restore without status the allocation on whose node an
    /// address sits keeps it, whatever its age (P5).
    #[must_use]
    pub fn labelled(self, nodes: &Arc<Roster>) -> Self {
        Self { nodes: nodes.clone(), labels: OnceLock::new(), ..self }
    }

    /// The taints that allocations keep on nodes without an address.
    pub fn taints(&self) -> &Arc<NodeTaints> {
        &self.taints
    }

    /// Whether that allocation has an address on that node, or one on its way from or to it.
    pub fn holds(&self, allocation: &str, node: &str) -> bool {
        self.named(allocation).any(|claimant| claimant.nodes.contains(node))
    }

    /// Whether an entry of any allocation names that node.
    pub fn names(&self, node: &str) -> bool {
        self.claimants.iter().any(|claimant| claimant.nodes.contains(node))
    }

    /// Whether the entry of that allocation for that address names that node.
    pub fn is_on(&self, ip: IpAddr, allocation: &str, node: &str) -> bool {
        let mut standings = self.named(allocation).filter_map(|claimant| claimant.standings.get(&ip));
        standings.any(|standing| standing.node.as_deref() == Some(node))
    }

    /// For a while there may be two lives of one name.
    fn named(&self, allocation: &str) -> impl Iterator<Item = &Arc<Claimant>> {
        self.claimants.iter().filter(move |claimant| claimant.name == allocation)
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
        let all = self.claimants.iter().filter_map(|claimant| Some((claimant, claimant.standings.get(&ip)?)));
        let first = all.reduce(|one, other| if self.rank(ip, other) < self.rank(ip, one) { other } else { one });
        match first {
            Some((claimant, _)) if claimant.uid != uid => Claim::Other(claimant.name.clone()),
            Some(_) | None => Claim::Ours,
        }
    }

    /// Of several that name an address, the smallest has it.
    fn rank<'a>(
        &self,
        ip: IpAddr,
        (claimant, standing): (&'a Arc<Claimant>, &Standing),
    ) -> (bool, bool, bool, Timestamp, &'a str) {
        // That is all that is left of an incumbent whose status is lost.
        let labelled = self.labels().get(&claimant.name).is_some_and(|addresses| addresses.contains(&ip));
        (!standing.verified, !standing.incumbent, !labelled, claimant.created, &claimant.uid)
    }

    /// The addresses that nodes are labelled with, by allocation.
    fn labels(&self) -> &HashMap<String, HashSet<IpAddr>> {
        let label = |node: &Arc<SlimNode>| {
            let (name, ip) = (node.label(api::ALLOCATION_LABEL)?, node.label(api::ADDRESS_LABEL)?);
            Some((name.to_owned(), ip.parse::<IpAddr>().ok()?))
        };
        self.labels.get_or_init(|| {
            let mut labels: HashMap<String, HashSet<IpAddr>> = HashMap::new();
            for (name, ip) in self.nodes.iter().filter_map(label) {
                labels.entry(name).or_default().insert(ip);
            }
            labels
        })
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
            let claims = Claims::of(&all).labelled(&Arc::new(Roster::of(nodes.to_vec())));
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
