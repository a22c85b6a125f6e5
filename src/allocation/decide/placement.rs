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
    /// Eligible, and may be ended soon, by a guess, or cannot be read yet: only when there is no other.
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
    /// Eligible nodes in zones that the address cannot go to, of each that needs a node.
    pub out_of_reach: BTreeMap<IpAddr, usize>,
    /// Why the node that a person names for a move cannot take the address.
    pub refused_move: Option<String>,
}

impl Plan {
    /// Whether an address that needs a node has none.
    pub fn leaves_one_out(&self) -> bool {
        self.out_of_reach.keys().any(|ip| !self.targets.contains_key(ip))
    }

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
    let mut free = Free::of(nodes, by_zone);
    let eligible = free.count(&Reach::Region);
    let mut ordered: Vec<(usize, u8, &Need)> =
        needs.iter().map(|(urgency, need)| (free.count(&need.reach), *urgency, need)).collect();
    plan.out_of_reach = ordered.iter().map(|(fitting, _, need)| (need.ip, eligible - fitting)).collect();
    ordered.sort_by_key(|(fitting, urgency, need)| (*urgency, *fitting, need.ip));

    let (settled, open): (Vec<&Need>, Vec<&Need>) =
        ordered.into_iter().map(|(_, _, need)| need).partition(|need| free.planned(need).is_some());
    let mut late = Vec::new();
    for need in settled {
        // Two addresses may have been planned for one node by passes that did not know of each other.
        match free.planned(need) {
            Some(node) => {
                plan.targets.insert(need.ip, free.take(node));
            }
            None => late.push(need),
        }
    }
    for need in open.into_iter().chain(late) {
        if let Some(node) = free.best(need) {
            plan.targets.insert(need.ip, free.take(node));
        }
    }
    plan.spare = free.count(&Reach::Region);
    plan
}

/// The eligible nodes that nobody has taken yet, zone by zone: nodes differ for an address by zone alone, but for the few
/// that refused it, so that none has to be looked at for every address.
struct Free<'a> {
    zones: BTreeMap<&'a str, Zone<'a>>,
    eligible: HashMap<&'a str, &'a Candidate>,
}

#[derive(Default)]
struct Zone<'a> {
    /// Addresses in it, those of this plan included.
    addresses: usize,
    /// Those that may end soon last, then by name.
    nodes: BTreeSet<(bool, &'a str)>,
}

impl<'a> Free<'a> {
    fn of(nodes: &'a [Candidate], by_zone: &BTreeMap<String, usize>) -> Self {
        let (mut zones, mut eligible) = (BTreeMap::<&str, Zone<'_>>::new(), HashMap::new());
        for node in nodes.iter().filter(|node| node.verdict == Verdict::Eligible) {
            zones.entry(&node.zone).or_default().nodes.insert((node.last_choice, &node.name));
            eligible.insert(node.name.as_str(), node);
        }
        for (name, zone) in &mut zones {
            zone.addresses = by_zone.get(*name).copied().unwrap_or_default();
        }
        Self { zones, eligible }
    }

    /// How many an address of this reach could have.
    fn count(&self, reach: &Reach) -> usize {
        self.zones.iter().filter(|(name, _)| reach.covers(name)).map(|(_, zone)| zone.nodes.len()).sum()
    }

    /// The node that was planned for it, while it is free and may still have it.
    fn planned(&self, need: &Need) -> Option<&'a Candidate> {
        let name = need.planned.as_deref().filter(|planned| !need.refused.contains(*planned))?;
        let node = *self.eligible.get(name)?;
        need.fits(node).then_some(node)
    }

    /// Not one that refused it, not one that may end soon, in the zone with the fewest addresses, by name: in this order.
    fn best(&self, need: &Need) -> Option<&'a Candidate> {
        let reached = self.zones.iter().filter(|(name, _)| need.reach.covers(name));
        let firsts = reached.filter_map(|(_, zone)| {
            let rank = |(last, name): &(bool, &'a str)| (need.refused.contains(*name), *last, zone.addresses, *name);
            // Beyond those that refused it, which are few, the first is as good as any.
            let looked_at = zone.nodes.iter().take(need.refused.len() + 1);
            looked_at.map(rank).min()
        });
        let (_, _, _, name) = firsts.min()?;
        self.eligible.get(name).copied()
    }

