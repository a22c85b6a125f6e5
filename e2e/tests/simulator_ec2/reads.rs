//! Describing, and who may.

use std::time::Duration;

use aws_sdk_ec2::types::{InstanceStateName, ServiceManaged};
use e2e::{
    simulator::ec2,
    world::{Address, NewMachine, Power, RateLimit},
};

use crate::{
    IP, ip,
    lab::{ACCOUNT, Lab, REGION, ZONE, filter, told},
    small_world,
};

#[tokio::test]
async fn addresses_show_their_holders() {
    let world = small_world();
    world.add_address(Address::new(ACCOUNT, REGION, "web", ip("203.0.113.8")).held_by("loadBalancers/web"));
    world.add_address(Address::new(ACCOUNT, REGION, "nlb", ip("203.0.113.9")).held_by("nlb"));
    world.add_address(Address::new(ACCOUNT, REGION, "edge", ip("203.0.113.10")).of_group("us-west-2-lax-1"));
    world.add_address(Address::new(ACCOUNT, "eu-central-1", "far", ip("203.0.113.11")));
    world.move_address(ip(IP), "node-a").unwrap();
    let lab = Lab::over(world).await;
    let answer = lab.client().describe_addresses().send().await.unwrap();
    let all = answer.addresses();
    assert_eq!(all.len(), 4);
    let of = |ip: &str| all.iter().find(|address| address.public_ip() == Some(ip)).unwrap();
    let machine = lab.world.machine("node-a").unwrap();
    assert_eq!(of(IP).instance_id(), Some(ec2::instance_id(&machine).as_str()));
    assert_eq!(of(IP).network_interface_id(), Some(ec2::interface_id(&machine, 0).as_str()));
    assert_eq!(of(IP).tags()[0].value(), Some("sip"));
    assert_eq!((of("203.0.113.8").instance_id(), of("203.0.113.8").association_id().is_some()), (None, true));
    assert_eq!(of("203.0.113.9").service_managed(), Some(&ServiceManaged::Nlb));
    assert_eq!(of("203.0.113.10").network_border_group(), Some("us-west-2-lax-1"));
    // As the real service now and then: there, and empty.
    assert_eq!(of("203.0.113.10").association_id(), Some(""));
    lab.finish().await;
}

#[tokio::test]
async fn filters_are_understood_or_refused() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    let find = async |name: &str, values: &[&str]| {
        client.describe_addresses().filters(filter(name, values)).send().await.map(|answer| answer.addresses().len())
    };
    assert_eq!(find("public-ip", &[IP, "203.0.113.99"]).await.unwrap(), 1);
    assert_eq!(find("public-ip", &["203.0.113.99"]).await.unwrap(), 0);
    assert_eq!(told(&find("tag:pool", &["sip"]).await.unwrap_err()), (400, "InvalidParameterValue".to_owned()));
    let many = vec![IP; 201];
    assert_eq!(told(&find("public-ip", &many).await.unwrap_err()), (400, "FilterLimitExceeded".to_owned()));
    lab.finish().await;
}

