//! What the process tells: logs, one line each, on stderr; and [`traces`].
//!
//! Knows no decision. Every event carries its facts as fields; `crd`, `node`, `ip`, `zone`, `provider` and `error` are the
//! names that readers of version 1's logs look for, and come in that order, in logfmt in version 1's own. Fields of the spans around an event are
//! its own, unless it says otherwise; so are the ids of the trace that the innermost one is in.

#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod line;
#[cfg(test)]
mod tests;
pub mod traces;

use std::{
    ffi::OsString,
    io::{self, Write},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher::WeakDispatch, span};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, Targets, filter_fn},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use self::{
    line::Fields,
    traces::{Tracer, Traces},
};
use crate::{
    cloud::gcp,
    settings::{LogFormat, Settings},
};

/// Libraries that tell every request at debug, and some more than that.
const NOISY: [&str; 15] = [
    "google_cloud_compute_v1",
    "google_cloud_gax_internal",
    "kube",
    "kube_client",
    "kube_runtime",
    "hyper",
    "hyper_util",
    "h2",
    "tower",
    "rustls",
    "warp",
    "tonic",
    "reqwest",
    "opentelemetry",
    "opentelemetry_sdk",
];

/// The first says with every batch that it was not delivered, Google's client with every request that it failed; we say
/// either, once.
const REPETITIVE: [&str; 2] = ["opentelemetry-otlp", "experimental"];

/// Begins the targets of libraries that tell credentials at trace, in clear: Amazon's, session tokens and the pod's own in
/// the headers of a request. That level of theirs is never logged, whatever the directives say.
const SECRETIVE: &str = "aws_";

static LEADER: AtomicBool = AtomicBool::new(false);

/// From now on lines say `leader=true`, or false.
pub fn set_leader(leads: bool) {
    LEADER.store(leads, Ordering::Relaxed);
}

/// Logs could not be set up: the process has a subscriber already.
#[derive(Debug, thiserror::Error)]
#[error("logs cannot be set up: {0}")]
pub struct TelemetryError(#[from] tracing_subscriber::util::TryInitError);

/// What was set up; to be [ended](Telemetry::end) before the process ends.
#[derive(Debug)]
#[must_use]
pub struct Telemetry(Option<Traces>);

impl Telemetry {
    /// Draws spans, where spans are wanted.
    pub fn tracer(&self) -> Option<Tracer> {
        self.0.as_ref().map(Traces::tracer)
    }

    /// Sends the spans that are left, for at most `limit`.
    pub async fn end(self, limit: Duration) {
        if let Some(traces) = self.0 {
            traces.end(limit).await;
        }
    }
}

/// Sets the process's logs up as the settings say, and its traces as the standard variables do. What those say wrong is
/// told in one line; nobody's address waits for a collector.
///
/// # Errors
/// [`TelemetryError`] when called twice.
pub fn init(settings: &Settings, env: impl Fn(&str) -> Option<OsString>) -> Result<Telemetry, TelemetryError> {
    let traces::Wanted { otlp, mut complaints } = traces::read(&env);
    let traces = otlp.as_ref().and_then(|otlp| match traces::build(otlp, settings, &env) {
        Ok(traces) => Some(traces),
        Err(why) => {
            complaints.push(format!("there are no traces: {why}"));
            None
        }
    });
    let tracer = traces.as_ref().map(Traces::sdk_tracer);
    subscriber(&settings.log_level, settings.log_format, io::stderr(), tracer).try_init()?;
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
    if let (Some(otlp), Some(_)) = (otlp, &traces) {
        tracing::info!(endpoint = otlp.endpoint, protocol = ?otlp.protocol, "sends traces");
    }
    Ok(Telemetry(traces))
}

fn subscriber(
    level: &str,
    format: LogFormat,
    to: impl Write + Send + 'static,
    tracer: Option<SdkTracer>,
) -> impl Subscriber + Send + Sync {
    let lines = Lines { format, to: Mutex::new(to), dispatch: OnceLock::new() };
    // Nobody else asks what went over the wire.
    let wire = tracer.is_some().then(gcp::heard::listener);
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target("ip_address_controller", Level::INFO))
    });
    Registry::default().with(spans).with(wire).with(lines.with_filter(filter(level).and(filter_fn(tells_no_secret))))
}

fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    !(metadata.target().starts_with(SECRETIVE) && *metadata.level() == Level::TRACE)
}

/// `level` with the noisy libraries at warn, unless it names them itself: of two directives for one target the later wins.
fn filter(level: &str) -> EnvFilter {
    let quiet = level.split(',').any(|part| matches!(part.trim(), "error" | "off"));
    let noisy = NOISY.iter().filter(|_| !quiet).map(|target| format!("{target}=warn,"));
    let repetitive = REPETITIVE.iter().map(|target| format!("{target}=off,"));
    EnvFilter::new(noisy.chain(repetitive).chain([level.to_owned()]).collect::<String>())
}

/// The layer that writes.
struct Lines<W> {
    format: LogFormat,
    to: Mutex<W>,
    /// Leads to the layer that knows the ids of traces.
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> Lines<W> {
    /// Trace and span, where the span is in a trace.
    fn ids(&self, span: &span::Id) -> Option<(String, String)> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(span, &dispatch)?;
        let ids = context.span().span_context().clone();
        ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // Only the first one counts: a subscriber is registered once.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        if let Some((trace, span)) = context.event_span(event).and_then(|span| self.ids(&span.id())) {
            fields.says("trace_id", &trace);
            fields.says("span_id", &span);
        }
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.extend(outer);
            }
        }
        event.record(&mut fields);
        let line =
            line::write(self.format, jiff::Timestamp::now(), event.metadata(), fields, LEADER.load(Ordering::Relaxed));
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written can be told nowhere.
        let _ = to.write_all(line.as_bytes());
    }
}
