//! Which cluster this is, for traces: by convention the uid of its namespace kube-system.
//!
//! Asked beside the work. Nothing waits for the answer, and without it that one attribute is missing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use tokio::time::{sleep, timeout};

use crate::{lifecycle::backoff::Backoff, telemetry::traces::Tracer};

const NAMESPACE: &str = "kube-system";
/// For one answer.
const CALL: Duration = Duration::from_secs(10);

/// Asks until it is answered, and tells the tracer.
pub(super) async fn tell(client: Client, tracer: Tracer) {
    let namespaces: Api<Namespace> = Api::all(client);
    let mut attempts = 0;
    loop {
        match timeout(CALL, namespaces.get_metadata(NAMESPACE)).await {
            Ok(Ok(namespace)) => {
                if let Some(uid) = namespace.uid() {
                    tracer.in_cluster(uid);
                }
                return;
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() || status.is_not_found() => {
                let error = &status.message;
                tracing::warn!(error, "namespace kube-system cannot be read: spans do not say k8s.cluster.uid");
                return;
            }
            // Whoever cannot be reached now is complained of where it matters.
            Ok(Err(_)) | Err(_) => {
                attempts += 1;
                sleep(Backoff::TRANSIENT.delay(attempts, 0.0)).await;
            }
        }
    }
}
