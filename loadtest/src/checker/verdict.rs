//! What a run comes to: counts, and the violations found.

use std::fmt;

use conch_wire::Seq;

use super::Violation;
use super::seqs::Run;

/// Violations kept in full, all together and of one kind; the rest is only counted, so that a broken run does not fill the
/// memory, and one kind does not hide another.
const KEPT_MAX: usize = 64;
const KEPT_OF_A_KIND: usize = 16;

/// Violations in the order in which they were noticed.
#[derive(Debug, Default)]
pub(super) struct Found {
    kept: Vec<Violation>,
    total: u64,
}

impl Found {
    pub(super) fn add(&mut self, violation: Violation) {
        self.total += 1;
        let kind = std::mem::discriminant(&violation);
        let alike = |kept: &&Violation| std::mem::discriminant(*kept) == kind;
        if self.kept.len() < KEPT_MAX && self.kept.iter().filter(alike).count() < KEPT_OF_A_KIND {
            self.kept.push(violation);
        }
    }

    /// One violation for each seq of `run`.
    pub(super) fn add_all(&mut self, run: Run, violation: impl Fn(Seq) -> Violation) {
        let told = (run.first..=run.last).take(KEPT_OF_A_KIND);
        told.for_each(|seq| self.add(violation(seq)));
        self.total += run.len().saturating_sub(KEPT_OF_A_KIND as u64);
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Sends put on the wire, resends included.
    pub attempts: u64,
    /// Different messages among them.
    pub messages: u64,
    /// Acknowledgements, those of resends included.
    pub acks: u64,
    /// Different messages acknowledged.
    pub acked_messages: u64,
    /// Certain refusals.
    pub refusals: u64,
    /// Messages given up because their sender was no longer a member.
    pub given_up: u64,
    /// Changes of membership confirmed.
    pub changes: u64,
    /// Attempts that ended without an answer.
    pub unknown_outcomes: u64,
    /// Events shown to devices.
    pub deliveries: u64,
    /// Events read in pages of history.
    pub history_events: u64,
    /// Full histories compared.
    pub full_reads: u64,
}

/// The judgement of a run.
#[derive(Debug)]
pub struct Verdict {
    pub counts: Counts,
    pub channels: usize,
    pub devices: usize,
    /// The first violations; `violations_total` counts all.
    pub violations: Vec<Violation>,
    pub violations_total: u64,
}

impl Verdict {
    pub(super) fn new(counts: Counts, channels: usize, devices: usize, found: Found) -> Verdict {
        Verdict {
            counts,
            channels,
            devices,
            violations: found.kept,
            violations_total: found.total,
        }
    }

    /// Whether the promise held.
    pub fn is_clean(&self) -> bool {
        self.violations_total == 0
    }
}

impl fmt::Display for Verdict {
    /// One line; with violations, one more line for each that was kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(
            f,
            "{}: {} acked of {} messages in {} attempts ({} refused, {} unknown, {} given up by former members), {} events shown to {} devices, \
             {} changes of membership, {} full histories of {} channels",
            if self.is_clean() { "clean" } else { "BROKEN" },
            counts.acked_messages,
            counts.messages,
            counts.attempts,
            counts.refusals,
            counts.unknown_outcomes,
            counts.given_up,
            counts.deliveries,
            self.devices,
            counts.changes,
            counts.full_reads,
            self.channels,
        )?;
        if !self.is_clean() {
            write!(f, ", {} violations", self.violations_total)?;
        }
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}
