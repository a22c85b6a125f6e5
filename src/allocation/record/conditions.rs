//! The status of a whole allocation, from its entries: counts and conditions. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    allocation::{
        claims::Unusable,
        decide::{
            facts::{Entry, Facts, NodeObject, Wanted},
            placement::Plan,
            state::{Reason, State},
            users::Workload,
        },
        memory::{self, Owed, clip},
    },
    api::{AddressStatus, AppliedTaint, Condition, Mode, NetIPAllocation, NetIPAllocationStatus},
    cloud::{CloudError, ErrorKind},
};

/// What a pass knows when it writes.
pub struct Picture<'a> {
    pub object: &'a NetIPAllocation,
    pub entries: &'a [Entry],
    pub facts: &'a [Facts],
    pub foreign: &'a [AddressStatus],
    pub unusable: &'a [Unusable],
    /// The selector has lost too much at once.
    pub held: Option<&'a str>,
    pub owed: &'a [Owed],
    /// The taint that is on nodes, or goes there next.
    pub node_taint: Option<&'a AppliedTaint>,
    pub plan: &'a Plan,
    pub workload: &'a Workload,
    pub cloud_error: Option<&'a CloudError>,
    pub scope_error: Option<&'a str>,
    /// A survey that counts has been read.
    pub surveyed: bool,
    /// The last good survey is too old to say anything.
    pub blind: bool,
    pub terminating: bool,
    pub now: Timestamp,
}

/// Builds the status. Equal facts give an equal status: nothing in it tells the time of the pass.
pub fn status(picture: &Picture<'_>) -> NetIPAllocationStatus {
    let old = picture.object.status.clone().unwrap_or_default();
    let wanted = picture.facts.iter().filter(|facts| facts.wanted == Wanted::Yes).count();
    let reserved = wanted + picture.unusable.len();
    let required = picture.object.spec.min_attached.resolve(reserved);
    let attached = picture.entries.iter().filter(|entry| holds(entry)).count();
    let moving =
        picture.entries.iter().filter(|entry| !matches!(entry.state, State::Unassigned | State::Attached)).count();
    let selected: usize = picture.plan.counts.values().sum();
    let mut addresses: Vec<AddressStatus> = picture.entries.iter().map(memory::write).collect();
    addresses.extend(picture.foreign.iter().cloned());
    addresses.extend(picture.unusable.iter().map(|unusable| unusable_entry(unusable, &old, picture.now)));
    addresses.sort_by(|a, b| order(&a.ip).cmp(&order(&b.ip)));
    addresses.dedup_by(|a, b| a.ip == b.ip);

    NetIPAllocationStatus {
        // A selector's edit is judged by the next survey: until then the spec is not observed.
        observed_generation: match &picture.object.spec.address_selector {
            Some(_) if !picture.surveyed => old.observed_generation,
            Some(_) | None => picture.object.metadata.generation,
        },
        conditions: conditions(picture, &old.conditions, reserved, required),
        workload: picture.object.spec.workload().map(|workload| workload.to_string()),
        reserved_count: count(reserved),
        required_count: count(required),
        attached_count: count(attached),
        unattached_count: count(reserved.saturating_sub(attached)),
        moving_count: count(moving),
        selected_node_count: count(selected),
        spare_node_count: count(picture.plan.spare),
        node_taint: picture.node_taint.cloned(),
        owed: picture.owed.iter().map(memory::write_owed).collect(),
        addresses,
    }
}

