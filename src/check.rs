//! The self-test: what running needs, one line each, and what to do where it is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use tokio::time::timeout;

use crate::{
    allocation::{
        observe::{self, nodes::SlimNode},
        watch::Guarded,
    },
    api::{GROUP, NetIPAllocation},
    cloud::{Finding, Provider, Scope, connect::connect},
    run,
    settings::Settings,
};

/// For single calls.
const CALL: Duration = Duration::from_secs(10);
/// For finding credentials: a metadata server that is not there is noticed late.
const CONNECT: Duration = Duration::from_secs(20);

/// What the operator does in the cluster: group, resource, subresource, verbs. In the release's namespace where `true`.
const RIGHTS: &[(&str, &str, &str, &[&str], bool)] = &[
    (GROUP, "netipallocations", "", &["get", "list", "watch", "patch"], false),
    (GROUP, "netipallocations", "status", &["update"], false),
    ("", "nodes", "", &["get", "list", "watch", "patch"], false),
    ("", "pods", "", &["list", "watch"], false),
    ("", "pods", "eviction", &["create"], false),
    ("apps", "deployments", "", &["get"], false),
    ("apps", "statefulsets", "", &["get"], false),
    ("apps", "daemonsets", "", &["get"], false),
    ("apps", "replicasets", "", &["get"], false),
    ("events.k8s.io", "events", "", &["create", "patch"], false),
    ("coordination.k8s.io", "leases", "", &["create", "get", "watch", "update"], true),
];

/// Prints one line a finding.
///
/// # Errors
/// How many findings are bad.
pub async fn check(settings: &Settings) -> Result<(), String> {
    let (client, config) = run::client().await.map_err(|error| format!("no cluster to talk to: {error}"))?;
    let namespace = settings.pod_namespace.clone().unwrap_or(config.default_namespace);
    let mut findings = vec![crd(&client).await];
    findings.extend(rights(&client, &namespace, &settings.lease_name).await);
    let scopes = scopes(&client).await;
    if scopes.is_empty() {
        findings.push(Finding {
            ok: true,
            subject: "cloud".to_owned(),
            message: "not tested: no NetIPAllocation names a place, and no node has a provider ID of a supported cloud"
                .to_owned(),
        });
    }
    for (provider, scopes) in scopes {
        findings.extend(cloud(settings, provider, &scopes).await);
    }
    let bad = findings.iter().filter(|finding| !finding.ok).count();
    for Finding { ok, subject, message } in &findings {
        println!("{} {subject}: {message}", if *ok { "ok  " } else { "FAIL" });
    }
    if bad == 0 { Ok(()) } else { Err(format!("{bad} of {} checks failed", findings.len())) }
}

async fn crd(client: &Client) -> Finding {
    let api: Api<NetIPAllocation> = Api::all(client.clone());
    let (ok, message) = match timeout(CALL, api.list(&ListParams::default().limit(1))).await {
        Ok(Ok(_)) => (true, "served".to_owned()),
        Ok(Err(error)) => {
            (false, format!("{error}; install the CRD: ip-address-controller crd | kubectl apply --server-side -f -"))
        }
        Err(_) => (false, "no answer in time".to_owned()),
    };
    Finding { ok, subject: "CustomResourceDefinition".to_owned(), message }
}

async fn rights(client: &Client, namespace: &str, lease: &str) -> Vec<Finding> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut findings = Vec::new();
    for (group, resource, subresource, verbs, here) in RIGHTS {
        let mut missing = Vec::new();
        for verb in *verbs {
            let named = *here && *verb != "create";
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        group: Some((*group).to_owned()),
                        resource: Some((*resource).to_owned()),
                        subresource: Some((*subresource).to_owned()).filter(|text| !text.is_empty()),
                        verb: Some((*verb).to_owned()),
                        namespace: here.then(|| namespace.to_owned()),
                        name: named.then(|| lease.to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let answer = timeout(CALL, api.create(&PostParams::default(), &review)).await;
            let allowed =
                matches!(answer, Ok(Ok(review)) if review.status.as_ref().is_some_and(|status| status.allowed));
            if !allowed {
                missing.push(*verb);
            }
        }
        let subject = if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
        findings.push(Finding {
            ok: missing.is_empty(),
            subject: format!("RBAC {subject}"),
            message: if missing.is_empty() {
                verbs.join(", ")
            } else {
                format!("missing {}; grant what the chart's roles grant", missing.join(", "))
            },
        });
    }
    findings
}

/// One cloud, wherever the cluster has to do with it.
async fn cloud(settings: &Settings, provider: Provider, scopes: &BTreeSet<Scope>) -> Vec<Finding> {
    let subject = format!("{provider} credentials");
    let failed = |message: String| vec![Finding { ok: false, subject: subject.clone(), message }];
    match timeout(CONNECT, connect(provider, &run::cloud_settings(settings))).await {
        Err(_) => failed(format!("their source does not answer in time; {}", how_to_get(provider))),
        Ok(Err(error)) => failed(format!("{}: {}; {}", error.kind.label(), error.message, how_to_get(provider))),
        Ok(Ok(cloud)) => {
            let mut findings = Vec::new();
            for scope in scopes {
                let found = cloud.check(scope).await.into_iter();
                findings.extend(
                    found.map(|finding| Finding { subject: format!("{scope} {}", finding.subject), ..finding }),
                );
            }
            findings
        }
    }
}

/// Where credentials come from on the cloud's managed Kubernetes.
fn how_to_get(provider: Provider) -> &'static str {
    match provider {
        Provider::Gcp => "set up Workload Identity or GOOGLE_APPLICATION_CREDENTIALS (docs/gcp.md)",
        Provider::Aws => "set up EKS Pod Identity or IAM roles for service accounts (docs/aws.md)",
        Provider::Azure => "set up workload identity (docs/azure.md)",
    }
}

/// The accounts and regions of the cluster's nodes, and of its allocations, by cloud.
async fn scopes(client: &Client) -> BTreeMap<Provider, BTreeSet<Scope>> {
    let all = ListParams::default();
    let nodes = timeout(CALL, Api::<SlimNode>::all(client.clone()).list(&all)).await;
    let nodes: Vec<_> = nodes.into_iter().flatten().flat_map(|list| list.items).map(Arc::new).collect();
    let allocations = timeout(CALL, Api::<Guarded>::all(client.clone()).list(&all)).await;
    let allocations = allocations.into_iter().flatten().flat_map(|list| list.items);
    let named = allocations.filter_map(|object| observe::scope(&object.0.ok()?.spec, &nodes, &[]).ok());
    let mut scopes = BTreeMap::<Provider, BTreeSet<Scope>>::new();
    for scope in nodes.iter().filter_map(|node| Some(node.location()?.scope())).chain(named) {
        scopes.entry(scope.provider).or_default().insert(scope);
    }
    scopes
}
