//! Latency at 70 % of the highest rate that keeps the objective: deliveries within 20 ms at the 99th percentile, 1:1.
//!
//! The highest rate is looked for once per server, in steps below what it does when saturated. A server that can do more than
//! Conch is measured at 70 % of Conch's rate, one that can do less at 70 % of its own.

use std::time::Duration;

use anyhow::Result;

use super::Case;
use super::case::{PAIRS, steady};
use super::ledger::Entry;
use super::loaded;
use crate::peers::Running;
use crate::peers::drive::{Drive, NotHeld, Shape};
use crate::stop::Stop;

/// The objective.
const DELIVERY_P99_US_MAX: u64 = 20_000;
const SHARE: f64 = 0.7;
/// Rates tried, as shares of the saturated one, highest first.
const STEPS: [f64; 9] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
/// Window of the run that finds the saturated rate, per pair.
const WINDOW: u32 = 40;
const TRIAL: Duration = Duration::from_millis(1_500);

/// Highest rates that an earlier round found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) own: Option<u32>,
    pub(super) conch: Option<u32>,
}

/// Gives the highest rate, if any was found, and the row. Blocking.
pub(super) fn measure(
    mut server: Running,
    known: Known,
    seconds: u64,
    stop: &Stop,
) -> Result<(Option<u32>, Vec<Entry>)> {
    let mut drive = Drive::connect(&mut server, PAIRS, stop)?;
    let found = match known.own {
        Some(rate) => Some(rate),
        None => rate_max(&mut drive, &mut server)?,
    };
    let Some(rate_max) = found else {
        let why = format!(
            "deliveries within {DELIVERY_P99_US_MAX} µs (p99) at none of the rates that were tried"
        );
        return Ok((
            None,
            vec![loaded::without_values(&server, Case::Slo.name(), why)],
        ));
    };
    let compared = known.conch.map_or(rate_max, |conch| conch.min(rate_max));
    let rate = (f64::from(compared) * SHARE) as u32;
    let load = steady(Shape::Open { rate }, Duration::from_secs(seconds));
    let mut entry = match drive.run(&mut server, &load) {
        Ok(outcome) => loaded::entry(server.peer, Case::Slo.name(), &outcome),
        Err(error) => {
            let not_held = error.downcast::<NotHeld>()?;
            loaded::without_values(&server, Case::Slo.name(), not_held.to_string())
        }
    };
    entry.values.push(("messages_per_s_max", rate_max.into()));
    Ok((Some(rate_max), vec![entry]))
}

/// The first of the steps down from saturation at which the objective is kept.
fn rate_max(drive: &mut Drive, server: &mut Running) -> Result<Option<u32>> {
    let mut load = steady(Shape::Closed { window: WINDOW }, TRIAL);
    load.rest_within = Duration::from_millis(500);
    let saturated = drive.run(server, &load)?.rate_per_s();
    for step in STEPS {
        let rate = ((saturated * step) as u32).max(1);
        load.shape = Shape::Open { rate };
        let keeps = match drive.run(server, &load) {
            Ok(outcome) => {
                let p99_us = outcome.delivery_us.value_at_quantile(0.99);
                outcome.fault.is_none() && p99_us <= DELIVERY_P99_US_MAX
            }
            Err(error) => {
                error.downcast::<NotHeld>()?;
                false
            }
        };
        if keeps {
            return Ok(Some(rate));
        }
    }
    Ok(None)
}
