//! Who uses the addresses that would leave, as far as the user may see that.

use kube::ResourceExt;

use super::{
    access::{self, Session},
    refusal::{Kind, PODS, REPLICASETS, Refusal},
    rehearsal::{self, Cluster, Users},
};
use crate::{
    allocation::{decide::users::Workload, moment::Moment, observe::pods::Pods, watch::Wake},
    api::{WorkloadKind, WorkloadRef},
};

/// Those that are known, and one sentence for each thing that is not. `asked`: of this allocation alone.
pub async fn of(session: &Session, cluster: &Cluster, asked: Option<&str>, moment: &Moment) -> (Users, Vec<String>) {
    let pods = Pods::new(session.client.clone(), Wake::new());
    let (mut users, mut unknown) = (Users::default(), Vec::new());
    let leaving = rehearsal::leaving(cluster, asked, moment);
    if leaving.is_empty() {
        return (users, unknown);
    }
    if let Err(refusal) = access::may(session, "list", &PODS, None).await {
        unknown.push(format!("Who uses the addresses is not known: {refusal}."));
        return (users, unknown);
    }
    for object in cluster.allocations.iter().filter(|object| asked.is_none_or(|asked| object.name_any() == asked)) {
        let named = object.spec.workload();
        let workload = pods.workload(named.as_ref(), true).await;
        if let (Workload::Unknown, Some(named)) = (&workload, named) {
            let why = why(access::may(session, "get", &kind(&named), Some(&named.name)).await);
            unknown.push(format!("{named} cannot be read, so its pods are not known{why}."));
        }
        users.workloads.insert(object.name_any(), workload);
    }
    for node in leaving {
        match pods.live(&node).await {
            Ok(known) => {
                users.pods.insert(node, known);
            }
            Err(failed) => {
                let why = why(access::may(session, "get", &REPLICASETS, None).await);
                unknown.push(format!("What holds an address on node {node} is not known: {failed}{why}."));
            }
        }
    }
    (users, unknown)
}

/// The right that is missing, after what cannot be told for want of it.
fn why(asked: Result<(), Refusal>) -> String {
    asked.err().map(|refusal| format!(": {refusal}")).unwrap_or_default()
}

fn kind(named: &WorkloadRef) -> Kind<'_> {
    let plural = match named.kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
    };
    Kind { group: "apps", plural, namespace: Some(&named.namespace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_read_a_workload_is_named_with_its_namespace() {
        let named =
            WorkloadRef { kind: WorkloadKind::StatefulSet, name: "sip".to_owned(), namespace: "voip".to_owned() };
        let told = why(Err(Refusal::forbidden("get", &kind(&named))));
        assert!(told.starts_with(": you may not get statefulsets"), "{told}");
        assert!(told.ends_with("on resource \"statefulsets\" of API group apps in namespace voip"), "{told}");
        assert_eq!(why(Ok(())), "");
    }
}
