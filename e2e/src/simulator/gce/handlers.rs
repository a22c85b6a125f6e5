//! What each method does: request → world → JSON.

use std::{net::IpAddr, time::Duration};

use serde_json::{Value, json};

use super::{
    Routed,
    errors::{Failure, Trouble, given},
    filter::Filter,
    render,
};
use crate::world::{Address, Ask, Change, GLOBAL, Holder, MachineKey, Refusal, Tier, World};

/// The API's page when the caller names no size, and the largest.
const PAGE: usize = 500;
/// `wait` answers after two minutes at the latest.
const WAIT: Duration = Duration::from_secs(120);

pub(super) async fn answer(routed: &Routed, world: &World) -> Result<Value, Failure> {
    match routed.method.id {
        "compute.addresses.list" => list_addresses(routed, world).await,
        "compute.addresses.get" => get_address(routed, world).await,
        "compute.addresses.aggregatedList" => aggregate_addresses(routed, world).await,
        "compute.instances.get" => get_instance(routed, world).await,
        "compute.instances.addAccessConfig" => add_access_config(routed, world).await,
        "compute.instances.deleteAccessConfig" => delete_access_config(routed, world).await,
        "compute.addresses.testIamPermissions" | "compute.instances.testIamPermissions" => {
            test_permissions(routed, world).await
        }
        "compute.zoneOperations.get" => {
            let operation = world.operation(routed.ask(), routed.part("zone"), routed.part("operation")).await;
            Ok(render::operation(&given(operation)?))
        }
        "compute.zoneOperations.wait" => {
            let (zone, name) = (routed.part("zone"), routed.part("operation"));
            Ok(render::operation(&given(world.operation_done(routed.ask(), zone, name, WAIT).await)?))
        }
        _ => Err(Trouble::no_such_method().into()),
    }
}

/// How a list is cut: by filter, page size and page token.
struct Cut {
    filter: Filter,
    size: usize,
    after: Option<(String, String)>,
}

impl Cut {
    fn of(routed: &Routed) -> Result<Self, Trouble> {
        let invalid = |field: &str, value: &str| {
            Trouble::new(400, "invalid", &format!("Invalid value for field '{field}': '{value}'."))
        };
        let filter = Filter::parse(routed.query("filter").map(String::as_str).unwrap_or_default())?;
        let size = match routed.query("maxResults") {
            None => PAGE,
            Some(text) => {
                let size = text.parse().map_err(|_| invalid("maxResults", text))?;
                if size > PAGE {
                    return Err(invalid("maxResults", text));
                }
                // The API reads 0 as "not said".
                if size == 0 { PAGE } else { size }
            }
        };
        let after = match routed.query("pageToken").filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let parts = token.split_once('~').ok_or_else(|| invalid("pageToken", token))?;
                Some((parts.0.to_owned(), parts.1.to_owned()))
            }
        };
        Ok(Self { filter, size, after })
    }

    /// The page, and the token of the next.
    fn page(&self, all: Vec<(&Address, Holder)>) -> (Vec<(String, Value)>, Option<String>) {
        let mut rest = all.into_iter().filter(|(address, holder)| {
            let place = (address.region.clone(), address.name.clone());
            self.after.as_ref().is_none_or(|after| place > *after)
                && self.filter.passes(|field| value(address, holder, field))
        });
        let page: Vec<_> = rest.by_ref().take(self.size).collect();
        // A token only where something follows.
        let next = rest.next().and(page.last()).map(|(last, _)| format!("{}~{}", last.region, last.name));
        let rendered =
            page.into_iter().map(|(address, holder)| (address.region.clone(), render::address(address, &holder)));
        (rendered.collect(), next)
    }
}

/// A field of an address, for filters.
fn value(address: &Address, holder: &Holder, field: &str) -> Option<String> {
    match field {
        "name" => Some(address.name.clone()),
        "address" => Some(address.ip.to_string()),
        "addressType" => Some(render::address_type(address).to_owned()),
        "status" => Some(render::status(address, holder).to_owned()),
        "networkTier" => Some(address.tier.as_str().to_owned()),
        "region" => (address.region != GLOBAL).then(|| render::region_link(address)),
        "ipVersion" => {
            (address.region == GLOBAL).then(|| if address.ip.is_ipv4() { "IPV4" } else { "IPV6" }.to_owned())
        }
        other => address.tags.get(other.strip_prefix("labels.")?).cloned(),
    }
}

async fn list_addresses(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let cut = Cut::of(routed)?;
    let (account, region) = (routed.part("project"), routed.part("region"));
    let (of_account, of_region) = (account.clone(), region.clone());
    let (items, next) = given(
        world
            .read(routed.ask(), move |inventory| {
                let mut all = inventory.addresses(&of_account);
                all.retain(|(address, _)| address.region == of_region);
                Ok(cut.page(all))
            })
            .await,
    )?;
    Ok(render::address_list(&account, &region, items.into_iter().map(|(_, item)| item).collect(), next))
}

async fn aggregate_addresses(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let cut = Cut::of(routed)?;
    let account = routed.part("project");
    let of_account = account.clone();
    let (items, next, regions) = given(
        world
            .read(routed.ask(), move |inventory| {
                let (items, next) = cut.page(inventory.addresses(&of_account));
                let regions = inventory.regions(&of_account).into_iter().chain([GLOBAL]);
                Ok((items, next, regions.map(str::to_owned).collect::<Vec<_>>()))
            })
            .await,
    )?;
    let scopes = regions
        .into_iter()
        .map(|region| {
            let here = items.iter().filter(|(of, _)| *of == region).map(|(_, item)| item.clone()).collect();
            (render::scope(&region), here)
        })
        .collect();
    Ok(render::aggregated_list(&account, scopes, next))
}

