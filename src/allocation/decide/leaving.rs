//! Why an address must leave its node, and what that cause asks for: the table of design §3.3, row by row.

use jiff::{SignedDuration, Timestamp};

use super::{
    facts::{Claim, Entry, Facts, Life, Mode, NodeObject, Target, User, Users, Wanted},
    state::{Reason, State},
};

/// This process must have seen a node NotReady without a break for so long: a flap seen by a fresh watch is no fault.
const SEEN_NOT_READY: SignedDuration = SignedDuration::from_secs(10);

macro_rules! causes {
    ($($name:ident),+ $(,)?) => {
        /// The causes, in the table's order; [`cause`] says which one counts when several hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Cause { $($name),+ }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Cause] = &[$(Cause::$name),+];

            /// The word in status, the same one.
            pub fn reason(self) -> Reason {
                match self { $(Cause::$name => Reason::$name),+ }
            }
        }
    };
}

causes! {
    NodeCordoned,
    Disrupted,
    NotSelected,
    RemovedFromSpec,
    NotMatched,
    AllocationDeleted,
    MoveRequested,
    NodeNotReady,
    NodeGone,
    MachineStopped,
    MachineGone,
    NodeReplaced,
    OutOfService,
}

/// When the labels go, compared with the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsGo {
    /// Before the users: the node stays schedulable, and each pod that leaves would be replaced on it.
    First,
    /// After the users are gone.
    AfterUsers,
    /// Just before the detach.
    WithDetach,
    /// At once, even while the detach must wait: nothing answers there any more.
    AtOnce,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub waits_for_users: bool,
    pub labels_go: LabelsGo,
    /// Users are asked to go whatever the policy says.
    pub always_evicts: bool,
    /// Users are asked to go if the policy says so.
    pub may_evict: bool,
    pub needs_target: bool,
    /// Counted by `maxUnavailable`.
    pub paced: bool,
    /// A choice, not a fault: `mode: Hold` stops it.
    pub by_choice: bool,
}

impl Cause {
    /// The cause whose word stands in status.
    pub fn of(reason: Reason) -> Option<Cause> {
        Cause::ALL.iter().copied().find(|cause| cause.reason() == reason)
    }

    /// What the table says.
    pub fn row(self) -> Row {
        let chosen = Row {
            waits_for_users: true,
            labels_go: LabelsGo::First,
            always_evicts: false,
            may_evict: true,
            needs_target: true,
            paced: true,
            by_choice: true,
        };
        let fault = Row {
            waits_for_users: false,
            labels_go: LabelsGo::WithDetach,
            always_evicts: false,
            may_evict: false,
            needs_target: true,
            paced: false,
            by_choice: false,
        };
        match self {
            Cause::NodeCordoned => Row { labels_go: LabelsGo::AfterUsers, ..chosen },
            Cause::Disrupted => Row { labels_go: LabelsGo::AfterUsers, paced: false, ..chosen },
            Cause::NotSelected => chosen,
            Cause::RemovedFromSpec | Cause::NotMatched | Cause::AllocationDeleted => {
                Row { needs_target: false, ..chosen }
            }
            Cause::MoveRequested => Row { always_evicts: true, ..chosen },
            Cause::NodeNotReady | Cause::NodeGone => fault,
            Cause::MachineStopped => Row { labels_go: LabelsGo::AtOnce, ..fault },
            Cause::MachineGone | Cause::NodeReplaced | Cause::OutOfService => {
                Row { labels_go: LabelsGo::AtOnce, needs_target: false, ..fault }
            }
        }
    }

    /// Whether a reason in status is that of a fault.
    pub fn is_fault(reason: &str) -> bool {
        Reason::parse(reason).and_then(Cause::of).is_some_and(|cause| !cause.row().by_choice)
            || reason == Reason::Drifted.as_str()
    }
}

/// It was taken off a node by a fault, and has not arrived at another yet.
pub fn has_left_by_fault(entry: &Entry) -> bool {
    entry.last_move.as_ref().is_some_and(|journey| journey.to.is_none() && Cause::is_fault(&journey.reason))
}

/// It has left a node for another, and has not arrived there yet: that is no move that mode Hold would be the beginning of.
pub fn is_half_moved(entry: &Entry) -> bool {
    let open = entry.last_move.as_ref().filter(|journey| journey.to.is_none());
    let cause = open.and_then(|journey| Cause::of(Reason::parse(&journey.reason)?));
    has_left_by_fault(entry) || cause.is_some_and(|cause| cause.row().needs_target)
}

