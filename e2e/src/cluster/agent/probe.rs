//! Startup, liveness and readiness, by HTTP or by a TCP connection.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::board::Slot;

/// Watches over one run of a container: says on the board when it has started and whether it is ready, and returns
/// with the reason when it must be restarted.
pub(super) async fn watch_over(http: &reqwest::Client, container: &Container, address: &str, slot: &Slot) -> String {
    let prober = |probe| Prober { http, container, address, probe };
    if let Some(probe) = &container.startup_probe {
        let mut startup = Counting::new(prober(probe), false).await;
        loop {
            match startup.next().await {
                Some(Verdict::Good) => break,
                Some(Verdict::Bad(why)) => return format!("startup probe failed: {why}"),
                None => {}
            }
        }
    }
    slot.update(|view| view.started = true);
    tokio::select! {
        why = alive(container.liveness_probe.as_ref().map(prober)) => format!("liveness probe failed: {why}"),
        () = keep_readiness(http, container, address, slot) => String::new(),
    }
}

/// Keeps the board's word on readiness true; never returns. Goes on while a container is being stopped.
pub(super) async fn keep_readiness(http: &reqwest::Client, container: &Container, address: &str, slot: &Slot) {
    let Some(probe) = &container.readiness_probe else {
        slot.update(|view| view.ready = true);
        return std::future::pending().await;
    };
    let mut readiness = Counting::new(Prober { http, container, address, probe }, true).await;
    loop {
        match readiness.next().await {
            Some(Verdict::Good) => slot.update(|view| view.ready = true),
            Some(Verdict::Bad(_)) => slot.update(|view| view.ready = false),
            None => {}
        }
    }
}

async fn alive(prober: Option<Prober<'_>>) -> String {
    let Some(prober) = prober else {
        return std::future::pending().await;
    };
    let mut liveness = Counting::new(prober, false).await;
    loop {
        if let Some(Verdict::Bad(why)) = liveness.next().await {
            return why;
        }
    }
}

enum Verdict {
    Good,
    Bad(String),
}

/// A probe with its memory: one answer is no verdict, so many in a row are.
struct Counting<'a> {
    prober: Prober<'a>,
    ticks: tokio::time::Interval,
    successes: i32,
    failures: i32,
    success_threshold: i32,
    failure_threshold: i32,
}

impl<'a> Counting<'a> {
    async fn new(prober: Prober<'a>, many_successes: bool) -> Self {
        let probe = prober.probe;
        sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut ticks = interval(seconds(probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let success_threshold = if many_successes { probe.success_threshold.unwrap_or(1).max(1) } else { 1 };
        let failure_threshold = probe.failure_threshold.unwrap_or(3).max(1);
        Self { prober, ticks, successes: 0, failures: 0, success_threshold, failure_threshold }
    }

    /// Probes once, when the period is over; a verdict only at a threshold.
    async fn next(&mut self) -> Option<Verdict> {
        self.ticks.tick().await;
        match self.prober.ask().await {
            Ok(()) => {
                self.failures = 0;
                self.successes += 1;
                (self.successes >= self.success_threshold).then_some(Verdict::Good)
            }
            Err(why) => {
                self.successes = 0;
                self.failures += 1;
                (self.failures >= self.failure_threshold).then_some(Verdict::Bad(why))
            }
        }
    }
}

struct Prober<'a> {
    http: &'a reqwest::Client,
    container: &'a Container,
    address: &'a str,
    probe: &'a Probe,
}

impl Prober<'_> {
    async fn ask(&self) -> Result<(), String> {
        let patience = seconds(self.probe.timeout_seconds, 1);
        let answer = timeout(patience, async {
            match (&self.probe.http_get, &self.probe.tcp_socket) {
                (Some(get), _) => self.get(get).await,
                (None, Some(socket)) => self.connect(socket).await,
                (None, None) => Err("this agent knows httpGet and tcpSocket only".to_owned()),
            }
        });
        answer.await.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
    }

    async fn get(&self, get: &HTTPGetAction) -> Result<(), String> {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("this agent probes plain HTTP only".to_owned());
        }
        let host = get.host.as_deref().unwrap_or(self.address);
        let url = format!(
            "http://{host}:{}/{}",
            self.port(&get.port)?,
            get.path.as_deref().unwrap_or("/").trim_start_matches('/')
        );
        let mut request = self.http.get(&url).header("connection", "close");
        for header in get.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let answer = request.send().await.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        let status = answer.status().as_u16();
        if (200..400).contains(&status) { Ok(()) } else { Err(format!("{url} answered {status}")) }
    }

    async fn connect(&self, socket: &TCPSocketAction) -> Result<(), String> {
        let host = socket.host.as_deref().unwrap_or(self.address);
        let port = self.port(&socket.port)?;
        TcpStream::connect((host, port)).await.map(drop).map_err(|error| format!("{host}:{port}: {error}"))
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
            }
        };
        number
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| format!("the container has no port {port:?}"))
    }
}

fn seconds(value: Option<i32>, default: u32) -> Duration {
    let seconds = value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default);
    Duration::from_secs(seconds.into())
}
