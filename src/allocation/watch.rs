//! Which changes wake which allocation.
//!
//! Allocations wake themselves, an answer of the cloud those that asked, and pods of draining nodes those that look at them. A node
//! wakes those at once whose [`Interest`] it is; of the others it may change counts and plans, and they are woken at leisure
//! (docs/decisions/0013-whom-a-node-wakes.md). A survey wakes all. Wakes that come together are folded into one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use kube::{Api, Client, ResourceExt, core::DeserializeGuard};
use kube_runtime::{
    WatchStreamExt,
    reflector::{self, ObjectRef, Store, store::Writer},
    watcher::{self, watcher},
};
use tokio::{sync::Notify, time::Instant};

use super::observe::nodes::SlimNode;
use crate::api::NetIPAllocation;

/// An allocation that may not be decodable: one bad object must not blind the operator to the rest.
pub type Guarded = DeserializeGuard<NetIPAllocation>;

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
/// Wakes that come together fold into one, so that a standby, which listens to none of them, keeps at most one a name.
#[derive(Clone, Default)]
pub struct Wake(Arc<Bell>);

#[derive(Default)]
struct Bell {
    waiting: Mutex<Waiting>,
    rung: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Woken and not yet handed out, with the first wake.
    called: BTreeMap<String, Call>,
    all: Option<Call>,
    leisure: Option<Leisure>,
    /// Handed out; their passes have not begun.
    queued: BTreeMap<String, Call>,
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
    /// What wakes everybody by now, and those who need not be woken for it.
    fn everybody(&mut self, now: Instant) -> Option<(Call, BTreeSet<String>)> {
        let all = self.all.take();
        let leisure = self.leisure.take_if(|leisure| all.is_some() || leisure.ends <= now);
        // They were to wait until then; since then they wait for their turn.
        let over = leisure.map(|Leisure { seen, ends, .. }| (Call { at: ends, cause: Cause::Node }, seen));
        all.map(|call| (call, BTreeSet::new())).or(over)
    }
}

impl Wake {
    pub fn new() -> Self {
        Self::default()
    }

    /// What is woken, given all that there is. To be listened to once.
    pub fn stream(&self, all: Store<Guarded>) -> impl Stream<Item = ObjectRef<Guarded>> + Send + use<> {
        let bell = self.0.clone();
        stream::unfold((bell, all), |(bell, all)| async move {
            bell.rings().await;
            // What comes together is taken together; unlike a debounce this never waits longer.
            tokio::time::sleep(TOGETHER).await;
            let names = bell.take(&all, Instant::now());
            Some((stream::iter(names), (bell, all)))
        })
        .flatten()
    }

    /// Forgets what was woken while nobody listened: a standby that leads now wakes everything anew.
    pub fn reset(&self) {
        self.0.with(|waiting| *waiting = Waiting::default());
    }

    pub fn all(&self, cause: Cause) {
        self.0.with(|waiting| {
            waiting.all.get_or_insert_with(|| Call::now(cause));
        });
        self.0.rung.notify_one();
    }

    /// A node has changed.
    pub fn node(&self, node: &str) {
        self.0.with(|waiting| {
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
            waiting.called.entry(name.to_owned()).or_insert_with(|| Call::now(cause));
        });
        self.0.rung.notify_one();
    }

    /// Its pass has done nothing yet, and is put off: the next one is still that which was woken by `cause`.
    pub fn put_off(&self, name: &str, cause: Cause) {
        self.0.with(|waiting| {
            waiting.queued.entry(name.to_owned()).or_insert_with(|| Call::now(cause));
        });
    }

    /// Its pass begins: how long it has waited since it was first woken, and by what, if it was.
    pub fn waited(&self, name: &str) -> Option<(Duration, Cause)> {
        self.0.with(|waiting| waiting.queued.remove(name)).map(|Call { at, cause }| (at.elapsed(), cause))
    }
}

impl Bell {
    /// Until somebody is to be woken, perhaps.
    async fn rings(&self) {
        let rung = self.rung.notified();
        match self.with(|waiting| waiting.leisure.as_ref().map(|leisure| leisure.ends)) {
            // Either is a reason to look.
            Some(end) => drop(tokio::time::timeout_at(end, rung).await),
            None => rung.await,
        }
    }

