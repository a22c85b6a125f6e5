//! Every call to the outside of every life of `tests/scenarios/`, broken in every way: then the life goes on, must keep the
//! promises at each step, and come to rest holding nothing that it should not (P2, P11, P12).

use std::{sync::Arc, time::Duration};

use ip_address_controller::cloud::Provider;

use crate::{
    cosmos::course::{Action, CallFault},
    story::{self, Stage, Story},
};

/// The call number `n` of a life, and how it breaks.
#[derive(Clone, Copy, Debug)]
struct Break {
    n: usize,
    fault: CallFault,
}

/// Plays a life, with one call broken.
struct Playing {
    stage: Stage,
    left: Option<Break>,
    calls: usize,
    /// The numbers of those that were calls indeed: most passes write nothing.
    real: Vec<usize>,
}

impl Playing {
    fn go_on(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            let Some(mut action) = self.stage.cosmos.next() else { return Ok(()) };
            if matches!(action, Action::Step(..) | Action::Pass(..) | Action::Answers(..)) {
                if let Some(Break { n, fault }) = self.left
                    && n == self.calls
                {
                    self.left = None;
                    if let Some(instead) = action.befallen(fault) {
                        action = instead;
                    }
                }
                self.calls += 1;
            }
            let before = self.stage.cosmos.cluster.snapshot();
            if let (Action::Answers(id), true) = (&action, self.stage.blind) {
                action = Action::NoAnswers(*id);
            }
            self.stage.cosmos.happen(&action)?;
            let wrote = !Arc::ptr_eq(&before.allocations, &self.stage.cosmos.cluster.snapshot().allocations);
            if matches!(action, Action::Step(..) | Action::Answers(..)) || (matches!(action, Action::Pass(..)) && wrote)
            {
                self.real.push(self.calls - 1);
            }
        }
        Err(format!("P11: it does something for ever without time passing\n{:?}", self.stage.cosmos))
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        let end = self.stage.cosmos.instant + time;
        self.go_on()?;
        let mut step = 1;
        while self.stage.cosmos.instant < end {
            self.stage.cosmos.happen(&Action::Elapse(Duration::from_secs(step)))?;
            self.go_on()?;
            step = (step * 2).min(60.max(time.as_secs() / 16));
        }
        Ok(())
    }

    fn life(&mut self, story: &Story) -> Result<(), String> {
        for group in &story.groups {
            for sentence in group {
                self.stage.happens(sentence)?;
                let time = Stage::waits(sentence);
                if !time.is_zero() {
                    self.wait(time)?;
                }
            }
            self.wait(Duration::from_secs(3))?;
        }
        self.stage.blind = false;
        self.go_on()?;
        self.stage.cosmos.come_to_rest()
    }
}

/// The calls of the life, or what it broke.
fn play(kind: Provider, story: &Story, left: Option<Break>) -> Result<Vec<usize>, String> {
    let mut playing = Playing { stage: Stage::new(kind), left, calls: 0, real: Vec::new() };
    playing.life(story).map(|()| playing.real)
}

fn break_every_step(kind: Provider) {
    let stories = story::all();
    let mut wrong = Vec::new();
    let mut runs = 0_usize;
    for story in &stories {
        let calls = match play(kind, story, None) {
            Ok(calls) => calls,
            Err(why) => {
                wrong.push(format!("{}: unbroken: {why}", story.title));
                continue;
            }
        };
        for n in calls.into_iter().take(CALLS) {
            for fault in CallFault::ALL {
                runs += 1;
                if let Err(why) = play(kind, story, Some(Break { n, fault })) {
                    wrong.push(format!("{}: call {n} {fault:?}: {why}", story.title));
                }
            }
        }
    }
    println!("{kind}: {} lives, {runs} runs, {} broken", stories.len(), wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {runs} runs:\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// The calls of a life after these are looks at a world at rest.
const CALLS: usize = 60;

#[test]
fn p2_p11_p12_every_life_survives_every_broken_call_at_google_cloud() {
    break_every_step(Provider::Gcp);
}

#[test]
fn p2_p11_p12_every_life_survives_every_broken_call_at_aws() {
    break_every_step(Provider::Aws);
}

#[test]
fn p2_p11_p12_every_life_survives_every_broken_call_at_azure() {
    break_every_step(Provider::Azure);
}
