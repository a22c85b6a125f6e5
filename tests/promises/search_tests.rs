//! The search, on systems small enough to be known by heart.

use super::*;

/// States are numbers, and the table says which number leads where.
#[derive(Clone, Debug)]
struct Toy {
    at: u32,
    steps: fn(u32) -> Vec<Step>,
    rest: fn(u32) -> bool,
    broken: fn(u32) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    To(u32),
    Fault(u32),
}

use Step::{Fault, To};

impl System for Toy {
    type Action = Step;

    fn actions(&self) -> Vec<Step> {
        (self.steps)(self.at)
    }

    fn apply(&mut self, (To(to) | Fault(to)): &Step) -> Result<(), String> {
        self.at = *to;
        if (self.broken)(*to) { Err(format!("{to} must not be")) } else { Ok(()) }
    }

    fn fingerprint(&self) -> u128 {
        u128::from(self.at).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
    }

    fn at_rest(&self) -> bool {
        (self.rest)(self.at)
    }

    fn is_fault(step: &Step) -> bool {
        matches!(step, Fault(_))
    }
}

fn toy(steps: fn(u32) -> Vec<Step>, rest: fn(u32) -> bool, broken: fn(u32) -> bool) -> Toy {
    Toy { at: 0, steps, rest, broken }
}

fn searched(toy: &Toy) -> Report<Step> {
    search(toy, Limits::default())
}

#[test]
fn the_shortest_way_to_a_broken_invariant_is_told() {
    // Doubling is quicker than counting.
    let steps = |at: u32| if at < 100 { vec![To(at + 1), To(at * 2)] } else { vec![] };
    let report = searched(&toy(steps, |_| true, |at| at == 40));
    let (sentence, path) = report.must_be_broken();
    assert_eq!(sentence, "40 must not be");
    assert_eq!(path, [To(1), To(2), To(4), To(5), To(10), To(20), To(40)]);
    assert_eq!(report.depth, 7);
    assert!(report.to_string().contains("broken: 40 must not be"), "{report}");
}

#[test]
fn a_system_that_keeps_its_promises_is_searched_to_the_end() {
    let steps = |at: u32| vec![To((at + 1) % 1000), To((at * 7) % 1000)];
    let report = searched(&toy(steps, |at| at == 0, |_| false));
    report.must_hold_everywhere();
    assert_eq!((report.states, report.edges), (1000, 2000));
}

#[test]
fn a_livelock_that_no_eventually_sees_is_found() {
    // 1 and 2 go round for ever, although each of them can do something.
    let steps = |at: u32| match at {
        0 => vec![To(3), To(1)],
        1 => vec![To(2)],
        2 => vec![To(1)],
        _ => vec![],
    };
    let report = searched(&toy(steps, |at| at == 3, |_| false));
    assert_eq!(report.verdict, Verdict::Stuck { path: vec![To(1)] });
    assert!(report.closed);
}

#[test]
fn a_cycle_that_can_be_left_is_none() {
    let steps = |at: u32| match at {
        1 => vec![To(2)],
        2 => vec![To(1), To(3)],
        0 => vec![To(1)],
        _ => vec![],
    };
    searched(&toy(steps, |at| at == 3, |_| false)).must_hold_everywhere();
}

#[test]
fn a_fault_is_no_way_out() {
    let steps = |at: u32| match at {
        0 => vec![To(1), To(2)],
        1 => vec![Fault(2)],
        _ => vec![],
    };
    let report = searched(&toy(steps, |at| at == 2, |_| false));
    assert_eq!(report.verdict, Verdict::Stuck { path: vec![To(1)] });
}

#[test]
fn what_a_fault_leads_to_must_come_to_rest_too() {
    let steps = |at: u32| match at {
        0 => vec![Fault(1)],
        _ => vec![],
    };
    let report = searched(&toy(steps, |at| at == 0, |_| false));
    assert_eq!(report.verdict, Verdict::Stuck { path: vec![Fault(1)] });
}

#[test]
fn a_search_that_was_cut_short_says_so_and_holds_nothing_against_what_it_did_not_look_at() {
    let endless = toy(|at| vec![To(at + 1)], |at| at == 0, |_| false);
    let report = search(&endless, Limits { states: 50, ..Limits::default() });
    assert!(!report.closed);
    assert_eq!((&report.verdict, report.states), (&Verdict::Holds, 50));
    assert!(std::panic::catch_unwind(|| report.must_hold_everywhere().states).is_err());
}

#[test]
fn two_threads_find_what_one_finds() {
    let steps = |at: u32| {
        let (a, b) = (at % 100, at / 100);
        vec![To((a + 3) % 100 + b * 100), To(a + (b + a) % 90 * 100), Fault((a * b) % 9000)]
    };
    for broken in [|_| false, |at: u32| at == 8765] {
        let toy = toy(steps, |at| at == 0, broken);
        let reports = [1, 2].map(|threads| search(&toy, Limits { threads, ..Limits::default() }));
        let told = reports.map(|report| format!("{report} {}", report.closed));
        assert_eq!(told[0], told[1]);
    }
}

#[test]
fn a_path_can_be_taken_again() {
    let steps = |at: u32| vec![To(at + 1), To(at + 2)];
    let toy = toy(steps, |_| true, |at| at == 9);
    assert_eq!(replay(&toy, &[To(1), To(3)]).map(|end| end.at), Ok(3));
    assert_eq!(replay(&toy, &[To(9), To(3)]).map(|end| end.at), Err("9 must not be".to_owned()));
}
