//! AWS keeps the contract, and what is particular to it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "contract_aws/bench.rs"]
mod bench;
#[path = "contract_aws/credentials.rs"]
mod credentials;
#[path = "contract_aws/lag.rs"]
mod lag;
#[path = "contract_aws/particular.rs"]
mod particular;
#[path = "contract_aws/restore.rs"]
mod restore;
#[path = "contract_aws/self_test.rs"]
mod self_test;

use bench::AwsBench;

e2e::contract_tests!(AwsBench);
