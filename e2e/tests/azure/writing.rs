//! What the client writes, and how it follows what becomes of that.

use std::time::Duration;

use e2e::{
    contract::{Bench as _, NODE, NODE_2, ONE, PRIVATE, TWO},
    simulator::arm,
    world::{Address, Fault, Latency, NewMachine, Point, Power},
};
use ip_address_controller::cloud::{Cloud as _, CloudError, ErrorKind, Holder, Verified};
use serde_json::Value;

use super::bench::{AzureBench, HOME, ip, scope};

/// An interface without what changes with each write, and without the public address.
fn lasting(mut interface: Value) -> Value {
    let configs = interface["properties"]["ipConfigurations"].as_array_mut().unwrap();
    for config in configs {
        config.as_object_mut().unwrap().remove("etag");
        config["properties"].as_object_mut().unwrap().remove("publicIPAddress");
    }
    interface.as_object_mut().unwrap().remove("etag");
    interface
}

fn open(result: Result<Verified, CloudError>) -> CloudError {
    let error = result.unwrap_err();
    assert!(!error.settled, "{error}");
    error
}

#[tokio::test]
async fn every_field_of_an_interface_survives_also_those_that_no_sdk_knows() {
    let bench = AzureBench::start().await.unwrap();
    let before = bench.interface(NODE).await;
    assert_eq!(before["properties"]["simulatedFutureSetting"]["kept"], true);
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    let with = bench.interface(NODE).await;
    let primary = &with["properties"]["ipConfigurations"][1]["properties"];
    assert!(primary["publicIPAddress"]["id"].as_str().unwrap().ends_with("/publicIPAddresses/one"), "{primary}");
    assert_eq!(lasting(with), lasting(before.clone()));
    bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    assert_eq!(lasting(bench.interface(NODE).await), lasting(before));
}

#[tokio::test]
async fn a_write_names_the_state_of_the_interface_that_was_read() {
    let bench = AzureBench::start().await.unwrap();
    let read = bench.interface(NODE).await["etag"].as_str().unwrap().to_owned();
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    let read_again = bench.interface(NODE).await["etag"].as_str().unwrap().to_owned();
    assert_ne!(read, read_again);
    bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    let conditions: Vec<_> = bench.simulator.azure().writes().into_iter().map(|write| write.if_match).collect();
    assert_eq!(conditions, [Some(read), Some(read_again)]);
}

#[tokio::test]
async fn an_interface_that_somebody_else_has_changed_meanwhile_is_left_alone() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.move_address(ip(TWO), NODE_2).unwrap();
    let (on, off) = (bench.attach(ONE, NODE), bench.detach(TWO, NODE_2));
    let (first, second) =
        (bench.world.hold(arm::ATTACH, Point::Arrival), bench.world.hold(arm::DETACH, Point::Arrival));
    let meddle = async {
        first.arrived(1).await;
        second.arrived(1).await;
        bench.world.touch_interface(NODE);
        bench.world.touch_interface(NODE_2);
        first.release();
        second.release();
    };
    let all = async { tokio::join!(bench.cloud.attach(&on), bench.cloud.detach(&off), meddle) };
    let (attached, detached, ()) = tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    for error in [attached.unwrap_err(), detached.unwrap_err()] {
        assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
        assert!(error.message.starts_with("PreconditionFailed"), "{error}");
    }
    assert_eq!(bench.world.external_ip(NODE), None);
    assert_eq!(bench.world.machine_of(ip(TWO)).as_deref(), Some(NODE_2));
    assert_eq!(bench.world.mutations().len(), 2, "sent once each");
}

#[tokio::test]
async fn a_change_that_fails_late_says_the_clouds_code_and_words() {
    let bench = AzureBench::start().await.unwrap();
    let fault = Fault::fail_late("OperationNotAllowed", "VM is marked for deletion.");
    bench.world.fail_next(arm::ATTACH, fault);
    let error = bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true));
    assert_eq!(error.message, "OperationNotAllowed: VM is marked for deletion.");
}

#[tokio::test]
async fn an_operation_that_does_not_end_leaves_the_outcome_open() {
    let bench = AzureBench::start().await.unwrap();
    let impatient = bench.another(|settings| settings.operation_timeout = Duration::from_millis(600)).await;
    bench.world.set_latency(Latency { operation: Duration::from_secs(3600), ..Latency::default() });
    let error = open(impatient.attach(&bench.attach(ONE, PRIVATE)).await);
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    assert_eq!(bench.world.mutations().len(), 1);
}

#[tokio::test]
async fn an_operation_that_may_not_be_asked_about_or_is_not_found_leaves_the_outcome_open() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.fail_next("operations.get", Fault::refuse(404, "ResourceNotFound", "no such operation"));
    let error = open(bench.cloud.attach(&bench.attach(TWO, NODE)).await);
    assert_eq!(error.kind, ErrorKind::Unknown, "not found would mean that the machine is gone: {error}");
    bench.world.deny("Microsoft.Network/locations/operations/read");
    let error = open(bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await);
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("Microsoft.Network/locations/operations/read"), "{error}");
}

#[tokio::test]
async fn a_poll_that_fails_for_a_moment_is_tried_again() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.set_latency(Latency { operation: Duration::from_millis(600), ..Latency::default() });
    bench.world.fail_next("operations.get", Fault::refuse(500, "InternalServerError", "once more"));
    bench.world.fail_next("operations.get", Fault::refuse(429, "TooManyRequests", "slower"));
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
}