    /// Who is woken by name goes before those whom what has woken all may not concern.
    fn take(&self, all: &Store<Guarded>, now: Instant) -> Vec<ObjectRef<Guarded>> {
        self.with(|waiting| {
            let mut woken: Vec<(String, Call)> = std::mem::take(&mut waiting.called).into_iter().collect();
            if let Some((call, mut seen)) = waiting.everybody(now) {
                seen.extend(woken.iter().map(|(name, _)| name.clone()));
                let mut others: Vec<String> = all.state().iter().map(|object| object.name_any()).collect();
                others.retain(|name| !seen.contains(name));
                others.sort();
                woken.extend(others.into_iter().map(|name| (name, call)));
            }
            // One that is gone has no pass.
            let (woken, gone): (Vec<_>, Vec<_>) =
                woken.into_iter().partition(|(name, _)| all.get(&ObjectRef::new(name)).is_some());
            for (name, _) in gone {
                waiting.interests.remove(&name);
            }
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

    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes within so long are taken together: long enough for two permits that are given in one moment.
const TOGETHER: Duration = Duration::from_millis(4);
/// So late comes a change of a node to those whom it may not concern.
const AT_LEISURE: Duration = Duration::from_secs(1);

/// Whether a watch has shown everything once. `Init` proves nothing: it comes before the list is asked for.
#[derive(Clone, Default)]
pub struct Synced(Arc<AtomicBool>);

impl Synced {
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Allocations: kept in `writer`'s store, but for their status, which a pass takes from the ledger (F3); each change is a
/// reference in the stream.
pub fn allocations(
    client: Client,
    selector: Option<String>,
    writer: Writer<Guarded>,
    synced: Synced,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send {
    let mut config = watcher::Config::default().timeout(60);
    if let Some(selector) = selector {
        config = config.labels(&selector);
    }
    let mut complaints = Complaints::new("NetIPAllocations");
    watcher(Api::<Guarded>::all(client), config)
        .modify(|object| {
            object.managed_fields_mut().clear();
            if let Ok(object) = &mut object.0 {
                object.status = None;
            }
        })
        .default_backoff()
        .reflect(writer)
        .filter_map(move |event| {
            let woken = match complaints.heard(event, &synced) {
                Some(
                    watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object),
                ) => Some(ObjectRef::from_obj(&object)),
                Some(watcher::Event::Init | watcher::Event::InitDone) | None => None,
            };
            std::future::ready(woken)
        })
}

/// Nodes: kept in `writer`'s store; an item for each change that matters, the node's name, or none for a whole list. A heartbeat
/// does not matter, and is not even kept: whoever has the node from the store shares it with all others.
pub fn nodes(client: Client, writer: Writer<SlimNode>, synced: Synced) -> impl Stream<Item = Option<String>> + Send {
    let known = writer.as_reader();
    let mut complaints = Complaints::new("Nodes");
    watcher(Api::<SlimNode>::all(client), watcher::Config::default().timeout(60).page_size(100))
        .modify(SlimNode::slim)
        .default_backoff()
        .filter(move |event| std::future::ready(!is_heartbeat(event, &known)))
        .reflect(writer)
        .filter_map(move |event| {
            let matters = match complaints.heard(event, &synced) {
                Some(watcher::Event::Apply(node) | watcher::Event::Delete(node)) => Some(Some(node.name_any())),
                Some(watcher::Event::InitDone) => Some(None),
                // Nothing of a list is to be seen before its end.
                Some(watcher::Event::Init | watcher::Event::InitApply(_)) | None => None,
            };
            std::future::ready(matters)
        })
}

/// Whether nothing but the version of a node has changed.
fn is_heartbeat(event: &watcher::Result<watcher::Event<SlimNode>>, known: &Store<SlimNode>) -> bool {
    let Ok(watcher::Event::Apply(node)) = event else { return false };
    known.get(&ObjectRef::from_obj(node)).is_some_and(|known| known.is_like(node))
}

/// A watch that fails fails for ever, every few seconds: said once per text, and once that it works again.
struct Complaints {
    of: &'static str,
    last: Option<String>,
}

impl Complaints {
    fn new(of: &'static str) -> Self {
        Self { of, last: None }
    }

    fn heard<K>(&mut self, event: watcher::Result<watcher::Event<K>>, synced: &Synced) -> Option<watcher::Event<K>> {
        match event {
            Ok(event) => {
                if matches!(event, watcher::Event::InitDone) {
                    synced.set();
                    if self.last.take().is_some() {
                        tracing::info!(watch = self.of, "the watch works again");
                    }
                }
                Some(event)
            }
            Err(error) => {
                let text = error.to_string();
                if self.last.as_ref() != Some(&text) {
                    tracing::warn!(watch = self.of, error = text, "the watch failed, trying again");
                    self.last = Some(text);
                }
                None
            }
        }
    }
}

/// A store and its writer.
pub fn store<K>() -> (Store<K>, Writer<K>)
where
    K: reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone + Default,
{
    reflector::store()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::allocation::observe::nodes::SlimSpec;

    fn listed(names: &[&str]) -> Store<Guarded> {
        let (store, mut writer) = store();
        for name in names {
            let object = NetIPAllocation::new(name, Default::default());
            writer.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(Ok(object))));
        }
        store
    }

    #[tokio::test]
    async fn wakes_fold_into_one_a_name_and_none_is_lost() {
        let wake = Wake::new();
        // Nobody listens yet, as on a standby.
        wake.one("a", Cause::Object);
        wake.one("a", Cause::Object);
        wake.all(Cause::Node);
        let mut woken = Box::pin(wake.stream(listed(&["a", "b"])));
        let first = [woken.next().await.unwrap().name, woken.next().await.unwrap().name];
        assert_eq!(first, ["a", "b"]);
        assert!(woken.next().now_or_never().is_none(), "folded");
        wake.one("a", Cause::Object);
        assert_eq!(woken.next().await.unwrap().name, "a");
    }

    fn taken(wake: &Wake, known: &Store<Guarded>, now: Instant) -> Vec<String> {
        wake.0.take(known, now).into_iter().map(|woken| woken.name).collect()
    }

    fn about(nodes: &[&str]) -> Interest {
        Interest { nodes: nodes.iter().map(|node| (*node).to_owned()).collect(), any: false }
    }

    #[test]
    fn a_node_wakes_those_whom_it_concerns_at_once_and_the_others_once_and_later() {
        let (wake, known) = (Wake::new(), listed(&["a", "b", "c", "d"]));
        let (taken, now) = (|now| taken(&wake, &known, now), Instant::now());
        wake.wants("b", Interest { any: true, ..Interest::default() });
        wake.wants("c", about(&["node-1"]));
        wake.node("node-1");
        assert_eq!(taken(now), ["b", "c"]);
        assert!(taken(now).is_empty(), "the others have time");
        wake.one("d", Cause::Effect);
        assert_eq!(taken(now), ["d"]);
        let later = Instant::now() + AT_LEISURE;
        assert_eq!(taken(later), ["a"], "b, c and d have seen it");
        assert!(taken(later).is_empty());

        wake.node("node-1");
        assert_eq!(taken(now), ["b", "c"]);
        wake.node("node-2");
        assert_eq!(taken(now), ["b"]);
        let later = Instant::now() + AT_LEISURE;
        assert_eq!(taken(later), ["a", "c", "d"], "c has not seen the last of it");

        wake.node("node-2");
        wake.all(Cause::Cloud);
        assert_eq!(taken(now), ["b", "a", "c", "d"], "whom it concerns goes first");
        assert!(taken(Instant::now() + AT_LEISURE).is_empty(), "and with that all have seen the node");
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
        let first = tokio::time::timeout(AT_LEISURE * 2, woken.next()).await;
        assert_eq!(first.unwrap().unwrap().name, "a");
        assert!(began.elapsed() >= AT_LEISURE);
        assert!(wake.waited("a").is_some_and(|(waited, _)| waited < AT_LEISURE));
    }

    #[tokio::test]
    async fn a_pass_that_is_put_off_keeps_what_had_woken_it() {
        let wake = Wake::new();
        wake.put_off("a", Cause::Node);
        assert_eq!(wake.waited("a").map(|(_, cause)| cause), Some(Cause::Node));
        assert!(wake.waited("a").is_none());
    }

    #[tokio::test]
    async fn an_allocation_waits_since_its_first_wake_and_says_what_that_was() {
        let wake = Wake::new();
        wake.one("a", Cause::Effect);
        wake.one("a", Cause::Object);
        wake.all(Cause::Cloud);
        assert!(wake.waited("a").is_none(), "not handed out yet");
        let mut woken = Box::pin(wake.stream(listed(&["a", "b"])));
        woken.next().await.unwrap();
        assert_eq!(wake.waited("a").map(|(_, cause)| cause), Some(Cause::Effect));
        assert!(wake.waited("a").is_none(), "its pass has begun");
        woken.next().await.unwrap();
        assert_eq!(wake.waited("b").map(|(_, cause)| cause), Some(Cause::Cloud));
    }

    #[test]
    fn a_heartbeat_is_a_new_version_that_says_nothing_new() {
        let node = |version: &str, cordoned: bool| SlimNode {
            metadata: kube::api::ObjectMeta {
                name: Some("a".to_owned()),
                resource_version: Some(version.to_owned()),
                ..Default::default()
            },
            spec: SlimSpec { unschedulable: Some(cordoned), ..Default::default() },
            ..Default::default()
        };
        let (known, mut writer) = store();
        assert!(!is_heartbeat(&Ok(watcher::Event::Apply(node("1", false))), &known), "the first time that it is seen");
        writer.apply_watcher_event(&watcher::Event::Apply(node("1", false)));
        assert!(is_heartbeat(&Ok(watcher::Event::Apply(node("2", false))), &known));
        assert!(!is_heartbeat(&Ok(watcher::Event::Apply(node("2", true))), &known));
        // A list has to be complete.
        assert!(!is_heartbeat(&Ok(watcher::Event::InitApply(node("2", false))), &known));
        assert!(!is_heartbeat(&Ok(watcher::Event::Delete(node("2", false))), &known));
    }
}
