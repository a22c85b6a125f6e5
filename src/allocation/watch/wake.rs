//! Who is woken, by what and when.
//!
//! Wakes that come together are folded into one. Whom a change concerns is woken by name and at once; of the others, whose counts and
//! plans it may change, one at a time, when there is nothing else to do (docs/decisions/0013-whom-a-node-wakes.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use kube::ResourceExt;
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::{sync::Notify, time::Instant};

use super::Guarded;

/// What wakes an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This process leads from now on.
    Start,
    /// The object itself has changed.
    Object,
    /// A node has changed.
    Node,
    /// The pods of a node that an address is leaving have changed.
    Pods,
    /// The cloud has answered, or can be asked.
    Cloud,
    /// What was begun for it has ended.
    Effect,
    /// There is a slot and a rate token for it.
    Permit,
}

impl Cause {
    /// The word in traces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Object => "object",
            Self::Node => "node",
            Self::Pods => "pods",
            Self::Cloud => "cloud",
            Self::Effect => "effect",
            Self::Permit => "permit",
        }
    }
}

/// Wakes allocations. Clones wake the same ones.
///
/// Wakes that come together fold into one. A standby, which listens to none of them, keeps that all are woken since the watches' first
/// lists, and no name.
#[derive(Clone, Default)]
pub struct Wake(Arc<Bell>);

#[derive(Default)]
struct Bell {
    waiting: Mutex<Waiting>,
    rung: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Woken by name and not yet handed out, with the first wake.
    called: BTreeMap<String, Call>,
    /// Everybody is woken by name,
    all: Option<Call>,
    /// or everybody in turn,
    in_turn: Option<Call>,
    /// or whoever has not seen what has changed.
    leisure: Option<Leisure>,
    /// Woken in turn and not yet handed out.
    others: BTreeMap<String, Call>,
    /// The one of them that is handed out and whose pass has not begun.
    next: Option<String>,
    /// Handed out; their passes have not begun.
    queued: BTreeMap<String, Call>,
    /// Their passes are run anew, when it is time.
    put_off: BTreeMap<String, Call>,
    /// Their passes have begun and not ended.
    running: BTreeSet<String>,
    /// By the allocation's name.
    interests: BTreeMap<String, Interest>,
}

/// Nodes have changed, and before long all are woken that have had no pass since.
struct Leisure {
    /// By name.
    changed: BTreeSet<String>,
    /// They have had one since the last change.
    seen: BTreeSet<String>,
    ends: Instant,
}

/// The nodes whose changes an allocation is woken for at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// By name: those that its addresses are on, leave and go to, and those that it owes something.
    pub nodes: BTreeSet<String>,
    /// An address has nowhere to go, and any node may be the one.
    pub any: bool,
}

impl Interest {
    fn is_in(&self, node: &str) -> bool {
        self.any || self.nodes.contains(node)
    }
}

/// When a wake came, and what it was.
#[derive(Clone, Copy)]
struct Call {
    at: Instant,
    cause: Cause,
}

impl Call {
    fn now(cause: Cause) -> Self {
        Self { at: Instant::now(), cause }
    }
}

impl Leisure {
    fn begin() -> Self {
        Self { changed: BTreeSet::new(), seen: BTreeSet::new(), ends: Instant::now() + AT_LEISURE }
    }
}

impl Waiting {
    /// Whom something has woken together by now, of `everybody`.
    fn collect(&mut self, everybody: impl Fn() -> Vec<String>, now: Instant) {
        if let Some(call) = self.all.take() {
            self.leisure = None;
            for name in everybody() {
                self.called.entry(name).or_insert(call);
            }
            // Of whoever has gone with a list nothing else tells.
            self.others.clear();
            self.interests.retain(|name, _| self.called.contains_key(name));
        }
        let in_turn = self.in_turn.take();
        let leisure = self.leisure.take_if(|leisure| in_turn.is_some() || leisure.ends <= now);
        // They were to have time until then.
        let over = leisure.map(|Leisure { seen, ends, .. }| (Call { at: ends, cause: Cause::Node }, seen));
        if let Some((call, seen)) = in_turn.map(|call| (call, BTreeSet::new())).or(over) {
            for name in everybody().into_iter().filter(|name| !seen.contains(name)) {
                self.others.entry(name).or_insert(call);
            }
        }
    }