#[tokio::test]
async fn an_operation_on_another_host_is_not_asked_about_because_the_token_would_go_there() {
    let bench = AzureBench::start().await.unwrap();
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    bench.simulator.azure().lead_links_to(&trap.local_addr().unwrap().to_string());
    let error = open(bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await);
    assert_eq!(error.kind, ErrorKind::Unknown);
    assert!(error.message.contains("another host"), "{error}");
    let caught = tokio::time::timeout(Duration::from_millis(300), trap.accept()).await;
    assert!(caught.is_err(), "the other host was called");
}

#[tokio::test]
async fn without_a_link_to_an_operation_the_interface_is_asked() {
    let bench = AzureBench::start().await.unwrap();
    bench.simulator.azure().name_no_operations();
    let verified = bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    assert_eq!(verified.holder, Holder::Machine(bench.machine(PRIVATE).place));
    assert!(!bench.called().contains(&"operations.get".to_owned()));
}

#[tokio::test]
async fn a_change_is_not_believed_while_interface_or_address_is_still_being_changed() {
    let bench = AzureBench::start().await.unwrap();
    for (thing, address, machine) in [("node-1-nic", ONE, NODE), ("two", TWO, NODE_2)] {
        let held = bench.world.hold(arm::ATTACH, Point::Done);
        let order = bench.attach(address, machine);
        let change = async {
            held.arrived(1).await;
            bench.simulator.azure().show_state(thing, Some("Updating"));
            held.release();
        };
        let both = async { tokio::join!(bench.cloud.attach(&order), change) };
        let (attached, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        let error = attached.unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
        bench.simulator.azure().show_state(thing, None);
        bench.cloud.attach(&order).await.unwrap();
        assert_eq!(bench.world.attaches(ip(address)), 1);
    }
}

#[tokio::test]
async fn an_address_of_another_zone_is_not_sent() {
    let bench = AzureBench::start().await.unwrap();
    let add = |name: &str, text: &str, zones: &[&str]| {
        bench.world.add_address(Address::new(HOME.account, HOME.region, name, ip(text)).zones(zones));
    };
    add("other", "203.0.113.30", &["westeurope-2"]);
    add("same", "203.0.113.31", &["westeurope-1"]);
    add("wide", "203.0.113.32", &["westeurope-1", "westeurope-2", "westeurope-3"]);
    let error = bench.cloud.attach(&bench.attach("203.0.113.30", NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true), "{error}");
    assert!(error.message.contains("zone 2") && error.message.contains("westeurope-1"), "{error}");
    assert_eq!(bench.world.mutations(), []);
    bench.cloud.attach(&bench.attach("203.0.113.31", NODE)).await.unwrap();
    bench.cloud.attach(&bench.attach("203.0.113.32", NODE_2)).await.unwrap();
    // A machine in no zone takes an address of any.
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, "0", "zoneless").private());
    bench.cloud.attach(&bench.attach("203.0.113.30", "zoneless")).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_does_not_run_or_is_elsewhere_gets_nothing() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.set_power(NODE, Power::Stopped);
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.other_region, "northeurope-1", "far-node").private());
    for machine in [NODE, "far-node"] {
        let error = bench.cloud.attach(&bench.attach(ONE, machine)).await.unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true), "{error}");
    }
    let mut order = bench.attach(ONE, NODE_2);
    order.scope.account = "0a1b2c3d-0000-4000-8000-00000000beef".to_owned();
    let error = bench.cloud.attach(&order).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true), "{error}");
    assert_eq!(bench.world.mutations(), []);
}

#[tokio::test]
async fn an_address_is_taken_off_the_interface_that_a_deleted_machine_has_left_behind() {
    let bench = AzureBench::start().await.unwrap();
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    let order = bench.detach(ONE, NODE);
    bench.world.leave_interface(NODE);
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    let holder = &survey.addresses[&ip(ONE)].holder;
    assert!(matches!(holder, Holder::Foreign(what) if what.contains("of no machine")), "{holder:?}");
    let verified = bench.cloud.detach(&order).await.unwrap();
    assert_eq!(verified.holder, Holder::Free);
    assert_eq!(bench.world.machine_of(ip(ONE)), None);
}

#[tokio::test]
async fn an_interface_of_no_machine_in_another_resource_group_is_somebody_elses() {
    let bench = AzureBench::start().await.unwrap();
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    let order = bench.detach(ONE, NODE);
    bench.world.delete_machine(NODE);
    bench.world.give_to_foreign(ip(ONE), "networkInterfaces/of-another-team");
    bench.world.clear_calls();
    let _ = bench.cloud.detach(&order).await;
    assert_eq!(bench.world.mutations(), []);
    assert!(matches!(bench.world.holder(ip(ONE)), Some(e2e::world::Holder::Foreign(_))));
}

#[tokio::test]
async fn a_right_to_join_that_is_missing_is_named() {
    let bench = AzureBench::start().await.unwrap();
    for action in
        ["Microsoft.Network/publicIPAddresses/join/action", "Microsoft.Network/virtualNetworks/subnets/join/action"]
    {
        bench.world.deny(action);
        let error = bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Denied, true), "{error}");
        assert!(error.message.contains(action), "{error}");
        bench.world.allow(action);
    }
}

#[tokio::test]
async fn nothing_can_be_given_back_and_that_is_said() {
    let bench = AzureBench::start().await.unwrap();
    let error = bench.cloud.restore(&bench.restore(NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unsupported, true));
    assert!(error.message.contains("no address of its own"), "{error}");
}
