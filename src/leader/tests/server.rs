//! An API server that knows one Lease: versions, conflicts, watches, and a link to each client that can be cut.
//!
//! Knows no rule of the election, so that it cannot repeat a mistake made there.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::pending};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// A watch ends after so long, as it does where kube asks a real server for one.
pub(super) const WATCHED: Duration = Duration::from_secs(290);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What a client's link does with its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Open,
    /// Fails at once.
    Refused,
    /// Nothing comes back; what was sent arrives when the link is open again.
    BlackHole,
    /// Requests arrive, answers do not.
    Deaf,
    /// Reads and writes pass, watches are refused.
    NoWatch,
}

#[derive(Clone)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Value>,
}

#[derive(Default)]
struct State {
    version: u64,
    lease: Option<Value>,
    /// The holder that each refused write wanted to put in.
    refused: Vec<Option<String>>,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), changes: broadcast::Sender::new(4096) }
    }

    /// A client of this server, and the handle of its link.
    pub(super) fn client(&self) -> (Client, watch::Sender<Link>) {
        let link = watch::Sender::new(Link::Open);
        let (server, state) = (self.clone(), link.subscribe());
        let service = tower::service_fn(move |request| server.clone().receive(request, state.clone()));
        (Client::new(service, "ns"), link)
    }

    /// The Lease as it stands.
    pub(super) fn lease(&self) -> Option<Value> {
        self.state.lock().unwrap().lease.clone()
    }

    pub(super) fn holder(&self) -> Option<String> {
        self.lease()?.pointer("/spec/holderIdentity")?.as_str().map(str::to_owned)
    }

    pub(super) fn version(&self) -> u64 {
        self.state.lock().unwrap().version
    }

    pub(super) fn refused(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().refused.clone()
    }

    /// Somebody with no regard for versions edits the Lease.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock().unwrap();
        let mut lease = state.lease.clone().expect("a Lease");
        edit(&mut lease);
        self.store(&mut state, lease);
    }

    /// Somebody deletes the Lease.
    pub(super) fn delete(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let gone = state.lease.take().expect("a Lease");
        self.changes.send(json!({"type": "DELETED", "object": gone})).ok();
    }

    async fn receive(self, request: Request<Body>, mut link: watch::Receiver<Link>) -> Result<Answer, std::io::Error> {
        let now = *link.borrow();
        match now {
            Link::Open | Link::NoWatch if !is_watch(&request) => Ok(self.answer(request).await),
            Link::Open => Ok(self.watch(link)),
            Link::Refused | Link::NoWatch => Err(std::io::ErrorKind::ConnectionRefused.into()),
            Link::BlackHole => {
                // The caller may give up; what it sent is on its way all the same.
                tokio::spawn(async move {
                    if link.wait_for(|link| *link == Link::Open).await.is_ok() && !is_watch(&request) {
                        self.answer(request).await;
                    }
                });
                pending().await
            }
            Link::Deaf => {
                if !is_watch(&request) {
                    self.answer(request).await;
                }
                pending().await
            }
        }
    }

    fn watch(&self, link: watch::Receiver<Link>) -> Answer {
        let events = futures::stream::unfold((self.changes.subscribe(), link), |(mut changes, mut link)| async move {
            let event = changes.recv().await.ok()?;
            // A cut stream is silent, it does not end.
            link.wait_for(|link| *link == Link::Open).await.ok()?;
            let line = Bytes::from(format!("{event}\n"));
            Some((Ok(warp::hyper::body::Frame::data(line)), (changes, link)))
        });
        let events = events.take_until(tokio::time::sleep(WATCHED));
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let method = request.method().clone();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let mut state = self.state.lock().unwrap();
        let current = state.lease.clone();
        if method == Method::GET {
            return match current {
                Some(lease) => reply(StatusCode::OK, &lease),
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let wanted: Value = serde_json::from_slice(&body).expect("a Lease");
        let version = |lease: &Value| lease.pointer("/metadata/resourceVersion").cloned();
        let fault = match (method, &current) {
            (Method::POST, None) => None,
            (Method::POST, Some(_)) => Some((StatusCode::CONFLICT, "AlreadyExists")),
            (Method::PUT, None) => Some((StatusCode::NOT_FOUND, "NotFound")),
            (Method::PUT, Some(now)) if version(now) == version(&wanted) => None,
            (Method::PUT, Some(_)) => Some((StatusCode::CONFLICT, "Conflict")),
            (other, _) => panic!("{other} is not a verb that the chart grants"),
        };
        if let Some((code, reason)) = fault {
            let holder = wanted.pointer("/spec/holderIdentity").and_then(Value::as_str);
            state.refused.push(holder.map(str::to_owned));
            return status(code, reason);
        }
        reply(StatusCode::OK, &self.store(&mut state, wanted))
    }

    fn store(&self, state: &mut State, mut lease: Value) -> Value {
        state.version += 1;
        lease["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.lease = Some(lease.clone());
        self.changes.send(json!({"type": "MODIFIED", "object": lease.clone()})).ok();
        lease
    }
}

/// Only a watch of the one Lease by name is allowed, as the Role's resourceNames demand.
fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let watch = query.contains("watch=true");
    if watch {
        assert!(query.contains("fieldSelector=metadata.name%3Dlease"), "{query}");
        assert!(query.contains("resourceVersion="), "{query}");
    } else if request.method() == Method::GET {
        assert!(request.uri().path().ends_with("/leases/lease"), "a list: {}", request.uri());
    }
    watch
}

fn reply(code: StatusCode, body: &Value) -> Answer {
    let body = Full::from(body.to_string()).boxed_unsync();
    Response::builder().status(code).body(body).expect("a response")
}

fn status(code: StatusCode, reason: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    reply(code, &body)
}
