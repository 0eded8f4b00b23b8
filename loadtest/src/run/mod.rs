//! A load run: people are made on a node, worker processes play the scenario with them, and what they saw becomes a report.
//!
//! The generator speaks the wire directly ([`crate::raw::RawClient`] under the pure client of [`crate::device`]): one process
//! plays thousands of devices. `population` says who is where and cuts it into workers; `conduct` is the course of a run;
//! [`worker`] is what happens in a worker process. A worker's checker sees everything of its channels, because all devices
//! of a channel are in one worker. Nothing waits without a deadline, and whatever ends a run early leaves a report.

mod assemble;
mod conduct;
mod latency;
mod machine;
mod people;
mod plans;
mod population;
mod processes;
mod progress;
mod round;
mod search;
mod series;
mod server;
pub(crate) mod wire;
pub mod worker;

pub use conduct::{RunPlan, run};
pub use latency::Latencies;
pub use server::Target;
pub use wire::{Judged, PhaseCounts, PhaseLatencies};
