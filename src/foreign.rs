//! Every door at which text comes in that somebody else wrote: one function for each, which hands it to the code that
//! ships and asserts what must hold whatever it says.
//!
//! Called by the fuzz targets in `fuzz/`, and by the property tests below this file. Not part of the program.

// What does not hold is told by a panic: these are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::missing_panics_doc)]

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    cmp::Ordering,
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    allocation::{
        claims::{self, Claims},
        decide::{
            Address,
            facts::{
                Adoptable, Claim, Entry, Facts, Failure, Holder, Life, Mode, NodeObject, Read, Wanted, Whereabouts,
            },
            placement::Plan,
            users::Workload,
        },
        memory::{self, Stored},
        moment::Moment,
        observe::{self, nodes::SlimNode},
        owed,
        record::conditions::{self, Picture},
        round,
        selection::Selection,
        tables::Tables,
        taints::NodeTaints,
    },
    api::{AppliedTaint, IntOrPercent, NetIPAllocation, NetIPAllocationSpec, NetIPAllocationStatus},
    cloud::{ErrorKind, MachineId, Provider, ProviderId},
    lifecycle::pass,
    settings::{self, Command, SettingsError},
};
pub use crate::{
    cloud::{aws::foreign::aws, azure::foreign::azure, gcp::foreign::gcp},
    leader::foreign::lease,
    telemetry::foreign::log_line,
};

/// A door: gets the text, panics where something does not hold.
pub type Door = fn(&[u8]);

/// All of them, by the names of the fuzz targets.
pub const DOORS: &[(&str, Door)] = &[
    ("aws", aws),
    ("azure", azure),
    ("gcp", gcp),
    ("lease", lease),
    ("log_line", log_line),
    ("machine_id", machine_id),
    ("node", node),
    ("object", object),
    ("provider_ids", provider_ids),
    ("quantity", quantity),
    ("settings", settings),
];

/// What the fuzzer makes is any bytes; most doors read text.
pub(crate) fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// Provider IDs, one on each of two lines.
pub fn provider_ids(data: &[u8]) {
    let text = text(data);
    let (one, other) = text.split_once('\n').unwrap_or((&text, &text));
    let (one, other) = (ProviderId::new(one), ProviderId::new(other));
    for id in [&one, &other] {
        let _ = id.unsupported();
        let Some(place) = id.place() else { continue };
        assert!(!place.machine.is_empty(), "{id} names no machine");
        match place.provider {
            Provider::Gcp => assert!(!place.account.is_empty() && place.zone.starts_with(&place.region), "{id}"),
            Provider::Aws => assert!(place.account.is_empty() && place.zone.starts_with(&place.region), "{id}"),
            Provider::Azure => assert!(!place.account.is_empty() && place.region.is_empty(), "{id}"),
        }
        assert_eq!(place.region.is_empty(), place.provider == Provider::Azure, "{id}");
    }
    let equal = one == other;
    assert_eq!(equal, other == one);
    assert_eq!(equal, one.cmp(&other) == Ordering::Equal, "{one} and {other}");
    assert_eq!(one.cmp(&other), other.cmp(&one).reverse());
    if equal {
        assert_eq!(hashed(&one), hashed(&other), "{one} and {other}");
        if let (Some(one), Some(other)) = (one.place(), other.place()) {
            assert!(one.provider == other.provider && one.machine.eq_ignore_ascii_case(&other.machine));
        }
    }
}

