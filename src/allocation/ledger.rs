//! The versions that may be acted on: those that this process has just written or just read live (F3).
//!
//! The watch cache wakes passes and brings news of spec and deletion; nothing is done on its word.

pub mod versions;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::{Api, api::ListParams, core::DeserializeGuard};
use tokio::time::timeout;

pub use self::versions::{Versions, number};
use super::{claims::Claims, tables::Uid};
use crate::api::NetIPAllocation;

/// For single calls to the API server.
const CALL: Duration = Duration::from_secs(10);

/// Why a version could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading the allocation failed: {0}")]
    Call(#[from] Box<kube::Error>),
    #[error("reading the allocation had no answer in time")]
    Timeout,
    /// Stored in a form that these types cannot read.
    #[error("{0}")]
    Undecodable(String),
}

/// See the module.
#[derive(Clone)]
pub struct Ledger {
    api: Api<DeserializeGuard<NetIPAllocation>>,
    versions: Arc<Mutex<Versions>>,
    /// Counts every change of what is known.
    revision: Arc<AtomicU64>,
    selector: Option<String>,
}

impl Ledger {
    /// `selector`: only objects with these labels are ours.
    pub fn new(client: kube::Client, selector: Option<String>) -> Self {
        Self { api: Api::all(client), versions: Arc::default(), revision: Arc::default(), selector }
    }

    /// Take-over (F6): everything, read live. The warm cache decides nothing. Objects that cannot be decoded are left
    /// out; their own pass says so.
    ///
    /// # Errors
    /// The API server's; also when it does not answer in time.
    pub async fn take_over(&self) -> Result<Vec<Arc<NetIPAllocation>>, ReadError> {
        let params = ListParams { label_selector: self.selector.clone(), ..ListParams::default() };
        let list = timeout(CALL, self.api.list(&params));
        let list = list.await.map_err(|_| ReadError::Timeout)?.map_err(Box::new)?;
        let all: Vec<_> = list.items.into_iter().filter_map(|item| item.0.ok()).map(Arc::new).collect();
        self.change(|versions| *versions = Versions::of(all.iter().cloned()));
        Ok(all)
    }

    /// The version to act on, given what the watch cache shows: ours if the cache is not ahead of it, else a live read.
    /// `None`: the object is gone.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn newest(
        &self,
        name: &str,
        cached: Option<(&str, u64)>,
    ) -> Result<Option<Arc<NetIPAllocation>>, ReadError> {
        let known = self.lock().newest(cached);
        match known {
            Some(known) => Ok(Some(known)),
            None => self.reread(name).await,
        }
    }

    /// A live read, which then counts.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn reread(&self, name: &str) -> Result<Option<Arc<NetIPAllocation>>, ReadError> {
        let found = timeout(CALL, self.api.get_opt(name)).await.map_err(|_| ReadError::Timeout)?.map_err(Box::new)?;
        match found {
            None => Ok(None),
            Some(DeserializeGuard(Err(invalid))) => Err(ReadError::Undecodable(invalid.error)),
            Some(DeserializeGuard(Ok(object))) => {
                let object = Arc::new(object);
                self.change(|versions| versions.read(object.clone()));
                Ok(Some(object))
            }
        }
    }

    /// A version that this process wrote, as the API server returned it.
    pub fn put(&self, object: NetIPAllocation) -> Arc<NetIPAllocation> {
        let object = Arc::new(object);
        self.change(|versions| versions.wrote(object.clone()));
        object
    }

    /// All objects that are known.
    pub fn all(&self) -> Vec<Arc<NetIPAllocation>> {
        self.lock().all().cloned().collect()
    }

    /// What each of them claims.
    pub fn claims(&self) -> Claims {
        self.lock().claims()
    }

    /// Whether the object is known: read or written by this process, and not gone since.
    pub fn knows(&self, name: &str) -> bool {
        self.lock().knows(name)
    }

    /// Whether an object of that name exists at all, ours or another release's. Unknown reads as yes.
    pub async fn exists(&self, name: &str) -> bool {
        !matches!(timeout(CALL, self.api.get_opt(name)).await, Ok(Ok(None)))
    }

    /// Forgets one life of an object.
    pub fn forget_uid(&self, uid: &str) {
        self.change(|versions| versions.forget_uid(uid));
    }

    /// Forgets objects of that name: it is gone.
    pub fn forget(&self, name: &str) -> Vec<Uid> {
        self.change(|versions| versions.forget(name))
    }

    /// Another number whenever what is known may have changed since.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Versions) -> T) -> T {
        let changed = change(&mut self.lock());
        self.revision.fetch_add(1, Ordering::AcqRel);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
