//! The world around the operator as plain data: a cloud, an API server, and the operator's deeds step by step.
//!
//! All of it is `Clone` and cheap to clone, knows no clock and no chance, and is the same whenever it is told the same.

pub mod beats;
pub mod cloud;
pub mod cluster;
mod cost;
pub mod course;
pub mod errand;
pub mod excuses;
pub mod pace;
pub mod play;
pub mod process;
mod sameness;
