//! The size that is promised, and what is outside gone for long: 1,000 addresses in 10 allocations on 1,100 nodes of Google
//! Cloud, a tenth of them for each, within `CLOUD_QPS=20` and `CLOUD_BURST=40`. An hour without the cloud, ten minutes without
//! the API server.
//!
//! What must be so of the whole world is judged after every hundredth action here, and at the end; what each request and each
//! pass must not do, after each. The nodes have no addresses of their own, so that a change is five requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ip_address_controller::{
    api::READY_LABEL,
    cloud::{
        Change, Provider, ProviderId,
        limits::{Rate, Urgency},
    },
};
use serde_json::json;

use crate::cosmos::{
    beats::{Beats, Weather},
    course::{Cosmos, Outside, POOL},
    pace::{Made, SLOTS, What},
    process::Rules,
};

pub const PER_SECOND: f64 = 20.0;
pub const BURST: u32 = 40;
const ALLOCATIONS: usize = 10;
/// Addresses of each.
const EACH: usize = 100;
/// Nodes for each.
const NODES: usize = 110;
/// `strategy.maxUnavailable` of each.
const AT_ONCE: usize = 5;
/// So many of an allocation's nodes are cordoned: twice as many as may be left at once, and no more than there are spares.
const CORDONED: usize = 10;

/// The label of the nodes that are for one allocation.
pub const GROUP: &str = "group";

/// While something moves.
pub const BEAT: Duration = Duration::from_secs(3);
/// While nothing can.
const SLOW_BEAT: Duration = Duration::from_secs(15);

fn name(allocation: usize) -> String {
    format!("a{allocation}")
}

fn ip(n: usize) -> IpAddr {
    let [high, low] = [n / 250, n % 250 + 1].map(|part| u8::try_from(part).unwrap());
    IpAddr::from([198, 18, high, low])
}

/// Every address is on a node, none of `left`, which says so.
fn all_attached(cosmos: &Cosmos, left: &BTreeSet<String>) -> bool {
    (0..ALLOCATIONS).all(|allocation| cosmos.is_attached(&name(allocation), left))
}

fn labelled(cosmos: &Cosmos) -> usize {
    cosmos.cluster.nodes().values().filter(|node| node.label(READY_LABEL).is_some()).count()
}

/// All addresses attached by the operator itself; played once, and gone on from by each test.
fn attached() -> Beats {
    static ATTACHED: OnceLock<Beats> = OnceLock::new();
    ATTACHED.get_or_init(|| come_up().unwrap()).clone()
}

fn come_up() -> Result<Beats, String> {
    let mut cosmos = Cosmos::new(Provider::Gcp, 2, Rules::default(), Instant::now());
    cosmos.pace = Rate::new(PER_SECOND, BURST).ok();
    cosmos.judged_every = 100;
    for allocation in 0..ALLOCATIONS {
        let name = name(allocation);
        for n in 0..NODES {
            let node = format!("{name}-{n:03}");
            cosmos.node(&node, false);
            cosmos.cluster.label(&node, GROUP, Some(&name)).unwrap();
        }
        let ips: Vec<IpAddr> = (0..EACH).map(|n| ip(allocation * EACH + n)).collect();
        let selector = json!({POOL: "sip", GROUP: name});
        cosmos.allocate(&name, &ips, json!({"nodeSelector": selector, "strategy": {"maxUnavailable": AT_ONCE}}));
    }
    let mut beats = Beats::new(cosmos, BEAT);
    let none = BTreeSet::new();
    let took = beats.until(Duration::from_secs(1_200), |cosmos| all_attached(cosmos, &none))?;
    println!("all attached after {} s and {} requests", took.as_secs(), beats.cosmos.journal.made.len());
    beats.rests()?;
    Ok(beats)
}

/// Nodes with addresses of these allocations are cordoned.
fn cordon(beats: &mut Beats, allocations: &[usize]) -> BTreeSet<String> {
    let nodes = allocations.iter().map(|allocation| beats.cosmos.nodes_of(&name(*allocation)));
    let cordoned: BTreeSet<String> = nodes.flat_map(|nodes| nodes.into_iter().take(CORDONED)).collect();
    for node in &cordoned {
        beats.outside(Outside::Cordon(node.clone()));
    }
    cordoned
}

