//! Each judgement refuses what it is there to refuse: a world at rest, and one thing put wrong by hand.

use std::time::{Duration, Instant};

use ip_address_controller::{
    allocation::decide::{
        facts::{Journey, Operation, OperationKind},
        users::Owner,
    },
    api::NetIPAllocationStatus,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::cosmos::{
    cloud::Sender,
    course::{Action, Lie, Outside},
    process::{Rules, TIMEOUT, Told, Write},
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
fn p9_an_object_that_is_deleted_does_not_stay_for_nobody() {
    let (mut cosmos, node) = at_rest(&["a"], json!({}));
    let now = cosmos.now;
    cosmos.cluster.delete("red", now).unwrap();
    refused(rest(&cosmos), "stays although nobody uses");
    edit(&mut cosmos, |entry| {
        entry.state = "Draining".to_owned();
        entry.reason = Some("AllocationDeleted".to_owned());
    });
    refused(rest(&cosmos), "stays although nobody uses");
    cosmos.cluster.start_pod(&node, crate::cosmos::course::pod("sip")).unwrap();
    rest(&cosmos).expect("a pod uses it");
}

/// The one address waits with this reason, free in truth, and its node is free as well.
fn waits(reason: &str) -> Cosmos {
    let (mut cosmos, _) = at_rest(&["a"], json!({}));
    cosmos.cloud.outsider_detaches(ip());
    edit(&mut cosmos, |entry| {
        *entry = AddressStatus {
            ip: entry.ip.clone(),
            state: "Unassigned".to_owned(),
            reason: Some(reason.to_owned()),
            last_transition_time: entry.last_transition_time.clone(),
            ..AddressStatus::default()
        };
    });
    cosmos
}

#[test]
fn a_free_address_that_a_node_could_take_is_not_at_rest_whatever_it_says() {
    for reason in ["NoEligibleNode", "AddressInUse", "AddressNotFound", "HolderUnreachable", "DuplicateClaim", "Denied"]
    {
        refused(placed(&waits(reason)), "although node a could take it");
    }
    let mut planned = waits("NoEligibleNode");
    edit(&mut planned, |entry| entry.planned_node = Some("a".to_owned()));
    refused(placed(&planned), "although node a could take it");
    let mut rivals = waits("DuplicateClaim");
    rivals.allocate("blue", &[ip()], json!({"mode": "Observe"}));
    rivals
        .cluster
        .edit_status("blue", |status| status.addresses = vec![memory::write(&red(&waits("Observing")))])
        .unwrap();
    placed(&rivals).expect("another asks for it");
    let mut full = waits("NoEligibleNode");
    full.cluster.cordon("a", true).unwrap();
    placed(&full).expect("the node takes nothing");
}

#[test]
fn an_address_that_is_asked_for_and_has_no_entry_is_not_at_rest() {
    let (mut cosmos, _) = at_rest(&["a"], json!({}));
    cosmos.cluster.edit_status("red", |status| status.addresses.clear()).unwrap();
    refused(placed(&cosmos), "has no entry for it");
    let mut foreign = at_rest(&["a"], json!({})).0;
    edit(&mut foreign, |entry| entry.state = "Levitating".to_owned());
    placed(&foreign).expect("a newer version knows what that is");
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

/// Two allocations with an address each, and one spare node.
fn two_and_a_spare() -> (Cosmos, [String; 2]) {
    let mut cosmos = at_rest(&["a", "b", "c"], json!({})).0;
    cosmos.allocate("blue", &[IpAddr::from([203, 0, 113, 8])], json!({}));
    cosmos.come_to_rest().unwrap();
    let nodes = ["red", "blue"].map(|name| of(cosmos.cluster.allocation(name).unwrap()).next().unwrap().node.unwrap());
    (cosmos, nodes)
}

#[test]
fn p5_of_two_addresses_that_drain_onto_one_spare_node_one_goes_there_and_the_other_stays() {
    let (mut cosmos, nodes) = two_and_a_spare();
    for node in &nodes {
        cosmos.happen(&Action::Outside(Outside::Cordon(node.clone()))).unwrap();
    }
    cosmos.come_to_rest().unwrap();
    let there = ["red", "blue"].map(|name| of(cosmos.cluster.allocation(name).unwrap()).next().unwrap());
    assert!(there.iter().all(|entry| entry.state == State::Attached), "{there:?}");
    let stay = there.iter().zip(&nodes).filter(|(entry, node)| entry.node.as_ref() == Some(node)).count();
    assert_eq!(stay, 1, "{there:?}");
}

#[test]
fn p5_no_two_addresses_give_up_their_nodes_for_one() {
    let (mut cosmos, _) = two_and_a_spare();
    let operation = operation(&cosmos);
    for name in ["red", "blue"] {
        let gives_up = |entry: &mut AddressStatus| {
            let Stored::Known(before) = memory::read(entry) else { panic!("{entry:?}") };
            *entry = memory::write(&Entry {
                state: State::Releasing,
                reason: Reason::NodeCordoned,
                operation: Some(operation.clone()),
                planned_node: Some("c".to_owned()),
                ..*before
            });
        };
        whole(&cosmos).expect("one of them may");
        cosmos.cluster.edit_status(name, |status| gives_up(&mut status.addresses[0])).unwrap();
    }
    refused(whole(&cosmos), "gave up their nodes for c");
}

#[test]
fn no_more_leave_by_choice_at_one_time_than_may() {
    let (cosmos, _) = at_rest(&["a"], json!({"strategy": {"maxUnavailable": 2}}));
    let object = cosmos.cluster.allocation("red").unwrap();
    let stays = red(&cosmos);
    let leaves = |reason| (stays.clone(), Entry { state: State::Releasing, reason, ..stays.clone() }, None);
    let stays = (stays.clone(), stays.clone(), None);
    let judged = |turns: &[(Entry, Entry, Option<String>)]| in_turn(&cosmos, 0, object, turns);
    let chosen = leaves(Reason::NodeCordoned);
    judged(&[chosen.clone(), stays.clone(), chosen.clone()]).unwrap();
    refused(judged(&[chosen.clone(), chosen.clone(), stays.clone(), chosen.clone()]), "maxUnavailable 2");
    let lost = leaves(Reason::MachineGone);
    judged(&[chosen.clone(), lost.clone(), lost.clone(), stays]).unwrap();
    refused(judged(&[lost.clone(), lost, chosen]), "maxUnavailable 2");
}

#[test]
fn mode_hold_begins_nothing_by_choice() {
    let (cosmos, _) = at_rest(&["a", "b"], json!({"mode": "Enforce"}));
    let held = |before: Entry, after: Entry, mode: Mode| {
        let mut object = (**cosmos.cluster.allocation("red").unwrap()).clone();
        object.spec.mode = mode;
        super::held(&cosmos, &object, &before, &after)
    };
    let leaves = |reason| Entry { state: State::Releasing, reason, ..red(&cosmos) };
    refused(held(red(&cosmos), leaves(Reason::NodeCordoned), Mode::Hold), "leaves");
    held(red(&cosmos), leaves(Reason::NodeCordoned), Mode::Enforce).unwrap();
    for reason in [Reason::MachineGone, Reason::AllocationDeleted] {
        held(red(&cosmos), leaves(reason), Mode::Hold).unwrap();
    }
    let attaching = Entry { state: State::Attaching, ..red(&cosmos) };
    let unassigned = Entry { state: State::Unassigned, last_move: None, ..red(&cosmos) };
    refused(held(unassigned.clone(), attaching.clone(), Mode::Hold), "has left no node");
    let open = red(&cosmos).last_move.map(|journey| Journey { to: None, ..journey });
    held(Entry { last_move: open, ..unassigned }, attaching, Mode::Hold).unwrap();
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
fn p7_a_pod_that_does_not_use_the_address_is_not_asked_to_go() {
    let (mut cosmos, asks, _) = about_to_evict();
    cosmos.cluster.workloads.insert("Deployment voip/another".to_owned());
    let named = json!({"kind": "Deployment", "namespace": "voip", "name": "another"});
    cosmos.cluster.edit("red", |spec| spec.workload_ref = serde_json::from_value(named).unwrap()).unwrap();
    refused(cosmos.happen(&asks), "does not use");
}

#[test]
fn p6_labels_do_not_go_above_a_daemon_sets_pod_that_is_in_service() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    cosmos.happen(&Action::Outside(Outside::StartDaemon(node.clone(), "sip".to_owned()))).unwrap();
    let uid = cosmos.cluster.pods_of(&node)[0].uid.clone();
    cosmos.happen(&Action::Outside(Outside::Cordon(node.clone()))).unwrap();
    cosmos.happen(&Action::Outside(Outside::Unready(uid.clone()))).unwrap();
    for _ in 0..100 {
        let Some(action) = cosmos.next() else {
            cosmos.happen(&Action::Elapse(Duration::from_secs(1))).unwrap();
            continue;
        };
        let unlabels = match &action {
            Action::Step(id, flight) => {
                let term = cosmos.process(*id).term.as_ref().unwrap();
                matches!(term.flights[flight].errand.next(), Call::PatchLabels { .. })
            }
            _ => false,
        };
        if unlabels {
            cosmos.clone().happen(&action).expect("it is not in service");
            cosmos.cluster.set_pod_ready(&uid, true).unwrap();
            return refused(cosmos.happen(&action), "of a DaemonSet used");
        }
        cosmos.happen(&action).unwrap();
    }
    panic!("the labels stay: {cosmos:?}");
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
fn p3_a_machine_that_is_there_is_not_said_to_be_gone() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let place = cosmos.place(&node).unwrap().clone();
    let before = red(&cosmos);
    for reason in [Reason::MachineGone, Reason::NodeReplaced] {
        let after = Entry { reason, ..before.clone() };
        refused(truthful(&cosmos, &before, &after), "as one that is gone");
    }
    cosmos.cloud.replace(&place);
    let after = Entry { reason: Reason::NodeReplaced, ..before.clone() };
    truthful(&cosmos, &before, &after).expect("now it is");
}

#[test]
fn p8_nothing_leaves_whose_answer_may_come_after_the_proof_has_ended() {
    let (mut cosmos, node) = at_rest(&["a"], json!({}));
    let machine = cosmos.place(&node).unwrap().clone();
    let order = Order::DeleteConfig { name: cosmos.cloud.machine(&machine).unwrap().mark.clone(), machine };
    refused(super::sends(&cosmos, 0, "red", &order, &meta(&cosmos)), "P2");
    let ends = cosmos.instant + TIMEOUT - Duration::from_millis(1);
    Arc::make_mut(&mut cosmos.processes[0]).term.as_mut().unwrap().proof = ends;
    refused(super::sends(&cosmos, 0, "red", &order, &meta(&cosmos)), "P8");
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
fn p6_a_node_is_not_given_up_while_all_are_not_ready_or_gone() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let mut gone = cosmos.clone();
    for node in ["a", "b"] {
        cosmos.happen(&Action::Outside(Outside::NotReady(node.to_owned()))).unwrap();
    }
    cosmos.settle().unwrap();
    cosmos.happen(&Action::Elapse(Duration::from_secs(400))).unwrap();
    refused(gives_up(&cosmos), "most nodes are down");
    let other = if node == "a" { "b" } else { "a" };
    gone.happen(&Action::Outside(Outside::NotReady(other.to_owned()))).unwrap();
    gone.happen(&Action::Outside(Outside::DeleteNode(node))).unwrap();
    gone.settle().unwrap();
    gone.happen(&Action::Elapse(Duration::from_secs(400))).unwrap();
    refused(gives_up(&gone), "most nodes are down");
}

#[test]
fn p6_a_node_that_is_not_selected_any_more_is_not_counted_among_those_that_are_well() {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    for node in ["a", "b"] {
        cosmos.node(node, true);
    }
    cosmos.allocate("red", &[ip(), IpAddr::from([203, 0, 113, 8])], json!({}));
    cosmos.come_to_rest().unwrap();
    let node = red(&cosmos).node.unwrap();
    let other = if node == "a" { "b" } else { "a" }.to_owned();
    // It keeps its address for a pod, so an entry goes on naming it.
    cosmos.cluster.start_pod(&other, crate::cosmos::course::pod("sip")).unwrap();
    cosmos.happen(&Action::Outside(Outside::Deselect(other))).unwrap();
    cosmos.happen(&Action::Outside(Outside::NotReady(node.clone()))).unwrap();
    cosmos.run_on(Duration::from_secs(400)).unwrap();
    assert_eq!(red(&cosmos).node, Some(node), "all that are selected are down");
}

#[test]
fn p6_a_node_that_is_ready_counts_although_its_machine_is_stopped() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let other = if node == "a" { "b" } else { "a" };
    cosmos.happen(&Action::Outside(Outside::NotReady(node))).unwrap();
    cosmos.happen(&Action::Outside(Outside::StopMachine(other.to_owned()))).unwrap();
    cosmos.settle().unwrap();
    cosmos.happen(&Action::Elapse(Duration::from_secs(400))).unwrap();
    gives_up(&cosmos).expect("one of two is down");
    // A suspect whose machine is stopped does not count, and one that was started a moment ago may still pass for dead.
    cosmos.happen(&Action::Outside(Outside::NotReady(other.to_owned()))).unwrap();
    cosmos.settle().unwrap();
    refused(gives_up(&cosmos), "most nodes are down");
}

/// What lands when the address is taken off its machine, for this reason: its entry says that it is about to be.
fn cut(cosmos: &mut Cosmos, reason: Reason) -> Landed {
    let entry = red(cosmos);
    let place = entry.machine.clone().unwrap().place;
    let releasing = Entry { state: State::Releasing, reason, operation: Some(operation(cosmos)), ..entry };
    edit(cosmos, |entry| *entry = memory::write(&releasing));
    take_off(cosmos, &place)
}

fn operation(cosmos: &Cosmos) -> Operation {
    Operation {
        id: Uuid::from_u128(1),
        kind: OperationKind::Detach,
        start: cosmos.now,
        send_before: cosmos.now + SignedDuration::from_secs(60),
        attempts: 0,
        traceparent: None,
    }
}

fn meta(cosmos: &Cosmos) -> Meta {
    Meta {
        sender: Sender { process: 0, effect: 0 },
        operation: Uuid::from_u128(1),
        address: Some(ip()),
        latest: cosmos.instant + Duration::from_secs(60),
    }
}

fn take_off(cosmos: &mut Cosmos, place: &ProviderId) -> Landed {
    let order = Order::DeleteConfig { machine: place.clone(), name: cosmos.cloud.machine(place).unwrap().mark.clone() };
    let request = cosmos.cloud.send(order, meta(cosmos));
    cosmos.cloud.land(request)
}

#[test]
fn p9_what_nobody_has_asked_for_is_not_cut() {
    let (mut cosmos, _) = at_rest(&["a", "b"], json!({}));
    let cut = cut(&mut cosmos, Reason::Verified);
    assert!(matches!(cut.removed, Some((_, Slot::Reserved(_)))), "{cut:?}");
    refused(landed(&cosmos, &cut), "P9");
    cosmos.meddled = true;
    landed(&cosmos, &cut).expect("somebody has done something");
}

#[test]
fn p6_what_a_pod_uses_is_not_cut_by_choice_unless_nobody_is_there_to_ask() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    cosmos.happen(&Action::Outside(Outside::StartPod(node.clone(), "sip".to_owned()))).unwrap();
    cosmos.happen(&Action::Outside(Outside::Cordon(node.clone()))).unwrap();
    cosmos.happen(&Action::Outside(Outside::NotReady(node.clone()))).unwrap();
    let cut = cut(&mut cosmos, Reason::NodeCordoned);
    refused(landed(&cosmos, &cut), "while pod sip used it");
    cosmos.cluster.label(&node, READY_LABEL, None).unwrap();
    let mut later = cosmos.clone();
    later.happen(&Action::Elapse(Duration::from_secs(301))).unwrap();
    landed(&later, &cut).expect("the node has not answered for long enough");
    let mut stopped = cosmos.clone();
    stopped.happen(&Action::Outside(Outside::StopMachine(node))).unwrap();
    landed(&stopped, &cut).expect("its machine does not run");
}

#[test]
fn p6_anothers_policy_does_not_say_who_uses_an_address() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let resigned = Pod { ready: false, returns: true, ..crate::cosmos::course::pod("sip") };
    let owner = Owner { kind: "DaemonSet".to_owned(), name: "kamailio".to_owned() };
    cosmos.cluster.start_pod(&node, Pod { owner: Some(owner), ..resigned }).unwrap();
    cosmos.happen(&Action::Outside(Outside::Cordon(node))).unwrap();
    cosmos.allocate("blue", &[], json!({"drain": {"policy": "Evict"}}));
    let cut = cut(&mut cosmos, Reason::NodeCordoned);
    landed(&cosmos, &cut).expect("a DaemonSet's pod that is not Ready keeps nothing");
    cosmos.cluster.edit("red", |spec| spec.drain.policy = DrainPolicy::Evict).unwrap();
    refused(landed(&cosmos, &cut), "while pod sip used it");
}

