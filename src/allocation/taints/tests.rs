use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;

use super::*;
use crate::{
    allocation::observe::nodes::SlimSpec,
    api::{AddressStatus, NetIPAllocationSpec, NetIPAllocationStatus, TaintEffect},
};

const KEY: &str = "example.com/no-address";

fn taint(key: &str, value: Option<&str>, effect: &str) -> Taint {
    Taint { key: key.into(), value: value.map(str::to_owned), effect: effect.into(), time_added: None }
}

fn ours() -> Taint {
    taint(KEY, None, "NoSchedule")
}

fn anothers() -> Taint {
    Taint { time_added: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())), ..taint("gpu", Some("yes"), "NoExecute") }
}

fn node(labels: &[(&str, &str)], taints: &[Taint]) -> SlimNode {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    SlimNode {
        metadata: ObjectMeta { name: Some("a".into()), labels: Some(labels.collect()), ..ObjectMeta::default() },
        spec: SlimSpec { taints: Some(taints.to_vec()), ..SlimSpec::default() },
        ..SlimNode::default()
    }
}

/// Selects `pool=sip`, has the taint in spec and in status.
fn allocation() -> NetIPAllocation {
    let spec = NetIPAllocationSpec {
        node_selector: BTreeMap::from([("pool".into(), "sip".into())]),
        node_taint: Some(NodeTaint { key: KEY.into(), value: None, effect: TaintEffect::NoSchedule }),
        ..NetIPAllocationSpec::default()
    };
    let mut object = NetIPAllocation::new("alloc", spec);
    object.metadata.uid = Some("1".into());
    let recorded = AppliedTaint { key: KEY.into(), value: None, effect: "NoSchedule".into() };
    object.status = Some(NetIPAllocationStatus { node_taint: Some(recorded), ..NetIPAllocationStatus::default() });
    object
}

fn has_address_on(object: &mut NetIPAllocation, node: &str) {
    let entry = AddressStatus { node: Some(node.into()), state: "Draining".into(), ..AddressStatus::default() };
    object.status.as_mut().unwrap().addresses.push(entry);
}

fn delete(object: &mut NetIPAllocation) {
    object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
}

/// What becomes of the node's taints.
fn becomes(objects: &[NetIPAllocation], node: &SlimNode) -> Vec<Taint> {
    NodeTaints::of(objects).on(node).unwrap_or_else(|| node.spec.taints.clone().unwrap_or_default())
}

#[test]
fn a_selected_node_without_an_address_gets_the_taint_and_keeps_all_others() {
    assert_eq!(becomes(&[allocation()], &node(&[("pool", "sip")], &[anothers()])), [anothers(), ours()]);
    assert_eq!(becomes(&[allocation()], &node(&[("pool", "web")], &[anothers()])), [anothers()], "not selected");
}

#[test]
fn a_node_with_a_verified_address_loses_the_taint_and_no_other() {
    let ready = [("pool", "sip"), (READY_LABEL, READY_VALUE)];
    assert_eq!(becomes(&[allocation()], &node(&ready, &[anothers(), ours()])), [anothers()]);
    let same_key = taint(KEY, None, "NoExecute");
    assert_eq!(becomes(&[allocation()], &node(&ready, std::slice::from_ref(&same_key))), [same_key], "another effect");
}

#[test]
fn a_pool_may_register_its_nodes_with_the_taint_whatever_its_value() {
    let born = taint(KEY, Some("true"), "NoSchedule");
    assert_eq!(
        becomes(&[allocation()], &node(&[("pool", "sip")], std::slice::from_ref(&born))),
        [ours()],
        "the spec's"
    );
    let ready = [("pool", "sip"), (READY_LABEL, READY_VALUE)];
    assert_eq!(becomes(&[allocation()], &node(&ready, &[born])), []);
    let empty = taint(KEY, Some(""), "NoSchedule");
    assert_eq!(NodeTaints::of(&[allocation()]).on(&node(&[("pool", "sip")], &[empty])), None, "empty is none");
}

#[test]
fn nothing_is_put_on_before_status_says_so() {
    let mut object = allocation();
    object.status = None;
    assert_eq!(becomes(std::slice::from_ref(&object), &node(&[("pool", "sip")], &[])), []);
    assert_eq!(recorded(&object, false).unwrap().key, KEY, "and status says so first");
}

