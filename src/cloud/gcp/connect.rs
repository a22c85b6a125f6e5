//! The clients: endpoint, credentials, deadlines.

use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use google_cloud_compute_v1::client::{Addresses, Instances, ZoneOperations};
use google_cloud_gax::{
    client_builder,
    retry_policy::{Aip194Strict, RetryPolicyExt as _},
};

use super::{
    Gcp, GcpSettings,
    credentials::{Credentials, Found},
};
use crate::cloud::{CloudError, ErrorKind, endpoint::safe_endpoint};

const CONNECT: &str = "connect";

/// A read may be sent this often within its one deadline; a change is sent once (see `operation`).
const READ_ATTEMPTS: u32 = 3;

impl Gcp {
    /// Makes the clients, once per process. Credentials are found by Google's own chain
    /// (`GOOGLE_APPLICATION_CREDENTIALS`, the well-known file, then the metadata server), whatever the endpoint.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is no URL or not safe, `Unauthenticated` when no credentials are found, `Timeout`
    /// when the metadata server does not answer.
    pub async fn connect(settings: &GcpSettings) -> Result<Gcp, CloudError> {
        Self::with(settings, || Builder::default().build_access_token_credentials()).await
    }

    /// The same with these credentials, also when they are refused. Google's chain reads the process's environment, so a process that speaks to
    /// several clouds at once, as tests do, cannot use it for each.
    ///
    /// # Errors
    /// As [`Gcp::connect`].
    pub async fn connect_as(settings: &GcpSettings, credentials: AccessTokenCredentials) -> Result<Gcp, CloudError> {
        Self::with(settings, move || Ok(credentials.clone())).await
    }

    async fn with(settings: &GcpSettings, find: impl Fn() -> Found + Send + Sync + 'static) -> Result<Gcp, CloudError> {
        let credentials = Credentials::found_by(find)
            .map_err(|error| CloudError::new(ErrorKind::Unauthenticated, CONNECT, error.to_string()))?;
        if let Some(endpoint) = &settings.endpoint {
            safe_endpoint(endpoint, settings.allow_insecure)
                .map_err(|why| CloudError::new(ErrorKind::Invalid, CONNECT, why))?;
        }
        // Building asks the credentials for their universe, that is to say the metadata server, without a deadline.
        tokio::time::timeout(settings.operation_timeout, clients(settings, credentials))
            .await
            .map_err(|_| CloudError::new(ErrorKind::Timeout, CONNECT, "the credentials' source does not answer"))?
            .map_err(not_built)
    }
}

async fn clients(settings: &GcpSettings, credentials: Credentials) -> client_builder::Result<Gcp> {
    // The three builders share their methods but no trait.
    macro_rules! client {
        ($client:ident) => {{
            let builder = $client::builder()
                .with_credentials(credentials.clone())
                // By spans of its own the client says what went over the wire: see `heard`.
                .with_tracing()
                .with_attempt_timeout(settings.timeout)
                .with_retry_policy(Aip194Strict.with_attempt_limit(READ_ATTEMPTS).with_time_limit(settings.timeout));
            match &settings.endpoint {
                Some(endpoint) => builder.with_endpoint(endpoint.as_str()),
                None => builder,
            }
            .build()
            .await?
        }};
    }
    Ok(Gcp {
        addresses: client!(Addresses),
        instances: client!(Instances),
        operations: client!(ZoneOperations),
        credentials,
        timeout: settings.timeout,
        operation_timeout: settings.operation_timeout,
    })
}

fn not_built(error: client_builder::Error) -> CloudError {
    let kind = if error.is_default_credentials() || error.is_universe_domain_mismatch() {
        ErrorKind::Unauthenticated
    } else {
        ErrorKind::Invalid
    };
    CloudError::new(kind, CONNECT, error.to_string())
}
