//! What the client reads, and what it makes of it.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use e2e::{
    contract::{Bench as _, NODE, NODE_2, ONE, PRIVATE, TWO},
    world::{Address, Fault, NewMachine, Tier},
};
use ip_address_controller::cloud::{
    Cloud as _, ErrorKind, Holder, Interface, ProviderId, Reach, Reservation, Scope, Whereabouts,
};

use super::bench::{AzureBench, HOME, ip, scope};

fn add_many(bench: &AzureBench, count: u32) {
    for n in 0..count {
        let ip = Ipv4Addr::from(0x0b00_0000 + n).into();
        bench.world.add_address(Address::new(HOME.account, HOME.region, &format!("many-{n}"), ip));
        bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, &format!("more-{n}")).private());
    }
}

#[tokio::test]
async fn a_survey_is_two_calls_however_many_addresses_and_machines_there_are_and_further_ones_for_further_pages() {
    let bench = AzureBench::start().await.unwrap();
    add_many(&bench, 300);
    bench.world.move_address(ip("11.0.0.0"), "more-0").unwrap();
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses.len(), 302);
    assert_eq!(survey.addresses[&ip("11.0.0.0")].holder, Holder::Machine(bench.machine("more-0").place));
    let calls: BTreeSet<_> = bench.called().into_iter().collect();
    assert_eq!(calls, BTreeSet::from(["publicIPAddresses.listAll".to_owned(), "networkInterfaces.listAll".to_owned()]));
    assert_eq!(bench.world.calls().len(), 2);
    add_many(&bench, 600);
    bench.world.clear_calls();
    assert_eq!(bench.cloud.survey(&scope()).await.unwrap().addresses.len(), 602);
    assert_eq!(bench.world.calls().len(), 4);
}

#[tokio::test]
async fn a_survey_of_which_one_page_or_one_list_fails_is_an_error() {
    let bench = AzureBench::start().await.unwrap();
    add_many(&bench, 600);
    for method in ["publicIPAddresses.listAll", "networkInterfaces.listAll"] {
        // The first page is answered, late; the second meets the fault.
        bench.world.fail_next(method, Fault::Latency(Duration::from_millis(1)));
        bench.world.fail_next(method, Fault::refuse(503, "ServerUnavailable", "one page less"));
        let error = bench.cloud.survey(&scope()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{method}: {error}");
        bench.world.clear_faults();
    }
}

#[tokio::test]
async fn a_link_to_a_page_on_another_host_is_not_followed() {
    let bench = AzureBench::start().await.unwrap();
    add_many(&bench, 600);
    bench.simulator.azure().lead_links_to("127.0.0.2:1");
    let error = bench.cloud.survey(&scope()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unknown);
    assert!(error.message.contains("127.0.0.2"), "{error}");
}

#[tokio::test]
async fn a_throttled_read_is_over_at_once_and_says_how_long_the_cloud_wants_rest() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.fail_every("*", Fault::refuse(429, "TooManyRequests", "slower"));
    let home = scope();
    let survey = tokio::time::timeout(Duration::from_secs(60), bench.cloud.survey(&home));
    let error = survey.await.expect("it sleeps for as long as the cloud wants rest").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert!(error.message.contains("600 s"), "{error}");
    let mut calls = bench.called();
    calls.dedup();
    assert!(bench.world.calls().len() <= 2, "sent again: {calls:?}");
}

#[tokio::test]
async fn only_static_ipv4_addresses_of_the_region_count_as_reserved() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, "dynamic"));
    bench.world.add_address(Address::new(HOME.account, HOME.region, "six", ip("2001:db8::1")));
    let survey = bench.cloud.survey(&Scope { region: "West Europe".to_owned(), ..scope() }).await.unwrap();
    assert_eq!(survey.addresses.into_keys().collect::<Vec<_>>(), [ip(ONE), ip(TWO)]);
}

#[tokio::test]
async fn an_address_says_which_zones_it_reaches() {
    let bench = AzureBench::start().await.unwrap();
    let zones = ["westeurope-1", "westeurope-2", "westeurope-3"];
    let zonal = Address::new(HOME.account, HOME.region, "zonal", ip("203.0.113.30")).zones(&zones[1..2]);
    bench.world.add_address(zonal);
    bench.world.add_address(Address::new(HOME.account, HOME.region, "wide", ip("203.0.113.31")).zones(&zones));
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    let reach = |text: &str| survey.addresses[&ip(text)].reach.clone();
    assert_eq!(reach("203.0.113.30"), Reach::Zones(BTreeSet::from(["westeurope-2".to_owned()])));
    assert_eq!((reach("203.0.113.31"), reach(ONE)), (Reach::Region, Reach::Region));
}

