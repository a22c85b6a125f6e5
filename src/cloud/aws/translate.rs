//! The SDK's words for addresses into ours, and ours for places into the SDK's. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use aws_sdk_ec2::types::{Address, DomainType};

use super::instance::Live;
use crate::cloud::{CloudError, ErrorKind, Holder, Place, Provider, ProviderId, Reach, Reservation};

/// What ties an address to an interface. What the cloud leaves out is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Association {
    pub id: String,
    pub interface: String,
    pub private_ip: String,
    pub instance: String,
}

impl Association {
    pub fn is_on(&self, live: &Live) -> bool {
        self.instance == live.machine.instance && self.interface == live.primary.id
            // Unsaid means the primary one.
            && (self.private_ip.is_empty() || self.private_ip == live.primary.private_ip)
    }
}

/// A reserved address as just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub ip: IpAddr,
    pub allocation: String,
    pub association: Option<Association>,
    pub reservation: Reservation,
}

/// Where a machine stands, or `Unsupported` for a provider ID that is no EC2 instance's.
pub(super) fn place<'a>(call: &'static str, machine: &'a ProviderId) -> Result<&'a Place, CloudError> {
    let unsupported = || {
        let why = match machine.unsupported() {
            Some(why) => format!("{machine}: {why}"),
            None => format!("{machine} is not a provider ID of the form aws:///ZONE/i-…"),
        };
        CloudError::new(ErrorKind::Unsupported, call, why)
    };
    machine.place().filter(|place| place.provider == Provider::Aws).ok_or_else(unsupported)
}

/// `None` for what is no address of a VPC that somebody reserved: the absence of an address from a survey says nothing,
/// so leaving it out decides nothing (R2).
pub(super) fn shown(region: &str, address: &Address) -> Option<Shown> {
    if !matches!(address.domain, None | Some(DomainType::Vpc)) {
        return None;
    }
    let allocation = text(&address.allocation_id)?;
    let ip = text(&address.public_ip)?.parse().ok()?;
    let association = text(&address.association_id).map(|id| Association {
        id,
        interface: text(&address.network_interface_id).unwrap_or_default(),
        private_ip: text(&address.private_ip_address).unwrap_or_default(),
        instance: text(&address.instance_id).unwrap_or_default(),
    });
    let reservation = Reservation {
        holder: holder(region, address, association.as_ref()),
        name: allocation.clone(),
        network_tier: None,
        reach: text(&address.network_border_group).map_or(Reach::Region, Reach::BorderGroup),
        tags: tags(address),
    };
    Some(Shown { ip, allocation, association, reservation })
}

/// Whether an instance's interface is its primary one is not said here: `inspect` and each change look for themselves.
/// Nor is its zone; the region in its place is enough to find it again.
fn holder(region: &str, address: &Address, association: Option<&Association>) -> Holder {
    if let Some(service) = &address.service_managed {
        return Holder::Foreign(format!("the service {}, which manages it", service.as_str()));
    }
    let Some(association) = association else { return Holder::Free };
    if !association.instance.is_empty() {
        return Holder::Machine(ProviderId::new(format!("aws:///{region}/{}", association.instance)));
    }
    let owner = match text(&address.network_interface_owner_id) {
        Some(owner) => format!(" of {owner}"),
        None => String::new(),
    };
    match association.interface.as_str() {
        "" => Holder::Foreign("something that the cloud does not name".to_owned()),
        interface => Holder::Foreign(format!("network interface {interface}{owner}, which is no instance's")),
    }
}

fn tags(address: &Address) -> BTreeMap<String, String> {
    let tags = address.tags.iter().flatten();
    tags.filter_map(|tag| Some((tag.key.clone()?, tag.value.clone().unwrap_or_default()))).collect()
}

