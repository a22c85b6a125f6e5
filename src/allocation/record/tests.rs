use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::json;

use super::*;
use crate::{
    allocation::api_server::{self, refused},
    cloud::Closed,
};

struct Open(Result<(), Closed>);

impl Gate for Open {
    fn open_for(&self, _: Duration) -> Result<(), Closed> {
        self.0.clone()
    }
}

/// How the API server treats a write.
#[derive(Clone, Copy, PartialEq)]
enum Treats {
    Well,
    /// Somebody has written meanwhile.
    AsOld,
    /// It is done, and the answer is lost on the way.
    ThenFallsSilent,
    /// The same, and somebody edits the spec before it is read again.
    ThenFallsSilentAndIsEdited,
    /// It is not done.
    AsUnheard,
}

/// Writes a status, and tells how that ended and how often the server was asked to.
async fn written(treats: Treats, gate: Result<(), Closed>) -> (Written, usize) {
    let stored = json!({
        "apiVersion": "netinfra.darkbrains.com/v1alpha1", "kind": "NetIPAllocation",
        "metadata": {"name": "sip", "uid": "uid-1", "resourceVersion": "1", "generation": 1},
        "spec": {"reservedIPs": ["203.0.113.7"]},
    });
    let decided_on: NetIPAllocation = serde_json::from_value(stored.clone()).unwrap();
    let state = Arc::new(Mutex::new((stored, 0)));
    let server = state.clone();
    let client = api_server::client(move |parts, mut sent| {
        let mut state = server.lock().unwrap();
        if parts.method == Method::GET {
            return (200, state.0.clone());
        }
        assert_eq!(parts.method, Method::PUT);
        state.1 += 1;
        sent["metadata"]["resourceVersion"] = json!("2");
        if matches!(treats, Treats::Well | Treats::ThenFallsSilent | Treats::ThenFallsSilentAndIsEdited) {
            state.0 = sent.clone();
        }
        if treats == Treats::ThenFallsSilentAndIsEdited {
            state.0["metadata"]["generation"] = json!(2);
        }
        match treats {
            Treats::Well => (200, sent),
            Treats::AsOld => (409, refused(409, "Conflict")),
            Treats::ThenFallsSilent | Treats::ThenFallsSilentAndIsEdited | Treats::AsUnheard => {
                (504, refused(504, "Timeout"))
            }
        }
    });
    let (api, ledger) = (Api::all(client.clone()), Ledger::new(client, None));
    let status = NetIPAllocationStatus { attached_count: 1, ..NetIPAllocationStatus::default() };
    let written = write(&api, &ledger, &Open(gate), Duration::from_secs(5), &decided_on, status).await;
    let writes = state.lock().unwrap().1;
    (written, writes)
}

fn version(written: &Written) -> Option<String> {
    match written {
        Written::Yes(stored) => stored.resource_version(),
        Written::No(_) => None,
    }
}

#[tokio::test]
async fn f4_a_write_that_is_answered_stands() {
    assert_eq!(version(&written(Treats::Well, Ok(())).await.0).as_deref(), Some("2"));
}

#[tokio::test]
async fn f4_a_write_onto_an_older_version_is_refused_and_decided_anew() {
    let (written, writes) = written(Treats::AsOld, Ok(())).await;
    assert!(matches!(written, Written::No(_)), "{written:?}");
    assert_eq!(writes, 1, "it is never sent again as it was");
}

#[tokio::test]
async fn f4_a_write_of_which_only_the_answer_was_lost_stands() {
    assert_eq!(version(&written(Treats::ThenFallsSilent, Ok(())).await.0).as_deref(), Some("2"));
}

#[tokio::test]
async fn f4_a_spec_that_was_edited_meanwhile_is_decided_on_anew() {
    assert!(matches!(written(Treats::ThenFallsSilentAndIsEdited, Ok(())).await.0, Written::No(_)));
}

#[tokio::test]
async fn f4_a_write_that_was_not_heard_does_not_stand() {
    assert!(matches!(written(Treats::AsUnheard, Ok(())).await.0, Written::No(_)));
}

#[tokio::test]
async fn f1_nothing_is_written_once_leadership_is_not_proven() {
    let (written, writes) = written(Treats::Well, Err(Closed("not leading"))).await;
    assert!(matches!(written, Written::No(_)), "{written:?}");
    assert_eq!(writes, 0);
}
