//! How fast we may ask a cloud: one rate budget per [`Scope`], because that is what clouds count by.
//!
//! A token is acquired by the caller before it writes its intent (F2), so that nothing waits here between the written
//! intent and the request.
//!
//! Who waits is served by [`Urgency`], then in the order of arrival; but every [`PATIENCE`]th token goes to whoever has
//! waited longest, so that a busy day of failovers never starves the surveys that would show its end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Scope;

/// What a call is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// An address without a working node.
    Failover,
    /// A node that somebody waits to get rid of.
    Drain,
    /// An address that goes to its first node, or a machine that gets its own address back.
    Placement,
    /// Looking whether all is still so.
    Survey,
}

/// Of so many tokens, one goes to whoever has waited longest.
const PATIENCE: u64 = 4;

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

/// The rate budgets of all scopes. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct Limits {
    rate: Rate,
    budgets: Arc<Mutex<HashMap<Scope, Arc<Budget>>>>,
}

impl Limits {
    /// Each scope gets this rate, and starts with a full burst.
    pub fn new(rate: Rate) -> Self {
        Self { rate, budgets: Arc::default() }
    }

    /// Waits for one token of the scope and takes it. Dropping the future gives up the place in the queue, and takes
    /// nothing.
    pub async fn acquire(&self, scope: &Scope, urgency: Urgency) {
        let budget =
            Arc::clone(lock(&self.budgets).entry(scope.clone()).or_insert_with(|| Arc::new(Budget::new(self.rate))));
        budget.acquire(urgency).await;
    }
}

#[derive(Debug)]
struct Budget {
    queue: Mutex<Queue>,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self { queue: Mutex::new(Queue::new(rate, Instant::now())) }
    }

    /// Only whoever is first watches the clock; the others sleep until they are first. A token is given to a waiter that
    /// asks for it, never to one that may have gone away.
    async fn acquire(&self, urgency: Urgency) {
        let (ticket, woken) = lock(&self.queue).join(urgency);
        let place = Waiting { budget: self, ticket };
        loop {
            let turn = lock(&self.queue).ask(place.ticket, Instant::now());
            match turn {
                Turn::Yours => return,
                Turn::At(token) => tokio::time::sleep_until(token).await,
                // A wake-up that comes between asking and waiting is kept.
                Turn::Behind => woken.notified().await,
            }
        }
    }
}

/// A place in the queue, given up when dropped: served or not, whoever is first then must know.
struct Waiting<'a> {
    budget: &'a Budget,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.budget.queue);
        queue.leave(self.ticket);
        queue.wake_first();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these; if it did, the state is still whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Ticket = u64;

/// The queue and the bucket, without a clock: the time comes in.
#[derive(Debug)]
struct Queue {
    rate: Rate,
    tokens: f64,
    counted: Instant,
    /// Who waits, by arrival.
    waiting: BTreeMap<Ticket, (Urgency, Arc<Notify>)>,
    /// The same by rank.
    ranks: BTreeSet<(Urgency, Ticket)>,
    next: Ticket,
    served: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The token is taken.
    Yours,
    /// First in the queue; the next token comes then.
    At(Instant),
    /// Somebody else is first.
    Behind,
}

