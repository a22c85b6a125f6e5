//! Letting a world that has a pace run on: time goes on from beat to beat, and within a beat from one turn at the cloud's
//! budget to the next.
//!
//! Answers, news of the watches and the ends of changes come in once a beat, so that wakes fold into one as they do where the
//! operator is busy; whoever gets a permit looks at once. A change takes a beat from its request to its end. How long a beat
//! is, is the driver's: shorter ones look more often, and take longer to play.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::{
    allocation::observe::answers::Question,
    api::{AddressStatus, READY_LABEL},
    cloud::{ErrorKind, ProviderId},
};

use super::{
    cloud::{RequestId, Slot},
    course::{Action, CallFault, Cosmos, Outside},
    errand::Call,
    pace::Pace,
    process::{Break, FlightId, WriteFault},
};
use crate::invariants;

/// How the outside is disposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// The cloud refuses every call.
    NoCloud,
    /// The API server refuses every write, or loses it, and its watches bring nothing; leadership alone goes on.
    NoWrites,
    /// The API server answers nobody: what is sent to it is lost, and leadership runs out.
    NoApiServer,
}

/// See the module.
#[derive(Clone)]
pub struct Beats {
    pub cosmos: Cosmos,
    pub weather: Weather,
    /// How long one takes.
    pub beat: Duration,
    /// Machines that the cloud tells nothing of when one of them is asked for.
    pub silent: BTreeSet<ProviderId>,
    /// Writes that were broken.
    broken: usize,
}

/// More than any moment needs: who does more goes in circles.
const MOST: usize = 10_000;

/// It stays at rest for so long.
const QUIET: Duration = Duration::from_secs(120);

impl Beats {
    pub fn new(cosmos: Cosmos, beat: Duration) -> Self {
        Self { cosmos, weather: Weather::Fair, beat, silent: BTreeSet::new(), broken: 0 }
    }

    /// Something happens in the world that nobody here asked for.
    ///
    /// # Panics
    /// Where it breaks a promise in that instant.
    pub fn outside(&mut self, what: Outside) {
        self.cosmos.happen(&Action::Outside(what)).unwrap();
    }

