//! Every value is known to the schema, told in the README, and changes what is rendered.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use anyhow::{Context, Result, ensure};
use e2e::{
    chart::{self, leaves, rows, spelled},
    stage,
};
use ip_address_controller::settings::VARIABLES;
use serde_json::{Value, json};

use super::helm::{self, Major};

/// Everything that can be on at once, so that a change of anything below it shows.
const ALL_ON: &[&str] = &[
    "podMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboards.enabled=true",
    "networkPolicy.enabled=true",
    "rbac.nodeGuard=true",
    r#"tracing={"enabled":true,"endpoint":"https://otel.example.com","headersSecret":{"name":"h"},"caSecret":{"name":"c"}}"#,
];

/// No effect, and told so.
const WITHOUT_EFFECT: [&str; 1] = ["enabled"];

/// A value, another one for it, and what else has to be set before it counts.
const CHANGES: &[(&str, &str, &[&str])] = &[
    ("global.imageRegistry", r#""registry.example""#, &[]),
    ("global.imagePullSecrets", r#"["pull"]"#, &[]),
    ("nameOverride", r#""other""#, &[]),
    ("fullnameOverride", r#""other""#, &[]),
    ("namespaceOverride", r#""other""#, &[]),
    ("commonLabels", r#"{"a":"b"}"#, &[]),
    ("commonAnnotations", r#"{"a":"b"}"#, &[]),
    ("crds.enabled", "false", &[]),
    ("crds.keep", "false", &[]),
    ("crds.annotations", r#"{"a":"b"}"#, &[]),
    ("image.registry", r#""registry.example""#, &[]),
    ("image.repository", r#""other/name""#, &[]),
    ("image.tag", r#""1.2.3""#, &[]),
    ("image.digest", r#""sha256:0000000000000000000000000000000000000000000000000000000000000000""#, &[]),
    ("image.pullPolicy", r#""Always""#, &[]),
    ("imagePullSecrets", r#"[{"name":"pull"}]"#, &[]),
    ("replicaCount", "3", &[]),
    ("revisionHistoryLimit", "3", &[]),
    ("strategy", r#"{"type":"Recreate"}"#, &[]),
    ("clusterName", r#""eu""#, &[]),
    ("controller.logLevel", r#""debug""#, &[]),
    ("controller.logFormat", r#""logfmt""#, &[]),
    ("controller.metricsPort", "9000", &[]),
    ("controller.healthPort", "8000", &[]),
    ("controller.bindAddress", r#""::""#, &[]),
    ("controller.maxConcurrentReconciles", "5", &[]),
    ("controller.maxConcurrentEffects", "5", &[]),
    ("controller.cloudApi.qps", "0.5", &[]),
    ("controller.cloudApi.burst", "5", &[]),
    ("controller.cloudApi.timeout", r#""5s""#, &[]),
    ("controller.cloudApi.operationTimeout", r#""5m""#, &[]),
    ("controller.mode", r#""Observe""#, &[]),
    ("controller.watchLabelSelector", r#""a=b""#, &[]),
    ("controller.disruptionTaints", r#"["a"]"#, &[]),
    ("leaderElection.leaseName", r#""other""#, &[]),
    ("leaderElection.leaseDurationSeconds", "30", &[]),
    ("leaderElection.skewGraceSeconds", "3", &[]),
    ("cloud.gcp.serviceAccount", r#""a@p.iam.gserviceaccount.com""#, &[]),
    ("cloud.gcp.existingSecret.name", r#""s""#, &[]),
    ("cloud.gcp.existingSecret.key", r#""other""#, &[r#"cloud.gcp.existingSecret.name="s""#]),
    ("cloud.aws.region", r#""eu-west-1""#, &[]),
    ("cloud.aws.roleArn", r#""arn:aws:iam::123456789012:role/r""#, &[]),
    ("cloud.aws.existingSecret.name", r#""s""#, &[]),
    ("cloud.azure.clientId", r#""11111111-2222-3333-4444-555555555555""#, &[]),
    (
        "cloud.azure.tenantId",
        r#""11111111-2222-3333-4444-666666666666""#,
        &[r#"cloud.azure.clientId="11111111-2222-3333-4444-555555555555""#],
    ),
    ("cloud.azure.existingSecret.name", r#""s""#, &[]),
    ("serviceAccount.create", "false", &[r#"serviceAccount.name="given""#]),
    ("serviceAccount.name", r#""other""#, &[]),
    ("serviceAccount.annotations", r#"{"a":"{{ .Release.Name }}"}"#, &[]),
    ("serviceAccount.labels", r#"{"a":"b"}"#, &[]),
    (
        "serviceAccount.automountServiceAccountToken",
        "false",
        &[r#"extraVolumes=[{"name":"t","emptyDir":{}}]"#, r#"extraVolumeMounts=[{"name":"t","mountPath":"/t"}]"#],
    ),
    ("rbac.create", "false", &[]),
    ("rbac.aggregateClusterRoles", "false", &[]),
    ("rbac.nodeGuard", "false", &[]),
    ("rbac.extraRules", r#"[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"]}]"#, &[]),
    ("admission.enabled", "false", &[]),
    ("deploymentAnnotations", r#"{"a":"b"}"#, &[]),
    ("podAnnotations", r#"{"a":"b"}"#, &[]),
    ("podLabels", r#"{"a":"b"}"#, &[]),
    ("podSecurityContext", r#"{"fsGroup":1}"#, &[]),
    ("securityContext", r#"{"runAsUser":1}"#, &[]),
    ("resources", r#"{"limits":{"cpu":"1"}}"#, &[]),
    ("livenessProbe", r#"{"periodSeconds":1}"#, &[]),
    ("readinessProbe", r#"{"periodSeconds":1}"#, &[]),
    ("startupProbe", r#"{"httpGet":{"path":"/livez","port":"health"}}"#, &[]),
    ("lifecycle", r#"{"preStop":{"sleep":{"seconds":1}}}"#, &[]),
    ("terminationGracePeriodSeconds", "40", &[]),
    ("priorityClass.create", "false", &[]),
    ("priorityClass.name", r#""other""#, &[]),
    ("priorityClass.value", "5", &[]),
    ("priorityClassName", r#""system-cluster-critical""#, &[]),
    ("podDisruptionBudget.enabled", "false", &[]),
    ("podDisruptionBudget.maxUnavailable", r#""50%""#, &[]),
    ("podDisruptionBudget.unhealthyPodEvictionPolicy", r#""IfHealthyBudget""#, &[]),
    ("nodeSelector", r#"{"a":"b"}"#, &[]),
    ("tolerations", "[]", &[]),
    ("configureDefaultAffinity", "false", &[]),
    ("affinity", r#"{"podAffinity":{}}"#, &[]),
    ("topologySpreadConstraints", "[]", &[]),
    ("schedulerName", r#""other""#, &[]),
    ("runtimeClassName", r#""gvisor""#, &[]),
    ("hostNetwork", "true", &["networkPolicy.enabled=false"]),
    ("dnsPolicy", r#""Default""#, &[]),
    ("dnsConfig", r#"{"searches":["example.com"]}"#, &[]),
    ("hostAliases", r#"[{"ip":"10.0.0.1","hostnames":["a"]}]"#, &[]),
    ("enableServiceLinks", "true", &[]),
    ("proxy.http", r#""http://p:1""#, &[]),
    ("proxy.https", r#""http://p:1""#, &[]),
    ("proxy.noProxy", r#""a""#, &[r#"proxy.https="http://p:1""#]),
    ("extraArgs", r#"["--cloud-qps=1"]"#, &[]),
    ("extraEnv", r#"[{"name":"A","value":"b"}]"#, &[]),
    ("extraEnvFrom", r#"[{"secretRef":{"name":"s"}}]"#, &[]),
    ("extraVolumes", r#"[{"name":"v","emptyDir":{}}]"#, &[]),
    ("extraVolumeMounts", r#"[{"name":"v","mountPath":"/v"}]"#, &[]),
    ("initContainers", r#"[{"name":"a","image":"b"}]"#, &[]),
    ("extraContainers", r#"[{"name":"a","image":"b"}]"#, &[]),
    ("extraObjects", r#"[{"kind":"X"}]"#, &[]),
    ("service.enabled", "false", &[]),
    ("service.type", r#""NodePort""#, &[]),
    ("service.port", "80", &[]),
    ("service.annotations", r#"{"a":"b"}"#, &[]),
    ("service.labels", r#"{"a":"b"}"#, &[]),
    ("service.ipFamilyPolicy", r#""PreferDualStack""#, &[]),
    ("service.ipFamilies", r#"["IPv6"]"#, &[]),
    ("networkPolicy.enabled", "false", &[]),
    ("networkPolicy.ingress", "[{}]", &[]),
    ("networkPolicy.egress", "[{}]", &[]),
    ("networkPolicy.extraEgress", "[{}]", &[]),
    ("podMonitor.enabled", "false", &[]),
    ("serviceMonitor.enabled", "true", &["podMonitor.enabled=false"]),
    ("prometheusRule.enabled", "false", &[]),
    ("prometheusRule.namespace", r#""other""#, &[]),
    ("prometheusRule.labels", r#"{"a":"b"}"#, &[]),
    ("prometheusRule.annotations", r#"{"a":"b"}"#, &[]),
    ("prometheusRule.additionalRuleLabels", r#"{"a":"b"}"#, &[]),
    ("prometheusRule.runbookBaseUrl", r#""https://example.com""#, &[]),
    ("prometheusRule.rules", r#"{"NetIPAllocationNoLeader":{"enabled":false}}"#, &[]),
    ("prometheusRule.extraRules", r#"[{"alert":"A","expr":"1"}]"#, &[]),
    ("dashboards.enabled", "false", &[]),
    ("dashboards.namespace", r#""other""#, &[]),
    ("dashboards.label", r#""other""#, &[]),
    ("dashboards.labelValue", r#""2""#, &[]),
    ("dashboards.annotations", r#"{"a":"b"}"#, &[]),
    ("tracing.enabled", "false", &[]),
    ("tracing.endpoint", r#""https://elsewhere.example.com""#, &[]),
    ("tracing.protocol", r#""http/protobuf""#, &[]),
    ("tracing.headersSecret.name", r#""other""#, &[]),
    ("tracing.headersSecret.key", r#""other""#, &[]),
    ("tracing.sampler", r#""always_on""#, &[]),
    ("tracing.samplerArg", r#""0.5""#, &[]),
    ("tracing.caSecret.name", r#""other""#, &[]),
    ("tracing.caSecret.key", r#""other""#, &[]),
    ("tracing.resourceAttributes", r#"{"a":"b"}"#, &[]),
    ("test.enabled", "false", &[]),
    ("simulator.enabled", "true", &[]),
    ("simulator.provider", r#""aws""#, &["simulator.enabled=true"]),
    ("simulator.nodes", "4", &["simulator.enabled=true"]),
    ("simulator.addresses", "3", &["simulator.enabled=true"]),
    ("simulator.image.registry", r#""registry.example""#, &["simulator.enabled=true"]),
    ("simulator.image.repository", r#""other/name""#, &["simulator.enabled=true"]),
    ("simulator.image.tag", r#""1.2.3""#, &["simulator.enabled=true"]),
    (
        "simulator.image.digest",
        r#""sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
        &["simulator.enabled=true"],
    ),
];

/// What both monitors have: key and another value.
const MONITOR: &[(&str, &str)] = &[
    ("namespace", r#""other""#),
    ("labels", r#"{"a":"b"}"#),
    ("annotations", r#"{"a":"b"}"#),
    ("interval", r#""1m""#),
    ("scrapeTimeout", r#""5s""#),
    ("honorLabels", "false"),
    ("jobLabel", r#""other""#),
    ("relabelings", r#"[{"action":"drop"}]"#),
    ("metricRelabelings", r#"[{"action":"drop"}]"#),
];

type Change = (String, String, Vec<String>);

fn changes() -> Vec<Change> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut all: Vec<Change> =
        CHANGES.iter().map(|(path, value, needs)| ((*path).to_owned(), (*value).to_owned(), owned(needs))).collect();
    for (key, value) in MONITOR {
        all.push((format!("podMonitor.{key}"), (*value).to_owned(), Vec::new()));
        let needs = owned(&["podMonitor.enabled=false", "serviceMonitor.enabled=true"]);
        all.push((format!("serviceMonitor.{key}"), (*value).to_owned(), needs));
    }
    all
}

fn read(name: &str) -> Result<String> {
    let path = stage::chart().join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn every_value_has_an_effect() -> Result<()> {
    let changes = changes();
    let tried: BTreeSet<String> = changes.iter().map(|(path, ..)| path.clone()).collect();
    ensure!(tried.len() == changes.len(), "a value is tried twice");
    let told: BTreeSet<String> = rows(&read("values.yaml")?)?.iter().map(|row| spelled(&row.path)).collect();
    let excused = WITHOUT_EFFECT.map(str::to_owned).into();
    ensure!(&told - &tried == excused, "not tried: {:?}", &told - &tried);
    ensure!(tried.is_subset(&told), "not in values.yaml: {:?}", &tried - &told);

    let mut known = BTreeMap::new();
    for (path, value, needs) in &changes {
        let change = format!("{path}={value}");
        let before: &String = match known.entry(needs) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(rendered(needs, None).with_context(|| format!("{needs:?}"))?),
        };
        let after = rendered(needs, Some(&change)).with_context(|| change.clone())?;
        ensure!(*before != after, "{change} changes nothing");
    }
    Ok(())
}

fn rendered(needs: &[String], change: Option<&str>) -> Result<String> {
    let values = ALL_ON.iter().copied().chain(needs.iter().map(String::as_str)).chain(change);
    let args: Vec<&str> = values.flat_map(|value| ["--set-json", value]).collect();
    helm::text(Major::Four, &args)
}

#[test]
fn every_value_is_told_in_the_readme() -> Result<()> {
    let (text, readme) = (read("values.yaml")?, read("README.md")?);
    ensure!(chart::readme(&readme, &text)? == readme, "the table is not that of values.yaml: make generate");
    let told: Vec<_> = rows(&text)?.into_iter().map(|row| row.path).collect();
    let silent: Vec<_> = leaves(&chart::parse(&text)?)
        .into_iter()
        .filter(|leaf| !told.iter().any(|row| leaf.starts_with(row)))
        .collect();
    ensure!(silent.is_empty(), "no comment tells {silent:?}");
    Ok(())
}

#[test]
fn the_schema_knows_every_value_and_no_other() -> Result<()> {
    let schema: Value = serde_json::from_str(&read("values.schema.json")?)?;
    let values = chart::parse(&read("values.yaml")?)?;
    for leaf in leaves(&values) {
        known(&schema, &leaf).with_context(|| format!("the schema does not know {}", spelled(&leaf)))?;
    }
    // And the other way round: what the schema allows by name is in values.yaml, where people look.
    let mut extra = Vec::new();
    unlisted(&schema, &schema, &values, &mut Vec::new(), &mut extra);
    ensure!(extra.is_empty(), "only in the schema: {extra:?}");
    Ok(())
}

#[test]
fn the_flags_that_extra_args_may_be_are_those_of_the_operator() -> Result<()> {
    let text = read("templates/refusals.yaml")?;
    let (_, list) = text.split_once(r#"$flags := splitList " " ""#).context("refusals.yaml has no list of flags")?;
    let (list, _) = list.split_once('"').context("the list of flags does not end")?;
    let told: BTreeSet<String> = list.split(' ').map(str::to_owned).collect();
    let known: BTreeSet<String> = VARIABLES.iter().map(|name| name.to_lowercase().replace('_', "-")).collect();
    ensure!(told == known, "{:?}", &told ^ &known);
    Ok(())
}

fn resolved<'a>(schema: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => part,
    }
}

/// Follows a path down; ends early where anything is allowed, as Kubernetes takes it.
fn known(schema: &Value, path: &[String]) -> Result<()> {
    let mut part = schema;
    for key in path {
        let properties = &part["properties"];
        if properties.is_null() {
            ensure!(part["additionalProperties"] != json!(false), "nothing is allowed there");
            return Ok(());
        }
        part = resolved(schema, properties.get(key).with_context(|| format!("no property {key}"))?);
    }
    Ok(())
}

fn unlisted(schema: &Value, part: &Value, values: &Value, at: &mut Vec<String>, extra: &mut Vec<String>) {
    for (key, property) in part["properties"].as_object().into_iter().flatten() {
        at.push(key.clone());
        let property = resolved(schema, property);
        // Pull secrets may be maps, and what global holds is the parent chart's.
        let closed = property["properties"].is_null() || property["additionalProperties"] == json!(false);
        if values.get(key).is_none() || !(closed || key == "global") {
            extra.push(spelled(at));
        } else {
            unlisted(schema, property, &values[key], at, extra);
        }
        at.pop();
    }
}
