//! Resources of the world as Azure Resource Manager's JSON.

use serde_json::{Map, Value, json};

use super::{Desk, errors::Trouble, names};
use crate::world::{Address, GLOBAL, Holder, Machine, Operation, Phase, Power};

/// A reserved address. Ids of what uses it come in lower case, as the network service spells them.
pub(super) fn address(address: &Address, holder: &Holder, desk: &Desk) -> Value {
    let mut properties = object(json!({
        "provisioningState": desk.state(&address.name),
        "resourceGuid": names::guid(address.id, 1),
        "ipAddress": address.ip.to_string(),
        "publicIPAddressVersion": if address.ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "publicIPAllocationMethod": "Static",
        "idleTimeoutInMinutes": 4,
        "ipTags": [],
        "ddosSettings": {"protectionMode": "VirtualNetworkInherited"},
    }));
    match holder {
        Holder::Nobody => {}
        Holder::Machine(machine) => {
            let id = format!("{}/ipConfigurations/{PRIMARY}", names::interface_id(machine)).to_lowercase();
            properties.insert("ipConfiguration".to_owned(), json!({"id": id}));
        }
        Holder::Foreign(path) => {
            let (kind, name) = path.rsplit_once('/').unwrap_or(("things", path));
            let of = |kind: &str| names::network(&address.account, "other", kind, name);
            match kind {
                "natGateways" => properties.insert("natGateway".to_owned(), json!({"id": of(kind)})),
                "networkInterfaces" => {
                    let id = format!("{}/ipConfigurations/{PRIMARY}", of(kind));
                    properties.insert("ipConfiguration".to_owned(), json!({"id": id}))
                }
                _ => {
                    let id = format!("{}/frontendIPConfigurations/front", of("loadBalancers"));
                    properties.insert("ipConfiguration".to_owned(), json!({"id": id}))
                }
            };
        }
    }
    let global = address.region == GLOBAL;
    let mut body = object(json!({
        "name": address.name,
        "id": names::address_id(address),
        "etag": format!("W/\"{}\"", names::guid(address.id, 2)),
        "location": address.region,
        "type": "Microsoft.Network/publicIPAddresses",
        "sku": {"name": "Standard", "tier": if global { "Global" } else { "Regional" }},
        "properties": properties,
    }));
    if !address.tags.is_empty() {
        body.insert("tags".to_owned(), json!(address.tags));
    }
    let zones: Vec<_> = address.zones.iter().filter_map(|zone| names::zone_number(&address.region, zone)).collect();
    if !zones.is_empty() {
        body.insert("zones".to_owned(), json!(zones));
    }
    body.into()
}

/// The public address that a machine has of its own, if it has one: a dynamic one.
pub(super) fn own_address(machine: &Machine) -> Option<Value> {
    let external = machine.external.as_ref().filter(|external| !external.reserved)?;
    let config = format!("{}/ipConfigurations/{PRIMARY}", names::interface_id(&machine.key)).to_lowercase();
    let mut properties = object(json!({
        "provisioningState": "Succeeded",
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": "Dynamic",
        "idleTimeoutInMinutes": 4,
        "ipConfiguration": {"id": config},
    }));
    if let Some(ip) = external.ip {
        properties.insert("ipAddress".to_owned(), ip.to_string().into());
    }
    Some(json!({
        "name": names::own_address_name(&machine.key.name),
        "id": names::own_address_id(&machine.key),
        "location": machine.region,
        "type": "Microsoft.Network/publicIPAddresses",
        "sku": {"name": "Basic", "tier": "Regional"},
        "properties": properties,
    }))
}

/// The ip configuration that can hold an address.
pub(super) const PRIMARY: &str = "ipconfig1";
/// Another one, as the nodes of some network plugins have them.
const SECOND: &str = "ipconfig2";

/// An interface: what can be written of it as it was last written, and what cannot. Of the address, what the world says.
pub(super) fn interface(machine: &Machine, public: Option<String>, desk: &Desk) -> Value {
    let key = &machine.key;
    let id = names::interface_id(key);
    let name = names::interface_name(&key.name);
    let etag = etag(machine);
    let settings = desk.open().settings.get(&machine.id).cloned().unwrap_or_else(|| settings(machine));
    let mut body = object(settings);
    let fixed = [
        ("name", json!(name)),
        ("id", json!(id)),
        ("etag", json!(etag)),
        ("type", json!("Microsoft.Network/networkInterfaces")),
        ("location", json!(machine.region)),
    ];
    body.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    let state = desk.state(&name);
    if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("provisioningState".to_owned(), json!(state));
        properties.insert("resourceGuid".to_owned(), json!(names::guid(machine.id, 3)));
        if !machine.left_behind {
            // In capitals, as the network service spells the ids of machines.
            let vm = names::machine_id(key, "MC_NODES").replace(&key.name, &key.name.to_uppercase());
            properties.insert("virtualMachine".to_owned(), json!({"id": vm}));
            properties.insert("primary".to_owned(), true.into());
        }
        for config in properties.get_mut("ipConfigurations").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(config) = config.as_object_mut() else { continue };
            let config_name = config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            config.insert("id".to_owned(), format!("{id}/ipConfigurations/{config_name}").into());
            config.insert("etag".to_owned(), json!(etag));
            config.insert("type".to_owned(), json!("Microsoft.Network/networkInterfaces/ipConfigurations"));
            let Some(properties) = config.get_mut("properties").and_then(Value::as_object_mut) else { continue };
            properties.insert("provisioningState".to_owned(), json!(state));
            if config_name == PRIMARY
                && let Some(public) = &public
            {
                properties.insert("publicIPAddress".to_owned(), json!({"id": public}));
            }
        }
    }
    body.into()
}

