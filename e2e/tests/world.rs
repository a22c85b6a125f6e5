//! The simulated cloud itself, without a wire: faults, holds, races and witnesses.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::IpAddr, time::Duration};

use e2e::world::{
    Actor, Address, Answer, Ask, Caller, Change, Fault, Holder, Latency, MachineKey, NewMachine, Operation, Outcome,
    Phase, Place, Point, Power, RateLimit, Refusal, Tier, World,
};

const IP: &str = "203.0.113.7";
/// Longer than any test: what waits for this does not happen.
const NEVER: Duration = Duration::from_secs(3600);

fn ip() -> IpAddr {
    IP.parse().unwrap()
}

fn world(machines: &[&str]) -> World {
    let world = World::new();
    world.add_address(Address::new("prod", "us-west1", "sip-1", ip()));
    world.add_zone("prod", "us-west1", "us-west1-a");
    for name in machines {
        world.add_machine(NewMachine::new("prod", "us-west1", "us-west1-a", name).private());
    }
    world
}

fn ask(method: &str, target: &str) -> Ask {
    Ask {
        method: method.to_owned(),
        account: "prod".to_owned(),
        place: Place::Zone("us-west1-a".to_owned()),
        target: target.to_owned(),
        filter: String::new(),
        caller: Caller::Trusted,
        permissions: vec![format!("compute.{method}")],
    }
}

fn key(name: &str) -> MachineKey {
    MachineKey::new("prod", "us-west1-a", name)
}

async fn attach(world: &World, name: &str) -> Answer<Operation> {
    let change = Change::Attach {
        machine: key(name),
        config: "nia".to_owned(),
        ip: Some(ip()),
        tier: Tier::Premium,
        ptr: None,
        displace: false,
    };
    world.submit(ask("attach", name), None, change).await
}

async fn read(world: &World, target: &str) -> Answer<()> {
    world.read(ask("read", target), |_| Ok(())).await
}

