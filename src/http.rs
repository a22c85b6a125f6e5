//! Two small servers: health for the kubelet, metrics for Prometheus.
//!
//! Knows neither what makes the process ready nor what is measured: the one is put into [`Health`], the other is a
//! closure that renders text.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz`, `/livez` | 200 `ok` while the event loop beats, else 503 with the age of the last beat |
//! | `/readyz` | 200 `ready`, or 503 `not-ready: REASON` |
//! | `/metrics` (its own port) | 200, Prometheus text |
//! | any other | 404 |

mod health;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::{
    Filter,
    http::{Response, StatusCode, header::CONTENT_TYPE},
    path::FullPath,
};

pub use self::health::{HEARTBEAT_LIMIT, HEARTBEAT_PERIOD, Health};

const TEXT: &str = "text/plain; charset=utf-8";
/// The classic text format, the one that the exporter writes.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A port could not be had. One line that names the variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={port}: cannot listen on {address}: {source}")]
pub struct BindError {
    variable: &'static str,
    port: u16,
    address: String,
    source: io::Error,
}

/// Listens on `address`, or on every address of the host, IPv4 and IPv6 alike where the host has both. `variable` is the
/// setting that the port came from.
///
/// # Errors
/// [`BindError`], for the person who chose the port.
pub async fn bind(address: Option<IpAddr>, port: u16, variable: &'static str) -> Result<TcpListener, BindError> {
    let bound = match address {
        Some(ip) => TcpListener::bind(SocketAddr::from((ip, port))).await,
        None => match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
            // A host without IPv6 has no such address.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
            }
            bound => bound,
        },
    };
    bound.map_err(|source| BindError {
        variable,
        port,
        address: address.map_or_else(|| "all addresses".to_owned(), |ip| ip.to_string()),
        source,
    })
}

/// Answers probes until `stop`; then finishes the answers under way and returns.
pub async fn serve_health(listener: TcpListener, health: Health, stop: CancellationToken) {
    serve(listener, stop, move |path| match path {
        "/healthz" | "/livez" => Some(match health.stale_for() {
            None => (StatusCode::OK, TEXT, "ok".to_owned()),
            Some(age) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("no heartbeat for {} s", age.as_secs())),
        }),
        "/readyz" => Some(match health.why_not_ready() {
            None => (StatusCode::OK, TEXT, "ready".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not-ready: {reason}")),
        }),
        _ => None,
    })
    .await;
}

/// Answers scrapes with what `render` returns until `stop`; then finishes the answers under way and returns.
pub async fn serve_metrics(
    listener: TcpListener,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) {
    serve(listener, stop, move |path| (path == "/metrics").then(|| (StatusCode::OK, METRICS_TEXT, render()))).await;
}

type Answer = (StatusCode, &'static str, String);

async fn serve(
    listener: TcpListener,
    stop: CancellationToken,
    route: impl Fn(&str) -> Option<Answer> + Clone + Send + Sync + 'static,
) {
    let answer = warp::path::full().and_then(move |path: FullPath| {
        let (status, kind, body) =
            route(path.as_str()).unwrap_or_else(|| (StatusCode::NOT_FOUND, TEXT, "not found".to_owned()));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, warp::http::HeaderValue::from_static(kind));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    warp::serve(answer).incoming(listener).graceful(stop.cancelled_owned()).run().await;
}
