//! Which node each address goes to: chosen for all addresses of an allocation at once, so that two never collide.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::cloud::Reach;

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident => $words:literal),+ $(,)?) => {
        /// What a selected node is good for: a closed list, counted in messages and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verdict { $($(#[$doc])* $name),+ }

        impl Verdict {
            /// Every verdict.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$name),+];

            /// The metric label.
            pub fn as_str(self) -> &'static str {
                match self { $(Verdict::$name => stringify!($name)),+ }
            }

            /// After a count, in messages: "2 hold an address".
            pub fn words(self) -> &'static str {
                match self { $(Verdict::$name => $words),+ }
            }
        }
    };
}

verdicts! {
    /// May take an address.
    Eligible => "eligible",
    /// Has one, or is about to.
    HoldsAddress => "hold an address",
    /// `spec.unschedulable`.
    Cordoned => "cordoned",
    /// Its Ready condition is not True.
    NotReady => "not ready",
    /// Carries a taint that says that it is about to go.
    Disrupted => "about to be ended",
    /// Its object is being deleted.
    Deleting => "being deleted",
    /// `spec.providerID` is empty: the cloud has not initialised it.
    NoProviderID => "without a provider ID",
    /// Its provider ID is that of another cloud.
    OtherProvider => "of another provider",
    /// In another project or account.
    OtherProject => "in another project",
    /// In another region.
    OtherRegion => "in another region",
    /// Not in `cloud.zones`.
    OtherZone => "in a zone that is not in cloud.zones",
    /// Its machine does not run.
    MachineNotRunning => "whose machine does not run",
    /// Of a kind that cannot take an address.
    Unsupported => "of an unsupported kind",
    /// The cloud refused this address there a moment ago.
    RefusedByCloud => "refused by the cloud",
    /// A control-plane node, while no `nodeSelector` names it.
    ControlPlane => "of the control plane",
}

/// A selected node, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub zone: String,
    pub verdict: Verdict,
    /// What [`Verdict::Unsupported`] means here, and what to use instead.
    pub why: Option<String>,
    /// May be ended soon, by a guess, or cannot be read yet: only when there is no other.
    pub last_choice: bool,
}

/// An address that is looking for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub ip: IpAddr,
    /// Where an earlier pass meant it to go.
    pub planned: Option<String>,
    /// Nodes that refused it a moment ago: they come last.
    pub refused: BTreeSet<String>,
    /// The zones that it can be put in.
    pub reach: Reach,
}

impl Need {
    /// Whether the node may have it, as far as the node and the pair of them say.
    fn fits(&self, node: &Candidate) -> bool {
        node.verdict == Verdict::Eligible && self.reach.covers(&node.zone)
    }
}

/// The outcome for all addresses of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub targets: BTreeMap<IpAddr, String>,
    /// Selected nodes by verdict, before this plan.
    pub counts: BTreeMap<Verdict, usize>,
    /// Eligible nodes that this plan leaves free.
    pub spare: usize,
    /// Why a node is of no supported kind, if one is.
    pub unsupported: Option<String>,
    /// Eligible nodes in zones that the address cannot go to.
    pub out_of_reach: BTreeMap<IpAddr, usize>,
}

impl Plan {
    /// Why there is no node for the address, like the scheduler's message.
    pub fn verdicts(&self, ip: IpAddr) -> String {
        let total: usize = self.counts.values().sum();
        if total == 0 {
            return "no node is selected; check spec.nodeSelector against the nodes' labels".to_owned();
        }
        let parts: Vec<String> = self
            .counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .flat_map(|(verdict, n)| match (verdict, &self.unsupported) {
                (Verdict::Eligible, _) => {
                    let out = self.out_of_reach.get(&ip).copied().unwrap_or_default();
                    let far = (out > 0).then(|| format!("{out} eligible, but in a zone that the address cannot go to"));
                    let near = n.saturating_sub(out);
                    let planned = (near > 0).then(|| format!("{near} eligible, but planned for other addresses"));
                    [far, planned].into_iter().flatten().collect()
                }
                (Verdict::Unsupported, Some(why)) => vec![format!("{n} {} ({why})", verdict.words())],
                _ => vec![format!("{n} {}", verdict.words())],
            })
            .collect();
        format!("{total} node{} selected: {}", if total == 1 { "" } else { "s" }, parts.join(", "))
    }
}

