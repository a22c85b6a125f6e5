//! The SDK's words into ours. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use azure_mgmt_compute::package_2024_07_01::models as compute;
use azure_mgmt_network::package_2024_03::models as network;
use serde_json::Value;

use super::ids::{self, Id};
use crate::cloud::{Holder, Power, ProviderId, Reach, Reservation};

/// A network interface, as far as it matters.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub id: Id,
    /// The machine that has it, if one has.
    pub machine: Option<ProviderId>,
    /// The cloud says that it is its machine's primary one.
    pub primary: bool,
    /// No change of it is under way.
    pub at_rest: bool,
    /// The ip configuration that can hold our address: the primary one for IPv4.
    pub config: Option<Config>,
    /// Id of a public address on another of its configurations.
    pub besides: Option<Id>,
}

/// An ip configuration of an interface.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub id: String,
    /// Id of the public address on it.
    pub public: Option<Id>,
}

impl Interface {
    pub fn holds(&self, address: &Id) -> bool {
        self.public().is_some_and(|public| public.key() == address.key())
    }

    /// Id of the public address that it has.
    pub fn public(&self) -> Option<&Id> {
        self.config.as_ref()?.public.as_ref()
    }
}

/// A public address resource, reserved or not.
#[derive(Clone, Debug)]
pub(super) struct PublicAddress {
    pub id: Id,
    pub name: String,
    /// Of the cloud's own spelling made ours.
    pub location: String,
    /// Absent on a dynamic one that nothing uses.
    pub ip: Option<IpAddr>,
    /// Static, for IPv4, and with an address: a reserved one.
    pub reserved: bool,
    pub user: User,
    /// No change of it is under way.
    pub at_rest: bool,
    pub zones: Vec<String>,
    pub tags: BTreeMap<String, String>,
    /// Whether it would be deleted with the machine that uses it.
    pub goes_with_machine: bool,
}

/// What uses a public address.
#[derive(Clone, Debug)]
pub(super) enum User {
    Nobody,
    /// The ip configuration of an interface.
    Interface(Id),
    /// Something else, in the cloud's words.
    Other(String),
}

/// `None` for an answer without an id: nothing can be said of it, or done to it.
pub(super) fn interface(shown: &network::NetworkInterface) -> Option<Interface> {
    let properties = shown.properties.as_ref()?;
    let machine = properties.virtual_machine.as_ref().and_then(|machine| machine.id.as_deref());
    let config = primary_config(&properties.ip_configurations);
    let ours = config.as_ref().map(|config| config.id.to_lowercase());
    let besides = properties
        .ip_configurations
        .iter()
        .filter(|other| other.sub_resource.id.as_ref().map(|id| id.to_lowercase()) != ours)
        .filter_map(|other| other.properties.as_ref())
        .find_map(public);
    Some(Interface {
        id: Id::parse(shown.resource.id.as_deref()?)?,
        machine: machine.and_then(ids::provider_id),
        primary: properties.primary == Some(true),
        at_rest: at_rest(properties.provisioning_state.as_ref()),
        config,
        besides,
    })
}

fn public(config: &network::NetworkInterfaceIpConfigurationPropertiesFormat) -> Option<Id> {
    Id::parse(config.public_ip_address.as_ref()?.resource.id.as_deref()?)
}

/// The one that the cloud calls primary, or the only one. An IPv6 configuration is neither.
fn primary_config(configs: &[network::NetworkInterfaceIpConfiguration]) -> Option<Config> {
    let for_ipv4: Vec<_> = configs
        .iter()
        .filter_map(|config| Some((config, config.properties.as_ref()?)))
        .filter(|(_, said)| said.private_ip_address_version != Some(network::IpVersion::IPv6))
        .collect();
    let (config, said) = match for_ipv4.as_slice() {
        [only] => only,
        several => several.iter().find(|(_, said)| said.primary == Some(true))?,
    };
    Some(Config { id: config.sub_resource.id.clone()?, public: public(said) })
}

fn at_rest(state: Option<&network::ProvisioningState>) -> bool {
    // An interface whose last change failed is at rest too, and can be changed.
    matches!(state, None | Some(network::ProvisioningState::Succeeded | network::ProvisioningState::Failed))
}

