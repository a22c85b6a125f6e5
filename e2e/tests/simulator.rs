//! The Compute Engine façade as the real client sees it, and as Google's own description of the API allows it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "simulator/discovery.rs"]
mod discovery;
#[path = "simulator/lab.rs"]
mod lab;

use std::{net::IpAddr, time::Duration};

use e2e::{
    simulator::gce::METHODS,
    world::{Actor, Address, Call, Fault, GLOBAL, Latency, NewMachine, Outcome, Point, RateLimit, Tier, World},
};
use google_cloud_auth::credentials::anonymous;
use google_cloud_compute_v1::{
    client::Instances,
    errors::OperationError,
    model::{self, AccessConfig, access_config, address, instance, operation},
};
use google_cloud_gax::{error::Error, paginator::ItemPaginator as _};
use google_cloud_lro::Poller as _;
use lab::{Lab, PROJECT, REGION, ZONE, http_status, reason};

const IP: &str = "203.0.113.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One free address and one machine with an ephemeral address.
fn small_world() -> World {
    let world = World::new();
    world.add_address(Address::new(PROJECT, REGION, "sip-1", ip(IP)).tag("pool", "sip"));
    world.add_machine(NewMachine::new(PROJECT, REGION, ZONE, "node-a"));
    world
}

/// As [`small_world`], but the machine has no external address.
fn private_world() -> World {
    let world = small_world();
    world.delete_machine("node-a");
    world.add_machine(NewMachine::new(PROJECT, REGION, ZONE, "node-a").private());
    world
}

fn config(nat_ip: Option<&str>) -> AccessConfig {
    let config = AccessConfig::new().set_name("nia-1").set_type(access_config::Type::OneToOneNat);
    config.set_network_tier(access_config::NetworkTier::Premium).set_or_clear_nat_ip(nat_ip)
}

async fn start_add(instances: &Instances, body: AccessConfig) -> Result<model::Operation, Error> {
    let request = instances.add_access_config().set_project(PROJECT).set_zone(ZONE).set_instance("node-a");
    request.set_network_interface("nic0").set_body(body).send().await
}

/// Puts an address on node-a and waits for the end: the error of the request, or of the operation.
async fn add(instances: &Instances, nat_ip: Option<&str>) -> Result<(), OperationError> {
    let request = instances.add_access_config().set_project(PROJECT).set_zone(ZONE).set_instance("node-a");
    let request = request.set_network_interface("nic0").set_body(config(nat_ip));
    request.poller().until_done().await.unwrap().to_result().map(drop)
}

async fn start_delete(instances: &Instances, name: &str) -> Result<model::Operation, Error> {
    let request = instances.delete_access_config().set_project(PROJECT).set_zone(ZONE).set_instance("node-a");
    request.set_network_interface("nic0").set_access_config(name).send().await
}

async fn get(instances: &Instances) -> Result<model::Instance, Error> {
    instances.get().set_project(PROJECT).set_zone(ZONE).set_instance("node-a").send().await
}

fn code(error: &OperationError) -> String {
    format!("{error:?}")
}

fn outcome(calls: &[Call], method: &str) -> Outcome {
    calls.iter().find(|call| call.method == method).unwrap().outcome.clone()
}

#[test]
fn every_method_is_one_that_google_describes() {
    for method in METHODS {
        let described = discovery::method(method.id);
        assert_eq!(described["httpMethod"], method.http, "{}", method.id);
        assert_eq!(described["path"], method.path, "{}", method.id);
        for parameter in method.reads {
            assert_eq!(described["parameters"][parameter]["location"], "query", "{} {parameter}", method.id);
        }
        for field in method.body {
            let described = &discovery::schema(&described["request"])["properties"][field];
            assert!(described.is_object(), "the body of {} has no {field}", method.id);
        }
    }
}

#[test]
fn the_check_against_googles_description_finds_what_is_wrong() {
    let response = &discovery::method("compute.addresses.list")["response"];
    let check = |body| discovery::fits(&body, response, "list").unwrap_err();
    use serde_json::json;
    assert!(check(json!({"items": [{"ip": "1.2.3.4"}]})).contains("no field ip"));
    assert!(check(json!({"items": [{"id": 7}]})).contains("items[0].id"));
    assert!(check(json!({"items": [{"status": "FREE"}]})).contains("enum"));
    assert!(check(json!({"items": [{"users": "node-a"}]})).contains("array"));
    assert!(check(json!({"warning": {"data": [{"scope": "x"}]}})).contains("no field scope"));
}

