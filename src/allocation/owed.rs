//! Debts: machines that had an external address of their own before us get one again, beside the move (L4).

use jiff::Timestamp;
use uuid::Uuid;

use super::memory::Owed;

/// What to do about one debt. Pure.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing now.
    Wait,
    /// The same attempt once more: nobody has ended it, and it may still be sent.
    Repeat,
    /// A new attempt, to be written first.
    Begin(Owed),
}

/// `spent`: this process has ended an effect of the attempt in status.
pub fn next(owed: &Owed, now: Timestamp, busy: bool, spent: bool, fresh: Uuid, send_before: Timestamp) -> Next {
    if busy || owed.retry.is_some_and(|retry| now < retry) {
        return Next::Wait;
    }
    match owed.attempt {
        Some((_, before)) if !spent && now < before => Next::Repeat,
        Some(_) | None => Next::Begin(Owed { attempt: Some((fresh, send_before)), retry: None, ..owed.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Own;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + s).unwrap()
    }

    fn owed(attempt: Option<(Uuid, Timestamp)>, retry: Option<Timestamp>) -> Owed {
        let machine = "gce://p/us-west1-a/a#17".parse().unwrap();
        Owed { machine, node: "a".into(), own: Own::default(), attempt, retry }
    }

    #[test]
    fn p10_an_attempt_to_pay_a_debt_is_written_before_it_is_sent_and_repeated_only_while_it_may_be() {
        let id = Uuid::from_u128(1);
        let fresh = Uuid::from_u128(2);
        let decide = |debt: &Owed, now, busy, spent| next(debt, now, busy, spent, fresh, at(60));
        let begun = Next::Begin(owed(Some((fresh, at(60))), None));
        assert_eq!(decide(&owed(None, None), at(0), false, false), begun);
        assert_eq!(decide(&owed(None, None), at(0), true, false), Next::Wait, "an effect holds the machine");
        assert_eq!(decide(&owed(None, Some(at(9))), at(0), false, false), Next::Wait, "not due");
        let written = owed(Some((id, at(50))), None);
        assert_eq!(decide(&written, at(0), false, false), Next::Repeat);
        assert_eq!(decide(&written, at(0), false, true), begun, "an ended attempt needs a new id");
        assert_eq!(decide(&written, at(50), false, false), begun, "its time to send is over");
    }
}
