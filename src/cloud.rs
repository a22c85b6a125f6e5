//! What the operator needs of a cloud: one trait, plain types, classified errors.
//!
//! Knows no Kubernetes object and no allocation. A provider lives in its own file below this one and
//! translates its SDK's words at its own door; nothing above ever sees an SDK type.
//!
//! Three rules hold for every provider (design §3.2):
//! - every method is safe to repeat: "already so" is success;
//! - a mutation follows a live read of the interface and goes on only if that holds what the order says (F7);
//! - each request of a mutation passes the order's [`Gate`] just before it leaves (F1), and is sent once:
//!   no SDK retries.

pub mod gcp;
pub mod limits;
pub mod metered;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use uuid::Uuid;

/// The clouds that an allocation can name in `spec.cloud.provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Google Cloud (Compute Engine).
    Gcp,
    /// Amazon Web Services (EC2).
    Aws,
    /// Microsoft Azure.
    Azure,
}

impl Provider {
    /// The word of the API and of metric labels: `gcp`, `aws`, `azure`.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Gcp => "gcp",
            Provider::Aws => "aws",
            Provider::Azure => "azure",
        }
    }

    /// The provider of that word.
    pub fn parse(word: &str) -> Option<Provider> {
        [Provider::Gcp, Provider::Aws, Provider::Azure].into_iter().find(|provider| provider.as_str() == word)
    }

    /// Whether each request of a detach names the very thing that it takes off, so that one that lands late, after the
    /// address has gone elsewhere, takes nothing off.
    ///
    /// Google Cloud: an access config is deleted by its name, and each that we add has a name of its own. AWS
    /// disassociates by association id, but is eventually consistent; Azure writes whole interfaces: neither counts here.
    pub fn late_detach_hits_nothing(self) -> bool {
        match self {
            Provider::Gcp => true,
            Provider::Aws | Provider::Azure => false,
        }
    }

    /// How long after a request's last permitted instant the cloud may still let it take effect (F5).
    pub fn settle_time(self) -> Duration {
        match self {
            Provider::Aws => Duration::from_secs(30),
            Provider::Gcp | Provider::Azure => Duration::from_secs(120),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one survey covers and what one rate budget counts for: an account's addresses in one region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    pub provider: Provider,
    /// GCP project, AWS account (empty: that of the credentials) or Azure subscription.
    pub account: String,
    /// Region as the cloud spells it, for example `us-west1`.
    pub region: String,
    /// Azure resource group of the addresses; `None` is the whole subscription.
    pub resource_group: Option<String>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.provider, self.account, self.region)
    }
}

/// Where a machine stands: the text of a Node's `spec.providerID`, for example `gce://PROJECT/ZONE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(String);

/// What a provider ID says, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub provider: Provider,
    /// GCP project, Azure subscription; empty on AWS, whose provider IDs do not name the account.
    pub account: String,
    pub region: String,
    pub zone: String,
    /// Name or id of the machine, unique within account and zone.
    pub machine: String,
}

impl Place {
    /// The account and region in which the machine stands, all resource groups of it.
    pub fn scope(self) -> Scope {
        Scope { provider: self.provider, account: self.account, region: self.region, resource_group: None }
    }
}

impl ProviderId {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the text says, or `None` for a form that no supported cloud uses.
    ///
    /// Forms: `gce://PROJECT/ZONE/NAME` (cloud-provider-gcp). A URL parser will not do: domain-scoped projects
    /// contain a colon (`example.com:project`).
    pub fn place(&self) -> Option<Place> {
        let rest = self.0.strip_prefix("gce://")?;
        let mut parts = rest.split('/');
        let (project, zone, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || project.is_empty() || name.is_empty() {
            return None;
        }
        let (region, suffix) = zone.rsplit_once('-')?;
        if region.is_empty() || suffix.is_empty() {
            return None;
        }
        Some(Place {
            provider: Provider::Gcp,
            account: project.to_owned(),
            region: region.to_owned(),
            zone: zone.to_owned(),
            machine: name.to_owned(),
        })
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a machine: where it stands, and the cloud's own id that no replacement of the same name shares.
///
/// Text form, kept in status: `PROVIDER_ID#INSTANCE`, for example `gce://prod/us-west1-a/node-1#4520031799277581759`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId {
    pub place: ProviderId,
    pub instance: String,
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.place, self.instance)
    }
}

