//! Credentials that can be recognised, a life with everything in it that makes a program talk, and then a search of all
//! that it said: logs, events, status, metrics, spans, and whatever else the API server keeps.
//!
//! First the release, as loud as can be, with one way of getting credentials; then each other way by the same program
//! beside it, which only observes.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    collector::Collector,
    stage::{NAMESPACE, PATIENCE, Stage, operator},
    world::Fault,
};
use ip_address_controller::cloud::Provider;
use kube::ResourceExt;
use serde_json::json;
use tokio::process::Command;

use super::{
    LOUDEST,
    acts::{cast, in_time, pool, reserve},
};

/// Azure's, for the release.
pub const CLIENT_SECRET: &str = "canary-of-the-client-secret";

/// What must be in nothing that was said.
struct Canary {
    text: String,
    what: &'static str,
}

/// A way of getting credentials.
struct Chain {
    what: &'static str,
    environment: Vec<(&'static str, String)>,
    canaries: Vec<Canary>,
    /// The cloud is read with them; else they are refused.
    works: bool,
}

pub async fn play(stage: &Stage, collector: &Collector) -> Result<()> {
    let mut canaries = of_the_cluster(stage)?;
    canaries.extend(of_the_release(stage));
    let mut said = the_release_lives(stage).await?;
    said.insert("spans", spans(collector).await?);
    ensure!(said["log"].contains("\"level\":\"trace\""), "it was not as loud as can be");
    search(&said, &canaries)?;

    let folder = tempfile::tempdir()?;
    for (n, chain) in chains(stage, folder.path())?.into_iter().enumerate() {
        let said = beside(stage, n, &chain, folder.path()).await.with_context(|| chain.what)?;
        let all: Vec<&Canary> = canaries.iter().chain(&chain.canaries).collect();
        search(&BTreeMap::from([("log", said)]), all).with_context(|| chain.what)?;
    }
    Ok(())
}

/// Each on a line of its own. Those of the last moments may still be on their way: the attach's is among them.
async fn spans(collector: &Collector) -> Result<String> {
    wait_for("the attach is traced", PATIENCE, || async {
        let spans: String = collector.spans().iter().map(|span| format!("{span:?}\n")).collect();
        Ok(if spans.contains("netipallocation.attach") { Seen::Yes(spans) } else { Seen::NotYet(spans) })
    })
    .await
}

/// Tokens for the API server: those of ServiceAccounts are JWTs, and all of those begin so (`{"alg":`).
fn of_the_cluster(stage: &Stage) -> Result<Vec<Canary>> {
    let kubeconfig: serde_json::Value = serde_yaml::from_str(&fs::read_to_string(stage.cluster.kubeconfig())?)?;
    let admin = kubeconfig.pointer("/users/0/user/token").and_then(|token| token.as_str()).context("no token")?;
    Ok(vec![
        Canary { text: "eyJhbGciOi".to_owned(), what: "a JSON web token" },
        Canary { text: admin.to_owned(), what: "the token of the kubeconfig" },
    ])
}

/// What the simulator gives, and what the pod begins with.
fn of_the_release(stage: &Stage) -> Vec<Canary> {
    let canary = |text: &str, what| Canary { text: text.to_owned(), what };
    match stage.venue.provider {
        Provider::Gcp => vec![canary("simulated-token-", "an access token")],
        // Its tokens are key ids, which are no secret.
        Provider::Aws => vec![
            canary("simulated-secret", "the secret access key"),
            canary("simulated-session", "the session token"),
            canary("a-pod's-own-token", "the pod's token for the agent"),
        ],
        Provider::Azure => {
            vec![canary("simulated-token-", "an access token"), canary(CLIENT_SECRET, "the client secret")]
        }
    }
}

/// It is denied, it fails, it attaches, and its credentials are revoked.
async fn the_release_lives(stage: &Stage) -> Result<BTreeMap<&'static str, String>> {
    let (name, ip) = ("canary", "203.0.113.50");
    reserve(stage, &[ip])?;
    pool(stage, name, 1).await?;
    stage.world.deny(stage.venue.attach_permission);
    stage.cluster.apply(&allocation(stage, name, ip)).await?;
    stage.until("it is denied", name, ip, |address| address.reason.as_deref() == Some("Denied")).await?;
    stage.world.allow(stage.venue.attach_permission);
    // Its pause after a refusal is long: another leader tries at once.
    let leader = stage.until_led(None).await?;
    let log_of_the_first = stage.agent.log(NAMESPACE, &leader)?;
    stage.world.fail_next("*", Fault::Close);
    stage.cluster.kubectl(&["delete", "pod", &leader, "-n", NAMESPACE]).await?;
    stage.until_led(Some(&leader)).await?;
    stage.until_attached(name, ip).await?;