/// What is empty is not there.
pub(super) fn text(value: &Option<String>) -> Option<String> {
    value.clone().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{ServiceManaged, Tag};

    use super::*;
    use crate::cloud::{Interface, MachineId, Power, aws::instance::Primary};

    const EIP: &str = "203.0.113.7";

    fn address() -> Address {
        Address::builder()
            .public_ip(EIP)
            .allocation_id("eipalloc-1")
            .domain(DomainType::Vpc)
            .network_border_group("us-west-2")
            .build()
    }

    /// The SDK's types cannot be written out.
    fn with<T>(mut thing: T, change: impl FnOnce(&mut T)) -> T {
        change(&mut thing);
        thing
    }

    fn held() -> Address {
        with(address(), |held| {
            held.association_id = Some("eipassoc-1".to_owned());
            held.network_interface_id = Some("eni-0".to_owned());
            held.private_ip_address = Some("10.0.0.1".to_owned());
            held.instance_id = Some("i-0a1b".to_owned());
        })
    }

    fn node() -> ProviderId {
        ProviderId::new("aws:///us-west-2a/i-0a1b")
    }

    fn live(instance: &str) -> Live {
        Live {
            machine: MachineId { place: node(), instance: instance.to_owned() },
            power: Power::Running,
            zone: "us-west-2a".to_owned(),
            primary: Primary {
                id: "eni-0".to_owned(),
                private_ip: "10.0.0.1".to_owned(),
                external: Interface::Empty,
                lent: None,
            },
            interfaces: 1,
        }
    }

    #[test]
    fn a_reservation_says_its_allocation_group_and_tags() {
        let tagged = with(address(), |it| {
            it.tags = Some(vec![Tag::builder().key("team").value("voip").build()]);
        });
        let Shown { ip, allocation, association, reservation } = shown("us-west-2", &tagged).unwrap();
        assert_eq!((ip.to_string().as_str(), allocation.as_str(), association), (EIP, "eipalloc-1", None));
        assert_eq!(reservation.name, "eipalloc-1");
        assert_eq!(reservation.holder, Holder::Free);
        assert_eq!(reservation.reach, Reach::BorderGroup("us-west-2".to_owned()));
        assert_eq!(reservation.tags.get("team").map(String::as_str), Some("voip"));
        let groupless = with(address(), |it| {
            it.network_border_group = None;
        });
        assert_eq!(shown("us-west-2", &groupless).unwrap().reservation.reach, Reach::Region);
    }

    #[test]
    fn an_instance_holds_an_address_by_its_id_alone() {
        let Shown { reservation, association, .. } = shown("us-west-2", &held()).unwrap();
        assert_eq!(reservation.holder, Holder::Machine(node()));
        let association = association.unwrap();
        let primary = live("i-0a1b");
        assert!(association.is_on(&primary));
        let unsaid = Association { private_ip: String::new(), ..association.clone() };
        assert!(unsaid.is_on(&primary));
        for elsewhere in [
            Association { interface: "eni-1".to_owned(), ..association.clone() },
            Association { private_ip: "10.0.0.9".to_owned(), ..association.clone() },
        ] {
            assert!(!elsewhere.is_on(&primary), "{elsewhere:?}");
        }
        assert!(!association.is_on(&live("i-0c2d")));
    }

    #[test]
    fn a_holder_can_be_found_by_its_name() {
        let Holder::Machine(holder) = shown("us-west-2", &held()).unwrap().reservation.holder else { panic!() };
        assert_eq!(place("t", &holder).unwrap().region, "us-west-2");
    }

    #[test]
    fn what_is_no_instance_is_foreign_in_the_clouds_words() {
        let balancer = with(held(), |it| {
            it.instance_id = None;
            it.network_interface_owner_id = Some("amazon-elb".to_owned());
        });
        let nameless = with(held(), |it| {
            it.instance_id = None;
            it.network_interface_id = None;
        });
        let managed = with(held(), |it| {
            it.service_managed = Some(ServiceManaged::Nlb);
        });
        let free = with(address(), |it| {
            it.service_managed = Some(ServiceManaged::Rnat);
        });
        for (address, word) in
            [(balancer, "eni-0 of amazon-elb"), (nameless, "does not name"), (managed, "nlb"), (free, "rnat")]
        {
            let Holder::Foreign(told) = shown("us-west-2", &address).unwrap().reservation.holder else {
                panic!("{address:?}")
            };
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn an_empty_text_is_none() {
        let empty = Some(String::new());
        let free = with(address(), |it| {
            it.association_id = empty.clone();
            it.instance_id = empty.clone();
        });
        assert_eq!(shown("us-west-2", &free).unwrap().reservation.holder, Holder::Free);
        let balancer = with(held(), |it| {
            it.instance_id = empty;
        });
        assert!(matches!(shown("us-west-2", &balancer).unwrap().reservation.holder, Holder::Foreign(_)));
    }

    #[test]
    fn what_nobody_reserved_in_a_vpc_is_left_out() {
        assert_eq!(
            shown(
                "us-west-2",
                &with(address(), |it| {
                    it.allocation_id = None;
                })
            ),
            None
        );
        assert_eq!(
            shown(
                "us-west-2",
                &with(address(), |it| {
                    it.domain = Some(DomainType::Standard);
                })
            ),
            None
        );
        assert_eq!(
            shown(
                "us-west-2",
                &with(address(), |it| {
                    it.public_ip = None;
                })
            ),
            None
        );
    }

    #[test]
    fn what_is_no_instance_is_unsupported_and_says_why() {
        for (id, word) in [
            ("aws:///us-west-2a/0123abcd/fargate-ip-10-0-1-2.ec2.internal", "Fargate"),
            ("eks-hybrid:///us-west-2/prod/mi-0123", "hybrid"),
            ("gce://prod/us-west1-a/node-1", "aws:///ZONE/i-"),
        ] {
            let error = place("t", &ProviderId::new(id)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert!(error.message.contains(word), "{error}");
        }
    }
}