    /// One that is gone has no pass; that it has gone wakes it.
    fn forget_those_who_are_gone(&mut self, is_there: impl Fn(&str) -> bool) {
        for (name, _) in self.called.extract_if(.., |name, _| !is_there(name)) {
            self.interests.remove(&name);
            self.others.remove(&name);
        }
        self.queued.retain(|name, _| is_there(name));
        self.put_off.retain(|name, _| is_there(name));
        self.next.take_if(|name| !is_there(name));
    }

    /// Of those who are woken in turn the one that has waited for the longest, while none of them waits for its pass. One whose
    /// pass is under way would wait for its end.
    fn first_of_the_others(&self) -> Option<(&String, Call)> {
        if self.next.is_some() {
            return None;
        }
        let others = self.others.iter().filter(|(name, _)| !self.running.contains(*name));
        others.map(|(name, call)| (name, *call)).min_by_key(|(name, call)| (call.at, *name))
    }

    /// That one: while no pass is under way or waited for, or when it has waited for long enough.
    fn take_one_of_the_others(&mut self, now: Instant) -> Option<(String, Call)> {
        let is_idle = self.called.is_empty() && self.queued.is_empty() && self.running.is_empty();
        let (name, call) = self.first_of_the_others()?;
        let patience = call.at + AT_LEISURE;
        if !is_idle && now < patience {
            return None;
        }
        let name = name.clone();
        self.others.remove(&name);
        self.next = Some(name.clone());
        // That it let others go first was no waiting for a turn.
        Some((name, Call { at: now.min(patience), ..call }))
    }

    /// When to look whether somebody is to be woken, if nothing rings before.
    fn looks_at(&self) -> Option<Instant> {
        let ends = self.leisure.as_ref().map(|leisure| leisure.ends);
        let first = self.first_of_the_others();
        ends.into_iter().chain(first.map(|(_, call)| call.at + AT_LEISURE)).min()
    }
}

impl Wake {
    pub fn new() -> Self {
        Self::default()
    }

    /// What is woken, given all that there is. To be listened to once.
    pub fn stream(&self, all: Store<Guarded>) -> impl Stream<Item = ObjectRef<Guarded>> + Send + use<> {
        let bell = self.0.clone();
        stream::unfold((bell, all, Instant::now()), |(bell, all, mut open)| async move {
            bell.rings().await;
            // Whoever is woken after a while of rest is woken at once; unlike a debounce this never waits longer.
            tokio::time::sleep_until(open).await;
            let names = bell.take(&all, Instant::now());
            if !names.is_empty() {
                open = Instant::now() + TOGETHER;
            }
            Some((stream::iter(names), (bell, all, open)))
        })
        .flatten()
    }

    /// Forgets what was woken while nobody listened: a standby that leads now wakes everything anew.
    pub fn reset(&self) {
        self.0.with(|waiting| *waiting = Waiting::default());
    }

    /// Everybody, at once.
    pub fn all(&self, cause: Cause) {
        self.0.with(|waiting| {
            waiting.all.get_or_insert_with(|| Call::now(cause));
        });
        self.0.rung.notify_one();
    }

    /// Everybody, one after another, while there is nothing else to do.
    pub fn in_turn(&self, cause: Cause) {
        self.0.with(|waiting| {
            waiting.in_turn.get_or_insert_with(|| Call::now(cause));
        });
        self.0.rung.notify_one();
    }

