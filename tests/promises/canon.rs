//! The fingerprint of a state: two states that differ only in what is compared and never counted have the same one.
//!
//! - Times count by their distance to now in whole seconds, up to a horizon: the same night a week later is the same state.
//!   Within a second only the order of those counts of which somebody says that they are compared with each other.
//! - Uuids count by where they come again.
//! - The resourceVersions of one object count by their order; those of two have nothing to do with each other.
//!
//! The text is taken from `Debug`, because the product's types have it; the times, uuids and versions in it are found by
//! their form. Maps that iterate in no order do not belong here.

use std::{
    any::Any,
    cell::RefCell,
    collections::HashMap,
    fmt::{Debug, Write as _},
    hash::{Hash, Hasher},
    mem,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;

/// Beyond so many seconds from now all times are the same.
pub const HORIZON: i64 = 1200;

const SECOND: i64 = 1_000_000_000;

/// What is compared and not counted. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
enum Token {
    /// As `Debug` of an `Instant` shows it.
    Instant(i64),
    /// Since 1970.
    Timestamp(i64),
    /// From now.
    Ahead(i64),
    /// Of which object, by the hash of its name, and which.
    Version(u64, u64),
    Uuid(u128),
}

/// A part of what was written.
#[derive(Clone, Copy)]
enum Item {
    /// A stretch of text, of which only the hash is kept.
    Text(u64, u64),
    Token(Token),
}

#[derive(Default)]
struct Piece(Vec<Item>);

/// Collects a state. See [`fingerprint`].
pub struct Canon {
    now: Instant,
    stamp: Timestamp,
    piece: Piece,
    scratch: String,
}

/// Runs `write` and makes a fingerprint of what it wrote. `now` and `stamp` are the same moment on the two clocks.
pub fn fingerprint(now: Instant, stamp: Timestamp, write: impl FnOnce(&mut Canon)) -> u128 {
    let mut canon = Canon { now, stamp, piece: Piece::default(), scratch: String::new() };
    write(&mut canon);
    canon.finish()
}

impl Canon {
    pub fn instant(&mut self, instant: Instant) {
        let ahead = match instant.checked_duration_since(self.now) {
            Some(ahead) => nanos(ahead.as_nanos()),
            None => -nanos(self.now.duration_since(instant).as_nanos()),
        };
        self.piece.0.push(Item::Token(Token::Ahead(ahead)));
    }

    pub fn timestamp(&mut self, timestamp: Timestamp) {
        let at = i64::try_from(timestamp.as_nanosecond()).unwrap();
        self.piece.0.push(Item::Token(Token::Timestamp(at)));
    }

    /// A resourceVersion: only its order among the others of the object of that name counts.
    pub fn version(&mut self, name: &str, version: u64) {
        self.piece.0.push(Item::Token(Token::Version(hash_of(name.as_bytes()), version)));
    }

    /// Everything that this hashes counts as it is.
    pub fn write(&mut self, thing: &(impl Hash + ?Sized)) {
        let mut bytes = Bytes(Vec::new());
        thing.hash(&mut bytes);
        self.piece.text(&bytes.0);
    }

    /// Its `Debug` text, with times, uuids and versions found in it.
    pub fn debug(&mut self, thing: &(impl Debug + ?Sized)) {
        self.piece.debug(thing, &mut self.scratch);
    }

    /// In which order these are, which are compared with each other.
    pub fn order(&mut self, times: &[Option<Instant>]) {
        let mut sorted: Vec<Instant> = times.iter().flatten().copied().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let rank = |time: &Option<Instant>| time.map(|time| sorted.partition_point(|other| *other < time));
        self.write(&times.iter().map(rank).collect::<Vec<_>>());
    }

    /// Texts of which it does not count in which order they came.
    pub fn set(&mut self, texts: impl IntoIterator<Item = String>) {
        let mut pieces: Vec<(u64, Piece)> = texts.into_iter().map(|text| Piece::of(&text)).collect();
        pieces.sort_by_key(|(shape, _)| *shape);
        self.write(&pieces.len());
        pieces.into_iter().for_each(|(_, piece)| self.piece.0.extend(piece.0));
    }

    /// Text that was made of something, with times, uuids and versions found in it.
    pub fn text(&mut self, text: &str) {
        self.piece.scan(text.as_bytes());
    }

    /// The same for what is shared and does not change: its text is made once for each thread that meets it.
    pub fn shared<T: Debug + Send + Sync + 'static>(&mut self, thing: &Arc<T>) {
        self.shared_as(thing, |thing, canon| canon.debug(thing));
    }

    /// The same, with a way to write it: always the same one for things of that type.
    pub fn shared_as<T: Send + Sync + 'static>(&mut self, thing: &Arc<T>, write: impl FnOnce(&T, &mut Canon)) {
        let key = Arc::as_ptr(thing).cast::<()>() as usize;
        let known = MEMO.with_borrow(|memo| memo.get(&key).map(|(_, piece)| piece.clone()));
        if let Some(piece) = known {
            self.piece.0.extend_from_slice(&piece.0);
            return;
        }
        let begin = self.piece.0.len();
        write(thing, self);
        let piece = Rc::new(Piece(self.piece.0[begin..].to_vec()));
        MEMO.with_borrow_mut(|memo| {
            if memo.len() >= MEMORIES {
                memo.clear();
            }
            // The thing is kept, so that no other can come to its place in memory.
            memo.insert(key, (thing.clone(), piece));
        });
    }

    fn finish(self) -> u128 {
        let now = instant_nanos(&format!("{:?}", self.now));
        let stamp = i64::try_from(self.stamp.as_nanosecond()).unwrap();
        let ahead = |token: Token| match token {
            Token::Instant(at) => Some(at - now),
            Token::Timestamp(at) => Some(at - stamp),
            Token::Ahead(ahead) => Some(ahead),
            Token::Version(..) | Token::Uuid(_) => None,
        };
        let mut versions: Vec<(u64, u64)> = Vec::new();
        for item in &self.piece.0 {
            if let Item::Token(Token::Version(name, version)) = item {
                versions.push((*name, *version));
            }
        }
        versions.sort_unstable();
        versions.dedup();
        let mut uuids: Vec<u128> = Vec::new();
        let mut hash = Both::new();
        for item in &self.piece.0 {
            match item {
                Item::Text(one, two) => hash.words([*one, *two, 0]),
                Item::Token(Token::Version(name, version)) => {
                    let older = versions.iter().filter(|other| other.0 == *name && other.1 < *version).count();
                    hash.words([1, older as u64, 0]);
                }
                Item::Token(Token::Uuid(uuid)) => {
                    let index = uuids.iter().position(|known| known == uuid).unwrap_or_else(|| {
                        uuids.push(*uuid);
                        uuids.len() - 1
                    });
                    hash.words([2, index as u64, 0]);
                }
                Item::Token(time) => {
                    let ahead = ahead(*time).unwrap();
                    let seconds = ahead.div_euclid(SECOND).clamp(-HORIZON, HORIZON);
                    hash.words([3, u64::from(ahead > 0), seconds.cast_unsigned()]);
                }
            }
        }
        u128::from(hash.0) << 64 | u128::from(hash.1)
    }
}

