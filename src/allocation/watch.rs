//! What is watched, and which changes wake which allocation.
//!
//! Allocations wake themselves, an answer of the cloud those that asked, and pods of draining nodes those that look at them. A node
//! wakes those at once whose [`Interest`] it is; of the others it may change counts and plans, and they are woken at leisure
//! (docs/decisions/0013-whom-a-node-wakes.md). A survey wakes all.

mod retries;
mod wake;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{Stream, StreamExt};
use kube::{Api, Client, Resource, ResourceExt, core::DeserializeGuard};
use kube_runtime::{
    WatchStreamExt,
    reflector::{self, ObjectRef, Store, store::Writer},
    watcher::{self, watcher},
};

pub use self::{
    retries::Retries,
    wake::{Cause, Interest, Wake},
};
use super::observe::nodes::SlimNode;
use crate::api::NetIPAllocation;

/// An allocation that may not be decodable: one bad object must not blind the operator to the rest.
pub type Guarded = DeserializeGuard<NetIPAllocation>;

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

/// What is to be seen in the store from now on.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Another state of the object of this name, or that it is gone.
    Of(String),
    /// A whole list.
    All,
}

impl Change {
    /// Nothing of a list is to be seen before its end.
    fn seen<K: Resource>(event: &watcher::Event<K>) -> Option<Self> {
        match event {
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => Some(Self::Of(object.name_any())),
            watcher::Event::InitDone => Some(Self::All),
            watcher::Event::Init | watcher::Event::InitApply(_) => None,
        }
    }
}

/// Allocations: kept in `writer`'s store, but for their status, which a pass takes from the ledger (F3).
pub fn allocations(
    client: Client,
    selector: Option<String>,
    writer: Writer<Guarded>,
    synced: Synced,
) -> impl Stream<Item = Change> + Send {
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
        .backoff(Retries::default())
        .reflect(writer)
        .filter_map(move |event| std::future::ready(complaints.heard(event, &synced)))
}

/// Nodes: kept in `writer`'s store. A heartbeat is no change, and is not even kept: whoever has the node from the store shares it
/// with all others.
pub fn nodes(client: Client, writer: Writer<SlimNode>, synced: Synced) -> impl Stream<Item = Change> + Send {
    let known = writer.as_reader();
    let mut complaints = Complaints::new("Nodes");
    watcher(Api::<SlimNode>::all(client), watcher::Config::default().timeout(60).page_size(100))
        .modify(SlimNode::slim)
        .backoff(Retries::default())
        .filter(move |event| std::future::ready(!is_heartbeat(event, &known)))
        .reflect(writer)
        .filter_map(move |event| std::future::ready(complaints.heard(event, &synced)))
}

/// Whether nothing but the version of a node has changed.
fn is_heartbeat(event: &watcher::Result<watcher::Event<SlimNode>>, known: &Store<SlimNode>) -> bool {
    let Ok(watcher::Event::Apply(node)) = event else { return false };
    known.get(&ObjectRef::from_obj(node)).is_some_and(|known| known.is_like(node))
}

/// A watch that fails may fail for long, every few seconds: said once per text, and once that it works again.
struct Complaints {
    of: &'static str,
    last: Option<String>,
}

impl Complaints {
    fn new(of: &'static str) -> Self {
        Self { of, last: None }
    }

    fn heard<K: Resource>(&mut self, event: watcher::Result<watcher::Event<K>>, synced: &Synced) -> Option<Change> {
        match event {
            Ok(event) => {
                if matches!(event, watcher::Event::InitDone) {
                    synced.set();
                }
                // One that goes on from where it was has no list; and that a list is asked for proves nothing.
                if !matches!(event, watcher::Event::Init) && self.last.take().is_some() {
                    tracing::info!(watch = self.of, "the watch works again");
                }
                Change::seen(&event)
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
    use std::{pin::pin, time::Duration};

    use http::request::Parts;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::allocation::{
        api_server::{self, refused},
        observe::nodes::SlimSpec,
    };

    /// An API server that has one object of each kind.
    fn list(request: &Parts) -> Value {
        let (kind, api) = match request.uri.path() {
            "/api/v1/nodes" => ("NodeList", "v1"),
            _ => ("NetIPAllocationList", "netinfra.darkbrains.com/v1alpha1"),
        };
        let object = json!({"metadata": {"name": "sip"}, "spec": {"reservedIPs": ["203.0.113.10"]}});
        json!({"kind": kind, "apiVersion": api, "metadata": {"resourceVersion": "7"}, "items": [object]})
    }

    /// A change that is told too early wakes nobody: whom the store does not know has no pass.
    #[tokio::test]
    async fn of_a_list_nothing_is_told_before_the_store_has_it() {
        let client = api_server::client(|request, _| (200, list(request)));
        let (known, writer) = store();
        let mut changes = pin!(allocations(client.clone(), None, writer, Synced::default()));
        assert_eq!(changes.next().await, Some(Change::All));
        assert!(known.get(&ObjectRef::new("sip")).is_some());

        let (known, writer) = store();
        let mut changes = pin!(nodes(client, writer, Synced::default()));
        assert_eq!(changes.next().await, Some(Change::All));
        assert!(known.get(&ObjectRef::new("sip")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_of_any_length_a_watch_shows_within_seconds_what_there_is() {
        let back = Instant::now() + Duration::from_secs(600);
        let client = api_server::client(move |request, _| {
            let watches = request.uri.query().is_some_and(|query| query.contains("watch=true"));
            match watches {
                false => (200, list(request)),
                true if Instant::now() < back => (503, refused(503, "ServiceUnavailable")),
                // The API server has forgotten what has happened meanwhile.
                true => (200, json!({"type": "ERROR", "object": refused(410, "Expired")})),
            }
        });
        let (_known, writer) = store();
        let mut changes = pin!(nodes(client, writer, Synced::default()));
        assert_eq!(changes.next().await, Some(Change::All));
        assert_eq!(changes.next().await, Some(Change::All));
        let late = Instant::now() - back;
        assert!(late < Duration::from_secs(10), "{late:?}");
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
