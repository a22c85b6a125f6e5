//! Effect → calls. The only writer to the world, apart from status; runs beside the reconciler.
//!
//! Every mutation passes a [`LeaderGate`] just before it leaves and is sent once.

mod address;
pub mod node;
pub mod pods;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Client;

use self::pods::Asked;
use super::{
    decide::{Effect, facts::User, leaving::Cause, users::Workload},
    observe::{
        nodes::{Nodes, SlimNode},
        pods::Pods,
    },
    tables::left_to_send,
    taints::NodeTaints,
};
use crate::{
    cloud::{Attach, Closed, Cloud, CloudError, Detach, ErrorKind, Gate, ProviderId, Scope, Verified},
    leader::Proof,
    lifecycle::fencing,
};

/// What an actor needs; cheap to clone.
#[derive(Clone)]
pub struct Actor {
    pub client: Client,
    pub proof: Proof,
    /// Time-out of one mutation: at most a third of the Lease's duration (F1).
    pub timeout: Duration,
    pub nodes: Nodes,
    pub pods: Pods,
}

/// An effect with all that its execution depends on, taken from the version that was decided on.
#[derive(Clone, Debug)]
pub struct Deed {
    pub effect: Effect,
    pub ip: IpAddr,
    /// Where the machine stands that the entry names: the labels of a Node of that name on another one say nothing of it.
    pub machine: ProviderId,
    /// Of the Node that was decided on: one that was created anew under the same name is not labelled (F8).
    pub node_uid: Option<String>,
    pub allocation: String,
    /// The allocation that the node's labels name, where that is another one which has nothing there any more: its labels
    /// are nobody's and may be taken off.
    pub left_by: Option<String>,
    /// What the node's taints depend on, beside its labels.
    pub taints: Arc<NodeTaints>,
    pub scope: Scope,
    pub workload: Workload,
    pub cause: Option<Cause>,
    /// Users that come late are asked to go.
    pub evict: bool,
}

/// How a deed ended.
#[derive(Debug)]
pub enum Done {
    /// The node is as the effect says; the version that the API server returned, if the node still exists.
    Node(Option<Box<SlimNode>>),
    /// Pods were asked to go.
    Asked(Vec<(User, Asked)>),
    /// The cloud did it and read it back.
    Verified(Verified),
    /// Nothing of the cloud's was sent; the same intent goes on later.
    HeldBack(String),
    /// The cloud refused, or its answer is not known.
    Failed(CloudError),
    /// The API server refused, or its answer is not known.
    NodeFailed(String),
}

/// What is to be told of the way, however the deed ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Noted {
    /// `ip.ready` came onto the node.
    Labeled(String),
    /// It went off it.
    Unlabeled(String),
    /// A pod that came late was asked to go.
    Asked(Box<User>, Asked),
    /// The node could not be changed, and what was to follow is held back; the text says why.
    NotPatched(String),
}

impl Actor {
    /// One that talks to this API server, and leads until then.
    #[cfg(test)]
    fn leading(client: Client, until: Instant) -> Self {
        let (nodes, _) = super::watch::store();
        Self {
            pods: Pods::new(client.clone(), super::watch::Wake::new()),
            client,
            proof: Proof::fixed(until),
            timeout: Duration::from_secs(5),
            nodes: Nodes::new(nodes),
        }
    }

    /// Runs a deed to its end, at the cloud of its scope. Safe to repeat.
    pub async fn perform(&self, deed: &Deed, cloud: Option<&dyn Cloud>, noted: &mut Vec<Noted>) -> Done {
        let unconnected = || CloudError::new(ErrorKind::Unavailable, "effect", "the cloud is not connected");
        match &deed.effect {
            Effect::Label { node } => self.label(node, deed, noted).await,
            Effect::Unlabel { node } => {
                self.unlabel(node, &deed.machine, &deed.allocation, deed.left_by.as_deref(), &deed.taints, noted).await
            }
            Effect::Evict { pods, .. } => Done::Asked(self.ask_all(pods).await),
            Effect::Attach { machine, operation, send_before, may_displace_own, .. } => {
                let order = Attach {
                    scope: deed.scope.clone(),
                    address: deed.ip,
                    machine: machine.clone(),
                    operation: *operation,
                    may_displace_own: *may_displace_own,
                    gate: self.gate_until(*send_before),
                };
                let Some(cloud) = cloud else { return Done::Failed(unconnected()) };
                told(cloud.attach(&order).await)
            }
            Effect::Detach { node, machine, operation, send_before, cut } => {
                let order = Detach {
                    scope: deed.scope.clone(),
                    address: deed.ip,
                    machine: machine.clone(),
                    operation: *operation,
                    gate: self.gate_until(*send_before),
                };
                let Some(cloud) = cloud else { return Done::Failed(unconnected()) };
                self.detach(deed, cloud, node, &order, *cut, noted).await
            }
        }
    }

    /// The gate for mutations that belong to no cloud operation.
    pub fn gate(&self) -> LeaderGate {
        LeaderGate { proof: self.proof.clone(), send_before: None }
    }

    /// The gate for the requests of one intent.
    pub fn gate_until(&self, send_before: Timestamp) -> Arc<dyn Gate> {
        let left = left_to_send(send_before, Timestamp::now());
        Arc::new(LeaderGate { proof: self.proof.clone(), send_before: Some(Instant::now() + left) })
    }
}

fn told(answer: Result<Verified, CloudError>) -> Done {
    match answer {
        Ok(verified) => Done::Verified(verified),
        Err(error) => Done::Failed(error),
    }
}

/// Lets a request leave only while leadership and intent outlast it.
#[derive(Clone, Debug)]
pub struct LeaderGate {
    proof: Proof,
    send_before: Option<Instant>,
}

impl Gate for LeaderGate {
    fn open_for(&self, timeout: Duration) -> Result<(), Closed> {
        fencing::may_send(Instant::now(), timeout, self.proof.until(), self.send_before)
            .map_err(|refusal| Closed(refusal.as_str()))
    }
}
