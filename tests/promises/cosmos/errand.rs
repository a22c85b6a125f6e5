//! An effect of the operator, one call to the outside at a time.
//!
//! The real ones (`src/allocation/act/*.rs`, `src/cloud/{gcp,aws,azure}/swap.rs`, `src/cloud/aws/restore.rs`) are async
//! over SDKs and cannot be cloned half-way. This mirrors the order of their calls and every guard between two calls:
//!
//! | cloud | attach | detach | restore |
//! |---|---|---|---|
//! | Google Cloud | inspect, find, \[delete own config\], add config, look | inspect, \[delete config\], look | inspect, add config without address, inspect |
//! | AWS | inspect, find, associate: its answer is believed | find, inspect, disassociate: its answer is believed | inspect, ask, look |
//! | Azure | inspect, find, put with etag, look | inspect, \[find what was left behind\], put with etag, look | inspect: nothing can be given |
//!
//! A detach begins with the labels and the pods (L2). An operation that the cloud answers with "accepted" and is polled
//! until it has ended is one call here. Google Cloud's PTR records and zones, border groups and regions are left out.

mod aws;
mod azure;
mod gcp;
mod recent;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Instant};

use ip_address_controller::{
    allocation::{
        act::pods::Asked,
        decide::{
            Cut,
            facts::User,
            leaving::{self, Cause},
            users::{self, Pod, Workload},
        },
        observe::nodes::SlimNode,
    },
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, READY_LABEL, READY_VALUE},
    cloud::{
        CloudError, ErrorKind, Holder, Interface, MachineId, Provider, ProviderId, Restored, Verified, Whereabouts,
    },
};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    cloud::{Cloud, Found, Live, Mark, Order, Told},
    cluster::{Cluster, Evicted, Refused},
};
pub use recent::Recent;

/// What a mutant leaves out. All true in the code that ships.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// F7: a change goes on only if the read before it shows what the order says. Off: it goes on whatever was read.
    pub live_read_before_change: bool,
    /// F7 at Google Cloud: an access config that we add has a name that no other attempt shares.
    pub names_of_its_own: bool,
    /// F7 at AWS: `allow_reassociation(false)`.
    pub takes_from_nobody: bool,
    /// F7 at Azure: `If-Match`.
    pub if_match: bool,
    /// L2: the labels go before the address.
    pub labels_before_cut: bool,
    /// L2: the node's pods are listed live before the address goes.
    pub pods_before_cut: bool,
    /// How often a closing read is repeated at most, while it does not show what is expected; 4 in the code that ships.
    pub looks: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            live_read_before_change: true,
            names_of_its_own: true,
            takes_from_nobody: true,
            if_match: true,
            labels_before_cut: true,
            pods_before_cut: true,
            looks: 4,
        }
    }
}

/// The same in every state of one run.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// What an errand is about, from the version that was decided on: the fields of `act::Deed`.
#[derive(Clone, Debug)]
pub struct Terms {
    pub ip: IpAddr,
    pub allocation: String,
    pub node: String,
    /// Of the Node that was decided on (F8).
    pub node_uid: Option<String>,
    /// Another allocation whose labels are nobody's any more.
    pub left_by: Option<String>,
    pub workload: Workload,
    pub cause: Option<Cause>,
    /// Users that come late are asked to go.
    pub evict: bool,
}

/// The intent behind a change of the cloud, as written in status.
#[derive(Clone, Debug)]
pub struct Intent {
    pub kind: Provider,
    pub machine: MachineId,
    pub operation: Uuid,
    /// No request of it leaves after this instant (F5).
    pub send_before: Instant,
}

