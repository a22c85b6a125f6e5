//! Which reads count: one that began after everything that could have changed its answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Remembers, per key (a subject, a resource), the instant before which a read proves nothing.
#[derive(Clone, Debug)]
pub struct ReadFilter<K> {
    floors: BTreeMap<K, Instant>,
    /// The closing read of the last change: it counts whatever the floor, because it is the change's own answer.
    closing: BTreeMap<K, Instant>,
    /// For keys never seen: this process knows nothing from before its own beginning.
    birth: Instant,
}

impl<K: Ord + Clone> ReadFilter<K> {
    /// `birth`: when this process began to be responsible; older reads never count.
    pub fn new(birth: Instant) -> Self {
        Self { floors: BTreeMap::new(), closing: BTreeMap::new(), birth }
    }

    /// Something that may change the answer for `key` ended at `at`, or its entry was seen changed at `at`.
    pub fn raise(&mut self, key: &K, at: Instant) {
        let floor = self.floors.entry(key.clone()).or_insert(at);
        *floor = (*floor).max(at);
        self.closing.remove(key);
    }

    /// A change ended, and its own closing read began at `at`. Others count only `lag` later, where what is shown lags
    /// behind what is so.
    pub fn close(&mut self, key: &K, at: Instant, lag: Duration) {
        self.raise(key, at + lag);
        self.closing.insert(key.clone(), at);
    }

    /// When the closing read of the last change began, if nothing has changed since.
    pub fn closed(&self, key: &K) -> Option<Instant> {
        self.closing.get(key).copied()
    }

    /// Whether a read that began at `began` may be used for all of `keys`.
    pub fn counts<'a>(&self, keys: impl IntoIterator<Item = &'a K>, began: Instant) -> bool
    where
        K: 'a,
    {
        let counts =
            |key| self.floors.get(key).is_none_or(|floor| began >= *floor) || self.closing.get(key) == Some(&began);
        began >= self.birth && keys.into_iter().all(counts)
    }

    /// Forgets the keys that are not to be kept, by their floors.
    pub fn retain(&mut self, keep: impl Fn(&K, Instant) -> bool) {
        let Self { floors, closing, .. } = self;
        floors.retain(|key, floor| keep(key, *floor));
        closing.retain(|key, _| floors.contains_key(key));
    }

    /// Forgets a key whose subject is gone.
    pub fn forget(&mut self, key: &K) {
        self.floors.remove(key);
        self.closing.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_only_if_it_began_after_the_last_change_on_every_key() {
        let birth = Instant::now();
        let at = |s| birth + Duration::from_secs(s);
        let mut filter = ReadFilter::new(birth);
        assert!(filter.counts([&"a"], at(1)));
        filter.raise(&"a", at(5));
        filter.raise(&"a", at(3));
        assert!(!filter.counts([&"a"], at(4)), "the floor never sinks");
        assert!(filter.counts([&"a"], at(5)));
        filter.raise(&"m", at(9));
        assert!(!filter.counts([&"a", &"m"], at(8)));
        assert!(filter.counts([&"a", &"m"], at(9)));
    }

    #[test]
    fn where_reads_lag_only_the_changes_own_closing_read_counts_at_once() {
        let birth = Instant::now();
        let at = |s| birth + Duration::from_secs(s);
        let mut filter = ReadFilter::new(birth);
        filter.close(&"a", at(5), Duration::from_secs(30));
        assert!(filter.counts([&"a"], at(5)), "the answer to the change itself");
        assert!(!filter.counts([&"a"], at(6)) && !filter.counts([&"a"], at(34)), "may show what was");
        assert!(filter.counts([&"a"], at(35)));
        filter.raise(&"a", at(40));
        filter.close(&"a", at(50), Duration::from_secs(30));
        assert!(!filter.counts([&"a"], at(5)), "an older closing read is no truth any more");
    }

    #[test]
    fn what_was_read_before_this_process_was_responsible_never_counts() {
        let birth = Instant::now() + Duration::from_secs(10);
        let filter: ReadFilter<&str> = ReadFilter::new(birth);
        assert!(!filter.counts([&"a"], birth - Duration::from_secs(1)));
    }
}
