//! Writing an interface: a full replace, if nobody has changed it meanwhile.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{
    ATTACH, DETACH, Desk, JOIN_ADDRESS, Routed, Written,
    errors::{Failure, Trouble, given},
    handlers::{self, Headers, find_machine},
    names, render,
};
use crate::world::{Address, Change, Holder, Inventory, Machine, MachineKey, Refusal, Tier, World};

pub(super) async fn write(routed: &Routed, world: &World, desk: &Desk) -> Result<(Headers, Value), Failure> {
    let body: Value = serde_json::from_slice(&routed.request.body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Trouble::new(400, "InvalidRequestContent", "The request content was not a JSON object."))?;
    let if_match = routed.request.headers.get("if-match").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let name = routed.part("networkInterfaceName");
    desk.open().writes.push(Written { interface: name.clone(), if_match: if_match.clone(), body: body.clone() });
    handlers::in_group(routed, names::NODES)?;
    let machine = world.peek(|inventory| by_interface(inventory, &routed.account(), &name).cloned());
    let key = machine.as_ref().map_or_else(|| MachineKey::new(&routed.account(), "", &name), |it| it.key.clone());

    let public = public_of(&body)?;
    let mut ask = routed.ask();
    ask.method = if public.is_some() { ATTACH } else { DETACH }.to_owned();
    if public.is_some() {
        ask.permissions.push(JOIN_ADDRESS.to_owned());
    }
    let account = routed.account();
    let address = public.as_ref().and_then(|id| world.peek(|inventory| by_id(inventory, &account, id).cloned()));
    let config = machine.as_ref().and_then(|machine| Some(machine.external.as_ref()?.config.clone()));
    let change = match &public {
        Some(_) => Change::Attach {
            machine: key.clone(),
            config: render::PRIMARY.to_owned(),
            // A reference to nothing is refused before this is looked at.
            ip: Some(address.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip)),
            tier: address.as_ref().map_or(Tier::Premium, |address| address.tier),
            ptr: None,
            displace: true,
        },
        None => Change::Detach { machine: key.clone(), config: config.unwrap_or_default() },
    };
    let (store, settings) = (desk.clone(), settings_of(&body));
    let refers = public.is_some();
    let checked = key.clone();
    let check = move |inventory: &Inventory| {
        let machine = inventory.machine(&checked).ok_or_else(|| no_interface(&checked.name))?;
        // Under the same lock as the acceptance: a write that was held back meets what is so now.
        if if_match.is_some_and(|etag| etag != render::etag(machine) && etag != "*") {
            return Err(Trouble::new(
                412,
                "PreconditionFailed",
                "The etag provided in the If-Match header does not match.",
            )
            .refusal());
        }
        if refers {
            fits(inventory, machine, address.as_ref())?;
        } else if machine.external.is_none() {
            let why = "the simulator writes interfaces only to put a public address on or to take it off";
            return Err(Trouble::new(400, "InvalidRequestFormat", why).refusal());
        }
        store.open().settings.insert(machine.id, settings);
        Ok(())
    };
    let operation = given(world.submit_if(ask, None, change, check).await)?;

    let mut body = world
        .peek(|inventory| inventory.machine(&key).map(|machine| render::interface(machine, public, desk)))
        .unwrap_or_default();
    if let Some(state) = body.pointer_mut("/properties/provisioningState") {
        *state = json!("Updating");
    }
    let drawer = desk.open();
    let region = machine.map(|machine| machine.region).unwrap_or_default();
    let path = format!(
        "/subscriptions/{}/providers/Microsoft.Network/locations/{region}/operations/{}~{}?api-version={}",
        routed.account(),
        key.zone,
        operation.name,
        routed.method.version,
    );
    let link = routed.link(&drawer, &path);
    let headers = if drawer.names_operations { vec![("azure-asyncoperation", link)] } else { Vec::new() };
    Ok((headers, body))
}

/// What the cloud looks at before it takes the order.
fn fits(inventory: &Inventory, machine: &Machine, address: Option<&Address>) -> Result<(), Refusal> {
    let refuse = |code: &str, message: String| Err(Trouble::new(400, code, &message).refusal());
    let address = address.filter(|address| address.region == machine.region);
    let Some(address) = address.and_then(|address| inventory.address(address.ip)) else {
        let what = "Resource referenced by the network interface was not found. Make sure that it exists and that both are in the same region.";
        return refuse("InvalidResourceReference", what.to_owned());
    };
    if !address.zones.is_empty()
        && names::zone_number(&machine.region, &machine.key.zone).is_some()
        && !address.zones.contains(&machine.key.zone)
    {
        let what = format!("The zones of machine {} and of address {} differ.", machine.key.name, address.name);
        return refuse("ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint", what);
    }
    match inventory.holder(address.ip) {
        Some(Holder::Machine(holder)) => {
            let what = format!("{} is already allocated to {}.", address.name, names::interface_id(&holder));
            refuse("PublicIPAddressInUse", what)
        }
        Some(Holder::Foreign(holder)) => {
            refuse("PublicIPAddressInUse", format!("{} is already allocated to {holder}.", address.name))
        }
        Some(Holder::Nobody) | None => Ok(()),
    }
}

/// Id of the public address on the primary ip configuration of the body.
fn public_of(body: &Value) -> Result<Option<String>, Trouble> {
    let configs = body.pointer("/properties/ipConfigurations").and_then(Value::as_array);
    let primary = configs
        .into_iter()
        .flatten()
        .find(|config| config.pointer("/properties/primary").and_then(Value::as_bool) == Some(true));
    let primary = primary.ok_or_else(|| {
        let why = "The network interface has no primary ip configuration.";
        Trouble::new(400, "NetworkInterfaceMustHaveOnePrimaryIpConfiguration", why)
    })?;
    let address = primary.pointer("/properties/publicIPAddress").filter(|address| !address.is_null());
    Ok(address.map(|address| address.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()))
}

/// The body without what cannot be written. What it leaves out is gone: that is what a full replace means.
fn settings_of(body: &Value) -> Value {
    let mut settings = body.clone();
    let strip = |value: &mut Value, names: &[&str]| {
        if let Some(fields) = value.as_object_mut() {
            names.iter().for_each(|name| drop(fields.remove(*name)));
        }
    };
    strip(&mut settings, &["id", "name", "type", "etag", "location"]);
    let mut nothing = Value::Null;
    let properties = settings.get_mut("properties").unwrap_or(&mut nothing);
    strip(properties, &["provisioningState", "resourceGuid", "virtualMachine", "primary"]);
    let configs = properties.get_mut("ipConfigurations").and_then(Value::as_array_mut);
    for config in configs.into_iter().flatten() {
        strip(config, &["id", "etag", "type"]);
        if let Some(properties) = config.get_mut("properties") {
            strip(properties, &["provisioningState", "publicIPAddress"]);
        }
    }
    settings
}

fn by_interface<'a>(inventory: &'a Inventory, account: &str, name: &str) -> Option<&'a Machine> {
    find_machine(inventory, account, name.strip_suffix("-nic")?)
}

fn by_id<'a>(inventory: &'a Inventory, account: &str, id: &str) -> Option<&'a Address> {
    let found = inventory.addresses(account).into_iter().map(|(address, _)| address);
    let mut found = found.filter(|address| names::address_id(address).eq_ignore_ascii_case(id));
    found.next()
}

fn no_interface(name: &str) -> Refusal {
    Trouble::not_found(&format!("Microsoft.Network/networkInterfaces/{name}"), "MC_Nodes").refusal()
}
