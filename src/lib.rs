//! ip-address-controller keeps reserved external addresses on healthy Kubernetes nodes.
//!
//! One look shows the data's way:
//!
//! ```text
//! watch ─▶ observe ─▶ decide (pure) ─▶ act (effects) ─▶ record (status, then metrics, events, spans)
//! ```
//!
//! | module | what it is | what it must not know |
//! |---|---|---|
//! | [`lifecycle`] | the generic framework: machine, pass, finalizer, effects, back-off | addresses, clouds, `NetIPAllocation` |
//! | [`api`] | the resource: types, no logic | everything else |
//! | [`allocation`] | the controller: watch, observe, decide, act, record | SDK types; in `decide` also clients, async, clocks |
//! | [`cloud`] | one trait, one file per provider | Kubernetes, allocations; each provider: the others |
//! | [`leader`] | the Lease and the proof of leadership (F1) | addresses, clouds |
//! | [`run`], [`check`], [`release`] | the commands: wiring | decisions |
//! | [`kubectl_nia`] | the same program as plugin of kubectl, with the user's rights | clouds; decisions but by [`allocation::round`] |
//! | [`settings`], [`telemetry`], [`metrics`], [`http`] | what the process is told, and tells | decisions |
//!
//! `tests/boundaries.rs` reads the `use` lines and fails when a module knows what it must not.

pub mod allocation;
pub mod api;
pub mod check;
pub mod cloud;
#[cfg(any(test, fuzzing))]
pub mod foreign;
pub mod http;
pub mod kubectl_nia;
pub mod leader;
pub mod lifecycle;
pub mod metrics;
pub mod release;
pub mod run;
pub mod settings;
pub mod telemetry;
