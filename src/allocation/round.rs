//! One round over the addresses of an allocation: the pure middle of a pass, from what is known to what is written and
//! then done.
//!
//! ```text
//! Subject + Scene + Entries ─▶ decide ─▶ Round ─▶ record ─▶ Record: the status to write, and the deeds that follow it
//! ```
//!
//! Knows no client, no clock and no chance: nodes, answers, time and ids come in, questions and deeds go out. What this
//! process knows beside status is in [`Tables`], which the caller has locked. So the model checker and the random lives of
//! `tests/promises` run this very code.

mod debts;
mod entries;
mod turn;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    debts::{Debt, DebtState},
    entries::{Entries, inherit},
    turn::{Turn, is_of_cloud},
};
use super::{
    act::{Deed, Done, pods::Asked},
    claims::Claims,
    decide::{
        Effect,
        facts::{Claim, Entry, Facts, Mode, Wanted},
        leaving,
        placement::{Candidate, Plan},
        state::{Reason, State},
        users::{Pod, Workload},
    },
    memory::Owed,
    moment::Moment,
    observe::{
        Eyes, Subject, Surroundings,
        answers::{Answers, Questions},
        dead_at,
    },
    record::{conditions, news::News},
    tables::Tables,
    taints,
    watch::Interest,
};
use crate::{
    api::NetIPAllocationStatus,
    cloud::{Change, CloudError, ErrorKind, MachineId, Restored, Scope, limits::Urgency},
    lifecycle::Outcome,
};

/// The pods of the nodes that one pass looks at.
pub type PodsByNode = BTreeMap<String, Vec<Pod>>;

/// What one pass sees around its addresses.
pub struct Scene {
    pub around: Surroundings,
    pub claims: Arc<Claims>,
    pub workload: Workload,
    /// The pods of the nodes that an address is leaving.
    pub pods: PodsByNode,
    /// The recorded taint that is wanted nowhere any more has been looked for, and is on no node.
    pub no_taint_left: bool,
}

/// A slot and a rate token that would be of use (F2), asked for beside the pass.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The address, or the machine that is owed something.
    pub subject: String,
    pub scope: Scope,
    pub change: Change,
    pub urgency: Urgency,
}

/// What a round makes of an allocation's addresses, not yet durable.
pub struct Round {
    turns: Vec<Turn>,
    /// Of each turn, in the same order.
    facts: Vec<Facts>,
    plan: Plan,
    debts: Vec<Debt>,
    /// To be asked beside the pass.
    pub questions: Questions,
    pub wishes: Vec<Wish>,
    /// The subjects whose permits its deeds use up,
    pub used: BTreeSet<String>,
    /// and those that keep theirs for a next pass.
    pub kept: BTreeSet<String>,
}

/// A round as it is written: nothing of it is done before the write is known to have succeeded (P2).
pub struct Record {
    pub status: NetIPAllocationStatus,
    pub turns: Vec<Turn>,
    pub debts: Vec<Debt>,
    pub plan: Plan,
    /// The entries that stay, and their facts in the same order.
    pub kept: Vec<Entry>,
    pub facts: Vec<Facts>,
    /// Nothing is under way, owed, not understood or left on a node: the object may go, if it is to go.
    pub may_go: bool,
    owes: bool,
}

/// Names of nodes that an address is leaving or must leave: the pods of these have to be known, and of no others.
pub fn leaving_nodes(
    subject: &Subject,
    scene: &Scene,
    entries: &Entries,
    answers: &Answers,
    tables: &mut Tables,
) -> (BTreeSet<String>, Questions) {
    let permits = BTreeSet::new();
    let eyes = eyes(subject, scene, answers, &permits);
    let facts = eyes.facts(&entries.known, tables);
    let leaving = entries
        .known
        .iter()
        .zip(&facts)
        .filter(|(entry, facts)| match entry.state {
            State::Draining | State::Releasing => true,
            State::Attached => leaving::cause(entry, facts).is_some(),
            State::Unassigned | State::Attaching | State::Detached => false,
        })
        .filter_map(|(entry, _)| entry.node.clone())
        .collect();
    (leaving, eyes.questions.into_inner())
}

