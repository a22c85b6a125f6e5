//! Past the promised size: many addresses of Google Cloud, in allocations of a thousand at most, on a tenth more nodes, within
//! `CLOUD_QPS=20` and `CLOUD_BURST=40`. They come up from nothing, a twentieth of their nodes is drained, some nodes are lost
//! at once, and then ten minutes pass in which nothing happens. Counts are judged here, what it takes is only told.
//!
//! `SIZE=10000 cargo test --release --test promises -- --nocapture scale::` plays the size that `docs/scale.md` tells of;
//! with `SCALE_REPORT=docs/scale.md` it writes there what it tells. `make scale` does both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::{
    api::{
        self, AddressStatus, Condition, LastMove, NetIPAllocation, NetIPAllocationSpec, NetIPAllocationStatus,
        OperationStatus, RestoreStatus,
    },
    cloud::{Provider, limits::Rate},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    chance::number,
    cosmos::{
        beats::Beats,
        course::{Action, BIRTH, Cosmos, Outside, POOL},
        excuses::Excuses,
        pace::{Look, What},
        process::Rules,
    },
    outage::{BEAT, BURST, GROUP, PER_SECOND, is_within_budget, overdraws_by_reads_alone},
};

/// Addresses, where nobody says how many: `outage` has the promised thousand already.
const SIZE: usize = 500;
/// An allocation has so many at most; the CRD takes 1024.
const MOST: usize = 1_000;
/// There are so many allocations at least.
const FEWEST: usize = 10;
/// Of each allocation one node in so many is drained,
const DRAINED: usize = 20;
/// and one in so many is lost.
const LOST: usize = 33;

/// Objects are weighed before one in so many of them.
const WEIGHED_EVERY: usize = 10;

/// `--max-request-bytes` of etcd where nobody sets it (<https://etcd.io/docs/v3.6/dev-guide/limit/>): 1.5 MiB.
const ETCD_REQUEST: usize = 1_536 * 1_024;

/// Between these lines a page has what was told last.
const BEGINS: &str = "<!-- numbers: make scale -->";
const ENDS: &str = "<!-- end of numbers -->";

fn name(allocation: usize) -> String {
    format!("a{allocation:03}")
}

fn ip(n: usize) -> IpAddr {
    let [second, third, fourth] = [18 + n / 62_500, n % 62_500 / 250, n % 250 + 1].map(|part| part.try_into().unwrap());
    IpAddr::from([198, second, third, fourth])
}

/// Every address is on a node, none of `left`, which says so.
fn all_attached(cosmos: &Cosmos, left: &BTreeSet<String>) -> bool {
    cosmos.cluster.allocations().keys().all(|name| cosmos.is_attached(name, left))
}

/// One in so many of the nodes that each allocation has an address on.
fn some_nodes(cosmos: &Cosmos, of: usize) -> BTreeSet<String> {
    let names = cosmos.cluster.allocations().keys();
    let some = |nodes: Vec<String>| {
        let count = nodes.len().div_ceil(of);
        nodes.into_iter().take(count)
    };
    names.flat_map(|name| some(cosmos.nodes_of(name))).collect()
}

/// The bytes of each object, as the API server hands it to etcd, but without what it adds itself.
fn weights(cosmos: &Cosmos) -> Vec<usize> {
    let objects = cosmos.cluster.allocations().values();
    objects.map(|object| serde_json::to_vec(&**object).unwrap().len()).collect()
}

/// A part of the play, and what it took.
#[derive(Default)]
struct Part {
    what: &'static str,
    /// Addresses that were on their way.
    moved: usize,
    time: Duration,
    requests: Requests,
    /// How many had been made before.
    from: usize,
    writes: usize,
    most_writes: usize,
    passes: usize,
    /// Of all passes; `None` where the kernel does not count.
    cost: Option<Duration>,
    largest: usize,
    /// Bytes of all status writes, by what objects weighed on average.
    written: usize,
}

#[derive(Default)]
struct Requests {
    surveys: usize,
    reads: usize,
    changes: usize,
    waits: usize,
}

impl Requests {
    fn all(&self) -> usize {
        self.surveys + self.reads + self.changes + self.waits
    }
}

struct Play {
    beats: Beats,
    size: usize,
    nodes: usize,
    parts: Vec<Part>,
}

