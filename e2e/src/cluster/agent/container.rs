//! One container: run it, watch over it, restart it, stop it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ExecAction, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Slot, waiting};
use super::launch::{self, Refused};
use super::{PodKey, Shared, lock, probe};
use crate::cluster::process::Process;

/// A kubelet waits ten seconds, then longer; tests and demos wait with us.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// After so long a run a crash is a new one, not the last one again.
const LONG_RUN: Duration = Duration::from_secs(30);
/// Between two looks for a secret or a config map that is not there.
const CONFIG_PERIOD: Duration = Duration::from_secs(1);

/// Until when the pod's processes may take their time, once it is to end.
pub(super) type Ending = watch::Receiver<Option<Instant>>;

/// What all containers of a pod share.
pub(super) struct Setting {
    pub shared: Arc<Shared>,
    pub key: PodKey,
    pub pod: Pod,
    pub dir: PathBuf,
    pub log: PathBuf,
    pub address: String,
    pub ending: Ending,
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub(super) fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// An init container has done its work when it has succeeded.
    pub(super) fn for_init(self) -> Self {
        if self == Self::Always { Self::OnFailure } else { self }
    }

    fn wanted_after(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Why a run is over.
enum End {
    Exited(Option<ExitStatus>),
    Unhealthy(String),
    PodEnds,
}

/// Runs the container until it has ended for good, or the pod ends. True when it succeeded.
pub(super) async fn live(setting: &Setting, container: &Container, slot: &Slot, restart: Restart) -> bool {
    let mut back_off = FIRST_BACK_OFF;
    loop {
        let Some(process) = start(setting, container, slot).await else {
            return false;
        };
        let since = Timestamp::now();
        let running = Instant::now();
        slot.update(|view| {
            view.state = ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(since)) }),
                ..ContainerState::default()
            };
            view.pid = Some(process.pid());
        });
        let (status, reason) = attend(setting, container, slot, &process).await;
        lock(&setting.shared.records).entry(setting.key.clone()).and_modify(|record| {
            // By identity: after a forced deletion the name may already be another pod's.
            record.processes.retain(|_, known| !Arc::ptr_eq(known, &process));
        });

        let over = setting.ending.borrow().is_some();
        let ended = terminated(status, since, reason);
        let code = ended.exit_code;
        let for_good = over || !restart.wanted_after(code);
        slot.update(|view| {
            view.ready = false;
            view.started = false;
            view.pid = None;
            let state = ContainerState { terminated: Some(ended), ..ContainerState::default() };
            if for_good {
                view.state = state;
                view.done = Some(code);
            } else {
                view.last_state = Some(state);
                view.state = waiting("CrashLoopBackOff", "");
                view.restarts += 1;
            }
        });
        if for_good {
            return code == 0;
        }

        if running.elapsed() > LONG_RUN {
            back_off = FIRST_BACK_OFF;
        }
        tokio::select! {
            () = sleep(back_off) => back_off = (back_off * 2).min(LONGEST_BACK_OFF),
            _ = ends(&setting.ending) => return false,
        }
    }
}

/// Starts the process, as soon as all that it needs is there; none when the pod ends before.
async fn start(setting: &Setting, container: &Container, slot: &Slot) -> Option<Arc<Process>> {
    loop {
        if setting.ending.borrow().is_some() {
            return None;
        }
        match try_start(setting, container).await {
            Ok(process) => {
                let process = Arc::new(process);
                lock(&setting.shared.records).entry(setting.key.clone()).and_modify(|record| {
                    if setting.pod.metadata.uid.as_ref() == Some(&record.uid) {
                        record.processes.insert(container.name.clone(), Arc::clone(&process));
                    }
                });
                return Some(process);
            }
            Err(refused) => slot.update(|view| view.state = waiting(refused.reason, &refused.message)),
        }
        tokio::select! {
            () = sleep(CONFIG_PERIOD) => {}
            _ = ends(&setting.ending) => return None,
        }
    }
}

async fn try_start(setting: &Setting, container: &Container) -> Result<Process, Refused> {
    let launch = launch::prepare(&setting.shared, &setting.pod, container, &setting.dir, &setting.address).await?;
    Process::start(launch, setting.log.clone())
        .await
        .map_err(|error| Refused { reason: "RunContainerError", message: format!("{error:#}") })
}

