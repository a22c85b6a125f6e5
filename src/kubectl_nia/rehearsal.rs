//! What the operator would decide, played on what the cluster says: the very round of its passes, on facts made from status
//! instead of a cloud's answers. Pure.
//!
//! An address that status has on a machine counts as read there, any other as free. What only a cloud, or the operator's own
//! memory, could tell is not known here, and [`UNKNOWN`] says what that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::SignedDuration;
use kube::ResourceExt;

use crate::{
    allocation::{
        claims::{self, Claims},
        decide::{
            facts::{Claim, Entry, Facts, User, Wanted, Whereabouts},
            leaving,
            placement::Candidate,
            state::{Reason, State},
            story,
            users::Workload,
        },
        memory::{self, Stored},
        moment::Moment,
        observe::{
            self, Subject, Surroundings,
            answers::{Answers, Question, Reply},
            nodes::{Roster, SlimNode},
        },
        round::{self, Entries, PodsByNode, Scene, Turn},
        tables::Tables,
    },
    api::{self, AddressStatus, DeletionPolicy, NetIPAllocation},
    cloud::{CloudError, ErrorKind, Holder, ProviderId, Reach, Reservation, Scope, Survey, Whereabouts as Found},
    settings::DISRUPTION_TAINTS,
};

/// What a rehearsal cannot know.
pub const UNKNOWN: &str = "Nothing was changed and no cloud was asked: where addresses are is what status says. Not known \
     here are whether a machine runs (so no failover is foretold; --lose plays one), addresses of other owners on machines, \
     zones that an address is bound to, refusals of the last minutes, PodDisruptionBudgets that keep pods from leaving, and \
     a DISRUPTION_TAINTS of your own.";

/// Longer than anything that a leader's predecessor did may be hidden.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(1);

/// The cluster that a rehearsal is played in. What if is said by changing it.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub allocations: Vec<NetIPAllocation>,
    pub nodes: Vec<Arc<SlimNode>>,
    /// Machines that are gone.
    pub lost: BTreeSet<ProviderId>,
}

impl Cluster {
    /// As if the node were cordoned. `false`: there is none of that name.
    pub fn drain(&mut self, name: &str) -> bool {
        let Some(node) = self.nodes.iter_mut().find(|node| node.name_any() == name) else { return false };
        Arc::make_mut(node).spec.unschedulable = Some(true);
        true
    }

    /// As if the node and its machine were gone. `false`: there is none of that name.
    pub fn lose(&mut self, name: &str) -> bool {
        let Some(position) = self.nodes.iter().position(|node| node.name_any() == name) else { return false };
        self.lost.extend(self.nodes.remove(position).place());
        true
    }

    /// As if the spec also named this address. `false`: there is no allocation of that name.
    pub fn add(&mut self, allocation: &str, ip: IpAddr) -> bool {
        self.allocations.iter_mut().find(|object| object.name_any() == allocation).is_some_and(|object| {
            object.spec.reserved_ips.push(ip.to_string());
            true
        })
    }

    /// As if this move were asked for.
    pub fn ask(&mut self, allocation: &str, request: &str) {
        for object in self.allocations.iter_mut().filter(|object| object.name_any() == allocation) {
            object.annotations_mut().insert(api::MOVE_ANNOTATION.to_owned(), request.to_owned());
        }
    }
}

/// What is known of those who use the addresses.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// Of the nodes that addresses are leaving; what is missing is not known.
    pub pods: PodsByNode,
    /// By name of the allocation; what is missing is not known.
    pub workloads: BTreeMap<String, Workload>,
}

/// What comes of one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    pub allocation: String,
    pub addresses: Vec<Prospect>,
    /// Eligible nodes that are left.
    pub spare: usize,
    /// Where the addresses are cannot be told: why.
    pub scope_error: Option<String>,
    /// Why the operator would refuse the move that is asked for.
    pub refused_move: Option<String>,
    /// Addresses whose entries in status this version does not understand: what comes of them cannot be told.
    pub unread: Vec<String>,
}

/// What comes of one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Prospect {
    pub ip: IpAddr,
    /// The node that it is on, or is being attached to.
    pub from: Option<String>,
    pub then: Then,
    pub reason: Reason,
    /// In the operator's own words.
    pub message: String,
    /// What keeps it on its node for as long as it likes, in words: there is no deadline, and nobody asks it to go.
    pub held_by: Option<String>,
}

