use std::collections::{BTreeMap, BTreeSet};

use metrics::with_local_recorder;

use super::{
    names::{ATTACHED_IPS, RESERVED_IPS, UNATTACHED_IPS},
    *,
};
use crate::cloud::{ErrorKind, Provider};

/// Type, name and labels, as `packaging.md` §9 lists them: what dashboards and alerts are written against.
const PROMISED: &str = "
    gauge     netipallocation_address_state                     crd_name ip reason state
    gauge     netipallocation_attached_ips_total                crd_name
    histogram netipallocation_cloud_api_duration_seconds        operation provider
    counter   netipallocation_cloud_api_errors_total            error_type operation provider
    counter   netipallocation_cloud_api_requests_total          operation outcome provider
    gauge     netipallocation_conflicting_ips                   crd_name
    gauge     netipallocation_controller_healthy                pod_name
    gauge     netipallocation_controller_info                   pod_name version
    gauge     netipallocation_controller_is_leader              pod_name
    gauge     netipallocation_controller_ready                  pod_name
    gauge     netipallocation_controller_tasks                  pod_name
    gauge     netipallocation_crd_status                        crd_name
    gauge     netipallocation_deletion_timestamp_seconds        crd_name
    gauge     netipallocation_effects_in_flight                 provider
    gauge     netipallocation_eligible_nodes                    crd_name
    gauge     netipallocation_failover_frozen                   crd_name
    gauge     netipallocation_failover_not_ready_seconds        crd_name
    gauge     netipallocation_ip_holding_pods                   crd_name ip
    gauge     netipallocation_ip_node_not_ready_timestamp_seconds crd_name ip
    gauge     netipallocation_ip_releasing                      crd_name ip
    histogram netipallocation_gcp_api_duration_seconds          operation
    counter   netipallocation_gcp_api_errors_total              error_type operation
    gauge     netipallocation_info                              crd_name mode provider region
    gauge     netipallocation_ip_attached                       crd_name ip node
    counter   netipallocation_ip_attach_total                   crd_name status
    counter   netipallocation_ip_detach_total                   crd_name status
    histogram netipallocation_ip_gap_seconds                    provider
    histogram netipallocation_ip_state_seconds                  provider state
    counter   netipallocation_ip_transitions_total              crd_name from provider reason to
    gauge     netipallocation_last_success_timestamp_seconds    crd_name
    counter   netipallocation_leader_transitions_total
    gauge     netipallocation_node_cordoned                     node
    gauge     netipallocation_node_ip_ready                     crd_name node
    counter   netipallocation_node_patch_errors_total           crd_name
    gauge     netipallocation_nodes                             crd_name verdict
    counter   netipallocation_pod_evictions_total               crd_name outcome
    histogram netipallocation_queue_wait_seconds
    histogram netipallocation_reconcile_duration_seconds        crd_name
    gauge     netipallocation_reconcile_interval_seconds        crd_name
    counter   netipallocation_reconcile_total                   crd_name status
    gauge     netipallocation_required_ips                      crd_name
    gauge     netipallocation_reserved_ips_total                crd_name
    gauge     netipallocation_spare_nodes                       crd_name
    counter   netipallocation_status_write_errors_total         crd_name reason
    gauge     netipallocation_unattached_ips_total              crd_name
    gauge     netipallocation_workload_found                    crd_name
";

fn promised() -> BTreeMap<&'static str, (&'static str, BTreeSet<&'static str>)> {
    let rows = PROMISED.lines().map(str::trim).filter(|line| !line.is_empty());
    rows.map(|row| {
        let mut words = row.split_whitespace();
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        (name, (kind, words.collect()))
    })
    .collect()
}

fn address(ip: &str, node: Option<&str>) -> AddressGauges {
    AddressGauges {
        ip: ip.to_owned(),
        node: node.map(str::to_owned),
        state: if node.is_some() { "Attached" } else { "Unassigned" }.to_owned(),
        reason: if node.is_some() { "Verified" } else { "NoEligibleNode" }.to_owned(),
        node_down_since: None,
        holding_pods: 0,
        releasing: false,
    }
}

/// On a node that is NotReady, held by two pods, and being taken off.
fn leaving() -> AddressGauges {
    AddressGauges {
        node_down_since: Some(1_700_000_000),
        holding_pods: 2,
        releasing: true,
        ..address("203.0.113.7", Some("node-a"))
    }
}