/// In no stretch of time more requests leave than tokens can have been there for: a full bucket, those that came in that
/// time, and those that changes under way when it began had taken before and not spent: no more than those of as many changes
/// as there are slots. Requests for which nobody had waited are not among them.
pub fn is_within_budget(made: &[Made]) -> Result<(), String> {
    let reserved = made.iter().map(|request| request.reserved).max().unwrap_or_default();
    if reserved > SLOTS * Provider::Gcp.requests_of(Change::Attach) {
        return Err(format!("P11: {reserved} tokens are taken by changes that are not under way"));
    }
    for seconds in [1, 10, 60, 600] {
        let stretch = Duration::from_secs(seconds);
        let (mut waited_for, mut next) = (0_u32, 0);
        for first in made {
            while let Some(request) = made.get(next).filter(|request| request.at.duration_since(first.at) <= stretch) {
                waited_for += u32::from(!request.overdrawn);
                next += 1;
            }
            let most = f64::from(BURST + first.reserved) + PER_SECOND * stretch.as_secs_f64();
            if f64::from(waited_for) > most {
                return Err(format!(
                    "P11: {waited_for} requests within {seconds} s, of at most {most}: from {first:?}"
                ));
            }
            waited_for -= u32::from(!first.overdrawn);
        }
    }
    Ok(())
}

/// A change takes no more requests than it waits for. A read waits for one: of a survey of more than 500 addresses, and of a
/// machine that has one, the second is overdrawn.
pub fn overdraws_by_reads_alone(made: &[Made]) -> Result<(), String> {
    let mut overdrawn = made.iter().filter(|request| request.overdrawn);
    let other = overdrawn.find(|request| !matches!(request.what, What::Page | What::Whose));
    other.map_or(Ok(()), |request| Err(format!("P11: nobody had waited for {request:?}")))
}

/// Nothing has come onto a machine or off it.
fn is_as_it_was(beats: &Beats, before: &BTreeMap<IpAddr, ProviderId>, landed: u64) -> bool {
    beats.cosmos.on_machines() == *before && beats.cosmos.landed == landed
}

/// Requests a second, on average.
fn on_average(made: &[Made], time: Duration) -> f64 {
    f64::from(u32::try_from(made.len()).unwrap()) / time.as_secs_f64()
}

/// What was cordoned has been left, and everything rests; the requests since `from` are within the budget.
fn heals(beats: &mut Beats, left: &BTreeSet<String>, from: usize) {
    let took = beats.until(Duration::from_secs(900), |cosmos| all_attached(cosmos, left)).unwrap();
    let made = &beats.cosmos.journal.made[from..];
    println!("healed after {} s, with {} requests", took.as_secs(), made.len());
    is_within_budget(made).unwrap();
    overdraws_by_reads_alone(made).unwrap();
    beats.rests().unwrap();
}

#[test]
fn p11_one_request_more_than_the_budget_gives_is_not_within_it() {
    let began = Instant::now();
    let read = |seconds: u64| Made {
        at: began + Duration::from_secs(seconds),
        what: What::Find,
        urgency: Urgency::Survey,
        whose: "a0".to_owned(),
        address: None,
        overdrawn: false,
        reserved: 0,
    };
    let at_once = (BURST + PER_SECOND as u32) as usize;
    let mut made: Vec<Made> = std::iter::repeat_with(|| read(0)).take(at_once).collect();
    is_within_budget(&made).unwrap();
    made.push(read(1));
    assert_eq!(is_within_budget(&made).unwrap_err().split(':').next(), Some("P11"));
    // What a change had taken before may be sent, too; and no more is taken than all slots need.
    made[0].reserved = 1;
    is_within_budget(&made).unwrap();
    made[0].reserved = SLOTS * Provider::Gcp.requests_of(Change::Attach) + 1;
    assert!(is_within_budget(&made).unwrap_err().contains("not under way"));
    // For the second page of a list nobody waits, for a change everybody does.
    let of = |what| [Made { overdrawn: true, what, ..read(0) }];
    overdraws_by_reads_alone(&of(What::Page)).unwrap();
    assert!(overdraws_by_reads_alone(&of(What::Change("add"))).unwrap_err().starts_with("P11"));
}

#[test]
fn p11_a_thousand_addresses_come_up_within_the_budget() {
    let beats = attached();
    let made = &beats.cosmos.journal.made;
    is_within_budget(made).unwrap();
    overdraws_by_reads_alone(made).unwrap();
    let changes = made.iter().filter(|request| matches!(request.what, What::Change(_))).count();
    assert_eq!(changes, ALLOCATIONS * EACH, "each address is put on a machine once");
}

