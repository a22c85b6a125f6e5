//! What a pass keeps of itself for those who are told of its end.

use std::time::Duration;

use jiff::Timestamp;

use crate::lifecycle::{Outcome, Passed, Stage, Trace};

/// The course of one pass: its stages, and the journeys that it moved on.
pub(super) struct Course {
    trigger: &'static str,
    began: Timestamp,
    /// Name and beginning of the stage under way.
    now: Option<(&'static str, Timestamp)>,
    stages: Vec<Stage>,
    journeys: Vec<Trace>,
    uid: String,
    generation: i64,
    /// Nothing has woken it, and the pass before found nothing left to do.
    rests: bool,
    /// It has to be run anew, a little later.
    put_off: bool,
}

impl Course {
    pub fn begin(trigger: &'static str) -> Self {
        Self {
            trigger,
            began: Timestamp::now(),
            now: None,
            stages: Vec::new(),
            journeys: Vec::new(),
            uid: String::new(),
            generation: 0,
            rests: false,
            put_off: false,
        }
    }

    /// Whether the pass before had found nothing left to do.
    pub fn after_rest(self, rests: bool) -> Self {
        Self { rests, ..self }
    }

    pub fn rests(&self) -> bool {
        self.rests
    }

    pub fn concerns(&mut self, uid: &str, generation: Option<i64>) {
        self.uid = uid.to_owned();
        self.generation = generation.unwrap_or_default();
    }

    pub fn put_off(&mut self) {
        self.put_off = true;
    }

    pub fn is_put_off(&self) -> bool {
        self.put_off
    }

    /// Ends the stage under way and begins the next.
    pub fn enter(&mut self, stage: &'static str) {
        self.leave();
        self.now = Some((stage, Timestamp::now()));
    }

    pub fn leave(&mut self) {
        if let Some((name, began)) = self.now.take() {
            self.stages.push(Stage { name, began, ended: Timestamp::now() });
        }
    }

    pub fn moved(&mut self, journey: Trace) {
        if !self.journeys.contains(&journey) {
            self.journeys.push(journey);
        }
    }

    /// The pass as its observers see it.
    pub fn passed<'a>(
        &'a mut self,
        object: &'a str,
        outcome: Outcome,
        spent: Duration,
        error: Option<&'a str>,
    ) -> Passed<'a> {
        self.leave();
        Passed {
            object,
            uid: &self.uid,
            generation: self.generation,
            trigger: self.trigger,
            outcome,
            error,
            began: self.began,
            spent,
            stages: &self.stages,
            journeys: &self.journeys,
        }
    }
}
