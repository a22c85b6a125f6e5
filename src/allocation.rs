//! The controller.
pub mod decide;
