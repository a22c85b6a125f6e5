//! What a test sees and changes of this façade alone: things that the world has no word for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// A write of an interface, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Name of the interface.
    pub interface: String,
    pub if_match: Option<String>,
    pub body: Value,
}

#[derive(Debug)]
pub(super) struct Drawer {
    /// What can be written of an interface, by the machine's number; as last written.
    pub settings: BTreeMap<u64, Value>,
    /// `provisioningState` of the things of this name, where it is not `Succeeded`.
    pub states: BTreeMap<String, String>,
    pub writes: Vec<Written>,
    pub assertions: Vec<String>,
    pub identities: Vec<Option<String>>,
    pub token_seconds: i64,
    pub links_at: Option<String>,
    pub names_operations: bool,
}

/// The façade's own state. Cheap to clone; all clones are the same desk.
#[derive(Clone, Debug)]
pub struct Desk(Arc<Mutex<Drawer>>);

impl Default for Desk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Drawer {
            settings: BTreeMap::new(),
            states: BTreeMap::new(),
            writes: Vec::new(),
            assertions: Vec::new(),
            identities: Vec::new(),
            token_seconds: 3599,
            links_at: None,
            names_operations: true,
        })))
    }
}

impl Desk {
    pub(super) fn open(&self) -> MutexGuard<'_, Drawer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every write of an interface that has come in, refused ones too.
    pub fn writes(&self) -> Vec<Written> {
        self.open().writes.clone()
    }

    /// The federated tokens that were exchanged, in that order.
    pub fn assertions(&self) -> Vec<String> {
        self.open().assertions.clone()
    }

    /// The client ids with which the metadata service was asked for a token.
    pub fn identities(&self) -> Vec<Option<String>> {
        self.open().identities.clone()
    }

    /// For how long tokens are given from now on.
    pub fn give_tokens_for(&self, seconds: i64) {
        self.open().token_seconds = seconds;
    }

    /// Names this host in the links to operations and further pages from now on.
    pub fn lead_links_to(&self, host: &str) {
        self.open().links_at = Some(host.to_owned());
    }

    /// Answers writes without a link to an operation from now on.
    pub fn name_no_operations(&self) {
        self.open().names_operations = false;
    }

    /// Shows this `provisioningState` on the address or interface of that name, or again `Succeeded`.
    pub fn show_state(&self, name: &str, state: Option<&str>) {
        let mut drawer = self.open();
        match state {
            Some(state) => drawer.states.insert(name.to_owned(), state.to_owned()),
            None => drawer.states.remove(name),
        };
    }

    pub(super) fn state(&self, name: &str) -> String {
        self.open().states.get(name).cloned().unwrap_or_else(|| "Succeeded".to_owned())
    }
}
