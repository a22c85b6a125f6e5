//! EC2's words for what goes wrong.

use super::{Action, xml};
use crate::{
    simulator::wire::Reply,
    world::{Answer, Refusal},
};

/// An error answer: HTTP status, code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub status: u16,
    pub code: String,
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

/// A provider's own rule has been broken.
pub(super) fn refusal(code: &str, message: String) -> Refusal {
    Refusal::Scripted { status: 400, reason: code.to_owned(), message }
}

impl Trouble {
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned() }
    }

    pub fn no_such_action(action: &str) -> Self {
        Self::new(400, "InvalidAction", &format!("The action {action} is not served by the simulator"))
    }

    pub fn unknown_parameter(action: &Action, name: &str) -> Self {
        let message = format!("the simulator's {} does not know '{name}'", action.name);
        Self::new(400, "UnknownParameter", &message)
    }

    pub fn invalid(name: &str, value: &str) -> Self {
        Self::new(400, "InvalidParameterValue", &format!("Value ({value}) for parameter {name} is invalid."))
    }

    /// What a dry run comes to when all is well.
    pub fn dry_run() -> Self {
        Self::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }

    pub fn reply(self) -> Reply {
        Reply::Xml(self.status, xml::ec2_error(&self.code, &self.message))
    }
}

impl From<&Refusal> for Trouble {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => {
                Self::new(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
            }
            Refusal::Denied { permission, target } => Self::new(
                403,
                "UnauthorizedOperation",
                &format!(
                    "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/operator/simulated is not authorized to perform: {permission} on resource: {target} because no identity-based policy allows the {permission} action. Encoded authorization failure message: {}",
                    // As long as the real one; only somebody with another permission can read it.
                    "0123456789abcdefghijklmnopqrstuvwxyz_-".repeat(16)
                ),
            ),
            Refusal::Throttled => Self::new(503, "RequestLimitExceeded", "Request limit exceeded."),
            Refusal::NoSuchAccount(_) | Refusal::NoSuchPlace { .. } => Self::new(
                401,
                "AuthFailure",
                "AWS was not able to validate the provided access credentials: the region is not enabled for this account",
            ),
            Refusal::NoSuchAddress { name, .. } => {
                Self::new(400, "InvalidAllocationID.NotFound", &format!("The allocation ID '{name}' does not exist"))
            }
            Refusal::AddressNotInRegion { .. } => {
                Self::new(400, "InvalidAllocationID.NotFound", "The allocation ID does not exist")
            }
            Refusal::NoSuchMachine(key) => Self::new(
                400,
                "InvalidNetworkInterfaceID.NotFound",
                &format!("The networkInterface ID '{}' does not exist", key.name),
            ),
            Refusal::NoSuchConfig { config } => Self::new(
                400,
                "InvalidAssociationID.NotFound",
                &format!("The association ID '{config}' does not exist"),
            ),
            Refusal::InUse { ip, by } => Self::new(
                400,
                "Resource.AlreadyAssociated",
                &format!("resource {ip} is already associated with associate-id of {by}"),
            ),
            Refusal::SeatTaken => {
                Self::new(400, "InvalidParameterCombination", "The network interface has a public IPv4 address already")
            }
            Refusal::TierMismatch { .. } | Refusal::NoSuchOperation { .. } => {
                Self::new(500, "InternalError", "EC2 knows neither tiers nor operations")
            }
            Refusal::Malformed { field, message } => {
                Self::new(400, "InvalidParameterValue", &format!("{field}: {message}"))
            }
            Refusal::Scripted { status, reason, message } => Self::new(*status, reason, message),
        }
    }
}
