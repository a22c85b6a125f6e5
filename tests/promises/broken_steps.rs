//! Every call to the outside of every life of `tests/scenarios/`, broken in every way: then the life goes on, must keep the
//! promises at each step, and come to rest holding nothing that it should not (P2, P11, P12).
//!
//! `STORY=entries cargo test --test promises broken_steps` plays only the lives in whose titles that word is.

use std::{collections::BTreeSet, time::Duration};

use ip_address_controller::cloud::{ErrorKind, Provider};

use crate::{
    cosmos::{
        course::{Action, CallFault},
        process::Write,
    },
    story::{self, Stage, Story},
};

/// A call to the outside.
#[derive(Clone, Debug)]
struct Call {
    /// The number of the action that makes it.
    n: usize,
    action: Action,
    /// Of a pass, which makes several: which of them.
    write: Option<Write>,
}

/// A call, and how it breaks.
#[derive(Clone, Copy, Debug)]
struct Break {
    n: usize,
    write: Option<Write>,
    fault: CallFault,
}

/// Plays a life, with one call broken.
struct Playing {
    stage: Stage,
    /// How far the life is told.
    sentences: usize,
    left: Option<Break>,
    /// It has befallen its call.
    befell: bool,
    actions: usize,
    /// Every call is written down,
    lists: bool,
    calls: Vec<Call>,
    /// once for each state in which it is made: at the same place of the life it breaks in the same way there.
    seen: BTreeSet<u128>,
}

/// What can be called, and break.
fn calls(action: &Action) -> bool {
    matches!(action, Action::Step(..) | Action::Pass(..) | Action::Answers(..) | Action::TakeOver(..))
}

impl Playing {
    fn new(kind: Provider, left: Option<Break>) -> Self {
        let (stage, lists) = (Stage::new(kind), left.is_none());
        Self { stage, sentences: 0, left, befell: false, actions: 0, lists, calls: Vec::new(), seen: BTreeSet::new() }
    }

    fn go_on(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            let Some(mut action) = self.stage.cosmos.next() else { return Ok(()) };
            let n = self.actions;
            self.actions += usize::from(calls(&action));
            let broken = self.left.take_if(|broken| broken.n == n && calls(&action));
            if let Some(Break { write, fault, .. }) = broken {
                action = action.befallen(fault, write).expect("a fault that can befall it");
            } else if let (Action::Answers(id), true) = (&action, self.stage.blind) {
                action = Action::NoAnswers(*id, ErrorKind::Unavailable);
            }
            let cosmos = &mut self.stage.cosmos;
            let place = || format!("{} {action:?}", self.sentences);
            let state = (self.lists && calls(&action)).then(|| cosmos.fingerprint(&place()));
            let befallen = cosmos.befallen;
            cosmos.happen(&action)?;
            self.befell |= broken.is_some() && cosmos.befallen > befallen;
            if state.is_some_and(|state| self.seen.insert(state)) {
                self.made(n, &action);
            }
        }
        Err(format!("P11: it does something for ever without time passing\n{:?}", self.stage.cosmos))
    }

    fn made(&mut self, n: usize, action: &Action) {
        let call = |write| Call { n, action: action.clone(), write };
        match action {
            Action::Pass(..) => self.calls.extend(self.stage.cosmos.wrote.iter().map(|write| call(Some(*write)))),
            _ => self.calls.push(call(None)),
        }
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
                self.sentences += 1;
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

/// Every call of the life, if no promise is broken.
fn unbroken(kind: Provider, story: &Story) -> Result<Vec<Call>, String> {
    let mut playing = Playing::new(kind, None);
    playing.life(story).map(|()| playing.calls)
}

/// The life with a call broken.
fn broken(kind: Provider, story: &Story, at: Break) -> Result<(), String> {
    let mut playing = Playing::new(kind, Some(at));
    playing.life(story)?;
    if playing.befell { Ok(()) } else { Err("nothing befell it".to_owned()) }
}

fn break_every_step(kind: Provider) {
    let word = std::env::var("STORY").unwrap_or_default();
    let stories: Vec<Story> = story::all().into_iter().filter(|story| story.title.contains(&word)).collect();
    let mut wrong = Vec::new();
    let mut runs = 0_usize;
    let mut writes = BTreeSet::new();
    for story in &stories {
        let calls = match unbroken(kind, story) {
            Ok(calls) => calls,
            Err(why) => {
                wrong.push(format!("{}: unbroken: {why}", story.title));
                continue;
            }
        };
        for Call { n, action, write } in calls {
            for fault in CallFault::ALL.into_iter().filter(|fault| action.befallen(*fault, write).is_some()) {
                runs += 1;
                writes.extend(write);
                if let Err(why) = broken(kind, story, Break { n, write, fault }) {
                    wrong.push(format!("{}: call {n}, {action:?} {write:?} {fault:?}: {why}", story.title));
                }
            }
        }
    }
    let all = [Write::Finalizer, Write::Status, Write::Move, Write::Release];
    if word.is_empty() {
        assert_eq!(writes.into_iter().collect::<Vec<_>>(), all, "every kind of write was broken");
    }
    println!("{kind}: {} lives, {runs} runs, {} broken", stories.len(), wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {runs} runs:\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

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
