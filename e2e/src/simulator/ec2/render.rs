//! Resources of the world as EC2's elements. A list is an array of what its `item`s hold.

use serde_json::{Map, Value, json};

use super::ids::{allocation_id, association_id, group, instance_id, interface_id};
use crate::world::{Address, Holder, Inventory, Machine, Power};

/// Owner of what is the account's, and of what Amazon lends.
const OWNER: &str = "123456789012";
const AMAZON: &str = "amazon";
/// The world has no birthdays; nothing reads them.
const LONG_AGO: &str = "2026-01-01T00:00:00.000Z";

/// Where an address sits whose `foreign` is the second interface of a machine: `interfaces/NAME/1`.
fn second_interface<'a>(inventory: &'a Inventory, foreign: &str) -> Option<&'a Machine> {
    let name = foreign.strip_prefix("interfaces/")?.strip_suffix("/1")?;
    inventory.machines().find(|machine| machine.key.name == name)
}

pub(super) fn address(inventory: &Inventory, address: &Address, holder: &Holder) -> Value {
    let mut body = object(json!({
        "publicIp": address.ip.to_string(),
        "allocationId": allocation_id(address),
        "domain": "vpc",
        "networkBorderGroup": address.group.as_deref().unwrap_or(&address.region),
        "publicIpv4Pool": "amazon",
        // The real service says a thing that is not there as an empty element now and then.
        "customerOwnedIp": "",
    }));
    if !address.tags.is_empty() {
        let tags: Vec<Value> = address.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        body.insert("tagSet".to_owned(), tags.into());
    }
    let holds = match holder {
        Holder::Nobody => json!({"associationId": "", "instanceId": ""}),
        Holder::Machine(key) => match inventory.machine(key) {
            Some(machine) => json!({
                "associationId": machine.external.as_ref().map(|external| association_id(machine, external)),
                "instanceId": instance_id(machine),
                "networkInterfaceId": interface_id(machine, 0),
                "networkInterfaceOwnerId": OWNER,
                "privateIpAddress": machine.internal_ip.to_string(),
            }),
            None => json!({}),
        },
        Holder::Foreign(foreign) => {
            let association = format!("eipassoc-f{:016x}", address.id);
            match second_interface(inventory, foreign) {
                Some(machine) => json!({
                    "associationId": association,
                    "instanceId": instance_id(machine),
                    "networkInterfaceId": interface_id(machine, 1),
                    "networkInterfaceOwnerId": OWNER,
                    "privateIpAddress": "10.200.0.1",
                }),
                None => json!({
                    "associationId": association,
                    "networkInterfaceId": format!("eni-f{:016x}", address.id),
                    "networkInterfaceOwnerId": "amazon-elb",
                    "privateIpAddress": "10.200.0.2",
                }),
            }
        }
    };
    body.extend(object(holds));
    if let Holder::Foreign(service) = holder
        && ["alb", "nlb", "rnat", "rds"].contains(&service.as_str())
    {
        body.insert("serviceManaged".to_owned(), service.as_str().into());
    }
    body.into()
}

/// An instance in a reservation of its own.
pub(super) fn reservation(inventory: &Inventory, machine: &Machine) -> Value {
    json!({
        "reservationId": format!("r-{:017x}", machine.id),
        "ownerId": OWNER,
        "instancesSet": [instance(inventory, machine)],
    })
}

fn instance(inventory: &Inventory, machine: &Machine) -> Value {
    let (code, name) = state(machine.power);
    // The primary interface comes last: nothing promises an order.
    let interfaces: Vec<Value> =
        (0..machine.interfaces.max(1)).rev().map(|index| interface(inventory, machine, index)).collect();
    let mut body = object(json!({
        "instanceId": instance_id(machine),
        "imageId": "ami-0123456789abcdef0",
        "instanceState": {"code": code, "name": name},
        "instanceType": "m6i.large",
        "launchTime": LONG_AGO,
        "placement": {"availabilityZone": machine.key.zone, "tenancy": "default"},
        "privateIpAddress": machine.internal_ip.to_string(),
        "networkInterfaceSet": interfaces,
        "operator": {"managed": machine.managed},
    }));
    if let Some(ip) = machine.external.as_ref().and_then(|external| external.ip) {
        body.insert("ipAddress".to_owned(), ip.to_string().into());
    }
    body.into()
}

fn interface(inventory: &Inventory, machine: &Machine, index: usize) -> Value {
    let association = association(inventory, machine, index);
    let private = if index == 0 { machine.internal_ip.to_string() } else { "10.200.0.1".to_owned() };
    let mut first = object(json!({"privateIpAddress": private, "primary": true}));
    let mut body = object(json!({
        "networkInterfaceId": interface_id(machine, index),
        "ownerId": OWNER,
        "status": "in-use",
        "privateIpAddress": private,
        "attachment": {
            "attachmentId": format!("eni-attach-{:016x}{index:x}", machine.id),
            "attachTime": LONG_AGO,
            "deleteOnTermination": true,
            "deviceIndex": index,
            "networkCardIndex": 0,
            "status": "attached",
        },
    }));
    if let Some(association) = association {
        first.insert("association".to_owned(), association.clone());
        body.insert("association".to_owned(), association);
    }
    // A pod's address, as the VPC CNI gives them out; not the primary one, though it comes first.
    let pod = json!({"privateIpAddress": format!("10.201.0.{}", index.saturating_add(1)), "primary": false});
    body.insert("privateIpAddressesSet".to_owned(), json!([pod, first]));
    body.into()
}

fn association(inventory: &Inventory, machine: &Machine, index: usize) -> Option<Value> {
    let (ip, owner) = match (index, &machine.external) {
        (0, Some(external)) => (external.ip?, if external.reserved { OWNER } else { AMAZON }),
        (1, _) => {
            let here = |address: &&Address| {
                let on = address.foreign.as_deref().and_then(|foreign| second_interface(inventory, foreign));
                on.is_some_and(|on| on.key == machine.key)
            };
            let addresses = inventory.addresses(&machine.key.account);
            (addresses.iter().map(|(address, _)| *address).find(here)?.ip, OWNER)
        }
        _ => return None,
    };
    Some(json!({"publicIp": ip.to_string(), "ipOwnerId": owner, "publicDnsName": ""}))
}

fn state(power: Power) -> (u16, &'static str) {
    match power {
        Power::Starting | Power::Repairing => (0, "pending"),
        Power::Running => (16, "running"),
        Power::Stopping => (64, "stopping"),
        Power::Stopped | Power::Suspended => (80, "stopped"),
    }
}

pub(super) fn region(name: &str) -> Value {
    json!({
        "regionName": name,
        "regionEndpoint": format!("ec2.{name}.amazonaws.com"),
        "optInStatus": "opt-in-not-required",
    })
}

/// Whether an address reaches a machine.
pub(super) fn reaches(address: &Address, machine: &Machine) -> bool {
    group(&machine.key.zone) == address.group.as_deref().unwrap_or(&address.region)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
