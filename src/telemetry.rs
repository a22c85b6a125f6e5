//! What the process tells in words: logs, one line each, on stderr.
//!
//! Knows no decision. Every event carries its facts as fields; `crd`, `node`, `ip`, `zone`, `provider` and `error` are the
//! names that readers of version 1's logs look for, and come in that order. Fields of the spans around an event are
//! its own, unless it says otherwise.

#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod line;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use self::line::Fields;
use crate::settings::{LogFormat, Settings};

/// Libraries that tell every request at debug, and some more than that.
const NOISY: [&str; 9] =
    ["kube", "kube_client", "kube_runtime", "hyper", "hyper_util", "h2", "tower", "rustls", "warp"];

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

/// Sets the process's logs up as the settings say.
///
/// # Errors
/// [`TelemetryError`] when called twice.
pub fn init(settings: &Settings) -> Result<(), TelemetryError> {
    subscriber(&settings.log_level, settings.log_format, io::stderr()).try_init()?;
    Ok(())
}

fn subscriber(level: &str, format: LogFormat, to: impl Write + Send + 'static) -> impl Subscriber + Send + Sync {
    let lines = Lines { format, to: Mutex::new(to) };
    Registry::default().with(lines.with_filter(filter(level).and(filter_fn(tells_no_secret))))
}

fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    !(metadata.target().starts_with(SECRETIVE) && *metadata.level() == Level::TRACE)
}

/// `level` with the noisy libraries at warn, unless it names them itself: of two directives for one target the later wins.
fn filter(level: &str) -> EnvFilter {
    let quiet = level.split(',').any(|part| matches!(part.trim(), "error" | "off"));
    let noisy = NOISY.iter().filter(|_| !quiet).map(|target| format!("{target}=warn,"));
    EnvFilter::new(noisy.chain([level.to_owned()]).collect::<String>())
}

/// The layer that writes.
struct Lines<W> {
    format: LogFormat,
    to: Mutex<W>,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
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
