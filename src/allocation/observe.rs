//! Cluster + cloud → facts. Pure: what a pass does not know yet it notes as a question, which is asked beside it.

pub mod answers;
pub mod cloud_view;
pub mod nodes;
pub mod pods;
pub mod requested;
mod verdict;

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use self::{
    answers::{Answer, Answers, Asking, Question, Questions, holder, is_gone},
    nodes::{Roster, SlimNode},
    requested::requested_move,
    verdict::Seated,
};
use super::{
    claims::Claims,
    decide::{
        facts::{
            Adoptable, Claim, Drain, Entry, Facts, Fresh, Holder, Labels, Life, Mode, NodeObject, NodeView, Operation,
            OperationKind, Read, Target, User, Users, Wanted, Whereabouts,
        },
        failover::{Breaker, Health},
        leaving,
        placement::{self, Candidate, Need, Plan, Verdict},
        state::{Reason, State},
        users::{self, Pod, Workload},
    },
    journey, memory,
    moment::Moment,
    selection::Selection,
    tables::{Key, NOBODY, SEND_WINDOW, Tables, left_to_send, refuses_node},
};
use crate::{
    api::{self, NetIPAllocation},
    cloud::{
        self, CloudError, ErrorKind, Interface, Place, Power, Provider, ProviderId, Scope, Seat, Survey,
        limits::Urgency,
    },
};

/// An address that the survey does not list is looked for by id no more often (R2).
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// A contradiction between survey and entry is looked into at once, but not more often.
const CONFIRM: Duration = Duration::from_secs(5);
/// A machine about to be changed was read no longer ago; the effect reads it once more itself (F7).
const FRESH_SEAT: Duration = Duration::from_secs(30);
/// A machine that was read stopped or gone counts as dead for so long, among those that decide about a mass failure.
const PROVEN_FOR: Duration = Duration::from_secs(120);
/// A wake and its pass take so long at most: a read that a pass asked for in the instant in which it saw the trouble may
/// have begun that much before the pass's own clock.
const AWAKE: Duration = Duration::from_secs(1);

/// What an allocation is about, apart from its addresses' state.
pub struct Subject {
    pub object: Arc<NetIPAllocation>,
    pub uid: String,
    pub name: String,
    pub scope: Result<Scope, String>,
    pub mode: Mode,
    /// The object is being deleted,
    pub terminating: bool,
    /// and addresses and labels stay as they are;
    pub retain: bool,
    /// What machines are owed may be paid: not in mode Observe, but on the way out with Retain, where half-done swaps are
    /// still brought to their end (P10).
    pub pays: bool,
    /// or they are let go.
    pub deleting: bool,
    pub selection: Selection,
    pub interval: Duration,
}

impl Subject {
    /// The version of the object that a pass acts on, and what it is about. `retain`: it is being deleted and lets go of
    /// nothing. `observe_only`: every allocation is read as mode Observe.
    pub fn of(
        object: Arc<NetIPAllocation>,
        retain: bool,
        observe_only: bool,
        nodes: &[Arc<SlimNode>],
        answers: &Answers,
    ) -> Self {
        let terminating = object.metadata.deletion_timestamp.is_some();
        let scope = scope(&object.spec, nodes, || memory::held_places(&object));
        let survey = scope.as_ref().ok().and_then(|scope| answers.survey(scope).0);
        let mode = match object.spec.mode {
            _ if observe_only || retain => Mode::Observe,
            api::Mode::Enforce => Mode::Enforce,
            api::Mode::Hold => Mode::Hold,
            api::Mode::Observe => Mode::Observe,
        };
        Self {
            uid: object.uid().unwrap_or_default(),
            name: object.name_any(),
            scope,
            mode,
            terminating,
            retain,
            pays: !observe_only && object.spec.mode != api::Mode::Observe,
            deleting: terminating && !retain,
            selection: Selection::of(&object, survey.as_deref()),
            interval: Duration::from_secs(u64::try_from(object.spec.reconcile_interval).unwrap_or(30).max(5)),
            object,
        }
    }

    /// Where an entry is read and changed: where its machine stands, whatever the spec says by now. An edit of project or
    /// region must not make an address that sits where it sat look gone.
    ///
    /// # Errors
    /// The sentence for status, where neither entry nor spec nor nodes say it.
    pub fn scope_of(&self, entry: &Entry) -> Result<Scope, String> {
        match entry.machine.as_ref().and_then(|machine| self.scope_at(&machine.place)) {
            Some(scope) => Ok(scope),
            None => self.scope.clone(),
        }
    }

    /// The account and region in which a machine stands. An Azure machine does not say its region: it is that of the spec
    /// or the nodes, and the provider finds what sits on a machine of the subscription wherever that is.
    pub fn scope_at(&self, machine: &ProviderId) -> Option<Scope> {
        let scope = machine.place()?.scope();
        let own = self.scope.as_ref().ok();
        let region = if scope.region.is_empty() { own?.region.clone() } else { scope.region };
        Some(Scope { region, resource_group: self.object.spec.cloud.resource_group.clone(), ..scope })
    }

    /// A survey is asked for anew a little before the interval is over, so that one serves each pass.
    pub fn survey_age(&self) -> Duration {
        self.interval.mul_f32(0.9)
    }

    /// No good survey for so long means that the cloud is not seen.
    pub fn blind_after(&self) -> Duration {
        (self.interval * 10).max(Duration::from_secs(300))
    }
}