    /// # Errors
    /// A broken promise.
    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.cosmos.instant + time;
        while self.cosmos.instant < end {
            self.beat()?;
        }
        Ok(())
    }

    /// Until it is so; how long that took.
    ///
    /// # Errors
    /// A broken promise, or that it is not so in time (P12).
    pub fn until(&mut self, limit: Duration, is_so: impl Fn(&Cosmos) -> bool) -> Result<Duration, String> {
        let began = self.cosmos.instant;
        while !is_so(&self.cosmos) {
            if self.cosmos.instant - began >= limit {
                return Err(format!("P12: it is not so after {} s: {}", limit.as_secs(), self.picture()));
            }
            self.beat()?;
        }
        Ok(self.cosmos.instant - began)
    }

    /// It stays at rest, and everything in the world is as it should be.
    ///
    /// # Errors
    /// A broken promise.
    pub fn rests(&mut self) -> Result<(), String> {
        self.run(QUIET)?;
        let judged = invariants::whole(&self.cosmos).and_then(|()| self.cosmos.judge());
        judged.map_err(|why| format!("{why}\n{}", self.picture()))
    }

    /// # Errors
    /// A broken promise.
    pub fn beat(&mut self) -> Result<(), String> {
        let end = self.cosmos.instant + self.beat;
        self.cosmos.unreachable = self.weather == Weather::NoApiServer;
        self.changes_end()?;
        self.effects_go_on()?;
        self.news_comes()?;
        self.leaders_change()?;
        for id in self.leaders() {
            let woken: Vec<String> =
                self.cosmos.process(id).term.iter().flat_map(|term| term.woken.iter().cloned()).collect();
            for name in woken {
                self.look(id, name)?;
            }
        }
        self.effects_go_on()?;
        loop {
            self.serve()?;
            let now = self.cosmos.instant;
            if now >= end {
                return Ok(());
            }
            let then = self.next_turn().filter(|then| *then > now).map_or(end, |then| then.min(end));
            self.cosmos.happen(&Action::Elapse(then - now))?;
        }
    }

    /// What was sent before this beat has been done.
    fn changes_end(&mut self) -> Result<(), String> {
        let sent: Vec<RequestId> = self.cosmos.cloud.requests().keys().copied().collect();
        sent.into_iter().try_for_each(|request| self.cosmos.happen(&Action::Land(request)))
    }

    /// Every effect, as far as it comes without waiting for the end of a change.
    fn effects_go_on(&mut self) -> Result<(), String> {
        for _ in 0..MOST {
            let ready = self.ready();
            if ready.is_empty() {
                return Ok(());
            }
            for action in ready {
                self.cosmos.happen(&action)?;
            }
        }
        Err(format!("P11: effects go on for ever without time passing: {}", self.picture()))
    }

    /// The next call of each effect that waits for nothing.
    fn ready(&self) -> Vec<Action> {
        let mut all = Vec::new();
        for process in self.cosmos.processes.iter().filter(|process| !process.paused) {
            let flights = process.term.iter().flat_map(|term| &term.flights);
            let waiting = flights.filter(|(_, flight)| flight.sent.is_none());
            all.extend(waiting.map(|(flight, under_way)| self.step(process.id, *flight, &under_way.errand.next())));
        }
        all
    }

    fn step(&self, process: u8, flight: FlightId, call: &Call) -> Action {
        let to_the_cloud = matches!(call, Call::Inspect(_) | Call::Find(_) | Call::Send(_));
        let fault = match self.weather {
            Weather::NoCloud if to_the_cloud => Some(CallFault::Fails),
            Weather::NoWrites if !to_the_cloud && call.is_change() => Some(CallFault::Fails),
            Weather::NoApiServer if !to_the_cloud => Some(CallFault::Lost),
            _ => None,
        };
        match fault {
            Some(fault) => Action::BrokenStep(process, flight, fault),
            None => Action::Step(process, flight),
        }
    }

    fn news_comes(&mut self) -> Result<(), String> {
        for id in self.leaders() {
            let asking = self.cosmos.process(id).term.iter().flat_map(|term| term.awaited());
            let in_vain =
                asking.filter(|question| matches!(question, Question::Inspect(place) if self.silent.contains(place)));
            for question in in_vain.cloned().collect::<Vec<_>>() {
                self.cosmos.happen(&Action::Unanswered(id, question))?;
            }
            if self.cosmos.process(id).term.as_ref().is_some_and(|term| term.awaited().next().is_some()) {
                let answers = match self.weather {
                    Weather::NoCloud => Action::NoAnswers(id, ErrorKind::Unavailable),
                    Weather::Fair | Weather::NoWrites | Weather::NoApiServer => Action::Answers(id),
                };
                self.cosmos.happen(&answers)?;
            }
            let watches = matches!(self.weather, Weather::Fair | Weather::NoCloud);
            if watches && self.cosmos.cluster.is_ahead_of(&self.cosmos.process(id).cache) {
                self.cosmos.happen(&Action::Sync(id))?;
            }
        }
        Ok(())
    }

    fn leaders_change(&mut self) -> Result<(), String> {
        let over = self.cosmos.going_on(true).into_iter().filter(|action| matches!(action, Action::EndTerm(_)));
        for action in over {
            self.cosmos.happen(&action)?;
        }
        if self.leaders().is_empty()
            && let Some(next) =
                self.cosmos.going_on(true).into_iter().find(|action| matches!(action, Action::TakeOver(_)))
        {
            self.cosmos.happen(&next)?;
        }
        Ok(())
    }

    fn leaders(&self) -> Vec<u8> {
        let leading = self.cosmos.processes.iter().filter(|process| process.term.is_some() && !process.paused);
        leading.map(|process| process.id).collect()
    }

    /// One pass.
    fn look(&mut self, id: u8, name: String) -> Result<(), String> {
        let action = match self.weather {
            Weather::Fair | Weather::NoCloud => Action::Pass(id, name),
            Weather::NoWrites => {
                self.broken += 1;
                let fault = if self.broken.is_multiple_of(2) { WriteFault::Lost } else { WriteFault::Refused };
                Action::BrokenPass(id, name, Break::each(fault))
            }
            Weather::NoApiServer => Action::BrokenPass(id, name, Break::each(WriteFault::Lost)),
        };
        self.cosmos.happen(&action)
    }

    fn pace(&self, id: u8) -> Option<&Pace> {
        self.cosmos.process(id).term.as_ref()?.pace.as_deref()
    }

    fn can_serve(&self, id: u8) -> bool {
        self.pace(id).is_some_and(|pace| pace.can_serve(self.cosmos.instant))
    }

    fn next_turn(&self) -> Option<Instant> {
        self.leaders().into_iter().filter_map(|id| self.pace(id)?.next_turn()).min()
    }

    /// Whoever can be served now, and what those do who have got a permit.
    fn serve(&mut self) -> Result<(), String> {
        for _ in 0..MOST {
            let Some(id) = self.leaders().into_iter().find(|id| self.can_serve(*id)) else { return Ok(()) };
            while self.can_serve(id) {
                self.cosmos.happen(&Action::Grant(id))?;
            }
            let arrivals: BTreeSet<String> = self.pace(id).map(|pace| pace.arrivals().clone()).unwrap_or_default();
            for name in arrivals {
                self.look(id, name)?;
            }
            self.effects_go_on()?;
        }
        Err(format!("P11: permits are taken and given back for ever without time passing: {}", self.picture()))
    }

    /// How many addresses are how, for those who want to know why a test has failed.
    pub fn picture(&self) -> String {
        let mut how: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for name in self.cosmos.cluster.allocations().keys() {
            for entry in self.cosmos.addresses(name) {
                *how.entry((entry.state.as_str(), entry.reason.as_deref().unwrap_or_default())).or_default() += 1;
            }
        }
        format!("at {}: {how:?}", self.cosmos.now)
    }
}

