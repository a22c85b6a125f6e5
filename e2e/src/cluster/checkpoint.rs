//! Where requests to the API server can be held on their way: a validating admission webhook that answers when the test
//! says so.
//!
//! A request that waits here has been authenticated, authorized and changed by whatever changes it, and nothing of it is
//! stored yet. When its caller goes away the server forgets it: it has no effect. To see an effect whose caller never
//! hears of it, stop the caller with SIGSTOP before the request is let go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, RuleWithOperations, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use warp::Filter;

use super::background;
use super::wait::{Seen, wait_for};

/// Name of the webhook configuration.
const NAME: &str = "checkpoint.e2e.test";
/// The longest that the API server waits for an answer: its own limit.
const LONGEST: i32 = 30;
/// Until the API server has heard of the webhook.
const KNOWN: Duration = Duration::from_secs(30);

/// One user's requests to change a Node, to change an allocation beside its status, or to evict a pod pass here. Dropping
/// it lets all of them pass.
pub struct Checkpoint {
    desk: Arc<Desk>,
    client: Client,
    _open: DropGuard,
}

/// Requests about one object wait while this lives.
#[must_use = "requests are held only while this lives"]
#[derive(Debug)]
pub struct Held {
    desk: Arc<Desk>,
    key: Key,
}

/// Resource with subresource, and the name of the object.
type Key = (String, String);

/// Who waits.
#[derive(Debug)]
struct Desk {
    held: Mutex<BTreeMap<Key, usize>>,
    passed: Mutex<usize>,
    /// Moves with every change of `held`.
    changes: watch::Sender<u64>,
}

impl Checkpoint {
    /// Sets the webhook up, with the API server's own certificate, and waits until requests of this user come by.
    pub(super) async fn open(config: Config, pki: &Path, user: &str) -> anyhow::Result<Self> {
        let (certificate, key) = (pki.join("apiserver.crt"), pki.join("apiserver.key"));
        let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<Vec<_>, _>>()?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key)?)
            .context("serving with the API server's certificate")?;
        let desk = Arc::new(Desk { held: Mutex::default(), passed: Mutex::default(), changes: watch::Sender::new(0) });
        let stop = CancellationToken::new();
        let (served, stopped) = (Arc::clone(&desk), stop.clone());
        let port = background::run(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), served, stopped));
            Ok(port)
        })
        .await?;

        let client = Client::try_from(config.clone())?;
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        let authority = ByteString(std::fs::read(&certificate)?);
        hooks.create(&PostParams::default(), &configuration(port, authority, user)).await?;
        let checkpoint = Self { desk, client, _open: stop.drop_guard() };
        checkpoint.until_known(config, user).await?;
        Ok(checkpoint)
    }

    /// Requests to change this object wait from now on, while the [`Held`] lives: `nodes`, `netipallocations` or
    /// `pods/eviction`.
    pub fn hold(&self, resource: &str, name: &str) -> Held {
        let key = (resource.to_owned(), name.to_owned());
        self.desk.change(|held| {
            held.entry(key.clone()).or_default();
        });
        Held { desk: Arc::clone(&self.desk), key }
    }

    /// Takes it away again: nobody is asked any more.
    ///
    /// # Errors
    /// The API server's.
    pub async fn close(self) -> anyhow::Result<()> {
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        hooks.delete(NAME, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A request of that user's that changes nothing comes by.
    async fn until_known(&self, mut config: Config, user: &str) -> anyhow::Result<()> {
        config.auth_info.impersonate = Some(user.to_owned());
        let nodes: Api<Node> = Api::all(Client::try_from(config)?);
        let all: Api<Node> = Api::all(self.client.clone());
        let node = all.list(&ListParams::default()).await?.items.pop().context("a node to ask about")?.name_any();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {NAME: "known"}}}));
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        wait_for("the API server asks the checkpoint", KNOWN, || async {
            nodes.patch(&node, &dry, &patch).await?;
            let passed = *lock(&self.desk.passed);
            Ok(Seen::when(passed > 0, passed))
        })
        .await
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Checkpoint").field("desk", &self.desk).finish_non_exhaustive()
    }
}

