//! `kubectl nia release`: the operator's command of the same name, with the user's rights, and not while an operator leads. That
//! one would put back what is taken off, and pods that ask for a node with an address would be killed in between.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use super::{
    access::{self, Session},
    refusal::{Exit, NETIPALLOCATIONS, NODES, Refusal},
    terminal::{note, say},
};
use crate::{
    release::{self, ReleaseError, What},
    settings::{LEASE_NAME, Released},
};

/// Takes finalizer, labels and taints off.
///
/// Every right is asked for first: half a release would be worse than none.
///
/// # Errors
/// There is none of that name, a right is missing, an operator leads; or at what it was stopped halfway.
pub async fn let_go(session: &Session, which: &Released) -> Result<(), Refusal> {
    let listed = access::allocations(session).await?;
    let mut names = listed.good.iter().map(ResourceExt::name_any).chain(listed.unread.iter().map(|it| it.name.clone()));
    if let Released::One(name) = which
        && !names.any(|known| known == *name)
    {
        let sentence = format!("there is no NetIPAllocation {name}; `kubectl get nia` lists those that are");
        return Err(Refusal::new(Exit::Unknown, sentence));
    }
    for (verb, kind) in
        [("list", NODES), ("get", NODES), ("patch", NODES), ("get", NETIPALLOCATIONS), ("patch", NETIPALLOCATIONS)]
    {
        access::may(session, verb, &kind, None).await?;
    }
    nobody_leads(session).await?;
    // Whoever does not read on must not stop it halfway.
    let mut heard = Ok(());
    let mut tell = |line: String| {
        if heard.is_ok() {
            heard = say([line]);
        }
    };
    release::with(&session.client, which, &mut tell).await.map_err(failed)?;
    heard
}

/// Whoever may not look at Leases is told so, and is not kept: this is the way out when nothing else is left.
async fn nobody_leads(session: &Session) -> Result<(), Refusal> {
    match access::leases(session, LEASE_NAME).await {
        Ok(leases) => leader(&leases, Timestamp::now()).map_or(Ok(()), Err),
        Err(refusal) if refusal.exit == Exit::Forbidden => {
            note(format!("Whether an operator still runs is not known: {refusal}."));
            Ok(())
        }
        Err(refusal) => Err(refusal),
    }
}

/// Who leads by one of these Leases. The time in it is another machine's clock: one that is ahead counts as now.
fn leader(leases: &[Lease], now: Timestamp) -> Option<Refusal> {
    leases.iter().find_map(|lease| {
        let spec = lease.spec.as_ref()?;
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        let since = now.duration_since(spec.renew_time.as_ref()?.0);
        if since > SignedDuration::from_secs(spec.lease_duration_seconds?.into()) {
            return None;
        }
        let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
        let sentence = format!(
            "an operator runs, and would put back what is taken off ({holder} holds Lease {name} in namespace {namespace}): stop \
             it first with kubectl -n {namespace} scale deployment NAME --replicas=0, or helm uninstall, and wait until its \
             pods are gone"
        );
        Some(Refusal::new(Exit::Refused, sentence))
    })
}