/// The text is not `PROVIDER_ID#INSTANCE`.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a machine id of the form PROVIDER_ID#INSTANCE")]
pub struct NotAMachineId(String);

impl FromStr for MachineId {
    type Err = NotAMachineId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once('#') {
            Some((place, instance)) if !place.is_empty() && !instance.is_empty() => {
                Ok(Self { place: ProviderId::new(place), instance: instance.to_owned() })
            }
            _ => Err(NotAMachineId(text.to_owned())),
        }
    }
}

/// Who holds a reserved address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Free,
    /// The primary interface of a machine.
    Machine(ProviderId),
    /// Something that is no machine of a kind we manage (load balancer, NAT, secondary interface), in the cloud's words.
    Foreign(String),
}

/// One reserved address as the cloud shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub holder: Holder,
    /// The cloud's name or id of the reservation.
    pub name: String,
    /// GCP network tier (`PREMIUM`, `STANDARD`), which an access config must repeat.
    pub network_tier: Option<String>,
    /// Labels (GCP) or tags (AWS, Azure).
    pub tags: BTreeMap<String, String>,
}

/// Every reserved address of a scope. Always whole: a partial list is an error (R2).
#[derive(Clone, Debug)]
pub struct Survey {
    /// Taken before the first request left (R1).
    pub began: Instant,
    pub addresses: BTreeMap<IpAddr, Reservation>,
}

/// The answer to a call by id for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Reserved in the scope.
    Here(Reservation),
    /// Reserved in the same account, but in this other region.
    OtherRegion(String),
    /// Not reserved anywhere in the account.
    NotFound,
}

/// What a machine is and what its primary interface holds, read live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub machine: MachineId,
    pub power: Power,
    pub interface: Interface,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Running,
    /// Stopped or suspended, said so by the cloud: no packet reaches it.
    Stopped,
    /// On its way from one to the other: neither is proven.
    Changing,
}

/// The external address of a machine's primary interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// None.
    Empty,
    /// One of the machine's own that goes when it is taken off.
    Ephemeral(Own),
    /// A reserved one.
    Reserved(IpAddr),
}

/// What a machine had of its own, to be given back (P10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// GCP network tier.
    pub network_tier: Option<String>,
    /// GCP PTR record of the address.
    pub public_ptr_domain_name: Option<String>,
}

/// Asked just before every mutating request: may it leave now? (F1, F5)
pub trait Gate: Send + Sync {
    /// `Ok` only if leadership is proven, and the operation may be sent, for at least `timeout` from now.
    ///
    /// # Errors
    /// [`Closed`] says why; nothing was sent.
    fn open_for(&self, timeout: Duration) -> Result<(), Closed>;
}

/// The gate refused: nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not sent: {0}")]
pub struct Closed(pub &'static str);

/// Put an address on the primary interface of a machine. Built from the entry as written in status.
#[derive(Clone)]
pub struct Attach {
    pub scope: Scope,
    pub address: IpAddr,
    pub machine: MachineId,
    /// Id of this attempt; each step's request id is UUIDv5(id, step) (F9).
    pub operation: Uuid,
    /// The machine's own ephemeral address may be taken off to make room.
    pub may_displace_own: bool,
    pub gate: Arc<dyn Gate>,
}

/// Take an address off the primary interface of a machine. Built from the entry as written in status.
#[derive(Clone)]
pub struct Detach {
    pub scope: Scope,
    pub address: IpAddr,
    pub machine: MachineId,
    pub operation: Uuid,
    pub gate: Arc<dyn Gate>,
}

/// Give a machine an ephemeral address of its own again.
#[derive(Clone)]
pub struct Restore {
    pub scope: Scope,
    pub machine: MachineId,
    pub operation: Uuid,
    pub own: Own,
    pub gate: Arc<dyn Gate>,
}

/// An effect's own closing read: true at an instant after its last request ended (R3).
#[derive(Clone, Debug)]
pub struct Verified {
    /// Taken before the closing read was sent.
    pub began: Instant,
    pub holder: Holder,
}

/// How a debt to a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It has an external address (of its own, or one that somebody else gave it meanwhile).
    Given,
    /// The machine, or that life of it, is gone.
    MachineGone,
}

