//! Who is served next, and when: the queue, the token bucket and the slots of one scope, without a clock or a runtime; the
//! time comes in. The model of `tests/promises` runs this very code.

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

/// Of so many turns, and of so many tokens, one is for the urgency that has not been served for longest.
pub const PATIENCE: u8 = 4;

/// For what somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// One request, which changes nothing.
    Read,
    /// A change: so many requests as a rule, and a slot until it has ended.
    Change { requests: u32 },
}

impl Need {
    /// Tokens that are waited for.
    pub fn requests(self) -> u32 {
        match self {
            Need::Read => 1,
            Need::Change { requests } => requests,
        }
    }

    /// Whether it holds a slot.
    pub fn is_change(self) -> bool {
        matches!(self, Need::Change { .. })
    }
}

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
    /// Those that are free.
    slots: u32,
    /// Who waits, by arrival.
    waiting: BTreeMap<Ticket, Waiter<W>>,
    /// The same by rank: for a read,
    reads: BTreeSet<Rank>,
    /// and for a change, of which none is served while no slot is free.
    changes: BTreeSet<Rank>,
    /// In which round of its urgency each party joined last; forgotten when nobody waits.
    rounds: HashMap<(Urgency, String), u64>,
    /// The round that is being served, by urgency.
    serving: BTreeMap<Urgency, u64>,
    /// How many had been served when it was an urgency's turn last.
    turns: BTreeMap<Urgency, u64>,
    next: Ticket,
    served: u64,
    /// Turns and tokens that the more urgent have had while somebody less urgent waited, since that one's last turn.
    passed: (u64, f64),
}

/// Each party has one place in a round.
type Rank = (Urgency, u64, Ticket);

#[derive(Clone, Debug)]
struct Waiter<W> {
    rank: Rank,
    party: String,
    need: Need,
    who: W,
}

/// What whoever asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The tokens are taken, and the slot of a change.
    Yours,
    /// First in the queue; there are enough tokens then.
    At(Instant),
    /// Somebody else is first, or no slot is free.
    Behind,
}

