//! What is under way, and which intents are dead. Pure: the caller brings ids and instants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// The effects in flight, each holding a set of keys (its subject, the resources it touches) exclusively.
#[derive(Clone, Debug, Default)]
pub struct Flights<K> {
    busy: BTreeSet<K>,
}

/// Shows that an effect holds its keys; give it back with [`Flights::end`].
#[derive(Clone, Debug)]
#[must_use = "the keys stay busy until the ticket is given back"]
pub struct Ticket<K> {
    keys: BTreeSet<K>,
}

impl<K: Ord + Clone> Flights<K> {
    pub fn new() -> Self {
        Self { busy: BTreeSet::new() }
    }

    /// Takes all keys, or none when any is busy.
    pub fn begin(&mut self, keys: impl IntoIterator<Item = K>) -> Option<Ticket<K>> {
        let keys: BTreeSet<K> = keys.into_iter().collect();
        if !keys.is_disjoint(&self.busy) {
            return None;
        }
        self.busy.extend(keys.iter().cloned());
        Some(Ticket { keys })
    }

    /// Frees the ticket's keys.
    pub fn end(&mut self, ticket: Ticket<K>) {
        self.busy.retain(|key| !ticket.keys.contains(key));
    }

    /// Whether an effect holds the key.
    pub fn is_busy(&self, key: &K) -> bool {
        self.busy.contains(key)
    }
}

/// What this process knows of the last intent on each subject, to tell whether it is dead: no request of it can take
/// effect any more.
#[derive(Clone, Debug, Default)]
pub struct Intents<S, I> {
    last: BTreeMap<S, Intent<I>>,
}

#[derive(Clone, Debug)]
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
    /// The one that this one, found in an entry, was seen after, and when that one is dead.
    before: Option<(I, Instant)>,
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

impl<S: Ord + Clone, I: Eq> Intents<S, I> {
    pub fn new() -> Self {
        Self { last: BTreeMap::new() }
    }

    /// An intent stands in the entry. `ours`: this process wrote it. Seen again, nothing changes.
    pub fn seen(&mut self, subject: &S, id: I, dead_at: Instant, ours: bool) {
        if self.last.get(subject).is_some_and(|known| known.id == id) {
            return;
        }
        let known = self.last.remove(subject);
        // What an earlier intent left unanswered does not die of being replaced.
        let residue = known.as_ref().and_then(Intent::ends);
        // Where two entries are about one subject their intents are seen in turns, and are no younger for that.
        let again = known.as_ref().and_then(|known| known.before.as_ref()).filter(|(before, _)| *before == id);
        let dead_at = again.map_or(dead_at, |(_, then)| *then);
        let before = known.filter(|_| !ours).map(|known| (known.id, known.dead_at));
        self.last.insert(subject.clone(), Intent { id, dead_at, ours, answered: true, residue, before });
    }

    /// A request of the intent is about to be under way: no longer all answered, and not dead before `dead_at`.
    pub fn sending(&mut self, subject: &S, dead_at: Instant) {
        if let Some(intent) = self.last.get_mut(subject) {
            intent.answered = false;
            intent.dead_at = intent.dead_at.max(dead_at);
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
        flights.end(first);
        assert!(flights.is_busy(&"machine b"), "each gives back its own keys");
        flights.end(second);
        assert!(!flights.is_busy(&"machine a") && !flights.is_busy(&"machine b"));
    }

    #[test]
    fn an_intent_dies_when_answered_here_or_when_its_time_is_over() {
        let now = Instant::now();
        let later = now + Duration::from_secs(180);
        let mut intents: Intents<&str, u32> = Intents::new();
        assert!(intents.dead(&"a", now), "no intent is a dead one");

        intents.seen(&"a", 1, later, true);
        assert!(intents.dead(&"a", now), "written, nothing sent");
        intents.sending(&"a", later);
        assert!(!intents.dead(&"a", now));
        intents.ended(&"a", false);
        assert!(!intents.dead(&"a", now), "an unanswered request may still land");
        assert!(intents.dead(&"a", later));

        intents.seen(&"a", 2, later, false);
        assert!(!intents.dead(&"a", now), "another process may have sent it");
        intents.ended(&"a", true);
        assert!(!intents.dead(&"a", now), "our answer says nothing of the other's requests");
        intents.sending(&"a", later + Duration::from_secs(60));
        assert!(!intents.dead(&"a", later), "one of ours left after theirs");
    }

    #[test]
    fn two_intents_that_are_seen_in_turns_die_both() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut intents: Intents<&str, u32> = Intents::new();
        for second in [0, 60, 120, 180] {
            intents.seen(&"a", 1, at(second + 180), false);
            assert_eq!(intents.dead(&"a", at(second)), second == 180, "{second}");
            intents.seen(&"a", 2, at(second + 180), false);
            assert_eq!(intents.dead(&"a", at(second)), second == 180, "{second}");
        }
    }

    #[test]
    fn what_was_never_answered_outlives_the_intent_that_replaces_it() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut intents: Intents<&str, u32> = Intents::new();
        intents.seen(&"a", 1, at(180), true);
        intents.sending(&"a", at(180));
        intents.ended(&"a", false);
        intents.seen(&"a", 2, at(240), true);
        intents.sending(&"a", at(240));
        intents.ended(&"a", true);
        assert!(!intents.dead(&"a", at(179)), "a request of the first may still land");
        assert!(intents.dead(&"a", at(180)));
    }
}