/// Why the address must leave the node that its entry names, if it must.
///
/// Proven death first, then what the person took back, then faults by judgement, then choices: an earlier one asks for
/// less waiting, so a drained node that dies lets go at once.
pub fn cause(entry: &Entry, facts: &Facts) -> Option<Cause> {
    proven_dead(entry, facts)
        .or_else(|| taken_back(facts))
        .or_else(|| fault(entry, facts))
        .or_else(|| choice(entry, facts))
}

fn proven_dead(entry: &Entry, facts: &Facts) -> Option<Cause> {
    let holder = facts.holder_of(entry)?;
    match holder.life {
        Life::Gone => return Some(Cause::MachineGone),
        Life::Replaced => return Some(Cause::NodeReplaced),
        Life::Stopped => return Some(Cause::MachineStopped),
        Life::Running | Life::Unknown => {}
    }
    match &holder.object {
        NodeObject::Present(node) if node.out_of_service => Some(Cause::OutOfService),
        NodeObject::Present(_) | NodeObject::Absent { .. } => None,
    }
}

fn taken_back(facts: &Facts) -> Option<Cause> {
    match facts.wanted {
        _ if facts.deleting => Some(Cause::AllocationDeleted),
        Wanted::RemovedFromSpec => Some(Cause::RemovedFromSpec),
        Wanted::NotMatched => Some(Cause::NotMatched),
        Wanted::Yes => None,
    }
}

/// A node that has been NotReady, or gone, for long enough, with a machine that runs and a breaker that is closed.
fn fault(entry: &Entry, facts: &Facts) -> Option<Cause> {
    let holder = facts.holder_of(entry)?;
    if facts.frozen || holder.life != Life::Running {
        return None;
    }
    let long_enough = |since: Timestamp| facts.now.duration_since(since) >= facts.not_ready_grace;
    match &holder.object {
        NodeObject::Absent { since } => long_enough(*since).then_some(Cause::NodeGone),
        NodeObject::Present(node) => node
            .not_ready
            .filter(|n| long_enough(n.since) && facts.now.duration_since(n.seen_since) >= SEEN_NOT_READY)
            .map(|_| Cause::NodeNotReady),
    }
}

fn choice(entry: &Entry, facts: &Facts) -> Option<Cause> {
    if facts.move_requested || is_moving(entry) && !facts.stay_requested {
        return Some(Cause::MoveRequested);
    }
    match &facts.holder_of(entry)?.object {
        NodeObject::Absent { .. } => None,
        NodeObject::Present(node) if node.disrupted.is_some() => Some(Cause::Disrupted),
        NodeObject::Present(node) if !node.selected => Some(Cause::NotSelected),
        NodeObject::Present(node) if node.cordoned => Some(Cause::NodeCordoned),
        NodeObject::Present(_) => None,
    }
}

/// It drains because a person asked for it. One-shot: once the drain has begun the annotation is gone, and the reason in
/// status stands for it.
pub fn is_moving(entry: &Entry) -> bool {
    entry.state == State::Draining && entry.reason == Reason::MoveRequested
}

/// The word that status has for a drain. A fault may pass, and what a person asked for stands nowhere else: its word stays. What
/// people take back they do not want moved either.
pub fn word(cause: Cause, entry: &Entry, facts: &Facts) -> Reason {
    match choice(entry, facts) {
        Some(Cause::MoveRequested) if !cause.row().by_choice => Reason::MoveRequested,
        Some(_) | None => cause.reason(),
    }
}

/// Whether the node gives the address up now: the columns *waits for users*, *hold* and *deadline*.
pub fn released(cause: Cause, entry: &Entry, facts: &Facts) -> bool {
    if !cause.row().waits_for_users || is_unattended(entry, facts) {
        return true;
    }
    entry.deadline.is_some_and(|deadline| facts.now >= deadline)
        || holders(cause, entry, facts).is_some_and(|h| h.is_empty())
}

/// Whether it leaves as soon as it has somewhere to go and its turn comes.
pub fn may_go(entry: &Entry, facts: &Facts) -> bool {
    cause(entry, facts).is_some_and(|cause| {
        needs_target(cause, facts) && permitted(cause, entry, facts) && released(cause, entry, facts)
    })
}

