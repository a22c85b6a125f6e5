//! Whose an address is, over all allocations (P5, S2, S3), and what else one of them must know of the others. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    decide::{
        facts::Claim,
        state::{Reason, State},
    },
    memory::{self, Stored},
    tables::Uid,
    taints::NodeTaints,
};
use crate::api::NetIPAllocation;

/// One allocation's standing with one address.
#[derive(Clone, Debug)]
struct Standing {
    uid: Uid,
    name: String,
    created: Timestamp,
    /// Its entry holds the address, or is about to: it keeps it whatever its age (S3).
    incumbent: bool,
    /// Its entry says Attached: of two incumbents, the one that was verified.
    verified: bool,
}

/// All claims of all allocations.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    addresses: BTreeMap<IpAddr, Vec<Standing>>,
    /// Allocations and the nodes that their entries name.
    nodes: BTreeSet<(String, String)>,
    taints: Arc<NodeTaints>,
}

impl Claims {
    /// From every allocation as it may be acted on.
    pub fn of<'a>(allocations: impl IntoIterator<Item = &'a NetIPAllocation>) -> Self {
        let allocations: Vec<&NetIPAllocation> = allocations.into_iter().collect();
        let taints = Arc::new(NodeTaints::of(allocations.iter().copied()));
        let mut claims: BTreeMap<IpAddr, Vec<Standing>> = BTreeMap::new();
        let mut nodes = BTreeSet::new();
        for allocation in allocations {
            let mut held: BTreeMap<IpAddr, State> = BTreeMap::new();
            for stored in allocation.status.iter().flat_map(|status| &status.addresses) {
                nodes.extend(stored.node.clone().map(|node| (allocation.name_any(), node)));
                match memory::read(stored) {
                    Stored::Known(entry) => {
                        held.insert(entry.ip, entry.state);
                    }
                    // What a newer version wrote there holds the address.
                    Stored::Foreign(status) => {
                        if let Ok(ip) = status.ip.parse() {
                            held.insert(ip, State::Attaching);
                        }
                    }
                }
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
                    uid: allocation.uid().unwrap_or_default(),
                    name: allocation.name_any(),
                    created: allocation.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
                    incumbent,
                    verified: matches!(state, Some(State::Attached | State::Draining)),
                });
            }
        }
        Self { addresses: claims, nodes, taints }
    }

    /// The taints that allocations keep on nodes without an address.
    pub fn taints(&self) -> &Arc<NodeTaints> {
        &self.taints
    }

    /// Whether that allocation has an address on that node, or one on its way from or to it.
    pub fn holds(&self, allocation: &str, node: &str) -> bool {
        self.nodes.contains(&(allocation.to_owned(), node.to_owned()))
    }

    /// Whether the address is that allocation's. Nobody else's is ours.
    pub fn claim(&self, ip: IpAddr, uid: &str) -> Claim {
        let best = self.addresses.get(&ip).and_then(|all| {
            all.iter().min_by_key(|standing| {
                (!standing.verified, !standing.incumbent, standing.created, standing.uid.clone())
            })
        });
        match best {
            Some(standing) if standing.uid != uid => Claim::Other(standing.name.clone()),
            Some(_) | None => Claim::Ours,
        }
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