/// See [`Prospect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is on its node, or arrives there.
    Stays,
    /// To this node, now or as soon as nothing holds it any more.
    Goes(String),
    /// Off, and to no other: it is not wanted any more.
    LetGo,
    /// It should be on a node, or on another one, and there is none for it.
    Stranded,
    /// It must leave its node, and the mode does not let it.
    Kept,
    /// Nothing is done for it before something outside changes; the message says what.
    Waits,
}

/// Names of nodes that an address would leave: whoever wants to know what holds it has to know their pods. `asked`: of this
/// allocation alone.
pub fn leaving(cluster: &Cluster, asked: Option<&str>, moment: &Moment) -> BTreeSet<String> {
    let (users, mut tables) = (Users::default(), tables(cluster, moment));
    let objects = cluster.allocations.iter().filter(|object| asked.is_none_or(|asked| object.name_any() == asked));
    let plays = objects.map(|object| Play::of(cluster, object, &users, moment));
    plays.flat_map(|play| play.leaving(&mut tables)).collect()
}

/// What the next passes would make of every allocation, one after another.
pub fn rehearse(cluster: &Cluster, users: &Users, moment: &Moment) -> Vec<Outlook> {
    let mut tables = tables(cluster, moment);
    let plays = cluster.allocations.iter().map(|object| Play::of(cluster, object, users, moment));
    plays.map(|play| play.run(&mut tables)).collect()
}

/// What speaks for or against each node that an allocation selects.
pub fn verdicts(cluster: &Cluster, allocation: &str, moment: &Moment) -> Vec<Candidate> {
    let tables = tables(cluster, moment);
    let object = cluster.allocations.iter().find(|object| object.name_any() == allocation);
    let users = Users::default();
    object.map_or_else(Vec::new, |object| {
        let play = Play::of(cluster, object, &users, moment);
        round::candidates(&play.subject, &play.scene, &play.answers, &tables)
    })
}

/// What a leader knows that has just taken over, and waits for nothing of the last one.
fn tables(cluster: &Cluster, moment: &Moment) -> Tables {
    let mut tables = Tables::new(moment.instant);
    let later = Moment { now: moment.now.checked_add(LONG_AGO).unwrap_or(moment.now), ..*moment };
    cluster.allocations.iter().for_each(|object| round::inherit(&mut tables, object, &later));
    tables
}

/// One allocation's pass.
struct Play {
    subject: Subject,
    scene: Scene,
    entries: Entries,
    answers: Answers,
}

impl Play {
    fn of(cluster: &Cluster, object: &NetIPAllocation, users: &Users, moment: &Moment) -> Self {
        let object = as_a_pass_has_it(object);
        let nodes = Arc::new(Roster::of(cluster.nodes.clone()));
        let survey = Arc::new(survey(cluster, &object, moment));
        let mut answers = Answers::default();
        let mut tell = |scope: &Scope| {
            let question = Question::Survey(scope.clone());
            answers.arrived(&question, moment.instant, Reply::Survey(Ok(survey.clone())));
            for (ip, found) in missing(&object) {
                answers.arrived(&Question::Find(scope.clone(), ip), moment.instant, Reply::Find(Ok(found)));
            }
        };
        let scope = observe::scope(&object.spec, &nodes, || memory::held_places(&object)).ok();
        scope.iter().for_each(&mut tell);
        for place in memory::held_places(&object) {
            let there = place.place().map(|place| place.scope());
            let region = scope.as_ref().map(|scope| scope.region.clone()).unwrap_or_default();
            let group = object.spec.cloud.resource_group.clone();
            there.iter().for_each(|there| {
                let region = if there.region.is_empty() { region.clone() } else { there.region.clone() };
                tell(&Scope { region, resource_group: group.clone(), ..there.clone() });
            });
        }
        for machine in &cluster.lost {
            let gone = CloudError::new(ErrorKind::NotFound, "rehearsal", "supposed to be gone");
            answers.arrived(&Question::Inspect(machine.clone()), moment.instant, Reply::Inspect(Err(gone)));
        }
        let terminating = object.metadata.deletion_timestamp.is_some();
        let retain = terminating && object.spec.deletion_policy == DeletionPolicy::Retain;
        let subject = Subject::of(object, retain, false, &nodes, &answers);
        let entries = Entries::of(&subject, &nodes, moment);
        let around = Surroundings {
            nodes,
            survey: scope.is_some().then_some(survey),
            survey_error: None,
            unconnected: BTreeMap::new(),
            disruption_taints: DISRUPTION_TAINTS.map(str::to_owned).to_vec(),
            moment: *moment,
        };
        let claims = Arc::new(Claims::of(&cluster.allocations).labelled(&around.nodes));
        let scene = Scene {
            around,
            claims,
            workload: users.workloads.get(&subject.name).cloned().unwrap_or(Workload::Unknown),
            pods: users.pods.clone(),
            no_taint_left: false,
        };
        Self { subject, scene, entries, answers }
    }

