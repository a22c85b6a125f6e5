//! Which addresses an allocation asks for: those it lists, and those whose tags its selector matches. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    claims::{self, Unusable},
    decide::{facts::Wanted, state::Reason},
};
use crate::{api::NetIPAllocation, cloud::Survey};

/// What one pass makes of `spec.reservedIPs` and `spec.addressSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Listed in the spec.
    pub listed: BTreeSet<IpAddr>,
    /// Matched by the selector now, or held for it (see `held`).
    pub matched: BTreeSet<IpAddr>,
    /// The selector has lost everything, or more than half, at once: what it matched is kept (R4). The sentence for status.
    pub held: Option<String>,
    /// Texts in the list that are no addresses of use.
    pub unusable: Vec<Unusable>,
}

impl Selection {
    /// `survey`: whole and good, if there is one. Without one nothing is known to have stopped matching (P3).
    pub fn of(object: &NetIPAllocation, survey: Option<&Survey>) -> Self {
        let (listed, mut unusable) = claims::listed(object);
        let Some(selector) = &object.spec.address_selector else {
            return Self { listed, unusable, ..Self::default() };
        };
        let before = matched_before(object, &listed);
        let Some(survey) = survey else {
            return Self { listed, matched: before, held: None, unusable };
        };
        let now: BTreeSet<IpAddr> = survey
            .addresses
            .iter()
            .filter(|(ip, reservation)| ip.is_ipv4() && carries(&reservation.tags, &selector.match_tags))
            .map(|(ip, _)| *ip)
            .collect();
        let kept = before.intersection(&now).count();
        let (now, surplus) = within_limit(now, &listed, &before);
        unusable.extend(surplus);
        let edited = object.status.as_ref().and_then(|status| status.observed_generation) != object.metadata.generation;
        let lost = before.len() - kept;
        if !edited && lost > 0 && lost * 2 > before.len() {
            let held = format!(
                "addressSelector has lost {lost} of {} addresses at once; they are kept until it matches again or spec is edited",
                before.len()
            );
            return Self { listed, matched: before.union(&now).copied().collect(), held: Some(held), unusable };
        }
        Self { listed, matched: now, held: None, unusable }
    }

    /// Every address asked for.
    pub fn wanted(&self) -> BTreeSet<IpAddr> {
        self.listed.union(&self.matched).copied().collect()
    }

    /// Whether one is asked for, and if not, what the spec took back.
    pub fn of_address(&self, ip: IpAddr, object: &NetIPAllocation) -> Wanted {
        if self.listed.contains(&ip) || self.matched.contains(&ip) {
            Wanted::Yes
        } else if object.spec.address_selector.is_some() {
            Wanted::NotMatched
        } else {
            Wanted::RemovedFromSpec
        }
    }
}

/// As many as an object may hold, those first that it holds already; of the others, some to be told.
fn within_limit(
    now: BTreeSet<IpAddr>,
    listed: &BTreeSet<IpAddr>,
    before: &BTreeSet<IpAddr>,
) -> (BTreeSet<IpAddr>, Vec<Unusable>) {
    let mut all: Vec<IpAddr> = now.difference(listed).copied().collect();
    all.sort_by_key(|ip| (!before.contains(ip), *ip));
    let surplus = all.split_off(all.len().min(MOST.saturating_sub(listed.len())));
    let why = format!(
        "is more than the {MOST} addresses that an object may hold; narrow spec.addressSelector or make a second allocation"
    );
    let told = surplus.iter().take(SURPLUS_TOLD);
    let told = told.map(|ip| Unusable { text: ip.to_string(), why: why.clone(), reason: Reason::TooManyAddresses });
    (all.into_iter().collect(), told.collect())
}

/// What a status of bearable size holds; the CRD refuses a longer list.
const MOST: usize = 1024;
/// So many of those beyond are named in status.
const SURPLUS_TOLD: usize = 16;

/// Addresses in status that the spec does not list: the selector brought them. Those that are on their way out already
/// were judged when they left, and are not judged again.
fn matched_before(object: &NetIPAllocation, listed: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let leaving = [Reason::NotMatched.as_str(), Reason::RemovedFromSpec.as_str()];
    let stored = object.status.iter().flat_map(|status| &status.addresses);
    let stored = stored.filter(|entry| {
        !leaving.contains(&entry.reason.as_deref().unwrap_or_default())
            && !Unusable::is_told_anew(entry.reason.as_deref())
    });
    stored
        .filter_map(|entry| entry.ip.parse().ok())
        .filter(|ip: &IpAddr| !listed.contains(ip) && ip.is_ipv4())
        .collect()
}

