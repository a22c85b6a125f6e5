//! From a socket to a façade and back: connections, routing, and the two ways not to answer.

use std::{collections::BTreeMap, convert::Infallible, io};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderMap, Method, Response, StatusCode, header},
    hyper::body::Bytes,
};

use super::{Recorder, arm, ec2, gce, metadata};
use crate::world::World;

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Request {
    pub method: Method,
    /// Percent-encoding undone, per segment.
    pub path: Vec<String>,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// The bearer token, if there is one.
    pub fn bearer(&self) -> Option<String> {
        self.headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
    }
}

/// What goes back.
#[derive(Debug)]
pub(super) enum Reply {
    Json(u16, Value),
    /// The same with headers of its own, and an id that Azure gives every request.
    With(u16, Vec<(&'static str, String)>, Value),
    Xml(u16, ec2::Document),
    /// Plain text of the metadata server.
    Text(u16, String),
    /// Nothing, and the connection stays open.
    Silence,
    /// Nothing, and the connection is closed.
    Closed,
}

/// Marks a response that must not be sent: the connection is closed instead.
#[derive(Clone, Copy, Debug)]
struct CloseInstead;

pub(super) fn routes(world: World, desk: arm::Desk, recorder: Recorder) -> BoxedFilter<(Response<String>,)> {
    warp::method()
        .and(warp::path::full())
        .and(warp::query::<BTreeMap<String, String>>())
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .then(move |method, path: warp::path::FullPath, query, headers, body| {
            let (world, desk, recorder) = (world.clone(), desk.clone(), recorder.clone());
            let path = path.as_str().split('/').skip(1).map(decode).collect();
            let request = Request { method, path, query, headers, body };
            async move { respond(answer(request, world, desk, recorder).await).await }
        })
        .boxed()
}

async fn answer(request: Request, world: World, desk: arm::Desk, recorder: Recorder) -> Reply {
    match request.path.first().map(String::as_str) {
        Some("computeMetadata") => metadata::answer(&request, &world),
        Some("") if request.method == Method::POST => ec2::answer(request, world, recorder).await,
        Some("pod-identity") => ec2::pod_identity(&request, &world),
        Some("compute") => gce::answer(request, world, recorder).await,
        // Azure reads paths in any case.
        Some(first) if first.eq_ignore_ascii_case("subscriptions") => arm::answer(request, world, desk, recorder).await,
        Some("metadata") => arm::answer_metadata(&request, &world, &desk),
        Some(_) if arm::is_authority(&request.path) => arm::answer_authority(&request, &world, &desk),
        _ => Reply::Text(404, "no such API here\n".to_owned()),
    }
}

async fn respond(reply: Reply) -> Response<String> {
    let mut extra = Vec::new();
    let (status, kind, body) = match reply {
        Reply::Json(status, body) => (status, "application/json; charset=UTF-8", body.to_string()),
        Reply::With(status, headers, body) => {
            extra = headers;
            extra.push(("x-ms-request-id", Uuid::new_v4().to_string()));
            (status, "application/json; charset=utf-8", body.to_string())
        }
        Reply::Xml(status, ec2::Document { id, text }) => {
            extra.push(("x-amzn-requestid", id.to_string()));
            (status, "text/xml;charset=UTF-8", text)
        }
        Reply::Text(status, body) => (status, "application/text", body),
        Reply::Silence => std::future::pending().await,
        Reply::Closed => {
            let mut response = Response::new(String::new());
            response.extensions_mut().insert(CloseInstead);
            return response;
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    for (name, value) in extra {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    // Real metadata servers prove with this header what they are; other services do not mind.
    response.headers_mut().insert("metadata-flavor", header::HeaderValue::from_static("Google"));
    response
}

/// Accepts connections until it is told to stop; each is closed then, whatever it waits for.
pub(super) async fn serve(
    listener: TcpListener,
    routes: BoxedFilter<(Response<String>,)>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors or the like: connections that end make room again.
            tokio::task::yield_now().await;
            continue;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                use hyper::service::Service as _;
                let answer = TowerToHyperService::new(warp::service(routes.clone())).call(request);
                async move {
                    let response = answer.await.unwrap_or_else(|never: Infallible| match never {});
                    match response.extensions().get::<CloseInstead>() {
                        Some(CloseInstead) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
                        None => Ok(response),
                    }
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is the client's affair.
            let _ = stop.run_until_cancelled(connection).await;
        });
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
pub(super) fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let pair = (ahead.next(), ahead.next());
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
                bytes.push(digit(high) << 4 | digit(low));
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