/// So many shared things are remembered at most.
const MEMORIES: usize = 20_000;

type Memory = (Arc<dyn Any + Send + Sync>, Rc<Piece>);

thread_local! {
    static MEMO: RefCell<HashMap<usize, Memory>> = RefCell::new(HashMap::new());
}

fn nanos(nanos: u128) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX / 2)
}

impl Piece {
    /// What it is made of, and its shape: all but times, versions and uuids.
    fn of(text: &str) -> (u64, Self) {
        let mut piece = Self::default();
        piece.scan(text.as_bytes());
        let mut shape = Both::new();
        for item in &piece.0 {
            if let Item::Text(one, two) = item {
                shape.words([*one, *two, 0]);
            }
        }
        (shape.0, piece)
    }

    fn text(&mut self, text: &[u8]) {
        let mut hash = Both::new();
        hash.bytes(text);
        self.0.push(Item::Text(hash.0, hash.1));
    }

    fn debug(&mut self, thing: &(impl Debug + ?Sized), scratch: &mut String) {
        let mut text = mem::take(scratch);
        text.clear();
        write!(text, "{thing:?}").unwrap();
        self.scan(text.as_bytes());
        *scratch = text;
    }

    /// Everything that we look for has a `v` or a hyphen at a fixed place.
    fn scan(&mut self, text: &[u8]) {
        let (mut from, mut at) = (0, 0);
        while let Some(place) = hyphen_or_v(text, at) {
            let found = match text[place] {
                b'-' => timestamp_at(text, place).or_else(|| uuid_at(text, place)),
                _ => instant_at(text, place).or_else(|| version_at(text, place)),
            };
            match found {
                Some((begin, end, token)) => {
                    self.text(&text[from..begin]);
                    self.0.push(Item::Token(token));
                    (from, at) = (end, end);
                }
                None => at = place + 1,
            }
        }
        self.text(&text[from..]);
    }
}

