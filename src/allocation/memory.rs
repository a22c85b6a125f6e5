//! Status ↔ entries: what the machine remembers, as the API server keeps it. No logic beyond translation.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use super::decide::{
    facts::{Entry, Journey, Operation, OperationKind},
    state::{Reason, State},
};
use crate::{
    api::{AddressStatus, LastMove, NetIPAllocation, OperationStatus, OwedStatus, RestoreStatus},
    cloud::{MachineId, Own, ProviderId},
};

/// What stands in `status.addresses` for one address.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Understood.
    Known(Box<Entry>),
    /// Written by a newer version, or by hand: kept as it is, and nothing is begun for its address.
    Foreign(Box<AddressStatus>),
}

/// A debt to a machine that had an external address of its own before us.
#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    pub machine: MachineId,
    pub node: String,
    pub own: Own,
    /// The running attempt, and the instant after which nothing of it may be sent.
    pub attempt: Option<(Uuid, Timestamp)>,
    pub retry: Option<Timestamp>,
}

/// Reads an entry of status.
pub fn read(status: &AddressStatus) -> Stored {
    understand(status).map_or_else(|| Stored::Foreign(Box::new(status.clone())), |entry| Stored::Known(Box::new(entry)))
}

/// The state of an entry: all that other allocations go by. `None` for what [`read`] takes for foreign.
pub fn standing(status: &AddressStatus) -> Option<State> {
    bearings(status).map(|(_, state, ..)| state)
}

