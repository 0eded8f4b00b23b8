//! Fixtures of the end-to-end tests: the sync shim.
pub mod shim;
