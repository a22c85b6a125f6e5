//! The shape of a state machine: its states, its edges, and the one pure function that decides.

use std::{fmt::Debug, time::Duration};

/// A state of a machine. The type carries its diagram: [`State::EDGES`] is every edge and nothing else.
pub trait State: Copy + Eq + Debug + Send + Sync + 'static {
    /// Every permitted edge, as (from, to).
    const EDGES: &'static [(Self, Self)];

    /// Stable word for metric labels and status.
    fn label(self) -> &'static str;

    /// Longer than this in the state is worth a look; `None` for states in which a subject may stay for ever.
    fn patience(self) -> Option<Duration>;

    /// Nothing is held outside and nothing is under way: safe to let go.
    fn at_rest(self) -> bool;
}

/// A machine: what it knows of its subject, what it is told, what it may do.
pub trait Machine: Sized + 'static {
    /// Its states.
    type State: State;
    /// Its memory, as kept in status: the only memory there is.
    type Entry: Clone;
    /// Everything a decision may depend on, the time included.
    type Facts;
    /// A deed, as data.
    type Effect: Debug;
    /// Why something is so: a closed list of words for status, events and labels.
    type Reason: Copy + Debug;
    /// What a move writes into the entry.
    type Note;

    /// The state that an entry is in.
    fn state(entry: &Self::Entry) -> Self::State;

    /// What to do next. Pure: no clock, no randomness, no I/O.
    fn decide(entry: &Self::Entry, facts: &Self::Facts) -> Decision<Self>;

    /// The entry after a move.
    fn enter(entry: &mut Self::Entry, to: Self::State, reason: Self::Reason, note: Self::Note, facts: &Self::Facts);

    /// The entry with a new intent, or a new plan, in the same state.
    fn renew(entry: &mut Self::Entry, note: Self::Note);

    /// Puts the reason and the sentence of a wait or a rest into the entry. `since` and state stay.
    fn explain(entry: &mut Self::Entry, reason: Self::Reason, message: String);
}

/// What a machine wants next.
pub enum Decision<M: Machine> {
    /// Nothing until something watched changes.
    Rest { reason: M::Reason, message: String },
    /// Nothing until something changes, and a look again after `recheck` at the latest.
    Wait { reason: M::Reason, message: String, recheck: Duration },
    /// One deed; its intent is in the entry already.
    Perform { effect: M::Effect, reason: M::Reason, message: String },
    /// Another state.
    Move { to: M::State, reason: M::Reason, note: M::Note },
    /// The same state with a new intent (the old one may not be sent any more) or a new plan. No transition.
    Renew { note: M::Note },
    /// The entry is of no use any more.
    Forget { reason: M::Reason },
}
