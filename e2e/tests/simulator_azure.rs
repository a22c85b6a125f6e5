//! The façade of Azure Resource Manager as the real client sees it, and as Azure's own SDK for Go knows the API.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "azure/bench.rs"]
// What this test does not need of it, the other does.
#[allow(dead_code)]
mod bench;
#[path = "azure/sdk.rs"]
mod sdk;

use bench::{AzureBench, HOME, SUBSCRIPTION, ip, scope};
use e2e::{
    contract::{Bench as _, FAR, NODE, NODE_2, ONE, TWO},
    simulator::arm::{self, METHODS, NETWORK},
    world::{Address, GLOBAL, MachineKey, NewMachine, Power},
};
use ip_address_controller::cloud::Cloud as _;
use serde_json::{Value, json};

/// The two fields that are there to be known to nobody.
fn known(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("simulatedFutureSetting");
            fields.values_mut().for_each(|value| *value = known(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| *value = known(value.take())),
        _ => {}
    }
    value
}

/// Whatever was answered must be what the SDK knows.
fn finish(bench: &AzureBench) {
    let given = bench.simulator.recorded();
    assert!(!given.is_empty(), "this test has called nothing");
    for answer in given {
        let method = METHODS.iter().find(|method| method.id == answer.method).unwrap();
        let Some(kind) = method.answers else { continue };
        sdk::sdk().fits(&known(answer.body), kind, method.id).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    assert_eq!(bench.world.violations(), Vec::<String>::new());
}

async fn lab() -> AzureBench {
    let bench = AzureBench::start().await.unwrap();
    bench.simulator.record();
    bench
}

/// Writes an interface: the answer's status and body.
async fn put(bench: &AzureBench, machine: &str, if_match: Option<&str>, body: &Value) -> (u16, Value) {
    let key = MachineKey::new(SUBSCRIPTION, HOME.zone, machine);
    let url = format!("{}{}?api-version={NETWORK}", bench.simulator.endpoint(), arm::interface_id(&key));
    let mut request = reqwest::Client::new().put(url).bearer_auth(bench.world.issue_token().unwrap()).json(body);
    if let Some(etag) = if_match {
        request = request.header("If-Match", etag);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The interface with this public address on it.
fn with(mut interface: Value, address: &str) -> Value {
    let id = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/addresses/providers/Microsoft.Network/publicIPAddresses/{address}"
    );
    interface["properties"]["ipConfigurations"][1]["properties"]["publicIPAddress"] = json!({"id": id});
    interface
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"]["code"].as_str().unwrap_or_default())
}

#[test]
fn every_method_is_one_that_azures_sdk_has() {
    for method in METHODS.iter().filter(|method| method.answers.is_some()) {
        let found = (method.http.to_owned(), method.path.to_owned(), method.version.to_owned());
        assert!(sdk::sdk().methods.contains(&found), "{found:?}");
    }
}

#[test]
fn the_check_against_the_sdk_finds_what_is_wrong() {
    let check = |body: Value| sdk::sdk().fits(&body, "InterfaceListResult", "list").unwrap_err();
    assert!(check(json!({"items": []})).contains("no field items"));
    assert!(check(json!({"value": [{"id": 7}]})).contains("list.value[0].id"));
    assert!(check(json!({"value": [{"properties": {"primary": "yes"}}]})).contains("primary"));
    assert!(check(json!({"value": [{"properties": {"provisioningState": "Done"}}]})).contains("ProvisioningState"));
    assert!(check(json!({"value": {}})).contains("a list"));
}

#[tokio::test]
async fn what_the_real_client_is_answered_is_what_the_sdk_knows() {
    let bench = lab().await;
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, "dynamic"));
    for (name, text, foreign) in [
        ("nat", "203.0.113.40", "natGateways/out"),
        ("web", "203.0.113.41", "loadBalancers/web"),
        ("odd", "203.0.113.42", "networkInterfaces/odd"),
    ] {
        bench.world.add_address(Address::new(HOME.account, HOME.region, name, ip(text)).held_by(foreign));
    }
    let zones = ["westeurope-1", "westeurope-2"];
    bench.world.add_address(Address::new(HOME.account, HOME.region, "zonal", ip("203.0.113.43")).zones(&zones));
    bench.world.add_address(Address::new(HOME.account, GLOBAL, "global", ip("203.0.113.44")));
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
    bench.cloud.survey(&scope()).await.unwrap();
    bench.cloud.find(&scope(), ip("203.0.113.42")).await.unwrap();
    for power in [Power::Starting, Power::Stopping, Power::Stopped, Power::Suspended, Power::Repairing, Power::Running]
    {
        bench.world.set_power(NODE, power);
        bench.cloud.inspect(&bench.machine(NODE).place).await.unwrap();
    }
    bench.cloud.inspect(&bench.machine("dynamic").place).await.unwrap();
    bench.cloud.detach(&bench.detach(ONE, NODE)).await.unwrap();
    let answered: std::collections::BTreeSet<_> = bench.simulator.recorded().iter().map(|given| given.method).collect();
    let told = METHODS.iter().filter(|method| method.answers.is_some() && method.id != "publicIPAddresses.list");
    assert!(told.clone().all(|method| answered.contains(method.id)), "{answered:?}");
    finish(&bench);
}

