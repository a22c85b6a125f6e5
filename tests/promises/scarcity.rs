//! Who goes first where the cloud's budget is short, and that everybody's turn comes.
//!
//! Numbers of turns rest on the queue that ships: by urgency, then party by party; and of four turns, and of four tokens, one
//! is for the urgency that has not been served for longest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::cloud::{
    Provider,
    limits::{Rate, Urgency, queue::PATIENCE},
};
use serde_json::json;

use crate::cosmos::{
    beats::Beats,
    course::{Cosmos, Outside, POOL},
    pace::{Journal, Made, What},
    process::Rules,
};

const BURST: u32 = 10;

/// Addresses of one allocation differ from those of another by `net`.
fn ips(net: u8, count: usize) -> Vec<IpAddr> {
    let part = |part: usize| u8::try_from(part).unwrap();
    (0..count).map(|n| IpAddr::from([198, net, part(n / 250), part(n % 250 + 1)])).collect()
}

fn add(cosmos: &mut Cosmos, name: &str, ips: &[IpAddr]) {
    // All of them may be between two nodes at once.
    cosmos.allocate(name, ips, json!({"strategy": {"maxUnavailable": "100%"}}));
}

/// Nodes of Google Cloud without addresses of their own, and a process that may ask so often a second.
fn world(nodes: usize, per_second: f64) -> Cosmos {
    let mut cosmos = Cosmos::new(Provider::Gcp, 1, Rules::default(), Instant::now());
    cosmos.pace = Rate::new(per_second, BURST).ok();
    for n in 0..nodes {
        cosmos.node(&format!("n{n:04}"), false);
    }
    cosmos
}

fn attached(beats: &mut Beats, name: &str, limit: u64) -> Duration {
    let none = BTreeSet::new();
    beats.until(Duration::from_secs(limit), |cosmos| cosmos.is_attached(name, &none)).unwrap()
}

fn changes(made: &[Made]) -> Vec<&Made> {
    made.iter().filter(|request| matches!(request.what, What::Change(_))).collect()
}

/// When there was a look at everything, from `from` on.
fn surveys(journal: &Journal, from: Instant) -> Vec<Instant> {
    let surveys = journal.made.iter().filter(|request| request.what == What::Survey).map(|request| request.at);
    surveys.filter(|at| *at >= from).collect()
}

