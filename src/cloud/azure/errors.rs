//! What went wrong, in the operator's closed list of kinds, and whether the matter is over.
//!
//! By the cloud's own code first and the HTTP status second: 429 is a rate limit or a thing that is not ready yet, 409 is
//! a lock that a person has set or another change under way. A 404 without a code that Azure Resource Manager gives to a
//! missing thing proves nothing: a wrong endpoint or a proxy says 404 of every machine.

use azure_core::error::{Error, ErrorKind as Sort};

use super::transport::{Elsewhere, Refused, find};
use crate::cloud::{Closed, CloudError, ErrorKind};

/// Longest message taken over from the cloud: it ends up in status and events.
const LONGEST: usize = 400;

/// A read that failed: whatever it was, nothing of ours is under way.
pub(super) fn of_read(call: &'static str, error: &Error) -> CloudError {
    CloudError::new(kind(error), call, message(error))
}

/// A change that failed: over only if the cloud surely refused it, or if it surely never left.
pub(super) fn of_change(call: &'static str, error: &Error) -> CloudError {
    let failed = of_read(call, error);
    if never_left(error) || refused(error) { failed } else { failed.unsettled() }
}

/// No answer within our own deadline.
pub(super) fn late(call: &'static str) -> CloudError {
    CloudError::new(ErrorKind::Timeout, call, "no answer in time")
}

/// The gate did not let a change leave.
pub(super) fn not_sent(call: &'static str, closed: &Closed) -> CloudError {
    CloudError::new(ErrorKind::Unavailable, call, closed.to_string())
}

/// An operation that has ended badly, by what it says of itself. Final.
pub(super) fn of_operation(call: &'static str, code: Option<&str>, text: &str) -> CloudError {
    let kind = code.map_or(ErrorKind::Unknown, |code| by_code(code).unwrap_or(ErrorKind::Invalid));
    CloudError::new(kind, call, told(code, text))
}

fn kind(error: &Error) -> ErrorKind {
    let credentials = matches!(error.kind(), Sort::Credential);
    if let Some(refused) = find::<Refused>(error) {
        return if credentials { of_token(refused) } else { classify(refused) };
    }
    if let Some(sent) = find::<reqwest_for_azure::Error>(error) {
        return match sent {
            late if late.is_timeout() && !late.is_connect() => ErrorKind::Timeout,
            wrong if wrong.is_builder() => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
    }
    match error.kind() {
        Sort::Credential => ErrorKind::Unauthenticated,
        Sort::Io => ErrorKind::Unavailable,
        Sort::HttpResponse { .. } | Sort::DataConversion | Sort::MockFramework | Sort::Other => ErrorKind::Unknown,
    }
}

/// The source of tokens being away for a moment is no reason to send somebody to look at the credentials.
fn of_token(refused: &Refused) -> ErrorKind {
    match refused.status {
        408 | 410 | 500..=599 => ErrorKind::Unavailable,
        429 => ErrorKind::Throttled,
        _ => ErrorKind::Unauthenticated,
    }
}

/// The table (`docs/azure.md`): the code, then the codes of its details, then the HTTP status.
fn classify(refused: &Refused) -> ErrorKind {
    let codes = refused.code.iter().chain(&refused.details);
    if let Some(kind) = codes.filter_map(|code| by_code(code)).next() {
        return kind;
    }
    match refused.status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Denied,
        // See the top of this file.
        404 => ErrorKind::Unknown,
        408 => ErrorKind::Timeout,
        // Another change is under way, or came between read and write: read again.
        409 | 412 => ErrorKind::Unavailable,
        429 => ErrorKind::Throttled,
        501 => ErrorKind::Unsupported,
        400..=499 => ErrorKind::Invalid,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    }
}

/// Codes that decide by themselves.
fn by_code(code: &str) -> Option<ErrorKind> {
    let code = code.to_ascii_lowercase();
    Some(match code.as_str() {
        // Not "gone": the credentials do not see the subscription.
        "subscriptionnotfound" => ErrorKind::Denied,
        "resourcenotfound"
        | "notfound"
        | "resourcegroupnotfound"
        | "parentresourcenotfound"
        | "invalidresourcereference" => ErrorKind::NotFound,
        "publicipaddressinuse" => ErrorKind::Conflict,
        "retryableerror"
        | "referencedresourcenotprovisioned"
        | "anotheroperationinprogress"
        | "operationpreempted"
        | "canceledandsupersededduetoanotheroperation"
        | "preconditionfailed"
        | "internalservererror"
        | "serverunavailable" => ErrorKind::Unavailable,
        "toomanyrequests" | "subscriptionrequeststhrottled" => ErrorKind::Throttled,
        "authorizationfailed"
        | "linkedauthorizationfailed"
        | "requestdisallowedbypolicy"
        | "scopelocked"
        | "denyassignmentauthorizationfailed"
        | "readonlydisabledsubscription" => ErrorKind::Denied,
        "invalidauthenticationtoken"
        | "invalidauthenticationtokentenant"
        | "expiredauthenticationtoken"
        | "authenticationfailed" => ErrorKind::Unauthenticated,
        "publicipcountlimitreached" | "quotaexceeded" => ErrorKind::Quota,
        // A machine that is being deleted, for example.
        "operationnotallowed" => ErrorKind::Invalid,
        _ => return None,
    })
}

