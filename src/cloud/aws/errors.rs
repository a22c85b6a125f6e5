//! What went wrong, in the operator's closed list of kinds, and whether the matter is over.
//!
//! By EC2's own code first, the text second, and the HTTP status last: EC2 throttles with 503, and a proxy in between
//! answers without any code.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ConnectorError, ErrorMetadata, ProvideErrorMetadata, SdkError};

use crate::cloud::{Closed, CloudError, ErrorKind};

/// Longest message taken over from the cloud: it ends up in status and events.
const LONGEST: usize = 400;

/// A read that failed: whatever it was, nothing of ours is under way.
pub(super) fn of_read<E: ProvideErrorMetadata + Error + 'static>(
    call: &'static str,
    error: &SdkError<E>,
) -> CloudError {
    CloudError::new(kind(error), call, message(error))
}

/// A change that failed: over only if the cloud surely refused it, or if it surely never left.
pub(super) fn of_change<E: ProvideErrorMetadata + Error + 'static>(
    call: &'static str,
    error: &SdkError<E>,
) -> CloudError {
    let failed = of_read(call, error);
    if never_left(error) || refused(error) { failed } else { failed.unsettled() }
}

/// The credentials' own trouble.
pub(super) fn of_credentials(call: &'static str, error: &CredentialsError) -> CloudError {
    CloudError::new(credentials_kind(error), call, one_line(&format!("no credentials: {}", innermost(error))))
}

/// No answer within our own deadline.
pub(super) fn late(call: &'static str) -> CloudError {
    CloudError::new(ErrorKind::Timeout, call, "no answer in time")
}

/// The gate did not let a change leave.
pub(super) fn not_sent(call: &'static str, closed: &Closed) -> CloudError {
    CloudError::new(ErrorKind::Unavailable, call, closed.to_string())
}

fn kind<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> ErrorKind {
    if let Some(credentials) = find::<CredentialsError>(error) {
        return credentials_kind(credentials);
    }
    match error {
        SdkError::ConstructionFailure(_) => ErrorKind::Invalid,
        SdkError::TimeoutError(_) => ErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::Invalid,
        // A connection that ends without an answer is "other", and worth another try.
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.as_other().is_some() => ErrorKind::Unavailable,
        SdkError::DispatchFailure(_) => ErrorKind::Unknown,
        _ => classify(error.code(), http(error), error.message().unwrap_or_default()),
    }
}

/// The agent or the token service being away for a moment is no reason to send somebody to look at the credentials. No
/// answer at all is one: so ends the chain in a pod that has no role and cannot reach the instance metadata.
fn credentials_kind(error: &CredentialsError) -> ErrorKind {
    let away = |connector: &ConnectorError| connector.is_io() || connector.is_timeout();
    if find::<ConnectorError>(error).is_some_and(away) {
        return ErrorKind::Unavailable;
    }
    match find::<ErrorMetadata>(error).and_then(ErrorMetadata::code).and_then(by_code) {
        Some(passing @ (ErrorKind::Throttled | ErrorKind::Unavailable)) => passing,
        _ => ErrorKind::Unauthenticated,
    }
}

/// The table (`docs/aws.md`).
fn classify(code: Option<&str>, http: Option<u16>, text: &str) -> ErrorKind {
    if let Some(kind) = code.and_then(by_code) {
        return kind;
    }
    if code == Some("InvalidInstanceID") && text.to_ascii_lowercase().contains("state") {
        return ErrorKind::Unavailable;
    }
    match http {
        Some(401) => ErrorKind::Unauthenticated,
        Some(403) => ErrorKind::Denied,
        Some(404) => ErrorKind::NotFound,
        Some(408) => ErrorKind::Timeout,
        Some(409) => ErrorKind::Conflict,
        Some(429) => ErrorKind::Throttled,
        Some(400..=499) => ErrorKind::Invalid,
        Some(500..=599) => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    }
}

/// Codes that decide by themselves.
fn by_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "Resource.AlreadyAssociated" | "InvalidIPAddress.InUse" => ErrorKind::Conflict,
        "RequestLimitExceeded" | "EC2ThrottledException" | "TooManyRequestsException" | "SlowDown" => {
            ErrorKind::Throttled
        }
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "OptInRequired" | "Blocked" => {
            ErrorKind::Denied
        }
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidIdentityToken"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken" => ErrorKind::Unauthenticated,
        // On an instance or interface that a service manages.
        "OperationNotPermitted" | "UnsupportedOperation" | "Unsupported" => ErrorKind::Unsupported,
        "IncorrectInstanceState"
        | "IncorrectState"
        | "InternalError"
        | "InternalFailure"
        | "Unavailable"
        | "ServiceUnavailable" => ErrorKind::Unavailable,
        "RequestTimeout" => ErrorKind::Timeout,
        "Gateway.NotAttached" | "MissingParameter" => ErrorKind::Invalid,
        other if other.ends_with(".NotFound") => ErrorKind::NotFound,
        other if other.ends_with(".Malformed") || other.starts_with("InvalidParameter") => ErrorKind::Invalid,
        other if other.starts_with("Throttling") || other.starts_with("Throttled") => ErrorKind::Throttled,
        other if other.ends_with("LimitExceeded") => ErrorKind::Quota,
        _ => return None,
    })
}

