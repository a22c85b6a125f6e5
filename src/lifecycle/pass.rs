//! One pass of one machine: as far as it goes without a deed, then one deed or a wait.

use std::time::Duration;

use super::machine::{Decision, Machine, State};

/// A move that a pass made; not yet durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<S, R> {
    pub from: S,
    /// `None`: the entry was forgotten.
    pub to: Option<S>,
    pub reason: R,
}

/// How a pass ended.
#[derive(Debug)]
pub enum End<E> {
    Rest,
    Wait(Duration),
    /// To be done once the entry is durable.
    Perform(E),
    /// The entry is to be removed.
    Forgotten,
    /// The decision asked for an edge that the machine does not have, or went in circles: nothing is done.
    /// A bug in the machine; the text says which edge.
    Refused(String),
}

/// What a pass made of an entry.
pub struct Pass<M: Machine> {
    /// The entry to be written.
    pub entry: M::Entry,
    /// The moves, in order, all part of the same write.
    pub steps: Vec<Step<M::State, M::Reason>>,
    pub end: End<M::Effect>,
}

/// Runs `entry` forward until it rests, waits, wants a deed, or is forgotten.
///
/// Every move is checked against [`State::EDGES`]. More moves, or more renewals, than the machine has edges is a circle and
/// refused.
/// On refusal the entry is returned as it came, with no steps.
pub fn run<M: Machine>(entry: M::Entry, facts: &M::Facts) -> Pass<M> {
    let mut now = entry.clone();
    let mut steps = Vec::new();
    let mut renewals = 0;
    loop {
        let from = M::state(&now);
        match M::decide(&now, facts) {
            Decision::Rest { reason, message } => {
                M::explain(&mut now, reason, message);
                return Pass { entry: now, steps, end: End::Rest };
            }
            Decision::Wait { reason, message, recheck } => {
                M::explain(&mut now, reason, message);
                return Pass { entry: now, steps, end: End::Wait(recheck) };
            }
            Decision::Perform { effect, reason, message } => {
                M::explain(&mut now, reason, message);
                return Pass { entry: now, steps, end: End::Perform(effect) };
            }
            Decision::Forget { reason } => {
                steps.push(Step { from, to: None, reason });
                return Pass { entry: now, steps, end: End::Forgotten };
            }
            Decision::Renew { note } => {
                if renewals >= M::State::EDGES.len() {
                    let text = format!("renewed its intent again and again in {}", from.label());
                    return Pass { entry, steps: Vec::new(), end: End::Refused(text) };
                }
                renewals += 1;
                M::renew(&mut now, note);
            }
            Decision::Move { to, reason, note } => {
                if !M::State::EDGES.contains(&(from, to)) {
                    let text = format!("{} -> {} is not an edge", from.label(), to.label());
                    return Pass { entry, steps: Vec::new(), end: End::Refused(text) };
                }
                if steps.len() >= M::State::EDGES.len() {
                    let text = format!("went in circles through {}", from.label());
                    return Pass { entry, steps: Vec::new(), end: End::Refused(text) };
                }
                M::enter(&mut now, to, reason, note, facts);
                steps.push(Step { from, to: Some(to), reason });
            }
        }
    }
}
