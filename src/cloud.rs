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

pub mod aws;
pub mod azure;
pub mod connect;
mod endpoint;
pub mod gcp;
pub mod limits;
pub mod metered;
mod request;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
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
    pub const ALL: [Provider; 3] = [Provider::Gcp, Provider::Aws, Provider::Azure];

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
        Self::ALL.into_iter().find(|provider| provider.as_str() == word)
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

    /// How much later than its end a change may still be missing from what the cloud shows (R1). EC2 is eventually
    /// consistent (Amazon EC2 API Reference, "Eventual consistency"); the answer to the change itself is the truth.
    pub fn read_lag(self) -> Duration {
        match self {
            Provider::Aws => Duration::from_secs(30),
            Provider::Gcp | Provider::Azure => Duration::ZERO,
        }
    }

    /// Requests that a change takes as a rule, its reads and the looks at how it goes included: what has to be there of the
    /// rate budget before it begins. The contract of all clouds counts them (`e2e/src/contract`).
    pub fn requests_of(self, change: Change) -> u32 {
        match (self, change) {
            (Provider::Gcp, Change::Attach) => 8,
            (Provider::Gcp, Change::Detach | Change::Restore) => 4,
            (Provider::Aws, Change::Attach | Change::Detach) => 3,
            (Provider::Aws, Change::Restore) => 1,
            (Provider::Azure, Change::Attach) => 10,
            (Provider::Azure, Change::Detach) => 8,
            (Provider::Azure, Change::Restore) => 2,
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

/// What is done to a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// [`Cloud::attach`].
    Attach,
    /// [`Cloud::detach`].
    Detach,
    /// [`Cloud::restore`].
    Restore,
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
        let account = if self.account.is_empty() { "" } else { "/" };
        write!(f, "{}{account}{}/{}", self.provider, self.account, self.region)
    }
}

/// Where a machine stands: the text of a Node's `spec.providerID`, for example `gce://PROJECT/ZONE/NAME`.
///
/// Two texts of one machine are equal: an EC2 instance by its id alone, because an address names its holder without the
/// zone; an Azure machine in any case, because the Node, the address and the interface each spell it their own way.
///
/// Compared and asked where it stands more often than anything else, so what a text says is made out once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ProviderId(Arc<Parsed>);

/// A provider ID, and what it says.
struct Parsed {
    text: String,
    /// The one way in which all texts of this machine could be spelled, where that is not this one.
    key: Option<String>,
    place: Option<Place>,
    unsupported: Option<&'static str>,
}

/// What a provider ID says, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub provider: Provider,
    /// GCP project; Azure subscription in lower case; empty on AWS, whose provider IDs do not name the account.
    pub account: String,
    /// Empty on Azure, whose provider IDs do not name the region.
    pub region: String,
    /// Empty on Azure.
    pub zone: String,
    /// Name or id of the machine, unique within account and zone.
    pub machine: String,
}

impl Place {
    /// The account and region in which the machine stands, all resource groups of it.
    pub fn scope(&self) -> Scope {
        let Self { provider, account, region, .. } = self;
        Scope { provider: *provider, account: account.clone(), region: region.clone(), resource_group: None }
    }
}

impl ProviderId {
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let key = match ec2_instance(&text) {
            Some((_, instance)) => Some(format!("aws:///{instance}")),
            None if text.starts_with("azure://") => Some(text.to_ascii_lowercase()),
            None => None,
        };
        let key = key.filter(|key| *key != text);
        let place = parse_place(&text);
        let unsupported = unsupported(&text, place.as_ref());
        Self(Arc::new(Parsed { text, key, place, unsupported }))
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    fn key(&self) -> &str {
        self.0.key.as_deref().unwrap_or(&self.0.text)
    }

