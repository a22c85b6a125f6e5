//! Objects for the unit tests of the verbs.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Instant};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};
use kube::api::ObjectMeta;
use uuid::Uuid;

use crate::{
    allocation::{
        moment::Moment,
        observe::nodes::{SlimNode, SlimSpec, SlimStatus},
    },
    api::{
        ADDRESS_LABEL, ALLOCATION_LABEL, AddressStatus, CloudSpec, FINALIZER, NetIPAllocation, NetIPAllocationSpec,
        NetIPAllocationStatus, ProviderName, READY_LABEL, READY_VALUE,
    },
    cloud::ProviderId,
};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn moment(second: i64) -> Moment {
    Moment { now: at(second), instant: Instant::now(), chance: Uuid::nil() }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An allocation on the nodes with label `role: NAME`, seen by an operator that has done nothing yet.
pub fn object(name: &str, ips: &[&str]) -> NetIPAllocation {
    NetIPAllocation {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some("7".to_owned()),
            generation: Some(1),
            creation_timestamp: Some(Time(at(-3600))),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: NetIPAllocationSpec {
            reserved_ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            node_selector: BTreeMap::from([("role".to_owned(), name.to_owned())]),
            cloud: CloudSpec { provider: Some(ProviderName::Gcp), ..CloudSpec::default() },
            ..NetIPAllocationSpec::default()
        },
        status: Some(NetIPAllocationStatus { observed_generation: Some(1), ..NetIPAllocationStatus::default() }),
    }
}

/// Puts an address on a node of [`node`], Attached since an hour.
pub fn attach(object: &mut NetIPAllocation, ip: &str, node: &str) {
    let entry = AddressStatus {
        ip: ip.to_owned(),
        state: "Attached".to_owned(),
        reason: Some("Verified".to_owned()),
        message: Some(format!("is on node {node}")),
        node: Some(node.to_owned()),
        machine_id: Some(format!("gce://prod/us-west1-a/{node}#{node}-1")),
        last_transition_time: Some(Time(at(-3600))),
        ..AddressStatus::default()
    };
    object.status.get_or_insert_default().addresses.push(entry);
}

/// A Ready node of the allocation's pool.
pub fn node(name: &str, role: &str) -> SlimNode {
    let ready = NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(at(-7200))),
        ..NodeCondition::default()
    };
    SlimNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(format!("uid-{name}")),
            labels: Some(BTreeMap::from([("role".to_owned(), role.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: SlimSpec {
            provider_id: Some(ProviderId::new(format!("gce://prod/us-west1-a/{name}"))),
            ..SlimSpec::default()
        },
        status: SlimStatus { conditions: Some(vec![ready]) },
    }
}

/// One that says that it has the address.
pub fn labelled(name: &str, role: &str, ip: &str) -> SlimNode {
    let mut node = node(name, role);
    for (key, value) in [(READY_LABEL, READY_VALUE), (ALLOCATION_LABEL, role), (ADDRESS_LABEL, ip)] {
        node.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }
    node
}

pub fn nodes(all: Vec<SlimNode>) -> Vec<Arc<SlimNode>> {
    all.into_iter().map(Arc::new).collect()
}