/// A call to the outside.
#[derive(Clone, Debug)]
pub enum Call {
    ReadNode(String),
    PatchLabels { node: String, uid: Option<String>, labels: BTreeMap<String, Option<String>> },
    ListPods(String),
    Evict(User),
    Inspect(ProviderId),
    Find(IpAddr),
    Send(Order),
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Call::ReadNode`] and [`Call::PatchLabels`]; `None`: there is none.
    Node(Option<Arc<SlimNode>>),
    Pods(Vec<Pod>),
    Evicted(Evicted),
    Live(Live),
    Found(Found),
    /// The change has ended well.
    Done(Told),
    /// The cloud says no: nothing is under way.
    Failed(CloudError),
    /// The API server says no.
    Refused(String),
    /// No answer in time: whether a change takes effect is not known.
    Silence,
    /// A change was not sent: the gate said so (F1, F5).
    Closed(&'static str),
}

/// An answer with its times.
#[derive(Clone, Debug)]
pub struct Reply {
    pub answer: Answer,
    /// Taken before the call was sent.
    pub began: Instant,
    pub now: Instant,
}

/// How it ended: `act::Done`, and how a debt was paid.
#[derive(Clone, Debug)]
pub enum Ended {
    Node(Option<Arc<SlimNode>>),
    Asked(Vec<(User, Asked)>),
    Verified(Verified),
    HeldBack(String),
    Failed(CloudError),
    NodeFailed(String),
    Restored(Restored),
}

/// What is to be done in the end.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Label,
    Unlabel,
    Evict,
    Attach { may_displace_own: bool },
    Detach { cut: Cut },
    Restore,
}

/// What a closing read is expected to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The address on our machine.
    Ours,
    /// The address off our machine.
    NotOurs,
    /// The address off the interface that was written (Azure).
    OffInterface,
    Anything,
}

/// The call that is asked for now, and what is known by then.
#[derive(Clone, Debug)]
enum Step {
    ReadNode,
    Patch {
        uid: Option<String>,
        labels: BTreeMap<String, Option<String>>,
    },
    ListPods,
    /// One pod after the other; what ends a detach that must wait for them.
    Ask {
        left: Vec<User>,
        asked: Vec<(User, Asked)>,
        held: Option<String>,
    },
    /// Nothing is cut: where it is.
    Look,
    /// The first read of an order to the cloud.
    First,
    /// An order's second read, with the first.
    Second {
        live: Option<Live>,
        found: Option<Found>,
        began: Instant,
    },
    /// Google Cloud, to make room or to take off.
    Delete {
        name: Mark,
        then_add: bool,
    },
    /// It was refused: is it gone already?
    Recheck {
        name: Mark,
        then_add: bool,
        refused: CloudError,
    },
    Change(Order),
    /// AWS, with the machine's own address that it takes the place of.
    Associate {
        order: Order,
        displaced: Option<Mark>,
    },
    /// AWS: the change was refused, so a read says whose the address is (attach), or who followed (detach).
    Whose {
        refused: Option<CloudError>,
        left: u8,
    },
    Closing {
        expect: Expect,
        left: u8,
    },
    /// Google Cloud: the address is still shown on our machine.
    StillThere {
        verified: Verified,
    },
    /// Whether a debt is paid by now.
    Paid {
        refused: Option<CloudError>,
        left: u8,
    },
}

/// What an answer leads to.
enum On {
    Go(Step),
    End(Ended),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Errand {
    rules: Rules,
    terms: Option<Terms>,
    intent: Option<Intent>,
    work: Work,
    step: Step,
    /// A Node as the API server returned it on the way: `Nodes::wrote`.
    written: Option<Arc<SlimNode>>,
    /// AWS: nobody doubted the association before its end was asked for.
    was_sure: bool,
}

fn failed(error: CloudError) -> On {
    On::End(Ended::Failed(error))
}

fn fail(kind: ErrorKind, call: &'static str, why: impl Into<String>) -> On {
    failed(CloudError::new(kind, call, why))
}

/// A machine as read, or that it does not exist.
fn live(answer: Answer) -> Result<Option<Live>, On> {
    match answer {
        Answer::Live(live) => Ok(Some(live)),
        Answer::Failed(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Answer::Failed(error) => Err(failed(error)),
        _ => Err(failed(late("inspect"))),
    }
}

fn found(answer: Answer) -> Result<Found, On> {
    match answer {
        Answer::Found(found) => Ok(found),
        Answer::Failed(error) => Err(failed(error)),
        _ => Err(failed(late("find"))),
    }
}

/// How a change ended; unsettled when that is not known.
fn changed(call: &'static str, answer: Answer) -> Result<Told, CloudError> {
    match answer {
        Answer::Done(told) => Ok(told),
        Answer::Failed(error) => Err(error),
        Answer::Closed(why) => Err(CloudError::new(ErrorKind::Unavailable, call, format!("not sent: {why}"))),
        _ => Err(late(call).unsettled()),
    }
}

fn verified(began: Instant, holder: Holder) -> On {
    On::End(Ended::Verified(Verified::sure(began, holder)))
}

/// Where it was only looked at.
fn read(began: Instant, holder: Holder) -> On {
    On::End(Ended::Verified(Verified::read(began, holder)))
}

fn late(call: &'static str) -> CloudError {
    CloudError::new(ErrorKind::Timeout, call, "no answer in time")
}

impl Errand {
    fn new(rules: Rules, terms: Option<Terms>, intent: Option<Intent>, work: Work, step: Step) -> Self {
        Self { rules, terms, intent, work, step, written: None, was_sure: false }
    }

    pub fn label(rules: Rules, terms: Terms) -> Self {
        Self::new(rules, Some(terms), None, Work::Label, Step::ReadNode)
    }

    pub fn unlabel(rules: Rules, terms: Terms) -> Self {
        Self::new(rules, Some(terms), None, Work::Unlabel, Step::ReadNode)
    }

    /// `None` if there is nobody to ask.
    pub fn evict(rules: Rules, terms: Terms, pods: Vec<User>) -> Option<Self> {
        let step = Step::Ask { left: pods, asked: Vec::new(), held: None };
        let any = matches!(&step, Step::Ask { left, .. } if !left.is_empty());
        any.then(|| Self::new(rules, Some(terms), None, Work::Evict, step))
    }

    pub fn attach(rules: Rules, terms: Terms, intent: Intent, may_displace_own: bool) -> Self {
        Self::new(rules, Some(terms), Some(intent), Work::Attach { may_displace_own }, Step::First)
    }

    pub fn detach(rules: Rules, terms: Terms, intent: Intent, cut: Cut) -> Self {
        Self::new(rules, Some(terms), Some(intent), Work::Detach { cut }, Step::ReadNode)
    }

    /// Gives a machine an address of its own again.
    pub fn restore(rules: Rules, intent: Intent) -> Self {
        Self::new(rules, None, Some(intent), Work::Restore, Step::First)
    }

    /// The call that it waits for now.
    pub fn next(&self) -> Call {
        match &self.step {
            Step::ReadNode => Call::ReadNode(self.terms().node.clone()),
            Step::Patch { uid, labels } => {
                Call::PatchLabels { node: self.terms().node.clone(), uid: uid.clone(), labels: labels.clone() }
            }
            Step::ListPods => Call::ListPods(self.terms().node.clone()),
            Step::Ask { left, .. } => Call::Evict(left[0].clone()),
            Step::First => match (&self.work, self.intent().kind) {
                (Work::Detach { .. }, Provider::Aws) => self.find(),
                _ => self.inspect(),
            },
            Step::Second { live: Some(_), .. } => self.find(),
            Step::Second { live: None, .. } if self.intent().kind == Provider::Azure => self.find(),
            Step::Look | Step::Closing { .. } | Step::Whose { .. } => self.find(),
            Step::Second { live: None, .. } | Step::Recheck { .. } | Step::StillThere { .. } | Step::Paid { .. } => {
                self.inspect()
            }
            Step::Delete { name, .. } => Call::Send(self.delete(name)),
            Step::Change(order) | Step::Associate { order, .. } => Call::Send(order.clone()),
        }
    }

    fn inspect(&self) -> Call {
        Call::Inspect(self.intent().machine.place.clone())
    }

    fn find(&self) -> Call {
        Call::Find(self.terms().ip)
    }

    fn delete(&self, name: &Mark) -> Order {
        Order::DeleteConfig { machine: self.intent().machine.place.clone(), name: name.clone() }
    }

    fn terms(&self) -> &Terms {
        self.terms.as_ref().expect("an errand with an address has terms")
    }

    fn intent(&self) -> &Intent {
        self.intent.as_ref().expect("an errand to the cloud has an intent")
    }

    fn ours(&self) -> Holder {
        Holder::Machine(self.intent().machine.place.clone())
    }

    fn holds(&self, live: &Live) -> bool {
        live.seat.interface == Interface::Reserved(self.terms().ip)
    }

    /// The machine read is the one of the intent, not another under its name.
    fn same_life(&self, live: &Live) -> bool {
        live.seat.machine == self.intent().machine
    }

    fn closing(&self, expect: Expect) -> On {
        On::Go(Step::Closing { expect, left: self.rules.looks })
    }

    fn another_life(&self, call: &'static str) -> CloudError {
        let why = format!("{} is gone; another machine has its name", self.intent().machine);
        CloudError::new(ErrorKind::NotFound, call, why)
    }

    fn not_reserved(&self) -> On {
        fail(ErrorKind::NotFound, "find", format!("{} is not reserved", self.terms().ip))
    }

    fn not_shown(&self) -> On {
        let why = format!("the change has ended, but {} does not show it yet", self.terms().ip);
        fail(ErrorKind::Unavailable, "find", why)
    }

    /// The intent that its requests to the cloud belong to.
    pub fn intent_behind(&self) -> Option<&Intent> {
        self.intent.as_ref()
    }

    /// The address that it is about.
    pub fn address(&self) -> Option<IpAddr> {
        self.terms.as_ref().map(|terms| terms.ip)
    }

    /// Until when the present call may be sent, beside the proof of leadership: only requests to the cloud have a limit
    /// (`Actor::gate`, `Actor::gate_until`).
    pub fn send_before(&self) -> Option<Instant> {
        matches!(self.step, Step::Delete { .. } | Step::Change(_) | Step::Associate { .. })
            .then(|| self.intent().send_before)
    }

    /// Google Cloud: the address that the machine has is another one, and whose that is has to be asked, too
    /// (`Gcp::interface`).
    pub fn asks_whose(&self) -> bool {
        match &self.step {
            Step::Second { live: Some(live), .. } => {
                self.intent().kind == Provider::Gcp && live.seat.interface != Interface::Empty && !self.holds(live)
            }
            _ => false,
        }
    }

    /// A Node that the API server has returned: it counts at once (`Nodes::wrote`).
    pub fn take_written(&mut self) -> Option<Arc<SlimNode>> {
        self.written.take()
    }

    /// Goes on with what came back; `recent` is the memory of this process's AWS provider.
    pub fn answered(&mut self, reply: Reply, recent: &mut Recent) -> Option<Ended> {
        let step = self.step.clone();
        let on = match step {
            Step::ReadNode => self.node_read(reply.answer),
            Step::Patch { .. } => self.labels_written(reply.answer),
            Step::ListPods => self.pods_listed(reply.answer),
            Step::Ask { left, asked, held } => self.pod_asked(left, asked, held, reply.answer),
            Step::Look => match reply.answer {
                Answer::Found(Found { whereabouts: Whereabouts::Here(shown), .. }) => read(reply.began, shown.holder),
                Answer::Found(_) => read(reply.began, Holder::Free),
                Answer::Failed(error) => failed(error),
                _ => failed(late("find")),
            },
            step => match self.intent().kind {
                Provider::Gcp => self.gcp(step, reply),
                Provider::Aws => self.aws(step, reply, recent),
                Provider::Azure => self.azure(step, reply),
            },
        };
        match on {
            On::Go(step) => {
                self.step = step;
                None
            }
            On::End(ended) => Some(ended),
        }
    }

    // Labels: `act/node.rs`.

    fn node_read(&mut self, answer: Answer) -> On {
        let terms = self.terms();
        let (name, allocation) = (&terms.node, &terms.allocation);
        let node = match answer {
            Answer::Node(Some(node)) => node,
            Answer::Node(None) if matches!(self.work, Work::Detach { .. }) => return self.after_labels(),
            Answer::Node(None) => return On::End(Ended::Node(None)),
            Answer::Refused(why) => return self.node_failed(format!("reading node {name} failed: {why}")),
            _ => return self.node_failed(format!("reading node {name} had no answer in time")),
        };
        let some = |value: &str| Some(value.to_owned());
        let ours = [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL];
        let labels = if self.work == Work::Label {
            if node.metadata.uid != terms.node_uid {
                return self.node_failed(format!("node {name} was created anew since; looks again"));
            }
            [some(READY_VALUE), some(allocation), some(&terms.ip.to_string())]
        } else {
            let whose = node.label(ALLOCATION_LABEL);
            let others = whose.is_some_and(|whose| whose != allocation && Some(whose) != terms.left_by.as_deref());
            let none = ours.iter().all(|key| node.label(key).is_none());
            let left_out = !self.rules.labels_before_cut && matches!(self.work, Work::Detach { .. });
            if others || none || left_out {
                return self.labelled(Some(node));
            }
            [None, None, None]
        };
        let labels = ours.iter().map(|key| (*key).to_owned()).zip(labels).collect();
        On::Go(Step::Patch { uid: node.metadata.uid.clone(), labels })
    }

    fn labels_written(&mut self, answer: Answer) -> On {
        let name = self.terms().node.clone();
        match answer {
            Answer::Node(node) => self.labelled(node),
            Answer::Refused(why) => self.node_failed(format!("labelling node {name} failed: {why}")),
            Answer::Closed(why) => self.node_failed(format!("not sent: {why}")),
            _ => self.node_failed(format!("labelling node {name} had no answer in time")),
        }
    }

    fn labelled(&mut self, node: Option<Arc<SlimNode>>) -> On {
        match self.work {
            Work::Detach { .. } => {
                self.written = node;
                self.after_labels()
            }
            _ => On::End(Ended::Node(node)),
        }
    }

    fn node_failed(&self, why: String) -> On {
        On::End(match self.work {
            Work::Detach { .. } => Ended::HeldBack(why),
            _ => Ended::NodeFailed(why),
        })
    }

    // Users that come late: `act/address.rs`.

    fn cut(&self) -> Cut {
        match self.work {
            Work::Detach { cut } => cut,
            _ => Cut::Now,
        }
    }

    fn after_labels(&self) -> On {
        let cut = self.cut();
        if cut == Cut::Now || !self.rules.pods_before_cut {
            return self.after_pods();
        }
        if cut == Cut::WhenUnused && self.terms().workload == Workload::Unknown {
            return On::End(Ended::HeldBack("whether the workload exists cannot be read now".to_owned()));
        }
        On::Go(Step::ListPods)
    }

    fn after_pods(&self) -> On {
        On::Go(if self.cut() == Cut::Never { Step::Look } else { Step::First })
    }

    fn pods_listed(&self, answer: Answer) -> On {
        let (terms, cut) = (self.terms(), self.cut());
        let pods = match answer {
            Answer::Pods(pods) => pods,
            _ if cut == Cut::Never => return self.after_pods(),
            Answer::Refused(why) => return On::End(Ended::HeldBack(why)),
            _ => return On::End(Ended::HeldBack("the pods were not listed in time".to_owned())),
        };
        let users: Vec<User> = users::users(&pods, &terms.workload)
            .into_iter()
            .filter(|user| terms.cause.is_none_or(|cause| leaving::keeps(cause, user, terms.evict)))
            .collect();
        let held = users
            .first()
            .filter(|_| cut == Cut::WhenUnused)
            .map(|user| format!("waits for {} pods on node {} that came late: {}", users.len(), terms.node, user.name));
        let staying = users.iter().filter(|user| user.terminating_until.is_none() && !user.hold);
        let left: Vec<User> = staying.filter(|_| terms.evict || cut == Cut::Never).cloned().collect();
        self.asked_so_far(left, Vec::new(), held)
    }

    fn pod_asked(
        &self,
        mut left: Vec<User>,
        mut asked: Vec<(User, Asked)>,
        held: Option<String>,
        answer: Answer,
    ) -> On {
        let outcome = match answer {
            Answer::Evicted(Evicted::Accepted | Evicted::NotFound) => Asked::Accepted,
            Answer::Evicted(Evicted::Blocked(why)) => Asked::Blocked(why),
            Answer::Closed(why) => Asked::Failed(format!("not sent: {why}")),
            Answer::Refused(why) => Asked::Failed(why),
            _ => Asked::Failed("no answer in time".to_owned()),
        };
        asked.push((left.remove(0), outcome));
        self.asked_so_far(left, asked, held)
    }

    fn asked_so_far(&self, left: Vec<User>, asked: Vec<(User, Asked)>, held: Option<String>) -> On {
        match (left.is_empty(), &self.work, held) {
            (false, _, held) => On::Go(Step::Ask { left, asked, held }),
            (true, Work::Evict, _) => On::End(Ended::Asked(asked)),
            (true, _, Some(held)) => On::End(Ended::HeldBack(held)),
            (true, _, None) => self.after_pods(),
        }
    }
}

impl Call {
    /// Passes the gate just before it leaves (F1).
    pub fn is_change(&self) -> bool {
        matches!(self, Call::PatchLabels { .. } | Call::Evict(_) | Call::Send(_))
    }

    /// The answer to a read, as things are now; `None` for a change.
    pub fn read(&self, cloud: &Cloud, cluster: &Cluster) -> Option<Answer> {
        match self {
            Call::ReadNode(name) => Some(Answer::Node(cluster.node(name).cloned())),
            Call::ListPods(node) => Some(Answer::Pods(cluster.pods_of(node))),
            Call::Inspect(place) => Some(cloud.live(place).map_or_else(Answer::Failed, Answer::Live)),
            Call::Find(ip) => Some(Answer::Found(cloud.found(*ip))),
            Call::PatchLabels { .. } | Call::Evict(_) | Call::Send(_) => None,
        }
    }

    /// Has the API server do it; `None` for what is none of its changes.
    pub fn write(&self, cluster: &mut Cluster, now: Timestamp) -> Option<Answer> {
        match self {
            Call::PatchLabels { node, uid, labels } => Some(match cluster.patch_labels(node, uid.as_deref(), labels) {
                Ok(node) => Answer::Node(Some(node)),
                Err(Refused::NotFound) => Answer::Node(None),
                Err(refused) => Answer::Refused(format!("{refused:?}")),
            }),
            Call::Evict(user) => Some(Answer::Evicted(cluster.evict(&user.uid, now))),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "errand_tests.rs"]
mod tests;