    /// What the text says, or `None` for a form that no supported cloud uses.
    ///
    /// Forms: `gce://PROJECT/ZONE/NAME` (cloud-provider-gcp), `aws:///ZONE/i-…` (cloud-provider-aws),
    /// `azure:///subscriptions/SUB/resourceGroups/GROUP/providers/Microsoft.Compute/virtualMachines/NAME`
    /// (cloud-provider-azure).
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// Why a machine of a supported cloud can never take an address, and what to use instead.
    pub fn unsupported(&self) -> Option<&'static str> {
        self.0.unsupported
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProviderId").field(&self.as_str()).finish()
    }
}

impl From<String> for ProviderId {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.to_string()
    }
}

impl PartialEq for ProviderId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ProviderId {}

impl PartialOrd for ProviderId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProviderId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Hash for ProviderId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// See [`ProviderId::unsupported`].
fn unsupported(text: &str, place: Option<&Place>) -> Option<&'static str> {
    let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|text| text.eq_ignore_ascii_case(scheme));
    let last = || text.rsplit('/').next().unwrap_or_default();
    if begins("eks-hybrid://") {
        Some("an EKS hybrid node is no EC2 instance, so AWS cannot put an address on it; use EC2 nodes")
    } else if begins("aws://") && last().to_lowercase().starts_with("fargate-") {
        Some("a Fargate node has no network interface of yours to put an address on; use EC2 nodes")
    } else if begins("azure://") && text.to_lowercase().contains("/virtualmachinescalesets/") {
        Some(
            "Azure cannot attach a reserved IP to a Uniform scale-set instance; use a VirtualMachines or Flexible pool, or a node public IP prefix",
        )
    } else if last().starts_with("gk3-") && place.is_some_and(|place| place.provider == Provider::Gcp) {
        Some("the machines of GKE Autopilot are Google's and take no address of yours; use a GKE Standard node pool")
    } else {
        None
    }
}

/// Where a provider ID says that the machine stands; `None` for a form that no supported cloud uses. A URL parser will not do:
/// domain-scoped projects contain a colon (`example.com:project`).
fn parse_place(text: &str) -> Option<Place> {
    if let Some((zone, instance)) = ec2_instance(text) {
        return Some(Place {
            provider: Provider::Aws,
            account: String::new(),
            region: ec2_region(zone)?.to_owned(),
            zone: zone.to_owned(),
            machine: instance.to_owned(),
        });
    }
    if let Some((subscription, machine)) = azure_machine(text) {
        return Some(Place {
            provider: Provider::Azure,
            account: subscription.to_lowercase(),
            region: String::new(),
            zone: String::new(),
            machine: machine.to_owned(),
        });
    }
    let mut parts = text.strip_prefix("gce://")?.split('/');
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

/// Zone and instance of `aws:///ZONE/i-…` (also seen with two slashes, and without a zone where an address names its
/// holder).
fn ec2_instance(text: &str) -> Option<(&str, &str)> {
    let path = text.strip_prefix("aws://")?.trim_start_matches('/');
    let (zone, instance) = path.rsplit_once('/').unwrap_or(("", path));
    let digits = instance.strip_prefix("i-")?;
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && !zone.contains('/')).then_some((zone, instance))
}

/// `us-west-2` of `us-west-2a`, of the local zone `us-west-2-lax-1a` and of `us-gov-west-1b`'s kind: up to the first number.
fn ec2_region(zone: &str) -> Option<&str> {
    let number = zone.match_indices('-').find(|(at, _)| {
        zone.get(at + 1..).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    })?;
    let rest = zone.get(number.0 + 1..)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    zone.get(..number.0 + 1 + digits)
}

