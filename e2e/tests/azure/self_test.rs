//! The self-test names what is missing, and changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use azure_core::{
    auth::{AccessToken, TokenCredential},
    error::ErrorKind,
};
use e2e::{
    contract::{Bench as _, NODE, TWO},
    simulator::arm::ACTIONS,
};
use ip_address_controller::cloud::{Cloud as _, Finding, azure::Azure};

use super::bench::{AzureBench, ip, scope, settings};

fn failures(findings: &[Finding]) -> BTreeSet<&str> {
    findings.iter().filter(|finding| !finding.ok).map(|finding| finding.subject.as_str()).collect()
}

#[tokio::test]
async fn the_self_test_names_each_missing_permission_and_the_command_that_grants_it() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.move_address(ip(TWO), NODE).unwrap();
    let findings = bench.cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::new(), "{findings:#?}");
    let tested: BTreeSet<_> = findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert!(ACTIONS.iter().all(|action| tested.contains(action)), "{findings:#?}");
    assert!(findings.iter().all(|finding| !finding.message.contains("not tested")), "{findings:#?}");
    for action in ACTIONS {
        bench.world.deny(action);
        let findings = bench.cloud.check(&scope()).await;
        assert!(failures(&findings).contains(action), "{action}: {findings:#?}");
        for finding in findings.iter().filter(|finding| finding.subject == *action && !finding.ok) {
            let told = &finding.message;
            assert!(told.contains("az role definition update") && told.contains(&format!("\"{action}\"")), "{told}");
            assert!(told.contains("az role assignment create") && told.contains("--scope /subscriptions/"), "{told}");
        }
        bench.world.allow(action);
    }
    assert_eq!(bench.world.mutations(), []);
}

#[tokio::test]
async fn what_there_is_nothing_of_is_said_to_be_untested() {
    let bench = AzureBench::start().await.unwrap();
    let nowhere = ip_address_controller::cloud::Scope { region: "eastus".to_owned(), ..scope() };
    bench.world.add_region(super::bench::SUBSCRIPTION, "eastus");
    let findings = bench.cloud.check(&nowhere).await;
    assert_eq!(failures(&findings), BTreeSet::new());
    let join = findings.iter().find(|finding| finding.subject.contains("publicIPAddresses/join")).unwrap();
    assert!(join.message.starts_with("not tested"), "{join:?}");
}

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl TokenCredential for Nothing {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        Err(azure_core::Error::message(ErrorKind::Credential, "there is no token file"))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn without_a_token_nothing_else_is_tried() {
    let bench = AzureBench::start().await.unwrap();
    let cloud = Azure::connect_as(&settings(bench.simulator.endpoint()), Arc::new(Nothing)).await.unwrap();
    let findings = cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::from(["credentials"]), "{findings:#?}");
    assert!(findings[0].message.contains("there is no token file"), "{findings:#?}");
    assert_eq!(bench.called(), Vec::<String>::new());
}
