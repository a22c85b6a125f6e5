use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::allocation::api_server::{self, refused};

/// What was asked of an API server that answers every eviction with this status.
async fn asked(code: u16, status: Value, led_until: Instant) -> (Asked, Vec<(String, Value)>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let heard = requests.clone();
    let client = api_server::client(move |parts, body| {
        assert_eq!(parts.method, Method::POST);
        heard.lock().unwrap().push((parts.uri.path().to_owned(), body));
        (code, status.clone())
    });
    let user = User { uid: "uid-1".into(), ..User::plain("kamailio-1") };
    let mut asked = Actor::leading(client, led_until).ask_all(&[user]).await;
    let (_, outcome) = asked.pop().unwrap();
    let requests = requests.lock().unwrap().clone();
    (outcome, requests)
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
        assert_eq!(asked(code, refused(code, reason), led()).await.0, Asked::Accepted, "{code}");
    }
}

#[tokio::test]
async fn p7_a_budget_that_says_wait_is_told_in_its_own_words() {
    let mut wait = refused(429, "TooManyRequests");
    let says = "The disruption budget kamailio needs 2 healthy pods and has 2 currently";
    wait["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": says}]});
    assert_eq!(asked(429, wait, led()).await.0, Asked::Blocked(says.to_owned()));
    let (failed, _) = asked(500, refused(500, "InternalError"), led()).await;
    assert_eq!(failed, Asked::Failed("InternalError".to_owned()));
}

#[tokio::test]
async fn f1_nobody_is_asked_to_go_once_leadership_is_not_proven() {
    let (asked, requests) = asked(201, json!({}), Instant::now()).await;
    assert!(matches!(asked, Asked::Failed(_)), "{asked:?}");
    assert!(requests.is_empty(), "{requests:?}");
}
