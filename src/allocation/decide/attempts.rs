//! Intents and their attempts: what is sent, again, and not before its time (F2, F5, F9, P11).

use std::time::Duration;

use super::{
    Decision, Effect, Note, SOON,
    facts::{Entry, Facts, Failure, Operation, OperationKind},
    state::Reason,
    story, until, wait,
};
use crate::cloud::ErrorKind;

pub(super) fn intent(kind: OperationKind, attempts: u32, facts: &Facts) -> Operation {
    Operation {
        id: facts.fresh.id,
        kind,
        start: facts.now,
        send_before: facts.fresh.send_before,
        attempts,
        traceparent: Some(facts.fresh.traceparent()),
    }
}

/// The last attempt, where it failed and the next one is not due.
fn pending(facts: &Facts) -> Option<&Failure> {
    facts.failure.as_ref().filter(|failure| facts.now < failure.retry)
}

/// The same of an attempt at the cloud: the reason and the sentence for it.
pub(super) fn failed(facts: &Facts) -> Option<(Reason, String, Duration)> {
    let failure = pending(facts)?;
    let reason = match failure.kind {
        ErrorKind::Denied | ErrorKind::Unauthenticated => Reason::Denied,
        ErrorKind::Quota => Reason::QuotaExceeded,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Throttled
        | ErrorKind::Unsupported
        | ErrorKind::Invalid
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => Reason::Retrying,
    };
    let message = format!(
        "attempt {} failed: {}; {}; next attempt at {}",
        failure.attempts,
        failure.message,
        failure.kind.remedy(),
        story::clock(failure.retry)
    );
    Some((reason, message, until(failure.retry, facts.now)))
}

/// The open intent once more: at once while it may be sent, under a new id once it is spent (F5, F9).
pub(super) fn again(
    entry: &Entry,
    operation: &Operation,
    facts: &Facts,
    perform: impl FnOnce() -> Decision,
) -> Decision {
    if !facts.permit {
        return wait(entry.reason, "waits for its turn at the cloud's rate limit", SOON);
    }
    if spent(operation, facts) || (facts.now >= operation.send_before && !facts.is_fresh(operation)) {
        let renewed = Operation {
            start: operation.start,
            traceparent: operation.traceparent.clone(),
            ..intent(operation.kind, operation.attempts.saturating_add(1), facts)
        };
        return Decision::Renew { note: Note::Again { operation: renewed } };
    }
    perform()
}

/// Whether an effect of this operation has ended: the fact is about the one that stood in the entry before this pass.
pub(super) fn spent(operation: &Operation, facts: &Facts) -> bool {
    facts.operation_spent && !facts.is_fresh(operation)
}

/// A deed on the node or its pods, unless the last one failed and the next attempt is not due (P11).
pub(super) fn deed(effect: Effect, reason: Reason, message: String, facts: &Facts) -> Decision {
    match pending(facts) {
        Some(failure) => {
            let (attempts, again) = (failure.attempts, story::clock(failure.retry));
            let message = format!("attempt {attempts} failed: {}; next attempt at {again}", failure.message);
            wait(reason, message, until(failure.retry, facts.now))
        }
        None => Decision::Perform { effect, reason, message },
    }
}
