//! What went wrong, in the operator's closed list of kinds, and whether the matter is over.
//!
//! By the service's own reason first and the HTTP status second: 403 is a missing permission, a rate limit or a quota.
//! `Status::code` says nothing here, Compute leaves out what it is made from.

use std::error::Error as _;

use google_cloud_compute_v1::{errors::OperationError, model::Operation};
use google_cloud_gax::error::{Error, rpc::StatusDetails};

use crate::cloud::{Closed, CloudError, ErrorKind, MachineId};

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

/// The machine that was meant is gone, and another has its name.
pub(super) fn another_life(call: &'static str, machine: &MachineId) -> CloudError {
    CloudError::new(ErrorKind::NotFound, call, format!("{machine} is gone; another machine has its name"))
}

/// An operation that has ended: its result. Both outcomes are final.
pub(super) fn of_operation(call: &'static str, operation: Operation) -> Result<(), CloudError> {
    let OperationError::Generic(failure) = (match operation.to_result() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    }) else {
        return Err(CloudError::new(ErrorKind::Unknown, call, "the operation failed"));
    };
    let errors = failure.details.map(|details| details.errors).unwrap_or_default();
    let codes: Vec<&str> = errors.iter().filter_map(|error| error.code.as_deref()).collect();
    let texts: Vec<&str> = errors.iter().filter_map(|error| error.message.as_deref()).collect();
    let text = match (texts.is_empty(), failure.message) {
        (true, Some(message)) => message,
        (true, None) => codes.join(", "),
        (false, _) => texts.join("; "),
    };
    let http = failure.status_code.and_then(|code| u16::try_from(code).ok());
    Err(CloudError::new(classify(http, &codes, &text), call, one_line(&text)))
}

fn kind(error: &Error) -> ErrorKind {
    if error.is_authentication() {
        // The metadata server being away for a moment is no reason to send somebody to look at the credentials.
        return match error.source().and_then(|source| source.downcast_ref()) {
            Some(credentials) if google_cloud_gax::error::CredentialsError::is_transient(credentials) => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Unauthenticated,
        };
    }
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    if error.is_connect() || error.is_io() || error.is_exhausted() {
        return ErrorKind::Unavailable;
    }
    if error.is_binding() || error.is_serialization() {
        return ErrorKind::Invalid;
    }
    let Some(http) = error.http_status_code() else {
        return ErrorKind::Unknown;
    };
    let Some(status) = error.status() else {
        return classify(Some(http), &[], "");
    };
    let reasons: Vec<&str> = status
        .details
        .iter()
        .filter_map(|detail| match detail {
            StatusDetails::ErrorInfo(info) => Some(info.reason.as_str()),
            _ => None,
        })
        .collect();
    classify(Some(http), &reasons, &status.message)
}

/// The table (`docs/gcp.md`): reasons of answers and codes of operations, then the text, then the HTTP status.
fn classify(http: Option<u16>, words: &[&str], text: &str) -> ErrorKind {
    if let Some(kind) = words.iter().find_map(|word| by_word(word)) {
        return kind;
    }
    let text = text.to_ascii_lowercase();
    if http == Some(412) && text.contains("constraints/") {
        return ErrorKind::Denied;
    }
    if text.contains("already in use") || text.contains("already in-use") || text.contains("at most one access config")
    {
        return ErrorKind::Conflict;
    }
    match http {
        Some(401) => ErrorKind::Unauthenticated,
        Some(403) => ErrorKind::Denied,
        Some(404) => ErrorKind::NotFound,
        Some(408) => ErrorKind::Timeout,
        Some(409) => ErrorKind::Conflict,
        // Another change came between read and write: read again.
        Some(412) => ErrorKind::Unavailable,
        Some(429) => ErrorKind::Throttled,
        Some(501) => ErrorKind::Unsupported,
        Some(400..=499) => ErrorKind::Invalid,
        Some(500..=599) => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    }
}

