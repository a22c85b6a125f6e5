//! Traces on the wire: what a collector is sent, over both protocols, and what happens without one.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::TcpListener,
    time::{Duration, Instant},
};

use acts::{OPERATOR, Theatre, allocation, pool, program::program, reserve, restarts, until_labelled, until_moved};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    collector::{Collector, Span},
    stage::{NAMESPACE, PATIENCE, REGION, RELEASE, Stage, ZONES},
};
use ip_address_controller::{
    lifecycle::Trace,
    settings::{Command, Settings},
    telemetry::traces::{self, Place, Sketch, Traces},
};
use jiff::Timestamp;
use kube::ResourceExt;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

static THEATRE: Theatre = Theatre::new();

fn settings() -> Settings {
    let env = [("POD_NAME", "pod-1"), ("POD_NAMESPACE", "ns"), ("POD_UID", "uid-1"), ("NODE_NAME", "node-1")];
    let env = BTreeMap::from(env);
    let command = Command::parse_from([OsString::from("x")], |name| env.get(name).map(OsString::from)).unwrap();
    let Command::Run(settings) = command else { panic!("{command:?}") };
    settings
}

/// Traces as these variables say.
fn traces(variables: &[(&str, String)]) -> Traces {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
    let wanted = traces::read(env);
    assert!(wanted.complaints.is_empty(), "{:?}", wanted.complaints);
    traces::build(&wanted.otlp.unwrap(), &settings(), env).unwrap()
}

