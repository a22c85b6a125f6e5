//! What the parts of a pass cost, from 10 to 10,000 addresses on as many nodes. `make bench` runs it and writes the table.
//!
//! All addresses are those of one object, more than the API server would let one have: so growth is seen at its worst. A pass is
//! shown also as it is meant to be: over one object of 100 addresses, beside others.

// A benchmark has nobody to tell: what cannot be set up ends it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use e2e::{
    simulator::Simulator,
    stage::Venue,
    world::{Address, World},
};
use google_cloud_auth::credentials::mds;
use ip_address_controller::{
    allocation::{
        claims::Claims,
        decide::{
            self,
            facts::{Entry, Facts, Journey},
            placement::{self, Candidate, Need, Verdict},
            state::{Reason, State},
            users::Workload,
        },
        memory,
        moment::Moment,
        observe::{
            Eyes, Subject, Surroundings,
            answers::{Answers, Question, Reply},
            nodes::{Roster, SlimNode, SlimSpec, SlimStatus},
        },
        round::{self, Entries, PodsByNode, Scene},
        tables::Tables,
    },
    api::{FINALIZER, NetIPAllocation, NetIPAllocationStatus},
    cloud::{
        Cloud, Holder, MachineId, Own, Provider, ProviderId, Reach, Reservation, Scope, Survey,
        gcp::{Gcp, GcpSettings},
    },
    lifecycle::pass,
};
use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};
use kube::api::ObjectMeta;

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const ZONES: [&str; 3] = ["us-west1-a", "us-west1-b", "us-west1-c"];

fn ip(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).unwrap()))
}

fn zone(n: usize) -> &'static str {
    ZONES[n % ZONES.len()]
}

fn machine(n: usize) -> MachineId {
    let place = ProviderId::new(format!("gce://prod/{}/node-{n:05}", zone(n)));
    MachineId { place, instance: n.to_string() }
}

/// The name of an object, and which of all addresses are its own.
struct Share {
    name: String,
    addresses: Range<usize>,
}

impl Share {
    /// So many addresses, in objects of no more than so many.
    fn of(n: usize, each: usize) -> Vec<Share> {
        let share = |k: usize| Share { name: format!("many-{k}"), addresses: k * each..((k + 1) * each).min(n) };
        (0..n.div_ceil(each)).map(share).collect()
    }

    /// At rest, each on its node.
    fn object(&self, moment: &Moment) -> NetIPAllocation {
        let ips: Vec<IpAddr> = self.addresses.clone().map(ip).collect();
        let mut object: NetIPAllocation = serde_json::from_value(serde_json::json!({
            "apiVersion": "netinfra.darkbrains.com/v1alpha1",
            "kind": "NetIPAllocation",
            "metadata": {
                "name": self.name, "uid": format!("uid-{}", self.name), "resourceVersion": "1", "generation": 1,
                "finalizers": [FINALIZER], "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "reservedIPs": ips, "nodeSelector": {"pool": "sip"},
                "cloud": {"provider": "gcp", "region": "us-west1"}, "reconcileInterval": 30,
            },
        }))
        .unwrap();
        object.status = Some(NetIPAllocationStatus {
            observed_generation: Some(1),
            addresses: self.addresses.clone().map(|n| memory::write(&entry(n, moment))).collect(),
            ..NetIPAllocationStatus::default()
        });
        object
    }
}

fn node(n: usize, holds: Option<&Share>, moment: &Moment) -> Arc<SlimNode> {
    let mut labels = BTreeMap::from([
        ("topology.kubernetes.io/zone".to_owned(), zone(n).to_owned()),
        ("topology.kubernetes.io/region".to_owned(), "us-west1".to_owned()),
        ("pool".to_owned(), "sip".to_owned()),
    ]);
    if let Some(share) = holds {
        labels.extend([
            ("ip.ready".to_owned(), "true".to_owned()),
            ("netinfra.darkbrains.com/allocation".to_owned(), share.name.clone()),
            ("netinfra.darkbrains.com/address".to_owned(), ip(n).to_string()),
        ]);
    }
    let ready = NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(moment.now)),
        ..NodeCondition::default()
    };
    Arc::new(SlimNode {
        metadata: ObjectMeta {
            name: Some(format!("node-{n:05}")),
            uid: Some(format!("uid-{n}")),
            resource_version: Some("1".to_owned()),
            creation_timestamp: Some(Time(moment.now)),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([("container.googleapis.com/instance_id".to_owned(), n.to_string())])),
            ..ObjectMeta::default()
        },
        spec: SlimSpec { provider_id: Some(machine(n).place), ..SlimSpec::default() },
        status: SlimStatus { conditions: Some(vec![ready]) },
    })
}

fn entry(n: usize, moment: &Moment) -> Entry {
    let name = format!("node-{n:05}");
    Entry {
        state: State::Attached,
        reason: Reason::Verified,
        node: Some(name.clone()),
        machine: Some(machine(n)),
        restore: Some(Own::default()),
        last_move: Some(Journey {
            from: None,
            to: Some(name),
            reason: "Placed".to_owned(),
            start: moment.now,
            finish: moment.now,
            gap: None,
            trace_id: None,
        }),
        ..Entry::new(ip(n), moment.now)
    }
}