/// The nodes around an allocation, as one pass sees them.
pub struct Surroundings {
    pub nodes: Arc<Roster>,
    pub survey: Option<Arc<Survey>>,
    pub survey_error: Option<CloudError>,
    /// Of the clouds that are used here those that are not connected. Where an attempt has failed, the sentence for status.
    pub unconnected: BTreeMap<Provider, Option<String>>,
    pub disruption_taints: Vec<String>,
    pub moment: Moment,
}

impl Surroundings {
    /// An attempt to connect to it has failed, and none has succeeded since.
    pub fn cannot_connect(&self, provider: Provider) -> bool {
        matches!(self.unconnected.get(&provider), Some(Some(_)))
    }

    pub fn node(&self, name: &str) -> Option<&Arc<SlimNode>> {
        self.nodes.named(name)
    }

    fn node_at(&self, place: &ProviderId) -> Option<&Arc<SlimNode>> {
        self.nodes.on(place)
    }
}

/// The cloud that a spec names.
pub fn provider(spec: &api::NetIPAllocationSpec) -> Option<Provider> {
    spec.cloud.provider.map(|name| match name {
        api::ProviderName::Gcp => Provider::Gcp,
        api::ProviderName::Aws => Provider::Aws,
        api::ProviderName::Azure => Provider::Azure,
    })
}

/// Where the addresses of a spec are: given, or that of the nodes it selects, or else of the machines that hold them: a
/// pool that is gone must not keep its addresses from being let go. `held`: those machines, asked for only then.
///
/// # Errors
/// The sentence for status.
pub fn scope(
    spec: &api::NetIPAllocationSpec,
    nodes: &[Arc<SlimNode>],
    held: impl FnOnce() -> Vec<ProviderId>,
) -> Result<Scope, String> {
    let Some(provider) = provider(spec) else {
        return Err("spec.cloud.provider is missing; set it to gcp, aws or azure".to_owned());
    };
    let selected = || nodes.iter().filter(|node| node.matches(&spec.node_selector));
    let held_at = |machine: &ProviderId| {
        let node = nodes.iter().find(|node| node.place().as_ref() == Some(machine));
        node.map_or_else(|| machine.place().cloned(), |node| node.location().map(Cow::into_owned))
    };
    let held = std::iter::once_with(held).flatten().filter_map(|machine| held_at(&machine));
    let mut places = selected().filter_map(|node| node.location().map(Cow::into_owned)).chain(held);
    let place = places.find(|place| {
        place.provider == provider
            && spec.cloud.region.as_ref().is_none_or(|region| place.region.is_empty() || *region == place.region)
    });
    let missing = |rest: String| match selected().find_map(|node| node.unsupported()) {
        Some(why) => format!("no selected node can hold an address: {why}"),
        None => format!("no selected node has a provider ID of {provider}{rest}"),
    };
    let from_nodes = |get: fn(Place) -> String, field: &str| {
        let said = place.clone().map(get).filter(|said| !said.is_empty());
        let rest = || format!(" to take the {field} from; set spec.cloud.{field}, or check spec.nodeSelector");
        said.ok_or_else(|| missing(rest()))
    };
    let account = match (&spec.cloud.project, &spec.cloud.subscription_id) {
        (Some(account), _) => account.clone(),
        (None, Some(account)) => account.to_lowercase(),
        (None, None) => match provider {
            Provider::Gcp => from_nodes(|place| place.account, "project")?,
            // That of the credentials, if there is anything for them: a provider ID does not name it.
            Provider::Aws if place.is_some() => String::new(),
            Provider::Aws => return Err(missing("; check spec.nodeSelector".to_owned())),
            Provider::Azure => from_nodes(|place| place.account, "subscriptionID")?,
        },
    };
    let region = match &spec.cloud.region {
        Some(region) => region.clone(),
        None => from_nodes(|place| place.region, "region")?,
    };
    Ok(Scope { provider, account, region, resource_group: spec.cloud.resource_group.clone() })
}

/// One pass's eyes: everything that is needed to make facts, with the tables locked by the caller.
pub struct Eyes<'a> {
    pub subject: &'a Subject,
    pub around: &'a Surroundings,
    pub answers: &'a Answers,
    pub claims: &'a Claims,
    pub workload: &'a Workload,
    pub pods: &'a BTreeMap<String, Vec<Pod>>,
    pub permits: &'a BTreeSet<IpAddr>,
    /// What these eyes looked for and did not find fresh.
    pub questions: RefCell<Questions>,
}

