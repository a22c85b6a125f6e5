//! Azure's words for what goes wrong, at once and late.

use serde_json::{Value, json};

use crate::{
    simulator::wire::Reply,
    world::{Answer, Refusal},
};

/// What the cloud asks for with a 429; far more than anybody should wait.
const REST: &str = "600";

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

impl Trouble {
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned() }
    }

    /// As the world refuses: for checks at the moment of acceptance.
    pub fn refusal(self) -> Refusal {
        Refusal::Scripted { status: self.status, reason: self.code, message: self.message }
    }

    pub fn body(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }

    pub fn reply(self) -> Reply {
        let headers = if self.status == 429 { vec![("retry-after", REST.to_owned())] } else { Vec::new() };
        let body = json!({"error": self.body()});
        Reply::With(self.status, headers, body)
    }

    pub fn not_found(what: &str, group: &str) -> Self {
        let message = format!("The Resource '{what}' under resource group '{group}' was not found.");
        Self::new(404, "ResourceNotFound", &message)
    }

    pub fn no_such_group(group: &str) -> Self {
        Self::new(404, "ResourceGroupNotFound", &format!("Resource group '{group}' could not be found."))
    }
}

impl From<&Refusal> for Trouble {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => {
                Self::new(401, "InvalidAuthenticationToken", "The access token is missing, invalid or has expired.")
            }
            Refusal::Denied { permission, target } if permission.contains("/join") => Self::new(
                403,
                "LinkedAuthorizationFailed",
                &format!(
                    "The client has permission to perform action 'Microsoft.Network/networkInterfaces/write' on scope '{target}', however, it does not have permission to perform action(s) '{permission}' on the linked scope(s)."
                ),
            ),
            Refusal::Denied { permission, target } => Self::new(
                403,
                "AuthorizationFailed",
                &format!(
                    "The client 'simulated' does not have authorization to perform action '{permission}' over scope '{target}' or the scope is invalid."
                ),
            ),
            Refusal::Throttled => {
                Self::new(429, "TooManyRequests", "The request is being throttled as the limit has been reached.")
            }
            Refusal::NoSuchAccount(account) => {
                Self::new(404, "SubscriptionNotFound", &format!("The subscription '{account}' could not be found."))
            }
            Refusal::NoSuchPlace { name, .. } => Self::new(
                400,
                "LocationNotAvailableForResourceType",
                &format!("The provided location '{name}' is not available."),
            ),
            Refusal::NoSuchAddress { name, .. } => {
                Self::not_found(&format!("Microsoft.Network/publicIPAddresses/{name}"), "addresses")
            }
            Refusal::NoSuchMachine(key) => {
                Self::not_found(&format!("Microsoft.Compute/virtualMachines/{}", key.name), "MC_Nodes")
            }
            Refusal::NoSuchOperation { name, .. } => {
                Self::new(404, "OperationNotFound", &format!("The operation '{name}' could not be found."))
            }
            Refusal::AddressNotInRegion { ip, .. } => Self::new(
                400,
                "InvalidResourceReference",
                &format!("The public address {ip} was not found. Make sure that it exists and is in the same region."),
            ),
            Refusal::InUse { ip, by } => Self::new(
                400,
                "PublicIPAddressInUse",
                &format!("The public address {ip} is already allocated to resource {by}."),
            ),
            Refusal::SeatTaken | Refusal::TierMismatch { .. } | Refusal::NoSuchConfig { .. } => {
                Self::new(400, "InvalidRequestFormat", &format!("Cannot do that: {refusal:?}."))
            }
            Refusal::Malformed { field, message } => {
                Self::new(400, "InvalidRequestFormat", &format!("Cannot parse the request: {field}: {message}"))
            }
            Refusal::Scripted { status, reason, message } => Self::new(*status, reason, message),
        }
    }
}
