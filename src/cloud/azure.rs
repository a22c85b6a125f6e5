//! Azure: reserved public addresses on the primary network interfaces of virtual machines.
//!
//! Knows Azure Resource Manager and nothing of Kubernetes. By idea: `connect` makes the clients, `credential` gets tokens,
//! `transport` carries requests, `ids` reads names, `translate` turns the SDK's words into ours, `read` asks, `interface`
//! edits one interface, `operation` sends that and waits for its end, `swap` decides, `errors` classifies, `check` is the
//! self-test with `permissions` under it.
//!
//! What is particular here:
//! - An address is put on an interface by writing the whole interface (a full replace). So it is read as it came, edited in
//!   one place and written back with everything that it had, also what no SDK knows, and only if nobody has changed it since
//!   (`If-Match`): AKS edits the same interfaces. A write that lands late hits nothing.
//! - A machine has no address of its own: what its interface has is somebody's, and is left alone.
//! - A write answers with an operation. It is over when that says so, and it is believed when interface and address show it.

mod check;
mod connect;
mod credential;
mod errors;
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod ids;
mod interface;
mod operation;
mod permissions;
mod read;
mod swap;
mod translate;
mod transport;

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::Pipeline;
use azure_mgmt_compute::package_2024_07_01 as compute;
use azure_mgmt_network::package_2024_03 as network;
use url::Url;

use self::transport::Transport;
use super::{
    Attach, Cloud, CloudError, Detach, Finding, ProviderId, Restore, Restored, Scope, Seat, Survey, Verified,
    Whereabouts,
};

/// How to reach Azure Resource Manager.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// Instead of `https://management.azure.com`: a sovereign cloud or the simulator. Tokens are asked for this very
    /// audience, so it has to be the cloud's own name of itself. Without a path.
    pub endpoint: Option<String>,
    /// Instead of `https://login.microsoftonline.com`: where tokens come from.
    pub authority: Option<String>,
    /// Accept plain-http endpoints outside loopback.
    pub allow_insecure: bool,
    /// The longest that one request may take, credentials included.
    pub timeout: Duration,
    /// The longest to wait for a change that the cloud has accepted, and for a survey of many pages.
    pub operation_timeout: Duration,
}

/// Azure, over all subscriptions that the credentials reach. Cheap to clone.
#[derive(Clone)]
pub struct Azure {
    network: network::Client,
    compute: compute::Client,
    /// For what has to keep fields that no SDK knows, and for what the two SDKs do not have.
    pipeline: Pipeline,
    transport: Arc<Transport>,
    endpoint: Url,
    timeout: Duration,
    operation_timeout: Duration,
}

impl std::fmt::Debug for Azure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Azure").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Cloud for Azure {
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
