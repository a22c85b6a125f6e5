//! The chart: what Helm makes of every set of values, what it refuses, and what a real API server says of it.
//!
//! | module | what it shows |
//! |---|---|
//! | `helm` | both majors of Helm, as a person runs them |
//! | `shapes` | each file of `ci/`, with both, by what must hold of every object |
//! | `toggles` | what single values change |
//! | `refusals` | values that cannot work, and what is said of them |
//! | `values` | every value is in the schema and in the README, and has an effect |
//! | `server` | every object of every shape, as the API server sees it |
//! | `admission` | who may write what: the policies that come with the release |
//! | `check` | `helm test` |
//! | `upgrades` | one version of the chart over another |

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
#[path = "chart/admission.rs"]
mod admission;
#[path = "chart/check.rs"]
mod check;
#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/refusals.rs"]
mod refusals;
#[path = "chart/server.rs"]
mod server;
#[path = "chart/shapes.rs"]
mod shapes;
#[path = "chart/toggles.rs"]
mod toggles;
#[path = "chart/upgrades.rs"]
mod upgrades;
#[path = "chart/values.rs"]
mod values;

use acts::Theatre;

/// One control plane for all that need one.
static THEATRE: Theatre = Theatre::new();