    /// A node has changed.
    pub fn node(&self, node: &str) {
        self.0.with(|waiting| {
            if waiting.all.is_some() {
                return;
            }
            let call = Call::now(Cause::Node);
            for (name, _) in waiting.interests.iter().filter(|(_, interest)| interest.is_in(node)) {
                waiting.called.entry(name.clone()).or_insert(call);
            }
            let leisure = waiting.leisure.get_or_insert_with(Leisure::begin);
            leisure.changed.insert(node.to_owned());
            // This change they have not seen.
            leisure.seen.clear();
        });
        self.0.rung.notify_one();
    }

    /// What an allocation wants to hear of at once from now on. What has changed during its pass it may not have seen.
    pub fn wants(&self, name: &str, interest: Interest) {
        self.0.with(|waiting| {
            let unseen = waiting.leisure.as_ref().filter(|leisure| !leisure.seen.contains(name));
            if unseen.is_some_and(|leisure| leisure.changed.iter().any(|node| interest.is_in(node))) {
                waiting.called.entry(name.to_owned()).or_insert(Call::now(Cause::Node));
                self.0.rung.notify_one();
            }
            waiting.interests.insert(name.to_owned(), interest);
        });
    }

    pub fn one(&self, name: &str, cause: Cause) {
        self.0.with(|waiting| {
            if waiting.all.is_none() {
                waiting.called.entry(name.to_owned()).or_insert_with(|| Call::now(cause));
            }
        });
        self.0.rung.notify_one();
    }

    /// Its pass has done nothing yet, and is put off: the next one is still that which was woken by `cause`.
    pub fn put_off(&self, name: &str, cause: Cause) {
        self.0.with(|waiting| {
            waiting.put_off.entry(name.to_owned()).or_insert_with(|| Call::now(cause));
        });
    }

    /// Its pass begins, and is under way for as long as what this returns is kept.
    pub fn begins(&self, name: &str) -> UnderWay {
        let call = self.0.with(|waiting| {
            waiting.running.insert(name.to_owned());
            waiting.next.take_if(|next| next == name);
            // It sees what the others have still to see.
            let calls = [waiting.queued.remove(name), waiting.put_off.remove(name), waiting.others.remove(name)];
            calls.into_iter().flatten().next()
        });
        self.0.rings_for_the_others();
        let woken = call.map(|Call { at, cause }| (at.elapsed(), cause));
        UnderWay { bell: self.0.clone(), name: name.to_owned(), woken }
    }
}

/// A pass from its beginning to its end.
#[must_use]
pub struct UnderWay {
    bell: Arc<Bell>,
    name: String,
    /// How long it has waited since it was first woken, and by what, if it was.
    pub woken: Option<(Duration, Cause)>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.bell.with(|waiting| waiting.running.remove(&self.name));
        self.bell.rings_for_the_others();
    }
}

impl Bell {
    /// Until somebody is to be woken, perhaps.
    async fn rings(&self) {
        let rung = self.rung.notified();
        match self.with(|waiting| waiting.looks_at()) {
            // Either is a reason to look.
            Some(then) => drop(tokio::time::timeout_at(then, rung).await),
            None => rung.await,
        }
    }

    /// Who is woken by name, and then one of those who are woken in turn.
    fn take(&self, all: &Store<Guarded>, now: Instant) -> Vec<ObjectRef<Guarded>> {
        self.with(|waiting| {
            waiting.collect(|| all.state().iter().map(|object| object.name_any()).collect(), now);
            waiting.forget_those_who_are_gone(|name| all.get(&ObjectRef::new(name)).is_some());
            for name in waiting.called.keys() {
                waiting.others.remove(name);
            }
            let one = waiting.take_one_of_the_others(now);
            let woken: Vec<(String, Call)> = std::mem::take(&mut waiting.called).into_iter().chain(one).collect();
            if let Some(leisure) = &mut waiting.leisure {
                leisure.seen.extend(woken.iter().map(|(name, _)| name.clone()));
            }
            let names = woken.iter().map(|(name, _)| ObjectRef::new(name)).collect();
            for (name, call) in woken {
                waiting.queued.entry(name).or_insert(call);
            }
            names
        })
    }