impl Eyes<'_> {
    /// The facts of every entry, targets and turns not yet filled in.
    pub fn facts(&self, entries: &[Entry], tables: &mut Tables) -> Vec<Facts> {
        let frozen = self.frozen(entries, tables);
        entries.iter().map(|entry| self.of(entry, frozen, tables)).collect()
    }

    fn of(&self, entry: &Entry, frozen: bool, tables: &mut Tables) -> Facts {
        let spec = &self.subject.object.spec;
        let moment = &self.around.moment;
        let now = moment.now;
        if let Some(operation) = &entry.operation
            && let Ok(scope) = self.subject.scope_of(entry)
        {
            tables.intents.seen(&entry.ip, operation.id, dead_at(operation, scope.provider, moment), false);
        }
        let id = moment.id(&entry.ip.to_string());
        let place = entry.machine.as_ref().map(|machine| &machine.place);
        if let (Some(place), Some(node)) = (place, entry.node.as_ref().and_then(|name| self.around.node(name))) {
            tables.seen_life(&node.name_any(), node.metadata.uid.as_deref(), place, moment.instant);
        }
        let read = self.read(entry, tables);
        let claim = self.claims.claim(entry.ip, &self.subject.uid);
        let rival_here = match (&claim, &entry.node) {
            (Claim::Other(name), Some(node)) => self.claims.is_on(entry.ip, name, node),
            (Claim::Other(_), None) | (Claim::Ours, _) => false,
        };
        let spent = entry
            .operation
            .as_ref()
            .is_some_and(|operation| tables.is_spent(entry.ip, operation.id) || now >= operation.send_before);
        Facts {
            now,
            wanted: self.subject.selection.of_address(entry.ip, &self.subject.object),
            claim,
            rival_here,
            deleting: self.subject.deleting,
            mode: self.subject.mode,
            finalizer: crate::lifecycle::finalizer::is_set(&*self.subject.object, api::FINALIZER),
            intent_dead: tables.intents.dead(&entry.ip, moment.instant),
            operation_spent: spent,
            in_flight: tables.busy(entry.ip, place),
            holder: self.holder(entry, tables),
            adoptable: self.adoptable(entry, &read, tables),
            read,
            users: self.users(entry, tables),
            target: Target::None(String::new()),
            turn: false,
            permit: self.permits.contains(&entry.ip),
            frozen,
            not_ready_grace: SignedDuration::from_secs(spec.failover.not_ready_seconds.into()),
            left: tables.left(entry).map(|since| moment.then(since)),
            drain: Drain {
                evict: spec.drain.policy == api::DrainPolicy::Evict,
                timeout: spec.drain.timeout_seconds.map(|seconds| SignedDuration::from_secs(seconds.into())),
            },
            move_requested: self.move_requested(entry),
            stay_requested: self.stay_requested(entry),
            failure: tables.failure(entry.ip).cloned(),
            fresh: Fresh {
                id,
                send_before: memory::whole_seconds(now.checked_add(SEND_WINDOW).unwrap_or(now)),
                journey: journey::trace(entry, &self.subject.uid),
            },
        }
    }

    /// The newest read that counts for the entry. A survey that contradicts the entry, or says nothing, raises a
    /// question by id; only its answer proves absence (R2).
    fn read(&self, entry: &Entry, tables: &Tables) -> Read {
        let unknown = |why: String| Read { place: Whereabouts::Unknown(why), live: false };
        let awaited = Read { place: Whereabouts::Awaited, live: false };
        let scope = match self.subject.scope_of(entry) {
            Ok(scope) => scope,
            Err(why) => return Read { place: Whereabouts::Unasked(why), live: false },
        };
        let scope = &scope;
        match self.around.unconnected.get(&scope.provider) {
            Some(Some(why)) => return unknown(why.clone()),
            Some(None) => return awaited,
            None => {}
        }
        let keys: Vec<Key> = std::iter::once(Key::Address(entry.ip))
            .chain(entry.machine.as_ref().map(|machine| Key::Machine(machine.place.clone())))
            .collect();
        let counts = |began: Instant| tables.reads.counts(&keys, began);
        self.keep_surveyed(scope);
        let (newest, survey_error) = self.answers.survey(scope);
        let survey = newest
            .as_ref()
            .filter(|survey| counts(survey.began) && self.since(survey.began) < self.subject.blind_after());
        let listed = survey.and_then(|survey| Some((survey.began, survey.addresses.get(&entry.ip)?)));
        // An answer by id that a later survey has overtaken stays overtaken, even when that survey is too old to be used;
        // but one that began before the end of a change says nothing.
        let overtaken = |began: Instant| {
            newest.as_ref().is_some_and(|survey| {
                survey.began > began && counts(survey.began) && survey.addresses.contains_key(&entry.ip)
            })
        };
        let found =
            self.answers.found(scope, entry.ip).filter(|answer| counts(answer.began) && !overtaken(answer.began));

        let expected = entry.machine.as_ref().filter(|_| entry.state != State::Unassigned);
        let live = found.filter(|answer| self.since(answer.began) < LOOK_AGAIN);
        if let Some(Answer { result: Ok(place), .. }) = live {
            let read = Read { place: whereabouts(place), live: true };
            // What is known by id to be missing is looked for again before it is believed for ever.
            if expected.is_some_and(|machine| !read.is_on(machine)) {
                self.find(scope, entry, self.subject.interval);
            }
            if is_of_the_lost(entry, expected, &read) {
                self.find(scope, entry, CONFIRM);
            }
            if let (cloud::Whereabouts::NotFound, Some(machine)) = (place, expected)
                && let Some(why) = self.contradicts(machine, entry, scope, tables)
            {
                return unknown(why);
            }
            return read;
        }
        if let Some((_, reservation)) = listed {
            let read = Read { place: of_holder(&reservation.holder), live: false };
            if is_of_the_lost(entry, expected, &read) || expected.is_some_and(|machine| !read.is_on(machine)) {
                self.find(scope, entry, CONFIRM);
            }
            return read;
        }
        if survey.is_some() || tables.failure(entry.ip).is_some() || entry.state.is_open_intent() {
            self.find(scope, entry, if survey.is_some() && expected.is_none() { LOOK_AGAIN } else { CONFIRM });
        }
        if let Some(Answer { result: Err(error), .. }) = found {
            return unknown(error.to_string());
        }
        match &survey_error {
            Some(error) => unknown(format!("{error}; {}", error.kind.remedy())),
            None if newest.is_some_and(|survey| self.since(survey.began) >= self.subject.blind_after()) => {
                unknown("the last read of the cloud is too old, and no other has ended since".to_owned())
            }
            None => awaited,
        }
    }

    /// Keeps the survey of `scope` no older than the interval asks.
    pub fn keep_surveyed(&self, scope: &Scope) {
        if !self.answers.is_surveyed(scope, self.subject.survey_age(), &self.around.moment) {
            self.ask(Question::Survey(scope.clone()), scope, Urgency::Survey);
        }
    }

    /// Has an entry's address looked for by id, unless the answer is younger than `age`.
    fn find(&self, scope: &Scope, entry: &Entry, age: Duration) {
        if self.answers.found(scope, entry.ip).is_none_or(|answer| self.since(answer.began) >= age) {
            self.ask(Question::Find(scope.clone(), entry.ip), scope, hurry(entry));
        }
    }

    /// The answer about one machine; asked anew when it is older than `age`, and of no use when it is older than twice
    /// that: a machine read of yesterday proves nothing today.
    fn inspect(&self, scope: &Scope, machine: &ProviderId, age: Duration, urgency: Urgency) -> Option<&Answer<Seat>> {
        let known = self.answers.inspected(machine);
        if known.is_none_or(|answer| self.since(answer.began) >= age) {
            self.ask(Question::Inspect(machine.clone()), scope, urgency);
        }
        known.filter(|answer| self.since(answer.began) < age * 2)
    }

    fn ask(&self, question: Question, scope: &Scope, urgency: Urgency) {
        let mut questions = self.questions.borrow_mut();
        let asking = questions.entry(question).or_insert_with(|| Asking { scope: scope.clone(), urgency });
        asking.urgency = asking.urgency.min(urgency);
    }

    fn since(&self, began: Instant) -> Duration {
        self.around.moment.since(began)
    }

    /// Why an address that the cloud does not list is not believed to be gone from its machine: credentials of another
    /// account, or with fewer rights, get short lists too (P3). The machine itself has to show that it is off, or to be gone
    /// with its Node.
    fn contradicts(&self, machine: &cloud::MachineId, entry: &Entry, scope: &Scope, tables: &Tables) -> Option<String> {
        let Some(answer) = self.inspect(scope, &machine.place, FRESH_SEAT, hurry(entry)) else {
            return Some("is not listed; its machine is being looked at".to_owned());
        };
        if !tables.reads.counts([&Key::Machine(machine.place.clone())], answer.began) {
            return Some("is not listed; its machine cannot be looked at yet".to_owned());
        }
        let ready = self.around.node_at(&machine.place).is_some_and(|node| node.not_ready_since().is_none());
        match &answer.result {
            Ok(seat) if seat.machine == *machine && seat.interface == Interface::Reserved(entry.ip) => {
                Some("is not listed, but its machine has it".to_owned())
            }
            Ok(_) => None,
            Err(error) if error.kind == ErrorKind::NotFound && !ready => None,
            Err(error) => Some(format!("is not listed, and its machine cannot be read: {error}")),
        }
    }

    fn holder(&self, entry: &Entry, tables: &mut Tables) -> Option<Holder> {
        let name = entry.node.clone()?;
        let machine = entry.machine.as_ref()?;
        let now = self.around.moment.now;
        // A Node of that name on another machine is not the node of this one: ours is gone.
        let node = self.around.node(&name).filter(|node| node.place().is_none_or(|place| place == machine.place));
        let absent_since = tables.seen_absent(&machine.place, node.is_none(), &self.around.moment);
        let Some(node) = node else {
            let life = self.life(machine, Some(absent_since), tables);
            return Some(Holder { name, life, object: NodeObject::Absent { since: absent_since } });
        };
        let not_ready = tables.not_ready(&name, node.not_ready_since(), now);
        let renumbered = node.instance().is_some_and(|instance| instance != machine.instance);
        let releasing = entry.state == State::Releasing;
        let life = if let Some(trouble) = not_ready {
            self.life(machine, Some(trouble.seen_since), tables)
        } else if renumbered || releasing || node.out_of_service() || node.deleting() {
            self.life(machine, None, tables)
        } else {
            Life::Unknown
        };
        let object = NodeObject::Present(NodeView {
            selected: node.matches(&self.subject.object.spec.node_selector),
            cordoned: node.cordoned(),
            not_ready,
            disrupted: node.disrupted(&self.around.disruption_taints),
            out_of_service: node.out_of_service(),
            labels: match node.label(api::ALLOCATION_LABEL) {
                Some(whose) if whose != self.subject.name && self.claims.holds(whose, &name) => Labels::Others,
                // Its own, or left behind by one that has nothing there any more.
                Some(_) | None => node.labels_for(&self.subject.name, &entry.ip.to_string()),
            },
            tainted: self.claims.taints().are_on(node),
        });
        Some(Holder { name, life, object })
    }

    /// The machine's life by a live read, asked anew every interval while it matters. `since`: when the trouble was first
    /// seen; what was read before says nothing about it, and is asked anew at once.
    fn life(&self, machine: &cloud::MachineId, since: Option<Timestamp>, tables: &Tables) -> Life {
        let Some(scope) = self.subject.scope_at(&machine.place) else { return Life::Unknown };
        let age = self.subject.interval.min(FRESH_SEAT);
        let lasts = since.and_then(|since| Duration::try_from(self.around.moment.now.duration_since(since)).ok());
        let trouble = lasts.map_or(Duration::MAX, |lasts| lasts + AWAKE);
        let life = self.known_life(machine, trouble.min(age * 2), tables);
        let urgency = match life {
            Life::Unknown if since.is_some() => Urgency::Failover,
            Life::Unknown => Urgency::Drain,
            // It was told a moment ago: many that are only watched must not be in the way of what is lost. Where no turn comes in
            // time it is unknown again.
            Life::Running | Life::Stopped | Life::Gone | Life::Replaced => Urgency::Survey,
        };
        self.inspect(&scope, &machine.place, age.min(trouble), urgency);
        life
    }

    /// As a read says that is younger than `age`, and began after the last change of the machine.
    fn known_life(&self, machine: &cloud::MachineId, age: Duration, tables: &Tables) -> Life {
        let known = self.answers.inspected(&machine.place).filter(|answer| self.since(answer.began) < age);
        let Some(answer) = known else { return Life::Unknown };
        if !tables.reads.counts([&Key::Machine(machine.place.clone())], answer.began) {
            return Life::Unknown;
        }
        if is_gone(answer) {
            return Life::Gone;
        }
        match &answer.result {
            Err(_) => Life::Unknown,
            Ok(seat) if seat.machine != *machine => Life::Replaced,
            Ok(Seat { power: Power::Running, .. }) => Life::Running,
            Ok(Seat { power: Power::Stopped, .. }) => Life::Stopped,
            Ok(Seat { power: Power::Changing, .. }) => Life::Unknown,
        }
    }

    /// Asked only of an address that looks for a place: where one is held, the survey tells all, and its machine is read
    /// by nobody.
    fn adoptable(&self, entry: &Entry, read: &Read, tables: &Tables) -> Adoptable {
        if !matches!(entry.state, State::Unassigned | State::Detached) {
            return Adoptable::No(String::new());
        }
        let ip = entry.ip;
        let (Whereabouts::On(place), Ok(scope)) = (&read.place, &self.subject.scope) else {
            return Adoptable::No(String::new());
        };
        let Some(node) = self.around.node_at(place) else {
            return Adoptable::No("its machine has no Node in this cluster".to_owned());
        };
        // The same machine in the Node's words, which may say more than the address's (AWS: the zone).
        let place = &node.place().unwrap_or_else(|| place.clone());
        let name = node.name_any();
        if !node.matches(&self.subject.object.spec.node_selector) {
            return Adoptable::No(format!("node {name}, which spec.nodeSelector does not select"));
        }
        // What the machine is owed cannot be paid while this address is there, so that is no reason to leave it to nobody.
        if tables.seats.others(place, &ip).any(|(sitting, _)| *sitting != NOBODY) {
            return Adoptable::No(format!("node {name}, which has another address by now"));
        }
        let surveyed = self.around.survey.as_ref().map_or(FRESH_SEAT, |survey| self.since(survey.began));
        let counted = self
            .inspect(scope, place, FRESH_SEAT.min(surveyed.max(CONFIRM)), Urgency::Placement)
            .filter(|answer| tables.reads.counts([&Key::Machine(place.clone())], answer.began));
        let overtaken = |began: Instant| self.around.survey.as_ref().is_some_and(|survey| survey.began > began);
        match counted.map(|answer| (answer.began, &answer.result)) {
            None => Adoptable::Looking { node: name },
            Some((_, Err(error))) => Adoptable::Unreachable { node: name, why: error.to_string() },
            Some((_, Ok(seat))) if seat.interface == Interface::Reserved(ip) => {
                Adoptable::Yes { node: name, machine: seat.machine.clone() }
            }
            // Read before it came, perhaps; once it was found to be elsewhere, that stands until a newer read says otherwise.
            Some((began, Ok(_))) if overtaken(began) && entry.reason != Reason::AddressInUse => {
                Adoptable::Looking { node: name }
            }
            Some((_, Ok(_))) => Adoptable::No(format!("node {name}, but not its primary interface")),
        }
    }

    fn users(&self, entry: &Entry, tables: &Tables) -> Users {
        if *self.workload == Workload::Unknown {
            return Users::Unknown;
        }
        let Some(pods) = entry.node.as_ref().and_then(|node| self.pods.get(node)) else { return Users::Unknown };
        let complete = |mut user: User| {
            tables.tell_asked(&mut user);
            user
        };
        Users::Known(users::users(pods, self.workload).into_iter().map(complete).collect())
    }

    /// A drain for another reason becomes the move: it would begin else where the address has just arrived. In mode Hold it
    /// waits, and may still be taken back.
    fn move_requested(&self, entry: &Entry) -> bool {
        let may_begin = match entry.state {
            State::Attached => true,
            State::Draining => self.subject.mode == Mode::Enforce,
            State::Unassigned | State::Attaching | State::Releasing | State::Detached => false,
        };
        let Some((ip, node)) = requested_move(&self.subject.object).filter(|_| may_begin) else { return false };
        ip == entry.ip && node.is_none_or(|node| entry.node.as_deref() != Some(node))
    }

    /// A drain that a person asked for ends where a person asks for the node that it leaves.
    fn stay_requested(&self, entry: &Entry) -> bool {
        let here = requested_move(&self.subject.object)
            .is_some_and(|(ip, node)| ip == entry.ip && node.is_some() && node == entry.node.as_deref());
        here && leaving::is_moving(entry)
    }

    /// Why the node that a person names cannot have the address now.
    fn unfit(&self, node: &str, entries: &[Entry], candidates: &[Candidate], need: &Need) -> Option<String> {
        let first = entries.iter().find(|other| other.ip != need.ip && other.planned_node.as_deref() == Some(node));
        let planned = first.map(|other| {
            format!("node {node} is planned for {}; name another node, or none to have one chosen", other.ip)
        });
        planned.or_else(|| requested::unfit(node, need, candidates, self.around.node(node).is_some()))
    }

    /// §3.4, over the selected nodes and the gone ones that entries name.
    fn frozen(&self, entries: &[Entry], tables: &mut Tables) -> bool {
        let spec = &self.subject.object.spec;
        let mut judged = self.around.nodes.selected(&spec.node_selector).len();
        let unready = self.around.nodes.unready().iter().filter(|node| node.matches(&spec.node_selector));
        let mut suspects: Vec<Option<ProviderId>> = unready.map(|node| node.place()).collect();
        let held = entries.iter().filter_map(|entry| Some((entry.node.as_ref()?, entry.machine.as_ref()?)));
        let mut gone = BTreeMap::new();
        // One that stands and is not selected any more says nothing of the others.
        for (name, machine) in held.filter(|(name, _)| self.around.node(name).is_none()) {
            gone.entry(name).or_insert(machine);
        }
        judged += gone.len();
        suspects.extend(gone.into_values().map(|machine| Some(machine.place.clone())));
        let mass = |nodes: usize, unhealthy: usize| {
            Health { nodes, unhealthy }.is_mass_failure(spec.failover.max_unhealthy.resolve(nodes))
        };
        let suspected = mass(judged, suspects.len());
        // Whether they run is asked, and asked again, for as long as the answer matters: spares that are stopped must not
        // freeze the others' failover.
        if suspected && let Ok(scope) = &self.subject.scope {
            for place in suspects.iter().flatten() {
                self.inspect(scope, place, PROVEN_FOR / 2, Urgency::Failover);
            }
        }
        let dead = suspects.iter().flatten().filter(|place| self.proven_dead(place)).count();
        let proven = mass(judged - dead, suspects.len() - dead);
        let answered = suspects.iter().flatten().all(|place| self.lately_inspected(place));
        // A new leader goes on where the last one stood.
        let frozen_before = || {
            let conditions = self.subject.object.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "FailoverFrozen" && condition.status == "True")
        };
        let quiet = SignedDuration::from_secs(spec.failover.not_ready_seconds.into());
        let breaker = tables.breakers.entry(self.subject.uid.clone());
        let breaker = breaker.or_insert_with(|| Breaker::restored(frozen_before().then_some(self.around.moment.now)));
        // While the answers are on their way nothing moves, but that alone does not trip the breaker.
        breaker.frozen(self.around.moment.now, proven && answered, quiet) || (suspected && proven)
    }

    fn lately_inspected(&self, place: &ProviderId) -> bool {
        self.answers.inspected(place).is_some_and(|answer| self.since(answer.began) < PROVEN_FOR)
    }

    fn proven_dead(&self, place: &ProviderId) -> bool {
        self.answers.inspected(place).filter(|answer| self.since(answer.began) < PROVEN_FOR).is_some_and(|answer| {
            is_gone(answer) || answer.result.as_ref().is_ok_and(|seat| seat.power == Power::Stopped)
        })
    }

    /// Chooses nodes for all addresses that need one, and has the machines read of those that may begin (F2). With the
    /// addresses that go to a machine which cannot be read for now.
    pub fn plan(&self, entries: &[Entry], facts: &mut [Facts], tables: &mut Tables) -> (Plan, BTreeSet<IpAddr>) {
        let mut candidates = self.candidates(tables);
        for candidate in candidates.iter_mut().filter(|candidate| candidate.verdict == Verdict::Eligible) {
            let (name, uid) = (&candidate.name, &self.subject.uid);
            candidate.last_choice |= self.claims.others_plan(name, uid) || tables.sought.is_anothers(name, uid);
        }
        let mut by_zone: BTreeMap<String, usize> = BTreeMap::new();
        for node in entries.iter().filter_map(|entry| self.around.node(entry.node.as_deref()?)) {
            *by_zone.entry(node.zone().to_owned()).or_default() += 1;
        }
        let reach = |ip| {
            let listed = self.around.survey.as_ref().and_then(|survey| survey.addresses.get(&ip));
            listed.map(|reservation| reservation.reach.clone()).unwrap_or_default()
        };
        let need = |entry: &Entry, named: Option<&str>, tables: &mut Tables| Need {
            ip: entry.ip,
            planned: named.map(str::to_owned).or_else(|| self.still_planned(entry)),
            refused: tables.refused(entry.ip, self.around.moment.now),
            reach: reach(entry.ip),
        };
        let mut refused_move = None;
        let mut needs: Vec<(u8, Need)> = Vec::new();
        for (entry, facts) in entries.iter().zip(facts.iter_mut()) {
            let mut named = None;
            if facts.move_requested {
                named = requested_move(&self.subject.object).and_then(|(_, node)| node);
                // It goes to the node that a person names, or stays.
                refused_move =
                    named.and_then(|node| self.unfit(node, entries, &candidates, &need(entry, named, tables)));
                facts.move_requested = refused_move.is_none();
                // In mode Hold it keeps no node from an address that has lost its own.
                named = named.filter(|_| facts.move_requested && facts.mode != Mode::Hold);
            }
            if let Some(urgency) = urgency(entry, facts) {
                needs.push((urgency, need(entry, named, tables)));
            }
        }
        let mut plan = placement::place(&needs, &candidates, &by_zone);
        plan.refused_move = refused_move;
        let (mut unreadable, mut sought) = (BTreeSet::new(), Vec::new());
        for (entry, facts) in entries.iter().zip(facts.iter_mut()) {
            let goes_next = goes_next(entry, facts);
            facts.target = match plan.targets.get(&entry.ip) {
                None => Target::None(plan.verdicts(entry.ip)),
                Some(node) if goes_next => self.seat(entry, node, tables),
                // A plan only: the machine is read when the address is about to go there.
                Some(node) => Target::Looking { node: node.clone() },
            };
            if let Some(node) = facts.target.node().filter(|_| goes_next) {
                sought.push((node.to_owned(), entry.ip));
            }
            if let Target::Looking { node } = &facts.target
                && goes_next
            {
                if self.is_unreadable(node) {
                    // Another node is tried with the next pass (P11).
                    tables.refuse(entry.ip, node, self.around.moment.now);
                }
                if !self.may_be_read(node, tables) {
                    unreadable.insert(entry.ip);
                }
            }
            // A node's refusal delays only what goes to that node: another one is tried at once (P11).
            let refused = tables.refused(entry.ip, self.around.moment.now);
            let elsewhere = facts.target.node().is_some_and(|node| !refused.contains(node));
            if matches!(entry.state, State::Unassigned | State::Detached)
                && elsewhere
                && facts.failure.as_ref().is_some_and(|failure| refuses_node(failure.kind))
            {
                facts.failure = None;
            }
        }
        if self.subject.mode == Mode::Observe {
            sought.clear();
        }
        tables.sought.set(&self.subject.uid, sought);
        (plan, unreadable)
    }

    /// Where it was planned to go, unless another allocation goes there. What a person asked for stays.
    fn still_planned(&self, entry: &Entry) -> Option<String> {
        let planned = entry.planned_node.as_ref()?;
        let stays = leaving::is_moving(entry) || !self.claims.yields(planned, &self.subject.uid);
        stays.then(|| planned.clone())
    }

    /// Every selected node, judged.
    pub fn candidates(&self, tables: &Tables) -> Vec<Candidate> {
        let selector = &self.subject.object.spec.node_selector;
        let shown = self.around.survey.as_ref().map(|survey| &survey.addresses);
        // With room for all: most addresses are on a machine, and this is made in each pass.
        let mut held: HashSet<&ProviderId> = HashSet::with_capacity(shown.map_or(0, BTreeMap::len));
        held.extend(shown.iter().flat_map(|addresses| addresses.values()).filter_map(holder));
        let judge = |node: &Arc<SlimNode>| self.judge(node, &held, tables);
        let nodes = &self.around.nodes;
        if selector.is_empty() {
            // With the control plane: that it is left out is told.
            nodes.iter().map(judge).collect()
        } else {
            nodes.selected(selector).iter().map(judge).collect()
        }
    }

    fn judge(&self, node: &SlimNode, held: &HashSet<&ProviderId>, tables: &Tables) -> Candidate {
        let (spec, location) = (&self.subject.object.spec, node.location());
        let verdict = match &self.subject.scope {
            Err(_) => Verdict::NoProviderID,
            Ok(scope) => verdict::of(node, location.as_deref(), spec, scope, self.around, |place| {
                self.seated(node, place, held, tables)
            }),
        };
        let why = (verdict == Verdict::Unsupported).then(|| self.why_unsupported(node)).flatten();
        // Where what is shown lags, a machine that has just been changed cannot be read yet: an address would wait for it.
        let is_unreadable = || {
            node.place().is_some_and(|place| !tables.reads.counts([&Key::Machine(place)], self.around.moment.instant))
        };
        Candidate {
            name: node.name_any(),
            zone: location.as_deref().map_or_else(|| node.zone(), |place| &place.zone).to_owned(),
            verdict,
            why,
            last_choice: verdict == Verdict::Eligible && (node.may_end_soon() || is_unreadable()),
        }
    }

    /// Who sits on its machine, `held` being those that the survey shows with an address.
    fn seated(&self, node: &SlimNode, place: &ProviderId, held: &HashSet<&ProviderId>, tables: &Tables) -> Seated<'_> {
        let promised = |name: &str| tables.promised.is_anothers(name, &self.subject.uid);
        if tables.seats.is_taken(place) || node.metadata.name.as_deref().is_some_and(promised) {
            return Seated::Taken;
        }
        let counts = |began| tables.reads.counts([&Key::Machine(place.clone())], began);
        if held.contains(place) && self.around.survey.as_ref().is_some_and(|survey| counts(survey.began)) {
            return Seated::Taken;
        }
        let read = self.answers.inspected(place);
        let read = read.filter(|answer| self.since(answer.began) < FRESH_SEAT && counts(answer.began));
        read.map_or(Seated::Unknown, |answer| Seated::Read(&answer.result))
    }

    /// By the Node itself, or by what the cloud said when its machine was read.
    fn why_unsupported(&self, node: &SlimNode) -> Option<String> {
        let said = || {
            let error = self.answers.inspected(&node.place()?)?.result.as_ref().err()?;
            (error.kind == ErrorKind::Unsupported).then(|| error.message.clone())
        };
        node.unsupported().map(str::to_owned).or_else(said)
    }

    /// Its machine was asked about and could not be told, or is another one than the Node says.
    fn is_unreadable(&self, node: &str) -> bool {
        let Some(object) = self.around.node(node) else { return false };
        let Some(answer) = object.place().and_then(|place| self.answers.inspected(&place)) else { return false };
        match &answer.result {
            Err(_) => true,
            Ok(seat) => object.instance().is_some_and(|instance| instance != seat.machine.instance),
        }
    }

    /// Whether it is of use to read its machine now: not a moment after that failed, and not while a read may show what was
    /// before the last change.
    fn may_be_read(&self, node: &str, tables: &Tables) -> bool {
        let Some(place) = self.around.node(node).and_then(|object| object.place()) else { return false };
        let lately = self.answers.inspected(&place).is_some_and(|answer| self.since(answer.began) < FRESH_SEAT);
        let failed = lately && self.is_unreadable(node);
        !failed && tables.reads.counts([&Key::Machine(place)], self.around.moment.instant)
    }

    fn seat(&self, entry: &Entry, node: &str, tables: &Tables) -> Target {
        let looking = || Target::Looking { node: node.to_owned() };
        let (Some(object), Ok(scope)) = (self.around.node(node), &self.subject.scope) else { return looking() };
        let Some(place) = object.place() else { return looking() };
        // Permit first: what is read here is soon too old, and where many wait for a permit none would ever be young enough.
        // Whoever holds one keeps it while it looks, so this goes before all that still wait for one.
        let answer = match self.permits.contains(&entry.ip) {
            true => self.inspect(scope, &place, FRESH_SEAT, Urgency::Look),
            false => self.answers.inspected(&place).filter(|answer| self.since(answer.began) < FRESH_SEAT),
        };
        let counted = answer.filter(|answer| tables.reads.counts([&Key::Machine(place.clone())], answer.began));
        match counted.map(|answer| &answer.result) {
            Some(Ok(Seat { machine, power: Power::Running, interface }))
                if object.instance().is_none_or(|instance| instance == machine.instance) =>
            {
                let own = match interface {
                    Interface::Empty => None,
                    Interface::Ephemeral(own) => Some(own.clone()),
                    Interface::Reserved(_) => return looking(),
                };
                Target::Seat { node: node.to_owned(), machine: machine.clone(), own }
            }
            Some(_) | None => looking(),
        }
    }
}