/// What has to be understood of an entry, or none of it is.
fn bearings(status: &AddressStatus) -> Option<(IpAddr, State, Option<MachineId>, Option<Operation>)> {
    let operation = match &status.operation {
        Some(operation) => Some(read_operation(operation)?),
        None => None,
    };
    let state = match (status.state.as_str(), operation.as_ref().map(|operation| operation.kind)) {
        ("Unassigned", None) => State::Unassigned,
        ("Attaching", Some(OperationKind::Attach)) => State::Attaching,
        // With an attach in it: a request of that one may still take effect.
        ("Attached", None | Some(OperationKind::Attach)) => State::Attached,
        ("Draining", None | Some(OperationKind::Attach)) => State::Draining,
        ("Draining", Some(OperationKind::Detach)) => State::Releasing,
        ("Detached", None) => State::Detached,
        _ => return None,
    };
    let machine = match &status.machine_id {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    let holds = !matches!(state, State::Unassigned | State::Detached);
    if holds && (machine.is_none() || status.node.is_none()) {
        return None;
    }
    Some((status.ip.parse().ok()?, state, machine, operation))
}

fn understand(status: &AddressStatus) -> Option<Entry> {
    let (ip, state, machine, operation) = bearings(status)?;
    Some(Entry {
        ip,
        state,
        reason: status.reason.as_deref().and_then(Reason::parse).unwrap_or(Reason::Pending),
        message: status.message.clone().unwrap_or_default(),
        node: status.node.clone(),
        machine,
        since: status.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        planned_node: status.planned_node.clone(),
        deadline: status.deadline_time.as_ref().map(|time| time.0),
        restore: status.restore.as_ref().filter(|restore| restore.external_ip).map(|restore| Own {
            network_tier: restore.network_tier.clone(),
            public_ptr_domain_name: restore.public_ptr_domain_name.clone(),
        }),
        operation,
        last_move: status.last_move.as_ref().map(read_move),
    })
}

fn read_operation(status: &OperationStatus) -> Option<Operation> {
    Some(Operation {
        id: status.id.parse().ok()?,
        kind: match status.type_.as_str() {
            "Attach" => OperationKind::Attach,
            "Detach" => OperationKind::Detach,
            _ => return None,
        },
        start: status.start_time.0,
        send_before: status.send_before_time.as_ref()?.0,
        attempts: u32::try_from(status.attempts).unwrap_or_default(),
        traceparent: status.traceparent.clone(),
    })
}

fn read_move(status: &LastMove) -> Journey {
    Journey {
        from: status.from_node.clone(),
        to: status.to_node.clone(),
        reason: status.reason.clone(),
        start: status.start_time.0,
        finish: status.finish_time.0,
        gap: status.gap_seconds.map(|seconds| SignedDuration::from_secs(seconds.into())),
        trace_id: status.trace_id.clone(),
    }
}

/// Writes an entry into status.
pub fn write(entry: &Entry) -> AddressStatus {
    AddressStatus {
        ip: entry.ip.to_string(),
        state: entry.state.shown().to_owned(),
        reason: Some(entry.reason.as_str().to_owned()),
        message: Some(clip(&entry.message, 1024)).filter(|message| !message.is_empty()),
        node: entry.node.clone(),
        machine_id: entry.machine.as_ref().map(ToString::to_string),
        last_transition_time: Some(Time(entry.since)),
        planned_node: entry.planned_node.clone(),
        deadline_time: entry.deadline.map(Time),
        restore: entry.restore.as_ref().map(|own| RestoreStatus {
            external_ip: true,
            network_tier: own.network_tier.clone(),
            public_ptr_domain_name: own.public_ptr_domain_name.clone(),
        }),
        operation: entry.operation.as_ref().map(|operation| OperationStatus {
            id: operation.id.to_string(),
            type_: match operation.kind {
                OperationKind::Attach => "Attach".to_owned(),
                OperationKind::Detach => "Detach".to_owned(),
            },
            start_time: Time(operation.start),
            send_before_time: Some(Time(operation.send_before)),
            attempts: i32::try_from(operation.attempts).unwrap_or(i32::MAX),
            retry_time: None,
            traceparent: operation.traceparent.clone(),
        }),
        last_move: entry.last_move.as_ref().map(|journey| LastMove {
            from_node: journey.from.clone(),
            to_node: journey.to.clone(),
            reason: journey.reason.clone(),
            start_time: Time(journey.start),
            finish_time: Time(journey.finish),
            gap_seconds: journey.gap.map(|gap| i32::try_from(gap.as_secs().max(0)).unwrap_or(i32::MAX)),
            trace_id: journey.trace_id.clone(),
        }),
    }
}

/// Reads a debt; `None` for a machine id that nobody can read, which is nobody's to pay.
pub fn read_owed(status: &OwedStatus) -> Option<Owed> {
    let attempt = match (&status.operation_id, &status.send_before_time) {
        (Some(id), Some(before)) => id.parse().ok().map(|id| (id, before.0)),
        _ => None,
    };
    Some(Owed {
        machine: status.machine_id.parse().ok()?,
        node: status.node.clone(),
        own: Own {
            network_tier: status.network_tier.clone(),
            public_ptr_domain_name: status.public_ptr_domain_name.clone(),
        },
        attempt,
        retry: status.retry_time.as_ref().map(|time| time.0),
    })
}

/// Writes a debt into status.
pub fn write_owed(owed: &Owed) -> OwedStatus {
    OwedStatus {
        machine_id: owed.machine.to_string(),
        node: owed.node.clone(),
        network_tier: owed.own.network_tier.clone(),
        public_ptr_domain_name: owed.own.public_ptr_domain_name.clone(),
        operation_id: owed.attempt.map(|(id, _)| id.to_string()),
        send_before_time: owed.attempt.map(|(_, before)| Time(before)),
        retry_time: owed.retry.map(Time),
    }
}

/// The machines that status names.
pub fn held_places(object: &NetIPAllocation) -> Vec<ProviderId> {
    let status = object.status.iter();
    let held = status.clone().flat_map(|status| &status.addresses).filter_map(|stored| match read(stored) {
        Stored::Known(entry) => Some(entry.machine?.place),
        Stored::Foreign(_) => None,
    });
    let owed = status.flat_map(|status| &status.owed).filter_map(|owed| Some(read_owed(owed)?.machine.place));
    held.chain(owed).collect()
}

/// At most `most` characters, on a character's border.
pub fn clip(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { text.chars().take(most).collect() }
}

/// Status keeps whole seconds; an instant that must not be exceeded is cut down, never rounded up.
pub fn whole_seconds(then: Timestamp) -> Timestamp {
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).unwrap();
        Entry {
            state: State::Releasing,
            reason: Reason::NodeCordoned,
            message: "is being taken off".into(),
            node: Some("a".into()),
            machine: Some("gce://p/us-west1-a/a#17".parse().unwrap()),
            planned_node: Some("b".into()),
            deadline: Some(at(60)),
            restore: Some(Own { network_tier: Some("PREMIUM".into()), public_ptr_domain_name: None }),
            operation: Some(Operation {
                id: Uuid::from_u128(7),
                kind: OperationKind::Detach,
                start: at(1),
                send_before: at(61),
                attempts: 2,
                traceparent: Some("00-aa-bb-01".into()),
            }),
            last_move: Some(Journey {
                from: None,
                to: Some("a".into()),
                reason: "Attaching".into(),
                start: at(0),
                finish: at(1),
                gap: Some(SignedDuration::from_secs(3)),
                trace_id: None,
            }),
            ..Entry::new("203.0.113.7".parse().unwrap(), at(0))
        }
    }

    #[test]
    fn an_entry_survives_status() {
        assert_eq!(read(&write(&entry())), Stored::Known(Box::new(entry())));
        assert_eq!(write(&entry()).state, "Draining", "two phases, one word");
        assert_eq!(standing(&write(&entry())), Some(State::Releasing));
    }

    #[test]
    fn what_is_not_understood_is_kept_as_it_is() {
        for spoil in [
            |s: &mut AddressStatus| s.state = "Parking".into(),
            |s: &mut AddressStatus| s.machine_id = Some("nonsense".into()),
            |s: &mut AddressStatus| s.node = None,
            |s: &mut AddressStatus| s.ip = "nonsense".into(),
            |s: &mut AddressStatus| s.operation.as_mut().unwrap().type_ = "Juggle".into(),
        ] {
            let mut status = write(&entry());
            spoil(&mut status);
            assert_eq!(standing(&status), None);
            assert_eq!(read(&status), Stored::Foreign(Box::new(status)));
        }
    }

    #[test]
    fn a_debt_survives_status() {
        let owed = Owed {
            machine: "gce://p/us-west1-a/a#17".parse().unwrap(),
            node: "a".into(),
            own: Own { network_tier: Some("STANDARD".into()), public_ptr_domain_name: Some("a.example.".into()) },
            attempt: Some((Uuid::from_u128(9), Timestamp::from_second(1_800_000_000).unwrap())),
            retry: None,
        };
        assert_eq!(read_owed(&write_owed(&owed)), Some(owed));
    }
}
