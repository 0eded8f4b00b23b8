//! What a kill proof comes to, in one line.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use conch_impair::Seen;

use super::ChaosPlan;
use super::weather::Storms;
use crate::app::AppTally;
use crate::checker::Verdict;
use crate::device::state::Tally;
use crate::raw::Transport;

/// The outcome of a run.
#[derive(Debug)]
pub struct ChaosReport {
    pub seed: u64,
    /// Share of datagrams lost and of chunks stalled, 0 to 1.
    pub loss: f64,
    pub websocket: OnTransport,
    pub quic: OnTransport,
    pub storms: Storms,
    /// What the proxies of TCP and of UDP did.
    pub network: Option<(Seen, Option<Seen>)>,
    /// Somebody did not want to wait: fewer faults than were meant.
    pub ended_early: bool,
    /// Groups made during the kills.
    pub groups: usize,
    /// Kills by where they happened: a failpoint, `random`, or `starting`.
    pub killed_at: BTreeMap<&'static str, u64>,
    /// Time from spawn to ready of every completed start.
    pub starts: Vec<Duration>,
    /// Sum over all plain devices.
    pub tally: Tally,
    /// Events that applications on the SDK were shown.
    pub shown_by_sdk: u64,
    /// Messages whose outcome the SDK never told, and channels that it was told to forget.
    pub sdk_failures: u64,
    pub took: Duration,
    /// `None` until judged.
    pub verdict: Option<Verdict>,
}

/// Who was on one transport.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnTransport {
    /// Devices, the SDK among them.
    pub devices: usize,
    pub sdk: usize,
    /// WELCOMEs.
    pub connections: u64,
}

impl fmt::Display for OnTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OnTransport {
            devices,
            sdk,
            connections,
        } = self;
        write!(
            f,
            "{devices} devices ({sdk} SDK, {connections} connections)"
        )
    }
}

impl ChaosReport {
    pub(super) fn new(plan: &ChaosPlan) -> ChaosReport {
        ChaosReport {
            seed: plan.seed,
            loss: plan.loss,
            websocket: OnTransport::default(),
            quic: OnTransport::default(),
            storms: Storms::default(),
            network: None,
            ended_early: false,
            groups: 0,
            killed_at: BTreeMap::new(),
            starts: Vec::new(),
            tally: Tally::default(),
            shown_by_sdk: 0,
            sdk_failures: 0,
            took: Duration::ZERO,
            verdict: None,
        }
    }

    pub(super) fn killed(&mut self, at: &'static str) {
        *self.killed_at.entry(at).or_default() += 1;
    }

    pub(super) fn started(&mut self, took: Duration) {
        self.starts.push(took);
    }

    pub(super) fn count(&mut self, transport: Transport, tally: Tally) {
        let on = self.on(transport);
        on.devices += 1;
        on.connections += tally.connections;
        self.tally.unsettled += tally.unsettled;
        self.tally.connections += tally.connections;
        self.tally.dropped += tally.dropped;
        self.tally.resolved_by_welcome += tally.resolved_by_welcome;
        self.tally.hints_lost += tally.hints_lost;
        self.tally.pages += tally.pages;
        self.tally.resyncs += tally.resyncs;
    }

    pub(super) fn count_app(&mut self, transport: Transport, app: AppTally) {
        let on = self.on(transport);
        on.devices += 1;
        on.sdk += 1;
        on.connections += app.connections;
        self.shown_by_sdk += app.shown;
        self.sdk_failures += app.failures;
    }

    fn on(&mut self, transport: Transport) -> &mut OnTransport {
        match transport {
            Transport::Quic => &mut self.quic,
            Transport::WebSocket | Transport::Tls => &mut self.websocket,
        }
    }

    /// Kills so far.
    pub fn kills(&self) -> u64 {
        self.killed_at.values().sum()
    }

    /// Whether the promise held and nothing was forgotten.
    pub fn is_clean(&self) -> bool {
        self.tally.resyncs + self.sdk_failures == 0
            && self.verdict.as_ref().is_some_and(Verdict::is_clean)
    }
}

impl fmt::Display for ChaosReport {
    /// The verdict line (and, if the promise was broken, how).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.starts.iter().max().copied().unwrap_or_default();
        let at: Vec<_> = self
            .killed_at
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let Storms {
            cuts,
            holes,
            half_opens,
            rebinds,
        } = self.storms;
        write!(
            f,
            "chaos seed {}: {} kills ({}) in {:.0?}, slowest start {slowest:.0?}; WebSocket {}, QUIC {}; loss {} %",
            self.seed,
            self.kills(),
            at.join(", "),
            self.took,
            self.websocket,
            self.quic,
            self.loss * 100.0,
        )?;
        if self.ended_early {
            f.write_str(", faults ended early by a signal")?;
        }
        if let Some((_, Some(udp))) = self.network {
            write!(
                f,
                ", {} of {} datagrams lost, {} doubled",
                udp.dropped,
                udp.dropped + udp.forwarded,
                udp.duplicated
            )?;
        }
        if let Some((tcp, _)) = self.network {
            write!(
                f,
                ", {} TCP connections with {} resets",
                tcp.connections, tcp.cuts
            )?;
        }
        write!(
            f,
            ", {cuts} cuts of all, {holes} holes, {half_opens} left half open, {rebinds} changes of address; {} groups made; \
             {} settled by WELCOME, {} pages, {} hints lost, {} shown by the SDK, {} forgotten; ",
            self.groups,
            self.tally.resolved_by_welcome,
            self.tally.pages,
            self.tally.hints_lost,
            self.shown_by_sdk,
            self.tally.resyncs + self.sdk_failures,
        )?;
        match &self.verdict {
            Some(verdict) => verdict.fmt(f),
            None => f.write_str("not judged"),
        }
    }
}