impl<W> Queue<W> {
    /// Nobody waits, the bucket is full, and all slots are free: so many changes may be under way, at least one.
    pub fn new(rate: Rate, slots: u32, now: Instant) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            counted: now,
            slots,
            waiting: BTreeMap::new(),
            reads: BTreeSet::new(),
            changes: BTreeSet::new(),
            rounds: HashMap::new(),
            serving: BTreeMap::new(),
            turns: BTreeMap::new(),
            next: 0,
            served: 0,
            passed: (0, 0.0),
        }
    }

    /// Waits for what is needed. `party`: for whom, among those of the same urgency.
    pub fn join(&mut self, urgency: Urgency, party: &str, need: Need, who: W) -> Ticket {
        let ticket = self.next;
        self.next = self.next.wrapping_add(1);
        let rank = (urgency, self.round(urgency, party), ticket);
        self.ranks(need).insert(rank);
        self.waiting.insert(ticket, Waiter { rank, party: party.to_owned(), need, who });
        ticket
    }

    /// Is at least so urgent from now on; whether that is news. Among those of its party that are as urgent it comes last,
    /// among others it is as old as it is.
    pub fn raise(&mut self, ticket: Ticket, urgency: Urgency) -> bool {
        let raised = self.waiting.get(&ticket).filter(|waiter| urgency < waiter.rank.0);
        let Some((before, need, party)) = raised.map(|waiter| (waiter.rank, waiter.need, waiter.party.clone())) else {
            return false;
        };
        let rank = (urgency, self.round(urgency, &party), ticket);
        let ranks = self.ranks(need);
        ranks.remove(&before);
        ranks.insert(rank);
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.rank = rank;
        }
        true
    }

    /// The next round of its urgency in which a party has no place yet.
    fn round(&mut self, urgency: Urgency, party: &str) -> u64 {
        let serving = self.serving.get(&urgency).copied().unwrap_or_default();
        // Reads overtake the changes that wait for a slot. Whoever comes now is not behind all of these for that.
        let first = [&self.reads, &self.changes].into_iter().filter_map(|ranks| first_of(ranks, urgency));
        let now = first.map(|(_, round, _)| round).fold(serving, u64::min);
        let round = self.rounds.entry((urgency, party.to_owned())).and_modify(|last| *last += 1).or_insert(now);
        *round = now.max(*round);
        *round
    }

    fn ranks(&mut self, need: Need) -> &mut BTreeSet<Rank> {
        match need {
            Need::Read => &mut self.reads,
            Need::Change { .. } => &mut self.changes,
        }
    }

    /// Waits no longer.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(Waiter { rank, need, .. }) = self.waiting.remove(&ticket) {
            self.ranks(need).remove(&rank);
        }
        if self.waiting.is_empty() {
            self.rounds.clear();
            self.serving.clear();
        }
    }

    /// Takes tokens and slot, if it is this one's turn and they are there.
    pub fn ask(&mut self, ticket: Ticket, now: Instant) -> Turn {
        let waiter = self.waiting.get(&ticket).filter(|_| self.first() == Some(ticket));
        let Some(&Waiter { rank: (urgency, round, _), need, .. }) = waiter else { return Turn::Behind };
        let requests = f64::from(need.requests());
        self.refill(now);
        // More than fit into the bucket are never there at once.
        let enough = requests.min(self.rate.burst);
        if self.tokens < enough {
            let missing = Duration::from_secs_f64((enough - self.tokens) / self.rate.per_second);
            // Rounded up, or rounding could leave a hair's breadth missing for ever.
            return Turn::At(now + missing + Duration::from_millis(1));
        }
        let less_urgent = |rank: &Rank| rank.0 > urgency;
        self.passed = if self.passes_over() || ![&self.reads, &self.changes].into_iter().flatten().any(less_urgent) {
            (0, 0.0)
        } else if self.heads().any(|rank| less_urgent(&rank)) {
            (self.passed.0 + 1, self.passed.1 + requests)
        } else {
            // Whoever waits for a slot is not passed over by those who need none, and has waited none the less.
            self.passed
        };
        self.tokens -= requests;
        if need.is_change() {
            self.slots -= 1;
        }
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

    /// A change has ended, or is not made.
    pub fn free_slot(&mut self) {
        self.slots += 1;
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<Ticket> {
        self.turn().map(|(_, _, ticket)| ticket)
    }

    /// Whether somebody more urgent could be served as well: it is the turn of one who has waited for so long.
    pub fn passes_over(&self) -> bool {
        self.turn() != self.heads().next()
    }

    fn turn(&self) -> Option<Rank> {
        // Not the oldest of all: behind a long queue of one kind that would be one of the same kind each time.
        let longest_ago = self.heads().min_by_key(|(urgency, ..)| self.turns.get(urgency).copied().unwrap_or_default());
        // A change costs as much as many reads: a few of these must not let one pass each time.
        let (turns, tokens) = self.passed;
        let others = f64::from(PATIENCE - 1);
        longest_ago
            .filter(|(_, _, ticket)| {
                let need = self.waiting.get(ticket).map(|waiter| waiter.need.requests()).unwrap_or_default();
                turns >= u64::from(PATIENCE - 1) && tokens >= others * f64::from(need)
            })
            .or_else(|| self.heads().next())
    }

    /// The first of each urgency among those that can be served, the most urgent first.
    fn heads(&self) -> impl Iterator<Item = Rank> {
        let served = [Some(&self.reads), Some(&self.changes).filter(|_| self.slots > 0)];
        Urgency::ALL
            .into_iter()
            .filter_map(move |urgency| served.into_iter().flatten().filter_map(|ranks| first_of(ranks, urgency)).min())
    }

    /// What is kept of whose turn it is.
    pub fn first_waiter(&self) -> Option<&W> {
        self.waiting.get(&self.first()?).map(|waiter| &waiter.who)
    }

    /// How urgent what somebody waits for is by now.
    pub fn urgency(&self, ticket: Ticket) -> Option<Urgency> {
        self.waiting.get(&ticket).map(|waiter| waiter.rank.0)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate.per_second).min(self.rate.burst);
        self.counted = now;
    }
}

