//! What is durable, as spans: transitions and journeys of addresses, and passes that did something.
//!
//! The mapping is pure; a [`Tracer`] draws what comes of it. Effects and the calls of a cloud are spans of their own, made
//! where they run.

use crate::{
    allocation::decide::state::State,
    lifecycle::{Journey, Observer, Outcome, Passed, State as _, Trace, Transition},
    telemetry::traces::{Place, Sketch, Tracer},
};

/// The root of a trace: an address from rest to rest.
pub const JOURNEY: &str = "netipallocation.journey";
/// One edge; it lasts as long as the state that it leaves.
pub const TRANSITION: &str = "netipallocation.transition";
/// The root of a trace of its own: a pass that did something.
pub const RECONCILE: &str = "netipallocation.reconcile";

/// Draws transitions and passes.
#[derive(Clone, Debug)]
pub struct Traced(pub Tracer);

impl Observer<State> for Traced {
    fn moved(&self, transition: &Transition<State>) {
        of_transition(transition).iter().for_each(|sketch| self.0.draw(sketch));
    }

    fn passed(&self, passed: &Passed<'_>) {
        let id = uuid::Uuid::new_v4().to_string();
        of_pass(passed, Trace::of(&id)).iter().for_each(|sketch| self.0.draw(sketch));
    }
}

/// The transition under the root of its journey, and that root when it ends the journey.
pub fn of_transition(transition: &Transition<State>) -> Vec<Sketch> {
    let Some(Journey { trace, began, ended }) = transition.journey else { return Vec::new() };
    let Transition { object, subject, kind, node, from, to, reason, gap, entered, at, .. } = transition;
    let to = to.map_or("Forgotten", |to| to.label());
    let mut shared = vec![
        ("netipallocation.name", object.clone()),
        ("netipallocation.ip", subject.clone()),
        ("cloud.provider", (*kind).to_owned()),
        ("netipallocation.reason", (*reason).to_owned()),
    ];
    shared.extend(node.clone().map(|node| ("k8s.node.name", node)));
    let mut edge = shared.clone();
    edge.extend([("netipallocation.from", from.label().to_owned()), ("netipallocation.to", to.to_owned())]);
    let mut sketches = vec![Sketch {
        name: TRANSITION,
        place: Place::Under(trace),
        // The state that a journey leaves may be as old as the node: only its end belongs to the journey.
        began: began.max(*entered).min(*at),
        ended: *at,
        attributes: edge,
        links: Vec::new(),
        error: None,
    }];
    if ended {
        shared.push(("netipallocation.to", to.to_owned()));
        shared.extend(gap.map(|gap| ("netipallocation.gap_seconds", gap.as_secs_f64().to_string())));
        sketches.push(Sketch {
            name: JOURNEY,
            place: Place::Root(trace),
            began: began.min(*at),
            ended: *at,
            attributes: shared,
            links: Vec::new(),
            error: None,
        });
    }
    sketches
}

