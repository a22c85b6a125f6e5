//! Whole lives without a fault: what the harness itself must be able to show before anything is broken in it.

use std::time::{Duration, Instant};

use ip_address_controller::{api::MOVE_ANNOTATION, cloud::Provider};
use kube::ResourceExt;

use crate::cosmos::{
    course::Action,
    course::{Cosmos, Outside},
    process::Rules,
};

fn ip(last: u8) -> std::net::IpAddr {
    std::net::IpAddr::from([203, 0, 113, last])
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
    let node_of = |cosmos: &Cosmos| {
        let place = cosmos.cloud.on(ip(7)).expect("attached");
        cosmos.names.iter().find(|(_, named)| **named == place).unwrap().0.clone()
    };
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