/// What speaks for or against each node that the allocation selects, whatever its addresses need.
pub fn candidates(subject: &Subject, scene: &Scene, answers: &Answers, tables: &Tables) -> Vec<Candidate> {
    eyes(subject, scene, answers, &BTreeSet::new()).candidates(tables)
}

/// Runs the machine of every address on one set of facts; takes seats and tickets for what is to be done. `permits`: the
/// subjects that may begin something now (F2).
pub fn decide(
    subject: &Subject,
    scene: &Scene,
    entries: &Entries,
    answers: &Answers,
    permits: &BTreeSet<String>,
    tables: &mut Tables,
) -> Round {
    let held: BTreeSet<IpAddr> = permits.iter().filter_map(|subject| subject.parse().ok()).collect();
    let eyes = eyes(subject, scene, answers, &held);
    if let Ok(scope) = &subject.scope {
        eyes.keep_surveyed(scope);
    }
    let seats = entries.seats(|machine| tables.paid(machine).is_some());
    tables.seats.set(&subject.uid, seats);
    let mut facts = eyes.facts(&entries.known, tables);
    let (plan, unreadable) = eyes.plan(&entries.known, &mut facts, tables);
    let mut wishes = Vec::new();
    let turns = turn::all(subject, scene, entries, &mut facts, &unreadable, tables, &mut wishes);
    tables.promised.set(&subject.uid, turns.iter().zip(&facts).filter_map(|(turn, facts)| turn::promise(turn, facts)));
    let turned: Vec<_> = turns.iter().zip(&facts).collect();
    let debts = debts::all(subject, scene, entries, &turned, permits, tables, &mut wishes);
    let acting = turns.iter().filter(|turn| turn.deed.as_ref().is_some_and(|(deed, _)| is_of_cloud(&deed.effect)));
    let paying = debts.iter().filter(|debt| matches!(debt.state, DebtState::Paying(_)));
    let used = acting
        .map(|turn| turn.before.ip.to_string())
        .chain(paying.map(|debt| debt.owed.machine.place.to_string()))
        .collect();
    let ready = debts.iter().filter(|debt| matches!(debt.state, DebtState::Ready));
    let kept = turns
        .iter()
        .filter(|turn| turn.keeps_permit)
        .map(|turn| turn.before.ip.to_string())
        .chain(ready.map(|debt| debt.owed.machine.place.to_string()))
        .collect();
    Round { turns, facts, plan, debts, questions: eyes.questions.into_inner(), wishes, used, kept }
}

fn eyes<'a>(subject: &'a Subject, scene: &'a Scene, answers: &'a Answers, permits: &'a BTreeSet<IpAddr>) -> Eyes<'a> {
    let Scene { around, claims, workload, pods, no_taint_left: _ } = scene;
    Eyes { subject, around, answers, claims, workload, pods, permits, questions: RefCell::default() }
}

impl Round {
    /// What is to be written. `term`: when this process became responsible.
    pub fn record(self, subject: &Subject, scene: &Scene, entries: &Entries, tables: &Tables, term: Instant) -> Record {
        let Round { mut turns, facts, plan, debts, .. } = self;
        let Scene { around, workload, .. } = scene;
        let owed: Vec<Owed> = debts
            .iter()
            .filter(|debt| !matches!(debt.state, DebtState::Struck(_)))
            .map(|debt| debt.owed.clone())
            .collect();
        for turn in &mut turns {
            debts::tell_debt(&mut turn.after, &owed);
        }
        let (kept, kept_facts): (Vec<Entry>, Vec<Facts>) = turns
            .iter()
            .zip(facts)
            .filter(|(turn, _)| !turn.forgotten)
            .map(|(turn, facts)| (turn.after.clone(), facts))
            .unzip();
        let moment = &around.moment;
        let surveyed = around.survey.as_ref().is_some_and(|survey| moment.since(survey.began) < subject.blind_after());
        let node_taint = match subject.mode {
            Mode::Observe => subject.object.status.as_ref().and_then(|status| status.node_taint.clone()),
            Mode::Enforce | Mode::Hold => taints::recorded(&subject.object, scene.no_taint_left),
        };
        let untainted = node_taint.is_none();
        let status = conditions::status(&conditions::Picture {
            object: &subject.object,
            entries: &kept,
            facts: &kept_facts,
            foreign: &entries.foreign,
            unusable: if subject.terminating { &[] } else { &subject.selection.unusable },
            held: subject.selection.held.as_deref(),
            owed: &owed,
            node_taint: node_taint.as_ref(),
            plan: &plan,
            workload,
            cloud_error: around.survey_error.as_ref(),
            scope_error: subject.scope.as_ref().err().map(String::as_str),
            surveyed,
            blind: !surveyed && (around.survey.is_some() || moment.since(term) >= subject.blind_after()),
            terminating: subject.terminating,
            now: moment.now,
        });
        let owes = !owed.is_empty();
        let rest = turns.iter().all(|turn| turn.forgotten || turn.deed.is_none());
        let may_go = rest
            && if subject.retain {
                !kept.iter().zip(&kept_facts).any(|(entry, facts)| must_end(subject, around, entry, facts))
                    && !owed.iter().any(|owed| debts::must_pay(subject, around, owed, tables))
            } else {
                kept.is_empty() && entries.foreign.is_empty() && !owes && untainted
            };
        Record { status, turns, debts, plan, kept, facts: kept_facts, may_go, owes }
    }
}