fn carries(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| tags.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        api::{AddressSelector, AddressStatus, NetIPAllocationSpec, NetIPAllocationStatus},
        cloud::{Holder, Reach, Reservation},
    };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    fn survey(tagged: &[u8], others: &[u8]) -> Survey {
        let reservation = |tag: &str| Reservation {
            holder: Holder::Free,
            name: String::new(),
            network_tier: None,
            reach: Reach::default(),
            tags: BTreeMap::from([("pool".to_owned(), tag.to_owned())]),
        };
        let addresses = tagged
            .iter()
            .map(|n| (ip(*n), reservation("sip")))
            .chain(others.iter().map(|n| (ip(*n), reservation("web"))))
            .collect();
        Survey { began: Instant::now(), addresses }
    }

    fn allocation(in_status: &[u8]) -> NetIPAllocation {
        let spec = NetIPAllocationSpec {
            reserved_ips: vec![ip(1).to_string()],
            address_selector: Some(AddressSelector { match_tags: BTreeMap::from([("pool".into(), "sip".into())]) }),
            ..NetIPAllocationSpec::default()
        };
        let mut object = NetIPAllocation::new("a", spec);
        object.metadata.generation = Some(3);
        let entry =
            |n: &u8| AddressStatus { ip: ip(*n).to_string(), state: "Attached".into(), ..AddressStatus::default() };
        object.status = Some(NetIPAllocationStatus {
            observed_generation: Some(3),
            addresses: in_status.iter().map(entry).collect(),
            ..NetIPAllocationStatus::default()
        });
        object
    }

    fn wanted(object: &NetIPAllocation, survey: Option<&Survey>) -> Vec<IpAddr> {
        Selection::of(object, survey).wanted().into_iter().collect()
    }

    #[test]
    fn tagged_addresses_are_wanted_beside_the_listed_ones() {
        assert_eq!(wanted(&allocation(&[]), Some(&survey(&[2, 3], &[4]))), [ip(1), ip(2), ip(3)]);
    }

    #[test]
    fn without_a_survey_nothing_has_stopped_matching() {
        assert_eq!(wanted(&allocation(&[1, 2]), None), [ip(1), ip(2)]);
    }

    #[test]
    fn one_that_loses_its_tag_is_not_matched_any_more() {
        let object = allocation(&[1, 2, 3, 4]);
        let selection = Selection::of(&object, Some(&survey(&[2, 3], &[4])));
        assert_eq!(selection.of_address(ip(4), &object), Wanted::NotMatched);
        assert_eq!(selection.held, None);
    }

    #[test]
    fn losing_more_than_half_at_once_is_held_until_the_spec_is_edited() {
        let mut object = allocation(&[1, 2, 3, 4]);
        let lost = survey(&[2], &[3, 4]);
        let selection = Selection::of(&object, Some(&lost));
        assert!(selection.held.is_some());
        assert_eq!(selection.of_address(ip(4), &object), Wanted::Yes);
        object.metadata.generation = Some(4);
        let selection = Selection::of(&object, Some(&lost));
        assert_eq!((selection.held.clone(), selection.of_address(ip(4), &object)), (None, Wanted::NotMatched));
    }

    #[test]
    fn more_than_an_object_may_hold_are_told_and_those_that_it_holds_stay() {
        let mut many = survey(&[], &[]);
        let one = survey(&[2], &[]).addresses[&ip(2)].clone();
        many.addresses = (0..1100_u32).map(|n| (IpAddr::from((0x0A00_0000 + n).to_be_bytes()), one.clone())).collect();
        many.addresses.insert(ip(9), one);
        let object = allocation(&[1, 9]);
        let selection = Selection::of(&object, Some(&many));
        assert_eq!(selection.wanted().len(), 1024);
        assert!(selection.wanted().contains(&ip(9)), "it holds that one");
        assert_eq!(selection.unusable.len(), 16);
        assert!(selection.unusable.iter().all(|unusable| unusable.reason == Reason::TooManyAddresses));
    }

    #[test]
    fn taking_the_selector_away_takes_its_addresses_back() {
        let mut object = allocation(&[1, 2]);
        object.spec.address_selector = None;
        let selection = Selection::of(&object, Some(&survey(&[2], &[])));
        assert_eq!(selection.of_address(ip(2), &object), Wanted::RemovedFromSpec);
    }
}
