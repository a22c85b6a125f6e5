//! What one node is good for: the first reason against it, in the order in which a person would mend them.

use super::{Surroundings, nodes::SlimNode};
use crate::{
    allocation::decide::placement::Verdict,
    api::NetIPAllocationSpec,
    cloud::{CloudError, ErrorKind, Interface, Place, Power, ProviderId, Scope, Seat},
};

/// Who sits on a node's machine, as far as known.
pub enum Seated<'a> {
    /// Somebody: by the seat table (an entry, an effect, a debt), or by a survey that counts.
    Taken,
    /// By a live read that counts.
    Read(&'a Result<Seat, CloudError>),
    Unknown,
}

/// Judges a node for any address of the allocation. `location`: the node's.
pub fn of<'a>(
    node: &SlimNode,
    location: Option<&Place>,
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
    let place = match location {
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
    let read = match seated(&id) {
        Seated::Taken => return Verdict::HoldsAddress,
        Seated::Read(read) => Some(read),
        Seated::Unknown => None,
    };
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
    match read {
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

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        allocation::{moment::Moment, observe::nodes::Roster},
        cloud::{Own, Provider},
    };

    const DISRUPTION: &str = "karpenter.sh/disrupted";

    /// What is said of a node by a pass that knows this of its machine. `changes`: what differs from a node that is Ready at
    /// Google Cloud, and from a spec for its zone.
    fn verdict(changes: &Value, taken: bool, seat: Option<&Result<Seat, CloudError>>) -> Verdict {
        let mut node = json!({
            "metadata": {"name": "a", "labels": {"role": "sip"}},
            "spec": {"providerID": "gce://p/us-west1-a/a"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let mut spec = json!({
            "nodeSelector": {"role": "sip"}, "cloud": {"provider": "gcp", "project": "p", "zones": ["us-west1-a"]},
        });
        for (whole, part) in [(&mut node, "node"), (&mut spec, "spec")] {
            for (pointer, value) in changes[part].as_object().into_iter().flatten() {
                *whole.pointer_mut(pointer).unwrap() = value.clone();
            }
        }
        let node: SlimNode = serde_json::from_value(node).unwrap();
        let spec: NetIPAllocationSpec = serde_json::from_value(spec).unwrap();
        let scope =
            Scope { provider: Provider::Gcp, account: "p".into(), region: "us-west1".into(), resource_group: None };
        let around = Surroundings {
            nodes: Arc::new(Roster::default()),
            survey: None,
            survey_error: None,
            unconnected: BTreeMap::new(),
            disruption_taints: vec![DISRUPTION.to_owned()],
            moment: Moment::here(),
        };
        let seated = || if taken { Seated::Taken } else { seat.map_or(Seated::Unknown, Seated::Read) };
        of(&node, node.location().as_deref(), &spec, &scope, &around, |_| seated())
    }

    fn seat(power: Power, interface: Interface) -> Result<Seat, CloudError> {
        Ok(Seat { machine: "gce://p/us-west1-a/a#17".parse().unwrap(), power, interface })
    }

    fn refused(kind: ErrorKind) -> Result<Seat, CloudError> {
        Err(CloudError::new(kind, "instances.get", "no"))
    }

    #[test]
    fn every_verdict_is_said_of_some_node_for_the_reason_that_it_names() {
        let changed = |part: &str, pointer: &str, value: Value| json!({part: {pointer: value}});
        let node = |pointer: &str, value: Value| changed("node", pointer, value);
        let tainted = |key: &str| {
            node(
                "/spec",
                json!({"providerID": "gce://p/us-west1-a/a", "taints": [{"key": key, "effect": "NoSchedule"}]}),
            )
        };
        let control_plane = json!({
            "node": {"/metadata/labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"/nodeSelector": {}},
        });
        let by_node = [
            (Value::Null, Verdict::Eligible),
            (control_plane, Verdict::ControlPlane),
            (node("/spec/providerID", json!("")), Verdict::NoProviderID),
            (node("/spec/providerID", json!("aws:///us-west-2a/i-0abc")), Verdict::OtherProvider),
            (node("/spec/providerID", json!("gce://q/us-west1-a/a")), Verdict::OtherProject),
            (node("/spec/providerID", json!("gce://p/us-east1-b/a")), Verdict::OtherRegion),
            (node("/spec/providerID", json!("gce://p/us-west1-b/a")), Verdict::OtherZone),
            (
                node("/metadata", json!({"name": "a", "labels": {"eks.amazonaws.com/compute-type": "auto"}})),
                Verdict::Unsupported,
            ),
            (node("/metadata", json!({"name": "a", "deletionTimestamp": "2026-11-22T03:12:07Z"})), Verdict::Deleting),
            (node("/spec", json!({"providerID": "gce://p/us-west1-a/a", "unschedulable": true})), Verdict::Cordoned),
            (tainted(DISRUPTION), Verdict::Disrupted),
            (tainted("node.kubernetes.io/out-of-service"), Verdict::Disrupted),
            (node("/status/conditions", json!([{"type": "Ready", "status": "Unknown"}])), Verdict::NotReady),
        ];
        let reserved = Interface::Reserved("203.0.113.9".parse().unwrap());
        let by_machine = [
            (seat(Power::Running, Interface::Empty), Verdict::Eligible),
            (seat(Power::Running, Interface::Ephemeral(Own::default())), Verdict::Eligible),
            (seat(Power::Running, reserved), Verdict::HoldsAddress),
            (seat(Power::Stopped, Interface::Empty), Verdict::MachineNotRunning),
            (seat(Power::Changing, Interface::Empty), Verdict::MachineNotRunning),
            (refused(ErrorKind::NotFound), Verdict::MachineNotRunning),
            (refused(ErrorKind::Unsupported), Verdict::Unsupported),
            // What cannot be read now speaks against nobody (P3).
            (refused(ErrorKind::Unavailable), Verdict::Eligible),
        ];
        let mut said = BTreeSet::new();
        for (changes, wanted) in by_node {
            let verdict = verdict(&changes, false, None);
            assert_eq!(verdict, wanted, "{changes}");
            said.insert(verdict);
        }
        for (seat, wanted) in by_machine {
            let verdict = verdict(&Value::Null, false, Some(&seat));
            assert_eq!(verdict, wanted, "{seat:?}");
            said.insert(verdict);
        }
        assert_eq!(verdict(&Value::Null, true, None), Verdict::HoldsAddress, "by the seat table");
        let unsaid: Vec<_> = Verdict::ALL.iter().filter(|verdict| !said.contains(verdict)).collect();
        assert!(unsaid.is_empty(), "listed, and said of no node: {unsaid:?}");
    }
}