/// Words that decide by themselves. Answers spell them `notFound`, operations `NOT_FOUND`.
fn by_word(word: &str) -> Option<ErrorKind> {
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Some(match word.as_str() {
        "notfound" | "resourcenotfound" => ErrorKind::NotFound,
        "resourceinusebyanotherresource" | "ipinusebyanotherresource" | "alreadyexists" => ErrorKind::Conflict,
        "ratelimitexceeded" | "userratelimitexceeded" => ErrorKind::Throttled,
        "quotaexceeded" => ErrorKind::Quota,
        "forbidden" | "permissiondenied" | "iampermissiondenied" | "accessnotconfigured" => ErrorKind::Denied,
        "autherror" | "accesstokenexpired" | "unauthenticated" => ErrorKind::Unauthenticated,
        "resourcenotready" | "backenderror" | "internalerror" => ErrorKind::Unavailable,
        "unsupportedoperation" | "operationnotsupported" => ErrorKind::Unsupported,
        _ => return None,
    })
}

/// Failed before a byte of the request left.
fn never_left(error: &Error) -> bool {
    error.is_authentication() || error.is_connect() || error.is_binding() || error.is_serialization()
}

/// The cloud itself said no. A 5xx or 408 may come from something before it, with the change under way behind.
fn refused(error: &Error) -> bool {
    error.http_status_code().is_some_and(|http| (400..500).contains(&http) && http != 408)
}

