//! The self-test asks EC2 for dry runs.

use std::collections::BTreeSet;

use e2e::contract::{Bench as _, NODE, NODE_2, TWO};
use ip_address_controller::cloud::{Cloud as _, Finding};

use crate::bench::{AwsBench, ip, scope};

fn failures(findings: &[Finding]) -> BTreeSet<&str> {
    findings.iter().filter(|finding| !finding.ok).map(|finding| finding.subject.as_str()).collect()
}

fn finding<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.subject == subject).unwrap_or_else(|| panic!("no {subject}"))
}

#[tokio::test]
async fn it_names_each_missing_permission_and_how_to_grant_it() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.move_address(ip(TWO), NODE).unwrap();
    let (own, own_2) = (bench.world.external_ip(NODE), bench.world.external_ip(NODE_2));
    let findings = bench.cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::new(), "{findings:#?}");
    assert!(findings.iter().all(|finding| !finding.message.contains("not tested")), "{findings:#?}");
    let missing = ["ec2:AssociateAddress", "ec2:DescribeInstances", "ec2:DisassociateAddress"];
    for permission in ["ec2:AssociateAddress", "ec2:DisassociateAddress"] {
        bench.world.deny(permission);
    }
    let findings = bench.cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::from(["ec2:AssociateAddress", "ec2:DisassociateAddress"]));
    bench.world.deny("ec2:DescribeInstances");
    let findings = bench.cloud.check(&scope()).await;
    assert!(failures(&findings).contains("ec2:DescribeInstances"), "{findings:#?}");
    assert!(finding(&findings, "ec2:AssociateAddress").message.contains("not tested"), "{findings:#?}");
    bench.world.deny("ec2:DescribeAddresses");
    let findings = bench.cloud.check(&scope()).await;
    assert!(failures(&findings).contains("ec2:DescribeAddresses"), "{findings:#?}");
    for failure in findings.iter().filter(|finding| !finding.ok) {
        let action = format!(r#""Action":"{}""#, failure.subject);
        assert!(
            failure.message.contains("aws iam put-role-policy") && failure.message.contains(&action),
            "{failure:?}"
        );
    }
    for permission in missing {
        bench.world.allow(permission);
    }
    assert!(bench.world.mutations().is_empty());
    assert_eq!((bench.world.external_ip(NODE), bench.world.external_ip(NODE_2)), (own, own_2));
    assert_eq!(bench.world.machine_of(ip(TWO)).as_deref(), Some(NODE));
}

#[tokio::test]
async fn what_is_optional_is_said_to_be_so() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.move_address(ip(TWO), NODE).unwrap();
    let optional = ["ec2:DescribeRegions", "ec2:ModifyNetworkInterfaceAttribute"];
    for permission in optional {
        bench.world.deny(permission);
    }
    let findings = bench.cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::new(), "{findings:#?}");
    for permission in optional {
        let told = &finding(&findings, permission).message;
        assert!(told.starts_with("optional, without it") && told.contains("aws iam put-role-policy"), "{told}");
    }
}

#[tokio::test]
async fn where_there_is_nothing_to_ask_it_of_it_says_so() {
    let bench = AwsBench::start().await.unwrap();
    let findings = bench.cloud.check(&scope()).await;
    assert_eq!(failures(&findings), BTreeSet::new(), "{findings:#?}");
    for permission in ["ec2:AssociateAddress", "ec2:DisassociateAddress", "ec2:ModifyNetworkInterfaceAttribute"] {
        assert!(finding(&findings, permission).message.starts_with("not tested"), "{findings:#?}");
    }
}
