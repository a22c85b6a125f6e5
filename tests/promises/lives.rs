//! Whole lives without a fault: what the harness itself must be able to show before anything is broken in it.

use std::time::{Duration, Instant};

use ip_address_controller::cloud::Provider;

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