/// The longest time without one, from `from` to `to`.
fn longest_without_survey(journal: &Journal, from: Instant, to: Instant) -> Duration {
    let mut times = surveys(journal, from);
    times.retain(|at| *at < to);
    times.extend([from, to]);
    times.sort();
    times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

/// Of any four turns in a row at most one is somebody's before whom somebody more urgent waits.
fn passes_over_with_patience_alone(journal: &Journal) {
    for turns in journal.served.windows(usize::from(PATIENCE)) {
        assert!(turns.iter().filter(|turn| turn.passed_over).count() <= 1, "{turns:?}");
    }
}

#[test]
fn p11_what_is_lost_goes_before_what_is_drained_and_this_before_what_is_new() {
    let mut cosmos = world(40, 2.0);
    add(&mut cosmos, "red", &ips(18, 8));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    attached(&mut beats, "red", 300);
    add(&mut beats.cosmos, "green", &ips(19, 20));
    // There are no tokens left to begin with, and a queue of new addresses.
    beats.run(Duration::from_secs(15)).unwrap();

    let nodes = beats.cosmos.nodes_of("red");
    let (lost, drained) = (nodes[0].clone(), &nodes[1..5]);
    beats.outside(Outside::VanishMachine(lost.clone()));
    beats.outside(Outside::NotReady(lost.clone()));
    drained.iter().for_each(|node| beats.outside(Outside::Cordon(node.clone())));
    let left: BTreeSet<String> = nodes[..5].iter().cloned().collect();
    let (from, began) = (beats.cosmos.journal.made.len(), beats.cosmos.instant);
    let took = beats.until(Duration::from_secs(300), |cosmos| cosmos.is_attached("red", &left)).unwrap();

    let sent = changes(&beats.cosmos.journal.made[from..]);
    let order: Vec<Urgency> = sent.iter().map(|request| request.urgency).collect();
    let first = order.iter().position(|urgency| *urgency == Urgency::Failover).unwrap();
    let last_of_red = sent.iter().rposition(|request| request.whose == "red").unwrap();
    println!("after {} s: {order:?}", took.as_secs());
    // It takes three turns (the lost machine is read, a permit, the new machine is read), between which nobody keeps a place
    // for whoever is about to ask: before each, one that was waited for already, or one of patience. And two changes had
    // their tokens, or were about to, when it was lost.
    assert!(first <= 5, "{first} changes before that of the lost address: {order:?}");
    // Nine changes of red's, some 27 turns with the reads that they need. To three of these comes one of patience; and some
    // more while nobody of red's waits for a turn. In the order in which they came all twenty would have gone first.
    let new = sent[..last_of_red].iter().filter(|request| request.whose == "green").count();
    assert!(new <= 12, "{new} new addresses before the last of the drained ones: {order:?}");

    attached(&mut beats, "green", 600);
    let now = beats.cosmos.instant;
    passes_over_with_patience_alone(&beats.cosmos.journal);
    // The cloud is out of sight only after five minutes (`Subject::blind_after`).
    let longest = longest_without_survey(&beats.cosmos.journal, began, now);
    assert!(longest < Duration::from_secs(120), "{longest:?} without a survey");
    beats.rests().unwrap();
}

#[test]
fn p11_allocations_that_drain_at_once_look_each_at_a_machine_of_its_own() {
    let mut cosmos = world(12, 20.0);
    let names = ["red", "green", "blue", "white"];
    names.iter().enumerate().for_each(|(n, name)| add(&mut cosmos, name, &ips(18 + u8::try_from(n).unwrap(), 1)));
    let mut beats = Beats::new(cosmos, Duration::from_millis(100));
    for name in names {
        attached(&mut beats, name, 300);
    }
    beats.rests().unwrap();

    let left: BTreeSet<String> = names.iter().flat_map(|name| beats.cosmos.nodes_of(name)).collect();
    left.iter().for_each(|node| beats.outside(Outside::Cordon(node.clone())));
    let from = beats.cosmos.journal.made.len();
    let moved = |cosmos: &Cosmos| names.iter().all(|name| cosmos.is_attached(name, &left));
    beats.until(Duration::from_secs(120), moved).unwrap();
    let made = &beats.cosmos.journal.made[from..];
    // Before it may go; what it does then reads the machines again.
    let looks = made.iter().filter(|it| it.what == What::Inspect && it.urgency == Urgency::Look).count();
    assert_eq!(looks, names.len(), "{made:?}");
}

#[test]
fn p11_a_busy_day_of_drains_leaves_turns_for_surveys() {
    let mut cosmos = world(24, 2.0);
    add(&mut cosmos, "red", &ips(18, 8));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    attached(&mut beats, "red", 300);
    let (began, before) = (beats.cosmos.instant, beats.cosmos.journal.served.len());
    for _ in 0..30 {
        // Wherever they are they have to leave, which takes more than twice what the budget gives in that time.
        let left: BTreeSet<String> = beats.cosmos.nodes_of("red").into_iter().collect();
        let nodes: Vec<String> = beats.cosmos.cluster.nodes().keys().cloned().collect();
        for node in nodes {
            let cordon = left.contains(&node);
            beats.outside(if cordon { Outside::Cordon(node) } else { Outside::Uncordon(node) });
        }
        beats.run(Duration::from_secs(20)).unwrap();
    }
    let journal = &beats.cosmos.journal;
    let drains = journal.served[before..].iter().filter(|turn| turn.urgency == Urgency::Drain).count();
    let patient = journal.served[before..].iter().filter(|turn| turn.urgency == Urgency::Survey && turn.passed_over);
    let longest = longest_without_survey(journal, began, beats.cosmos.instant);
    println!("{drains} turns of drains, {} of patience for surveys, {longest:?} without one", patient.clone().count());
    assert!(patient.count() > 0, "there was a turn for everybody: this shows nothing");
    // One is asked for every 27 s, and waits for four turns, none of which takes longer than a change's tokens, 4 s.
    assert!(longest < Duration::from_secs(60), "{longest:?} without a survey");
    passes_over_with_patience_alone(journal);
}

#[test]
fn p11_what_is_new_goes_before_looking_whether_all_is_still_so() {
    let mut cosmos = world(65, 1.0);
    add(&mut cosmos, "red", &ips(18, 60));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    // The tokens of the beginning are spent, and all wait.
    beats.run(Duration::from_secs(60)).unwrap();
    let began = beats.cosmos.instant;
    beats.run(Duration::from_secs(240)).unwrap();

    let journal = &beats.cosmos.journal;
    let surveys = surveys(journal, began);
    let placements: Vec<Instant> = journal.served.iter().filter(|turn| turn.change).map(|turn| turn.at).collect();
    // Asked for anew when nine tenths of the interval of 30 s are over.
    let due = |last: Instant| last + Duration::from_secs(27);
    let between = |from: Instant, to: Instant| placements.iter().filter(|at| (from..to).contains(*at)).count();
    let before: Vec<usize> = surveys.windows(2).map(|two| between(due(two[0]), two[1])).collect();
    println!("{before:?} of {} placements came first", placements.len());
    assert!(!beats.cosmos.is_attached("red", &BTreeSet::new()), "there was a turn for everybody");
    // As urgent as they are a survey would be the last of all, and before a more urgent one none of them would come.
    assert!(before.len() >= 4, "{} looks at everything", surveys.len());
    assert!(before.iter().all(|placed| (2..=usize::from(PATIENCE)).contains(placed)), "{before:?}");
    passes_over_with_patience_alone(journal);
}

#[test]
fn p11_three_new_addresses_do_not_wait_for_a_thousand() {
    let mut cosmos = world(1_010, 2.0);
    // Judged as a whole now and then: there are a thousand nodes.
    cosmos.judged_every = 100;
    let large: BTreeSet<IpAddr> = ips(18, 1_000).into_iter().collect();
    add(&mut cosmos, "large", &ips(18, 1_000));
    add(&mut cosmos, "small", &ips(19, 3));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    let took = attached(&mut beats, "small", 180);
    let placed = beats.cosmos.on_machines().into_keys().filter(|ip| large.contains(ip)).count();
    println!("after {} s, and {placed} of the thousand", took.as_secs());
    // Party by party, so three of the large one's permits come before the third of the small one's. While that one's machine is
    // read and it is put on and labelled, which takes seconds, a permit comes every four; and of any four turns one may be
    // somebody else's. That is half a dozen, and no more than twice that however the turns fall.
    assert!(placed <= 12, "{placed} of the thousand were placed before the three");
}

#[test]
fn p11_p12_a_slow_pace_delays_and_starves_nobody() {
    let mut cosmos = world(165, 1.0);
    add(&mut cosmos, "red", &ips(18, 150));
    let mut beats = Beats::new(cosmos, Duration::from_secs(2));
    beats.cosmos.judged_every = 10;
    // Six requests each, and a survey every 27 s; reads that grow old while they wait for a permit would be made for nothing
    // here, again and again.
    let took = attached(&mut beats, "red", 1_500);
    let mut what: BTreeMap<String, usize> = BTreeMap::new();
    for request in &beats.cosmos.journal.made {
        *what.entry(format!("{:?}", request.what)).or_default() += 1;
    }
    println!("after {} s: {what:?}", took.as_secs());
    beats.rests().unwrap();
}

#[test]
fn p11_a_failover_does_not_stand_behind_placements_until_a_slot_is_free() {
    // Tokens come faster than changes end, and only two may be under way.
    let mut cosmos = world(40, 20.0);
    cosmos.slots = 2;
    add(&mut cosmos, "red", &ips(18, 2));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    attached(&mut beats, "red", 60);
    add(&mut beats.cosmos, "green", &ips(19, 30));
    beats.run(Duration::from_secs(8)).unwrap();

    let lost = beats.cosmos.nodes_of("red")[0].clone();
    beats.outside(Outside::VanishMachine(lost.clone()));
    beats.outside(Outside::NotReady(lost.clone()));
    let from = beats.cosmos.journal.made.len();
    let left = BTreeSet::from([lost]);
    let took = beats.until(Duration::from_secs(60), |cosmos| cosmos.is_attached("red", &left)).unwrap();

    let sent = changes(&beats.cosmos.journal.made[from..]);
    let order: Vec<Urgency> = sent.iter().map(|request| request.urgency).collect();
    let first = order.iter().position(|urgency| *urgency == Urgency::Failover).unwrap();
    println!("after {} s: {order:?}", took.as_secs());
    // One placement ends a beat, and in each of four or five beats something is read first: the lost machine, its address, the
    // new machine. Two more were under way, and one turn may be one of patience. Those that would have their tokens by then,
    // and wait for a slot alone, are more than a dozen.
    assert!(first <= 10, "{first} changes before that of the lost address: {order:?}");
    attached(&mut beats, "green", 120);
    passes_over_with_patience_alone(&beats.cosmos.journal);
    beats.rests().unwrap();
}

#[test]
fn p11_machines_that_cannot_be_read_hold_up_nobody_elses_changes() {
    let mut cosmos = world(11, 10.0);
    cosmos.slots = 4;
    let group = |n: usize| if n < 8 { "red" } else { "green" };
    (0..11).for_each(|n| cosmos.cluster.label(&format!("n{n:04}"), "group", Some(group(n))).unwrap());
    let silent = (0..8).map(|n| cosmos.place(&format!("n{n:04}")).unwrap().clone()).collect();
    let on =
        |group: &str| json!({"nodeSelector": {POOL: "sip", "group": group}, "strategy": {"maxUnavailable": "100%"}});
    cosmos.allocate("red", &ips(18, 8), on("red"));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    beats.silent = silent;
    beats.run(Duration::from_secs(10)).unwrap();

    beats.cosmos.allocate("green", &ips(19, 3), on("green"));
    let took = attached(&mut beats, "green", 120);
    println!("after {} s", took.as_secs());
    // A permit that is kept while its machine is read again and again is kept for 30 s; there are four, and eight who want one.
    assert!(took <= Duration::from_secs(15), "{took:?} for what needs four or five beats");
    beats.silent.clear();
    attached(&mut beats, "red", 180);
    beats.rests().unwrap();
}

#[test]
fn p11_a_machine_that_is_known_to_run_is_read_again_without_hurry() {
    let mut cosmos = world(10, 20.0);
    add(&mut cosmos, "red", &ips(18, 3));
    let mut beats = Beats::new(cosmos, Duration::from_secs(1));
    attached(&mut beats, "red", 60);
    let node = beats.cosmos.nodes_of("red")[0].clone();
    let hurried = |made: &[Made]| {
        let reads: Vec<Urgency> =
            made.iter().filter(|request| request.what == What::Inspect).map(|request| request.urgency).collect();
        (reads.iter().filter(|urgency| **urgency == Urgency::Failover).count(), reads.len())
    };
    let before = beats.cosmos.journal.made.len();
    beats.outside(Outside::NotReady(node));
    beats.run(Duration::from_secs(10)).unwrap();
    let from = beats.cosmos.journal.made.len();
    assert_eq!(hurried(&beats.cosmos.journal.made[before..]), (1, 1), "whether it runs is not known yet");
    // Less than its grace of five minutes.
    beats.run(Duration::from_secs(240)).unwrap();
    let (hurried, reads) = hurried(&beats.cosmos.journal.made[from..]);
    println!("{reads} further reads, {hurried} of them in a hurry");
    assert!(reads >= 4, "{reads} reads, of which one is due every 30 s");
    // A pass that comes a moment too late finds it unknown again.
    assert!(2 * hurried < reads, "{hurried} of {reads} as urgent as what is lost");
}
