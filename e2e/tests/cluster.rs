//! The control plane and the node agent keep what the other tests build on.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{Agent, AgentOptions, Cluster, NodeSpec, Options, Seen, node, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::OnceCell;

const TINY_SERVER: &str = env!("CARGO_BIN_EXE_tiny-server");
const LONELY_CLUSTER: &str = env!("CARGO_BIN_EXE_lonely-cluster");

const PATIENCE: Duration = Duration::from_secs(90);

/// One cluster for all tests of this binary: each uses nodes and names of its own.
async fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_try_init(|| Cluster::start(Options::default())).await
}

async fn agent() -> Result<&'static Agent> {
    static AGENT: OnceCell<Agent> = OnceCell::const_new();
    let start = || async {
        let options = AgentOptions::new("agent")
            .image("registry.example:5000/tiny", TINY_SERVER)
            .image("registry.example:5000/shell", "/bin/sh")
            .env("TINY_EXTRA", "from the agent");
        cluster().await?.start_agent(options).await
    };
    AGENT.get_or_try_init(start).await
}

async fn pods(label: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster().await?.client()?, "default");
    Ok(pods.list(&ListParams::default().labels(label)).await?.items)
}

fn condition(pod: &Pod, kind: &str) -> String {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == kind).map(|condition| condition.status.clone()).collect()
}

/// Waits until exactly so many pods are ready, none is on its way out, and gives them.
async fn ready_pods(label: &str, count: usize) -> Result<Vec<Pod>> {
    wait_for(&format!("{count} ready pods of {label}"), PATIENCE, || async {
        let pods = pods(label).await?;
        let staying = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && condition(pod, "Ready") == "True";
        Ok(match pods.len() == count && pods.iter().all(staying) {
            true => Seen::Yes(pods),
            false => Seen::NotYet(pods.iter().map(|pod| format!("{} {:?}", pod.name_any(), pod.status)).collect()),
        })
    })
    .await
}

#[tokio::test]
async fn the_control_plane_is_the_version_pinned_and_tells_who_asked_what() -> Result<()> {
    let cluster = cluster().await?;
    let version = cluster.client()?.apiserver_version().await?;
    assert_eq!(version.git_version, "v1.36.3");

    cluster.kubectl(&["create", "serviceaccount", "curious"]).await?;
    let kubeconfig = cluster.kubeconfig_for_service_account("default", "curious").await?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let refused = cluster.run("kubectl", &["--kubeconfig", &kubeconfig, "get", "nodes", "not-there"], None).await?;
    ensure!(refused.stderr.contains("forbidden"), "an account without rights was not refused: {refused:?}");

    wait_for("the refusal is in the audit log", PATIENCE, || async {
        let asked = cluster.audit()?.into_iter().find(|event| event.name == "not-there");
        let told = asked.as_ref().is_some_and(|event| {
            (event.verb.as_str(), event.resource.as_str(), event.code) == ("get", "nodes", 403)
                && event.user == "system:serviceaccount:default:curious"
                && event.stage == "ResponseComplete"
        });
        Ok(Seen::when(told, asked))
    })
    .await
}

#[tokio::test]
async fn kubectl_and_helm_cannot_leave_this_machine() -> Result<()> {
    let cluster = cluster().await?;
    let kubectl = cluster.run("kubectl", &["apply", "-f", "https://192.0.2.1/manifest.yaml"], None).await?;
    // That address belongs to nobody: without a proxy that refuses, the answer would be a time-out.
    ensure!(kubectl.stderr.contains("was refused"), "{kubectl:?}");
    let helm = cluster.run("helm", &["pull", "https://192.0.2.1/chart.tgz"], None).await?;
    ensure!(helm.stderr.contains("127.0.0.1:9"), "{helm:?}");
    Ok(())
}

