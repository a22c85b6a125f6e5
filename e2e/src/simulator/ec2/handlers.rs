//! What each action does: request → world → elements. A change is answered when it is done.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{
    Routed,
    errors::{Failure, Trouble, given, refusal},
    ids::{allocation_id, association_id, instance_id, interface_id, new_association},
    render,
};
use crate::world::{Change, Inventory, Machine, MachineKey, Power, Refusal, Tier, World};

pub(super) async fn answer(routed: &Routed, world: &World) -> Result<Value, Failure> {
    if routed.query.flag("DryRun", false)? {
        return dry_run(routed, world).await;
    }
    match routed.action.name {
        "DescribeAddresses" => describe_addresses(routed, world).await,
        "DescribeInstances" => describe_instances(routed, world).await,
        "DescribeRegions" => describe_regions(routed, world).await,
        "AssociateAddress" => associate(routed, world).await,
        "DisassociateAddress" => disassociate(routed, world).await,
        "ModifyNetworkInterfaceAttribute" => modify(routed, world).await,
        other => Err(Trouble::no_such_action(other).into()),
    }
}

/// Looks at credentials and permissions, and at nothing else.
async fn dry_run(routed: &Routed, world: &World) -> Result<Value, Failure> {
    given(world.read(routed.ask(routed.region.clone(), true), |_| Ok(())).await)?;
    Err(Trouble::dry_run().into())
}

async fn describe_addresses(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let filters = routed.query.filters(routed.action)?;
    let (account, region) = (routed.account.clone(), routed.region.clone());
    let items = world
        .read(routed.ask(filters.target("addresses"), false), move |inventory| {
            let mut all = inventory.addresses(&account);
            all.retain(|(address, _)| {
                address.region == region
                    && !address.internal
                    && filters.passes(|name| match name {
                        "public-ip" => Some(address.ip.to_string()),
                        "allocation-id" => Some(allocation_id(address)),
                        _ => None,
                    })
            });
            let items = all.into_iter().map(|(address, holder)| render::address(inventory, address, &holder));
            Ok(items.collect::<Vec<_>>())
        })
        .await;
    Ok(json!({"addressesSet": given(items)?}))
}

async fn describe_instances(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let filters = routed.query.filters(routed.action)?;
    let size = routed.query.number("MaxResults")?;
    if let Some(wrong) = size.filter(|size| !(5..=1000).contains(size)) {
        return Err(Trouble::invalid("maxResults", &wrong.to_string()).into());
    }
    let after = routed.query.text("NextToken").map(str::to_owned);
    let (account, region) = (routed.account.clone(), routed.region.clone());
    let page = world
        .read(routed.ask(filters.target("instances"), false), move |inventory| {
            let mut all: Vec<&Machine> = inventory
                .machines()
                .filter(|machine| machine.key.account == account && machine.region == region)
                .filter(|machine| filters.passes(|_| Some(instance_id(machine))))
                .collect();
            all.sort_by_key(|machine| instance_id(machine));
            let mut rest =
                all.into_iter().filter(|machine| after.as_ref().is_none_or(|after| instance_id(machine) > *after));
            let page: Vec<&Machine> = rest.by_ref().take(size.unwrap_or(usize::MAX)).collect();
            let next = rest.next().and(page.last()).map(|last| instance_id(last));
            Ok((page.iter().map(|machine| render::reservation(inventory, machine)).collect::<Vec<_>>(), next))
        })
        .await;
    let (items, next) = given(page)?;
    Ok(match next {
        Some(next) => json!({"reservationSet": items, "nextToken": next}),
        None => json!({"reservationSet": items}),
    })
}

async fn describe_regions(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let account = routed.account.clone();
    let regions = world.read(routed.ask("regions".to_owned(), false), move |inventory| {
        Ok(inventory.regions(&account).into_iter().map(render::region).collect::<Vec<_>>())
    });
    Ok(json!({"regionInfo": given(regions.await)?}))
}

/// The machine with this primary interface.
fn by_interface<'a>(inventory: &'a Inventory, routed: &Routed, interface: &str) -> Option<&'a Machine> {
    of(inventory, routed).find(|machine| interface_id(machine, 0) == interface)
}

fn of<'a>(inventory: &'a Inventory, routed: &Routed) -> impl Iterator<Item = &'a Machine> {
    let (account, region) = (routed.account.clone(), routed.region.clone());
    inventory.machines().filter(move |machine| machine.key.account == account && machine.region == region)
}

/// A thing that nobody has, so that the request goes the way of all others before it is refused.
fn nowhere(id: &str) -> MachineKey {
    MachineKey::new("", "", id)
}

