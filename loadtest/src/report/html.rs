//! The page of a run: one file, no script, nothing from anywhere else; light or dark as the reader's system is.

use std::fmt::Write;

use super::plot::{Line, Plot, Scale, escape};
use super::{Outcome, Percentiles, Report, Row, count, duration, rate};
use crate::run::Latencies;

/// Nines of the distribution at most.
const NINES_MAX: f64 = 6.0;

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(report: &Report) -> String {
    let mut html = String::new();
    let title = escape(&report.name);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title} – Conch load run</title><style>{STYLE}</style></head><body><main>"
    );
    head(&mut html, report);
    tiles(&mut html, report);
    html.push_str("<section class=\"plots\">");
    for plot in plots(report) {
        html.push_str(&plot.draw());
    }
    html.push_str("</section>");
    latencies(&mut html, report);
    if !report.errors.is_empty() {
        let rows: Vec<_> = report
            .errors
            .iter()
            .map(|(what, times)| (what.clone(), count(*times)))
            .collect();
        table(&mut html, "Errors", &rows);
    }
    search(&mut html, report);
    verdict(&mut html, report);
    environment(&mut html, report);
    let scenario = toml::to_string_pretty(&report.scenario).unwrap_or_default();
    let _ = write!(
        html,
        "<section><h2>Scenario</h2><pre>{}</pre></section></main></body></html>",
        escape(&scenario)
    );
    html
}

fn head(html: &mut String, report: &Report) {
    let (class, word) = match report.outcome() {
        Outcome::Good => ("good", "✓ good"),
        Outcome::Broken => ("bad", "✗ broken"),
        Outcome::Invalid => ("warn", "! figures invalid"),
        Outcome::Interrupted => ("warn", "! interrupted"),
    };
    let population = &report.scenario.population;
    let _ = write!(
        html,
        "<header><h1>{}</h1><span class=\"badge {class}\">{word}</span><p>{}</p><p class=\"quiet\">{} people, {} devices over {}; {:.0} s measured; {}; {}</p></header>",
        escape(&report.name),
        escape(&report.scenario.about),
        count(population.people as u64),
        count(report.scenario.devices() as u64),
        population.transport,
        report.figures.measured_s,
        escape(&report.environment.node),
        escape(report.started_at.get(..16).unwrap_or_default()).replace('T', " "),
    );
    let line = report.verdict_line();
    let first = line.lines().next().unwrap_or_default();
    let _ = write!(html, "<p class=\"verdict {class}\">{}</p>", escape(first));
    for reason in &report.invalid {
        let _ = write!(html, "<p class=\"verdict warn\">{}</p>", escape(reason));
    }
}

fn tiles(html: &mut String, report: &Report) {
    let figures = &report.figures;
    let mut tiles = vec![
        (
            "acked".to_owned(),
            format!("{}/s", rate(figures.acked_per_s)),
        ),
        (
            "delivered".to_owned(),
            format!("{}/s", rate(figures.delivered_per_s)),
        ),
    ];
    let p99 = [
        ("ack p99", &figures.ack),
        ("delivery p99", &figures.delivery),
        ("page p99", &figures.page),
        ("reconnect p99", &figures.connect),
        ("catch-up p99", &figures.catch_up),
    ];
    for (name, of) in p99 {
        if of.count > 0 {
            tiles.push((name.to_owned(), duration(of.p99_us)));
        }
    }
    if let Some(server) = &figures.server {
        if let Some(us) = server.cpu_us_per_delivery {
            tiles.push(("node CPU per delivery".to_owned(), format!("{us:.1} µs")));
        } else {
            tiles.push(("node CPU".to_owned(), format!("{:.2} cores", server.cores)));
        }
        tiles.push((
            "node memory".to_owned(),
            format!("{} MiB", server.rss_bytes_max >> 20),
        ));
    }
    tiles.push((
        "generator's lag p99".to_owned(),
        duration(report.generator.lag.p99_us),
    ));
    html.push_str("<section class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(html, "<div><b>{value}</b><span>{name}</span></div>");
    }
    html.push_str("</section>");
}

