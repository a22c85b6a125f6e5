//! One change: let through by the gate, sent once, and waited for until the cloud says how it ended.

use std::time::Duration;

use azure_core::{
    Method, Request, Response,
    headers::{AZURE_ASYNCOPERATION, Headers, IF_MATCH},
};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{
    Azure, errors,
    ids::Id,
    interface::Document,
    read::{NETWORK_VERSION, SERVICE},
    transport::retry_after,
};
use crate::cloud::{CloudError, ErrorKind, Gate, Provider, request};

pub(super) const WRITE: &str = "networkInterfaces.createOrUpdate";
const POLL: &str = "locations.operations.get";

/// A change of an interface usually takes a few seconds.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LONGEST_POLL: Duration = Duration::from_secs(5);
/// The most that the cloud may ask us to wait before the next poll: nothing else comes of waiting.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What was asked how it went.
enum Asked {
    /// The operation, where the cloud named one.
    Operation(Url),
    /// The interface itself.
    Interface(Url),
}

impl Asked {
    /// The cloud's word for how it goes.
    fn state<'a>(&self, body: &'a Value) -> Option<&'a str> {
        let word = match self {
            Self::Operation(_) => body.get("status"),
            Self::Interface(_) => body.pointer("/properties/provisioningState"),
        };
        word?.as_str()
    }
}

/// How it went.
pub(super) enum Progress {
    Running,
    Ended(Result<(), CloudError>),
}

impl Azure {
    /// Writes the interface back with this public address, or with none, and waits for the end.
    ///
    /// # Errors
    /// Unsettled when it is not known how, or whether, the change ended.
    pub(super) async fn write(
        &self,
        document: &Document,
        address: Option<&Id>,
        gate: &dyn Gate,
    ) -> Result<(), CloudError> {
        let interface = &document.view.id;
        let body = document.with(address).ok_or_else(|| {
            let why = format!("network interface {} has no primary ip configuration for IPv4", interface.name());
            CloudError::new(ErrorKind::Unsupported, WRITE, why)
        })?;
        let url = self.url(interface.text(), NETWORK_VERSION);
        let mut request = Request::new(url.clone(), Method::Put);
        // If anybody has changed it since it was read, nothing happens.
        request.insert_header(IF_MATCH, document.etag.clone());
        request.set_json(&body).map_err(|error| errors::of_read(WRITE, &error))?;
        // So that nothing but the change itself happens behind the gate.
        self.in_time(WRITE, self.transport.token()).await?;
        gate.open_for(self.timeout).map_err(|closed| errors::not_sent(WRITE, &closed))?;
        let accepted = async {
            match tokio::time::timeout(self.timeout, self.send(request)).await {
                Ok(answer) => answer.map_err(|error| errors::of_change(WRITE, &error)),
                Err(_) => Err(errors::late(WRITE).unsettled()),
            }
        };
        let wait = async |accepted: Response| {
            let asked = match accepted.headers().get_optional_str(&AZURE_ASYNCOPERATION) {
                None => Asked::Interface(url),
                Some(link) => Asked::Operation(self.operation(link)?),
            };
            self.end(asked, first_pause(accepted.headers())).await
        };
        request::change(Provider::Azure, SERVICE, WRITE, accepted, wait).await
    }

    /// The link is followed with the token, so to our own endpoint alone.
    fn operation(&self, link: &str) -> Result<Url, CloudError> {
        match Url::parse(link) {
            Ok(url) if self.transport.is_home(&url) => Ok(url),
            Ok(url) => {
                let host = url.host_str().unwrap_or("nowhere");
                let why = format!("accepted, but its operation is on another host, {host}, which is not asked");
                Err(CloudError::new(ErrorKind::Unknown, WRITE, why).unsettled())
            }
            Err(_) => {
                let why = "accepted, but its operation has no address";
                Err(CloudError::new(ErrorKind::Unknown, WRITE, why).unsettled())
            }
        }
    }

