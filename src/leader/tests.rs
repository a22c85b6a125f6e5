//! The election against a server of one Lease. All time is virtual: it passes only while everybody waits.

mod server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{future::join_all, poll};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, advance, sleep, timeout},
};

use self::server::{Link, Server, WATCHED};
use super::*;

const DURATION: Duration = Duration::from_secs(60);
const SKEW: Duration = Duration::from_secs(2);
/// For what should take no time at all: the grain of tokio's timer.
const AT_ONCE: Duration = Duration::from_millis(2);

fn config(identity: &str) -> LeaseConfig {
    LeaseConfig {
        namespace: "ns".into(),
        name: "lease".into(),
        identity: identity.into(),
        duration: DURATION,
        skew: SKEW,
    }
}

fn candidate(server: &Server, identity: &str) -> (Candidate, watch::Sender<Link>) {
    let (client, link) = server.client();
    (Candidate::new(client, config(identity)), link)
}

fn proven(term: &Term) -> bool {
    term.proof().outlasts(Duration::ZERO)
}

/// A standby that has looked at the Lease and waits; the term comes with the instant at which it began.
async fn standby(candidate: &Candidate) -> tokio::task::JoinHandle<(Term, Instant)> {
    let own = candidate.clone();
    let task = tokio::spawn(async move { (own.lead().await, Instant::now()) });
    until(|| candidate.alive()).await;
    task
}

/// Waits for the loss; fails after ten leases of virtual time.
async fn lost(term: &Term) {
    timeout(10 * DURATION, term.lost()).await.expect("leadership is lost");
}

/// Lets the others run until `condition` holds; fails after ten leases of virtual time.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(10 * DURATION, wait).await.expect("the condition came to hold");
}

#[tokio::test(start_paused = true)]
async fn a_single_candidate_leads_at_once_and_goes_on_leading() {
    let server = Server::new();
    let (a, _link) = candidate(&server, "a");
    let start = Instant::now();
    let term = a.lead().await;
    assert!(start.elapsed() <= AT_ONCE);
    assert_eq!((server.holder().as_deref(), term.transitions()), (Some("a"), 0));
    assert!(timeout(20 * DURATION, term.lost()).await.is_err(), "lost without a cause");
    assert!(term.proof().outlasts(DURATION / 3));
}