fn sketch(name: &'static str, place: Place) -> Sketch {
    Sketch {
        name,
        place,
        began: Timestamp::from_second(1_800_000_000).unwrap(),
        ended: Timestamp::from_second(1_800_000_002).unwrap(),
        attributes: vec![("netipallocation.ip", "203.0.113.7".to_owned())],
        links: Vec::new(),
        error: Some("no answer".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_over_http_and_over_grpc_with_parents_attributes_and_who_sent_them() -> Result<()> {
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start().await?;
        let traces = traces(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ]);
        let trace = Trace::of(protocol);
        traces.tracer().draw(&sketch("part", Place::Under(trace)));
        traces.tracer().draw(&sketch("whole", Place::Root(trace)));
        // Ends long before the batch would have been sent by itself.
        traces.end(Duration::from_secs(10)).await;

        let spans = collector.spans();
        let [part, whole] = spans.as_slice() else { panic!("{protocol}: {spans:?}") };
        ensure!(part.trace == trace.to_string() && whole.trace == part.trace, "{protocol}: {spans:?}");
        ensure!(part.parent == whole.id && whole.parent.is_empty(), "{protocol}: {spans:?}");
        ensure!(part.attributes["netipallocation.ip"] == "203.0.113.7" && part.failed, "{part:?}");
        ensure!(part.ended - part.began == 2_000_000_000, "{part:?}");
        for (key, value) in [
            ("service.name", "ip-address-controller"),
            ("service.version", "2.0.0"),
            ("service.namespace", "ns"),
            ("k8s.namespace.name", "ns"),
            ("k8s.pod.name", "pod-1"),
            ("k8s.pod.uid", "uid-1"),
            ("k8s.node.name", "node-1"),
        ] {
            ensure!(part.resource.get(key).map(String::as_str) == Some(value), "{key}: {:?}", part.resource);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_dead_or_never_answers_slows_nobody_and_holds_the_end_up_for_no_longer_than_is_allowed()
-> Result<()> {
    // The kernel accepts for it; nobody ever answers.
    let mute = TcpListener::bind("127.0.0.1:0")?;
    let dead = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    for (address, protocol) in
        [(mute.local_addr()?, "grpc"), (mute.local_addr()?, "http/protobuf"), (dead, "grpc"), (dead, "http/protobuf")]
    {
        let traces = traces(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ]);
        let tracer = traces.tracer();
        let began = Instant::now();
        for n in 0..20_000 {
            tracer.draw(&sketch("part", Place::Under(Trace::of(&n.to_string()))));
        }
        let drawn = began.elapsed();
        let began = Instant::now();
        let end = tokio::time::timeout(PATIENCE, traces.end(Duration::from_secs(1)));
        end.await.with_context(|| format!("{protocol} at {address}: the end waits for an answer"))?;
        let ended = began.elapsed();
        println!("{protocol} at {address}: 20,000 spans in {drawn:.1?}, the end in {ended:.1?}");
    }
    Ok(())
}

/// Whatever is said wrong about traces is one warning, and the operator goes on to the next thing that it needs.
#[tokio::test]
async fn what_is_said_wrong_about_traces_is_one_warning_and_no_reason_to_end() -> Result<()> {
    let good = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
    ] {
        // There is no cluster, so that the program ends by itself, after it has set its telemetry up.
        let env = [good, (name, value), ("KUBECONFIG", "/no/such/file"), ("BIND_ADDRESS", "127.0.0.77")];
        let ended = program(&["run"], &env).await?;
        ensure!(ended.code == Some(1) && ended.err.contains("no cluster to talk to"), "{name}={value}: {ended:?}");
        let warnings: Vec<&str> = ended.err.lines().filter(|line| line.contains("\"level\":\"warn\"")).collect();
        ensure!(warnings.len() == 1 && warnings[0].contains(name), "{name}={value}: {warnings:?}");
    }
    Ok(())
}

/// Everything that the chart can say about traces, and what it leads to: the spans of a move.
#[test]
fn the_charts_values_lead_to_the_spans_of_a_move_and_the_last_ones_are_sent_at_sigterm() -> Result<()> {
    THEATRE.bare(async |stage| {
        let collector = Collector::start().await?;
        let endpoint = format!("tracing.endpoint={}", collector.endpoint());
        // Nothing is sent before the end.
        stage.agent.extra_env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
        stage.agent.extra_env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
        let headers = "create secret generic tracing --from-literal=headers=authorization=Bearer%20hunter2";
        stage.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let args: Vec<&str> = headers.split(' ').chain(["-n", NAMESPACE]).collect();
        stage.cluster.kubectl(&args).await?;
        let values = [
            "tracing.enabled=true",
            &endpoint,
            "tracing.protocol=http/protobuf",
            "tracing.headersSecret.name=tracing",
            "tracing.resourceAttributes.deployment\\.environment=test",
            "clusterName=c1",
        ];
        stage.install(&values).await?;

        let (name, ip) = ("traced", "203.0.113.60");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.kubectl(&["cordon", &from]).await?;
        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.clone().unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        wait_for("the node that it left has an address of its own again", PATIENCE, || async {
            let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            Ok(Seen::when(owed.is_empty(), owed))
        })
        .await?;
        ensure!(collector.spans().is_empty(), "sent before its time");

        stage.cluster.kubectl(&["delete", "pods", "-n", NAMESPACE, "-l", OPERATOR, "--wait=false"]).await?;
        let trace = entry.last_move.and_then(|journey| journey.trace_id).context("status does not name the trace")?;
        let spans = wait_for("the last spans", PATIENCE, || async {
            let spans: Vec<Span> = collector.spans().into_iter().filter(|span| span.trace == trace).collect();
            let over = spans.iter().any(|span| span.name == "netipallocation.journey");
            Ok(if over { Seen::Yes(spans) } else { Seen::NotYet(format!("{:?}", collector.spans())) })
        })
        .await?;
        the_move(&spans, &from, &to)?;
        the_passes(&collector.spans(), &trace)?;

        let post = collector.posts().first().cloned().context("no post")?;
        ensure!(post.path == "/v1/traces", "{post:?}");
        ensure!(post.headers.get("authorization").is_some_and(|value| value == "Bearer hunter2"), "{post:?}");
        ensure!(post.headers.get("content-encoding").is_some_and(|value| value == "gzip"), "{post:?}");
        let resource = &spans[0].resource;
        for (key, value) in [
            ("service.name", "ip-address-controller"),
            ("k8s.namespace.name", NAMESPACE),
            ("k8s.deployment.name", RELEASE),
            ("k8s.container.name", "controller"),
            ("k8s.cluster.name", "c1"),
            ("deployment.environment", "test"),
        ] {
            ensure!(resource.get(key).map(String::as_str) == Some(value), "{key}: {resource:?}");
        }
        ensure!(resource["service.instance.id"].ends_with(".controller"), "{resource:?}");
        let uid = stage.cluster.kubectl(&["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]).await?;
        ensure!(resource.get("k8s.cluster.uid") == Some(&uid), "{uid}: {resource:?}");

        trusts_the_certificate_that_is_named(stage).await?;
        survives_without_a_collector(stage).await?;
        does_without_the_clusters_uid(stage).await
    })
}

/// Over TLS, with the certificate that the API server has made for loopback.
async fn trusts_the_certificate_that_is_named(stage: &Stage) -> Result<()> {
    let pki = stage.cluster.dir().join("pki");
    let (certificate, key) = (pki.join("apiserver.crt"), pki.join("apiserver.key"));
    for protocol in ["http/protobuf", "grpc"] {
        let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<Vec<_>, _>>()?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key)?)?;
        let collector = Collector::start_tls(tls).await?;
        for named in [false, true] {
            let mut variables = vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ];
            if named {
                variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate.to_string_lossy().into_owned()));
            }
            let traces = traces(&variables);
            traces.tracer().draw(&sketch("whole", Place::Root(Trace::of(protocol))));
            traces.end(Duration::from_secs(5)).await;
            let came = collector.spans().len();
            ensure!(came == usize::from(named), "{protocol}, certificate named: {named}, spans: {came}");
        }
    }
    Ok(())
}

