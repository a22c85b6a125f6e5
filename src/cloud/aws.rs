//! AWS: Elastic IP addresses on the primary interfaces of EC2 instances.
//!
//! Knows the EC2 API and nothing of Kubernetes. By idea: `connect` makes the clients, `translate` and `instance` turn the
//! SDK's words into ours, `read` asks, `swap` decides and changes, `restore` gives back, `recent` remembers what the cloud
//! does not show yet, `errors` classifies, `check` is the self-test, `heard` listens to what goes over the
//! wire.
//!
//! What is particular here:
//! - An association is one call, answered when it is done; it takes the place of whatever sits on the interface, **without
//!   a word**, and by default takes the address from another instance too. So the interface is read first, and no request
//!   may re-associate.
//! - An address is taken off by the id of its association, which no later association shares: a request that lands late
//!   hits nothing (F7).
//! - Reads lag behind changes by some seconds. The answer to a change is the truth (R3); what this process has changed
//!   itself is laid over what it reads before the next change. Surveys, `find` and `inspect` stay as the cloud shows them:
//!   the core does not count them for so long (R1).
//! - An instance with one interface gets an address of its own again by itself, within minutes; one with several does not.

mod check;
mod connect;
mod errors;
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod heard;
mod instance;
mod read;
mod recent;
mod restore;
mod swap;
mod translate;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;

use self::recent::Recent;
use super::{
    Attach, Cloud, CloudError, Detach, Finding, ProviderId, Restore, Restored, Scope, Seat, Survey, Verified,
    Whereabouts,
};

/// How to reach EC2.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// Instead of `https://ec2.REGION.amazonaws.com`, for every region: a private endpoint or the simulator.
    pub endpoint: Option<String>,
    /// Accept a plain-http endpoint outside loopback.
    pub allow_insecure: bool,
    /// The longest that one request may take, credentials included.
    pub timeout: Duration,
    /// The longest that a question of many requests may take: an address that is looked for in every region.
    pub operation_timeout: Duration,
}

/// EC2, over all regions that the credentials reach. Cheap to clone; clones share what they remember.
#[derive(Clone, Debug)]
pub struct Aws {
    shared: Arc<Shared>,
    endpoint: Option<String>,
    timeout: Duration,
    operation_timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    config: SdkConfig,
    /// By region; each is made when it is first needed.
    clients: Mutex<BTreeMap<String, Client>>,
    recent: Mutex<Recent>,
}

#[async_trait]
impl Cloud for Aws {
    async fn survey(&self, scope: &Scope) -> Result<Survey, CloudError> {
        self.read_survey(scope).await
    }

    async fn find(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        self.read_whereabouts(scope, address).await
    }

    async fn inspect(&self, machine: &ProviderId) -> Result<Seat, CloudError> {
        self.read_seat(machine).await
    }

    async fn attach(&self, order: &Attach) -> Result<Verified, CloudError> {
        self.put_on(order).await
    }

    async fn detach(&self, order: &Detach) -> Result<Verified, CloudError> {
        self.take_off(order).await
    }

    async fn restore(&self, order: &Restore) -> Result<Restored, CloudError> {
        self.give_back(order).await
    }

    async fn check(&self, scope: &Scope) -> Vec<Finding> {
        self.self_test(scope).await
    }
}
