//! What waits for the next status write, and what does not (`docs/decisions/0009-what-waits-for-the-next-status-write.md`).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::cloud::{Provider, limits::Rate};
use serde_json::json;

use crate::cosmos::{
    beats::Beats,
    cloud::Slot,
    course::{Cosmos, Outside},
    process::Rules,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Whether status says that a machine is owed the address that it had before.
fn owes(cosmos: &Cosmos) -> bool {
    cosmos.cluster.allocations()["red"].status.as_ref().is_some_and(|status| !status.owed.is_empty())
}

/// Until it is attached to another node than this one; the status writes that took.
fn writes_until_moved(beats: &mut Beats, node: &str) -> usize {
    let before = beats.cosmos.journal.looks.len();
    let left = [node.to_owned()].into();
    beats.until(LIMIT, |cosmos| cosmos.is_attached("red", &left)).unwrap();
    beats.cosmos.journal.looks[before..].iter().filter(|look| look.wrote).count()
}

#[test]
fn what_is_found_out_of_an_address_on_its_way_to_its_first_node_is_written_with_its_intent() {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    cosmos.pace = Rate::new(20.0, 100).ok();
    for node in ["node-a", "node-b", "node-c"] {
        cosmos.node(node, true);
    }
    cosmos.allocate("red", &[7, 8].map(|last| IpAddr::from([203, 0, 113, last])), json!({}));
    let mut beats = Beats::new(cosmos, Duration::from_millis(100));
    let states = |cosmos: &Cosmos| {
        let status = cosmos.cluster.allocations()["red"].status.clone().unwrap_or_default();
        status.addresses.into_iter().map(|address| address.state).collect::<Vec<_>>()
    };
    beats.until(LIMIT, |cosmos| states(cosmos) == ["Attaching", "Attaching"]).unwrap();
    // That nothing is known yet, and the intents: not that the cloud has answered, and that permits are asked for.
    let writes = beats.cosmos.journal.looks.iter().filter(|look| look.wrote).count();
    assert_eq!(writes, 2, "{}", beats.picture());
    beats.rests().unwrap();
}

#[test]
fn a_failover_is_not_held_up_by_a_paid_debt_that_is_not_written_yet() {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    // What a machine is owed waits for tokens that the attach has taken.
    cosmos.pace = Rate::new(1.0, 12).ok();
    cosmos.allocate("red", &[IpAddr::from([203, 0, 113, 7])], json!({}));
    for node in ["node-a", "node-b", "node-c"] {
        cosmos.node(node, true);
    }
    let mut beats = Beats::new(cosmos, Duration::from_millis(100));
    beats.until(LIMIT, |cosmos| cosmos.is_attached("red", &[].into())).unwrap();
    beats.rests().unwrap();

    let drained = beats.cosmos.nodes_of("red")[0].clone();
    beats.outside(Outside::Cordon(drained.clone()));
    writes_until_moved(&mut beats, &drained);
    // The machine has its own address back, which is written with what is written next; and there are tokens again.
    beats.run(Duration::from_secs(20)).unwrap();
    let place = beats.cosmos.place(&drained).unwrap();
    assert_eq!(beats.cosmos.cloud.machine(place).unwrap().slot, Slot::Own);
    assert!(owes(&beats.cosmos), "it is written already: this shows nothing");

    let lost = beats.cosmos.nodes_of("red")[0].clone();
    beats.outside(Outside::VanishMachine(lost.clone()));
    beats.outside(Outside::DeleteNode(lost.clone()));
    // That it has left, the intent to attach, that it is attached; before its machine is known to be gone nothing.
    assert_eq!(writes_until_moved(&mut beats, &lost), 3, "{}", beats.picture());
    beats.run(Duration::from_secs(60)).unwrap();
    assert!(!owes(&beats.cosmos), "{}", beats.picture());
}
