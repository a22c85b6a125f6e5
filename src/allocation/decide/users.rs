//! Which pods of a node use its address (design §3.3, *Users*). Pure: pods in, users out.

use jiff::Timestamp;

use super::facts::User;

/// What is read of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Phase Succeeded or Failed: it runs nothing any more.
    pub finished: bool,
    pub ready: bool,
    /// When its grace period ends, while it terminates.
    pub terminating_until: Option<Timestamp>,
    /// It carries the hold annotation.
    pub hold: bool,
    /// It tolerates the taint of a cordoned node.
    pub returns: bool,
    /// What controls it, followed up to the workload (ReplicaSet → Deployment).
    pub owner: Option<Owner>,
    /// Its nodeSelector or required node affinity names `ip.ready` or one of our labels.
    pub gated: bool,
    /// A static pod's mirror: the API server cannot evict it.
    pub mirror: bool,
}

/// A workload by kind (of API group apps) and name, in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: String,
    pub name: String,
}

/// The workload that the allocation names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// None is named.
    Unnamed,
    /// One is named that does not exist: a typo must not read as "no pods left".
    Missing,
    /// One is named, and whether it exists cannot be told now.
    Unknown,
    /// It exists. `gated`: its pods ask for a node with an address.
    Named { kind: String, namespace: String, name: String, gated: bool },
}

/// The pods that use the address of the node on which they all run.
///
/// With a workload: its pods. Without one: those that ask for a node with an address; if there is none, every pod that
/// can be evicted and that no DaemonSet or file keeps. A DaemonSet's pod that does not ask for an address would never
/// leave by itself and does not count (L3).
pub fn users(pods: &[Pod], workload: &Workload) -> Vec<User> {
    let running = || pods.iter().filter(|pod| !pod.finished);
    let chosen: Vec<&Pod> = match workload {
        Workload::Named { kind, namespace, name, gated: _ } => running()
            .filter(|pod| {
                pod.namespace == *namespace
                    && pod.owner.as_ref().is_some_and(|owner| owner.kind == *kind && owner.name == *name)
                    && (!is_daemon(pod) || pod.gated)
            })
            .collect(),
        Workload::Unnamed | Workload::Missing | Workload::Unknown => {
            let gated: Vec<&Pod> = running().filter(|pod| pod.gated).collect();
            if gated.is_empty() { running().filter(|pod| !is_daemon(pod) && !pod.mirror).collect() } else { gated }
        }
    };
    chosen.into_iter().map(user).collect()
}

/// It is one of a DaemonSet, which runs on every node that it selects, cordoned or not.
pub fn is_daemon(pod: &Pod) -> bool {
    pod.owner.as_ref().is_some_and(|owner| owner.kind == "DaemonSet")
}

fn user(pod: &Pod) -> User {
    User {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        owner: match &pod.owner {
            Some(owner) => format!("{} {}/{}", owner.kind, pod.namespace, owner.name),
            None => format!("namespace {}", pod.namespace),
        },
        controller: pod.owner.clone(),
        daemon: is_daemon(pod),
        ready: pod.ready,
        terminating_until: pod.terminating_until,
        hold: pod.hold,
        returns: pod.returns,
        eviction_blocked: None,
        ask_again: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, kind: &str, owner: &str) -> Pod {
        Pod {
            namespace: "voip".into(),
            name: name.into(),
            uid: name.into(),
            finished: false,
            ready: true,
            terminating_until: None,
            hold: false,
            returns: false,
            owner: Some(Owner { kind: kind.into(), name: owner.into() }),
            gated: false,
            mirror: false,
        }
    }

    fn names(pods: &[Pod], workload: &Workload) -> Vec<String> {
        users(pods, workload).into_iter().map(|user| user.name).collect()
    }

    fn kamailio() -> Workload {
        named("Deployment")
    }

    fn named(kind: &str) -> Workload {
        Workload::Named { kind: kind.into(), namespace: "voip".into(), name: "kamailio".into(), gated: true }
    }

    #[test]
    fn a_named_workload_is_matched_by_kind_namespace_and_name() {
        let elsewhere = Pod { namespace: "test".into(), ..pod("other", "Deployment", "kamailio") };
        let pods = [
            pod("sip", "Deployment", "kamailio"),
            pod("set", "StatefulSet", "kamailio"),
            pod("web", "Deployment", "web"),
            elsewhere,
        ];
        assert_eq!(names(&pods, &kamailio()), ["sip"]);
    }

    #[test]
    fn a_finished_pod_uses_nothing_and_a_terminating_one_still_does() {
        let finished = Pod { finished: true, ..pod("done", "Deployment", "kamailio") };
        let going = Pod { terminating_until: Some(Timestamp::UNIX_EPOCH), ..pod("going", "Deployment", "kamailio") };
        assert_eq!(names(&[finished, going], &kamailio()), ["going"]);
    }

    #[test]
    fn without_a_workload_those_that_ask_for_an_address_count() {
        let gated = Pod { gated: true, ..pod("gated", "DaemonSet", "agent") };
        let pods = [gated, pod("web", "Deployment", "web")];
        assert_eq!(names(&pods, &Workload::Unnamed), ["gated"]);
        assert_eq!(names(&pods, &Workload::Missing), ["gated"], "a typo must not read as no pods left");
    }

    #[test]
    fn if_nobody_asks_for_an_address_every_evictable_pod_counts() {
        let mirror = Pod { mirror: true, ..pod("proxy", "Node", "a") };
        let bare = Pod { owner: None, ..pod("bare", "", "") };
        let pods = [pod("web", "Deployment", "web"), pod("agent", "DaemonSet", "agent"), mirror, bare];
        assert_eq!(names(&pods, &Workload::Unnamed), ["web", "bare"]);
    }

    #[test]
    fn a_daemonset_that_does_not_ask_for_an_address_does_not_hold_it() {
        let workload = named("DaemonSet");
        let gated = Pod { gated: true, ..pod("gated", "DaemonSet", "kamailio") };
        assert_eq!(names(&[pod("free", "DaemonSet", "kamailio")], &workload), Vec::<String>::new());
        assert_eq!(names(&[gated], &workload), ["gated"]);
    }
}
