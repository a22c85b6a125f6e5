//! The clouds' HTTP APIs over a [`World`], on a free loopback port, so that the real SDK clients can be tested.
//!
//! What it does and what it does not do: `simulator/README.md`.

pub mod arm;
pub mod ec2;
pub mod gce;
mod metadata;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::world::World;

/// A well answer that a façade has given: method id as in the provider's own description, and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub method: &'static str,
    pub body: Value,
}

/// Keeps the well answers, when asked to; a benchmark would only fill its memory with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Option<Vec<Given>>>>);

impl Recorder {
    fn start(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    pub(crate) fn note(&self, method: &'static str, body: &Value) {
        if let Some(given) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            given.push(Given { method, body: body.clone() });
        }
    }

    fn all(&self) -> Vec<Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}

/// A running simulator. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    desk: arm::Desk,
    recorder: Recorder,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Serves the world on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(world: World) -> io::Result<Self> {
        Self::start_at(world, (std::net::Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Serves the world there.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start_at(world: World, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (recorder, stop, tasks) = (Recorder::default(), CancellationToken::new(), TaskTracker::new());
        let desk = arm::Desk::default();
        let routes = wire::routes(world, desk.clone(), recorder.clone());
        tasks.spawn(wire::serve(listener, routes, stop.clone(), tasks.clone()));
        tasks.close();
        Ok(Self { address, desk, recorder, stop, tasks })
    }

    /// For `GOOGLE_COMPUTE_CUSTOM_ENDPOINT`, `AWS_ENDPOINT_URL`, `AZURE_RESOURCE_MANAGER_ENDPOINT` and
    /// `AZURE_AUTHORITY_HOST`, for example `http://127.0.0.1:40123`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `GCE_METADATA_HOST`: the metadata server that issues the tokens which the API asks for.
    pub fn metadata_host(&self) -> String {
        self.address.to_string()
    }

    /// For `AWS_CONTAINER_CREDENTIALS_FULL_URI`: the agent of EKS Pod Identity.
    pub fn pod_identity_uri(&self) -> String {
        format!("{}/pod-identity/v1/credentials", self.endpoint())
    }

    /// What only the façade of Azure has.
    pub fn azure(&self) -> &arm::Desk {
        &self.desk
    }

    /// Keeps every well answer from now on.
    pub fn record(&self) {
        self.recorder.start();
    }

    /// The answers kept so far.
    pub fn recorded(&self) -> Vec<Given> {
        self.recorder.all()
    }

    /// Stops, and waits until the last connection is closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
