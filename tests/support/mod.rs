//! The pure harness of the scenarios: scripts, and the world they play in.

pub mod script;
pub mod world;