#[tokio::test]
async fn a_list_shows_each_address_with_its_holder() {
    let world = small_world();
    world.add_address(Address::new(PROJECT, REGION, "web", ip("203.0.113.8")).held_by("forwardingRules/web"));
    world.add_address(Address::new(PROJECT, REGION, "db", ip("10.0.0.9")).internal());
    world.add_address(Address::new(PROJECT, "europe-west1", "far", ip("203.0.113.9")));
    world.add_address(Address::new(PROJECT, REGION, "std", ip("203.0.113.10")).tier(Tier::Standard));
    world.move_address(ip(IP), "node-a").unwrap();
    let lab = Lab::over(world).await;

    let list = lab.addresses().await.list().set_project(PROJECT).set_region(REGION);
    let mut items = list.set_filter("addressType=EXTERNAL").set_max_results(500_u32).by_item();
    let mut seen = Vec::new();
    while let Some(item) = items.next().await {
        seen.push(item.unwrap());
    }

    let names: Vec<_> = seen.iter().map(|address| address.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["sip-1", "std", "web"]);
    assert_eq!(seen[0].status, Some(address::Status::InUse));
    assert!(seen[0].users[0].ends_with("/projects/prod/zones/us-west1-a/instances/node-a"), "{:?}", seen[0].users);
    assert_eq!(seen[0].labels.get("pool").map(String::as_str), Some("sip"));
    assert_eq!(seen[1].status, Some(address::Status::Reserved));
    assert_eq!(seen[1].network_tier, Some(address::NetworkTier::Standard));
    assert!(seen[2].users[0].ends_with("/regions/us-west1/forwardingRules/web"));
    lab.finish().await;
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let world = World::new();
    for number in 1..=7 {
        world.add_address(Address::new(PROJECT, REGION, &format!("a-{number}"), ip(&format!("203.0.113.{number}"))));
    }
    let lab = Lab::over(world).await;

    let list = lab.addresses().await.list().set_project(PROJECT).set_region(REGION).set_max_results(3_u32);
    let mut items = list.by_item();
    let mut count = 0;
    while let Some(item) = items.next().await {
        item.unwrap();
        count += 1;
    }

    assert_eq!(count, 7);
    assert_eq!(lab.world.calls().len(), 3);
    lab.finish().await;
}

#[tokio::test]
async fn filters_are_understood_or_refused() {
    let world = small_world();
    world.add_address(Address::new(PROJECT, REGION, "db", ip("10.0.0.9")).internal());
    let lab = Lab::over(world).await;
    let client = lab.addresses().await;
    let find = async |filter: &str| {
        let answer = client.list().set_project(PROJECT).set_region(REGION).set_filter(filter).send().await?;
        Ok::<_, Error>(answer.items.len())
    };

    assert_eq!(find("addressType=EXTERNAL AND address=\"203.0.113.7\"").await.unwrap(), 1);
    assert_eq!(find("(addressType = \"EXTERNAL\") (address = \"10.0.0.9\")").await.unwrap(), 0);
    assert_eq!(find("address!=203.0.113.7").await.unwrap(), 1);
    assert_eq!(find("labels.pool=sip").await.unwrap(), 1);
    for wrong in ["address", "color=red", "address=\"1", "name=a OR name=b", "(name=a"] {
        let error = find(wrong).await.unwrap_err();
        assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(400), Some("invalid")), "{wrong}");
    }
    lab.finish().await;
}