impl Play {
    fn new(size: usize) -> Self {
        let allocations = size.div_ceil(MOST).max(FEWEST);
        let each = size.div_ceil(allocations);
        let nodes = each + each.div_ceil(10);
        let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
        cosmos.pace = Rate::new(PER_SECOND, BURST).ok();
        cosmos.judged_every = 100;
        for allocation in 0..allocations {
            let name = name(allocation);
            let ips: Vec<IpAddr> = (0..each).map(|n| ip(allocation * each + n)).collect();
            let selector = json!({POOL: "sip", GROUP: name});
            cosmos.allocate(&name, &ips, json!({"nodeSelector": selector, "strategy": {"maxUnavailable": "5%"}}));
        }
        for allocation in 0..allocations {
            let name = name(allocation);
            for n in 0..nodes {
                let node = format!("{name}-{n:04}");
                // Without an address of its own: a change puts one on or takes one off.
                cosmos.node(&node, false);
                cosmos.cluster.label(&node, GROUP, Some(&name)).unwrap();
            }
        }
        let beats = Beats::new(cosmos, BEAT);
        Self { beats, size: allocations * each, nodes: allocations * nodes, parts: Vec::new() }
    }

    /// Until it is so.
    fn until(&mut self, what: &'static str, moved: usize, is_so: impl Fn(&Cosmos) -> bool) -> Part {
        let journal = &self.beats.cosmos.journal;
        let (from, looked, began) = (journal.made.len(), journal.looks.len(), self.beats.cosmos.instant);
        // Twice as long as the tokens of all of them take to come, and what a lost machine is waited for.
        let limit = Duration::from_secs_f64(2.0 * 8.0 * moved as f64 / PER_SECOND) + Duration::from_secs(1_200);
        let (mut beats, mut weighed, mut largest, mut sum) = (0_usize, 0, 0, 0);
        while !is_so(&self.beats.cosmos) {
            let past = self.beats.cosmos.instant - began;
            assert!(past < limit, "P12: {what}: not after {} s: {}", past.as_secs(), self.beats.picture());
            if beats.is_multiple_of(WEIGHED_EVERY) {
                let weights = weights(&self.beats.cosmos);
                largest = largest.max(weights.iter().copied().max().unwrap_or_default());
                sum += weights.iter().sum::<usize>();
                weighed += weights.len();
            }
            self.beats.beat().unwrap();
            beats += 1;
        }
        let journal = &self.beats.cosmos.journal;
        let mut requests = Requests::default();
        for request in &journal.made[from..] {
            match request.what {
                What::Survey | What::Page => requests.surveys += 1,
                What::Find | What::Inspect | What::Whose => requests.reads += 1,
                What::Change(_) => requests.changes += 1,
                What::Wait => requests.waits += 1,
            }
        }
        let looks = &journal.looks[looked..];
        let writes = looks.iter().filter(|look| look.wrote).count();
        is_within_budget(&journal.made[from..]).unwrap();
        Part {
            what,
            moved,
            time: self.beats.cosmos.instant - began,
            requests,
            from,
            writes,
            most_writes: most_writes_in_a_second(looks),
            passes: looks.len(),
            cost: looks.iter().map(|look| look.cost).sum(),
            largest,
            written: writes * sum.checked_div(weighed).unwrap_or_default(),
        }
    }

    /// It stays so, the whole world is as it should be, and what befell it is forgotten.
    fn rests(&mut self, part: Part) {
        self.beats.rests().unwrap();
        self.beats.cosmos.excuses = Excuses::default();
        println!("{}: {} s of its time", part.what, part.time.as_secs());
        self.parts.push(part);
    }

    fn befall(&mut self, what: Outside) {
        self.beats.cosmos.happen(&Action::Outside(what)).unwrap();
    }

    fn comes_up(&mut self) {
        let none = BTreeSet::new();
        let part = self.until("come up from nothing", self.size, |cosmos| all_attached(cosmos, &none));
        assert_eq!(part.requests.changes, self.size, "each address is put on a machine once");
        overdraws_by_reads_alone(&self.beats.cosmos.journal.made[part.from..]).unwrap();
        self.rests(part);
    }