/// What can be written of a new machine's interface. Two fields are known to no SDK.
fn settings(machine: &Machine) -> Value {
    let account = &machine.key.account;
    let subnet = names::network(account, "Network", "virtualNetworks", "prod/subnets/nodes");
    let pool = names::network(account, "MC_Nodes", "loadBalancers", "kubernetes/backendAddressPools/kubernetes");
    let config = |name: &str, primary: bool| {
        let mut properties = object(json!({
            "privateIPAllocationMethod": "Dynamic",
            "privateIPAddressVersion": "IPv4",
            "primary": primary,
            "subnet": {"id": subnet},
        }));
        if primary {
            properties.insert("privateIPAddress".to_owned(), machine.internal_ip.to_string().into());
            properties.insert("loadBalancerBackendAddressPools".to_owned(), json!([{"id": pool}]));
            properties.insert(UNKNOWN.to_owned(), json!({"kept": true}));
        }
        json!({"name": name, "properties": properties})
    };
    json!({
        "tags": {"aks-managed-poolName": "sip"},
        "properties": {
            // The primary one is not the first.
            "ipConfigurations": [config(SECOND, false), config(PRIMARY, true)],
            "enableAcceleratedNetworking": true,
            "enableIPForwarding": true,
            "disableTcpStateTracking": false,
            "dnsSettings": {"dnsServers": ["10.0.0.10"]},
            "networkSecurityGroup": {"id": names::network(account, "MC_Nodes", "networkSecurityGroups", "nodes")},
            "nicType": "Standard",
            UNKNOWN: {"kept": true},
        },
    })
}

/// A field that Azure could add tomorrow.
pub(super) const UNKNOWN: &str = "simulatedFutureSetting";

pub(super) fn etag(machine: &Machine) -> String {
    format!("W/\"{}\"", names::guid(machine.id, machine.generation))
}

/// A machine; with its instance view where that was asked for. All are of a Flexible scale set.
pub(super) fn machine(machine: &Machine, with_view: bool) -> Value {
    let key = &machine.key;
    let set = names::machine_id(key, "MC_Nodes")
        .replace(&format!("virtualMachines/{}", key.name), "virtualMachineScaleSets/flexible");
    let mut properties = object(json!({
        "vmId": names::vm_id(machine),
        "provisioningState": "Succeeded",
        "hardwareProfile": {"vmSize": "Standard_D2s_v3"},
        "virtualMachineScaleSet": {"id": set},
        "networkProfile": {"networkInterfaces": [
            {"id": names::interface_id(key), "properties": {"primary": true, "deleteOption": "Delete"}},
        ]},
        "timeCreated": "2026-01-01T00:00:00.0000000+00:00",
    }));
    if with_view {
        let view = json!({
            "computerName": key.name,
            "statuses": [
                {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded",
                 "time": "2026-01-01T00:00:00.0000000+00:00"},
                {"code": power(machine.power), "level": "Info", "displayStatus": "VM"},
            ],
        });
        properties.insert("instanceView".to_owned(), view);
    }
    let mut body = object(json!({
        "name": key.name,
        "id": names::machine_id(key, "MC_Nodes"),
        "type": "Microsoft.Compute/virtualMachines",
        "location": machine.region,
        "properties": properties,
    }));
    if let Some(zone) = names::zone_number(&machine.region, &key.zone) {
        body.insert("zones".to_owned(), json!([zone]));
    }
    body.into()
}

fn power(power: Power) -> &'static str {
    match power {
        Power::Starting => "PowerState/starting",
        Power::Running => "PowerState/running",
        Power::Stopping => "PowerState/deallocating",
        Power::Stopped | Power::Suspended => "PowerState/deallocated",
        Power::Repairing => "PowerState/unknown",
    }
}

pub(super) fn operation(operation: &Operation) -> Value {
    match (&operation.failure, operation.phase) {
        (_, Phase::Pending | Phase::Running) => json!({"status": "InProgress"}),
        (None, Phase::Done) => json!({"status": "Succeeded"}),
        (Some(refusal), Phase::Done) => json!({"status": "Failed", "error": Trouble::from(refusal).body()}),
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
