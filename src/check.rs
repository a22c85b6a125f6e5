//! The self-test: what running needs, one line each, and what to do where it is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    coordination::v1::{Lease, LeaseSpec},
};
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

/// Something that the operator does in the cluster.
struct Right {
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    verbs: &'static [&'static str],
    on: On,
}

/// What a right is asked for on.
enum On {
    /// Every object, in every namespace.
    All,
    /// The one object of that name.
    One(&'static str),
    /// The Lease, in the release's namespace.
    Lease,
}

const fn all(
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    verbs: &'static [&'static str],
) -> Right {
    Right { group, resource, subresource, verbs, on: On::All }
}

/// What the chart's roles grant, but for what only traces and OpenShift ask for.
const RIGHTS: &[Right] = &[
    all(GROUP, "netipallocations", "", &["get", "list", "watch", "patch"]),
    all(GROUP, "netipallocations", "status", &["update"]),
    all("", "nodes", "", &["get", "list", "watch", "patch"]),
    all("", "pods", "", &["list", "watch"]),
    all("", "pods", "eviction", &["create"]),
    all("apps", "deployments", "", &["get"]),
    all("apps", "statefulsets", "", &["get"]),
    all("apps", "daemonsets", "", &["get"]),
    all("apps", "replicasets", "", &["get"]),
    all("events.k8s.io", "events", "", &["create", "patch"]),
    // Without it no allocation can be let go: whether the CRD itself is being deleted has to be known first.
    Right {
        on: On::One("netipallocations.netinfra.darkbrains.com"),
        ..all("apiextensions.k8s.io", "customresourcedefinitions", "", &["get"])
    },
    Right { on: On::Lease, ..all("coordination.k8s.io", "leases", "", &["create", "get", "watch", "update"]) },
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
    findings.push(lease(&client, &namespace, &settings.lease_name).await);
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

/// Whether a replica leads. None has to: the check may run before the first one does.
async fn lease(client: &Client, namespace: &str, name: &str) -> Finding {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let (ok, message) = match timeout(CALL, api.get_opt(name)).await {
        Ok(Ok(None)) => (true, "not there: no replica has led in this namespace yet".to_owned()),
        Ok(Ok(Some(lease))) => led(&lease.spec.unwrap_or_default(), Timestamp::now()),
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, "no answer in time".to_owned()),
    };
    Finding { ok, subject: format!("Lease {namespace}/{name}"), message }
}

/// A holder that has not renewed for three durations leads no more, whatever the clocks differ by.
fn led(lease: &LeaseSpec, now: Timestamp) -> (bool, String) {
    let Some(holder) = lease.holder_identity.as_deref().filter(|holder| !holder.is_empty()) else {
        return (true, "given back: the next replica that starts takes it".to_owned());
    };
    let Some(renewed) = lease.renew_time.as_ref().map(|time| time.0) else {
        return (false, format!("held by {holder}, which has never renewed it; read the log of that pod"));
    };
    let since = now.duration_since(renewed);
    let limit = SignedDuration::from_secs(lease.lease_duration_seconds.unwrap_or_default().into()) * 3;
    match since > limit {
        true => (
            false,
            format!("nobody leads: {holder} renewed it last at {renewed:.0}; read the log of the operator's pods"),
        ),
        false => (true, format!("held by {holder}")),
    }
}

async fn rights(client: &Client, namespace: &str, lease: &str) -> Vec<Finding> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut findings = Vec::new();
    for Right { group, resource, subresource, verbs, on } in RIGHTS {
        let mut missing = Vec::new();
        for verb in *verbs {
            let (namespace, name) = match on {
                On::All => (None, None),
                On::One(name) => (None, Some(*name)),
                // Creation cannot be limited to a name.
                On::Lease => (Some(namespace), Some(lease).filter(|_| *verb != "create")),
            };
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        group: Some((*group).to_owned()),
                        resource: Some((*resource).to_owned()),
                        subresource: Some((*subresource).to_owned()).filter(|text| !text.is_empty()),
                        verb: Some((*verb).to_owned()),
                        namespace: namespace.map(str::to_owned),
                        name: name.map(str::to_owned),
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
    let named = allocations.filter_map(|object| observe::scope(&object.0.ok()?.spec, &nodes, Vec::new).ok());
    let mut scopes = BTreeMap::<Provider, BTreeSet<Scope>>::new();
    for scope in nodes.iter().filter_map(|node| Some(node.location()?.scope())).chain(named) {
        scopes.entry(scope.provider).or_default().insert(scope);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn a_lease_that_nobody_renews_is_a_finding() {
        let renewed = Timestamp::constant(1_800_000_000, 0);
        let lease = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        };
        let after = |seconds| renewed + SignedDuration::from_secs(seconds);
        assert_eq!(led(&lease("pod-1"), after(45)), (true, "held by pod-1".to_owned()));
        let (ok, why) = led(&lease("pod-1"), after(46));
        assert!(!ok && why.contains("pod-1 renewed it last at 2027-01-15T08:00:00Z"), "{why}");
        assert!(led(&lease(""), after(1000)).0, "given back");
        assert!(!led(&LeaseSpec { renew_time: None, ..lease("pod-1") }, after(0)).0);
    }
}
