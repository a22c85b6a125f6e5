//! One change: let through by the gate, sent once, and waited for until the cloud says how it ended.

use std::{future::Future, time::Duration};

use google_cloud_compute_v1::model::{Operation, operation::Status};
use google_cloud_gax::error::Error;
use tokio::time::Instant;

use super::{Gcp, errors, read::SERVICE};
use crate::cloud::{CloudError, ErrorKind, Gate, Place, Provider, request};

const POLL: &str = "zoneOperations.get";

/// A change of an access config usually takes a second or two.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LONGEST_POLL: Duration = Duration::from_secs(5);

impl Gcp {
    /// Sends one change and waits for its end. The request must have been built with `NeverRetry`: the gate answers for
    /// one send (F1), so nothing may send a second time behind its back.
    ///
    /// # Errors
    /// Unsettled when it is not known how, or whether, the change ended.
    pub(super) async fn change(
        &self,
        call: &'static str,
        place: &Place,
        gate: &dyn Gate,
        send: impl Future<Output = Result<Operation, Error>>,
    ) -> Result<(), CloudError> {
        // Futures do nothing before they are awaited: nothing has left up to here, and giving up drops what has not.
        gate.open_for(self.timeout).map_err(|closed| errors::not_sent(call, &closed))?;
        let accepted = async {
            match tokio::time::timeout(self.timeout, send).await {
                Ok(answer) => answer.map_err(|error| errors::of_change(call, &error)),
                Err(_) => Err(errors::late(call).unsettled()),
            }
        };
        request::change(Provider::Gcp, SERVICE, call, accepted, |accepted| self.end(call, place, accepted)).await
    }

    /// Polls until the operation is done: by our own loop, because the SDK's has no deadline and takes a failed
    /// operation for a success.
    async fn end(&self, call: &'static str, place: &Place, accepted: Operation) -> Result<(), CloudError> {
        let deadline = Instant::now() + self.operation_timeout;
        let mut pause = FIRST_POLL;
        let mut operation = accepted;
        while operation.status != Some(Status::Done) {
            let Some(name) = operation.name.clone() else {
                let error =
                    CloudError::new(ErrorKind::Unknown, call, "the cloud accepted it without naming an operation");
                return Err(error.unsettled());
            };
            if Instant::now() + pause > deadline {
                return Err(CloudError::new(
                    ErrorKind::Timeout,
                    call,
                    format!("operation {name} has not ended after {} s", self.operation_timeout.as_secs()),
                )
                .unsettled());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
            let get = self.operations.get().set_project(&place.account).set_zone(&place.zone).set_operation(name);
            match request::poll(SERVICE, POLL, self.in_time(POLL, get.send()), state).await {
                Ok(polled) => operation = polled,
                Err(error) if passing(error.kind) => {
                    tracing::debug!(%error, "operation not polled, trying again")
                }
                Err(error) => return Err(error.unsettled()),
            }
        }
        errors::of_operation(call, operation)
    }
}

fn state(operation: &Operation) -> Option<String> {
    operation.status.as_ref().and_then(Status::name).map(str::to_owned)
}

/// Worth asking again for, until the deadline.
fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Throttled)
}