#[tokio::test]
async fn what_the_facade_does_not_know_is_refused_and_not_ignored() {
    let lab = Lab::over(private_world()).await;
    let list = lab.addresses().await.list().set_project(PROJECT).set_region(REGION);
    let error = list.set_order_by("creationTimestamp desc").send().await.unwrap_err();
    assert!(error.status().unwrap().message.contains("does not know 'orderBy'"), "{error}");

    let instances = lab.instances().await;
    let error = start_add(&instances, config(Some(IP)).set_security_policy("strict")).await.unwrap_err();
    assert!(error.status().unwrap().message.contains("does not know 'securityPolicy'"), "{error}");
    assert_eq!(lab.world.attaches(ip(IP)), 0);
    get(&instances).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn a_name_for_the_address_has_to_be_asked_for() {
    let lab = Lab::over(private_world()).await;
    let instances = lab.instances().await;
    let ptr = async |asked| {
        let body = config(None).set_public_ptr_domain_name("a.example.com.").set_set_public_ptr(asked);
        start_add(&instances, body).await.unwrap();
        lab.world.until(|world| world.external_ip("node-a")).await;
        let seen =
            get(&instances).await.unwrap().network_interfaces[0].access_configs[0].public_ptr_domain_name.clone();
        start_delete(&instances, "nia-1").await.unwrap();
        lab.world.until(|world| world.external_ip("node-a").is_none().then_some(())).await;
        seen
    };

    assert_eq!(ptr(false).await, None);
    assert_eq!(ptr(true).await.as_deref(), Some("a.example.com."));
    lab.finish().await;
}

#[tokio::test]
async fn the_default_credentials_of_another_process_lead_here() {
    let lab = Lab::over(small_world()).await;
    let home = std::env::temp_dir().join(format!("nobody-{}", std::process::id()));
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_with_default_credentials", "--ignored"])
        .env("GCE_METADATA_HOST", lab.simulator.metadata_host())
        .env("SIMULATOR", lab.simulator.endpoint())
        // No file of the person who runs the tests may come first.
        .env("HOME", home)
        .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
        .output()
        .await
        .unwrap();

    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(outcome(&lab.world.calls(), "instances.get"), Outcome::Done);
    lab.finish().await;
}

#[tokio::test]
#[ignore = "the other process of the_default_credentials_of_another_process_lead_here"]
async fn a_process_with_default_credentials() {
    lab::install_tls();
    let credentials = google_cloud_auth::credentials::Builder::default().build().unwrap();
    let builder = Instances::builder().with_endpoint(std::env::var("SIMULATOR").unwrap());
    get(&builder.with_credentials(credentials).build().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_aggregated_list_names_every_scope() {
    let world = small_world();
    world.add_region(PROJECT, "asia-east1");
    world.add_address(Address::new(PROJECT, GLOBAL, "lb", ip("203.0.113.99")));
    let lab = Lab::over(world).await;
    let client = lab.addresses().await;

    let all = client.aggregated_list().set_project(PROJECT).send().await.unwrap();
    assert_eq!(all.items["regions/us-west1"].addresses.len(), 1);
    assert_eq!(all.items["global"].addresses[0].region, None);
    assert!(all.items["regions/asia-east1"].warning.is_some());

    let one = client.aggregated_list().set_project(PROJECT).set_filter("address=\"203.0.113.7\"").send().await.unwrap();
    assert!(one.items["global"].addresses.is_empty());
    assert_eq!(one.items["regions/us-west1"].addresses[0].name.as_deref(), Some("sip-1"));
    lab.finish().await;
}

#[tokio::test]
async fn one_address_and_one_machine_are_read_by_name() {
    let world = small_world();
    world.add_machine(NewMachine::new(PROJECT, REGION, ZONE, "node-a").ephemeral(
        "External NAT",
        Tier::Standard,
        Some("a.example.com."),
    ));
    let lab = Lab::over(world).await;

    let addresses = lab.addresses().await;
    let address = addresses.get().set_project(PROJECT).set_region(REGION).set_address("sip-1").send().await.unwrap();
    assert_eq!(address.address.as_deref(), Some(IP));
    let error = addresses.get().set_project(PROJECT).set_region(REGION).set_address("nope").send().await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(404), Some("notFound")));

    let machine = get(&lab.instances().await).await.unwrap();
    assert_eq!(machine.id, Some(lab.world.machine("node-a").unwrap().id));
    assert_eq!(machine.status, Some(instance::Status::Running));
    let external = &machine.network_interfaces[0].access_configs[0];
    assert_eq!(external.name.as_deref(), Some("External NAT"));
    assert_eq!(external.network_tier, Some(access_config::NetworkTier::Standard));
    assert_eq!(external.public_ptr_domain_name.as_deref(), Some("a.example.com."));
    assert_eq!(external.nat_ip.as_deref().map(ip), lab.world.external_ip("node-a"));
    lab.finish().await;
}

#[tokio::test]
async fn a_swap_is_a_delete_and_an_add() {
    let lab = Lab::over(small_world()).await;
    let instances = lab.instances().await;

    let error = start_add(&instances, config(Some(IP))).await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(400), Some("badRequest")));

    let request = instances.delete_access_config().set_project(PROJECT).set_zone(ZONE).set_instance("node-a");
    let request = request.set_network_interface("nic0").set_access_config("external-nat");
    request.poller().until_done().await.unwrap().to_result().unwrap();
    add(&instances, Some(IP)).await.unwrap();

    assert_eq!(lab.world.machine_of(ip(IP)).as_deref(), Some("node-a"));
    assert_eq!(lab.world.attaches(ip(IP)), 1);
    let removals = lab.world.removals();
    assert_eq!((removals.len(), removals[0].by, removals[0].reserved), (1, Actor::Api, false));
    lab.finish().await;
}

