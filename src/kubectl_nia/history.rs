//! `kubectl nia history [IP]`: last moves and events in the order of time. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;

use super::{
    refusal::{Refusal, one_line},
    table::{Cell, Paint, Tone, clock, lines},
    why,
};
use crate::{allocation::memory::clip, api::NetIPAllocation};

/// The operator's word for a request is cut to so many characters in the action of its events.
const WORD: usize = 64;

/// The last moves of the addresses and what was said of them. `events`: or why there are none to see.
///
/// # Errors
/// The address is no allocation's, and no event remembers it either.
pub fn told(
    allocations: &[NetIPAllocation],
    events: Result<&[Event], &Refusal>,
    ip: Option<IpAddr>,
    paint: Paint,
) -> Result<Vec<String>, Refusal> {
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
    // One that was taken out, or whose allocation is gone, has a history all the same.
    if let (Some(ip), true, Ok(_)) = (ip, rows.is_empty(), events) {
        why::find(allocations, ip)?;
    }
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
    Ok(told)
}

/// What the operator has said to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub accepted: bool,
    /// In its words.
    pub note: String,
}

/// The answer to the request with this text that has made `version` of the allocation: the first one that the operator has
/// given to that version or a later one.
pub fn answer(events: &[Event], allocation: &str, text: &str, version: &str) -> Option<Answer> {
    let asked = clip(text, WORD);
    let ours = events.iter().filter(|event| event.involved_object.name.as_deref() == Some(allocation));
    let answers = ours.filter_map(|event| {
        let accepted = match event.reason.as_deref()? {
            "MoveAccepted" => true,
            "MoveRefused" => false,
            _ => return None,
        };
        // `IP=NODE of VERSION`, and the trace.
        let mut words = event.action.as_deref()?.split(' ');
        let (word, of) = (words.next()?, words.nth(1)?);
        let note = one_line(event.message.as_deref().unwrap_or_default());
        (word == asked && !is_before(of, version)).then(|| (of.parse::<u64>().ok(), Answer { accepted, note }))
    });
    answers.min_by_key(|(of, _)| *of).map(|(_, answer)| answer)
}

/// Versions are numbers that grow. One that is none is only itself.
fn is_before(of: &str, version: &str) -> bool {
    match (of.parse::<u64>(), version.parse::<u64>()) {
        (Ok(of), Ok(version)) => of < version,
        _ => of != version,
    }
}

fn row(when: Timestamp, what: Cell, allocation: &str, text: String) -> (Timestamp, Vec<Cell>) {
    (when, vec![Cell::plain(clock(when)), what, Cell::of(Some(allocation)), Cell::plain(one_line(&text))])
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
            refusal::{EVENTS, Exit},
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
        let told = told(&[voip()], Ok(&events), Some(ip("203.0.113.7")), Paint(false)).unwrap();
        let whats: Vec<&str> = told.iter().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(whats, ["IPDraining", "LastMove", "NodeLabeled"], "{told:#?}");
        assert!(told[1].ends_with("node-a: NodeCordoned"), "one line each: {told:?}");
    }

    #[test]
    fn whoever_may_not_see_events_sees_the_moves_and_what_is_missing() {
        let refusal = Refusal::forbidden("list", &EVENTS);
        let told = told(&[voip()], Err(&refusal), None, Paint(false)).unwrap().join("\n");
        assert!(
            told.contains("moved from node node-a to node node-b") && told.contains("you may not list events"),
            "{told}"
        );
    }

    #[test]
    fn an_address_that_is_gone_has_a_history_while_events_remember_it() {
        let gone = Some(ip("203.0.113.99"));
        let events = [event(5, "IPDetached", "203.0.113.99", "203.0.113.99 is off node node-a")];
        let shown = told(&[voip()], Ok(&events), gone, Paint(false)).unwrap().join("\n");
        assert!(shown.contains("is off node node-a"), "{shown}");
        assert_eq!(told(&[voip()], Ok(&[]), gone, Paint(false)).unwrap_err().exit, Exit::Unknown);
        let unseen = Refusal::forbidden("list", &EVENTS);
        let shown = told(&[voip()], Err(&unseen), gone, Paint(false)).unwrap().join("\n");
        assert!(shown.contains("Events are not shown"), "what cannot be seen is not denied: {shown}");
    }

    #[test]
    fn the_answer_to_this_very_request_is_found() {
        let events = [
            event(15, "MoveRefused", "203.0.113.7=node-b of 100", "an old one"),
            event(16, "MoveRefused", "203.0.113.8 of 110", "another address"),
            event(17, "MoveRefused", "203.0.113.7=node-b of 120 0af7", "is on node node-b already\ntrace=0af7"),
            event(18, "MoveAccepted", "203.0.113.7=node-b of 130", "a later one"),
        ];
        let found = |text: &str, version: &str| answer(&events, "voip", text, version);
        let refused = Answer { accepted: false, note: "is on node node-b already trace=0af7".to_owned() };
        assert_eq!(found("203.0.113.7=node-b", "101"), Some(refused.clone()));
        assert_eq!(found("203.0.113.7=node-b", "120"), Some(refused));
        assert!(found("203.0.113.7=node-b", "121").is_some_and(|answer| answer.accepted));
        assert_eq!(found("203.0.113.7=node-b", "131"), None);
        assert_eq!(found("203.0.113.7", "1"), None);
        assert_eq!(answer(&events, "fax", "203.0.113.7=node-b", "1"), None);
    }

    #[test]
    fn the_answer_is_found_for_a_node_with_a_long_name() {
        let text = format!("203.0.113.7=ip-10-0-0-1.{}.compute.internal", "eu-central-1".repeat(4));
        let action = format!("{} of 120", clip(&text, WORD));
        let events = [event(15, "MoveRefused", &action, "no")];
        assert!(text.len() > WORD && answer(&events, "voip", &text, "120").is_some(), "{action}");
    }
}
