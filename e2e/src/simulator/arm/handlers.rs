//! What each method does: request → world → JSON.

use serde_json::{Value, json};

use super::{
    ACTIONS, Desk, Routed, WRITE,
    errors::{Failure, Trouble, given},
    interfaces, names, render,
};
use crate::world::{Inventory, Machine, Refusal, World};

pub(super) type Headers = Vec<(&'static str, String)>;

/// Things on one page of a list.
const PAGE: usize = 500;

pub(super) async fn answer(routed: &Routed, world: &World, desk: &Desk) -> Result<(Headers, Value), Failure> {
    let body = match routed.method.id {
        "publicIPAddresses.listAll" => list_addresses(routed, world, desk, &[names::ADDRESSES, names::NODES]).await,
        "publicIPAddresses.list" => {
            let group = routed.part("resourceGroupName");
            if ![names::ADDRESSES, names::NODES].contains(&group.as_str()) {
                return Err(Trouble::no_such_group(&group).into());
            }
            list_addresses(routed, world, desk, &[&group]).await
        }
        "publicIPAddresses.get" => get_address(routed, world, desk).await,
        "networkInterfaces.listAll" => list_interfaces(routed, world, desk).await,
        "networkInterfaces.get" => get_interface(routed, world, desk).await,
        "virtualMachines.get" => get_machine(routed, world).await,
        "operations.get" => get_operation(routed, world).await,
        "permissions.list" => permissions(routed, world).await,
        WRITE => return interfaces::write(routed, world, desk).await,
        _ => Err(Trouble::new(404, "InvalidResourceType", "the simulator does not serve this method").into()),
    };
    Ok((Headers::new(), body?))
}

pub(super) fn in_group(routed: &Routed, group: &str) -> Result<(), Trouble> {
    let asked = routed.part("resourceGroupName");
    if asked == group { Ok(()) } else { Err(Trouble::no_such_group(&asked)) }
}

/// The machine of that name, whatever the case.
pub(super) fn find_machine<'a>(inventory: &'a Inventory, account: &str, name: &str) -> Option<&'a Machine> {
    inventory.machines().find(|machine| machine.key.account == account && machine.key.name.eq_ignore_ascii_case(name))
}

/// A page of a list, with a link to the next where something follows.
fn page(routed: &Routed, desk: &Desk, all: Vec<Value>) -> Value {
    let skip = routed.query("$skiptoken").and_then(|token| token.parse().ok()).unwrap_or(0_usize);
    let more = all.len() > skip.saturating_add(PAGE);
    let mut body = json!({"value": all.into_iter().skip(skip).take(PAGE).collect::<Vec<_>>()});
    if let (true, Some(body)) = (more, body.as_object_mut()) {
        let path = format!("/{}", routed.request.path.join("/"));
        let query = format!("api-version={}&$skiptoken={}", routed.method.version, skip.saturating_add(PAGE));
        body.insert("nextLink".to_owned(), routed.link(&desk.open(), &format!("{path}?{query}")).into());
    }
    body
}

async fn list_addresses(routed: &Routed, world: &World, desk: &Desk, groups: &[&str]) -> Result<Value, Failure> {
    let (account, shown) = (routed.account(), desk.clone());
    let (reserved, own) = (groups.contains(&names::ADDRESSES), groups.contains(&names::NODES));
    let all = world.read(routed.ask(), move |inventory| {
        let addresses = inventory.addresses(&account).into_iter().filter(|(address, _)| reserved && !address.internal);
        let mut all: Vec<_> = addresses.map(|(address, holder)| render::address(address, &holder, &shown)).collect();
        let machines = inventory.machines().filter(|machine| own && machine.key.account == account);
        all.extend(machines.filter_map(render::own_address));
        Ok(all)
    });
    Ok(page(routed, desk, given(all.await)?))
}