    fn is_drained(&mut self) {
        let cordoned = some_nodes(&self.beats.cosmos, DRAINED);
        cordoned.iter().for_each(|node| self.befall(Outside::Cordon(node.clone())));
        let part = self.until("nodes drained", cordoned.len(), |cosmos| all_attached(cosmos, &cordoned));
        assert_eq!(
            part.requests.changes,
            2 * cordoned.len(),
            "each is cut once and put on once, and nothing else moves"
        );
        overdraws_by_reads_alone(&self.beats.cosmos.journal.made[part.from..]).unwrap();
        self.rests(part);
        cordoned.into_iter().for_each(|node| self.befall(Outside::Uncordon(node)));
    }

    /// Their machines are gone, and their Node objects stay.
    fn loses_nodes(&mut self) {
        let lost = some_nodes(&self.beats.cosmos, LOST);
        for node in &lost {
            self.befall(Outside::VanishMachine(node.clone()));
            self.befall(Outside::NotReady(node.clone()));
        }
        let part = self.until("nodes lost at once", lost.len(), |cosmos| all_attached(cosmos, &lost));
        assert_eq!(part.requests.changes, lost.len(), "each is put on once: there is nothing to cut");
        self.rests(part);
    }

    fn idles(&mut self) {
        let end = self.beats.cosmos.instant + Duration::from_secs(600);
        let part = self.until("ten minutes at rest", 0, |cosmos| cosmos.instant >= end);
        assert_eq!((part.requests.changes, part.writes), (0, 0), "nothing is changed and nothing is written at rest");
        self.parts.push(part);
    }

    /// As a table of Markdown.
    fn table(&self) -> String {
        let mut text = row("", self.parts.iter().map(|part| part.what.to_owned()));
        text += &format!("|{}\n", " --- |".repeat(self.parts.len() + 1));
        let mut line = |name: &str, cell: &dyn Fn(&Part) -> String| text += &row(name, self.parts.iter().map(cell));
        line("addresses on their way", &|part| grouped(part.moved));
        line("took, s", &|part| grouped(whole(part.time.as_secs_f64())));
        line("requests ÷ `CLOUD_QPS`, s", &|part| grouped(whole(part.requests.all() as f64 / PER_SECOND)));
        line("requests", &|part| grouped(part.requests.all()));
        line("… of surveys, pages", &|part| grouped(part.requests.surveys));
        line("… other reads", &|part| grouped(part.requests.reads));
        line("… changes", &|part| grouped(part.requests.changes));
        line("… waits for the end of a change", &|part| grouped(part.requests.waits));
        line("requests for each address", &|part| each(part.requests.all(), part.moved));
        line("status writes", &|part| grouped(part.writes));
        line("… for each address", &|part| each(part.writes, part.moved));
        line("… of one object in one second, at most", &|part| grouped(part.most_writes));
        line("… all of them, MiB, about", &|part| grouped(part.written >> 20));
        line("largest object, bytes", &|part| grouped(part.largest));
        line("passes", &|part| grouped(part.passes));
        line("CPU time for a pass, ms", &|part| match part.cost {
            Some(cost) => format!("{:.1}", cost.as_secs_f64() * 1_000.0 / part.passes.max(1) as f64),
            None => "not counted by this kernel".to_owned(),
        });
        text
    }
}

