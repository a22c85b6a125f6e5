//! The worlds that are searched: small enough to be searched to the end, or as far as a limit.
//!
//! `STATES=1000000` moves the limit, `TELLS=1` tells each level.

use std::{net::IpAddr, time::Instant};

use ip_address_controller::{api::Mode, cloud::Provider};
use serde_json::json;

use super::{Budget, Event, Model};
use crate::{
    cosmos::{
        course::{Cosmos, Outside},
        errand,
        process::Rules,
    },
    search::{Limits, Report, search},
};

pub fn ip(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

/// The rules that ship; a closing read is looked at once, and nothing is written for people.
pub fn rules() -> Rules {
    Rules { calls: errand::Rules { looks: 1, ..errand::Rules::default() }, tells: false, ..Rules::default() }
}

/// Nodes in one pool and allocations of so many addresses, before anybody leads.
pub fn world(kind: Provider, rules: Rules, nodes: &[&str], allocations: &[(&str, &[u8])], leaders: u8) -> Cosmos {
    let mut cosmos = Cosmos::new(kind, leaders, rules, Instant::now());
    cosmos.cloud.lagging = kind == Provider::Aws;
    for node in nodes {
        cosmos.node(node, kind != Provider::Azure);
    }
    for (name, ips) in allocations {
        let ips: Vec<IpAddr> = ips.iter().map(|last| ip(*last)).collect();
        // Surveyed within every short wait.
        cosmos.allocate(name, &ips, json!({"reconcileInterval": 15}));
    }
    cosmos.cloud.catch_up();
    cosmos
}

/// The limit that `make model` or somebody else asks for.
fn asked() -> Option<usize> {
    std::env::var("STATES").ok().and_then(|text| text.parse().ok())
}

/// How far a world is searched that is too large for CI.
fn limits() -> Limits {
    let states = asked().unwrap_or(25_000);
    Limits { states, tells: std::env::var_os("TELLS").is_some(), ..Limits::default() }
}

pub fn searched(name: &str, model: &Model, limits: Limits) -> Report<Event> {
    let began = Instant::now();
    let report = search(model, limits);
    println!("{name}: {:.1} s, {report}", began.elapsed().as_secs_f64());
    report
}

/// Searched to the end.
fn everywhere(name: &str, kind: Provider, model: &Model) {
    let limits = Limits { states: 1_000_000, ..limits() };
    searched(&format!("{name}, {kind}"), model, limits).must_hold_everywhere();
}

/// Every cloud, or the one that `MODEL_CLOUD` names.
fn clouds() -> Vec<Provider> {
    let asked = std::env::var("MODEL_CLOUD").unwrap_or_default();
    let clouds: Vec<Provider> =
        Provider::ALL.into_iter().filter(|kind| asked.is_empty() || asked == kind.as_str()).collect();
    assert!(!clouds.is_empty(), "MODEL_CLOUD={asked}: expected gcp, aws or azure");
    clouds
}

/// Too large for CI: `make model` searches its so many states to the end, whatever the limit.
fn to_the_end_of(states: usize, name: &str, kind: Provider, model: &Model) {
    let limit = asked().map(|limit| limit.max(states + 1));
    let limits = Limits { states: limit.unwrap_or(limits().states), ..limits() };
    let report = searched(&format!("{name}, {kind}"), model, limits);
    if limit.is_some() {
        report.must_hold_everywhere()
    } else {
        report.must_hold()
    };
}

/// Searched as far as the limit.
fn so_far(name: &str, kind: Provider, model: &Model) {
    searched(&format!("{name}, {kind}"), model, limits()).must_hold();
}

pub fn cordons(nodes: &[&str]) -> Vec<Outside> {
    each(nodes, &[Outside::Cordon, Outside::Uncordon])
}

/// Whatever befalls a machine.
fn losses(nodes: &[&str]) -> Vec<Outside> {
    each(
        nodes,
        &[
            Outside::StopMachine,
            Outside::VanishMachine,
            Outside::ReplaceMachine,
            Outside::ReplaceUnderNode,
            Outside::DeleteNode,
            Outside::NotReady,
        ],
    )
}

fn each(nodes: &[&str], what: &[fn(String) -> Outside]) -> Vec<Outside> {
    nodes.iter().flat_map(|node| what.iter().map(|what| what((*node).to_owned()))).collect()
}

/// What a person does to an allocation.
fn orders(name: &str, last: u8) -> Vec<Outside> {
    let name = || name.to_owned();
    vec![
        Outside::Delete(name()),
        Outside::Retain(name()),
        Outside::Remove(name(), ip(last)),
        Outside::RemoveStatus(name()),
        Outside::Mode(name(), Mode::Hold),
        Outside::Move(name(), ip(last)),
    ]
}

#[test]
fn p1_to_p12_nothing_happens() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        everywhere("nothing", kind, &Model::new(cosmos, Budget::default()));
    }
}