/// The pass and its stages in a trace of its own, linked to the journeys that it moved on; nothing where nothing was done.
pub fn of_pass(passed: &Passed<'_>, trace: Trace) -> Vec<Sketch> {
    match passed.outcome {
        Outcome::Acted | Outcome::Moved | Outcome::Failed => {}
        Outcome::Rested | Outcome::Waiting | Outcome::Abandoned => return Vec::new(),
    }
    let stages = passed.stages.iter().map(|stage| Sketch {
        name: stage.name,
        place: Place::Under(trace),
        began: stage.began,
        ended: stage.ended,
        attributes: Vec::new(),
        links: Vec::new(),
        error: None,
    });
    let whole = Sketch {
        name: RECONCILE,
        place: Place::Root(trace),
        began: passed.began,
        ended: passed.began.checked_add(passed.spent).unwrap_or(passed.began),
        attributes: vec![
            ("netipallocation.name", passed.object.to_owned()),
            ("netipallocation.uid", passed.uid.to_owned()),
            ("netipallocation.generation", passed.generation.to_string()),
            ("netipallocation.trigger", passed.trigger.to_owned()),
            ("netipallocation.outcome", passed.outcome.label().to_owned()),
        ],
        links: passed.journeys.to_vec(),
        error: passed.error.map(str::to_owned),
    };
    stages.chain([whole]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::lifecycle::Stage;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn transition(from: State, to: Option<State>, journey: Option<Journey>) -> Transition<State> {
        Transition {
            object: "sip".to_owned(),
            subject: "203.0.113.7".to_owned(),
            kind: "gcp",
            node: Some("node-a".to_owned()),
            from,
            to,
            reason: "NodeCordoned",
            spent: Duration::ZERO,
            gap: None,
            entered: second(10),
            at: second(100),
            journey,
        }
    }

    fn said<'a>(sketch: &'a Sketch, key: &str) -> Option<&'a str> {
        sketch.attributes.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_transition_is_a_span_under_the_journeys_root_and_lasts_as_long_as_the_state_that_it_leaves() {
        let trace = Trace::of("x");
        let journey = Journey { trace, began: second(5), ended: false };
        let sketches = of_transition(&transition(State::Draining, Some(State::Releasing), Some(journey)));
        let [edge] = sketches.as_slice() else { panic!("{sketches:?}") };
        assert_eq!((edge.name, &edge.place), (TRANSITION, &Place::Under(trace)));
        assert_eq!((edge.began, edge.ended), (second(10), second(100)));
        assert_eq!(said(edge, "netipallocation.from"), Some("Draining"));
        assert_eq!(said(edge, "netipallocation.to"), Some("Releasing"));
        assert_eq!(said(edge, "netipallocation.reason"), Some("NodeCordoned"));
        assert_eq!(said(edge, "k8s.node.name"), Some("node-a"));
    }

    #[test]
    fn the_rest_before_a_journey_is_not_a_part_of_it() {
        let journey = Journey { trace: Trace::of("x"), began: second(100), ended: false };
        let sketches = of_transition(&transition(State::Attached, Some(State::Draining), Some(journey)));
        assert_eq!((sketches[0].began, sketches[0].ended), (second(100), second(100)));
    }

    #[test]
    fn the_end_of_a_journey_draws_its_root_from_its_beginning() {
        let trace = Trace::of("x");
        let journey = Journey { trace, began: second(5), ended: true };
        let mut last = transition(State::Attaching, Some(State::Attached), Some(journey));
        last.gap = Some(Duration::from_millis(2500));
        let sketches = of_transition(&last);
        let [_, root] = sketches.as_slice() else { panic!("{sketches:?}") };
        assert_eq!((root.name, &root.place), (JOURNEY, &Place::Root(trace)));
        assert_eq!((root.began, root.ended), (second(5), second(100)));
        assert_eq!(said(root, "netipallocation.gap_seconds"), Some("2.5"));
    }

    #[test]
    fn from_rest_to_rest_nothing_is_drawn() {
        assert!(of_transition(&transition(State::Unassigned, None, None)).is_empty());
    }

    #[test]
    fn a_pass_is_drawn_with_its_stages_and_links_only_when_something_was_done() {
        let journeys = [Trace::of("a"), Trace::of("b")];
        let stages = [Stage { name: "netipallocation.plan", began: second(1), ended: second(2) }];
        let mut passed = Passed {
            object: "sip",
            uid: "u",
            generation: 3,
            trigger: "change",
            outcome: Outcome::Rested,
            error: None,
            began: second(1),
            spent: Duration::from_secs(2),
            stages: &stages,
            journeys: &journeys,
        };
        assert!(of_pass(&passed, Trace::of("p")).is_empty(), "nothing was done");
        passed.outcome = Outcome::Waiting;
        assert!(of_pass(&passed, Trace::of("p")).is_empty(), "nothing was done");

        (passed.outcome, passed.error) = (Outcome::Failed, Some("no answer"));
        let sketches = of_pass(&passed, Trace::of("p"));
        let [plan, whole] = sketches.as_slice() else { panic!("{sketches:?}") };
        assert_eq!((plan.name, &plan.place), ("netipallocation.plan", &Place::Under(Trace::of("p"))));
        assert_eq!((whole.name, &whole.place), (RECONCILE, &Place::Root(Trace::of("p"))));
        assert_eq!((whole.began, whole.ended), (second(1), second(3)));
        assert_eq!(whole.links, journeys);
        assert_eq!(whole.error.as_deref(), Some("no answer"));
        assert_eq!(said(whole, "netipallocation.outcome"), Some("failed"));
        assert_eq!(said(whole, "netipallocation.trigger"), Some("change"));
    }
}
