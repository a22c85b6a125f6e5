//! Letting a course of events run on by itself, in a fixed order and with nothing going wrong.

use std::time::Duration;

use super::course::{Action, Cosmos};
use crate::invariants;

/// More than any life needs between two ticks of the clock: who does more goes in circles.
const MOST: usize = 2_000;

impl Cosmos {
    /// The next thing that goes on by itself; `None` when time has to pass first.
    pub fn next(&self) -> Option<Action> {
        let led = self.processes.iter().any(|process| process.term.is_some() && !process.paused);
        self.going_on(true).into_iter().find(|action| match action {
            // One leads; another that may is not in a hurry.
            Action::TakeOver(_) => !led,
            Action::Land(request) => self.waits_for(*request),
            _ => true,
        })
    }

    /// Whether an effect of a process that runs waits for the request; others land late, or never.
    fn waits_for(&self, request: super::cloud::RequestId) -> bool {
        let running = self.processes.iter().filter(|process| !process.paused).flat_map(|process| &process.term);
        running
            .flat_map(|term| term.flights.values())
            .any(|flight| flight.sent.is_some_and(|(sent, _)| sent == request))
    }

    /// Until time has to pass.
    ///
    /// # Errors
    /// A broken promise; also when it never ends (P11).
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..MOST {
            let Some(action) = self.next() else { return Ok(()) };
            self.happen(&action)?;
        }
        Err(format!("P11: it does something for ever without time passing\n{self:?}"))
    }

    /// Time passes, in steps as passes would come.
    ///
    /// # Errors
    /// See [`Cosmos::settle`].
    pub fn run_on(&mut self, time: Duration) -> Result<(), String> {
        let end = self.instant + time;
        self.settle()?;
        let mut step = 1;
        while self.instant < end {
            self.happen(&Action::Elapse(Duration::from_secs(step)))?;
            self.settle()?;
            step = (step * 2).min(60);
        }
        Ok(())
    }

    /// Until it is at rest and stays so, and everything is where it should be.
    ///
    /// # Errors
    /// A broken promise, or that it does not come to rest.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        // Longer than the longest of: an intent's life, a refusal's memory, a permanent failure's back-off.
        for step in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512] {
            self.happen(&Action::Elapse(Duration::from_secs(step)))?;
            self.settle()?;
        }
        if self.judge().is_err() {
            // Some chains of retries want to be looked at more often.
            self.run_on(Duration::from_secs(3_000))?;
        }
        self.judge().map_err(|why| format!("{why}\n{self:?}"))
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        invariants::rest(self).and_then(|()| invariants::placed(self))
    }
}