fn allocation() -> AllocationGauges {
    AllocationGauges {
        ready: true,
        reserved: 2,
        attached: 1,
        unattached: 1,
        required: 1,
        conflicting: 0,
        eligible_nodes: 3,
        spare_nodes: 2,
        workload_found: false,
        failover_frozen: false,
        failover: Duration::from_secs(600),
        reconcile_interval: Duration::from_secs(30),
        last_success: Some(1_700_000_000),
        deletion: None,
        provider: Some(Provider::Gcp),
        region: "us-west1".to_owned(),
        mode: "Enforce",
        addresses: vec![leaving(), address("203.0.113.8", None)],
        verdicts: vec![("Eligible", 3), ("Cordoned", 1)],
        labelled_nodes: vec!["node-a".to_owned()],
    }
}

/// Records everything there is, once.
fn everything(gauges: &Gauges) {
    describe();
    counters::born();
    allocation_seen("sip");
    cloud_operation_known(Provider::Gcp, "instances.get");
    cloud_call(Provider::Gcp, "instances.get", Ok(()), Duration::from_secs(1));
    reconciled("sip", Ended::Success, Duration::from_secs(1));
    node_patch_failed("sip");
    queued(Duration::from_secs(1));
    cloud_known(Provider::Gcp, &["Attaching"]);
    moved(Transition {
        crd_name: "sip",
        provider: Provider::Gcp,
        from: "attaching",
        to: "attached",
        reason: "Verified",
        spent: Some(Duration::from_secs(8)),
    });
    gap_closed(Provider::Gcp, Duration::from_secs(8));
    leader_transitions(4);
    gauges.controller(ControllerGauges {
        pod_name: "pod-0".to_owned(),
        version: "2.0.0".to_owned(),
        leads: true,
        ready: true,
        healthy: true,
        tasks: 40,
    });
    gauges.nodes(vec![NodeGauges { name: "node-a".to_owned(), cordoned: true }]);
    gauges.effects_in_flight(vec![(Provider::Gcp, 1)]);
    gauges.allocation("sip", allocation());
}

fn rendered(cluster: Option<&str>, work: impl FnOnce(&Gauges)) -> String {
    let (recorder, gauges) = (recorder(cluster).unwrap(), Gauges::new(cluster));
    with_local_recorder(&recorder, || work(&gauges));
    recorder.handle().run_upkeep();
    recorder.handle().render() + &gauges.render()
}

/// The labels of a line of the exposition.
fn labels(line: &str) -> BTreeSet<&str> {
    let inner = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let pairs = inner.map_or("", |(inner, _)| inner).split("\",").filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split('=').next().unwrap()).filter(|label| *label != "le").collect()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|known| known == line), "no line {line} in\n{text}");
}

#[test]
fn what_is_told_is_what_was_promised() {
    let text = rendered(None, everything);
    let mut told: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(row) = line.strip_prefix("# TYPE ") {
            let (name, kind) = row.split_once(' ').unwrap();
            told.insert(name, (kind, BTreeSet::new()));
        } else if !line.starts_with('#') {
            let series = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| series.strip_suffix(end).filter(|name| told.contains_key(name)))
                .unwrap_or(series);
            let known = told.get_mut(family).unwrap_or_else(|| panic!("{line} has no TYPE"));
            known.1.extend(labels(line));
        }
    }
    assert_eq!(told, promised());
}

#[test]
fn the_catalogue_says_the_same_and_every_metric_has_help() {
    let rows = CATALOGUE.iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        (metric.name, (kind, metric.labels.iter().copied().collect()))
    });
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), promised());
    let text = rendered(None, everything);
    for metric in CATALOGUE {
        has(&text, &format!("# HELP {} {}", metric.name, metric.help));
    }
}

#[test]
fn only_version_ones_gauges_end_in_total_and_every_counter_does() {
    for metric in CATALOGUE {
        let seeds = [RESERVED_IPS, ATTACHED_IPS, UNATTACHED_IPS].contains(&metric.name);
        let is_counter = metric.kind == Kind::Counter;
        assert_eq!(metric.name.ends_with("_total"), is_counter || seeds, "{}", metric.name);
    }
}

#[test]
fn every_series_has_the_cluster_when_it_has_a_name_and_none_when_not() {
    let named = rendered(Some("prod-1"), everything);
    for line in named.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.contains("cluster=\"prod-1\""), "{line}");
    }
    assert!(!rendered(None, everything).contains("cluster="));
}

