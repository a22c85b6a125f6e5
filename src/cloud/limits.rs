//! How fast we may ask a cloud, and how many changes may be under way: one rate budget per [`Scope`], because that is what
//! clouds count by.
//!
//! A token is one request. What a change usually takes is acquired before its intent is written (F2), so that nothing waits
//! here between the written intent and the request. Each request of the work spends one of those tokens; a request
//! beyond them is sent all the same, and who asks next waits for it; tokens that were not spent go back.
//!
//! A change gets its tokens together with a slot, which it keeps until it has ended: while none is free it waits in the
//! queue, and whoever comes later and is more urgent goes first. Reads need no slot.
//!
//! Who waits is served by [`Urgency`], then party by party in turn, so that one with a thousand wishes does not hold up one
//! with three; but every fourth turn is that of the urgency which has not been served for longest, so that a busy day of
//! failovers never starves the surveys that would show its end. It takes no more than every fourth token either.

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

pub use self::queue::{Need, NotARate, Rate, Urgency};
use self::queue::{Queue, Ticket, Turn};
use super::Scope;

/// The rate budgets of all scopes. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct Limits {
    rate: Rate,
    slots: u32,
    budgets: Arc<Mutex<HashMap<Scope, Arc<Budget>>>>,
}

impl Limits {
    /// Each scope gets this rate, starts with a full burst, and has so many changes under way at one time, at least one.
    pub fn new(rate: Rate, slots: u32) -> Self {
        Self { rate, slots, budgets: Arc::default() }
    }

    /// Queues up for what is needed of the scope. `party`: for whom, among those of the same urgency.
    pub fn join(&self, scope: &Scope, urgency: Urgency, party: &str, need: Need) -> Place {
        let new = || Arc::new(Budget::new(self.rate, self.slots));
        let budget = Arc::clone(lock(&self.budgets).entry(scope.clone()).or_insert_with(new));
        let woken = Arc::new(Notify::new());
        let ticket = lock(&budget.queue).join(urgency, party, need, Arc::clone(&woken));
        Place { budget, ticket, need, woken }
    }
}

tokio::task_local! {
    /// What the work that runs now may spend.
    static ALLOWANCE: Allowance;
}

/// Tokens that were waited for, and the slot of a change. What is left of them goes back when this is dropped.
#[derive(Debug)]
pub struct Allowance {
    budget: Arc<Budget>,
    need: Need,
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
        if left > 0 || self.need.is_change() {
            let mut queue = lock(&self.budget.queue);
            queue.give_back(left);
            if self.need.is_change() {
                queue.free_slot();
            }
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
    fn new(rate: Rate, slots: u32) -> Self {
        Self { queue: Mutex::new(Queue::new(rate, slots, Instant::now().into_std())) }
    }
}

/// A place in the queue, given up when dropped: served or not, whoever is first then must know.
#[derive(Debug)]
pub struct Place {
    budget: Arc<Budget>,
    ticket: Ticket,
    need: Need,
    woken: Arc<Notify>,
}

impl Place {
    /// For whoever asks for the same again.
    pub fn urging(&self) -> Urging {
        Urging { budget: Arc::clone(&self.budget), ticket: self.ticket }
    }