/// Of one object, in any second.
fn most_writes_in_a_second(looks: &[Look]) -> usize {
    let mut writes: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for look in looks.iter().filter(|look| look.wrote) {
        writes.entry(&look.whose).or_default().push(look.at);
    }
    let within_a_second =
        |times: &[Instant]| times.iter().take_while(|at| at.duration_since(times[0]) < Duration::from_secs(1)).count();
    let from_each = |times: &Vec<Instant>| (0..times.len()).map(|first| within_a_second(&times[first..])).max();
    writes.values().filter_map(from_each).max().unwrap_or_default()
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    format!("| {name} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// `12,345`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

fn whole(number: f64) -> usize {
    number.round() as usize
}

fn each(n: usize, of: usize) -> String {
    if of == 0 { "–".to_owned() } else { format!("{:.1}", n as f64 / of as f64) }
}

/// The page with the text between the lines that are there for it.
fn told_in(page: &str, text: &str) -> String {
    let (before, rest) = page.split_once(BEGINS).unwrap_or_else(|| panic!("the page has no line {BEGINS}"));
    let (_, after) = rest.split_once(ENDS).unwrap_or_else(|| panic!("the page has no line {ENDS} after {BEGINS}"));
    format!("{before}{BEGINS}\n\n{text}\n{ENDS}{after}")
}

#[test]
fn p11_p12_many_addresses_come_up_move_and_fail_over_within_the_budget_and_cost_nothing_at_rest() {
    let size = number("SIZE").map_or(SIZE, |size| size.try_into().unwrap());
    let mut play = Play::new(size);
    play.comes_up();
    play.is_drained();
    play.loses_nodes();
    play.idles();
    let head = format!(
        "{} addresses in {} allocations on {} nodes; `CLOUD_QPS={PER_SECOND}`, `CLOUD_BURST={BURST}` (`make scale SIZE={size}`):",
        grouped(play.size),
        play.beats.cosmos.cluster.allocations().len(),
        grouped(play.nodes),
    );
    let text = format!("{head}\n\n{}\n{}", play.table(), weight_table());
    println!("{text}");
    if let Ok(path) = std::env::var("SCALE_REPORT") {
        let page = fs::read_to_string(&path).unwrap();
        fs::write(&path, told_in(&page, &text)).unwrap();
    }
}

// How large one object can get.

/// As the longest name of a Compute Engine instance.
const LONG_NAME: usize = 63;
/// A sentence of status: what waits for pods and names three of them, say.
const LONG_MESSAGE: usize = 200;

/// An allocation of as many addresses as the CRD takes.
struct Heavy {
    object: Value,
    count: usize,
}

impl Heavy {
    /// `fill`: makes an address's entry complete.
    fn new(fill: impl Fn(AddressStatus) -> AddressStatus) -> Self {
        let count = bound_of_the_crd();
        let ips: Vec<String> = (0..count).map(|n| ip(n).to_string()).collect();
        let spec: NetIPAllocationSpec = serde_json::from_value(json!({
            "reservedIPs": ips,
            "nodeSelector": {POOL: "sip"},
            "cloud": {"provider": "gcp", "region": "northamerica-northeast1"},
        }))
        .unwrap();
        let long = |first: char| first.to_string().repeat(LONG_NAME);
        let at_rest = |ip: &String| AddressStatus {
            ip: ip.clone(),
            state: "Attached".to_owned(),
            reason: Some("Verified".to_owned()),
            message: Some(format!("is on node {}", long('n'))),
            node: Some(long('n')),
            // An account of 30 characters, and the number that Google gives to a machine.
            machine_id: Some(format!("gce://{}/northamerica-northeast1-a/{}#{}", "p".repeat(30), long('n'), u64::MAX)),
            last_transition_time: Some(now()),
            restore: Some(RestoreStatus {
                external_ip: true,
                network_tier: Some("PREMIUM".to_owned()),
                public_ptr_domain_name: None,
            }),
            last_move: Some(LastMove {
                from_node: Some(long('f')),
                to_node: Some(long('n')),
                reason: "RemovedFromSpec".to_owned(),
                start_time: now(),
                finish_time: now(),
                gap_seconds: Some(12),
                trace_id: Some("0".repeat(32)),
            }),
            ..AddressStatus::default()
        };
        let condition = |kind: &str| Condition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            observed_generation: Some(1),
            last_transition_time: now(),
            reason: "CloudUnavailable".to_owned(),
            message: "m".repeat(LONG_MESSAGE),
        };
        let conditions = [
            "Ready",
            "AddressesValid",
            "CredentialsValid",
            "WorkloadFound",
            "FailoverFrozen",
            "Reconciling",
            "Stalled",
        ];
        let mut object = NetIPAllocation::new(&"a".repeat(LONG_NAME), spec);
        object.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
        object.status = Some(NetIPAllocationStatus {
            observed_generation: Some(1),
            conditions: conditions.map(condition).to_vec(),
            addresses: ips.iter().map(at_rest).map(fill).collect(),
            ..NetIPAllocationStatus::default()
        });
        Self { object: serde_json::to_value(object).unwrap(), count }
    }

    /// As it is here.
    fn bare(&self) -> usize {
        self.object.to_string().len()
    }

    /// With what `kubectl apply` keeps of the spec in an annotation, and the API server of who has set what in managedFields:
    /// `kubectl` the spec, the operator the status. `addresses` is one field there (an atomic list), and each of
    /// `reservedIPs` one of its own (a set).
    fn whole(&self) -> usize {
        let mut stored = self.object.clone();
        let entry = |manager: &str, part: &str, fields: Value| {
            json!({
                "manager": manager, "operation": "Update", "apiVersion": "netinfra.darkbrains.com/v1alpha1",
                "time": now(), "fieldsType": "FieldsV1", "fieldsV1": {format!("f:{part}"): fields},
            })
        };
        let managed = json!([
            entry("kubectl-client-side-apply", "spec", fields(&stored["spec"])),
            entry("ip-address-controller", "status", fields(&stored["status"])),
        ]);
        let applied = json!({"spec": stored["spec"]}).to_string();
        stored["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
        stored["metadata"]["managedFields"] = managed;
        stored.to_string().len()
    }

    /// So many characters more may each message have, all at once.
    fn room(&self) -> usize {
        ETCD_REQUEST.saturating_sub(self.whole()) / self.count
    }
}

/// FieldsV1 of a value.
fn fields(value: &Value) -> Value {
    let inner = |name: &str, value: &Value| if name == "addresses" { json!({}) } else { fields(value) };
    match value {
        Value::Object(all) => all.iter().map(|(name, value)| (format!("f:{name}"), inner(name, value))).collect(),
        Value::Array(items) => {
            let all = items.iter().map(|item| match item.get("type") {
                Some(kind) => (format!("k:{}", json!({"type": kind})), fields(item)),
                None => (format!("v:{item}"), json!({})),
            });
            all.chain([(".".to_owned(), json!({}))]).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!({}),
    }
}

fn now() -> Time {
    Time(Timestamp::from_second(BIRTH).unwrap())
}

/// Of `spec.reservedIPs`, and of what `spec.addressSelector` may match.
fn bound_of_the_crd() -> usize {
    let crd = serde_json::to_value(api::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let most = schema["properties"]["spec"]["properties"]["reservedIPs"]["maxItems"].as_u64().unwrap();
    most.try_into().unwrap()
}

/// Each on its node, after a move.
fn at_rest() -> Heavy {
    Heavy::new(|entry| entry)
}

/// Each with everything that an entry can have, which no address has at once with all others.
fn everything() -> Heavy {
    Heavy::new(|entry| AddressStatus {
        state: "Unassigned".to_owned(),
        reason: Some("RemovedFromSpec".to_owned()),
        message: Some("m".repeat(LONG_MESSAGE)),
        planned_node: Some("p".repeat(LONG_NAME)),
        deadline_time: Some(now()),
        restore: Some(RestoreStatus {
            external_ip: true,
            network_tier: Some("STANDARD".to_owned()),
            public_ptr_domain_name: Some("d".repeat(LONG_NAME)),
        }),
        operation: Some(OperationStatus {
            id: uuid::Uuid::nil().to_string(),
            type_: "Attach".to_owned(),
            start_time: now(),
            send_before_time: Some(now()),
            attempts: 10,
            retry_time: Some(now()),
            traceparent: Some("0".repeat(55)),
        }),
        ..entry
    })
}

/// As a table of Markdown.
fn weight_table() -> String {
    let objects = [("at rest, after a move", at_rest()), ("every field of every entry filled", everything())];
    let count = bound_of_the_crd();
    let mut text = format!(
        "One allocation of {} addresses, with names of {LONG_NAME} characters, of the {} bytes that etcd takes:\n\n",
        grouped(count),
        grouped(ETCD_REQUEST)
    );
    text += "| | object, bytes | with annotation and managedFields | of what etcd takes | room for each message |\n";
    text += "| --- | --- | --- | --- | --- |\n";
    for (what, heavy) in objects {
        let share = heavy.whole() * 100 / ETCD_REQUEST;
        let cells = [grouped(heavy.bare()), grouped(heavy.whole()), format!("{share}%"), grouped(heavy.room())];
        text += &row(what, cells.into_iter());
    }
    text
}

#[test]
fn an_allocation_of_as_many_addresses_as_the_crd_takes_fits_into_etcd() {
    let (rest, full) = (at_rest(), everything());
    println!("{}", weight_table());
    assert!(rest.whole() < ETCD_REQUEST * 2 / 3, "{} bytes at rest", rest.whole());
    assert!(full.whole() < ETCD_REQUEST, "{} bytes with every field filled", full.whole());
}

#[test]
fn what_was_told_last_is_replaced_and_the_rest_of_the_page_stays() {
    let page = format!("before\n{BEGINS}\nold\n{ENDS}\nafter\n");
    assert_eq!(told_in(&page, "new\n"), format!("before\n{BEGINS}\n\nnew\n\n{ENDS}\nafter\n"));
}
