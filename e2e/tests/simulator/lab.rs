//! A simulator, and the real client with the real credential chain pointed at it.

use std::{sync::Once, time::Duration};

use e2e::{simulator::Simulator, world::World};
use google_cloud_auth::credentials::{Credentials, mds};
use google_cloud_compute_v1::client::{Addresses, Instances, ZoneOperations};
use google_cloud_gax::{
    error::{Error, rpc::StatusDetails},
    exponential_backoff::{ExponentialBackoff, ExponentialBackoffBuilder},
    retry_policy::NeverRetry,
};

use crate::discovery;

pub const PROJECT: &str = "prod";
pub const REGION: &str = "us-west1";
pub const ZONE: &str = "us-west1-a";

pub struct Lab {
    pub world: World,
    pub simulator: Simulator,
}

impl Lab {
    pub async fn over(world: World) -> Self {
        install_tls();
        let simulator = Simulator::start(world.clone()).await.unwrap();
        simulator.record();
        Self { world, simulator }
    }

    /// What a machine's default credentials are: tokens from the metadata server.
    fn credentials(&self) -> Credentials {
        mds::Builder::default().with_endpoint(self.simulator.endpoint()).build().unwrap()
    }

    pub async fn addresses(&self) -> Addresses {
        let builder =
            Addresses::builder().with_endpoint(self.simulator.endpoint()).with_credentials(self.credentials());
        builder.with_retry_policy(NeverRetry).build().await.unwrap()
    }

    pub async fn instances(&self) -> Instances {
        self.instances_as(self.credentials()).await
    }

    pub async fn instances_as(&self, credentials: Credentials) -> Instances {
        let builder = Instances::builder().with_endpoint(self.simulator.endpoint()).with_credentials(credentials);
        builder.with_retry_policy(NeverRetry).with_polling_backoff_policy(at_once()).build().await.unwrap()
    }

    pub async fn operations(&self) -> ZoneOperations {
        let builder =
            ZoneOperations::builder().with_endpoint(self.simulator.endpoint()).with_credentials(self.credentials());
        builder.with_retry_policy(NeverRetry).build().await.unwrap()
    }

    /// Ends the test: whatever was answered must be what Google describes, and nothing impossible may have been.
    pub async fn finish(self) {
        let given = self.simulator.recorded();
        assert!(!given.is_empty(), "this test has called nothing");
        for answer in given {
            discovery::check_answer(answer.method, &answer.body);
        }
        assert_eq!(self.world.violations(), Vec::<String>::new());
        tokio::time::timeout(Duration::from_secs(5), self.simulator.stop()).await.expect("the simulator did not stop");
    }
}

/// The clients need a TLS provider even where nothing is encrypted.
pub fn install_tls() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

/// Polls without the seconds that one leaves a real cloud.
fn at_once() -> ExponentialBackoff {
    let builder = ExponentialBackoffBuilder::new().with_initial_delay(Duration::from_millis(5));
    builder.with_maximum_delay(Duration::from_millis(20)).build().unwrap()
}

pub fn http_status(error: &Error) -> Option<u16> {
    error.http_status_code()
}

/// The classic reason, where the client puts it.
pub fn reason(error: &Error) -> Option<String> {
    error.status()?.details.iter().find_map(|detail| match detail {
        StatusDetails::ErrorInfo(info) => Some(info.reason.clone()),
        _ => None,
    })
}