/// The first of them, eight bytes at a look.
fn hyphen_or_v(text: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const HYPHENS: u64 = ONES * b'-' as u64;
    const VS: u64 = ONES * b'v' as u64;
    let mut at = from;
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let (hyphens, vs) = (word ^ HYPHENS, word ^ VS);
        // The lowest bit that is set is right, whatever is above it.
        let hits = (hyphens.wrapping_sub(ONES) & !hyphens | vs.wrapping_sub(ONES) & !vs) & HIGHS;
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    (at..text.len()).find(|at| matches!(text[*at], b'-' | b'v'))
}

type Seen = Option<(usize, usize, Token)>;

/// The number at `from`, and where it ends.
fn number(text: &[u8], from: usize) -> Option<(i64, usize)> {
    let mut end = from;
    let mut number = 0_i64;
    while let Some(digit @ b'0'..=b'9') = text.get(end) {
        number = number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        end += 1;
    }
    (end > from).then_some((number, end))
}

/// The number of exactly so many digits at `from`.
fn digits(text: &[u8], from: usize, count: usize) -> Option<i64> {
    let mut number = 0_i64;
    for digit in text.get(from..from + count)? {
        number = number * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(number)
}

/// `tv_sec: 1, tv_nsec: 2`, the `v` given.
fn instant_at(text: &[u8], v: usize) -> Seen {
    const NAME: &[u8] = b"v_sec: ";
    const NANOS: &[u8] = b", tv_nsec: ";
    let begin = v.checked_sub(1)?;
    if text[begin] != b't' || !text[v..].starts_with(NAME) {
        return None;
    }
    let (seconds, end) = number(text, v + NAME.len())?;
    let (nanos, end) = number(text, text[end..].starts_with(NANOS).then(|| end + NANOS.len())?)?;
    Some((begin, end, Token::Instant(seconds * SECOND + nanos)))
}

fn instant_nanos(debug: &str) -> i64 {
    let v = debug.find('v').expect("an Instant shows its seconds");
    match instant_at(debug.as_bytes(), v) {
        Some((_, _, Token::Instant(nanos))) => nanos,
        _ => panic!("an Instant is shown as {debug}"),
    }
}

/// `resource_version: Some("12")`, the `v` given.
fn version_at(text: &[u8], v: usize) -> Seen {
    const NAME: &[u8] = b"version: Some(\"";
    if !(text[v..].starts_with(NAME) && text[..v].ends_with(b"resource_")) {
        return None;
    }
    let begin = v + NAME.len();
    let (version, end) = number(text, begin)?;
    Some((begin, end, Token::Version(hash_of(name_before(text, v)), version.unsigned_abs())))
}

/// The name in the metadata whose version is at `at`; empty if it has none.
fn name_before(text: &[u8], at: usize) -> &[u8] {
    const NAME: &[u8] = b" name: Some(\"";
    // Between the two there may be a namespace and owners.
    const NEAR: usize = 400;
    let near = &text[at.saturating_sub(NEAR)..at];
    let Some(begin) = near.windows(NAME.len()).rposition(|window| window == NAME) else { return b"" };
    near[begin + NAME.len()..].split(|byte| *byte == b'"').next().unwrap_or_default()
}

/// `2027-01-15T08:00:00.5Z`, the first hyphen given.
fn timestamp_at(text: &[u8], hyphen: usize) -> Seen {
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    if !(is(hyphen + 3, b'-') && is(hyphen + 6, b'T') && is(hyphen + 9, b':') && is(hyphen + 12, b':')) {
        return None;
    }
    let begin = hyphen.checked_sub(4)?;
    let days = days(digits(text, begin, 4)?, digits(text, hyphen + 1, 2)?, digits(text, hyphen + 4, 2)?);
    let time = digits(text, hyphen + 7, 2)? * 3600 + digits(text, hyphen + 10, 2)? * 60 + digits(text, hyphen + 13, 2)?;
    let (mut end, mut nanos) = (hyphen + 15, 0);
    if is(end, b'.') {
        let mut unit = SECOND / 10;
        end += 1;
        while let Some(digit @ b'0'..=b'9') = text.get(end) {
            nanos += i64::from(digit - b'0') * unit;
            unit /= 10;
            end += 1;
        }
    }
    is(end, b'Z').then_some((begin, end + 1, Token::Timestamp((days * 86_400 + time) * SECOND + nanos)))
}

/// Days since 1970 of a day of the civil calendar, years counted from March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

/// 8-4-4-4-12 hex digits, the first hyphen given.
fn uuid_at(text: &[u8], hyphen: usize) -> Seen {
    let begin = hyphen.checked_sub(8)?;
    let whole = text.get(begin..begin + 36)?;
    if [8, 13, 18, 23].iter().any(|at| whole[*at] != b'-') {
        return None;
    }
    let mut uuid = 0_u128;
    for byte in whole.iter().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at)).map(|(_, byte)| *byte) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        uuid = uuid << 4 | u128::from(digit);
    }
    Some((begin, begin + 36, Token::Uuid(uuid)))
}