#[test]
fn p1_another_machine_under_the_name_is_not_changed() {
    let (mut cosmos, _) = at_rest(&["a"], json!({}));
    cosmos.meddled = true;
    let cut = cut(&mut cosmos, Reason::NodeCordoned);
    landed(&cosmos, &cut).expect("it is the machine");
    let mut machine = red(&cosmos).machine.unwrap();
    machine.instance = "0".to_owned();
    edit(&mut cosmos, |entry| entry.machine_id = Some(machine.to_string()));
    refused(landed(&cosmos, &cut), "which is another machine than");
}

#[test]
fn p10_an_own_address_is_not_taken_before_it_is_written_down() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let place = cosmos.place(if node == "a" { "b" } else { "a" }).unwrap().clone();
    let taken = take_off(&mut cosmos, &place);
    assert_eq!(taken.removed, Some((place, Slot::Own)));
    refused(landed(&cosmos, &taken), "no entry says that it is owed");
}

#[test]
fn p9_an_object_goes_when_nothing_of_it_is_left() {
    let (mut cosmos, node) = at_rest(&["a"], json!({}));
    let goes = |cosmos: &Cosmos, change: &dyn Fn(&mut NetIPAllocation)| {
        let mut object = (**cosmos.cluster.allocation("red").unwrap()).clone();
        change(&mut object);
        super::passed(cosmos, 0, true, "red", &Passed { released: Some(Arc::new(object)), ..Passed::default() })
    };
    let retain = |object: &mut NetIPAllocation| object.spec.deletion_policy = DeletionPolicy::Retain;
    let forget = |object: &mut NetIPAllocation| object.status.as_mut().unwrap().addresses.clear();
    refused(goes(&cosmos, &|_| {}), "went while it had an entry");
    refused(goes(&cosmos, &forget), "left its labels on node");
    goes(&cosmos, &retain).expect("it leaves everything as it is");
    let attach = Operation { kind: OperationKind::Attach, ..operation(&cosmos) };
    let attaching = Entry { operation: Some(attach), ..red(&cosmos) };
    edit(&mut cosmos, |entry| *entry = memory::write(&attaching));
    let machine = cosmos.place(&node).unwrap().clone();
    let (name, meta) = (cosmos.cloud.machine(&machine).unwrap().mark.clone(), meta(&cosmos));
    cosmos.cloud.send(Order::AddConfig { machine, name, ip: Some(ip()) }, meta);
    refused(goes(&cosmos, &|_| {}), "while a request was under way");
    goes(&cosmos, &retain).expect("it is where it was to go");
    edit(&mut cosmos, |entry| entry.state = "Attaching".to_owned());
    refused(goes(&cosmos, &retain), "while a request was under way");
}