    /// By our own loop: the SDK's has no deadline, and drops code and message of a failed operation.
    async fn end(&self, asked: Asked, mut pause: Duration) -> Result<(), CloudError> {
        let deadline = Instant::now() + self.operation_timeout;
        let mut rest = pause;
        loop {
            if Instant::now() + rest > deadline {
                let seconds = self.operation_timeout.as_secs();
                let why = format!("the change has not ended after {seconds} s");
                return Err(CloudError::new(ErrorKind::Timeout, WRITE, why).unsettled());
            }
            tokio::time::sleep(rest).await;
            pause = (pause * 2).min(LONGEST_POLL);
            rest = pause;
            match self.progress(&asked).await {
                Ok((Progress::Ended(result), _)) => return result,
                Ok((Progress::Running, asked_for)) => rest = pause.max(asked_for.min(LONGEST_REST)),
                Err(error) if passing(error.kind) => tracing::debug!(%error, "operation not polled, trying again"),
                // An operation that is not found says nothing about machine or address.
                Err(error) if error.kind == ErrorKind::NotFound => {
                    return Err(CloudError { kind: ErrorKind::Unknown, ..error }.unsettled());
                }
                Err(error) => return Err(error.unsettled()),
            }
        }
    }

    async fn progress(&self, asked: &Asked) -> Result<(Progress, Duration), CloudError> {
        let (Asked::Operation(url) | Asked::Interface(url)) = asked;
        let state = |(_, body): &(Headers, Value)| asked.state(body).map(str::to_owned);
        let look = self.in_time(POLL, self.json(url.clone()));
        let (headers, body) = request::poll(SERVICE, POLL, look, state).await?;
        let progress = match asked {
            Asked::Operation(_) => of_operation(&body),
            Asked::Interface(_) => of_interface(&body),
        };
        Ok((progress, retry_after(&headers).unwrap_or_default()))
    }
}

pub(super) fn first_pause(headers: &Headers) -> Duration {
    retry_after(headers).map_or(FIRST_POLL, |wait| wait.min(LONGEST_POLL))
}

pub(super) fn of_operation(body: &Value) -> Progress {
    let status = body.get("status").and_then(Value::as_str).unwrap_or_default();
    let said = |name: &str| body.get("error").and_then(|error| error.get(name)?.as_str());
    match status {
        "Succeeded" => Progress::Ended(Ok(())),
        "Failed" | "Canceled" => {
            let code = said("code").or_else(|| (status == "Canceled").then_some("OperationPreempted"));
            let text = said("message").unwrap_or("the operation has failed and does not say why");
            Progress::Ended(Err(errors::of_operation(WRITE, code, text)))
        }
        _ => Progress::Running,
    }
}

pub(super) fn of_interface(body: &Value) -> Progress {
    match body.pointer("/properties/provisioningState").and_then(Value::as_str) {
        Some("Succeeded") => Progress::Ended(Ok(())),
        Some("Failed") => {
            Progress::Ended(Err(errors::of_operation(WRITE, None, "the network interface says that the change failed")))
        }
        _ => Progress::Running,
    }
}

/// Worth asking again for, until the deadline.
fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Throttled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(progress: Progress) -> Option<Result<(), CloudError>> {
        match progress {
            Progress::Running => None,
            Progress::Ended(result) => Some(result),
        }
    }

    #[test]
    fn an_operation_runs_until_it_says_how_it_ended() {
        for running in ["InProgress", "Accepted", "NewWord"] {
            assert!(ended(of_operation(&json!({"status": running}))).is_none(), "{running}");
        }
        assert!(ended(of_operation(&json!({"status": "Succeeded"}))).unwrap().is_ok());
        let error = json!({"code": "PublicIPAddressInUse", "message": "by another"});
        let error = ended(of_operation(&json!({"status": "Failed", "error": error}))).unwrap().unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Conflict, true));
        assert_eq!(error.message, "PublicIPAddressInUse: by another");
        let error = ended(of_operation(&json!({"status": "Canceled"}))).unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }

    #[test]
    fn without_an_operation_the_interface_says_when_the_change_is_over() {
        let said = |state: &str| ended(of_interface(&json!({"properties": {"provisioningState": state}})));
        assert!(said("Updating").is_none());
        assert!(said("Succeeded").unwrap().is_ok());
        assert_eq!(said("Failed").unwrap().unwrap_err().kind, ErrorKind::Unknown);
    }
}
