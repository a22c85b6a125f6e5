//! One change: let through by the gate, sent once, and waited for until the cloud says how it ended.

use std::{future::Future, time::Duration};

use google_cloud_compute_v1::model::{Operation, operation::Status};
use google_cloud_gax::{error::Error, options::RequestOptionsBuilder as _, retry_policy::NeverRetry};
use tokio::time::Instant;

use super::{Gcp, errors, read::SERVICE};
use crate::cloud::{CloudError, ErrorKind, Gate, Place, Provider, request};

const WAIT: &str = "zoneOperations.wait";

/// Two waits begin so far apart at least, where one ends early or fails; then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Gcp {
    /// Sends one change and waits for its end. The request must have been built with `NeverRetry`: the gate answers for
    /// one send (F1), so nothing may send a second time behind its back.
    ///
    /// Says which instance it has changed, by the number that no two have, where the cloud says so (`targetId`, Compute Engine API
    /// reference, zoneOperations). For the cloud takes a name, and another machine may have it by then.
    ///
    /// # Errors
    /// Unsettled when it is not known how, or whether, the change ended.
    pub(super) async fn change(
        &self,
        call: &'static str,
        place: &Place,
        gate: &dyn Gate,
        send: impl Future<Output = Result<Operation, Error>>,
    ) -> Result<Option<u64>, CloudError> {
        // Futures do nothing before they are awaited: nothing has left up to here, and giving up drops what has not.
        gate.open_for(self.timeout).map_err(|closed| errors::not_sent(call, &closed))?;
        let accepted = async {
            self.believed(match tokio::time::timeout(self.timeout, send).await {
                Ok(answer) => answer.map_err(|error| errors::of_change(call, &error)),
                Err(_) => Err(errors::late(call).unsettled()),
            })
        };
        request::change(Provider::Gcp, SERVICE, call, accepted, |accepted| async {
            let ended = self.end(call, place, accepted).await?;
            let target = ended.target_id;
            errors::of_operation(call, ended).map(|()| target)
        })
        .await
    }

    /// Waits until the operation is done, by `zoneOperations.wait`: it answers when the operation ends, or after two minutes at
    /// the latest (Compute Engine API reference), so the end is heard of at once and by one request. By our own loop, because
    /// the SDK's has no deadline and takes a failed operation for a success.
    async fn end(&self, call: &'static str, place: &Place, accepted: Operation) -> Result<Operation, CloudError> {
        let deadline = Instant::now() + self.operation_timeout;
        let mut pause = FIRST_PAUSE;
        let mut operation = accepted;
        while operation.status != Some(Status::Done) {
            let Some(name) = operation.name.clone() else {
                let error =
                    CloudError::new(ErrorKind::Unknown, call, "the cloud accepted it without naming an operation");
                return Err(error.unsettled());
            };
            let began = Instant::now();
            if began >= deadline {
                return Err(CloudError::new(
                    ErrorKind::Timeout,
                    call,
                    format!("operation {name} has not ended after {} s", self.operation_timeout.as_secs()),
                )
                .unsettled());
            }
            let wait = self.operations.wait().set_project(&place.account).set_zone(&place.zone).set_operation(name);
            let limit = self.timeout.min(deadline - began);
            let answer = async {
                match tokio::time::timeout(limit, wait.with_retry_policy(NeverRetry).send()).await {
                    Ok(answer) => answer.map_err(|error| errors::of_read(WAIT, &error)),
                    Err(_) => Err(errors::late(WAIT)),
                }
            };
            match request::poll(SERVICE, WAIT, answer, state).await {
                Ok(waited) => operation = waited,
                Err(error) if passing(error.kind) => {
                    tracing::debug!(%error, "the end of an operation was not heard of, waiting again")
                }
                Err(error) => return Err(error.unsettled()),
            }
            if operation.status != Some(Status::Done) {
                tokio::time::sleep_until((began + pause).min(deadline)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        Ok(operation)
    }
}

fn state(operation: &Operation) -> Option<String> {
    operation.status.as_ref().and_then(Status::name).map(str::to_owned)
}

/// Worth asking again for, until the deadline.
fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Throttled)
}
