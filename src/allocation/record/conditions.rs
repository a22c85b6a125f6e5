//! The status of a whole allocation, from its entries: counts and conditions. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::reasons::{
    AddressesValid, CredentialsValid, FailoverFrozen, Ready, Reconciling, Stalled, Why, WorkloadFound,
};
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
    api::{AddressStatus, AppliedTaint, Condition, Mode, NetIPAllocation, NetIPAllocationStatus, READY_LABEL},
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

/// Verified on a machine: Attached and Draining; but not what somebody else took off, nor what never arrived and is undone.
pub fn holds(entry: &Entry) -> bool {
    let arrived = entry.last_move.as_ref().is_some_and(|journey| journey.to.is_some());
    match entry.state {
        State::Attached | State::Draining => true,
        State::Releasing => arrived && entry.reason != Reason::Drifted,
        State::Unassigned | State::Attaching | State::Detached => false,
    }
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
        all.push(Said::new("True", FailoverFrozen::TooManyNodesNotReady, "too many selected nodes are NotReady or gone at once; no address is moved against its node's will until most are back"));
    }
    if picture.entries.iter().any(|entry| !matches!(entry.state, State::Unassigned | State::Attached)) {
        all.push(Said::new("True", Reconciling::AddressesMoving, "addresses are on their way"));
    } else if let Some(taint) = leaving_taint(picture) {
        let message = format!("taint {}:{} is being taken off the nodes", taint.key, taint.effect);
        all.push(Said::new("True", Reconciling::TaintLeaving, message));
    }
    if let Some(said) = stalled(picture, reserved, required) {
        all.push(said);
    }
    all.into_iter().map(|said| said.at(picture, old)).collect()
}

/// A condition without its times.
struct Said {
    why: Why,
    status: &'static str,
    message: String,
}

impl Said {
    fn new(status: &'static str, why: impl Into<Why>, message: impl Into<String>) -> Self {
        Self { why: why.into(), status, message: message.into() }
    }

    /// The time changes with the status only (API conventions).
    fn at(self, picture: &Picture<'_>, old: &[Condition]) -> Condition {
        let same = old.iter().find(|known| known.type_ == self.why.kind && known.status == self.status);
        Condition {
            type_: self.why.kind.to_owned(),
            status: self.status.to_owned(),
            observed_generation: picture.object.metadata.generation,
            last_transition_time: same
                .map_or(Time(memory::whole_seconds(picture.now)), |known| known.last_transition_time.clone()),
            reason: self.why.reason.to_owned(),
            message: clip(&self.message, 32_768),
        }
    }
}

