//! Values that cannot work are refused before anything reaches the cluster, in a sentence that names the key and the way out.

use anyhow::{Context, Result, ensure};

use super::helm::{self, BOTH};

/// Values as `--set-json` takes them, and what is said: the key, and what to do.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&[r#"image.repository="registry:5000/app:1.0""#], &["image.repository", "image.tag"]),
    (&[r#"image.repository="Team/app""#], &["image.repository \"Team/app\"", "lower case"]),
    (&[r#"image.repository="team/app/""#], &["image.repository", "like team/app"]),
    (&[r#"image.tag="2.0.0 ""#], &["image.tag \"2.0.0 \"", "without spaces"]),
    (&[r#"image.registry="https://registry.example""#], &["image.registry", "without https://"]),
    (&[r#"image.registry="registry.example/""#], &["image.registry", "without / at the end"]),
    (&[r#"global.imageRegistry="http://registry.example""#], &["global.imageRegistry", "registry.example.com:5000"]),
    (&[r#"simulator.image.repository="Team/simulator""#], &["simulator.image.repository", "lower case"]),
    (&[r#"simulator.image.tag="a b""#], &["simulator.image.tag", "without spaces"]),
    (&[r#"simulator.image.registry="registry.example/""#], &["simulator.image.registry", "without / at the end"]),
    (&[r#"podLabels={"a b":"c"}"#], &["podLabels", "\"a b\" is no key", "letters, digits"]),
    (&[r#"podLabels={"a":"b c"}"#], &["podLabels", "\"b c\" is no value of label a"]),
    (&[r#"podLabels={"app":"mine"}"#], &["podLabels sets app,", "leave it out"]),
    (&[r#"commonLabels={"app":"mine"}"#], &["commonLabels sets app,", "leave it out"]),
    (
        &[r#"commonLabels={"app.kubernetes.io/name":"mine"}"#],
        &["commonLabels sets app.kubernetes.io/name", "leave it out"],
    ),
    (&[r#"service.labels={"app":"mine"}"#], &["service.labels sets app,", "leave it out"]),
    (&[r#"serviceAccount.labels={"-a":"b"}"#], &["serviceAccount.labels", "\"-a\" is no key"]),
    (&[r#"podMonitor.labels={"release":"a/b"}"#], &["podMonitor.labels", "is no value of label release"]),
    (&["strategy.rollingUpdate={\"maxUnavailable\":0,\"maxSurge\":\"0%\"}"], &["strategy.rollingUpdate", "raise one"]),
    (&["podDisruptionBudget.maxUnavailable=0"], &["podDisruptionBudget.maxUnavailable", "set it to 1 or more"]),
    (
        &[r#"priorityClassName="here""#, r#"priorityClass.name="made""#],
        &["priorityClassName \"here\"", "priorityClass.name \"made\"", "leave priorityClass.name empty"],
    ),
    (&["priorityClass.create=false", r#"priorityClass.name="made""#], &["priorityClass.name", "priorityClassName"]),
    (&[r#"priorityClass.name="system-mine""#], &["priorityClass.name", "priorityClassName"]),
    (&[r#"dnsPolicy="None""#], &["dnsPolicy", "set dnsConfig.nameservers"]),
    (&["controller.healthPort=9999"], &["controller.healthPort", "controller.metricsPort", "9999"]),
    (&[r#"controller.bindAddress="localhost""#], &["controller.bindAddress", "leave it empty"]),
    (&[r#"controller.bindAddress="10.0.0.256""#], &["controller.bindAddress", "not an IP address"]),
    (&[r#"controller.bindAddress="1::2::3""#], &["controller.bindAddress", "not an IP address"]),
    (&[r#"controller.bindAddress="127.0.0.1""#], &["controller.bindAddress \"127.0.0.1\"", "probes", "leave it empty"]),
    (&[r#"controller.bindAddress="::1""#], &["controller.bindAddress \"::1\"", "probes", "leave it empty"]),
    (&[r#"controller.logLevel="infos""#], &["controller.logLevel", "info,kube=debug"]),
    (&[r#"controller.logLevel="info,loud""#], &["controller.logLevel", "\"loud\""]),
    (&[r#"controller.cloudApi.timeout="0s""#], &["controller.cloudApi.timeout", "1ms to 24h"]),
    (&[r#"controller.cloudApi.operationTimeout="25h""#], &["controller.cloudApi.operationTimeout", "1ms to 24h"]),
    (&[r#"controller.watchLabelSelector="team in (a""#], &["controller.watchLabelSelector", "tier in (a,b)"]),
    (&["leaderElection.skewGraceSeconds=30"], &["leaderElection.skewGraceSeconds 30", "at most 29"]),
    (
        &["leaderElection.leaseDurationSeconds=5", "leaderElection.skewGraceSeconds=3"],
        &["leaderElection.leaseDurationSeconds 5", "at most 2"],
    ),
    (&[r#"extraEnv=[{"name":"LOG_LEVEL","value":"debug"}]"#], &["extraEnv", "LOG_LEVEL"]),
    (
        &[
            r#"extraEnv=[{"name":"OTEL_TRACES_SAMPLER","value":"always_on"}]"#,
            r#"tracing={"enabled":true,"endpoint":"http://otel:4317"}"#,
        ],
        &["extraEnv", "OTEL_TRACES_SAMPLER"],
    ),
    (&[r#"extraArgs=["--health-port=1"]"#], &["extraArgs sets --health-port", "use controller.healthPort"]),
    (&[r#"extraArgs=["--metrics-port=1"]"#], &["extraArgs sets --metrics-port", "use controller.metricsPort"]),
    (&[r#"extraArgs=["--bind-address=::"]"#], &["extraArgs sets --bind-address", "use controller.bindAddress"]),
    (&[r#"extraArgs=["--lease-name=x"]"#], &["extraArgs sets --lease-name", "use leaderElection.leaseName"]),
    (&[r#"extraArgs=["--pod-uid=x"]"#], &["extraArgs sets --pod-uid", "leave it out"]),
    (&[r#"extraArgs=["--lease-names=x"]"#], &["extraArgs", "no flag \"--lease-names\"", "README.md"]),
    (&[r#"extraArgs=["--cloud-qps"]"#], &["extraArgs", "write --cloud-qps=VALUE"]),
    (&["terminationGracePeriodSeconds=24"], &["terminationGracePeriodSeconds 24", "set it to 25 or more"]),
    (
        &[r#"lifecycle={"preStop":{"sleep":{"seconds":10}}}"#],
        &["terminationGracePeriodSeconds 30", "set it to 35 or more"],
    ),
    (
        &[r#"serviceAccount={"create":false,"name":"given","annotations":{"a":"b"}}"#],
        &["serviceAccount.annotations", "put them on the account yourself"],
    ),
    (
        &["simulator.enabled=true", r#"cloud.aws.existingSecret.name="keys""#],
        &["cloud.aws.existingSecret.name", "simulator.enabled", "leave one of them"],
    ),
    (
        &["simulator.enabled=true", r#"serviceAccount.annotations={"eks.amazonaws.com/role-arn":"r"}"#],
        &["serviceAccount.annotations", "eks.amazonaws.com/role-arn", "simulator.enabled", "leave one of them"],
    ),
    (&["serviceAccount.create=false"], &["serviceAccount.name", "name an account"]),
    (
        &["serviceAccount.automountServiceAccountToken=false"],
        &["serviceAccount.automountServiceAccountToken", "extraVolumes and extraVolumeMounts"],
    ),
    (
        &[
            r#"serviceAccount={"create":false,"name":"given"}"#,
            r#"cloud.gcp.serviceAccount="a@p.iam.gserviceaccount.com""#,
        ],
        &["cloud.gcp.serviceAccount", "annotate it yourself"],
    ),
    (
        &[
            r#"serviceAccount={"create":false,"name":"given"}"#,
            r#"cloud.aws.roleArn="arn:aws:iam::123456789012:role/r""#,
        ],
        &["cloud.aws.roleArn", "annotate it yourself"],
    ),
    (
        &["rbac.create=false", r#"rbac.extraRules=[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]"#],
        &["rbac.extraRules", "set rbac.create"],
    ),
    (
        &[r#"cloud.gcp={"serviceAccount":"a@p.iam.gserviceaccount.com","existingSecret":{"name":"s"}}"#],
        &["cloud.gcp.serviceAccount", "cloud.gcp.existingSecret.name", "leave one empty"],
    ),
    (
        &[r#"cloud.aws={"roleArn":"arn:aws:iam::123456789012:role/r","existingSecret":{"name":"s"}}"#],
        &["cloud.aws.roleArn", "cloud.aws.existingSecret.name", "leave one empty"],
    ),
    (
        &[r#"cloud.azure={"clientId":"11111111-2222-3333-4444-555555555555","existingSecret":{"name":"s"}}"#],
        &["cloud.azure.clientId", "cloud.azure.existingSecret.name", "leave one empty"],
    ),
    (
        &[r#"cloud.azure.tenantId="11111111-2222-3333-4444-555555555555""#],
        &["cloud.azure.tenantId", "cloud.azure.clientId", "set both"],
    ),
    (&[r#"proxy.https="proxy:3128""#], &["proxy.https", "http://proxy.example.com:3128"]),
    (&[r#"proxy.http="proxy:3128""#], &["proxy.http", "http://proxy.example.com:3128"]),
    (&[r#"proxy.noProxy="example.com""#], &["proxy.noProxy", "set proxy.https or proxy.http"]),
    (&["networkPolicy.enabled=true", "hostNetwork=true"], &["networkPolicy.enabled", "hostNetwork", "switch one"]),
    (
        &[r#"service.ipFamilies=["IPv4","IPv6"]"#, r#"service.ipFamilyPolicy="SingleStack""#],
        &["service.ipFamilies", "service.ipFamilyPolicy", "PreferDualStack"],
    ),
    (
        &["podMonitor.enabled=true", "serviceMonitor.enabled=true"],
        &["podMonitor.enabled and serviceMonitor.enabled", "switch one off"],
    ),
    (
        &["serviceMonitor.enabled=true", "service.enabled=false"],
        &["serviceMonitor.enabled", "set service.enabled", "podMonitor"],
    ),
    (&[r#"podMonitor.scrapeTimeout="31s""#], &["podMonitor.scrapeTimeout 31s", "podMonitor.interval 30s", "at most"]),
    (&[r#"serviceMonitor.interval="900ms""#], &["serviceMonitor.scrapeTimeout 10s", "serviceMonitor.interval 900ms"]),
    (
        &[r#"prometheusRule.rules.NetIPAllocationIPAttachFailures.window="0""#],
        &["prometheusRule.rules.NetIPAllocationIPAttachFailures.window", "set it to 1m or more"],
    ),
    (
        &[r#"prometheusRule.additionalRuleLabels={"my-team":"voice"}"#],
        &["prometheusRule.additionalRuleLabels", "\"my-team\"", "for example my_team"],
    ),
    (
        &[r#"prometheusRule.additionalRuleLabels={"severity":"low"}"#],
        &["prometheusRule.additionalRuleLabels sets severity", "prometheusRule.rules.NAME.severity"],
    ),
    (&["tracing.enabled=true"], &["tracing.enabled", "set tracing.endpoint"]),
    (
        &["tracing.enabled=true", r#"tracing.endpoint="otel:4317""#],
        &["tracing.endpoint \"otel:4317\"", "write http://otel:4317"],
    ),
    (
        &[r#"tracing={"enabled":true,"endpoint":"http://otel:4317","caSecret":{"name":"ca"}}"#],
        &["tracing.caSecret.name", "use https://"],
    ),
];

/// What the schema refuses: the key, in both Helms.
const UNFIT: &[(&str, &str)] = &[
    ("replicaCont=2", "replicaCont"),
    ("controller.logLevels=\"info\"", "logLevels"),
    ("controller.logFormat=\"xml\"", "/controller/logFormat"),
    ("controller.mode=\"Hold\"", "/controller/mode"),
    ("controller.metricsPort=70000", "/controller/metricsPort"),
    ("controller.cloudApi.qps=0", "/controller/cloudApi/qps"),
    ("controller.cloudApi.timeout=\"soon\"", "/controller/cloudApi/timeout"),
    ("controller.disruptionTaints=[\"a b\"]", "/controller/disruptionTaints/0"),
    ("leaderElection.leaseDurationSeconds=2", "/leaderElection/leaseDurationSeconds"),
    ("leaderElection.leaseName=\"Big\"", "/leaderElection/leaseName"),
    ("replicaCount=\"two\"", "/replicaCount"),
    ("image.digest=\"latest\"", "/image/digest"),
    ("image.pullPolicy=\"Sometimes\"", "/image/pullPolicy"),
    ("namespaceOverride=\"A_b\"", "/namespaceOverride"),
    ("strategy.type=\"Canary\"", "/strategy/type"),
    ("cloud.aws.roleArn=\"role\"", "/cloud/aws/roleArn"),
    ("cloud.aws.region=\"Ireland\"", "/cloud/aws/region"),
    ("cloud.azure.clientId=\"me\"", "/cloud/azure/clientId"),
    ("cloud.gcp.projectId=\"p\"", "projectId"),
    ("cloud.azure.workloadIdentity=true", "workloadIdentity"),
    ("cloud.aws.stsRegionalEndpoints=true", "stsRegionalEndpoints"),
    ("leaderElection.annotatePod=true", "annotatePod"),
    ("tracing.protocol=\"udp\"", "/tracing/protocol"),
    ("tracing.samplerArg=\"2\"", "/tracing/samplerArg"),
    ("podMonitor.interval=\"often\"", "/podMonitor/interval"),
    ("podMonitor.port=\"x\"", "port"),
    ("service.type=\"ExternalName\"", "/service/type"),
    ("extraArgs=[\"check\"]", "/extraArgs/0"),
    (
        "prometheusRule.rules.NetIPAllocationNoLeader.severity=\"bad\"",
        "/prometheusRule/rules/NetIPAllocationNoLeader/severity",
    ),
    (
        "prometheusRule.rules.NetIPAllocationNoLeader.for=\"5 minutes\"",
        "/prometheusRule/rules/NetIPAllocationNoLeader/for",
    ),
    ("prometheusRule.rules.NoSuchAlert={}", "NoSuchAlert"),
];

#[test]
fn what_cannot_work_is_refused_with_the_key_and_the_way_out() -> Result<()> {
    for (values, wanted) in REFUSED {
        let args: Vec<&str> = values.iter().flat_map(|value| ["--set-json", value]).collect();
        for major in BOTH {
            let Err(refused) = helm::text(major, &args) else { anyhow::bail!("{major:?}: {values:?} is let through") };
            let said = refused.to_string();
            for word in *wanted {
                ensure!(said.contains(word), "{major:?}: {values:?}: no {word:?} in {said}");
            }
            let (_, sentence) = said.split_once("refusals.yaml:").unwrap_or_default();
            let sentence = sentence.split_once(": ").unwrap_or_default().1;
            let (sentence, _) = sentence.split_once("\n\n").unwrap_or((sentence, ""));
            ensure!(sentence.trim().lines().count() == 1, "{major:?}: {values:?}: not one sentence: {said}");
        }
    }
    Ok(())
}

#[test]
fn all_that_is_wrong_is_told_at_once() -> Result<()> {
    let wrong = ["--set-json", r#"controller.bindAddress="x""#, "--set-json", "tracing.enabled=true"];
    for major in BOTH {
        let said = helm::text(major, &wrong).expect_err("it is let through").to_string();
        ensure!(said.contains("controller.bindAddress") && said.contains("tracing.endpoint"), "{major:?}: {said}");
    }
    Ok(())
}

#[test]
fn what_is_misspelt_or_of_the_wrong_form_does_not_pass_the_schema() -> Result<()> {
    for (value, key) in UNFIT {
        for major in BOTH {
            let Err(refused) = helm::text(major, &["--set-json", value]) else {
                anyhow::bail!("{major:?}: {value} is let through")
            };
            let said = refused.to_string();
            ensure!(said.contains("schema"), "{major:?}: {value}: not by the schema: {said}");
            // Helm 3 and 4 spell a path in two ways.
            let dotted = key.trim_start_matches('/').replace('/', ".");
            ensure!(said.contains(key) || said.contains(&dotted), "{major:?}: {value}: no {key} in {said}");
        }
    }
    Ok(())
}

#[test]
fn what_can_work_is_let_through() -> Result<()> {
    let fine: &[&[&str]] = &[
        &[r#"controller.bindAddress="::""#],
        &[r#"controller.bindAddress="10.0.0.1""#],
        &[r#"controller.logLevel="info,kube=debug""#],
        &[r#"controller.watchLabelSelector="team=voice, tier notin (a, b),!old, beta.example.com/x""#],
        &[r#"strategy={"type":"Recreate"}"#],
        &[r#"controller.bindAddress="::ffff:10.0.0.1""#],
        &[r#"image.repository="registry:5000/team/app""#],
        &[r#"image={"registry":"registry.example:5000/team","tag":"v2.0.0-rc.1_A"}"#],
        &[r#"commonLabels={"team.example.com/Name":"Voice_1","empty":""}"#],
        // A Prometheus may select its monitors by this one.
        &[r#"podMonitor.labels={"app":"prometheus"}"#],
        &["terminationGracePeriodSeconds=25"],
        &[r#"extraArgs=["--cloud-qps=1","--allow-insecure-endpoint=true"]"#],
        &["prometheusRule.enabled=true", r#"prometheusRule.rules.NetIPAllocationIPAttachFailures.window="1h0m""#],
        &["leaderElection.skewGraceSeconds=29"],
        &["replicaCount=0"],
        &["replicaCount=1", "podDisruptionBudget.maxUnavailable=0"],
        &[r#"dnsPolicy="None""#, r#"dnsConfig={"nameservers":["10.0.0.10"]}"#],
        &["hostNetwork=true"],
        &[
            r#"serviceAccount={"create":false,"name":"given"}"#,
            r#"cloud.azure.clientId="11111111-2222-3333-4444-555555555555""#,
        ],
        &[r#"extraEnv=[{"name":"OTEL_TRACES_SAMPLER","value":"always_on"}]"#],
        &["enabled=false", r#"global.somebodyElses={"key":1}"#],
        &["prometheusRule.enabled=true", "prometheusRule.additionalRuleLabels.team=null"],
    ];
    for values in fine {
        for major in BOTH {
            let args: Vec<&str> = values.iter().flat_map(|value| ["--set-json", value]).collect();
            helm::text(major, &args).with_context(|| format!("{major:?}: {values:?}"))?;
        }
    }
    Ok(())
}
