//! Days without end: drains, nodes that come and go, edits and faults, until so many addresses have been put on machines. Every
//! day ends at rest, with everything where it should be; and what the operator knows does not grow with what it has seen.
//!
//! `MOVES=10000 cargo test --test promises soak` goes on for longer than the thousand of CI, `SEED=17` plays another world.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::cloud::Provider;
use serde_json::json;

use crate::{
    chance::{Chance, number},
    cosmos::{
        course::{Action, CallFault, Cosmos, Outside},
        excuses::Excuses,
        process::{DISRUPTION, Rules},
    },
};

const NODES: usize = 50;
/// Of each of the two allocations.
const EACH: usize = 20;
const NAMES: [&str; 2] = ["red", "blue"];
/// What befalls the world in a day.
const BLOWS: usize = 60;
/// So many nodes are cordoned at once at most, and so many addresses out of their specs: the others find a place.
const FEW: usize = 6;

/// More than an evening needs: who does more goes in circles.
const MOST: usize = 20_000;

/// Faults after which the process lives.
const FAULTS: [CallFault; 4] = [CallFault::Fails, CallFault::Denied, CallFault::Lost, CallFault::Unanswered];

struct Soak {
    cosmos: Cosmos,
    chance: Chance,
    /// Nodes whose machines have not gone.
    nodes: Vec<String>,
    /// Nodes there have ever been.
    born: usize,
    pods: usize,
    stopped: BTreeSet<String>,
    /// Addresses that are taken out of their spec for a while.
    taken_out: Vec<(String, IpAddr)>,
    /// What the next call meets with.
    broken: Option<CallFault>,
    /// Leaders come and go.
    stormy: bool,
}

fn ip(allocation: usize, n: usize) -> IpAddr {
    IpAddr::from([203, 0, 113, u8::try_from(allocation * EACH + n + 1).unwrap()])
}

impl Soak {
    fn new(seed: u64) -> Self {
        let mut cosmos = Cosmos::new(Provider::Gcp, 2, Rules::default(), Instant::now());
        for (allocation, name) in NAMES.iter().enumerate() {
            let ips: Vec<IpAddr> = (0..EACH).map(|n| ip(allocation, n)).collect();
            cosmos.allocate(name, &ips, json!({"strategy": {"maxUnavailable": 4}}));
        }
        let mut soak = Self {
            cosmos,
            chance: Chance(seed),
            nodes: Vec::new(),
            born: 0,
            pods: 0,
            stopped: BTreeSet::new(),
            taken_out: Vec::new(),
            broken: None,
            stormy: true,
        };
        (0..NODES).for_each(|_| soak.join());
        soak
    }

    /// A node joins, under a name that no other has ever had.
    fn join(&mut self) {
        self.born += 1;
        let name = format!("n{}", self.born);
        self.cosmos.node(&name, true);
        self.nodes.push(name);
    }

    fn outside(&mut self, what: Outside) -> Result<(), String> {
        self.cosmos.happen(&Action::Outside(what))
    }

    /// Things go on by themselves; the next call that breaks, breaks.
    fn go_on(&mut self, actions: usize) -> Result<(), String> {
        for _ in 0..actions {
            let Some(action) = self.cosmos.next() else {
                self.cosmos.happen(&Action::Elapse(Duration::from_secs(2)))?;
                continue;
            };
            let instead = self.broken.and_then(|fault| action.befallen(fault, None));
            let befallen = self.cosmos.befallen;
            self.cosmos.happen(&instead.unwrap_or(action))?;
            if self.cosmos.befallen > befallen {
                self.broken = None;
            }
        }
        Ok(())
    }

