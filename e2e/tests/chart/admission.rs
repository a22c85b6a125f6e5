//! The policies that come with the release, kept by a real API server: for a user without rights, with rights, and for the
//! operator's own account.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Output, Seen, wait_for},
    stage::{PATIENCE, RELEASE, Stage},
};

use super::{
    THEATRE,
    acts::{self, ACCOUNT, allocation, pool, reserve},
};

/// Somebody who may write allocations, and nothing else.
const USER: &str = "jane";
/// Somebody else who may do that.
const MOVER: &str = "mona";

#[test]
fn who_makes_the_operator_evict_or_taint_must_have_that_right() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        grant(stage, "writes-allocations", &format!("clusterrole={RELEASE}-edit")).await?;
        let here = manifest("asked", "workloadRef: {kind: Deployment, name: sip, namespace: voip}");
        let everywhere = manifest("asked", "");
        let tainting = manifest(
            "asked",
            "workloadRef: {kind: Deployment, name: sip, namespace: voip}\n  nodeTaint: {key: example.com/x}",
        );

        refused(stage, &here, "create on pods/eviction").await?;
        refused(stage, &here, "in namespace voip").await?;
        refused(stage, &everywhere, "in every namespace (no workloadRef)").await?;

        stage.cluster.kubectl(&["create", "namespace", "voip"]).await?;
        let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: evicts, namespace: voip}
rules: [{apiGroups: [''], resources: [pods/eviction], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: evicts, namespace: voip}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: evicts}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
";
        stage.cluster.apply(role).await?;
        wait_for("the right to evict in voip is enough", PATIENCE, || async {
            let output = apply(stage, &here).await?;
            Ok(Seen::when(output.status.success(), output.stderr))
        })
        .await?;
        refused(stage, &everywhere, "in every namespace").await?;
        refused(stage, &tainting, "you need patch on nodes").await?;

        // What changes nothing in the spec needs no such right: it may be the operator's, or a label.
        stage.cluster.kubectl(&["delete", "rolebinding", "evicts", "-n", "voip"]).await?;
        let edited =
            manifest("asked", "drain: {policy: Evict}\n  workloadRef: {kind: Deployment, name: sip, namespace: voip}");
        refused(stage, &edited, "in namespace voip").await?;
        as_user(stage, USER, &["annotate", "nia", "asked", "example.com/note=x"]).await?.success()?;

        let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: evicts-and-taints}
rules:
- {apiGroups: [''], resources: [pods/eviction], verbs: [create]}
- {apiGroups: [''], resources: [nodes], verbs: [patch]}
";
        stage.cluster.apply(role).await?;
        grant(stage, "evicts-and-taints", "clusterrole=evicts-and-taints").await?;
        wait_for("with both rights both may be asked for", PATIENCE, || async {
            let output = apply(stage, &tainting).await?;
            Ok(Seen::when(output.status.success(), output.stderr))
        })
        .await?;
        stage.cluster.kubectl(&["delete", "nia", "asked", "--timeout=60s"]).await?;
        Ok(())
    })
}

#[test]
fn the_operator_itself_is_not_held_up_and_makes_none() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        let (name, ip) = ("own-writes", "203.0.113.80");
        reserve(stage, &[ip])?;
        pool(stage, name, 1).await?;
        let manifest = allocation(name, &[ip], "nodeTaint: {key: example.com/no-address}");
        stage.cluster.apply(&manifest).await?;
        // Finalizer, status, labels and taint, and the end of it: all by that account, with the policies there.
        stage.until_attached(name, ip).await?;
        let finalizers = r#"{"metadata":{"finalizers":["netinfra.darkbrains.com/detach"]}}"#;
        as_user(stage, ACCOUNT, &["patch", "nia", name, "--type=merge", "-p", finalizers]).await?.success()?;
        let made = stage.cluster.run("kubectl", &["create", "--as", ACCOUNT, "-f", "-"], Some(manifest)).await?;
        ensure!(made.stderr.contains("cannot create resource"), "{made:?}");
        stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await?;
        let own = stage.cluster.audit()?.into_iter().filter(|event| event.user == ACCOUNT);
        let denied: Vec<_> = own.filter(|event| matches!(event.code, 403 | 422)).collect();
        ensure!(denied.is_empty(), "{denied:#?}");
        Ok(())
    })
}

#[test]
fn who_asks_for_a_move_must_have_the_right_to_evict() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        let name = "to-be-moved";
        // In mode Observe the operator leaves the request alone. To ask for a move nobody needs the right to taint nodes.
        let more = "mode: Observe\n  nodeTaint: {key: example.com/x}\n  \
                    workloadRef: {kind: Deployment, name: sip, namespace: default}";
        stage.cluster.apply(&manifest(name, more)).await?;
        let role = format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: moves}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {RELEASE}-edit}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {MOVER}}}]
