//! The SDK's words into ours. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use google_cloud_compute_v1::model::{
    AccessConfig, Address, Instance,
    access_config::Type,
    address::{AddressType, Status as AddressStatus},
    instance::Status as MachineStatus,
};

use crate::cloud::{
    CloudError, ErrorKind, Holder, MachineId, Own, Place, Power, Provider, ProviderId, Reach, Reservation,
};

/// The primary interface by the name that Compute Engine gives it; the only one that we touch.
pub(super) const PRIMARY: &str = "nic0";

/// A machine as just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub machine: MachineId,
    pub power: Power,
    /// What gives the primary interface its external IPv4 address, if anything does.
    pub config: Option<Config>,
}

/// An access config as just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Free text; what a delete must name.
    pub name: String,
    /// Absent on a stopped machine whose ephemeral address has gone.
    pub ip: Option<IpAddr>,
    pub own: Own,
}

impl Live {
    pub fn holds(&self, address: IpAddr) -> bool {
        self.config.as_ref().is_some_and(|config| config.ip == Some(address))
    }

    pub fn has_config(&self, name: &str) -> bool {
        self.config.as_ref().is_some_and(|config| config.name == name)
    }
}

/// Where a machine stands, or `Unsupported` for a provider ID that is not Google's.
pub(super) fn place<'a>(call: &'static str, machine: &'a ProviderId) -> Result<&'a Place, CloudError> {
    machine.place().filter(|place| place.provider == Provider::Gcp).ok_or_else(|| {
        CloudError::new(
            ErrorKind::Unsupported,
            call,
            format!("{machine} is not a provider ID of the form gce://PROJECT/ZONE/NAME"),
        )
    })
}

/// A reservation under its address. `None` for one that is not external or has no IP yet: the absence of an address
/// from a survey says nothing, so leaving it out decides nothing (R2).
pub(super) fn reservation(address: &Address) -> Option<(IpAddr, Reservation)> {
    if address.address_type == Some(AddressType::Internal) {
        return None;
    }
    let ip = address.address.as_deref()?.parse().ok()?;
    let reservation = Reservation {
        holder: holder(address),
        name: address.name.clone().unwrap_or_default(),
        network_tier: word(address.network_tier.as_ref().and_then(|tier| tier.name())),
        reach: Reach::default(),
        tags: address.labels.clone().into_iter().collect::<BTreeMap<_, _>>(),
    };
    Some((ip, reservation))
}

/// Only an address that the cloud calls reserved, with no user, is free; what is not understood is somebody's.
fn holder(address: &Address) -> Holder {
    match address.users.as_slice() {
        [] => match &address.status {
            Some(AddressStatus::Reserved) => Holder::Free,
            Some(AddressStatus::Reserving) => Holder::Foreign("nothing yet: it is still being reserved".to_owned()),
            Some(AddressStatus::InUse) => Holder::Foreign("a user that the cloud does not name".to_owned()),
            other => Holder::Foreign(format!(
                "unknown: the cloud gives it status {}",
                other.as_ref().and_then(|status| status.name()).unwrap_or("none")
            )),
        },
        [user] => match machine(user) {
            Some(machine) => Holder::Machine(machine),
            None => Holder::Foreign(short(user).to_owned()),
        },
        users => Holder::Foreign(users.iter().map(|user| short(user)).collect::<Vec<_>>().join(", ")),
    }
}

/// The same thing has URLs on several hosts and in several versions; what follows `/projects/` is the same in all.
fn short(user: &str) -> &str {
    user.split_once("/projects/").map_or(user, |(_, path)| path)
}

fn machine(user: &str) -> Option<ProviderId> {
    let (_, path) = user.split_once("/projects/")?;
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [project, "zones", zone, "instances", name] => Some(ProviderId::new(format!("gce://{project}/{zone}/{name}"))),
        _ => None,
    }
}

