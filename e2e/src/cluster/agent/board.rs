//! How a pod's containers are, and the pod status made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStateWaiting, ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::lock;

/// How one container is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub state: ContainerState,
    pub last_state: Option<ContainerState>,
    pub ready: bool,
    /// Passed its startup probe, or has none and runs.
    pub started: bool,
    pub restarts: i32,
    /// It ended and will not be started again; with this exit code.
    pub done: Option<i32>,
    pub pid: Option<u32>,
}

impl View {
    fn new(waiting_for: &str) -> Self {
        Self {
            state: waiting(waiting_for, ""),
            last_state: None,
            ready: false,
            started: false,
            restarts: 0,
            done: None,
            pid: None,
        }
    }

    fn has_run(&self) -> bool {
        self.state.waiting.is_none() || self.last_state.is_some()
    }
}

/// The state of a container that does not run yet, or not now.
pub(super) fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

/// The views of all containers of one pod; whoever reports is woken by every change.
#[derive(Debug)]
pub(super) struct Board {
    views: Mutex<BTreeMap<String, View>>,
    changes: watch::Sender<u64>,
}

/// One container's place on the board.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    board: Arc<Board>,
    name: String,
}

impl Board {
    pub(super) fn new(pod: &Pod) -> Arc<Self> {
        let (init, main) = containers(pod);
        let first = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let views = init.iter().chain(main).map(|container| (container.name.clone(), View::new(first))).collect();
        Arc::new(Self { views: Mutex::new(views), changes: watch::Sender::new(0) })
    }

    pub(super) fn slot(self: &Arc<Self>, container: &Container) -> Slot {
        Slot { board: Arc::clone(self), name: container.name.clone() }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn views(&self) -> BTreeMap<String, View> {
        lock(&self.views).clone()
    }
}

impl Slot {
    pub(super) fn update(&self, change: impl FnOnce(&mut View)) {
        let mut views = lock(&self.board.views);
        let Some(view) = views.get_mut(&self.name) else {
            return;
        };
        let before = view.clone();
        change(view);
        if *view != before {
            drop(views);
            self.board.changes.send_modify(|number| *number += 1);
        }
    }
}

/// Init containers in their order, and the others.
pub(super) fn containers(pod: &Pod) -> (&[Container], &[Container]) {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    (init, main)
}

/// Makes pod statuses, and remembers since when each condition is as it is.
pub(super) struct Reporter {
    board: Arc<Board>,
    address: String,
    started: Timestamp,
    since: BTreeMap<&'static str, (bool, Timestamp)>,
}

impl Reporter {
    pub(super) fn new(board: Arc<Board>, address: String) -> Self {
        Self { board, address, started: Timestamp::now(), since: BTreeMap::new() }
    }

    /// The status as it is now, as a patch for this very pod: one of the same name with another uid refuses it.
    pub(super) fn patch(&mut self, pod: &Pod) -> Value {
        let views = self.board.views();
        let (init, main) = containers(pod);
        let of = |container: &Container| {
            views.get(&container.name).cloned().unwrap_or_else(|| View::new("ContainerCreating"))
        };
        let initialized = init.iter().all(|container| of(container).done == Some(0));
        let unready: Vec<&str> =
            main.iter().filter(|container| !of(container).ready).map(|container| container.name.as_str()).collect();
        let gates = gates_open(pod);

        let conditions = [
            self.condition("PodScheduled", true, "", String::new()),
            self.condition(
                "Initialized",
                initialized,
                "ContainersNotInitialized",
                "init containers have not completed".to_owned(),
            ),
            self.condition(
                "ContainersReady",
                unready.is_empty(),
                "ContainersNotReady",
                format!("not ready: {}", unready.join(", ")),
            ),
            match gates {
                true => self.condition(
                    "Ready",
                    unready.is_empty(),
                    "ContainersNotReady",
                    format!("not ready: {}", unready.join(", ")),
                ),
                false => {
                    self.condition("Ready", false, "ReadinessGatesNotReady", "a readiness gate is closed".to_owned())
                }
            },
        ];
        json!({
            "metadata": { "uid": pod.uid() },
            "status": {
                "phase": phase(&init.iter().map(of).collect::<Vec<_>>(), &main.iter().map(of).collect::<Vec<_>>()),
                "conditions": conditions,
                "hostIP": "127.0.0.1",
                "hostIPs": [{ "ip": "127.0.0.1" }],
                "podIP": self.address,
                "podIPs": [{ "ip": self.address }],
                "startTime": self.started.to_string(),
                "initContainerStatuses": init.iter().map(|container| status(container, of(container))).collect::<Vec<_>>(),
                "containerStatuses": main.iter().map(|container| status(container, of(container))).collect::<Vec<_>>(),
            },
        })
    }

    fn condition(&mut self, kind: &'static str, holds: bool, reason: &str, message: String) -> Value {
        let (was, since) = self.since.entry(kind).or_insert_with(|| (holds, Timestamp::now()));
        if *was != holds {
            (*was, *since) = (holds, Timestamp::now());
        }
        let (reason, message) = if holds { (None, None) } else { (Some(reason), Some(message)) };
        let status = if holds { "True" } else { "False" };
        // Null takes away what an earlier, false condition said.
        json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since.to_string() })
    }
}

/// Conditions that others set and that must be true before the pod counts as ready.
fn gates_open(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    gates.iter().all(|gate| {
        conditions.iter().any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    })
}

fn phase(init: &[View], main: &[View]) -> &'static str {
    let failed = |view: &View| view.done.is_some_and(|code| code != 0);
    if init.iter().any(failed) {
        "Failed"
    } else if main.iter().all(|view| view.done.is_some()) {
        if main.iter().any(failed) { "Failed" } else { "Succeeded" }
    } else if main.iter().any(View::has_run) {
        "Running"
    } else {
        "Pending"
    }
}

fn status(container: &Container, view: View) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        container_id: view.pid.map(|pid| format!("process://{pid}")),
        ready: view.ready,
        started: Some(view.started),
        restart_count: view.restarts,
        state: Some(view.state),
        last_state: view.last_state,
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(code: i32) -> View {
        View { done: Some(code), state: ContainerState::default(), ..View::new("") }
    }

    #[test]
    fn the_phase_follows_from_how_the_containers_ended() {
        let running = View { state: ContainerState::default(), ..View::new("") };
        assert_eq!(phase(&[], &[View::new("ContainerCreating")]), "Pending");
        assert_eq!(phase(&[], &[running.clone(), View::new("ContainerCreating")]), "Running");
        assert_eq!(phase(&[], &[done(0), running]), "Running");
        assert_eq!(phase(&[done(0)], &[done(0), done(0)]), "Succeeded");
        assert_eq!(phase(&[], &[done(0), done(137)]), "Failed");
        assert_eq!(phase(&[done(1)], &[View::new("PodInitializing")]), "Failed");
    }
}
