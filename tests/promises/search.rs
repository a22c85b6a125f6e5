//! Every state that a system can reach, breadth first; and from each of them a way to rest.
//!
//! Of a state that has been looked at only its fingerprint is kept, with the step that first led to it, so a path is
//! found again by taking its steps from the beginning. States stand in the order in which they were found, whichever
//! thread found them: two runs are the same.
//!
//! - Safety: the first broken invariant ends the search, and no path to one is shorter.
//! - Liveness: from every state that was reached a state at rest must be reachable without a further fault. That is asked
//!   of the graph, backwards from rest. A checker that asks "eventually" of single paths does not see a cycle.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt::{self, Debug},
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// What can be searched.
pub trait System: Clone + Send + Sync {
    type Action: Clone + Debug + Send;

    /// What may happen now; always the same for the same state.
    fn actions(&self) -> Vec<Self::Action>;

    /// # Errors
    /// The sentence of an invariant that is broken by it.
    fn apply(&mut self, action: &Self::Action) -> Result<(), String>;

    /// Two states with the same one are taken for one state.
    fn fingerprint(&self) -> u128;

    /// Nothing is left to do.
    fn at_rest(&self) -> bool;

    /// It need not happen for things to go well.
    fn is_fault(action: &Self::Action) -> bool;
}

/// How far to go, and how.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No state is looked at once so many were found.
    pub states: usize,
    pub threads: usize,
    /// Tells each level on stderr.
    pub tells: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { states: 1_000_000, threads: 2, tells: false }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<A> {
    /// Nothing against it, as far as the search went.
    Holds,
    /// An invariant is broken at the end of this path; no path is shorter.
    Broken { sentence: String, path: Vec<A> },
    /// From the end of this path no state at rest can be reached without a further fault.
    Stuck { path: Vec<A> },
}

/// What was looked at, and what was found.
#[derive(Clone, Debug)]
pub struct Report<A> {
    pub verdict: Verdict<A>,
    /// Every state that can be reached was looked at.
    pub closed: bool,
    pub states: usize,
    pub edges: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
}

impl<A: Debug> Report<A> {
    /// # Panics
    /// Something was found; says what, and how to get there.
    pub fn must_hold(&self) -> &Self {
        assert!(matches!(self.verdict, Verdict::Holds), "{self}");
        self
    }

    /// # Panics
    /// Something was found, or some states were not looked at.
    pub fn must_hold_everywhere(&self) -> &Self {
        assert!(self.closed, "not every state was looked at: {self}");
        self.must_hold()
    }

    /// The sentence and path of a broken invariant.
    ///
    /// # Panics
    /// None is.
    pub fn must_be_broken(&self) -> (&str, &[A]) {
        match &self.verdict {
            Verdict::Broken { sentence, path } => (sentence, path),
            Verdict::Holds | Verdict::Stuck { .. } => panic!("no invariant is broken: {self}"),
        }
    }
}

impl<A: Debug> fmt::Display for Report<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { states, edges, depth, closed, verdict } = self;
        let closed = if *closed { "all of them" } else { "not all of them" };
        writeln!(f, "{states} states ({closed}), {edges} edges, {depth} deep")?;
        let path = match verdict {
            Verdict::Holds => return writeln!(f, "nothing found"),
            Verdict::Broken { sentence, path } => {
                writeln!(f, "broken: {sentence}, after")?;
                path
            }
            Verdict::Stuck { path } => {
                writeln!(f, "stuck: no state at rest can be reached without a further fault, after")?;
                path
            }
        };
        path.iter().enumerate().try_for_each(|(at, action)| writeln!(f, "{:4}. {action:?}", at + 1))
    }
}

/// Takes the steps of a path, and gives the state at its end.
///
/// # Errors
/// The sentence of an invariant that is broken on the way.
pub fn replay<S: System>(root: &S, path: &[S::Action]) -> Result<S, String> {
    let mut state = root.clone();
    path.iter().try_for_each(|action| state.apply(action))?;
    Ok(state)
}

/// A fingerprint is a good hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = (fingerprint ^ (fingerprint >> 64)) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Seen = HashMap<u128, u32, BuildHasherDefault<AsItIs>>;

/// A step out of a state that is looked at.
struct Next<S> {
    fault: bool,
    led: Led<S>,
}

enum Led<S> {
    Known(u32),
    /// Not known when this level began.
    New {
        fingerprint: u128,
        at_rest: bool,
        state: Box<S>,
    },
    Broken(String),
}

/// So many states are looked at before what was found is put in order.
const BATCH: usize = 4096;

struct Search<'a, S: System> {
    root: &'a S,
    limits: Limits,
    seen: Seen,
    /// Of each state: from which it was first reached, and by which of its actions.
    parents: Vec<(u32, u16)>,
    at_rest: Vec<bool>,
    /// Of each state that was looked at, in order: where its steps without fault lead.
    steps: Vec<u32>,
    ends: Vec<usize>,
    edges: usize,
    depth: usize,
}

/// Looks at every state that can be reached from `root`, as far as the limits allow.
pub fn search<S: System>(root: &S, limits: Limits) -> Report<S::Action> {
    let mut search = Search {
        root,
        limits,
        seen: Seen::default(),
        parents: vec![(0, 0)],
        at_rest: vec![root.at_rest()],
        steps: Vec::new(),
        ends: Vec::new(),
        edges: 0,
        depth: 0,
    };
    search.seen.insert(root.fingerprint(), 0);
    let verdict = match search.forward() {
        Some(broken) => broken,
        None => search.backward(),
    };
    Report {
        verdict,
        closed: search.ends.len() == search.parents.len(),
        states: search.parents.len(),
        edges: search.edges,
        depth: search.depth,
    }
}

