//! Which versions this process may act on: what it has just written or just read live (F3). Pure.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use crate::{
    allocation::{
        claims::{Claimant, Claims},
        tables::Uid,
        taints::NodeTaints,
    },
    api::NetIPAllocation,
};

/// The newest version known of each allocation, by the object's uid.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    known: BTreeMap<Uid, Known>,
}

/// A version, and what it says that other allocations must know.
#[derive(Clone, Debug)]
struct Known {
    object: Arc<NetIPAllocation>,
    claimant: Arc<Claimant>,
}

impl Known {
    fn of(object: Arc<NetIPAllocation>) -> Self {
        Self { claimant: Arc::new(Claimant::of(&object)), object }
    }
}

impl Versions {
    /// Everything there is, read live at take-over (F6): what was known before is forgotten.
    pub fn of(all: impl IntoIterator<Item = Arc<NetIPAllocation>>) -> Self {
        Self { known: all.into_iter().filter_map(|object| Some((object.uid()?, Known::of(object)))).collect() }
    }

    /// The version to act on, if the watch cache is not ahead of it; else the object has to be read live. Nothing is done
    /// on the cache's word: it only says that there is news.
    pub fn newest(&self, cached: Option<(&str, u64)>) -> Option<Arc<NetIPAllocation>> {
        let (uid, version) = cached?;
        self.get(uid).filter(|known| number(&**known) >= version)
    }

    /// A live read is the truth, even where its version is lower: etcd may have been restored.
    pub fn read(&mut self, object: Arc<NetIPAllocation>) {
        if let Some(uid) = object.uid() {
            self.known.insert(uid, Known::of(object));
        }
    }

    /// A version that this process wrote, as the API server returned it.
    pub fn wrote(&mut self, object: Arc<NetIPAllocation>) {
        if let Some(uid) = object.uid()
            && self.get(&uid).is_none_or(|older| number(&*older) <= number(&*object))
        {
            self.known.insert(uid, Known::of(object));
        }
    }

    /// The version to act on, of an object that is known.
    pub fn get(&self, uid: &str) -> Option<Arc<NetIPAllocation>> {
        self.known.get(uid).map(|known| known.object.clone())
    }

    /// All objects that are known.
    pub fn all(&self) -> impl Iterator<Item = &Arc<NetIPAllocation>> {
        self.known.values().map(|known| &known.object)
    }

    /// What each of them claims.
    pub fn claims(&self) -> Claims {
        let claimants = self.known.values().map(|known| known.claimant.clone()).collect();
        Claims::among(claimants, NodeTaints::of(self.all().map(AsRef::as_ref)))
    }

    /// Whether an object of that name is known: read or written by this process, and not gone since.
    pub fn knows(&self, name: &str) -> bool {
        self.all().any(|object| object.name_any() == name)
    }

    /// Forgets one life of an object.
    pub fn forget_uid(&mut self, uid: &str) {
        self.known.remove(uid);
    }

    /// Forgets objects of that name, and says which: they are gone, or what stands of them is not known.
    pub fn forget(&mut self, name: &str) -> Vec<Uid> {
        let gone: Vec<Uid> = self
            .known
            .iter()
            .filter(|(_, known)| known.object.name_any() == name)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &gone {
            self.known.remove(uid);
        }
        gone
    }
}

/// The resourceVersion as a number: comparable for objects of one kind (KEP-5504).
pub fn number<K: kube::Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}
