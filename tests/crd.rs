//! The generated CRD means what the contract says, and the committed copies are what the types generate.
//!
//! `tests/contract/crd.yaml` is written by hand and was accepted by a real API server, with its bad inputs refused by the
//! sentences in it. Change it only together with the design.

// clippy's leave for tests covers `#[test]` functions, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use ip_address_controller::{api, cloud::MachineId};
use serde_json::Value;

#[test]
fn the_generated_crd_means_what_the_contract_says() {
    let contract: Value = serde_yaml::from_str(&read("tests/contract/crd.yaml")).unwrap();
    let generated = serde_json::to_value(api::crd()).unwrap();
    let mut differences = Vec::new();
    compare("", &contract, &generated, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_committed_crd_is_the_generated_one() {
    assert_generated("crds/netipallocations.yaml");
}

#[test]
fn the_chart_carries_the_generated_crd() {
    assert_generated("charts/ip-address-controller/files/crds/netipallocations.yaml");
}

#[test]
fn the_yaml_reads_back_as_the_same_definition() {
    let read: Value = serde_yaml::from_str(&api::crd_yaml().unwrap()).unwrap();
    let mut differences = Vec::new();
    compare("", &serde_json::to_value(api::crd()).unwrap(), &read, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// With all that Azure lets a user name at its longest: resource groups have 90 characters
/// (<https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>), scale sets 64.
#[test]
fn the_longest_machine_id_that_azure_can_have_fits_into_status() {
    let (id, group, set) = ("01234567-89ab-cdef-0123-456789abcdef", "g".repeat(90), "s".repeat(64));
    let machine: MachineId = format!(
        "azure:///subscriptions/{id}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{set}\
         /virtualMachines/123456#{id}"
    )
    .parse()
    .unwrap();
    let schema = serde_json::to_value(api::crd()).unwrap();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    for list in ["addresses", "owed"] {
        let most = schema.pointer(&format!("{status}/{list}/items/properties/machineID/maxLength")).unwrap();
        assert!(most.as_f64().unwrap() >= machine.to_string().len() as f64, "{list}: {most} for {machine}");
    }
}

fn assert_generated(path: &str) {
    assert!(
        read(path) == api::crd_yaml().unwrap(),
        "{path} is not what src/api.rs generates; run `make generate` and commit the result"
    );
}

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}; `make generate` writes it"))
}

/// Notes every place where `is` does not mean what `should` means. Numbers are compared by value (a bound of the Rust type
/// is a float), `required` and `enum` as sets. A field without a description in the contract may have one.
fn compare(at: &str, should: &Value, is: &Value, differences: &mut Vec<String>) {
    match (should, is) {
        (Value::Object(should), Value::Object(is)) => {
            for (key, value) in should {
                match is.get(key) {
                    Some(other) => compare(&format!("{at}.{key}"), value, other, differences),
                    None => differences.push(format!("{at}.{key}: missing, should be {value}")),
                }
            }
            for (key, value) in is.iter().filter(|(key, _)| !should.contains_key(*key)) {
                // A property may be called description; that one is an object.
                if !(key == "description" && value.is_string()) {
                    differences.push(format!("{at}.{key}: should not be there, is {value}"));
                }
            }
        }
        (Value::Array(should), Value::Array(is)) if at.ends_with(".required") || at.ends_with(".enum") => {
            let sorted = |values: &[Value]| {
                let mut texts: Vec<String> = values.iter().map(Value::to_string).collect();
                texts.sort();
                texts
            };
            if sorted(should) != sorted(is) {
                differences.push(format!("{at}: should be {should:?}, is {is:?}"));
            }
        }
        (Value::Array(should), Value::Array(is)) if should.len() == is.len() => {
            for (index, (should, is)) in should.iter().zip(is).enumerate() {
                compare(&format!("{at}[{index}]"), should, is, differences);
            }
        }
        (Value::Number(should), Value::Number(is)) => {
            if should.as_f64() != is.as_f64() {
                differences.push(format!("{at}: should be {should}, is {is}"));
            }
        }
        (should, is) => {
            if should != is {
                differences.push(format!("{at}: should be {should}, is {is}"));
            }
        }
    }
}
