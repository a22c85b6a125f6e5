//! All that can happen in a small world, on the code that ships: every order of messages, every late answer, every stale
//! cache, as far as a budget of edits and faults reaches (design §3.2).
//!
//! Between two events as they are here no more happens than has to: an effect's reads and the change that follows are one
//! (what happens between the two can as well happen between the sending of the change and its landing, where the cloud must
//! refuse what is stale, F7), and a process that was woken looks at once.
//!
//! In every state that is reached no promise is broken, and from every one a state at rest can be reached with no further
//! fault. A world is closed when nothing new is found; one that is too large is searched as far as its limit goes, and says
//! so. `make model` goes as far as each world goes.

mod mutants;
mod worlds;

use std::time::Duration;

use ip_address_controller::api::READY_LABEL;

use crate::{
    cosmos::{
        course::{Action, CallFault, Cosmos, Outside, POOL},
        errand::Call,
        process::{Break, FlightId, Process, WriteFault},
    },
    invariants,
    search::System,
};

/// What may still befall the world.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// People, machines, outsiders and the scheduler: any of these, so often in all.
    pub edits: Vec<(Vec<Outside>, u8)>,
    /// The leader is paused, and may go on later; or gives its Lease away.
    pub take_overs: u8,
    pub crashes: u8,
    /// A call whose answer is lost: it took effect, or not, or does so later.
    pub lost_answers: u8,
    /// Looks after a while that is shorter than the life of what is under way. A standby that waits for the Lease
    /// needs none for that.
    pub short_waits: u8,
}

/// Shorter than the life of an intent, longer than a Lease.
const SHORT: Duration = Duration::from_secs(20);
/// No request of an intent may be sent any more, and one that was may still land.
const MEDIUM: Duration = Duration::from_secs(75);
/// Longer than anything that is waited for.
const LONG: Duration = Duration::from_secs(1_300);

/// What is spent when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Nothing,
    Edit(usize),
    TakeOver,
    Crash,
    LostAnswer,
    ShortWait,
}

/// Something that may happen.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    pub action: Action,
    /// What befalls the first write of a status that follows.
    write: Option<WriteFault>,
    /// Of several allocations that are looked at then, the last by name comes first.
    last_first: bool,
    cost: Cost,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.action.fmt(f)?;
        if self.last_first {
            f.write_str(", the last allocation first")?;
        }
        self.write.map_or(Ok(()), |fault| write!(f, ", and the write that follows: {fault:?}"))
    }
}

/// A world and what may still befall it.
#[derive(Clone)]
pub struct Model {
    pub cosmos: Cosmos,
    pub budget: Budget,
    /// Its own writes come back to a process as late as anybody's.
    pub own_writes_show_late: bool,
    /// Who does not lead gets news too, each at its time.
    pub standbys_watch: bool,
}

/// More than any look takes: who does more goes in circles.
const MOST: usize = 60;

impl Model {
    pub fn new(cosmos: Cosmos, budget: Budget) -> Self {
        let mut model = Self { cosmos, budget, own_writes_show_late: false, standbys_watch: false };
        model.begin();
        model
    }

    /// The first process leads. The watches of the others are left behind at this moment.
    fn begin(&mut self) {
        for id in 0..self.cosmos.processes.len() {
            self.cosmos.happen(&Action::Sync(u8::try_from(id).unwrap())).unwrap();
        }
        self.cosmos.happen(&Action::TakeOver(0)).unwrap();
        self.look(Some(0), None, false).unwrap();
    }

    /// Everything has been attached before anything happens.
    pub fn settled(mut self) -> Self {
        while !self.cosmos.is_idle() {
            let next = self.actions().swap_remove(0);
            self.apply(&next).unwrap();
        }
        self
    }

    /// What happens before the search, step by step.
    pub fn after(mut self, actions: &[Action]) -> Self {
        for action in actions {
            let event = Event { action: action.clone(), write: None, last_first: false, cost: Cost::Nothing };
            self.apply(&event).unwrap();
        }
        self
    }

    fn faults(&self) -> Vec<Event> {
        let Self { cosmos, budget, .. } = self;
        let mut all = Vec::new();
        let mut may = |cost, action| all.push(Event { action, write: None, last_first: false, cost });
        for (group, (edits, left)) in budget.edits.iter().enumerate() {
            if *left > 0 {
                let edits = edits.iter().filter(|edit| !self.is_vain(edit));
                edits.for_each(|edit| may(Cost::Edit(group), Action::Outside(edit.clone())));
            }
        }
        let leading = cosmos.processes.iter().filter(|process| process.term.is_some() && !process.paused);
        for process in leading {
            let Some(term) = &process.term else { continue };
            if budget.take_overs > 0 {
                may(Cost::TakeOver, Action::Pause(process.id));
                if term.flights.is_empty() {
                    may(Cost::TakeOver, Action::StepDown(process.id));
                }
            }
            if budget.crashes > 0 {
                may(Cost::Crash, Action::Crash(process.id));
            }
            if budget.lost_answers > 0 {
                for (flight, under_way) in &term.flights {
                    if under_way.sent.is_some() {
                        may(Cost::LostAnswer, Action::TimeOut(process.id, *flight));
                    } else {
                        may(Cost::LostAnswer, Action::BrokenStep(process.id, *flight, CallFault::Lost));
                        may(Cost::LostAnswer, Action::BrokenStep(process.id, *flight, CallFault::Unanswered));
                    }
                }
            }
        }
        all
    }

