//! EC2's answers as anybody may give them: see [`crate::foreign`]. The XML is the SDK's to read.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{ErrorMetadata, SdkError},
    operation::associate_address::AssociateAddressError as Answer,
    types::{Address, Instance, InstanceNetworkInterface, InstanceNetworkInterfaceAssociation, Tag},
};

use super::{errors, instance, translate};
use crate::{
    cloud::{Holder, ProviderId},
    foreign::text,
};

/// Two bytes of HTTP status, and lines: code, text, and the fields of an address and an instance.
pub fn aws(data: &[u8]) {
    let Some((status, rest)) = data.split_first_chunk::<2>() else { return };
    let status = 400 + u16::from_le_bytes(*status) % 200;
    let said = text(rest);
    let mut lines = said.split('\n');
    let mut next = || lines.next().unwrap_or_default().to_owned();
    refusal(status, next(), next());

    let shown = Address::builder()
        .public_ip(next())
        .allocation_id(next())
        .association_id(next())
        .network_interface_id(next())
        .private_ip_address(next())
        .instance_id(next())
        .network_border_group(next())
        .tags(Tag::builder().key(next()).value(next()).build())
        .build();
    if let Some(shown) = translate::shown("us-west-2", &shown) {
        assert!(!shown.allocation.is_empty());
        if let Holder::Machine(machine) = &shown.reservation.holder {
            let _ = translate::place("t", machine);
        }
    }
    let association = InstanceNetworkInterfaceAssociation::builder().public_ip(next()).ip_owner_id(next()).build();
    let interface = InstanceNetworkInterface::builder().network_interface_id(next()).association(association).build();
    let instance = Instance::builder().instance_id(next()).network_interfaces(interface).build();
    let _ = instance::live("t", &ProviderId::new(next()), &instance);
}

fn refusal(status: u16, code: String, said: String) {
    let raw = HttpResponse::new(status.try_into().unwrap(), said.clone().into());
    let meta = ErrorMetadata::builder().code(code).message(said).build();
    let error = SdkError::service_error(Answer::generic(meta), raw);
    let (read, change) = (errors::of_read("t", &error), errors::of_change("t", &error));
    for told in [&read, &change] {
        assert!(!told.message.contains(['\n', '\r']) && told.message.chars().count() <= 401, "{told}");
        assert!(!told.message.contains("://"), "{told}");
    }
    assert!(read.settled);
    assert_eq!(read.kind, change.kind);
}