impl Queue {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            counted: now,
            waiting: BTreeMap::new(),
            ranks: BTreeSet::new(),
            next: 0,
            served: 0,
        }
    }

    fn join(&mut self, urgency: Urgency) -> (Ticket, Arc<Notify>) {
        let ticket = self.next;
        self.next = self.next.wrapping_add(1);
        let woken = Arc::new(Notify::new());
        self.waiting.insert(ticket, (urgency, Arc::clone(&woken)));
        self.ranks.insert((urgency, ticket));
        (ticket, woken)
    }

    fn leave(&mut self, ticket: Ticket) {
        if let Some((urgency, _)) = self.waiting.remove(&ticket) {
            self.ranks.remove(&(urgency, ticket));
        }
    }

    fn wake_first(&self) {
        if let Some((_, woken)) = self.first().and_then(|ticket| self.waiting.get(&ticket)) {
            woken.notify_one();
        }
    }

    fn ask(&mut self, ticket: Ticket, now: Instant) -> Turn {
        if self.first() != Some(ticket) {
            return Turn::Behind;
        }
        self.refill(now);
        if self.tokens < 1.0 {
            let missing = Duration::from_secs_f64((1.0 - self.tokens) / self.rate.per_second);
            // Rounded up, or rounding could leave a hair's breadth missing for ever.
            return Turn::At(now + missing + Duration::from_millis(1));
        }
        self.tokens -= 1.0;
        self.served = self.served.wrapping_add(1);
        self.leave(ticket);
        Turn::Yours
    }

    fn first(&self) -> Option<Ticket> {
        if self.served % PATIENCE == PATIENCE - 1 {
            return self.waiting.keys().next().copied();
        }
        self.ranks.first().map(|(_, ticket)| *ticket)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate.per_second).min(self.rate.burst);
        self.counted = now;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::cloud::Provider;

    fn scope(region: &str) -> Scope {
        Scope { provider: Provider::Gcp, account: "prod".to_owned(), region: region.to_owned(), resource_group: None }
    }

    fn limits(per_second: f64, burst: u32) -> Limits {
        Limits::new(Rate::new(per_second, burst).unwrap())
    }

    /// Lets every task that can run, run.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

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
            let ticket = queue.join(Urgency::Survey).0;
            assert_eq!(queue.ask(ticket, later), Turn::Yours);
        }
        let ticket = queue.join(Urgency::Survey).0;
        assert!(matches!(queue.ask(ticket, later), Turn::At(at) if at <= later + Duration::from_millis(101)));
    }

    #[test]
    fn the_urgent_go_first_but_every_fourth_token_goes_to_the_oldest() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 100).unwrap(), now);
        let surveys = [queue.join(Urgency::Survey).0, queue.join(Urgency::Survey).0];
        let failovers: Vec<Ticket> = (0..6).map(|_| queue.join(Urgency::Failover).0).collect();
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
        for urgency in [Urgency::Survey, Urgency::Placement, Urgency::Drain, Urgency::Failover] {
            let ticket = queue.join(urgency).0;
            assert_eq!(queue.first(), Some(ticket), "{urgency:?} before {behind:?}");
            behind.push(urgency);
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_makes_no_tokens() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate::new(1.0, 1).unwrap(), now + Duration::from_secs(5));
        let ticket = queue.join(Urgency::Drain).0;
        assert_eq!(queue.ask(ticket, now), Turn::Yours);
        let ticket = queue.join(Urgency::Drain).0;
        assert!(matches!(queue.ask(ticket, now), Turn::At(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn p11_a_burst_is_free_and_then_the_pace_holds() {
        let limits = limits(2.0, 2);
        let began = Instant::now();
        for _ in 0..6 {
            limits.acquire(&scope("us-west1"), Urgency::Survey).await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_do_not_wait_for_each_other() {
        let limits = limits(0.001, 1);
        limits.acquire(&scope("us-west1"), Urgency::Survey).await;
        assert!(limits.acquire(&scope("us-east1"), Urgency::Survey).now_or_never().is_some());
        assert!(limits.acquire(&scope("us-west1"), Urgency::Failover).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_latecomer_who_is_more_urgent_is_served_first() {
        let limits = limits(1.0, 1);
        let scope = scope("us-west1");
        limits.acquire(&scope, Urgency::Survey).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for urgency in [Urgency::Survey, Urgency::Placement, Urgency::Failover] {
            let (limits, scope, order) = (limits.clone(), scope.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                limits.acquire(&scope, urgency).await;
                lock(&order).push(urgency);
            }));
            settle().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*lock(&order), [Urgency::Failover, Urgency::Placement, Urgency::Survey]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_no_hole_and_takes_no_token() {
        let limits = limits(1.0, 1);
        let scope = scope("us-west1");
        limits.acquire(&scope, Urgency::Survey).await;
        let began = Instant::now();
        let (first, second) = {
            let spawn = |urgency| {
                let (limits, scope) = (limits.clone(), scope.clone());
                tokio::spawn(async move { limits.acquire(&scope, urgency).await })
            };
            (spawn(Urgency::Failover), spawn(Urgency::Survey))
        };
        settle().await;
        first.abort();
        second.await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn p11_a_thousand_waiters_are_all_served_in_time() {
        let limits = limits(100.0, 1);
        let scope = scope("us-west1");
        let began = Instant::now();
        let tasks: Vec<_> = (0..1000_u32)
            .map(|n| {
                let (limits, scope) = (limits.clone(), scope.clone());
                let urgency = if n % 2 == 0 { Urgency::Drain } else { Urgency::Survey };
                tokio::spawn(async move { limits.acquire(&scope, urgency).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // The rounding of tokio's timers, at most 2 ms, is on top of the 10 ms each.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(9990) && took < Duration::from_secs(13), "{took:?}");
    }
}
