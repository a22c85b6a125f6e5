//! The twelve promises under faults: the code that ships, run in virtual time against a cluster and a cloud of plain data.

// clippy's leave for tests covers `#[test]` functions, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// One engine serves several drivers, and not each of them plays every trick.
#![allow(dead_code)]
// An errand's answers are passed along by value, and nobody waits for them.
#![allow(clippy::result_large_err, clippy::large_enum_variant, clippy::too_many_arguments)]

mod broken_steps;
mod canon;
mod chance;
mod cosmos;
mod invariants;
mod lives;
mod model;
mod outage;
mod random_lives;
mod scale;
mod scarcity;
mod search;
mod soak;
mod story;
mod writes;

/// As in the program: the random lives and the model allocate a lot.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
