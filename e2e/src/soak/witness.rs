//! Somebody who looks on, as anybody could: hears of every node, pod and allocation through the API server, and sees all the
//! time whether the cloud agrees with what the nodes say of themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use e2e::{cluster::condition, world::World};
use futures::StreamExt;
use ip_address_controller::{
    api::{ADDRESS_LABEL, NetIPAllocation, READY_LABEL, READY_VALUE},
    cloud::MachineId,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::{
    WatchStreamExt,
    watcher::{Config, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{task::JoinHandle, time::Instant};

/// A node may say `ip.ready=true` without its address for so long: until the cloud has been read again, while nobody leads,
/// while the API server is away, while calls to the cloud are not answered. Three of these at once, and some.
pub const LABEL_BOUND: Duration = Duration::from_secs(120);
/// How often the cloud is held against the labels.
const LOOK: Duration = Duration::from_millis(500);

/// What a node has said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWord {
    pub at: Instant,
    pub there: bool,
    pub ready: bool,
    /// What its labels name while `ip.ready=true`; empty where they name none.
    pub address: Option<String>,
}

/// A pod that was put on a node.
#[derive(Clone, Debug)]
pub struct PodWord {
    pub node: String,
    pub app: String,
    /// When it was first heard of on that node.
    pub since: Instant,
    /// It has not been heard that it is gone.
    pub there: bool,
}

/// What status has said of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressWord {
    pub at: Instant,
    pub state: String,
    pub reason: String,
    pub node: Option<String>,
    /// The type of the operation that is intended or runs.
    pub operation: Option<String>,
}

/// Everything heard and seen so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub nodes: BTreeMap<String, Vec<NodeWord>>,
    pub pods: BTreeMap<String, PodWord>,
    pub addresses: BTreeMap<String, Vec<AddressWord>>,
    /// Addresses that status has told to be on a machine, or on the way there, with the cloud's own number of it.
    pub named: BTreeSet<(String, String)>,
    /// How many machines each allocation owes an address of their own.
    pub owed: BTreeMap<String, usize>,
    /// Changes of the state of an address.
    pub transitions: usize,
    /// Nodes whose labels name an address that is elsewhere, and since when.
    mislabelled: BTreeMap<(String, String), Instant>,
    /// The longest of these.
    pub longest: Duration,
    told: BTreeSet<(String, String)>,
    /// Promises that were seen broken.
    pub broken: Vec<String>,
}

/// Looks on until it is dropped.
#[derive(Debug)]
pub struct Witness {
    heard: Arc<Mutex<Heard>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Witness {
    pub fn call(client: &Client, world: &World) -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let (of_nodes, of_pods, of_allocations) = (heard.clone(), heard.clone(), heard.clone());
        let nodes = follow(Api::<Node>::all(client.clone()), move |name, node| lock(&of_nodes).node(name, node));
        let pods =
            follow(Api::<Pod>::namespaced(client.clone(), "default"), move |name, pod| lock(&of_pods).pod(name, pod));
        let allocations = follow(Api::<NetIPAllocation>::all(client.clone()), move |name, object| {
            lock(&of_allocations).allocation(name, object);
        });
        let looks = look(heard.clone(), world.clone());
        let tasks = vec![tokio::spawn(nodes), tokio::spawn(pods), tokio::spawn(allocations), tokio::spawn(looks)];
        Self { heard, tasks }
    }

    /// What is known now. To be held for a moment only: who looks on must not miss anything.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Heard {
    fn node(&mut self, name: &str, node: Option<&Node>) {
        let label = |key: &str| node.and_then(|node| node.labels().get(key).cloned());
        let carries = label(READY_LABEL).is_some_and(|value| value == READY_VALUE);
        let word = NodeWord {
            at: Instant::now(),
            there: node.is_some(),
            ready: node.and_then(|node| condition(node, "Ready")).is_some_and(|ready| ready.status == "True"),
            address: carries.then(|| label(ADDRESS_LABEL).unwrap_or_default()),
        };
        let words = self.nodes.entry(name.to_owned()).or_default();
        if words.last().is_none_or(|last| NodeWord { at: word.at, ..last.clone() } != word) {
            words.push(word);
        }
    }