/// An open intent is ended before the object may go, unless nothing of it is under way and the cloud denies us (Retain is the
/// way out) or the address was not cut off yet and may stay as it is. What passes by itself, or can be undone, excuses
/// nothing: half of a swap would be left for good (P10).
fn must_end(subject: &Subject, around: &Surroundings, entry: &Entry, facts: &Facts) -> bool {
    let denied = facts.failure.as_ref().is_some_and(|failure| failure.kind.is_denial());
    let unheard = subject.scope_of(entry).map_or(true, |scope| around.cannot_connect(scope.provider));
    let whole = entry.state == State::Releasing && entry.machine.as_ref().is_some_and(|at| facts.read.is_on(at));
    let may_stay = facts.intent_dead && !facts.in_flight && (denied || unheard || whole);
    entry.state.is_open_intent() && !may_stay
}

impl Record {
    /// How the pass ended.
    pub fn outcome(&self) -> Outcome {
        let acts = self.turns.iter().any(|turn| turn.deed.is_some());
        match (acts, self.moved()) {
            (true, _) => Outcome::Acted,
            (false, true) => Outcome::Moved,
            (false, false) if self.kept.iter().all(|entry| entry.state == State::Attached) => Outcome::Rested,
            (false, false) => Outcome::Waiting,
        }
    }

    /// When to look again, if nothing wakes the allocation earlier.
    pub fn recheck(&self, subject: &Subject) -> Duration {
        if self.moved() {
            return Duration::from_millis(100);
        }
        let settled = self.outcome() == Outcome::Rested
            && !self.owes
            && self.kept.iter().all(|entry| matches!(entry.reason, Reason::Verified | Reason::Adopted));
        if settled { subject.interval } else { subject.interval.min(RECHECK) }
    }

    /// The nodes that it hears of at once.
    pub fn interest(&self) -> Interest {
        // Until it is written it is where it was.
        let left = self.turns.iter().filter_map(|turn| turn.before.node.as_ref());
        let named = self.kept.iter().flat_map(|entry| [&entry.node, &entry.planned_node]).flatten();
        let owed = self.debts.iter().map(|debt| &debt.owed.node);
        let nodes = left.chain(named).chain(owed).chain(self.plan.targets.values()).cloned().collect();
        let mut entries = self.kept.iter().zip(&self.facts);
        let homeless = |(entry, facts): (&Entry, &Facts)| {
            let ours = facts.wanted == Wanted::Yes && facts.claim == Claim::Ours;
            ours && entry.node.is_none() && !self.plan.targets.contains_key(&entry.ip)
        };
        Interest { nodes, any: self.plan.leaves_one_out() || entries.any(homeless) }
    }

    fn moved(&self) -> bool {
        self.turns.iter().any(|turn| !turn.steps.is_empty())
    }