#[tokio::test]
async fn what_a_write_leaves_out_is_reset() {
    let bench = lab().await;
    let mut body = with(bench.interface(NODE).await, "one");
    let properties = body["properties"].as_object_mut().unwrap();
    properties.remove("enableAcceleratedNetworking").unwrap();
    properties.remove("simulatedFutureSetting").unwrap();
    let etag = body["etag"].as_str().unwrap().to_owned();
    assert_eq!(put(&bench, NODE, Some(&etag), &body).await.0, 200);
    let after = bench.interface(NODE).await;
    assert!(after["properties"].get("enableAcceleratedNetworking").is_none());
    assert!(after["properties"].get("simulatedFutureSetting").is_none());
    finish(&bench);
}

#[tokio::test]
async fn a_write_is_refused_in_azures_words() {
    let bench = lab().await;
    bench.world.add_address(
        Address::new(HOME.account, HOME.region, "other-zone", ip("203.0.113.50")).zones(&["westeurope-2"]),
    );
    bench.world.move_address(ip(TWO), NODE_2).unwrap();
    let interface = bench.interface(NODE).await;
    let etag = interface["etag"].as_str().unwrap().to_owned();
    for (address, told) in [
        ("two", "PublicIPAddressInUse"),
        ("far", "InvalidResourceReference"),
        ("none-such", "InvalidResourceReference"),
        ("other-zone", "ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint"),
    ] {
        let answer = put(&bench, NODE, Some(&etag), &with(interface.clone(), address)).await;
        assert_eq!(code(&answer), (400, told), "{address}");
    }
    let answer = put(&bench, NODE, Some("W/\"old\""), &with(interface.clone(), "one")).await;
    assert_eq!(code(&answer), (412, "PreconditionFailed"));
    let answer = put(&bench, "never-was", None, &with(interface, "one")).await;
    assert_eq!(code(&answer), (404, "ResourceNotFound"));
    assert_eq!((bench.world.external_ip(NODE), bench.world.holder(ip(FAR))), (None, Some(e2e::world::Holder::Nobody)));
    finish(&bench);
}

#[tokio::test]
async fn one_write_replaces_an_address_by_another() {
    let bench = lab().await;
    bench.world.move_address(ip(ONE), NODE).unwrap();
    let body = with(bench.interface(NODE).await, "two");
    assert_eq!(put(&bench, NODE, None, &body).await.0, 200);
    bench.world.until(|world| world.machine_of(ip(TWO))).await;
    assert_eq!(bench.world.machine_of(ip(ONE)), None);
    finish(&bench);
}

#[tokio::test]
async fn what_the_facade_does_not_know_is_refused_and_not_ignored() {
    let bench = lab().await;
    let ask = async |path_and_query: &str| {
        let url =
            format!("{}/SUBSCRIPTIONS/{}/{path_and_query}", bench.simulator.endpoint(), SUBSCRIPTION.to_uppercase());
        let token = bench.world.issue_token().unwrap();
        let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let list = "providers/microsoft.network/PublicIPAddresses";
    assert_eq!(ask(&format!("{list}?api-version={NETWORK}")).await.0, 200);
    for (path, told) in [
        (list.to_owned(), "MissingApiVersionParameter"),
        (format!("{list}?api-version=2020-01-01"), "InvalidApiVersionParameter"),
        (format!("{list}?api-version={NETWORK}&$filter=x"), "InvalidParameter"),
        (format!("providers/Microsoft.Network/things?api-version={NETWORK}"), "InvalidResourceType"),
        (format!("resourceGroups/none/{list}?api-version={NETWORK}"), "ResourceGroupNotFound"),
    ] {
        assert_eq!(ask(&path).await.1, told, "{path}");
    }
    finish(&bench);
}
