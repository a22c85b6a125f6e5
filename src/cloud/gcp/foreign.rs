//! Compute Engine's answers as anybody may give them: see [`crate::foreign`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use google_cloud_compute_v1::model::{Address, Instance, Operation};
use google_cloud_gax::error::{Error, rpc::Status};

use super::{errors, translate};
use crate::cloud::{Holder, ProviderId};

/// Two bytes of HTTP status, and a body.
pub fn gcp(data: &[u8]) {
    let Some((status, body)) = data.split_first_chunk::<2>() else { return };
    let status = 400 + u16::from_le_bytes(*status) % 200;
    let raw = Error::http(status, Default::default(), body.to_vec().into());
    let error = match Status::try_from(raw.http_payload().unwrap()) {
        Ok(said) => Error::service_with_http_metadata(said, Some(status), None),
        Err(_) => raw,
    };
    let (read, change) = (errors::of_read("t", &error), errors::of_change("t", &error));
    for told in [&read, &change] {
        assert!(!told.message.contains(['\n', '\r']) && told.message.chars().count() <= 401, "{told}");
    }
    assert!(read.settled);
    assert_eq!(change.settled, (400..500).contains(&status) && status != 408, "{change}");

    if let Ok(shown) = serde_json::from_slice::<Address>(body)
        && let Some((_, reservation)) = translate::reservation(&shown)
        && let Holder::Machine(machine) = &reservation.holder
    {
        let _ = translate::place("t", machine);
    }
    if let Ok(shown) = serde_json::from_slice::<Instance>(body) {
        let place = ProviderId::new("gce://prod/us-west1-a/node-1");
        if let Ok(live) = translate::live("t", &place, &shown) {
            assert_eq!(live.machine.place, place);
            let _ = live.has_config("a");
        }
    }
    if let Ok(ended) = serde_json::from_slice::<Operation>(body)
        && let Err(told) = errors::of_operation("t", ended)
    {
        assert!(told.settled && !told.message.contains('\n'), "{told}");
    }
}