/// The node is at fault or dead: its pods are not waited for, whatever else is the reason. A kubelet that does not
/// answer never says that a pod has ended.
pub fn is_unattended(entry: &Entry, facts: &Facts) -> bool {
    proven_dead(entry, facts).or_else(|| fault(entry, facts)).is_some()
}

/// The users that keep the address on its node; `None` while the pods are not known.
pub fn holders<'a>(cause: Cause, entry: &Entry, facts: &'a Facts) -> Option<Vec<&'a User>> {
    match facts.users_of(entry) {
        Users::Unknown => None,
        Users::Known(users) => Some(users.iter().filter(|user| keeps(cause, user, facts.drain.evict)).collect()),
    }
}

/// How many pods keep a draining address by their annotation: they are not asked to go.
pub fn holding_pods(entry: &Entry, facts: &Facts) -> usize {
    let draining = cause(entry, facts).filter(|_| entry.state == State::Draining);
    let waiting = draining.filter(|cause| !released(*cause, entry, facts));
    let holders = waiting.and_then(|cause| holders(cause, entry, facts)).unwrap_or_default();
    holders.iter().filter(|user| user.hold).count()
}

/// A pod that runs or still terminates keeps the address. A DaemonSet's pod on a cordoned or disrupted node is never told
/// to go, so one that says of itself that it is not Ready keeps nothing, unless it holds.
pub fn keeps(cause: Cause, user: &User, evict: bool) -> bool {
    let untold = matches!(cause, Cause::NodeCordoned | Cause::Disrupted) && !evict;
    let resigned = untold && user.daemon && !user.ready;
    user.hold || !resigned
}

/// Whether the labels may go now, in the holding phase, before the users are gone.
///
/// Where the node stays schedulable they go first. A DaemonSet's pod would be deleted with them, past its
/// PodDisruptionBudget, so there they go last; that is once none of them is in service any more: a DaemonSet replaces a
/// pod that ends at once, and the moment between two pods would never be seen. One that terminates is past saving,
/// whatever it holds: it keeps the address, not the labels that would bring its successor.
///
/// On a node that is about to be ended no DaemonSet's pod is in service for long, and none leaves by itself before: there
/// the labels go while it runs, which ends it in its own time, unless it holds.
///
/// A cordon keeps nobody away who tolerates it. With such a user the labels go first on a cordoned node too, else each
/// pod that leaves is replaced there, and with eviction for ever.
pub fn labels_may_go(cause: Cause, entry: &Entry, facts: &Facts) -> bool {
    let Users::Known(users) = facts.users_of(entry) else { return false };
    let daemons = || users.iter().filter(|user| user.daemon);
    let none_in_service = daemons().all(|user| daemon_may_end(user, entry, facts));
    match cause.row().labels_go {
        LabelsGo::First => none_in_service,
        LabelsGo::AfterUsers if users.iter().any(|user| user.returns && !user.daemon) => none_in_service,
        LabelsGo::AfterUsers => daemons().next().is_some() && none_in_service && users.iter().all(|user| user.daemon),
        LabelsGo::WithDetach | LabelsGo::AtOnce => false,
    }
}

/// Whether a DaemonSet's pod may be ended with the labels.
fn daemon_may_end(user: &User, entry: &Entry, facts: &Facts) -> bool {
    let ends_anyway = facts
        .holder_of(entry)
        .is_some_and(|holder| matches!(&holder.object, NodeObject::Present(node) if node.disrupted.is_some()));
    user.terminating_until.is_some() || (!user.hold && (!user.ready || ends_anyway))
}

/// The users that keep the address for as long as they like: there is no deadline, nobody asks them to go, neither the operator
/// nor `kubectl drain --ignore-daemonsets`, and nothing ends them. A pod that holds may be evicted by others, and is among them
/// all the same: it says of itself that it stays.
pub fn staying<'a>(cause: Cause, entry: &Entry, facts: &'a Facts) -> Vec<&'a User> {
    if entry.deadline.is_some() || released(cause, entry, facts) {
        return Vec::new();
    }
    let row = cause.row();
    let asked = row.always_evicts || (row.may_evict && facts.drain.evict);
    let stays = |user: &&User| match (user.hold, user.daemon) {
        (true, _) => user.terminating_until.is_none(),
        (false, true) => !asked && !daemon_may_end(user, entry, facts),
        (false, false) => false,
    };
    holders(cause, entry, facts).unwrap_or_default().into_iter().filter(stays).collect()
}