/// Failed before a byte of the request left.
fn never_left(error: &Error) -> bool {
    matches!(error.kind(), Sort::Credential)
        || find::<Elsewhere>(error).is_some()
        || find::<reqwest_for_azure::Error>(error).is_some_and(|error| error.is_connect() || error.is_builder())
}

/// The cloud itself said no. A 5xx or 408 may come from something before it, with the change under way behind.
fn refused(error: &Error) -> bool {
    find::<Refused>(error).is_some_and(|refused| (400..500).contains(&refused.status) && refused.status != 408)
}

/// Never an error's own text where that holds a URL or a body.
fn message(error: &Error) -> String {
    let of = if matches!(error.kind(), Sort::Credential) { "no token: " } else { "" };
    if let Some(refused) = find::<Refused>(error) {
        let text = match (refused.message.as_str(), refused.code.as_deref()) {
            ("", None) => format!("HTTP status {}", refused.status),
            (text, code) => told(code, text),
        };
        let wait = refused.retry_after.filter(|_| refused.status == 429);
        let wait = wait.map(|wait| format!(" (the cloud asks for {} s of rest)", wait.as_secs())).unwrap_or_default();
        return one_line(&format!("{of}{text}{wait}"));
    }
    if let Some(elsewhere) = find::<Elsewhere>(error) {
        return elsewhere.to_string();
    }
    if let Some(sent) = find::<reqwest_for_azure::Error>(error) {
        let what = match sent {
            error if error.is_connect() => "cannot connect",
            error if error.is_timeout() => "no answer in time",
            _ => "connection lost",
        };
        return format!("{of}{what}");
    }
    match error.kind() {
        // Of our own making: a file that is not there, an answer without a token.
        Sort::Credential => one_line(&format!("{of}{}", innermost(error))),
        Sort::DataConversion => one_line(&format!("unexpected answer: {}", innermost(error))),
        Sort::HttpResponse { status, .. } => format!("unexpected HTTP status {}", u16::from(*status)),
        Sort::Io => "connection lost".to_owned(),
        Sort::MockFramework | Sort::Other => "unexpected failure of the client".to_owned(),
    }
}