    fn leaving(&self, tables: &mut Tables) -> BTreeSet<String> {
        round::leaving_nodes(&self.subject, &self.scene, &self.entries, &self.answers, tables).0
    }

    fn run(&self, tables: &mut Tables) -> Outlook {
        let Self { subject, scene, entries, answers } = self;
        let permits = entries.known.iter().map(|entry| entry.ip.to_string()).collect();
        let round = round::decide(subject, scene, entries, answers, &permits, tables);
        let record = round.record(subject, scene, entries, tables, scene.around.moment.instant);
        let facts: BTreeMap<IpAddr, &Facts> =
            record.kept.iter().zip(&record.facts).map(|(entry, facts)| (entry.ip, facts)).collect();
        let prospects = record.turns.iter().map(|turn| {
            let target = record.plan.targets.get(&turn.before.ip);
            prospect(turn, target.cloned(), facts.get(&turn.before.ip).copied())
        });
        let outlook = Outlook {
            allocation: subject.name.clone(),
            addresses: prospects.collect(),
            spare: record.plan.spare,
            scope_error: subject.scope.as_ref().err().cloned(),
            refused_move: record.plan.refused_move.clone(),
            unread: entries.foreign.iter().map(|entry| entry.ip.clone()).collect(),
        };
        // Whoever is played next finds these nodes taken, as it will be.
        for (ip, node) in &record.plan.targets {
            if let Some(place) = scene.around.node(node).and_then(|node| node.place()) {
                tables.seats.take(&subject.uid, place, *ip);
            }
        }
        record.abandon(tables);
        outlook
    }
}

/// A pass sets the finalizer before it decides, where it may begin anything.
fn as_a_pass_has_it(object: &NetIPAllocation) -> Arc<NetIPAllocation> {
    let mut object = object.clone();
    let acts = object.metadata.deletion_timestamp.is_none() && object.spec.mode != api::Mode::Observe;
    if acts && !object.finalizers().iter().any(|name| name == api::FINALIZER) {
        object.finalizers_mut().push(api::FINALIZER.to_owned());
    }
    Arc::new(object)
}

/// The list of reserved addresses that a cloud would give if everything is as status says. `own`: the allocation that it is
/// made for; what its selector has matched goes on matching.
fn survey(cluster: &Cluster, own: &NetIPAllocation, moment: &Moment) -> Survey {
    let mut addresses: BTreeMap<IpAddr, Reservation> = BTreeMap::new();
    let reserved = |holder| Reservation {
        holder,
        name: String::new(),
        network_tier: None,
        reach: Reach::default(),
        tags: BTreeMap::new(),
    };
    for object in &cluster.allocations {
        for ip in claims::listed(object).0 {
            addresses.entry(ip).or_insert_with(|| reserved(Holder::Free));
        }
        for stored in stored(object) {
            let Ok(ip) = stored.ip.parse::<IpAddr>() else { continue };
            let known = addresses.entry(ip).or_insert_with(|| reserved(Holder::Free));
            // Of several that name it, the one that has it says where it is.
            if known.holder == Holder::Free {
                known.holder = holder(stored, &cluster.lost);
            }
        }
    }
    let listed = claims::listed(own).0;
    if let Some(selector) = &own.spec.address_selector {
        let let_go = [Reason::NotMatched.as_str(), Reason::RemovedFromSpec.as_str()];
        let matched = stored(own).filter(|stored| !let_go.contains(&stored.reason.as_deref().unwrap_or_default()));
        for ip in matched.filter_map(|stored| stored.ip.parse::<IpAddr>().ok()).filter(|ip| !listed.contains(ip)) {
            addresses.entry(ip).and_modify(|known| known.tags = selector.match_tags.clone());
        }
    }
    for (ip, _) in missing(own) {
        addresses.remove(&ip);
    }
    Survey { began: moment.instant, addresses }
}

