//! When two states of the whole world are the same one: what is told and never read again does not count (messages,
//! times of a ledger, counters), and neither does how often something failed beyond the first few times. Times within one
//! second are ordered where the product compares them with each other ([`Cosmos::compared`]). What a world with
//! a pace keeps beside that is left out: such worlds are played, and not searched.

use std::{fmt::Write as _, sync::Arc, time::Instant};

use ip_address_controller::{
    allocation::{observe::answers::Question, tables::Key},
    api::{AddressStatus, NetIPAllocation, ProviderName},
};
use kube::ResourceExt;

use super::{
    cloud::RequestId,
    cluster::Cache,
    course::Cosmos,
    process::{Flight, Process, Term},
};
use crate::canon::{Canon, fingerprint};

impl Cosmos {
    /// With what the caller knows beside it.
    pub fn fingerprint(&self, beside: &str) -> u128 {
        fingerprint(self.instant, self.now, |canon| {
            canon.write(beside);
            self.cloud.canon(canon, |request| self.is_waited_for(request));
            self.cluster.canon(canon);
            canon.instant(self.renewed);
            canon.debug(&(&self.excuses, &self.stirred, &self.down));
            canon.debug(&(&self.struck, &self.left, &self.names, self.behind));
            for process in &self.processes {
                match self.left_without_proof(process) {
                    Some(term) => term.canon_without_proof(process, canon),
                    None => {
                        canon.write(&self.cluster.is_ahead_of(&process.cache));
                        canon.shared_as(process, Process::canon);
                        self.compared(process, canon);
                    }
                }
            }
        })
    }
}

impl Cosmos {
    /// What it knows leads to nothing any more: every change that it might make is refused (F1).
    fn left_without_proof<'a>(&self, process: &'a Process) -> Option<&'a Term> {
        process.term.as_ref().filter(|term| self.rules.proof && term.proof <= self.instant)
    }
}

impl Cosmos {
    /// Whether an effect waits for the answer to the request.
    fn is_waited_for(&self, request: RequestId) -> bool {
        let flights = self.processes.iter().flat_map(|process| &process.term).flat_map(|term| term.flights.values());
        flights.filter_map(|flight| flight.sent).any(|(sent, _)| sent == request)
    }

    /// What a process compares with each other of its times, beside with now (R1): whether what was read, or is being read, of
    /// an address or a machine counts, and which of that is younger.
    fn compared(&self, process: &Process, canon: &mut Canon) {
        let Some(term) = &process.term else { return };
        let scope = self.cloud.scope();
        let times = |question: &Question| {
            let asked = term.asking.get(question).map(|asking| asking.began);
            [term.answers.began(question), asked]
        };
        let good = term.answers.survey(&scope).0.map(|survey| survey.began);
        let surveys = [times(&Question::Survey(scope.clone())), [good, None]].concat();
        let mut compare = |key: Key, question: Question| {
            let holding = term.flights.values().filter(|flight| flight.holds(&key));
            let sent = holding.filter_map(|flight| flight.sent).map(|(_, began)| Some(began));
            let times: Vec<Option<Instant>> =
                times(&question).into_iter().chain(surveys.iter().copied()).chain(sent).collect();
            canon.order(&times);
            let counts = |began: Instant| term.tables.reads.counts([&key], began);
            let shows = |began: Instant| match key {
                Key::Address(ip) => !term.tables.may_not_show(ip, began),
                Key::Machine(_) => true,
            };
            let counted: Vec<_> = times.iter().flatten().map(|began| (counts(*began), shows(*began))).collect();
            canon.write(&counted);
        };
        for ip in self.cloud.reserved() {
            compare(Key::Address(ip), Question::Find(scope.clone(), ip));
        }
        for place in self.cloud.machines().keys() {
            compare(Key::Machine(place.clone()), Question::Inspect(place.clone()));
        }
        // Where an address is found to be says nothing once its machine may have changed, either.
        for ip in self.cloud.reserved() {
            let found = times(&Question::Find(scope.clone(), ip));
            for place in self.cloud.machines().keys() {
                let key = Key::Machine(place.clone());
                let counts = |began: Instant| term.tables.reads.counts([&key], began);
                canon.write(&found.map(|began| began.map(counts)));
            }
        }
        // How old a machine may have been read is a matter of how old the survey is.
        let age = |began: Instant| self.instant.duration_since(began);
        for place in self.cloud.machines().keys() {
            let read = term.answers.began(&Question::Inspect(place.clone()));
            let young = read.zip(good).map(|(read, good)| age(read) < age(good) * 2);
            canon.write(&young);
        }
        assert!(term.asking.values().all(|asking| asking.scope == scope), "of another scope nothing is compared");
    }
}