/// Subscription and name, whatever the case of the words between them.
fn azure_machine(text: &str) -> Option<(&str, &str)> {
    let path = text.strip_prefix("azure:///")?;
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [s, subscription, g, group, p, compute, v, name]
            if s.eq_ignore_ascii_case("subscriptions")
                && g.eq_ignore_ascii_case("resourceGroups")
                && p.eq_ignore_ascii_case("providers")
                && compute.eq_ignore_ascii_case("Microsoft.Compute")
                && v.eq_ignore_ascii_case("virtualMachines")
                && [subscription, group, name].iter().all(|part| !part.is_empty()) =>
        {
            Some((subscription, name))
        }
        _ => None,
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

/// On which of its region's machines an address can be put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All.
    #[default]
    Region,
    /// Those in these zones, as in the node label `topology.kubernetes.io/zone`, and those in no zone (Azure).
    Zones(BTreeSet<String>),
    /// Those in the zones of this network border group (AWS): the region, or the name of a local zone's group.
    BorderGroup(String),
}

impl Reach {
    /// Whether an address of this reach can be put on a machine in the zone; the cloud has the last word.
    pub fn covers(&self, zone: &str) -> bool {
        match self {
            Reach::Region => true,
            Reach::Zones(zones) => zones.contains(zone) || !is_zone(zone),
            // `us-west-2-lax-1a` is of group `us-west-2-lax-1`, `us-west-2a` of the region's.
            Reach::BorderGroup(group) => zone.trim_end_matches(|last: char| last.is_ascii_lowercase()) == group,
        }
    }
}

/// Azure gives a machine in no zone a number for its fault domain as label, or nothing.
fn is_zone(zone: &str) -> bool {
    !zone.is_empty() && zone.bytes().any(|byte| !byte.is_ascii_digit())
}

/// One reserved address as the cloud shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub holder: Holder,
    /// The cloud's name or id of the reservation.
    pub name: String,
    /// GCP network tier (`PREMIUM`, `STANDARD`), which an access config must repeat.
    pub network_tier: Option<String>,
    pub reach: Reach,
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
    /// Nothing was changed, or not by this order, and what is read lags behind changes: it is not the answer to one (R1).
    pub may_lag: bool,
}

impl Verified {
    /// What the change itself has answered, or a read that shows every change at once.
    pub fn sure(began: Instant, holder: Holder) -> Self {
        Self { began, holder, may_lag: false }
    }

    /// What was read, where somebody may have changed it a moment ago without it being shown.
    pub fn read(began: Instant, holder: Holder) -> Self {
        Self { began, holder, may_lag: true }
    }
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

impl Finding {
    pub(in crate::cloud) fn passed(subject: &str, message: String) -> Self {
        Self { ok: true, subject: subject.to_owned(), message }
    }

    /// What the cloud said, and what to do.
    pub(in crate::cloud) fn failed(subject: &str, error: &CloudError, remedy: &str) -> Self {
        Self {
            ok: false,
            subject: subject.to_owned(),
            message: format!("{}: {}; {remedy}", error.kind.label(), error.message),
        }
    }
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

    /// The cloud denies us, whatever is asked.
    pub fn is_denial(self) -> bool {
        matches!(self, ErrorKind::Denied | ErrorKind::Unauthenticated)
    }

