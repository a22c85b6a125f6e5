//! The clients: endpoint, credentials, deadlines.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, ConfigLoader, SdkConfig, environment::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider, retry::RetryConfig,
};
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::{
    Client,
    config::{Builder, Config, IdentityCache, Region},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::{Aws, AwsSettings, Shared, heard::Heard, recent::Recent};
use crate::cloud::{CloudError, ErrorKind, endpoint::safe_endpoint};

const CONNECT: &str = "connect";

/// A read may be sent this often within its one deadline; a change is sent once.
const READ_ATTEMPTS: u32 = 3;
const READ_BACKOFF: Duration = Duration::from_millis(200);

/// Where credentials are asked for when nobody says a region. EKS says one to each pod that it gives a role.
const CREDENTIALS_REGION: &str = "us-east-1";

impl Aws {
    /// Makes what the clients share, once per process. Credentials are found by AWS's own chain, when they are first
    /// needed: environment, profile, web identity (IRSA), container (EKS Pod Identity), instance metadata.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is no URL or not safe, `Timeout` when the configuration cannot be read in time.
    pub async fn connect(settings: &AwsSettings) -> Result<Aws, CloudError> {
        Self::load(settings, defaults()).await
    }

    /// The same with these credentials. AWS's chain reads the process's environment, so a process that speaks to several
    /// clouds at once, as tests do, cannot use it for each.
    ///
    /// # Errors
    /// As [`Aws::connect`].
    pub async fn connect_as(
        settings: &AwsSettings,
        credentials: impl ProvideCredentials + 'static,
    ) -> Result<Aws, CloudError> {
        Self::load(settings, defaults().credentials_provider(credentials)).await
    }

    async fn load(settings: &AwsSettings, loader: ConfigLoader) -> Result<Aws, CloudError> {
        let config = tokio::time::timeout(settings.operation_timeout, loader.load())
            .await
            .map_err(|_| CloudError::new(ErrorKind::Timeout, CONNECT, "the AWS configuration is not read in time"))?;
        // A profile may name an endpoint too.
        for endpoint in settings.endpoint.as_deref().into_iter().chain(config.endpoint_url()) {
            safe_endpoint(endpoint, settings.allow_insecure)
                .map_err(|why| CloudError::new(ErrorKind::Invalid, CONNECT, why))?;
        }
        let shared = Shared { config, clients: Mutex::default(), recent: Mutex::new(Recent::default()) };
        Ok(Aws {
            shared: Arc::new(shared),
            endpoint: settings.endpoint.clone(),
            timeout: settings.timeout,
            operation_timeout: settings.operation_timeout,
        })
    }

    /// The client of a region. It sends everything once; reads are told otherwise one by one.
    pub(super) fn client(&self, region: &str) -> Client {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client =
            clients.entry(region.to_owned()).or_insert_with(|| regional(&self.shared.config, region, &self.endpoint));
        client.clone()
    }

    /// What was answered; credentials that were refused are not used again. The SDK keeps them until they end, whatever the
    /// cloud says of them: the next client asks for others.
    pub(super) fn believed<T>(&self, answer: Result<T, CloudError>) -> Result<T, CloudError> {
        answer.inspect_err(|error| {
            if error.kind == ErrorKind::Unauthenticated {
                self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        })
    }

    pub(super) fn config(&self) -> &SdkConfig {
        &self.shared.config
    }

    /// What this process has changed itself.
    pub(super) fn recent<T>(&self, with: impl FnOnce(&mut Recent) -> T) -> T {
        with(&mut self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Nothing but the chain of credentials looks at the region here; it is never asked of the instance's metadata, which
/// pods often cannot reach.
fn defaults() -> ConfigLoader {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::from_static(CREDENTIALS_REGION));
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(region)
}

fn regional(shared: &SdkConfig, region: &str, endpoint: &Option<String>) -> Client {
    let mut builder = Builder::from(shared)
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .identity_cache(IdentityCache::lazy().build())
        .interceptor(Heard);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Client::from_conf(builder.build())
}

/// For reads: sent again when the cloud is away for a moment.
pub(super) fn repeated() -> Builder {
    Config::builder()
        .retry_config(RetryConfig::standard().with_max_attempts(READ_ATTEMPTS).with_initial_backoff(READ_BACKOFF))
}