/// Places the needs in the order of their urgency (the smaller number first), the most constrained first among equals.
///
/// Deterministic. Each keeps the node that was planned for it while that fits; else the zone with the fewest addresses
/// (`by_zone`), then the name. Nodes that refused it, and those that may end soon, come last.
pub fn place(needs: &[(u8, Need)], nodes: &[Candidate], by_zone: &BTreeMap<String, usize>) -> Plan {
    let mut plan = Plan { unsupported: nodes.iter().find_map(|node| node.why.clone()), ..Plan::default() };
    for node in nodes {
        *plan.counts.entry(node.verdict).or_default() += 1;
    }
    let eligible = plan.counts.get(&Verdict::Eligible).copied().unwrap_or_default();
    let mut free: BTreeMap<&str, &Candidate> =
        nodes.iter().filter(|n| n.verdict == Verdict::Eligible).map(|n| (n.name.as_str(), n)).collect();
    let mut counts: HashMap<&str, usize> = by_zone.iter().map(|(zone, n)| (zone.as_str(), *n)).collect();
    let mut ordered: Vec<(usize, u8, &Need)> = needs
        .iter()
        .map(|(urgency, need)| (nodes.iter().filter(|node| need.fits(node)).count(), *urgency, need))
        .collect();
    plan.out_of_reach = ordered.iter().map(|(fitting, _, need)| (need.ip, eligible - fitting)).collect();
    ordered.sort_by_key(|(fitting, urgency, need)| (*urgency, *fitting, need.ip));

    let keeps = |need: &Need| {
        let planned = need.planned.as_deref().filter(|planned| !need.refused.contains(*planned));
        planned.and_then(|planned| free.get(planned)).is_some_and(|node| need.fits(node))
    };
    let (settled, open): (Vec<&Need>, Vec<&Need>) =
        ordered.into_iter().map(|(_, _, need)| need).partition(|need| keeps(need));
    let mut late = Vec::new();
    for need in settled {
        // Two addresses may have been planned for one node by passes that did not know of each other.
        match need.planned.as_deref().and_then(|planned| free.remove(planned)) {
            Some(node) => {
                *counts.entry(node.zone.as_str()).or_default() += 1;
                plan.targets.insert(need.ip, node.name.clone());
            }
            None => late.push(need),
        }
    }
    for need in open.into_iter().chain(late) {
        let best = free
            .values()
            .filter(|node| need.fits(node))
            .min_by_key(|node| {
                (
                    need.refused.contains(&node.name),
                    node.last_choice,
                    counts.get(node.zone.as_str()).copied().unwrap_or_default(),
                    node.name.as_str(),
                )
            })
            .copied();
        if let Some(node) = best {
            free.remove(node.name.as_str());
            *counts.entry(node.zone.as_str()).or_default() += 1;
            plan.targets.insert(need.ip, node.name.clone());
        }
    }
    plan.spare = free.len();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, zone: &str) -> Candidate {
        Candidate { name: name.into(), zone: zone.into(), verdict: Verdict::Eligible, why: None, last_choice: false }
    }

    fn need(last: u8) -> Need {
        Need { ip: IpAddr::from([203, 0, 113, last]), planned: None, refused: BTreeSet::new(), reach: Reach::Region }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    /// All of the same urgency.
    fn place(needs: &[Need], nodes: &[Candidate], by_zone: &BTreeMap<String, usize>) -> Plan {
        let needs: Vec<(u8, Need)> = needs.iter().map(|need| (0, need.clone())).collect();
        super::place(&needs, nodes, by_zone)
    }

    fn target(plan: &Plan, last: u8) -> Option<&str> {
        plan.targets.get(&IpAddr::from([203, 0, 113, last])).map(String::as_str)
    }

    #[test]
    fn two_addresses_never_get_one_node() {
        let plan = place(&[need(1), need(2), need(3)], &[node("a", "z1"), node("b", "z1")], &BTreeMap::new());
        assert_eq!(plan.targets.len(), 2);
        assert_ne!(target(&plan, 1), target(&plan, 2));
        assert_eq!(plan.spare, 0);
    }

    #[test]
    fn zones_are_filled_evenly_then_by_name() {
        let nodes = [node("a", "z1"), node("b", "z1"), node("c", "z2")];
        let plan = place(&[need(1)], &nodes, &BTreeMap::from([("z1".to_owned(), 1)]));
        assert_eq!(target(&plan, 1), Some("c"));
        let plan = place(&[need(1), need(2)], &nodes, &BTreeMap::new());
        assert_eq!((target(&plan, 1), target(&plan, 2)), (Some("a"), Some("c")));
        assert_eq!(plan.spare, 1);
    }

    #[test]
    fn a_plan_is_kept_while_its_node_is_eligible() {
        let nodes = [node("a", "z1"), node("b", "z1")];
        let kept = Need { planned: Some("b".into()), ..need(2) };
        let plan = place(&[need(1), kept.clone()], &nodes, &BTreeMap::new());
        assert_eq!((target(&plan, 1), target(&plan, 2)), (Some("a"), Some("b")));
        let cordoned = [node("a", "z1"), Candidate { verdict: Verdict::Cordoned, ..node("b", "z1") }];
        assert_eq!(target(&place(&[kept], &cordoned, &BTreeMap::new()), 2), Some("a"));
    }

    #[test]
    fn two_plans_for_one_node_do_not_collide() {
        let planned = |last| Need { planned: Some("a".into()), ..need(last) };
        let plan = place(&[planned(1), planned(2)], &[node("a", "z1"), node("b", "z1")], &BTreeMap::new());
        assert_eq!((target(&plan, 1), target(&plan, 2)), (Some("a"), Some("b")));
    }

    #[test]
    fn a_node_that_refused_or_may_end_soon_comes_last() {
        let nodes = [Candidate { last_choice: true, ..node("a", "z1") }, node("b", "z1")];
        assert_eq!(target(&place(&[need(1)], &nodes, &BTreeMap::new()), 1), Some("b"));
        let refused = Need { refused: BTreeSet::from(["b".to_owned()]), ..need(1) };
        assert_eq!(target(&place(std::slice::from_ref(&refused), &nodes, &BTreeMap::new()), 1), Some("a"));
        assert_eq!(target(&place(&[refused], &nodes[1..], &BTreeMap::new()), 1), Some("b"), "better than none");
    }

    #[test]
    fn the_message_counts_every_verdict() {
        let nodes = [
            Candidate { verdict: Verdict::HoldsAddress, ..node("a", "z1") },
            Candidate { verdict: Verdict::HoldsAddress, ..node("b", "z1") },
            Candidate { verdict: Verdict::Cordoned, ..node("c", "z1") },
        ];
        let plan = place(&[need(1)], &nodes, &BTreeMap::new());
        assert_eq!(plan.verdicts(ip(1)), "3 nodes selected: 2 hold an address, 1 cordoned");
        assert!(place(&[need(1)], &[], &BTreeMap::new()).verdicts(ip(1)).contains("spec.nodeSelector"));
    }

    #[test]
    fn an_address_goes_only_where_it_reaches_and_the_most_constrained_goes_first() {
        let zonal = Need { reach: Reach::Zones(BTreeSet::from(["z1".to_owned()])), ..need(2) };
        let nodes = [node("a", "z1"), node("b", "z2")];
        let plan = place(&[need(1), zonal.clone()], &nodes, &BTreeMap::new());
        assert_eq!((target(&plan, 1), target(&plan, 2)), (Some("b"), Some("a")));
        let planned = Need { planned: Some("b".into()), ..zonal };
        assert_eq!(target(&place(std::slice::from_ref(&planned), &nodes, &BTreeMap::new()), 2), Some("a"));
        let plan = place(&[planned], &nodes[1..], &BTreeMap::new());
        assert_eq!(target(&plan, 2), None);
        assert_eq!(plan.verdicts(ip(2)), "1 node selected: 1 eligible, but in a zone that the address cannot go to");
    }

    #[test]
    fn an_urgent_address_goes_before_a_constrained_one() {
        let zonal = Need { reach: Reach::Zones(BTreeSet::from(["z1".to_owned()])), ..need(1) };
        let plan = super::place(&[(2, zonal), (0, need(2))], &[node("a", "z1")], &BTreeMap::new());
        assert_eq!((target(&plan, 1), target(&plan, 2)), (None, Some("a")));
    }

    #[test]
    fn an_unsupported_kind_is_told_with_its_sentence() {
        let why = Some("a Fargate node has no interface of yours".to_owned());
        let nodes = [Candidate { verdict: Verdict::Unsupported, why, ..node("a", "z1") }];
        assert_eq!(
            place(&[need(1)], &nodes, &BTreeMap::new()).verdicts(ip(1)),
            "1 node selected: 1 of an unsupported kind (a Fargate node has no interface of yours)"
        );
    }
}