/// One line, without the URL that an HTTP client puts into its own errors.
fn message(error: &Error) -> String {
    if let Some(status) = error.status() {
        return one_line(&status.message);
    }
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if let Some(http) = error.http_status_code() {
        return format!("HTTP status {http}");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let what = if error.is_authentication() {
        "no access token"
    } else if error.is_connect() {
        "cannot connect"
    } else if error.is_io() {
        "connection lost"
    } else {
        "unexpected answer"
    };
    one_line(&format!("{what}: {innermost}"))
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
    use google_cloud_compute_v1::model::operation::{Error as Failure, Status, error::Errors};
    use google_cloud_gax::error::CredentialsError;

    use super::*;

    /// As Compute answers: classic `errors` with reasons, no `status`.
    fn answer(http: u16, reason: &str, text: &str) -> Error {
        let body = serde_json::json!({"error": {
            "code": http, "message": text,
            "errors": [{"message": text, "domain": "usageLimits", "reason": reason}],
        }});
        let raw = Error::http(http, Default::default(), body.to_string().into_bytes().into());
        let status = google_cloud_gax::error::rpc::Status::try_from(raw.http_payload().unwrap());
        Error::service_with_http_metadata(status.unwrap(), Some(http), None)
    }

    fn done(code: &str, text: &str) -> Operation {
        Operation::new()
            .set_status(Status::Done)
            .set_http_error_status_code(400)
            .set_error(Failure::new().set_errors([Errors::new().set_code(code).set_message(text)]))
    }

    #[test]
    fn answers_are_classified_by_reason_then_text_then_status() {
        for (http, reason, text, kind) in [
            (404, "notFound", "The resource was not found", ErrorKind::NotFound),
            (400, "badRequest", "At most one access config currently supported", ErrorKind::Conflict),
            (400, "invalid", "External IP address is already in-use", ErrorKind::Conflict),
            (409, "conflict", "", ErrorKind::Conflict),
            (409, "alreadyExists", "", ErrorKind::Conflict),
            (403, "rateLimitExceeded", "Rate Limit Exceeded", ErrorKind::Throttled),
            (403, "userRateLimitExceeded", "", ErrorKind::Throttled),
            (429, "whatever", "", ErrorKind::Throttled),
            (403, "quotaExceeded", "Quota exceeded", ErrorKind::Quota),
            (403, "forbidden", "Required 'compute.addresses.use'", ErrorKind::Denied),
            (403, "somethingNew", "", ErrorKind::Denied),
            (401, "authError", "Invalid Credentials", ErrorKind::Unauthenticated),
            (412, "conditionNotMet", "Constraint constraints/compute.vmExternalIpAccess violated", ErrorKind::Denied),
            (412, "conditionNotMet", "Supplied fingerprint does not match", ErrorKind::Unavailable),
            (400, "resourceNotReady", "The resource is not ready", ErrorKind::Unavailable),
            (500, "internalError", "", ErrorKind::Unavailable),
            (503, "backendError", "", ErrorKind::Unavailable),
            (501, "whatever", "", ErrorKind::Unsupported),
            (400, "invalid", "'1.2.3.4' was not found in region", ErrorKind::Invalid),
            (400, "required", "", ErrorKind::Invalid),
        ] {
            let error = of_read("t", &answer(http, reason, text));
            assert_eq!(error.kind, kind, "{http} {reason} {text}");
        }
    }

    #[test]
    fn ended_operations_are_classified_by_code_and_are_over() {
        for (code, kind) in [
            ("RESOURCE_NOT_FOUND", ErrorKind::NotFound),
            ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", ErrorKind::Conflict),
            ("IP_IN_USE_BY_ANOTHER_RESOURCE", ErrorKind::Conflict),
            ("QUOTA_EXCEEDED", ErrorKind::Quota),
            ("RATE_LIMIT_EXCEEDED", ErrorKind::Throttled),
            ("RESOURCE_NOT_READY", ErrorKind::Unavailable),
            ("UNSUPPORTED_OPERATION", ErrorKind::Unsupported),
            ("PERMISSION_DENIED", ErrorKind::Denied),
            ("SOMETHING_NEW", ErrorKind::Invalid),
        ] {
            let error = of_operation("t", done(code, "why")).unwrap_err();
            assert_eq!((error.kind, error.settled), (kind, true), "{code}");
            assert_eq!(error.message, "why");
        }
        assert!(of_operation("t", Operation::new().set_status(Status::Done)).is_ok());
    }

    #[test]
    fn an_operation_may_fail_with_nothing_but_a_status() {
        let error = of_operation("t", Operation::new().set_http_error_status_code(503)).unwrap_err();
        assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true));
    }

    #[test]
    fn a_change_is_over_when_it_never_left_or_was_refused() {
        for over in [
            answer(400, "invalid", ""),
            answer(403, "forbidden", ""),
            answer(403, "rateLimitExceeded", ""),
            answer(404, "notFound", ""),
            answer(429, "", ""),
            Error::connect("connection refused"),
            Error::binding("no project"),
            Error::authentication(CredentialsError::from_msg(false, "no token")),
        ] {
            assert!(of_change("t", &over).settled, "{over:?}");
        }
        for open in [
            Error::timeout("late"),
            Error::io("reset by peer"),
            Error::deser("not JSON"),
            answer(408, "", ""),
            answer(500, "internalError", ""),
            answer(502, "", ""),
            answer(503, "backendError", ""),
        ] {
            assert!(!of_change("t", &open).settled, "{open:?}");
            assert!(of_read("t", &open).settled, "a read leaves nothing under way: {open:?}");
        }
    }

    #[test]
    fn what_fails_without_an_answer_has_a_kind_too() {
        for (error, kind) in [
            (Error::timeout("late"), ErrorKind::Timeout),
            (Error::io("reset by peer"), ErrorKind::Unavailable),
            (Error::connect("refused"), ErrorKind::Unavailable),
            (Error::exhausted("gave up"), ErrorKind::Unavailable),
            (Error::binding("no project"), ErrorKind::Invalid),
            (Error::deser("not JSON"), ErrorKind::Unknown),
            (Error::authentication(CredentialsError::from_msg(false, "no token")), ErrorKind::Unauthenticated),
            (Error::authentication(CredentialsError::from_msg(true, "metadata server away")), ErrorKind::Unavailable),
        ] {
            assert_eq!(of_read("t", &error).kind, kind, "{error:?}");
        }
        let proxy = Error::http(502, Default::default(), b"<html>".to_vec().into());
        let error = of_read("t", &proxy);
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "HTTP status 502"));
    }

    #[test]
    fn a_message_is_one_short_line() {
        let text = format!("first\nsecond {}", "x".repeat(1000));
        let error = of_read("t", &answer(400, "invalid", &text));
        assert!(error.message.starts_with("first second x"));
        assert_eq!(error.message.chars().count(), LONGEST + 1);
    }
}
