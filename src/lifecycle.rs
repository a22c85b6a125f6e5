//! The generic framework.