#[tokio::test]
async fn what_the_facade_does_not_know_is_refused_and_not_ignored() {
    let lab = Lab::over(small_world()).await;
    let error = lab.client().describe_addresses().public_ips(IP).send().await.unwrap_err();
    assert_eq!(told(&error), (400, "UnknownParameter".to_owned()));
    let error = lab.client().describe_vpcs().send().await.unwrap_err();
    assert_eq!(told(&error), (400, "InvalidAction".to_owned()));
    lab.client().describe_addresses().send().await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn instances_show_their_interfaces_the_primary_one_last() {
    let world = small_world();
    world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, "wide").interfaces(2).managed());
    world.give_to_foreign(ip(IP), "interfaces/wide/1");
    world.set_power("node-a", Power::Starting);
    let lab = Lab::over(world).await;
    let client = lab.client();
    let get = async |name: &str| {
        let id = ec2::instance_id(&lab.world.machine(name).unwrap());
        let answer = client.describe_instances().filters(filter("instance-id", &[&id])).send().await.unwrap();
        answer.reservations()[0].instances()[0].clone()
    };
    let wide = get("wide").await;
    let indices: Vec<_> =
        wide.network_interfaces().iter().map(|interface| interface.attachment().unwrap().device_index()).collect();
    assert_eq!(indices, [Some(1), Some(0)]);
    let of = |n: usize| wide.network_interfaces()[n].association().unwrap();
    assert_eq!((of(0).public_ip(), of(0).ip_owner_id()), (Some(IP), Some(ACCOUNT)));
    assert_eq!(of(1).ip_owner_id(), Some("amazon"));
    assert_eq!(wide.operator().unwrap().managed(), Some(true));
    assert_eq!(wide.placement().unwrap().availability_zone(), Some(ZONE));
    let starting = get("node-a").await;
    assert_eq!(starting.state().unwrap().name(), Some(&InstanceStateName::Pending));
    let none = client.describe_instances().filters(filter("instance-id", &["i-0dead"])).send().await.unwrap();
    assert!(none.reservations().is_empty());
    lab.finish().await;
}

#[tokio::test]
async fn many_instances_come_in_pages() {
    let world = small_world();
    for n in 0..10 {
        world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, &format!("more-{n}")));
    }
    let lab = Lab::over(world).await;
    let pages = lab.client().describe_instances().max_results(5).into_paginator().items().send();
    assert_eq!(pages.try_collect().await.unwrap().len(), 12);
    assert_eq!(lab.world.calls().len(), 3);
    lab.finish().await;
}

#[tokio::test]
async fn a_requests_region_is_that_of_its_signature() {
    let world = small_world();
    world.add_address(Address::new(ACCOUNT, "eu-central-1", "far", ip("203.0.113.11")));
    let lab = Lab::over(world).await;
    let key = lab.world.issue_token().unwrap();
    let far = lab.client_of("eu-central-1", &key).describe_addresses().send().await.unwrap();
    assert_eq!(far.addresses()[0].public_ip(), Some("203.0.113.11"));
    let regions = lab.client().describe_regions().send().await.unwrap();
    let names: Vec<_> = regions.regions().iter().filter_map(|region| region.region_name()).collect();
    assert_eq!(names, ["eu-central-1", REGION]);
    let moon = lab.client_of("moon-1", &key).describe_addresses().send().await.unwrap_err();
    assert_eq!(told(&moon), (401, "AuthFailure".to_owned()));
    lab.finish().await;
}

#[tokio::test]
async fn who_may_not_is_told_so_as_ec2_does() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    client.describe_addresses().send().await.unwrap();
    lab.world.deny("ec2:DescribeAddresses");
    let error = client.describe_addresses().send().await.unwrap_err();
    assert_eq!(told(&error), (403, "UnauthorizedOperation".to_owned()));
    let text = aws_sdk_ec2::error::ProvideErrorMetadata::message(&error).unwrap().to_owned();
    assert!(text.contains("ec2:DescribeAddresses") && text.len() > 400, "{text}");
    lab.world.allow("ec2:DescribeAddresses");
    lab.world.set_rate_limit(Some(RateLimit { calls: 0, window: Duration::from_secs(60) }));
    let error = client.describe_addresses().send().await.unwrap_err();
    assert_eq!(told(&error), (503, "RequestLimitExceeded".to_owned()));
    lab.world.set_rate_limit(None);
    lab.world.revoke_credentials();
    let error = client.describe_addresses().send().await.unwrap_err();
    assert_eq!(told(&error), (401, "AuthFailure".to_owned()));
    lab.finish().await;
}

#[tokio::test]
async fn reads_can_lag_behind_changes() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    let holder = async || {
        let answer = client.describe_addresses().send().await.unwrap();
        answer.addresses()[0].instance_id().unwrap_or_default().to_owned()
    };
    lab.world.set_read_lag(Duration::from_millis(200));
    lab.world.move_address(ip(IP), "node-a").unwrap();
    assert_eq!(holder().await, "");
    let seen = async {
        while holder().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), seen).await.expect("never shown");
    lab.finish().await;
}
