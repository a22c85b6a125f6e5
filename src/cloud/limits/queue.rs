//! Who is served next, and when: the queue and the token bucket of one scope, without a clock or a runtime; the time comes
//! in. The model of `tests/promises` runs this very code.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// What a call is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// What a change that has its tokens already must know before it begins.
    Look,
    /// An address without a working node, or not where it should be.
    Failover,
    /// A node that somebody waits to get rid of.
    Drain,
    /// An address that goes to its first node, or a machine that gets its own address back.
    Placement,
    /// Looking whether all is still so.
    Survey,
}

impl Urgency {
    /// Every one, the most urgent first.
    pub const ALL: [Urgency; 5] =
        [Urgency::Look, Urgency::Failover, Urgency::Drain, Urgency::Placement, Urgency::Survey];
}

/// Of so many that are served, one is of the urgency that has not been served for longest.
pub const PATIENCE: u64 = 4;

/// Tokens come at this pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

/// The rate makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate needs a positive number of calls per second and a burst of at least 1")]
pub struct NotARate;

impl Rate {
    /// So many calls per second in the long run, and so many at once after a pause.
    ///
    /// # Errors
    /// [`NotARate`] for a rate at which some call would wait for ever.
    pub fn new(per_second: f64, burst: u32) -> Result<Self, NotARate> {
        if !per_second.is_finite() || per_second <= 0.0 || burst == 0 {
            return Err(NotARate);
        }
        Ok(Self { per_second, burst: f64::from(burst) })
    }
}

/// A place in the queue.
pub type Ticket = u64;

/// See the module. `W`: whatever is kept of who waits.
#[derive(Clone, Debug)]
pub struct Queue<W> {
    rate: Rate,
    tokens: f64,
    counted: Instant,
    /// Who waits, by arrival.
    waiting: BTreeMap<Ticket, Waiter<W>>,
    /// The same by rank.
    ranks: BTreeSet<Rank>,
    /// In which round of its urgency each party joined last; forgotten when nobody waits.
    rounds: HashMap<(Urgency, String), u64>,
    /// The round that is being served, by urgency.
    serving: BTreeMap<Urgency, u64>,
    /// How many had been served when it was an urgency's turn last.
    turns: BTreeMap<Urgency, u64>,
    next: Ticket,
    served: u64,
}

/// Each party has one place in a round.
type Rank = (Urgency, u64, Ticket);

#[derive(Clone, Debug)]
struct Waiter<W> {
    rank: Rank,
    requests: f64,
    who: W,
}

/// What whoever asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The tokens are taken.
    Yours,
    /// First in the queue; there are enough tokens then.
    At(Instant),
    /// Somebody else is first.
    Behind,
}