/// # Errors
/// `Unsupported` for a machine whose interfaces are of no kind that we can change.
pub(super) fn live(call: &'static str, place: &ProviderId, instance: &Instance) -> Result<Live, CloudError> {
    let unsupported = |what: &str| CloudError::new(ErrorKind::Unsupported, call, format!("{place} has {what}"));
    let id = instance
        .id
        .ok_or_else(|| CloudError::new(ErrorKind::Unknown, call, format!("{place} was shown without its id")))?;
    let primary = instance
        .network_interfaces
        .iter()
        .find(|interface| interface.name.as_deref() == Some(PRIMARY))
        .ok_or_else(|| unsupported("no interface nic0"))?;
    let config = match primary.access_configs.as_slice() {
        [] => None,
        [config] => Some(access_config(config).ok_or_else(|| unsupported("an access config of an unknown kind"))?),
        _ => return Err(unsupported("more than one access config on nic0")),
    };
    Ok(Live {
        machine: MachineId { place: place.clone(), instance: id.to_string() },
        power: power(instance.status.as_ref()),
        config,
    })
}

fn access_config(config: &AccessConfig) -> Option<Config> {
    // Unsaid means one-to-one NAT, the only kind for IPv4.
    if !matches!(config.r#type, None | Some(Type::OneToOneNat)) {
        return None;
    }
    let ip = match config.nat_ip.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse().ok()?),
    };
    Some(Config {
        name: config.name.clone().filter(|name| !name.is_empty())?,
        ip,
        own: Own {
            network_tier: word(config.network_tier.as_ref().and_then(|tier| tier.name())),
            public_ptr_domain_name: config.public_ptr_domain_name.clone().filter(|name| !name.is_empty()),
        },
    })
}

fn power(status: Option<&MachineStatus>) -> Power {
    match status {
        Some(MachineStatus::Running) => Power::Running,
        Some(MachineStatus::Terminated | MachineStatus::Stopped | MachineStatus::Suspended) => Power::Stopped,
        _ => Power::Changing,
    }
}

