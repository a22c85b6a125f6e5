//! One pod, from the first sight of it to its deletion.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::board::{Board, Reporter, containers};
use super::container::{self, Restart, Setting};
use super::{AddressLease, Record, Shared, lock};

/// Between two tries to tell the API server something.
const RETRY: Duration = Duration::from_millis(300);
/// What a pod is left whose object is gone already: somebody has forced it.
const FORCED: Duration = Duration::from_secs(1);

type News = watch::Receiver<Option<Pod>>;

/// Runs the pod's containers and tells how they are; ends them when the pod is deleted, and then the object itself.
pub(super) async fn live(shared: Arc<Shared>, pod: Pod, news: News) {
    let name = pod.name_any();
    match prepare(&shared, &pod) {
        Ok((setting, end, lease)) => {
            run(setting, end, news).await;
            drop(lease);
        }
        Err(error) => tracing::error!("pod {name} cannot be run: {error:#}"),
    }
}

type Prepared = (Setting, watch::Sender<Option<Instant>>, AddressLease);

fn prepare(shared: &Arc<Shared>, pod: &Pod) -> anyhow::Result<Prepared> {
    let (namespace, name, uid) = (pod.namespace().unwrap_or_default(), pod.name_any(), pod.uid().unwrap_or_default());
    let dir = shared.folder.path().join("pods").join(format!("{namespace}_{name}_{uid}"));
    std::fs::create_dir_all(&dir)?;
    let log = dir.join("log");
    let lease = shared.lease_address()?;
    let (key, ip) = ((namespace, name), IpAddr::V4(lease.address));
    lock(&shared.records).insert(key.clone(), Record { uid, log: log.clone(), ip, processes: BTreeMap::new() });
    let (end, ending) = watch::channel(None);
    let setting =
        Setting { shared: Arc::clone(shared), key, pod: pod.clone(), dir, log, address: ip.to_string(), ending };
    Ok((setting, end, lease))
}

async fn run(setting: Setting, end: watch::Sender<Option<Instant>>, news: News) {
    let board = Board::new(&setting.pod);
    let mut reporter = Reporter::new(Arc::clone(&board), setting.address.clone());
    let pods: Api<Pod> = Api::namespaced(setting.shared.client.clone(), &setting.key.0);

    // A pod that has ended before we saw it is not begun again.
    let phase = setting.pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        tokio::select! {
            () = run_containers(&setting, &board) => {}
            () = keep_reporting(&pods, &mut reporter, &board, &news) => {}
            () = follow_deletion(&end, news.clone()) => {}
        }
        report(&pods, &mut reporter, &news).await;
    }
    wait_for_deletion(news.clone()).await;
    delete(&pods, &setting.pod, &news).await;

    // Its name stays known, for the log; unless it has passed to another pod.
    let uid = setting.pod.uid().unwrap_or_default();
    lock(&setting.shared.records).entry(setting.key.clone()).and_modify(|record| {
        if record.uid == uid {
            record.processes.clear();
        }
    });
}

/// Init containers one after another, then all others at once.
async fn run_containers(setting: &Setting, board: &Arc<Board>) {
    let restart = Restart::of(&setting.pod);
    let (init, main) = containers(&setting.pod);
    for container in init {
        if !container::live(setting, container, &board.slot(container), restart.for_init()).await {
            return;
        }
    }
    let slots: Vec<_> = main.iter().map(|container| (container, board.slot(container))).collect();
    join_all(slots.iter().map(|(container, slot)| container::live(setting, container, slot, restart))).await;
}

/// Turns the deletion timestamp, and every shortening of the grace period, into an end for the containers.
async fn follow_deletion(end: &watch::Sender<Option<Instant>>, mut news: News) {
    loop {
        let left = match news.borrow_and_update().as_ref() {
            None => Some(FORCED),
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                let granted =
                    pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                Some(Duration::from_secs(granted.unwrap_or_else(|| container::grace_seconds(pod))))
            }
            Some(_) => None,
        };
        if let Some(left) = left {
            let new = Instant::now() + left;
            end.send_if_modified(|end| {
                let sooner = end.is_none_or(|old| new < old);
                if sooner {
                    *end = Some(new);
                }
                sooner
            });
        }
        if news.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Tells every change on the board, and every change that others made to the pod's conditions; never returns.
async fn keep_reporting(pods: &Api<Pod>, reporter: &mut Reporter, board: &Board, news: &News) {
    let mut changes = board.changes();
    let mut news = news.clone();
    let has_gates =
        news.borrow().as_ref().is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.readiness_gates.is_some()));
    loop {
        changes.borrow_and_update();
        report(pods, reporter, &news).await;
        tokio::select! {
            _ = changes.changed() => {}
            changed = news.changed(), if has_gates => if changed.is_err() { return std::future::pending().await },
        }
    }
}

/// Tells the API server how the pod is, again until it is told or nobody wants to know.
async fn report(pods: &Api<Pod>, reporter: &mut Reporter, news: &News) {
    loop {
        let Some(pod) = news.borrow().clone() else {
            return;
        };
        let patch = Patch::Strategic(reporter.patch(&pod));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => return,
            // Gone, or another pod of that name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                tracing::debug!("status of pod {}: {}", pod.name_any(), status.message);
                return;
            }
            Err(error) => tracing::info!("status of pod {}: {error}", pod.name_any()),
        }
        sleep(RETRY).await;
    }
}

async fn wait_for_deletion(mut news: News) {
    let deleted = |pod: &Option<Pod>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    // An error means that the agent itself is ending.
    let _ = news.wait_for(deleted).await;
}

/// All processes are gone: now the object may go, if it is still this pod's.
async fn delete(pods: &Api<Pod>, pod: &Pod, news: &News) {
    let own = Preconditions { uid: pod.uid(), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(own), ..DeleteParams::default() };
    while news.borrow().is_some() {
        match pods.delete(&pod.name_any(), &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => tracing::info!("deleting pod {}: {error}", pod.name_any()),
        }
        sleep(RETRY).await;
    }
}
