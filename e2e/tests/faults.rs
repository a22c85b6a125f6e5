//! Faults: what people, clouds, machines, clocks and the control plane itself do to addresses while the operator works.
//! One file a theme. Whatever happens, nothing is stolen, nothing is doubled, and nothing moves that nobody asked to.
//!
//! Faults of single nodes and outsiders in the cloud: `failover.rs`. Leaders that come and go: `leadership.rs`.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
#[path = "faults/claims.rs"]
mod claims;
#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/cloud.rs"]
mod cloud;
#[path = "faults/control_plane.rs"]
mod control_plane;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/nodes.rs"]
mod nodes;
#[path = "faults/outsiders.rs"]
mod outsiders;
#[path = "faults/status.rs"]
mod status;
#[path = "faults/swaps.rs"]
mod swaps;

use acts::Theatre;
use e2e::stage::Venue;

/// For plays that leave operator, cluster and cloud alone: each has a pool and addresses of its own.
static SHARED: Theatre = Theatre::new();

/// For plays that hit the operator, its cloud or its control plane as a whole: one after the other.
static HIT: Theatre = Theatre::new();

/// The same at other clouds.
static AWS: Theatre = Theatre::at(&Venue::AWS);
static AZURE: Theatre = Theatre::at(&Venue::AZURE);
