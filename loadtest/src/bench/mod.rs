//! `conch-load bench`: Conch beside its peers, in rounds that interleave, into `table.json`, `run.json` and `docs/performance.md`.
//!
//! A [`Case`] is one kind of load. In every round every case is run on every server that it is for, one after the other, each
//! started afresh; so a disturbance of the machine hits all alike, and ratios are taken within a round. What was measured goes
//! into the [`Ledger`]; `table` and `goals` make medians and ratios of it, `document` puts them between the markers of the
//! document, whose prose is kept by hand. A run that fails or is interrupted leaves the files of what it had.

mod case;
mod document;
mod goals;
mod header;
mod idle;
mod ledger;
mod loaded;
mod own;
mod raw_commit;
mod slo;
mod stalled;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

pub use case::Case;

use crate::peers::conch::Template;
use crate::peers::{self, Peer, Running};
use crate::stop::Stop;
use header::Header;
use ledger::{Entry, Ledger};

/// What is compared, how often, and where the results go.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    pub rounds: u32,
    pub cases: Vec<Case>,
    pub servers: Vec<Peer>,
    /// Length of what is measured under load, in seconds.
    pub seconds: u64,
    /// Length of a saturated run of Conch, in seconds: long enough for index work and compaction to be in it.
    pub saturated_seconds: u64,
    /// A folder on the disk that is meant; what is made there is removed.
    pub folder: PathBuf,
    /// Where `table.json` and `run.json` go.
    pub results: PathBuf,
    /// A document with markers to fill.
    pub document: Option<PathBuf>,
    /// Said in the document: how to do it again.
    pub command: String,
}

/// What came of it.
#[derive(Debug)]
pub struct BenchReport {
    text: String,
    /// Every row has at least one valid round.
    pub is_whole: bool,
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What one comparison shares between its runs.
struct Bench<'a> {
    plan: &'a BenchPlan,
    folder: PathBuf,
    template: Option<Template>,
    stop: Stop,
    /// Highest rate within the objective, by server, from the first round.
    rates_max: BTreeMap<Peer, u32>,
}

/// Runs the comparison. `say` gets a line for each run. Whatever ends it, the files hold what was measured.
pub async fn run(plan: &BenchPlan, stop: Stop, mut say: impl FnMut(&str)) -> Result<BenchReport> {
    std::fs::create_dir_all(&plan.results)
        .with_context(|| format!("make {}", plan.results.display()))?;
    let header = Header::collect(plan).await?;
    let temporary = tempfile::Builder::new()
        .prefix("conch-bench-")
        .tempdir_in(&plan.folder)
        .with_context(|| format!("make a folder in {}", plan.folder.display()))?;
    let mut ledger = Ledger::default();
    let mut bench = Bench {
        plan,
        folder: temporary.path().to_owned(),
        template: None,
        stop,
        rates_max: BTreeMap::new(),
    };
    let ended = bench.rounds(&mut ledger, &mut say).await;
    table::write(&plan.results, &header, &ledger).context("write the results")?;
    ended?;
    if let Some(path) = &plan.document {
        document::update(path, &document::blocks(&header, &ledger))?;
    }
    Ok(BenchReport {
        text: table::text(&ledger),
        is_whole: ledger.rows().iter().all(|row| row.rounds > 0),
    })
}

impl Bench<'_> {
    async fn rounds(&mut self, ledger: &mut Ledger, say: &mut impl FnMut(&str)) -> Result<()> {
        self.make_template().await?;
        for round in 0..self.plan.rounds {
            for case in self.plan.cases.clone() {
                if case.is_taken_once() && round > 0 {
                    continue;
                }
                for peer in case.peers() {
                    if !self.plan.servers.contains(peer) {
                        continue;
                    }
                    self.stop.check()?;
                    let began = Instant::now();
                    // The measures of a node are large futures.
                    let measured = Box::pin(self.measure(round, case, *peer)).await;
                    let entries = measured.with_context(|| {
                        format!("case {case}, server {peer}, round {}", round + 1)
                    })?;
                    let took = began.elapsed().as_secs_f64();
                    let of = format!("round {}/{}", round + 1, self.plan.rounds);
                    for entry in &entries {
                        say(&format!("{of} {} {entry} ({took:.1} s)", entry.case));
                    }
                    ledger.add(round, entries);
                }
            }
        }
        Ok(())
    }

    /// People and channels for all cases, if Conch is one of the servers.
    async fn make_template(&mut self) -> Result<()> {
        let mut topologies = Vec::new();
        for case in &self.plan.cases {
            if let Some(topology) = case.topology()
                && case.peers().contains(&Peer::Conch)
                && !topologies.contains(&topology)
            {
                topologies.push(topology);
            }
        }
        if self.plan.servers.contains(&Peer::Conch) && !topologies.is_empty() {
            let folder = self.folder.join("template");
            self.template = Some(Template::make(&folder, &topologies).await?);
        }
        Ok(())
    }

    /// One run of one case on one server, in a folder of its own that is removed.
    async fn measure(&mut self, round: u32, case: Case, peer: Peer) -> Result<Vec<Entry>> {
        let folder = self.folder.join(format!("{case}-{peer}-{round}"));
        std::fs::create_dir_all(&folder)?;
        let entries = match case {
            Case::PairsSaturated | Case::Pairs2000 | Case::Fan100 | Case::Fan1000 => {
                let server = self.start(peer, &folder).await?;
                let plan = case.loaded(peer, self.plan);
                let (stop, folder) = (self.stop.clone(), folder.clone());
                blocking(move || loaded::measure(server, &plan, &folder, &stop)).await
            }
            Case::Slo => {
                let server = self.start(peer, &folder).await?;
                let known = slo::Known {
                    own: self.rates_max.get(&peer).copied(),
                    conch: self.rates_max.get(&Peer::Conch).copied(),
                };
                let (stop, seconds) = (self.stop.clone(), self.plan.seconds);
                let (rate_max, entries) =
                    blocking(move || slo::measure(server, known, seconds, &stop)).await?;
                if let Some(rate_max) = rate_max {
                    self.rates_max.insert(peer, rate_max);
                }
                Ok(entries)
            }
            Case::Stalled => {
                let server = self.start(peer, &folder).await?;
                let (stop, seconds) = (self.stop.clone(), self.plan.seconds);
                blocking(move || stalled::measure(server, seconds, &stop)).await
            }
            Case::Idle if peer != Peer::Conch => {
                let (stop, folder) = (self.stop.clone(), folder.clone());
                blocking(move || idle::measure(peer, &folder, &stop)).await
            }
            Case::Idle => self.stop.or(Box::pin(own::idle(&folder))).await,
            Case::Connect => self.stop.or(Box::pin(own::connect(&folder))).await,
            Case::Transports => {
                let measured = own::transports(&folder, self.plan.seconds);
                self.stop.or(Box::pin(measured)).await
            }
        };
        // What a failed run left behind goes with the whole temporary folder.
        let entries = entries?;
        std::fs::remove_dir_all(&folder)?;
        Ok(entries)
    }

    async fn start(&self, peer: Peer, folder: &Path) -> Result<Running> {
        match (peer, &self.template) {
            (Peer::Conch, Some(template)) => template.start(folder).await,
            _ => {
                let folder = folder.to_owned();
                blocking(move || peers::start(peer, &folder)).await
            }
        }
    }
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.context("a run panicked")?
}
