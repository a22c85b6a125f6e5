use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;

/// Status, content type and body of a GET on a connection of its own.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status, kind.unwrap_or_default().to_owned(), body.to_owned())
}

async fn health_server(health: &Health) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = bind(Some(Ipv4Addr::LOCALHOST.into()), 0, "HEALTH_PORT").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve_health(listener, health.clone(), stop.clone()));
    (address, stop, task)
}

fn answer(status: u16, body: &str) -> (u16, String, String) {
    (status, TEXT.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_probes_say_what_they_were_told() {
    let health = Health::new();
    let (address, _stop, _task) = health_server(&health).await;
    assert_eq!(get(address, "/readyz").await, answer(503, "not-ready: starting"));
    health.ready();
    assert_eq!(get(address, "/readyz").await, answer(200, "ready"));
    health.not_ready("CRD is missing");
    assert_eq!(get(address, "/readyz").await, answer(503, "not-ready: CRD is missing"));
    for path in ["/healthz", "/livez", "/livez?verbose"] {
        assert_eq!(get(address, path).await, answer(200, "ok"));
    }
    for path in ["/", "/metrics", "/healthz/", "/readyz/x"] {
        assert_eq!(get(address, path).await, answer(404, "not found"), "{path}");
    }
}

#[tokio::test]
async fn metrics_are_rendered_anew_for_each_scrape() {
    let listener = bind(Some(Ipv4Addr::LOCALHOST.into()), 0, "METRICS_PORT").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scrapes = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let render = move || format!("scrapes {}\n", scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    tokio::spawn(serve_metrics(listener, render, CancellationToken::new()));
    for n in 0..2 {
        let (status, kind, body) = get(address, "/metrics").await;
        assert_eq!((status, kind.as_str(), body), (200, METRICS_TEXT, format!("scrapes {n}\n")));
    }
    assert_eq!(get(address, "/healthz").await.0, 404);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_and_frees_its_port() {
    let (address, stop, task) = health_server(&Health::new()).await;
    get(address, "/healthz").await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), task).await;
    ended.expect("the server ends").unwrap();
    let again = bind(Some(address.ip()), address.port(), "HEALTH_PORT").await;
    assert!(again.is_ok());
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_the_variable() {
    for address in [Some(Ipv4Addr::LOCALHOST.into()), None] {
        let taken = bind(address, 0, "METRICS_PORT").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind(address, port, "METRICS_PORT").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("METRICS_PORT={port}: ")), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[tokio::test]
async fn no_bind_address_means_ipv4_too() {
    let listener = bind(None, 0, "HEALTH_PORT").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_health(listener, Health::new(), CancellationToken::new()));
    assert_eq!(get((Ipv4Addr::LOCALHOST, port).into(), "/livez").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_beat_the_process_is_unhealthy_and_with_one_it_is_well_again() {
    let health = Health::new();
    tokio::time::advance(HEARTBEAT_LIMIT - Duration::from_millis(1)).await;
    assert!(health.is_healthy());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(health.stale_for(), Some(HEARTBEAT_LIMIT));
    health.heartbeat();
    assert!(health.is_healthy());
}

#[tokio::test(start_paused = true)]
async fn the_beating_task_keeps_the_process_healthy() {
    let health = Health::new();
    let beating = tokio::spawn(health.clone().beat());
    tokio::time::sleep(10 * HEARTBEAT_LIMIT).await;
    assert!(health.is_healthy());
    beating.abort();
}

#[test]
fn what_stops_is_not_ready_whatever_others_say() {
    let health = Health::new();
    health.stopping();
    health.ready();
    health.not_ready("caches");
    assert_eq!(health.why_not_ready().as_deref(), Some("stopping"));
    assert!(!health.is_ready());
}
