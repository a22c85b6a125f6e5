//! `kubectl nia history [IP]`: last moves and events in the order of time. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;

use super::{
    refusal::Refusal,
    table::{Cell, Paint, Tone, clock, lines},
    why,
};
use crate::api::NetIPAllocation;

/// The last moves of the addresses and what was said of them. `events`: or why there are none to see.
pub fn told(
    allocations: &[NetIPAllocation],
    events: Result<&[Event], &Refusal>,
    ip: Option<IpAddr>,
    paint: Paint,
) -> Vec<String> {
    let mut rows: Vec<(Timestamp, Vec<Cell>)> = Vec::new();
    for object in allocations {
        for entry in object.status.iter().flat_map(|status| &status.addresses) {
            let Some(moved) = &entry.last_move else { continue };
            if ip.is_none_or(|ip| entry.ip.parse() == Ok(ip)) {
                let text = format!("{}: {}", entry.ip, why::last_move(moved));
                rows.push(row(moved.finish_time.0, Cell::plain("LastMove"), &object.name_any(), text));
            }
        }
    }
    for event in events.unwrap_or_default() {
        let Some(when) = when(event) else { continue };
        let text = event.message.clone().unwrap_or_default();
        let action = event.action.clone().unwrap_or_default();
        if ip.is_none_or(|ip| mentions(&text, ip) || mentions(&action, ip)) {
            let tone = if event.type_.as_deref() == Some("Warning") { Tone::Bad } else { Tone::Plain };
            let reason = Cell { text: event.reason.clone().unwrap_or_default(), tone };
            let name = event.involved_object.name.clone().unwrap_or_default();
            rows.push(row(when, reason, &name, text));
        }
    }
    rows.sort_by_key(|(when, _)| *when);
    let mut told = Vec::new();
    if rows.is_empty() {
        told.push(match ip {
            Some(ip) => format!("Nothing is remembered of {ip}: status names no move, and no event is left."),
            None => "Nothing is remembered: status names no move, and no event is left.".to_owned(),
        });
    } else {
        let head = ["TIME", "WHAT", "ALLOCATION", "MESSAGE"].map(Cell::plain).to_vec();
        let all: Vec<Vec<Cell>> = std::iter::once(head).chain(rows.into_iter().map(|(_, row)| row)).collect();
        told.extend(lines(&all, &mut Vec::new(), paint));
    }
    if let Err(refusal) = events {
        told.push(format!("Events are not shown: {refusal}."));
    }
    told
}

/// The newest refusal of a move that the operator has told since, in its words.
pub fn refusal_of_move(events: &[Event], allocation: &str, request: &str, since: Timestamp) -> Option<String> {
    let ours = events.iter().filter(|event| {
        event.reason.as_deref() == Some("MoveRefused")
            && event.involved_object.name.as_deref() == Some(allocation)
            && event.action.as_deref().is_some_and(|action| action.split(' ').next() == Some(request))
    });
    let newest = ours.filter_map(|event| Some((when(event)?, event))).max_by_key(|(when, _)| *when)?;
    (newest.0 >= since).then(|| newest.1.message.clone().unwrap_or_default())
}

fn row(when: Timestamp, what: Cell, allocation: &str, text: String) -> (Timestamp, Vec<Cell>) {
    // An event's note may have lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (when, vec![Cell::plain(clock(when)), what, Cell::of(Some(allocation)), Cell::plain(text)])
}

/// When it was last seen.
fn when(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// The address stands there as a word: 203.0.113.70 does not speak of 203.0.113.7.
fn mentions(text: &str, ip: IpAddr) -> bool {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'));
    words.map(|word| word.trim_matches(['.', ':'])).any(|word| word.parse() == Ok(ip))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::ObjectReference,
        apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    };

    use super::*;
    use crate::{
        api::LastMove,
        kubectl_nia::{
            refusal::EVENTS,
            samples::{at, attach, ip, object},
        },
    };

    fn event(second: i64, reason: &str, action: &str, message: &str) -> Event {
        Event {
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()),
            message: Some(message.to_owned()),
            event_time: Some(MicroTime(at(second))),
            involved_object: ObjectReference { name: Some("voip".to_owned()), ..ObjectReference::default() },
            ..Event::default()
        }
    }

    fn voip() -> NetIPAllocation {
        let mut voip = object("voip", &["203.0.113.7"]);
        attach(&mut voip, "203.0.113.7", "node-b");
        voip.status.as_mut().unwrap().addresses[0].last_move = Some(LastMove {
            from_node: Some("node-a".to_owned()),
            to_node: Some("node-b".to_owned()),
            reason: "NodeCordoned".to_owned(),
            start_time: Time(at(10)),
            finish_time: Time(at(20)),
            gap_seconds: Some(2),
            trace_id: None,
        });
        voip
    }

    #[test]
    fn moves_and_events_of_one_address_stand_in_the_order_of_time() {
        let events = [
            event(30, "NodeLabeled", "203.0.113.7 0af7", "node node-b carries ip.ready for 203.0.113.7"),
            event(11, "IPDraining", "203.0.113.7 0af7", "203.0.113.7 is to leave node node-a:\nNodeCordoned"),
            event(12, "IPDraining", "203.0.113.70", "203.0.113.70 is to leave node node-a"),
        ];
        let told = told(&[voip()], Ok(&events), Some(ip("203.0.113.7")), Paint(false));
        let whats: Vec<&str> = told.iter().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(whats, ["IPDraining", "LastMove", "NodeLabeled"], "{told:#?}");
        assert!(told[1].ends_with("node-a: NodeCordoned"), "one line each: {told:?}");
    }

    #[test]
    fn whoever_may_not_see_events_sees_the_moves_and_what_is_missing() {
        let refusal = Refusal::forbidden("list", &EVENTS);
        let told = told(&[voip()], Err(&refusal), None, Paint(false)).join("\n");
        assert!(
            told.contains("moved from node node-a to node node-b") && told.contains("you may not list events"),
            "{told}"
        );
    }

    #[test]
    fn the_refusal_of_this_very_move_is_found() {
        let events = [
            event(5, "MoveRefused", "203.0.113.7=node-b", "an old one"),
            event(15, "MoveRefused", "203.0.113.8", "another address"),
            event(16, "MoveRefused", "203.0.113.7=node-b 0af7", "203.0.113.7 is on node node-b already"),
        ];
        let found = |request, since| refusal_of_move(&events, "voip", request, at(since));
        assert_eq!(found("203.0.113.7=node-b", 10).as_deref(), Some("203.0.113.7 is on node node-b already"));
        assert_eq!(found("203.0.113.7=node-b", 17), None);
        assert_eq!(found("203.0.113.7", 0), None);
    }
}