async fn associate(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let query = &routed.query;
    let allocation = query.required("AllocationId")?.to_owned();
    let reassociate = query.flag("AllowReassociation", true)?;
    let machine = world.inventory(|inventory| target(inventory, routed))?;
    let address = world.inventory(|inventory| {
        let mut all = inventory.addresses(&routed.account).into_iter().map(|(address, _)| address);
        all.find(|address| allocation_id(address) == allocation && address.region == routed.region).cloned()
    });
    let ip = address.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip);
    let tier = address.as_ref().map_or(Tier::default(), |address| address.tier);
    let association = new_association();
    let config = association.clone();
    let change = match reassociate {
        true => Change::Take { machine: machine.clone(), config, ip },
        // What sits there goes without a word.
        false => Change::Attach { machine: machine.clone(), config, ip: Some(ip), tier, ptr: None, displace: true },
    };
    let ask = routed.ask(format!("addresses/{allocation}"), false);
    let done = world.perform(ask, change, move |inventory| {
        let Some(machine) = inventory.machine(&machine) else { return Ok(()) };
        changeable(machine)?;
        match inventory.address(ip) {
            Some(address) if !render::reaches(address, machine) => Err(refusal(
                "InvalidParameterCombination",
                format!("The address and the instance '{}' are of two network border groups", instance_id(machine)),
            )),
            _ => Ok(()),
        }
    });
    given(done.await)?;
    Ok(json!({"associationId": association}))
}

/// The machine that an association is meant for, by its primary interface or its only one.
fn target(inventory: &Inventory, routed: &Routed) -> Result<MachineKey, Trouble> {
    let query = &routed.query;
    if let Some(interface) = query.text("NetworkInterfaceId") {
        let Some(machine) = by_interface(inventory, routed, interface) else { return Ok(nowhere(interface)) };
        // The world has an external side for the primary address of the primary interface alone.
        return match query.text("PrivateIpAddress") {
            Some(other) if other != machine.internal_ip.to_string() => Err(Trouble::invalid("privateIpAddress", other)),
            _ => Ok(machine.key.clone()),
        };
    }
    let id = query.required("InstanceId")?;
    match of(inventory, routed).find(|machine| instance_id(machine) == id) {
        Some(machine) if machine.interfaces > 1 => Err(Trouble::new(
            400,
            "InvalidInstanceID",
            &format!(
                "There are multiple interfaces attached to instance '{id}'. Please specify an interface ID for the operation instead."
            ),
        )),
        Some(machine) => Ok(machine.key.clone()),
        None => Ok(nowhere(id)),
    }
}

fn changeable(machine: &Machine) -> Result<(), Refusal> {
    let id = instance_id(machine);
    if machine.managed {
        return Err(refusal("OperationNotPermitted", format!("The instance '{id}' is managed by a service")));
    }
    match machine.power {
        Power::Running | Power::Stopped | Power::Suspended => Ok(()),
        Power::Starting | Power::Stopping | Power::Repairing => Err(refusal(
            "IncorrectInstanceState",
            format!("The instance '{id}' is not in a valid state for this operation."),
        )),
    }
}

async fn disassociate(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let association = routed.query.required("AssociationId")?.to_owned();
    let held = move |machine: &Machine, association: &str| {
        let external = machine.external.as_ref().filter(|external| external.reserved)?;
        (association_id(machine, external) == association).then(|| external.config.clone())
    };
    let found = world.inventory(|inventory| {
        of(inventory, routed).find_map(|machine| Some((machine.clone(), held(machine, &association)?)))
    });
    let ask = routed.ask(format!("associations/{association}"), false);
    let (machine, config) = match &found {
        Some((machine, config)) => (machine.key.clone(), config.clone()),
        None => (nowhere(&association), association.clone()),
    };
    let change = Change::Detach { machine: machine.clone(), config };
    let done = world.perform(ask, change, move |inventory| {
        // Found when it came in, but it may be another one by now.
        match inventory.machine(&machine).and_then(|machine| held(machine, &association)) {
            Some(_) => Ok(()),
            None => Err(Refusal::NoSuchConfig { config: association }),
        }
    });
    given(done.await)?;
    if let Some((machine, _)) = found.filter(|(machine, _)| machine.had_own && machine.interfaces == 1) {
        world.own_returns(&machine.key, "auto-assigned").await;
    }
    Ok(json!({}))
}

/// Of all attributes the one that gives an interface a public address.
async fn modify(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let interface = routed.query.required("NetworkInterfaceId")?.to_owned();
    if !routed.query.flag("AssociatePublicIpAddress", false)? {
        return Err(Trouble::invalid("associatePublicIpAddress", "false").into());
    }
    let key = world
        .inventory(|inventory| by_interface(inventory, routed, &interface).map(|machine| machine.key.clone()))
        .unwrap_or_else(|| nowhere(&interface));
    let change = Change::Attach {
        machine: key.clone(),
        config: "auto-assigned".to_owned(),
        ip: None,
        tier: Tier::default(),
        ptr: None,
        displace: false,
    };
    let ask = routed.ask(format!("interfaces/{interface}"), false);
    let done = world.perform(ask, change, move |inventory| inventory.machine(&key).map_or(Ok(()), changeable));
    given(done.await)?;
    Ok(json!({}))
}
