//! `conch-load compare`: its arguments, and the table of two reports.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use conch_loadtest::report::{Report, compare};

use super::say;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The report before the change: a JSON file that `run` wrote
    before: PathBuf,
    /// The report after it
    after: PathBuf,
}

/// Compares; true: nothing got worse by more than is allowed.
pub(crate) fn run(args: &CompareArgs) -> Result<bool> {
    let comparison = compare(&Report::read(&args.before)?, &Report::read(&args.after)?)?;
    say(&comparison);
    Ok(comparison.passes())
}