#[test]
fn p3_p11_p12_an_hour_without_the_cloud_takes_nothing_off_stays_within_the_budget_and_heals() {
    let mut beats = attached();
    // What is tried again and again is 20 cuts.
    let drained = [1, 3, 5, 7];
    let cordoned = cordon(&mut beats, &drained);
    let (before, landed) = (beats.cosmos.on_machines(), beats.cosmos.landed);
    let from = beats.cosmos.journal.made.len();
    let hour = Duration::from_secs(3_600);
    (beats.weather, beats.beat) = (Weather::NoCloud, SLOW_BEAT);
    beats.run(hour).unwrap();
    assert!(is_as_it_was(&beats, &before, landed), "{}", beats.picture());
    let labels = labelled(&beats.cosmos);
    assert!(labels >= ALLOCATIONS * EACH - drained.len() * AT_ONCE, "{labels} nodes say that they have an address");

    let made = &beats.cosmos.journal.made[from..];
    is_within_budget(made).unwrap();
    assert!(
        !made.iter().any(|request| matches!(request.what, What::Change(_))),
        "a change follows a read that succeeds"
    );
    // Of each that cannot be cut: looked for by id every 5 s at most, its machine read every 30 s at most, the cut tried every
    // 22.5 s at most (30 s less a quarter). And a survey every 27 s at most. Twice that would be somebody who hammers.
    let most = 20.0 * (1.0 / 5.0 + 1.0 / 30.0 + 1.0 / 22.5) + 1.0 / 27.0;
    let average = on_average(made, hour);
    println!("an hour without the cloud: {average:.1} requests a second, of {most:.1}");
    assert!(average <= most, "{average} requests a second, of {most}");
    let surveys = made.iter().filter(|request| request.what == What::Survey).count();
    assert!(surveys >= 60, "{surveys} looks whether the cloud is back");

    (beats.weather, beats.beat) = (Weather::Fair, BEAT);
    let from = beats.cosmos.journal.made.len();
    heals(&mut beats, &cordoned, from);
    let moved = beats.cosmos.journal.made[from..].iter();
    let moved =
        moved.filter(|request| matches!(request.what, What::Change(_)) && request.urgency == Urgency::Drain).count();
    assert_eq!(moved, 2 * cordoned.len(), "each is cut once and put on once, and nothing else moves");
}

#[test]
fn p2_p11_p12_ten_minutes_of_refused_writes_begin_nothing_and_heal() {
    let mut beats = attached();
    let cordoned = cordon(&mut beats, &[3]);
    // Some are between two nodes when it begins.
    beats.run(2 * BEAT).unwrap();
    let from = beats.cosmos.journal.made.len();
    (beats.weather, beats.beat) = (Weather::NoWrites, 2 * BEAT);
    // What was sent before ends.
    beats.run(4 * BEAT).unwrap();
    let (before, landed) = (beats.cosmos.on_machines(), beats.cosmos.landed);
    beats.run(Duration::from_secs(600)).unwrap();
    assert!(is_as_it_was(&beats, &before, landed), "changed without an intent: {}", beats.picture());

    (beats.weather, beats.beat) = (Weather::Fair, BEAT);
    heals(&mut beats, &cordoned, from);
}

#[test]
fn p2_p8_p11_p12_ten_minutes_without_an_api_server_end_the_leader_begin_nothing_and_heal() {
    let mut beats = attached();
    let cordoned = cordon(&mut beats, &[3]);
    beats.run(2 * BEAT).unwrap();
    beats.weather = Weather::NoApiServer;
    // Its proof runs out, and what was sent before ends.
    beats.run(Duration::from_secs(30)).unwrap();
    assert!(beats.cosmos.leader().is_none(), "it leads without a Lease");
    let made = beats.cosmos.journal.made.len();
    let (before, landed) = (beats.cosmos.on_machines(), beats.cosmos.landed);
    beats.run(Duration::from_secs(570)).unwrap();
    assert!(is_as_it_was(&beats, &before, landed), "changed by nobody: {}", beats.picture());
    assert_eq!(beats.cosmos.journal.made.len(), made, "nobody leads, and the cloud is asked");

    beats.weather = Weather::Fair;
    heals(&mut beats, &cordoned, made);
}
