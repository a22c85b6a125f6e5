//! From settings to clouds, each connected when something first asks for it: an operator that serves one cloud needs the
//! credentials of no other.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    Cloud, CloudError, Provider,
    aws::{Aws, AwsSettings},
    azure::{Azure, AzureSettings},
    gcp::{Gcp, GcpSettings},
    metered::{self, Metered},
};

/// How to reach the clouds. Credentials are found by each cloud's own chain.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// The longest that one request may take, credentials included.
    pub timeout: Duration,
    /// The longest to wait for a change that the cloud has accepted, and for a survey of many pages.
    pub operation_timeout: Duration,
    /// Accept plain-http endpoints outside loopback.
    pub allow_insecure: bool,
    /// Instead of each cloud's own: a private endpoint, a sovereign cloud or the simulator.
    pub gcp_endpoint: Option<String>,
    pub aws_endpoint: Option<String>,
    pub azure_endpoint: Option<String>,
    /// Where Azure tokens are had.
    pub azure_authority: Option<String>,
}

/// Connects one cloud, once.
///
/// # Errors
/// `Unauthenticated` when no credentials are found, `Invalid` for an endpoint that is no URL or not safe, `Timeout` when
/// the source of the credentials does not answer.
pub async fn connect(provider: Provider, settings: &CloudSettings) -> Result<Arc<dyn Cloud>, CloudError> {
    let CloudSettings { timeout, operation_timeout, allow_insecure, .. } = *settings;
    Ok(match provider {
        Provider::Gcp => {
            let endpoint = settings.gcp_endpoint.clone();
            let settings = GcpSettings { endpoint, allow_insecure, timeout, operation_timeout };
            Arc::new(Metered::new(provider, Gcp::connect(&settings).await?))
        }
        Provider::Aws => {
            let endpoint = settings.aws_endpoint.clone();
            let settings = AwsSettings { endpoint, allow_insecure, timeout, operation_timeout };
            Arc::new(Metered::new(provider, Aws::connect(&settings).await?))
        }
        Provider::Azure => {
            let (endpoint, authority) = (settings.azure_endpoint.clone(), settings.azure_authority.clone());
            let settings = AzureSettings { endpoint, authority, allow_insecure, timeout, operation_timeout };
            Arc::new(Metered::new(provider, Azure::connect(&settings).await?))
        }
    })
}

/// A connection under way.
type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Cloud>, CloudError>> + Send>>;

/// The clouds of this process. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Clouds {
    connect: Arc<dyn Fn(Provider) -> Connecting + Send + Sync>,
    /// How long to wait after so many failures in a row.
    pause: fn(u32) -> Duration,
    /// Called when a cloud is there, or could not be connected.
    arrived: Arc<dyn Fn() + Send + Sync>,
    stop: CancellationToken,
    links: Arc<Mutex<HashMap<Provider, Link>>>,
}

enum Link {
    /// With what went wrong last.
    Connecting(Option<CloudError>),
    Connected(Arc<dyn Cloud>),
}

impl fmt::Debug for Clouds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clouds")
    }
}

impl Clouds {
    /// None is connected yet. A failed attempt is repeated after `pause` of the failures in a row, for ever.
    pub fn new(
        settings: CloudSettings,
        pause: fn(u32) -> Duration,
        arrived: Arc<dyn Fn() + Send + Sync>,
        stop: CancellationToken,
    ) -> Self {
        let connect = move |provider| -> Connecting {
            let settings = settings.clone();
            Box::pin(async move { connect(provider, &settings).await })
        };
        Self { connect: Arc::new(connect), pause, arrived, stop, links: Arc::default() }
    }

    /// The cloud, or `None` while it is being connected: for as long as that takes, because a cloud's metadata server may
    /// refuse in a node's first seconds. The first to ask begins it.
    pub fn get(&self, provider: Provider) -> Option<Arc<dyn Cloud>> {
        let mut links = self.lock();
        match links.get(&provider) {
            Some(Link::Connected(cloud)) => return Some(cloud.clone()),
            Some(Link::Connecting(_)) => return None,
            None => links.insert(provider, Link::Connecting(None)),
        };
        drop(links);
        let clouds = self.clone();
        tokio::spawn(async move {
            let stop = clouds.stop.clone();
            stop.run_until_cancelled(clouds.keep_connecting(provider)).await;
        });
        None
    }

    /// Why [`Clouds::get`] has none, if that is known.
    pub fn failure(&self, provider: Provider) -> Option<CloudError> {
        match self.lock().get(&provider) {
            Some(Link::Connecting(failure)) => failure.clone(),
            Some(Link::Connected(_)) | None => None,
        }
    }

    async fn keep_connecting(&self, provider: Provider) {
        let mut attempts: u32 = 0;
        loop {
            match metered::connecting(provider, (self.connect)(provider)).await {
                Ok(cloud) => {
                    tracing::info!(%provider, "connected");
                    self.lock().insert(provider, Link::Connected(cloud));
                    (self.arrived)();
                    return;
                }
                Err(error) => {
                    attempts = attempts.saturating_add(1);
                    tracing::warn!(%provider, %error, remedy = error.kind.remedy(), attempts, "connecting failed, trying again");
                    self.lock().insert(provider, Link::Connecting(Some(error)));
                    (self.arrived)();
                    tokio::time::sleep((self.pause)(attempts)).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Provider, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::cloud::{
        Attach, Detach, ErrorKind, Finding, ProviderId, Restore, Restored, Scope, Seat, Survey, Verified, Whereabouts,
    };

    struct Silent;

    #[async_trait::async_trait]
    impl Cloud for Silent {
        async fn survey(&self, _: &Scope) -> Result<Survey, CloudError> {
            std::future::pending().await
        }
        async fn find(&self, _: &Scope, _: std::net::IpAddr) -> Result<Whereabouts, CloudError> {
            std::future::pending().await
        }
        async fn inspect(&self, _: &ProviderId) -> Result<Seat, CloudError> {
            std::future::pending().await
        }
        async fn attach(&self, _: &Attach) -> Result<Verified, CloudError> {
            std::future::pending().await
        }
        async fn detach(&self, _: &Detach) -> Result<Verified, CloudError> {
            std::future::pending().await
        }
        async fn restore(&self, _: &Restore) -> Result<Restored, CloudError> {
            std::future::pending().await
        }
        async fn check(&self, _: &Scope) -> Vec<Finding> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_is_connected_when_it_is_first_asked_for_and_tried_until_it_is_there() {
        let tries = Arc::new(AtomicUsize::new(0));
        let news = Arc::new(Notify::new());
        let (counted, told) = (tries.clone(), news.clone());
        let clouds = Clouds {
            connect: Arc::new(move |provider| {
                assert_eq!(provider, Provider::Aws, "nobody asked for another");
                let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
                Box::pin(async move {
                    let refused = CloudError::new(ErrorKind::Unauthenticated, "connect", "no credentials");
                    if first { Err(refused) } else { Ok(Arc::new(Silent) as Arc<dyn Cloud>) }
                })
            }),
            pause: |attempts| Duration::from_secs(attempts.into()),
            arrived: Arc::new(move || told.notify_one()),
            stop: CancellationToken::new(),
            links: Arc::default(),
        };
        assert!(clouds.get(Provider::Aws).is_none() && clouds.get(Provider::Aws).is_none());
        news.notified().await;
        assert_eq!(clouds.failure(Provider::Aws).map(|error| error.kind), Some(ErrorKind::Unauthenticated));
        news.notified().await;
        assert!(clouds.get(Provider::Aws).is_some());
        assert!(clouds.failure(Provider::Aws).is_none());
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    }
}
