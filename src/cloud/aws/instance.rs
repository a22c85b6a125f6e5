//! The SDK's words for instances and their interfaces into ours. Pure.

use std::net::IpAddr;

use aws_sdk_ec2::types::{Instance, InstanceNetworkInterface, InstanceStateName, OperatorResponse};

use super::translate::text;
use crate::cloud::{CloudError, ErrorKind, Interface, MachineId, Own, Power, ProviderId};

/// Owner of an address that AWS lends to an instance by itself; a reserved one has the account's number.
const LENT: &str = "amazon";

/// An instance as just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub machine: MachineId,
    pub power: Power,
    pub zone: String,
    /// The interface of device 0; the only one that we touch.
    pub primary: Primary,
    /// How many interfaces it has.
    pub interfaces: usize,
}

/// A primary interface, as just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub id: String,
    /// Pods' traffic leaves under this one, so an address belongs to it and to no other.
    pub private_ip: String,
    pub external: Interface,
    /// The address that AWS lends it, where it has one of its own.
    pub lent: Option<IpAddr>,
}

/// # Errors
/// `NotFound` for an instance that has ended, `Unsupported` for one that we may not or cannot change.
pub(super) fn live(call: &'static str, place: &ProviderId, instance: &Instance) -> Result<Live, CloudError> {
    let unsupported = |what: String| CloudError::new(ErrorKind::Unsupported, call, format!("{place} {what}"));
    let state = instance.state.as_ref().and_then(|state| state.name.as_ref());
    if state == Some(&InstanceStateName::Terminated) {
        // Shown for about an hour more.
        return Err(gone(call, place));
    }
    let id = text(&instance.instance_id)
        .ok_or_else(|| CloudError::new(ErrorKind::Unknown, call, format!("{place} was shown without its id")))?;
    let interfaces = instance.network_interfaces.as_deref().unwrap_or_default();
    let primary = interfaces.iter().find(|interface| is_primary(interface));
    let operators = [instance.operator.as_ref(), primary.and_then(|primary| primary.operator.as_ref())];
    if let Some(operator) = operators.into_iter().flatten().find(|operator| operator.managed == Some(true)) {
        return Err(unsupported(managed(operator)));
    }
    let primary = match primary {
        Some(primary) => primary_interface(primary),
        // Interfaces go before the instance does.
        None if state == Some(&InstanceStateName::ShuttingDown) => return Err(gone(call, place)),
        None => None,
    };
    let said = place.place().map(|place| place.zone.as_str()).unwrap_or_default();
    let zone = instance.placement.as_ref().and_then(|placement| text(&placement.availability_zone));
    let place = match &zone {
        // An address names its holder without the zone.
        Some(zone) if *zone != said => ProviderId::new(format!("aws:///{zone}/{id}")),
        _ => place.clone(),
    };
    Ok(Live {
        machine: MachineId { place: place.clone(), instance: id },
        power: power(state),
        zone: zone.unwrap_or_else(|| said.to_owned()),
        primary: primary
            .ok_or_else(|| unsupported("has no primary interface with a private IPv4 address".to_owned()))?,
        interfaces: interfaces.len(),
    })
}

pub(super) fn gone(call: &'static str, place: &ProviderId) -> CloudError {
    CloudError::new(ErrorKind::NotFound, call, format!("there is no instance {place}"))
}

fn managed(operator: &OperatorResponse) -> String {
    let by = text(&operator.principal).unwrap_or_else(|| "an AWS service".to_owned());
    format!(
        "is managed by {by} (EKS Auto Mode), which lets nobody else change it; use a managed node group, self-managed nodes or Karpenter"
    )
}

/// Instances with several network cards have a device 0 on each.
fn is_primary(interface: &InstanceNetworkInterface) -> bool {
    interface.attachment.as_ref().is_some_and(|attachment| {
        attachment.device_index == Some(0) && matches!(attachment.network_card_index, None | Some(0))
    })
}

fn primary_interface(interface: &InstanceNetworkInterface) -> Option<Primary> {
    let private_ip = text(&interface.private_ip_address)?;
    let mut addresses = interface.private_ip_addresses.iter().flatten();
    let association = match addresses.find(|address| address.primary == Some(true)) {
        Some(primary) => primary.association.as_ref(),
        None => interface.association.as_ref(),
    };
    let public = association.and_then(|association| text(&association.public_ip)?.parse().ok());
    let lent = public.filter(|_| association.is_some_and(|it| it.ip_owner_id.as_deref() == Some(LENT)));
    let external = match public {
        None => Interface::Empty,
        Some(_) if lent.is_some() => Interface::Ephemeral(Own::default()),
        Some(ip) => Interface::Reserved(ip),
    };
    Some(Primary { id: text(&interface.network_interface_id)?, private_ip, external, lent })
}

