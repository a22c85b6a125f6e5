//! The clients: endpoint, credentials, deadlines.

use std::net::IpAddr;

use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use google_cloud_compute_v1::client::{Addresses, Instances, ZoneOperations};
use google_cloud_gax::{
    client_builder,
    retry_policy::{Aip194Strict, RetryPolicyExt as _},
};
use url::{Host, Url};

use super::{Gcp, GcpSettings};
use crate::cloud::{CloudError, ErrorKind};

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
        let credentials = Builder::default()
            .build_access_token_credentials()
            .map_err(|error| CloudError::new(ErrorKind::Unauthenticated, CONNECT, error.to_string()))?;
        Self::connect_as(settings, credentials).await
    }

    /// The same with these credentials. Google's chain reads the process's environment, so a process that speaks to
    /// several clouds at once, as tests do, cannot use it for each.
    ///
    /// # Errors
    /// As [`Gcp::connect`].
    pub async fn connect_as(settings: &GcpSettings, credentials: AccessTokenCredentials) -> Result<Gcp, CloudError> {
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

async fn clients(settings: &GcpSettings, credentials: AccessTokenCredentials) -> client_builder::Result<Gcp> {
    // The three builders share their methods but no trait.
    macro_rules! client {
        ($client:ident) => {{
            let builder = $client::builder()
                .with_credentials(credentials.clone())
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

/// Tokens travel in clear over plain http: only within the machine, or where somebody said that it is meant.
fn safe_endpoint(endpoint: &str, allow_insecure: bool) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|error| format!("the endpoint \"{endpoint}\" is not a URL: {error}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(format!("the endpoint \"{endpoint}\" names no host")),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback || allow_insecure => Ok(()),
        "http" => Err(format!(
            "the endpoint \"{endpoint}\" is plain http outside loopback; use https or set ALLOW_INSECURE_ENDPOINT=true"
        )),
        scheme => Err(format!("the endpoint \"{endpoint}\" must be https, not {scheme}")),
    }
}

#[cfg(test)]
mod tests {
    use super::safe_endpoint;

    #[test]
    fn tokens_leave_the_machine_in_clear_only_when_somebody_said_so() {
        for safe in [
            "https://compute.googleapis.com",
            "https://10.0.0.8/",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080/prefix",
            "http://localhost:1",
        ] {
            assert_eq!(safe_endpoint(safe, false), Ok(()), "{safe}");
        }
        for unsafe_one in ["http://compute.internal", "http://10.0.0.8:80", "http://localhost.example.com"] {
            let refused = safe_endpoint(unsafe_one, false).unwrap_err();
            assert!(refused.contains("ALLOW_INSECURE_ENDPOINT"), "{refused}");
            assert_eq!(safe_endpoint(unsafe_one, true), Ok(()), "{unsafe_one}");
        }
    }

    #[test]
    fn an_endpoint_is_a_web_address() {
        for wrong in ["compute.googleapis.com", "", "ftp://127.0.0.1/", "https://"] {
            assert!(safe_endpoint(wrong, true).is_err(), "{wrong}");
        }
    }
}