    /// Waits for tokens and slot and takes them. Dropping the future gives up the place, and takes nothing.
    ///
    /// Only whoever is first watches the clock; the others sleep until they are first. A token is given to a waiter that
    /// asks for it, never to one that may have gone away.
    pub async fn served(self) -> Allowance {
        loop {
            let turn = lock(&self.budget.queue).ask(self.ticket, Instant::now().into_std());
            match turn {
                Turn::Yours => {
                    let (budget, left) = (Arc::clone(&self.budget), AtomicU32::new(self.need.requests()));
                    return Allowance { budget, need: self.need, left };
                }
                // Earlier, if tokens come back.
                Turn::At(token) => drop(tokio::time::timeout_at(token.into(), self.woken.notified()).await),
                // A wake-up that comes between asking and waiting is kept.
                Turn::Behind => self.woken.notified().await,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = lock(&self.budget.queue);
        queue.leave(self.ticket);
        wake_first(&queue);
    }
}

/// Makes more urgent what somebody else waits for already.
#[derive(Clone, Debug)]
pub struct Urging {
    budget: Arc<Budget>,
    ticket: Ticket,
}

impl Urging {
    /// It is at least so urgent from now on. Of no effect once it was served.
    pub fn to(&self, urgency: Urgency) {
        let mut queue = lock(&self.budget.queue);
        if queue.raise(self.ticket, urgency) {
            wake_first(&queue);
        }
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
        Limits::new(Rate::new(per_second, burst).unwrap(), 32)
    }

    /// Waits for one token, and spends it.
    async fn take(limits: &Limits, scope: &Scope, urgency: Urgency) {
        limits.join(scope, urgency, "a", Need::Read).served().await.spend_on(async { spend() }).await;
    }

    /// Waits for the tokens of a change and a slot.
    async fn change(limits: &Limits, scope: &Scope, urgency: Urgency, requests: u32) -> Allowance {
        limits.join(scope, urgency, "a", Need::Change { requests }).served().await
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
        change(&limits, &scope, Urgency::Placement, 4).await.spend_on(work).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing waits between two requests of one change");
        take(&limits, &scope, Urgency::Failover).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(4) && took < Duration::from_millis(4100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_were_not_spent_go_back_at_once() {
        let (limits, scope) = (limits(0.001, 4), scope("us-west1"));
        let unused = change(&limits, &scope, Urgency::Placement, 4).await;
        assert!(change(&limits, &scope, Urgency::Failover, 3).now_or_never().is_none());
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
        let _all = change(&limits, &scope, Urgency::Placement, 6).await;
        let began = Instant::now();
        let _more = change(&limits, &scope, Urgency::Placement, 6).await;
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

    #[tokio::test(start_paused = true)]
    async fn p11_a_failover_that_asks_late_has_the_slot_that_comes_free_before_placements_that_wait() {
        let limits = Limits::new(Rate::new(1.0, 100).unwrap(), 2);
        let scope = scope("us-west1");
        let slow = change(&limits, &scope, Urgency::Placement, 8).await;
        let slower = change(&limits, &scope, Urgency::Placement, 8).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for urgency in [Urgency::Placement, Urgency::Placement, Urgency::Placement, Urgency::Failover] {
            let (limits, scope, order) = (limits.clone(), scope.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let allowance = change(&limits, &scope, urgency, 8).await;
                lock(&order).push(urgency);
                allowance.spend_on(async { (0..8).for_each(|_| spend()) }).await;
            }));
            settle().await;
        }
        assert!(lock(&order).is_empty(), "no slot is free");
        let began = Instant::now();
        take(&limits, &scope, Urgency::Survey).await;
        drop(slow);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "whoever waits for a slot holds no tokens");
        assert_eq!(*lock(&order), [Urgency::Failover, Urgency::Placement, Urgency::Placement, Urgency::Placement]);
        drop(slower);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_asked_for_again_more_urgently_goes_before_those_that_are_less_so() {
        let limits = limits(1.0, 1);
        let scope = scope("us-west1");
        take(&limits, &scope, Urgency::Survey).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        let mut urging = None;
        for urgency in [Urgency::Drain, Urgency::Placement, Urgency::Survey] {
            let place = limits.join(&scope, urgency, "a", Need::Read);
            urging = Some(place.urging());
            let order = Arc::clone(&order);
            tasks.push(tokio::spawn(async move {
                place.served().await.spend_on(async { spend() }).await;
                lock(&order).push(urgency);
            }));
            settle().await;
        }
        let last = urging.unwrap();
        last.to(Urgency::Failover);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*lock(&order), [Urgency::Survey, Urgency::Drain, Urgency::Placement]);
        last.to(Urgency::Look);
    }
}