/// Failed before a byte of the request left.
fn never_left<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(failure) => {
            failure.is_user() || find::<CredentialsError>(error).is_some() || not_connected(error)
        }
        _ => false,
    }
}

/// The HTTP client says so in words alone; words that are not known leave the matter open.
fn not_connected<E: Error + 'static>(error: &SdkError<E>) -> bool {
    chain(error).any(|source| {
        let text = source.to_string();
        text == "client error (Connect)" || text.starts_with("HTTP connect timeout occurred")
    })
}

/// The cloud itself said no. A 5xx or 408 may come from something before it, with the change under way behind; but a
/// throttled request was not looked at, whatever its status.
fn refused<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> bool {
    let throttled = error.code().and_then(by_code) == Some(ErrorKind::Throttled);
    throttled || http(error).is_some_and(|http| (400..500).contains(&http) && http != 408)
}

fn http<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// One line, without what only AWS can read.
fn message<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(credentials) = find::<CredentialsError>(error) {
        return one_line(&format!("no credentials: {}", innermost(credentials)));
    }
    match error {
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::ConstructionFailure(_) => one_line(&format!("not a request: {}", innermost(error))),
        SdkError::DispatchFailure(_) if not_connected(error) => {
            one_line(&format!("cannot connect: {}", innermost(error)))
        }
        SdkError::DispatchFailure(_) => one_line(&format!("connection lost: {}", innermost(error))),
        _ => match (error.code(), error.message(), http(error)) {
            (Some(code), Some(text), _) => one_line(&format!("{code}: {}", readable(text))),
            (Some(code), None, _) => one_line(code),
            (None, _, Some(http)) => format!("HTTP status {http}"),
            (None, _, None) => "unexpected answer".to_owned(),
        },
    }
}