#[tokio::test(start_paused = true)]
async fn at_any_time_the_proof_outlasts_a_mutation_of_a_third_of_the_lease() {
    let server = Server::new();
    let (a, _link) = candidate(&server, "a");
    let term = a.lead().await;
    for _ in 0..1000 {
        advance(Duration::from_millis(97)).await;
        assert!(term.proof().outlasts(DURATION / 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once_by_the_standby() {
    let server = Server::new();
    let ((a, _), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let term = a.lead().await;
    let proof = term.proof();
    let waiting = standby(&b).await;
    advance(Duration::from_secs(17)).await;

    let released = Instant::now();
    term.release().await;
    assert!(!proof.outlasts(Duration::ZERO));
    let (next, began) = waiting.await.unwrap();
    assert!(began - released <= AT_ONCE, "{:?}", began - released);
    assert_eq!(next.transitions(), 1);
    assert_eq!(b.transitions(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_released_when_the_standbys_watch_has_just_ended_is_taken_at_once() {
    let server = Server::new();
    let ((a, _), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let term = a.lead().await;
    let waiting = standby(&b).await;
    sleep(WATCHED + AT_ONCE).await;
    let released = Instant::now();
    term.release().await;
    let (_next, began) = waiting.await.unwrap();
    assert!(began - released <= AT_ONCE, "{:?}", began - released);
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_the_tick_finds_a_released_lease() {
    let server = Server::new();
    let ((a, _), (b, link)) = (candidate(&server, "a"), candidate(&server, "b"));
    link.send_replace(Link::NoWatch);
    let term = a.lead().await;
    let waiting = standby(&b).await;
    let released = Instant::now();
    term.release().await;
    let (_next, began) = waiting.await.unwrap();
    assert!(began - released <= config("b").retry_period() + AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn releasing_clears_the_lease_on_the_server() {
    let server = Server::new();
    let (a, _link) = candidate(&server, "a");
    a.lead().await.release().await;
    assert_eq!(server.lease().unwrap()["spec"], json!({"leaseTransitions": 0}));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_the_standby_begins() {
    for cut in [Link::Refused, Link::BlackHole, Link::Deaf] {
        let server = Server::new();
        let ((a, link), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
        let term = a.lead().await;
        let waiting = standby(&b).await;
        advance(Duration::from_millis(12_345)).await;

        let cut_at = Instant::now();
        link.send_replace(cut);
        lost(&term).await;
        let lost_at = Instant::now();
        assert!(lost_at - cut_at <= DURATION - SKEW, "{cut:?}: lost after {:?}", lost_at - cut_at);
        assert!(!proven(&term));

        let (_next, began) = waiting.await.unwrap();
        let gap = began - lost_at;
        assert!(gap >= 2 * SKEW, "{cut:?}: led {gap:?} after the loss");
        let slack = config("b").retry_period() * 2;
        assert!(began - cut_at <= DURATION + SKEW + slack, "{cut:?}: {:?}", began - cut_at);
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_that_arrive_late_do_not_take_the_lease_back() {
    let server = Server::new();
    let ((a, link), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let term = a.lead().await;
    let waiting = standby(&b).await;
    link.send_replace(Link::BlackHole);
    let (next, _) = waiting.await.unwrap();
    assert_eq!(server.refused(), []);

    link.send_replace(Link::Open);
    until(|| server.refused().len() >= 5).await;
    assert!(server.refused().iter().all(|holder| holder.as_deref() == Some("a")));
    assert!(!proven(&term));
    assert!(timeout(5 * DURATION, next.lost()).await.is_err());
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_writes_no_more_even_if_nobody_else_took_the_lease() {
    let server = Server::new();
    let (a, link) = candidate(&server, "a");
    let term = a.lead().await;
    link.send_replace(Link::Refused);
    lost(&term).await;
    link.send_replace(Link::Open);
    let version = server.version();
    let written = timeout(5 * DURATION, until(|| server.version() > version)).await;
    assert!(written.is_err(), "the Lease was renewed after it was lost");
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_costs_nothing() {
    for cut in [Link::Refused, Link::BlackHole, Link::Deaf] {
        let server = Server::new();
        let ((a, link), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
        let term = a.lead().await;
        let waiting = standby(&b).await;
        link.send_replace(cut);
        assert!(timeout(DURATION / 2, term.lost()).await.is_err(), "{cut:?}");
        link.send_replace(Link::Open);
        assert!(timeout(5 * DURATION, term.lost()).await.is_err(), "{cut:?}");
        assert!(!waiting.is_finished());
        waiting.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_edit_of_our_lease_costs_nothing() {
    let server = Server::new();
    let (a, _link) = candidate(&server, "a");
    let term = a.lead().await;
    for _ in 0..50 {
        server.edit(|lease| lease["metadata"]["annotations"] = json!({"note": "x"}));
        assert!(timeout(DURATION / 10, term.lost()).await.is_err());
    }
    assert!(!server.refused().is_empty(), "no edit came between read and write");
    assert_eq!(server.lease().unwrap()["metadata"]["annotations"]["note"], "x");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_lost_at_the_next_renewal_when_another_holds_the_lease() {
    for taken in [json!("b"), json!(""), json!(null)] {
        let server = Server::new();
        let (a, _link) = candidate(&server, "a");
        let term = a.lead().await;
        server.edit(|lease| lease["spec"]["holderIdentity"] = taken.clone());
        let edited = Instant::now();
        lost(&term).await;
        assert!(edited.elapsed() <= config("a").retry_period() + AT_ONCE, "{taken}");
        assert!(!proven(&term));
        term.release().await;
        assert_eq!(server.lease().unwrap()["spec"]["holderIdentity"], taken, "not ours to clear");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_deleted_under_its_holder_is_not_free_before_the_holder_must_have_stopped() {
    let server = Server::new();
    let ((a, link), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let term = a.lead().await;
    let waiting = standby(&b).await;
    link.send_replace(Link::BlackHole);
    server.delete();
    let (_next, _) = waiting.await.unwrap();
    assert!(!proven(&term));
}

#[tokio::test(start_paused = true)]
async fn the_holder_of_a_deleted_lease_stops_at_its_next_renewal() {
    let server = Server::new();
    let (a, _link) = candidate(&server, "a");
    let term = a.lead().await;
    server.delete();
    let deleted = Instant::now();
    lost(&term).await;
    assert!(deleted.elapsed() <= config("a").retry_period() + AT_ONCE);
    assert!(server.lease().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_take_whose_answer_was_lost_is_finished_by_the_same_candidate() {
    let server = Server::new();
    let ((first, _), (a, link)) = (candidate(&server, "first"), candidate(&server, "a"));
    first.lead().await.release().await;
    link.send_replace(Link::Deaf);
    // The read goes unanswered too, so the take is written by hand, as if it had been sent.
    server.edit(|lease| {
        lease["spec"]["holderIdentity"] = json!("a");
        lease["spec"]["leaseTransitions"] = json!(1);
    });
    let leading = tokio::spawn(async move { a.lead().await });
    advance(DURATION / 2).await;
    link.send_replace(Link::Open);
    let opened = Instant::now();
    let term = leading.await.unwrap();
    assert!(opened.elapsed() <= 2 * config("a").retry_period());
    assert_eq!(term.transitions(), 1);
    assert!(term.proof().outlasts(DURATION - SKEW - AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_release_gives_up_after_two_seconds_and_still_ends_the_proof() {
    let server = Server::new();
    let (a, link) = candidate(&server, "a");
    let term = a.lead().await;
    let proof = term.proof();
    link.send_replace(Link::BlackHole);
    let start = Instant::now();
    term.release().await;
    assert!(start.elapsed() <= Duration::from_secs(2) + AT_ONCE);
    assert!(!proof.outlasts(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_release_beside_a_renewal_that_was_cut_short_still_clears_the_lease() {
    let server = Server::new();
    let (a, link) = candidate(&server, "a");
    let term = a.lead().await;
    let version = server.version();
    link.send_replace(Link::Deaf);
    until(|| server.version() > version).await;
    link.send_replace(Link::Open);
    term.release().await;
    assert_eq!(server.holder(), None);
    assert_eq!(server.refused(), [None], "the release met the version of the lost answer");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_term_ends_its_proof_and_its_renewals() {
    let server = Server::new();
    let ((a, _), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let term = a.lead().await;
    let proof = term.proof();
    let waiting = standby(&b).await;
    let dropped = Instant::now();
    drop(term);
    proof.ended().await;
    assert!(dropped.elapsed() <= AT_ONCE);
    let (_next, began) = waiting.await.unwrap();
    assert!(began - dropped >= DURATION - config("a").retry_period(), "{:?}", began - dropped);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_is_alive_while_the_server_answers_it() {
    let server = Server::new();
    let ((a, _), (b, link)) = (candidate(&server, "a"), candidate(&server, "b"));
    let _term = a.lead().await;
    assert!(!b.alive(), "has not asked yet");
    let waiting = standby(&b).await;
    assert!(timeout(5 * DURATION, until(|| !a.alive() || !b.alive())).await.is_err());
    link.send_replace(Link::Refused);
    let cut = Instant::now();
    until(|| !b.alive()).await;
    assert!(cut.elapsed() >= 2 * DURATION - config("b").retry_period());
    assert!(a.alive());
    waiting.abort();
}

#[test]
fn an_error_is_told_when_it_is_new() {
    let mut complaint = Complaint::default();
    let told = ["x", "x", "y", "x"].map(|text| complaint.is_new(text));
    assert_eq!(told, [true, false, true, true]);
    complaint.over();
    assert!(complaint.is_new("x"));
}

/// Three candidates that begin again whenever they lose, on links that fail at random, for some hours each seed.
#[tokio::test(start_paused = true)]
async fn never_two_proofs_at_once_whatever_the_links_do() {
    for seed in 1..=3_u64 {
        let server = Server::new();
        let proofs: Arc<Mutex<Vec<Proof>>> = Arc::default();
        let mut links = Vec::new();
        let mut lives = Vec::new();
        for name in ["a", "b", "c"] {
            let (candidate, link) = candidate(&server, name);
            links.push(link);
            let proofs = Arc::clone(&proofs);
            lives.push(tokio::spawn(async move {
                loop {
                    let term = candidate.lead().await;
                    {
                        let mut proofs = proofs.lock().unwrap();
                        let rivals = proofs.iter().filter(|proof| proof.outlasts(Duration::ZERO));
                        assert_eq!(rivals.count(), 0, "seed {seed}: {name} leads beside another");
                        proofs.push(term.proof());
                    }
                    term.lost().await;
                }
            }));
        }
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for _ in 0..400 {
            let link = &links[usize::try_from(roll(3)).unwrap()];
            let weather = [Link::Open, Link::Open, Link::Refused, Link::BlackHole, Link::Deaf, Link::NoWatch];
            link.send_replace(weather[usize::try_from(roll(6)).unwrap()]);
            sleep(Duration::from_millis(roll(90_000))).await;
        }
        let terms = proofs.lock().unwrap().len();
        assert!(terms > 20, "seed {seed}: only {terms} terms, the test shows little");
        lives.iter().for_each(|life| life.abort());
        for life in join_all(lives).await {
            assert!(life.unwrap_err().is_cancelled(), "seed {seed}: a life ended by itself");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn giving_up_while_waiting_leaves_the_lease_alone() {
    let server = Server::new();
    let ((a, _), (b, _)) = (candidate(&server, "a"), candidate(&server, "b"));
    let _term = a.lead().await;
    {
        let mut waiting = std::pin::pin!(b.lead());
        assert!(poll!(&mut waiting).is_pending());
    }
    advance(2 * DURATION).await;
    assert_eq!(server.holder().as_deref(), Some("a"));
}