impl Held {
    /// Until a request waits here.
    pub async fn arrived(&self) {
        let mut changes = self.desk.changes.subscribe();
        while self.waiting() == 0 {
            // Cannot fail: the desk holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// How many requests wait here now; one whose caller has gone away waits no more.
    pub fn waiting(&self) -> usize {
        lock(&self.desk.held).get(&self.key).copied().unwrap_or_default()
    }

    /// Lets them go, and all that come later.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.desk.change(|held| {
            held.remove(&self.key);
        });
    }
}

impl Desk {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Key, usize>)) {
        change(&mut lock(&self.held));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A request comes by, and waits where it is held.
    async fn pass(self: Arc<Self>, key: Key) {
        *lock(&self.passed) += 1;
        let Some(_waiting) = Waiting::begin(&self, key.clone()) else { return };
        let mut changes = self.changes.subscribe();
        while lock(&self.held).contains_key(&key) {
            // Cannot fail: the desk holds the sender.
            let _ = changes.changed().await;
        }
    }
}

/// Counted while it waits, also when it is dropped because its caller has gone away.
struct Waiting {
    desk: Arc<Desk>,
    key: Key,
}

impl Waiting {
    fn begin(desk: &Arc<Desk>, key: Key) -> Option<Self> {
        let mut begun = false;
        desk.change(|held| {
            if let Some(count) = held.get_mut(&key) {
                *count += 1;
                begun = true;
            }
        });
        begun.then(|| Self { desk: Arc::clone(desk), key })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.change(|held| {
            if let Some(count) = held.get_mut(&self.key) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

/// Requests of that user alone, and those that nobody answers pass.
fn configuration(port: u16, authority: ByteString, user: &str) -> ValidatingWebhookConfiguration {
    let rule = |group: &str, operation: &str, resource: &str| RuleWithOperations {
        api_groups: Some(vec![group.to_owned()]),
        api_versions: Some(vec!["*".to_owned()]),
        operations: Some(vec![operation.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        scope: None,
    };
    let rules = vec![
        rule("", "UPDATE", "nodes"),
        rule("", "CREATE", "pods/eviction"),
        rule("netinfra.darkbrains.com", "UPDATE", "netipallocations"),
    ];
    ValidatingWebhookConfiguration {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        webhooks: Some(vec![ValidatingWebhook {
            name: NAME.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            side_effects: "None".to_owned(),
            failure_policy: Some("Ignore".to_owned()),
            timeout_seconds: Some(LONGEST),
            client_config: WebhookClientConfig {
                url: Some(format!("https://127.0.0.1:{port}/")),
                ca_bundle: Some(authority),
                service: None,
            },
            rules: Some(rules),
            match_conditions: Some(vec![MatchCondition {
                name: "user".to_owned(),
                expression: format!("request.userInfo.username == '{user}'"),
            }]),
            ..ValidatingWebhook::default()
        }]),
    }
}

/// Answers reviews until it is told to stop.
async fn serve(listener: TcpListener, tls: TlsAcceptor, desk: Arc<Desk>, stop: CancellationToken) {
    let answer = warp::body::json().then(move |review: Value| {
        let desk = Arc::clone(&desk);
        async move {
            desk.pass(key(&review)).await;
            warp::reply::json(&json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": {"uid": review.pointer("/request/uid"), "allowed": true},
            }))
        }
    });
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let (tls, answer, stop) = (tls.clone(), answer.clone(), stop.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = TowerToHyperService::new(warp::service(answer));
            // A connection that breaks takes its request along: its caller has gone away.
            let _ =
                stop.run_until_cancelled(http1::Builder::new().serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

fn key(review: &Value) -> Key {
    let of = |pointer: &str| review.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resource = match of("/request/subResource") {
        none if none.is_empty() => of("/request/resource/resource"),
        sub => format!("{}/{sub}", of("/request/resource/resource")),
    };
    (resource, of("/request/name"))
}

/// Nothing that runs under these locks can leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
