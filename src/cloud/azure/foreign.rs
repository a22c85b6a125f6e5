//! Azure's answers as anybody may give them: see [`crate::foreign`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use azure_core::{
    StatusCode,
    error::{Error, ErrorKind as Sort},
    headers::Headers,
};
use azure_mgmt_compute::package_2024_07_01::models as compute;
use azure_mgmt_network::package_2024_03::models as network;
use serde_json::Value;

use super::{
    credential, errors,
    ids::{self, Id},
    interface::Document,
    operation, permissions, translate, transport,
    transport::Refused,
};
use crate::foreign::text;

/// Two bytes of HTTP status, a line for the header Retry-After, and a body.
pub fn azure(data: &[u8]) {
    let Some((status, rest)) = data.split_first_chunk::<2>() else { return };
    let status = 400 + u16::from_le_bytes(*status) % 200;
    let (header, body) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(at) => (text(rest.split_at(at).0).into_owned(), rest.split_at(at + 1).1),
        None => (String::new(), rest),
    };
    refusal(status, header, body);
    let said = text(body);
    name(&said);
    let _ = credential::whose(&said);
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
    document(&body);
    let _ = (operation::of_operation(&body), operation::of_interface(&body), credential::issued(&body));
    let mut permitted = permissions::Permitted::default();
    permitted.add(&body);
    let _ = permitted.grants("Microsoft.Network/networkInterfaces/write");
    if let Ok(shown) = serde_json::from_value::<compute::VirtualMachine>(body.clone()) {
        let _ = translate::machine(&shown);
    }
    let interface = serde_json::from_value::<network::NetworkInterface>(body.clone()).ok();
    let interface = interface.as_ref().and_then(translate::interface);
    if let Ok(shown) = serde_json::from_value::<network::PublicIpAddress>(body)
        && let Some(address) = translate::public_address(&shown)
    {
        assert!(!address.reserved || address.ip.is_some_and(|ip| ip.is_ipv4()));
        let _ = translate::reservation(&address, interface.as_ref(), true);
    }
}

fn refusal(status: u16, header: String, body: &[u8]) {
    let mut headers = Headers::new();
    headers.insert("retry-after", header);
    let _ = transport::retry_after(&headers);
    let _ = operation::first_pause(&headers);
    let refused = Refused::read(status, &headers, body);
    let code = StatusCode::try_from(status).unwrap_or(StatusCode::BadRequest);
    let error = Error::new(Sort::HttpResponse { status: code, error_code: None }, refused);
    let (read, change) = (errors::of_read("t", &error), errors::of_change("t", &error));
    for told in [&read, &change] {
        assert!(!told.message.contains(['\n', '\r']) && told.message.chars().count() <= 401, "{told}");
    }
    assert!(read.settled);
    assert_eq!(change.settled, (400..500).contains(&status) && status != 408, "{change}");
}

/// What would lead a request elsewhere is no id.
fn name(said: &str) {
    let Some(id) = Id::parse(said) else { return };
    assert_eq!(id.text(), said);
    assert!(said.starts_with('/') && !said.contains(['?', '#', '%', '\\']) && !said.contains("/../"), "{said}");
    let again = Id::parse(&id.key()).unwrap();
    assert_eq!((again.key(), again.kind.as_str()), (id.key(), id.kind.as_str()));
    assert!(ids::same(again.text(), id.text()));
    let _ = (id.interface(), id.short(), id.name(), id.same_group(&again), ids::provider_id(said));
}

/// Nothing but the public address of the primary configuration changes.
fn document(body: &Value) {
    let Some(document) = Document::new(body.clone()) else { return };
    let Some(without) = document.with(None) else { return };
    let bare = Document::new(without).unwrap();
    assert!(bare.view.public().is_none(), "{:?}", bare.view);
    let address = Id::parse("/subscriptions/s/resourceGroups/g/providers/N/publicIPAddresses/a").unwrap();
    let with = Document::new(bare.with(Some(&address)).unwrap()).unwrap();
    assert!(with.view.holds(&address), "{:?}", with.view);
    assert_eq!(with.with(None), bare.with(None));
}
