//! A real Jaeger on loopback, which keeps in memory what it is sent.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use serde_json::Value;

use super::{
    control_plane::free_ports,
    process::{Launch, Process},
    tools,
    wait::{Seen, wait_for},
};

const STARTED: Duration = Duration::from_secs(60);

/// See the module. Dropping it ends it.
#[derive(Debug)]
pub struct Jaeger {
    grpc: u16,
    http: u16,
    query: u16,
    _process: Process,
}

impl Jaeger {
    /// Starts it, its log in `dir`. The first start on a machine builds it.
    ///
    /// # Errors
    /// When it cannot be built or does not come up.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let program = tools::bin_with_jaeger().await?.join("jaeger");
        let [grpc, http, query, others @ ..] = free_ports::<11>()?;
        let mut args = vec![
            format!("--collector.otlp.grpc.host-port=127.0.0.1:{grpc}"),
            format!("--collector.otlp.http.host-port=127.0.0.1:{http}"),
            format!("--query.http-server.host-port=127.0.0.1:{query}"),
            "--log-level=warn".to_owned(),
        ];
        // Nobody here asks for these, but without a port of its own each takes a fixed one.
        let unused = [
            "query.grpc-server.host-port",
            "admin.http.host-port",
            "collector.http-server.host-port",
            "collector.grpc-server.host-port",
            "http-server.host-port",
            "processor.zipkin-compact.server-host-port",
            "processor.jaeger-compact.server-host-port",
            "processor.jaeger-binary.server-host-port",
        ];
        args.extend(unused.iter().zip(others).map(|(flag, port)| format!("--{flag}=127.0.0.1:{port}")));
        let launch = Launch {
            program,
            args,
            env: BTreeMap::from([("SPAN_STORAGE_TYPE".to_owned(), "memory".to_owned())]),
            dir: dir.to_owned(),
        };
        let log = dir.join("jaeger.log");
        let jaeger = Self { grpc, http, query, _process: Process::start(launch, log.clone()).await? };
        wait_for("Jaeger answers", STARTED, || async {
            Ok(match jaeger.ask("services").await {
                Ok(_) => Seen::Yes(()),
                Err(error) => Seen::NotYet(format!("{error:#}; {}", std::fs::read_to_string(&log).unwrap_or_default())),
            })
        })
        .await?;
        Ok(jaeger)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with protocol grpc.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with protocol http/protobuf.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Its query API and, where it was built with one, its page.
    pub fn query(&self) -> String {
        format!("http://127.0.0.1:{}", self.query)
    }

    /// What its query API answers to `GET /api/…`: the field `data`.
    ///
    /// # Errors
    /// When it does not answer, or not with data.
    pub async fn ask(&self, what: &str) -> anyhow::Result<Value> {
        // Whoever was first has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}/api/{what}", self.query());
        let mut answer: Value = client.get(url).send().await?.error_for_status()?.json().await?;
        answer.get_mut("data").map(Value::take).context("an answer without data")
    }
}
