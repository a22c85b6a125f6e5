//! The framework with a machine that has nothing to do with addresses: a lamp that is switched on and off by slow calls.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode};
use ip_address_controller::lifecycle::{
    Decision, Machine, Observer, Outcome, Passed, Release, State, Transition,
    fencing::{self, Refusal},
    finalizer,
    flight::{Flights, Intents},
    pass::{self, End},
    reads::ReadFilter,
    seats::Seats,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, client::Body};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lamp {
    Off,
    Lighting,
    On,
}

impl State for Lamp {
    const EDGES: &'static [(Lamp, Lamp)] =
        &[(Lamp::Off, Lamp::Lighting), (Lamp::Lighting, Lamp::On), (Lamp::On, Lamp::Off)];

    fn label(self) -> &'static str {
        match self {
            Lamp::Off => "Off",
            Lamp::Lighting => "Lighting",
            Lamp::On => "On",
        }
    }

    fn patience(self) -> Option<Duration> {
        (self == Lamp::Lighting).then_some(Duration::from_secs(5))
    }

    fn at_rest(self) -> bool {
        self == Lamp::Off
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    state: Lamp,
    order: u32,
    said: String,
}

impl Entry {
    fn new(state: Lamp) -> Self {
        Self { state, order: 1, said: String::new() }
    }
}

/// What a script of the test wants decided, state by state.
#[derive(Default)]
struct Facts {
    wanted: bool,
    seen: bool,
    /// The order in the entry may not be sent any more.
    stale: bool,
    /// Decisions of a broken machine.
    jumps: bool,
    circles: bool,
    renews_for_ever: bool,
    lost: bool,
}

struct Toy;

impl Machine for Toy {
    type State = Lamp;
    type Entry = Entry;
    type Facts = Facts;
    type Effect = u32;
    type Reason = &'static str;
    type Note = Option<u32>;

    fn state(entry: &Entry) -> Lamp {
        entry.state
    }

    fn decide(entry: &Entry, facts: &Facts) -> Decision<Self> {
        let go = |to, reason| Decision::Move { to, reason, note: None };
        match entry.state {
            Lamp::Off if facts.lost => Decision::Forget { reason: "sold" },
            Lamp::Off if facts.jumps => go(Lamp::On, "magic"),
            Lamp::Off if facts.wanted => Decision::Move { to: Lamp::Lighting, reason: "dusk", note: Some(7) },
            Lamp::Off => Decision::Rest { reason: "day", message: "sleeps".into() },
            Lamp::Lighting if facts.seen => go(Lamp::On, "seen"),
            Lamp::Lighting if facts.renews_for_ever || (facts.stale && entry.order == 1) => {
                Decision::Renew { note: Some(entry.order + 1) }
            }
            Lamp::Lighting => Decision::Perform { effect: entry.order, reason: "dusk", message: "lights".into() },
            Lamp::On if facts.circles || facts.lost => go(Lamp::Off, "dawn"),
            Lamp::On => Decision::Wait { reason: "night", message: "shines".into(), recheck: Duration::from_secs(60) },
        }
    }

    fn enter(entry: &mut Entry, to: Lamp, reason: &'static str, note: Option<u32>, _: &Facts) {
        entry.state = to;
        entry.said = reason.to_owned();
        entry.order = note.unwrap_or(entry.order);
    }

    fn renew(entry: &mut Entry, note: Option<u32>) {
        entry.order = note.unwrap_or(entry.order);
    }

    fn explain(entry: &mut Entry, _: &'static str, message: String) {
        entry.said = message;
    }
}

/// From, to.
type Moves = Vec<(Lamp, Option<Lamp>)>;

fn run(state: Lamp, facts: &Facts) -> (Entry, Moves, End<u32>) {
    let pass = pass::run::<Toy>(Entry::new(state), facts);
    (pass.entry, pass.steps.iter().map(|step| (step.from, step.to)).collect(), pass.end)
}

#[test]
fn a_pass_goes_as_far_as_it_can_without_a_deed() {
    let (entry, steps, end) = run(Lamp::Off, &Facts { wanted: true, seen: true, ..Facts::default() });
    assert_eq!(steps, [(Lamp::Off, Some(Lamp::Lighting)), (Lamp::Lighting, Some(Lamp::On))]);
    assert_eq!((entry.state, entry.said.as_str()), (Lamp::On, "shines"));
    assert!(matches!(end, End::Wait(recheck) if recheck == Duration::from_secs(60)));
}

