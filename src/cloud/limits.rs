//! How fast we may ask a cloud: one rate budget per [`Scope`], because that is what clouds count by.
//!
//! A token is one request. What a change usually takes is acquired before its intent is written (F2), so that nothing waits
//! here between the written intent and the request. Each request of the work spends one of those tokens; a request
//! beyond them is sent all the same, and who asks next waits for it; tokens that were not spent go back.
//!
//! Who waits is served by [`Urgency`], then party by party in turn, so that one with a thousand wishes does not hold up one
//! with three; but every fourth turn is that of the urgency which has not been served for longest, so that a busy day of
//! failovers never starves the surveys that would show its end.

pub mod queue;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

pub use self::queue::{NotARate, Rate, Urgency};
use self::queue::{Queue, Ticket, Turn};
use super::Scope;

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

    /// Waits for the tokens of so many requests to the scope and takes them. `party`: for whom, among those of the same
    /// urgency. Dropping the future gives up the place in the queue, and takes nothing.
    pub async fn acquire(&self, scope: &Scope, urgency: Urgency, party: &str, requests: u32) -> Allowance {
        let budget =
            Arc::clone(lock(&self.budgets).entry(scope.clone()).or_insert_with(|| Arc::new(Budget::new(self.rate))));
        budget.acquire(urgency, party, requests).await;
        Allowance { budget, left: AtomicU32::new(requests) }
    }
}

tokio::task_local! {
    /// What the work that runs now may spend.
    static ALLOWANCE: Allowance;
}

/// Tokens that were waited for. What is left of them goes back when this is dropped.
#[derive(Debug)]
pub struct Allowance {
    budget: Arc<Budget>,
    left: AtomicU32,
}

impl Allowance {
    /// Does the work, whose requests spend the tokens.
    pub async fn spend_on<T>(self, work: impl Future<Output = T>) -> T {
        ALLOWANCE.scope(self, work).await
    }

    fn spend(&self) {
        let paid = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if paid.is_err() {
            lock(&self.budget.queue).overdraw();
        }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        let left = *self.left.get_mut();
        if left > 0 {
            let mut queue = lock(&self.budget.queue);
            queue.give_back(left);
            wake_first(&queue);
        }
    }
}

/// Does the work, whose requests spend the allowance, if it has one.
pub async fn spending<T>(allowance: Option<Allowance>, work: impl Future<Output = T>) -> T {
    match allowance {
        Some(allowance) => allowance.spend_on(work).await,
        None => work.await,
    }
}

/// One request leaves: it costs the work that runs now one token. Work that nobody had to wait for is free, as when the
/// credentials are tried before anything is asked.
pub(super) fn spend() {
    // Outside of such work there is nothing to spend.
    let _ = ALLOWANCE.try_with(Allowance::spend);
}

#[derive(Debug)]
struct Budget {
    queue: Mutex<Queue<Arc<Notify>>>,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self { queue: Mutex::new(Queue::new(rate, Instant::now().into_std())) }
    }

    /// Only whoever is first watches the clock; the others sleep until they are first. A token is given to a waiter that
    /// asks for it, never to one that may have gone away.
    async fn acquire(&self, urgency: Urgency, party: &str, requests: u32) {
        let woken = Arc::new(Notify::new());
        let ticket = lock(&self.queue).join(urgency, party, requests, Arc::clone(&woken));
        let place = Waiting { budget: self, ticket };
        loop {
            let turn = lock(&self.queue).ask(place.ticket, Instant::now().into_std());
            match turn {
                Turn::Yours => return,
                // Earlier, if tokens come back.
                Turn::At(token) => drop(tokio::time::timeout_at(token.into(), woken.notified()).await),
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
        wake_first(&queue);
    }
}

fn wake_first(queue: &Queue<Arc<Notify>>) {
    if let Some(woken) = queue.first_waiter() {
        woken.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these; if it did, the state is still whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;
    use crate::cloud::Provider;

    fn scope(region: &str) -> Scope {
        Scope { provider: Provider::Gcp, account: "prod".to_owned(), region: region.to_owned(), resource_group: None }
    }

    fn limits(per_second: f64, burst: u32) -> Limits {
        Limits::new(Rate::new(per_second, burst).unwrap())
    }

    /// Waits for one token, and spends it.
    async fn take(limits: &Limits, scope: &Scope, urgency: Urgency) {
        limits.acquire(scope, urgency, "a", 1).await.spend_on(async { spend() }).await;
    }

    /// Lets every task that can run, run.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p11_a_burst_is_free_and_then_the_pace_holds() {
        let limits = limits(2.0, 2);
        let began = Instant::now();
        for _ in 0..6 {
            take(&limits, &scope("us-west1"), Urgency::Survey).await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn p11_requests_that_a_change_takes_beyond_what_was_reserved_are_waited_for_by_the_next() {
        let (limits, scope) = (limits(1.0, 4), scope("us-west1"));
        let began = Instant::now();
        let work = async { (0..7).for_each(|_| spend()) };
        limits.acquire(&scope, Urgency::Placement, "a", 4).await.spend_on(work).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing waits between two requests of one change");
        take(&limits, &scope, Urgency::Failover).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(4) && took < Duration::from_millis(4100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_were_not_spent_go_back_at_once() {
        let (limits, scope) = (limits(0.001, 4), scope("us-west1"));
        let unused = limits.acquire(&scope, Urgency::Placement, "a", 4).await;
        assert!(limits.acquire(&scope, Urgency::Failover, "a", 3).now_or_never().is_none());
        let waits = tokio::spawn({
            let (limits, scope) = (limits.clone(), scope.clone());
            async move { take(&limits, &scope, Urgency::Failover).await }
        });
        settle().await;
        let began = Instant::now();
        drop(unused);
        waits.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_takes_more_than_fits_into_the_bucket_is_let_through_when_it_is_full() {
        let (limits, scope) = (limits(1.0, 2), scope("us-west1"));
        let _all = limits.acquire(&scope, Urgency::Placement, "a", 6).await;
        let began = Instant::now();
        let _more = limits.acquire(&scope, Urgency::Placement, "a", 6).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(6) && took < Duration::from_millis(6100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_do_not_wait_for_each_other() {
        let limits = limits(0.001, 1);
        take(&limits, &scope("us-west1"), Urgency::Survey).await;
        assert!(take(&limits, &scope("us-east1"), Urgency::Survey).now_or_never().is_some());
        assert!(take(&limits, &scope("us-west1"), Urgency::Failover).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_latecomer_who_is_more_urgent_is_served_first() {
        let limits = limits(1.0, 1);
        let scope = scope("us-west1");
        take(&limits, &scope, Urgency::Survey).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for urgency in [Urgency::Survey, Urgency::Placement, Urgency::Failover] {
            let (limits, scope, order) = (limits.clone(), scope.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                take(&limits, &scope, urgency).await;
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
        take(&limits, &scope, Urgency::Survey).await;
        let began = Instant::now();
        let (first, second) = {
            let spawn = |urgency| {
                let (limits, scope) = (limits.clone(), scope.clone());
                tokio::spawn(async move { take(&limits, &scope, urgency).await })
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
                tokio::spawn(async move { take(&limits, &scope, urgency).await })
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