/// So many addresses at rest, each on its node, and a tenth as many nodes to spare. What is told is that of the first object.
struct Fixture {
    object: Arc<NetIPAllocation>,
    claims: Arc<Claims>,
    nodes: Arc<Roster>,
    answers: Answers,
    tables: Tables,
    moment: Moment,
}

impl Fixture {
    fn at_rest(n: usize) -> Self {
        Self::shared(n, n)
    }

    /// In objects of no more than so many.
    fn shared(n: usize, each: usize) -> Self {
        let moment = Moment::here();
        let shares = Share::of(n, each);
        let objects: Vec<Arc<NetIPAllocation>> = shares.iter().map(|share| Arc::new(share.object(&moment))).collect();
        let nodes = (0..n + n.div_ceil(10)).map(|k| node(k, shares.get(k / each).filter(|_| k < n), &moment)).collect();
        let nodes = Arc::new(Roster::of(nodes));
        let claims = Arc::new(Claims::of(objects.iter().map(|object| &**object)).labelled(&nodes));
        let mut tables = Tables::new(moment.instant - Duration::from_secs(600));
        objects.iter().for_each(|object| round::inherit(&mut tables, object, &moment));
        let mut fixture =
            Self { object: objects[0].clone(), claims, nodes, answers: Answers::default(), tables, moment };
        fixture.survey(n);
        // As a second pass finds it: nothing is left to write.
        let record = fixture.pass();
        let mut object = (*fixture.object).clone();
        object.status = Some(record);
        fixture.object = Arc::new(object);
        fixture
    }

    fn survey(&mut self, n: usize) {
        let reservation = |n: usize| Reservation {
            holder: Holder::Machine(machine(n).place),
            name: format!("address-{n}"),
            network_tier: Some("PREMIUM".to_owned()),
            reach: Reach::default(),
            tags: BTreeMap::new(),
        };
        let began = self.moment.instant;
        let survey = Survey { began, addresses: (0..n).map(|n| (ip(n), reservation(n))).collect() };
        let scope = self.subject().scope.unwrap();
        self.answers.arrived(&Question::Survey(scope), began, Reply::Survey(Ok(Arc::new(survey))));
    }

    fn subject(&self) -> Subject {
        Subject::of(self.object.clone(), false, false, &self.nodes, &self.answers)
    }

    fn scene(&self, subject: &Subject) -> Scene {
        let survey = subject.scope.as_ref().ok().and_then(|scope| self.answers.survey(scope).0);
        Scene {
            around: Surroundings {
                nodes: self.nodes.clone(),
                survey,
                survey_error: None,
                unconnected: BTreeMap::new(),
                disruption_taints: vec!["karpenter.sh/disrupted".to_owned()],
                moment: self.moment,
            },
            claims: self.claims.clone(),
            workload: Workload::Unnamed,
            pods: PodsByNode::new(),
            no_taint_left: true,
        }
    }

    /// The whole of a pass but its calls: the status that it would write.
    fn pass(&mut self) -> NetIPAllocationStatus {
        let subject = self.subject();
        let entries = Entries::of(&subject, &self.nodes, &self.moment);
        let scene = self.scene(&subject);
        let permits = BTreeSet::new();
        let (leaving, _) = round::leaving_nodes(&subject, &scene, &entries, &self.answers, &mut self.tables);
        black_box(leaving);
        let round = round::decide(&subject, &scene, &entries, &self.answers, &permits, &mut self.tables);
        let record = round.record(&subject, &scene, &entries, &self.tables, self.moment.instant);
        record.written(&mut self.tables);
        record.status
    }

    fn facts(&mut self) -> (Vec<Entry>, Vec<Facts>) {
        let subject = self.subject();
        let entries = Entries::of(&subject, &self.nodes, &self.moment).known;
        let scene = self.scene(&subject);
        let permits = BTreeSet::new();
        let eyes = Eyes {
            subject: &subject,
            around: &scene.around,
            answers: &self.answers,
            claims: &scene.claims,
            workload: &scene.workload,
            pods: &scene.pods,
            permits: &permits,
            questions: Default::default(),
        };
        let facts = eyes.facts(&entries, &mut self.tables);
        (entries, facts)
    }
}

/// What is linear by construction: that this, too, grows more than tenfold is the machine's caches.
fn copied(c: &mut Criterion) {
    let mut group = c.benchmark_group("copied");
    for n in SIZES {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let (_, facts) = made.get_or_insert_with(|| Fixture::at_rest(n).facts());
            b.iter(|| facts.iter().for_each(|one| drop(black_box(one.clone()))))
        });
    }
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for n in SIZES {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let (entries, facts) = &*made.get_or_insert_with(|| Fixture::at_rest(n).facts());
            b.iter(|| {
                for (entry, facts) in entries.iter().zip(facts) {
                    black_box(pass::run::<decide::Address>(entry.clone(), facts));
                }
            });
        });
    }
}

fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    for n in SIZES {
        let need = |n| (2, Need { ip: ip(n), planned: None, refused: BTreeSet::new(), reach: Reach::Region });
        let needs: Vec<(u8, Need)> = (0..n).map(need).collect();
        let candidates: Vec<Candidate> = (0..n + n.div_ceil(10))
            .map(|k| Candidate {
                name: format!("node-{k:05}"),
                zone: zone(k).to_owned(),
                verdict: Verdict::Eligible,
                why: None,
                last_choice: false,
            })
            .collect();
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            b.iter(|| placement::place(&needs, &candidates, &BTreeMap::new()));
        });
    }
}

fn whole_pass(c: &mut Criterion) {
    passes(c, "pass", Fixture::at_rest);
}

/// Over 100 addresses, of as many as there are.
fn pass_of_a_hundred(c: &mut Criterion) {
    passes(c, "pass of 100", |n| Fixture::shared(n, 100));
}

fn passes(c: &mut Criterion, name: &str, at_rest: impl Fn(usize) -> Fixture) {
    let mut group = c.benchmark_group(name);
    for n in SIZES {
        // Made when it is asked for: one benchmark alone does not wait for all others'.
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let fixture = made.get_or_insert_with(|| {
                let mut fixture = at_rest(n);
                let status = fixture.pass();
                assert_eq!(fixture.object.status.as_ref(), Some(&status), "it is at rest");
                fixture
            });
            b.iter(|| fixture.pass());
        });
    }
}

fn status_diff(c: &mut Criterion) {
    let mut group = c.benchmark_group("status diff");
    for n in SIZES {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let (fixture, next) = made.get_or_insert_with(|| {
                let mut fixture = Fixture::at_rest(n);
                let next = fixture.pass();
                (fixture, next)
            });
            b.iter(|| assert_eq!(black_box(fixture.object.status.as_ref()), black_box(Some(&*next))));
        });
    }
}

/// The whole way of a survey, by the real client from the simulated Google Cloud on loopback; and the same bytes fetched
/// and not looked at, which is what the way costs by itself.
fn survey(c: &mut Criterion) {
    // The clients need a TLS provider even where nothing is encrypted.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let venue = &Venue::GCP;
    let mut group = c.benchmark_group("survey");
    for n in SIZES {
        let world = World::new();
        venue.places().iter().for_each(|(region, zones)| {
            zones.iter().for_each(|zone| world.add_zone(venue.account, region, zone));
        });
        for k in 0..n {
            world.add_address(Address::new(venue.account, venue.region, &format!("address-{k}"), ip(k)));
        }
        let simulator = runtime.block_on(Simulator::start(world.clone())).unwrap();
        let cloud = runtime.block_on(cloud(&simulator));
        let scope = Scope {
            provider: Provider::Gcp,
            account: venue.account.to_owned(),
            region: venue.region.to_owned(),
            resource_group: None,
        };
        let timed = |call: &dyn Fn() -> usize, times: u64| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                world.clear_calls();
                let began = Instant::now();
                assert_eq!(call(), n);
                spent += began.elapsed();
            }
            spent
        };
        let parsed = || runtime.block_on(cloud.survey(&scope)).unwrap().addresses.len();
        group.bench_function(BenchmarkId::new("read", n), |b| b.iter_custom(|times| timed(&parsed, times)));
        let token = world.issue_token().unwrap();
        let fetched = || runtime.block_on(fetch(&simulator, &token));
        group.bench_function(BenchmarkId::new("bytes alone", n), |b| b.iter_custom(|times| timed(&fetched, times)));
    }
}

async fn cloud(simulator: &Simulator) -> Gcp {
    let settings = GcpSettings {
        endpoint: Some(simulator.endpoint()),
        allow_insecure: false,
        timeout: Duration::from_secs(30),
        operation_timeout: Duration::from_secs(120),
    };
    let credentials =
        mds::Builder::default().with_endpoint(simulator.endpoint()).build_access_token_credentials().unwrap();
    Gcp::connect_as(&settings, credentials).await.unwrap()
}

/// Fetches every page, looks for nothing but the next, and counts the addresses by a word that each has once.
async fn fetch(simulator: &Simulator, token: &str) -> usize {
    let venue = &Venue::GCP;
    let url = format!(
        "{}/compute/v1/projects/{}/regions/{}/addresses?maxResults=500&pageToken=",
        simulator.endpoint(),
        venue.account,
        venue.region
    );
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut count, mut page) = (0, String::new());
    loop {
        let answer = client.get(format!("{url}{page}")).bearer_auth(token).send().await.unwrap();
        let text = answer.text().await.unwrap();
        count += text.matches("\"compute#address\"").count();
        match text.split("\"nextPageToken\":\"").nth(1).and_then(|rest| rest.split('"').next()) {
            Some(next) => page = next.to_owned(),
            None => return count,
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = copied, decide, placement, whole_pass, pass_of_a_hundred, status_diff, survey
}
criterion_main!(benches);
