//! The way to the servers: connections that are kept, a deadline, one send, and errors that say what was said.
//!
//! The crate's own transport has no deadline and makes a new connection for each request. Its log line of a request at
//! level debug shows the `Authorization` header in clear; so the clients get a credential that knows nothing
//! ([`NoToken`]), and the token is put on here, behind that line.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    HttpClient, Request, Response,
    auth::{AccessToken, TokenCredential},
    error::{Error, ErrorKind},
    headers::{AUTHORIZATION, HeaderName, Headers, RETRY_AFTER},
};
use reqwest_for_azure::{Client, redirect, retry};
use serde_json::Value;
use time::OffsetDateTime;
use url::{Origin, Url};

use crate::cloud::request::exchange;

/// The cloud's own id of a request; its support asks for it.
const REQUEST_ID: &str = "azure.service.request.id";

/// To find out within a request's deadline that a server is away, and to know that nothing has left.
const CONNECT: Duration = Duration::from_secs(5);
/// Shorter than what load balancers allow an idle connection.
const IDLE: Duration = Duration::from_secs(60);

/// A plain client: for the sources of tokens.
pub(super) fn plain(timeout: Duration) -> Result<Arc<dyn HttpClient>, reqwest_for_azure::Error> {
    Ok(Arc::new(Plain(builder(timeout).build()?)))
}

/// The same without a proxy, for the metadata service: it is reached on the machine itself.
pub(super) fn direct(timeout: Duration) -> Result<Arc<dyn HttpClient>, reqwest_for_azure::Error> {
    Ok(Arc::new(Plain(builder(timeout).no_proxy().build()?)))
}

fn builder(timeout: Duration) -> reqwest_for_azure::ClientBuilder {
    Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT.min(timeout))
        .pool_idle_timeout(IDLE)
        // One check, one send (F1): nothing may send a second time, and nothing may lead a token elsewhere.
        .retry(retry::never())
        .redirect(redirect::Policy::none())
}

/// Every answer that is no success becomes an error with a [`Refused`] in it.
#[derive(Debug)]
struct Plain(Client);

#[async_trait]
impl HttpClient for Plain {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<Response> {
        let response = HttpClient::execute_request(&self.0, request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers, body) = response.deconstruct();
        // Without its body it is still an answer.
        let body = body.collect().await.unwrap_or_default();
        let refused = Refused::read(u16::from(status), &headers, &body);
        Err(Error::new(ErrorKind::HttpResponse { status, error_code: refused.code.clone() }, refused))
    }
}

/// The client for Azure Resource Manager: puts the token on, and takes it to one host alone.
#[derive(Debug)]
pub(super) struct Transport {
    plain: Plain,
    home: Origin,
    credential: Arc<dyn TokenCredential>,
    scope: String,
}

impl Transport {
    pub fn new(
        endpoint: &Url,
        credential: Arc<dyn TokenCredential>,
        scope: String,
        timeout: Duration,
    ) -> Result<Self, reqwest_for_azure::Error> {
        Ok(Self { plain: Plain(builder(timeout).build()?), home: endpoint.origin(), credential, scope })
    }

    /// A token, from the credential's cache if that has one.
    pub async fn token(&self) -> azure_core::Result<AccessToken> {
        self.credential.get_token(&[&self.scope]).await.map_err(|error| Error::new(ErrorKind::Credential, error))
    }

    /// Whether the token may go there.
    pub fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.home
    }
}

#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<Response> {
        // Links to further pages and to operations are absolute, and come from an answer.
        if !self.is_home(request.url()) {
            return Err(Error::new(ErrorKind::Other, Elsewhere(host(request.url()))));
        }
        let token = self.token().await?;
        let mut request = request.clone();
        request.insert_header(AUTHORIZATION, format!("Bearer {}", token.token.secret()));
        exchange::sent(request.method().as_ref(), request.url().host_str());
        let answer = self.plain.execute_request(&request).await;
        match &answer {
            Ok(response) => answered(u16::from(response.status()), request_id(response.headers()).as_deref()),
            // Without a status nothing has come back.
            Err(error) => {
                if let Some(refused) = find::<Refused>(error) {
                    answered(refused.status, refused.request_id.as_deref());
                }
            }
        }
        if answer.as_ref().is_err_and(|error| find::<Refused>(error).is_some_and(|refused| refused.status == 401)) {
            // Revoked, or of a time before the identity was changed: the next call asks for another one.
            self.credential.clear_cache().await?;
        }
        answer
    }
}

