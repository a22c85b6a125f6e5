use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Method, request::Parts};
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::{
    allocation::{
        api_server,
        decide::{Effect, users::Workload},
    },
    api::{NetIPAllocation, NetIPAllocationSpec, NodeTaint},
};

/// An API server that knows one Node, and does what another writer does between a read of it and the next patch.
#[derive(Clone)]
struct Server(Arc<Mutex<State>>);

struct State {
    node: Value,
    version: u64,
    /// Taints that somebody else puts on, one after each read.
    rivals: Vec<&'static str>,
    patches: Vec<Value>,
}

impl Server {
    fn new(taints: &[&str], rivals: &[&'static str]) -> Self {
        let taints: Vec<Value> = taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "a", "uid": "uid-a", "resourceVersion": "1", "labels": {"pool": "sip"}},
            "spec": {"taints": taints},
        });
        Self(Arc::new(Mutex::new(State { node, version: 1, rivals: rivals.to_vec(), patches: Vec::new() })))
    }

    fn client(&self) -> Client {
        let server = self.clone();
        api_server::client(move |parts, body| server.answer(parts, body))
    }

    fn answer(&self, parts: &Parts, patch: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        assert_eq!(parts.uri.path(), "/api/v1/nodes/a");
        if parts.method == Method::GET {
            let seen = state.node.clone();
            if let Some(key) = state.rivals.pop() {
                let taint = json!({"key": key, "effect": "NoSchedule"});
                state.node["spec"]["taints"].as_array_mut().unwrap().push(taint);
                state.stamp();
            }
            return (200, seen);
        }
        assert_eq!(parts.method, Method::PATCH);
        state.patches.push(patch.clone());
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != state.node["metadata"]["resourceVersion"] {
            return (409, api_server::refused(409, "Conflict"));
        }
        merge(&mut state.node, &patch);
        state.stamp();
        (200, state.node.clone())
    }

    fn taints(&self) -> Vec<String> {
        let taints = self.0.lock().unwrap().node["spec"]["taints"].clone();
        let mut keys: Vec<String> =
            taints.as_array().unwrap().iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    }

    fn patches(&self) -> Vec<Value> {
        self.0.lock().unwrap().patches.clone()
    }
}

impl State {
    fn stamp(&mut self) {
        self.version += 1;
        self.node["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }
}

/// RFC 7386: lists are replaced whole.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            value => merge(&mut target[key], value),
        }
    }
}

fn machine() -> ProviderId {
    ProviderId::new("gce://p/us-west1-a/a")
}

fn actor(server: &Server) -> Actor {
    Actor::leading(server.client(), Instant::now() + Duration::from_secs(60))
}

/// Of an allocation that selects `pool=sip`.
fn taints() -> NodeTaints {
    let spec = NetIPAllocationSpec {
        node_selector: std::collections::BTreeMap::from([("pool".into(), "sip".into())]),
        node_taint: Some(NodeTaint { key: "ours".into(), ..NodeTaint::default() }),
        ..NetIPAllocationSpec::default()
    };
    let mut object = NetIPAllocation::new("alloc", spec);
    object.status =
        Some(serde_json::from_value(json!({"nodeTaint": {"key": "ours", "effect": "NoSchedule"}})).unwrap());
    NodeTaints::of([&object])
}

#[tokio::test]
async fn a_taint_that_somebody_else_puts_on_in_between_is_not_lost() {
    let server = Server::new(&["gpu"], &["rival"]);
    let done = actor(&server).taint("a", &taints()).await;
    assert!(matches!(done, Done::Node(Some(_))), "{done:?}");
    assert_eq!(server.taints(), ["gpu", "ours", "rival"]);
    assert_eq!(server.patches().len(), 2, "the first was refused, the second made from what the rival left");
}

#[tokio::test]
async fn labels_and_taint_change_in_one_patch_also_against_a_second_writer() {
    let server = Server::new(&["gpu"], &["rival", "another"]);
    let done = actor(&server).unlabel("a", &machine(), "alloc", None, &taints(), &mut Vec::new()).await;
    assert!(matches!(done, Done::Node(Some(_))), "{done:?}");
    assert_eq!(server.taints(), ["another", "gpu", "ours", "rival"]);
    for patch in server.patches() {
        assert!(patch["metadata"]["labels"].is_object() && patch["spec"]["taints"].is_array(), "{patch}");
    }
}

#[tokio::test]
async fn labels_alone_need_no_version_and_touch_no_taint() {
    let server = Server::new(&["gpu"], &["rival"]);
    let labels = Labels::from([(READY_LABEL, Some(READY_VALUE.to_owned()))]);
    let actor = actor(&server);
    let mut noted = Vec::new();
    let done = actor.change("a", &NodeTaints::default(), &mut noted, |_| Wish::Change(labels.clone())).await;
    assert!(matches!(done, Done::Node(Some(_))), "{done:?}");
    assert_eq!(server.patches(), [json!({"metadata": {"uid": "uid-a", "labels": {READY_LABEL: READY_VALUE}}})]);
    assert_eq!(server.taints(), ["gpu", "rival"]);
}

#[tokio::test]
async fn a_node_that_others_write_without_a_pause_is_left_for_later() {
    let server = Server::new(&[], &["1", "2", "3", "4", "5", "6", "7"]);
    let done = actor(&server).taint("a", &taints()).await;
    assert!(matches!(&done, Done::NodeFailed(why) if why.contains("changed by others")), "{done:?}");
    assert_eq!(server.patches().len(), TRIES as usize);
    assert!(!server.taints().contains(&"ours".to_owned()));
}

#[tokio::test]
async fn f8_a_node_of_the_same_name_on_another_machine_keeps_its_labels() {
    let server = Server::new(&[], &[]);
    server.0.lock().unwrap().node["spec"]["providerID"] = json!("gce://p/us-west1-b/a");
    server.0.lock().unwrap().node["metadata"]["labels"][READY_LABEL] = json!(READY_VALUE);
    let done = actor(&server).unlabel("a", &machine(), "alloc", None, &taints(), &mut Vec::new()).await;
    assert!(matches!(done, Done::Node(Some(_))), "{done:?}");
    assert_eq!(server.patches(), Vec::<Value>::new());
}

#[tokio::test]
async fn f8_a_node_that_was_created_anew_is_not_labelled() {
    let server = Server::new(&[], &[]);
    let deed = |uid: &str| Deed {
        effect: Effect::Label { node: "a".to_owned() },
        ip: "203.0.113.7".parse().unwrap(),
        machine: machine(),
        node_uid: Some(uid.to_owned()),
        allocation: "alloc".to_owned(),
        left_by: None,
        taints: Arc::default(),
        scope: machine().place().unwrap().scope(),
        workload: Workload::Unnamed,
        cause: None,
        evict: false,
    };
    let done = actor(&server).label("a", &deed("uid-of-the-one-before"), &mut Vec::new()).await;
    assert!(matches!(&done, Done::NodeFailed(why) if why.contains("created anew")), "{done:?}");
    assert_eq!(server.patches(), Vec::<Value>::new());
    let done = actor(&server).label("a", &deed("uid-a"), &mut Vec::new()).await;
    assert!(matches!(done, Done::Node(Some(_))), "{done:?}");
    assert_eq!(server.patches()[0]["metadata"]["uid"], "uid-a", "the API server refuses it for any other Node");
}
