//! Resources of the world as Compute Engine's JSON. Numbers of 64 bits are strings, as everywhere in this API.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::errors::{Trouble, operation_code};
use crate::world::{Address, External, GLOBAL, Holder, Machine, MachineKey, Operation, Phase, Power};

const ROOT: &str = "https://www.googleapis.com/compute/v1";
/// The world has no birthdays; nothing reads them.
const LONG_AGO: &str = "2026-01-01T00:00:00.000-08:00";

fn project(account: &str) -> String {
    format!("{ROOT}/projects/{account}")
}

/// Path of a region's resources: `regions/us-west1`, or `global`.
pub(super) fn scope(region: &str) -> String {
    if region == GLOBAL { GLOBAL.to_owned() } else { format!("regions/{region}") }
}

fn zone(key: &MachineKey) -> String {
    format!("{}/zones/{}", project(&key.account), key.zone)
}

fn instance_link(key: &MachineKey) -> String {
    format!("{}/instances/{}", zone(key), key.name)
}

pub(super) fn status(address: &Address, holder: &Holder) -> &'static str {
    match holder {
        Holder::Nobody if address.foreign.is_none() => "RESERVED",
        Holder::Nobody | Holder::Machine(_) | Holder::Foreign(_) => "IN_USE",
    }
}

pub(super) fn address_type(address: &Address) -> &'static str {
    if address.internal { "INTERNAL" } else { "EXTERNAL" }
}

pub(super) fn region_link(address: &Address) -> String {
    format!("{}/regions/{}", project(&address.account), address.region)
}

pub(super) fn address(address: &Address, holder: &Holder) -> Value {
    let mut body = object(json!({
        "kind": "compute#address",
        "id": address.id.to_string(),
        "creationTimestamp": LONG_AGO,
        "name": address.name,
        "description": "",
        "address": address.ip.to_string(),
        "status": status(address, holder),
        "selfLink": format!("{}/{}/addresses/{}", project(&address.account), scope(&address.region), address.name),
        "networkTier": address.tier.as_str(),
        "labelFingerprint": "42WmSpB8rSM=",
        "addressType": address_type(address),
    }));
    if address.region != GLOBAL {
        body.insert("region".to_owned(), region_link(address).into());
    } else {
        let version = if address.ip.is_ipv4() { "IPV4" } else { "IPV6" };
        body.insert("ipVersion".to_owned(), version.into());
    }
    if address.internal {
        body.insert("purpose".to_owned(), "GCE_ENDPOINT".into());
    }
    if !address.tags.is_empty() {
        body.insert("labels".to_owned(), json!(address.tags));
    }
    let user = match holder {
        Holder::Nobody => None,
        Holder::Machine(key) => Some(instance_link(key)),
        Holder::Foreign(path) => Some(format!("{}/{}/{path}", project(&address.account), scope(&address.region))),
    };
    if let Some(user) = user {
        body.insert("users".to_owned(), json!([user]));
    }
    body.into()
}

pub(super) fn address_list(account: &str, region: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let link = format!("{}/regions/{region}/addresses", project(account));
    let mut body = object(json!({
        "kind": "compute#addressList",
        "id": format!("projects/{account}/regions/{region}/addresses"),
        "selfLink": link,
    }));
    // The real API leaves out an empty list.
    if !items.is_empty() {
        body.insert("items".to_owned(), items.into());
    }
    if let Some(next) = next {
        body.insert("nextPageToken".to_owned(), next.into());
    }
    body.into()
}

/// `scopes` holds every scope of the page, empty ones too: those carry a warning.
pub(super) fn aggregated_list(account: &str, scopes: Vec<(String, Vec<Value>)>, next: Option<String>) -> Value {
    let items: Map<String, Value> = scopes
        .into_iter()
        .map(|(scope, addresses)| {
            let body = if addresses.is_empty() {
                json!({"warning": {
                    "code": "NO_RESULTS_ON_PAGE",
                    "message": format!("There are no results for scope '{scope}' on this page."),
                    "data": [{"key": "scope", "value": scope}],
                }})
            } else {
                json!({"addresses": addresses})
            };
            (scope, body)
        })
        .collect();
    let mut body = object(json!({
        "kind": "compute#addressAggregatedList",
        "id": format!("projects/{account}/aggregated/addresses"),
        "items": items,
        "selfLink": format!("{}/aggregated/addresses", project(account)),
    }));
    if let Some(next) = next {
        body.insert("nextPageToken".to_owned(), next.into());
    }
    body.into()
}