    /// How much of it `before` does not say.
    pub fn news(&self, before: Option<&NetIPAllocationStatus>) -> News {
        let between = self.turns.iter().any(Turn::is_between);
        let settled = self.turns.iter().all(|turn| turn.is_between() || turn.says_the_same());
        let pays = self.debts.iter().any(|debt| matches!(debt.state, DebtState::Paying(_)));
        let in_vain = self.debts.iter().any(|debt| matches!(debt.state, DebtState::Struck(Some(_))));
        match News::of(before, &self.status) {
            // Of a debt that is refused for good an event tells, once.
            _ if in_vain => News::Facts,
            _ if between && settled && !pays => News::Words,
            news => news,
        }
    }

    /// Nothing of it is written now: what it would have said, which is returned, is found again by a later pass. Its deeds,
    /// which no intent precedes, go on.
    pub fn hold_back(&mut self, before: Option<&NetIPAllocationStatus>) -> NetIPAllocationStatus {
        let unsaid = std::mem::replace(&mut self.status, before.cloned().unwrap_or_default());
        for turn in &mut self.turns {
            turn.after.clone_from(&turn.before);
            turn.steps.clear();
        }
        self.debts.retain(|debt| !matches!(debt.state, DebtState::Struck(_)));
        unsaid
    }

    /// The write was refused: nothing is done, tickets go back.
    pub fn abandon(self, tables: &mut Tables) {
        for (_, ticket) in self.turns.into_iter().filter_map(|turn| turn.deed) {
            tables.flights.end(ticket);
        }
        for debt in self.debts {
            if let DebtState::Paying(ticket) = debt.state {
                tables.flights.end(ticket);
            }
        }
    }

    /// The write succeeded: forgets what it made obsolete.
    pub fn written(&self, tables: &mut Tables) {
        for turn in &self.turns {
            if turn.forgotten {
                if turn.claimed {
                    tables.forget(turn.before.ip);
                }
            } else if turn.steps.iter().any(|step| step.to == Some(State::Attached)) {
                // A lost attach that landed after all: what it failed with is of no interest any more.
                tables.clear_failure(turn.before.ip);
            }
        }
        for debt in self.debts.iter().filter(|debt| matches!(debt.state, DebtState::Struck(_))) {
            tables.forget_debt(&debt.owed.machine);
        }
    }
}

/// The deed of a turn that is written is about to begin.
pub fn begun(turn: &Turn, tables: &mut Tables, moment: &Moment) {
    if let Some((deed, _)) = &turn.deed
        && let Some(operation) = &turn.after.operation
        && is_of_cloud(&deed.effect)
    {
        let dead_at = dead_at(operation, deed.scope.provider, moment);
        if turn.new_intent {
            tables.intents.seen(&turn.after.ip, operation.id, dead_at, true);
        }
        tables.intents.sending(&turn.after.ip, dead_at);
    }
}

/// How a deed ended, as far as it is believed: what it read without changing anything proves nothing while it may not show
/// what the last leader changed (R1).
pub fn believed(deed: &Deed, done: Done, tables: &Tables) -> Done {
    match done {
        Done::Verified(verified) if verified.may_lag && tables.may_not_show(deed.ip, verified.began) => {
            Done::HeldBack("what the leader before this one changed a moment ago may not be shown yet".to_owned())
        }
        done => done,
    }
}

/// What a deed that has ended leaves behind. Its ticket has been given back.
pub fn ended(deed: &Deed, done: &Done, tables: &mut Tables, answers: &mut Answers, moment: &Moment) {
    let cloudy = match &deed.effect {
        Effect::Attach { node, machine, operation, .. } => Some((node, machine, *operation, true)),
        Effect::Detach { node, machine, operation, .. } => Some((node, machine, *operation, false)),
        Effect::Label { .. } | Effect::Unlabel { .. } | Effect::Evict { .. } => None,
    };
    match (done, cloudy) {
        (Done::Node(_), _) => tables.clear_failure(deed.ip),
        (Done::Asked(asked), _) => {
            for (user, answer) in asked {
                let blocked = match answer {
                    Asked::Accepted => None,
                    Asked::Blocked(why) | Asked::Failed(why) => Some(why.clone()),
                };
                tables.asked(&user.uid, blocked, moment.now, moment.jitter());
            }
        }
        (Done::Verified(verified), Some((_, machine, operation, attach))) => {
            tables.succeeded(deed.ip, &machine.place, operation, verified.began, attach);
            answers.verified(&deed.scope, deed.ip, &machine.place, verified);
        }
        (Done::Failed(error), Some((node, machine, operation, _))) => {
            tables.failed(deed.ip, node, &machine.place, operation, error, moment);
            answers.changed(&machine.place);
        }
        (Done::HeldBack(why), Some((_, _, operation, _))) => {
            tables.held_back(deed.ip, operation, why.clone(), moment.now);
        }
        (Done::NodeFailed(why), _) => tables.node_failed(deed.ip, why.clone(), moment.now, moment.jitter()),
        (Done::Verified(_) | Done::Failed(_) | Done::HeldBack(_), None) => {}
    }
}