fn answered(status: u16, id: Option<&str>) {
    exchange::answered(status, id.map(|id| (REQUEST_ID, id)));
}

fn request_id(headers: &Headers) -> Option<String> {
    headers.get_optional_string(&HeaderName::from_static("x-ms-request-id"))
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or("no host").to_owned()
}

/// Stands where the clients want a credential; see the top of this file.
#[derive(Debug)]
pub(super) struct NoToken;

#[async_trait]
impl TokenCredential for NoToken {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("put-on-by-the-transport", OffsetDateTime::now_utc() + Duration::from_secs(3600)))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

/// A link leads to another host than the endpoint's: not followed, the token would go with it.
#[derive(Debug, thiserror::Error)]
#[error("the answer leads to another host, {0}, where the token must not go")]
pub(super) struct Elsewhere(String);

/// What a server said that refused: Azure Resource Manager, Microsoft Entra ID or the metadata service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTP status {status}: {message}")]
pub(super) struct Refused {
    pub status: u16,
    pub code: Option<String>,
    pub message: String,
    /// The codes under `details`.
    pub details: Vec<String>,
    /// Not waited for here: the queue backs off by itself.
    pub retry_after: Option<Duration>,
    /// The cloud's own id of the request.
    pub request_id: Option<String>,
}

impl Refused {
    pub fn read(status: u16, headers: &Headers, body: &[u8]) -> Self {
        let (retry_after, request_id) = (retry_after(headers), request_id(headers));
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let error = body.get("error").unwrap_or(&body);
        let (code, message, details) = match error {
            // OAuth: `{"error": "invalid_client", "error_description": "AADSTS700024: … Trace ID: …"}`.
            Value::String(code) => (Some(code.clone()), text(&body, "error_description"), Vec::new()),
            _ => {
                let details = error.get("details").and_then(Value::as_array);
                let codes = details.into_iter().flatten().filter_map(|detail| text(detail, "code")).collect();
                (text(error, "code"), text(error, "message"), codes)
            }
        };
        let message = message.unwrap_or_default();
        Self { status, code, message, details, retry_after, request_id }
    }
}

/// Seconds; a date is not understood, and then the caller's own pace holds.
pub(super) fn retry_after(headers: &Headers) -> Option<Duration> {
    headers.get_optional_str(&RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// The first error of this type in the chain.
pub(super) fn find<T: StdError + 'static>(error: &Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: u16, body: Value) -> Refused {
        Refused::read(status, &Headers::new(), body.to_string().as_bytes())
    }

    #[test]
    fn a_refusal_says_code_message_and_the_codes_of_its_details() {
        let refused = read(
            400,
            json!({"error": {"code": "InvalidRequestContent", "message": "no", "details": [{"code": "PublicIPAddressInUse"}]}}),
        );
        assert_eq!(refused.code.as_deref(), Some("InvalidRequestContent"));
        assert_eq!((refused.message.as_str(), refused.details), ("no", vec!["PublicIPAddressInUse".to_owned()]));
    }

    #[test]
    fn a_refusal_of_the_token_service_is_read_too() {
        let refused = read(401, json!({"error": "invalid_client", "error_description": "AADSTS700024: expired"}));
        assert_eq!(
            (refused.code.as_deref(), refused.message.as_str()),
            (Some("invalid_client"), "AADSTS700024: expired")
        );
    }

    #[test]
    fn a_refusal_that_is_no_json_is_one_all_the_same() {
        let refused = Refused::read(502, &Headers::new(), b"<html>");
        assert_eq!((refused.status, refused.code, refused.message.as_str()), (502, None, ""));
    }

    #[test]
    fn what_is_to_be_waited_for_is_told() {
        let mut headers = Headers::new();
        headers.insert("retry-after", "17");
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(17)));
        headers.insert("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(retry_after(&headers), None);
    }
}
