//! Traces: spans that are drawn when their end is known, and spans that run; both go out by OTLP, beside the work.
//!
//! Nothing here can fail or slow a pass: what cannot be sent is dropped, and that is said once.

mod exporter;
mod otlp;
mod sampling;

use std::{cell::Cell, time::Duration};

use jiff::Timestamp;
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, Span as _, SpanContext, Status, TraceContextExt as _, TraceState, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use self::exporter::Late;
pub use self::{
    exporter::build,
    otlp::{Otlp, Protocol, Wanted, read},
};
use crate::lifecycle::Trace;

const NAME: &str = "ip-address-controller";

/// A span whose beginning and end are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    pub name: &'static str,
    pub place: Place,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub attributes: Vec<(&'static str, String)>,
    /// Roots of other traces.
    pub links: Vec<Trace>,
    /// Makes it a failed one.
    pub error: Option<String>,
}

/// Where a span stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the root.
    Root(Trace),
    /// It is a child of the root, which may be drawn later, and by another process.
    Under(Trace),
}

/// Draws sketches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(SdkTracer, Late);

impl Tracer {
    /// Spans that are sent from now on say which cluster the sender is in, by the uid of its namespace kube-system.
    pub fn in_cluster(&self, uid: String) {
        self.1.say(KeyValue::new("k8s.cluster.uid", uid));
    }

    pub fn draw(&self, sketch: &Sketch) {
        let Sketch { name, place, began, ended, attributes, links, error } = sketch;
        let parent = match place {
            Place::Root(trace) => {
                NEXT_ROOT.set(Some(*trace));
                Context::new()
            }
            Place::Under(trace) => under(*trace),
        };
        let attributes = attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
        let builder = self
            .0
            .span_builder(*name)
            .with_start_time(*began)
            .with_attributes(attributes)
            .with_links(links.iter().map(|trace| Link::with_context(root(*trace))).collect());
        let mut span = self.0.build_with_context(builder, &parent);
        NEXT_ROOT.set(None);
        if let Some(error) = error {
            span.set_status(Status::error(error.clone()));
        }
        span.end_with_timestamp((*ended).into());
    }
}

/// Makes a span that has not begun yet a child of the root of that trace. Without traces it changes nothing.
pub fn follow(span: &tracing::Span, trace: Trace) {
    // The only failure is that there is nobody to be told.
    let _ = span.set_parent(under(trace));
}

/// What an event of a span says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Text(String),
    Number(i64),
}

/// An event of the span that runs now, in its trace alone: it is no line of the log. Without traces it says nothing.
pub fn note(name: &'static str, facts: Vec<(&'static str, Fact)>) {
    let facts = facts.into_iter().map(|(key, fact)| match fact {
        Fact::Text(text) => KeyValue::new(key, text),
        Fact::Number(number) => KeyValue::new(key, number),
    });
    tracing::Span::current().add_event(name, facts.collect());
}

fn under(trace: Trace) -> Context {
    Context::new().with_remote_span_context(root(trace))
}

fn root(trace: Trace) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from(trace.id()), SpanId::from(trace.root()));
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::default())
}

thread_local! {
    /// Whose root the next span of this thread is. The SDK takes ids from a generator and from nowhere else.
    static NEXT_ROOT: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// Random ids, except for a root whose ids are known.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_ROOT.get().map_or_else(|| self.0.new_trace_id(), |trace| TraceId::from(trace.id()))
    }

    fn new_span_id(&self) -> SpanId {
        NEXT_ROOT.get().map_or_else(|| self.0.new_span_id(), |trace| SpanId::from(trace.root()))
    }
}

/// The way out for spans; ended by [`Traces::end`].
#[derive(Clone, Debug)]
pub struct Traces(SdkTracerProvider, Late);

impl Traces {
    pub fn tracer(&self) -> Tracer {
        Tracer(self.sdk_tracer(), self.1.clone())
    }

    pub(super) fn sdk_tracer(&self) -> SdkTracer {
        self.0.tracer(NAME)
    }

    /// Sends what is left, for at most `limit`.
    pub async fn end(self, limit: Duration) {
        // It blocks, and the exporter over gRPC needs the runtime meanwhile.
        let ending = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(limit));
        if let Ok(Err(error)) = ending.await {
            tracing::warn!(%error, "the last spans may not have been delivered");
        }
    }
}

#[cfg(test)]
mod tests;
