//! The only teller: status first, by compare-and-swap; then, of what is durable, metrics, events and spans.

pub mod audience;
pub mod cadence;
pub mod conditions;
pub mod events;
pub mod news;
mod note;
pub mod reasons;
pub mod request;
pub mod spans;
pub mod tell;

use std::{sync::Arc, time::Duration};

use kube::{Api, ResourceExt, api::PostParams};
use tokio::time::timeout;

use super::ledger::{Ledger, ReadError};
use crate::{
    api::{NetIPAllocation, NetIPAllocationStatus},
    cloud::Gate,
    metrics::{self, WriteFailure},
};

/// How a status write ended.
#[derive(Debug)]
pub enum Written {
    /// It stands, in this version.
    Yes(Arc<NetIPAllocation>),
    /// It does not, or that cannot be told: decide anew on a live read (F4). The text says why.
    No(String),
}

/// Writes the status onto the very version that was decided on.
///
/// Refused by the gate: nothing is sent. Refused by the server or unanswered: the object is read live, so that the next
/// pass acts on what is true. Where only the answer was lost, and what was sent is read there, the write did happen: what
/// it made durable is told like any other.
pub async fn write(
    api: &Api<NetIPAllocation>,
    ledger: &Ledger,
    gate: &dyn Gate,
    limit: Duration,
    decided_on: &NetIPAllocation,
    status: NetIPAllocationStatus,
) -> Written {
    let name = decided_on.name_any();
    if let Err(closed) = gate.open_for(limit) {
        return Written::No(closed.to_string());
    }
    let mut next = decided_on.clone();
    next.metadata.managed_fields = None;
    next.status = Some(status);
    let (failure, why) = match timeout(limit, api.replace_status(&name, &PostParams::default(), &next)).await {
        Ok(Ok(stored)) => return Written::Yes(ledger.put(stored)),
        Ok(Err(error)) => (kind(&error), error.to_string()),
        Err(_) => (WriteFailure::Timeout, "no answer in time".to_owned()),
    };
    metrics::status_write_failed(&name, failure);
    if failure != WriteFailure::Conflict {
        tracing::warn!(crd = name, error = why, "status write failed");
    }
    match ledger.reread(&name).await {
        Ok(Some(live)) if stands(failure, &next, &live) => Written::Yes(live),
        Ok(_) => Written::No(why),
        Err(ReadError::Undecodable(invalid)) => Written::No(invalid),
        Err(error) => {
            // What stands is not known: the version decided on must not be acted on again.
            ledger.forget(&name);
            Written::No(format!("{why}; {error}"))
        }
    }
}

/// Whether a status that was `sent`, and failed so, stands nevertheless, by what was read live afterwards (F4): only the answer
/// was lost, and object, spec and status are those that were sent. The spec, too: what is done next depends on it.
pub fn stands(failure: WriteFailure, sent: &NetIPAllocation, live: &NetIPAllocation) -> bool {
    failure.is_unanswered()
        && live.uid() == sent.uid()
        && live.metadata.generation == sent.metadata.generation
        && live.status == sent.status
}

fn kind(error: &kube::Error) -> WriteFailure {
    match error {
        kube::Error::Api(status) if status.is_conflict() => WriteFailure::Conflict,
        kube::Error::Api(status) if status.is_forbidden() => WriteFailure::Forbidden,
        kube::Error::Api(status) if status.is_invalid() => WriteFailure::Invalid,
        kube::Error::Api(status) if status.code == 413 || status.message.contains("too large") => {
            WriteFailure::TooLarge
        }
        _ => WriteFailure::Unavailable,
    }
}

#[cfg(test)]
mod tests;
