//! The doors under text that is nearly right: properties on stable, bounded. The fuzz targets go on where these end.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

/// Cases of each property: all of them together take some seconds.
const CASES: u32 = 512;

fn config() -> ProptestConfig {
    // A failure prints what it shrank to; nothing is written beside the sources.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) }
}

/// Text that somebody might write: pieces of what is expected, in any order, and rubbish between.
fn near(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => select(pieces).prop_map(str::to_owned),
        2 => "[a-zA-Z0-9./:#=@_-]{0,6}",
        1 => ".{0,4}",
    ];
    vec(part, 0..10).prop_map(|parts| parts.concat())
}

/// Values that break what is not prepared for them.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = [0, 1, -1, 5, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN];
    let texts = [
        "",
        " ",
        "0",
        "-1",
        "100%",
        "101%",
        "4294967296%",
        "203.0.113.7",
        "0203.0.113.7",
        "::ffff:203.0.113.7",
        "2001:db8::1",
        "203.0.113.7=node-b",
        "1969-12-31T23:59:59Z",
        "9999-12-30T22:00:00Z",
        "-009999-01-02T01:59:59Z",
        "2026-02-30T00:00:00Z",
        "gce://p/us-west1-a/n#1",
        "aws:///us-west-2a/i-0abc",
        "#",
        "a#b#c",
        "Attached",
        "Parking",
        "Releasing",
        "Attach",
        "Detach",
        "00000000-0000-0000-0000-000000000007",
        "\u{0}",
        "é\u{200b}\n",
        "Forever",
    ];
    prop_oneof![
        3 => select(numbers.to_vec()).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => select(texts.to_vec()).prop_map(Value::from),
        1 => ".{0,40}".prop_map(Value::from),
        1 => Just("x".repeat(5000)).prop_map(Value::from),
        1 => select(vec![Value::Null, json!(true), json!([]), json!({}), json!([{}]), json!([null])]),
    ]
}

/// A document with some of its values replaced, removed, or said twice.
fn spoiled(document: Value) -> impl Strategy<Value = Value> {
    let places = places(&document);
    vec((select(places), prop_oneof![3 => odd().prop_map(Some), 1 => Just(None)]), 0..5).prop_map(move |changes| {
        let mut spoiled = document.clone();
        for (place, value) in changes {
            change(&mut spoiled, &place, value);
        }
        spoiled
    })
}

fn places(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.replace('/', "~1"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let deeper =
        inner.iter().flat_map(|(name, value)| places(value).into_iter().map(move |rest| format!("/{name}{rest}")));
    std::iter::once(String::new()).chain(deeper).collect()
}

fn change(document: &mut Value, place: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            if let Some(found) = document.pointer_mut(place) {
                *found = value;
            }
        }
        None => {
            let Some((above, name)) = place.rsplit_once('/') else { return };
            match document.pointer_mut(above) {
                Some(Value::Object(fields)) => drop(fields.remove(&name.replace("~1", "/"))),
                // A second time, at the end.
                Some(Value::Array(items)) => {
                    items.extend(name.parse().ok().and_then(|at: usize| items.get(at).cloned()))
                }
                _ => {}
            }
        }
    }
}

fn bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

/// Behind two bytes of HTTP status.
fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    [&(status.wrapping_sub(400)).to_le_bytes(), body].concat()
}

