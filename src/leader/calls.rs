//! The Lease on the server: read, create, replace, watch; each call bounded in time and its failure put into one of
//! three words.
//!
//! Knows no rule of the election. Needs the verbs get, create, update and watch on `leases`; no list, because
//! permissions are bound to the Lease's name.

use std::{future::Future, time::Duration};

use futures::{StreamExt, TryStreamExt, future, stream::BoxStream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{PostParams, WatchEvent, WatchParams},
};
use tokio::time::timeout;

use super::LeaseConfig;

/// How a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server has another version than the one that was decided on.
    #[error("the Lease was changed meanwhile")]
    Conflict,
    /// There is no such Lease.
    #[error("the Lease does not exist")]
    Missing,
    /// Anything else. A write that ends so may still have been done.
    #[error("{0}")]
    Failed(String),
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Conflict,
            kube::Error::Api(status) if status.is_not_found() => Self::Missing,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Signs of change from the server; an item means "read again".
pub(super) type Changes = BoxStream<'static, ()>;

/// One Lease, reached with one client.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    api: Api<Lease>,
    name: String,
    limit: Duration,
}

impl Calls {
    pub(super) fn new(client: Client, config: &LeaseConfig) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            name: config.name.clone(),
            limit: config.retry_period(),
        }
    }

    /// `None` when there is no Lease.
    pub(super) async fn read(&self) -> Result<Option<Lease>, CallError> {
        self.bounded(self.api.get_opt(&self.name)).await
    }

    pub(super) async fn create(&self, lease: &Lease) -> Result<Lease, CallError> {
        self.bounded(self.api.create(&PostParams::default(), lease)).await
    }

    /// Compare-and-swap on the resourceVersion that `lease` carries.
    pub(super) async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        self.bounded(self.api.replace(&self.name, &PostParams::default(), lease)).await
    }

    /// Every change after `version`, until the server ends the stream. Deliberately not kube's `watcher`, which begins
    /// with a list.
    pub(super) async fn changes(&self, version: &str) -> Result<Changes, CallError> {
        let one = WatchParams::default().fields(&format!("metadata.name={}", self.name)).disable_bookmarks();
        let events = self.bounded(self.api.watch(&one, version)).await?;
        Ok(events
            // A failed stream is an ended one: the tick goes on reading, and a new stream is opened from there.
            .into_stream()
            .take_while(|event| future::ready(!matches!(event, Err(_) | Ok(WatchEvent::Error(_)))))
            .map(|_| ())
            .boxed())
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        match timeout(self.limit, call).await {
            Ok(answer) => answer.map_err(CallError::from),
            Err(_) => Err(CallError::Failed(format!("no answer within {:?}", self.limit))),
        }
    }
}