/// Stays with the process to its end, however that comes.
async fn attend(
    setting: &Setting,
    container: &Container,
    slot: &Slot,
    process: &Process,
) -> (Option<ExitStatus>, String) {
    let end = tokio::select! {
        status = process.wait() => End::Exited(status),
        why = probe::watch_over(&setting.shared.http, container, &setting.address, slot) => End::Unhealthy(why),
        _ = ends(&setting.ending) => End::PodEnds,
    };
    match end {
        End::Exited(status) => (status, String::new()),
        End::Unhealthy(why) => {
            tracing::info!("pod {}/{}: {why}", setting.key.0, setting.key.1);
            let grace = Duration::from_secs(grace_seconds(&setting.pod));
            (stop(process, Instant::now() + grace, &setting.ending).await, why)
        }
        End::PodEnds => {
            let stopped = async {
                pre_stop(setting, container).await;
                stop(process, Instant::now() + LATEST, &setting.ending).await
            };
            // A server that drains says so by its readiness, and is asked to the end.
            tokio::select! {
                status = stopped => (status, String::new()),
                () = probe::keep_readiness(&setting.shared.http, container, &setting.address, slot) => (None, String::new()),
            }
        }
    }
}

/// Later than any grace period: the pod's own end decides.
const LATEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// SIGTERM, and SIGKILL at the end of the grace period; the pod's end may come earlier, and may be moved forward.
async fn stop(process: &Process, at_the_latest: Instant, ending: &Ending) -> Option<ExitStatus> {
    process.signal(Signal::SIGTERM);
    tokio::select! {
        status = process.wait() => status,
        () = sleep_until(at_the_latest) => kill(process).await,
        () = time_is_up(ending) => kill(process).await,
    }
}

async fn kill(process: &Process) -> Option<ExitStatus> {
    process.kill().await;
    process.ended()
}

/// What the pod wants done before SIGTERM, a pause or a command; it is part of the grace period.
async fn pre_stop(setting: &Setting, container: &Container) {
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
    let work = async {
        if let Some(pause) = hook.sleep.as_ref().and_then(|pause| u64::try_from(pause.seconds).ok()) {
            sleep(Duration::from_secs(pause)).await;
        }
        if let Some(exec) = &hook.exec {
            run(setting, container, exec).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = time_is_up(&setting.ending) => {}
    }
}

/// Runs a command beside the container, as the container would, to its end; dropped before, it is killed. The container is
/// stopped whatever becomes of it, so a failure is only told.
async fn run(setting: &Setting, container: &Container, exec: &ExecAction) {
    let beside = Container { command: exec.command.clone(), args: None, ..container.clone() };
    match try_start(setting, &beside).await {
        Ok(process) => {
            let status = process.wait().await;
            tracing::info!("pod {}/{}: the preStop hook has ended: {status:?}", setting.key.0, setting.key.1);
        }
        Err(refused) => tracing::info!("pod {}/{}: preStop hook: {}", setting.key.0, setting.key.1, refused.message),
    }
}

/// The pod is to end.
async fn ends(ending: &Ending) {
    if ending.clone().wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The grace period is over, also when it was shortened meanwhile.
async fn time_is_up(ending: &Ending) {
    let mut ending = ending.clone();
    loop {
        let end = *ending.borrow_and_update();
        let until = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until => return,
            changed = ending.changed() => if changed.is_err() { return },
        }
    }
}

/// How long the pod's processes may take to end.
pub(super) fn grace_seconds(pod: &Pod) -> u64 {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    u64::try_from(seconds).unwrap_or_default()
}

fn terminated(status: Option<ExitStatus>, since: Timestamp, message: String) -> ContainerStateTerminated {
    // What a shell says of a program that a signal has ended.
    let code =
        status.and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal))).unwrap_or(255);
    ContainerStateTerminated {
        exit_code: code,
        signal: status.and_then(|status| status.signal()),
        reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
        message: (!message.is_empty()).then_some(message),
        started_at: Some(Time(since)),
        finished_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    }
}