/// `None` for an answer without an id.
pub(super) fn public_address(shown: &network::PublicIpAddress) -> Option<PublicAddress> {
    let properties = shown.properties.as_deref()?;
    let ip: Option<IpAddr> = properties.ip_address.as_deref().and_then(|ip| ip.parse().ok());
    let location = ids::location(shown.resource.location.as_deref().unwrap_or_default());
    let is_static = properties.public_ip_allocation_method == Some(network::IpAllocationMethod::Static);
    Some(PublicAddress {
        id: Id::parse(shown.resource.id.as_deref()?)?,
        name: shown.resource.name.clone().unwrap_or_default(),
        location,
        reserved: is_static && ip.is_some_and(|ip| ip.is_ipv4()),
        ip,
        user: user(shown, properties),
        at_rest: at_rest(properties.provisioning_state.as_ref()),
        zones: shown.zones.clone(),
        tags: tags(shown.resource.tags.as_ref()),
        goes_with_machine: properties.delete_option
            == Some(network::public_ip_address_properties_format::DeleteOption::Delete),
    })
}

/// Only an address that nothing uses, and that is not being changed, is free; what is not understood is somebody's.
fn user(shown: &network::PublicIpAddress, properties: &network::PublicIpAddressPropertiesFormat) -> User {
    let tier = shown.sku.as_ref().and_then(|sku| sku.tier.as_ref());
    if tier == Some(&network::public_ip_address_sku::Tier::Global) {
        return User::Other("nothing but cross-region load balancers can: it is a global address".to_owned());
    }
    if let Some(gateway) = &properties.nat_gateway {
        return User::Other(described("NAT gateway", gateway.resource.id.as_deref()));
    }
    let Some(config) = &properties.ip_configuration else {
        return match properties.provisioning_state.as_ref() {
            state if at_rest(state) => User::Nobody,
            state => User::Other(format!("nothing yet: the cloud is changing it ({state:?})")),
        };
    };
    let id = config.sub_resource.id.as_deref();
    match id.and_then(Id::parse) {
        Some(id) if id.interface().is_some() => User::Interface(id),
        Some(id) if id.kind.contains("/loadbalancers/") => User::Other(format!("load balancer {}", id.name())),
        Some(id) if id.kind.contains("/virtualmachinescalesets/") => {
            User::Other(format!("a Uniform instance of scale set {}", id.name()))
        }
        Some(id) => User::Other(id.short()),
        None => User::Other("something that the cloud does not name".to_owned()),
    }
}

fn described(what: &str, id: Option<&str>) -> String {
    match id.and_then(Id::parse) {
        Some(id) => format!("{what} {}", id.name()),
        None => what.to_owned(),
    }
}

fn tags(tags: Option<&Value>) -> BTreeMap<String, String> {
    let tags = tags.and_then(Value::as_object).into_iter().flatten();
    tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The reservation, with the interface that uses it, if one does and it could be read. `primary` says whether that is
/// its machine's primary one.
pub(super) fn reservation(address: &PublicAddress, interface: Option<&Interface>, primary: bool) -> Reservation {
    Reservation {
        holder: holder(address, interface, primary),
        name: address.name.clone(),
        network_tier: None,
        reach: reach(address),
        tags: address.tags.clone(),
    }
}

fn holder(address: &PublicAddress, interface: Option<&Interface>, primary: bool) -> Holder {
    let config = match &address.user {
        User::Nobody => return Holder::Free,
        User::Other(what) => return Holder::Foreign(what.clone()),
        User::Interface(config) => config,
    };
    let Some(interface) = interface else {
        return Holder::Foreign(format!("network interface {}, which the cloud does not show", config.name()));
    };
    let of_config = interface.config.as_ref().is_some_and(|ours| ids::same(&ours.id, config.text()));
    match &interface.machine {
        None => Holder::Foreign(format!("network interface {}, which is of no machine", config.name())),
        Some(machine) if primary && of_config => Holder::Machine(machine.clone()),
        Some(machine) => Holder::Foreign(format!("another interface or ip configuration of {machine}")),
    }
}

/// An address of one zone fits the machines of that zone; one of several is redundant and fits all, as does one of none.
fn reach(address: &PublicAddress) -> Reach {
    match address.zones.as_slice() {
        [zone] => Reach::Zones(BTreeSet::from([ids::zone(&address.location, zone)])),
        _ => Reach::Region,
    }
}

/// A machine as just read.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// `vmId`, which no replacement of the same name shares.
    pub life: String,
    pub power: Power,
    pub location: String,
    /// As in the node label; empty for a machine in no zone.
    pub zone: String,
    /// Its primary interface.
    pub interface: Option<Id>,
}

