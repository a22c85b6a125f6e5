//! Compute Engine's words for what goes wrong, at once and late.

use serde_json::{Value, json};

use crate::{
    simulator::wire::Reply,
    world::{Answer, Refusal},
};

/// An error answer: HTTP status, the classic reason, and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub status: u16,
    pub reason: String,
    pub message: String,
}

/// Why there is no well answer.
#[derive(Debug)]
pub(super) enum Failure {
    Trouble(Trouble),
    Silence,
    Closed,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure::Trouble(trouble)
    }
}

/// The world's answer as a result.
pub(super) fn given<T>(answer: Answer<T>) -> Result<T, Failure> {
    match answer {
        Answer::Given(given) => Ok(given),
        Answer::Refused(refusal) => Err(Failure::Trouble(Trouble::from(&refusal))),
        Answer::Silence => Err(Failure::Silence),
        Answer::Closed => Err(Failure::Closed),
    }
}

impl Trouble {
    pub fn new(status: u16, reason: &str, message: &str) -> Self {
        Self { status, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub fn no_such_method() -> Self {
        Self::new(404, "notFound", "the simulator does not serve this method")
    }

    fn invalid(field: &str, message: &str) -> Self {
        Self::new(400, "invalid", &format!("Invalid value for field '{field}': {message}"))
    }

    fn not_found(resource: &str) -> Self {
        Self::new(404, "notFound", &format!("The resource '{resource}' was not found"))
    }

    /// The classic body; like the real one it has a `status` only for some errors.
    pub fn reply(self) -> Reply {
        let domain = if self.reason == "rateLimitExceeded" { "usageLimits" } else { "global" };
        let mut error = json!({
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": domain, "reason": self.reason}],
        });
        let status = match self.status {
            401 => Some("UNAUTHENTICATED"),
            _ => None,
        };
        if let (Some(status), Some(error)) = (status, error.as_object_mut()) {
            error.insert("status".to_owned(), Value::from(status));
        }
        Reply::Json(self.status, json!({"error": error}))
    }
}

impl From<&Refusal> for Trouble {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::new(
                401,
                "authError",
                "Request had invalid authentication credentials. Expected OAuth 2 access token.",
            ),
            Refusal::Denied { permission, target } => {
                Self::new(403, "forbidden", &format!("Required '{permission}' permission for '{target}'"))
            }
            Refusal::Throttled => Self::new(
                403,
                "rateLimitExceeded",
                "Quota exceeded for quota group 'default' and limit 'Queries per minute' of service 'compute.googleapis.com'.",
            ),
            Refusal::NoSuchAccount(account) => Self::not_found(&format!("projects/{account}")),
            Refusal::NoSuchPlace { what, name } => Self::invalid(what, &format!("'{name}'. Unknown {what}.")),
            Refusal::NoSuchAddress { account, region, name } => {
                Self::not_found(&format!("projects/{account}/regions/{region}/addresses/{name}"))
            }
            Refusal::NoSuchMachine(key) => {
                Self::not_found(&format!("projects/{}/zones/{}/instances/{}", key.account, key.zone, key.name))
            }
            Refusal::NoSuchOperation { account, zone, name } => {
                Self::not_found(&format!("projects/{account}/zones/{zone}/operations/{name}"))
            }
            Refusal::SeatTaken => Self::new(400, "badRequest", "At most one access config currently supported."),
            Refusal::AddressNotInRegion { ip, region } => Self::invalid(
                "resource.natIP",
                &format!("'{ip}'. The specified external IP address '{ip}' was not found in region '{region}'."),
            ),
            Refusal::TierMismatch { address, wanted } => Self::invalid(
                "resource.networkTier",
                &format!(
                    "'{}'. The network tier of the specified external IP address is {}.",
                    wanted.as_str(),
                    address.as_str()
                ),
            ),
            Refusal::InUse { ip, by } => Self::new(
                400,
                "invalidResourceUsage",
                &format!("External IP address: {ip} is already in-use by '{by}'."),
            ),
            Refusal::NoSuchConfig { config } => {
                Self::invalid("accessConfig", &format!("'{config}'. The access config does not exist."))
            }
            Refusal::Malformed { field, message } => Self::invalid(field, message),
            Refusal::Scripted { status, reason, message } => Self::new(*status, reason, message),
        }
    }
}

/// The code of an operation that failed for this reason.
pub(super) fn operation_code(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::InUse { .. } => "IP_IN_USE_BY_ANOTHER_RESOURCE",
        Refusal::NoSuchMachine(_) | Refusal::NoSuchAddress { .. } => "RESOURCE_NOT_FOUND",
        Refusal::SeatTaken => "INVALID_USAGE",
        Refusal::Scripted { reason, .. } => reason,
        _ => "INVALID_FIELD_VALUE",
    }
}