#[test]
fn p1_to_p12_one_address_two_nodes_two_edits() {
    for kind in [Provider::Gcp, Provider::Azure] {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        let edits = [cordons(&["a", "b"]), each(&["a", "b"], &[Outside::Deselect, Outside::Select])].concat();
        let budget = Budget { edits: vec![(edits, 2)], short_waits: 1, ..Budget::default() };
        everywhere("two edits", kind, &Model::new(cosmos, budget));
    }
}

#[test]
fn p1_to_p12_its_own_writes_come_back_late() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        let budget = Budget { edits: vec![(cordons(&["a", "b"]), 1)], ..Budget::default() };
        let model = Model { own_writes_show_late: true, ..Model::new(cosmos, budget) };
        everywhere("late watches", kind, &model);
    }
}

#[test]
fn p1_to_p12_one_address_two_nodes_two_leaders_one_take_over() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 2);
        let budget = Budget { take_overs: 1, short_waits: 1, ..Budget::default() };
        everywhere("one take-over", kind, &Model::new(cosmos, budget));
    }
}

#[test]
fn p1_to_p12_one_address_two_nodes_two_leaders_two_edits_one_take_over() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 2);
        let budget = Budget { edits: vec![(cordons(&["a", "b"]), 2)], take_overs: 1, ..Budget::default() };
        let model = Model::new(cosmos, budget);
        let there = model.clone().settled();
        let (name, name_there) =
            ("two edits and one take-over", "two edits and one take-over of an address that is there");
        match kind {
            Provider::Gcp | Provider::Aws => {
                to_the_end_of(620_000, name_there, kind, &there);
                to_the_end_of(1_010_000, name, kind, &model);
            }
            Provider::Azure => {
                everywhere(name_there, kind, &there);
                to_the_end_of(150_000, name, kind, &model);
            }
        }
    }
}

#[test]
fn p1_to_p12_two_allocations_three_nodes_one_crash_one_edit() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b", "c"], &[("red", &[7]), ("blue", &[8])], 1);
        let edits = [cordons(&["a", "b"]), orders("red", 7)].concat();
        let budget = Budget { edits: vec![(edits, 1)], crashes: 1, ..Budget::default() };
        let model = Model::new(cosmos, budget);
        let there = model.clone().settled();
        everywhere("two allocations, one crash, one edit of addresses that are there", kind, &there);
        so_far("two allocations, one crash, one edit", kind, &model);
    }
}

#[test]
fn p1_to_p12_two_allocations_name_one_address() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7]), ("blue", &[7])], 1);
        let copied = [("red", "blue"), ("blue", "red")].map(|(from, to)| Outside::CopyStatus(from.into(), to.into()));
        let edits = [cordons(&["a"]), orders("red", 7), copied.to_vec()].concat();
        let budget = Budget { edits: vec![(edits, 2)], ..Budget::default() };
        so_far("one address in two allocations", kind, &Model::new(cosmos, budget));
    }
}

#[test]
fn p1_to_p12_one_address_three_nodes_one_machine_lost_one_answer_lost() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b", "c"], &[("red", &[7])], 1);
        let edits = vec![(losses(&["a"]), 1)];
        let budget = Budget { edits, lost_answers: 1, short_waits: 1, ..Budget::default() };
        everywhere("one machine and one answer lost", kind, &Model::new(cosmos, budget));
    }
}

#[test]
fn p1_to_p12_two_allocations_two_nodes_one_take_over() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7]), ("blue", &[8])], 2);
        let budget = Budget { take_overs: 1, ..Budget::default() };
        to_the_end_of(230_000, "two allocations, one take-over", kind, &Model::new(cosmos, budget));
    }
}

#[test]
fn p1_to_p12_an_outsider_and_the_scheduler() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        let outsider = vec![
            Outside::OutsiderDetaches(ip(7)),
            Outside::OutsiderAttaches(ip(7), "b".to_owned()),
            Outside::Unlabel("a".to_owned()),
        ];
        let pods = ["a", "b"].map(|node| Outside::StartPod(node.to_owned(), "sip".to_owned())).to_vec();
        let edits = vec![(outsider, 1), (pods, 1), (vec![Outside::Cordon("a".to_owned())], 1)];
        everywhere("an outsider and the scheduler", kind, &Model::new(cosmos, Budget { edits, ..Budget::default() }));
    }
}

#[test]
fn p1_to_p12_a_person_gives_orders() {
    for kind in clouds() {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        let edits = vec![(orders("red", 7), 2)];
        let budget = Budget { edits, ..Budget::default() };
        everywhere("two orders", kind, &Model::new(cosmos, budget));
    }
}