impl<W> Queue<W> {
    /// Nobody waits, and the bucket is full.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            counted: now,
            waiting: BTreeMap::new(),
            ranks: BTreeSet::new(),
            rounds: HashMap::new(),
            serving: BTreeMap::new(),
            turns: BTreeMap::new(),
            next: 0,
            served: 0,
        }
    }

    /// Waits for the tokens of so many requests. `party`: for whom, among those of the same urgency.
    pub fn join(&mut self, urgency: Urgency, party: &str, requests: u32, who: W) -> Ticket {
        let ticket = self.next;
        self.next = self.next.wrapping_add(1);
        let now = self.serving.get(&urgency).copied().unwrap_or_default();
        let round = self.rounds.entry((urgency, party.to_owned())).and_modify(|last| *last += 1).or_insert(now);
        *round = now.max(*round);
        let rank = (urgency, *round, ticket);
        self.ranks.insert(rank);
        self.waiting.insert(ticket, Waiter { rank, requests: requests.into(), who });
        ticket
    }

    /// Waits no longer.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiting.remove(&ticket) {
            self.ranks.remove(&waiter.rank);
        }
        if self.waiting.is_empty() {
            self.rounds.clear();
            self.serving.clear();
        }
    }

    /// Takes the tokens, if it is this one's turn and they are there.
    pub fn ask(&mut self, ticket: Ticket, now: Instant) -> Turn {
        let waiter = self.waiting.get(&ticket).filter(|_| self.first() == Some(ticket));
        let Some(&Waiter { rank: (urgency, round, _), requests, .. }) = waiter else { return Turn::Behind };
        self.refill(now);
        // More than fit into the bucket are never there at once.
        let enough = requests.min(self.rate.burst);
        if self.tokens < enough {
            let missing = Duration::from_secs_f64((enough - self.tokens) / self.rate.per_second);
            // Rounded up, or rounding could leave a hair's breadth missing for ever.
            return Turn::At(now + missing + Duration::from_millis(1));
        }
        self.tokens -= requests;
        self.served = self.served.wrapping_add(1);
        let serving = self.serving.entry(urgency).or_default();
        *serving = round.max(*serving);
        self.turns.insert(urgency, self.served);
        self.leave(ticket);
        Turn::Yours
    }

    /// A request that nobody waited for: who asks next waits for it.
    pub fn overdraw(&mut self) {
        self.tokens -= 1.0;
    }

    /// Tokens that were taken and not spent.
    pub fn give_back(&mut self, requests: u32) {
        self.tokens = (self.tokens + f64::from(requests)).min(self.rate.burst);
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<Ticket> {
        if self.served % PATIENCE == PATIENCE - 1 {
            // Not the oldest of all: behind a long queue of one kind that would be one of the same kind each time.
            let firsts = Urgency::ALL.into_iter().filter_map(|urgency| self.first_of(urgency));
            let longest_ago = firsts.min_by_key(|(urgency, ..)| self.turns.get(urgency).copied().unwrap_or_default());
            return longest_ago.map(|(_, _, ticket)| ticket);
        }
        self.ranks.first().map(|(_, _, ticket)| *ticket)
    }

    fn first_of(&self, urgency: Urgency) -> Option<Rank> {
        self.ranks.range((urgency, 0, 0)..=(urgency, u64::MAX, Ticket::MAX)).next().copied()
    }

    /// What is kept of whose turn it is.
    pub fn first_waiter(&self) -> Option<&W> {
        self.waiting.get(&self.first()?).map(|waiter| &waiter.who)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate.per_second).min(self.rate.burst);
        self.counted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_at_which_nobody_is_served_is_none() {
        for (per_second, burst) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (1.0, 0)] {
            assert_eq!(Rate::new(per_second, burst), Err(NotARate));
        }
    }

    #[test]
    fn tokens_are_capped_at_the_burst() {
        let start = Instant::now();
        let mut queue = Queue::new(Rate::new(10.0, 3).unwrap(), start);
        let later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            let ticket = queue.join(Urgency::Survey, "a", 1, ());
            assert_eq!(queue.ask(ticket, later), Turn::Yours);
        }
        let ticket = queue.join(Urgency::Survey, "a", 1, ());
        assert!(matches!(queue.ask(ticket, later), Turn::At(at) if at <= later + Duration::from_millis(101)));
    }

    #[test]
    fn the_urgent_go_first_but_every_fourth_turn_is_that_of_whom_was_not_served_for_longest() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), now);
        let surveys = [queue.join(Urgency::Survey, "a", 1, ()), queue.join(Urgency::Survey, "a", 1, ())];
        let failovers: Vec<Ticket> = (0..6).map(|_| queue.join(Urgency::Failover, "a", 1, ())).collect();
        let served: Vec<Ticket> = std::iter::from_fn(|| {
            let first = queue.first()?;
            assert_eq!(queue.ask(first, now), Turn::Yours);
            Some(first)
        })
        .collect();
        let [f1, f2, f3, f4, f5, f6] = failovers.try_into().unwrap();
        assert_eq!(served, [f1, f2, f3, surveys[0], f4, f5, f6, surveys[1]]);
    }

    #[test]
    fn each_urgency_has_its_rank() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1).unwrap(), now);
        let mut behind = Vec::new();
        for urgency in Urgency::ALL.into_iter().rev() {
            let ticket = queue.join(urgency, "a", 1, ());
            assert_eq!(queue.first(), Some(ticket), "{urgency:?} before {behind:?}");
            behind.push(urgency);
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_makes_no_tokens() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1).unwrap(), now + Duration::from_secs(5));
        let ticket = queue.join(Urgency::Drain, "a", 1, ());
        assert_eq!(queue.ask(ticket, now), Turn::Yours);
        let ticket = queue.join(Urgency::Drain, "a", 1, ());
        assert!(matches!(queue.ask(ticket, now), Turn::At(_)));
    }

    #[test]
    fn surveys_come_however_many_placements_have_waited_for_longer() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 2000).unwrap(), now);
        for _ in 0..1000 {
            queue.join(Urgency::Placement, "large", 1, ());
        }
        let survey = queue.join(Urgency::Survey, "large", 1, ());
        let position = std::iter::from_fn(|| {
            let first = queue.first()?;
            assert_eq!(queue.ask(first, now), Turn::Yours);
            Some(first)
        })
        .position(|served| served == survey);
        assert!(position.is_some_and(|position| position < 4), "{position:?}");
    }

    #[test]
    fn a_party_with_three_wishes_is_not_held_up_by_one_with_a_thousand() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 2000).unwrap(), now);
        for _ in 0..1000 {
            queue.join(Urgency::Placement, "large", 1, ());
        }
        let small = [(); 3].map(|()| queue.join(Urgency::Placement, "small", 1, ()));
        let mut served = Vec::new();
        while let Some(first) = queue.first() {
            assert_eq!(queue.ask(first, now), Turn::Yours);
            served.push(first);
        }
        let last = served.iter().rposition(|ticket| small.contains(ticket)).unwrap();
        assert!(last < 10, "the third was number {last} of {}", served.len());
    }
}