#[tokio::test]
async fn a_delete_by_another_name_hits_nothing() {
    let lab = Lab::over(small_world()).await;
    let error = start_delete(&lab.instances().await, "external nat").await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(400), Some("invalid")));
    assert!(lab.world.external_ip("node-a").is_some());
    get(&lab.instances().await).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn an_ephemeral_address_that_was_given_back_does_not_return() {
    let world = small_world();
    let before = world.external_ip("node-a").unwrap();
    let lab = Lab::over(world).await;
    let instances = lab.instances().await;

    start_delete(&instances, "external-nat").await.unwrap();
    lab.world.until(|world| world.external_ip("node-a").is_none().then_some(())).await;
    add(&instances, None).await.unwrap();

    assert_ne!(lab.world.external_ip("node-a").unwrap(), before);
    lab.finish().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_once() {
    let world = private_world();
    world.add_address(Address::new(PROJECT, "europe-west1", "far", ip("203.0.113.9")));
    world.add_address(Address::new(PROJECT, REGION, "std", ip("203.0.113.10")).tier(Tier::Standard));
    let lab = Lab::over(world).await;
    let instances = lab.instances().await;

    let far = start_add(&instances, config(Some("203.0.113.9"))).await.unwrap_err();
    assert_eq!(reason(&far).as_deref(), Some("invalid"));
    assert!(far.status().unwrap().message.contains("was not found in region"), "{far}");
    let tier = start_add(&instances, config(Some("203.0.113.10"))).await.unwrap_err();
    assert!(tier.status().unwrap().message.contains("network tier"), "{tier}");
    let garbage = start_add(&instances, config(Some("300.1.1.1"))).await.unwrap_err();
    assert_eq!(reason(&garbage).as_deref(), Some("invalid"));
    lab.world.delete_machine("node-a");
    let gone = start_add(&instances, config(Some(IP))).await.unwrap_err();
    assert_eq!((http_status(&gone), reason(&gone).as_deref()), (Some(404), Some("notFound")));

    assert!(lab.world.mutations().iter().all(|call| matches!(call.outcome, Outcome::Refused(_))));
    lab.addresses().await.list().set_project(PROJECT).set_region(REGION).send().await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn an_address_of_somebody_else_fails_the_operation() {
    let world = private_world();
    world.give_to_foreign(ip(IP), "forwardingRules/web");
    let lab = Lab::over(world).await;

    let error = add(&lab.instances().await, Some(IP)).await.unwrap_err();

    assert!(code(&error).contains("IP_IN_USE_BY_ANOTHER_RESOURCE"), "{error:?}");
    assert_eq!(lab.world.attaches(ip(IP)), 0);
    assert_eq!(lab.world.external_ip("node-a"), None);
    lab.finish().await;
}

#[tokio::test]
async fn an_operation_runs_before_it_is_done() {
    let world = private_world();
    world.set_latency(Latency { operation: Duration::from_millis(50), ..Latency::default() });
    let lab = Lab::over(world).await;
    let held = lab.world.hold("instances.addAccessConfig", Point::Done);
    let operations = lab.operations().await;

    let accepted = start_add(&lab.instances().await, config(Some(IP))).await.unwrap();
    assert_eq!(accepted.status, Some(operation::Status::Pending));
    let name = accepted.name.unwrap();
    let look = async || operations.get().set_project(PROJECT).set_zone(ZONE).set_operation(&name).send().await.unwrap();

    held.arrived(1).await;
    assert_eq!(look().await.status, Some(operation::Status::Running));
    assert_eq!(lab.world.machine_of(ip(IP)).as_deref(), Some("node-a"));
    held.release();
    let waited = operations.wait().set_project(PROJECT).set_zone(ZONE).set_operation(&name).send().await.unwrap();
    assert_eq!(waited.status, Some(operation::Status::Done));
    lab.finish().await;
}

#[tokio::test]
async fn a_late_failure_is_told_by_the_operation() {
    let lab = Lab::over(private_world()).await;
    lab.world.fail_next("instances.addAccessConfig", Fault::fail_late("QUOTA_EXCEEDED", "Quota 'X' exceeded."));
    let instances = lab.instances().await;

    let error = add(&instances, Some(IP)).await.unwrap_err();
    assert!(code(&error).contains("QUOTA_EXCEEDED"), "{error:?}");
    assert!(matches!(outcome(&lab.world.calls(), "instances.addAccessConfig"), Outcome::FailedLate(_)));

    add(&instances, Some(IP)).await.unwrap();
    assert_eq!(lab.world.attaches(ip(IP)), 1);
    lab.finish().await;
}

#[tokio::test]
async fn a_repeated_request_id_gets_the_first_operation() {
    let lab = Lab::over(private_world()).await;
    let instances = lab.instances().await;
    let send = async || {
        let request = instances.add_access_config().set_project(PROJECT).set_zone(ZONE).set_instance("node-a");
        let request = request.set_network_interface("nic0").set_request_id("8d8f29bc-47c6-4c0f-9bb1-1a8b8b3c8e11");
        request.set_body(config(Some(IP))).send().await.unwrap().name.unwrap()
    };

    let first = send().await;
    assert_eq!(send().await, first);
    lab.world.until(|world| world.machine_of(ip(IP))).await;
    assert_eq!(lab.world.attaches(ip(IP)), 1);
    lab.finish().await;
}

#[tokio::test]
async fn too_many_calls_are_refused_as_google_does() {
    let lab = Lab::over(small_world()).await;
    lab.world.set_rate_limit(Some(RateLimit { calls: 2, window: Duration::from_secs(60) }));
    let instances = lab.instances().await;

    get(&instances).await.unwrap();
    get(&instances).await.unwrap();
    let error = get(&instances).await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(403), Some("rateLimitExceeded")));

    lab.world.set_rate_limit(None);
    get(&instances).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_of_the_metadata_server() {
    let lab = Lab::over(small_world()).await;
    let stranger = lab.instances_as(anonymous::Builder::new().build()).await;
    let error = get(&stranger).await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(401), Some("authError")));

    let known = lab.instances().await;
    get(&known).await.unwrap();
    lab.world.revoke_credentials();
    assert_eq!(http_status(&get(&known).await.unwrap_err()), Some(401));
    // A client that starts now gets no token at all.
    assert!(get(&lab.instances().await).await.unwrap_err().is_authentication());
    lab.world.restore_credentials();
    get(&lab.instances().await).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn a_permission_that_was_taken_away_is_named() {
    let lab = Lab::over(private_world()).await;
    lab.world.deny("compute.instances.addAccessConfig");
    let instances = lab.instances().await;

    let error = start_add(&instances, config(Some(IP))).await.unwrap_err();
    assert_eq!((http_status(&error), reason(&error).as_deref()), (Some(403), Some("forbidden")));
    assert!(error.status().unwrap().message.contains("compute.instances.addAccessConfig"));

    let asked = ["compute.instances.get", "compute.instances.addAccessConfig"];
    let body = model::TestPermissionsRequest::new().set_permissions(asked);
    let request = instances.test_iam_permissions().set_project(PROJECT).set_zone(ZONE).set_resource("node-a");
    assert_eq!(request.set_body(body.clone()).send().await.unwrap().permissions, ["compute.instances.get"]);
    let request = lab.addresses().await.test_iam_permissions().set_project(PROJECT).set_region(REGION);
    let granted = request.set_resource("sip-1").set_body(body).send().await.unwrap();
    assert_eq!(granted.permissions, ["compute.instances.get"]);
    lab.finish().await;
}

