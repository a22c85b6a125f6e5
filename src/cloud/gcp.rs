//! Google Cloud: reserved external addresses on the primary interfaces of Compute Engine machines.
//!
//! Knows the Compute API and nothing of Kubernetes. By idea: `connect` makes the clients, `credentials` replaces
//! those that are refused, `translate` turns the SDK's
//! words into ours, `read` asks, `swap` decides and changes, `operation` sends one change and waits for its end,
//! `errors` classifies, `check` is the self-test, `heard` listens to what goes over the wire.
//!
//! What is particular here:
//! - An interface has at most one access config, and its address cannot be edited: a change is a delete and an add,
//!   never atomic. A crash between the two leaves the interface empty; repeating the order repairs that.
//! - A delete goes by the name of the access config, so each one that we add has a name of its own, made from the
//!   operation id: a delete that lands late then hits nothing (F7).
//! - A change answers with an operation. It is over when that is done, and it has succeeded only if that carries no error.

mod check;
mod connect;
mod credentials;
mod errors;
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
pub mod heard;
mod operation;
mod read;
mod swap;
mod translate;

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use google_cloud_compute_v1::client::{Addresses, Instances, ZoneOperations};

use self::credentials::Credentials;
use super::{
    Attach, Cloud, CloudError, Detach, Finding, ProviderId, Restore, Restored, Scope, Seat, Survey, Verified,
    Whereabouts,
};

/// How to reach Compute Engine.
#[derive(Clone, Debug)]
pub struct GcpSettings {
    /// Instead of `https://compute.googleapis.com`: a private endpoint, another universe or the simulator.
    pub endpoint: Option<String>,
    /// Accept a plain-http endpoint outside loopback.
    pub allow_insecure: bool,
    /// The longest that one request may take, credentials included.
    pub timeout: Duration,
    /// The longest to wait for a change that the cloud has accepted, and for a survey of many pages.
    pub operation_timeout: Duration,
}

/// Compute Engine, over all projects that the credentials reach. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gcp {
    addresses: Addresses,
    instances: Instances,
    operations: ZoneOperations,
    credentials: Credentials,
    timeout: Duration,
    operation_timeout: Duration,
}

#[async_trait]
impl Cloud for Gcp {
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
