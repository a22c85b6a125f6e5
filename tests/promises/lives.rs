//! Whole lives without a fault: what the harness itself must be able to show before anything is broken in it.

use std::time::{Duration, Instant};

use ip_address_controller::{
    allocation::memory::{self, Owed},
    api::{MOVE_ANNOTATION, Mode},
    cloud::{Own, Provider},
};
use kube::ResourceExt;

use crate::cosmos::{
    course::Action,
    course::{Cosmos, Outside},
    process::Rules,
};

fn ip(last: u8) -> std::net::IpAddr {
    std::net::IpAddr::from([203, 0, 113, last])
}

/// The node that has the address of all lives.
fn node_of(cosmos: &Cosmos) -> String {
    let place = cosmos.cloud.on(ip(7)).expect("attached");
    cosmos.names.iter().find(|(_, named)| **named == place).unwrap().0.clone()
}

#[test]
fn an_address_goes_on_moves_and_is_let_go_at_each_cloud() {
    for kind in Provider::ALL {
        let mut cosmos = Cosmos::new(kind, 2, Rules::default(), Instant::now());
        for name in ["a", "b"] {
            cosmos.node(name, kind != Provider::Azure);
        }
        cosmos.allocate("red", &[ip(7)], serde_json::json!({}));
        cosmos.come_to_rest().unwrap();
        let first = cosmos.cloud.on(ip(7)).expect("attached");
        let node = cosmos.names.iter().find(|(_, place)| **place == first).unwrap().0.clone();
        cosmos.happen(&Action::Outside(Outside::StartPod(node.clone(), "sip-1".into()))).unwrap();
        cosmos.happen(&Action::Outside(Outside::Cordon(node.clone()))).unwrap();
        cosmos.run_on(Duration::from_secs(100)).unwrap();
        assert_eq!(cosmos.cloud.on(ip(7)), Some(first.clone()), "{kind}: a pod uses it\n{cosmos:?}");
        let uid = cosmos.cluster.pods_of(&node)[0].uid.clone();
        cosmos.happen(&Action::Outside(Outside::EndPod(uid))).unwrap();
        cosmos.come_to_rest().unwrap();
        let second = cosmos.cloud.on(ip(7)).expect("moved");
        assert_ne!(first, second, "{kind}\n{cosmos:?}");
        cosmos.happen(&Action::Outside(Outside::Delete("red".into()))).unwrap();
        cosmos.come_to_rest().unwrap();
        assert_eq!(cosmos.cloud.on(ip(7)), None, "{kind}\n{cosmos:?}");
        assert!(cosmos.cluster.allocations().is_empty());
    }
}

#[test]
fn an_address_goes_to_the_node_that_a_person_names_or_stays_and_each_request_is_answered() {
    let ask = |cosmos: &mut Cosmos, node: &str| {
        let asked = Outside::MoveTo("red".into(), ip(7), node.to_owned());
        cosmos.happen(&Action::Outside(asked)).unwrap();
        cosmos.come_to_rest().unwrap();
        let object = cosmos.cluster.allocation("red").unwrap();
        assert!(!object.annotations().contains_key(MOVE_ANNOTATION), "{node}: no answer\n{cosmos:?}");
    };
    for kind in Provider::ALL {
        let mut cosmos = Cosmos::new(kind, 2, Rules::default(), Instant::now());
        for name in ["a", "b", "c", "d"] {
            cosmos.node(name, kind != Provider::Azure);
        }
        cosmos.allocate("red", &[ip(7)], serde_json::json!({}));
        cosmos.come_to_rest().unwrap();
        let from = node_of(&cosmos);
        cosmos.happen(&Action::Outside(Outside::Cordon("d".into()))).unwrap();
        for node in ["nobody", "d", &from] {
            ask(&mut cosmos, node);
            assert_eq!(node_of(&cosmos), from, "{kind}: asked to go to {node}\n{cosmos:?}");
        }
        // The last that can take it, not the first, which would be chosen.
        let to = if from == "c" { "b" } else { "c" };
        ask(&mut cosmos, to);
        assert_eq!(node_of(&cosmos), to, "{kind}\n{cosmos:?}");
    }
}

#[test]
fn a_target_whose_machine_is_stopped_is_found_out_before_the_address_is_cut() {
    let outside = |cosmos: &mut Cosmos, what| cosmos.happen(&Action::Outside(what)).unwrap();
    for kind in Provider::ALL {
        for leaves in [Outside::NotReady, Outside::Cordon] {
            let mut cosmos = Cosmos::new(kind, 2, Rules::default(), Instant::now());
            for name in ["a", "b"] {
                cosmos.node(name, kind != Provider::Azure);
            }
            cosmos.allocate("red", &[ip(7)], serde_json::json!({}));
            cosmos.come_to_rest().unwrap();
            let from = node_of(&cosmos);
            let to = if from == "a" { "b" } else { "a" };
            // Its Node stays Ready for a while.
            outside(&mut cosmos, Outside::StopMachine(to.to_owned()));
            let sent = cosmos.sent;
            outside(&mut cosmos, leaves(from.clone()));
            cosmos.run_on(Duration::from_secs(900)).unwrap();
            assert_eq!((node_of(&cosmos), cosmos.sent), (from, sent), "{kind}\n{cosmos:?}");
            outside(&mut cosmos, Outside::StartMachine(to.to_owned()));
            cosmos.come_to_rest().unwrap();
            assert_eq!(node_of(&cosmos), to, "{kind}\n{cosmos:?}");
        }
    }
}

#[test]
fn an_address_is_adopted_on_a_machine_that_another_allocation_owes_one_of_its_own() {
    for kind in [Provider::Gcp, Provider::Aws] {
        let mut cosmos = Cosmos::new(kind, 2, Rules::default(), Instant::now());
        let machines = ["a", "b"].map(|name| cosmos.node(name, true));
        cosmos.allocate("red", &[ip(7)], serde_json::json!({}));
        cosmos.come_to_rest().unwrap();
        let to = machines.into_iter().find(|machine| Some(&machine.place) != cosmos.cloud.on(ip(7)).as_ref()).unwrap();
        let node = cosmos.names.iter().find(|(_, place)| **place == to.place).unwrap().0.clone();
        // In mode Observe it does not pay.
        cosmos.allocate("blue", &[ip(8)], serde_json::json!({"mode": Mode::Observe}));
        let owed = Owed { machine: to, node: node.clone(), own: Own::default(), attempt: None, retry: None };
        cosmos.cluster.edit_status("blue", |status| status.owed.push(memory::write_owed(&owed))).unwrap();
        cosmos.come_to_rest().unwrap();
        cosmos.happen(&Action::Outside(Outside::OutsiderAttaches(ip(7), node.clone()))).unwrap();
        cosmos.come_to_rest().unwrap();
        let entry = cosmos.addresses("red").next().unwrap();
        assert_eq!((entry.state.as_str(), entry.node.as_ref()), ("Attached", Some(&node)), "{kind}\n{cosmos:?}");
    }
}