#[tokio::test]
async fn a_stopped_machine_keeps_a_reserved_address_and_a_deleted_one_frees_it() {
    let world = small_world();
    let lab = Lab::over(world).await;
    let addresses = lab.addresses().await;
    let status = async || {
        let request = addresses.get().set_project(PROJECT).set_region(REGION).set_address("sip-1");
        request.send().await.unwrap().status
    };

    lab.world.stop_machine("node-a");
    let stopped = get(&lab.instances().await).await.unwrap();
    assert_eq!(stopped.status, Some(instance::Status::Terminated));
    assert_eq!(stopped.network_interfaces[0].access_configs[0].nat_ip, None);
    lab.world.start_machine("node-a");
    assert!(lab.world.external_ip("node-a").is_some());

    lab.world.move_address(ip(IP), "node-a").unwrap();
    lab.world.stop_machine("node-a");
    assert_eq!(status().await, Some(address::Status::InUse));
    let old = lab.world.machine("node-a").unwrap().id;
    assert_ne!(lab.world.replace_machine("node-a"), Some(old));
    assert_eq!(status().await, Some(address::Status::Reserved));
    assert_eq!(
        lab.world.removals().last().map(|removal| (removal.by, removal.machine_id)),
        Some((Actor::Lifecycle, old))
    );
    lab.finish().await;
}

