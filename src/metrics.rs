//! Every metric that the process tells: name, help, labels, buckets, and one typed function for each way to record it.
//!
//! Knows no decision, and makes none: who records has already written status. No label ever comes from a `Debug` text.
//!
//! Counters and histograms are recorded where something happens ([`counters`]); gauges are what was last said of each subject
//! ([`gauges`]), and gone with what they are about. The process itself is told under the names that
//! every Prometheus client uses (`process_cpu_seconds_total`, `process_resident_memory_bytes` and so on).

pub mod counters;
pub mod gauges;
pub mod names;
#[cfg(test)]
mod tests;

use std::time::Duration;

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;
use tokio::time::interval;

pub use self::{
    counters::*,
    gauges::{AddressGauges, AllocationGauges, ControllerGauges, Gauges, NodeGauges},
    names::{CATALOGUE, Kind, Metric},
};

/// How often histograms are drained, descriptions taken over and the process is measured.
const UPKEEP: Duration = Duration::from_secs(5);

/// Metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("metrics cannot be set up: {0}")]
    Build(#[from] BuildError),
    /// Set up already in this process.
    #[error("metrics cannot be set up: {0}")]
    Installed(String),
}

/// Makes the process's recorder, with label `cluster` on every series when a name is given, and starts its upkeep.
/// To be called once, inside the runtime; `render()` of the answer is the text of `/metrics`, but for what is true now
/// ([`Gauges::render`]).
///
/// # Errors
/// [`MetricsError`] when called twice.
pub fn install(cluster_name: Option<&str>) -> Result<PrometheusHandle, MetricsError> {
    let recorder = recorder(cluster_name)?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| MetricsError::Installed(error.to_string()))?;
    describe();
    counters::born();
    tokio::spawn(upkeep(handle.clone()));
    Ok(handle)
}

fn recorder(cluster_name: Option<&str>) -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    if let Some(name) = cluster_name {
        builder = builder.add_global_label("cluster", name);
    }
    for metric in CATALOGUE {
        // Without buckets the exporter would make it a summary, which cannot be added up over pods.
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

fn describe() {
    for Metric { name, kind, help, .. } in CATALOGUE.iter().copied() {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, Unit::Count, help),
            Kind::Gauge => {}
            Kind::Histogram(_) => metrics::describe_histogram!(name, Unit::Seconds, help),
        }
    }
}

async fn upkeep(handle: PrometheusHandle) {
    let process = Collector::default();
    process.describe();
    let mut tick = interval(UPKEEP);
    loop {
        tick.tick().await;
        process.collect();
        handle.run_upkeep();
    }
}