impl<S: System> Search<'_, S> {
    /// Level by level, until nothing is new, something is broken or the limit is reached.
    fn forward(&mut self) -> Option<Verdict<S::Action>> {
        let mut level = VecDeque::from([self.root.clone()]);
        loop {
            if self.limits.tells {
                eprintln!("{} states, {} of them at depth {}", self.parents.len(), level.len(), self.depth);
            }
            let mut next = VecDeque::new();
            while !level.is_empty() {
                if self.parents.len() >= self.limits.states {
                    return None;
                }
                let batch: Vec<S> = level.drain(..level.len().min(BATCH)).collect();
                for nexts in self.look_at(&batch) {
                    if let Some(broken) = self.put_in_order(nexts, &mut next) {
                        return Some(broken);
                    }
                }
            }
            if next.is_empty() {
                return None;
            }
            self.depth += 1;
            level = next;
        }
    }

    /// The steps out of each state, made by all threads.
    fn look_at(&self, batch: &[S]) -> Vec<Vec<Next<S>>> {
        let taken = AtomicUsize::new(0);
        let work = || {
            let mut mine = Vec::new();
            loop {
                let index = taken.fetch_add(1, Ordering::Relaxed);
                let Some(state) = batch.get(index) else { return mine };
                mine.push((index, self.steps_out_of(state)));
            }
        };
        let threads = self.limits.threads.min(batch.len()).max(1);
        let mut all: Vec<(usize, Vec<Next<S>>)> = if threads == 1 {
            work()
        } else {
            thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            })
        };
        all.sort_unstable_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, nexts)| nexts).collect()
    }

    fn steps_out_of(&self, state: &S) -> Vec<Next<S>> {
        let step = |action: &S::Action| {
            let mut after = state.clone();
            let led = match after.apply(action) {
                Err(sentence) => Led::Broken(sentence),
                Ok(()) => {
                    let fingerprint = after.fingerprint();
                    match self.seen.get(&fingerprint) {
                        Some(known) => Led::Known(*known),
                        None => Led::New { fingerprint, at_rest: after.at_rest(), state: Box::new(after) },
                    }
                }
            };
            Next { fault: S::is_fault(action), led }
        };
        state.actions().iter().map(step).collect()
    }

    /// Numbers what is new, in the order of states and actions.
    fn put_in_order(&mut self, nexts: Vec<Next<S>>, level: &mut VecDeque<S>) -> Option<Verdict<S::Action>> {
        let from = u32::try_from(self.ends.len()).expect("fewer states than that");
        for (index, Next { fault, led }) in nexts.into_iter().enumerate() {
            self.edges += 1;
            let to = match led {
                Led::Known(known) => known,
                Led::Broken(sentence) => {
                    let mut path = self.path(from);
                    let last = replay(self.root, &path).expect("it was whole before").actions().swap_remove(index);
                    path.push(last);
                    self.depth = path.len();
                    return Some(Verdict::Broken { sentence, path });
                }
                Led::New { fingerprint, at_rest, state } => {
                    let new = u32::try_from(self.parents.len()).expect("fewer states than that");
                    match self.seen.entry(fingerprint) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(vacant) => {
                            vacant.insert(new);
                            self.parents.push((from, u16::try_from(index).expect("fewer actions than that")));
                            self.at_rest.push(at_rest);
                            level.push_back(*state);
                            new
                        }
                    }
                }
            };
            if !fault {
                self.steps.push(to);
            }
        }
        self.ends.push(self.steps.len());
        None
    }

    /// The shortest way to a state.
    fn path(&self, state: u32) -> Vec<S::Action> {
        let mut indices = Vec::new();
        let mut at = state;
        while at != 0 {
            let (parent, index) = self.parents[at as usize];
            indices.push(index);
            at = parent;
        }
        let mut state = self.root.clone();
        let mut path = Vec::with_capacity(indices.len());
        for index in indices.into_iter().rev() {
            let action = state.actions().swap_remove(usize::from(index));
            state.apply(&action).expect("it was whole before");
            path.push(action);
        }
        path
    }

    /// From rest against the steps. A state that was not looked at may lead to rest: nothing is held against it.
    fn backward(&self) -> Verdict<S::Action> {
        let count = self.parents.len();
        let looked_at = self.ends.len();
        let steps_of = |state: usize| {
            let from = if state == 0 { 0 } else { self.ends[state - 1] };
            &self.steps[from..self.ends[state]]
        };
        // Who leads to a state, all in one list.
        let mut begins = vec![0_usize; count + 1];
        self.steps.iter().for_each(|to| begins[*to as usize + 1] += 1);
        for state in 0..count {
            begins[state + 1] += begins[state];
        }
        let mut sources = vec![0_u32; self.steps.len()];
        let mut filled = begins.clone();
        for from in 0..looked_at {
            for to in steps_of(from) {
                let place = &mut filled[*to as usize];
                sources[*place] = u32::try_from(from).expect("fewer states than that");
                *place += 1;
            }
        }
        let mut leads_to_rest = vec![false; count];
        let mut open: Vec<usize> = (0..count).filter(|state| self.at_rest[*state] || *state >= looked_at).collect();
        open.iter().for_each(|state| leads_to_rest[*state] = true);
        while let Some(state) = open.pop() {
            for source in &sources[begins[state]..begins[state + 1]] {
                let source = *source as usize;
                if !std::mem::replace(&mut leads_to_rest[source], true) {
                    open.push(source);
                }
            }
        }
        match leads_to_rest.iter().position(|leads| !leads) {
            None => Verdict::Holds,
            Some(stuck) => Verdict::Stuck { path: self.path(u32::try_from(stuck).expect("fewer states than that")) },
        }
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
