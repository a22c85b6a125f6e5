//! A world without a cluster or a cloud: it keeps the entry, remembers what is so, and makes the facts anew for each pass.

use std::collections::BTreeMap;

use ip_address_controller::{
    allocation::decide::{
        Address, Cut, Effect,
        facts::{
            Adoptable, Claim, Drain, Entry, Facts, Failure, Fresh, Holder, Journey, Labels, Life, Mode, NodeObject,
            NodeView, NotReady, Operation, Read, Target, User, Users, Wanted, Whereabouts,
        },
        leaving::{self, Cause},
        state::{Reason, State},
        ways,
    },
    cloud::{ErrorKind, MachineId, Own, ProviderId},
    lifecycle::{
        State as _,
        backoff::Backoff,
        pass::{self, End},
    },
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::script::Shown;

const IP: &str = "203.0.113.7";
const BIRTH: i64 = 1_800_000_000;

struct Node {
    view: NodeView,
    /// The Node object is gone since.
    absent: Option<Timestamp>,
    life: Life,
    own: bool,
    users: Vec<User>,
    users_known: bool,
}

pub struct World {
    entry: Option<Entry>,
    now: Timestamp,
    nodes: BTreeMap<String, Node>,
    read: Read,
    /// No good read is had until a script says so.
    blind: bool,
    target: Option<String>,
    target_read: bool,
    wanted: Wanted,
    claim: Claim,
    rival_here: bool,
    deleting: bool,
    mode: Mode,
    finalizer: bool,
    turn: bool,
    permit: bool,
    frozen: bool,
    move_requested: bool,
    stay_requested: bool,
    drain: Drain,
    failure: Option<Failure>,
    /// The effect under way.
    flying: Option<Effect>,
    /// The operation of which this process has ended an effect.
    spent: Option<Uuid>,
    /// The last intent may take effect until then.
    alive_until: Option<Timestamp>,
    unreadable_holder: Option<String>,
    ids: u128,
    operations: Vec<Uuid>,
}

fn machine(node: &str) -> MachineId {
    MachineId { place: ProviderId::new(format!("gce://prod/us-west1-a/{node}")), instance: format!("id-{node}") }
}

fn on(node: &str) -> Whereabouts {
    Whereabouts::On(machine(node).place)
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn kind(label: &str) -> Result<ErrorKind, String> {
    ErrorKind::ALL.into_iter().find(|kind| kind.label() == label).ok_or(format!("{label} is no kind of error"))
}

fn pod(n: usize, kind: &str) -> User {
    User {
        namespace: "voip".into(),
        name: format!("kamailio-{n}"),
        uid: format!("uid-{n}"),
        owner: format!("{kind} voip/kamailio"),
        controller: None,
        daemon: kind == "DaemonSet",
        ready: true,
        terminating_until: None,
        hold: false,
        returns: false,
        eviction_blocked: None,
        ask_again: None,
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            entry: None,
            now: Timestamp::from_second(BIRTH).unwrap(),
            nodes: BTreeMap::new(),
            read: Read { place: Whereabouts::Free, live: true },
            blind: false,
            target: None,
            target_read: true,
            wanted: Wanted::Yes,
            claim: Claim::Ours,
            rival_here: false,
            deleting: false,
            mode: Mode::Enforce,
            finalizer: true,
            turn: true,
            permit: true,
            frozen: false,
            move_requested: false,
            stay_requested: false,
            drain: Drain { evict: false, timeout: None },
            failure: None,
            flying: None,
            spent: None,
            alive_until: None,
            unreadable_holder: None,
            ids: 0,
            operations: Vec::new(),
        }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.entry(name.to_owned()).or_insert_with(|| Node {
            view: NodeView {
                selected: true,
                cordoned: false,
                not_ready: None,
                disrupted: None,
                out_of_service: false,
                labels: Labels::Off,
                tainted: false,
            },
            absent: None,
            life: Life::Running,
            own: true,
            users: Vec::new(),
            users_known: true,
        })
    }

    /// The node that the entry names.
    fn here(&mut self) -> Result<&mut Node, String> {
        let name = self.entry.as_ref().and_then(|entry| entry.node.clone()).ok_or("the entry names no node")?;
        Ok(self.node(&name))
    }

    fn entry(&mut self) -> Result<&mut Entry, String> {
        self.entry.as_mut().ok_or("there is no entry".to_owned())
    }

    /// A `given` or a `when`.
    pub fn change(&mut self, sentence: &str) -> Result<(), String> {
        let words: Vec<&str> = sentence.split(' ').collect();
        match words.as_slice() {
            ["Unassigned"] => self.entry = Some(Entry::new(IP.parse().unwrap(), self.now)),
            ["Attached", "on", name] => self.attached(name),
            ["an", "Attached", "entry", "without", "a", "node"] => {
                self.attached("node-a");
                self.entry()?.node = None;
            }
            ["its", "operation", "is", "missing"] => self.entry()?.operation = None,
            // Time.
            [n, "seconds", "pass"] => self.now += SignedDuration::from_secs(number(n)?),
            // Users.
            [n, "pod" | "pods"] => self.users(number(n)?, "Deployment")?,
            [n, kind @ ("Deployment" | "StatefulSet" | "DaemonSet"), "pod" | "pods"] => self.users(number(n)?, kind)?,
            ["pods", "are", "gone"] => self.here()?.users.clear(),
            ["pods", "are", "unknown"] => self.here()?.users_known = false,
            ["pods", "are", "known"] => self.here()?.users_known = true,
            ["the" | "a", "pod", "holds"] => self.here()?.users.iter_mut().for_each(|user| user.hold = true),
            ["the", "pod", "holds", "no", "more"] => self.here()?.users.iter_mut().for_each(|user| user.hold = false),
            ["the", "pod", "is", "not", "Ready"] => self.here()?.users.iter_mut().for_each(|user| user.ready = false),
            ["the", "pod", "terminates"] => {
                let end = self.now + SignedDuration::from_secs(30);
                self.here()?.users.iter_mut().for_each(|user| user.terminating_until = Some(end));
            }
            ["the", "PodDisruptionBudget", "refuses"] => {
                let again = self.now + SignedDuration::from_secs(10);
                self.end()?;
                for user in &mut self.here()?.users {
                    user.eviction_blocked = Some("PodDisruptionBudget voip/kamailio allows 0 now".into());
                    user.ask_again = Some(again);
                }
            }
            // Nodes.
            [node, "is", "cordoned"] => self.node(node).view.cordoned = true,
            [node, "is", "uncordoned"] => self.node(node).view.cordoned = false,
            [node, "is", "disrupted"] => self.node(node).view.disrupted = Some("ToBeDeletedByClusterAutoscaler".into()),
            [node, "is", "disrupted", "no", "more"] => self.node(node).view.disrupted = None,
            [node, "is", "selected", "no", "more"] => self.node(node).view.selected = false,
            [node, "is", "selected", "again"] => self.node(node).view.selected = true,
            [node, "is", "NotReady"] => {
                let since = self.now;
                self.node(node).view.not_ready = Some(NotReady { since, seen_since: since });
            }
            [node, "is", "NotReady", "as", "seen", "just", "now"] => {
                let (since, seen_since) = (self.now - SignedDuration::from_secs(600), self.now);
                self.node(node).view.not_ready = Some(NotReady { since, seen_since });
            }
            [node, "is", "Ready"] => self.node(node).view.not_ready = None,
            [node, "is", "out", "of", "service"] => self.node(node).view.out_of_service = true,
            ["the", "object", "of", node, "is", "gone"] => self.node(node).absent = Some(self.now),
            ["the", "object", "of", node, "is", "back"] => self.node(node).absent = None,
            ["the", "machine", "of", node, "is", "gone"] => self.node(node).life = Life::Gone,
            ["the", "machine", "of", node, "is", "stopped"] => self.node(node).life = Life::Stopped,
            ["the", "machine", "of", node, "is", "replaced"] => self.node(node).life = Life::Replaced,
            ["the", "machine", "of", node, "runs"] => self.node(node).life = Life::Running,
            ["the", "machine", "of", node, "is", "not", "read"] => self.node(node).life = Life::Unknown,
            ["the", "labels", "of", node, "are", "off"] => self.node(node).view.labels = Labels::Off,
            [node, "is", "tainted"] => self.node(node).view.tainted = true,
            ["the", "labels", "of", node, "are", "wrong"] => self.node(node).view.labels = Labels::Partly,
            [node, "has", "nothing", "of", "its", "own"] => self.node(node).own = false,
            // Where it could go.
            ["target", "none"] => self.target = None,
            ["target", node] => {
                self.node(node);
                self.target = Some((*node).to_owned());
                self.target_read = true;
            }
            ["target", node, "still", "being", "read"] => {
                self.target = Some((*node).to_owned());
                self.target_read = false;
            }
            // What the cloud says.
            ["it", "is", "read", "free"] => self.reads(Whereabouts::Free, true),
            ["it", "is", "surveyed", "free"] => self.reads(Whereabouts::Free, false),
            ["it", "is", "read", "on", node] => self.reads(on(node), true),
            ["it", "is", "surveyed", "on", node] => self.reads(on(node), false),
            ["it", "is", "read", "on", "a", "stranger"] => self.reads(on("stranger"), true),
            ["it", "is", "read", "on", "a", "load", "balancer"] => {
                self.reads(Whereabouts::Foreign("forwarding rule lb".into()), true);
            }
            ["nobody", "can", "be", "asked", "where", "it", "is"] => {
                self.reads(Whereabouts::Unasked("no selected node has a provider ID".into()), false);
            }
            ["it", "is", "not", "found"] => self.reads(Whereabouts::NotFound, true),
            ["it", "is", "in", "another", "region"] => self.reads(Whereabouts::OtherRegion("us-east1".into()), true),
            ["its", "read", "is", "on", "its", "way"] => self.reads(Whereabouts::Awaited, false),
            ["it", "cannot", "be", "read"] => self.blind = true,
            ["it", "can", "be", "read"] => self.blind = false,
            ["the", "machine", "of", "its", "holder", "cannot", "be", "read"] => {
                self.unreadable_holder = Some("503".into());
            }
            ["the", "machine", "of", "its", "holder", "can", "be", "read"] => self.unreadable_holder = None,
            // What people want.
            ["it", "is", "removed", "from", "the", "spec"] => self.wanted = Wanted::RemovedFromSpec,
            ["it", "is", "matched", "no", "more"] => self.wanted = Wanted::NotMatched,
            ["it", "is", "wanted", "again"] => self.wanted = Wanted::Yes,
            ["the", "allocation", "is", "deleted"] => self.deleting = true,
            ["deletionPolicy", "is", "Retain"] => self.deleting = false,
            ["a", "move", "is", "asked", "for"] => self.move_requested = true,
            ["the", "annotation", "is", "removed"] => self.move_requested = false,
            ["the", "move", "is", "taken", "back"] => self.stay_requested = true,
            ["claimed", "by", name] => self.claim = Claim::Other((*name).to_owned()),
            ["claimed", "by", name, "which", "has", "it", "there", "too"] => {
                self.claim = Claim::Other((*name).to_owned());
                self.rival_here = true;
            }
            ["claimed", "by", "nobody", "else"] => (self.claim, self.rival_here) = (Claim::Ours, false),
            ["mode", "Enforce"] => self.mode = Mode::Enforce,
            ["mode", "Hold"] => self.mode = Mode::Hold,
            ["mode", "Observe"] => self.mode = Mode::Observe,
            ["policy", "Evict"] => self.drain.evict = true,
            ["policy", "Wait"] => self.drain.evict = false,
            ["drain", "timeout", n, "seconds"] => self.drain.timeout = Some(SignedDuration::from_secs(number(n)?)),
            // What the operator has at hand.
            ["no", "finalizer"] => self.finalizer = false,
            ["the", "finalizer", "is", "set"] => self.finalizer = true,
            ["too", "many", "in", "motion"] => self.turn = false,
            ["its", "turn", "comes"] => self.turn = true,
            ["no", "permit"] => self.permit = false,
            ["a", "permit"] => self.permit = true,
            ["failover", "is", "frozen"] => self.frozen = true,
            ["failover", "is", "frozen", "no", "more"] => self.frozen = false,
            ["the", "operator", "restarts"] => self.restart(),
            // How effects end.
            ["the", "labels", "are", "set"] => self.succeed("label")?,
            ["the", "labels", "are", "taken", "off"] => self.succeed("unlabel")?,
            ["the", "pods", "are", "asked"] => self.succeed("evict")?,
            ["the", "attach", "succeeds"] => self.succeed("attach")?,
            ["the", "detach", "succeeds"] => self.succeed("detach")?,
            ["the", "detach", "waits", "for", "a", "new", "pod"] => {
                let effect = self.end()?;
                let Effect::Detach { operation, cut: Cut::WhenUnused, .. } = effect else {
                    return Err(format!("{effect:?} waits for nobody"));
                };
                self.spent = Some(operation);
                self.here()?.view.labels = Labels::Off;
                self.users(1, "Deployment")?;
            }
            ["the", "attach" | "detach" | "patch", "fails", "with", label] => self.fail(kind(label)?, true)?,
            ["the", "attach" | "detach", "is", "lost"] => self.fail(ErrorKind::Timeout, false)?,
            ["the", "request", "does", "not", "leave"] => {
                self.end()?;
            }
            ["it", "lands", "late", "on", node] => self.reads(on(node), true),
            _ => return Err(format!("the harness does not know: {sentence}")),
        }
        Ok(())
    }

    /// Verified long ago, labelled, with a complete ledger.
    fn attached(&mut self, name: &str) {
        let mut entry = Entry::new(IP.parse().unwrap(), self.now);
        entry.state = State::Attached;
        entry.reason = Reason::Verified;
        entry.node = Some(name.to_owned());
        entry.machine = Some(machine(name));
        entry.restore = Some(Own::default());
        entry.last_move = Some(Journey {
            from: None,
            to: Some(name.to_owned()),
            reason: "Verified".into(),
            start: self.now,
            finish: self.now,
            gap: None,
            trace_id: None,
        });
        self.entry = Some(entry);
        self.node(name).view.labels = Labels::On;
        self.reads(on(name), true);
    }

    fn users(&mut self, n: i64, kind: &str) -> Result<(), String> {
        let here = self.here()?;
        let from = here.users.len();
        here.users.extend((from..from + n as usize).map(|n| pod(n, kind)));
        Ok(())
    }

    fn reads(&mut self, place: Whereabouts, live: bool) {
        self.read = Read { place, live };
        self.blind = false;
    }

    /// A new process knows the entry and nothing else.
    fn restart(&mut self) {
        self.flying = None;
        self.spent = None;
        self.failure = None;
        if let Some(operation) = self.entry.as_ref().and_then(|entry| entry.operation.as_ref()) {
            self.alive_until = Some(operation.send_before + SignedDuration::from_secs(120));
        }
    }

    fn end(&mut self) -> Result<Effect, String> {
        self.flying.take().ok_or("nothing is under way".to_owned())
    }

    fn succeed(&mut self, what: &str) -> Result<(), String> {
        let effect = self.end()?;
        let again = self.now + SignedDuration::from_secs(60);
        let name = match &effect {
            Effect::Label { node } => {
                let view = &mut self.node(node).view;
                (view.labels, view.tainted) = (Labels::On, false);
                "label"
            }
            Effect::Unlabel { node } => {
                self.node(node).view.labels = Labels::Off;
                "unlabel"
            }
            Effect::Evict { node, .. } => {
                self.node(node).users.iter_mut().for_each(|user| user.ask_again = Some(again));
                "evict"
            }
            Effect::Attach { node, operation, .. } => {
                self.reads(on(node), true);
                self.spent = Some(*operation);
                self.alive_until = None;
                "attach"
            }
            Effect::Detach { node, operation, cut, .. } => {
                self.node(node).view.labels = Labels::Off;
                if *cut != Cut::Never {
                    self.reads(Whereabouts::Free, true);
                }
                self.spent = Some(*operation);
                self.alive_until = None;
                "detach"
            }
        };
        self.failure = None;
        if name == what { Ok(()) } else { Err(format!("under way is: {effect:?}")) }
    }

    fn fail(&mut self, kind: ErrorKind, settled: bool) -> Result<(), String> {
        match self.end()? {
            Effect::Attach { operation, .. } | Effect::Detach { operation, .. } => {
                self.spent = Some(operation);
                if settled {
                    self.alive_until = None;
                }
            }
            Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => {}
        }
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
        let delay = SignedDuration::try_from(Backoff::TRANSIENT.delay(attempts, 0.0)).unwrap();
        self.failure = Some(Failure { kind, message: "no".into(), attempts, retry: self.now + delay });
        Ok(())
    }

    fn facts(&mut self) -> Facts {
        self.ids += 1;
        let entry = self.entry.clone().unwrap();
        let holder = entry.node.as_ref().and_then(|name| {
            let node = self.nodes.get(name)?;
            let object = match node.absent {
                Some(since) => NodeObject::Absent { since },
                None => NodeObject::Present(node.view.clone()),
            };
            Some(Holder { name: name.clone(), life: node.life, object })
        });
        let users = match entry.node.as_ref().and_then(|name| self.nodes.get(name)) {
            Some(node) if node.users_known => Users::Known(node.users.clone()),
            _ => Users::Unknown,
        };
        let adoptable = match &self.read.place {
            Whereabouts::On(place) => {
                let known = self.nodes.iter().find(|(name, node)| machine(name).place == *place && node.view.selected);
                match (known, &self.unreadable_holder) {
                    (None, _) => Adoptable::No("no selected node".into()),
                    (Some((name, _)), Some(why)) => Adoptable::Unreachable { node: name.clone(), why: why.clone() },
                    (Some((name, _)), None) => Adoptable::Yes { node: name.clone(), machine: machine(name) },
                }
            }
            _ => Adoptable::No("nothing".into()),
        };
        let target = match &self.target {
            None => Target::None("1 node selected: 1 hold an address".into()),
            Some(node) if !self.target_read => Target::Looking { node: node.clone() },
            Some(node) => Target::Seat {
                node: node.clone(),
                machine: machine(node),
                own: self.nodes.get(node).filter(|node| node.own).map(|_| Own::default()),
            },
        };
        let read = match self.blind {
            true => Read { place: Whereabouts::Unknown("503".into()), live: false },
            false => self.read.clone(),
        };
        Facts {
            now: self.now,
            wanted: self.wanted,
            claim: self.claim.clone(),
            rival_here: self.rival_here,
            deleting: self.deleting,
            mode: self.mode,
            finalizer: self.finalizer,
            read,
            intent_dead: self.alive_until.is_none_or(|until| self.now >= until),
            operation_spent: entry.operation.as_ref().is_some_and(|operation| Some(operation.id) == self.spent),
            in_flight: self.flying.is_some(),
            holder,
            adoptable,
            users,
            target,
            turn: self.turn,
            permit: self.permit,
            frozen: self.frozen,
            not_ready_grace: SignedDuration::from_secs(300),
            left: None,
            drain: self.drain,
            move_requested: self.move_requested,
            stay_requested: self.stay_requested,
            failure: self.failure.clone(),
            fresh: Fresh {
                id: Uuid::from_u128(self.ids),
                send_before: self.now + SignedDuration::from_secs(60),
                journey: None,
            },
        }
    }

    /// One pass: what it moved, then how it ended.
    pub fn pass(&mut self, shown: &mut Shown) -> Vec<String> {
        let Some(entry) = self.entry.clone() else { return vec!["there is no entry".into()] };
        let facts = self.facts();
        let pass = pass::run::<Address>(entry, &facts);
        let mut told = Vec::new();
        for step in &pass.steps {
            let to = step.to.map_or("forgotten", |state| state.label());
            assert!(ways::all().contains(&(step.from, step.to, step.reason)), "not among the known ways: {step:?}");
            shown.moves.insert(format!("{} -> {to}", step.from.label()));
            shown.reasons.insert(step.reason.as_str().to_owned());
            told.push(format!("{} -> {to} {}", step.from.label(), step.reason.as_str()));
            // One-shot: the state says it from now on.
            if step.reason == Reason::MoveRequested {
                self.move_requested = false;
            }
        }
        if leaving::is_moving(&pass.entry) {
            self.move_requested = false;
        }
        let reason = pass.entry.reason.as_str();
        match pass.end {
            End::Rest => told.push(format!("rest {reason}")),
            End::Wait(recheck) => {
                assert!(!recheck.is_zero(), "a wait without a pause hammers");
                told.push(format!("wait {reason}"));
            }
            End::Perform(effect) => {
                told.push(self.begin(&effect, pass.entry.operation.as_ref()));
                self.flying = Some(effect);
            }
            End::Forgotten => {
                self.entry = None;
                return told;
            }
            End::Refused(why) => told.push(format!("REFUSED {why}")),
        }
        if pass.steps.is_empty() || !matches!(told.last(), Some(last) if last.starts_with("REFUSED")) {
            shown.reasons.insert(reason.to_owned());
        }
        for cause in Cause::ALL.iter().map(|cause| cause.reason().as_str()) {
            // What must leave but cannot begin names its cause in the message alone.
            if pass.entry.message.contains(&format!("({cause})")) {
                shown.reasons.insert(cause.to_owned());
            }
        }
        self.entry = Some(pass.entry);
        told
    }

    fn begin(&mut self, effect: &Effect, written: Option<&Operation>) -> String {
        match effect {
            Effect::Label { node } => format!("label {node}"),
            Effect::Unlabel { node } => format!("unlabel {node}"),
            Effect::Evict { node, pods } => format!("evict {} from {node}", pods.len()),
            Effect::Attach { node, operation, send_before, may_displace_own, .. } => {
                self.leave(*operation, *send_before, written);
                let own = if *may_displace_own { ", displacing its own" } else { "" };
                format!("attach to {node}{own}")
            }
            Effect::Detach { node, operation, send_before, cut, .. } => {
                self.leave(*operation, *send_before, written);
                let cut = match cut {
                    Cut::WhenUnused => "when unused",
                    Cut::Now => "now",
                    Cut::Never => "without a cut",
                };
                format!("detach from {node} {cut}")
            }
        }
    }

    /// Every request belongs to the intent that is written with it (P2), may still leave (F5), and never shares an id
    /// with an attempt that has ended (F9).
    fn leave(&mut self, operation: Uuid, send_before: Timestamp, written: Option<&Operation>) {
        assert_eq!(written.map(|o| (o.id, o.send_before)), Some((operation, send_before)), "intent before deed");
        assert!(self.now < send_before, "a request must not leave after its time");
        assert_ne!(self.spent, Some(operation), "an attempt that has ended is not made again");
        self.alive_until = Some(send_before + SignedDuration::from_secs(120));
        self.operations.push(operation);
    }

    /// A look at the entry, if the line is one.
    pub fn look(&self, line: &str) -> Option<Result<(), String>> {
        let entry = self.entry.as_ref();
        let compare = |found: String, wanted: &str| {
            if found == wanted { Ok(()) } else { Err(format!("expected: {wanted}\n      found: {found}")) }
        };
        if let Some(text) = line.strip_prefix("says ") {
            let message = self.message();
            return Some(if message.contains(text) { Ok(()) } else { Err(format!("{text:?} is not in {message:?}")) });
        }
        if let Some(wanted) = line.strip_prefix("ledger ") {
            let found = entry.and_then(|e| e.last_move.as_ref()).map_or("nothing".to_owned(), |j| {
                let end = |node: &Option<String>| node.clone().unwrap_or_else(|| "nowhere".into());
                let gap = j.gap.map_or(String::new(), |gap| format!(", gap {} s", gap.as_secs()));
                format!("{} to {} for {}{gap}", end(&j.from), end(&j.to), j.reason)
            });
            return Some(compare(found, wanted));
        }
        if let Some(wanted) = line.strip_prefix("deadline ") {
            let found = entry.and_then(|e| e.deadline).map_or("none".to_owned(), |deadline| {
                format!("{} seconds after the beginning", deadline.as_second() - BIRTH)
            });
            return Some(compare(found, wanted));
        }
        if let Some(wanted) = line.strip_prefix("planned ") {
            let found = entry.and_then(|e| e.planned_node.clone()).unwrap_or_else(|| "nowhere".into());
            return Some(compare(found, wanted));
        }
        if line == "the operation is a new one" {
            let fresh = match self.operations.as_slice() {
                [.., before, last] => before != last,
                _ => false,
            };
            return Some(if fresh { Ok(()) } else { Err("the operation is the same as before".into()) });
        }
        if line == "the operation is the same" {
            let same = matches!(self.operations.as_slice(), [.., before, last] if before == last);
            return Some(if same { Ok(()) } else { Err("the operation is another one".into()) });
        }
        None
    }

    pub fn message(&self) -> String {
        self.entry.as_ref().map_or(String::new(), |entry| entry.message.clone())
    }
}