fn power(state: Option<&InstanceStateName>) -> Power {
    match state {
        Some(InstanceStateName::Running) => Power::Running,
        Some(InstanceStateName::Stopped) => Power::Stopped,
        _ => Power::Changing,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        InstanceNetworkInterfaceAssociation, InstanceNetworkInterfaceAttachment as Attachment,
        InstancePrivateIpAddress as Private, InstanceState, Placement,
    };

    use super::*;

    const EIP: &str = "203.0.113.7";

    /// The SDK's types cannot be written out.
    fn with<T>(mut thing: T, change: impl FnOnce(&mut T)) -> T {
        change(&mut thing);
        thing
    }

    fn node() -> ProviderId {
        ProviderId::new("aws:///us-west-2a/i-0a1b")
    }

    fn given(ip: &str, owner: &str) -> InstanceNetworkInterfaceAssociation {
        InstanceNetworkInterfaceAssociation::builder().public_ip(ip).ip_owner_id(owner).build()
    }

    fn interface(
        id: &str,
        card: i32,
        device: i32,
        given: Option<InstanceNetworkInterfaceAssociation>,
    ) -> InstanceNetworkInterface {
        let pod = Private::builder().private_ip_address("10.0.0.9").primary(false).build();
        let first = Private::builder().private_ip_address("10.0.0.1").primary(true).set_association(given);
        InstanceNetworkInterface::builder()
            .network_interface_id(id)
            .private_ip_address("10.0.0.1")
            .attachment(Attachment::builder().network_card_index(card).device_index(device).build())
            .private_ip_addresses(pod)
            .private_ip_addresses(first.build())
            .build()
    }

    fn instance(state: InstanceStateName, interfaces: impl IntoIterator<Item = InstanceNetworkInterface>) -> Instance {
        Instance::builder()
            .instance_id("i-0a1b")
            .state(InstanceState::builder().name(state).build())
            .placement(Placement::builder().availability_zone("us-west-2a").build())
            .set_network_interfaces(Some(interfaces.into_iter().collect()))
            .build()
    }

    fn running(given: Option<InstanceNetworkInterfaceAssociation>) -> Live {
        live("t", &node(), &instance(InstanceStateName::Running, [interface("eni-0", 0, 0, given)])).unwrap()
    }

    #[test]
    fn the_primary_interface_is_device_0_of_card_0_wherever_it_is_listed() {
        let several = [
            interface("eni-2", 1, 0, Some(given("203.0.113.9", "1234"))),
            interface("eni-1", 0, 1, Some(given("203.0.113.8", "1234"))),
            interface("eni-0", 0, 0, Some(given(EIP, "1234"))),
        ];
        let live = live("t", &node(), &instance(InstanceStateName::Running, several)).unwrap();
        assert_eq!(live.machine.to_string(), "aws:///us-west-2a/i-0a1b#i-0a1b");
        assert_eq!((live.primary.id.as_str(), live.primary.private_ip.as_str()), ("eni-0", "10.0.0.1"));
        assert_eq!(live.primary.external, Interface::Reserved(EIP.parse().unwrap()));
        assert_eq!(live.interfaces, 3);
    }

    #[test]
    fn an_address_that_amazon_lends_is_the_machines_own() {
        assert_eq!(
            running(Some(given("198.51.100.4", "amazon"))).primary.external,
            Interface::Ephemeral(Own::default())
        );
        assert_eq!(running(Some(given("", "amazon"))).primary.external, Interface::Empty);
        assert_eq!(running(None).primary.external, Interface::Empty);
    }

    #[test]
    fn an_ended_instance_is_gone_and_between_running_and_stopped_nothing_is_proven() {
        let state = |state, interfaces: Vec<_>| live("t", &node(), &instance(state, interfaces));
        let here = || vec![interface("eni-0", 0, 0, None)];
        for (name, power) in [
            (InstanceStateName::Running, Power::Running),
            (InstanceStateName::Stopped, Power::Stopped),
            (InstanceStateName::Pending, Power::Changing),
            (InstanceStateName::Stopping, Power::Changing),
            (InstanceStateName::ShuttingDown, Power::Changing),
            (InstanceStateName::from("new-word"), Power::Changing),
        ] {
            assert_eq!(state(name, here()).unwrap().power, power);
        }
        assert_eq!(state(InstanceStateName::Terminated, here()).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(state(InstanceStateName::ShuttingDown, vec![]).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(state(InstanceStateName::Running, vec![]).unwrap_err().kind, ErrorKind::Unsupported);
    }

    #[test]
    fn an_instance_that_a_service_manages_is_unsupported_and_says_what_instead() {
        let operator = || OperatorResponse::builder().managed(true).principal("eks.amazonaws.com").build();
        let plain = || instance(InstanceStateName::Running, [interface("eni-0", 0, 0, None)]);
        let whole = with(plain(), |it| {
            it.operator = Some(operator());
        });
        let card = with(interface("eni-0", 0, 0, None), |it| {
            it.operator = Some(operator());
        });
        for managed in [whole, instance(InstanceStateName::Running, [card])] {
            let error = live("t", &node(), &managed).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert!(error.message.contains("eks.amazonaws.com") && error.message.contains("Karpenter"), "{error}");
        }
        let by_nobody = OperatorResponse::builder().managed(false).build();
        assert!(
            live(
                "t",
                &node(),
                &with(plain(), |it| {
                    it.operator = Some(by_nobody);
                })
            )
            .is_ok()
        );
    }

    #[test]
    fn an_instance_that_was_named_without_its_zone_is_named_with_it() {
        let holder = ProviderId::new("aws:///us-west-2/i-0a1b");
        let live = live("t", &holder, &instance(InstanceStateName::Running, [interface("eni-0", 0, 0, None)])).unwrap();
        assert_eq!((live.machine.place.as_str(), live.zone.as_str()), (node().as_str(), "us-west-2a"));
    }
}