#[tokio::test]
async fn helm_installs_a_chart_and_takes_it_away() -> Result<()> {
    let cluster = cluster().await?;
    let chart = cluster.dir().join("home/chart");
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::write(
        chart.join("Chart.yaml"),
        "{apiVersion: v2, name: chart, version: 1.0.0, kubeVersion: '>=1.36.0-0'}",
    )?;
    let template = "{apiVersion: v1, kind: ConfigMap, metadata: {name: '{{ .Release.Name }}-map'}}";
    std::fs::write(chart.join("templates/map.yaml"), template)?;
    cluster.helm(&["install", "release", &chart.to_string_lossy(), "--wait"]).await?;
    cluster.kubectl(&["get", "configmap", "release-map"]).await?;
    cluster.helm(&["uninstall", "release", "--wait"]).await?;
    let gone = cluster.run("kubectl", &["get", "configmap", "release-map"], None).await?;
    ensure!(gone.stderr.contains("NotFound"), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_drained_pod_stays_for_its_grace_period() -> Result<()> {
    const GRACE: Duration = Duration::from_secs(4);
    let cluster = cluster().await?;
    cluster
        .add_node(NodeSpec::new("drained").label("pool", "drained").provider_id("gce://project/zone/drained"))
        .await?;
    cluster
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: slow, labels: {app: slow}}
spec:
  nodeSelector: {pool: drained}
  terminationGracePeriodSeconds: 4
  containers: [{name: pretended, image: pretended}]
",
        )
        .await?;
    ready_pods("app=slow", 1).await?;

    let begun = Instant::now();
    cluster.kubectl(&["drain", "drained", "--force", "--timeout=60s"]).await?;
    let spent = begun.elapsed();
    // The deletion timestamp counts whole seconds.
    ensure!(spent + Duration::from_secs(1) > GRACE, "the pod was gone after {spent:?}");
    ensure!(pods("app=slow").await?.is_empty(), "drained, but the pod is still there");
    Ok(())
}

#[tokio::test]
async fn a_silent_node_is_not_ready_and_comes_back() -> Result<()> {
    let cluster = cluster().await?;
    cluster.add_node(NodeSpec::new("silent")).await?;
    let nodes: Api<Node> = Api::all(cluster.client()?);
    let ready = |wanted: &'static str| {
        let nodes = nodes.clone();
        wait_for("the Ready condition follows the heartbeat", PATIENCE, move || {
            let nodes = nodes.clone();
            async move {
                let node = nodes.get("silent").await?;
                let is = node::condition(&node, "Ready").map(|ready| ready.status.clone()).unwrap_or_default();
                Ok(Seen::when(is == wanted, format!("Ready is {is}, not {wanted}")))
            }
        })
    };
    cluster.stop_heartbeat("silent").await?;
    ready("Unknown").await?;
    cluster.start_heartbeat("silent").await?;
    ready("True").await
}

fn deployment(revision: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: tiny}}
stringData: {{word: mellon}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tiny}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: tiny}}}}
  template:
    metadata: {{labels: {{app: tiny}}, annotations: {{revision: '{revision}'}}}}
    spec:
      nodeSelector: {{ip-address-controller/agent: 'true'}}
      terminationGracePeriodSeconds: 20
      containers:
      - name: tiny
        image: registry.example:5000/tiny:1.0
        ports: [{{name: health, containerPort: 8080}}]
        env:
        - {{name: TINY_POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: TINY_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: TINY_WORD, valueFrom: {{secretKeyRef: {{name: tiny, key: word}}}}}}
        - {{name: TINY_BOTH, value: '$(TINY_WORD) {revision}'}}
        startupProbe: {{httpGet: {{path: /healthz, port: health}}, periodSeconds: 1, failureThreshold: 30}}
        readinessProbe: {{httpGet: {{path: /healthz, port: health}}, periodSeconds: 1}}
        livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"
    )
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

