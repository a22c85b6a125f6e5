//! Everything that proves the operator: a world of clouds, a simulator that speaks the clouds' wire protocols, a real
//! control plane on loopback, the contract each cloud must keep, the stories, and the demo.

pub mod chart;
pub mod cluster;
pub mod collector;
pub mod contract;
pub mod cost;
pub mod figures;
pub mod kubelet;
pub mod page;
pub mod simulator;
pub mod stage;
pub mod world;