"
        );
        stage.cluster.apply(&role).await?;
        let asks = |ip: &'static str| ["annotate", "nia", name, ip, "--overwrite"];
        let (first, second) =
            ("netinfra.darkbrains.com/move=203.0.113.83", "netinfra.darkbrains.com/move=203.0.113.84");
        wait_for("who may not evict may not ask", PATIENCE, || async {
            let args = [&asks(first)[..], &["--dry-run=server"]].concat();
            let output = as_user(stage, MOVER, &args).await?;
            let why = "in namespace default: you need create on pods/eviction there";
            Ok(Seen::when(!output.status.success() && output.stderr.contains(why), output))
        })
        .await?;

        // Where a request stands already, nothing is asked for by another edit, nor by taking it off.
        stage.cluster.kubectl(&asks(first)).await?;
        as_user(stage, MOVER, &["annotate", "nia", name, "example.com/note=x"]).await?.success()?;
        let output = as_user(stage, MOVER, &asks(second)).await?;
        ensure!(!output.status.success() && output.stderr.contains("create on pods/eviction"), "{output:?}");
        let off = r#"{"metadata":{"annotations":{"netinfra.darkbrains.com/move":null}}}"#;
        for user in [MOVER, ACCOUNT] {
            let args = ["patch", "nia", name, "--type=merge", "--dry-run=server", "-p", off];
            as_user(stage, user, &args).await?.success().context(user)?;
        }

        let role = format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: moves, namespace: default}}
rules: [{{apiGroups: [''], resources: [pods/eviction], verbs: [create]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: moves, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: moves}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {MOVER}}}]
"
        );
        stage.cluster.apply(&role).await?;
        wait_for("the right to evict is enough", PATIENCE, || async {
            let output = as_user(stage, MOVER, &asks(second)).await?;
            Ok(Seen::when(output.status.success(), output.stderr))
        })
        .await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--timeout=60s"]).await.map(drop)
    })
}

#[test]
fn a_protected_allocation_is_not_deleted_whoever_asks() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        let (name, ip) = ("protected", "203.0.113.85");
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        stage.cluster.kubectl(&["annotate", "nia", name, "netinfra.darkbrains.com/protect=true"]).await?;
        let said = wait_for("its deletion is refused", PATIENCE, || async {
            // Not really: the policy may not be in force yet.
            let args = ["delete", "nia", name, "--dry-run=server"];
            let output = stage.cluster.run("kubectl", &args, None).await?;
            Ok(match output.status.success() {
                false => Seen::Yes(output.stderr),
                true => Seen::NotYet(output.stdout),
            })
        })
        .await?;
        let way_out = format!("kubectl annotate nia {name} netinfra.darkbrains.com/protect-");
        ensure!(said.contains("this allocation is protected") && said.contains(&way_out), "{said}");

        let all = stage.cluster.run("kubectl", &["delete", "nia", "--all", "--dry-run=server"], None).await?;
        ensure!(!all.status.success() && all.stderr.contains(&way_out), "{all:?}");

        // The right to delete is no way past it, and who has none is told that, as ever.
        grant(stage, "deletes-allocations", &format!("clusterrole={RELEASE}-edit")).await?;
        for (user, why) in [
            (USER, "this allocation is protected"),
            ("nobody-special", "cannot delete resource"),
            (ACCOUNT, "cannot delete resource"),
        ] {
            wait_for(&format!("{user} is refused: {why}"), PATIENCE, || async {
                let output = as_user(stage, user, &["delete", "nia", name, "--wait=false"]).await?;
                ensure!(!output.status.success(), "{user} has deleted it: {output:?}");
                Ok(Seen::when(output.stderr.contains(why), output.stderr))
            })
            .await?;
        }

        // The operator's own writes go on, an address that moves included.
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.kubectl(&["cordon", &from]).await?;
        acts::until_moved(stage, name, ip, &from).await?;
        let kept = stage.allocation(name).await?.context("it is gone")?;
        ensure!(kept.metadata.deletion_timestamp.is_none(), "it is being deleted");

        // Only the word `true` protects; and once it may go, it goes as ever.
        let no_more = ["annotate", "nia", name, "netinfra.darkbrains.com/protect=false", "--overwrite"];
        stage.cluster.kubectl(&no_more).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--dry-run=server"]).await?;
        stage.cluster.kubectl(&["annotate", "nia", name, "netinfra.darkbrains.com/protect-"]).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await?;
        for node in &nodes {
            acts::until_unlabelled(stage, node).await?;
        }
        Ok(())
    })
}

#[test]
fn what_is_probably_not_meant_is_a_warning() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        let old = "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: advised}
spec:
  reservedIPs: [203.0.113.81]
  deploymentRef: {name: my-app, namespace: default}
  cloud: {provider: gcp, region: us-west1}
  strategy: {maxSurge: 1, maxUnavailable: 0}
