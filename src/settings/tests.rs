use std::collections::BTreeMap;

use super::*;

fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Command, SettingsError> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let args = std::iter::once("ip-address-controller").chain(args.iter().copied());
    Command::parse_from(args.map(OsString::from), |name| env.get(name).map(OsString::from))
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Settings {
    match parse(args, env) {
        Ok(Command::Run(settings)) => settings,
        other => panic!("{other:?}"),
    }
}

fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    let error = parse(args, env).unwrap_err();
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(error.exit_code(), 2, "{text}");
    text
}

#[test]
fn nothing_said_is_every_default() {
    let settings = run(&[], &[]);
    let expected = Settings {
        lease_name: "ip-address-controller-leader".into(),
        lease_duration: Duration::from_secs(60),
        lease_skew: Duration::from_secs(2),
        metrics_port: 9999,
        health_port: 8080,
        bind_address: None,
        controller_version: "2.0.0".into(),
        cluster_name: None,
        log_level: "info".into(),
        log_format: LogFormat::Json,
        pod_name: None,
        pod_namespace: None,
        pod_uid: None,
        node_name: None,
        max_concurrent_reconciles: 4,
        max_concurrent_effects: 32,
        cloud_qps: 5.0,
        cloud_burst: 10,
        cloud_timeout: Duration::from_secs(30),
        cloud_operation_timeout: Duration::from_secs(120),
        disruption_taints: DISRUPTION_TAINTS.map(str::to_owned).to_vec(),
        watch_label_selector: None,
        controller_mode: ControllerMode::AsWritten,
        allow_insecure_endpoint: false,
        google_compute_custom_endpoint: None,
        aws_endpoint_url_ec2: None,
        azure_resource_manager_endpoint: None,
        azure_authority_host: None,
    };
    assert_eq!(settings, expected);
}

#[test]
fn an_empty_variable_is_an_absent_one() {
    let empty: Vec<_> = VARIABLES.iter().map(|name| (*name, "")).collect();
    assert_eq!(run(&[], &empty), run(&[], &[]));
}

#[test]
fn every_variable_is_read_and_every_flag_is_its_equal() {
    let values = [
        ("LEASE_NAME", "other"),
        ("LEASE_DURATION", "15"),
        ("LEASE_SKEW_GRACE_SEC", "3"),
        ("METRICS_PORT", "9998"),
        ("HEALTH_PORT", "8081"),
        ("BIND_ADDRESS", "::1"),
        ("CONTROLLER_VERSION", "9.9"),
        ("CLUSTER_NAME", "prod-1"),
        ("LOG_LEVEL", "warn,kube=debug"),
        ("LOG_FORMAT", "logfmt"),
        ("POD_NAME", "pod-0"),
        ("POD_NAMESPACE", "kube-system"),
        ("POD_UID", "0f3c"),
        ("NODE_NAME", "node-a"),
        ("MAX_CONCURRENT_RECONCILES", "5"),
        ("MAX_CONCURRENT_EFFECTS", "33"),
        ("CLOUD_QPS", "0.5"),
        ("CLOUD_BURST", "11"),
        ("CLOUD_TIMEOUT", "500ms"),
        ("CLOUD_OPERATION_TIMEOUT", "3m"),
        ("DISRUPTION_TAINTS", "a, example.com/b"),
        ("WATCH_LABEL_SELECTOR", "team=voice,tier in (a,b)"),
        ("CONTROLLER_MODE", "Observe"),
        ("ALLOW_INSECURE_ENDPOINT", "true"),
        ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", "http://sim.test:8000"),
        ("AWS_ENDPOINT_URL", "http://sim.test:8001"),
        ("AWS_ENDPOINT_URL_EC2", "http://sim.test:8002"),
        ("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://sim.test:8003"),
        ("AZURE_AUTHORITY_HOST", "http://sim.test:8004"),
    ];
    assert_eq!(values.map(|(name, _)| name), VARIABLES);
    let by_env = run(&[], &values);
    let flags = values.map(|(name, value)| format!("--{}={value}", name.to_lowercase().replace('_', "-")));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    assert_eq!(run(&flags, &[]), by_env);

    let plain = format!("{:?}", run(&[], &[]));
    let set = format!("{by_env:?}");
    let fields = |text: &str| text.split(", ").map(str::to_owned).collect::<Vec<_>>();
    for field in fields(&plain) {
        assert!(!set.contains(&format!("{field},")), "{field} kept its default");
    }
}

