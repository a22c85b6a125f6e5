//! What the standard `OTEL_*` variables say, as far as the SDK does not read them itself. Pure.
//!
//! Traces are a help and no more: what cannot be used is told in one line, and the operator works without them.

use std::{ffi::OsString, fmt::Display, path::PathBuf};

use opentelemetry_sdk::trace::Sampler;
use url::Url;

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// In full: with the path, where the protocol has one.
    pub endpoint: String,
    pub protocol: Protocol,
    /// Certificates to trust instead of the system's.
    pub certificate: Option<PathBuf>,
    pub sampler: Sampler,
}

/// How spans go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `None` is no traces.
    pub otlp: Option<Otlp>,
    /// What could not be used, a line each.
    pub complaints: Vec<String>,
}

/// Reads the variables.
pub fn read(env: impl Fn(&str) -> Option<OsString>) -> Wanted {
    let mut complaints = Vec::new();
    let env = |name: &str| text(&env, name);
    match wanted(env, &mut complaints) {
        Ok(otlp) => Wanted { otlp, complaints },
        Err(complaint) => Wanted { otlp: None, complaints: vec![format!("there are no traces: {complaint}")] },
    }
}

fn wanted(env: impl Fn(&str) -> Option<String>, complaints: &mut Vec<String>) -> Result<Option<Otlp>, String> {
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env(name)?)));
    if env("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let Some((variable, endpoint)) = first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
    else {
        return Ok(None);
    };
    match env("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(unusable("OTEL_TRACES_EXPORTER", other, "otlp or none")),
    }
    let protocol = match first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
        None => Protocol::HttpProtobuf,
        Some((_, text)) if text == "http/protobuf" => Protocol::HttpProtobuf,
        Some((_, text)) if text == "grpc" => Protocol::Grpc,
        Some((variable, text)) => return Err(unusable(variable, &text, "grpc or http/protobuf")),
    };
    let mut endpoint = checked(variable, &endpoint)?;
    if protocol == Protocol::HttpProtobuf && variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
        endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    }
    let certificate = first(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
    let sampler = sampler(env("OTEL_TRACES_SAMPLER"), env("OTEL_TRACES_SAMPLER_ARG")).unwrap_or_else(|complaint| {
        complaints.push(format!("every trace is kept: {complaint}"));
        Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
    });
    Ok(Some(Otlp { endpoint, protocol, certificate: certificate.map(|(_, path)| path.into()), sampler }))
}

/// An empty variable is an absent one, as the specification has it.
fn text(env: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<String> {
    Some(env(name)?.to_string_lossy().trim().to_owned()).filter(|text| !text.is_empty())
}

/// Releases of the SDK take an endpoint without a scheme for different things, so it has to have one.
fn checked(variable: &str, endpoint: &str) -> Result<String, String> {
    const FORM: &str = "a URL such as http://collector:4318, without user, query or fragment";
    let secret = endpoint.contains(['@', '?', '#']);
    let shown = if secret { "…" } else { endpoint };
    let usable = Url::parse(endpoint)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && !secret);
    if usable { Ok(endpoint.to_owned()) } else { Err(unusable(variable, shown, FORM)) }
}

fn sampler(name: Option<String>, argument: Option<String>) -> Result<Sampler, String> {
    const NAMES: &str = "always_on, always_off, traceidratio, or one of them after parentbased_";
    let ratio = || match argument.as_deref() {
        None => Ok(Sampler::TraceIdRatioBased(1.0)),
        Some(text) => match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Sampler::TraceIdRatioBased(ratio)),
            _ => Err(unusable("OTEL_TRACES_SAMPLER_ARG", text, "a number from 0 to 1")),
        },
    };
    let name = name.unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let root = match root {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => ratio()?,
        _ => return Err(unusable("OTEL_TRACES_SAMPLER", &name, NAMES)),
    };
    Ok(if parent_based { Sampler::ParentBased(Box::new(root)) } else { root })
}

