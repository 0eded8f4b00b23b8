//! Chores of the workspace that have logic, as functions that the program `xtask` and its tests call.
//!
//! `codegen` compiles the schema with the one compiler that matches the `flatbuffers` crate and compares or replaces the
//! committed output. `tidy` checks what no compiler checks: who depends on whom, purity, documents in step with code.
//! Nothing in the product depends on this crate.

pub mod codegen;
pub mod tidy;
pub mod workspace;