fn hashed(id: &ProviderId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// A machine's id, as it stands in status.
pub fn machine_id(data: &[u8]) {
    let text = text(data);
    let Ok(machine) = text.parse::<MachineId>() else { return };
    assert_eq!(machine.to_string(), text);
    assert!(!machine.instance.contains('#'), "an instance's id never has one");
    assert_eq!(machine.to_string().parse::<MachineId>().unwrap(), machine);
}

/// A count or a percentage, as JSON.
pub fn quantity(data: &[u8]) {
    let Ok(quantity) = serde_json::from_slice::<IntOrPercent>(data) else { return };
    let again: IntOrPercent = serde_json::from_value(serde_json::to_value(&quantity).unwrap()).unwrap();
    assert_eq!(quantity, again);
    let _ = quantity.to_string();
    for of in [0, 1, 2, 3, 100, 1024, usize::MAX] {
        let resolved = quantity.resolve(of);
        match &quantity {
            IntOrPercent::Text(_) => assert!(resolved <= of, "{quantity} of {of} is {resolved}"),
            IntOrPercent::Count(count) => assert_eq!(resolved, usize::try_from(*count).unwrap_or(0)),
        }
    }
}

/// A Node, as JSON.
pub fn node(data: &[u8]) {
    let Ok(node) = serde_json::from_slice::<SlimNode>(data) else { return };
    let _ = (node.place(), node.location(), node.unsupported(), node.zone(), node.instance(), node.control_plane());
    let _ = (node.cordoned(), node.deleting(), node.out_of_service(), node.may_end_soon(), node.not_ready_since());
    let _ = (node.disrupted(&["a".to_owned()]), node.labels_for("a", "203.0.113.7"));
    anothers_taints_stay(&node);
    let own = node.metadata.labels.clone().unwrap_or_default();
    assert!(own.is_empty() || node.matches(&own), "a node has all labels that it has");
}

/// Whatever we make of a node's taints, those of others are among them as they were.
fn anothers_taints_stay(node: &SlimNode) {
    let taint =
        || AppliedTaint { key: "example.com/no-address".to_owned(), value: None, effect: "NoSchedule".to_owned() };
    let mut object = NetIPAllocation::new("a", NetIPAllocationSpec::default());
    object.status = Some(NetIPAllocationStatus { node_taint: Some(taint()), ..NetIPAllocationStatus::default() });
    let ours = taint();
    let Some(becomes) = NodeTaints::of([&object]).on(node) else { return };
    for known in node.spec.taints.iter().flatten() {
        let is_ours = known.key == ours.key && known.effect == ours.effect;
        assert!(is_ours || becomes.contains(known), "{known:?} is not in {becomes:?}");
    }
}

/// A NetIPAllocation with spec, status and annotations, as JSON.
pub fn object(data: &[u8]) {
    let Ok(object) = serde_json::from_slice::<NetIPAllocation>(data) else { return };
    if text(data).contains("\"-00") {
        // A year before 0: read by our library, written by none that the API server reads.
        return;
    }
    let written = serde_json::to_value(&object).unwrap();
    assert_eq!(serde_json::from_value::<NetIPAllocation>(written).unwrap(), object, "written and read again");

    let (listed, unusable) = claims::listed(&object);
    assert_eq!(listed.len() + unusable.len(), object.spec.reserved_ips.len());
    assert!(listed.iter().all(|ip| ip.is_ipv4()));
    let selection = Selection::of(&object, None);
    let claims = Claims::of([&object]);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    assert!(selection.wanted().into_iter().all(|ip| claims.claim(ip, &uid) == Claim::Ours), "nobody else is there");
    if let Some((ip, node)) = observe::requested::requested_move(&object) {
        let _ = (ip, node);
    }
    let _ = observe::scope(&object.spec, &[], Vec::new);

    let status = object.status.clone().unwrap_or_default();
    for stored in status.owed.iter().filter_map(memory::read_owed) {
        assert_eq!(memory::read_owed(&memory::write_owed(&stored)).as_ref(), Some(&stored));
        for now in CLOCKS {
            let _ = owed::next(&stored, now, false, false, uuid::Uuid::nil(), now);
        }
    }
    let mut known = Vec::new();
    for stored in &status.addresses {
        match memory::read(stored) {
            Stored::Foreign(kept) => assert_eq!(*kept, *stored, "what is not understood is kept as it is"),
            Stored::Known(entry) => {
                let written = memory::write(&entry);
                let Stored::Known(again) = memory::read(&written) else {
                    panic!("{written:?} is not understood again")
                };
                assert_eq!(memory::write(&again), written, "written, read and written again");
                assert!(again.message.chars().count() <= 1024);
                decided(&entry, &object);
                known.push(*entry);
            }
        }
    }
    told(&object, &known);
}

/// Long before, now, and long after everything that status may name.
const CLOCKS: [Timestamp; 3] = [Timestamp::MIN, Timestamp::constant(1_800_000_000, 0), Timestamp::MAX];

/// The machine runs on whatever stood in status: it moves along its edges or waits, and never panics.
fn decided(entry: &Entry, object: &NetIPAllocation) {
    let machine = entry.machine.clone();
    let place = machine.as_ref().map_or(Whereabouts::Free, |machine| Whereabouts::On(machine.place.clone()));
    let reads = [
        Whereabouts::Awaited,
        Whereabouts::Unknown("away".to_owned()),
        Whereabouts::Free,
        Whereabouts::NotFound,
        place,
    ];
    for now in CLOCKS {
        for read in &reads {
            for (mode, wanted) in [(Mode::Enforce, Wanted::Yes), (Mode::Hold, Wanted::RemovedFromSpec)] {
                for lost in [false, true] {
                    let facts = Facts {
                        mode,
                        wanted,
                        read: Read { place: read.clone(), live: true },
                        holder: entry.node.clone().map(|name| Holder {
                            name,
                            life: if lost { Life::Running } else { Life::Unknown },
                            object: NodeObject::Absent { since: entry.since },
                        }),
                        adoptable: Adoptable::No("nothing".to_owned()),
                        deleting: lost,
                        operation_spent: lost,
                        failure: lost.then(|| Failure {
                            kind: ErrorKind::Unavailable,
                            message: String::new(),
                            attempts: u32::MAX,
                            retry: Timestamp::MAX,
                        }),
                        not_ready_grace: SignedDuration::from_secs(object.spec.failover.not_ready_seconds.into()),
                        left: None,
                        ..Facts::plain(now)
                    };
                    let made = pass::run::<Address>(entry.clone(), &facts);
                    if let pass::End::Refused(why) = made.end {
                        panic!("{why}, from {entry:?}");
                    }
                    let _ = memory::write(&made.entry);
                }
            }
        }
        let moment = Moment { now, instant: Instant::now(), chance: uuid::Uuid::nil() };
        let mut tables = Tables::new(moment.instant);
        round::inherit(&mut tables, object, &moment);
        if let Some(operation) = &entry.operation {
            for provider in [Provider::Gcp, Provider::Aws, Provider::Azure] {
                let _ = observe::dead_at(operation, provider, &moment);
            }
        }
    }
}

/// The status that is made of it, whatever the counts.
fn told(object: &NetIPAllocation, entries: &[Entry]) {
    for now in CLOCKS {
        let facts: Vec<Facts> = entries.iter().map(|_| Facts::plain(now)).collect();
        let selection = Selection::of(object, None);
        let status = conditions::status(&Picture {
            object,
            entries,
            facts: &facts,
            foreign: &[],
            unusable: &selection.unusable,
            held: None,
            owed: &[],
            node_taint: None,
            plan: &Plan::default(),
            workload: &Workload::Unnamed,
            cloud_error: None,
            scope_error: None,
            surveyed: true,
            blind: false,
            terminating: false,
            now,
        });
        assert!(status.attached_count >= 0 && status.required_count >= 0 && status.unattached_count >= 0);
        assert_eq!(status.conditions.first().map(|condition| condition.type_.as_str()), Some("Ready"));
    }
}

/// A variable by its number, and what it is set to; by the environment, and by the flag of its name.
pub fn settings(data: &[u8]) {
    let Some((which, value)) = data.split_first() else { return };
    let variable = settings::VARIABLES[usize::from(*which) % settings::VARIABLES.len()];
    let value = text(value).into_owned();
    if value.contains('\0') {
        // No environment can hold it.
        return;
    }
    let program = || OsString::from("ip-address-controller");
    let by_environment = Command::parse_from([program()], |name| (name == variable).then(|| OsString::from(&value)));
    let flag = format!("--{}={value}", variable.to_lowercase().replace('_', "-"));
    let by_flag = Command::parse_from([program(), OsString::from(flag)], |_| None);
    for parsed in [&by_environment, &by_flag] {
        match parsed {
            Ok(Command::Run(settings)) => {
                assert!(settings.mutation_timeout() <= settings.lease_duration / 3);
                assert!(settings.lease_skew * 2 < settings.lease_duration);
                assert!(settings.lease_duration <= Duration::from_secs(86_400));
                assert_ne!(settings.health_port, settings.metrics_port);
                assert!(settings.cloud_qps > 0.0 && settings.cloud_burst > 0);
                assert!(!settings.disruption_taints.is_empty());
                let free = [&settings.cluster_name, &settings.pod_uid, &Some(settings.controller_version.clone())];
                assert!(!free.into_iter().flatten().any(|text| text.contains(char::is_control)), "{settings:?}");
            }
            Ok(other) => panic!("{variable}={value:?} makes {other:?}"),
            Err(error @ SettingsError::Value { variable: said, .. }) => {
                assert!(error.to_string().lines().count() == 1, "{error}");
                assert_eq!(*said, variable, "{error}");
            }
            Err(error) => panic!("{variable}={value:?}: {error}"),
        }
    }
    assert_eq!(by_environment, by_flag, "flag and variable mean the same");
}
