//! From what is wanted to a provider of tracers that sends spans by OTLP, from a thread of its own.

use std::{
    ffi::OsString,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::lock::Mutex;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter},
};

use super::{Ids, NAME, Otlp, Protocol, Traces, sampling::Journeys};
use crate::settings::Settings;

/// A killed leader takes with it what it has not sent: less than the standard's 5 s. Spans are few.
const DELAY: Duration = Duration::from_secs(1);

/// Sets the way out for spans up. Within a runtime: gRPC needs one.
///
/// # Errors
/// In words.
pub fn build(otlp: &Otlp, settings: &Settings, env: impl Fn(&str) -> Option<OsString>) -> Result<Traces, String> {
    let late = Late::default();
    let exporter = Told::new(exporter(otlp)?, late.clone());
    let mut batch = BatchConfigBuilder::default();
    if env("OTEL_BSP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(DELAY);
    }
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
    Ok(Traces(
        SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_id_generator(Ids::default())
            .with_sampler(Journeys(otlp.sampler.clone()))
            .with_resource(resource(settings, env))
            .build(),
        late,
    ))
}

/// Headers, timeout and compression are read from the environment by the SDK itself.
fn exporter(otlp: &Otlp) -> Result<OtlpExporter, String> {
    let certificate = otlp.certificate.as_deref().map(certificate).transpose()?;
    let exporter = match otlp.protocol {
        Protocol::Grpc => {
            let mut builder = OtlpExporter::builder().with_tonic().with_endpoint(&otlp.endpoint);
            if let Some(pem) = certificate.filter(|_| otlp.endpoint.starts_with("https:")) {
                builder = builder.with_tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
            }
            builder.build()
        }
        Protocol::HttpProtobuf => {
            let mut builder = OtlpExporter::builder()
                .with_http()
                .with_endpoint(&otlp.endpoint)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
            if let Some(pem) = certificate {
                builder = builder.with_http_client(trusting(&pem)?);
            }
            builder.build()
        }
    };
    exporter.map_err(|error| error.to_string())
}

fn certificate(path: &Path) -> Result<Vec<u8>, String> {
    let unusable = |why: &dyn std::fmt::Display| {
        format!("the file {} of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be used: {why}", path.display())
    };
    let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(pem),
        Ok(_) => Err(unusable(&"there is no certificate in PEM in it")),
        Err(error) => Err(unusable(&error)),
    }
}

/// A client that trusts these certificates and no others.
fn trusting(pem: &[u8]) -> Result<reqwest::blocking::Client, String> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())?;
    // A blocking client may not be built within a runtime.
    let built = std::thread::spawn(move || reqwest::blocking::Client::builder().tls_certs_only(certificates).build());
    built.join().map_err(|_| "the client was not built".to_owned())?.map_err(|error| error.to_string())
}

/// Who tells: what the process knows of itself, under what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
fn resource(settings: &Settings, env: impl Fn(&str) -> Option<OsString>) -> Resource {
    let known = [
        ("service.name", Some(NAME.to_owned())),
        ("service.version", Some(settings.controller_version.clone())),
        ("service.namespace", settings.pod_namespace.clone()),
        ("service.instance.id", Some(settings.identity())),
        ("k8s.namespace.name", settings.pod_namespace.clone()),
        ("k8s.pod.name", settings.pod_name.clone()),
        ("k8s.pod.uid", settings.pod_uid.clone()),
        ("k8s.node.name", settings.node_name.clone()),
        ("k8s.cluster.name", settings.cluster_name.clone()),
    ];
    let known = known.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
    let resource = Resource::builder_empty()
        .with_attributes(known)
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match env("OTEL_SERVICE_NAME").and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty()) {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// What is found out of the sender while it runs already. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(Arc<OnceLock<KeyValue>>);

impl Late {
    /// From the next batch on. Only the first word counts.
    pub fn say(&self, attribute: KeyValue) {
        let _ = self.0.set(attribute);
    }
}

/// Tells once that spans are not delivered, and once that they are again: the SDK would say it with every batch. And adds
/// to the sender what is found out late.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: Mutex<E>,
    failing: AtomicBool,
    resource: Resource,
    late: Late,
    whole: AtomicBool,
}

impl<E> Told<E> {
    pub fn new(exporter: E, late: Late) -> Self {
        let resource = Resource::builder_empty().build();
        Self {
            exporter: Mutex::new(exporter),
            failing: AtomicBool::new(false),
            resource,
            late,
            whole: AtomicBool::new(false),
        }
    }

    /// The sender with what was found out of it, once. What the user says of it stays.
    fn completed(&self) -> Option<Resource> {
        let late = self.late.0.get()?;
        if self.whole.swap(true, Ordering::Relaxed) || self.resource.get(&late.key).is_some() {
            return None;
        }
        let known = self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        Some(Resource::builder_empty().with_attributes(known).with_attribute(late.clone()).build())
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut exporter = self.exporter.lock().await;
        if let Some(resource) = self.completed() {
            exporter.set_resource(&resource);
        }
        match exporter.export(batch).await {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => tracing::info!("spans are delivered again"),
            Ok(()) => {}
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "spans cannot be delivered and are dropped; the operator works on without them");
            }
            Err(_) => {}
        }
        Ok(())
    }

    // Batches are sent one after another, and nothing while these are asked: the lock is free.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.try_lock().map_or(Ok(()), |exporter| exporter.shutdown_with_timeout(timeout))
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.try_lock().map_or(Ok(()), |exporter| exporter.force_flush())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.clone();
        self.exporter.get_mut().set_resource(resource);
    }
}