impl Process {
    fn canon(&self, canon: &mut Canon) {
        // When the cache was brought up to date is for those who judge.
        let Process { id, paused, cache, synced: _, term, recent } = self;
        canon.write(&(id, paused, term.is_some()));
        cache.canon(canon);
        if let Some(term) = term {
            canon.debug(recent);
            term.canon(canon);
        }
    }
}

impl Term {
    /// Only what it may still try to send.
    fn canon_without_proof(&self, process: &Process, canon: &mut Canon) {
        canon.write(&(process.id, process.paused, "without proof"));
        canon.set(self.flights.values().map(|flight| format!("{:?} {}", flight.errand, flight.sent.is_some())));
    }

    fn canon(&self, canon: &mut Canon) {
        // `began` only says when an object is told to be without news. Not by its distance to now, which goes on while a paused
        // process stays what it is.
        canon.debug(&self.proof);
        self.versions.all().for_each(|object| canon.shared_as(object, allocation));
        let known = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            self.tables, self.answers, self.asking, self.gone, self.woken, self.cadences
        );
        canon.text(&few_attempts(&without_messages(&known)));
        let flight = |flight: &Arc<Flight>| {
            let sent = flight.sent.map(|(_, began)| began);
            without_messages(&format!("{} {:?} {sent:?}", flight.allocation, flight.errand))
        };
        canon.set(self.flights.values().map(flight));
        self.written.values().for_each(|node| canon.shared(node));
    }
}

impl Cache {
    /// For the fingerprint of a state.
    pub fn canon(&self, canon: &mut Canon) {
        self.allocations.values().for_each(|object| canon.shared_as(object, allocation));
        self.nodes.values().for_each(|node| canon.shared(node));
        canon.shared(&self.pods);
    }
}

/// What the operator reads of an object.
fn allocation(object: &NetIPAllocation, canon: &mut Canon) {
    let mut text = String::new();
    let meta = &object.metadata;
    write!(
        text,
        "{{ name: Some({:?}), resource_version: Some({:?}) {:?} {:?} {:?} {:?}",
        object.name_any(),
        meta.resource_version.as_deref().unwrap_or("0"),
        meta.uid,
        meta.deletion_timestamp.is_some(),
        (&meta.finalizers, &meta.annotations),
        object.spec,
    )
    .unwrap();
    if let Some(status) = &object.status {
        // A new leader asks when an entry was moved, where reads lag (R1).
        let lags = object.spec.cloud.provider == Some(ProviderName::Aws);
        for entry in &status.addresses {
            address(entry, &mut text);
            if lags {
                write!(text, "{:?}", entry.last_transition_time).unwrap();
            }
        }
        write!(text, "{:?} {:?}", status.owed, status.node_taint).unwrap();
    }
    text.push('}');
    canon.text(&text);
}

fn address(entry: &AddressStatus, text: &mut String) {
    let arrived = entry.last_move.as_ref().map(|last| (last.to_node.is_some(), &last.reason));
    let operation =
        entry.operation.as_ref().map(|operation| (&operation.id, &operation.type_, &operation.send_before_time));
    let where_ = (&entry.node, &entry.machine_id, &entry.planned_node);
    write!(
        text,
        "[{} {} {:?} {where_:?} {:?} {:?} {operation:?} {arrived:?}]",
        entry.ip, entry.state, entry.reason, entry.deadline_time, entry.restore
    )
    .unwrap();
}

/// `message: "…"` is told and never read.
fn without_messages(text: &str) -> String {
    const NAME: &str = "message: \"";
    let mut parts = text.split(NAME);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut escaped = false;
        let end = part.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        kept.push_str(part.split_at(end.map_or(part.len(), |end| end + 1)).1);
    }
    kept
}

/// A failure's next attempt is a time of its own; the number of failures only says how much later the one after it is.
fn few_attempts(text: &str) -> String {
    const NAME: &str = "attempts: ";
    let mut parts = text.split(NAME);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (attempts, rest) = part.split_at(end);
        write!(kept, "{NAME}{}", attempts.parse::<u32>().unwrap_or_default().min(3)).unwrap();
        kept.push_str(rest);
    }
    kept
}
