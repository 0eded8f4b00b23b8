//! The summary at the end of a run, for a terminal.

use std::fmt;

use super::{Ended, Outcome, Percentiles, Report, count, duration, rate};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let counts = &figures.counts;
        writeln!(f, "{}: {}", self.name, self.scenario.about)?;
        writeln!(
            f,
            "  {} people, {} devices over {}, {:.0} s measured, {}",
            count(self.scenario.population.people as u64),
            count(self.scenario.devices() as u64),
            self.scenario.population.transport,
            figures.measured_s,
            self.environment.node,
        )?;
        writeln!(
            f,
            "  sent {}/s, acked {}/s, delivered {}/s ({} messages, {} deliveries)",
            rate(figures.sent_per_s),
            rate(figures.acked_per_s),
            rate(figures.delivered_per_s),
            count(counts.acked),
            count(counts.delivered),
        )?;
        line(f, "ack", &figures.ack)?;
        line(f, "delivery", &figures.delivery)?;
        line(f, "page", &figures.page)?;
        line(f, "reconnect", &figures.connect)?;
        line(f, "catch-up", &figures.catch_up)?;
        if let Some(server) = &figures.server {
            write!(
                f,
                "  node      {:.2} cores, {} MiB at most",
                server.cores,
                server.rss_bytes_max >> 20
            )?;
            if let (Some(message), Some(delivery)) =
                (server.cpu_us_per_message, server.cpu_us_per_delivery)
            {
                write!(
                    f,
                    ", {message:.1} CPU-µs per message, {delivery:.1} per delivery"
                )?;
            }
            writeln!(f)?;
        }
        if let Some(bytes) = figures.frame_bytes_per_delivery {
            writeln!(
                f,
                "  frames    {bytes:.0} bytes per delivery, both directions"
            )?;
        }
        let busiest = self
            .generator
            .workers
            .iter()
            .map(|it| it.cpu_share)
            .fold(0.0, f64::max);
        writeln!(
            f,
            "  generator {} workers, the busiest at {:.0} % of a core; lag p99 {}",
            self.generator.workers.len(),
            busiest * 100.0,
            duration(self.generator.lag.p99_us),
        )?;
        if let Some(search) = &self.search {
            match search.rate {
                Some(found) => writeln!(
                    f,
                    "  highest rate that met the objective: {}/s, after {} probes",
                    rate(found),
                    search.probes.len()
                )?,
                None => writeln!(f, "  no rate met the objective")?,
            }
            for probe in &search.probes {
                let held = if probe.broke.is_empty() {
                    "held".to_owned()
                } else {
                    probe.broke.join("; ")
                };
                writeln!(
                    f,
                    "    {}/s: p99 {}, {held}",
                    rate(probe.rate),
                    duration(probe.p99_us)
                )?;
            }
        }
        for (what, times) in &self.errors {
            writeln!(f, "  error     {} × {what}", count(*times))?;
        }
        for reason in &self.invalid {
            writeln!(f, "  INVALID   {reason}")?;
        }
        write!(f, "{}", self.verdict_line())
    }
}

impl Report {
    /// The judgement in one line, and a line for each violation that was kept.
    pub fn verdict_line(&self) -> String {
        let mut line = match self.outcome() {
            Outcome::Good => "good: ".to_owned(),
            Outcome::Broken => "BROKEN: ".to_owned(),
            Outcome::Invalid => "INVALID figures: ".to_owned(),
            Outcome::Interrupted => "interrupted: ".to_owned(),
        };
        match &self.ended {
            Ended::Complete | Ended::Interrupted => {}
            Ended::ServerFailed(why) | Ended::WorkerFailed(why) => {
                line.push_str(why);
                line.push_str("; ");
            }
        }
        let counts = &self.figures.counts;
        if counts.unanswered + counts.missing > 0 {
            line.push_str(&format!(
                "{} messages without an answer, {} deliveries missing; ",
                count(counts.unanswered),
                count(counts.missing)
            ));
        }
        match &self.verdict {
            None => line.push_str("nothing was checked"),
            Some(verdict) => {
                line.push_str(&format!(
                    "{} acked of {} messages, {} events shown to {} devices, {} histories of {} channels read, {} violations",
                    count(verdict.acked_messages),
                    count(verdict.messages),
                    count(verdict.shown),
                    count(verdict.devices as u64),
                    count(verdict.full_reads),
                    count(verdict.channels as u64),
                    count(verdict.violations_total),
                ));
                if !verdict.is_whole {
                    line.push_str(" so far; the end was not judged");
                }
                for violation in &verdict.violations {
                    line.push_str("\n  ");
                    line.push_str(violation);
                }
            }
        }
        line
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, of: &Percentiles) -> fmt::Result {
    if of.count == 0 {
        return Ok(());
    }
    writeln!(
        f,
        "  {what:<9} p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        duration(of.p50_us),
        duration(of.p90_us),
        duration(of.p99_us),
        duration(of.p999_us),
        duration(of.max_us),
    )
}
