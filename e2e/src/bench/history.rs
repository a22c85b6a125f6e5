//! What status has said of every address, and when this program heard of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use ip_address_controller::api::NetIPAllocation;
use kube::{Api, Client};
use kube_runtime::{WatchStreamExt, watcher};
use tokio::{sync::watch, time::Instant};

/// One word of status about one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub at: Instant,
    pub state: String,
    pub node: Option<String>,
}

/// Follows every NetIPAllocation until it is dropped.
#[derive(Debug)]
pub struct History {
    words: Arc<Mutex<BTreeMap<String, Vec<Word>>>>,
    heard: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl History {
    pub fn follow(client: Client) -> Self {
        let words: Arc<Mutex<BTreeMap<String, Vec<Word>>>> = Arc::default();
        let (news, heard) = watch::channel(0);
        let known = words.clone();
        let task = tokio::spawn(async move {
            let api: Api<NetIPAllocation> = Api::all(client);
            let objects = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
            let told = objects.try_for_each(|object| {
                hear(&mut lock(&known), &object);
                news.send_modify(|count| *count += 1);
                std::future::ready(Ok(()))
            });
            if let Err(error) = told.await {
                eprintln!("watching NetIPAllocations ended: {error}");
            }
        });
        Self { words, heard, task }
    }

    /// The last word about each address.
    pub fn now(&self) -> BTreeMap<String, Word> {
        let words = lock(&self.words);
        words.iter().filter_map(|(ip, words)| Some((ip.clone(), words.last()?.clone()))).collect()
    }

    /// Waits until all that was heard satisfies `wanted`.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&BTreeMap<String, Vec<Word>>) -> Option<T>,
    ) -> Result<T> {
        let mut heard = self.heard.clone();
        let seen = async {
            loop {
                if let Some(found) = wanted(&lock(&self.words)) {
                    return found;
                }
                if heard.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, seen).await.with_context(|| format!("waited {patience:?} for: {what}"))
    }

    /// Waits until the address is Attached to another node than this one; when that was heard, and which it is.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn moved(&self, ip: &str, from: &str, patience: Duration) -> Result<(Instant, String)> {
        self.until(&format!("{ip} has left {from}"), patience, |words| {
            let Word { at, state, node } = words.get(ip)?.last()?;
            let node = node.as_deref().filter(|node| state == "Attached" && *node != from)?;
            Some((*at, node.to_owned()))
        })
        .await
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn hear(words: &mut BTreeMap<String, Vec<Word>>, object: &NetIPAllocation) {
    let at = Instant::now();
    for address in object.status.iter().flat_map(|status| &status.addresses) {
        let of = words.entry(address.ip.clone()).or_default();
        let is_new = of.last().is_none_or(|last| last.state != address.state || last.node != address.node);
        if is_new {
            of.push(Word { at, state: address.state.clone(), node: address.node.clone() });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
