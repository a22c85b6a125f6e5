//! Which reads count: one that began after everything that could have changed its answer.

use std::{collections::HashMap, hash::Hash, time::Instant};

/// Remembers, per key (a subject, a resource), the instant before which a read proves nothing.
#[derive(Debug)]
pub struct ReadFilter<K> {
    floors: HashMap<K, Instant>,
    /// For keys never seen: this process knows nothing from before its own beginning.
    birth: Instant,
}

impl<K: Eq + Hash + Clone> ReadFilter<K> {
    /// `birth`: when this process began to be responsible; older reads never count.
    pub fn new(birth: Instant) -> Self {
        Self { floors: HashMap::new(), birth }
    }

    /// Something that may change the answer for `key` ended at `at`, or its entry was seen changed at `at`.
    pub fn raise(&mut self, key: &K, at: Instant) {
        let floor = self.floors.entry(key.clone()).or_insert(at);
        *floor = (*floor).max(at);
    }

    /// Whether a read that began at `began` may be used for all of `keys`.
    pub fn counts<'a>(&self, keys: impl IntoIterator<Item = &'a K>, began: Instant) -> bool
    where
        K: 'a,
    {
        began >= self.birth && keys.into_iter().all(|key| self.floors.get(key).is_none_or(|floor| began >= *floor))
    }

    /// Forgets a key whose subject is gone.
    pub fn forget(&mut self, key: &K) {
        self.floors.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn what_was_read_before_this_process_was_responsible_never_counts() {
        let birth = Instant::now() + Duration::from_secs(10);
        let filter: ReadFilter<&str> = ReadFilter::new(birth);
        assert!(!filter.counts([&"a"], birth - Duration::from_secs(1)));
    }
}