fn innermost(error: &Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn told(code: Option<&str>, text: &str) -> String {
    let text = match code {
        Some(code) if text.is_empty() => code.to_owned(),
        Some(code) => format!("{code}: {text}"),
        None => text.to_owned(),
    };
    one_line(&text)
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use azure_core::{StatusCode, headers::Headers};
    use serde_json::json;

    use super::*;

    fn answer(status: u16, code: &str, text: &str) -> Error {
        from(status, &json!({"error": {"code": code, "message": text}}).to_string())
    }

    fn from(status: u16, body: &str) -> Error {
        let refused = Refused::read(status, &Headers::new(), body.as_bytes());
        let status = StatusCode::try_from(status).unwrap();
        Error::new(Sort::HttpResponse { status, error_code: None }, refused)
    }

    fn token(status: u16, body: &str) -> Error {
        Error::new(Sort::Credential, from(status, body))
    }

    #[test]
    fn answers_are_classified_by_code_then_status() {
        for (status, code, kind) in [
            (404, "ResourceNotFound", ErrorKind::NotFound),
            (404, "NotFound", ErrorKind::NotFound),
            (404, "ResourceGroupNotFound", ErrorKind::NotFound),
            (400, "InvalidResourceReference", ErrorKind::NotFound),
            (404, "SubscriptionNotFound", ErrorKind::Denied),
            (404, "MissingSubscription", ErrorKind::Unknown),
            (400, "PublicIPAddressInUse", ErrorKind::Conflict),
            (429, "RetryableError", ErrorKind::Unavailable),
            (429, "ReferencedResourceNotProvisioned", ErrorKind::Unavailable),
            (409, "AnotherOperationInProgress", ErrorKind::Unavailable),
            (409, "OperationPreempted", ErrorKind::Unavailable),
            (409, "CanceledAndSupersededDueToAnotherOperation", ErrorKind::Unavailable),
            (409, "Whatever", ErrorKind::Unavailable),
            (412, "PreconditionFailed", ErrorKind::Unavailable),
            (429, "TooManyRequests", ErrorKind::Throttled),
            (429, "SubscriptionRequestsThrottled", ErrorKind::Throttled),
            (429, "OperationNotKnown", ErrorKind::Throttled),
            (403, "AuthorizationFailed", ErrorKind::Denied),
            (403, "LinkedAuthorizationFailed", ErrorKind::Denied),
            (403, "RequestDisallowedByPolicy", ErrorKind::Denied),
            (409, "ScopeLocked", ErrorKind::Denied),
            (403, "", ErrorKind::Denied),
            (401, "ExpiredAuthenticationToken", ErrorKind::Unauthenticated),
            (401, "", ErrorKind::Unauthenticated),
            (400, "PublicIPCountLimitReached", ErrorKind::Quota),
            (409, "QuotaExceeded", ErrorKind::Quota),
            (400, "DifferentSkuLoadBalancersAndPublicIPAddressNotAllowed", ErrorKind::Invalid),
            (400, "ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint", ErrorKind::Invalid),
            (400, "OperationNotAllowed", ErrorKind::Invalid),
            (409, "OperationNotAllowed", ErrorKind::Invalid),
            (408, "", ErrorKind::Timeout),
            (500, "InternalServerError", ErrorKind::Unavailable),
            (503, "", ErrorKind::Unavailable),
            (501, "", ErrorKind::Unsupported),
        ] {
            assert_eq!(of_read("t", &answer(status, code, "")).kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn a_404_that_is_not_azure_resource_managers_proves_nothing() {
        let error = of_read("t", &from(404, "<html>not here</html>"));
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unknown, "HTTP status 404"));
    }

    #[test]
    fn the_codes_of_details_count_where_the_code_says_nothing() {
        let body = json!({"error": {"code": "InvalidRequest", "details": [{"code": "PublicIPAddressInUse"}]}});
        assert_eq!(of_read("t", &from(400, &body.to_string())).kind, ErrorKind::Conflict);
    }

    #[test]
    fn a_token_that_is_refused_is_a_matter_of_credentials_and_an_absent_server_is_not() {
        let expired = json!({"error": "invalid_client", "error_description": "AADSTS700024: Client assertion is not within its valid time range.\r\nTrace ID: 1"});
        let error = of_change("t", &token(401, &expired.to_string()));
        assert_eq!((error.kind, error.settled), (ErrorKind::Unauthenticated, true));
        assert!(error.message.starts_with("no token: invalid_client: AADSTS700024: Client"), "{error}");
        for (status, kind) in
            [(400, ErrorKind::Unauthenticated), (429, ErrorKind::Throttled), (503, ErrorKind::Unavailable)]
        {
            assert_eq!(of_read("t", &token(status, "{}")).kind, kind, "{status}");
        }
    }

    #[test]
    fn a_change_is_over_when_it_never_left_or_was_refused() {
        for over in [
            answer(400, "PublicIPAddressInUse", ""),
            answer(403, "AuthorizationFailed", ""),
            answer(404, "ResourceNotFound", ""),
            answer(409, "AnotherOperationInProgress", ""),
            answer(412, "PreconditionFailed", ""),
            answer(429, "RetryableError", ""),
            token(503, "{}"),
        ] {
            assert!(of_change("t", &over).settled, "{over:?}");
        }
        for open in [
            answer(408, "", ""),
            answer(500, "InternalServerError", ""),
            answer(502, "", ""),
            answer(503, "", ""),
            Error::message(Sort::Io, "reset by peer"),
            Error::message(Sort::DataConversion, "not JSON"),
        ] {
            assert!(!of_change("t", &open).settled, "{open:?}");
            assert!(of_read("t", &open).settled, "a read leaves nothing under way: {open:?}");
        }
    }

    #[test]
    fn an_operation_keeps_its_code_and_its_message() {
        for (code, kind) in [
            (Some("PublicIPAddressInUse"), ErrorKind::Conflict),
            (Some("PublicIPCountLimitReached"), ErrorKind::Quota),
            (Some("RetryableError"), ErrorKind::Unavailable),
            (Some("OperationNotAllowed"), ErrorKind::Invalid),
            (None, ErrorKind::Unknown),
        ] {
            let error = of_operation("t", code, "VM is marked for deletion");
            assert_eq!((error.kind, error.settled), (kind, true), "{code:?}");
            assert!(error.message.ends_with("VM is marked for deletion"), "{error}");
            assert!(code.is_none_or(|code| error.message.starts_with(code)), "{error}");
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        let error = of_read("t", &answer(400, "X", &format!("first\nsecond {}", "x".repeat(1000))));
        assert!(error.message.starts_with("X: first second x"));
        assert_eq!(error.message.chars().count(), LONGEST + 1);
    }
}
