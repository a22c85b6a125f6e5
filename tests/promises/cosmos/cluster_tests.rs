//! Each answer of the API server, as a sentence.

use ip_address_controller::api::FINALIZER;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn later() -> Timestamp {
    now() + SignedDuration::from_secs(60)
}

fn version(object: &NetIPAllocation) -> String {
    object.metadata.resource_version.clone().unwrap()
}

fn with_allocation() -> (Cluster, Arc<NetIPAllocation>) {
    let mut cluster = Cluster::default();
    let made = cluster.apply("sip", NetIPAllocationSpec::default(), now());
    (cluster, made)
}

fn with_node() -> (Cluster, Arc<SlimNode>) {
    let mut cluster = Cluster::default();
    let node = cluster.add_node("a", &ProviderId::new("gce://prod/us-west1-a/a"), &BTreeMap::new(), now());
    (cluster, node)
}

fn pod(name: &str) -> Pod {
    Pod { owner: None, gated: false, ..crate::cosmos::course::pod(name) }
}

#[test]
fn a_status_is_written_onto_the_version_that_was_decided_on_or_not_at_all() {
    let (mut cluster, made) = with_allocation();
    let status = |count| NetIPAllocationStatus { reserved_count: count, ..NetIPAllocationStatus::default() };
    let stored = cluster.replace_status("sip", &version(&made), status(1)).unwrap();
    assert_ne!(version(&stored), version(&made));
    assert_eq!(stored.metadata.generation, Some(1), "a status is no new spec");
    assert_eq!(cluster.replace_status("sip", &version(&made), status(2)), Err(Refused::Conflict));
    assert_eq!(cluster.replace_status("other", &version(&made), status(2)), Err(Refused::NotFound));
    let same = cluster.replace_status("sip", &version(&stored), status(1)).unwrap();
    assert_eq!(version(&same), version(&stored), "a write that changes nothing is none");
}

#[test]
fn an_edit_raises_the_generation() {
    let (mut cluster, made) = with_allocation();
    let edited = cluster.edit("sip", |spec| spec.reserved_ips.push("203.0.113.7".to_owned())).unwrap();
    assert_eq!(edited.metadata.generation, Some(2));
    assert_eq!(edited.metadata.uid, made.metadata.uid);
    assert_eq!(cluster.apply("sip", edited.spec.clone(), later()), edited, "applied again it is the same");
}

#[test]
fn what_is_deleted_goes_with_its_last_finalizer() {
    let (mut cluster, made) = with_allocation();
    let held = cluster.set_finalizer("sip", &version(&made), FINALIZER).unwrap();
    assert_eq!(cluster.set_finalizer("sip", &version(&made), FINALIZER), Err(Refused::Conflict));
    cluster.delete("sip", later()).unwrap();
    let going = cluster.allocation("sip").unwrap().clone();
    assert_eq!(going.metadata.deletion_timestamp, Some(Time(later())));
    assert_eq!(cluster.clear_finalizer("sip", &version(&held), FINALIZER), Err(Refused::Conflict));
    cluster.clear_finalizer("sip", &version(&going), FINALIZER).unwrap();
    assert_eq!(cluster.allocation("sip"), None);
    let again = cluster.apply("sip", NetIPAllocationSpec::default(), later());
    assert_ne!(again.metadata.uid, made.metadata.uid);
}

#[test]
fn what_has_no_finalizer_is_deleted_at_once_and_what_goes_gets_none() {
    let (mut cluster, made) = with_allocation();
    cluster.set_finalizer("sip", &version(&made), "example.com/other").unwrap();
    cluster.delete("sip", now()).unwrap();
    let going = cluster.allocation("sip").unwrap().clone();
    assert_eq!(cluster.set_finalizer("sip", &version(&going), FINALIZER), Err(Refused::Invalid));
    cluster.force_finalizer_off("sip", "example.com/other").unwrap();
    assert_eq!(cluster.delete("sip", now()), Err(Refused::NotFound));
}

#[test]
fn a_patch_of_labels_is_for_one_life_of_a_node() {
    let (mut cluster, node) = with_node();
    let labels = BTreeMap::from([(READY_LABEL.to_owned(), Some(READY_VALUE.to_owned()))]);
    let patched = cluster.patch_labels("a", node.metadata.uid.as_deref(), &labels).unwrap();
    assert_eq!(patched.label(READY_LABEL), Some(READY_VALUE));
    let next = cluster.add_node("a", &node.place().unwrap(), &BTreeMap::new(), later());
    assert_eq!(cluster.patch_labels("a", node.metadata.uid.as_deref(), &labels), Err(Refused::Invalid));
    assert_eq!(next.label(READY_LABEL), None);
    cluster.delete_node("a");
    assert_eq!(cluster.patch_labels("a", next.metadata.uid.as_deref(), &labels), Err(Refused::NotFound));
}

#[test]
fn a_node_is_not_ready_since_it_changed_and_not_since_it_was_last_seen() {
    let (mut cluster, _) = with_node();
    cluster.set_ready("a", false, now()).unwrap();
    cluster.set_ready("a", false, later()).unwrap();
    assert_eq!(cluster.node("a").unwrap().not_ready_since(), Some(now()));
    cluster.set_ready("a", true, later()).unwrap();
    assert_eq!(cluster.node("a").unwrap().not_ready_since(), None);
}

