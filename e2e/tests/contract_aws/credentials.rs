//! AWS's own chain of credentials, in processes of their own: it reads the environment, which all tests share.

use std::{path::Path, process::Output, time::Duration};

use e2e::{contract::Bench as _, simulator::Simulator};
use ip_address_controller::cloud::{
    Cloud as _, ErrorKind,
    aws::{Aws, AwsSettings},
};
use tokio::process::Command;

use crate::bench::{AwsBench, install_tls, scope, settings};

/// Run by the other tests in a process of its own.
#[tokio::test]
#[ignore = "needs the environment that the other tests give it"]
async fn survey_with_default_credentials() {
    install_tls();
    // An agent that is away is asked several times before it is given up.
    let patient = AwsSettings { timeout: Duration::from_secs(15), ..settings(std::env::var("SIMULATOR").unwrap()) };
    let cloud = Aws::connect(&patient).await.unwrap();
    let survey = cloud.survey(&scope()).await;
    if let Ok(kind) = std::env::var("EXPECTED_KIND") {
        let error = survey.unwrap_err();
        assert_eq!(error.kind.label(), kind, "{error}");
        assert!(error.message.starts_with("no credentials") && !error.message.contains("://"), "{error}");
        return;
    }
    assert_eq!(survey.unwrap().addresses.len(), 2);
    let findings = cloud.check(&scope()).await;
    let source = std::env::var("EXPECTED_SOURCE").unwrap();
    assert!(findings[0].ok && findings[0].message.contains(&source), "{findings:#?}");
}

/// The process, with nothing in its environment that the chain looks at.
fn process(simulator: &Simulator) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "credentials::survey_with_default_credentials"])
        .env_clear()
        .env("SIMULATOR", simulator.endpoint())
        .env("HOME", "/nonexistent")
        .env("NO_PROXY", "127.0.0.1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

#[track_caller]
fn succeeded(child: &Output) {
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

fn token(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, "a-service-accounts-token").unwrap();
    path
}

#[tokio::test]
async fn web_identity_leads_to_a_roles_credentials() {
    let bench = AwsBench::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let child = process(&bench.simulator)
        // As EKS gives it to a pod whose ServiceAccount is annotated; the token service too is at the simulator.
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ip-address-controller")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token(folder.path()))
        .env("AWS_REGION", "us-west-2")
        .env("AWS_ENDPOINT_URL", bench.simulator.endpoint())
        .env("EXPECTED_SOURCE", "IRSA")
        .output()
        .await
        .unwrap();
    succeeded(&child);
}

#[tokio::test]
async fn pod_identity_leads_to_a_roles_credentials() {
    let bench = AwsBench::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let child = process(&bench.simulator)
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", bench.simulator.pod_identity_uri())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token(folder.path()))
        .env("EXPECTED_SOURCE", "Pod Identity")
        .output()
        .await
        .unwrap();
    succeeded(&child);
}

#[tokio::test]
async fn credentials_that_are_refused_or_missing_are_told_from_an_agent_that_is_away() {
    let bench = AwsBench::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let none = process(&bench.simulator).env("EXPECTED_KIND", ErrorKind::Unauthenticated.label()).output().await;
    succeeded(&none.unwrap());
    let away = process(&bench.simulator)
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/away")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token(folder.path()))
        .env("EXPECTED_KIND", ErrorKind::Unavailable.label())
        .output()
        .await;
    succeeded(&away.unwrap());
    bench.world.revoke_credentials();
    let refused = process(&bench.simulator)
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", bench.simulator.pod_identity_uri())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token(folder.path()))
        .env("EXPECTED_KIND", ErrorKind::Unauthenticated.label())
        .output()
        .await;
    succeeded(&refused.unwrap());
    let no_role = process(&bench.simulator)
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ip-address-controller")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token(folder.path()))
        .env("AWS_ENDPOINT_URL", bench.simulator.endpoint())
        .env("EXPECTED_KIND", ErrorKind::Unauthenticated.label())
        .output()
        .await;
    succeeded(&no_role.unwrap());
}
