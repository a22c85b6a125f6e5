//! Associating, disassociating, and what goes without a word.

use std::time::Duration;

use aws_sdk_ec2::Client;
use e2e::{
    simulator::ec2,
    world::{Actor, Address, NewMachine, Power},
};

use crate::{
    IP, ip,
    lab::{ACCOUNT, Lab, REGION, ZONE, told},
    small_world,
};

fn interface(lab: &Lab, name: &str) -> String {
    ec2::interface_id(&lab.world.machine(name).unwrap(), 0)
}

fn allocation(lab: &Lab, address: &str) -> String {
    lab.world.inventory(|inventory| ec2::allocation_id(inventory.address(ip(address)).unwrap()))
}

/// Associates, and lets no one else's association go; the error's status and code.
async fn associate(lab: &Lab, client: &Client, address: &str, name: &str) -> Result<String, (u16, String)> {
    let send = client.associate_address().allocation_id(allocation(lab, address));
    let send = send.network_interface_id(interface(lab, name)).allow_reassociation(false).send();
    send.await.map(|answer| answer.association_id.unwrap()).map_err(|error| told(&error))
}

fn code(code: &str) -> Result<String, (u16, String)> {
    Err((400, code.to_owned()))
}

#[tokio::test]
async fn an_association_takes_the_place_of_whatever_is_there() {
    let world = small_world();
    world.add_address(Address::new(ACCOUNT, REGION, "sip-2", ip("203.0.113.8")));
    let lab = Lab::over(world).await;
    let client = lab.client();
    associate(&lab, &client, IP, "node-a").await.unwrap();
    associate(&lab, &client, "203.0.113.8", "node-a").await.unwrap();
    assert_eq!(lab.world.machine_of(ip(IP)), None);
    let removals: Vec<_> = lab.world.removals().into_iter().map(|removal| (removal.by, removal.reserved)).collect();
    assert_eq!(removals, [(Actor::Api, false), (Actor::Api, true)]);
    lab.finish().await;
}

#[tokio::test]
async fn an_association_is_taken_from_another_instance_unless_that_is_forbidden() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    associate(&lab, &client, IP, "node-a").await.unwrap();
    assert_eq!(associate(&lab, &client, IP, "node-b").await, code("Resource.AlreadyAssociated"));
    assert_eq!(lab.world.machine_of(ip(IP)).as_deref(), Some("node-a"));
    // Unsaid means yes.
    let send = client.associate_address().allocation_id(allocation(&lab, IP));
    send.network_interface_id(interface(&lab, "node-b")).send().await.unwrap();
    assert_eq!(lab.world.machine_of(ip(IP)).as_deref(), Some("node-b"));
    lab.finish().await;
}