fn plots(report: &Report) -> Vec<Plot> {
    let rows = &report.series;
    let of = &report.latencies;
    let over_time = |title, y_scale, y_shown, lines| Plot {
        title,
        x_scale: Scale::Linear,
        x_name: "seconds",
        y_scale,
        y_shown,
        lines,
        shaded_to: Some(0.0),
    };
    let us = |value: f64| duration(value.round() as u64);
    let per_s = |value: f64| count(value.round() as u64);
    let cores = |value: f64| format!("{value:.2}");
    let mib = |value: f64| format!("{} MiB", count(value.round() as u64));
    let mut distribution = vec![
        quantiles("delivery", 1, false, &of.delivery_us),
        quantiles("ack", 2, false, &of.ack_us),
        quantiles("page of history", 3, false, &of.page_us),
        quantiles("generator's lag", 4, true, &of.lag_us),
    ];
    distribution.retain(|line| !line.points.is_empty());
    let mut plots = vec![
        Plot {
            title: "Latency distribution",
            x_scale: Scale::Nines,
            x_name: "",
            y_scale: Scale::Log,
            y_shown: us,
            lines: distribution,
            shaded_to: None,
        },
        over_time(
            "Latency over time",
            Scale::Log,
            us,
            some_lines(vec![
                line("delivery p99", 1, rows, |row| micros(row.delivery_p99_us)),
                dashed("delivery p50", 1, rows, |row| micros(row.delivery_p50_us)),
                line("ack p99", 2, rows, |row| micros(row.ack_p99_us)),
                dashed("ack p50", 2, rows, |row| micros(row.ack_p50_us)),
            ]),
        ),
        over_time(
            "Messages per second",
            Scale::Linear,
            per_s,
            vec![
                line("acked", 2, rows, |row| Some(row.acked as f64)),
                dashed("sent", 4, rows, |row| Some(row.sent as f64)),
            ],
        ),
        over_time(
            "Deliveries per second",
            Scale::Linear,
            per_s,
            vec![line("delivered", 1, rows, |row| Some(row.delivered as f64))],
        ),
        over_time(
            "Processor: cores in use",
            Scale::Linear,
            cores,
            some_lines(vec![
                line("node", 1, rows, |row| row.server_cores),
                dashed("generator", 4, rows, |row| Some(row.generator_cores)),
            ]),
        ),
        over_time(
            "Memory of the node",
            Scale::Linear,
            mib,
            some_lines(vec![line("resident", 1, rows, |row| {
                row.server_rss_bytes
                    .map(|bytes| bytes as f64 / f64::from(1 << 20))
            })]),
        ),
    ];
    if rows
        .windows(2)
        .any(|two| two[0].connected != two[1].connected)
    {
        plots.push(over_time(
            "Devices connected",
            Scale::Linear,
            per_s,
            vec![line("connected", 3, rows, |row| Some(row.connected as f64))],
        ));
    }
    if rows.iter().any(|row| row.errors > 0) {
        plots.push(over_time(
            "Errors per second",
            Scale::Linear,
            per_s,
            vec![line("errors", 5, rows, |row| Some(row.errors as f64))],
        ));
    }
    plots
}

fn micros(us: Option<u64>) -> Option<f64> {
    us.map(|us| us.max(1) as f64)
}

