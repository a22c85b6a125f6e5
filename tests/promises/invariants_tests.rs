//! Each judgement refuses what it is there to refuse: a world at rest, and one thing put wrong by hand.

use std::time::{Duration, Instant};

use ip_address_controller::{
    allocation::decide::facts::{Operation, OperationKind},
    api::NetIPAllocationStatus,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::cosmos::{
    cloud::Sender,
    course::{Action, Outside},
    process::{Rules, Told, Write},
};

fn ip() -> IpAddr {
    IpAddr::from([203, 0, 113, 7])
}

/// One address on one of these nodes.
fn at_rest(nodes: &[&str], more: serde_json::Value) -> (Cosmos, String) {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    for node in nodes {
        cosmos.node(node, true);
    }
    cosmos.allocate("red", &[ip()], more);
    cosmos.come_to_rest().unwrap();
    let entry = red(&cosmos);
    (cosmos, entry.node.unwrap())
}

fn red(cosmos: &Cosmos) -> Entry {
    of(cosmos.cluster.allocation("red").unwrap()).next().unwrap()
}

fn edit(cosmos: &mut Cosmos, change: impl FnOnce(&mut AddressStatus)) {
    cosmos.cluster.edit_status("red", |status| change(&mut status.addresses[0])).unwrap();
}

#[track_caller]
fn refused(judged: Judged, why: &str) {
    let said = judged.unwrap_err();
    assert!(said.contains(why), "{said}");
}

#[test]
fn an_address_that_drains_for_nobody_is_not_at_rest() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    cosmos.cluster.cordon(&node, true).unwrap();
    edit(&mut cosmos, |entry| {
        entry.state = "Draining".to_owned();
        entry.reason = Some("NodeCordoned".to_owned());
    });
    refused(placed(&cosmos), "which it has to leave");
    cosmos.cluster.start_pod(&node, Pod { returns: true, ..crate::cosmos::course::pod("sip") }).unwrap();
    placed(&cosmos).expect("a pod uses it");
}

#[test]
fn a_verified_address_whose_node_does_not_say_so_is_not_at_rest() {
    let (mut cosmos, node) = at_rest(&["a"], json!({}));
    cosmos.cluster.label(&node, READY_LABEL, None).unwrap();
    refused(rest(&cosmos), "which does not say so");
}

#[test]
fn two_allocations_that_both_have_an_address_are_not_at_rest() {
    let cosmos = copied(false);
    refused(rest(&cosmos), "P5: both");
}

/// One address that a pod uses, and a second allocation that is said to have it as well.
fn copied(listed: bool) -> Cosmos {
    let evict = || json!({"drain": {"policy": "Evict"}});
    let (mut cosmos, node) = at_rest(&["a", "b"], evict());
    cosmos.happen(&Action::Outside(Outside::StartPod(node, "sip".to_owned()))).unwrap();
    let ips: Vec<IpAddr> = listed.then(ip).into_iter().collect();
    cosmos.allocate("blue", &ips, evict());
    let status: NetIPAllocationStatus = cosmos.cluster.allocation("red").unwrap().status.clone().unwrap();
    cosmos.cluster.edit_status("blue", |its| *its = status).unwrap();
    cosmos
}

#[test]
fn p5_p7_of_two_allocations_that_both_have_an_address_one_lets_go_and_nobody_notices() {
    for listed in [true, false] {
        let mut cosmos = copied(listed);
        let (before, sent) = (red(&cosmos), cosmos.sent);
        let node = before.node.clone().unwrap();
        let labels = cosmos.cluster.node(&node).unwrap().metadata.labels.clone();
        cosmos.come_to_rest().unwrap();
        assert_eq!(red(&cosmos), before);
        assert_eq!(cosmos.cluster.node(&node).unwrap().metadata.labels, labels);
        assert_eq!(cosmos.sent, sent, "nothing was sent to the cloud");
        let pods = cosmos.cluster.pods_of(&node);
        assert!(matches!(pods.as_slice(), [pod] if pod.terminating_until.is_none()), "asked to go: {pods:?}");
        let blue: Vec<_> = of(cosmos.cluster.allocation("blue").unwrap()).map(|it| (it.state, it.reason)).collect();
        let said = if listed { vec![(State::Unassigned, Reason::DuplicateClaim)] } else { Vec::new() };
        assert_eq!(blue, said, "its spec names the address: {listed}");
        let owed = cosmos.cluster.allocation("blue").unwrap().status.as_ref().map(|status| status.owed.len());
        assert_eq!(owed, Some(0));
    }
}

#[test]
fn an_address_on_a_selected_node_that_no_entry_has_is_not_at_rest() {
    let (mut cosmos, _) = at_rest(&["a"], json!({}));
    cosmos.cluster.edit_status("red", |status| status.addresses.clear()).unwrap();
    refused(rest(&cosmos), "rests unadopted");
}

