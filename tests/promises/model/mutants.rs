//! Each rule left out, one at a time: the search must find what breaks without it. A rule whose mutant passes is not in
//! the model.

use ip_address_controller::cloud::Provider;

use super::{
    Budget, Event, Model,
    worlds::{cordons, ip, rules, searched, world},
};
use crate::{
    cosmos::{
        course::{Action, Outside},
        errand,
        process::Rules,
    },
    search::{Limits, Report, Verdict},
};

/// Fails unless the promise is broken, or (where nothing is broken but never mended) no rest is reached any more; and unless
/// the same world holds with the rule.
fn breaks(name: &str, model: &Model, promise: &str) {
    let mut with_it = model.clone();
    with_it.cosmos.rules = rules();
    searched("with it", &with_it, Limits { states: 10_000, ..Limits::default() }).must_hold();
    let report: Report<Event> = searched(name, model, Limits { states: 100_000, ..Limits::default() });
    match &report.verdict {
        Verdict::Broken { sentence, .. } => assert!(sentence.starts_with(promise), "{report}"),
        Verdict::Stuck { .. } => assert_eq!(promise, "stuck", "{report}"),
        Verdict::Holds => panic!("the rule is not in the model: {report}"),
    }
}

/// One address, two nodes, two leaders.
fn one(kind: Provider, rules: Rules, budget: Budget) -> Model {
    Model::new(world(kind, rules, &["a", "b"], &[("red", &[7])], 2), budget)
}

fn calls(change: impl FnOnce(&mut errand::Rules)) -> Rules {
    let mut rules = rules();
    change(&mut rules.calls);
    rules
}

#[test]
fn f1_who_sends_without_proof_sends_while_another_leads() {
    let rules = Rules { proof: false, ..rules() };
    let budget = Budget { take_overs: 1, ..Budget::default() };
    breaks("without F1", &one(Provider::Gcp, rules, budget), "P8");
}

#[test]
fn f3_who_acts_on_the_watch_cache_acts_on_what_is_over() {
    let rules = Rules { own_versions: false, ..rules() };
    let red = || "red".to_owned();
    let cosmos = world(Provider::Azure, rules, &["a"], &[("red", &[7])], 2);
    let edits = vec![(vec![Outside::Add(red(), ip(7))], 1)];
    let budget = Budget { edits, take_overs: 1, short_waits: 1, ..Budget::default() };
    // The standby's watches stand still where the address is being taken off.
    let removed = Action::Outside(Outside::Remove(red(), ip(7)));
    let model =
        Model::new(cosmos, budget).settled().after(&[removed, Action::Sync(0), Action::Step(0, 0), Action::Sync(1)]);
    breaks("without F3", &model, "P2");
}

#[test]
fn f5_who_gives_up_an_intent_that_lives_is_overtaken_by_its_request() {
    let rules = Rules { dead_intents: false, ..rules() };
    let edits = vec![(cordons(&["a"]), 1)];
    let budget = Budget { edits, lost_answers: 1, ..Budget::default() };
    breaks("without F5", &one(Provider::Gcp, rules, budget), "P10");
}

#[test]
fn f5_who_forgets_an_unanswered_attach_has_it_land_after_the_cut() {
    let rules = Rules { unanswered_attaches: false, ..rules() };
    let edits = vec![(vec![Outside::Remove("red".to_owned(), ip(7))], 1)];
    let cosmos = world(Provider::Aws, rules, &["a"], &[("red", &[7])], 1);
    breaks(
        "unanswered attaches forgotten",
        &Model::new(cosmos, Budget { edits, crashes: 2, ..Budget::default() }),
        "P2",
    );
}

#[test]
fn f6_who_takes_over_from_the_cache_decides_on_what_is_over() {
    let rules = Rules { take_over: false, ..rules() };
    let cosmos = world(Provider::Gcp, rules, &["a"], &[("red", &[7]), ("blue", &[8])], 2);
    let budget = Budget { crashes: 1, ..Budget::default() };
    let model = Model { standbys_watch: true, ..Model::new(cosmos, budget) };
    breaks("without F6", &model, "P5");
}

#[test]
fn f7_on_google_cloud_a_name_that_comes_back_is_hit_by_a_late_delete() {
    let rules = calls(|calls| calls.names_of_its_own = false);
    let red = || "red".to_owned();
    let edits = vec![(vec![Outside::Remove(red(), ip(7)), Outside::Add(red(), ip(7))], 2)];
    let cosmos = world(Provider::Gcp, rules, &["a"], &[("red", &[7])], 1);
    let budget = Budget { edits, lost_answers: 1, short_waits: 2, ..Budget::default() };
    breaks("without names of its own", &Model::new(cosmos, budget), "P1");
}