/// What the status of allocations says.
impl Cosmos {
    pub fn addresses(&self, allocation: &str) -> impl Iterator<Item = &AddressStatus> {
        let status = self.cluster.allocation(allocation).and_then(|object| object.status.as_ref());
        status.into_iter().flat_map(|status| &status.addresses)
    }

    /// All that its spec asks for is on nodes, none of them one of `left`, which say so.
    pub fn is_attached(&self, allocation: &str, left: &BTreeSet<String>) -> bool {
        let Some(object) = self.cluster.allocation(allocation) else { return false };
        let there = self.addresses(allocation).filter(|entry| {
            let node = entry.node.as_ref().filter(|node| !left.contains(*node));
            let says_so = |node: &String| self.cluster.node(node).is_some_and(|node| node.label(READY_LABEL).is_some());
            entry.state == "Attached" && node.is_some_and(says_so)
        });
        there.count() == object.spec.reserved_ips.len()
    }

    /// The nodes that its addresses are on, or on their way to or from, by address.
    pub fn nodes_of(&self, allocation: &str) -> Vec<String> {
        self.addresses(allocation).filter_map(|entry| entry.node.clone()).collect()
    }

    /// What is on which machine in truth.
    pub fn on_machines(&self) -> BTreeMap<IpAddr, ProviderId> {
        let machines = self.cloud.machines().iter();
        machines
            .filter_map(|(place, machine)| match machine.slot {
                Slot::Reserved(ip) => Some((ip, place.clone())),
                Slot::Empty | Slot::Own => None,
            })
            .collect()
    }
}