/// Whether it is on no node, or nothing but that keeps it on its own, so that the next thing is where it goes.
fn goes_next(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Unassigned | State::Detached => true,
        // It is known to be off; that is written together with where it goes.
        State::Releasing => !facts.in_flight && entry.machine.as_ref().is_some_and(|at| facts.read.is_off(at)),
        State::Attached | State::Draining => leaving::may_go(entry, facts),
        State::Attaching => false,
    }
}

/// What a lost machine was read to hold before it was lost it may hold no more, and the next survey is far.
fn is_of_the_lost(entry: &Entry, expected: Option<&cloud::MachineId>, read: &Read) -> bool {
    expected.is_none() && read.place != Whereabouts::Free && leaving::has_left_by_fault(entry)
}

/// For what an entry is read by id.
fn hurry(entry: &Entry) -> Urgency {
    match entry.state {
        _ if leaving::has_left_by_fault(entry) => Urgency::Failover,
        // It is not where it should be.
        State::Attached => Urgency::Failover,
        State::Unassigned => Urgency::Placement,
        State::Attaching | State::Draining | State::Releasing | State::Detached => Urgency::Drain,
    }
}

/// Mode Hold keeps it where it is.
fn is_held(entry: &Entry, facts: &Facts) -> bool {
    match entry.state {
        State::Unassigned => !leaving::is_half_moved(entry),
        State::Attached | State::Draining => {
            leaving::cause(entry, facts).is_none_or(|cause| !leaving::permitted(cause, entry, facts))
        }
        State::Attaching | State::Releasing | State::Detached => false,
    }
}