fn an_object() -> Value {
    let entry = |state: &str, operation: Value| {
        json!({
            "ip": "203.0.113.7", "state": state, "reason": "NodeCordoned", "message": "waits", "node": "a",
            "machineID": "gce://p/us-west1-a/a#17", "lastTransitionTime": "2027-01-15T08:00:00Z", "plannedNode": "b",
            "deadlineTime": "2027-01-15T09:00:00Z", "operation": operation,
            "restore": {"externalIP": true, "networkTier": "PREMIUM", "publicPtrDomainName": "a.example."},
            "lastMove": {
                "fromNode": "z", "toNode": "a", "reason": "Attaching", "startTime": "2027-01-15T07:00:00Z",
                "finishTime": "2027-01-15T07:00:02Z", "gapSeconds": 2, "traceID": "0af7651916cd43dd8448eb211c80319c",
            },
        })
    };
    let operation = |kind: &str| {
        json!({
            "id": "00000000-0000-0000-0000-000000000007", "type": kind, "startTime": "2027-01-15T08:00:00Z",
            "sendBeforeTime": "2027-01-15T08:01:00Z", "attempts": 2, "traceparent": "00-aa-bb-01",
        })
    };
    json!({
        "apiVersion": "netinfra.darkbrains.com/v1alpha1", "kind": "NetIPAllocation",
        "metadata": {
            "name": "sip", "uid": "u", "generation": 3, "creationTimestamp": "2027-01-15T07:00:00Z",
            "deletionTimestamp": "2027-01-15T08:00:00Z", "finalizers": ["netinfra.darkbrains.com/detach"],
            "annotations": {"netinfra.darkbrains.com/move": "203.0.113.7=node-b"},
        },
        "spec": {
            "reservedIPs": ["203.0.113.7", "203.0.113.8"], "nodeSelector": {"role": "sip"},
            "addressSelector": {"matchTags": {"pool": "sip"}},
            "workloadRef": {"kind": "Deployment", "name": "app", "namespace": "voip"},
            "cloud": {"provider": "gcp", "region": "us-west1", "zones": ["us-west1-a"], "project": "p"},
            "reconcileInterval": 30, "minAttached": "50%", "strategy": {"maxUnavailable": 1, "maxSurge": "1"},
            "drain": {"policy": "Evict", "timeoutSeconds": 60},
            "failover": {"notReadySeconds": 300, "maxUnhealthy": "50%"}, "mode": "Enforce", "deletionPolicy": "Retain",
            "nodeTaint": {"key": "example.com/no-address", "value": "true", "effect": "NoSchedule"},
        },
        "status": {
            "observedGeneration": 3, "nodeTaint": {"key": "example.com/no-address", "effect": "PreferNoSchedule"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AllAttached", "message": "",
                "lastTransitionTime": "2027-01-15T08:00:00Z", "observedGeneration": 3,
            }],
            "owed": [{
                "machineID": "gce://p/us-west1-a/b#18", "node": "b", "networkTier": "STANDARD",
                "operationID": "00000000-0000-0000-0000-000000000009", "sendBeforeTime": "2027-01-15T08:01:00Z",
                "retryTime": "2027-01-15T08:02:00Z",
            }],
            "addresses": [
                entry("Unassigned", Value::Null), entry("Attaching", operation("Attach")), entry("Attached", Value::Null),
                entry("Draining", Value::Null), entry("Draining", operation("Detach")), entry("Detached", Value::Null),
            ],
        },
    })
}

fn a_node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "a", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2027-01-15T07:00:00Z",
            "labels": {
                "ip.ready": "true", "netinfra.darkbrains.com/allocation": "a", "topology.kubernetes.io/zone": "2",
                "netinfra.darkbrains.com/address": "203.0.113.7", "topology.kubernetes.io/region": "WestEurope",
                "eks.amazonaws.com/compute-type": "auto", "node-role.kubernetes.io/control-plane": "",
            },
            "annotations": {"container.googleapis.com/instance_id": "17"},
        },
        "spec": {
            "providerID": "gce://p/us-west1-a/a", "unschedulable": true,
            "taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule", "timeAdded": "2027-01-15T07:00:00Z"},
                {"key": "example.com/no-address", "value": "true", "effect": "NoSchedule"}],
        },
        "status": {"conditions": [{
            "type": "Ready", "status": "False", "lastTransitionTime": "2027-01-15T07:00:00Z",
            "lastHeartbeatTime": "2027-01-15T07:00:00Z", "reason": "KubeletNotReady", "message": "",
        }]},
    })
}

fn a_lease() -> Value {
    json!({
        "metadata": {"name": "lease", "resourceVersion": "7"},
        "spec": {
            "holderIdentity": "other", "leaseDurationSeconds": 60, "leaseTransitions": 4,
            "acquireTime": "2027-01-15T08:00:00.000000Z", "renewTime": "2027-01-15T08:00:00.000000Z",
        },
    })
}

const NET: &str = "/subscriptions/0a1b/resourceGroups/mc/providers/Microsoft.Network";
const VM: &str = "/subscriptions/0a1b/resourceGroups/mc/providers/Microsoft.Compute/virtualMachines/n";

