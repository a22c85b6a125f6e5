//! When the status of one object is written. Pure: `now` is an input.
//!
//! What may wait rides along with the next write. And no third write begins within a second: where many addresses change at
//! once, what they come to is written together.

use std::time::{Duration, Instant};

use super::news::News;

/// A sentence waits for so long.
const WORDS: Duration = Duration::from_secs(2);
/// Within so long no more than [`MOST`] writes.
const WINDOW: Duration = Duration::from_secs(1);
const MOST: usize = 2;

/// What becomes of a pass's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Status says all that is known.
    Nothing,
    /// It is held back for so long at most; deeds that no intent precedes go on.
    HeldBack(Duration),
    Now,
    /// It must not wait, and has to: the whole pass is done anew after so long.
    Paced(Duration),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    /// Since when status lacks something,
    lacks: Option<Instant>,
    /// and since when that is more than counts.
    lacks_words: Option<Instant>,
    /// When the last writes ended, the oldest first.
    written: Vec<Instant>,
}

impl Cadence {
    /// `counts`: for how long counts alone may wait. What has waited for long enough waits no longer because something else
    /// has been added.
    pub fn timing(&mut self, news: News, counts: Duration, now: Instant) -> Timing {
        if news == News::Nothing {
            (self.lacks, self.lacks_words) = (None, None);
            return Timing::Nothing;
        }
        let counts = left(*self.lacks.get_or_insert(now), counts, now);
        let patience = match news {
            News::Nothing | News::Counts => {
                self.lacks_words = None;
                counts
            }
            News::Words => left(*self.lacks_words.get_or_insert(now), WORDS, now).min(counts),
            News::Facts => Duration::ZERO,
        };
        let pace = match self.written.as_slice() {
            [oldest, ..] if self.written.len() >= MOST => left(*oldest, WINDOW, now),
            _ => Duration::ZERO,
        };
        match patience.max(pace) {
            Duration::ZERO => Timing::Now,
            wait if news == News::Facts => Timing::Paced(wait),
            wait => Timing::HeldBack(wait),
        }
    }

    /// A write has ended well: status says all that is known.
    pub fn wrote(&mut self, now: Instant) {
        (self.lacks, self.lacks_words) = (None, None);
        self.written.push(now);
        if self.written.len() > MOST {
            self.written.remove(0);
        }
    }
}

fn left(since: Instant, limit: Duration, now: Instant) -> Duration {
    limit.saturating_sub(now.saturating_duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// With counts that may wait for ten seconds.
    fn timing(cadence: &mut Cadence, news: News, now: Instant) -> Timing {
        cadence.timing(news, ms(10_000), now)
    }

    #[test]
    fn facts_are_written_at_once_words_and_counts_when_they_last() {
        let (mut cadence, now) = (Cadence::default(), Instant::now());
        assert_eq!(timing(&mut cadence, News::Facts, now), Timing::Now);
        cadence.wrote(now);
        assert_eq!(timing(&mut cadence, News::Words, now), Timing::HeldBack(ms(2_000)));
        assert_eq!(
            timing(&mut cadence, News::Words, now + ms(1_500)),
            Timing::HeldBack(ms(500)),
            "since it lacks them"
        );
        assert_eq!(timing(&mut cadence, News::Words, now + ms(2_000)), Timing::Now);
        cadence.wrote(now + ms(2_000));
        assert_eq!(timing(&mut cadence, News::Counts, now + ms(3_000)), Timing::HeldBack(ms(10_000)), "others");
    }

    #[test]
    fn words_that_join_counts_wait_as_words_do_and_not_beyond_the_counts() {
        let (mut cadence, now) = (Cadence::default(), Instant::now());
        assert_eq!(timing(&mut cadence, News::Counts, now), Timing::HeldBack(ms(10_000)));
        assert_eq!(timing(&mut cadence, News::Words, now + ms(5_000)), Timing::HeldBack(ms(2_000)));
        assert_eq!(timing(&mut cadence, News::Counts, now + ms(6_000)), Timing::HeldBack(ms(4_000)), "taken back");
        assert_eq!(timing(&mut cadence, News::Words, now + ms(9_000)), Timing::HeldBack(ms(1_000)));
        assert_eq!(timing(&mut cadence, News::Words, now + ms(10_000)), Timing::Now);
    }

    #[test]
    fn what_is_no_news_any_more_was_not_waited_for() {
        let (mut cadence, now) = (Cadence::default(), Instant::now());
        assert_eq!(timing(&mut cadence, News::Counts, now), Timing::HeldBack(ms(10_000)));
        assert_eq!(timing(&mut cadence, News::Nothing, now + ms(9_000)), Timing::Nothing);
        assert_eq!(timing(&mut cadence, News::Counts, now + ms(9_500)), Timing::HeldBack(ms(10_000)));
    }

    #[test]
    fn no_third_write_within_a_second_whatever_is_new() {
        let (mut cadence, now) = (Cadence::default(), Instant::now());
        cadence.wrote(now);
        cadence.wrote(now + ms(300));
        assert_eq!(timing(&mut cadence, News::Facts, now + ms(400)), Timing::Paced(ms(600)));
        assert_eq!(timing(&mut cadence, News::Facts, now + ms(1_000)), Timing::Now);
        cadence.wrote(now + ms(1_000));
        assert_eq!(
            timing(&mut cadence, News::Facts, now + ms(1_100)),
            Timing::Paced(ms(200)),
            "the second and the third"
        );
        assert_eq!(timing(&mut cadence, News::Facts, now + ms(1_300)), Timing::Now);
    }
}