fn word(name: Option<&str>) -> Option<String> {
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use google_cloud_compute_v1::model::{NetworkInterface, access_config, address::NetworkTier};

    use super::*;

    const NODE: &str = "https://www.googleapis.com/compute/v1/projects/prod/zones/us-west1-a/instances/node-1";

    fn address(status: AddressStatus, users: &[&str]) -> Address {
        Address::new()
            .set_name("sip-1")
            .set_address("203.0.113.7")
            .set_status(status)
            .set_network_tier(NetworkTier::Premium)
            .set_users(users.iter().copied())
    }

    fn instance(configs: impl IntoIterator<Item = AccessConfig>) -> Instance {
        Instance::new().set_id(4520031799277581759_u64).set_status(MachineStatus::Running).set_network_interfaces([
            NetworkInterface::new().set_name("nic1"),
            NetworkInterface::new().set_name("nic0").set_access_configs(configs),
        ])
    }

    fn external() -> AccessConfig {
        AccessConfig::new()
            .set_name("External NAT")
            .set_type(Type::OneToOneNat)
            .set_nat_ip("198.51.100.4")
            .set_network_tier(access_config::NetworkTier::Standard)
    }

    fn node() -> ProviderId {
        ProviderId::new("gce://prod/us-west1-a/node-1")
    }

    #[test]
    fn a_holder_is_a_machine_whatever_host_its_url_names() {
        for url in [
            NODE,
            "https://compute.googleapis.com/compute/beta/projects/prod/zones/us-west1-a/instances/node-1",
            "http://127.0.0.1:8080/compute/v1/projects/prod/zones/us-west1-a/instances/node-1",
        ] {
            assert_eq!(holder(&address(AddressStatus::InUse, &[url])), Holder::Machine(node()));
        }
    }

    #[test]
    fn what_is_no_machine_is_foreign_in_the_clouds_words() {
        let rule = "https://www.googleapis.com/compute/v1/projects/prod/regions/us-west1/forwardingRules/web";
        assert_eq!(
            holder(&address(AddressStatus::InUse, &[rule])),
            Holder::Foreign("prod/regions/us-west1/forwardingRules/web".to_owned())
        );
        assert_eq!(
            holder(&address(AddressStatus::InUse, &[rule, NODE])),
            Holder::Foreign(
                "prod/regions/us-west1/forwardingRules/web, prod/zones/us-west1-a/instances/node-1".to_owned()
            )
        );
    }

    #[test]
    fn only_what_the_cloud_calls_reserved_is_free() {
        assert_eq!(holder(&address(AddressStatus::Reserved, &[])), Holder::Free);
        for doubtful in [AddressStatus::Reserving, AddressStatus::InUse, AddressStatus::from("NEW_WORD")] {
            assert!(matches!(holder(&address(doubtful, &[])), Holder::Foreign(_)));
        }
        assert!(matches!(holder(&Address::new().set_address("203.0.113.7")), Holder::Foreign(_)));
    }

    #[test]
    fn a_reservation_says_its_name_tier_and_labels() {
        let (ip, reservation) =
            reservation(&address(AddressStatus::Reserved, &[]).set_labels([("team", "voip")])).unwrap();
        assert_eq!(ip, "203.0.113.7".parse::<IpAddr>().unwrap());
        assert_eq!(reservation.name, "sip-1");
        assert_eq!(reservation.network_tier.as_deref(), Some("PREMIUM"));
        assert_eq!(reservation.tags.get("team").map(String::as_str), Some("voip"));
    }

    #[test]
    fn an_internal_address_and_one_without_an_ip_are_left_out() {
        let internal = address(AddressStatus::Reserved, &[]).set_address_type(AddressType::Internal);
        assert_eq!(reservation(&internal), None);
        assert_eq!(reservation(&Address::new().set_status(AddressStatus::Reserving)), None);
    }

    #[test]
    fn only_the_primary_interface_counts() {
        let live = live("t", &node(), &instance([external()])).unwrap();
        assert_eq!(live.machine.to_string(), "gce://prod/us-west1-a/node-1#4520031799277581759");
        let config = live.config.as_ref().unwrap();
        assert_eq!(config.name, "External NAT");
        assert_eq!(config.own.network_tier.as_deref(), Some("STANDARD"));
        assert!(live.holds("198.51.100.4".parse().unwrap()));
        assert!(!live.holds("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn a_stopped_machines_config_has_no_address() {
        let stopped = instance([external().set_or_clear_nat_ip(None::<String>)]).set_status(MachineStatus::Terminated);
        let live = live("t", &node(), &stopped).unwrap();
        assert_eq!(live.power, Power::Stopped);
        assert_eq!(live.config.unwrap().ip, None);
    }

    #[test]
    fn a_machine_that_we_could_not_change_is_unsupported() {
        for strange in [
            Instance::new().set_id(1_u64),
            instance([external(), external()]),
            instance([external().set_type(Type::DirectIpv6)]),
        ] {
            assert_eq!(live("t", &node(), &strange).unwrap_err().kind, ErrorKind::Unsupported);
        }
    }

    #[test]
    fn between_running_and_stopped_nothing_is_proven() {
        assert_eq!(power(Some(&MachineStatus::Running)), Power::Running);
        for stopped in [MachineStatus::Terminated, MachineStatus::Stopped, MachineStatus::Suspended] {
            assert_eq!(power(Some(&stopped)), Power::Stopped);
        }
        for changing in [
            MachineStatus::Stopping,
            MachineStatus::Suspending,
            MachineStatus::Staging,
            MachineStatus::Provisioning,
            MachineStatus::Repairing,
            MachineStatus::from("NEW_WORD"),
        ] {
            assert_eq!(power(Some(&changing)), Power::Changing);
        }
        assert_eq!(power(None), Power::Changing);
    }

    #[test]
    fn another_clouds_machine_is_unsupported() {
        let error = place("t", &ProviderId::new("aws:///us-west-2a/i-0123")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
}