#[test]
fn a_deed_comes_with_the_entry_that_holds_its_intent() {
    let (entry, steps, end) = run(Lamp::Off, &Facts { wanted: true, ..Facts::default() });
    assert_eq!(steps, [(Lamp::Off, Some(Lamp::Lighting))]);
    assert_eq!((entry.state, entry.order), (Lamp::Lighting, 7));
    assert!(matches!(end, End::Perform(7)));
}

#[test]
fn rest_moves_nothing_and_says_why() {
    let (entry, steps, end) = run(Lamp::Off, &Facts::default());
    assert_eq!(steps, []);
    assert_eq!(entry.said, "sleeps");
    assert!(matches!(end, End::Rest));
}

#[test]
fn an_edge_that_the_machine_does_not_have_is_refused_and_the_entry_comes_back_untouched() {
    let (entry, steps, end) = run(Lamp::Off, &Facts { jumps: true, ..Facts::default() });
    assert!(matches!(end, End::Refused(why) if why == "Off -> On is not an edge"));
    assert_eq!((entry, steps), (Entry::new(Lamp::Off), vec![]));
}

#[test]
fn a_circle_is_refused_and_the_entry_comes_back_untouched() {
    let (entry, steps, end) = run(Lamp::Off, &Facts { wanted: true, seen: true, circles: true, ..Facts::default() });
    assert!(matches!(end, End::Refused(why) if why.contains("circles")));
    assert_eq!((entry, steps), (Entry::new(Lamp::Off), vec![]));
}

#[test]
fn an_intent_is_renewed_once_and_then_performed_without_a_transition() {
    let (entry, steps, end) = run(Lamp::Lighting, &Facts { stale: true, ..Facts::default() });
    assert_eq!((entry.order, steps), (2, vec![]));
    assert!(matches!(end, End::Perform(2)));
}

#[test]
fn a_machine_that_renews_for_ever_is_refused() {
    let (entry, _, end) = run(Lamp::Lighting, &Facts { renews_for_ever: true, ..Facts::default() });
    assert!(matches!(end, End::Refused(why) if why.contains("again and again in Lighting")));
    assert_eq!(entry, Entry::new(Lamp::Lighting));
}

#[test]
fn what_is_let_go_is_forgotten_in_the_same_pass() {
    let (_, steps, end) = run(Lamp::On, &Facts { lost: true, ..Facts::default() });
    assert_eq!(steps, [(Lamp::On, Some(Lamp::Off)), (Lamp::Off, None)]);
    assert!(matches!(end, End::Forgotten));
}

/// Seats, flights, intents, reads and the send check, as a controller strings them together for one deed.
#[test]
fn a_deed_holds_its_seat_and_its_keys_until_its_answer_counts() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let (mut seats, mut flights, mut intents) = (Seats::new(), Flights::new(), Intents::new());
    let mut reads = ReadFilter::new(start);

    assert!(seats.take(&"red", "socket", "lamp 1"));
    assert!(!seats.take(&"blue", "socket", "lamp 2"), "a seat is taken before the write");
    intents.seen(&"lamp 1", 7, at(180), true);
    let ticket = flights.begin(["lamp 1", "socket"]).unwrap();
    assert_eq!(fencing::may_send(at(0), Duration::from_secs(5), at(4), Some(at(60))), Err(Refusal::LeadershipEnds));
    assert_eq!(fencing::may_send(at(0), Duration::from_secs(5), at(10), Some(at(60))), Ok(()));
    intents.sending(&"lamp 1", at(180));

    assert!(flights.begin(["lamp 2", "socket"]).is_none(), "nobody else touches the socket");
    assert!(!intents.dead(&"lamp 1", at(3)));

    flights.end(ticket);
    intents.ended(&"lamp 1", true);
    reads.raise(&"lamp 1", at(5));
    reads.raise(&"socket", at(5));
    assert!(intents.dead(&"lamp 1", at(5)));
    assert!(!reads.counts([&"lamp 1", &"socket"], at(4)), "begun before the deed ended");
    assert!(reads.counts([&"lamp 1", &"socket"], at(6)));

    seats.set(&"red", []);
    assert!(seats.take(&"blue", "socket", "lamp 2"));
    assert!(flights.begin(["lamp 2", "socket"]).is_some());
}