/// Whether the labels stay while the address drains, and are set when somebody took them off (L1).
pub fn labels_stay(cause: Cause, entry: &Entry, facts: &Facts) -> bool {
    let in_use = matches!(facts.users_of(entry), Users::Known(users) if !users.is_empty());
    in_use && !released(cause, entry, facts) && !labels_may_go(cause, entry, facts)
}

/// The users that are to be asked to go now: those that neither terminate nor were asked a moment ago.
pub fn to_be_asked(cause: Cause, entry: &Entry, facts: &Facts) -> Vec<User> {
    let row = cause.row();
    if !(row.always_evicts || (row.may_evict && facts.drain.evict)) {
        return Vec::new();
    }
    match facts.users_of(entry) {
        Users::Unknown => Vec::new(),
        Users::Known(users) => users
            .iter()
            .filter(|user| {
                user.terminating_until.is_none() && !user.hold && user.ask_again.is_none_or(|then| facts.now >= then)
            })
            .cloned()
            .collect(),
    }
}

/// Whether the address may leave only for somewhere.
pub fn needs_target(cause: Cause, facts: &Facts) -> bool {
    cause.row().needs_target && !facts.deleting && facts.wanted == Wanted::Yes && facts.claim == Claim::Ours
}

/// The column *needs a target first*, and there is none.
pub(super) fn nowhere_to_go(cause: Cause, facts: &Facts) -> bool {
    needs_target(cause, facts) && matches!(facts.target, Target::None(_))
}

/// Whether the mode lets this cause begin anything.
pub fn permitted(cause: Cause, entry: &Entry, facts: &Facts) -> bool {
    match facts.mode {
        Mode::Enforce => true,
        // Deletion is no move: an object in maintenance can still be deleted.
        Mode::Hold => !cause.row().by_choice || cause == Cause::AllocationDeleted || fault(entry, facts).is_some(),
        Mode::Observe => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::decide::facts::{Holder, Labels, NodeView, NotReady};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn user(name: &str, hold: bool) -> User {
        User { hold, ..User::plain(name) }
    }

    /// An address on a cordoned node, with one pod that holds it and one that only uses it.
    fn drain() -> (Entry, Facts) {
        let node = NodeView {
            selected: true,
            cordoned: true,
            not_ready: None,
            disrupted: None,
            out_of_service: false,
            labels: Labels::On,
            tainted: false,
        };
        let node = NodeObject::Present(node);
        let facts = Facts {
            holder: Some(Holder { name: "node-a".to_owned(), life: Life::Running, object: node }),
            users: Users::Known(vec![user("calls", true), user("idle", false)]),
            ..Facts::plain(at(100))
        };
        let entry = Entry::new("203.0.113.7".parse().unwrap(), at(0));
        (Entry { state: State::Draining, node: Some("node-a".to_owned()), ..entry }, facts)
    }

    #[test]
    fn pods_that_hold_are_counted_while_the_drain_waits_for_them_and_no_longer() {
        let (entry, facts) = drain();
        assert_eq!(holding_pods(&entry, &facts), 1);
        assert_eq!(holding_pods(&Entry { state: State::Attached, ..entry.clone() }, &facts), 0, "it stays");
        assert_eq!(holding_pods(&Entry { state: State::Releasing, ..entry.clone() }, &facts), 0, "it is taken off");
        assert_eq!(holding_pods(&Entry { deadline: Some(at(99)), ..entry.clone() }, &facts), 0, "nobody is waited for");
        assert_eq!(holding_pods(&entry, &Facts { users: Users::Unknown, ..facts.clone() }), 0, "not known yet");
        let dead = Facts { holder: facts.holder.clone().map(|it| Holder { life: Life::Stopped, ..it }), ..facts };
        assert_eq!(holding_pods(&entry, &dead), 0, "a dead node's pods hold nothing");
    }

    #[test]
    fn a_node_is_down_since_it_is_not_ready_or_gone() {
        let (_, facts) = drain();
        let mut holder = facts.holder.unwrap();
        assert_eq!(holder.down_since(), None);
        if let NodeObject::Present(node) = &mut holder.object {
            node.not_ready = Some(NotReady { since: at(5), seen_since: at(6) });
        }
        assert_eq!(holder.down_since(), Some(at(5)));
        holder.object = NodeObject::Absent { since: at(7) };
        assert_eq!(holder.down_since(), Some(at(7)));
    }
}
