//! The worlds that are searched.

use std::{net::IpAddr, time::Instant};

use ip_address_controller::cloud::Provider;
use serde_json::json;

use super::{Budget, Model};
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

/// Nodes in one pool, and allocations of so many addresses; the first process leads.
pub fn world(kind: Provider, rules: Rules, nodes: &[&str], allocations: &[(&str, &[u8])], leaders: u8) -> Cosmos {
    let mut cosmos = Cosmos::new(kind, leaders, rules, Instant::now());
    for node in nodes {
        cosmos.node(node, kind != Provider::Azure);
    }
    for (name, ips) in allocations {
        let ips: Vec<IpAddr> = ips.iter().map(|last| ip(*last)).collect();
        cosmos.allocate(name, &ips, json!({}));
    }
    cosmos
}

/// How far CI goes.
pub fn limits() -> Limits {
    let states = std::env::var("STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    Limits { states, tells: std::env::var_os("TELLS").is_some(), ..Limits::default() }
}

fn searched(name: &str, cosmos: Cosmos, budget: Budget) -> Report<super::Event> {
    let began = Instant::now();
    let mut model = Model { cosmos, budget, own_writes_show_late: false };
    model.begin();
    let report = search(&model, limits());
    println!("{name}: {:.1} s, {report}", began.elapsed().as_secs_f64());
    report
}

fn cordons(nodes: &[&str]) -> Vec<Outside> {
    nodes.iter().flat_map(|node| [Outside::Cordon((*node).to_owned()), Outside::Uncordon((*node).to_owned())]).collect()
}

#[test]
fn one_address_two_nodes_two_leaders_two_edits_one_take_over() {
    for kind in [Provider::Gcp] {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 2);
        let budget =
            Budget { edits: vec![(cordons(&["a", "b"]), 2)], take_overs: 1, short_waits: 2, ..Budget::default() };
        searched(&format!("{kind}"), cosmos, budget).must_hold();
    }
}

#[test]
fn a_world_in_which_nothing_happens() {
    for kind in Provider::ALL {
        let cosmos = world(kind, rules(), &["a", "b"], &[("red", &[7])], 1);
        searched(&format!("{kind}"), cosmos, Budget::default()).must_hold_everywhere();
    }
}

#[test]
fn zz_sizes() {
    for (edits, take_overs, short_waits) in [(0, 1, 0), (0, 1, 1)] {
        let cosmos = world(Provider::Gcp, rules(), &["a", "b"], &[("red", &[7])], 2);
        let budget = Budget { edits: vec![(cordons(&["a", "b"]), edits)], take_overs, short_waits, ..Budget::default() };
        searched(&format!("edits {edits} take-overs {take_overs} short {short_waits}"), cosmos, budget);
    }
}
