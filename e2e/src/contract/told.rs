//! What the spans of requests tell: the clause about that, and the telemetry of the process that it listens to.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use anyhow::{Context as _, bail, ensure};
use ip_address_controller::{
    lifecycle::Trace,
    settings::Command,
    telemetry::{self, Telemetry, traces},
};
use tracing::{Instrument as _, info_span};

use super::{Bench, ONE, PRIVATE, clauses::attach, ip};
use crate::{
    collector::{Collector, Span},
    world::Fault,
};

/// How a provider's requests show in traces.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The request that puts an address on, and its method.
    pub change: (&'static str, &'static str),
    /// The request that lists addresses, and its method.
    pub read: (&'static str, &'static str),
    /// The cloud's own id of a request.
    pub id: Option<&'static str>,
    /// Region and zone of the machine, where its provider ID names them.
    pub place: Option<(&'static str, &'static str)>,
    /// The look at a change under way; `None` where changes are answered when they are done.
    pub poll: Option<&'static str>,
    /// A read that the cloud is away for is sent again at once.
    pub reads_again: bool,
}

pub async fn a_request_tells_where_it_went_and_what_was_answered<B: Bench>(bench: &B) -> anyhow::Result<()> {
    let Told { change, read, id, place, poll, reads_again } = bench.words().told;
    // The machine's interface is empty: nothing has to be taken off before.
    let order = attach(bench, ONE, PRIVATE)?;
    let listening = Listening::begin().await?;
    let attached = bench.cloud().attach(&order).instrument(listening.span("attach")).await;
    bench.world().fail_next(bench.words().survey, Fault::refuse(503, "backendError", "come back later"));
    let found = bench.cloud().find(&bench.scope(), ip(ONE)?).instrument(listening.span("find")).await;
    let spans = listening.end().await;
    attached?;

    let changed = one(&spans, "attach", change.0)?;
    went(changed, change.1)?;
    says(changed, "http.response.status_code", Some("200"))?;
    says(changed, "http.request.resend_count", None)?;
    says(changed, "cloud.region", place.map(|(region, _)| region))?;
    says(changed, "cloud.availability_zone", place.map(|(_, zone)| zone))?;
    // The span of a change lasts until its end, and each look at it is an event and no span.
    let looks: Vec<_> = changed.events.iter().filter(|event| event.name == "poll").collect();
    let calls: Vec<_> = looks.iter().filter_map(|look| look.attributes.get("netipallocation.call")).collect();
    ensure!(calls.is_empty() == poll.is_none() && calls.iter().all(|call| Some(call.as_str()) == poll), "{looks:?}");
    for look in looks {
        ensure!(look.attributes.get("http.response.status_code").is_some_and(|status| status == "200"), "{look:?}");
        ensure!(look.attributes.contains_key("netipallocation.change"), "{look:?}");
    }
    ensure!(!spans.iter().any(|span| Some(span.name.as_str()) == poll), "{spans:?}");

    let asked = one(&spans, "find", read.0)?;
    went(asked, read.1)?;
    says(asked, "cloud.availability_zone", None)?;
    says(asked, "http.response.status_code", Some(if reads_again { "200" } else { "503" }))?;
    says(asked, "http.request.resend_count", reads_again.then_some("1"))?;
    ensure!(found.is_ok() == reads_again && asked.failed != reads_again, "{found:?} {asked:?}");
    says(asked, "error.type", (!reads_again).then_some("unavailable"))?;

    let given: Vec<Option<&String>> = [changed, asked].map(|span| span.attributes.get(id?)).to_vec();
    ensure!(given.iter().all(|given| given.is_some() == id.is_some()), "{id:?}: {spans:?}");
    ensure!(id.is_none() || given.first() != given.last(), "two requests with one id: {given:?}");
    Ok(())
}

/// Its first request of that name.
fn one<'a>(spans: &'a [Span], within: &str, name: &str) -> anyhow::Result<&'a Span> {
    let trace = Trace::of(within).to_string();
    let found = spans.iter().find(|span| span.trace == trace && span.name == name);
    found.with_context(|| format!("no {name} in {spans:#?}"))
}

fn went(span: &Span, method: &str) -> anyhow::Result<()> {
    ensure!(span.client, "not of kind client: {span:?}");
    says(span, "http.request.method", Some(method))?;
    says(span, "server.address", Some("127.0.0.1"))
}

fn says(span: &Span, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let said = span.attributes.get(key).map(String::as_str);
    ensure!(said == value, "{key} is {said:?}, not {value:?}: {span:?}");
    Ok(())
}

/// The telemetry of this process, as the operator sets it up: once a process, so for one clause alone.
struct Listening {
    collector: Collector,
    telemetry: Telemetry,
}

impl Listening {
    async fn begin() -> anyhow::Result<Self> {
        let collector = Collector::start().await?;
        let said = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("LOG_LEVEL", "off".to_owned())];
        let said = BTreeMap::from(said);
        let env = |name: &str| said.get(name).map(OsString::from);
        let Ok(Command::Run(settings)) = Command::parse_from([OsString::from("contract")], env) else {
            bail!("the settings are not understood");
        };
        Ok(Self { collector, telemetry: telemetry::init(&settings, env)? })
    }

    /// A span to do something in, in a trace of its own.
    fn span(&self, name: &str) -> tracing::Span {
        let span = info_span!(target: "ip_address_controller::contract", "work");
        traces::follow(&span, Trace::of(name));
        span
    }

    async fn end(self) -> Vec<Span> {
        self.telemetry.end(Duration::from_secs(10)).await;
        self.collector.spans()
    }
}