    stage.world.revoke_credentials();
    wait_for("the credentials are refused", PATIENCE, || async {
        let status = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default();
        let said = status.conditions.into_iter().find(|condition| condition.type_ == "CredentialsValid");
        Ok(match said {
            Some(said) if said.reason == "Unauthenticated" => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await?;
    stage.world.restore_credentials();
    let said = all_that_was_said(stage, log_of_the_first).await?;
    // Google's SDK keeps the token that was revoked for as long as it would have lasted.
    for pod in cast(stage).await? {
        stage.cluster.kubectl(&["delete", "pod", &pod.name_any(), "-n", NAMESPACE]).await?;
    }
    cast(stage).await?;
    Ok(said)
}

async fn all_that_was_said(stage: &Stage, mut log: String) -> Result<BTreeMap<&'static str, String>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut metrics = String::new();
    for pod in cast(stage).await? {
        let pod = pod.name_any();
        log.push_str(&stage.agent.log(NAMESPACE, &pod)?);
        let address = std::net::SocketAddr::new(stage.agent.ip(NAMESPACE, &pod)?, 9999);
        metrics.push_str(&client.get(format!("http://{address}/metrics")).send().await?.text().await?);
    }
    ensure!(metrics.contains("netipallocation_cloud_api_errors_total"), "no metrics: {metrics}");
    let events = stage.cluster.kubectl(&["get", "events", "-A", "-o", "json"]).await?;
    ensure!(events.contains("IPAttachFailed") && events.contains("IPAttached"), "the events are not there");
    let objects = "netipallocations,nodes,leases,pods,deployments,configmaps";
    let status = stage.cluster.kubectl(&["get", objects, "-A", "-o", "json"]).await?;
    ensure!(status.contains("203.0.113.50"), "the status is not there");
    Ok(BTreeMap::from([("log", log), ("metrics", metrics), ("events", events), ("status", status)]))
}

fn search<'a>(said: &BTreeMap<&'static str, String>, canaries: impl IntoIterator<Item = &'a Canary>) -> Result<()> {
    let canaries: Vec<&Canary> = canaries.into_iter().collect();
    let mut found = Vec::new();
    for (place, text) in said {
        for Canary { text: canary, what } in &canaries {
            for line in text.lines().filter(|line| line.contains(canary)).take(3) {
                let at = line.find(canary).unwrap_or_default();
                let around: String =
                    line.chars().skip(line[..at].chars().count().saturating_sub(300)).take(700).collect();
                found.push(format!("{what} is in the {place}: …{around}…"));
            }
        }
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

/// The other ways of getting credentials at that cloud.
fn chains(stage: &Stage, folder: &Path) -> Result<Vec<Chain>> {
    let file = |name: &str, content: String| -> Result<String> {
        let path = folder.join(name);
        fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let canary = |text: &str, what| Canary { text: text.to_owned(), what };
    let endpoint = stage.simulator.endpoint();
    Ok(match stage.venue.provider {
        Provider::Gcp => {
            let user = json!({
                "type": "authorized_user", "client_id": "someone", "client_secret": "canary-of-the-user",
                "refresh_token": "canary-to-refresh", "token_uri": format!("{endpoint}/no/such/token"),
            });
            let account = json!({
                "type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key_id": "1",
                "project_id": "p", "private_key": "-----BEGIN PRIVATE KEY-----\ncanaryOfTheKey\n-----END PRIVATE KEY-----\n",
            });
            let reads = |name: &str, content: serde_json::Value| -> Result<Vec<(&'static str, String)>> {
                let path = file(name, content.to_string())?;
                Ok(vec![("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", endpoint.clone()), ("GOOGLE_APPLICATION_CREDENTIALS", path)])
            };
            vec![
                Chain {
                    what: "a person's credentials",
                    environment: reads("user.json", user)?,
                    canaries: vec![
                        canary("canary-of-the-user", "the secret"),
                        canary("canary-to-refresh", "the refresh token"),
                    ],
                    works: false,
                },
                Chain {
                    what: "a key that is broken",
                    environment: reads("key.json", account)?,
                    canaries: vec![canary("canaryOfTheKey", "the private key")],
                    works: false,
                },
            ]
        }
        Provider::Aws => {
            let key = stage.world.issue_token().context("no token")?;
            let basis = || {
                vec![
                    ("AWS_ENDPOINT_URL", endpoint.clone()),
                    ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
                    ("AWS_REGION", stage.venue.region.to_owned()),
                ]
            };
            let (mut fixed, mut web) = (basis(), basis());
            fixed.extend([
                ("AWS_ACCESS_KEY_ID", key),
                ("AWS_SECRET_ACCESS_KEY", "canary+of/the+key".to_owned()),
                ("AWS_SESSION_TOKEN", "canary-of-the-session".to_owned()),
            ]);
            web.extend([
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ip-address-controller".to_owned()),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", file("token", "canary-of-the-account".to_owned())?),
            ]);
            vec![
                Chain {
                    what: "keys in the environment",
                    environment: fixed,
                    canaries: vec![
                        canary("canary+of/the+key", "the secret access key"),
                        canary("canary-of-the-session", "the session token"),
                    ],
                    works: true,
                },
                Chain {
                    what: "web identity",
                    environment: web,
                    canaries: vec![canary("canary-of-the-account", "the ServiceAccount's token")],
                    works: true,
                },
            ]
        }
        Provider::Azure => {
            let basis = || {
                vec![("AZURE_RESOURCE_MANAGER_ENDPOINT", endpoint.clone()), ("AZURE_AUTHORITY_HOST", endpoint.clone())]
            };
            let (mut federated, mut managed) = (basis(), basis());
            federated.extend([
                ("AZURE_TENANT_ID", "tenant-1".to_owned()),
                ("AZURE_CLIENT_ID", "client-1".to_owned()),
                ("AZURE_FEDERATED_TOKEN_FILE", file("token", "canary-of-the-account".to_owned())?),
            ]);
            managed.push(("AZURE_POD_IDENTITY_AUTHORITY_HOST", endpoint.clone()));
            vec![
                Chain {
                    what: "workload identity",
                    environment: federated,
                    canaries: vec![canary("canary-of-the-account", "the ServiceAccount's token")],
                    works: true,
                },
                Chain { what: "managed identity", environment: managed, canaries: Vec::new(), works: true },
            ]
        }
    })
}

/// The program beside the release, with a Lease of its own, changing nothing: until it has read the cloud, or was told
/// that it may not.
async fn beside(stage: &Stage, n: usize, chain: &Chain, folder: &Path) -> Result<String> {
    let log = folder.join(format!("log-{n}"));
    let mut command = Command::new(operator()?);
    command
        .env_clear()
        .env("KUBECONFIG", stage.cluster.kubeconfig())
        .env("POD_NAMESPACE", NAMESPACE)
        .env("LEASE_NAME", format!("beside-{n}"))
        .env("CONTROLLER_MODE", "Observe")
        .env("BIND_ADDRESS", format!("127.0.1.{}", n + 1))
        .env("LOG_LEVEL", LOUDEST)
        .env("HOME", "/nonexistent")
        .env("NO_PROXY", "127.0.0.1,localhost")
        .envs(chain.environment.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let said = || fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let client = reqwest::Client::builder().no_proxy().build()?;
    wait_for("it has asked the cloud", PATIENCE, || async {
        let metrics = client.get(format!("http://127.0.1.{}:9999/metrics", n + 1)).send().await;
        let metrics = match metrics {
            Ok(answer) => answer.text().await?,
            Err(error) => return Ok(Seen::NotYet(error.to_string())),
        };
        let counted = |outcome: &str| {
            let series = format!("operation=\"survey\",outcome=\"{outcome}\"");
            metrics.lines().any(|line| line.contains(&series) && !line.ends_with(" 0"))
        };
        let heard = said()?;
        let refused = counted("error") || heard.contains("unauthenticated");
        let done = if chain.works { counted("success") } else { refused };
        Ok(Seen::when(done, heard.lines().last().unwrap_or_default().to_owned()))
    })
    .await?;
    let pid = child.id().context("it has ended")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), nix::sys::signal::Signal::SIGTERM)?;
    in_time("it ends", child.wait()).await??;
    Ok(said()?)
}

fn allocation(stage: &Stage, name: &str, ip: &str) -> String {
    format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {name}}}
spec:
  reservedIPs: [{ip}]
  nodeSelector: {{role: {name}}}
  cloud: {{provider: {}, region: {}}}
  reconcileInterval: 5
",
        stage.venue.provider, stage.venue.region
    )
}
