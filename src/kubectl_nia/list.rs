//! `kubectl nia`: every address of every allocation, one line each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Serialize;

use super::table::{Cell, Paint, Tone, age, clock, lines, tone};
use crate::api::{LastMove, NetIPAllocation};

/// Where there is nothing to show.
pub const NOTHING: &str = "No NetIPAllocation names an address.";

/// One address of one allocation, as it is shown and as `-o json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub address: String,
    pub allocation: String,
    /// Absent while no operator has looked at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_move: Option<LastMove>,
}

/// What `-o json` and `-o yaml` print.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    pub addresses: &'a [Row],
}

/// The rows of an allocation: what status says, and what the spec asks for beside it. By address.
pub fn rows(object: &NetIPAllocation) -> Vec<Row> {
    let allocation = object.name_any();
    let mut rows: BTreeMap<(Option<IpAddr>, String), Row> = BTreeMap::new();
    for stored in object.status.iter().flat_map(|status| &status.addresses) {
        let row = Row {
            address: stored.ip.clone(),
            allocation: allocation.clone(),
            state: Some(stored.state.clone()),
            node: stored.node.clone(),
            since: stored.last_transition_time.clone(),
            reason: stored.reason.clone(),
            message: stored.message.clone().filter(|message| !message.is_empty()),
            planned_node: stored.planned_node.clone(),
            deadline: stored.deadline_time.clone(),
            last_move: stored.last_move.clone(),
        };
        rows.insert((stored.ip.parse().ok(), stored.ip.clone()), row);
    }
    for text in &object.spec.reserved_ips {
        let key = (text.parse().ok(), text.clone());
        rows.entry(key).or_insert_with(|| Row {
            address: text.clone(),
            allocation: allocation.clone(),
            state: None,
            node: None,
            since: None,
            reason: None,
            message: Some("no operator has looked at it yet".to_owned()),
            planned_node: None,
            deadline: None,
            last_move: None,
        });
    }
    rows.into_values().collect()
}

/// The head of the table.
pub fn head(wide: bool) -> Vec<Cell> {
    let always = ["ADDRESS", "NODE", "STATE", "SINCE", "REASON", "ALLOCATION"];
    let more: &[&str] = if wide { &["NEXT", "DEADLINE", "MESSAGE"] } else { &[] };
    always.iter().chain(more).map(|name| Cell::plain(*name)).collect()
}

/// One row of it.
pub fn cells(row: &Row, wide: bool, now: Timestamp) -> Vec<Cell> {
    let state = Cell { tone: row.state.as_deref().map_or(Tone::Plain, tone), ..Cell::of(row.state.as_deref()) };
    let since = row.since.as_ref().map(|since| age(since.0, now));
    let mut cells = vec![
        Cell::plain(&row.address),
        Cell::of(row.node.as_deref()),
        state,
        Cell::of(since.as_deref()),
        Cell::of(row.reason.as_deref()),
        Cell::plain(&row.allocation),
    ];
    if wide {
        let deadline = row.deadline.as_ref().map(|time| clock(time.0));
        cells.push(Cell::of(row.planned_node.as_deref()));
        cells.push(Cell::of(deadline.as_deref()));
        cells.push(Cell::of(row.message.as_deref()));
    }
    cells
}

/// The whole table.
pub fn table(rows: &[Row], wide: bool, now: Timestamp, paint: Paint, widths: &mut Vec<usize>) -> Vec<String> {
    let body = rows.iter().map(|row| cells(row, wide, now));
    let all: Vec<Vec<Cell>> = std::iter::once(head(wide)).chain(body).collect();
    lines(&all, widths, paint)
}

/// What was shown last, so that only news are shown after it.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<String, Vec<Row>>);

impl Shown {
    /// Of the allocations that were shown.
    pub fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// The rows that are new or changed in this version of an allocation; `None` when it is gone.
    pub fn news(&mut self, name: &str, rows: Option<Vec<Row>>) -> Vec<Row> {
        let before = self.0.remove(name).unwrap_or_default();
        let rows = rows.unwrap_or_default();
        let mut news: Vec<Row> = rows.iter().filter(|row| !before.contains(row)).cloned().collect();
        let gone = before.into_iter().filter(|old| rows.iter().all(|row| row.address != old.address));
        news.extend(gone.map(|row| Row {
            state: Some("Gone".to_owned()),
            node: None,
            reason: None,
            message: None,
            ..row
        }));
        if !rows.is_empty() {
            self.0.insert(name.to_owned(), rows);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{AddressStatus, NetIPAllocationSpec, NetIPAllocationStatus},
        kubectl_nia::samples::{at, object},
    };

    fn voip() -> NetIPAllocation {
        let mut object = object("voip", &["203.0.113.10", "203.0.113.9"]);
        let attached = AddressStatus {
            ip: "203.0.113.9".to_owned(),
            state: "Attached".to_owned(),
            reason: Some("Verified".to_owned()),
            node: Some("node-a".to_owned()),
            last_transition_time: Some(Time(at(0))),
            ..AddressStatus::default()
        };
        object.status = Some(NetIPAllocationStatus { addresses: vec![attached], ..NetIPAllocationStatus::default() });
        object
    }

    #[test]
    fn each_address_of_spec_and_status_is_one_line_in_the_order_of_numbers() {
        let rows = rows(&voip());
        let told = table(&rows, false, at(65), Paint(false), &mut Vec::new());
        assert_eq!(
            told,
            [
                "ADDRESS        NODE     STATE      SINCE   REASON     ALLOCATION",
                "203.0.113.9    node-a   Attached   65s     Verified   voip",
                "203.0.113.10   -        -          -       -          voip",
            ]
        );
        let wide = table(&rows, true, at(65), Paint(false), &mut Vec::new());
        assert!(wide[0].ends_with("MESSAGE") && wide[2].ends_with("no operator has looked at it yet"), "{wide:?}");
        let coloured = table(&rows, false, at(65), Paint(true), &mut Vec::new());
        assert!(coloured[1].contains("\x1b[32mAttached\x1b[0m") && !coloured[2].contains('\x1b'), "{coloured:?}");
    }

    #[test]
    fn json_has_what_is_known_and_nothing_else() {
        let document = serde_json::to_value(Document { addresses: &rows(&voip()) }).unwrap();
        let [first, second] = [&document["addresses"][0], &document["addresses"][1]];
        assert_eq!((&first["node"], &first["state"]), (&"node-a".into(), &"Attached".into()));
        assert!(first["since"].is_string() && second.get("state").is_none(), "{document}");
    }

    #[test]
    fn after_the_first_table_only_news_are_shown() {
        let mut shown = Shown::default();
        let first = rows(&voip());
        assert_eq!(shown.news("voip", Some(first.clone())), first);
        assert!(shown.news("voip", Some(first.clone())).is_empty());
        let mut moved = voip();
        moved.status.as_mut().unwrap().addresses[0].state = "Draining".to_owned();
        let news = shown.news("voip", Some(rows(&moved)));
        assert_eq!(news.iter().map(|row| row.address.as_str()).collect::<Vec<_>>(), ["203.0.113.9"]);
        moved.spec = NetIPAllocationSpec { reserved_ips: vec!["203.0.113.9".to_owned()], ..moved.spec };
        let news = shown.news("voip", Some(rows(&moved)));
        assert_eq!((news[0].address.as_str(), news[0].state.as_deref()), ("203.0.113.10", Some("Gone")));
        let news = shown.news("voip", None);
        assert_eq!(news.len(), 1, "{news:?}");
    }
}
