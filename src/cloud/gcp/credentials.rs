//! Credentials that are found anew when the cloud refuses them.
//!
//! Google's library keeps a token until it ends, whatever the cloud says of it, and asks for no other once the source of its
//! tokens has refused one for good. So who was locked out would stay it, for an hour or until the process is started again.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use google_cloud_auth::{
    build_errors,
    credentials::{AccessTokenCredentials, CacheableResource, CredentialsProvider},
    errors::CredentialsError,
};
use http::{Extensions, HeaderMap};
use tokio::time::Instant;

/// Found anew no more often: what the library has begun for the old ones ends only with their token.
const PAUSE: Duration = Duration::from_secs(30);

pub(super) type Found = Result<AccessTokenCredentials, build_errors::Error>;

/// See the module. All clones are the same credentials.
#[derive(Clone)]
pub(super) struct Credentials {
    find: Arc<dyn Fn() -> Found + Send + Sync>,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    credentials: AccessTokenCredentials,
    /// When others were looked for.
    renewed: Option<Instant>,
}

impl Credentials {
    /// Those that `find` finds, now and whenever they are refused.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn found_by(find: impl Fn() -> Found + Send + Sync + 'static) -> Result<Self, build_errors::Error> {
        let kept = Kept { credentials: find()?, renewed: None };
        Ok(Self { find: Arc::new(find), kept: Arc::new(Mutex::new(kept)) })
    }

    /// Those in use.
    pub fn current(&self) -> AccessTokenCredentials {
        self.kept().credentials.clone()
    }

    /// The cloud refuses them: what is sent next goes with others, if there are any.
    pub fn refused(&self) {
        let mut kept = self.kept();
        if kept.renewed.is_some_and(|then| then.elapsed() < PAUSE) {
            return;
        }
        kept.renewed = Some(Instant::now());
        match (self.find)() {
            Ok(credentials) => kept.credentials = credentials,
            Err(error) => tracing::warn!(%error, "no other credentials for Google Cloud are found"),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole after every statement.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CredentialsProvider for Credentials {
    async fn headers(&self, extensions: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        self.current().headers(extensions).await
    }

    async fn universe_domain(&self) -> Option<String> {
        self.current().universe_domain().await
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.current()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use google_cloud_auth::credentials::{AccessToken, AccessTokenCredentialsProvider, EntityTag};

    use super::*;

    /// The `n`th that were found.
    #[derive(Debug)]
    struct Numbered(u32);

    impl CredentialsProvider for Numbered {
        async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
            let data = HeaderMap::from_iter([(http::header::AUTHORIZATION, self.0.into())]);
            Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
        }

        async fn universe_domain(&self) -> Option<String> {
            None
        }
    }

    impl AccessTokenCredentialsProvider for Numbered {
        async fn access_token(&self) -> Result<AccessToken, CredentialsError> {
            Ok(AccessToken { token: self.0.to_string() })
        }
    }

    async fn sent(credentials: &Credentials) -> u32 {
        let headers = credentials.headers(Extensions::new()).await.unwrap();
        let CacheableResource::New { data, .. } = headers else { panic!("{headers:?}") };
        data[http::header::AUTHORIZATION].to_str().unwrap().parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_found_anew_but_not_at_every_request() {
        let found = AtomicU32::new(0);
        let find = move || Ok(AccessTokenCredentials::from(Numbered(found.fetch_add(1, Ordering::Relaxed))));
        let credentials = Credentials::found_by(find).unwrap();
        let of_a_client = credentials.clone();
        assert_eq!(sent(&of_a_client).await, 0);
        for (pause, number) in [(Duration::ZERO, 1), (PAUSE / 2, 1), (PAUSE / 2, 2)] {
            tokio::time::advance(pause).await;
            credentials.refused();
            assert_eq!(sent(&of_a_client).await, number, "after {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_are_found_the_old_ones_stay() {
        let found = AtomicU32::new(0);
        let find = move || match found.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(AccessTokenCredentials::from(Numbered(0))),
            _ => google_cloud_auth::credentials::service_account::Builder::new(serde_json::json!({}))
                .build_access_token_credentials(),
        };
        let credentials = Credentials::found_by(find).unwrap();
        credentials.refused();
        assert_eq!(sent(&credentials).await, 0);
    }
}