fn the_move(spans: &[Span], from: &str, to: &str) -> Result<()> {
    let root = spans.iter().find(|span| span.name == "netipallocation.journey").context("no root")?;
    ensure!(root.parent.is_empty(), "{root:?}");
    let word = |span: &Span, key: &str| span.attributes.get(key).cloned().unwrap_or_default();
    let mut edges: Vec<&Span> = spans.iter().filter(|span| span.name == "netipallocation.transition").collect();
    edges.sort_by_key(|span| (span.ended, span.began));
    let told: Vec<String> = edges.iter().map(|span| word(span, "netipallocation.to")).collect();
    ensure!(told == ["Draining", "Releasing", "Detached", "Attaching", "Attached"], "{told:?}");
    for span in &edges {
        ensure!(span.parent == root.id, "not under the root: {span:?}");
        ensure!(root.began <= span.began && span.ended <= root.ended, "outlasts the root: {span:?} {root:?}");
    }
    for (name, node) in [
        ("netipallocation.detach", from),
        ("netipallocation.attach", to),
        ("netipallocation.node.label", to),
        ("netipallocation.restore", from),
    ] {
        let effect = spans.iter().find(|span| span.name == name).with_context(|| format!("no {name}"))?;
        ensure!(effect.parent == root.id && word(effect, "k8s.node.name") == node, "{effect:?}");
    }
    // The calls are somewhere under their effect.
    for (call, effect) in [
        ("compute.instances.deleteAccessConfig", "netipallocation.detach"),
        ("compute.instances.addAccessConfig", "netipallocation.attach"),
        ("compute.instances.addAccessConfig", "netipallocation.restore"),
    ] {
        let within = |span: &Span| {
            let mut above = Some(span.clone());
            while let Some(span) = above {
                if span.name == effect {
                    return true;
                }
                above = spans.iter().find(|known| known.id == span.parent).cloned();
            }
            false
        };
        let found = spans.iter().find(|span| span.name == call && within(span));
        the_change(found.with_context(|| format!("no {call} within {effect}: {spans:#?}"))?)?;
    }
    Ok(())
}

/// What went over the wire, and where to.
fn the_change(span: &Span) -> Result<()> {
    for (key, value) in [
        ("http.request.method", Some("POST")),
        ("http.response.status_code", Some("200")),
        ("http.request.resend_count", None),
        ("server.address", Some("127.0.0.1")),
        ("cloud.region", Some(REGION)),
    ] {
        ensure!(span.attributes.get(key).map(String::as_str) == value, "{key}: {span:?}");
    }
    let zone = span.attributes.get("cloud.availability_zone");
    ensure!(zone.is_some_and(|zone| ZONES.contains(&zone.as_str())), "{span:?}");
    ensure!(span.client && span.events.iter().any(|event| event.name == "poll"), "{span:?}");
    Ok(())
}

