//! Taking off the annotation that asked for a move. That is done once for each request, so it is what its answer hangs on.

use std::time::Duration;

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    allocation::ledger::Ledger,
    api::{MOVE_ANNOTATION, NetIPAllocation},
};

/// Takes the annotation off the very version that was answered; whether it is off.
///
/// Refused or unanswered: the object is read live. Where the annotation is not there any more, the write did happen and only its
/// answer was lost, or the person took it away in the same moment; either way nobody asks again, so the answer is due now.
/// Where it still is, or that cannot be read, the next pass answers what it finds.
pub async fn take_off(
    api: &Api<NetIPAllocation>,
    ledger: &Ledger,
    limit: Duration,
    answered: &NetIPAllocation,
) -> bool {
    let name = answered.name_any();
    let patch = Patch::Merge(json!({"metadata": {
        "resourceVersion": answered.resource_version(),
        "annotations": {MOVE_ANNOTATION: null},
    }}));
    let why = match timeout(limit, api.patch(&name, &PatchParams::default(), &patch)).await {
        Ok(Ok(written)) => {
            ledger.put(written);
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::info!(crd = name, error = why, "taking the request to move off failed, reading it anew");
    match ledger.reread(&name).await {
        Ok(Some(live)) => is_off(&live, answered),
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(crd = name, %error, "whether the request to move is off cannot be read");
            // The version that was answered must not be acted on again.
            ledger.forget(&name);
            false
        }
    }
}

fn is_off(live: &NetIPAllocation, answered: &NetIPAllocation) -> bool {
    live.uid() == answered.uid() && !live.annotations().contains_key(MOVE_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::allocation::api_server::{self, refused};

    /// How the API server treats the write.
    #[derive(Clone, Copy, PartialEq)]
    enum Treats {
        Well,
        /// Somebody has written meanwhile.
        AsOld,
        /// It is done, and the answer is lost on the way.
        ThenFallsSilent,
        /// It is not done.
        AsUnheard,
        /// The same, and nothing can be read either.
        AsIfGone,
        /// It is done, and the object is deleted and made anew before it is read again.
        ThenFallsSilentAndIsReplaced,
    }

    /// Whether the request is taken for answered, and how often the server was asked to take it off.
    async fn taken_off(treats: Treats) -> (bool, usize) {
        let stored = json!({
            "apiVersion": "netinfra.darkbrains.com/v1alpha1", "kind": "NetIPAllocation",
            "metadata": {
                "name": "sip", "uid": "uid-1", "resourceVersion": "1", "annotations": {MOVE_ANNOTATION: "203.0.113.7"},
            },
            "spec": {"reservedIPs": ["203.0.113.7"]},
        });
        let answered: NetIPAllocation = serde_json::from_value(stored.clone()).unwrap();
        let state = Arc::new(Mutex::new((stored, 0)));
        let server = state.clone();
        let client = api_server::client(move |parts, sent| {
            let mut state = server.lock().unwrap();
            let (stored, writes) = &mut *state;
            if treats == Treats::AsIfGone {
                return (503, refused(503, "ServiceUnavailable"));
            }
            if parts.method == Method::GET {
                return (200, stored.clone());
            }
            assert_eq!(sent["metadata"]["resourceVersion"], "1", "what was answered, and nothing newer");
            *writes += 1;
            if !matches!(treats, Treats::AsOld | Treats::AsUnheard) {
                stored["metadata"]["annotations"] = Value::Null;
                stored["metadata"]["resourceVersion"] = json!("2");
            }
            if treats == Treats::ThenFallsSilentAndIsReplaced {
                stored["metadata"]["uid"] = json!("uid-2");
            }
            match treats {
                Treats::Well => (200, stored.clone()),
                Treats::AsOld => (409, refused(409, "Conflict")),
                _ => (504, refused(504, "Timeout")),
            }
        });
        let (api, ledger) = (Api::all(client.clone()), Ledger::new(client, None));
        let off = take_off(&api, &ledger, Duration::from_secs(5), &answered).await;
        let writes = state.lock().unwrap().1;
        (off, writes)
    }

    #[tokio::test]
    async fn f4_a_request_is_answered_when_its_annotation_is_off_also_if_only_the_servers_answer_was_lost() {
        for treats in [Treats::Well, Treats::ThenFallsSilent] {
            assert_eq!(taken_off(treats).await, (true, 1));
        }
    }

    #[tokio::test]
    async fn f4_a_request_whose_annotation_is_still_there_or_cannot_be_read_is_answered_by_the_next_pass() {
        for treats in [Treats::AsOld, Treats::AsUnheard] {
            assert_eq!(taken_off(treats).await, (false, 1), "and it is not sent again");
        }
        assert!(!taken_off(Treats::AsIfGone).await.0);
    }

    #[tokio::test]
    async fn what_was_asked_of_an_object_is_not_answered_to_another_one_of_its_name() {
        assert!(!taken_off(Treats::ThenFallsSilentAndIsReplaced).await.0);
    }
}
