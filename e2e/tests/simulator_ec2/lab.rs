//! A simulator, and the real client with a key of the world pointed at it.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_ec2::{
    Client,
    config::{BehaviorVersion, Config, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::Filter,
};
use e2e::{simulator::Simulator, world::World};

use crate::description;

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "us-west-2";
pub const ZONE: &str = "us-west-2a";

pub struct Lab {
    pub world: World,
    pub simulator: Simulator,
}

impl Lab {
    pub async fn over(world: World) -> Self {
        let simulator = Simulator::start(world.clone()).await.unwrap();
        simulator.record();
        Self { world, simulator }
    }

    pub fn client(&self) -> Client {
        self.client_of(REGION, &self.world.issue_token().unwrap_or_else(|| "nobodys-key".to_owned()))
    }

    pub fn client_of(&self, region: &str, key: &str) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(self.simulator.endpoint())
            .credentials_provider(Credentials::new(key, "simulated-secret", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .build();
        Client::from_conf(config)
    }

    /// Ends the test: whatever was answered must be what AWS describes, and nothing impossible may have been.
    pub async fn finish(self) {
        let given = self.simulator.recorded();
        assert!(!given.is_empty(), "this test has called nothing");
        for answer in given {
            description::check_answer(answer.method, &answer.body);
        }
        assert_eq!(self.world.violations(), Vec::<String>::new());
        tokio::time::timeout(Duration::from_secs(5), self.simulator.stop()).await.expect("the simulator did not stop");
    }
}

pub fn filter(name: &str, values: &[&str]) -> Filter {
    Filter::builder().name(name).set_values(Some(values.iter().map(|value| (*value).to_owned()).collect())).build()
}

/// HTTP status and code.
pub fn told<E: ProvideErrorMetadata>(error: &SdkError<E>) -> (u16, String) {
    (error.raw_response().unwrap().status().as_u16(), error.code().unwrap_or_default().to_owned())
}