/// Only passes that did something, each in a trace of its own, linked to what it did.
fn the_passes(spans: &[Span], journey: &str) -> Result<()> {
    let passes: Vec<&Span> = spans.iter().filter(|span| span.name == "netipallocation.reconcile").collect();
    ensure!(passes.iter().all(|pass| pass.parent.is_empty() && pass.trace != journey), "{passes:?}");
    ensure!(passes.iter().any(|pass| pass.links.iter().any(|link| link == journey)), "no link: {passes:?}");
    let known = ["acted", "moved", "failed"];
    let odd: Vec<_> =
        passes.iter().filter(|pass| !known.contains(&pass.attributes["netipallocation.outcome"].as_str())).collect();
    ensure!(odd.is_empty(), "a pass that did nothing: {odd:?}");
    // The drain was written with the node, or when the pods of that or the next machine had been read, or there was a turn for the
    // change; the address went on when what had taken it off had ended, and the same: whichever came last.
    let of_it = passes.iter().filter(|pass| pass.links.iter().any(|link| link == journey));
    let triggers: BTreeSet<&str> = of_it.map(|pass| pass.attributes["netipallocation.trigger"].as_str()).collect();
    let goes_on = ["effect", "permit", "cloud"].iter().any(|trigger| triggers.contains(trigger));
    let known = ["node", "pods", "effect", "permit", "cloud"];
    ensure!(goes_on && triggers.iter().all(|trigger| known.contains(trigger)), "{triggers:?}");
    for stage in ["netipallocation.observe", "netipallocation.plan", "netipallocation.status.patch"] {
        let found = spans.iter().find(|span| span.name == stage).with_context(|| format!("no {stage}"))?;
        ensure!(passes.iter().any(|pass| pass.id == found.parent && pass.trace == found.trace), "{found:?}");
    }
    Ok(())
}

/// Traces that the chart knows nothing of, so without the right to read whose they are: said once, and nothing waits for it.
async fn does_without_the_clusters_uid(stage: &Stage) -> Result<()> {
    let collector = Collector::start().await?;
    stage.agent.extra_env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    stage.install(&["tracing.enabled=false"]).await?;
    let (name, ip) = ("anywhere", "203.0.113.62");
    reserve(stage, &[ip])?;
    pool(stage, name, 1).await?;
    stage.cluster.apply(&allocation(name, &[ip], "")).await?;
    stage.until_attached(name, ip).await?;
    let spans = wait_for("spans", PATIENCE, || async {
        let spans = collector.spans();
        Ok(if spans.is_empty() { Seen::NotYet(String::new()) } else { Seen::Yes(spans) })
    })
    .await?;
    ensure!(spans.iter().all(|span| !span.resource.contains_key("k8s.cluster.uid")), "{:?}", spans[0].resource);
    let log = stage.agent.log(NAMESPACE, &stage.until_led(None).await?)?;
    let said = log.lines().filter(|line| line.contains("k8s.cluster.uid")).count();
    ensure!(said == 1, "said {said} times that it may not read the uid:\n{log}");
    Ok(())
}

/// The same release with a collector that is not there: it works, and says so once.
async fn survives_without_a_collector(stage: &Stage) -> Result<()> {
    stage.agent.extra_env("OTEL_BSP_SCHEDULE_DELAY", "100");
    stage.install(&["tracing.enabled=true", "tracing.endpoint=http://127.0.0.1:1"]).await?;
    let (name, ip) = ("untold", "203.0.113.61");
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    stage.cluster.apply(&allocation(name, &[ip], "")).await?;
    let from = stage.until_attached(name, ip).await?;
    stage.cluster.kubectl(&["cordon", &from]).await?;
    until_moved(stage, name, ip, &from).await?;
    let leader = stage.until_led(None).await?;
    let complaints = wait_for("that spans are not delivered is said", PATIENCE, || async {
        let log = stage.agent.log(NAMESPACE, &leader)?;
        let about = |line: &&str| line.contains("spans cannot be delivered");
        let said: Vec<String> = log.lines().filter(about).map(str::to_owned).collect();
        Ok(if said.is_empty() { Seen::NotYet(String::new()) } else { Seen::Yes(said) })
    })
    .await?;
    ensure!(complaints.len() == 1, "{complaints:?}");
    for pod in stage.pods(NAMESPACE, OPERATOR).await? {
        ensure!(restarts(stage, &pod.name_any()).await? == 0, "{} was started again", pod.name_any());
    }
    Ok(())
}