fn azure_answers() -> Vec<Value> {
    let nic = format!("{NET}/networkInterfaces/nic");
    let config = |name: &str, primary: bool| {
        json!({"id": format!("{nic}/ipConfigurations/{name}"), "properties": {
            "primary": primary, "privateIPAddressVersion": "IPv4",
            "publicIPAddress": {"id": format!("{NET}/publicIPAddresses/{name}")},
        }})
    };
    vec![
        json!({
            "id": nic, "etag": "W/\"7\"", "properties": {
                "primary": true, "provisioningState": "Succeeded", "virtualMachine": {"id": VM},
                "ipConfigurations": [config("first", true), config("second", false)],
            },
        }),
        json!({
            "id": format!("{NET}/publicIPAddresses/sip"), "name": "sip", "location": "West Europe", "zones": ["2"],
            "sku": {"name": "Standard", "tier": "Regional"}, "tags": {"team": "voip"},
            "properties": {
                "publicIPAllocationMethod": "Static", "ipAddress": "203.0.113.7", "provisioningState": "Succeeded",
                "ipConfiguration": {"id": format!("{nic}/ipConfigurations/first")}, "deleteOption": "Delete",
            },
        }),
        json!({
            "id": VM, "location": "westeurope", "zones": ["2"], "properties": {
                "vmId": "7C", "instanceView": {"statuses": [{"code": "PowerState/running"}]},
                "networkProfile": {"networkInterfaces": [{"id": nic, "properties": {"primary": true}}]},
            },
        }),
        json!({"error": {"code": "InvalidRequest", "message": "no\nmore", "details": [{"code": "PublicIPAddressInUse"}]}}),
        json!({"error": "invalid_client", "error_description": "AADSTS700024: expired"}),
        json!({"status": "Failed", "error": {"code": "OperationNotAllowed", "message": "no"}}),
        json!({"value": [{"actions": ["*"], "notActions": ["Microsoft.Network/*/write"]}]}),
        json!({"access_token": "t", "expires_on": "1586984735", "expires_in": "3599"}),
    ]
}

fn gcp_answers() -> Vec<Value> {
    let node = "https://www.googleapis.com/compute/v1/projects/p/zones/us-west1-a/instances/n";
    vec![
        json!({"error": {"code": 403, "message": "no\nmore", "errors": [{"reason": "quotaExceeded", "message": "no"}]}}),
        json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "accessNotConfigured", "metadata": {},
        }]}}),
        json!({
            "name": "sip", "address": "203.0.113.7", "addressType": "EXTERNAL", "status": "IN_USE", "users": [node],
            "networkTier": "PREMIUM", "labels": {"pool": "sip"},
        }),
        json!({
            "id": "4520031799277581759", "name": "n", "status": "RUNNING",
            "networkInterfaces": [{"name": "nic0", "accessConfigs": [{
                "name": "External NAT", "type": "ONE_TO_ONE_NAT", "natIP": "198.51.100.4", "networkTier": "STANDARD",
                "publicPtrDomainName": "a.example.",
            }]}],
        }),
        json!({
            "name": "operation-1", "status": "DONE", "httpErrorStatusCode": 400, "httpErrorMessage": "BAD REQUEST",
            "error": {"errors": [{"code": "IP_IN_USE_BY_ANOTHER_RESOURCE", "message": "no\nmore"}]},
        }),
    ]
}

/// One of several documents, spoiled.
fn one_of(documents: Vec<Value>) -> impl Strategy<Value = Value> {
    select(documents).prop_flat_map(spoiled)
}

const IDS: &[&str] = &[
    "gce://",
    "aws://",
    "aws:///",
    "azure://",
    "azure:///",
    "eks-hybrid://",
    "i-",
    "0abc12",
    "/",
    "#",
    "\n",
    "us-west-2a",
    "us-west1-a",
    "us-gov-west-1b",
    "example.com:prod",
    "subscriptions/",
    "resourceGroups/",
    "RESOURCEGROUPS/",
    "providers/",
    "Microsoft.Compute/",
    "virtualMachines/",
    "virtualMachineScaleSets/",
    "fargate-",
    "gk3-",
    "node-1",
    "NODE-1",
];

