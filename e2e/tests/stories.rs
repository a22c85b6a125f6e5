//! Stories: what the operator promises, told on a real API server over a simulated cloud, with the chart as users install
//! it. One stage for all; each story has a pool, nodes, addresses, an allocation and workloads of its own.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "stories/attach.rs"]
mod attach;
#[path = "stories/bad_input.rs"]
mod bad_input;
#[path = "stories/drain.rs"]
mod drain;
#[path = "stories/edit.rs"]
mod edit;
#[path = "stories/hold.rs"]
mod hold;
#[path = "stories/modes.rs"]
mod modes;
#[path = "stories/moves.rs"]
mod moves;
#[path = "stories/story.rs"]
mod story;
#[path = "stories/taints.rs"]
mod taints;