#[test]
fn cordon_and_taints_come_and_go() {
    let (mut cluster, node) = with_node();
    cluster.cordon("a", true).unwrap();
    cluster.taint("a", "karpenter.sh/disrupted", "NoSchedule").unwrap();
    let changed = cluster.node("a").unwrap();
    assert!(changed.cordoned() && changed.disrupted(&["karpenter.sh/disrupted".to_owned()]).is_some());
    cluster.cordon("a", false).unwrap();
    cluster.untaint("a", "karpenter.sh/disrupted").unwrap();
    let back = cluster.node("a").unwrap();
    assert_eq!(back.spec, node.spec);
    assert_ne!(back.metadata.resource_version, node.metadata.resource_version);
}

#[test]
fn the_scheduler_puts_a_pod_only_where_it_may_run() {
    let (mut cluster, _) = with_node();
    let gated = || Pod { gated: true, ..pod("gated") };
    assert!(cluster.start_pod("a", gated()).is_err(), "no label yet");
    cluster.label("a", READY_LABEL, Some(READY_VALUE)).unwrap();
    assert!(cluster.start_pod("a", gated()).is_ok());
    assert!(cluster.start_pod("a", gated()).is_err(), "its name is taken");
    cluster.cordon("a", true).unwrap();
    assert!(cluster.start_pod("a", pod("other")).is_err());
    assert!(cluster.start_pod("a", Pod { returns: true, ..pod("other") }).is_ok(), "it tolerates the cordon");
    cluster.cordon("a", false).unwrap();
    cluster.taint("a", "example.com/busy", "NoSchedule").unwrap();
    assert!(cluster.start_pod("a", pod("third")).is_err());
    assert!(cluster.start_pod("b", pod("third")).is_err(), "there is no such node");
    let names: Vec<String> = cluster.pods_of("a").into_iter().map(|pod| pod.name).collect();
    assert_eq!(names, ["gated", "other"]);
}

#[test]
fn an_eviction_makes_a_pod_terminate_unless_its_budget_says_no() {
    let (mut cluster, _) = with_node();
    let uid = cluster.start_pod("a", pod("sip")).unwrap().uid.clone();
    cluster.guarded.insert(uid.clone());
    assert!(matches!(cluster.evict(&uid, now()), Evicted::Blocked(_)));
    cluster.guarded.clear();
    assert_eq!(cluster.evict(&uid, now()), Evicted::Accepted);
    assert_eq!(cluster.pods_of("a")[0].terminating_until, Some(now() + cluster.grace));
    assert_eq!(cluster.evict(&uid, later()), Evicted::Accepted, "it goes already");
    cluster.end_pod(&uid);
    assert_eq!(cluster.evict(&uid, now()), Evicted::NotFound);
}

#[test]
fn what_happened_to_a_pod_is_seen_in_a_list() {
    let (mut cluster, _) = with_node();
    let uid = cluster.start_pod("a", pod("sip")).unwrap().uid.clone();
    cluster.hold(&uid, true).unwrap();
    cluster.set_pod_ready(&uid, false).unwrap();
    let read = &cluster.pods_of("a")[0];
    assert!(read.hold && !read.ready && !read.finished);
    cluster.finish_pod(&uid).unwrap();
    assert!(cluster.pods_of("a")[0].finished);
    assert_eq!(cluster.evict(&uid, now()), Evicted::Accepted);
    assert!(cluster.pods_of("a").is_empty(), "what has ended waits for nothing");
}

#[test]
fn a_cache_stays_as_it_was_taken() {
    let (mut cluster, node) = with_node();
    let cache = cluster.snapshot();
    assert!(!cluster.is_ahead_of(&cache));
    cluster.cordon("a", true).unwrap();
    assert!(cluster.is_ahead_of(&cache));
    assert_eq!(cache.nodes["a"], node);
}

#[test]
fn the_lease_goes_to_who_writes_first() {
    let mut cluster = Cluster::default();
    let first = cluster.write_lease(None, Some(0)).unwrap();
    assert_eq!(cluster.write_lease(None, Some(1)), Err(Refused::Conflict));
    let renewed = cluster.write_lease(first.resource_version.as_deref(), Some(0)).unwrap();
    assert_ne!(renewed, first);
    cluster.steal_lease(Some(1));
    assert_eq!(cluster.write_lease(renewed.resource_version.as_deref(), Some(0)), Err(Refused::Conflict));
}

#[test]
fn a_person_can_edit_what_is_the_operators() {
    let (mut cluster, _) = with_allocation();
    cluster.edit_status("sip", |status| status.reserved_count = 9).unwrap();
    assert_eq!(cluster.allocation("sip").unwrap().status.as_ref().unwrap().reserved_count, 9);
    cluster.remove_status("sip").unwrap();
    assert_eq!(cluster.allocation("sip").unwrap().status, None);
    let asked = cluster.annotate("sip", MOVE_ANNOTATION, Some("203.0.113.7")).unwrap();
    let cleared = cluster.clear_move("sip", &version(&asked)).unwrap();
    assert_eq!(cleared.metadata.annotations, None);
}

#[test]
fn two_ways_into_one_state_have_one_fingerprint() {
    let instant = std::time::Instant::now();
    let of = |cluster: &Cluster| crate::canon::fingerprint(instant, now(), |canon| cluster.canon(canon));
    let (mut cluster, _) = with_node();
    cluster.apply("sip", NetIPAllocationSpec::default(), now());
    let before = of(&cluster);
    let cache = cluster.snapshot();
    cluster.cordon("a", true).unwrap();
    assert_ne!(of(&cluster), before);
    cluster.cordon("a", false).unwrap();
    assert_eq!(of(&cluster), before);
    let with_cache = |cluster: &Cluster, cache: &Cache| {
        crate::canon::fingerprint(instant, now(), |canon| {
            cluster.canon(canon);
            cache.canon(canon);
        })
    };
    assert_ne!(with_cache(&cluster, &cache), with_cache(&cluster, &cluster.snapshot()), "an older version is another");
}