fn unusable(variable: &str, value: &str, accepted: impl Display) -> String {
    format!("{variable}={value:?} cannot be used: expected {accepted}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn said(variables: &[(&str, &str)]) -> Wanted {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        read(|name| variables.get(name).map(OsString::from))
    }

    /// Endpoint, protocol and sampler; without a complaint.
    fn spans_go(variables: &[(&str, &str)]) -> (String, Protocol, String) {
        let Wanted { otlp, complaints } = said(variables);
        assert!(complaints.is_empty(), "{complaints:?}");
        let otlp = otlp.unwrap();
        (otlp.endpoint, otlp.protocol, format!("{:?}", otlp.sampler))
    }

    fn complaint(variables: &[(&str, &str)]) -> String {
        let Wanted { complaints, .. } = said(variables);
        let [complaint] = complaints.as_slice() else { panic!("{complaints:?}") };
        assert_eq!(complaint.lines().count(), 1);
        complaint.clone()
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn without_an_endpoint_there_are_no_traces_and_nothing_to_complain_of() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_TRACES_SAMPLER", "bad")],
        ] {
            let Wanted { otlp, complaints } = said(variables);
            assert!(otlp.is_none() && complaints.is_empty(), "{variables:?}: {complaints:?}");
        }
    }

    #[test]
    fn what_the_sdk_does_not_read_turns_traces_off() {
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            let Wanted { otlp, complaints } = said(&[ENDPOINT, off]);
            assert!(otlp.is_none() && complaints.is_empty(), "{off:?}");
        }
        assert!(said(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]).otlp.is_some());
    }

    #[test]
    fn http_is_the_default_and_the_path_belongs_to_the_general_endpoint_alone() {
        let (endpoint, protocol, sampler) = spans_go(&[ENDPOINT]);
        assert_eq!((endpoint.as_str(), protocol), ("http://collector:4318/v1/traces", Protocol::HttpProtobuf));
        assert_eq!(sampler, "ParentBased(AlwaysOn)");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://tempo.example.com/otlp/v1/traces");
        assert_eq!(spans_go(&[ENDPOINT, own]).0, own.1);
    }

    #[test]
    fn grpc_has_no_path_and_the_variable_for_traces_wins() {
        let (endpoint, protocol, _) = spans_go(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ]);
        assert_eq!((endpoint.as_str(), protocol), ("http://collector:4317", Protocol::Grpc));
    }

    #[test]
    fn samplers_are_the_six_of_the_specification() {
        let kept = |name, argument| {
            spans_go(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)]).2
        };
        assert_eq!(kept("always_off", ""), "AlwaysOff");
        assert_eq!(kept("traceidratio", "0.25"), "TraceIdRatioBased(0.25)");
        assert_eq!(kept("parentbased_traceidratio", ""), "ParentBased(TraceIdRatioBased(1.0))");
        assert_eq!(kept("parentbased_always_off", "odd"), "ParentBased(AlwaysOff)");
    }

    #[test]
    fn a_bad_sampler_is_one_complaint_and_everything_is_kept() {
        for (name, argument, named) in [
            ("sometimes", "", "OTEL_TRACES_SAMPLER=\"sometimes\""),
            ("parentbased_jaeger_remote", "", "OTEL_TRACES_SAMPLER="),
            ("traceidratio", "2", "OTEL_TRACES_SAMPLER_ARG=\"2\""),
            ("traceidratio", "NaN", "OTEL_TRACES_SAMPLER_ARG="),
        ] {
            let variables = [ENDPOINT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            let text = complaint(&variables);
            assert!(text.contains(named) && text.contains("every trace is kept"), "{text}");
            assert!(said(&variables).otlp.is_some());
        }
    }

    #[test]
    fn a_malformed_endpoint_is_one_complaint_and_no_traces() {
        for endpoint in ["collector:4317", "ftp://collector", "http://", "grpc://x:1", "nonsense"] {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
            let text = complaint(&variables);
            assert!(text.starts_with("there are no traces: OTEL_EXPORTER_OTLP_ENDPOINT="), "{text}");
            assert!(text.contains(endpoint) && text.contains("http://collector:4318"), "{text}");
            assert!(said(&variables).otlp.is_none());
        }
    }

    #[test]
    fn a_secret_in_an_endpoint_is_not_repeated() {
        for endpoint in ["http://user:hunter2@collector", "http://collector?token=hunter2"] {
            assert!(!complaint(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)]).contains("hunter2"));
        }
    }

    #[test]
    fn what_is_not_known_is_one_complaint_with_what_is() {
        for (variable, value, accepted) in [
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ] {
            let text = complaint(&[ENDPOINT, (variable, value)]);
            assert!(text.contains(variable) && text.contains(value) && text.contains(accepted), "{text}");
        }
    }

    #[test]
    fn a_certificate_may_be_named() {
        let wanted = said(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.crt")]);
        assert_eq!(wanted.otlp.unwrap().certificate, Some("/ca.crt".into()));
    }
}
