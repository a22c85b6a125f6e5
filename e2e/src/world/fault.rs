//! Faults by script: what the next call of a method meets instead of a healthy cloud.

use std::{collections::VecDeque, time::Duration};

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this error; nothing else happens.
    Refuse { status: u16, reason: String, message: String },
    /// Never answered; nothing happens.
    Hang,
    /// Never answered, but carried out.
    HangAfterEffect,
    /// Never answered, and carried out only this much later: a request that lands late.
    LandLate(Duration),
    /// The connection is closed without an answer; nothing happens.
    Close,
    /// The connection is closed without an answer, after the change was carried out.
    CloseAfterEffect,
    /// Mutations: accepted, then the operation fails with this status and code; nothing changes.
    FailLate { status: u16, code: String, message: String },
    /// Takes this long instead of what [`super::Latency`] says.
    Latency(Duration),
    /// Mutations: the operation says that it is done this much before the change can be seen.
    EffectAfterDone(Duration),
}

impl Fault {
    /// Answered with this error.
    pub fn refuse(status: u16, reason: &str, message: &str) -> Self {
        Fault::Refuse { status, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// Accepted, then failed with this code.
    pub fn fail_late(code: &str, message: &str) -> Self {
        Fault::FailLate { status: 400, code: code.to_owned(), message: message.to_owned() }
    }
}

/// The script: faults wait here for the calls that they are meant for.
#[derive(Debug, Default)]
pub(super) struct Script {
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    method: String,
    target: String,
    fault: Fault,
    stays: bool,
}

impl Script {
    pub(super) fn add(&mut self, method: &str, target: &str, fault: Fault, stays: bool) {
        self.lines.push_back(Line { method: method.to_owned(), target: target.to_owned(), fault, stays });
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    /// The fault for this call. Faults for one call come before standing ones, in the order in which they were added.
    pub(super) fn take(&mut self, method: &str, target: &str) -> Option<Fault> {
        let meant = |line: &&Line| matches(&line.method, method) && target.contains(&line.target);
        if let Some(at) = self.lines.iter().position(|line| !line.stays && meant(&line)) {
            return self.lines.remove(at).map(|line| line.fault);
        }
        self.lines.iter().find(|line| line.stays && meant(line)).map(|line| line.fault.clone())
    }
}

/// `instances.get` is itself, `instances.*` any method of instances, `*` any method.
pub(super) fn matches(pattern: &str, method: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => method.starts_with(start),
        None => pattern == method,
    }
}