async fn get_address(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let (account, region, name) = (routed.part("project"), routed.part("region"), routed.part("address"));
    given(
        world
            .read(routed.ask(), move |inventory| {
                inventory
                    .addresses(&account)
                    .into_iter()
                    .find(|(address, _)| address.region == region && address.name == name)
                    .map(|(address, holder)| render::address(address, &holder))
                    .ok_or(Refusal::NoSuchAddress { account, region, name })
            })
            .await,
    )
}

fn machine_key(routed: &Routed, parameter: &str) -> MachineKey {
    MachineKey::new(&routed.part("project"), &routed.part("zone"), &routed.part(parameter))
}

async fn get_instance(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let key = machine_key(routed, "instance");
    given(
        world
            .read(routed.ask(), move |inventory| {
                inventory.machine(&key).map(render::instance).ok_or(Refusal::NoSuchMachine(key))
            })
            .await,
    )
}

/// Machines here have one interface.
fn check_interface(routed: &Routed) -> Result<(), Trouble> {
    let name = routed.required("networkInterface")?;
    if name == "nic0" {
        return Ok(());
    }
    let message =
        format!("Invalid value for field 'networkInterface': '{name}'. The network interface does not exist.");
    Err(Trouble::new(400, "invalid", &message))
}

/// A body's text field; of another type it is refused.
fn text(body: &Value, field: &str) -> Result<Option<String>, Trouble> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => {
            Err(Trouble::new(400, "invalid", &format!("Invalid value for field 'resource.{field}': not a string.")))
        }
    }
}

/// The body as JSON. A field that the façade does not read is refused, so that nothing is ignored unseen.
fn body(routed: &Routed) -> Result<Value, Trouble> {
    let body: Value = serde_json::from_slice(&routed.request.body)
        .map_err(|error| Trouble::new(400, "parseError", &format!("Parse Error: {error}")))?;
    let fields = body.as_object().ok_or_else(|| Trouble::new(400, "parseError", "Parse Error: not an object"))?;
    match fields.keys().find(|field| !routed.method.body.contains(&field.as_str())) {
        Some(field) => {
            Err(Trouble::new(400, "invalid", &format!("the simulator's {} does not know '{field}'", routed.method.id)))
        }
        None => Ok(body),
    }
}

async fn add_access_config(routed: &Routed, world: &World) -> Result<Value, Failure> {
    check_interface(routed)?;
    let body = body(routed)?;
    let invalid = |field: &str, value: &str| {
        Trouble::new(400, "invalid", &format!("Invalid value for field 'resource.{field}': '{value}'."))
    };
    if let Some(kind) = text(&body, "type")?.filter(|kind| kind != "ONE_TO_ONE_NAT") {
        return Err(invalid("type", &kind).into());
    }
    let ip = match text(&body, "natIP")?.filter(|ip| !ip.is_empty()) {
        None => None,
        Some(ip) => Some(ip.parse::<IpAddr>().map_err(|_| invalid("natIP", &ip))?),
    };
    let tier = match text(&body, "networkTier")? {
        // The project's default tier, which nobody has changed here.
        None => Tier::Premium,
        Some(tier) => Tier::parse(&tier).ok_or_else(|| invalid("networkTier", &tier))?,
    };
    // A name alone makes no PTR record: it has to be asked for.
    let wants_ptr = body.get("setPublicPtr").and_then(Value::as_bool).unwrap_or_default();
    let change = Change::Attach {
        machine: machine_key(routed, "instance"),
        config: text(&body, "name")?.unwrap_or_else(|| "External NAT".to_owned()),
        ip,
        tier,
        ptr: text(&body, "publicPtrDomainName")?.filter(|_| wants_ptr),
        displace: false,
    };
    let mut ask = routed.ask();
    if ip.is_some() {
        ask.permissions.push("compute.addresses.use".to_owned());
    }
    submit(routed, world, ask, change).await
}

async fn delete_access_config(routed: &Routed, world: &World) -> Result<Value, Failure> {
    check_interface(routed)?;
    let config = routed.required("accessConfig")?;
    submit(routed, world, routed.ask(), Change::Detach { machine: machine_key(routed, "instance"), config }).await
}

async fn submit(routed: &Routed, world: &World, ask: Ask, change: Change) -> Result<Value, Failure> {
    let operation = world.submit(ask, routed.query("requestId").cloned(), change).await;
    Ok(render::operation(&given(operation)?))
}

async fn test_permissions(routed: &Routed, world: &World) -> Result<Value, Failure> {
    let body = body(routed)?;
    let asked = body.get("permissions").and_then(Value::as_array).cloned().unwrap_or_default();
    let (account, name) = (routed.part("project"), routed.part("resource"));
    let region = routed.path.get("region").cloned();
    let key = machine_key(routed, "resource");
    given(
        world
            .read(routed.ask(), move |inventory| match region {
                Some(region) => inventory
                    .addresses(&account)
                    .iter()
                    .any(|(address, _)| address.region == region && address.name == name)
                    .then_some(())
                    .ok_or(Refusal::NoSuchAddress { account, region, name }),
                None => inventory.machine(&key).map(|_| ()).ok_or(Refusal::NoSuchMachine(key)),
            })
            .await,
    )?;
    let granted: Vec<Value> =
        asked.into_iter().filter(|permission| permission.as_str().is_some_and(|name| world.permits(name))).collect();
    // Like other empty lists, one without a permission is left out.
    Ok(if granted.is_empty() { json!({}) } else { json!({"permissions": granted}) })
}