    fn blow(&mut self) -> Result<(), String> {
        let node = self.chance.of(&self.nodes);
        match self.chance.below(32) {
            0..=9 => self.cordon(node),
            10..=13 => self.replace(&node),
            14 | 15 => self.outside(Outside::Taint(node, DISRUPTION.to_owned())),
            16 => self.outside(Outside::Untaint(node, DISRUPTION.to_owned())),
            17 => self.outside(Outside::NotReady(node)),
            18 => self.outside(Outside::Ready(node)),
            19 | 20 => self.pod(&node),
            21 => self.end_pods(Some(&node)),
            22 => self.edit(),
            23 => {
                let (name, ip) = self.address();
                self.outside(Outside::Move(name, ip))
            }
            24 => self.outside(Outside::ReplaceMachine(node)),
            25 => {
                self.stopped.insert(node.clone());
                self.outside(Outside::StopMachine(node.clone()))?;
                self.outside(Outside::NotReady(node))
            }
            26 | 27 => {
                self.broken = Some(self.chance.of(&FAULTS));
                Ok(())
            }
            28 => self.late_request(),
            29 | 30 => self.leader(),
            _ => {
                let seconds = self.chance.of(&[1, 5, 20, 60, 200]);
                self.cosmos.happen(&Action::Elapse(Duration::from_secs(seconds)))
            }
        }
    }

    fn address(&mut self) -> (String, IpAddr) {
        let allocation = self.chance.below(NAMES.len());
        (NAMES[allocation].to_owned(), ip(allocation, self.chance.below(EACH)))
    }

    /// Or another one is for use again, where many are not.
    fn cordon(&mut self, node: String) -> Result<(), String> {
        let nodes = self.cosmos.cluster.nodes().iter();
        let cordoned: Vec<String> = nodes.filter(|(_, node)| node.cordoned()).map(|(name, _)| name.clone()).collect();
        if cordoned.len() < FEW {
            return self.outside(Outside::Cordon(node));
        }
        let back = self.chance.of(&cordoned);
        self.outside(Outside::Uncordon(back))
    }

    fn pod(&mut self, node: &str) -> Result<(), String> {
        self.pods += 1;
        self.outside(Outside::StartPod(node.to_owned(), format!("sip-{}", self.pods)))
    }

    fn end_pods(&mut self, node: Option<&str>) -> Result<(), String> {
        let pods = self.cosmos.cluster.pods().iter().filter(|(on, _)| node.is_none_or(|node| node == on.as_str()));
        let uids: Vec<String> = pods.flat_map(|(_, pods)| pods).map(|pod| pod.uid.clone()).collect();
        uids.into_iter().try_for_each(|uid| self.outside(Outside::EndPod(uid)))
    }

    /// An address goes out of its spec, or one comes back.
    fn edit(&mut self) -> Result<(), String> {
        if self.taken_out.len() >= FEW || self.chance.below(2) == 0 {
            return self.bring_back();
        }
        let (name, ip) = self.address();
        self.taken_out.push((name.clone(), ip));
        self.outside(Outside::Remove(name, ip))
    }

    fn bring_back(&mut self) -> Result<(), String> {
        match self.taken_out.pop() {
            Some((name, ip)) => self.outside(Outside::Add(name, ip)),
            None => Ok(()),
        }
    }

    /// An autoscaler's node goes, with its machine and whatever is on it, and another one joins.
    fn replace(&mut self, node: &str) -> Result<(), String> {
        self.outside(Outside::VanishMachine(node.to_owned()))?;
        self.outside(Outside::DeleteNode(node.to_owned()))?;
        self.nodes.retain(|other| other != node);
        self.stopped.remove(node);
        self.join();
        Ok(())
    }

    /// A request is not waited for any more, or one that nobody waits for takes effect.
    fn late_request(&mut self) -> Result<(), String> {
        let terms = self.cosmos.processes.iter().filter_map(|process| Some((process.id, process.term.as_ref()?)));
        let mut waiting =
            terms.flat_map(|(id, term)| term.flights.iter().map(move |(flight, what)| (id, *flight, what)));
        let given_up =
            waiting.find(|(_, _, what)| what.sent.is_some()).map(|(id, flight, _)| Action::TimeOut(id, flight));
        let late = self.cosmos.cloud.requests().keys().next().map(|request| Action::Land(*request));
        match given_up.or(late) {
            Some(action) => self.cosmos.happen(&action),
            None => Ok(()),
        }
    }