fn ready(picture: &Picture<'_>, reserved: usize, required: usize) -> Said {
    let said = |status, reason: Ready, message: String| Said::new(status, reason, message);
    if let Some(why) = picture.scope_error {
        let reason =
            if picture.object.spec.cloud.provider.is_none() { Ready::InvalidSpec } else { Ready::NoEligibleNode };
        return said("False", reason, why.to_owned());
    }
    if picture.terminating {
        let left = picture.entries.iter().find(|entry| !matches!(entry.state, State::Unassigned | State::Detached));
        let message = left
            .map_or("is being deleted".to_owned(), |entry| format!("is being deleted; {} {}", entry.ip, entry.message));
        return said("False", Ready::Terminating, message);
    }
    if picture.blind {
        let why = picture.cloud_error.map_or_else(|| "it does not answer".to_owned(), ToString::to_string);
        return said(
            "Unknown",
            Ready::CloudUnavailable,
            format!("the cloud has not been read for too long: {why}; addresses stay where they are"),
        );
    }
    let works =
        |(entry, facts): &(&Entry, &Facts)| holds(entry) && entry.reason != Reason::NotLabelled && node_is_ready(facts);
    let pairs = || picture.entries.iter().zip(picture.facts);
    let good = pairs().filter(works).count();
    let leaving = picture.entries.iter().find(|entry| matches!(entry.state, State::Draining | State::Releasing));
    if good >= required && (picture.surveyed || good > 0) {
        return match leaving {
            Some(entry) => said("True", Ready::Draining, format!("{} {}", entry.ip, entry.message)),
            None if good >= reserved => {
                said("True", Ready::AllAttached, format!("{good} of {reserved} addresses are attached"))
            }
            None => {
                let first =
                    pairs().find(|pair| !works(pair)).map(|(entry, _)| format!(": {} {}", entry.ip, entry.message));
                said(
                    "True",
                    Ready::EnoughAttached,
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
        return said("Unknown", Ready::Pending, "waits for the first read of the cloud".to_owned());
    }
    // An address that is being let go may work beside those that are asked for.
    let lacking = reserved.saturating_sub(good);
    let head =
        format!("{lacking} of {reserved} addresses {} on no working node", if lacking == 1 { "is" } else { "are" });
    let Some((entry, facts)) = missing.iter().min_by_key(|(entry, _)| weight(entry.reason)) else {
        let text = match picture.unusable.first() {
            Some(unusable) => format!("{head}: \"{}\" {}", unusable.text, unusable.why),
            None => too_many_required(reserved, required),
        };
        return said("False", Ready::InvalidSpec, text);
    };
    let (status, reason) = if holds(entry) && !node_is_ready(facts) {
        ("False", if facts.frozen { Ready::FailoverFrozen } else { Ready::NodeNotReady })
    } else {
        of_reason(entry.reason)
    };
    said(status, reason, format!("{head}: {} {}", entry.ip, entry.message))
}

fn too_many_required(reserved: usize, required: usize) -> String {
    let are = if reserved == 1 { "is" } else { "are" };
    format!(
        "spec.minAttached asks for {required} addresses, but only {reserved} {are} asked for; lower it, or name more"
    )
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
        Ready::AddressNotFound | Ready::AddressInUse | Ready::DuplicateClaim | Ready::InvalidSpec => 0,
        Ready::NoEligibleNode | Ready::NotLabelled => 1,
        Ready::AttachFailed => 2,
        _ => 3,
    }
}

/// What condition Ready says while an address that is required is not there for that reason.
pub fn of_reason(reason: Reason) -> (&'static str, Ready) {
    match reason {
        Reason::Pending => ("Unknown", Ready::Pending),
        Reason::CloudUnavailable => ("Unknown", Ready::CloudUnavailable),
        Reason::NoEligibleNode | Reason::NoTarget | Reason::Held => ("False", Ready::NoEligibleNode),
        Reason::AddressNotFound | Reason::WrongRegion => ("False", Ready::AddressNotFound),
        Reason::AddressInUse | Reason::HolderUnreachable => ("False", Ready::AddressInUse),
        Reason::DuplicateClaim => ("False", Ready::DuplicateClaim),
        Reason::InvalidAddress | Reason::TooManyAddresses => ("False", Ready::InvalidSpec),
        Reason::Observing => ("False", Ready::Observing),
        Reason::NotLabelled => ("False", Ready::NotLabelled),
        Reason::FailoverFrozen => ("False", Ready::FailoverFrozen),
        Reason::NodeNotReady
        | Reason::NodeGone
        | Reason::MachineStopped
        | Reason::MachineGone
        | Reason::NodeReplaced
        | Reason::OutOfService => ("False", Ready::NodeNotReady),
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
        | Reason::Released => ("False", Ready::AttachFailed),
    }
}

fn addresses_valid(picture: &Picture<'_>) -> Said {
    let said = |status, reason: AddressesValid, message: String| Said::new(status, reason, message);
    if let Some(unusable) = picture.unusable.first() {
        return said("False", AddressesValid::InvalidSpec, format!("\"{}\" {}", unusable.text, unusable.why));
    }
    if let Some(held) = picture.held {
        return said("Unknown", AddressesValid::SelectorLost, held.to_owned());
    }
    let bad = picture.entries.iter().find_map(|entry| Some((entry, invalid(entry.reason)?)));
    match bad {
        Some((entry, reason)) => said("False", reason, format!("{} {}", entry.ip, entry.message)),
        None if picture.surveyed => said(
            "True",
            AddressesValid::AllFound,
            "every address is reserved, and claimed by no other allocation".to_owned(),
        ),
        None => said("Unknown", AddressesValid::Pending, "waits for the first read of the cloud".to_owned()),
    }
}

/// Reasons for which an address cannot be had.
fn invalid(reason: Reason) -> Option<AddressesValid> {
    match reason {
        Reason::AddressNotFound => Some(AddressesValid::AddressNotFound),
        Reason::AddressInUse => Some(AddressesValid::AddressInUse),
        Reason::WrongRegion => Some(AddressesValid::WrongRegion),
        Reason::DuplicateClaim => Some(AddressesValid::DuplicateClaim),
        _ => None,
    }
}

fn credentials_valid(picture: &Picture<'_>) -> Said {
    let said = |status, reason: CredentialsValid, message: String| Said::new(status, reason, message);
    let refused = picture.entries.iter().find(|entry| entry.reason == Reason::Denied);
    match (picture.cloud_error, refused) {
        (Some(error), _) => match error.kind {
            ErrorKind::Denied => said("False", CredentialsValid::Denied, format!("{error}; {}", error.kind.remedy())),
            ErrorKind::Unauthenticated => {
                said("False", CredentialsValid::Unauthenticated, format!("{error}; {}", error.kind.remedy()))
            }
            ErrorKind::Throttled => said("Unknown", CredentialsValid::CloudThrottled, error.to_string()),
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Quota
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Timeout
            | ErrorKind::Unavailable
            | ErrorKind::Unknown => said("Unknown", CredentialsValid::CloudUnavailable, error.to_string()),
        },
        // Reading is allowed, and a change was not: some of the permissions are missing.
        (None, Some(entry)) => said("False", CredentialsValid::Denied, format!("{} {}", entry.ip, entry.message)),
        (None, None) if picture.surveyed => said("True", CredentialsValid::Accepted, "the cloud answers".to_owned()),
        (None, None) => said("Unknown", CredentialsValid::Pending, "waits for the first read of the cloud".to_owned()),
    }
}

fn workload_found(picture: &Picture<'_>) -> Said {
    let said = |status, reason: WorkloadFound, message: String| Said::new(status, reason, message);
    let named = picture.object.spec.workload().map(|workload| workload.to_string()).unwrap_or_default();
    match picture.workload {
        Workload::Unnamed => said(
            "True",
            WorkloadFound::NotNamed,
            "spec names no workload; pods that ask for ip.ready use the addresses".to_owned(),
        ),
        // L3: such a pod never leaves by itself, so it is not waited for.
        Workload::Named { kind, gated: false, .. } if kind == "DaemonSet" => said(
            "True",
            WorkloadFound::WorkloadNotGated,
            format!(
                "{named} does not ask for {READY_LABEL}, so its pods run with an address and without, and hold none; add the label to the nodeSelector of its pods"
            ),
        ),
        Workload::Named { .. } => said("True", WorkloadFound::Found, format!("{named} exists")),
        Workload::Unknown => {
            said("Unknown", WorkloadFound::NotRead, format!("whether {named} exists cannot be read now"))
        }
        Workload::Missing => said(
            "False",
            WorkloadFound::NotFound,
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

/// kstatus: needs a human. Whoever waits for the object to become Current (Flux, Helm 4) gives up on it at once.
fn stalled(picture: &Picture<'_>, reserved: usize, required: usize) -> Option<Said> {
    let stops = |reason| match reason {
        Reason::AddressNotFound => Some(Stalled::AddressNotFound),
        Reason::AddressInUse => Some(Stalled::AddressInUse),
        Reason::WrongRegion => Some(Stalled::WrongRegion),
        Reason::DuplicateClaim => Some(Stalled::DuplicateClaim),
        Reason::Denied => Some(Stalled::Denied),
        _ => None,
    };
    let stuck = picture.entries.iter().find_map(|entry| Some((entry, stops(entry.reason)?)));
    if let Some((entry, why)) = stuck {
        return Some(Said::new("True", why, format!("{} {}", entry.ip, entry.message)));
    }
    if let Some(unusable) = picture.unusable.first() {
        return Some(Said::new("True", Stalled::InvalidSpec, format!("\"{}\" {}", unusable.text, unusable.why)));
    }
    let unnamed = picture.scope_error.filter(|_| picture.object.spec.cloud.provider.is_none());
    if let Some(why) = unnamed {
        return Some(Said::new("True", Stalled::InvalidSpec, why));
    }
    let counted = picture.surveyed || picture.object.spec.address_selector.is_none();
    if required > reserved && counted && !picture.terminating {
        return Some(Said::new("True", Stalled::InvalidSpec, too_many_required(reserved, required)));
    }
    // While an older survey still counts, a refusal may pass: permissions take time to arrive everywhere.
    let error = picture.cloud_error.filter(|_| !picture.surveyed)?;
    let why = match error.kind {
        ErrorKind::Denied => Stalled::Denied,
        ErrorKind::Unauthenticated => Stalled::Unauthenticated,
        _ => return None,
    };
    Some(Said::new("True", why, format!("{error}; {}", error.kind.remedy())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocation::{
            decide::facts::{Holder, Journey, Life},
            record::reasons,
        },
        api::{AddressSelector, IntOrPercent, NetIPAllocationSpec},
    };

    const IP: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    fn picture<'a>(
        object: &'a NetIPAllocation,
        entries: &'a [Entry],
        facts: &'a [Facts],
        cloud_error: Option<&'a CloudError>,
    ) -> Picture<'a> {
        static PLAN: std::sync::LazyLock<Plan> = std::sync::LazyLock::new(Plan::default);
        Picture {
            object,
            entries,
            facts,
            foreign: &[],
            unusable: &[],
            held: None,
            owed: &[],
            node_taint: None,
            plan: &PLAN,
            workload: &Workload::Unnamed,
            cloud_error,
            scope_error: None,
            surveyed: true,
            blind: false,
            terminating: false,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn facts(wanted: Wanted) -> Facts {
        Facts { wanted, ..Facts::plain(Timestamp::UNIX_EPOCH) }
    }

    fn entry(state: State, reason: Reason) -> Entry {
        let arrived = Journey {
            from: None,
            to: Some("a".to_owned()),
            reason: String::new(),
            start: Timestamp::UNIX_EPOCH,
            finish: Timestamp::UNIX_EPOCH,
            gap: None,
            trace_id: None,
        };
        Entry { state, reason, last_move: Some(arrived), ..Entry::new(IP, Timestamp::UNIX_EPOCH) }
    }

    /// Status, reason and message of condition Ready, and how many addresses are told to be attached.
    fn ready_of(min_attached: i64, entries: &[(Entry, Wanted)]) -> (&'static str, &'static str, String, i32) {
        let spec = NetIPAllocationSpec { min_attached: IntOrPercent::Count(min_attached), ..Default::default() };
        let object = NetIPAllocation::new("a", spec);
        let (entries, facts): (Vec<Entry>, Vec<Facts>) =
            entries.iter().map(|(entry, wanted)| (entry.clone(), facts(*wanted))).unzip();
        let picture = picture(&object, &entries, &facts, None);
        let told = status(&picture);
        let Said { status, why, message } = ready(
            &picture,
            usize::try_from(told.reserved_count).unwrap(),
            usize::try_from(told.required_count).unwrap(),
        );
        (status, why.reason, message, told.attached_count)
    }

    #[test]
    fn more_required_than_asked_for_is_told_by_the_name_of_the_field() {
        let attached = || (entry(State::Attached, Reason::Verified), Wanted::Yes);
        let leaving = || (entry(State::Draining, Reason::RemovedFromSpec), Wanted::RemovedFromSpec);
        // Two work beside the one that is asked for: what lacks is none, and not less than none.
        for entries in [vec![attached()], vec![attached(), leaving(), leaving()]] {
            let (status, reason, message, _) = ready_of(5, &entries);
            assert_eq!((status, reason), ("False", "InvalidSpec"), "{message}");
            assert_eq!(
                message,
                "spec.minAttached asks for 5 addresses, but only 1 is asked for; lower it, or name more"
            );
        }
    }

    #[test]
    fn what_is_known_to_be_off_or_never_arrived_is_not_attached() {
        assert_eq!(ready_of(1, &[(entry(State::Releasing, Reason::NodeCordoned), Wanted::Yes)]).3, 1, "it still is");
        let drifted = entry(State::Releasing, Reason::Drifted);
        let undone = Entry { last_move: None, ..entry(State::Releasing, Reason::SeatLost) };
        for entry in [drifted, undone] {
            let (status, reason, _, attached) = ready_of(1, &[(entry, Wanted::Yes)]);
            assert_eq!((status, reason, attached), ("False", "AttachFailed", 0));
        }
    }

    /// What every reason of every condition is told of, so that none is listed that cannot be.
    #[test]
    fn every_reason_of_every_condition_is_told_of_some_allocation() {
        let object = NetIPAllocation::new(
            "a",
            NetIPAllocationSpec { min_attached: IntOrPercent::Count(1), ..NetIPAllocationSpec::default() },
        );
        let mut told = std::collections::BTreeSet::new();
        let mut tell = |picture: Picture<'_>| {
            told.extend(status(&picture).conditions.into_iter().map(|condition| (condition.type_, condition.reason)));
        };
        let alone = [
            (State::Attached, Reason::Verified),
            (State::Attached, Reason::NotLabelled),
            (State::Draining, Reason::NodeCordoned),
            (State::Attaching, Reason::Retrying),
            (State::Unassigned, Reason::NoEligibleNode),
            (State::Unassigned, Reason::AddressNotFound),
            (State::Unassigned, Reason::AddressInUse),
            (State::Unassigned, Reason::WrongRegion),
            (State::Unassigned, Reason::DuplicateClaim),
            (State::Unassigned, Reason::Observing),
            (State::Unassigned, Reason::Denied),
        ];
        for (state, reason) in alone {
            tell(picture(&object, &[entry(state, reason)], &[facts(Wanted::Yes)], None));
        }
        let well = [entry(State::Attached, Reason::Verified)];
        let known = [facts(Wanted::Yes)];
        let seen = || picture(&object, &well, &known, None);
        tell(picture(
            &object,
            &[entry(State::Attached, Reason::Verified), entry(State::Unassigned, Reason::NoEligibleNode)],
            &[facts(Wanted::Yes), facts(Wanted::Yes)],
            None,
        ));
        let holder = Holder {
            name: "a".into(),
            life: Life::Running,
            object: NodeObject::Absent { since: Timestamp::UNIX_EPOCH },
        };
        for frozen in [false, true] {
            let down = [Facts { holder: Some(holder.clone()), frozen, ..facts(Wanted::Yes) }];
            tell(Picture { facts: &down, ..seen() });
        }
        tell(Picture { terminating: true, ..seen() });
        tell(Picture { blind: true, ..seen() });
        tell(Picture { held: Some("it has lost more than half"), ..seen() });
        let unseen = [entry(State::Unassigned, Reason::Pending)];
        tell(Picture { surveyed: false, ..picture(&object, &unseen, &known, None) });
        let unusable =
            [Unusable { text: "x".into(), why: "is not an IP address".into(), reason: Reason::InvalidAddress }];
        tell(Picture { unusable: &unusable, ..picture(&object, &[], &[], None) });
        for kind in [ErrorKind::Denied, ErrorKind::Unauthenticated, ErrorKind::Throttled, ErrorKind::Unavailable] {
            let error = CloudError::new(kind, "addresses.list", "no");
            tell(Picture { surveyed: false, ..picture(&object, &well, &known, Some(&error)) });
        }
        let daemons =
            |gated| Workload::Named { kind: "DaemonSet".into(), namespace: "voip".into(), name: "sip".into(), gated };
        for workload in [daemons(true), daemons(false), Workload::Missing, Workload::Unknown] {
            tell(Picture { workload: &workload, ..seen() });
        }
        let taint = AppliedTaint { key: "no-address".into(), value: None, effect: "NoSchedule".into() };
        tell(Picture { node_taint: Some(&taint), ..seen() });

        let listed = reasons::CONDITIONS.iter().flat_map(|condition| {
            condition.reasons.iter().map(|reason| (condition.kind.to_owned(), (*reason).to_owned()))
        });
        assert_eq!(told, listed.collect());
    }

    #[test]
    fn an_address_that_no_pod_can_come_to_is_attached_and_does_not_count_for_ready() {
        let message = "attempt 3 failed: patching node a failed: Forbidden".to_owned();
        let unlabelled = Entry { message, ..entry(State::Attached, Reason::NotLabelled) };
        let (status, reason, message, attached) = ready_of(1, &[(unlabelled, Wanted::Yes)]);
        assert_eq!((status, reason, attached), ("False", "NotLabelled", 1));
        assert!(message.contains("203.0.113.7 attempt 3 failed: patching node a failed"), "{message}");
    }

    #[test]
    fn a_change_that_is_not_permitted_shows_in_the_credentials_although_reading_is() {
        let object = NetIPAllocation::new("a", NetIPAllocationSpec::default());
        let said = |cloud_error: Option<&CloudError>, reason: Reason| {
            let message = "attempt 1 failed: associateAddress: permission_denied: ec2:AssociateAddress".to_owned();
            let entries = [Entry { message, ..entry(State::Unassigned, reason) }];
            let Said { status, why, message } = credentials_valid(&picture(&object, &entries, &[], cloud_error));
            (status, why.reason, message)
        };
        let (status, reason, message) = said(None, Reason::Denied);
        assert_eq!((status, reason), ("False", "Denied"));
        assert!(message.starts_with("203.0.113.7 ") && message.contains("ec2:AssociateAddress"), "{message}");
        assert_eq!(said(None, Reason::Retrying).0, "True");
        let unreachable = CloudError::new(ErrorKind::Unavailable, "DescribeAddresses", "come back later");
        assert_eq!(said(Some(&unreachable), Reason::Denied).0, "Unknown", "what is known now comes first");
    }

    /// Reason of the condition Stalled, if it is there.
    fn stalled_of(picture: &Picture<'_>) -> Option<&'static str> {
        stalled(picture, 1, 1).map(|said| said.why.reason)
    }

    #[test]
    fn what_only_a_person_can_mend_is_stalled() {
        let object = NetIPAllocation::new("a", NetIPAllocationSpec::default());
        let well = [entry(State::Attached, Reason::Verified)];
        let refused = CloudError::new(ErrorKind::Unauthenticated, "DescribeAddresses", "the token is over");
        let down = CloudError::new(ErrorKind::Unavailable, "DescribeAddresses", "come back later");
        let unread = |error| Picture { surveyed: false, ..picture(&object, &well, &[], error) };
        assert_eq!(stalled_of(&unread(Some(&refused))), Some("Unauthenticated"));
        assert_eq!(stalled_of(&unread(Some(&down))), None, "it passes by itself");
        let still_good = picture(&object, &well, &[], Some(&refused));
        assert_eq!(stalled_of(&still_good), None, "an older survey counts");

        let unusable =
            [Unusable { text: "x".into(), why: "is not an IP address".into(), reason: Reason::InvalidAddress }];
        let invalid = Picture { unusable: &unusable, ..picture(&object, &well, &[], None) };
        assert_eq!(stalled_of(&invalid), Some("InvalidSpec"));
        let nowhere = Picture { scope_error: Some("set spec.cloud.provider"), ..picture(&object, &well, &[], None) };
        assert_eq!(stalled_of(&nowhere), Some("InvalidSpec"));
        let lacking = [entry(State::Unassigned, Reason::AddressNotFound)];
        assert_eq!(stalled_of(&picture(&object, &lacking, &[], None)), Some("AddressNotFound"));
    }

    #[test]
    fn more_required_than_there_are_is_stalled_once_the_selector_was_read() {
        let object = |selector: bool| {
            let spec = NetIPAllocationSpec {
                address_selector: selector
                    .then(|| AddressSelector { match_tags: [("pool".to_owned(), "sip".to_owned())].into() }),
                ..NetIPAllocationSpec::default()
            };
            NetIPAllocation::new("a", spec)
        };
        let stalled = |selector, surveyed| {
            let object = object(selector);
            let picture = Picture { surveyed, ..picture(&object, &[], &[], None) };
            stalled(&picture, 1, 2).map(|said| said.why.reason)
        };
        assert_eq!(stalled(false, false), Some("InvalidSpec"));
        assert_eq!(stalled(true, false), None, "what it matches is not known yet");
        assert_eq!(stalled(true, true), Some("InvalidSpec"));
    }

    #[test]
    fn a_daemon_set_that_asks_for_no_address_is_named_and_a_deployment_is_not() {
        let object = NetIPAllocation::new("a", NetIPAllocationSpec::default());
        let said = |kind: &str, gated| {
            let workload = Workload::Named { kind: kind.into(), namespace: "voip".into(), name: "sip".into(), gated };
            let Said { status, why, message } =
                workload_found(&Picture { workload: &workload, ..picture(&object, &[], &[], None) });
            (status, why.reason, message)
        };
        let (status, reason, message) = said("DaemonSet", false);
        assert_eq!((status, reason), ("True", "WorkloadNotGated"));
        assert!(message.contains("ip.ready"), "{message}");
        assert_eq!(said("DaemonSet", true).1, "Found");
        assert_eq!(said("Deployment", false).1, "Found");
    }
}
