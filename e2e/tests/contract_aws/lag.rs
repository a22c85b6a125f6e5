//! Reads lag behind changes; what this process has changed itself it knows.

use std::time::Duration;

use e2e::{
    contract::{Bench as _, NODE, NODE_2, ONE, PRIVATE, TWO},
    world::Fault,
};
use ip_address_controller::cloud::{Cloud as _, ErrorKind, Holder, Interface, Restored};

use crate::bench::{AwsBench, ip, scope};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_address_moves_on_at_once() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.move_address(ip(ONE), NODE).unwrap();
    bench.world.set_read_lag(LONG);
    let verified = bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    assert_eq!(verified.holder, Holder::Free);
    let verified = bench.cloud.attach(&bench.attach(ONE, NODE_2)).await.unwrap();
    assert_eq!(verified.holder, bench.on(NODE_2));
    assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), Some(NODE_2));
}

#[tokio::test]
async fn an_interface_that_was_just_left_takes_another_address_at_once() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.move_address(ip(ONE), NODE).unwrap();
    bench.world.set_read_lag(LONG);
    bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    bench.cloud.attach(&bench.attach(TWO, NODE)).await.unwrap();
    assert_eq!(bench.world.machine_of(ip(TWO)).as_deref(), Some(NODE));
    // And takes no third one, though it shows none.
    let error = bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    assert_eq!(bench.world.machine_of(ip(TWO)).as_deref(), Some(NODE));
}

#[tokio::test]
async fn what_is_attached_twice_is_sent_once() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(LONG);
    for _ in 0..2 {
        let verified = bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
        assert_eq!(verified.holder, bench.on(PRIVATE));
    }
    assert_eq!(bench.world.mutations().len(), 1);
}

#[tokio::test]
async fn what_was_just_attached_comes_off_again() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(LONG);
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    let verified = bench.cloud.detach(&bench.detach(ONE, PRIVATE)).await.unwrap();
    assert_eq!(verified.holder, Holder::Free);
    assert_eq!(bench.world.machine_of(ip(ONE)), None);
}

#[tokio::test]
async fn a_detach_whose_answer_was_lost_is_sent_again_though_nothing_is_shown() {
    for (fault, sent) in [(Fault::Hang, 2), (Fault::HangAfterEffect, 2)] {
        let bench = AwsBench::start().await.unwrap();
        bench.world.set_read_lag(LONG);
        bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
        bench.world.fail_next("DisassociateAddress", fault.clone());
        let error = bench.cloud.detach(&bench.detach(ONE, PRIVATE)).await.unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Timeout, false), "{error}");
        let verified = bench.cloud.detach(&bench.detach(ONE, PRIVATE)).await.unwrap();
        assert_eq!(verified.holder, Holder::Free);
        assert_eq!(bench.world.machine_of(ip(ONE)), None);
        assert_eq!(bench.calls("DisassociateAddress").len(), sent, "{fault:?}");
    }
}

#[tokio::test]
async fn a_detach_that_was_refused_leaves_no_doubt() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(LONG);
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    bench.world.fail_next("DisassociateAddress", Fault::refuse(503, "RequestLimitExceeded", "slow down"));
    let error = bench.cloud.detach(&bench.detach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Throttled, true), "{error}");
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    assert_eq!(bench.calls("AssociateAddress").len(), 1);
}

#[tokio::test]
async fn another_process_finds_done_what_it_cannot_see_yet() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(Duration::from_millis(600));
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    let next_leader = AwsBench::connect(&bench.world, &bench.simulator).await;
    let verified = next_leader.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    assert_eq!(verified.holder, bench.on(PRIVATE));
    assert_eq!(bench.world.attaches(ip(ONE)), 1);
}

#[tokio::test]
async fn what_is_never_shown_is_left_open_and_settled() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(LONG);
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    let next_leader = AwsBench::connect(&bench.world, &bench.simulator).await;
    let error = next_leader.attach(&bench.attach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
}

#[tokio::test]
async fn a_machine_that_was_just_left_is_still_owed_its_own_address() {
    let bench = AwsBench::start().await.unwrap();
    bench.add_wide("wide");
    bench.world.move_address(ip(ONE), "wide").unwrap();
    bench.world.set_read_lag(Duration::from_millis(600));
    bench.cloud.detach(&bench.detach(ONE, "wide")).await.unwrap();
    // It still shows the reserved address, which is not one of its own.
    assert_eq!(bench.cloud.restore(&bench.restore("wide")).await.unwrap(), Restored::Given);
    assert!(bench.world.external_ip("wide").is_some());
    assert_eq!(bench.calls("ModifyNetworkInterfaceAttribute").len(), 1);
}

#[tokio::test]
async fn p10_what_a_machine_had_before_an_address_came_and_went_is_not_taken_for_what_it_is_given_back() {
    let bench = AwsBench::start().await.unwrap();
    bench.add_wide("wide");
    bench.world.set_read_lag(LONG);
    bench.cloud.attach(&bench.attach(ONE, "wide")).await.unwrap();
    bench.cloud.detach(&bench.detach(ONE, "wide")).await.unwrap();
    // Nothing of both is shown yet: it seems to have its own address all the time.
    let seat = bench.cloud.inspect(&bench.machine("wide").place).await.unwrap();
    assert!(matches!(seat.interface, Interface::Ephemeral(_)), "{seat:?}");
    let error = bench.cloud.restore(&bench.restore("wide")).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(bench.calls("ModifyNetworkInterfaceAttribute").len(), 1);
    assert!(bench.world.external_ip("wide").is_some());
}

#[tokio::test]
async fn a_survey_says_what_the_cloud_shows() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_read_lag(LONG);
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses[&ip(ONE)].holder, Holder::Free);
}