/// What the attempt to pay a debt leaves behind. Its ticket has been given back.
pub fn paid(
    owed: &Owed,
    result: &Result<Restored, CloudError>,
    tables: &mut Tables,
    answers: &mut Answers,
    moment: &Moment,
) {
    let machine: &MachineId = &owed.machine;
    tables.changed(&machine.place, moment.instant);
    answers.changed(&machine.place);
    match result {
        Ok(Restored::Given | Restored::MachineGone) => tables.restored(machine, None),
        Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => {
            tables.restored(machine, Some(error.to_string()));
        }
        Err(error) => {
            if let Some((attempt, _)) = owed.attempt {
                tables.restore_failed(machine, attempt, error, moment);
            }
        }
    }
}

/// Of the addresses that a turn is about, those that the spec asks for.
fn wanted(facts: &[Facts]) -> usize {
    facts.iter().filter(|facts| facts.wanted == Wanted::Yes).count()
}

/// A look again while something is on its way; changes and answers wake earlier.
pub const RECHECK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    /// Of one address on node a, which is planned to go to b.
    fn record(change: impl FnOnce(&mut Record)) -> Record {
        let now = Timestamp::UNIX_EPOCH;
        let entry = Entry { node: Some("a".into()), planned_node: Some("b".into()), ..Entry::new(ip(1), now) };
        let mut record = Record {
            status: NetIPAllocationStatus::default(),
            turns: Vec::new(),
            debts: Vec::new(),
            plan: Plan::default(),
            kept: vec![entry],
            facts: vec![Facts::plain(now)],
            may_go: false,
            owes: false,
        };
        change(&mut record);
        record
    }

    fn interest(change: impl FnOnce(&mut Record)) -> (Vec<String>, bool) {
        let Interest { nodes, any } = record(change).interest();
        (nodes.into_iter().collect(), any)
    }

    #[test]
    fn an_allocation_hears_at_once_of_the_nodes_that_its_addresses_are_on_go_to_and_are_owed_for() {
        assert_eq!(interest(|_| ()), (vec!["a".into(), "b".into()], false));
        let going = interest(|record| record.plan.targets = BTreeMap::from([(ip(1), "c".into())]));
        assert_eq!(going, (vec!["a".into(), "b".into(), "c".into()], false));
        let owed = Owed {
            machine: "gce://p/us-west1-a/d#17".parse().unwrap(),
            node: "d".into(),
            own: crate::cloud::Own::default(),
            attempt: None,
            retry: None,
        };
        let owing = interest(|record| record.debts.push(Debt { owed, state: DebtState::Waits }));
        assert_eq!(owing, (vec!["a".into(), "b".into(), "d".into()], false));
    }

    #[test]
    fn an_allocation_hears_at_once_of_every_node_while_an_address_has_nowhere_to_go() {
        let of_any = |change: fn(&mut Record)| interest(change).1;
        assert!(of_any(|record| record.kept[0].node = None), "there was no node to plan for");
        assert!(
            of_any(|record| record.plan.out_of_reach = BTreeMap::from([(ip(1), 0)])),
            "it must leave, and no node is free"
        );
        assert!(!of_any(|record| {
            record.kept[0].node = None;
            record.plan.targets.insert(ip(1), "c".into());
        }));
        assert!(!of_any(|record| {
            record.kept[0].node = None;
            record.facts[0].claim = Claim::Other("elder".into());
        }));
    }
}