async fn done(world: &World, answer: Answer<Operation>) -> Operation {
    let Answer::Given(operation) = answer else { panic!("not accepted: {answer:?}") };
    let zone = "us-west1-a".to_owned();
    match world.operation_done(ask("wait", &operation.name), zone, operation.name, NEVER).await {
        Answer::Given(operation) => operation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_address_goes_to_one_machine_when_two_are_asked_at_once() {
    let world = world(&["a", "b"]);
    world.set_latency(Latency { operation: Duration::from_millis(20), ..Latency::default() });
    let (first, second) = tokio::join!(attach(&world, "a"), attach(&world, "b"));
    let (first, second) = (done(&world, first).await, done(&world, second).await);

    let failures: Vec<_> = [first.failure, second.failure].into_iter().flatten().collect();
    assert!(matches!(failures.as_slice(), [Refusal::InUse { .. }]), "{failures:?}");
    assert_eq!(world.attaches(ip()), 1);
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn an_interface_takes_one_address_when_it_is_asked_twice_at_once() {
    let world = world(&["a"]);
    world.set_latency(Latency { operation: Duration::from_millis(20), ..Latency::default() });
    let (first, second) = tokio::join!(attach(&world, "a"), attach(&world, "a"));
    let failures = [done(&world, first).await.failure, done(&world, second).await.failure];
    assert_eq!(failures.iter().flatten().collect::<Vec<_>>(), [&Refusal::SeatTaken]);
    assert_eq!(world.attaches(ip()), 1);
}

#[tokio::test]
async fn an_operation_for_a_machine_that_was_replaced_fails() {
    let world = world(&["a"]);
    world.set_latency(Latency { operation: Duration::from_millis(20), ..Latency::default() });
    let accepted = attach(&world, "a").await;
    world.replace_machine("a").unwrap();
    assert_eq!(done(&world, accepted).await.failure, Some(Refusal::NoSuchMachine(key("a"))));
    assert_eq!(world.holder(ip()), Some(Holder::Nobody));
}

#[tokio::test]
async fn a_request_can_land_after_its_sender_has_given_up() {
    let world = world(&["a"]);
    world.fail_next("attach", Fault::LandLate(Duration::from_millis(20)));
    let sender = tokio::time::timeout(Duration::from_millis(1), attach(&world, "a")).await;
    assert!(sender.is_err());
    world.until(|world| world.machine_of(ip())).await;
    assert_eq!(world.calls()[0].outcome, Outcome::NoAnswer { effect: true });
}

#[tokio::test]
async fn an_operation_can_say_done_before_anything_is_seen() {
    let world = world(&["a", "b"]);
    world.fail_next("attach", Fault::EffectAfterDone(NEVER));
    let accepted = attach(&world, "a").await;
    let operation = done(&world, accepted).await;
    assert_eq!((operation.phase, operation.effective, operation.failure), (Phase::Done, false, None));
    assert_eq!(world.holder(ip()), Some(Holder::Nobody));

    world.fail_next("attach", Fault::EffectAfterDone(Duration::from_millis(1)));
    attach(&world, "b").await;
    assert_eq!(world.until(|world| world.machine_of(ip())).await, "b");
}

#[tokio::test]
async fn a_fault_meets_the_call_that_it_is_meant_for_and_only_that() {
    let world = world(&[]);
    world.fail_next_of("read", "b", Fault::refuse(503, "backendError", "try again"));
    assert_eq!(read(&world, "a").await, Answer::Given(()));
    assert!(matches!(read(&world, "b").await, Answer::Refused(Refusal::Scripted { status: 503, .. })));
    assert_eq!(read(&world, "b").await, Answer::Given(()));

    world.fail_every("*", Fault::Close);
    assert_eq!((read(&world, "a").await, read(&world, "a").await), (Answer::Closed, Answer::Closed));
    world.clear_faults();
    assert_eq!(read(&world, "a").await, Answer::Given(()));
}

#[tokio::test]
async fn one_slow_call_does_not_slow_the_others() {
    let world = world(&[]);
    world.fail_next("read", Fault::Latency(NEVER));
    let slow = tokio::spawn({
        let world = world.clone();
        async move { read(&world, "slow").await }
    });
    world.until(|world| (!world.calls().is_empty()).then_some(())).await;
    assert_eq!(read(&world, "quick").await, Answer::Given(()));
    assert_eq!(world.calls()[0].outcome, Outcome::Running);
    slow.abort();
}

#[tokio::test]
async fn a_read_that_is_held_answers_what_was_so_before() {
    let world = world(&["a"]);
    let held = world.hold("read", Point::Answer);
    let reader = tokio::spawn({
        let world = world.clone();
        async move { world.read(ask("read", IP), |inventory| Ok(inventory.holder(ip()))).await }
    });
    held.arrived(1).await;
    world.move_address(ip(), "a").unwrap();
    assert_eq!(held.waiting(), 1);
    held.release();
    assert_eq!(reader.await.unwrap(), Answer::Given(Some(Holder::Nobody)));
}

#[tokio::test]
async fn a_hold_is_for_the_calls_that_it_is_meant_for_and_can_stop_taking_more() {
    let world = world(&[]);
    let held = world.hold_of("read", "slow", Point::Arrival);
    let reader = tokio::spawn({
        let world = world.clone();
        async move { read(&world, "slow").await }
    });
    held.arrived(1).await;
    assert_eq!(read(&world, "quick").await, Answer::Given(()));
    held.take_no_more();
    assert_eq!(read(&world, "slow").await, Answer::Given(()));
    assert!(!reader.is_finished(), "who waited before goes on waiting");
    held.release();
    assert_eq!(reader.await.unwrap(), Answer::Given(()));
}

#[tokio::test]
async fn the_rate_limit_counts_each_account_and_refills() {
    let world = world(&[]);
    world.set_rate_limit(Some(RateLimit { calls: 1, window: NEVER }));
    assert_eq!(read(&world, "a").await, Answer::Given(()));
    assert_eq!(read(&world, "a").await, Answer::Refused(Refusal::Throttled));
    world.add_region("other", "us-west1");
    let other = Ask { account: "other".to_owned(), place: Place::Account, ..ask("read", "a") };
    assert_eq!(world.read(other, |_| Ok(())).await, Answer::Given(()));

    world.set_rate_limit(Some(RateLimit { calls: 1, window: Duration::from_millis(50) }));
    assert_eq!(read(&world, "a").await, Answer::Given(()));
    let refilled = async {
        while read(&world, "a").await != Answer::Given(()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refilled).await.expect("never refilled");
}

#[tokio::test]
async fn places_and_permissions_are_checked() {
    let world = world(&[]);
    let lost = Ask { account: "nobody".to_owned(), ..ask("read", "a") };
    assert_eq!(world.read(lost, |_| Ok(())).await, Answer::Refused(Refusal::NoSuchAccount("nobody".to_owned())));
    let lost = Ask { place: Place::Zone("moon-a".to_owned()), ..ask("read", "a") };
    assert!(matches!(world.read(lost, |_| Ok(())).await, Answer::Refused(Refusal::NoSuchPlace { what: "zone", .. })));
    world.deny("compute.read");
    assert!(matches!(read(&world, "a").await, Answer::Refused(Refusal::Denied { .. })));
    world.allow("compute.read");
    assert_eq!(read(&world, "a").await, Answer::Given(()));
}

#[test]
fn a_stopped_machine_loses_only_an_ephemeral_address() {
    let world = world(&["a"]);
    world.move_address(ip(), "a").unwrap();
    world.set_power("a", Power::Suspended);
    assert_eq!(world.external_ip("a"), Some(ip()));

    world.add_machine(NewMachine::new("prod", "us-west1", "us-west1-a", "b"));
    let before = world.external_ip("b").unwrap();
    world.stop_machine("b");
    assert_eq!(world.external_ip("b"), None);
    world.start_machine("b");
    assert_ne!(world.external_ip("b"), Some(before));
}

#[test]
fn what_outsiders_do_is_written_down_as_theirs() {
    let world = world(&["a", "b"]);
    world.move_address(ip(), "a").unwrap();
    world.move_address(ip(), "b").unwrap();
    world.delete_machine("b");
    world.give_to_foreign(ip(), "forwardingRules/web");

    let removals: Vec<_> = world.removals().into_iter().map(|removal| (removal.by, removal.machine.name)).collect();
    assert_eq!(removals, [(Actor::Outsider, "a".to_owned()), (Actor::Lifecycle, "b".to_owned())]);
    assert_eq!(world.attaches(ip()), 0);
    assert_eq!(world.holder(ip()), Some(Holder::Foreign("forwardingRules/web".to_owned())));
    assert!(world.move_address("203.0.113.99".parse().unwrap(), "a").is_err());
}

#[test]
fn an_address_in_two_places_is_noticed() {
    let world = world(&["a"]);
    world.move_address(ip(), "a").unwrap();
    world.add_address(Address::new("prod", "us-west1", "sip-1", ip()).held_by("routers/nat"));
    assert!(world.violations()[0].contains("routers/nat"), "{:?}", world.violations());
}

#[tokio::test]
async fn a_reader_of_a_lagging_cloud_sees_what_was_so() {
    let world = world(&["a"]);
    let seen = async || match world.read(ask("read", IP), |inventory| Ok(inventory.holder(ip()))).await {
        Answer::Given(Some(holder)) => holder,
        other => panic!("{other:?}"),
    };
    world.set_read_lag(Duration::from_millis(100));
    world.move_address(ip(), "a").unwrap();
    assert_eq!(seen().await, Holder::Nobody);
    assert_eq!(world.machine_of(ip()).as_deref(), Some("a"), "witnesses do not lag");
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(seen().await, Holder::Machine(key("a")));
    world.free_address(ip());
    world.set_read_lag(Duration::ZERO);
    assert_eq!(seen().await, Holder::Nobody);
}

#[tokio::test]
async fn a_taking_leaves_nobody_else_with_the_address() {
    let world = world(&["a", "b"]);
    world.move_address(ip(), "a").unwrap();
    let take = Change::Take { machine: key("b"), config: "nia".to_owned(), ip: ip() };
    let ended = world.perform(ask("attach", "b"), take, |_| Ok(())).await;
    assert!(matches!(ended, Answer::Given(Operation { effective: true, .. })), "{ended:?}");
    assert_eq!(world.machine_of(ip()).as_deref(), Some("b"));
    let removals: Vec<_> = world.removals().into_iter().map(|removal| (removal.by, removal.machine.name)).collect();
    assert_eq!(removals, [(Actor::Api, "a".to_owned())]);
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_that_is_answered_when_it_has_ended_says_how() {
    let world = world(&["a", "b"]);
    world.set_latency(Latency { operation: Duration::from_millis(20), ..Latency::default() });
    world.move_address(ip(), "a").unwrap();
    let put = |machine| Change::Attach {
        machine: key(machine),
        config: "nia".to_owned(),
        ip: Some(ip()),
        tier: Tier::Premium,
        ptr: None,
        displace: true,
    };
    let held = world.perform(ask("attach", "b"), put("b"), |_| Ok(())).await;
    assert!(matches!(held, Answer::Refused(Refusal::InUse { .. })), "{held:?}");
    world.free_address(ip());
    let rule = |_: &_| Err(Refusal::SeatTaken);
    assert_eq!(world.perform(ask("attach", "b"), put("b"), rule).await, Answer::Refused(Refusal::SeatTaken));
    world.perform(ask("attach", "b"), put("b"), |_| Ok(())).await;
    assert_eq!(world.machine_of(ip()).as_deref(), Some("b"));
}