    fn rings_for_the_others(&self) {
        if self.with(|waiting| !waiting.others.is_empty()) {
            self.rung.notify_one();
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes within so long after a hand-out are taken together: an effect that ends tells of itself, and the watches of what it wrote.
const TOGETHER: Duration = Duration::from_millis(4);
/// So late comes a change of a node to those whom it may not concern, and for no longer do they let others go first.
const AT_LEISURE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kube::core::DeserializeGuard;
    use kube_runtime::watcher;
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::{allocation::watch::store, api::NetIPAllocation};

    fn listed(names: &[&str]) -> Store<Guarded> {
        let (store, mut writer) = store();
        for name in names {
            let object = NetIPAllocation::new(name, Default::default());
            writer.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(Ok(object))));
        }
        store
    }

    fn taken(wake: &Wake, known: &Store<Guarded>, now: Instant) -> Vec<String> {
        wake.0.take(known, now).into_iter().map(|woken| woken.name).collect()
    }

    /// All who are woken by then where each has its pass at once.
    fn passed(wake: &Wake, known: &Store<Guarded>, now: Instant) -> Vec<String> {
        let next = || Some(taken(wake, known, now)).filter(|woken| !woken.is_empty());
        let pass = |woken: &Vec<String>| woken.iter().for_each(|name| drop(wake.begins(name)));
        std::iter::from_fn(next).inspect(pass).flatten().collect()
    }