fn line(name: &str, colour: usize, rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Line {
    Line {
        name: name.to_owned(),
        colour,
        is_dashed: false,
        points: rows.iter().map(|row| (row.at_s, of(row))).collect(),
    }
}

fn dashed(name: &str, colour: usize, rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Line {
    Line {
        is_dashed: true,
        ..line(name, colour, rows, of)
    }
}

/// Without those that have no value at all.
fn some_lines(mut lines: Vec<Line>) -> Vec<Line> {
    lines.retain(|line| line.points.iter().any(|(_, value)| value.is_some()));
    lines
}

/// A distribution over its nines, as far as there are values to show it.
fn quantiles(name: &str, colour: usize, is_dashed: bool, of: &Latencies) -> Line {
    let nines_max = (of.count().max(1) as f64).log10().min(NINES_MAX);
    let steps = if of.count() == 0 {
        0
    } else {
        (nines_max * 20.0) as u32 + 1
    };
    let points = (0..steps).map(|step| {
        let nines = f64::from(step) / 20.0;
        let us = of.at_us(1.0 - 10_f64.powf(-nines)).max(1);
        (nines, Some(us as f64))
    });
    Line {
        name: name.to_owned(),
        colour,
        is_dashed,
        points: points.collect(),
    }
}

fn latencies(html: &mut String, report: &Report) {
    let figures = &report.figures;
    let rows: [(&str, &Percentiles); 6] = [
        ("ack", &figures.ack),
        ("delivery", &figures.delivery),
        ("page of history", &figures.page),
        ("reconnect", &figures.connect),
        ("catch-up", &figures.catch_up),
        ("generator's lag", &report.generator.lag),
    ];
    html.push_str(
        "<section><h2>Latencies</h2><div class=\"wide\"><table><thead><tr><th></th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr></thead><tbody>",
    );
    for (name, of) in rows.iter().filter(|(_, of)| of.count > 0) {
        let _ = write!(html, "<tr><th>{name}</th><td>{}</td>", count(of.count));
        for us in [of.p50_us, of.p90_us, of.p99_us, of.p999_us, of.max_us] {
            let _ = write!(html, "<td>{}</td>", duration(us));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></section>");
}

fn search(html: &mut String, report: &Report) {
    let Some(search) = &report.search else {
        return;
    };
    let mut rows = vec![(
        "highest rate that met the objective".to_owned(),
        search
            .rate
            .map_or_else(|| "none".to_owned(), |found| format!("{}/s", rate(found))),
    )];
    for probe in &search.probes {
        let held = if probe.broke.is_empty() {
            "held".to_owned()
        } else {
            probe.broke.join("; ")
        };
        rows.push((
            format!("probe at {}/s", rate(probe.rate)),
            format!("p99 {}: {held}", duration(probe.p99_us)),
        ));
    }
    table(html, "Search", &rows);
}

fn verdict(html: &mut String, report: &Report) {
    let counts = &report.figures.counts;
    let mut rows = vec![
        (
            "messages without an answer".to_owned(),
            count(counts.unanswered),
        ),
        ("deliveries missing".to_owned(), count(counts.missing)),
    ];
    match &report.verdict {
        None => rows.push(("checker".to_owned(), "off: nothing was checked".to_owned())),
        Some(verdict) => {
            let judged = if verdict.is_whole {
                "everything, history included"
            } else {
                "only what happened on the way"
            };
            rows.push(("judged".to_owned(), judged.to_owned()));
            for (what, times) in [
                ("messages", verdict.messages),
                ("acknowledged", verdict.acked_messages),
                ("refused", verdict.refusals),
                ("without a known outcome", verdict.unknown_outcomes),
                ("events shown", verdict.shown),
                ("events read in history", verdict.history_events),
                ("violations", verdict.violations_total),
            ] {
                rows.push((what.to_owned(), count(times)));
            }
            for violation in &verdict.violations {
                rows.push(("violation".to_owned(), violation.clone()));
            }
        }
    }
    table(html, "Promise", &rows);
}

fn environment(html: &mut String, report: &Report) {
    let environment = &report.environment;
    let mut rows = vec![
        (
            "machine".to_owned(),
            format!(
                "{} cores, {}, {} MiB",
                environment.cores,
                environment.processor,
                environment.memory_bytes >> 20
            ),
        ),
        ("kernel".to_owned(), environment.kernel.clone()),
        (
            "node".to_owned(),
            format!("{}, version {}", environment.node, environment.node_version),
        ),
        (
            "generator".to_owned(),
            format!(
                "conch-load {}, frames written directly",
                environment.load_version
            ),
        ),
    ];
    for (index, worker) in report.generator.workers.iter().enumerate() {
        rows.push((
            format!("worker {index}"),
            format!(
                "{} devices, {:.0} % of a core",
                count(worker.devices as u64),
                worker.cpu_share * 100.0
            ),
        ));
    }
    if let Some(server) = &report.figures.server {
        rows.push((
            "node's CPU".to_owned(),
            format!("{:.1} s, {:.2} cores", server.cpu_s, server.cores),
        ));
    }
    if let Some(bytes) = report.figures.frame_bytes_per_delivery {
        rows.push(("frame bytes per delivery".to_owned(), format!("{bytes:.0}")));
    }
    if let Some(left) = &environment.left_behind {
        rows.push(("left behind".to_owned(), left.clone()));
    }
    table(html, "Where", &rows);
    if let Some(configuration) = &environment.node_configuration {
        let _ = write!(
            html,
            "<section><h2>Configuration of the node</h2><pre>{}</pre></section>",
            escape(configuration)
        );
    }
}

fn table(html: &mut String, title: &str, rows: &[(String, String)]) {
    let _ = write!(
        html,
        "<section><h2>{title}</h2><div class=\"wide\"><table><tbody>"
    );
    for (name, value) in rows {
        let _ = write!(
            html,
            "<tr><th>{}</th><td class=\"words\">{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    html.push_str("</tbody></table></div></section>");
}
