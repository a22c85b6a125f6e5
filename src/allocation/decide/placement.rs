//! Which node each address goes to: chosen for all addresses of an allocation at once, so that two never collide.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

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
    /// May be ended soon, by a guess: only when there is no other.
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
}

/// The outcome for all addresses of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub targets: BTreeMap<IpAddr, String>,
    /// Selected nodes by verdict, before this plan.
    pub counts: BTreeMap<Verdict, usize>,
    /// Eligible nodes that this plan leaves free.
    pub spare: usize,
}

impl Plan {
    /// Why there is no node, like the scheduler's message.
    pub fn verdicts(&self) -> String {
        let total: usize = self.counts.values().sum();
        if total == 0 {
            return "no node is selected; check spec.nodeSelector against the nodes' labels".to_owned();
        }
        let parts: Vec<String> = self
            .counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(verdict, n)| match verdict {
                Verdict::Eligible => format!("{n} eligible, but planned for other addresses"),
                _ => format!("{n} {}", verdict.words()),
            })
            .collect();
        format!("{total} node{} selected: {}", if total == 1 { "" } else { "s" }, parts.join(", "))
    }
}

/// Places the needs in the order given, which is that of urgency.
///
/// Deterministic. Each keeps the node that was planned for it while that is eligible; else the zone with the fewest
/// addresses (`by_zone`), then the name. Nodes that refused it, and those that may end soon, come last.
pub fn place(needs: &[Need], nodes: &[Candidate], by_zone: &BTreeMap<String, usize>) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        *plan.counts.entry(node.verdict).or_default() += 1;
    }
    let mut free: BTreeMap<&str, &Candidate> =
        nodes.iter().filter(|n| n.verdict == Verdict::Eligible).map(|n| (n.name.as_str(), n)).collect();
    let mut counts: HashMap<&str, usize> = by_zone.iter().map(|(zone, n)| (zone.as_str(), *n)).collect();

    let (settled, open): (Vec<&Need>, Vec<&Need>) = needs
        .iter()
        .partition(|need| need.planned.as_deref().is_some_and(|p| free.contains_key(p) && !need.refused.contains(p)));
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
        Candidate { name: name.into(), zone: zone.into(), verdict: Verdict::Eligible, last_choice: false }
    }

    fn need(last: u8) -> Need {
        Need { ip: IpAddr::from([203, 0, 113, last]), planned: None, refused: BTreeSet::new() }
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
        assert_eq!(plan.verdicts(), "3 nodes selected: 2 hold an address, 1 cordoned");
        assert!(place(&[need(1)], &[], &BTreeMap::new()).verdicts().contains("spec.nodeSelector"));
    }
}
