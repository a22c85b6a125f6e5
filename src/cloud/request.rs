//! One request to a cloud, as a span of kind client: `EC2.AssociateAddress`, `compute.instances.addAccessConfig`.
//!
//! [`Metered`](super::metered::Metered) sees whole methods, which are several requests; what each of those was, and which
//! one took the time, is to be seen in a trace.

use std::future::Future;

use tracing::{Instrument as _, field, info_span};

use super::{CloudError, Provider};

/// Sends a request of `service` and tells how it went.
pub(super) async fn request<T>(
    provider: Provider,
    service: &'static str,
    call: &'static str,
    answer: impl Future<Output = Result<T, CloudError>>,
) -> Result<T, CloudError> {
    let span = info_span!(
        "request",
        otel.name = format!("{service}.{call}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
        error.type = field::Empty,
        cloud.provider = provider.as_str(),
    );
    let result = answer.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", &error.message);
        span.record("error.type", error.kind.label());
    }
    result
}
