//! A journey: from the rest that a subject leaves to the rest that it reaches, through passes, restarts and leaders.
//!
//! Nothing holds a span open for as long as that. A journey's trace is made from words that status keeps, so whoever
//! leads tells its part under the same one, and whoever sees the end tells the root.

use std::fmt;

use jiff::Timestamp;
use uuid::{Uuid, uuid};

/// Names traces, apart from everything else that is named so.
const TRACES: Uuid = uuid!("9f0ed0a5-5a5c-4b0e-9d0e-2c7a4f3f6b11");

/// The trace of a journey: a W3C trace id, whose second half is also the id of the root span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace(u128);

impl Trace {
    /// The trace of the journey that these words tell apart from every other one.
    pub fn of(words: &str) -> Self {
        // Two first halves: the second one of a UUID begins with fixed bits, just where samplers look for chance.
        let half = |of: &str| u128::from(Uuid::new_v5(&TRACES, format!("{of} {words}").as_bytes()).as_u64_pair().0);
        Self((half("trace") << 64) | half("root"))
    }

    /// A trace id of 32 hex digits.
    pub fn parse_id(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let trace = Self(u128::from_str_radix(text, 16).ok().filter(|_| hex)?);
        (trace.root() != 0).then_some(trace)
    }

    /// The trace that a W3C `traceparent` names.
    pub fn parse(traceparent: &str) -> Option<Self> {
        Self::parse_id(traceparent.split('-').nth(1)?)
    }

    /// W3C trace context with the root span as the parent. Whether it is sampled is decided anew where spans are made, by
    /// the id alone, so that it does not depend on what somebody set when the journey began.
    pub fn traceparent(self) -> String {
        format!("00-{self}-{:016x}-01", self.root())
    }

    pub fn id(self) -> u128 {
        self.0
    }

    /// Id of the root span.
    pub fn root(self) -> u64 {
        Uuid::from_u128(self.0).as_u64_pair().1
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The journey that a transition is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    pub trace: Trace,
    pub began: Timestamp,
    /// With this transition.
    pub ended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_the_same_trace_and_its_context_leads_back_to_it() {
        let trace = Trace::of("uid 203.0.113.7 1");
        assert_eq!(trace, Trace::of("uid 203.0.113.7 1"));
        assert_ne!(trace, Trace::of("uid 203.0.113.7 2"));
        assert_eq!(Trace::parse(&trace.traceparent()), Some(trace));
        assert_eq!(Trace::parse_id(&trace.to_string()), Some(trace));
        assert!(trace.traceparent().ends_with(&format!("-{:016x}-01", trace.root())), "the parent is the root");
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let long = "0".repeat(33);
        for text in ["", "00", "00-aa-bb-01", "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &long] {
            assert_eq!(Trace::parse(text), None, "{text}");
        }
        assert_eq!(Trace::parse_id(&"0".repeat(32)), None);
        assert_eq!(Trace::parse_id("ärger ärger ärger ärger ärger "), None);
    }

    /// Ratio samplers read chance from the second half.
    #[test]
    fn traces_are_spread_evenly_for_samplers() {
        let upper = (0..1000).filter(|n| Trace::of(&n.to_string()).root() >> 63 == 1).count();
        assert!((400..600).contains(&upper), "{upper} of 1000");
    }
}
