//! Where tokens come from: three sources, and a cache that asks again in time.
//!
//! Own, because those of the crate fall short: its workload identity reads the federated token once, and the kubelet
//! replaces that every hour, so a day later nothing would work any more; its managed identity cannot name which one.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use azure_core::{
    HttpClient, Method, Request,
    auth::{AccessToken, TokenCredential},
    error::{Error, ErrorKind},
};
use azure_identity::{ClientSecretCredential, federated_credentials_flow};
use futures::FutureExt;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use url::Url;

/// Asked for anew when so much of its life is left: time for several tries before it matters.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// After a failure the old token is used for so long before the next try, or each call would wait for one.
const PAUSE: Duration = Duration::from_secs(30);

/// One way to a token.
#[async_trait]
pub(super) trait Source: Send + Sync + std::fmt::Debug {
    async fn fetch(&self, scopes: &[&str]) -> azure_core::Result<AccessToken>;
}

/// A source behind a cache by scopes.
#[derive(Debug)]
pub(super) struct Cached<S> {
    source: S,
    tokens: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    token: AccessToken,
    next_try: Instant,
}

impl<S: Source> Cached<S> {
    pub fn new(source: S) -> Self {
        Self { source, tokens: Mutex::default() }
    }
}

fn lasts(token: &AccessToken, longer_than: Duration) -> bool {
    token.expires_on > OffsetDateTime::now_utc() + longer_than
}

#[async_trait]
impl<S: Source> TokenCredential for Cached<S> {
    async fn get_token(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        let mut tokens = self.tokens.lock().await;
        let kept = tokens.get(&scopes.join(" ")).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| lasts(&kept.token, EARLY) || kept.next_try > Instant::now()) {
            return Ok(kept.token.clone());
        }
        match (self.source.fetch(scopes).await, kept) {
            (Ok(token), _) => {
                tokens.insert(scopes.join(" "), Kept { token: token.clone(), next_try: Instant::now() });
                Ok(token)
            }
            (Err(error), Some(kept)) if lasts(&kept.token, 2 * PAUSE) => {
                tracing::warn!("no new token for Azure yet, the old one is still good: {}", error.kind());
                let again = Kept { next_try: Instant::now() + PAUSE, ..kept.clone() };
                tokens.insert(scopes.join(" "), again);
                Ok(kept.token)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        self.tokens.lock().await.clear();
        Ok(())
    }
}

/// Workload identity: the ServiceAccount's token, exchanged at Microsoft Entra ID.
#[derive(Debug)]
pub(super) struct WorkloadIdentity {
    pub http: Arc<dyn HttpClient>,
    pub authority: Url,
    pub tenant: String,
    pub client: String,
    /// Read at each exchange: the kubelet replaces it.
    pub token_file: PathBuf,
}

#[async_trait]
impl Source for WorkloadIdentity {
    async fn fetch(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        let path = self.token_file.display();
        let assertion = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|error| unusable(format!("the token file {path} cannot be read: {error}")))?;
        let assertion = assertion.trim();
        if assertion.is_empty() {
            return Err(unusable(format!("the token file {path} is empty")));
        }
        let (http, authority) = (self.http.clone(), &self.authority);
        let answer =
            federated_credentials_flow::perform(http, &self.client, assertion, scopes, &self.tenant, authority).await?;
        Ok(AccessToken::new(answer.access_token().clone(), after(answer.expires_in)))
    }
}

/// An application's own secret: the crate's credential, without its cache, which asks anew 20 seconds before the end.
#[async_trait]
impl Source for ClientSecretCredential {
    async fn fetch(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        self.clear_cache().await?;
        // The crate adds the token's life to the clock, and panics where that ends: the number is somebody else's.
        let asked = AssertUnwindSafe(TokenCredential::get_token(self, scopes)).catch_unwind().await;
        asked.unwrap_or_else(|_| Err(unusable("the token service's answer makes no sense".to_owned())))
    }
}

/// The machine's managed identity, by the metadata service of the machine.
#[derive(Debug)]
pub(super) struct ManagedIdentity {
    pub http: Arc<dyn HttpClient>,
    /// `http://169.254.169.254`.
    pub host: Url,
    /// Which of the identities; a machine of AKS has several.
    pub client: Option<String>,
}

#[async_trait]
impl Source for ManagedIdentity {
    async fn fetch(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        let scope = scopes.first().copied().unwrap_or_default();
        let mut url = self.host.clone();
        url.set_path("/metadata/identity/oauth2/token");
        url.query_pairs_mut()
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", scope.strip_suffix("/.default").unwrap_or(scope))
            .extend_pairs(self.client.iter().map(|client| ("client_id", client)));
        let mut request = Request::new(url, Method::Get);
        // Proves that no browser was tricked into asking.
        request.insert_header("metadata", "true");
        let answer: Value = self.http.execute_request(&request).await?.json().await?;
        issued(&answer).ok_or_else(|| unusable("the metadata service answered without a token".to_owned()))
    }
}