    /// In a storm the leader dies, steps down or is paused for a while; else it goes on.
    fn leader(&mut self) -> Result<(), String> {
        let Some(leader) = self.cosmos.leader().filter(|_| self.stormy) else { return Ok(()) };
        let (id, busy) = (leader.id, leader.term.as_ref().is_some_and(|term| !term.flights.is_empty()));
        match self.chance.below(3) {
            0 => self.cosmos.happen(&Action::Crash(id)),
            1 if !busy => self.cosmos.happen(&Action::StepDown(id)),
            _ => {
                self.cosmos.happen(&Action::Pause(id))?;
                self.cosmos.happen(&Action::Elapse(Duration::from_secs(30)))?;
                self.go_on(20)?;
                self.cosmos.happen(&Action::Resume(id))
            }
        }
    }

    /// What befell it is over: every node is for use, nobody uses an address, and the specs name all of them.
    fn heal(&mut self) -> Result<(), String> {
        for node in self.nodes.clone() {
            self.outside(Outside::Uncordon(node.clone()))?;
            self.outside(Outside::Untaint(node.clone(), DISRUPTION.to_owned()))?;
            if self.stopped.remove(&node) {
                self.outside(Outside::StartMachine(node.clone()))?;
            }
            self.outside(Outside::Ready(node))?;
        }
        while !self.taken_out.is_empty() {
            self.bring_back()?;
        }
        self.end_pods(None)?;
        self.broken = None;
        for _ in 0..MOST {
            let Some(action) = self.cosmos.next() else { return Ok(()) };
            self.cosmos.happen(&action)?;
        }
        Err(format!("P11: it does something for ever without time passing\n{:?}", self.cosmos))
    }

    fn day(&mut self) -> Result<(), String> {
        for _ in 0..BLOWS {
            self.blow()?;
            let actions = self.chance.below(40);
            self.go_on(actions)?;
        }
        self.heal()?;
        self.cosmos.come_to_rest()?;
        // What was changed behind the operator's back has been seen by now, and excuses nothing any more.
        self.cosmos.excuses = Excuses::default();
        Ok(())
    }

    /// Days until so many moves have been made in all, and at least one.
    fn days_until(&mut self, moves: u64) -> Result<(), String> {
        self.day()?;
        while self.cosmos.placed < moves {
            self.day()?;
        }
        Ok(())
    }

    /// How much the leader knows, as text. Nodes that went while they held an address are remembered for a month on purpose, and
    /// are left out.
    fn knows(&self) -> usize {
        let term = self.cosmos.leader().and_then(|process| process.term.as_ref()).unwrap();
        let (tables, answers) = (format!("{:?}", term.tables), format!("{:?}", term.answers));
        tables.split(" absent: {").next().unwrap_or_default().len() + answers.len()
    }
}

/// # Errors
/// The broken promise, or what has grown.
fn soak(seed: u64, moves: u64) -> Result<(), String> {
    let mut soak = Soak::new(seed);
    soak.days_until(moves / 4)?;
    // From here on one process leads.
    soak.stormy = false;
    let leader = soak.cosmos.leader().map(|process| process.id).unwrap();
    soak.cosmos.happen(&Action::Crash(leader))?;
    soak.days_until(0)?;
    soak.days_until(0)?;
    let (early, then) = (soak.knows(), soak.cosmos.placed);
    soak.days_until(moves)?;
    let (late, now) = (soak.knows(), soak.cosmos.placed);
    println!("{now} moves, {} nodes in all; known after {then} moves: {early} bytes, now: {late}", soak.born);
    if late * 2 > early * 3 {
        return Err(format!("what is known has grown from {early} to {late} bytes in {} moves", now - then));
    }
    Ok(())
}

#[test]
fn p1_to_p12_many_days_break_nothing_come_to_rest_and_leave_nothing_behind() {
    let (seed, moves) = (number("SEED").unwrap_or(1), number("MOVES").unwrap_or(1_000));
    soak(seed, moves).unwrap_or_else(|why| panic!("SEED={seed} MOVES={moves}: {why}"));
}
