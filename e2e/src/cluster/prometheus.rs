//! A real Prometheus on loopback. It finds the operator's pods by the API server, as it does with the chart's PodMonitor.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
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
pub struct Prometheus {
    port: u16,
    _process: Process,
}

impl Prometheus {
    /// Starts it, its data and log in `dir`; it scrapes the metrics of all pods of a namespace that have the label
    /// `app=ip-address-controller`, every second, and evaluates the rules of that file. The first start on a machine builds
    /// it.
    ///
    /// # Errors
    /// When it cannot be built or does not come up.
    pub async fn start(dir: &Path, kubeconfig: &Path, namespace: &str, rules: &Path) -> Result<Self> {
        let program = tools::bin_with_prometheus().await?.join("prometheus");
        let [port] = free_ports::<1>()?;
        let config = dir.join("prometheus.yaml");
        fs::write(&config, serde_yaml::to_string(&configuration(kubeconfig, namespace, rules))?)?;
        let args = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        let log = dir.join("prometheus.log");
        let launch = Launch { program, args, env: BTreeMap::new(), dir: dir.to_owned() };
        let prometheus = Self { port, _process: Process::start(launch, log.clone()).await? };
        wait_for("Prometheus answers", STARTED, || async {
            Ok(match prometheus.query("vector(1)").await {
                Ok(_) => Seen::Yes(()),
                Err(error) => Seen::NotYet(format!("{error:#}; {}", fs::read_to_string(&log).unwrap_or_default())),
            })
        })
        .await?;
        Ok(prometheus)
    }

    /// For a browser, or for `GET /api/v1/…`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The series that an expression yields now: `data.result` of the query API.
    ///
    /// # Errors
    /// When the expression is wrong (Prometheus's own sentence), or nothing answers.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        // Whoever was first has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.url()), [("query", expression)])?;
        let mut answer: Value = client.get(url).send().await?.json().await?;
        ensure!(answer.get("status").and_then(Value::as_str) == Some("success"), "{expression}: {answer}");
        let result = answer.pointer_mut("/data/result").map(Value::take).context("an answer without result")?;
        // A scalar is one value, not a list of series.
        Ok(match result {
            Value::Array(series) if series.iter().all(Value::is_object) => series,
            scalar => vec![scalar],
        })
    }
}

/// What the Prometheus operator makes of the chart's PodMonitor, by hand.
fn configuration(kubeconfig: &Path, namespace: &str, rules: &Path) -> Value {
    let relabel =
        |sources: &[&str], target: &str| serde_json::json!({"source_labels": sources, "target_label": target});
    let keep =
        |source: &str, regex: &str| serde_json::json!({"source_labels": [source], "regex": regex, "action": "keep"});
    serde_json::json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "scrape_configs": [{
            "job_name": "pods",
            "honor_labels": true,
            "kubernetes_sd_configs": [{
                "role": "pod",
                "kubeconfig_file": kubeconfig,
                "namespaces": {"names": [namespace]},
            }],
            "relabel_configs": [
                keep("__meta_kubernetes_pod_label_app", "ip-address-controller"),
                keep("__meta_kubernetes_pod_container_port_name", "metrics"),
                keep("__meta_kubernetes_pod_phase", "Running"),
                relabel(&["__meta_kubernetes_namespace"], "namespace"),
                relabel(&["__meta_kubernetes_pod_name"], "pod"),
                relabel(&["__meta_kubernetes_pod_container_name"], "container"),
                relabel(&["__meta_kubernetes_pod_label_app"], "job"),
            ],
        }],
    })
}