/// What is hashed, as bytes.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Two hashes of 64 bits, by multiplying and folding: fast without an optimiser, and nobody here wishes them ill.
struct Both(u64, u64);

impl Both {
    fn new() -> Self {
        Self(0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344)
    }

    fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, 0x9E37_79B9_7F4A_7C15);
        self.1 = fold(self.1.rotate_left(29) ^ word, 0xD6E8_FEB8_6659_FD93);
    }

    fn words(&mut self, words: [u64; 3]) {
        words.into_iter().for_each(|word| self.word(word));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((eight, after)) = rest.split_first_chunk() {
            self.word(u64::from_le_bytes(*eight));
            rest = after;
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hash = Both::new();
    hash.bytes(bytes);
    hash.0
}

fn fold(one: u64, two: u64) -> u64 {
    let product = u128::from(one) * u128::from(two);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;

    fn stamp() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn of(write: impl FnOnce(&mut Canon)) -> u128 {
        fingerprint(BASE.with(|base| *base), stamp(), write)
    }

    thread_local! {
        static BASE: Instant = Instant::now() + Duration::from_secs(100_000);
    }

    fn base() -> Instant {
        BASE.with(|base| *base)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_night_a_week_later_is_the_same_state() {
        let week = secs(7 * 86_400);
        let state = |now: Instant, stamp: Timestamp| {
            let text = (now + secs(5), Some(stamp - SignedDuration::from_millis(1500)));
            fingerprint(now, stamp, |canon| {
                canon.debug(&text);
                canon.instant(now - secs(3));
                canon.timestamp(stamp + SignedDuration::from_secs(9));
            })
        };
        assert_eq!(state(base(), stamp()), state(base() + week, stamp() + SignedDuration::try_from(week).unwrap()));
    }

    #[test]
    fn a_time_is_the_same_however_it_was_handed_in() {
        let (instant, time) = (base() + secs(5), stamp() + SignedDuration::from_secs(7));
        let shown = of(|canon| {
            canon.debug(&instant);
            canon.debug(&time);
        });
        let handed = of(|canon| {
            canon.piece.text(b"Instant { ");
            canon.instant(instant);
            canon.piece.text(b" }");
            canon.piece.text(b"");
            canon.timestamp(time);
            canon.piece.text(b"");
        });
        assert_eq!(shown, handed);
    }

    #[test]
    fn seconds_from_now_count_up_to_the_horizon() {
        let at = |seconds: u64| of(|canon| canon.instant(base() + secs(seconds)));
        assert_ne!(at(5), at(6));
        assert_eq!(at(1300), at(1400));
        assert_ne!(at(1100), at(1400));
        let past = |seconds: u64| of(|canon| canon.debug(&(base() - secs(seconds))));
        assert_ne!(past(5), at(5));
        assert_ne!(past(5), past(6));
        assert_eq!(past(1300), past(1400));
    }

    #[test]
    fn the_order_of_times_counts_where_they_are_compared() {
        let (early, late) = (base() + Duration::from_millis(100), base() + Duration::from_millis(200));
        let shown = |one: Instant, two: Instant| of(|canon| canon.debug(&[one, two]));
        assert_eq!(shown(early, late), shown(late, early));
        let compared = |one: Option<Instant>, two: Option<Instant>| of(|canon| canon.order(&[one, two]));
        assert_ne!(compared(Some(early), Some(late)), compared(Some(late), Some(early)));
        assert_ne!(compared(Some(early), Some(early)), compared(Some(early), Some(late)));
        assert_eq!(compared(Some(early), Some(late)), compared(Some(base()), Some(early)));
        assert_ne!(compared(Some(early), None), compared(None, Some(early)));
        assert_ne!(
            of(|canon| canon.instant(base())),
            of(|canon| canon.instant(early)),
            "what is over, and what is not yet"
        );
    }

    #[test]
    fn of_a_set_the_order_does_not_count_and_uuids_still_come_again() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let set = |first: String, second: String, then: Uuid| {
            of(|canon| {
                canon.set([first, second]);
                canon.debug(&then);
            })
        };
        let texts = |red: Uuid, blue: Uuid| (format!("red {red}"), format!("blue {blue}"));
        let ((red, blue), (other_red, other_blue)) = (texts(one, two), texts(two, one));
        assert_eq!(set(red.clone(), blue.clone(), one), set(blue.clone(), red.clone(), one));
        assert_eq!(set(red.clone(), blue.clone(), one), set(other_red, other_blue, two));
        assert_ne!(set(red.clone(), blue.clone(), one), set(red, blue, two));
    }

    #[test]
    fn a_timestamp_is_read_to_the_nanosecond() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59.000000001Z", "2027-12-31T08:09:10.25Z"] {
            let expected: Timestamp = text.parse().unwrap();
            let (begin, end, token) = timestamp_at(text.as_bytes(), 4).unwrap();
            assert_eq!((begin, end), (0, text.len()));
            assert!(matches!(token, Token::Timestamp(at) if i128::from(at) == expected.as_nanosecond()), "{text}");
        }
    }

    #[test]
    fn uuids_count_by_where_they_come_again() {
        let three = |ids: [u128; 3]| of(|canon| canon.debug(&ids.map(Uuid::from_u128)));
        assert_eq!(three([1, 2, 1]), three([9, 8, 9]));
        assert_ne!(three([1, 2, 1]), three([1, 2, 2]));
        let in_text = |id: u128| of(|canon| canon.debug(&format!("sent as {} once", Uuid::from_u128(id))));
        assert_eq!(in_text(1), in_text(2));
    }

    #[derive(Debug)]
    #[allow(dead_code)]
    struct Meta {
        labels: Option<String>,
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
    }

    fn meta(name: &str, version: u64) -> Meta {
        let name = Some(name.to_owned());
        Meta { labels: None, name, namespace: None, resource_version: Some(version.to_string()) }
    }

    #[test]
    fn the_versions_of_one_object_count_by_their_order() {
        let two = |versions: [u64; 2]| of(|canon| canon.debug(&versions.map(|version| meta("a", version))));
        assert_eq!(two([9, 10]), two([3, 700]));
        assert_ne!(two([9, 10]), two([10, 9]));
        assert_ne!(two([9, 9]), two([9, 10]));
        let handed = |version| {
            of(|canon| {
                canon.debug(&meta("a", 9));
                canon.version("a", version);
            })
        };
        assert_eq!(handed(10), handed(11));
        assert_ne!(handed(9), handed(11));
    }

    #[test]
    fn the_versions_of_two_objects_have_nothing_to_do_with_each_other() {
        let two = |a, b| of(|canon| canon.debug(&[meta("a", a), meta("b", b)]));
        assert_eq!(two(9, 10), two(10, 9));
        assert_eq!(two(9, 9), two(10, 9));
    }

    #[test]
    fn everything_else_counts_as_it_is() {
        let texts = ["a-b", "12-34", "2027-01-15", "resource_version: None", "tv_sec: x", "deadbeef-1234", "8:00", ""];
        for one in texts {
            for two in texts {
                let same = of(|canon| canon.debug(one)) == of(|canon| canon.debug(two));
                assert_eq!(same, one == two, "{one:?} and {two:?}");
            }
        }
        assert_ne!(of(|canon| canon.write("ab")), of(|canon| canon.write("ba")));
        assert_ne!(of(|canon| canon.write(&1_u32)), of(|canon| canon.write(&2_u32)));
    }

    #[test]
    fn what_is_shared_counts_like_what_is_not() {
        let thing = Arc::new((Uuid::from_u128(5), base() + secs(4), "text"));
        let once = of(|canon| {
            canon.debug("before");
            canon.debug(&*thing);
            canon.debug(&Uuid::from_u128(5));
        });
        for _ in 0..2 {
            let shared = of(|canon| {
                canon.debug("before");
                canon.shared(&thing);
                canon.debug(&Uuid::from_u128(5));
            });
            assert_eq!(once, shared);
        }
    }
}