fn stored(object: &NetIPAllocation) -> impl Iterator<Item = &AddressStatus> {
    object.status.iter().flat_map(|status| &status.addresses)
}

/// A machine that is gone holds nothing.
fn holder(stored: &AddressStatus, lost: &BTreeSet<ProviderId>) -> Holder {
    let holder = match memory::read(stored) {
        Stored::Known(entry) => match entry.state {
            State::Attached | State::Draining | State::Releasing => {
                entry.machine.map_or(Holder::Free, |machine| Holder::Machine(machine.place))
            }
            State::Unassigned if entry.reason == Reason::AddressInUse => {
                Holder::Foreign(named(&entry.message, "is held by ").unwrap_or("something else").to_owned())
            }
            State::Unassigned | State::Attaching | State::Detached => Holder::Free,
        },
        Stored::Foreign(status) => {
            let machine = status.machine_id.as_deref().and_then(|id| id.parse::<crate::cloud::MachineId>().ok());
            machine.map_or(Holder::Free, |machine| Holder::Machine(machine.place))
        }
    };
    match holder {
        Holder::Machine(place) if lost.contains(&place) => Holder::Free,
        holder => holder,
    }
}

/// Addresses that the cloud did not have when the operator asked for them by id.
fn missing(object: &NetIPAllocation) -> Vec<(IpAddr, Found)> {
    let found = |stored: &AddressStatus| match Reason::parse(stored.reason.as_deref()?)? {
        Reason::AddressNotFound => Some(Found::NotFound),
        Reason::WrongRegion => {
            let region = named(stored.message.as_deref().unwrap_or_default(), "is reserved in region ");
            Some(Found::OtherRegion(region.unwrap_or("elsewhere").to_owned()))
        }
        _ => None,
    };
    stored(object).filter_map(|stored| Some((stored.ip.parse().ok()?, found(stored)?))).collect()
}

/// What the operator's sentence names after these words: the decision makes the sentence anew.
fn named<'a>(sentence: &'a str, words: &str) -> Option<&'a str> {
    Some(sentence.strip_prefix(words)?.split_once(';')?.0)
}

/// `facts`: `None` for an address that would be forgotten.
fn prospect(turn: &Turn, target: Option<String>, facts: Option<&Facts>) -> Prospect {
    let Turn { before, after, .. } = turn;
    let wanted =
        facts.is_some_and(|facts| facts.wanted == Wanted::Yes && !facts.deleting && facts.claim == Claim::Ours);
    let idle = matches!(after.reason, Reason::Held | Reason::Observing);
    let kept = facts.is_some_and(|facts| {
        leaving::cause(after, facts).is_some_and(|cause| !leaving::permitted(cause, after, facts))
    });
    let then = match after.state {
        _ if turn.forgotten => Then::LetGo,
        State::Attached | State::Attaching | State::Draining if kept => Then::Kept,
        State::Attached if after.reason == Reason::NoTarget => Then::Stranded,
        State::Attached | State::Attaching => Then::Stays,
        State::Draining | State::Releasing => match target {
            Some(node) => Then::Goes(node),
            None if wanted => Then::Stranded,
            None => Then::LetGo,
        },
        State::Detached | State::Unassigned => match target {
            Some(node) if !idle => Then::Goes(node),
            None if wanted && !idle && facts.is_some_and(|facts| facts.read.place == Whereabouts::Free) => {
                Then::Stranded
            }
            Some(_) | None => Then::Waits,
        },
    };
    Prospect {
        ip: before.ip,
        from: before.node.clone(),
        then,
        // Why it begins to move, not what it waits for on its way.
        reason: turn.steps.first().map_or(after.reason, |step| step.reason),
        message: after.message.clone(),
        held_by: facts.filter(|_| after.state == State::Draining).and_then(|facts| held_by(after, facts)),
    }
}

fn held_by(entry: &Entry, facts: &Facts) -> Option<String> {
    let cause = leaving::cause(entry, facts)?;
    let staying = leaving::staying(cause, entry, facts);
    let first = staying.first()?;
    let User { namespace, name, .. } = first;
    let pod = format!("pod {namespace}/{name} ({})", story::condition(first));
    Some(match staying.len().saturating_sub(1) {
        0 => format!("{pod} runs"),
        more => format!("{pod} and {more} more run"),
    })
}
