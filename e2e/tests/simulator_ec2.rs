//! The EC2 façade as the real client sees it, and as AWS's own description of the API allows it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "simulator_ec2/changes.rs"]
mod changes;
#[path = "simulator_ec2/description.rs"]
mod description;
#[path = "simulator_ec2/lab.rs"]
mod lab;
#[path = "simulator_ec2/reads.rs"]
mod reads;

use std::net::IpAddr;

use e2e::{
    simulator::ec2::ACTIONS,
    world::{Address, NewMachine, World},
};
use lab::{ACCOUNT, REGION, ZONE};
use serde_json::json;

const IP: &str = "203.0.113.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One free address, and two machines with an address of their own.
fn small_world() -> World {
    let world = World::new();
    world.add_address(Address::new(ACCOUNT, REGION, "sip-1", ip(IP)).tag("pool", "sip"));
    for name in ["node-a", "node-b"] {
        world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, name));
    }
    world
}

#[test]
fn every_action_is_one_that_aws_describes() {
    for action in ACTIONS {
        let described = description::parameters(action.name);
        for parameter in action.reads {
            let known = described.iter().any(|(name, _)| name == parameter);
            assert!(known, "{} has no {parameter}: {described:?}", action.name);
        }
    }
}

#[test]
fn the_check_against_awss_description_finds_what_is_wrong() {
    let check = |body| description::is_a("DescribeAddressesResult", &body).unwrap_err();
    assert!(check(json!({"addressSet": []})).contains("no element addressSet"));
    assert!(check(json!({"addressesSet": [{"ip": "1.2.3.4"}]})).contains("no element ip"));
    assert!(check(json!({"addressesSet": [{"domain": "moon"}]})).contains("enum"));
    assert!(check(json!({"addressesSet": [{"publicIp": 7}]})).contains("addressesSet[0].publicIp"));
    assert!(check(json!({"addressesSet": {"publicIp": "1.2.3.4"}})).contains("list"));
    assert!(description::is_a("Instance", &json!({"launchTime": "yesterday"})).is_err());
    assert!(description::is_a("Instance", &json!({"ebsOptimized": "true"})).is_err());
}