    /// The process that an event is about, if its watches have brought all that there is.
    fn current(&self, event: &Event) -> Option<u8> {
        let id = match &event.action {
            Action::Sync(id)
            | Action::Answers(id)
            | Action::Step(id, _)
            | Action::BrokenStep(id, ..)
            | Action::TimeOut(id, _)
            | Action::TakeOver(id)
            | Action::Resume(id) => *id,
            Action::Land(request) => self.cosmos.cloud.requests().get(request)?.meta.sender.process,
            Action::Elapse(_) => self.cosmos.leader()?.id,
            _ => return None,
        };
        let cache = &self.cosmos.process(id).cache;
        (matches!(event.action, Action::Sync(_)) || !self.cosmos.cluster.is_ahead_of(cache)).then_some(id)
    }

    /// Who was woken looks at once: what happens between the two can as well happen before the one or after the other. What
    /// a process has written itself shows in its watches at once, if they were `current` (unless `own_writes_show_late`).
    fn look(&mut self, current: Option<u8>, mut fault: Option<WriteFault>, last_first: bool) -> Result<(), String> {
        for _ in 0..MOST {
            let running = self.cosmos.processes.iter().filter(|process| !process.paused);
            let mut leading = running.filter_map(|process| Some((process, process.term.as_ref()?)));
            let ahead = |process: &Process| self.cosmos.cluster.is_ahead_of(&process.cache);
            let next = leading.find_map(|(process, term)| {
                match if last_first { term.woken.last() } else { term.woken.first() } {
                    Some(name) => Some(match fault {
                        Some(fault) => Action::BrokenPass(process.id, name.clone(), Break::status(fault)),
                        None => Action::Pass(process.id, name.clone()),
                    }),
                    None if !self.own_writes_show_late && current == Some(process.id) && ahead(process) => {
                        Some(Action::Sync(process.id))
                    }
                    None => None,
                }
            });
            let Some(action) = next else { return Ok(()) };
            if matches!(action, Action::BrokenPass(..)) {
                fault = None;
            }
            self.cosmos.happen(&action)?;
        }
        Err("P11: it looks for ever without time passing".to_owned())
    }

    fn next_call(&self, process: u8, flight: FlightId) -> Option<Call> {
        let under_way = self.cosmos.process(process).term.as_ref()?.flights.get(&flight)?;
        under_way.sent.is_none().then(|| under_way.errand.next())
    }

    /// Effects whose request landed, or expired, while their process was paused.
    fn answered_to_nobody(&self) -> impl Iterator<Item = (u8, FlightId)> {
        let requests = self.cosmos.cloud.requests();
        let running = self.cosmos.processes.iter().filter(|process| !process.paused);
        let terms = running.filter_map(|process| Some((process.id, process.term.as_ref()?)));
        terms.flat_map(move |(id, term)| {
            let waits = term
                .flights
                .iter()
                .filter(|(_, flight)| flight.sent.is_some_and(|(sent, _)| !requests.contains_key(&sent)));
            waits.map(move |(flight, _)| (id, *flight))
        })
    }

    /// Who has no proof left learns nothing more of use; but it may try to send what it was about to send (F1).
    fn is_for_nothing(&self, action: &Action) -> bool {
        let (Action::Answers(id) | Action::Sync(id)) = action else { return false };
        self.cosmos.process(*id).term.as_ref().is_none_or(|term| term.proof <= self.cosmos.instant)
    }

    /// It would leave everything as it is.
    fn is_vain(&self, edit: &Outside) -> bool {
        let cluster = &self.cosmos.cluster;
        let node = |name: &String| cluster.node(name);
        match edit {
            Outside::Cordon(name) => node(name).is_none_or(|node| node.cordoned()),
            Outside::Uncordon(name) => node(name).is_none_or(|node| !node.cordoned()),
            Outside::Deselect(name) => node(name).is_none_or(|node| node.label(POOL).is_none()),
            Outside::Select(name) => node(name).is_none_or(|node| node.label(POOL).is_some()),
            Outside::NotReady(name) => node(name).is_none_or(|node| node.not_ready_since().is_some()),
            Outside::Ready(name) => node(name).is_none_or(|node| node.not_ready_since().is_none()),
            Outside::DeleteNode(name) => node(name).is_none(),
            Outside::Rejoin(name) => node(name).is_some(),
            Outside::Unlabel(name) => node(name).is_none_or(|node| node.label(READY_LABEL).is_none()),
            Outside::StartPod(name, _) => node(name).is_none_or(|node| node.label(READY_LABEL).is_none()),
            Outside::Delete(name) => {
                cluster.allocation(name).is_none_or(|object| object.metadata.deletion_timestamp.is_some())
            }
            Outside::RemoveStatus(name) => cluster.allocation(name).is_none_or(|object| object.status.is_none()),
            Outside::CopyStatus(from, to) => {
                let status = |name| cluster.allocation(name).and_then(|object| object.status.as_ref());
                status(from).is_none() || cluster.allocation(to).is_none() || status(from) == status(to)
            }
            Outside::Add(name, ip) => {
                cluster.allocation(name).is_none_or(|object| object.spec.reserved_ips.contains(&ip.to_string()))
            }
            Outside::Remove(name, ip) => {
                cluster.allocation(name).is_none_or(|object| !object.spec.reserved_ips.contains(&ip.to_string()))
            }
            _ => false,
        }
    }