#[test]
fn an_address_that_leaves_a_node_which_is_not_selected_any_more_leaves_the_taint_behind_until_it_is_off() {
    let mut object = allocation();
    let unselected = node(&[("pool", "web")], &[]);
    has_address_on(&mut object, "a");
    assert_eq!(becomes(std::slice::from_ref(&object), &unselected), [ours()]);
    object.status.as_mut().unwrap().addresses.clear();
    assert_eq!(becomes(&[object], &node(&[("pool", "web")], &[ours()])), []);
}

#[test]
fn taking_it_out_of_the_spec_takes_it_off_every_node_before_status_forgets_it() {
    let mut object = allocation();
    object.spec.node_taint = None;
    assert_eq!(becomes(std::slice::from_ref(&object), &node(&[("pool", "sip")], &[ours(), anothers()])), [anothers()]);
    assert!(over(&object).is_some() && recorded(&object, false).is_some());
    assert_eq!(recorded(&object, true), None);
    object.spec.node_taint = Some(NodeTaint { key: "example.com/next".into(), ..NodeTaint::default() });
    assert_eq!(recorded(&object, false).unwrap().key, KEY, "the old one first");
    assert_eq!(recorded(&object, true).unwrap().key, "example.com/next");
}

#[test]
fn a_new_value_replaces_the_old_one_in_place() {
    let mut object = allocation();
    object.spec.node_taint.as_mut().unwrap().value = Some("wait".into());
    assert_eq!(over(&object), None);
    let recorded = recorded(&object, false);
    assert_eq!(recorded.as_ref().unwrap().value.as_deref(), Some("wait"));
    object.status.as_mut().unwrap().node_taint = recorded;
    let becomes = becomes(&[object], &node(&[("pool", "sip")], &[ours(), anothers()]));
    assert_eq!(becomes, [taint(KEY, Some("wait"), "NoSchedule"), anothers()]);
}

#[test]
fn deletion_keeps_it_where_an_address_still_leaves_and_takes_it_off_everywhere_else() {
    let mut object = allocation();
    has_address_on(&mut object, "a");
    delete(&mut object);
    assert_eq!(
        becomes(std::slice::from_ref(&object), &node(&[("pool", "sip")], &[])),
        [ours()],
        "on the node that it leaves"
    );
    assert_eq!(over(&object), None);
    object.status.as_mut().unwrap().addresses.clear();
    assert_eq!(becomes(std::slice::from_ref(&object), &node(&[("pool", "sip")], &[ours()])), []);
    assert!(over(&object).is_some());
    assert_eq!(recorded(&object, true), None, "then the finalizer may go");
}

#[test]
fn p9_retain_and_observe_leave_every_taint_as_it_is() {
    let (bare, tainted) = (node(&[("pool", "sip")], &[]), node(&[("pool", "web")], &[ours()]));
    let mut retained = allocation();
    delete(&mut retained);
    retained.spec.deletion_policy = DeletionPolicy::Retain;
    let mut observed = allocation();
    observed.spec.mode = Mode::Observe;
    for object in [retained, observed] {
        assert_eq!(becomes(std::slice::from_ref(&object), &bare), []);
        assert_eq!(becomes(std::slice::from_ref(&object), &tainted), [ours()]);
        assert_eq!(over(&object), None);
        assert!(recorded(&object, true).is_some(), "so that another mode can go on from there");
    }
}

#[test]
fn two_allocations_with_one_taint_do_not_undo_each_other() {
    let mut other = allocation();
    other.metadata.uid = Some("2".into());
    other.spec.node_taint = None;
    let selected = node(&[("pool", "sip")], &[ours()]);
    let both = [allocation(), other];
    assert_eq!(NodeTaints::of(&both).on(&selected), None, "the first still wants it there");
    let known = both[1].status.as_ref().unwrap().node_taint.as_ref().unwrap();
    assert!(!NodeTaints::of(&both).is_left_on(&selected, known), "so the other one does not wait for it to go");
    assert!(NodeTaints::of(&both[1..]).is_left_on(&selected, known));
    assert_eq!(NodeTaints::without(&both[1..], &both[..1]).on(&selected), None);
    assert_eq!(NodeTaints::without(&both[..1], []).on(&selected), Some(vec![]));
}
