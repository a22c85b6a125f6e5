//! A cloud that is measured and traced from outside: no provider has a metric line in its logic.
//!
//! Each call is one count, one duration, and one span, which its requests are in. A call that is dropped before its end is counted as
//! `abandoned`, without a duration: an effect that was cancelled, because leadership was lost for example.

use std::{future::Future, net::IpAddr, time::Instant};

use async_trait::async_trait;
use metrics::counter;
use tracing::{Instrument as _, Span, field, info_span};

use super::{
    Attach, Cloud, CloudError, Detach, Finding, Provider, ProviderId, Restore, Restored, Scope, Seat, Survey, Verified,
    Whereabouts, request,
};
use crate::metrics::{cloud_call, cloud_operation_known, names::CLOUD_API_REQUESTS};

/// The outcome of a call that was dropped; `success` and `error` are the others.
const ABANDONED: &str = "abandoned";

const OPERATIONS: [&str; 7] = ["survey", "find", "inspect", "attach", "detach", "restore", "check"];

/// What comes before the first call: credentials that are not there fail here.
const CONNECT: &str = "connect";

/// Measures an attempt to connect like any other call.
pub(super) async fn connecting<T>(
    provider: Provider,
    attempt: impl Future<Output = Result<T, CloudError>>,
) -> Result<T, CloudError> {
    cloud_operation_known(provider, CONNECT);
    let began = Instant::now();
    let result = attempt.await;
    cloud_call(provider, CONNECT, result.as_ref().map(|_| ()).map_err(|error| error.kind), began.elapsed());
    result
}

/// Wraps a cloud; to be wrapped in nothing else that measures.
#[derive(Clone, Debug)]
pub struct Metered<C> {
    cloud: C,
    provider: Provider,
}

impl<C: Cloud> Metered<C> {
    /// Errors are counted from 0 from here on, so that an alert on their increase sees the first one. Install the
    /// metrics recorder before.
    pub fn new(provider: Provider, cloud: C) -> Self {
        for operation in OPERATIONS {
            cloud_operation_known(provider, operation);
            count_abandoned(provider, operation, 0);
        }
        Self { cloud, provider }
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        span: Span,
        work: impl Future<Output = Result<T, CloudError>>,
    ) -> Result<T, CloudError> {
        let step = Step::begin(self.provider, operation, span.clone());
        let result = work.instrument(span).await;
        step.end(result.as_ref().err());
        result
    }

    /// A call that is about one machine: its requests say where that stands.
    async fn call_about<T>(
        &self,
        operation: &'static str,
        machine: &ProviderId,
        address: Option<IpAddr>,
        work: impl Future<Output = Result<T, CloudError>>,
    ) -> Result<T, CloudError> {
        let span = self.span(operation, machine.place().map_or("", |place| place.region.as_str()));
        span.record("machine", machine.as_str());
        if let Some(address) = address {
            span.record("address", field::display(address));
        }
        self.call(operation, span, request::about(machine, work)).await
    }

    fn span(&self, operation: &'static str, region: &str) -> Span {
        let span = info_span!(
            "cloud",
            otel.name = format!("{} {operation}", self.provider),
            otel.status_code = field::Empty,
            error.type = field::Empty,
            cloud.provider = self.provider.as_str(),
            cloud.region = field::Empty,
            operation,
            address = field::Empty,
            machine = field::Empty,
        );
        // A provider ID need not say it.
        if !region.is_empty() {
            span.record("cloud.region", region);
        }
        span
    }
}

/// A call under way.
struct Step {
    provider: Provider,
    operation: &'static str,
    began: Instant,
    span: Span,
    ended: bool,
}

impl Step {
    fn begin(provider: Provider, operation: &'static str, span: Span) -> Self {
        Self { provider, operation, began: Instant::now(), span, ended: false }
    }

    fn end(mut self, error: Option<&CloudError>) {
        self.ended = true;
        if let Some(error) = error {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", error.kind.label());
            tracing::debug!(parent: &self.span, %error, settled = error.settled, "cloud call failed");
        }
        let result = error.map_or(Ok(()), |error| Err(error.kind));
        cloud_call(self.provider, self.operation, result, self.began.elapsed());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            count_abandoned(self.provider, self.operation, 1);
        }
    }
}

fn count_abandoned(provider: Provider, operation: &'static str, by: u64) {
    counter!(CLOUD_API_REQUESTS, "provider" => provider.as_str(), "operation" => operation, "outcome" => ABANDONED)
        .increment(by);
}

#[async_trait]
impl<C: Cloud> Cloud for Metered<C> {
    async fn survey(&self, scope: &Scope) -> Result<Survey, CloudError> {
        let span = self.span("survey", &scope.region);
        self.call("survey", span, self.cloud.survey(scope)).await
    }

    async fn find(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        let span = self.span("find", &scope.region);
        span.record("address", field::display(address));
        self.call("find", span, self.cloud.find(scope, address)).await
    }

    async fn inspect(&self, machine: &ProviderId) -> Result<Seat, CloudError> {
        self.call_about("inspect", machine, None, self.cloud.inspect(machine)).await
    }

    async fn attach(&self, order: &Attach) -> Result<Verified, CloudError> {
        let (machine, address) = (&order.machine.place, Some(order.address));
        self.call_about("attach", machine, address, self.cloud.attach(order)).await
    }

    async fn detach(&self, order: &Detach) -> Result<Verified, CloudError> {
        let (machine, address) = (&order.machine.place, Some(order.address));
        self.call_about("detach", machine, address, self.cloud.detach(order)).await
    }