/// One line of the self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub ok: bool,
    /// What was tried, for example `compute.addresses.list`.
    pub subject: String,
    /// What was seen, and the remedy when it failed.
    pub message: String,
}

/// A cloud. Every method is safe to repeat, and bounded by deadlines of its own.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Every reserved external address of the scope and who holds it. Whole, or an error.
    async fn survey(&self, scope: &Scope) -> Result<Survey, CloudError>;

    /// One address by id: what a survey's silence cannot say.
    async fn find(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError>;

    /// One machine, live. `NotFound` means that the cloud says that it does not exist.
    async fn inspect(&self, machine: &ProviderId) -> Result<Seat, CloudError>;

    /// Already there is success. Fails with `Conflict` when the interface holds what the order does not allow, or the
    /// address has another holder; with `NotFound` when that life of the machine, or the address, is gone.
    async fn attach(&self, order: &Attach) -> Result<Verified, CloudError>;

    /// Already off, machine gone or machine replaced is success. Touches nothing but this address on this machine.
    async fn detach(&self, order: &Detach) -> Result<Verified, CloudError>;

    /// An interface that already has an external address is left alone.
    async fn restore(&self, order: &Restore) -> Result<Restored, CloudError>;

    /// Credentials and permissions, one finding each. Changes nothing.
    async fn check(&self, scope: &Scope) -> Vec<Finding>;
}

/// The closed list of failure kinds; each has a retry rule and a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Conflict,
    Denied,
    Unauthenticated,
    Throttled,
    Quota,
    Unsupported,
    Invalid,
    Timeout,
    Unavailable,
    Unknown,
}

impl ErrorKind {
    /// Every kind, for metrics that must be born at 0.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Denied,
        ErrorKind::Unauthenticated,
        ErrorKind::Throttled,
        ErrorKind::Quota,
        ErrorKind::Unsupported,
        ErrorKind::Invalid,
        ErrorKind::Timeout,
        ErrorKind::Unavailable,
        ErrorKind::Unknown,
    ];

    /// The metric label `error_type`.
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Denied => "permission_denied",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::Throttled => "throttled",
            ErrorKind::Quota => "quota",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unknown => "unknown",
        }
    }

    /// What a person can do about it; ends messages in status and events.
    pub fn remedy(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "check that the address and the machine exist in this account and region",
            ErrorKind::Conflict => "something else holds it; free it there or take it out of the spec",
            ErrorKind::Denied => "grant the operator the missing permission (docs/gcp.md lists all of them)",
            ErrorKind::Unauthenticated => "check the operator's cloud credentials",
            ErrorKind::Throttled => "nothing to do: retried at a slower pace",
            ErrorKind::Quota => "raise the cloud quota or free what uses it up",
            ErrorKind::Unsupported => "use a node of a kind that the docs list as supported",
            ErrorKind::Invalid => "the cloud refuses this request; the message says why",
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Unknown => "nothing to do: retried",
        }
    }
}

/// A failed call, classified. `Display` is one line: kind, what was tried, the cloud's own words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {}: {message}", .kind.label())]
pub struct CloudError {
    pub kind: ErrorKind,
    /// The cloud's name of the call that failed, for example `instances.addAccessConfig`.
    pub operation: &'static str,
    /// The cloud's own words; never a token, never a full URL with query.
    pub message: String,
    /// Every mutating request of this method was answered for sure (or none left): the attempt is over (F5).
    /// `false` after a mutation whose outcome is not known: it may still take effect.
    pub settled: bool,
}

impl CloudError {
    /// A failure after which nothing of ours is under way.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self { kind, operation, message: message.into(), settled: true }
    }

    /// The same, for a mutation whose outcome is not known.
    pub fn unsettled(mut self) -> Self {
        self.settled = false;
        self
    }
}
