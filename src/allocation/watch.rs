//! Which changes wake which allocation.
//!
//! Allocations wake themselves; nodes, answers of the cloud and pods of draining nodes wake all, because placement and
//! claims concern all. Waking is cheap: a pass reads memory, and kube folds wakes that come together into one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use kube::{Api, Client, ResourceExt, core::DeserializeGuard};
use kube_runtime::{
    WatchStreamExt,
    reflector::{self, ObjectRef, Store, store::Writer},
    watcher::{self, watcher},
};
use tokio::sync::mpsc;

use super::observe::nodes::SlimNode;
use crate::api::NetIPAllocation;

/// An allocation that may not be decodable: one bad object must not blind the operator to the rest.
pub type Guarded = DeserializeGuard<NetIPAllocation>;

/// Wakes allocations. Clones wake the same ones.
#[derive(Clone)]
pub struct Wake {
    calls: mpsc::UnboundedSender<Call>,
    /// Since when an allocation waits for its pass.
    since: Arc<Mutex<HashMap<String, Instant>>>,
}

enum Call {
    All,
    One(String),
}

impl Wake {
    /// A waker, and the stream of what it wakes, given all that there is.
    pub fn new(all: Store<Guarded>) -> (Self, impl Stream<Item = ObjectRef<Guarded>> + Send) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let since: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let waiting = since.clone();
        let calls = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let woken = calls.flat_map(move |call| {
            let names: Vec<ObjectRef<Guarded>> = match call {
                Call::All => all.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect(),
                Call::One(name) => vec![ObjectRef::new(&name)],
            };
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for object in &names {
                waiting.entry(object.name.clone()).or_insert_with(Instant::now);
            }
            stream::iter(names)
        });
        (Self { calls: sender, since }, woken)
    }

    /// Its pass begins: how long it has waited since it was first woken, if it was.
    pub fn waited(&self, name: &str) -> Option<Duration> {
        let mut waiting = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(name).map(|since| since.elapsed())
    }

    pub fn all(&self) {
        // Nobody listens any more only when the process ends.
        let _ = self.calls.send(Call::All);
    }

    pub fn one(&self, name: &str) {
        let _ = self.calls.send(Call::One(name.to_owned()));
    }
}

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

/// Allocations: kept in `writer`'s store; each change is a reference in the stream.
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
        .modify(|object| object.managed_fields_mut().clear())
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

/// Nodes: kept in `writer`'s store; an item for each change that matters (a heartbeat does not).
pub fn nodes(client: Client, writer: Writer<SlimNode>, synced: Synced) -> impl Stream<Item = ()> + Send {
    let mut known: HashMap<String, SlimNode> = HashMap::new();
    let mut complaints = Complaints::new("Nodes");
    watcher(Api::<SlimNode>::all(client), watcher::Config::default().timeout(60).page_size(100))
        .modify(|node| node.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .filter_map(move |event| {
            let matters = match complaints.heard(event, &synced) {
                Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                    let essence = essence(node);
                    known.insert(essence.name_any(), essence.clone()).is_none_or(|before| before != essence)
                }
                Some(watcher::Event::Delete(node)) => {
                    known.remove(&node.name_any());
                    true
                }
                Some(watcher::Event::InitDone) => true,
                Some(watcher::Event::Init) | None => false,
            };
            std::future::ready(matters.then_some(()))
        })
}

/// A node without what changes with each heartbeat.
fn essence(mut node: SlimNode) -> SlimNode {
    node.metadata.resource_version = None;
    for condition in node.status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    node
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
