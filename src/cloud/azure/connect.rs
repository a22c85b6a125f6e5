//! The clients: endpoint, credentials, deadlines.

use std::{path::PathBuf, sync::Arc};

use azure_core::{ClientOptions, Pipeline, RetryOptions, TransportOptions, auth::TokenCredential};
use azure_identity::ClientSecretCredential;
use azure_mgmt_compute::package_2024_07_01 as compute;
use azure_mgmt_network::package_2024_03 as network;
use url::Url;

use super::{
    Azure, AzureSettings,
    credential::{Cached, ManagedIdentity, WorkloadIdentity},
    transport::{self, NoToken, Transport},
};
use crate::cloud::{CloudError, ErrorKind, endpoint::safe_endpoint};

const CONNECT: &str = "connect";

const ENDPOINT: &str = "https://management.azure.com";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// Where a machine of Azure asks about itself. Plain http, and answered on the machine.
const METADATA: &str = "http://169.254.169.254";

impl Azure {
    /// Makes the clients, once per process. Credentials are found in the environment: workload identity
    /// (`AZURE_FEDERATED_TOKEN_FILE`), else a client secret (`AZURE_CLIENT_SECRET`), else the managed identity of the
    /// machine, that of `AZURE_CLIENT_ID` where it names one. Nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is no URL, not safe or has a path, `Unauthenticated` for an environment that is
    /// half set.
    pub async fn connect(settings: &AzureSettings) -> Result<Azure, CloudError> {
        let chosen = choose(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .map_err(|why| CloudError::new(ErrorKind::Unauthenticated, CONNECT, why))?;
        Self::connect_as(settings, credential(settings, chosen)?).await
    }

    /// The same with this credential. The environment is the process's, so a process that speaks to several clouds at
    /// once, as tests do, cannot use it for each.
    ///
    /// # Errors
    /// As [`Azure::connect`].
    pub async fn connect_as(
        settings: &AzureSettings,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Azure, CloudError> {
        let endpoint = url(settings.endpoint.as_deref().unwrap_or(ENDPOINT), settings.allow_insecure)?;
        // The endpoint is the audience too: each sovereign cloud has its own, and takes no token for another's.
        let scope = format!("{}/.default", endpoint.as_str().trim_end_matches('/'));
        let transport = Transport::new(&endpoint, credential, scope, settings.timeout).map_err(not_built)?;
        let transport = Arc::new(transport);
        let options = ClientOptions::new(TransportOptions::new(transport.clone())).retry(RetryOptions::none());
        let nobody: Arc<dyn TokenCredential> = Arc::new(NoToken);
        Ok(Azure {
            network: network::Client::new(endpoint.clone(), nobody.clone(), Vec::new(), options.clone()),
            compute: compute::Client::new(endpoint.clone(), nobody, Vec::new(), options.clone()),
            pipeline: Pipeline::new(
                option_env!("CARGO_PKG_NAME"),
                option_env!("CARGO_PKG_VERSION"),
                options,
                Vec::new(),
                Vec::new(),
            ),
            transport,
            endpoint,
            timeout: settings.timeout,
            operation_timeout: settings.operation_timeout,
        })
    }
}

/// What the environment says about credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chosen {
    Workload { tenant: String, client: String, token_file: PathBuf },
    Secret { tenant: String, client: String, secret: String },
    Managed { client: Option<String>, host: Option<String> },
}

/// # Errors
/// Which variable is missing.
fn choose(variable: impl Fn(&str) -> Option<String>) -> Result<Chosen, String> {
    let with = |what: &str, name: &str| variable(name).ok_or_else(|| format!("{what} needs {name}"));
    if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
        let with = |name| with("workload identity (AZURE_FEDERATED_TOKEN_FILE)", name);
        let (tenant, client) = (with("AZURE_TENANT_ID")?, with("AZURE_CLIENT_ID")?);
        return Ok(Chosen::Workload { tenant, client, token_file: file.into() });
    }
    if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
        let with = |name| with("a client secret (AZURE_CLIENT_SECRET)", name);
        return Ok(Chosen::Secret { tenant: with("AZURE_TENANT_ID")?, client: with("AZURE_CLIENT_ID")?, secret });
    }
    // The name that Azure's other SDKs know for another address of the metadata service.
    let host = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    Ok(Chosen::Managed { client: variable("AZURE_CLIENT_ID"), host })
}

