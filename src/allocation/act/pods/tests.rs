use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;
use crate::{
    allocation::observe::{nodes::Nodes, pods::Pods},
    leader::Proof,
};

/// What was asked of an API server that answers every eviction with this status.
async fn asked(code: u16, status: Value, led_until: Instant) -> (Asked, Vec<(String, Value)>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let heard = requests.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (heard, status) = (heard.clone(), status.to_string());
        async move {
            let (parts, body) = request.into_parts();
            assert_eq!(parts.method, Method::POST);
            let body = body.collect().await.unwrap().to_bytes();
            heard.lock().unwrap().push((parts.uri.path().to_owned(), serde_json::from_slice(&body).unwrap()));
            let mut answer = Response::new(Body::from(status.into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    let client = Client::new(service, "default");
    let (nodes, _) = crate::allocation::watch::store();
    let actor = Actor {
        pods: Pods::new(client.clone(), Arc::new(|| {})),
        client,
        proof: Proof::fixed(led_until),
        timeout: Duration::from_secs(5),
        nodes: Nodes::new(nodes),
    };
    let user = User {
        namespace: "voip".into(),
        name: "kamailio-1".into(),
        uid: "uid-1".into(),
        owner: "Deployment voip/kamailio".into(),
        controller: None,
        daemon: false,
        ready: true,
        terminating_until: None,
        hold: false,
        returns: false,
        eviction_blocked: None,
        ask_again: None,
    };
    let mut asked = actor.ask_all(&[user]).await;
    let (_, outcome) = asked.pop().unwrap();
    let requests = requests.lock().unwrap().clone();
    (outcome, requests)
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}

fn led() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn f8_an_eviction_names_the_very_pod_so_that_its_successor_stays() {
    let (asked, requests) = asked(201, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}), led()).await;
    assert_eq!(asked, Asked::Accepted);
    let [(path, body)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(path, "/api/v1/namespaces/voip/pods/kamailio-1/eviction");
    assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "uid-1", "{body}");
}

#[tokio::test]
async fn a_pod_that_is_gone_or_replaced_has_gone() {
    for (code, reason) in [(404, "NotFound"), (409, "Conflict")] {
        assert_eq!(asked(code, status(code, reason), led()).await.0, Asked::Accepted, "{code}");
    }
}

#[tokio::test]
async fn p7_a_budget_that_says_wait_is_told_in_its_own_words() {
    let mut refused = status(429, "TooManyRequests");
    let says = "The disruption budget kamailio needs 2 healthy pods and has 2 currently";
    refused["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": says}]});
    assert_eq!(asked(429, refused, led()).await.0, Asked::Blocked(says.to_owned()));
    let (failed, _) = asked(500, status(500, "InternalError"), led()).await;
    assert_eq!(failed, Asked::Failed("InternalError".to_owned()));
}

#[tokio::test]
async fn f1_nobody_is_asked_to_go_once_leadership_is_not_proven() {
    let (asked, requests) = asked(201, json!({}), Instant::now()).await;
    assert!(matches!(asked, Asked::Failed(_)), "{asked:?}");
    assert!(requests.is_empty(), "{requests:?}");
}