    fn pod(&mut self, name: &str, pod: Option<&Pod>) {
        let node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        match (self.pods.get_mut(name), node) {
            (Some(known), node) => known.there = node.is_some(),
            (None, Some(node)) => {
                let app = pod.and_then(|pod| pod.labels().get("app").cloned()).unwrap_or_default();
                let word = PodWord { node, app, since: Instant::now(), there: true };
                self.pods.insert(name.to_owned(), word);
            }
            (None, None) => {}
        }
    }

    fn allocation(&mut self, name: &str, object: Option<&NetIPAllocation>) {
        let status = object.and_then(|object| object.status.clone()).unwrap_or_default();
        self.owed.insert(name.to_owned(), status.owed.len());
        for address in status.addresses {
            if let Some(Ok(machine)) = address.machine_id.as_ref().map(|id| id.parse::<MachineId>()) {
                self.named.insert((address.ip.clone(), machine.instance));
            }
            let word = AddressWord {
                at: Instant::now(),
                state: address.state,
                reason: address.reason.unwrap_or_default(),
                node: address.node,
                operation: address.operation.map(|operation| operation.type_),
            };
            let words = self.addresses.entry(address.ip).or_default();
            let last = words.last();
            self.transitions += usize::from(last.is_none_or(|last| last.state != word.state));
            if last.is_none_or(|last| AddressWord { at: word.at, ..last.clone() } != word) {
                words.push(word);
            }
        }
    }

    /// Nodes whose labels name an address that is elsewhere, by that map of addresses to machines.
    pub fn wrong_labels(&self, on: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let last = self.nodes.iter().filter_map(|(name, words)| Some((name, words.last()?.address.as_ref()?)));
        last.filter(|(name, ip)| on.get(*ip) != Some(*name)).map(|(name, ip)| (name.clone(), ip.clone())).collect()
    }

    fn compare(&mut self, on: &BTreeMap<String, String>) {
        let (now, wrong) = (Instant::now(), self.wrong_labels(on));
        self.mislabelled.retain(|key, _| wrong.contains(key));
        self.told.retain(|key| wrong.contains(key));
        for key in wrong {
            let lasted = now.duration_since(*self.mislabelled.entry(key.clone()).or_insert(now));
            self.longest = self.longest.max(lasted);
            if lasted > LABEL_BOUND && self.told.insert(key.clone()) {
                let (node, ip) = key;
                let bound = LABEL_BOUND.as_secs();
                self.broken.push(format!("P4: for {bound} s node {node} has said that it has {ip}, and has not"));
            }
        }
    }
}

/// Which machine has which reserved address, by name.
pub fn holders(world: &World) -> BTreeMap<String, String> {
    world.inventory(|inventory| {
        let reserved = inventory.machines().filter_map(|machine| {
            let ip: IpAddr = machine.external.as_ref().filter(|external| external.reserved)?.ip?;
            Some((ip.to_string(), machine.key.name.clone()))
        });
        reserved.collect()
    })
}

async fn look(heard: Arc<Mutex<Heard>>, world: World) {
    loop {
        tokio::time::sleep(LOOK).await;
        let on = holders(&world);
        lock(&heard).compare(&on);
    }
}

/// Hears of every object by name; `None` is one that is gone. A watch that breaks begins anew.
async fn follow<K>(api: Api<K>, mut hear: impl FnMut(&str, Option<&K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
    let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any());
                hear(&object.name_any(), Some(&object));
            }
            Ok(Event::InitDone) => {
                known.difference(&listed).for_each(|name: &String| hear(name, None));
                known = std::mem::take(&mut listed);
            }
            Ok(Event::Apply(object)) => {
                known.insert(object.name_any());
                hear(&object.name_any(), Some(&object));
            }
            Ok(Event::Delete(object)) => {
                known.remove(&object.name_any());
                hear(&object.name_any(), None);
            }
            // The API server is away now and then; what was missed is listed afterwards.
            Err(error) => tracing::debug!("a watch was broken: {error}"),
        }
    }
}

/// Nothing that runs under this lock can leave what is heard half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
