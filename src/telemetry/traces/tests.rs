use std::sync::{Arc, Mutex};

use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{Sampler, SpanData, SpanExporter},
};
use tracing::{info_span, subscriber::with_default};

use super::{exporter::Told, sampling::Journeys, *};

/// What has come out; fails while it is told to.
#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<SpanData>>>, Arc<std::sync::atomic::AtomicBool>, Arc<Mutex<Vec<Resource>>>);

impl SpanExporter for Sink {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(OTelSdkError::InternalFailure("nobody listens".to_owned()));
        }
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.2.lock().unwrap().push(resource.clone());
    }
}

fn traces(sampler: Sampler) -> (Traces, Sink) {
    let sink = Sink::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(sink.clone())
        .with_id_generator(Ids::default())
        .with_sampler(Journeys(sampler))
        .build();
    (Traces(provider, Late::default()), sink)
}

fn sketch(name: &'static str, place: Place) -> Sketch {
    Sketch {
        name,
        place,
        began: Timestamp::from_second(10).unwrap(),
        ended: Timestamp::from_second(12).unwrap(),
        attributes: vec![("k", "v".to_owned())],
        links: vec![Trace::of("other")],
        error: None,
    }
}

fn subscribed(traces: &Traces) -> impl tracing::Subscriber + Send + Sync {
    crate::telemetry::subscriber("off", crate::settings::LogFormat::Json, std::io::sink(), Some(traces.sdk_tracer()))
}

#[test]
fn parts_that_processes_tell_apart_are_one_trace_under_a_root_that_comes_last() {
    let trace = Trace::of("journey");
    let (first, told_first) = traces(Sampler::AlwaysOn);
    first.tracer().draw(&sketch("begins", Place::Under(trace)));
    let (second, told_second) = traces(Sampler::AlwaysOn);
    second.tracer().draw(&sketch("goes on", Place::Under(trace)));
    second.tracer().draw(&sketch("journey", Place::Root(trace)));

    let told: Vec<SpanData> =
        [told_first, told_second].iter().flat_map(|sink| sink.0.lock().unwrap().clone()).collect();
    let [begins, on, root] = told.as_slice() else { panic!("{told:?}") };
    for span in &told {
        assert_eq!(span.span_context.trace_id(), TraceId::from(trace.id()));
        assert_eq!(span.links.links[0].span_context.trace_id(), TraceId::from(Trace::of("other").id()));
        assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_secs(2));
    }
    assert_eq!((begins.parent_span_id, on.parent_span_id), (SpanId::from(trace.root()), SpanId::from(trace.root())));
    assert_eq!((root.span_context.span_id(), root.parent_span_id), (SpanId::from(trace.root()), SpanId::INVALID));
    assert_ne!(begins.span_context.span_id(), on.span_context.span_id());
}

#[test]
fn a_failure_is_a_failed_span() {
    let (traces, sink) = traces(Sampler::AlwaysOn);
    let failed = Sketch { error: Some("no answer".to_owned()), ..sketch("pass", Place::Root(Trace::of("p"))) };
    traces.tracer().draw(&failed);
    assert_eq!(sink.0.lock().unwrap()[0].status, Status::error("no answer"));
}

#[test]
fn a_running_span_follows_its_journey_and_what_it_calls_is_in_it() {
    let trace = Trace::of("journey");
    let (traces, sink) = traces(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    with_default(subscribed(&traces), || {
        let effect = info_span!(target: "ip_address_controller::x", "effect", otel.name = "netipallocation.attach");
        follow(&effect, trace);
        effect
            .in_scope(|| info_span!(target: "ip_address_controller::y", "call", otel.kind = "client").in_scope(|| {}));
    });
    let told = sink.0.lock().unwrap();
    let [call, effect] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(effect.name, "netipallocation.attach");
    assert_eq!(effect.parent_span_id, SpanId::from(trace.root()));
    assert_eq!(call.parent_span_id, effect.span_context.span_id());
    assert_eq!(call.span_context.trace_id(), TraceId::from(trace.id()));
}

#[test]
fn what_is_no_part_of_a_journey_or_a_pass_is_not_kept_and_neither_are_the_libraries_spans() {
    let (traces, sink) = traces(Sampler::AlwaysOn);
    with_default(subscribed(&traces), || {
        info_span!(target: "ip_address_controller::cloud", "survey").in_scope(|| {});
        info_span!(target: "kube_client::client", "HTTP").in_scope(|| {});
    });
    assert!(sink.0.lock().unwrap().is_empty(), "{sink:?}");
}

/// Each process asks its own sampler, which sees the root in one of them only.
#[test]
fn a_journey_is_kept_whole_or_not_at_all() {
    for sampler in [Sampler::TraceIdRatioBased(0.5), Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.5)))] {
        let (traces, sink) = traces(sampler);
        for n in 0..100 {
            let trace = Trace::of(&n.to_string());
            traces.tracer().draw(&sketch("part", Place::Under(trace)));
            with_default(subscribed(&traces), || {
                let effect = info_span!(target: "ip_address_controller::x", "effect");
                follow(&effect, trace);
                effect.in_scope(|| {});
            });
            traces.tracer().draw(&sketch("root", Place::Root(trace)));
        }
        let told = sink.0.lock().unwrap();
        let mut parts = std::collections::BTreeMap::<String, usize>::new();
        for span in told.iter() {
            *parts.entry(span.span_context.trace_id().to_string()).or_default() += 1;
        }
        assert!((20..80).contains(&parts.len()), "{} of 100", parts.len());
        assert!(parts.values().all(|count| *count == 3), "{parts:?}");
    }
}