/// A zombie has ended: who reaps it is no concern of ours.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_deployment_runs_for_real_rolls_out_and_is_ended_with_sigterm() -> Result<()> {
    let (cluster, agent) = (cluster().await?, agent().await?);
    cluster.apply(&deployment("one")).await?;
    let first = ready_pods("app=tiny", 2).await?;
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/tiny", "--timeout=60s"]).await?;

    for pod in &first {
        let (name, ip) = (pod.name_any(), agent.ip("default", &pod.name_any())?);
        let log = agent.log("default", &name)?;
        for line in [
            format!("TINY_POD={name}"),
            format!("TINY_IP={ip}"),
            "TINY_WORD=mellon".into(),
            "TINY_BOTH=mellon one".into(),
            "TINY_EXTRA=from the agent".into(),
        ] {
            ensure!(log.contains(&line), "{line} is not in the log:\n{log}");
        }
        let kubeconfig =
            log.lines().find_map(|line| line.strip_prefix("KUBECONFIG=")).context("no KUBECONFIG in the log")?;
        let who = cluster.run("kubectl", &["--kubeconfig", kubeconfig, "auth", "whoami"], None).await?.success()?;
        ensure!(who.contains("system:serviceaccount:default:default") && who.contains(&name), "{who}");
    }
    let pids = first.iter().map(|pod| agent.pid("default", &pod.name_any())).collect::<Result<Vec<_>>>()?;

    // A crash is a restart of the same pod.
    let crashed = first.first().context("no pod")?.name_any();
    agent.kill("default", &crashed)?;
    wait_for("the crashed pod is ready again", PATIENCE, || async {
        let pods = pods("app=tiny").await?;
        let pod = pods.iter().find(|pod| pod.name_any() == crashed).context("the pod is gone")?;
        Ok(Seen::when(restarts(pod) == 1 && condition(pod, "Ready") == "True", &pod.status))
    })
    .await?;
    ensure!(!pids.contains(&agent.pid("default", &crashed)?), "the same process after a crash");

    cluster.apply(&deployment("two")).await?;
    cluster.kubectl(&["rollout", "status", "deployment/tiny", "--timeout=60s"]).await?;
    let second = ready_pods("app=tiny", 2).await?;
    for pod in &first {
        ensure!(
            second.iter().all(|new| new.name_any() != pod.name_any()),
            "{} has survived the rollout",
            pod.name_any()
        );
        let log = agent.log("default", &pod.name_any())?;
        ensure!(log.ends_with("ends as asked\n"), "not ended with SIGTERM:\n{log}");
    }

    // A pause of which nobody is told: liveness fails, and the process does not heed SIGTERM either.
    let paused = second.first().context("no pod")?.name_any();
    let pid = agent.pid("default", &paused)?;
    agent.signal("default", &paused, nix::sys::signal::Signal::SIGSTOP)?;
    let begun = Instant::now();
    wait_for("the paused pod is restarted", PATIENCE, || async {
        let pods = pods("app=tiny").await?;
        let pod = pods.iter().find(|pod| pod.name_any() == paused).context("the pod is gone")?;
        Ok(Seen::when(restarts(pod) == 1 && condition(pod, "Ready") == "True", &pod.status))
    })
    .await?;
    ensure!(
        begun.elapsed() > Duration::from_secs(20),
        "killed before its grace period was over: {:?}",
        begun.elapsed()
    );
    ensure!(!lives(pid), "the paused process still lives");

    cluster.kubectl(&["delete", "deployment", "tiny", "--cascade=foreground", "--timeout=60s"]).await?;
    ensure!(pods("app=tiny").await?.is_empty(), "pods are left");
    let deployments: Api<Deployment> = Api::namespaced(cluster.client()?, "default");
    ensure!(deployments.get_opt("tiny").await?.is_none(), "the deployment is left");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_runs_once_tells_how_it_ended() -> Result<()> {
    let (cluster, agent) = (cluster().await?, agent().await?);
    for (name, code, phase) in [("good", "0", "Succeeded"), ("bad", "3", "Failed")] {
        cluster
            .apply(&format!(
                "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  nodeSelector: {{ip-address-controller/agent: 'true'}}
  initContainers: [{{name: first, image: 'registry.example:5000/tiny', args: ['0']}}]
  containers: [{{name: tiny, image: 'registry.example:5000/tiny', command: [/usr/bin/tiny-server, '{code}']}}]
"
            ))
            .await?;
        let until = format!("--for=jsonpath={{.status.phase}}={phase}");
        cluster.kubectl(&["wait", &until, &format!("pod/{name}"), "--timeout=60s"]).await?;
        assert_eq!(agent.log("default", name)?, format!("exits with 0\nexits with {code}\n"));
        cluster.kubectl(&["delete", "pod", name, "--timeout=60s"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn containers_share_an_empty_dir_and_sigterm_waits_for_the_pre_stop_command() -> Result<()> {
    let (cluster, agent) = (cluster().await?, agent().await?);
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: hooked, labels: {app: hooked}}
spec:
  nodeSelector: {ip-address-controller/agent: 'true'}
  terminationGracePeriodSeconds: 80
  initContainers:
    - name: first
      image: registry.example:5000/shell
      command: [sh, -c, "echo begun > /shared/word"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: main
      image: registry.example:5000/shell
      command: [sh, -c]
      args: ["trap 'echo asked to end; exit 0' TERM; cat /shared/word; while true; do sleep 1 & wait $!; done"]
      lifecycle: {preStop: {exec: {command: [sh, -c, "until [ -e /shared/go ]; do sleep 0.1; done; echo hook is done"]}}}
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {}}]
"#;
    cluster.apply(manifest).await?;
    ready_pods("app=hooked", 1).await?;
    let told = async |line: &str| {
        wait_for(&format!("it says {line}"), PATIENCE, || async {
            let log = agent.log("default", "hooked")?;
            Ok(Seen::when(log.lines().next_back() == Some(line), log))
        })
        .await
    };
    told("begun").await?;

    cluster.kubectl(&["delete", "pod", "hooked", "--wait=false"]).await?;
    std::fs::write(agent.folder("default", "hooked")?.join("volumes/shared/go"), "")?;
    told("asked to end").await?;
    let log = agent.log("default", "hooked")?;
    assert_eq!(log.lines().collect::<Vec<_>>(), ["begun", "hook is done", "asked to end"]);
    wait_for("the pod is gone", PATIENCE, || async {
        let left = pods("app=hooked").await?;
        Ok(Seen::when(left.is_empty(), left.len()))
    })
    .await
}

#[tokio::test]
async fn a_container_waits_for_its_secret_and_an_unknown_image_is_told() -> Result<()> {
    let (cluster, _agent) = (cluster().await?, agent().await?);
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, "default");
    cluster
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: patient}
spec:
  nodeSelector: {ip-address-controller/agent: 'true'}
  containers:
  - {name: tiny, image: 'registry.example:5000/tiny', envFrom: [{secretRef: {name: late}}]}
  - {name: other, image: 'registry.example:5000/other'}
",
        )
        .await?;
    let waits = |container: &'static str, reason: &'static str| {
        let pods = pods.clone();
        wait_for(reason, PATIENCE, move || {
            let pods = pods.clone();
            async move {
                let status = pods.get("patient").await?.status.unwrap_or_default();
                let seen = status.container_statuses.unwrap_or_default();
                let said = seen
                    .iter()
                    .find(|status| status.name == container)
                    .and_then(|status| status.state.clone())
                    .unwrap_or_default();
                let is = match (said.waiting, said.running) {
                    (Some(waiting), _) => waiting.reason.unwrap_or_default(),
                    (None, Some(_)) => "Running".to_owned(),
                    (None, None) => String::new(),
                };
                Ok(Seen::when(is == reason, is))
            }
        })
    };
    waits("tiny", "CreateContainerConfigError").await?;
    waits("other", "ErrImagePull").await?;
    cluster.kubectl(&["create", "secret", "generic", "late", "--from-literal=TINY=1"]).await?;
    waits("tiny", "Running").await?;
    cluster.kubectl(&["delete", "pod", "patient", "--timeout=60s"]).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_a_killed_test_process() -> Result<()> {
    let mut child = tokio::process::Command::new(LONELY_CLUSTER)
        .arg(TINY_SERVER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let (mut pids, mut folder) = (Vec::new(), None);
    loop {
        let Some(line) = lines.next_line().await? else { bail!("the cluster did not start") };
        match line.split_once(' ') {
            Some(("pid", pid)) => pids.push(pid.parse()?),
            Some(("folder", path)) => folder = Some(path.to_owned()),
            _ if line == "ready" => break,
            _ => {}
        }
    }
    let folder = folder.context("no folder was named")?;
    assert_eq!(pids.len(), 6, "etcd, three of Kubernetes, kwok, and a pod's process");
    ensure!(pids.iter().all(|&pid| lives(pid)), "not all of {pids:?} live");

    child.kill().await?;
    wait_for("all processes and files are gone", PATIENCE, || async {
        let left: Vec<_> = pids.iter().filter(|&&pid| lives(pid)).collect();
        let there = Path::new(&folder).exists();
        Ok(Seen::when(left.is_empty() && !there, format!("processes {left:?}, folder: {there}")))
    })
    .await
}