#[tokio::test]
async fn what_holds_an_address_is_said_in_a_few_words() {
    let bench = AzureBench::start().await.unwrap();
    let told = async |foreign: &str| {
        bench.world.give_to_foreign(ip(ONE), foreign);
        match bench.cloud.survey(&scope()).await.unwrap().addresses.remove(&ip(ONE)).unwrap().holder {
            Holder::Foreign(what) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told("natGateways/out").await, "NAT gateway out");
    assert_eq!(told("loadBalancers/web").await, "load balancer web");
    assert!(told("networkInterfaces/hidden").await.contains("which the cloud does not show"));
}

#[tokio::test]
async fn a_resource_group_narrows_the_survey_in_any_case() {
    let bench = AzureBench::start().await.unwrap();
    let in_group = |group: &str| Scope { resource_group: Some(group.to_owned()), ..scope() };
    assert_eq!(bench.cloud.survey(&in_group("ADDRESSES")).await.unwrap().addresses.len(), 2);
    assert!(bench.called().contains(&"publicIPAddresses.list".to_owned()));
    assert_eq!(bench.cloud.survey(&in_group("mc_nodes")).await.unwrap().addresses.len(), 0);
    let elsewhere = bench.cloud.find(&in_group("mc_nodes"), ip(ONE)).await.unwrap();
    assert_eq!(elsewhere, Whereabouts::NotFound);
    bench.world.move_address(ip(ONE), NODE).unwrap();
    let sitting = bench.cloud.find(&in_group("mc_nodes"), ip(ONE)).await.unwrap();
    assert!(matches!(sitting, Whereabouts::Here(_)), "{sitting:?}");
}

#[tokio::test]
async fn an_edit_of_the_region_does_not_make_a_sitting_address_look_gone() {
    let bench = AzureBench::start().await.unwrap();
    bench.world.move_address(ip(ONE), NODE).unwrap();
    let edited = Scope { region: HOME.other_region.to_owned(), ..scope() };
    let sitting = bench.cloud.find(&edited, ip(ONE)).await.unwrap();
    let here = bench.machine(NODE).place;
    assert!(matches!(&sitting, Whereabouts::Here(Reservation { holder: Holder::Machine(on), .. }) if *on == here));
    assert_eq!(bench.cloud.find(&edited, ip(TWO)).await.unwrap(), Whereabouts::OtherRegion("westeurope".to_owned()));
}

#[tokio::test]
async fn ids_are_one_in_any_case() {
    let bench = AzureBench::start().await.unwrap();
    let text = bench.machine(PRIVATE).place.as_str().to_uppercase().replacen("AZURE", "azure", 1);
    let mut order = bench.attach(ONE, PRIVATE);
    order.machine.place = ProviderId::new(text);
    let seat = bench.cloud.inspect(&order.machine.place).await.unwrap();
    assert_eq!(seat.machine, bench.machine(PRIVATE));
    let verified = bench.cloud.attach(&order).await.unwrap();
    assert_eq!(verified.holder, Holder::Machine(bench.machine(PRIVATE).place));
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses[&ip(ONE)].holder, verified.holder);
    assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), Some(PRIVATE));
}

#[tokio::test]
async fn a_uniform_scale_sets_machine_is_refused_with_what_to_use_instead_and_not_asked_about() {
    let bench = AzureBench::start().await.unwrap();
    let uniform =
        bench.machine(NODE).place.as_str().replace("virtualMachines/", "virtualMachineScaleSets/pool/virtualMachines/");
    let mut order = bench.attach(ONE, NODE);
    order.machine.place = ProviderId::new(uniform);
    for error in
        [bench.cloud.inspect(&order.machine.place).await.unwrap_err(), bench.cloud.attach(&order).await.unwrap_err()]
    {
        assert_eq!((error.kind, error.settled), (ErrorKind::Unsupported, true));
        assert!(error.message.contains("Flexible"), "{error}");
    }
    assert_eq!(bench.called(), Vec::<String>::new());
}

#[tokio::test]
async fn an_interface_that_has_any_public_address_is_no_seat() {
    let bench = AzureBench::start().await.unwrap();
    let machine = NewMachine::new(HOME.account, HOME.region, HOME.zone, "dynamic");
    bench.world.add_machine(machine.ephemeral("ipconfig1", Tier::Premium, None));
    let own = bench.world.external_ip("dynamic").unwrap();
    let seat = bench.cloud.inspect(&bench.machine("dynamic").place).await.unwrap();
    assert_eq!(seat.interface, Interface::Reserved(own));
    let error = bench.cloud.attach(&bench.attach(ONE, "dynamic")).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Conflict, true), "{error}");
    assert_eq!(bench.world.mutations(), []);
    bench.world.stop_machine("dynamic");
    let error = bench.cloud.inspect(&bench.machine("dynamic").place).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn a_404_in_other_words_than_azures_does_not_make_a_machine_gone() {
    let bench = AzureBench::start().await.unwrap();
    for (method, code, kind) in [
        ("virtualMachines.get", "", ErrorKind::Unknown),
        ("virtualMachines.get", "SubscriptionNotFound", ErrorKind::Denied),
        // The machine was just shown.
        ("networkInterfaces.get", "ResourceNotFound", ErrorKind::Unavailable),
    ] {
        bench.world.fail_next(method, Fault::refuse(404, code, "not here"));
        let error = bench.cloud.inspect(&bench.machine(NODE_2).place).await.unwrap_err();
        assert_eq!(error.kind, kind, "{method} {code}: {error}");
    }
}
