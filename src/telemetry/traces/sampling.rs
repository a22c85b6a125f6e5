//! Which spans are kept.

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind, TraceContextExt as _, TraceState},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::NEXT_ROOT;

/// The user's sampler, asked in the way of journeys.
///
/// Every process asks it about a journey's trace as if it drew the root: all of them come to the same answer, because a
/// sampler looks at nothing of a root but its trace id. And a trace begins only with a span that is drawn as a root: a
/// survey that runs all day for nobody is not one.
#[derive(Clone, Debug)]
pub(super) struct Journeys(pub Sampler);

impl ShouldSample for Journeys {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let valid = parent.filter(|parent| parent.span().span_context().is_valid());
        let local = valid.filter(|parent| !parent.span().span_context().is_remote());
        if valid.is_none() && NEXT_ROOT.get().is_none() {
            return SamplingResult {
                decision: SamplingDecision::Drop,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.0.should_sample(local, trace_id, name, kind, attributes, links)
    }
}
