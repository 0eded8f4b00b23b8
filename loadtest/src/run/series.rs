//! The seconds of a round, put together from all workers and the node's own samples.

use std::collections::BTreeMap;
use std::time::Duration;

use super::latency::Latencies;
use super::progress::Moment;
use super::wire::Second;
use crate::report::Row;

/// Seconds under way and done.
#[derive(Debug, Default)]
pub(super) struct Series {
    warm_up_s: f64,
    length_s: f64,
    workers: usize,
    /// Told by some workers so far: how many, and their sum.
    open: BTreeMap<u64, (usize, Second)>,
    /// CPU time and memory of the node at the beginning of each second.
    samples: Vec<Option<(Duration, u64)>>,
    rows: Vec<Row>,
    errors: u64,
}

impl Series {
    pub(super) fn new(workers: usize, warm_up_s: f64, duration_s: f64) -> Series {
        Series {
            workers,
            warm_up_s,
            length_s: warm_up_s + duration_s,
            ..Series::default()
        }
    }

    /// The node at the beginning of the next second.
    pub(super) fn sample(&mut self, sample: Option<(Duration, u64)>) {
        self.samples.push(sample);
    }

    /// A worker's second; when all have told it, what a person should see of it.
    pub(super) fn told(&mut self, told: &Second) -> Option<Moment> {
        let workers = self.workers;
        let (count, sum) = self.open.entry(told.second).or_default();
        *count += 1;
        add(sum, told);
        let is_whole = *count >= workers;
        is_whole.then(|| self.close(told.second)).flatten()
    }

    fn close(&mut self, number: u64) -> Option<Moment> {
        let (_, second) = self.open.remove(&number)?;
        self.errors += second.errors;
        self.rows.push(Row {
            at_s: number as f64 - self.warm_up_s,
            sent: second.sent,
            acked: second.acked,
            delivered: second.delivered,
            errors: second.errors,
            connected: second.connected,
            ack_p50_us: second.ack_us.at(0.5),
            ack_p99_us: second.ack_us.at(0.99),
            delivery_p50_us: second.delivery_us.at(0.5),
            delivery_p99_us: second.delivery_us.at(0.99),
            lag_p99_us: second.lag_us.at(0.99),
            server_cores: None,
            server_rss_bytes: None,
            generator_cores: second.cpu_us as f64 / 1e6,
        });
        let latency = |of: &Latencies, share| of.at(share);
        let shown = |share| {
            latency(&second.delivery_us, share)
                .or_else(|| latency(&second.ack_us, share))
                .unwrap_or(0)
        };
        Some(Moment {
            is_warm_up: (number as f64) < self.warm_up_s,
            connected: second.connected,
            sent: second.sent,
            delivered: second.delivered,
            p50_us: shown(0.5),
            p99_us: shown(0.99),
            lag_p99_us: second.lag_us.at_us(0.99),
            errors: self.errors,
            left_s: (self.length_s - number as f64 - 1.0).max(0.0) as u64,
        })
    }

    /// All seconds that came, those that not every worker told too.
    pub(super) fn rows(mut self) -> Vec<Row> {
        let left: Vec<u64> = self.open.keys().copied().collect();
        for number in left {
            self.close(number);
        }
        self.rows.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        // Only now: a worker may tell a second before this clock ends it.
        let at = |number: usize| self.samples.get(number).copied().flatten();
        for row in &mut self.rows {
            let number = (row.at_s + self.warm_up_s).round() as usize;
            let (before, after) = (at(number), at(number + 1));
            row.server_cores = before
                .zip(after)
                .map(|((before, _), (after, _))| after.saturating_sub(before).as_secs_f64());
            row.server_rss_bytes = after.or(before).map(|(_, rss)| rss);
        }
        self.rows
    }
}

fn add(sum: &mut Second, told: &Second) {
    sum.second = told.second;
    sum.sent += told.sent;
    sum.acked += told.acked;
    sum.delivered += told.delivered;
    sum.errors += told.errors;
    sum.connected += told.connected;
    sum.cpu_us += told.cpu_us;
    sum.ack_us.merge(&told.ack_us);
    sum.delivery_us.merge(&told.delivery_us);
    sum.lag_us.merge(&told.lag_us);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64, sent: u64, ack_us: u64) -> Second {
        let mut second = Second {
            second: number,
            sent,
            ..Second::default()
        };
        second.ack_us.record(ack_us);
        second
    }

    #[test]
    fn a_second_is_whole_when_all_workers_told_it() {
        let mut series = Series::new(2, 1.0, 3.0);
        series.sample(Some((Duration::from_millis(100), 10)));
        series.sample(Some((Duration::from_millis(600), 20)));
        assert!(series.told(&second(0, 5, 100)).is_none());
        let moment = series.told(&second(0, 7, 300)).expect("both told it");
        assert!(moment.is_warm_up);
        assert_eq!((moment.sent, moment.left_s), (12, 3));
        // One that only one worker told is kept all the same.
        series.told(&second(1, 4, 100));
        let rows = series.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].at_s, rows[0].sent), (-1.0, 12));
        assert_eq!(rows[0].server_cores, Some(0.5));
        assert_eq!(rows[0].ack_p99_us, Some(300));
        assert_eq!((rows[1].sent, rows[1].server_cores), (4, None));
    }
}