    fn about(nodes: &[&str]) -> Interest {
        Interest { nodes: nodes.iter().map(|node| (*node).to_owned()).collect(), any: false }
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_fold_into_one_a_name_and_none_is_lost() {
        let wake = Wake::new();
        // Nobody listens yet, as on a standby.
        wake.one("a", Cause::Object);
        wake.one("a", Cause::Object);
        wake.all(Cause::Node);
        (0..100).for_each(|n| wake.node(&format!("node-{n}")));
        (0..100).for_each(|n| wake.one(&format!("gone-{n}"), Cause::Object));
        let kept = |waiting: &mut Waiting| (waiting.called.len(), waiting.leisure.is_some());
        assert_eq!(wake.0.with(kept), (1, false), "all are woken anyway");
        let mut woken = Box::pin(wake.stream(listed(&["a", "b"])));
        let first = [woken.next().await.unwrap().name, woken.next().await.unwrap().name];
        assert_eq!(first, ["a", "b"]);
        assert!(timeout(AT_LEISURE * 10, woken.next()).await.is_err(), "folded");
        wake.one("a", Cause::Object);
        assert_eq!(woken.next().await.unwrap().name, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_woken_after_a_rest_is_woken_at_once_and_what_comes_soon_after_together() {
        let wake = Wake::new();
        let mut woken = Box::pin(wake.stream(listed(&["a", "b", "c"])));
        advance(TOGETHER).await;
        wake.one("a", Cause::Effect);
        assert_eq!(woken.next().now_or_never().unwrap().unwrap().name, "a");
        let began = Instant::now();
        wake.one("c", Cause::Effect);
        assert!(woken.next().now_or_never().is_none());
        wake.one("b", Cause::Effect);
        let both = [woken.next().await.unwrap().name, woken.next().await.unwrap().name];
        assert_eq!(both, ["b", "c"]);
        assert_eq!(began.elapsed(), TOGETHER);
    }

    #[test]
    fn a_node_wakes_those_whom_it_concerns_at_once_and_the_others_once_and_later() {
        let (wake, known) = (Wake::new(), listed(&["a", "b", "c", "d"]));
        let (passed, now) = (|now| passed(&wake, &known, now), Instant::now());
        wake.wants("b", Interest { any: true, ..Interest::default() });
        wake.wants("c", about(&["node-1"]));
        wake.node("node-1");
        assert_eq!(passed(now), ["b", "c"], "the others have time");
        wake.one("d", Cause::Effect);
        assert_eq!(passed(now), ["d"]);
        let later = Instant::now() + AT_LEISURE;
        assert_eq!(passed(later), ["a"], "b, c and d have seen it");

        wake.node("node-1");
        assert_eq!(passed(now), ["b", "c"]);
        wake.node("node-2");
        assert_eq!(passed(now), ["b"]);
        let later = Instant::now() + AT_LEISURE;
        assert_eq!(passed(later), ["a", "c", "d"], "c has not seen the last of it");

        wake.node("node-2");
        wake.in_turn(Cause::Cloud);
        assert_eq!(passed(now), ["b", "a", "c", "d"], "whom it concerns goes first");
        assert!(passed(Instant::now() + AT_LEISURE).is_empty(), "and with that all have seen the node");

        wake.node("node-2");
        wake.all(Cause::Node);
        assert_eq!(taken(&wake, &known, now), ["a", "b", "c", "d"], "which nodes have changed is not known");
        assert!(passed(Instant::now() + AT_LEISURE).is_empty());
    }

    #[test]
    fn in_turn_is_woken_when_no_pass_is_under_way_or_waited_for() {
        let (wake, known) = (Wake::new(), listed(&["a", "b", "c"]));
        let (taken, now) = (|now| taken(&wake, &known, now), Instant::now());
        wake.in_turn(Cause::Cloud);
        assert_eq!(taken(now), ["a"]);
        assert!(taken(now).is_empty(), "a waits for its pass");
        let under_way = wake.begins("a");
        assert!(taken(now).is_empty(), "a has its pass");
        wake.one("c", Cause::Effect);
        drop(under_way);
        assert_eq!(taken(now), ["c"], "who is woken by name goes first");
        drop(wake.begins("c"));
        assert_eq!(taken(now), ["b"], "c has been woken since");
        assert_eq!(wake.begins("b").woken.map(|(_, cause)| cause), Some(Cause::Cloud));
    }

    #[test]
    fn in_turn_waits_a_second_for_the_passes_of_others_and_then_only_one_at_a_time() {
        let (wake, known) = (Wake::new(), listed(&["a", "b", "c"]));
        let taken = |now| taken(&wake, &known, now);
        wake.one("a", Cause::Effect);
        wake.in_turn(Cause::Cloud);
        assert_eq!(taken(Instant::now()), ["a"]);
        let _under_way = wake.begins("a");
        let later = Instant::now() + AT_LEISURE;
        assert_eq!(taken(later), ["b"]);
        assert!(taken(later).is_empty(), "b waits for its pass");
        let _under_way = wake.begins("b");
        assert_eq!(taken(later), ["c"]);
    }

    #[test]
    fn a_pass_for_another_reason_serves_one_that_is_to_be_woken_in_turn() {
        let (wake, known) = (Wake::new(), listed(&["a", "b"]));
        let (taken, now) = (|now| taken(&wake, &known, now), Instant::now());
        wake.in_turn(Cause::Cloud);
        assert_eq!(taken(now), ["a"]);
        assert_eq!(wake.begins("b").woken.map(|(_, cause)| cause), Some(Cause::Cloud), "tried again, say");
        drop(wake.begins("a"));
        assert!(taken(now).is_empty(), "b has seen it");
    }

    #[test]
    fn whoever_has_waited_for_the_longest_goes_first_of_those_who_are_woken_in_turn() {
        let (wake, known) = (Wake::new(), listed(&["a", "b", "c"]));
        let mut woken = Vec::new();
        for _ in 0..4 {
            wake.in_turn(Cause::Cloud);
            let next = taken(&wake, &known, Instant::now());
            next.iter().for_each(|name| drop(wake.begins(name)));
            woken.extend(next);
        }
        assert_eq!(woken, ["a", "b", "c", "a"]);
    }

    #[test]
    fn one_that_is_gone_before_its_pass_or_was_put_off_keeps_nobody_waiting() {
        let (wake, now) = (Wake::new(), Instant::now());
        wake.in_turn(Cause::Cloud);
        assert_eq!(taken(&wake, &listed(&["a", "b"]), now), ["a"]);
        // The object is gone, and its pass never begins.
        let left = listed(&["b"]);
        assert_eq!(taken(&wake, &left, now), ["b"]);
        drop(wake.begins("b"));
        wake.put_off("b", Cause::Effect);
        wake.in_turn(Cause::Cloud);
        assert_eq!(taken(&wake, &left, now), ["b"]);
        assert_eq!(wake.begins("b").woken.map(|(_, cause)| cause), Some(Cause::Cloud));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_pass_its_beginning_and_the_clock_wake_the_next_in_turn() {
        let wake = Wake::new();
        let mut woken = Box::pin(wake.stream(listed(&["a", "b", "c", "d"])));
        wake.in_turn(Cause::Cloud);
        assert_eq!(woken.next().await.unwrap().name, "a");
        let began = Instant::now();
        let under_way = wake.begins("a");
        assert!(timeout(AT_LEISURE / 2, woken.next()).await.is_err());
        drop(under_way);
        assert_eq!(woken.next().await.unwrap().name, "b");
        let _under_way = wake.begins("b");
        assert_eq!(woken.next().await.unwrap().name, "c");
        assert_eq!(began.elapsed(), AT_LEISURE);
        assert!(timeout(AT_LEISURE, woken.next()).await.is_err(), "c waits for its pass");
        let _under_way = wake.begins("c");
        assert_eq!(woken.next().await.unwrap().name, "d");
    }

    #[test]
    fn what_has_changed_during_a_pass_that_wants_to_hear_of_it_is_not_heard_late() {
        let (wake, known) = (Wake::new(), listed(&["a", "b"]));
        let (taken, now) = (|now| taken(&wake, &known, now), Instant::now());
        wake.node("node-1");
        wake.wants("a", about(&["node-1"]));
        wake.wants("b", about(&["node-2"]));
        assert_eq!(taken(now), ["a"]);
        wake.wants("a", about(&["node-1"]));
        assert!(taken(now).is_empty(), "it has seen it");
    }

    #[test]
    fn an_allocation_that_is_gone_is_of_no_interest_any_more() {
        let (wake, known) = (Wake::new(), listed(&[]));
        wake.wants("a", about(&["node-1"]));
        wake.node("node-1");
        assert!(taken(&wake, &known, Instant::now()).is_empty());
        assert!(wake.0.with(|waiting| waiting.interests.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_woken_at_leisure_is_woken_by_the_clock_and_has_not_waited_till_then() {
        let wake = Wake::new();
        let mut woken = Box::pin(wake.stream(listed(&["a"])));
        let began = Instant::now();
        wake.node("node-1");
        let first = timeout(AT_LEISURE * 2, woken.next()).await;
        assert_eq!(first.unwrap().unwrap().name, "a");
        assert!(began.elapsed() >= AT_LEISURE);
        assert!(wake.begins("a").woken.is_some_and(|(waited, _)| waited < AT_LEISURE));
    }

    #[test]
    fn a_pass_that_is_put_off_keeps_what_had_woken_it() {
        let wake = Wake::new();
        wake.put_off("a", Cause::Node);
        assert_eq!(wake.begins("a").woken.map(|(_, cause)| cause), Some(Cause::Node));
        assert!(wake.begins("a").woken.is_none());
    }

    #[tokio::test]
    async fn an_allocation_waits_since_its_first_wake_and_says_what_that_was() {
        let wake = Wake::new();
        wake.one("a", Cause::Effect);
        wake.one("a", Cause::Object);
        wake.all(Cause::Cloud);
        assert!(wake.begins("a").woken.is_none(), "not handed out yet");
        let mut woken = Box::pin(wake.stream(listed(&["a", "b"])));
        woken.next().await.unwrap();
        assert_eq!(wake.begins("a").woken.map(|(_, cause)| cause), Some(Cause::Effect));
        assert!(wake.begins("a").woken.is_none(), "its pass has begun");
        woken.next().await.unwrap();
        assert_eq!(wake.begins("b").woken.map(|(_, cause)| cause), Some(Cause::Cloud));
    }
}