/// Which addresses look for a node, the most urgent first.
fn urgency(entry: &Entry, facts: &Facts) -> Option<u8> {
    if facts.wanted != Wanted::Yes || facts.deleting {
        return None;
    }
    // It must not have the node of one that goes on.
    if facts.mode == Mode::Hold && is_held(entry, facts) {
        return None;
    }
    match entry.state {
        State::Detached => Some(0),
        State::Unassigned if leaving::is_half_moved(entry) && facts.read.place == Whereabouts::Free => Some(0),
        // It is letting go: one that may still stay where it is comes after it.
        State::Releasing => Some(1),
        State::Draining => Some(2),
        State::Attached => leaving::cause(entry, facts).map(|_| 2),
        State::Unassigned => match facts.read.place {
            Whereabouts::Free | Whereabouts::Awaited | Whereabouts::Unknown(_) => Some(3),
            Whereabouts::On(_)
            | Whereabouts::Unasked(_)
            | Whereabouts::Foreign(_)
            | Whereabouts::NotFound
            | Whereabouts::OtherRegion(_) => None,
        },
        State::Attaching => None,
    }
}

fn whereabouts(place: &cloud::Whereabouts) -> Whereabouts {
    match place {
        cloud::Whereabouts::Here(reservation) => of_holder(&reservation.holder),
        cloud::Whereabouts::OtherRegion(region) => Whereabouts::OtherRegion(region.clone()),
        cloud::Whereabouts::NotFound => Whereabouts::NotFound,
    }
}

fn of_holder(holder: &cloud::Holder) -> Whereabouts {
    match holder {
        cloud::Holder::Free => Whereabouts::Free,
        cloud::Holder::Machine(machine) => Whereabouts::On(machine.clone()),
        cloud::Holder::Foreign(what) => Whereabouts::Foreign(what.clone()),
    }
}

/// When nothing of an intent can do harm any more, on this process's monotonic clock (F5).
///
/// A detach whose requests name what they take off (F7) is dead when it is born: landing late it hits nothing
/// (`docs/decisions/0002-late-detach.md`).
pub fn dead_at(operation: &Operation, provider: Provider, moment: &Moment) -> Instant {
    if operation.kind == OperationKind::Detach && provider.late_detach_hits_nothing() {
        return moment.instant;
    }
    moment.instant + left_to_send(operation.send_before, moment.now) + provider.settle_time()
}