#[test]
fn a_flag_wins_over_the_environment_wherever_it_stands() {
    let env = [("LEASE_NAME", "env")];
    assert_eq!(run(&["--lease-name", "flag"], &env).lease_name, "flag");
    assert_eq!(run(&["--lease-name", "flag", "run"], &env).lease_name, "flag");
    assert_eq!(run(&["run", "--lease-name", "flag"], &env).lease_name, "flag");
}

#[test]
fn a_wrong_value_is_one_line_with_the_variable_and_the_accepted_form() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("LEASE_NAME", &["Upper", "a_b", "-a", "a..b"], "a Kubernetes name"),
        ("LEASE_DURATION", &["2", "60s", "1.5", "-3", "86401"], "whole seconds from 3 to 86400"),
        ("LEASE_SKEW_GRACE_SEC", &["30", "-1", "1s"], "less than half of LEASE_DURATION"),
        ("METRICS_PORT", &["0", "65536", "tcp://10.0.0.1:9999"], "from 1 to 65535"),
        ("HEALTH_PORT", &["http", "9999"], "port|from 1 to 65535"),
        ("BIND_ADDRESS", &["localhost", "1.2.3.4:80", "1.2.3"], "an IP address"),
        ("LOG_LEVEL", &["inof", "info,debgu", "kube=loud"], "error, warn, info"),
        ("LOG_FORMAT", &["text", "JSON"], "json or logfmt"),
        ("MAX_CONCURRENT_RECONCILES", &["0", "1e3"], "from 1 to 1000"),
        ("MAX_CONCURRENT_EFFECTS", &["0"], "from 1 to 10000"),
        ("CLOUD_QPS", &["0", "-1", "NaN", "inf", "five"], "a number from 0.001"),
        ("CLOUD_BURST", &["0", "2.5"], "from 1 to 100000"),
        ("CLOUD_TIMEOUT", &["30", "0s", "1d", "s", "-1s", "25h", "99999999999999999999s", "1.5s"], "500ms, 30s or 2m"),
        ("CLOUD_OPERATION_TIMEOUT", &["soon"], "500ms, 30s or 2m"),
        ("DISRUPTION_TAINTS", &["a b", ",", "a/b/c", "_a"], "taint keys"),
        ("WATCH_LABEL_SELECTOR", &["a=b=c", "in (a)", "a in b", "a,,b", "a in (b"], "a label selector"),
        ("CONTROLLER_MODE", &["observe", "Enforce"], "Observe, or nothing"),
        ("ALLOW_INSECURE_ENDPOINT", &["yes", "1"], "true or false"),
        (
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT",
            &["sim.test", "ftp://x", "https://", "https://h:0", "https://h:x", "https://u@h", "https://h/?q"],
            "a URL such as",
        ),
        (
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT",
            &["http://10.0.0.1", "http://localhost.evil.test", "http://127.0.0.1.evil.test:80"],
            "ALLOW_INSECURE_ENDPOINT=true",
        ),
    ];
    for (variable, values, accepted) in cases {
        for value in *values {
            let text = refusal(&[], &[(variable, value)]);
            assert!(text.starts_with(&format!("{variable}={value:?} ")), "{text}");
            assert!(accepted.split('|').any(|form| text.contains(form)), "{text}");
        }
    }
}

#[test]
fn a_wrong_flag_is_told_like_the_variable() {
    assert_eq!(refusal(&["--lease-duration=1"], &[]), refusal(&[], &[("LEASE_DURATION", "1")]));
}

#[test]
fn a_value_of_many_lines_is_still_told_in_one() {
    refusal(&[], &[("CLUSTER_NAME", "a\nb")]);
    refusal(&[], &[("LEASE_DURATION", "a\nb")]);
    refusal(&["--nonsense\nand more"], &[]);
}

#[cfg(unix)]
#[test]
fn bytes_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let env = |name: &str| (name == "CLUSTER_NAME").then(|| OsString::from_vec(vec![0xff]));
    let text = Command::parse_from([OsString::from("x")], env).unwrap_err().to_string();
    assert!(text.starts_with("CLUSTER_NAME=") && text.contains("UTF-8"), "{text}");
}

#[test]
fn a_command_line_that_is_not_understood_is_one_line() {
    for args in [&["--nonsense"][..], &["walk"], &["--lease-name"], &["release"], &["release", "--all", "x"]] {
        let text = refusal(args, &[]);
        assert!(text.ends_with("; see --help"), "{text}");
    }
    assert!(refusal(&["--nonsense"], &[]).contains("--nonsense"));
}