/// A refusal ends in a long text that only `aws sts decode-authorization-message` can read.
fn readable(text: &str) -> &str {
    text.split("Encoded authorization failure message").next().unwrap_or(text).trim_end()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|source| source.downcast_ref())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// URLs may carry what is nobody's business.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split_whitespace().map(|word| if word.contains("://") { "(URL)" } else { word });
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::{config::http::HttpResponse, operation::associate_address::AssociateAddressError as Answer};

    use super::*;

    type Failure = SdkError<Answer, HttpResponse>;

    fn answer(http: u16, code: Option<&str>, text: &str) -> Failure {
        let raw = HttpResponse::new(http.try_into().unwrap(), "<html>".into());
        let mut meta = ErrorMetadata::builder().message(text);
        if let Some(code) = code {
            meta = meta.code(code);
        }
        SdkError::service_error(Answer::generic(meta.build()), raw)
    }

    fn dispatch(error: ConnectorError) -> Failure {
        SdkError::dispatch_failure(error)
    }

    fn without_credentials(error: CredentialsError) -> Failure {
        dispatch(ConnectorError::other(Box::new(error), None))
    }

    fn connect_error() -> Failure {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Connect(#[source] std::io::Error);
        dispatch(ConnectorError::io(Box::new(Connect(std::io::ErrorKind::ConnectionRefused.into()))))
    }

    #[test]
    fn answers_are_classified_by_code_then_text_then_status() {
        for (http, code, text, kind) in [
            (400, "InvalidAllocationID.NotFound", "", ErrorKind::NotFound),
            (400, "InvalidAddress.NotFound", "", ErrorKind::NotFound),
            (400, "InvalidAddressID.NotFound", "", ErrorKind::NotFound),
            (400, "InvalidAssociationID.NotFound", "", ErrorKind::NotFound),
            (400, "InvalidInstanceID.NotFound", "", ErrorKind::NotFound),
            (400, "InvalidNetworkInterfaceID.NotFound", "", ErrorKind::NotFound),
            (400, "Resource.AlreadyAssociated", "", ErrorKind::Conflict),
            (400, "InvalidIPAddress.InUse", "", ErrorKind::Conflict),
            (503, "RequestLimitExceeded", "", ErrorKind::Throttled),
            (400, "Throttling", "", ErrorKind::Throttled),
            (400, "ThrottlingException", "", ErrorKind::Throttled),
            (400, "EC2ThrottledException", "", ErrorKind::Throttled),
            (400, "TooManyRequestsException", "", ErrorKind::Throttled),
            (400, "AddressLimitExceeded", "", ErrorKind::Quota),
            (400, "NetworkInterfaceLimitExceeded", "", ErrorKind::Quota),
            (403, "UnauthorizedOperation", "", ErrorKind::Denied),
            (401, "OptInRequired", "", ErrorKind::Denied),
            (401, "AuthFailure", "", ErrorKind::Unauthenticated),
            (400, "ExpiredToken", "", ErrorKind::Unauthenticated),
            (400, "RequestExpired", "", ErrorKind::Unauthenticated),
            (403, "InvalidClientTokenId", "", ErrorKind::Unauthenticated),
            (400, "OperationNotPermitted", "", ErrorKind::Unsupported),
            (400, "IncorrectInstanceState", "", ErrorKind::Unavailable),
            (400, "IncorrectState", "", ErrorKind::Unavailable),
            (400, "InvalidInstanceID", "The instance is not in a valid state", ErrorKind::Unavailable),
            (400, "InvalidInstanceID", "There are multiple interfaces attached", ErrorKind::Invalid),
            (500, "InternalError", "", ErrorKind::Unavailable),
            (503, "Unavailable", "", ErrorKind::Unavailable),
            (400, "RequestTimeout", "", ErrorKind::Timeout),
            (400, "InvalidAllocationID.Malformed", "", ErrorKind::Invalid),
            (400, "InvalidParameterValue", "", ErrorKind::Invalid),
            (400, "InvalidParameterCombination", "", ErrorKind::Invalid),
            (400, "MissingParameter", "", ErrorKind::Invalid),
            (400, "Gateway.NotAttached", "", ErrorKind::Invalid),
            (400, "SomethingNew", "", ErrorKind::Invalid),
            (503, "SomethingNew", "", ErrorKind::Unavailable),
        ] {
            assert_eq!(of_read("t", &answer(http, Some(code), text)).kind, kind, "{http} {code} {text}");
        }
    }

    #[test]
    fn an_answer_that_is_not_ec2s_is_classified_by_its_status() {
        for (http, kind) in [
            (403, ErrorKind::Denied),
            (407, ErrorKind::Invalid),
            (429, ErrorKind::Throttled),
            (502, ErrorKind::Unavailable),
            (504, ErrorKind::Unavailable),
        ] {
            let error = of_read("t", &answer(http, None, "<html>"));
            assert_eq!((error.kind, error.message), (kind, format!("HTTP status {http}")));
        }
    }

    #[test]
    fn a_change_is_over_when_it_never_left_or_was_refused() {
        for over in [
            answer(400, Some("InvalidParameterValue"), ""),
            answer(403, Some("UnauthorizedOperation"), ""),
            answer(503, Some("RequestLimitExceeded"), ""),
            answer(400, Some("Resource.AlreadyAssociated"), ""),
            answer(403, None, ""),
            connect_error(),
            without_credentials(CredentialsError::not_loaded_no_source()),
            dispatch(ConnectorError::user("no such scheme".into())),
            Failure::construction_failure("no region"),
        ] {
            assert!(of_change("t", &over).settled, "{over:?}");
        }
        for open in [
            answer(500, Some("InternalError"), ""),
            answer(503, Some("Unavailable"), ""),
            answer(408, Some("RequestTimeout"), ""),
            answer(502, None, ""),
            Failure::timeout_error("late"),
            dispatch(ConnectorError::timeout("late".into())),
            dispatch(ConnectorError::io("reset by peer".into())),
            dispatch(ConnectorError::other("connection closed before message completed".into(), None)),
        ] {
            assert!(!of_change("t", &open).settled, "{open:?}");
            assert!(of_read("t", &open).settled, "a read leaves nothing under way: {open:?}");
        }
    }

    #[test]
    fn missing_credentials_are_told_from_a_source_that_is_away() {
        let away = ConnectorError::io("connection refused".into());
        for (error, kind) in [
            (CredentialsError::not_loaded("no providers in chain provided credentials"), ErrorKind::Unauthenticated),
            (CredentialsError::invalid_configuration("no role"), ErrorKind::Unauthenticated),
            (CredentialsError::provider_error("the token is refused"), ErrorKind::Unauthenticated),
            (CredentialsError::provider_error(away), ErrorKind::Unavailable),
            (CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)), ErrorKind::Unauthenticated),
            (
                CredentialsError::provider_error(ErrorMetadata::builder().code("Throttling").build()),
                ErrorKind::Throttled,
            ),
        ] {
            let error = of_read("t", &without_credentials(error));
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.starts_with("no credentials: "), "{error}");
        }
    }

    #[test]
    fn a_refusal_names_the_action_and_is_short() {
        let text = format!(
            "You are not authorized to perform this operation.\nUser: arn:aws:sts::1:assumed-role/operator/x is not authorized to perform: ec2:AssociateAddress on resource: eipalloc-1. Encoded authorization failure message: {}",
            "x".repeat(2000)
        );
        let error = of_change("t", &answer(403, Some("UnauthorizedOperation"), &text));
        assert!(error.message.contains("ec2:AssociateAddress on resource: eipalloc-1."), "{error}");
        assert!(!error.message.contains("xxx") && !error.message.contains('\n'), "{error}");
        let long = of_read("t", &answer(400, Some("SomethingNew"), &"x".repeat(1000)));
        assert_eq!(long.message.chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_message_carries_no_url() {
        assert_eq!(one_line("see http://169.254.170.23/v1?token=x\n now"), "see (URL) now");
    }
}