fn credential(settings: &AzureSettings, chosen: Chosen) -> Result<Arc<dyn TokenCredential>, CloudError> {
    let authority = || url(settings.authority.as_deref().unwrap_or(AUTHORITY), settings.allow_insecure);
    let plain = || transport::plain(settings.timeout).map_err(not_built);
    Ok(match chosen {
        Chosen::Workload { tenant, client, token_file } => {
            let source = WorkloadIdentity { http: plain()?, authority: authority()?, tenant, client, token_file };
            Arc::new(Cached::new(source))
        }
        Chosen::Secret { tenant, client, secret } => {
            let source = ClientSecretCredential::new(plain()?, authority()?, tenant, client, secret);
            Arc::new(Cached::new(source))
        }
        Chosen::Managed { client, host } => {
            let http = transport::direct(settings.timeout).map_err(not_built)?;
            let host = match host {
                Some(host) => url(&host, settings.allow_insecure)?,
                None => parse(METADATA)?,
            };
            Arc::new(Cached::new(ManagedIdentity { http, host, client }))
        }
    })
}

/// A server's address: safe, and without a path, which the crate would overwrite.
fn url(text: &str, allow_insecure: bool) -> Result<Url, CloudError> {
    let invalid = |why: String| CloudError::new(ErrorKind::Invalid, CONNECT, why);
    safe_endpoint(text, allow_insecure).map_err(invalid)?;
    let url = parse(text)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(format!("the endpoint \"{text}\" must be a host alone, without a path")));
    }
    Ok(url)
}

fn parse(text: &str) -> Result<Url, CloudError> {
    Url::parse(text).map_err(|error| CloudError::new(ErrorKind::Invalid, CONNECT, error.to_string()))
}

fn not_built(error: reqwest_for_azure::Error) -> CloudError {
    CloudError::new(ErrorKind::Invalid, CONNECT, format!("no HTTP client: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn chosen(variables: &[(&str, &str)]) -> Result<Chosen, String> {
        let find = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        choose(find)
    }

    #[test]
    fn the_environment_says_which_credentials() {
        let app = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        let with = |more: &[(&'static str, &'static str)]| chosen(&[&app, more].concat()).unwrap();
        let (tenant, client) = ("t".to_owned(), "c".to_owned());
        let secret = ("AZURE_CLIENT_SECRET", "s");
        assert_eq!(
            with(&[secret, ("AZURE_FEDERATED_TOKEN_FILE", "/f")]),
            Chosen::Workload { tenant: tenant.clone(), client: client.clone(), token_file: "/f".into() }
        );
        assert_eq!(with(&[secret]), Chosen::Secret { tenant, client: client.clone(), secret: "s".to_owned() });
        assert_eq!(with(&[]), Chosen::Managed { client: Some(client), host: None });
        assert_eq!(chosen(&[]).unwrap(), Chosen::Managed { client: None, host: None });
    }

    #[test]
    fn half_of_what_is_needed_is_said_so() {
        for given in ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET"] {
            let missing = chosen(&[(given, "x"), ("AZURE_TENANT_ID", "t")]).unwrap_err();
            assert!(missing.contains(given) && missing.contains("AZURE_CLIENT_ID"), "{missing}");
        }
    }

    fn settings(endpoint: &str) -> AzureSettings {
        AzureSettings {
            endpoint: Some(endpoint.to_owned()),
            authority: None,
            allow_insecure: false,
            timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn an_endpoint_with_a_path_is_refused_because_the_crate_would_overwrite_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connect = async |endpoint| Azure::connect_as(&settings(endpoint), Arc::new(NoToken)).await;
        assert!(connect("https://management.usgovcloudapi.net").await.is_ok());
        assert!(connect("http://127.0.0.1:1/").await.is_ok());
        for wrong in ["https://gateway.example.com/azure", "http://management.internal", "not a url"] {
            assert_eq!(connect(wrong).await.unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
        }
    }
}