/// The metadata service says numbers as text.
pub(super) fn issued(answer: &Value) -> Option<AccessToken> {
    let number = |name: &str| {
        let value = answer.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let token = answer.get("access_token")?.as_str()?.to_owned();
    let expires = match number("expires_on") {
        Some(at) => OffsetDateTime::from_unix_timestamp(at).ok()?,
        None => after(u64::try_from(number("expires_in")?).ok()?),
    };
    Some(AccessToken::new(token, expires))
}

/// So many seconds from now, or the last instant that there is: the number is somebody else's.
fn after(seconds: u64) -> OffsetDateTime {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::now_utc().saturating_add(time::Duration::seconds(seconds))
}

pub(super) fn unusable(why: String) -> Error {
    Error::message(ErrorKind::Credential, why)
}

/// Whose token it is, as it says of itself, for the self-test. Never the token.
pub(super) fn whose(token: &str) -> Option<String> {
    let payload = azure_core::base64::decode_url_safe(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    let client = claim("appid").or_else(|| claim("azp"))?;
    Some(format!("client {client} (object {}) of tenant {}", claim("oid").unwrap_or("?"), claim("tid").unwrap_or("?")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use azure_core::{Response, StatusCode, headers::Headers};
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    /// Gives tokens of this many seconds; a negative number is a failure.
    #[derive(Debug, Default)]
    struct Script {
        seconds: AtomicI64,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Source for Arc<Script> {
        async fn fetch(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            match self.seconds.load(Ordering::SeqCst) {
                seconds if seconds < 0 => Err(unusable("away".to_owned())),
                seconds => Ok(AccessToken::new(
                    format!("token-{number}"),
                    OffsetDateTime::now_utc() + time::Duration::seconds(seconds),
                )),
            }
        }
    }

    async fn token(cached: &Cached<Arc<Script>>) -> Result<String, Error> {
        cached.get_token(&["scope"]).await.map(|token| token.token.secret().to_owned())
    }

    #[tokio::test]
    async fn a_token_is_kept_until_five_minutes_of_it_are_left() {
        let script = Arc::new(Script::default());
        let cached = Cached::new(script.clone());
        script.seconds.store(3600, Ordering::SeqCst);
        assert_eq!(
            (token(&cached).await.unwrap(), token(&cached).await.unwrap()),
            ("token-0".into(), "token-0".into())
        );
        cached.clear_cache().await.unwrap();
        script.seconds.store(299, Ordering::SeqCst);
        assert_eq!(
            (token(&cached).await.unwrap(), token(&cached).await.unwrap()),
            ("token-1".into(), "token-2".into())
        );
    }

    #[tokio::test]
    async fn an_old_token_is_better_than_none_while_it_lasts_and_is_not_asked_for_at_each_call() {
        let script = Arc::new(Script::default());
        let cached = Cached::new(script.clone());
        script.seconds.store(250, Ordering::SeqCst);
        token(&cached).await.unwrap();
        script.seconds.store(-1, Ordering::SeqCst);
        assert_eq!(
            (token(&cached).await.unwrap(), token(&cached).await.unwrap()),
            ("token-0".into(), "token-0".into())
        );
        assert_eq!(script.asked.load(Ordering::SeqCst), 2);
        cached.clear_cache().await.unwrap();
        assert!(token(&cached).await.is_err());
    }

    #[test]
    fn the_metadata_services_numbers_are_text() {
        let token = issued(&json!({"access_token": "t", "expires_on": "1586984735", "expires_in": "3599"})).unwrap();
        assert_eq!(token.expires_on.unix_timestamp(), 1_586_984_735);
        let token = issued(&json!({"access_token": "t", "expires_in": "3599"})).unwrap();
        assert!(lasts(&token, Duration::from_secs(3590)) && !lasts(&token, Duration::from_secs(3600)));
        assert!(issued(&json!({"expires_in": "3599"})).is_none());
        assert!(issued(&json!({"access_token": "t", "expires_in": -1})).is_none());
    }

    #[test]
    fn a_token_for_longer_than_time_lasts_is_one_for_long() {
        for seconds in [u64::MAX, i64::MAX.unsigned_abs(), 1 << 40] {
            assert!(after(seconds) > OffsetDateTime::now_utc() + time::Duration::days(365), "{seconds}");
        }
        let token = issued(&json!({"access_token": "t", "expires_in": i64::MAX})).unwrap();
        assert!(lasts(&token, Duration::from_secs(3600)));
        assert!(issued(&json!({"access_token": "t", "expires_on": i64::MAX})).is_none());
    }

    /// Answers everything with this.
    #[derive(Debug)]
    struct Says(&'static str);

    #[async_trait]
    impl HttpClient for Says {
        async fn execute_request(&self, _: &Request) -> azure_core::Result<Response> {
            let body = futures::stream::iter([Ok(Bytes::from_static(self.0.as_bytes()))]);
            let mut headers = Headers::new();
            headers.insert("content-type", "application/json");
            Ok(Response::new(StatusCode::Ok, headers, Box::pin(body)))
        }
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_is_no_token_and_no_panic() {
        let asked = |answer| async move {
            let (authority, name) = (Url::parse("https://login.example").unwrap(), || "a".to_owned());
            let secret = ClientSecretCredential::new(Arc::new(Says(answer)), authority, name(), name(), name());
            Source::fetch(&secret, &["scope"]).await
        };
        let fine = asked(r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}"#).await.unwrap();
        assert!(lasts(&fine, Duration::from_secs(3000)));
        let endless =
            asked(r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 18446744073709551615}"#).await;
        assert!(endless.unwrap_err().to_string().contains("makes no sense"));
        assert!(asked("<html>").await.is_err());
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let claims = json!({"appid": "app-1", "oid": "object-1", "tid": "tenant-1"}).to_string();
        let token = format!("e30.{}.c2ln", azure_core::base64::encode_url_safe(claims));
        assert_eq!(whose(&token).as_deref(), Some("client app-1 (object object-1) of tenant tenant-1"));
        assert_eq!(whose("opaque"), None);
    }
}