const WORDS: &[&str] = &[
    "error",
    "info",
    "off",
    "info,kube=debug",
    "=",
    ",",
    "60",
    "0",
    "-1",
    "86400",
    "1e9",
    "NaN",
    "inf",
    "30s",
    "500ms",
    "24h",
    "18446744073709551615h",
    "true",
    "false",
    "Observe",
    "json",
    "logfmt",
    "https://",
    "http://",
    "127.0.0.1",
    "localhost",
    "[::1]",
    ":1",
    ":99999",
    "@",
    "?",
    " in ",
    " notin ",
    "(a,b)",
    "!key",
    "!=",
    "==",
    "a.b/c",
    "é",
    "\n",
    " ",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_provider_ids_are_equal_by_one_rule(
        one in near(IDS), other in near(IDS), zone in "[a-z]{2}-[a-z]{4}-[0-9][a-z]", id in "[0-9a-f]{1,17}", up in any::<bool>(),
    ) {
        provider_ids(format!("{one}\n{other}").as_bytes());
        // Two spellings of one machine, and of two.
        provider_ids(format!("aws:///{zone}/i-{id}\naws:///i-{id}").as_bytes());
        prop_assert_eq!(ProviderId::new(format!("aws:///{zone}/i-{id}")), ProviderId::new(format!("aws://{zone}/i-{id}")));
        let machine = format!("azure://{VM}{id}");
        let spelled = if up { machine.to_uppercase().replace("AZURE", "azure") } else { machine.to_lowercase() };
        provider_ids(format!("{machine}\n{spelled}").as_bytes());
        prop_assert_eq!(ProviderId::new(machine), ProviderId::new(spelled));
    }

    #[test]
    fn a_machine_id_is_read_as_it_was_written(text in near(IDS)) {
        machine_id(text.as_bytes());
        machine_id(format!("{text}#{text}").as_bytes());
    }

    #[test]
    fn a_quantity_never_means_more_than_it_may(value in odd(), percent in "[0-9]{0,4}%{0,2}") {
        quantity(&bytes(&value));
        quantity(&bytes(&Value::from(percent)));
    }

    #[test]
    fn whatever_an_object_says_is_decided_upon_and_told(document in spoiled(an_object())) {
        object(&bytes(&document));
    }

    #[test]
    fn whatever_a_node_says_is_read(document in spoiled(a_node()), id in near(IDS)) {
        node(&bytes(&document));
        let mut named = document;
        change(&mut named, "/spec/providerID", Some(Value::from(id)));
        node(&bytes(&named));
    }

    #[test]
    fn whatever_a_lease_says_nobody_is_kept_away_for_ever(document in spoiled(a_lease())) {
        lease(&bytes(&document));
    }

    #[test]
    fn a_setting_is_understood_or_refused_in_one_line(which in any::<u8>(), value in near(WORDS)) {
        settings(&[&[which], value.as_bytes()].concat());
    }

    #[test]
    fn a_logged_line_is_one_line_and_says_what_was_said(text in prop_oneof![near(WORDS), ".*", "[\\PC\\s\"=\\\\]{0,40}"]) {
        log_line(text.as_bytes());
    }

    #[test]
    fn whatever_azure_answers_is_read(
        status in 400_u16..600, rest in prop_oneof!["[0-9]{0,20}", ".{0,20}"], document in one_of(azure_answers()), name in near(IDS),
    ) {
        let body = [rest.replace('\n', "").as_bytes(), b"\n", &bytes(&document)].concat();
        azure(&answer(status, &body));
        azure(&answer(status, format!("\n/subscriptions/s/resourceGroups/g/providers/{name}").as_bytes()));
    }

    #[test]
    fn whatever_google_answers_is_read(status in 400_u16..600, document in one_of(gcp_answers()), text in ".{0,40}") {
        gcp(&answer(status, &bytes(&document)));
        gcp(&answer(status, text.as_bytes()));
    }

    #[test]
    fn whatever_amazon_answers_is_read(status in 400_u16..600, lines in vec(prop_oneof![
        select(vec!["", "203.0.113.7", "eipalloc-1", "i-0abc", "aws:///us-west-2a/i-0abc", "Throttling", "x.NotFound",
            "see https://example.com/a?b=c now", "Encoded authorization failure message: zzz"]).prop_map(str::to_owned),
        ".{0,20}",
    ], 0..14)) {
        aws(&answer(status, lines.join("\n").as_bytes()));
    }

    #[test]
    fn any_bytes_at_any_door(bytes in vec(any::<u8>(), 0..300)) {
        for (_, door) in DOORS {
            door(&bytes);
        }
    }
}

/// What the fuzzer begins with, and whatever it found once.
#[test]
fn the_corpus_passes_at_its_doors() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, door) in DOORS {
        let folder = fuzz.join("corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            door(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}

#[test]
fn every_door_has_a_fuzz_target_and_every_target_a_door() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut targets: Vec<String> = fs::read_dir(fuzz.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    assert_eq!(targets, DOORS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "fuzz/Cargo.toml has no {target}");
    }
}