/// Verified on a machine: Attached and Draining.
fn holds(entry: &Entry) -> bool {
    matches!(entry.state, State::Attached | State::Draining | State::Releasing)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn order(ip: &str) -> (Option<std::net::IpAddr>, &str) {
    (ip.parse().ok(), ip)
}

fn unusable_entry(unusable: &Unusable, old: &NetIPAllocationStatus, now: Timestamp) -> AddressStatus {
    let ip = clip(&unusable.text, 45);
    let since = old.addresses.iter().find(|entry| entry.ip == ip && entry.state == "Unassigned");
    AddressStatus {
        state: State::Unassigned.shown().to_owned(),
        reason: Some(unusable.reason.as_str().to_owned()),
        message: Some(clip(&format!("\"{}\" {}", unusable.text, unusable.why), 1024)),
        last_transition_time: since.and_then(|entry| entry.last_transition_time.clone()).or(Some(Time(now))),
        ip,
        ..AddressStatus::default()
    }
}

fn conditions(picture: &Picture<'_>, old: &[Condition], reserved: usize, required: usize) -> Vec<Condition> {
    let mut all = vec![
        ready(picture, reserved, required),
        addresses_valid(picture),
        credentials_valid(picture),
        workload_found(picture),
    ];
    if picture.facts.iter().any(|facts| facts.frozen) {
        all.push(Said::new("FailoverFrozen", "True", "TooManyNodesNotReady", "too many selected nodes are NotReady or gone at once; no address is moved against its node's will until most are back"));
    }
    if picture.entries.iter().any(|entry| !matches!(entry.state, State::Unassigned | State::Attached)) {
        all.push(Said::new("Reconciling", "True", "AddressesMoving", "addresses are on their way"));
    } else if let Some(taint) = leaving_taint(picture) {
        let message = format!("taint {}:{} is being taken off the nodes", taint.key, taint.effect);
        all.push(Said::new("Reconciling", "True", "TaintLeaving", message));
    }
    if let Some(said) = stalled(picture) {
        all.push(said);
    }
    all.into_iter().map(|said| said.at(picture, old)).collect()
}

/// A condition without its times.
struct Said {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Said {
    fn new(kind: &'static str, status: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, status, reason: reason.into(), message: message.into() }
    }

    /// The time changes with the status only (API conventions).
    fn at(self, picture: &Picture<'_>, old: &[Condition]) -> Condition {
        let same = old.iter().find(|known| known.type_ == self.kind && known.status == self.status);
        Condition {
            type_: self.kind.to_owned(),
            status: self.status.to_owned(),
            observed_generation: picture.object.metadata.generation,
            last_transition_time: same
                .map_or(Time(memory::whole_seconds(picture.now)), |known| known.last_transition_time.clone()),
            reason: self.reason,
            message: clip(&self.message, 32_768),
        }
    }
}

fn ready(picture: &Picture<'_>, reserved: usize, required: usize) -> Said {
    let said = |status, reason: &str, message: String| Said::new("Ready", status, reason, message);
    if let Some(why) = picture.scope_error {
        let reason = if picture.object.spec.cloud.provider.is_none() { "InvalidSpec" } else { "NoEligibleNode" };
        return said("False", reason, why.to_owned());
    }
    if picture.terminating {
        let left = picture.entries.iter().find(|entry| !matches!(entry.state, State::Unassigned | State::Detached));
        let message = left
            .map_or("is being deleted".to_owned(), |entry| format!("is being deleted; {} {}", entry.ip, entry.message));
        return said("False", "Terminating", message);
    }
    if picture.blind {
        let why = picture.cloud_error.map_or_else(|| "it does not answer".to_owned(), ToString::to_string);
        return said(
            "Unknown",
            "CloudUnavailable",
            format!("the cloud has not been read for too long: {why}; addresses stay where they are"),
        );
    }
    let works = |(entry, facts): &(&Entry, &Facts)| holds(entry) && node_is_ready(facts);
    let pairs = || picture.entries.iter().zip(picture.facts);
    let good = pairs().filter(works).count();
    let leaving = picture.entries.iter().find(|entry| matches!(entry.state, State::Draining | State::Releasing));
    if good >= required && (picture.surveyed || good > 0) {
        return match leaving {
            Some(entry) => said("True", "Draining", format!("{} {}", entry.ip, entry.message)),
            None if good >= reserved => {
                said("True", "AllAttached", format!("{good} of {reserved} addresses are attached"))
            }
            None => {
                let first =
                    pairs().find(|pair| !works(pair)).map(|(entry, _)| format!(": {} {}", entry.ip, entry.message));
                said(
                    "True",
                    "EnoughAttached",
                    format!(
                        "{good} of {reserved} addresses are attached, {required} required{}",
                        first.unwrap_or_default()
                    ),
                )
            }
        };
    }
    let missing: Vec<(&Entry, &Facts)> = pairs().filter(|pair| !works(pair)).collect();
    if !picture.surveyed && missing.iter().all(|(entry, _)| matches!(entry.reason, Reason::Pending)) {
        return said("Unknown", "Pending", "waits for the first read of the cloud".to_owned());
    }
    let head = format!(
        "{} of {reserved} addresses {} on no working node",
        reserved - good,
        if reserved - good == 1 { "is" } else { "are" }
    );
    let Some((entry, facts)) = missing.iter().min_by_key(|(entry, _)| weight(entry.reason)) else {
        let text = picture.unusable.first().map(|unusable| format!("{head}: \"{}\" {}", unusable.text, unusable.why));
        return said("False", "InvalidSpec", text.unwrap_or(head));
    };
    let (status, reason) = if holds(entry) && !node_is_ready(facts) {
        ("False", if facts.frozen { "FailoverFrozen" } else { "NodeNotReady" })
    } else {
        of_reason(entry.reason)
    };
    said(status, reason, format!("{head}: {} {}", entry.ip, entry.message))
}

fn node_is_ready(facts: &Facts) -> bool {
    // Without a holder it has just arrived: the next pass looks at the node.
    facts.holder.as_ref().is_none_or(|holder| match &holder.object {
        NodeObject::Present(view) => view.not_ready.is_none(),
        NodeObject::Absent { .. } => false,
    })
}

/// Which of several reasons is told first: what a person must mend before what mends itself.
fn weight(reason: Reason) -> u8 {
    match of_reason(reason).1 {
        "AddressNotFound" | "AddressInUse" | "DuplicateClaim" | "InvalidSpec" => 0,
        "NoEligibleNode" => 1,
        "AttachFailed" => 2,
        _ => 3,
    }
}

fn of_reason(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Pending => ("Unknown", "Pending"),
        Reason::CloudUnavailable => ("Unknown", "CloudUnavailable"),
        Reason::NoEligibleNode | Reason::NoTarget | Reason::Held | Reason::TooManyAddresses => {
            ("False", "NoEligibleNode")
        }
        Reason::AddressNotFound | Reason::WrongRegion => ("False", "AddressNotFound"),
        Reason::AddressInUse | Reason::HolderUnreachable => ("False", "AddressInUse"),
        Reason::DuplicateClaim => ("False", "DuplicateClaim"),
        Reason::InvalidAddress => ("False", "InvalidSpec"),
        Reason::Observing => ("False", "Observing"),
        Reason::FailoverFrozen => ("False", "FailoverFrozen"),
        Reason::NodeNotReady
        | Reason::NodeGone
        | Reason::MachineStopped
        | Reason::MachineGone
        | Reason::NodeReplaced
        | Reason::OutOfService => ("False", "NodeNotReady"),
        Reason::QuotaExceeded
        | Reason::Denied
        | Reason::Attaching
        | Reason::Retrying
        | Reason::Repairing
        | Reason::Verified
        | Reason::Adopted
        | Reason::NodeCordoned
        | Reason::Disrupted
        | Reason::NotSelected
        | Reason::RemovedFromSpec
        | Reason::NotMatched
        | Reason::AllocationDeleted
        | Reason::MoveRequested
        | Reason::Drifted
        | Reason::SeatLost
        | Reason::Restoring
        | Reason::RestoreFailed
        | Reason::Released => ("False", "AttachFailed"),
    }
}

fn addresses_valid(picture: &Picture<'_>) -> Said {
    let said = |status, reason: &str, message: String| Said::new("AddressesValid", status, reason, message);
    if let Some(unusable) = picture.unusable.first() {
        return said("False", "InvalidSpec", format!("\"{}\" {}", unusable.text, unusable.why));
    }
    if let Some(held) = picture.held {
        return said("Unknown", "SelectorLost", held.to_owned());
    }
    let bad = picture.entries.iter().find(|entry| {
        matches!(
            entry.reason,
            Reason::AddressNotFound | Reason::AddressInUse | Reason::WrongRegion | Reason::DuplicateClaim
        )
    });
    match bad {
        Some(entry) => said("False", entry.reason.as_str(), format!("{} {}", entry.ip, entry.message)),
        None if picture.surveyed => {
            said("True", "AllFound", "every address is reserved, and claimed by no other allocation".to_owned())
        }
        None => said("Unknown", "Pending", "waits for the first read of the cloud".to_owned()),
    }
}

fn credentials_valid(picture: &Picture<'_>) -> Said {
    let said = |status, reason: &str, message: String| Said::new("CredentialsValid", status, reason, message);
    let refused = picture.entries.iter().find(|entry| entry.reason == Reason::Denied);
    match (picture.cloud_error, refused) {
        (Some(error), _) => match error.kind {
            ErrorKind::Denied => said("False", "Denied", format!("{error}; {}", error.kind.remedy())),
            ErrorKind::Unauthenticated => said("False", "Unauthenticated", format!("{error}; {}", error.kind.remedy())),
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Throttled
            | ErrorKind::Quota
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Timeout
            | ErrorKind::Unavailable
            | ErrorKind::Unknown => said("Unknown", "CloudUnavailable", error.to_string()),
        },
        // Reading is allowed, and a change was not: some of the permissions are missing.
        (None, Some(entry)) => said("False", "Denied", format!("{} {}", entry.ip, entry.message)),
        (None, None) if picture.surveyed => said("True", "Accepted", "the cloud answers".to_owned()),
        (None, None) => said("Unknown", "Pending", "waits for the first read of the cloud".to_owned()),
    }
}

fn workload_found(picture: &Picture<'_>) -> Said {
    let said = |status, reason: &str, message: String| Said::new("WorkloadFound", status, reason, message);
    let named = picture.object.spec.workload().map(|workload| workload.to_string()).unwrap_or_default();
    match picture.workload {
        Workload::Unnamed => {
            said("True", "NotNamed", "spec names no workload; pods that ask for ip.ready use the addresses".to_owned())
        }
        Workload::Named { .. } => said("True", "Found", format!("{named} exists")),
        Workload::Unknown => said("Unknown", "NotRead", format!("whether {named} exists cannot be read now")),
        Workload::Missing => said(
            "False",
            "NotFound",
            format!(
                "{named} does not exist; check spec.workloadRef; until then every pod that may use an address holds it"
            ),
        ),
    }
}

/// The taint that is on nodes although the spec does not ask for it any more.
fn leaving_taint<'a>(picture: &Picture<'a>) -> Option<&'a AppliedTaint> {
    let asked = picture.object.spec.node_taint.as_ref().filter(|_| !picture.terminating);
    let observed = picture.object.spec.mode == Mode::Observe;
    picture
        .node_taint
        .filter(|_| !observed)
        .filter(|taint| asked.is_none_or(|asked| asked.key != taint.key || asked.effect.as_str() != taint.effect))
}

