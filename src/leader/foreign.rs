//! The Lease as somebody else may have written it: see [`crate::foreign`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use tokio::time::Instant;

use super::{
    LeaseConfig,
    rules::{self, Claim, Memory},
};

/// As JSON.
pub fn lease(data: &[u8]) {
    let Ok(lease) = serde_json::from_slice::<Lease>(data) else { return };
    let config = LeaseConfig {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
        identity: "me".to_owned(),
        duration: Duration::from_secs(60),
        skew: Duration::from_secs(2),
    };
    let now = Instant::now();
    let mut memory = Memory::default();
    memory.saw(Some(&lease), now, &config);
    if let Claim::NotBefore(at) = memory.claim(Some(&lease), now, &config) {
        assert!(at >= now + config.duration + config.skew, "a holder is given at least our own duration");
        assert!(at <= now + rules::LONGEST + config.skew, "and nobody is given for ever");
        assert_eq!(memory.claim(Some(&lease), at, &config), Claim::Take);
    }
    let _ = memory.claim(None, now, &config);
    let taken = rules::taken(&lease, &config, Timestamp::UNIX_EPOCH);
    assert_eq!(rules::holder(&taken), Some("me"));
    assert!(rules::transitions(&taken) >= rules::transitions(&lease));
    assert_eq!(taken.metadata, lease.metadata, "a write on the version that was read");
    assert_eq!(rules::holder(&rules::released(&taken)), None);
}