async fn get_address(routed: &Routed, world: &World, desk: &Desk) -> Result<Value, Failure> {
    let (account, desk) = (routed.account(), desk.clone());
    let (group, name) = (routed.part("resourceGroupName"), routed.part("publicIpAddressName"));
    let found = world.read(routed.ask(), move |inventory| {
        let missing = || Trouble::not_found(&format!("Microsoft.Network/publicIPAddresses/{name}"), &group).refusal();
        if group == names::NODES {
            let machine = name.strip_suffix("-own").and_then(|machine| find_machine(inventory, &account, machine));
            return machine.and_then(render::own_address).ok_or_else(missing);
        }
        let addresses = inventory.addresses(&account);
        let found = addresses.iter().find(|(address, _)| {
            group == names::ADDRESSES && address.name.eq_ignore_ascii_case(&name) && !address.internal
        });
        found.map(|(address, holder)| render::address(address, holder, &desk)).ok_or_else(missing)
    });
    given(found.await)
}

/// Id of what public address a machine's interface has.
fn public_of(inventory: &Inventory, machine: &Machine) -> Option<String> {
    let external = machine.external.as_ref()?;
    match external.ip.filter(|_| external.reserved) {
        Some(ip) => inventory.address(ip).map(names::address_id),
        None => Some(names::own_address_id(&machine.key)),
    }
}

async fn list_interfaces(routed: &Routed, world: &World, desk: &Desk) -> Result<Value, Failure> {
    let (account, shown) = (routed.account(), desk.clone());
    let all = world.read(routed.ask(), move |inventory| {
        let machines = inventory.machines().filter(|machine| machine.key.account == account);
        Ok(machines.map(|machine| render::interface(machine, public_of(inventory, machine), &shown)).collect())
    });
    Ok(page(routed, desk, given(all.await)?))
}

async fn get_interface(routed: &Routed, world: &World, desk: &Desk) -> Result<Value, Failure> {
    in_group(routed, names::NODES)?;
    let (account, name, desk) = (routed.account(), routed.part("networkInterfaceName"), desk.clone());
    let found = world.read(routed.ask(), move |inventory| {
        let machine = name.strip_suffix("-nic").and_then(|machine| find_machine(inventory, &account, machine));
        machine.map(|machine| render::interface(machine, public_of(inventory, machine), &desk)).ok_or_else(|| {
            Trouble::not_found(&format!("Microsoft.Network/networkInterfaces/{name}"), "mc_nodes").refusal()
        })
    });
    given(found.await)
}

async fn get_machine(routed: &Routed, world: &World) -> Result<Value, Failure> {
    in_group(routed, names::NODES)?;
    let (account, name) = (routed.account(), routed.part("vmName"));
    let with_view = match routed.query("$expand").map(String::as_str) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("instanceView") => true,
        Some(_) => return Err(Trouble::new(400, "InvalidParameter", "only instanceView can be expanded here").into()),
    };
    let found = world.read(routed.ask(), move |inventory| {
        let machine = find_machine(inventory, &account, &name).filter(|machine| !machine.left_behind);
        machine.map(|machine| render::machine(machine, with_view)).ok_or_else(|| {
            Trouble::not_found(&format!("Microsoft.Compute/virtualMachines/{name}"), "mc_nodes").refusal()
        })
    });
    given(found.await)
}

async fn get_operation(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let id = routed.part("operationId");
    let (zone, name) = id.split_once('~').unwrap_or(("", &id));
    let operation = world.operation(routed.ask(), zone.to_owned(), name.to_owned()).await;
    Ok(render::operation(&given(operation)?))
}

/// All, less what was denied.
async fn permissions(routed: &Routed, world: &World) -> Result<Value, Failure> {
    given(world.read(routed.ask(), |_| Ok::<(), Refusal>(())).await)?;
    let denied: Vec<_> = ACTIONS.iter().filter(|action| !world.permits(action)).collect();
    Ok(json!({"value": [{"actions": ["*"], "notActions": denied, "dataActions": [], "notDataActions": []}]}))
}
