//! The operator's life: standby, leader, end. One term of leadership a process: what a leader knows dies with it (P8).

mod cluster;
pub mod connect;
mod proxy;
mod watches;

use std::{future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{Client, ResourceExt};
use kube_runtime::{applier, controller};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::watches::{Shown, View, Watches};
use crate::{
    allocation::{
        Config, Controller, Observers, Parts,
        act::Actor,
        observe::{cloud_view::CloudView, pods::Pods},
        record::{
            spans::Traced,
            tell::{Counted, Teller},
        },
        watch::{Cause, Guarded},
    },
    cloud::{
        connect::{CloudSettings, Clouds},
        limits::{Limits, Rate},
    },
    http::{self, Health},
    leader::{Candidate, LeaseConfig, Term},
    lifecycle::backoff::Backoff,
    metrics::{self, ControllerGauges, Gauges},
    settings::{ControllerMode, Settings},
    telemetry::{self, traces::Tracer},
};

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no cluster to talk to: {0}")]
    Cluster(String),
    #[error("{0}")]
    Bind(#[from] http::BindError),
    #[error("{0}")]
    Metrics(#[from] metrics::MetricsError),
    #[error("CLOUD_QPS and CLOUD_BURST: {0}")]
    Rate(#[from] crate::cloud::limits::NotARate),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("leadership was lost; the process ends so that nothing it knew is acted on")]
    LostLeadership,
    #[error("{0}, which it never should; the process ends, because it would hear of nothing any more")]
    Deaf(String),
}

/// After SIGTERM, effects in flight are waited for so long: less than the pod's grace period, so that the Lease is still
/// released in time.
const LAST_EFFECTS: Duration = Duration::from_secs(20);
/// How often readiness and the lasting gauges are looked after,
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// and until it is ready for the first time.
const STARTING: Duration = Duration::from_millis(20);

/// The client of the cluster that this pod, or the kubeconfig, names.
///
/// # Errors
/// In words.
pub async fn client() -> Result<(Client, kube::Config), String> {
    let config = kube::Config::infer().await.map_err(|error| error.to_string())?;
    let client = connect::client(config.clone()).map_err(|error| error.to_string())?;
    Ok((client, config))
}

/// Runs until SIGTERM, SIGINT, or leadership or a watch is lost. Journeys and passes are drawn by `tracer`, if there is one.
///
/// # Errors
/// [`RunError`].
pub async fn run(settings: Settings, tracer: Option<Tracer>) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let asked_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let rate = Rate::new(settings.cloud_qps, settings.cloud_burst)?;
    let handle = metrics::install(settings.cluster_name.as_deref())?;
    let health = Health::new();
    let stop = CancellationToken::new();
    let health_port = http::bind(settings.bind_address, settings.health_port, "HEALTH_PORT").await?;
    let metrics_port = http::bind(settings.bind_address, settings.metrics_port, "METRICS_PORT").await?;
    tokio::spawn(http::serve_health(health_port, health.clone(), stop.clone()));
    let gauges = Gauges::new(settings.cluster_name.as_deref());
    let true_now = gauges.clone();
    let render = move || handle.render() + &true_now.render();
    tokio::spawn(http::serve_metrics(metrics_port, render, stop.clone()));
    tokio::spawn(health.clone().beat());

    let (client, config) = client().await.map_err(RunError::Cluster)?;
    if let Some(tracer) = tracer.clone() {
        tokio::spawn(cluster::tell(client.clone(), tracer));
    }
    let mut observers: Observers = vec![Box::new(Counted)];
    observers.extend(tracer.map(|tracer| Box::new(Traced(tracer)) as _));
    let namespace = config.default_namespace;
    // Warm caches before leading: a standby takes over with them, though they decide nothing (F6).
    let mut watches = Watches::begin(&client, settings.watch_label_selector.clone());
    let seen = watches.view.clone();
    let result = tokio::select! {
        result = lead(&settings, client, namespace, seen, rate, observers, &health, &gauges, asked_to_stop) => result,
        why = watches.ended() => Err(RunError::Deaf(why)),
    };
    health.stopping();
    stop.cancel();
    result
}

#[allow(clippy::too_many_arguments)]
async fn lead(
    settings: &Settings,
    client: Client,
    default_namespace: String,
    seen: View,
    rate: Rate,
    observers: Observers,
    health: &Health,
    gauges: &Gauges,
    asked_to_stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let candidate = Candidate::new(
        client.clone(),
        LeaseConfig {
            namespace: settings.pod_namespace.clone().unwrap_or(default_namespace),
            name: settings.lease_name.clone(),
            identity: settings.identity(),
            duration: settings.lease_duration,
            skew: settings.lease_skew,
        },
    );
    let leads = Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn(housekeeping(
        settings.clone(),
        health.clone(),
        gauges.clone(),
        candidate.clone(),
        leads.clone(),
        seen.shown.clone(),
    ));

    tokio::pin!(asked_to_stop);
    let term = tokio::select! {
        () = &mut asked_to_stop => return Ok(()),
        term = candidate.lead() => term,
    };
    tracing::info!(lease = settings.lease_name, "leads");
    leads.store(true, std::sync::atomic::Ordering::Release);
    telemetry::set_leader(true);

    let stop = CancellationToken::new();
    let controller = build(settings, &client, &term, &seen, rate, observers, gauges, &stop);
    let ready = async {
        seen.shown.everything().await;
        let mut attempts = 0;
        while let Err(error) = controller.take_over().await {
            attempts += 1;
            tracing::warn!(%error, attempts, "take-over failed, trying again");
            tokio::time::sleep(Backoff::TRANSIENT.delay(attempts, 0.0)).await;
        }
    };
    tokio::select! {
        () = &mut asked_to_stop => { term.release().await; return Ok(()) }
        () = term.lost() => return Err(RunError::LostLeadership),
        () = ready => {}
    }
    tokio::spawn(controller.clone().sweep());
    seen.wake.reset();
    seen.wake.all(Cause::Start);

    let passes = {
        let queue = seen.wake.stream(seen.allocations.clone()).take_until(stop.clone().cancelled_owned());
        let reconciler = controller.clone();
        applier(
            move |object: Arc<Guarded>, _: Arc<()>| Box::pin(reconciler.clone().reconcile(object)),
            {
                let controller = controller.clone();
                move |object: Arc<Guarded>, error: &_, _: Arc<()>| controller.after_failure(&object.name_any(), error)
            },
            Arc::new(()),
            seen.allocations,
            queue.map(Ok::<_, std::convert::Infallible>),
            controller::Config::default().concurrency(settings.max_concurrent_reconciles),
        )
        .for_each(|_| std::future::ready(()))
    };
    tokio::pin!(passes);
    tokio::select! {
        () = &mut asked_to_stop => {}
        () = term.lost() => {
            stop.cancel();
            return Err(RunError::LostLeadership);
        }
        () = &mut passes => {}
    }
    tracing::info!("stopping: no new passes; waits for effects in flight");
    health.stopping();
    stop.cancel();
    let quiet = async {
        passes.await;
        controller.drain_effects(LAST_EFFECTS).await
    };
    tokio::select! {
        all_ended = quiet => if !all_ended {
            tracing::warn!("effects are still in flight; the Lease is left to run out, so that the next leader waits for them");
            return Ok(());
        },
        () = term.lost() => return Err(RunError::LostLeadership),
    }
    term.release().await;
    tracing::info!("released the Lease");
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn build(
    settings: &Settings,
    client: &Client,
    term: &Term,
    seen: &View,
    rate: Rate,
    observers: Observers,
    gauges: &Gauges,
    stop: &CancellationToken,
) -> Arc<Controller> {
    let View { allocations, nodes, wake, .. } = seen.clone();
    let connected = {
        let wake = wake.clone();
        Arc::new(move || wake.all(Cause::Cloud))
    };
    let limits = Limits::new(rate, settings.max_concurrent_effects.into());
    let pause = |attempts| Backoff::TRANSIENT.delay(attempts, 0.0);
    let clouds = Clouds::new(cloud_settings(settings), pause, connected, stop.clone());
    let pods = Pods::new(client.clone(), wake.clone());
    let timeout = settings.mutation_timeout();
    Controller::new(Parts {
        config: Config {
            disruption_taints: settings.disruption_taints.clone(),
            observe_only: settings.controller_mode == ControllerMode::Observe,
            mutation_timeout: timeout,
            label_selector: settings.watch_label_selector.clone(),
        },
        client: client.clone(),
        actor: Actor { client: client.clone(), proof: term.proof(), timeout, nodes: nodes.clone(), pods: pods.clone() },
        teller: Teller::new(client.clone(), nodes.clone(), settings.instance()),
        nodes,
        pods,
        view: CloudView::new(clouds, limits.clone(), wake.clone(), stop.clone()),
        limits,
        gauges: gauges.clone(),
        observers,
        wake,
        allocations,
        stop: stop.clone(),
    })
}

/// How each cloud is reached.
pub fn cloud_settings(settings: &Settings) -> CloudSettings {
    CloudSettings {
        timeout: settings.mutation_timeout(),
        operation_timeout: settings.cloud_operation_timeout,
        allow_insecure: settings.allow_insecure_endpoint,
        gcp_endpoint: settings.google_compute_custom_endpoint.clone(),
        aws_endpoint: settings.aws_endpoint_url_ec2.clone(),
        azure_endpoint: settings.azure_resource_manager_endpoint.clone(),
        azure_authority: settings.azure_authority_host.clone(),
    }
}

/// Readiness (caches complete, election alive) and the gauges of this replica.
async fn housekeeping(
    settings: Settings,
    health: Health,
    gauges: Gauges,
    candidate: Candidate,
    leads: Arc<std::sync::atomic::AtomicBool>,
    shown: Shown,
) {
    let mut pause = STARTING;
    loop {
        let unheard = || (!candidate.alive()).then_some("the Lease has not been read or renewed for too long");
        match shown.missing().or_else(unheard) {
            Some(why) => health.not_ready(why),
            None => {
                health.ready();
                pause = HOUSEKEEPING;
            }
        }
        if let Some(so_often) = candidate.transitions() {
            metrics::leader_transitions(so_often);
        }
        gauges.controller(ControllerGauges {
            pod_name: settings.instance(),
            version: settings.controller_version.clone(),
            leads: leads.load(std::sync::atomic::Ordering::Acquire),
            ready: health.is_ready(),
            healthy: health.is_healthy(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        });
        tokio::time::sleep(pause).await;
    }
}