#[test]
fn p4_a_label_whose_allocation_is_gone_is_not_at_rest_unless_it_was_to_stay() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let other = if node == "a" { "b" } else { "a" };
    for (key, value) in [(READY_LABEL, READY_VALUE), (ALLOCATION_LABEL, "gone"), (ADDRESS_LABEL, "203.0.113.9")] {
        cosmos.cluster.label(other, key, Some(value)).unwrap();
    }
    refused(rest(&cosmos), "rests with a label");
    cosmos.left.insert("gone".to_owned());
    rest(&cosmos).expect("it was left there on purpose");
}

#[test]
fn a_way_that_is_none_is_refused() {
    let (cosmos, _) = at_rest(&["a"], json!({}));
    let turns = vec![(red(&cosmos), red(&cosmos), Some("no such edge".to_owned()))];
    let record = Some(Told { turns, struck: Vec::new() });
    refused(super::passed(&cosmos, 0, true, "red", &Passed { record, ..Passed::default() }), "edges: no such edge");
}

#[test]
fn what_is_excused_after_an_edit_of_status_is_not_excused_for_ever() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let place = cosmos.place(&node).unwrap().clone();
    cosmos.happen(&Action::Outside(Outside::RemoveStatus("red".to_owned()))).unwrap();
    assert!(cosmos.excuses.is_any_edited());
    cosmos.come_to_rest().unwrap();
    assert!(!cosmos.excuses.is_any_edited(), "it has been read, and is said as it is");
    assert!(cosmos.excuses.machines.contains(&place), "what it was owed is forgotten");
}