#[test]
fn histograms_have_buckets_that_grow() {
    for metric in CATALOGUE {
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(buckets.is_sorted() && buckets.len() > 5, "{}", metric.name);
        }
    }
    let text = rendered(None, everything);
    assert!(!text.contains("quantile="));
    for le in ["0.1", "60", "300", "+Inf"] {
        let line = format!("netipallocation_reconcile_duration_seconds_bucket{{crd_name=\"sip\",le=\"{le}\"}}");
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn counters_of_an_allocation_and_of_a_call_are_born_at_zero() {
    let text = rendered(None, |_| {
        counters::born();
        allocation_seen("sip");
        cloud_operation_known(Provider::Gcp, "instances.get");
        cloud_known(Provider::Gcp, &["Attaching"]);
        transition_known("sip", Provider::Gcp, ["Attached", "Draining", "NodeCordoned"]);
    });
    let way = "from=\"Attached\",to=\"Draining\",reason=\"NodeCordoned\"";
    has(&text, &format!("netipallocation_ip_transitions_total{{crd_name=\"sip\",provider=\"gcp\",{way}}} 0"));
    for name in ["reconcile", "ip_attach", "ip_detach"] {
        for status in ["success", "error"] {
            has(&text, &format!("netipallocation_{name}_total{{crd_name=\"sip\",status=\"{status}\"}} 0"));
        }
    }
    has(&text, "netipallocation_pod_evictions_total{crd_name=\"\",outcome=\"blocked\"} 0");
    for crd_name in ["", "sip"] {
        has(&text, &format!("netipallocation_node_patch_errors_total{{crd_name=\"{crd_name}\"}} 0"));
    }
    has(&text, "netipallocation_ip_gap_seconds_count{provider=\"gcp\"} 0");
    has(&text, "netipallocation_ip_state_seconds_count{provider=\"gcp\",state=\"Attaching\"} 0");
    assert!(!text.contains("leader_transitions"), "told as 0 it would jump to what the Lease says");
    for outcome in ["evicted", "blocked", "error"] {
        has(&text, &format!("netipallocation_pod_evictions_total{{crd_name=\"sip\",outcome=\"{outcome}\"}} 0"));
    }
    has(&text, "netipallocation_status_write_errors_total{crd_name=\"sip\",reason=\"conflict\"} 0");
    for kind in ErrorKind::ALL.map(ErrorKind::label) {
        has(
            &text,
            &format!("netipallocation_gcp_api_errors_total{{operation=\"instances.get\",error_type=\"{kind}\"}} 0"),
        );
    }
}

#[test]
fn what_happens_is_counted_once() {
    let text = rendered(None, |_| {
        for _ in 0..2 {
            allocation_seen("sip");
            cloud_operation_known(Provider::Aws, "EC2.AssociateAddress");
        }
        reconciled("sip", Ended::Error, Duration::from_secs(3));
        attached("sip", Ended::Success);
        detached("sip", Ended::Error);
        evicted("sip", Eviction::Blocked);
        node_patch_failed("sip");
        status_write_failed("sip", WriteFailure::TooLarge);
        cloud_call(Provider::Aws, "EC2.AssociateAddress", Err(ErrorKind::Denied), Duration::from_secs(1));
        leader_transitions(7);
        leader_transitions(6);
        leader_transitions(-1);
    });
    has(&text, "netipallocation_reconcile_total{crd_name=\"sip\",status=\"error\"} 1");
    has(&text, "netipallocation_reconcile_total{crd_name=\"sip\",status=\"success\"} 0");
    has(&text, "netipallocation_reconcile_duration_seconds_sum{crd_name=\"sip\"} 3");
    has(&text, "netipallocation_ip_attach_total{crd_name=\"sip\",status=\"success\"} 1");
    has(&text, "netipallocation_ip_detach_total{crd_name=\"sip\",status=\"error\"} 1");
    has(&text, "netipallocation_pod_evictions_total{crd_name=\"sip\",outcome=\"blocked\"} 1");
    has(&text, "netipallocation_node_patch_errors_total{crd_name=\"sip\"} 1");
    has(&text, "netipallocation_status_write_errors_total{crd_name=\"sip\",reason=\"too_large\"} 1");
    has(
        &text,
        "netipallocation_cloud_api_errors_total{provider=\"aws\",operation=\"EC2.AssociateAddress\",error_type=\"permission_denied\"} 1",
    );
    has(
        &text,
        "netipallocation_cloud_api_requests_total{provider=\"aws\",operation=\"EC2.AssociateAddress\",outcome=\"error\"} 1",
    );
    has(&text, "netipallocation_leader_transitions_total 7");
    assert!(!text.contains("gcp_api"), "only Google's calls go under version 1's names");
}

#[test]
fn googles_calls_are_told_under_both_names() {
    let text = rendered(None, |_| {
        cloud_call(Provider::Gcp, "addresses.list", Err(ErrorKind::Throttled), Duration::from_secs(2));
    });
    has(&text, "netipallocation_gcp_api_errors_total{operation=\"addresses.list\",error_type=\"throttled\"} 1");
    has(&text, "netipallocation_gcp_api_duration_seconds_sum{operation=\"addresses.list\"} 2");
    has(&text, "netipallocation_cloud_api_duration_seconds_count{provider=\"gcp\",operation=\"addresses.list\"} 1");
}

#[test]
fn an_allocation_is_told_as_it_is() {
    let text = rendered(None, |gauges| gauges.allocation("sip", allocation()));
    for line in [
        "crd_status{crd_name=\"sip\"} 1",
        "reserved_ips_total{crd_name=\"sip\"} 2",
        "attached_ips_total{crd_name=\"sip\"} 1",
        "unattached_ips_total{crd_name=\"sip\"} 1",
        "required_ips{crd_name=\"sip\"} 1",
        "eligible_nodes{crd_name=\"sip\"} 3",
        "spare_nodes{crd_name=\"sip\"} 2",
        "workload_found{crd_name=\"sip\"} 0",
        "failover_frozen{crd_name=\"sip\"} 0",
        "failover_not_ready_seconds{crd_name=\"sip\"} 600",
        "ip_node_not_ready_timestamp_seconds{crd_name=\"sip\",ip=\"203.0.113.7\"} 1700000000",
        "ip_node_not_ready_timestamp_seconds{crd_name=\"sip\",ip=\"203.0.113.8\"} 0",
        "ip_holding_pods{crd_name=\"sip\",ip=\"203.0.113.7\"} 2",
        "ip_releasing{crd_name=\"sip\",ip=\"203.0.113.7\"} 1",
        "reconcile_interval_seconds{crd_name=\"sip\"} 30",
        "last_success_timestamp_seconds{crd_name=\"sip\"} 1700000000",
        "deletion_timestamp_seconds{crd_name=\"sip\"} 0",
        "ip_attached{crd_name=\"sip\",ip=\"203.0.113.7\",node=\"node-a\"} 1",
        "ip_attached{crd_name=\"sip\",ip=\"203.0.113.8\",node=\"none\"} 0",
        "address_state{crd_name=\"sip\",ip=\"203.0.113.8\",state=\"Unassigned\",reason=\"NoEligibleNode\"} 1",
        "nodes{crd_name=\"sip\",verdict=\"Cordoned\"} 1",
        "node_ip_ready{node=\"node-a\",crd_name=\"sip\"} 1",
        "info{crd_name=\"sip\",provider=\"gcp\",region=\"us-west1\",mode=\"Enforce\"} 1",
    ] {
        has(&text, &format!("netipallocation_{line}"));
    }
    for line in ["ip_holding_pods", "ip_releasing"] {
        let told = text.lines().filter(|known| known.starts_with(&format!("netipallocation_{line}{{"))).count();
        assert_eq!(told, 1, "{line} is told of an address that is at rest");
    }
}

#[test]
fn what_is_no_longer_true_is_silent_at_once() {
    let text = rendered(None, |gauges| {
        gauges.allocation("sip", allocation());
        let mut moved = allocation();
        moved.addresses = vec![address("203.0.113.7", Some("node-b"))];
        gauges.allocation("sip", moved);
    });
    has(&text, "netipallocation_ip_attached{crd_name=\"sip\",ip=\"203.0.113.7\",node=\"node-b\"} 1");
    has(&text, "netipallocation_ip_node_not_ready_timestamp_seconds{crd_name=\"sip\",ip=\"203.0.113.7\"} 0");
    for gone in ["ip=\"203.0.113.7\",node=\"node-a\"", "ip=\"203.0.113.8\"", "ip_holding_pods", "ip_releasing"] {
        assert!(!text.contains(gone), "{gone} in\n{text}");
    }
}

#[test]
fn gauges_of_what_is_forgotten_are_silent_at_once_and_what_was_counted_stays() {
    let text = rendered(None, |gauges| {
        gauges.allocation("gone", allocation());
        gauges.allocation("stays", allocation());
        reconciled("gone", Ended::Success, Duration::ZERO);
        gauges.forget("gone");
    });
    has(&text, "netipallocation_crd_status{crd_name=\"stays\"} 1");
    assert!(!text.contains("crd_status{crd_name=\"gone\"}"), "{text}");
    has(&text, "netipallocation_reconcile_total{crd_name=\"gone\",status=\"success\"} 1");
}

#[test]
fn every_series_bears_the_clusters_name_and_no_text_can_break_a_line() {
    let text = rendered(Some("prod-1"), |gauges| {
        gauges.nodes(vec![NodeGauges { name: "a\"b\nc".to_owned(), cordoned: false }]);
    });
    has(&text, r#"netipallocation_node_cordoned{cluster="prod-1",node="a\"b\nc"} 0"#);
}

#[tokio::test]
async fn installing_twice_is_an_error_and_the_first_goes_on() {
    let handle = install(Some("prod-1")).unwrap();
    assert!(matches!(install(None), Err(MetricsError::Installed(_))));
    assert!(handle.render().contains("netipallocation_queue_wait_seconds_count{cluster=\"prod-1\"} 0"));
}