/// kstatus: needs a human.
fn stalled(picture: &Picture<'_>) -> Option<Said> {
    let entry = picture.entries.iter().find(|entry| {
        matches!(
            entry.reason,
            Reason::AddressNotFound
                | Reason::AddressInUse
                | Reason::WrongRegion
                | Reason::DuplicateClaim
                | Reason::Denied
        )
    })?;
    Some(Said::new("Stalled", "True", entry.reason.as_str(), format!("{} {}", entry.ip, entry.message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NetIPAllocationSpec;

    fn said(cloud_error: Option<&CloudError>, reason: Reason) -> (&'static str, String, String) {
        let object = NetIPAllocation::new("a", NetIPAllocationSpec::default());
        let ip = std::net::IpAddr::from([203, 0, 113, 7]);
        let message = "attempt 1 failed: associateAddress: permission_denied: ec2:AssociateAddress".to_owned();
        let entry = Entry { reason, message, ..Entry::new(ip, Timestamp::UNIX_EPOCH) };
        let picture = Picture {
            object: &object,
            entries: &[entry],
            facts: &[],
            foreign: &[],
            unusable: &[],
            held: None,
            owed: &[],
            node_taint: None,
            plan: &Plan::default(),
            workload: &Workload::Unnamed,
            cloud_error,
            scope_error: None,
            surveyed: true,
            blind: false,
            terminating: false,
            now: Timestamp::UNIX_EPOCH,
        };
        let Said { status, reason, message, .. } = credentials_valid(&picture);
        (status, reason, message)
    }

    #[test]
    fn a_change_that_is_not_permitted_shows_in_the_credentials_although_reading_is() {
        let (status, reason, message) = said(None, Reason::Denied);
        assert_eq!((status, reason.as_str()), ("False", "Denied"));
        assert!(message.starts_with("203.0.113.7 ") && message.contains("ec2:AssociateAddress"), "{message}");
        assert_eq!(said(None, Reason::Retrying).0, "True");
        let unreachable = CloudError::new(ErrorKind::Unavailable, "DescribeAddresses", "come back later");
        assert_eq!(said(Some(&unreachable), Reason::Denied).0, "Unknown", "what is known now comes first");
    }
}
