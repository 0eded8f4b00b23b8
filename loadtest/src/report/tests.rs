//! A report goes to its files and comes back, the page is harmless, the outcome is the worst that holds, and a comparison fails
//! for what got worse by too much and for nothing else.

use super::*;
use crate::scenario::SHIPPED;

fn report() -> Report {
    let mut latencies = PhaseLatencies::default();
    for us in 1..=1_000 {
        latencies.ack_us.record(us);
        latencies.delivery_us.record(2 * us);
    }
    let figures = Figures {
        measured_s: 10.0,
        counts: PhaseCounts {
            acked: 1_000,
            delivered: 2_000,
            ..PhaseCounts::default()
        },
        acked_per_s: 100.0,
        delivered_per_s: 200.0,
        ack: Percentiles::from(&latencies.ack_us),
        delivery: Percentiles::from(&latencies.delivery_us),
        frame_bytes_per_delivery: Some(160.0),
        server: Some(ServerFigures {
            cpu_us_per_message: Some(20.0),
            cpu_us_per_delivery: Some(10.0),
            rss_bytes_max: 50 << 20,
            ..ServerFigures::default()
        }),
        ..Figures::default()
    };
    let rows = (-2..10).map(|second| Row {
        at_s: f64::from(second),
        acked: 100,
        delivered: 200,
        delivery_p99_us: (second != 3).then_some(1_900),
        server_rss_bytes: Some(50 << 20),
        ..Row::default()
    });
    Report {
        format: FORMAT,
        name: "direct".to_owned(),
        started_at: "2026-11-29T12:00:00Z".to_owned(),
        scenario: Scenario::parse("direct", SHIPPED[0].1).expect("it is shipped"),
        environment: Environment::default(),
        ended: Ended::Complete,
        invalid: Vec::new(),
        figures,
        errors: BTreeMap::new(),
        generator: Generator::default(),
        verdict: Some(Judged {
            is_whole: true,
            ..Judged::default()
        }),
        search: None,
        series: rows.collect(),
        latencies,
    }
}

#[test]
fn a_report_comes_back_from_its_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = report().write(folder.path()).unwrap();
    let back = Report::read(&json).unwrap();
    assert_eq!(back.figures, report().figures);
    assert_eq!(back.series, report().series);
    assert_eq!(back.scenario, report().scenario);
    assert_eq!(back.latencies.delivery_us, report().latencies.delivery_us);
    assert!(html.is_file());
}

#[test]
fn files_that_are_no_reports_are_refused_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    for (text, word) in [
        ("not json", "not JSON"),
        ("{\"format\":99}", "not a report of this format"),
        ("{\"format\":1}", "not a whole report"),
    ] {
        let path = folder.path().join("a.json");
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", Report::read(&path).unwrap_err());
        assert!(error.contains(word) && error.contains("a.json"), "{error}");
    }
    assert!(Report::read(&folder.path().join("none.json")).is_err());
}

#[test]
fn the_page_is_one_file_without_script_or_links() {
    let mut report = report();
    report.name = "<script>alert(1)</script>".to_owned();
    report.errors.insert("<b>bad</b>".to_owned(), 3);
    let html = page(&report);
    for part in [
        "<script", "http:", "https:", "<link", "<img", "@import", "url(", "<b>bad",
    ] {
        assert!(!html.contains(part), "{part}");
    }
    for part in [
        "Latency distribution",
        "99.9 %",
        "Memory of the node",
        "&lt;b&gt;bad",
        "<svg",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn the_outcome_is_the_worst_that_holds() {
    assert_eq!(report().outcome(), Outcome::Good);
    let late = Report {
        invalid: vec!["late".to_owned()],
        ..report()
    };
    assert_eq!(late.outcome(), Outcome::Invalid);
    let interrupted = Report {
        ended: Ended::Interrupted,
        ..late.clone()
    };
    assert_eq!(interrupted.outcome(), Outcome::Interrupted);
    let broken = Report {
        verdict: Some(Judged {
            violations_total: 1,
            ..Judged::default()
        }),
        ..interrupted
    };
    assert_eq!(broken.outcome(), Outcome::Broken);
    let mut lacking = report();
    lacking.figures.counts.missing = 1;
    assert_eq!(lacking.outcome(), Outcome::Broken);
    let dead = Report {
        ended: Ended::ServerFailed("gone".to_owned()),
        ..report()
    };
    assert_eq!(dead.outcome(), Outcome::Broken);
}

#[test]
fn what_got_worse_by_too_much_fails_and_the_rest_passes() {
    let before = report();
    assert!(compare(&before, &before).unwrap().passes());
    let change = |change: fn(&mut Figures)| {
        let mut after = report();
        change(&mut after.figures);
        compare(&before, &after).unwrap()
    };
    fn server(figures: &mut Figures) -> &mut ServerFigures {
        figures.server.as_mut().unwrap()
    }
    for passes in [
        change(|it| server(it).cpu_us_per_delivery = Some(10.9)),
        change(|it| server(it).cpu_us_per_delivery = Some(1.0)),
        change(|it| it.delivery.p99_us = it.delivery.p99_us * 12 / 10),
        change(|it| it.acked_per_s = 91.0),
        // Less than what clock and scheduler do.
        change(|it| it.ack.p99_us += 190),
    ] {
        assert!(passes.passes(), "{passes}");
    }
    for (name, fails) in [
        (
            "node CPU per delivery",
            change(|it| server(it).cpu_us_per_delivery = Some(11.1)),
        ),
        (
            "node CPU per message",
            change(|it| server(it).cpu_us_per_message = Some(22.5)),
        ),
        (
            "node memory",
            change(|it| server(it).rss_bytes_max = 56 << 20),
        ),
        (
            "frame bytes per delivery",
            change(|it| it.frame_bytes_per_delivery = Some(177.0)),
        ),
        (
            "delivery p99",
            change(|it| it.delivery.p99_us = it.delivery.p99_us * 13 / 10),
        ),
        ("ack p99", change(|it| it.ack.p99_us *= 2)),
        ("acked per second", change(|it| it.acked_per_s = 89.0)),
    ] {
        let failed: Vec<_> = fails
            .metrics
            .iter()
            .filter(|it| !it.passes())
            .map(|it| it.name)
            .collect();
        assert_eq!(failed, [name]);
        assert!(fails.to_string().contains("FAIL"));
    }
}

#[test]
fn reports_that_cannot_be_compared_say_why() {
    let refusal = |change: fn(&mut Report)| {
        let mut after = report();
        change(&mut after);
        compare(&report(), &after).unwrap_err().to_string()
    };
    assert!(refusal(|it| it.scenario.seed = 2).contains("different scenarios"));
    assert!(refusal(|it| it.invalid.push("late".to_owned())).contains("invalid: late"));
    assert!(refusal(|it| it.ended = Ended::Interrupted).contains("did not come to its end"));
    assert!(
        refusal(|it| it.figures.server = None).contains("only one of the reports has node CPU")
    );
    assert!(
        refusal(|it| it.verdict.as_mut().unwrap().violations_total = 1)
            .contains("promise was broken")
    );
}

#[test]
fn durations_have_three_digits_and_a_unit() {
    for (us, text) in [
        (7, "7 µs"),
        (1_254, "1.25 ms"),
        (31_040, "31.0 ms"),
        (250_000, "250 ms"),
        (3_100_000, "3.10 s"),
    ] {
        assert_eq!(duration(us), text);
    }
    assert_eq!(count(1_234_567), "1,234,567");
}
