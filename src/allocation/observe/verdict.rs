//! What one node is good for: the first reason against it, in the order in which a person would mend them.

use super::{Surroundings, nodes::SlimNode};
use crate::{
    allocation::decide::placement::Verdict,
    api::NetIPAllocationSpec,
    cloud::{CloudError, ErrorKind, Interface, Power, ProviderId, Scope, Seat},
};

/// Who sits on a node's machine, as far as known.
pub struct Seated<'a> {
    /// By the seat table: an entry, an effect, a debt.
    pub taken: bool,
    /// A reserved address is on it by a survey that counts.
    pub surveyed: bool,
    /// A live read that counts.
    pub seat: Option<&'a Result<Seat, CloudError>>,
}

/// Judges a node for any address of the allocation.
pub fn of<'a>(
    node: &SlimNode,
    spec: &NetIPAllocationSpec,
    scope: &Scope,
    around: &Surroundings,
    seated: impl Fn(&ProviderId) -> Seated<'a>,
) -> Verdict {
    if spec.node_selector.is_empty() && node.control_plane() {
        return Verdict::ControlPlane;
    }
    let Some(id) = node.place() else { return Verdict::NoProviderID };
    if node.unsupported().is_some() {
        return Verdict::Unsupported;
    }
    let place = match node.location() {
        Some(place) if place.provider == scope.provider => place,
        Some(_) | None => return Verdict::OtherProvider,
    };
    if !scope.account.is_empty() && place.account != scope.account {
        return Verdict::OtherProject;
    }
    if place.region != scope.region {
        return Verdict::OtherRegion;
    }
    if !spec.cloud.zones.is_empty() && !spec.cloud.zones.contains(&place.zone) {
        return Verdict::OtherZone;
    }
    let seated = seated(&id);
    if seated.taken || seated.surveyed {
        return Verdict::HoldsAddress;
    }
    if node.deleting() {
        return Verdict::Deleting;
    }
    if node.cordoned() {
        return Verdict::Cordoned;
    }
    if node.disrupted(&around.disruption_taints).is_some() || node.out_of_service() {
        return Verdict::Disrupted;
    }
    if node.not_ready_since().is_some() {
        return Verdict::NotReady;
    }
    match seated.seat {
        None | Some(Ok(Seat { power: Power::Running, interface: Interface::Empty | Interface::Ephemeral(_), .. })) => {
            Verdict::Eligible
        }
        Some(Ok(Seat { power: Power::Running, interface: Interface::Reserved(_), .. })) => Verdict::HoldsAddress,
        Some(Ok(Seat { power: Power::Stopped | Power::Changing, .. })) => Verdict::MachineNotRunning,
        Some(Err(error)) => match error.kind {
            ErrorKind::NotFound => Verdict::MachineNotRunning,
            ErrorKind::Unsupported => Verdict::Unsupported,
            ErrorKind::Conflict
            | ErrorKind::Denied
            | ErrorKind::Unauthenticated
            | ErrorKind::Throttled
            | ErrorKind::Quota
            | ErrorKind::Invalid
            | ErrorKind::Timeout
            | ErrorKind::Unavailable
            | ErrorKind::Unknown => Verdict::Eligible,
        },
    }
}