    /// What a person can do about it; ends messages in status and events.
    pub fn remedy(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "check that the address and the machine exist in this account and region",
            ErrorKind::Conflict => "something else holds it; free it there or take it out of the spec",
            ErrorKind::Denied => {
                "grant the operator the missing permission; `ip-address-controller check` prints the command, docs/ lists all for each cloud"
            }
            ErrorKind::Unauthenticated => {
                "check the operator's cloud credentials; `ip-address-controller check` says what it found"
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str =
        "azure:///subscriptions/0a1b/resourceGroups/mc_prod/providers/Microsoft.Compute/virtualMachines/aks-sip-1";

    fn place(text: &str) -> Option<(String, String, String, String)> {
        let Place { account, region, zone, machine, .. } = ProviderId::new(text).place()?.clone();
        Some((account, region, zone, machine))
    }

    fn told(account: &str, region: &str, zone: &str, machine: &str) -> Option<(String, String, String, String)> {
        Some((account.to_owned(), region.to_owned(), zone.to_owned(), machine.to_owned()))
    }

    #[test]
    fn a_provider_id_says_where_the_machine_stands() {
        assert_eq!(
            place("gce://example.com:prod/us-west1-a/node-1"),
            told("example.com:prod", "us-west1", "us-west1-a", "node-1")
        );
        assert_eq!(place("aws:///us-west-2a/i-0abc12"), told("", "us-west-2", "us-west-2a", "i-0abc12"));
        assert_eq!(place("aws://us-gov-west-1b/i-0abc12"), told("", "us-gov-west-1", "us-gov-west-1b", "i-0abc12"));
        assert_eq!(place("aws:///us-west-2-lax-1a/i-0abc12"), told("", "us-west-2", "us-west-2-lax-1a", "i-0abc12"));
        assert_eq!(place(VM), told("0a1b", "", "", "aks-sip-1"));
        assert_eq!(place(&VM.to_uppercase().replace("AZURE", "azure")), told("0a1b", "", "", "AKS-SIP-1"));
    }

    #[test]
    fn what_is_no_machine_of_a_supported_kind_says_nothing_and_is_told_why() {
        let uniform = VM.replace("virtualMachines/aks-sip-1", "virtualMachineScaleSets/pool/virtualMachines/3");
        for (text, word) in [
            ("aws:///us-west-2a/0123abcd/fargate-ip-10-0-1-2.ec2.internal", Some("Fargate")),
            ("eks-hybrid:///us-west-2/prod/mi-0123", Some("hybrid")),
            (uniform.as_str(), Some("Uniform")),
            ("kind://docker/kind/kind-worker", None),
            ("aws:///us-west-2a/i-", None),
            ("gce://prod/node-1", None),
        ] {
            assert_eq!(place(text), None, "{text}");
            let why = ProviderId::new(text).unsupported();
            assert_eq!(why.is_some(), word.is_some(), "{text}: {why:?}");
            assert!(word.is_none_or(|word| why.is_some_and(|why| why.contains(word))), "{text}: {why:?}");
        }
        assert!(
            ProviderId::new("gce://prod/us-west1-a/gk3-auto-1")
                .unsupported()
                .is_some_and(|why| why.contains("Autopilot"))
        );
        assert_eq!(ProviderId::new(VM).unsupported(), None);
    }

    #[test]
    fn two_texts_of_one_machine_are_equal() {
        let same = |a: &str, b: &str| ProviderId::new(a) == ProviderId::new(b);
        assert!(same("aws:///us-west-2a/i-0abc12", "aws:///i-0abc12"));
        assert!(!same("aws:///us-west-2a/i-0abc12", "aws:///us-west-2a/i-0abc13"));
        assert!(same(VM, &VM.replace("mc_prod", "MC_Prod").replace("aks-sip", "AKS-sip")));
        assert!(!same("gce://prod/us-west1-a/node-1", "gce://prod/us-west1-a/Node-1"));
        assert!(!same("aws:///us-west-2a/i-0abc12", "i-0abc12"), "a text that is no provider ID is no machine's");
    }

    #[test]
    fn an_address_reaches_the_zones_that_it_was_reserved_for() {
        let zonal = Reach::Zones(BTreeSet::from(["westeurope-1".to_owned()]));
        assert!(zonal.covers("westeurope-1") && zonal.covers("0") && zonal.covers("") && !zonal.covers("westeurope-2"));
        let group = |name: &str| Reach::BorderGroup(name.to_owned());
        assert!(group("us-west-2").covers("us-west-2b") && !group("us-west-2").covers("us-west-2-lax-1a"));
        assert!(group("us-west-2-lax-1").covers("us-west-2-lax-1a") && !group("us-west-2-lax-1").covers("us-west-2a"));
        assert!(Reach::Region.covers("anywhere"));
    }
}