/// Until a pod on the node of the address is about to be asked to go.
fn about_to_evict() -> (Cosmos, Action, String) {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({"drain": {"policy": "Evict"}}));
    cosmos.happen(&Action::Outside(Outside::StartPod(node.clone(), "sip".to_owned()))).unwrap();
    cosmos.happen(&Action::Outside(Outside::Cordon(node.clone()))).unwrap();
    let uid = cosmos.cluster.pods_of(&node)[0].uid.clone();
    for _ in 0..100 {
        match cosmos.next() {
            Some(Action::Step(id, flight)) => {
                let term = cosmos.process(id).term.as_ref().unwrap();
                if matches!(term.flights[&flight].errand.next(), Call::Evict(_)) {
                    return (cosmos, Action::Step(id, flight), uid);
                }
                cosmos.happen(&Action::Step(id, flight)).unwrap();
            }
            Some(action) => cosmos.happen(&action).unwrap(),
            None => cosmos.happen(&Action::Elapse(Duration::from_secs(1))).unwrap(),
        }
    }
    panic!("nobody was asked to go: {cosmos:?}");
}

#[test]
fn p7_a_pod_that_was_known_to_hold_is_not_asked_to_go() {
    let (mut cosmos, asks, uid) = about_to_evict();
    cosmos.clone().happen(&asks).expect("it may be asked");
    let known = cosmos.process(0).synced - Duration::from_secs(1);
    cosmos.held.insert(uid, known);
    refused(cosmos.happen(&asks), "P7");
}

#[test]
fn p7_with_policy_wait_nobody_is_asked_to_go() {
    let (mut cosmos, asks, _) = about_to_evict();
    cosmos.cluster.edit("red", |spec| spec.drain.policy = DrainPolicy::Wait).unwrap();
    refused(cosmos.happen(&asks), "against the policy");
}

#[test]
fn p7_a_pod_of_a_node_that_keeps_its_address_is_not_asked_to_go() {
    let (mut cosmos, asks, _) = about_to_evict();
    let mut elsewhere = cosmos.clone();
    edit(&mut elsewhere, |entry| entry.node = Some("another".to_owned()));
    refused(elsewhere.happen(&asks), "does not leave its node");
    edit(&mut cosmos, |entry| entry.state = "Attached".to_owned());
    refused(cosmos.happen(&asks), "does not leave its node");
}

/// A pass that has begun to take the address off its node because that is not Ready.
fn gives_up(cosmos: &Cosmos) -> Judged {
    let before = red(cosmos);
    let after = Entry { state: State::Releasing, reason: Reason::NodeNotReady, ..before.clone() };
    let object = cosmos.cluster.allocation("red").unwrap().clone();
    let record = Some(Told { turns: vec![(before, after, None)], struck: Vec::new() });
    super::passed(
        cosmos,
        0,
        true,
        "red",
        &Passed { status: Some((object.clone(), object)), record, ..Passed::default() },
    )
}

#[test]
fn p6_a_node_is_not_given_up_before_it_has_been_not_ready_for_long_enough() {
    let (mut cosmos, node) = at_rest(&["a", "b", "c"], json!({}));
    refused(gives_up(&cosmos), "before its time");
    cosmos.happen(&Action::Outside(Outside::NotReady(node))).unwrap();
    cosmos.happen(&Action::Elapse(Duration::from_secs(299))).unwrap();
    refused(gives_up(&cosmos), "before its time");
    cosmos.happen(&Action::Elapse(Duration::from_secs(2))).unwrap();
    gives_up(&cosmos).expect("now it may");
}

#[test]
fn p8_who_does_not_hold_the_lease_writes_nothing() {
    let (cosmos, _) = at_rest(&["a"], json!({}));
    for write in [Write::Finalizer, Write::Status, Write::Move, Write::Release] {
        let passed = Passed { writes: vec![write], ..Passed::default() };
        refused(super::passed(&cosmos, 0, false, "red", &passed), "P8");
        super::passed(&cosmos, 0, true, "red", &passed).expect("who holds it may");
    }
}

#[test]
fn p9_what_nobody_has_asked_for_is_not_cut() {
    let (mut cosmos, _) = at_rest(&["a", "b"], json!({}));
    let entry = red(&cosmos);
    let place = entry.machine.clone().unwrap().place;
    let operation = Operation {
        id: Uuid::from_u128(1),
        kind: OperationKind::Detach,
        start: cosmos.now,
        send_before: cosmos.now + SignedDuration::from_secs(60),
        attempts: 0,
        traceparent: None,
    };
    let releasing = Entry { state: State::Releasing, operation: Some(operation), ..entry };
    let written = memory::write(&releasing);
    edit(&mut cosmos, |entry| *entry = written);
    let order =
        Order::DeleteConfig { machine: place.clone(), name: cosmos.cloud.machine(&place).unwrap().mark.clone() };
    let meta = Meta {
        sender: Sender { process: 0, effect: 0 },
        operation: Uuid::from_u128(1),
        address: Some(ip()),
        latest: cosmos.instant + Duration::from_secs(60),
    };
    let request = cosmos.cloud.send(order, meta);
    let cut = cosmos.cloud.land(request);
    assert!(matches!(cut.removed, Some((_, Slot::Reserved(_)))), "{cut:?}");
    refused(landed(&cosmos, &cut), "P9");
    cosmos.meddled = true;
    landed(&cosmos, &cut).expect("somebody has done something");
}
