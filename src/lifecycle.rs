//! A framework for controllers whose objects hold something outside the cluster that must never be lost.
//!
//! It drives one small state machine per *subject* (a lease, a volume, an address, …), keeps each machine's state in
//! the status of a Kubernetes object, and runs slow calls beside the reconciler. It knows Kubernetes objects and
//! nothing of what is held.
//!
//! # Flow
//!
//! ```text
//! entry (from status) + facts ──decide──▶ moves … ──▶ one deed, or a wait, or rest        Machine, pass
//!                                          │
//!                        status written by compare-and-swap (intent before deed)
//!                                          │
//!                          deed sent, if the send check lets it leave                     fencing, flight
//!                                          │
//!                        observers told, only of what is durable                          Observer
//! ```
//!
//! # Guarantees
//!
//! - An edge that is not in [`State::EDGES`] is never taken: [`pass::run`] stops at it and says so.
//! - Two effects never run on the same subject or the same resource at once ([`flight::Flights`]).
//! - A read is used for a subject only if it began after everything that could have changed the answer
//!   ([`reads::ReadFilter`]).
//! - A request leaves only while leadership and the intent outlast the request's own time-out ([`fencing::may_send`]).
//! - The finalizer goes only on [`Release::Done`]. kube's own `finalizer()` removes it as soon as cleanup returns `Ok`,
//!   even one that asks for a requeue; letting go that takes many passes needs more.
//!
//! # Assumptions
//!
//! One process at a time believes that it leads, and can prove until when. Where that fails (a paused process), the
//! outside world must refuse stale requests; the framework cannot.

pub mod backoff;
pub mod fencing;
pub mod finalizer;
pub mod flight;
pub mod journey;
pub mod machine;
pub mod observer;
pub mod outcome;
pub mod pass;
pub mod reads;
pub mod seats;

pub use finalizer::Release;
pub use journey::{Journey, Trace};
pub use machine::{Decision, Machine, State};
pub use observer::{Observer, Passed, Stage, Transition};
pub use outcome::Outcome;
