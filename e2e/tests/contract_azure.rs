//! Azure keeps the contract, and what is particular to it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "azure/bench.rs"]
mod bench;
#[path = "azure/connecting.rs"]
mod connecting;
#[path = "azure/reading.rs"]
mod reading;
#[path = "azure/self_test.rs"]
mod self_test;
#[path = "azure/writing.rs"]
mod writing;

e2e::contract_tests!(bench::AzureBench);
