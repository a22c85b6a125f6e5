//! What goes over the wire, as Google's client tells it: by a span for each attempt, with the attributes of OpenTelemetry's
//! conventions. That is the only place at which it tells the status of a success.
//!
//! Their spans are not kept: they say whole addresses with their queries, and the request that they belong to has a span
//! of ours. This listens to them and tells that one.

use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, filter::Targets, layer::Context, registry::LookupSpan};

use crate::cloud::request::exchange;

/// Who speaks.
const CLIENT: &str = "google_cloud_gax_internal";
/// Their name for an attempt.
const ATTEMPT: &str = "http_request";

/// A layer that hears the requests of Google's client, and of nobody else.
pub fn listener<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Listener.with_filter(Targets::new().with_target(CLIENT, Level::INFO))
}

struct Listener;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if attributes.metadata().name() != ATTEMPT {
            return;
        }
        let mut said = Said::default();
        attributes.record(&mut said);
        if let Some(method) = said.method {
            exchange::sent(&method, said.server.as_deref());
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if context.metadata(id).is_none_or(|metadata| metadata.name() != ATTEMPT) {
            return;
        }
        let mut said = Said::default();
        values.record(&mut said);
        if let Some(status) = said.status {
            exchange::answered(status, None);
        }
    }
}

#[derive(Default)]
struct Said {
    method: Option<String>,
    server: Option<String>,
    status: Option<u16>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "http.request.method" => self.method = Some(value.to_owned()),
            "server.address" => self.server = Some(value.to_owned()).filter(|server| !server.is_empty()),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "http.response.status_code" {
            self.status = u16::try_from(value).ok();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
