//! One allocation, as far as the others must know it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::listed;
use crate::{
    allocation::{
        decide::{leaving::Cause, state::State},
        memory,
        tables::Uid,
    },
    api::{AddressStatus, NetIPAllocation},
    cloud::limits::Urgency,
    lifecycle::State as _,
};

/// What one version of an object says that others must know. Made once for each: a pass of any allocation asks all of them.
#[derive(Clone, Debug)]
pub struct Claimant {
    pub(super) uid: Uid,
    pub(super) name: String,
    pub(super) created: Timestamp,
    pub(super) standings: HashMap<IpAddr, Standing>,
    /// That its entries name.
    pub(super) nodes: HashSet<String>,
    /// That its addresses are planned to go to.
    pub(super) plans: Vec<(String, Urgency)>,
}

/// Its standing with one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The node that its entry names.
    pub(super) node: Option<String>,
    /// Its entry holds the address, or is about to: it keeps it whatever its age (S3).
    pub(super) incumbent: bool,
    /// Its entry says Attached: of two incumbents, the one that was verified.
    pub(super) verified: bool,
}

impl Claimant {
    /// Of an entry no more is read than its standing and its plan.
    pub fn of(allocation: &NetIPAllocation) -> Self {
        let (mut standings, mut nodes, mut plans) = (HashMap::new(), HashSet::new(), Vec::new());
        for stored in allocation.status.iter().flat_map(|status| &status.addresses) {
            nodes.extend(stored.node.clone());
            if let Some(planned) = &stored.planned_node {
                plans.push((planned.clone(), urgency(stored)));
            }
            if let Ok(ip) = stored.ip.parse::<IpAddr>() {
                standings.insert(ip, Standing::of(stored));
            }
        }
        let terminating = allocation.metadata.deletion_timestamp.is_some();
        let wanted = if terminating { BTreeSet::new() } else { listed(allocation).0 };
        standings.retain(|ip, standing| standing.incumbent || wanted.contains(ip));
        for ip in wanted {
            standings.entry(ip).or_default();
        }
        Self {
            uid: allocation.uid().unwrap_or_default(),
            name: allocation.name_any(),
            created: allocation.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
            standings,
            nodes,
            plans,
        }
    }
}

impl Standing {
    fn of(stored: &AddressStatus) -> Self {
        // What a newer version wrote there holds the address.
        let state = memory::standing(stored).unwrap_or(State::Attaching);
        Self {
            node: stored.node.clone(),
            // Detached included: it is between two nodes of its own.
            incumbent: state != State::Unassigned,
            verified: matches!(state, State::Attached | State::Draining),
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