#[test]
fn an_edit_excuses_the_address_that_it_is_about_and_no_other() {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    for node in ["a", "b", "c"] {
        cosmos.node(node, true);
    }
    let others = [IpAddr::from([203, 0, 113, 8]), IpAddr::from([203, 0, 113, 9])];
    cosmos.allocate("red", &[ip(), others[0], others[1]], json!({}));
    cosmos.come_to_rest().unwrap();
    cosmos.happen(&Action::Outside(Outside::Falsify("red".to_owned(), ip(), Lie::Draining))).unwrap();
    let meant = |n: usize| cosmos.cluster.allocations()["red"].status.as_ref().unwrap().addresses[n].machine_id.clone();
    let both = |one: usize, other: usize| {
        let mut cosmos = cosmos.clone();
        let edited = |status: &mut NetIPAllocationStatus| status.addresses[one].machine_id = meant(other);
        cosmos.cluster.edit_status("red", edited).unwrap();
        one_seat(&cosmos)
    };
    refused(both(1, 2), "for one machine");
    both(1, 0).unwrap();
    both(0, 1).unwrap();
}

#[test]
fn an_address_that_is_let_go_of_rests_only_where_a_stranger_may_use_it() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    cosmos.cluster.delete("red", cosmos.now).unwrap();
    edit(&mut cosmos, |entry| {
        entry.state = "Draining".to_owned();
        entry.reason = Some("AllocationDeleted".to_owned());
        let then = "2026-01-01T00:00:00Z";
        let operation =
            json!({"id": Uuid::nil().to_string(), "type": "Detach", "startTime": then, "sendBeforeTime": then});
        entry.operation = Some(serde_json::from_value(operation).unwrap());
    });
    refused(rest(&cosmos), "rests in Releasing");
    let mut used = cosmos.clone();
    used.happen(&Action::Outside(Outside::StartPod(node.clone(), "sip".to_owned()))).unwrap();
    refused(rest(&used), "rests in Releasing");
    cosmos.happen(&Action::Outside(Outside::StartStranger(node, "another".to_owned()))).unwrap();
    rest(&cosmos).expect("it may be used by a pod that asks for none");
}

#[test]
fn what_is_excused_of_a_machine_is_not_once_it_has_its_own_address_again() {
    let (mut cosmos, node) = at_rest(&["a", "b"], json!({}));
    let place = cosmos.place(&node).unwrap().clone();
    cosmos.happen(&Action::Outside(Outside::Cordon(node))).unwrap();
    cosmos.happen(&Action::Outside(Outside::OutsiderDetaches(ip()))).unwrap();
    assert!(cosmos.excuses.machines.contains(&place));
    cosmos.come_to_rest().unwrap();
    assert_eq!(cosmos.cloud.machine(&place).unwrap().slot, Slot::Own);
    assert!(cosmos.excuses.machines.is_empty(), "{:?}", cosmos.excuses);
}