#[tokio::test]
async fn an_answer_can_be_lost_with_and_without_the_effect() {
    let lab = Lab::over(private_world()).await;
    let instances = lab.instances().await;
    let lost = |effect| Outcome::NoAnswer { effect };
    // Nobody waits for a time-out here: the call is given up once the cloud has lost its answer.
    let add_in_vain = async |effect| {
        lab.world.clear_calls();
        let instances = instances.clone();
        let sender = tokio::spawn(async move { start_add(&instances, config(Some(IP))).await });
        lab.world.until(|world| world.calls().iter().any(|call| call.outcome == lost(effect)).then_some(())).await;
        assert!(!sender.is_finished());
        sender.abort();
    };

    lab.world.fail_next("instances.addAccessConfig", Fault::Close);
    assert!(start_add(&instances, config(Some(IP))).await.unwrap_err().is_io());
    lab.world.fail_next("instances.addAccessConfig", Fault::Hang);
    add_in_vain(false).await;
    assert_eq!(lab.world.attaches(ip(IP)), 0);

    lab.world.fail_next("instances.addAccessConfig", Fault::CloseAfterEffect);
    assert!(start_add(&instances, config(Some(IP))).await.unwrap_err().is_io());
    assert_eq!(lab.world.machine_of(ip(IP)).as_deref(), Some("node-a"));
    start_delete(&instances, "nia-1").await.unwrap();
    lab.world.until(|world| world.machine_of(ip(IP)).is_none().then_some(())).await;

    lab.world.fail_next("instances.addAccessConfig", Fault::HangAfterEffect);
    add_in_vain(true).await;
    assert_eq!(lab.world.attaches(ip(IP)), 2);
    get(&instances).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn a_request_whose_sender_died_takes_effect_all_the_same() {
    let lab = Lab::over(private_world()).await;
    let held = lab.world.hold("instances.addAccessConfig", Point::Arrival);
    let instances = lab.instances().await;
    let sender = tokio::spawn(async move { start_add(&instances, config(Some(IP))).await });

    held.arrived(1).await;
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    assert_eq!((held.waiting(), lab.world.attaches(ip(IP))), (1, 0));
    held.release();

    lab.world.until(|world| world.machine_of(ip(IP))).await;
    get(&lab.instances().await).await.unwrap();
    lab.finish().await;
}

#[tokio::test]
async fn an_answer_can_be_held_after_the_effect() {
    let lab = Lab::over(private_world()).await;
    let held = lab.world.hold("instances.addAccessConfig", Point::Answer);
    let instances = lab.instances().await;
    let sender = tokio::spawn(async move { start_add(&instances, config(Some(IP))).await });

    held.arrived(1).await;
    lab.world.until(|world| world.machine_of(ip(IP))).await;
    assert!(!sender.is_finished());
    held.release();
    sender.await.unwrap().unwrap();
    lab.finish().await;
}
