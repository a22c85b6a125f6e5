use serde_json::Value;
use tracing::{debug, error, info, info_span, subscriber::with_default, warn};

use super::{foreign::Page, *};

fn logged(level: &str, format: LogFormat, work: impl FnOnce()) -> Vec<String> {
    let page = Page::default();
    with_default(subscriber(level, format, page.clone(), None), work);
    let bytes = page.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

fn keys_in_order(line: &str) -> Vec<String> {
    let parsed: Value = serde_json::from_str(line).unwrap();
    let mut keys: Vec<String> = parsed.as_object().unwrap().keys().cloned().collect();
    keys.sort_by_key(|key| line.find(&format!("\"{key}\":")).unwrap());
    keys
}

#[test]
fn a_json_line_has_the_known_keys_first_and_each_value_in_its_type() {
    let lines = logged("info", LogFormat::Json, || {
        info!(tries = 3_u64, ip = "203.0.113.7", crd = "sip", node = %"node-a", ok = true, "attached \"it\"");
    });
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(keys_in_order(line), ["ts", "level", "msg", "target", "crd", "node", "ip", "leader", "tries", "ok"]);
    let parsed: Value = serde_json::from_str(line).unwrap();
    assert_eq!(parsed["msg"], "attached \"it\"");
    assert_eq!(parsed["level"], "info");
    assert_eq!(parsed["tries"], 3);
    assert_eq!(parsed["ok"], true);
    assert_eq!(parsed["node"], "node-a");
    let ts = parsed["ts"].as_str().unwrap();
    assert!(ts.parse::<jiff::Timestamp>().is_ok() && ts.len() == "2026-01-01T00:00:00.000Z".len(), "{ts}");
}

#[test]
fn a_logfmt_line_has_version_ones_keys_and_order() {
    let lines = logged("info", LogFormat::Logfmt, || {
        warn!(
            why = "a b",
            provider = "gcp",
            error = "no answer",
            zone = "us-west1-a",
            ip = "203.0.113.7",
            node = "node-a",
            crd = "sip",
            "moved"
        );
    });
    let (ts, rest) = lines[0].split_once(' ').unwrap();
    assert!(ts.starts_with("ts=20"), "{ts}");
    assert_eq!(
        rest,
        "level=warn msg=\"moved\" crd=sip node=node-a ip=203.0.113.7 zone=us-west1-a error=\"no answer\" leader=false \
         provider=gcp why=\"a b\" target=ip_address_controller::telemetry::tests"
    );
}

#[test]
fn whatever_is_said_stays_one_line() {
    for format in [LogFormat::Json, LogFormat::Logfmt] {
        let lines = logged("info", format, || error!(error = "a\nb\r\u{0}", odd = ?"\n", "x\ny"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("a\\nb"), "{}", lines[0]);
    }
}

#[test]
fn the_fields_of_the_spans_around_are_told_and_the_nearest_word_counts() {
    let lines = logged("info", LogFormat::Json, || {
        let outer = info_span!("pass", crd = "sip", ip = "outer", node = tracing::field::Empty).entered();
        outer.record("node", "node-a");
        let _inner = info_span!("effect", ip = "inner").entered();
        info!("x");
        info!(ip = "own", "y");
    });
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&parsed[0]["crd"], &parsed[0]["ip"], &parsed[0]["node"]),
        (&"sip".into(), &"inner".into(), &"node-a".into())
    );
    assert_eq!(parsed[1]["ip"], "own");
}

#[test]
fn an_error_is_told_with_its_causes_and_without_repetition() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot attach")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("quota exceeded")]
    struct Inner;
    let failure = Outer(Inner);
    let lines = logged("info", LogFormat::Json, || {
        error!(error = &failure as &(dyn std::error::Error + 'static), "x");
    });
    let parsed: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(parsed["error"], "cannot attach: quota exceeded");
}

#[test]
fn a_field_does_not_take_a_key_of_ours() {
    let lines = logged("info", LogFormat::Json, || info!(level = "x", ts = 1, leader = "me", "m"));
    let parsed: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&parsed["level"], &parsed["level_"], &parsed["ts_"]), (&"info".into(), &"x".into(), &1.into()));
    assert_eq!((&parsed["leader"], &parsed["leader_"]), (&false.into(), &"me".into()));
}

#[test]
fn libraries_are_quiet_unless_they_are_named() {
    let say = || {
        debug!(target: "kube_client::client", "theirs");
        warn!(target: "kube_client::client", "their warning");
        debug!("ours");
    };
    let count = |level| logged(level, LogFormat::Json, say).len();
    assert_eq!(count("debug"), 2, "their debug is left out");
    assert_eq!(count("debug,kube_client=trace"), 3);
    assert_eq!(count("info"), 1);
    assert_eq!(count("error"), 0, "asked for errors, a library's warnings do not come");
}

#[test]
fn a_library_that_tells_credentials_at_trace_is_not_heard_there_even_by_its_name() {
    let said = || {
        tracing::trace!(target: "aws_sigv4::http_request", "x-amz-security-token:secret");
        tracing::debug!(target: "aws_sigv4::http_request", "signed");
        tracing::trace!(target: "ip_address_controller", "ours");
    };
    for level in ["trace", "aws_sigv4=trace,ip_address_controller=trace", "aws_sigv4::http_request=trace,trace"] {
        let lines = logged(level, LogFormat::Json, said);
        assert_eq!(lines.len(), 2, "{level}: {lines:?}");
        assert!(!lines.concat().contains("secret"), "{level}: {lines:?}");
    }
}