fn failed(error: ReleaseError) -> Refusal {
    let ReleaseError { verb, what, source } = error;
    let (kind, name) = match &what {
        What::Allocation(name) => (NETIPALLOCATIONS, name),
        What::Node(name) => (NODES, name),
    };
    let Refusal { exit, sentence } = Refusal::of(verb, &kind, &source);
    let whose = if name.is_some() { format!("{what}: ") } else { String::new() };
    Refusal::new(exit, format!("{whose}{sentence}; what was released before stays so, and releasing again goes on"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        allocation::api_server::{self, refused},
        kubectl_nia::samples::object,
    };

    fn lease(holder: Option<&str>, renewed: Timestamp) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": "telephony"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 60, "renewTime": format!("{renewed:.6}")},
        })
    }

    /// How a release ends where the Leases are answered like this, and what was patched by then.
    async fn released(code: u16, leases: Value) -> (Result<(), Refusal>, Vec<String>) {
        let patched = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&patched);
        let client = api_server::client(move |parts, _| {
            let path = parts.uri.path();
            let list = |items: Value| json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
            if parts.method == "PATCH" {
                seen.lock().unwrap().push(path.to_owned());
            }
            match path {
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
                    let (kind, version) = ("SelfSubjectAccessReview", "authorization.k8s.io/v1");
                    let allowed = json!({"allowed": true});
                    (201, json!({"kind": kind, "apiVersion": version, "metadata": {}, "spec": {}, "status": allowed}))
                }
                "/apis/coordination.k8s.io/v1/leases" => {
                    let query = parts.uri.query().unwrap_or_default();
                    assert!(query.contains("fieldSelector=metadata.name%3Dip-address-controller-leader"), "{query}");
                    (code, leases.clone())
                }
                "/apis/netinfra.darkbrains.com/v1alpha1/netipallocations" => (200, list(json!([object("voip", &[])]))),
                "/apis/netinfra.darkbrains.com/v1alpha1/netipallocations/voip" => (200, json!(object("voip", &[]))),
                "/api/v1/nodes" => (200, list(json!([]))),
                _ => (404, refused(404, path)),
            }
        });
        let ended = let_go(&Session::with(client), &Released::All).await;
        let patched = patched.lock().unwrap().clone();
        (ended, patched)
    }

    #[tokio::test]
    async fn nothing_is_released_while_an_operator_leads() {
        let live = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {}, "items": [lease(Some("pod-1"), Timestamp::now())]});
        let (ended, patched) = released(200, live).await;
        let refusal = ended.unwrap_err();
        assert_eq!(refusal.exit, Exit::Refused);
        for part in ["pod-1 holds Lease ip-address-controller-leader in namespace telephony", "--replicas=0"] {
            assert!(refusal.sentence.contains(part), "{part:?} is not in {refusal}");
        }
        assert!(patched.is_empty(), "{patched:?}");
    }

    #[tokio::test]
    async fn a_lease_that_was_given_back_or_may_not_be_seen_keeps_nobody() {
        let back = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {}, "items": [lease(None, Timestamp::now())]});
        let denied = r#"leases is forbidden: User "ann" cannot list resource "leases" at the cluster scope"#;
        for (code, leases) in [(200, back), (403, refused(403, denied))] {
            let (ended, patched) = released(code, leases).await;
            assert_eq!(ended, Ok(()));
            assert_eq!(patched, ["/apis/netinfra.darkbrains.com/v1alpha1/netipallocations/voip"], "{code}");
        }
        let (ended, patched) = released(500, refused(500, "etcd")).await;
        assert!(ended.is_err() && patched.is_empty(), "what cannot be told for now is no leave: {patched:?}");
    }

    #[test]
    fn a_lease_that_has_run_out_is_nobodys() {
        let renewed: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let leases = |holder| [serde_json::from_value(lease(holder, renewed)).unwrap()];
        let after = |seconds| renewed + SignedDuration::from_secs(seconds);
        let leads = |holder, seconds| leader(&leases(holder), after(seconds)).is_some();
        assert!(leads(Some("pod-1"), 60) && leads(Some("pod-1"), -5), "a clock that is behind");
        assert!(!leads(Some("pod-1"), 61) && !leads(Some(""), 0) && !leads(None, 0));
        assert!(leader(&[], renewed).is_none());
    }

    #[test]
    fn a_release_that_fails_says_at_what_and_which_right_is_missing() {
        let said =
            r#"nodes "a" is forbidden: User "ann" cannot patch resource "nodes" in API group "" at the cluster scope"#;
        let denied = kube::core::Status { code: 403, message: said.to_owned(), ..kube::core::Status::default() };
        let source = Box::new(kube::Error::Api(Box::new(denied)));
        let refusal = failed(ReleaseError { verb: "patch", what: What::Node(Some("a".to_owned())), source });
        assert_eq!(refusal.exit, Exit::Forbidden);
        assert!(refusal.sentence.starts_with("node a: you may not patch nodes;"), "{refusal}");
    }
}