    fn spend(&mut self, cost: Cost) {
        let budget = &mut self.budget;
        match cost {
            Cost::Nothing => {}
            Cost::Edit(group) => budget.edits[group].1 -= 1,
            Cost::TakeOver => budget.take_overs -= 1,
            Cost::Crash => budget.crashes -= 1,
            Cost::LostAnswer => budget.lost_answers -= 1,
            Cost::ShortWait => budget.short_waits -= 1,
        }
    }
}

impl System for Model {
    type Action = Event;

    fn actions(&self) -> Vec<Event> {
        let free = |action| Event { action, write: None, last_first: false, cost: Cost::Nothing };
        let going_on = self.cosmos.going_on(true).into_iter().filter(|action| !self.is_for_nothing(action));
        let mut all: Vec<Event> = going_on.map(free).collect();
        if self.standbys_watch {
            let standbys = self.cosmos.processes.iter().filter(|process| process.term.is_none() && !process.paused);
            let behind = standbys.filter(|process| self.cosmos.cluster.is_ahead_of(&process.cache));
            all.extend(behind.map(|process| free(Action::Sync(process.id))));
        }
        let paused = self.cosmos.processes.iter().filter(|process| process.paused);
        all.extend(paused.map(|process| free(Action::Resume(process.id))));
        // Who uses an address lets it go some day.
        let pods = self.cosmos.cluster.pods().values().flatten();
        all.extend(pods.map(|pod| free(Action::Outside(Outside::EndPod(pod.uid.clone())))));
        all.extend(self.answered_to_nobody().map(|(process, flight)| free(Action::TimeOut(process, flight))));
        if self.cosmos.is_idle() {
            if self.cosmos.waits_for_a_lease() {
                all.push(free(Action::Elapse(SHORT)));
            } else if self.budget.short_waits > 0 {
                let waits = [SHORT, MEDIUM].map(|time| free(Action::Elapse(time)));
                all.extend(waits.map(|wait| Event { cost: Cost::ShortWait, ..wait }));
            }
            all.push(free(Action::Elapse(LONG)));
        }
        if self.cosmos.cluster.allocations().len() > 1 {
            let wakes_all = |event: &&Event| {
                matches!(
                    event.action,
                    Action::Sync(_) | Action::Answers(_) | Action::TakeOver(_) | Action::Resume(_) | Action::Elapse(_)
                )
            };
            let turned = |event: &Event| Event { last_first: true, ..event.clone() };
            all.extend(all.iter().filter(wakes_all).map(turned).collect::<Vec<_>>());
        }
        if self.budget.lost_answers > 0 {
            let leads_to_a_look = |event: &&Event| !matches!(event.action, Action::Land(_) | Action::Resume(_));
            let lost = |event: &Event| {
                [WriteFault::Lost, WriteFault::Unanswered].map(|fault| Event {
                    write: Some(fault),
                    cost: Cost::LostAnswer,
                    ..event.clone()
                })
            };
            all.extend(all.iter().filter(leads_to_a_look).flat_map(lost).collect::<Vec<_>>());
        }
        all.extend(self.faults());
        all
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        self.spend(event.cost);
        let current = self.current(event);
        if let Action::Step(process, flight) = event.action {
            while self.next_call(process, flight).is_some_and(|call| !call.is_change()) {
                self.cosmos.happen(&event.action)?;
            }
            if self.next_call(process, flight).is_some() {
                self.cosmos.happen(&event.action)?;
            }
        } else {
            self.cosmos.happen(&event.action)?;
        }
        self.look(current, event.write, event.last_first)
    }

    fn fingerprint(&self) -> u128 {
        let Budget { edits, take_overs, crashes, lost_answers, short_waits } = &self.budget;
        let edits: Vec<u8> = edits.iter().map(|(_, left)| *left).collect();
        self.cosmos.fingerprint(&format!("{edits:?} {take_overs} {crashes} {lost_answers} {short_waits}"))
    }

    fn at_rest(&self) -> bool {
        let cosmos = &self.cosmos;
        cosmos.is_idle()
            && cosmos.cloud.requests().is_empty()
            && cosmos.processes.iter().all(|process| !process.paused)
            && cosmos.leader().is_some()
            && invariants::rest(cosmos).is_ok()
            && invariants::placed(cosmos).is_ok()
    }

    fn is_fault(event: &Event) -> bool {
        !matches!(event.cost, Cost::Nothing | Cost::ShortWait)
    }
}