";
        let wanted = [
            "spec.deploymentRef is deprecated; use spec.workloadRef with kind Deployment",
            "spec.strategy.maxSurge has no effect",
            "spec.strategy.maxUnavailable 0 counts as 1",
            "no spec.nodeSelector: every node of the cluster may get an address",
        ];
        wait_for("all four are told, and it is accepted", PATIENCE, || async {
            let args = ["apply", "--dry-run=server", "-f", "-"];
            let output = stage.cluster.run("kubectl", &args, Some(old.to_owned())).await?;
            let told = wanted.iter().all(|advice| output.stderr.contains(advice));
            Ok(Seen::when(told && output.status.success(), output.stderr))
        })
        .await?;
        let fine = manifest("advised", "workloadRef: {kind: Deployment, name: my-app, namespace: default}");
        let output = stage.cluster.run("kubectl", &["apply", "--dry-run=server", "-f", "-"], Some(fine)).await?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Ok(())
    })
}

#[test]
fn the_node_guard_lets_the_operator_change_its_labels_and_taints_and_nothing_else() -> Result<()> {
    THEATRE.alone(async |stage| {
        stage.install(&["rbac.nodeGuard=true"]).await?;
        let (name, ip) = ("guarded", "203.0.113.82");
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        let patched = |patch: &str, node: &str| {
            let args = ["patch", "node", node, "--type=merge", "--dry-run=server", "-p", patch].map(str::to_owned);
            async move {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                as_user(stage, ACCOUNT, &args).await
            }
        };
        let node = &nodes[0];
        wait_for("the guard is there", PATIENCE, || async {
            let output = patched(r#"{"metadata":{"labels":{"role":"other"}}}"#, node).await?;
            Ok(Seen::when(!output.status.success(), output.stdout))
        })
        .await?;
        for (patch, said) in [
            (r#"{"metadata":{"labels":{"role":"other"}}}"#, "changes no labels"),
            (r#"{"metadata":{"labels":{"role":null}}}"#, "changes no labels"),
            (r#"{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}"#, "changes no labels"),
            (r#"{"metadata":{"annotations":{"a":"b"}}}"#, "nothing of a node but labels and taints"),
            (r#"{"metadata":{"finalizers":["example.com/a"]}}"#, "nothing of a node but labels and taints"),
            (r#"{"spec":{"unschedulable":true}}"#, "nothing of a node but labels and taints"),
            (
                r#"{"spec":{"taints":[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]}}"#,
                "changes no taints of a node that are Kubernetes' own",
            ),
            (r#"{"spec":{"taints":[{"key":"karpenter.sh/disrupted","effect":"NoSchedule"}]}}"#, "changes no taints"),
        ] {
            let output = patched(patch, node).await?;
            ensure!(!output.status.success() && output.stderr.contains(said), "{patch}: {output:?}");
        }
        for patch in [
            r#"{"metadata":{"labels":{"ip.ready":"true","netinfra.darkbrains.com/allocation":"a","netinfra.darkbrains.com/address":"b"}}}"#,
            r#"{"spec":{"taints":[{"key":"example.com/no-address","effect":"NoSchedule"}]}}"#,
            r#"{"spec":{"taints":[{"key":"startup-taint.cluster-autoscaler.kubernetes.io/x","effect":"NoSchedule"}]}}"#,
        ] {
            patched(patch, node).await?.success().context(patch)?;
        }
        // Nobody else is guarded.
        stage.cluster.kubectl(&["label", "node", node, "example.com/a=b"]).await?;

        // And the whole life of an address goes through it.
        stage.cluster.apply(&allocation(name, &[ip], "nodeTaint: {key: example.com/no-address}")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.kubectl(&["cordon", &from]).await?;
        acts::until_moved(stage, name, ip, &from).await?;
        stage.cluster.kubectl(&["uncordon", &from]).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await?;
        stage.install(&[]).await
    })
}

fn manifest(name: &str, more: &str) -> String {
    allocation(name, &["203.0.113.83"], more)
}

async fn grant(stage: &Stage, name: &str, role: &str) -> Result<()> {
    let role = format!("--{role}");
    stage.cluster.kubectl(&["create", "clusterrolebinding", name, &role, "--user", USER]).await.map(drop)
}

async fn as_user(stage: &Stage, user: &str, args: &[&str]) -> Result<Output> {
    let mut all = args.to_vec();
    all.extend(["--as", user]);
    stage.cluster.run("kubectl", &all, None).await
}

/// As [`USER`].
async fn apply(stage: &Stage, manifest: &str) -> Result<Output> {
    let args = ["apply", "--server-side", "-f", "-", "--as", USER];
    stage.cluster.run("kubectl", &args, Some(manifest.to_owned())).await
}

/// Waits until the policy refuses it, in these words: it is in force a moment after it was written.
async fn refused(stage: &Stage, manifest: &str, why: &str) -> Result<()> {
    let args = ["apply", "--server-side", "--dry-run=server", "-f", "-", "--as", USER];
    wait_for(&format!("it is refused: {why}"), PATIENCE, || async {
        let output = stage.cluster.run("kubectl", &args, Some(manifest.to_owned())).await?;
        Ok(Seen::when(!output.status.success() && output.stderr.contains(why), output.stderr))
    })
    .await
}