/// `None` for an answer without the machine's own id.
pub(super) fn machine(shown: &compute::VirtualMachine) -> Option<Machine> {
    let properties = shown.properties.as_ref()?;
    let location = ids::location(&shown.resource.location);
    let interfaces = properties.network_profile.iter().flat_map(|profile| &profile.network_interfaces);
    let interfaces: Vec<_> = interfaces.collect();
    let is_primary = |interface: &&&compute::NetworkInterfaceReference| {
        interface.properties.as_ref().is_some_and(|said| said.primary == Some(true))
    };
    let primary = match interfaces.as_slice() {
        [only] => Some(only),
        several => several.iter().find(is_primary),
    };
    let statuses = properties.instance_view.iter().flat_map(|view| &view.statuses);
    Some(Machine {
        life: properties.vm_id.as_deref()?.to_lowercase(),
        power: power(statuses.filter_map(|status| status.code.as_deref())),
        zone: shown.zones.first().map(|zone| ids::zone(&location, zone)).unwrap_or_default(),
        location,
        interface: primary.and_then(|interface| Id::parse(interface.sub_resource.id.as_deref()?)),
    })
}

/// Only what the cloud says outright is proven.
fn power<'a>(codes: impl Iterator<Item = &'a str>) -> Power {
    let mut states = codes.filter_map(|code| code.strip_prefix("PowerState/"));
    match states.next() {
        Some("running") => Power::Running,
        Some("stopped" | "deallocated") => Power::Stopped,
        _ => Power::Changing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NET: &str = "/subscriptions/0a1b/resourceGroups/mc_nodes/providers/Microsoft.Network";
    const VM: &str = "/subscriptions/0a1b/resourceGroups/MC_NODES/providers/Microsoft.Compute/virtualMachines/NODE-1";

    fn address(properties: Value) -> PublicAddress {
        let shown = json!({
            "id": format!("{NET}/publicIPAddresses/sip-1"), "name": "sip-1", "location": "West Europe",
            "zones": ["2"], "tags": {"team": "voip", "odd": 7},
            "properties": properties,
        });
        public_address(&serde_json::from_value(shown).unwrap()).unwrap()
    }

    fn fixed(more: Value) -> PublicAddress {
        let mut properties = json!({
            "publicIPAllocationMethod": "Static", "ipAddress": "203.0.113.7", "provisioningState": "Succeeded",
        });
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        address(properties)
    }

    fn on(config: &str) -> PublicAddress {
        fixed(json!({"ipConfiguration": {"id": format!("{NET}/networkInterfaces/NIC-1/ipConfigurations/{config}")}}))
    }

    fn nic(machine: Option<&str>) -> Interface {
        let id = format!("{NET}/networkInterfaces/nic-1");
        let config = |name: &str, primary: bool, version: &str| {
            json!({"id": format!("{id}/ipConfigurations/{name}"), "name": name, "properties": {
                "primary": primary, "privateIPAddressVersion": version,
                "publicIPAddress": {"id": format!("{NET}/publicIPAddresses/on-{name}")},
            }})
        };
        let shown = json!({"id": id, "properties": {
            "virtualMachine": machine.map(|id| json!({"id": id})), "primary": true, "provisioningState": "Updating",
            "ipConfigurations": [config("six", false, "IPv6"), config("second", false, "IPv4"), config("first", true, "IPv4")],
        }});
        interface(&serde_json::from_value(shown).unwrap()).unwrap()
    }

    #[test]
    fn a_holder_is_a_machine_in_whatever_case_it_is_spelled() {
        let expected = ProviderId::new(format!("azure://{}", VM.to_lowercase()));
        assert_eq!(holder(&on("first"), Some(&nic(Some(VM))), true), Holder::Machine(expected));
    }

    #[test]
    fn a_public_address_on_another_configuration_is_seen_too() {
        let shown = nic(Some(VM));
        assert_eq!(shown.public().map(Id::name), Some("on-first"));
        assert!(shown.besides.as_ref().is_some_and(|besides| besides.name().starts_with("on-s")), "{shown:?}");
    }

    #[test]
    fn only_the_primary_ip_configuration_of_the_primary_interface_counts() {
        for (config, primary) in [("second", true), ("first", false)] {
            let holder = holder(&on(config), Some(&nic(Some(VM))), primary);
            assert!(matches!(&holder, Holder::Foreign(what) if what.contains("another")), "{holder:?}");
        }
    }

    #[test]
    fn what_is_no_machine_is_foreign_in_a_few_words() {
        let user = |config: &str| fixed(json!({"ipConfiguration": {"id": format!("{NET}/{config}")}}));
        let rule = user("loadBalancers/web/frontendIPConfigurations/f");
        let bastion = user("bastionHosts/door/bastionHostIpConfigurations/c");
        let gateway = fixed(json!({"natGateway": {"id": format!("{NET}/natGateways/out")}}));
        for (address, interface, told) in [
            (on("first"), Some(nic(None)), "network interface NIC-1, which is of no machine"),
            (on("first"), None, "network interface NIC-1, which the cloud does not show"),
            (rule, None, "load balancer web"),
            (bastion, None, "bastionHosts/door/bastionHostIpConfigurations/c"),
            (gateway, None, "NAT gateway out"),
        ] {
            assert_eq!(holder(&address, interface.as_ref(), true), Holder::Foreign(told.to_owned()));
        }
    }

    #[test]
    fn only_what_nothing_uses_and_nobody_changes_is_free() {
        let state = |state: &str| holder(&fixed(json!({"provisioningState": state})), None, false);
        assert_eq!((state("Succeeded"), state("Failed")), (Holder::Free, Holder::Free));
        for doubtful in ["Updating", "Deleting", "NewWord"] {
            assert!(matches!(state(doubtful), Holder::Foreign(_)), "{doubtful}");
        }
    }

    #[test]
    fn only_a_static_ipv4_address_with_a_number_is_reserved() {
        assert!(fixed(json!({})).reserved);
        for other in [
            json!({"publicIPAllocationMethod": "Dynamic"}),
            json!({"ipAddress": "2001:db8::7"}),
            json!({"ipAddress": null}),
        ] {
            assert!(!fixed(other.clone()).reserved, "{other}");
        }
    }

    #[test]
    fn a_reservation_says_its_name_tags_and_where_it_can_go() {
        let said = reservation(&fixed(json!({})), None, false);
        assert_eq!(said.name, "sip-1");
        assert_eq!(said.tags, BTreeMap::from([("team".to_owned(), "voip".to_owned())]));
        assert_eq!(said.reach, Reach::Zones(BTreeSet::from(["westeurope-2".to_owned()])));
        for zones in [vec![], vec!["1".to_owned(), "2".to_owned(), "3".to_owned()]] {
            let address = PublicAddress { zones, ..fixed(json!({})) };
            assert_eq!(reach(&address), Reach::Region);
        }
    }

    #[test]
    fn the_configuration_that_can_hold_an_address_is_the_primary_one_for_ipv4() {
        let config = nic(None).config.unwrap();
        assert!(config.id.ends_with("/first"), "{config:?}");
        assert_eq!(config.public.unwrap().name(), "on-first");
        assert!(!nic(None).at_rest);
    }

    fn vm(statuses: &[&str], interfaces: Value) -> Machine {
        let statuses: Vec<_> = statuses.iter().map(|code| json!({"code": code})).collect();
        let shown = json!({
            "id": VM, "location": "westeurope", "zones": ["2"], "properties": {
                "vmId": "AB12", "networkProfile": {"networkInterfaces": interfaces},
                "instanceView": {"statuses": statuses},
            },
        });
        machine(&serde_json::from_value(shown).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_says_its_life_its_zone_and_its_primary_interface() {
        let nic = |name: &str| format!("{NET}/networkInterfaces/{name}");
        let of_two = json!([{"id": nic("a")}, {"id": nic("b"), "properties": {"primary": true}}]);
        let machine = vm(&[], of_two);
        assert_eq!((machine.life.as_str(), machine.zone.as_str()), ("ab12", "westeurope-2"));
        assert_eq!(machine.interface.unwrap().name(), "b");
        assert_eq!(vm(&[], json!([{"id": nic("a")}])).interface.unwrap().name(), "a");
        assert!(vm(&[], json!([{"id": nic("a")}, {"id": nic("b")}])).interface.is_none(), "no guess");
    }

    #[test]
    fn between_running_and_stopped_nothing_is_proven() {
        let power = |code: &str| vm(&["ProvisioningState/succeeded", code], json!([])).power;
        assert_eq!(power("PowerState/running"), Power::Running);
        assert_eq!((power("PowerState/stopped"), power("PowerState/deallocated")), (Power::Stopped, Power::Stopped));
        for code in ["PowerState/starting", "PowerState/deallocating", "PowerState/new", "ProvisioningState/updating"] {
            assert_eq!(power(code), Power::Changing, "{code}");
        }
    }
}