#[test]
fn what_is_not_delivered_is_said_once_and_once_that_it_is_again() {
    let page = Page::default();
    let log = crate::telemetry::subscriber("info", crate::settings::LogFormat::Json, page.clone(), None);
    let sink = Sink::default();
    let told = Told::new(sink.clone(), Late::default());
    with_default(log, || {
        for failing in [true, true, false, false, true] {
            sink.1.store(failing, std::sync::atomic::Ordering::Relaxed);
            futures::executor::block_on(told.export(Vec::new())).unwrap();
        }
    });
    let page = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    let said: Vec<bool> = page.lines().map(|line| line.contains("cannot be delivered")).collect();
    assert_eq!(said, [true, false, true], "{page}");
    assert!(page.contains("nobody listens") && page.contains("delivered again"), "{page}");
}

#[test]
fn what_is_found_out_late_of_the_sender_is_added_once_and_the_users_word_stays() {
    let key = opentelemetry::Key::from_static_str("k8s.cluster.uid");
    for (said, told) in [(None, "found"), (Some("the user's"), "the user's")] {
        let (sink, late) = (Sink::default(), Late::default());
        let mut exporter = Told::new(sink.clone(), late.clone());
        let known = said.map(|uid| KeyValue::new(key.clone(), uid));
        let name = KeyValue::new("service.name", "x");
        exporter.set_resource(&Resource::builder_empty().with_attribute(name).with_attributes(known).build());
        for n in 0..3 {
            futures::executor::block_on(exporter.export(Vec::new())).unwrap();
            if n == 0 {
                late.say(KeyValue::new(key.clone(), "found"));
            }
        }
        let resources = sink.2.lock().unwrap();
        assert_eq!(resources.len(), if said.is_some() { 1 } else { 2 }, "{resources:?}");
        let last = resources.last().unwrap();
        assert_eq!(last.get(&key).map(|uid| uid.to_string()).as_deref(), Some(told));
        assert!(last.get(&opentelemetry::Key::from_static_str("service.name")).is_some(), "{last:?}");
    }
}

#[test]
fn a_line_within_a_trace_says_its_ids_at_the_top() {
    let trace = Trace::of("journey");
    let (traces, _) = traces(Sampler::AlwaysOn);
    let page = Page::default();
    let tracer = Some(traces.sdk_tracer());
    let log = crate::telemetry::subscriber("info", crate::settings::LogFormat::Json, page.clone(), tracer);
    with_default(log, || {
        tracing::info!(target: "ip_address_controller::x", "outside");
        let effect = info_span!(target: "ip_address_controller::x", "effect", netipallocation.ip = "203.0.113.7", otel.name = "y");
        follow(&effect, trace);
        effect.in_scope(|| tracing::info!(target: "ip_address_controller::x", crd = "sip", "inside"));
    });
    let page = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    let [outside, inside] = page.lines().collect::<Vec<_>>()[..] else { panic!("{page}") };
    assert!(!outside.contains("trace_id"), "{outside}");
    let start = format!("\"target\":\"ip_address_controller::x\",\"trace_id\":\"{trace}\",\"span_id\":\"");
    assert!(inside.contains(&start), "{inside}");
    assert!(inside.contains("\"crd\":\"sip\",\"ip\":\"203.0.113.7\"") && !inside.contains("otel"), "{inside}");
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