#[test]
fn f7_on_aws_who_may_reassociate_takes_from_others() {
    let rules = calls(|calls| calls.takes_from_nobody = false);
    let edits = vec![(vec![Outside::OutsiderAttaches(ip(7), "b".to_owned())], 1)];
    breaks("with reassociation", &one(Provider::Aws, rules, Budget { edits, ..Budget::default() }), "P1");
}

#[test]
fn f7_on_azure_who_writes_whatever_was_changed_takes_off_what_was_put_there() {
    let rules = calls(|calls| calls.if_match = false);
    let edits = vec![(vec![Outside::OutsiderAttaches(ip(8), "a".to_owned())], 1)];
    let mut model = one(Provider::Azure, rules, Budget { edits, ..Budget::default() });
    model.cosmos.cloud.reserve(ip(8));
    breaks("without an etag", &model, "P1");
}

#[test]
fn f7_who_does_not_look_before_a_change_takes_off_what_was_put_there() {
    let rules = calls(|calls| calls.live_read_before_change = false);
    let edits = vec![(vec![Outside::OutsiderAttaches(ip(8), "a".to_owned())], 1)];
    let mut model = one(Provider::Azure, rules, Budget { edits, ..Budget::default() });
    model.cosmos.cloud.reserve(ip(8));
    breaks("without a read before", &model, "P1");
}

#[test]
fn r1_who_believes_any_read_takes_what_is_not_shown_yet_for_gone() {
    let rules = Rules { fresh_reads: false, ..rules() };
    let budget = Budget { short_waits: 1, ..Budget::default() };
    breaks("without R1", &one(Provider::Aws, rules, budget), "P3");
}

#[test]
fn s1_without_a_table_of_seats_two_addresses_are_meant_for_one_machine() {
    let rules = Rules { seats: false, ..rules() };
    let cosmos = world(Provider::Gcp, rules, &["a"], &[("red", &[7]), ("blue", &[8])], 1);
    let budget = Budget { lost_answers: 1, ..Budget::default() };
    breaks("without S1", &Model::new(cosmos, budget), "P5");
}

#[test]
fn s1_without_promises_two_addresses_leave_for_one_spare_node_and_one_is_nowhere() {
    let rules = Rules { promises: false, ..rules() };
    let cosmos = world(Provider::Gcp, rules, &["a", "b", "c"], &[("red", &[7]), ("blue", &[8])], 1);
    let edits = ["a", "b"].map(|node| (vec![Outside::Cordon(node.to_owned())], 1)).to_vec();
    let model = Model::new(cosmos, Budget { edits, ..Budget::default() }).settled();
    breaks("without promises", &model, "P5");
}

#[test]
fn s2_without_claims_two_allocations_fight_for_one_address() {
    let rules = Rules { claims: false, ..rules() };
    let cosmos = world(Provider::Gcp, rules, &["a", "b"], &[("red", &[7]), ("blue", &[7])], 1);
    breaks("without S2", &Model::new(cosmos, Budget::default()), "stuck");
}

#[test]
fn l2_labels_that_stay_on_say_what_is_not_so() {
    let rules = calls(|calls| calls.labels_before_cut = false);
    let budget = Budget { edits: vec![(cordons(&["a"]), 1)], ..Budget::default() };
    breaks("labels after the cut", &one(Provider::Gcp, rules, budget), "P4");
}

#[test]
fn l2_pods_that_nobody_looks_for_are_cut_off() {
    let rules = calls(|calls| calls.pods_before_cut = false);
    let pods = vec![Outside::StartPod("a".to_owned(), "sip".to_owned())];
    let drain = vec![Outside::Deselect("a".to_owned())];
    let budget = Budget { edits: vec![(drain, 1), (pods, 1)], ..Budget::default() };
    breaks("no look for pods", &one(Provider::Gcp, rules, budget), "P6");
}

#[test]
fn l4_a_debt_that_is_not_written_down_is_never_paid() {
    let rules = Rules { debts: false, ..rules() };
    let budget = Budget { edits: vec![(cordons(&["a"]), 1)], ..Budget::default() };
    breaks("without L4", &one(Provider::Gcp, rules, budget), "stuck");
}

#[test]
fn without_a_point_of_no_return_an_address_is_kept_that_is_being_cut() {
    let rules = Rules { point_of_no_return: false, ..rules() };
    let budget = Budget { edits: vec![(cordons(&["a"]), 2)], ..Budget::default() };
    breaks("without a point of no return", &one(Provider::Gcp, rules, budget), "P2");
}
