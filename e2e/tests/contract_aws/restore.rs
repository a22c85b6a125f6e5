//! What becomes of the address that a machine had of its own.

use std::time::Duration;

use e2e::{
    contract::{Bench as _, NODE, ONE},
    world::Fault,
};
use ip_address_controller::cloud::{Cloud as _, ErrorKind, Interface, Restored};

use crate::bench::{AwsBench, ip};

const MODIFY: &str = "ModifyNetworkInterfaceAttribute";
const LONG: Duration = Duration::from_secs(3600);

/// A machine that an address has just left.
async fn left(machine: &str) -> AwsBench {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_own_returns_after(LONG);
    bench.add_wide("wide");
    bench.cloud.attach(&bench.attach(ONE, machine)).await.unwrap();
    bench.cloud.detach(&bench.detach(ONE, machine)).await.unwrap();
    bench
}

#[tokio::test]
async fn a_machine_with_one_interface_gets_its_own_address_by_itself() {
    let bench = AwsBench::start().await.unwrap();
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    assert_eq!(bench.world.external_ip(NODE), Some(ip(ONE)), "its own has gone without a request");
    bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    assert_eq!(bench.cloud.restore(&bench.restore(NODE)).await.unwrap(), Restored::Given);
    let seat = bench.cloud.inspect(&bench.machine(NODE).place).await.unwrap();
    assert!(matches!(seat.interface, Interface::Ephemeral(_)), "{seat:?}");
    assert!(bench.calls(MODIFY).is_empty());
}

#[tokio::test]
async fn a_machine_with_several_interfaces_is_asked_to_take_one() {
    let bench = left("wide").await;
    assert_eq!(bench.world.external_ip("wide"), None, "AWS gives it none by itself");
    assert_eq!(bench.cloud.restore(&bench.restore("wide")).await.unwrap(), Restored::Given);
    assert!(bench.world.external_ip("wide").is_some());
    assert_eq!(bench.calls(MODIFY).len(), 1);
}

#[tokio::test]
async fn a_machine_that_was_asked_is_not_asked_again_while_nothing_is_shown() {
    let bench = left("wide").await;
    bench.world.set_read_lag(LONG);
    for _ in 0..2 {
        let error = bench.cloud.restore(&bench.restore("wide")).await.unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
    }
    assert_eq!(bench.calls(MODIFY).len(), 1);
}

#[tokio::test]
async fn the_permission_is_needed_only_where_aws_does_nothing_by_itself() {
    let narrow = left(NODE).await;
    narrow.world.deny("ec2:ModifyNetworkInterfaceAttribute");
    let error = narrow.cloud.restore(&narrow.restore(NODE)).await.unwrap_err();
    assert!(error.kind == ErrorKind::Unavailable && error.message.contains("by itself"), "{error}");
    let wide = left("wide").await;
    wide.world.deny("ec2:ModifyNetworkInterfaceAttribute");
    let error = wide.cloud.restore(&wide.restore("wide")).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Denied, true), "{error}");
    assert!(error.message.contains("stays without a public address") && error.message.contains(MODIFY), "{error}");
}

#[tokio::test]
async fn a_refusal_for_good_says_what_is_lost() {
    for (code, kind) in
        [("OperationNotPermitted", ErrorKind::Unsupported), ("InvalidParameterCombination", ErrorKind::Invalid)]
    {
        let bench = left("wide").await;
        bench.world.fail_next(MODIFY, Fault::refuse(400, code, "not on this one"));
        let error = bench.cloud.restore(&bench.restore("wide")).await.unwrap_err();
        assert_eq!((error.kind, error.settled), (kind, true), "{error}");
        assert!(error.message.contains("stays without a public address"), "{error}");
    }
}

#[tokio::test]
async fn p10_a_stopped_machine_with_one_interface_is_not_waited_for_and_gets_its_own_address_when_it_starts() {
    let bench = left(NODE).await;
    bench.world.set_power(NODE, e2e::world::Power::Stopped);
    let error = bench.cloud.restore(&bench.restore(NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unsupported, true), "refused for good: {error}");
    assert!(error.message.contains("when it starts"), "{error}");
    assert!(bench.calls(MODIFY).is_empty());
    // One with several interfaces would get none by itself, so what it is owed stays owed.
    let wide = left("wide").await;
    wide.world.set_power("wide", e2e::world::Power::Stopped);
    let kind = wide.cloud.restore(&wide.restore("wide")).await.map_err(|error| error.kind);
    assert_ne!(kind, Err(ErrorKind::Unsupported));
}

#[tokio::test]
async fn a_machine_between_two_states_is_not_asked() {
    let bench = left("wide").await;
    bench.world.set_power("wide", e2e::world::Power::Stopping);
    let error = bench.cloud.restore(&bench.restore("wide")).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
    assert!(bench.calls(MODIFY).is_empty());
}
