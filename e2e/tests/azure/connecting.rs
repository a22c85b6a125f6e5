//! Credentials by the environment, and the way of a request to the server.

use std::{
    io,
    path::Path,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use azure_core::auth::{AccessToken, TokenCredential};
use e2e::{
    contract::{Bench as _, ONE, PRIVATE},
    world::World,
};
use ip_address_controller::cloud::{Cloud as _, ErrorKind, azure::Azure};
use tokio::net::{TcpListener, TcpStream};

use super::bench::{AzureBench, OfWorld, install_tls, scope, settings};

/// Run by other tests in a process of its own: the chain reads the environment, which all tests share.
#[tokio::test]
#[ignore = "needs the environment that other tests give it"]
async fn survey_by_the_environment() {
    install_tls();
    let cloud = Azure::connect(&settings(std::env::var("SIMULATOR").unwrap())).await.unwrap();
    if std::env::var_os("REFUSED").is_some() {
        let error = cloud.survey(&scope()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthenticated);
        assert!(error.message.contains("AADSTS700024"), "{error}");
        return;
    }
    assert_eq!(cloud.survey(&scope()).await.unwrap().addresses.len(), 2);
    if let Ok(file) = std::env::var("AZURE_FEDERATED_TOKEN_FILE") {
        // As the kubelet does every hour.
        std::fs::write(file, "second.token").unwrap();
        assert_eq!(cloud.survey(&scope()).await.unwrap().addresses.len(), 2);
    }
}

async fn another_process(bench: &AzureBench, variables: &[(&str, &str)]) -> Output {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    for name in ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"] {
        command.env_remove(name);
    }
    let output = command
        .args(["--exact", "--ignored", "connecting::survey_by_the_environment"])
        .env("SIMULATOR", bench.simulator.endpoint())
        .env("NO_PROXY", "127.0.0.1")
        .envs(variables.iter().copied())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the other process ran nothing");
    output
}

fn token_file(folder: &Path) -> String {
    let file = folder.join("azure-identity-token");
    std::fs::write(&file, "first.token\n").unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn workload_identity_reads_the_token_file_anew_at_each_exchange() {
    let bench = AzureBench::start().await.unwrap();
    // So short-lived that each call asks for a new one.
    bench.simulator.azure().give_tokens_for(60);
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path());
    let app = [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "client-1")];
    another_process(&bench, &[app[0], app[1], ("AZURE_FEDERATED_TOKEN_FILE", &file)]).await;
    let mut assertions = bench.simulator.azure().assertions();
    assertions.dedup();
    assert_eq!(assertions, ["first.token", "second.token"]);
}

#[tokio::test]
async fn a_token_that_lasts_is_asked_for_once() {
    let bench = AzureBench::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path());
    let app = [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "client-1")];
    another_process(&bench, &[app[0], app[1], ("AZURE_FEDERATED_TOKEN_FILE", &file)]).await;
    assert_eq!(bench.simulator.azure().assertions(), ["first.token"]);
}

#[tokio::test]
async fn a_client_secret_leads_to_a_token_too() {
    let bench = AzureBench::start().await.unwrap();
    let app = [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "client-1"), ("AZURE_CLIENT_SECRET", "secret")];
    another_process(&bench, &app).await;
    assert_eq!(bench.world.calls().len(), 2);
}

#[tokio::test]
async fn a_managed_identity_is_named_by_its_client_id() {
    let bench = AzureBench::start().await.unwrap();
    let host = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*bench.simulator.endpoint());
    another_process(&bench, &[host, ("AZURE_CLIENT_ID", "kubelet-identity")]).await;
    another_process(&bench, &[host]).await;
    assert_eq!(bench.simulator.azure().identities(), [Some("kubelet-identity".to_owned()), None]);
}

#[tokio::test]
async fn a_refused_exchange_is_told_in_the_words_of_the_token_service() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.revoke_credentials();
    let app = [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "client-1"), ("AZURE_CLIENT_SECRET", "secret")];
    another_process(&bench, &[app[0], app[1], app[2], ("REFUSED", "1")]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path());
    another_process(&bench, &[app[0], app[1], ("AZURE_FEDERATED_TOKEN_FILE", &file), ("REFUSED", "1")]).await;
}

/// Passes connections on, and counts them.
async fn counting_proxy(to: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let to = to.clone();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn connections_are_used_again() {
    let bench = AzureBench::start().await.unwrap();
    let (endpoint, connections) = counting_proxy(bench.simulator.metadata_host()).await;
    let cloud = Azure::connect_as(&settings(endpoint), Arc::new(OfWorld(bench.world.clone()))).await.unwrap();
    for _ in 0..5 {
        cloud.survey(&scope()).await.unwrap();
    }
    cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    assert!(bench.world.calls().len() > 15);
    // A survey's two lists go side by side.
    assert!(connections.load(Ordering::SeqCst) <= 2, "{connections:?} connections");
}

#[tokio::test]
async fn a_server_that_is_away_is_no_open_outcome() {
    let bench = AzureBench::start().await.unwrap();
    let away = bench.another(|settings| settings.endpoint = Some("http://127.0.0.1:9".to_owned())).await;
    let error = away.survey(&scope()).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "cannot connect"));
}

/// Keeps its token until it is told not to.
#[derive(Debug)]
struct Keeping(World, Mutex<Option<AccessToken>>);

#[async_trait]
impl TokenCredential for Keeping {
    async fn get_token(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        let kept = self.1.lock().unwrap().clone();
        let token = match kept {
            Some(token) => token,
            None => OfWorld(self.0.clone()).get_token(scopes).await?,
        };
        *self.1.lock().unwrap() = Some(token.clone());
        Ok(token)
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        *self.1.lock().unwrap() = None;
        Ok(())
    }
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_at_the_next_call() {
    let bench = AzureBench::start().await.unwrap();
    let keeping = Arc::new(Keeping(bench.world.clone(), Mutex::default()));
    let cloud = Azure::connect_as(&settings(bench.simulator.endpoint()), keeping).await.unwrap();
    cloud.survey(&scope()).await.unwrap();
    bench.world.revoke_credentials();
    let error = cloud.survey(&scope()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    bench.world.restore_credentials();
    // One of the two lists may have met the old token after the other had cleared it.
    let _ = cloud.survey(&scope()).await;
    cloud.survey(&scope()).await.unwrap();
}

#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl io::Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The crate's pipeline logs whole requests, and shows of all headers the one that should be hidden.
#[tokio::test]
async fn no_token_is_written_to_the_log_at_any_level() {
    let bench = AzureBench::start().await.unwrap();
    let pages = Pages::default();
    let writer = pages.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let logging = tracing::subscriber::set_default(subscriber);
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(logging);
    let log = String::from_utf8(pages.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("azure_core"), "the crate logs, or this test shows nothing");
    assert!(!log.contains("simulated-token"), "a token is in the log");
}