#[tokio::test]
async fn each_association_has_an_id_of_its_own_and_ends_by_it() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    let end = async |id: &str| {
        client.disassociate_address().association_id(id).send().await.map_err(|error| told(&error)).map(drop)
    };
    let first = associate(&lab, &client, IP, "node-a").await.unwrap();
    end(&first).await.unwrap();
    let second = associate(&lab, &client, IP, "node-a").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(end(&first).await, Err((400, "InvalidAssociationID.NotFound".to_owned())));
    let machine = lab.world.machine("node-a").unwrap();
    assert_eq!(ec2::association_id(&machine, machine.external.as_ref().unwrap()), second);
    // One that was not made over the API has an id too.
    lab.world.move_address(ip(IP), "node-b").unwrap();
    let shown = client.describe_addresses().send().await.unwrap().addresses()[0].association_id.clone().unwrap();
    end(&shown).await.unwrap();
    assert_eq!(lab.world.machine_of(ip(IP)), None);
    lab.finish().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let world = small_world();
    world.add_address(Address::new(ACCOUNT, REGION, "edge", ip("203.0.113.10")).of_group("us-west-2-lax-1"));
    world.add_address(Address::new(ACCOUNT, "eu-central-1", "far", ip("203.0.113.11")));
    world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, "wide").interfaces(2));
    world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, "auto").managed());
    let lab = Lab::over(world).await;
    let client = lab.client();
    assert_eq!(associate(&lab, &client, "203.0.113.10", "node-a").await, code("InvalidParameterCombination"));
    assert_eq!(associate(&lab, &client, "203.0.113.11", "node-a").await, code("InvalidAllocationID.NotFound"));
    assert_eq!(associate(&lab, &client, IP, "auto").await, code("OperationNotPermitted"));
    for power in [Power::Starting, Power::Stopping] {
        lab.world.set_power("node-a", power);
        assert_eq!(associate(&lab, &client, IP, "node-a").await, code("IncorrectInstanceState"));
    }
    let wide = ec2::instance_id(&lab.world.machine("wide").unwrap());
    let send = client.associate_address().allocation_id(allocation(&lab, IP)).instance_id(wide);
    assert_eq!(told(&send.send().await.unwrap_err()), (400, "InvalidInstanceID".to_owned()));
    let send = client.associate_address().allocation_id(allocation(&lab, IP)).network_interface_id("eni-0dead");
    assert_eq!(told(&send.send().await.unwrap_err()), (400, "InvalidNetworkInterfaceID.NotFound".to_owned()));
    let send = client.disassociate_address().send();
    assert_eq!(told(&send.await.unwrap_err()), (400, "MissingParameter".to_owned()));
    assert_eq!(lab.world.attaches(ip(IP)), 0);
    client.describe_addresses().send().await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn a_stopped_instance_keeps_its_address_and_a_deleted_one_frees_it() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    lab.world.stop_machine("node-a");
    associate(&lab, &client, IP, "node-a").await.unwrap();
    lab.world.start_machine("node-a");
    lab.world.stop_machine("node-a");
    let held = async || client.describe_addresses().send().await.unwrap().addresses()[0].instance_id.clone();
    assert_eq!(held().await, Some(ec2::instance_id(&lab.world.machine("node-a").unwrap())));
    lab.world.delete_machine("node-a");
    assert_eq!(held().await.as_deref(), Some(""));
    lab.finish().await;
}

#[tokio::test]
async fn an_instance_gets_an_address_of_its_own_again_if_it_had_one_and_has_one_interface() {
    let world = small_world();
    world.set_own_returns_after(Duration::from_millis(50));
    world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, "wide").interfaces(2));
    world.add_machine(NewMachine::new(ACCOUNT, REGION, ZONE, "private").private());
    let lab = Lab::over(world).await;
    let client = lab.client();
    for name in ["wide", "private", "node-a"] {
        let id = associate(&lab, &client, IP, name).await.unwrap();
        client.disassociate_address().association_id(id).send().await.unwrap();
        assert_eq!(lab.world.external_ip(name), None);
    }
    let waited = tokio::time::timeout(Duration::from_secs(5), lab.world.until(|world| world.external_ip("node-a")));
    assert_ne!(waited.await.expect("none came"), ip(IP));
    assert_eq!((lab.world.external_ip("wide"), lab.world.external_ip("private")), (None, None));
    let ask = client.modify_network_interface_attribute().network_interface_id(interface(&lab, "wide"));
    ask.associate_public_ip_address(true).send().await.unwrap();
    assert!(lab.world.external_ip("wide").is_some());
    lab.finish().await;
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let lab = Lab::over(small_world()).await;
    let client = lab.client();
    let associate = async || {
        let send = client.associate_address().allocation_id(allocation(&lab, IP)).dry_run(true);
        told(&send.network_interface_id(interface(&lab, "node-a")).send().await.unwrap_err())
    };
    assert_eq!(associate().await, (412, "DryRunOperation".to_owned()));
    lab.world.deny("ec2:AssociateAddress");
    assert_eq!(associate().await, (403, "UnauthorizedOperation".to_owned()));
    let read = client.describe_instances().dry_run(true).send().await.unwrap_err();
    assert_eq!(told(&read), (412, "DryRunOperation".to_owned()));
    assert!(lab.world.mutations().is_empty());
    assert_eq!(lab.world.machine_of(ip(IP)), None);
    client.describe_addresses().send().await.unwrap();
    lab.finish().await;
}