#[test]
fn an_observer_is_told_of_moves_and_passes() {
    #[derive(Default)]
    struct Diary(Mutex<Vec<String>>);
    impl Observer<Lamp> for Diary {
        fn moved(&self, t: &Transition<Lamp>) {
            let to = t.to.map_or("forgotten", State::label);
            self.0.lock().unwrap().push(format!("{} {} -> {to} {}", t.subject, t.from.label(), t.reason));
        }
        fn passed(&self, passed: &Passed<'_>) {
            self.0.lock().unwrap().push(format!("{} {}", passed.object, passed.outcome.label()));
        }
    }
    let diary = Diary::default();
    let all: &dyn Observer<Lamp> = &diary;
    let pass = pass::run::<Toy>(Entry::new(Lamp::On), &Facts { lost: true, ..Facts::default() });
    for step in pass.steps {
        all.moved(&Transition {
            object: "house".into(),
            subject: "lamp 1".into(),
            from: step.from,
            to: step.to,
            kind: "toy",
            gap: None,
            reason: step.reason,
            spent: Duration::ZERO,
            node: None,
            entered: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            journey: None,
        });
    }
    all.passed(&Passed {
        object: "house",
        uid: "1",
        generation: 1,
        trigger: "dusk",
        outcome: Outcome::Moved,
        error: None,
        began: Timestamp::UNIX_EPOCH,
        spent: Duration::ZERO,
        stages: &[],
        journeys: &[],
    });
    assert_eq!(*diary.0.lock().unwrap(), ["lamp 1 On -> Off dawn", "lamp 1 Off -> forgotten sold", "house moved"]);
}

#[test]
fn states_say_when_they_take_too_long_and_when_they_hold_nothing() {
    assert_eq!(Lamp::Lighting.patience(), Some(Duration::from_secs(5)));
    assert!(Lamp::Off.at_rest() && !Lamp::On.at_rest());
}

const OURS: &str = "example.com/lamp";

/// Method, path and body of each request.
type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// An API server that answers everything alike and keeps what it was asked.
fn server(status: StatusCode, answer: Value) -> (Api<ConfigMap>, Asked) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = request.into_body().collect_bytes().await.unwrap();
            log.lock().unwrap().push((method, path, serde_json::from_slice(&body).unwrap_or_default()));
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    (Api::namespaced(Client::new(service, "town"), "town"), asked)
}

fn house(finalizers: &[&str]) -> ConfigMap {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "house", "namespace": "town", "resourceVersion": "41", "finalizers": finalizers}});
    serde_json::from_value(object).unwrap()
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": reason})
}

#[tokio::test]
async fn the_finalizer_is_added_beside_those_of_others_and_only_to_the_version_that_was_seen() {
    let (api, asked) = server(StatusCode::OK, serde_json::to_value(house(&["other", OURS])).unwrap());
    let after = finalizer::set(&api, &house(&["other"]), OURS).await.unwrap();
    assert!(finalizer::is_set(&after, OURS));
    let (method, path, body) = asked.lock().unwrap().remove(0);
    assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/namespaces/town/configmaps/house"));
    assert_eq!(body, json!({"metadata": {"resourceVersion": "41", "finalizers": ["other", OURS]}}));
}

#[tokio::test]
async fn a_finalizer_that_is_there_costs_no_call() {
    let (api, asked) = server(StatusCode::OK, json!({}));
    finalizer::set(&api, &house(&[OURS]), OURS).await.unwrap();
    assert!(finalizer::clear(&api, &house(&["other"]), OURS, Release::Done).await.unwrap(), "gone already");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_finalizer_stays_until_letting_go_is_done() {
    let (api, asked) = server(StatusCode::OK, serde_json::to_value(house(&["other"])).unwrap());
    let waiting = Release::NotYet { recheck: Duration::from_secs(1) };
    assert!(!finalizer::clear(&api, &house(&["other", OURS]), OURS, waiting).await.unwrap());
    assert!(asked.lock().unwrap().is_empty());

    assert!(finalizer::clear(&api, &house(&["other", OURS]), OURS, Release::Done).await.unwrap());
    let (_, _, body) = asked.lock().unwrap().remove(0);
    assert_eq!(body, json!({"metadata": {"resourceVersion": "41", "finalizers": ["other"]}}));
}

#[tokio::test]
async fn a_conflict_is_told_and_an_object_that_is_gone_needs_no_letting_go() {
    let (api, _) = server(StatusCode::CONFLICT, refusal(409, "Conflict"));
    let error = finalizer::set(&api, &house(&[]), OURS).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409));
    let error = finalizer::clear(&api, &house(&[OURS]), OURS, Release::Done).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409));

    let (api, _) = server(StatusCode::NOT_FOUND, refusal(404, "NotFound"));
    assert!(finalizer::clear(&api, &house(&[OURS]), OURS, Release::Done).await.unwrap());
}
