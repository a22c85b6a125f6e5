//! What single values change.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::stage::{NAMESPACE, RELEASE, chart};
use serde_json::{Value, json};

use super::helm::{self, Major, called, environment, of_kind, only, pod, text_of, with};

fn shape(name: &str) -> Result<Vec<Value>> {
    let file = chart().join("ci").join(format!("{name}-values.yaml"));
    helm::template(Major::Four, &["--values", &file.to_string_lossy()])
}

fn variable(objects: &[Value], name: &str) -> Result<Option<Value>> {
    Ok(environment(objects)?.into_iter().find(|(known, _)| known == name).map(|(_, value)| value))
}

fn annotation(objects: &[Value], key: &str) -> Result<Value> {
    Ok(only(objects, "ServiceAccount")?["metadata"]["annotations"][key].clone())
}

#[test]
fn each_cloud_is_told_who_the_operator_is_in_its_own_way() -> Result<()> {
    let gcp = shape("gcp")?;
    let account = "ip-address-controller@voip-prod.iam.gserviceaccount.com";
    ensure!(annotation(&gcp, "iam.gke.io/gcp-service-account")? == account);
    ensure!(variable(&gcp, "GOOGLE_APPLICATION_CREDENTIALS")?.is_none());

    let irsa = shape("aws-irsa")?;
    ensure!(annotation(&irsa, "eks.amazonaws.com/role-arn")? == "arn:aws:iam::123456789012:role/ip-address-controller");
    ensure!(variable(&irsa, "AWS_REGION")? == Some(json!("eu-west-1")));

    // The association in EKS is made for this name, before or after.
    let pod_identity = shape("aws-pod-identity")?;
    let account = only(&pod_identity, "ServiceAccount")?;
    ensure!(account["metadata"]["name"] == "ip-address-controller" && account["metadata"]["annotations"].is_null());
    ensure!(pod(&pod_identity)?["spec"]["serviceAccountName"] == "ip-address-controller");

    // The webhook does nothing without the label on the pod.
    let azure = shape("azure")?;
    ensure!(annotation(&azure, "azure.workload.identity/client-id")? == "11111111-2222-3333-4444-555555555555");
    ensure!(annotation(&azure, "azure.workload.identity/tenant-id")? == "72f988bf-0000-0000-0000-2d7cd011db47");
    ensure!(pod(&azure)?["metadata"]["labels"]["azure.workload.identity/use"] == "true");
    ensure!(only(&azure, "Pod")?["metadata"]["labels"]["azure.workload.identity/use"] == "true");
    ensure!(pod(&gcp)?["metadata"]["labels"]["azure.workload.identity/use"].is_null());
    // Also where the annotation is set by hand.
    let by_hand = with(&[r#"serviceAccount.annotations={"azure.workload.identity/client-id":"{{ .Release.Name }}"}"#])?;
    ensure!(annotation(&by_hand, "azure.workload.identity/client-id")? == RELEASE);
    ensure!(pod(&by_hand)?["metadata"]["labels"]["azure.workload.identity/use"] == "true");
    ensure!(only(&by_hand, "Pod")?["metadata"]["labels"]["azure.workload.identity/use"] == "true");
    Ok(())
}

#[test]
fn a_secret_of_each_cloud_reaches_the_operator_and_its_check() -> Result<()> {
    let objects = with(&[
        r#"cloud.gcp.existingSecret={"name":"gcp-key","key":"key.json"}"#,
        r#"cloud.aws.existingSecret.name="aws-keys""#,
        r#"cloud.azure.existingSecret.name="azure-app""#,
    ])?;
    for spec in [&pod(&objects)?["spec"], &only(&objects, "Pod")?["spec"]] {
        let container = &spec["containers"][0];
        let from = json!([{"secretRef": {"name": "aws-keys"}}, {"secretRef": {"name": "azure-app"}}]);
        ensure!(container["envFrom"] == from, "{}", container["envFrom"]);
        let mount = json!([{"name": "gcp-credentials", "mountPath": "/var/run/secrets/gcp", "readOnly": true}]);
        ensure!(container["volumeMounts"] == mount, "{}", container["volumeMounts"]);
        ensure!(spec["volumes"][0]["secret"]["secretName"] == "gcp-key");
        let mut env = container["env"].as_array().into_iter().flatten();
        let file = env.find(|entry| entry["name"] == "GOOGLE_APPLICATION_CREDENTIALS");
        ensure!(file.is_some_and(|entry| entry["value"] == "/var/run/secrets/gcp/key.json"), "{}", container["env"]);
    }
    Ok(())
}

#[test]
fn nothing_is_made_that_is_switched_off() -> Result<()> {
    let objects = shape("minimal")?;
    let kinds: Vec<_> = objects.iter().map(called).collect();
    ensure!(kinds == [format!("Deployment {RELEASE}")], "{kinds:?}");
    let alone = pod(&objects)?;
    ensure!(alone["spec"]["priorityClassName"].is_null() && alone["spec"]["affinity"].is_null());

    let one = with(&["replicaCount=1"])?;
    ensure!(of_kind(&one, "PodDisruptionBudget").is_empty(), "a budget over one pod holds up every drain");
    let given = with(&[r#"priorityClassName="system-cluster-critical""#])?;
    ensure!(of_kind(&given, "PriorityClass").is_empty());
    ensure!(pod(&given)?["spec"]["priorityClassName"] == "system-cluster-critical");
    Ok(())
}

#[test]
fn every_object_goes_where_the_namespace_is_overridden() -> Result<()> {
    let objects = with(&[
        r#"namespaceOverride="elsewhere""#,
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
        "dashboards.enabled=true",
        "networkPolicy.enabled=true",
        "rbac.nodeGuard=true",
    ])?;
    for object in &objects {
        let namespace = &object["metadata"]["namespace"];
        ensure!(namespace.is_null() || namespace == "elsewhere", "{}: {namespace}", called(object));
    }
    let text = json!(objects).to_string();
    ensure!(!text.contains(&format!("\"namespace\":\"{NAMESPACE}\"")), "a subject is elsewhere");
    ensure!(text.contains("system:serviceaccount:elsewhere:"), "the node guard is about another account");
    ensure!(text.contains(r#"namespace=\"elsewhere\""#), "the alerts look elsewhere");
    ensure!(text.contains(r#""matchNames":["elsewhere"]"#), "the monitor looks elsewhere");
    Ok(())
}

#[test]
fn a_monitor_finds_the_pods_from_another_namespace_under_the_job_of_the_alerts() -> Result<()> {
    for (kind, key, endpoints) in
        [("PodMonitor", "podMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "serviceMonitor", "endpoints")]
    {
        let objects = with(&[
            &format!(r#"{key}={{"enabled":true,"namespace":"monitoring","labels":{{"release":"prometheus-stack"}}}}"#),
            r#"fullnameOverride="other""#,
        ])?;
        let monitor = only(&objects, kind)?;
        ensure!(monitor["metadata"]["namespace"] == "monitoring");
        ensure!(monitor["metadata"]["labels"]["release"] == "prometheus-stack");
        ensure!(monitor["spec"]["namespaceSelector"] == json!({"matchNames": [NAMESPACE]}));
        ensure!(monitor["spec"]["jobLabel"] == "app");
        let target = match kind {
            "PodMonitor" => &pod(&objects)?["metadata"]["labels"],
            _ => &only(&objects, "Service")?["metadata"]["labels"],
        };
        ensure!(target["app"] == "ip-address-controller", "{target}");
        for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
            ensure!(target[label] == *value, "{kind} selects {label}={value}, not {target}");
        }
        let endpoint = &monitor["spec"][endpoints][0];
        ensure!(endpoint["port"] == "metrics" && endpoint["honorLabels"] == true, "{endpoint}");
    }
    Ok(())
}

#[test]
fn the_pod_of_helm_test_is_not_taken_for_one_of_the_operator() -> Result<()> {
    let objects = with(&["podMonitor.enabled=true"])?;
    let labels = &only(&objects, "Pod")?["metadata"]["labels"];
    for object in &objects {
        let selector = match text_of(&object["kind"]) {
            "Service" => &object["spec"]["selector"],
            "Deployment" | "PodMonitor" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            _ => continue,
        };
        let fits = selector.as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
        ensure!(!fits, "{} selects it", called(object));
    }
    Ok(())
}

#[test]
fn the_dashboard_is_the_file_of_the_repository() -> Result<()> {
    let objects = with(&["dashboards.enabled=true"])?;
    let map = only(&objects, "ConfigMap")?;
    ensure!(map["metadata"]["name"] == "ip-address-controller-dashboard");
    ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1");
    ensure!(map["metadata"]["annotations"]["grafana_folder"] == "IP Address Controller");
    let data = map["data"].as_object().expect("data");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let files: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    ensure!(files.len() == data.len(), "{:?}", data.keys());
    for file in files {
        let text = std::fs::read_to_string(file.path())?;
        let shipped = &data[&*file.file_name().to_string_lossy()];
        ensure!(text_of(shipped) == text.trim_end(), "{:?} is not what is shipped: make generate", file.file_name());
    }
    Ok(())
}

#[test]
fn the_network_policies_let_in_scrapes_and_out_what_is_needed_and_can_be_replaced() -> Result<()> {
    let objects = with(&[
        "networkPolicy.enabled=true",
        r#"tracing={"enabled":true,"endpoint":"http://otel.observability:4318"}"#,
        r#"proxy.https="http://proxy.example.com:3128""#,
        r#"networkPolicy.extraEgress=[{"ports":[{"port":9999}]}]"#,
    ])?;
    let policy = |suffix: &str| {
        of_kind(&objects, "NetworkPolicy")
            .into_iter()
            .find(|policy| text_of(&policy["metadata"]["name"]).ends_with(suffix))
            .expect("a policy")
            .clone()
    };
    let (ingress, egress) = (policy("-ingress"), policy("-egress"));
    ensure!(ingress["spec"]["policyTypes"] == json!(["Ingress"]) && egress["spec"]["policyTypes"] == json!(["Egress"]));
    let rules = egress["spec"]["egress"].as_array().expect("rules");
    let ports: Vec<i64> = rules
        .iter()
        .flat_map(|rule| rule["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["port"].as_i64())
        .collect();
    ensure!(ports == [53, 53, 443, 6443, 80, 988, 4318, 3128, 9999], "{ports:?}");
    let text = egress.to_string();
    for metadata in ["169.254.169.254/32", "169.254.169.252/32", "169.254.170.23/32", "fd00:ec2::23/128"] {
        ensure!(text.contains(metadata), "{metadata} is closed");
    }
    // The pod of `helm test` asks the same clouds.
    let check = &only(&objects, "Pod")?["metadata"]["labels"]["app.kubernetes.io/name"];
    let values = &egress["spec"]["podSelector"]["matchExpressions"][0]["values"];
    ensure!(values.as_array().is_some_and(|values| values.contains(check)), "{values}");

    let replaced = with(&[
        "networkPolicy.enabled=true",
        r#"networkPolicy.ingress=[{"from":[{"podSelector":{}}]}]"#,
        r#"networkPolicy.egress=[{"to":[{"podSelector":{}}]}]"#,
    ])?;
    for policy in of_kind(&replaced, "NetworkPolicy") {
        ensure!(policy.to_string().matches("podSelector").count() == 2, "{policy}");
        ensure!(!policy.to_string().contains("\"port\""), "{policy}");
    }
    Ok(())
}

#[test]
fn a_proxy_is_not_asked_for_the_clouds_metadata() -> Result<()> {
    let objects = shape("azure")?;
    ensure!(variable(&objects, "HTTPS_PROXY")? == Some(json!("http://proxy.example.com:3128")));
    let around = variable(&objects, "NO_PROXY")?.unwrap_or_default();
    for host in ["169.254.169.254", "metadata.google.internal", ".svc", ".example.com"] {
        ensure!(text_of(&around).split(',').any(|known| known == host), "{around}: no {host}");
    }
    ensure!(variable(&with(&[])?, "NO_PROXY")?.is_none());
    Ok(())
}

#[test]
fn the_settings_of_the_operator_are_values() -> Result<()> {
    let objects = with(&[
        r#"controller.cloudApi={"qps":0.5,"burst":1000000,"timeout":"5s","operationTimeout":"2m"}"#,
        r#"controller.mode="Observe""#,
        r#"controller.watchLabelSelector="team in (a,b),!old""#,
        r#"controller.disruptionTaints=["example.com/leaving","karpenter.sh/disrupted"]"#,
    ]);
    // Above what the operator takes: told now, not in a crash loop.
    ensure!(objects.is_err());
    let objects = with(&[
        r#"controller.cloudApi={"qps":0.5,"burst":100000,"timeout":"5s","operationTimeout":"2m"}"#,
        r#"controller.mode="Observe""#,
        r#"controller.watchLabelSelector="team in (a,b),!old""#,
        r#"controller.disruptionTaints=["example.com/leaving","karpenter.sh/disrupted"]"#,
    ])?;
    for (name, value) in [
        ("CLOUD_QPS", "0.5"),
        ("CLOUD_BURST", "100000"),
        ("CLOUD_TIMEOUT", "5s"),
        ("CLOUD_OPERATION_TIMEOUT", "2m"),
        ("CONTROLLER_MODE", "Observe"),
        ("WATCH_LABEL_SELECTOR", "team in (a,b),!old"),
        ("DISRUPTION_TAINTS", "example.com/leaving,karpenter.sh/disrupted"),
    ] {
        ensure!(variable(&objects, name)? == Some(json!(value)), "{name}: {:?}", variable(&objects, name)?);
    }
    Ok(())
}

#[test]
fn what_is_added_is_passed_on() -> Result<()> {
    let objects = with(&[
        r#"extraArgs=["--cloud-qps=7"]"#,
        r#"extraEnv=[{"name":"OTHER","value":"x"}]"#,
        r#"extraEnvFrom=[{"configMapRef":{"name":"more"}}]"#,
        r#"extraVolumes=[{"name":"v","emptyDir":{}}]"#,
        r#"extraVolumeMounts=[{"name":"v","mountPath":"/v"}]"#,
        r#"initContainers=[{"name":"first","image":"x"}]"#,
        r#"extraContainers=[{"name":"beside","image":"x"}]"#,
        r#"startupProbe={"httpGet":{"path":"/livez","port":"health"}}"#,
        r#"lifecycle={"preStop":{"sleep":{"seconds":1}}}"#,
        r#"rbac.extraRules=[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"]}]"#,
        r#"extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ .Release.Name }}-map"}},"apiVersion: v1\nkind: Secret\nmetadata: {name: text}\n"]"#,
    ])?;
    let spec = &pod(&objects)?["spec"];
    let container = &spec["containers"][0];
    ensure!(container["args"] == json!(["run", "--cloud-qps=7"]));
    ensure!(only(&objects, "Pod")?["spec"]["containers"][0]["args"] == json!(["check", "--cloud-qps=7"]));
    ensure!(variable(&objects, "OTHER")? == Some(json!("x")));
    ensure!(container["envFrom"][0]["configMapRef"]["name"] == "more");
    ensure!(container["volumeMounts"][0]["mountPath"] == "/v" && spec["volumes"][0]["name"] == "v");
    ensure!(spec["initContainers"][0]["name"] == "first" && spec["containers"][1]["name"] == "beside");
    ensure!(container["startupProbe"]["httpGet"]["path"] == "/livez");
    ensure!(container["lifecycle"]["preStop"]["sleep"]["seconds"] == 1);
    ensure!(only(&objects, "ConfigMap")?["metadata"]["name"] == format!("{RELEASE}-map"));
    ensure!(only(&objects, "Secret")?["metadata"]["name"] == "text");
    let role = objects.iter().find(|object| called(object) == format!("ClusterRole {RELEASE}")).expect("a role");
    let rules = role["rules"].as_array().expect("rules");
    ensure!(rules.last().is_some_and(|rule| rule["resources"] == json!(["configmaps"])), "{rules:?}");
    // Without arguments the image's own command runs.
    ensure!(pod(&with(&[])?)?["spec"]["containers"][0]["args"].is_null());
    Ok(())
}

#[test]
fn who_views_a_namespace_may_read_and_nobody_may_write_unasked() -> Result<()> {
    let objects = with(&[])?;
    let role = |suffix: &str| {
        let name = format!("ClusterRole {RELEASE}-{suffix}");
        objects.iter().find(|object| called(object) == name).expect("a role").clone()
    };
    let (view, edit) = (role("view"), role("edit"));
    for whom in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{whom}");
        ensure!(view["metadata"]["labels"][&label] == "true");
        ensure!(edit["metadata"]["labels"][&label].is_null(), "editing is aggregated to {whom}");
    }
    ensure!(view["rules"][0]["verbs"] == json!(["get", "list", "watch"]));
    Ok(())
}

#[test]
fn the_notes_name_the_next_command_and_warn_of_what_is_missing() -> Result<()> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let notes = |values: &[&str]| -> Result<String> {
        let mut args = vec!["install", RELEASE, &*chart, "--namespace", NAMESPACE, "--dry-run=client"];
        args.extend(values.iter().flat_map(|value| ["--set", value]));
        let ended = helm::run(Major::Four, &args)?;
        ensure!(ended.success, "{}", ended.err);
        Ok(ended.out.split_once("NOTES:").expect("notes").1.to_owned())
    };
    let bare = notes(&[])?;
    for wanted in [
        "helm test ip-address-controller --namespace ip-address-controller",
        "ServiceAccount ip-address-controller/ip-address-controller",
        "kubectl get nia",
        "get lease ip-address-controller-leader",
        "WARNING: no cloud credentials",
        "WARNING: nothing scrapes the metrics",
        "exec deployment/ip-address-controller -- /ip-address-controller check",
        "Before uninstalling",
        "also when\nit is Terminating already",
        r#""args":["release","--all"]"#,
        r#""serviceAccountName":"ip-address-controller""#,
    ] {
        ensure!(bare.contains(wanted), "no {wanted:?} in {bare}");
    }
    let whole = notes(&[
        "cloud.aws.roleArn=arn:aws:iam::123456789012:role/r",
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
    ])?;
    ensure!(!whole.contains("WARNING"), "{whole}");
    for (value, warning) in [
        ("replicaCount=0", "replicaCount is 0"),
        ("replicaCount=1", "replicaCount is 1"),
        ("priorityClassName=system-cluster-critical", "GKE lets no pod of that class"),
        ("controller.mode=Observe", "controller.mode is Observe"),
        ("crds.enabled=false", "crds.enabled is false"),
        ("crds.keep=false", "crds.keep is false"),
        ("rbac.create=false", "rbac.create is false"),
        ("podMonitor.enabled=true", "prometheusRule.enabled is false"),
    ] {
        let said = notes(&[value])?;
        ensure!(said.contains(warning), "{value}: no {warning:?} in {said}");
        ensure!(!bare.contains(warning), "{warning:?} is always said");
    }
    Ok(())
}
