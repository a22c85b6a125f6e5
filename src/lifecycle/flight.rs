//! What is under way, and which intents are dead. Pure: the caller brings ids and instants.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Instant,
};

/// The effects in flight, each holding a set of keys (its subject, the resources it touches) exclusively.
#[derive(Debug, Default)]
pub struct Flights<K: Eq + Hash> {
    busy: HashSet<K>,
    count: usize,
}

/// Proof that an effect holds its keys; give it back with [`Flights::end`].
#[derive(Debug)]
#[must_use = "the keys stay busy until the ticket is given back"]
pub struct Ticket<K> {
    keys: Vec<K>,
}

impl<K: Eq + Hash + Clone> Flights<K> {
    pub fn new() -> Self {
        Self { busy: HashSet::new(), count: 0 }
    }

    /// Takes all keys, or none when any is busy.
    pub fn begin(&mut self, keys: impl IntoIterator<Item = K>) -> Option<Ticket<K>> {
        let keys: HashSet<K> = keys.into_iter().collect();
        if keys.iter().any(|key| self.busy.contains(key)) {
            return None;
        }
        self.busy.extend(keys.iter().cloned());
        self.count += 1;
        Some(Ticket { keys: keys.into_iter().collect() })
    }

    /// Frees the ticket's keys.
    pub fn end(&mut self, ticket: Ticket<K>) {
        for key in &ticket.keys {
            self.busy.remove(key);
        }
        self.count -= 1;
    }

    /// Whether an effect holds the key.
    pub fn is_busy(&self, key: &K) -> bool {
        self.busy.contains(key)
    }

    /// Effects in flight.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// What this process knows of the last intent on each subject, to tell whether it is dead: no request of it can take
/// effect any more.
#[derive(Debug, Default)]
pub struct Intents<S: Eq + Hash, I> {
    last: HashMap<S, Intent<I>>,
}

#[derive(Debug)]
struct Intent<I> {
    id: I,
    /// From here on nothing of it can take effect: its last permitted instant to send plus the settle time.
    dead_at: Instant,
    /// Written by this process: nobody else can have sent a request of it.
    ours: bool,
    /// Every request that left was answered for sure.
    answered: bool,
    /// Until then a request of an earlier intent may still take effect: its answer was never heard.
    residue: Option<Instant>,
}

impl<I> Intent<I> {
    fn settled(&self) -> bool {
        self.ours && self.answered
    }

    /// When the last of what may still be under way is dead; `None` when everything was answered.
    fn ends(&self) -> Option<Instant> {
        if self.settled() { self.residue } else { self.residue.max(Some(self.dead_at)) }
    }
}

impl<S: Eq + Hash + Clone, I: Eq> Intents<S, I> {
    pub fn new() -> Self {
        Self { last: HashMap::new() }
    }

    /// An intent stands in the entry. `ours`: this process wrote it. Seen again, nothing changes.
    pub fn seen(&mut self, subject: &S, id: I, dead_at: Instant, ours: bool) {
        let known = self.last.get(subject);
        if known.is_none_or(|known| known.id != id) {
            // What an earlier intent left unanswered does not die of being replaced.
            let residue = known.and_then(Intent::ends);
            self.last.insert(subject.clone(), Intent { id, dead_at, ours, answered: true, residue });
        }
    }

    /// A request of the intent is about to be under way: no longer all answered.
    pub fn sending(&mut self, subject: &S) {
        if let Some(intent) = self.last.get_mut(subject) {
            intent.answered = false;
        }
    }

    /// The effect ended; `settled` says that every request was answered for sure.
    pub fn ended(&mut self, subject: &S, settled: bool) {
        if let Some(intent) = self.last.get_mut(subject) {
            intent.answered = settled;
        }
    }

    /// Whether no request of the subject's last intent can take effect at or after `now`.
    pub fn dead(&self, subject: &S, now: Instant) -> bool {
        self.last.get(subject).and_then(Intent::ends).is_none_or(|end| now >= end)
    }

    /// Forgets a subject that is gone.
    pub fn forget(&mut self, subject: &S) {
        self.last.remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_effects_never_share_a_key() {
        let mut flights = Flights::new();
        let first = flights.begin(["address 1", "machine a"]).unwrap();
        assert!(flights.begin(["address 2", "machine a"]).is_none());
        assert!(!flights.is_busy(&"address 2"), "a refused effect holds nothing");
        let second = flights.begin(["address 2", "machine b"]).unwrap();
        assert_eq!(flights.count(), 2);
        flights.end(first);
        flights.end(second);
        assert_eq!(flights.count(), 0);
        assert!(!flights.is_busy(&"machine a"));
    }

    #[test]
    fn an_intent_dies_when_answered_here_or_when_its_time_is_over() {
        let now = Instant::now();
        let later = now + Duration::from_secs(180);
        let mut intents: Intents<&str, u32> = Intents::new();
        assert!(intents.dead(&"a", now), "no intent is a dead one");

        intents.seen(&"a", 1, later, true);
        assert!(intents.dead(&"a", now), "written, nothing sent");
        intents.sending(&"a");
        assert!(!intents.dead(&"a", now));
        intents.ended(&"a", false);
        assert!(!intents.dead(&"a", now), "an unanswered request may still land");
        assert!(intents.dead(&"a", later));

        intents.seen(&"a", 2, later, false);
        assert!(!intents.dead(&"a", now), "another process may have sent it");
        intents.ended(&"a", true);
        assert!(!intents.dead(&"a", now), "our answer says nothing of the other's requests");
    }

    #[test]
    fn what_was_never_answered_outlives_the_intent_that_replaces_it() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut intents: Intents<&str, u32> = Intents::new();
        intents.seen(&"a", 1, at(180), true);
        intents.sending(&"a");
        intents.ended(&"a", false);
        intents.seen(&"a", 2, at(240), true);
        intents.sending(&"a");
        intents.ended(&"a", true);
        assert!(!intents.dead(&"a", at(179)), "a request of the first may still land");
        assert!(intents.dead(&"a", at(180)));
    }
}