    async fn restore(&self, order: &Restore) -> Result<Restored, CloudError> {
        self.call_about("restore", &order.machine.place, None, self.cloud.restore(order)).await
    }

    async fn check(&self, scope: &Scope) -> Vec<Finding> {
        let span = self.span("check", &scope.region);
        let step = Step::begin(self.provider, "check", span.clone());
        let findings = self.cloud.check(scope).instrument(span).await;
        // A finding that something is missing is what a check is for: no error of the call.
        step.end(None);
        findings
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::cloud::ErrorKind;

    /// Answers `survey`, refuses `find`, never ends `inspect`; nothing else is asked here.
    struct Moody;

    #[async_trait]
    impl Cloud for Moody {
        async fn survey(&self, _: &Scope) -> Result<Survey, CloudError> {
            Ok(Survey { began: Instant::now(), addresses: Default::default() })
        }

        async fn find(&self, _: &Scope, _: IpAddr) -> Result<Whereabouts, CloudError> {
            Err(CloudError::new(ErrorKind::Throttled, "addresses.list", "slow down"))
        }

        async fn inspect(&self, _: &ProviderId) -> Result<Seat, CloudError> {
            std::future::pending().await
        }

        async fn attach(&self, _: &Attach) -> Result<Verified, CloudError> {
            unreachable!()
        }

        async fn detach(&self, _: &Detach) -> Result<Verified, CloudError> {
            unreachable!()
        }

        async fn restore(&self, _: &Restore) -> Result<Restored, CloudError> {
            unreachable!()
        }

        async fn check(&self, _: &Scope) -> Vec<Finding> {
            unreachable!()
        }
    }

    fn scope() -> Scope {
        Scope {
            provider: Provider::Gcp,
            account: "prod".to_owned(),
            region: "us-west1".to_owned(),
            resource_group: None,
        }
    }

    /// Every metric as `name{labels} value`, a histogram's value being how often it was recorded.
    fn measured(provider: Provider, calls: impl FnOnce(&Metered<Moody>)) -> Vec<String> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || calls(&Metered::new(provider, Moody)));
        let snapshot = snapshotter.snapshot().into_vec().into_iter();
        let mut lines: Vec<String> = snapshot
            .map(|(key, _, _, value)| {
                let labels: Vec<String> =
                    key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
                let value = match value {
                    DebugValue::Counter(count) => count,
                    DebugValue::Histogram(values) => values.len() as u64,
                    DebugValue::Gauge(_) => 0,
                };
                format!("{}{{{}}} {value}", key.key().name(), labels.join(","))
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_call_is_one_count_and_one_duration() {
        let lines = measured(Provider::Gcp, |cloud| {
            cloud.survey(&scope()).now_or_never().unwrap().unwrap();
        });
        for line in [
            "netipallocation_cloud_api_requests_total{provider=gcp,operation=survey,outcome=success} 1",
            "netipallocation_cloud_api_duration_seconds{provider=gcp,operation=survey} 1",
            "netipallocation_gcp_api_duration_seconds{operation=survey} 1",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
        }
    }

    #[test]
    fn a_failed_call_says_its_kind() {
        let lines = measured(Provider::Gcp, |cloud| {
            let address = "203.0.113.7".parse().unwrap();
            cloud.find(&scope(), address).now_or_never().unwrap().unwrap_err();
        });
        for line in [
            "netipallocation_cloud_api_requests_total{provider=gcp,operation=find,outcome=error} 1",
            "netipallocation_cloud_api_errors_total{provider=gcp,operation=find,error_type=throttled} 1",
            "netipallocation_gcp_api_errors_total{operation=find,error_type=throttled} 1",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
        }
    }

    #[test]
    fn credentials_that_are_not_there_are_counted_although_no_call_is_made() {
        let lines = measured(Provider::Gcp, |_| {
            let error = CloudError::new(ErrorKind::Unauthenticated, "credentials", "there are none");
            connecting(Provider::Gcp, std::future::ready(Err::<(), _>(error))).now_or_never().unwrap().unwrap_err();
        });
        for line in [
            "netipallocation_cloud_api_requests_total{provider=gcp,operation=connect,outcome=error} 1",
            "netipallocation_cloud_api_errors_total{provider=gcp,operation=connect,error_type=unauthenticated} 1",
            "netipallocation_cloud_api_errors_total{provider=gcp,operation=connect,error_type=permission_denied} 0",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
        }
    }

    #[test]
    fn a_call_that_is_dropped_counts_as_abandoned() {
        let lines = measured(Provider::Gcp, |cloud| {
            let machine = ProviderId::new("gce://prod/us-west1-a/node-1");
            assert!(cloud.inspect(&machine).now_or_never().is_none());
        });
        let line = "netipallocation_cloud_api_requests_total{provider=gcp,operation=inspect,outcome=abandoned} 1";
        assert!(lines.iter().any(|found| found == line), "{lines:#?}");
    }

    #[test]
    fn every_error_is_born_at_zero_and_the_old_names_are_googles_alone() {
        let errors = |provider| -> Vec<String> {
            let lines = measured(provider, |_| {}).into_iter();
            lines.filter(|line| line.contains("_errors_total{")).collect()
        };
        let born = OPERATIONS.len() * ErrorKind::ALL.len();
        assert_eq!(errors(Provider::Gcp).len(), 2 * born);
        let aws = errors(Provider::Aws);
        assert_eq!(aws.len(), born);
        assert!(aws.iter().all(|line| line.ends_with(" 0") && !line.contains("_gcp_")), "{aws:#?}");
    }
}
