//! One request to a cloud, as a span of kind client: `EC2.AssociateAddress`, `compute.instances.addAccessConfig`.
//!
//! [`Metered`](super::metered::Metered) sees whole methods, which are several requests; what each of those was, and which
//! one took the time, is to be seen in a trace. A change that the cloud accepts first and carries out then is one span from
//! the request to its end, with an event for each look at how it goes.

pub(super) mod exchange;

use std::future::Future;

use tracing::{Instrument as _, Span, field, info_span};

use super::{CloudError, Place, Provider, ProviderId, limits};
use crate::telemetry::traces::{self, Fact};

/// The event of a look at how a change goes.
const POLL: &str = "poll";

tokio::task_local! {
    /// The machine that the requests are about.
    static MACHINE: ProviderId;
}

/// Does what is about that machine: its requests say where it stands.
pub(super) async fn about<T>(machine: &ProviderId, work: impl Future<Output = T>) -> T {
    MACHINE.scope(machine.clone(), work).await
}

/// Sends a request of `service` and tells how it went.
pub(super) async fn request<T>(
    provider: Provider,
    service: &'static str,
    call: &'static str,
    answer: impl Future<Output = Result<T, CloudError>>,
) -> Result<T, CloudError> {
    limits::spend();
    let span = span(provider, service, call);
    let result = exchange::told_by(&span, answer).instrument(span.clone()).await;
    tell(&span, result.as_ref().err());
    result
}

/// Sends a change, waits for its end, and tells how it went. `wait` looks with [`poll`].
pub(super) async fn change<A, T, W: Future<Output = Result<T, CloudError>>>(
    provider: Provider,
    service: &'static str,
    call: &'static str,
    accepted: impl Future<Output = Result<A, CloudError>>,
    wait: impl FnOnce(A) -> W,
) -> Result<T, CloudError> {
    limits::spend();
    let span = span(provider, service, call);
    let whole = async { wait(exchange::told_by(&span, accepted).await?).await };
    let result = whole.instrument(span.clone()).await;
    tell(&span, result.as_ref().err());
    result
}

/// One look at how a change goes: an event of its span. `state`: the cloud's own word for how it goes.
pub(super) async fn poll<T>(
    service: &'static str,
    call: &'static str,
    answer: impl Future<Output = Result<T, CloudError>>,
    state: impl FnOnce(&T) -> Option<String>,
) -> Result<T, CloudError> {
    limits::spend();
    let (result, exchange) = exchange::heard(answer).await;
    let mut facts = vec![("netipallocation.call", Fact::Text(format!("{service}.{call}")))];
    facts.extend(exchange.status.map(|status| ("http.response.status_code", Fact::Number(status.into()))));
    match &result {
        Ok(answer) => facts.extend(state(answer).map(|state| ("netipallocation.change", Fact::Text(state)))),
        Err(error) => facts.push(("error.type", Fact::Text(error.kind.label().to_owned()))),
    }
    traces::note(POLL, facts);
    result
}

fn span(provider: Provider, service: &'static str, call: &'static str) -> Span {
    let span = info_span!(
        "request",
        otel.name = format!("{service}.{call}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
        error.type = field::Empty,
        cloud.provider = provider.as_str(),
        cloud.region = field::Empty,
        cloud.availability_zone = field::Empty,
        http.request.method = field::Empty,
        http.request.resend_count = field::Empty,
        http.response.status_code = field::Empty,
        server.address = field::Empty,
        aws.request_id = field::Empty,
        azure.service.request.id = field::Empty,
    );
    // Outside of a method about one machine nothing is known of a place.
    let machine = MACHINE.try_with(Clone::clone).ok();
    if let Some(Place { region, zone, .. }) = machine.as_ref().and_then(ProviderId::place) {
        for (key, value) in [("cloud.region", region), ("cloud.availability_zone", zone)] {
            if !value.is_empty() {
                span.record(key, value);
            }
        }
    }
    span
}

fn tell(span: &Span, error: Option<&CloudError>) {
    if let Some(error) = error {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", &error.message);
        span.record("error.type", error.kind.label());
    }
}