pub(super) fn instance(machine: &Machine) -> Value {
    let key = &machine.key;
    let mut interface = object(json!({
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": format!("{}/global/networks/default", project(&key.account)),
        "subnetwork": format!("{}/regions/{}/subnetworks/default", project(&key.account), machine.region),
        "networkIP": machine.internal_ip.to_string(),
        "stackType": "IPV4_ONLY",
        "fingerprint": fingerprint(machine.generation),
    }));
    if let Some(external) = &machine.external {
        interface.insert("accessConfigs".to_owned(), json!([access_config(external)]));
    }
    json!({
        "kind": "compute#instance",
        "id": machine.id.to_string(),
        "creationTimestamp": LONG_AGO,
        "name": key.name,
        "status": power(machine.power),
        "zone": zone(key),
        "machineType": format!("{}/machineTypes/e2-medium", zone(key)),
        "selfLink": instance_link(key),
        "canIpForward": false,
        "networkInterfaces": [interface],
    })
}

fn access_config(external: &External) -> Value {
    let mut body = object(json!({
        "kind": "compute#accessConfig",
        "type": "ONE_TO_ONE_NAT",
        "name": external.config,
        "networkTier": external.tier.as_str(),
    }));
    if let Some(ip) = external.ip {
        body.insert("natIP".to_owned(), IpAddr::to_string(&ip).into());
    }
    if let Some(ptr) = &external.ptr {
        body.insert("setPublicPtr".to_owned(), true.into());
        body.insert("publicPtrDomainName".to_owned(), ptr.as_str().into());
    }
    body.into()
}

fn power(power: Power) -> &'static str {
    match power {
        Power::Starting => "STAGING",
        Power::Running => "RUNNING",
        Power::Stopping => "STOPPING",
        Power::Stopped => "TERMINATED",
        Power::Suspended => "SUSPENDED",
        Power::Repairing => "REPAIRING",
    }
}

pub(super) fn operation(operation: &Operation) -> Value {
    let key = operation.change.machine();
    let (status, progress) = match operation.phase {
        Phase::Pending => ("PENDING", 0),
        Phase::Running => ("RUNNING", 0),
        Phase::Done => ("DONE", 100),
    };
    let mut body = object(json!({
        "kind": "compute#operation",
        "id": operation.id.to_string(),
        "name": operation.name,
        "zone": zone(key),
        "operationType": operation.method.trim_start_matches("instances."),
        "targetLink": instance_link(key),
        "targetId": operation.machine_id.to_string(),
        "status": status,
        "user": "operator@simulated.iam.gserviceaccount.com",
        "progress": progress,
        "insertTime": operation.inserted.to_string(),
        "selfLink": format!("{}/operations/{}", zone(key), operation.name),
    }));
    for (name, time) in [("startTime", operation.started), ("endTime", operation.ended)] {
        if let Some(time) = time {
            body.insert(name.to_owned(), time.to_string().into());
        }
    }
    if let Some(refusal) = operation.failure.as_ref().filter(|_| operation.phase == Phase::Done) {
        let trouble = Trouble::from(refusal);
        let said = match trouble.status {
            400 => "BAD REQUEST",
            403 => "FORBIDDEN",
            404 => "NOT FOUND",
            409 => "CONFLICT",
            503 => "SERVICE UNAVAILABLE",
            _ => "ERROR",
        };
        body.insert("httpErrorStatusCode".to_owned(), trouble.status.into());
        body.insert("httpErrorMessage".to_owned(), said.into());
        body.insert(
            "error".to_owned(),
            json!({"errors": [{"code": operation_code(refusal), "message": trouble.message}]}),
        );
    }
    body.into()
}

/// Eight bytes in base64, as the API's fingerprints look; only its changing counts.
fn fingerprint(generation: u64) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let wide = u128::from(generation) << 2;
    let digits = (0..11_u32).rev().map(|place| {
        let digit = usize::try_from(wide >> (place * 6) & 63).unwrap_or(0);
        DIGITS.get(digit).copied().map_or('A', char::from)
    });
    digits.chain(['=']).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