#[test]
fn help_and_version_are_answered_and_are_no_mistake() {
    for (flag, part) in [("--help", "--cloud-qps"), ("--version", "2.0.0")] {
        let asked = parse(&[flag], &[]).unwrap_err();
        assert_eq!(asked.exit_code(), 0);
        assert!(asked.to_string().contains(part), "{asked}");
    }
}

#[test]
fn each_subcommand_is_known() {
    assert!(matches!(parse(&["run"], &[]), Ok(Command::Run(_))));
    assert!(matches!(parse(&["check"], &[]), Ok(Command::Check(_))));
    let released = |args: &[&str]| match parse(args, &[]) {
        Ok(Command::Release(_, which)) => which,
        other => panic!("{other:?}"),
    };
    assert_eq!(released(&["release", "--all"]), Released::All);
    assert_eq!(released(&["release", "sip"]), Released::One("sip".into()));
}

#[test]
fn the_crd_is_printed_whatever_the_environment_says() {
    assert_eq!(parse(&["crd"], &[("LEASE_DURATION", "rubbish")]), Ok(Command::Crd));
}

#[test]
fn a_short_lease_gets_a_skew_that_leaves_room_to_act() {
    for (duration, skew) in [("3", 1), ("4", 1), ("5", 2), ("60", 2)] {
        let settings = run(&[], &[("LEASE_DURATION", duration)]);
        assert_eq!(settings.lease_skew.as_secs(), skew, "{duration}");
        let left = settings.lease_duration - settings.lease_skew;
        let between_renewals = settings.lease_duration / 6;
        assert!(left - between_renewals > settings.mutation_timeout(), "{duration}");
    }
}

#[test]
fn a_mutation_takes_at_most_a_third_of_the_lease() {
    assert_eq!(run(&[], &[]).mutation_timeout(), Duration::from_secs(20));
    let short = run(&[], &[("CLOUD_TIMEOUT", "5s")]);
    assert_eq!(short.mutation_timeout(), Duration::from_secs(5));
}

#[test]
fn plain_http_stays_on_this_machine_unless_allowed() {
    const NAME: &str = "GOOGLE_COMPUTE_CUSTOM_ENDPOINT";
    for fine in ["http://127.0.0.1:80", "http://[::1]:80/x", "http://localhost", "https://h.test"] {
        let settings = run(&[], &[(NAME, fine)]);
        assert_eq!(settings.google_compute_custom_endpoint.as_deref(), Some(fine));
    }
}

#[test]
fn the_endpoint_of_ec2_is_its_own_or_that_of_every_aws_api() {
    let endpoint = |env: &[(&str, &str)]| run(&[], env).aws_endpoint_url_ec2;
    let (all, ec2) = (("AWS_ENDPOINT_URL", "https://all.test"), ("AWS_ENDPOINT_URL_EC2", "https://ec2.test"));
    assert_eq!(endpoint(&[all]).as_deref(), Some("https://all.test"));
    assert_eq!(endpoint(&[all, ec2]).as_deref(), Some("https://ec2.test"));
    for variable in
        ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2", "AZURE_RESOURCE_MANAGER_ENDPOINT", "AZURE_AUTHORITY_HOST"]
    {
        assert!(refusal(&[], &[(variable, "http://10.0.0.1")]).contains("ALLOW_INSECURE_ENDPOINT=true"));
    }
}

#[test]
fn the_forms_of_kubectl_selectors_are_taken() {
    for fine in ["a", "!a", "a=b", "a==b", "a!=b", "a=", "x.io/a in (b, c)", "a notin (b)", "a,b=c"] {
        let settings = run(&[], &[("WATCH_LABEL_SELECTOR", fine)]);
        assert_eq!(settings.watch_label_selector.as_deref(), Some(fine));
    }
}

#[test]
fn the_identity_is_pod_and_uid_and_never_shared_by_two_processes_of_a_host() {
    let pod = run(&[], &[("POD_NAME", "pod-0"), ("POD_UID", "0f3c")]);
    assert_eq!(pod.identity(), "pod-0_0f3c");
    let host = run(&[], &[]);
    assert_eq!(host.identity(), host.identity());
    assert!(host.identity().len() > host.instance().len() + 30);
}