fn first_of(ranks: &BTreeSet<Rank>, urgency: Urgency) -> Option<Rank> {
    ranks.range((urgency, 0, 0)..=(urgency, u64::MAX, Ticket::MAX)).next().copied()
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
        let mut queue = Queue::new(Rate::new(10.0, 3).unwrap(), 1, start);
        let later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            let ticket = queue.join(Urgency::Survey, "a", Need::Read, ());
            assert_eq!(queue.ask(ticket, later), Turn::Yours);
        }
        let ticket = queue.join(Urgency::Survey, "a", Need::Read, ());
        assert!(matches!(queue.ask(ticket, later), Turn::At(at) if at <= later + Duration::from_millis(101)));
    }

    #[test]
    fn the_urgent_go_first_but_every_fourth_turn_is_that_of_whom_was_not_served_for_longest() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), 1, now);
        let surveys =
            [queue.join(Urgency::Survey, "a", Need::Read, ()), queue.join(Urgency::Survey, "a", Need::Read, ())];
        let failovers: Vec<Ticket> = (0..6).map(|_| queue.join(Urgency::Failover, "a", Need::Read, ())).collect();
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
    fn p11_whoever_waits_for_a_slot_has_its_turn_although_reads_go_on_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1000).unwrap(), 1, now);
        let change = Need::Change { requests: 8 };
        let placement = queue.join(Urgency::Placement, "a", change, ());
        for _ in 0..8 {
            queue.join(Urgency::Failover, "b", change, ());
        }
        let mut before = 0;
        while queue.first() != Some(placement) {
            let first = queue.first().unwrap();
            assert_eq!(queue.ask(first, now), Turn::Yours);
            before += 1;
            // Its slot is taken: only reads go on.
            let read = queue.join(Urgency::Drain, "c", Need::Read, ());
            assert_eq!(queue.ask(read, now), Turn::Yours);
            queue.free_slot();
        }
        assert_eq!(before, 3);
    }

    #[test]
    fn each_urgency_has_its_rank() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1).unwrap(), 1, now);
        let mut behind = Vec::new();
        for urgency in Urgency::ALL.into_iter().rev() {
            let ticket = queue.join(urgency, "a", Need::Read, ());
            assert_eq!(queue.first(), Some(ticket), "{urgency:?} before {behind:?}");
            behind.push(urgency);
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_makes_no_tokens() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1).unwrap(), 1, now + Duration::from_secs(5));
        let ticket = queue.join(Urgency::Drain, "a", Need::Read, ());
        assert_eq!(queue.ask(ticket, now), Turn::Yours);
        let ticket = queue.join(Urgency::Drain, "a", Need::Read, ());
        assert!(matches!(queue.ask(ticket, now), Turn::At(_)));
    }

    #[test]
    fn surveys_come_however_many_placements_have_waited_for_longer() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 2000).unwrap(), 1, now);
        for _ in 0..1000 {
            queue.join(Urgency::Placement, "large", Need::Read, ());
        }
        let survey = queue.join(Urgency::Survey, "large", Need::Read, ());
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
        let mut queue = Queue::new(Rate::new(1.0, 2000).unwrap(), 1, now);
        for _ in 0..1000 {
            queue.join(Urgency::Placement, "large", Need::Read, ());
        }
        let small = [(); 3].map(|()| queue.join(Urgency::Placement, "small", Need::Read, ()));
        let mut served = Vec::new();
        while let Some(first) = queue.first() {
            assert_eq!(queue.ask(first, now), Turn::Yours);
            served.push(first);
        }
        let last = served.iter().rposition(|ticket| small.contains(ticket)).unwrap();
        assert!(last < 10, "the third was number {last} of {}", served.len());
    }

    const CHANGE: Need = Need::Change { requests: 8 };

    /// Everybody who can be served now, in that order.
    fn all_served(queue: &mut Queue<()>, now: Instant) -> Vec<Ticket> {
        std::iter::from_fn(|| {
            let first = queue.first()?;
            assert_eq!(queue.ask(first, now), Turn::Yours);
            Some(first)
        })
        .collect()
    }

    #[test]
    fn while_no_slot_is_free_changes_wait_and_reads_go_on() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), 1, now);
        let [first, second] = [(); 2].map(|()| queue.join(Urgency::Placement, "a", CHANGE, ()));
        let read = queue.join(Urgency::Survey, "a", Need::Read, ());
        assert_eq!(all_served(&mut queue, now), [first, read]);
        assert_eq!(queue.ask(second, now), Turn::Behind);
        let lost = queue.join(Urgency::Failover, "b", CHANGE, ());
        queue.free_slot();
        assert_eq!(all_served(&mut queue, now), [lost], "it came last, and has the slot");
        queue.free_slot();
        assert_eq!(all_served(&mut queue, now), [second]);
    }

    #[test]
    fn reads_that_overtake_changes_without_a_slot_put_nobody_behind_all_of_these() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1000).unwrap(), 1, now);
        for _ in 0..20 {
            queue.join(Urgency::Placement, "large", CHANGE, ());
        }
        for _ in 0..20 {
            queue.join(Urgency::Placement, "large", Need::Read, ());
        }
        assert_eq!(all_served(&mut queue, now).len(), 1 + 20, "a slot, and all reads");
        let small = queue.join(Urgency::Placement, "small", CHANGE, ());
        let before = std::iter::from_fn(|| {
            queue.free_slot();
            all_served(&mut queue, now).pop()
        })
        .position(|served| served == small);
        assert_eq!(before, Some(1));
    }

    #[test]
    fn whoever_turns_out_to_be_more_urgent_goes_before_those_that_are_not_and_after_those_that_were() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), 10, now);
        let new = queue.join(Urgency::Placement, "a", CHANGE, ());
        let drained = queue.join(Urgency::Drain, "a", CHANGE, ());
        let lost = queue.join(Urgency::Failover, "a", CHANGE, ());
        assert!(queue.raise(new, Urgency::Failover));
        assert!(!queue.raise(lost, Urgency::Survey));
        assert_eq!(queue.urgency(new), Some(Urgency::Failover));
        assert_eq!(queue.urgency(lost), Some(Urgency::Failover), "nobody becomes less urgent");
        assert_eq!(all_served(&mut queue, now), [lost, new, drained]);
        assert!(!queue.raise(new, Urgency::Look), "it was served");
    }

    #[test]
    fn a_change_that_is_passed_over_by_reads_has_every_fourth_token_and_not_every_fourth_turn() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), 10, now);
        let change = queue.join(Urgency::Placement, "a", CHANGE, ());
        for _ in 0..30 {
            queue.join(Urgency::Failover, "a", Need::Read, ());
        }
        let before = all_served(&mut queue, now).iter().position(|served| *served == change);
        assert_eq!(before, Some(3 * 8));
    }
}