    fn take(&mut self, node: &'a Candidate) -> String {
        self.eligible.remove(node.name.as_str());
        if let Some(zone) = self.zones.get_mut(node.zone.as_str()) {
            zone.nodes.remove(&(node.last_choice, node.name.as_str()));
            zone.addresses += 1;
        }
        node.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::{btree_set, vec},
        option,
        prelude::*,
        sample::select,
    };

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

    /// What [`super::place`] promises, by looking at every node for every address.
    fn by_looking_at_all(
        needs: &[(u8, Need)],
        nodes: &[Candidate],
        by_zone: &BTreeMap<String, usize>,
    ) -> BTreeMap<IpAddr, String> {
        let fitting = |need: &Need| nodes.iter().filter(|node| need.fits(node)).count();
        let mut ordered: Vec<&(u8, Need)> = needs.iter().collect();
        ordered.sort_by_key(|(urgency, need)| (*urgency, fitting(need), need.ip));
        let (mut taken, mut counts, mut targets) = (BTreeSet::new(), by_zone.clone(), BTreeMap::new());
        let planned = |need: &Need, taken: &BTreeSet<String>| {
            let name = need.planned.as_ref().filter(|name| !need.refused.contains(*name))?;
            nodes.iter().find(|node| node.name == *name && need.fits(node) && !taken.contains(name))
        };
        let (kept, open): (Vec<_>, Vec<_>) =
            ordered.into_iter().map(|(_, need)| need).partition(|need| planned(need, &BTreeSet::new()).is_some());
        let mut late = Vec::new();
        let mut settle = |need: &Need, node: &Candidate, taken: &mut BTreeSet<String>| {
            taken.insert(node.name.clone());
            targets.insert(need.ip, node.name.clone());
        };
        for need in kept {
            match planned(need, &taken) {
                Some(node) => {
                    *counts.entry(node.zone.clone()).or_default() += 1;
                    settle(need, node, &mut taken);
                }
                None => late.push(need),
            }
        }
        for need in open.into_iter().chain(late) {
            let best = nodes.iter().filter(|node| need.fits(node) && !taken.contains(&node.name)).min_by_key(|node| {
                let many = counts.get(&node.zone).copied().unwrap_or_default();
                (need.refused.contains(&node.name), node.last_choice, many, node.name.clone())
            });
            if let Some(node) = best {
                *counts.entry(node.zone.clone()).or_default() += 1;
                settle(need, node, &mut taken);
            }
        }
        targets
    }

    fn some_node() -> impl Strategy<Value = Candidate> {
        let verdict = select(vec![Verdict::Eligible, Verdict::Eligible, Verdict::Eligible, Verdict::Cordoned]);
        ("[a-j]", "z[1-3]", verdict, any::<bool>()).prop_map(|(name, zone, verdict, last_choice)| Candidate {
            verdict,
            last_choice,
            ..node(&name, &zone)
        })
    }

    fn some_need() -> impl Strategy<Value = (u8, Need)> {
        let reach = prop_oneof![Just(Reach::Region), btree_set("z[1-3]", 1..3).prop_map(Reach::Zones),];
        (0..3u8, 0..12u8, option::of("[a-j]"), btree_set("[a-j]", 0..4), reach).prop_map(
            |(urgency, last, planned, refused, reach)| (urgency, Need { planned, refused, reach, ..need(last) }),
        )
    }

    proptest! {
        #[test]
        fn the_plan_is_that_of_looking_at_every_node_for_every_address(
            nodes in vec(some_node(), 0..12),
            needs in vec(some_need(), 0..12),
            z1 in 0..4usize,
        ) {
            let nodes: BTreeMap<String, Candidate> = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
            let nodes: Vec<Candidate> = nodes.into_values().collect();
            let needs: BTreeMap<IpAddr, (u8, Need)> = needs.into_iter().map(|need| (need.1.ip, need)).collect();
            let needs: Vec<(u8, Need)> = needs.into_values().collect();
            let by_zone = BTreeMap::from([("z1".to_owned(), z1)]);
            let plan = super::place(&needs, &nodes, &by_zone);
            prop_assert_eq!(&plan.targets, &by_looking_at_all(&needs, &nodes, &by_zone));
        }
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
        assert!(!plan.leaves_one_out());
        let planned = Need { planned: Some("b".into()), ..zonal };
        assert_eq!(target(&place(std::slice::from_ref(&planned), &nodes, &BTreeMap::new()), 2), Some("a"));
        let plan = place(&[planned], &nodes[1..], &BTreeMap::new());
        assert_eq!(target(&plan, 2), None);
        assert!(plan.leaves_one_out());
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
