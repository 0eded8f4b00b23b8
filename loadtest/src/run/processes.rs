//! Worker processes: started from this program's own executable, fed by a pipe, heard by another.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::wire::{Order, Said, WorkerPlan};
use crate::node;

/// Reports that wait to be looked at.
const REPORTS_MAX: usize = 1_024;

/// What came from a worker.
#[derive(Debug)]
pub(super) enum Heard {
    Said(Said),
    /// Its output ended; with what it ended, if that is known.
    Ended(Option<ExitStatus>),
    /// A line that is none of what a worker says.
    Nonsense(String),
}

/// One process.
#[derive(Debug)]
struct Process {
    /// `None`: it does not listen any more.
    input: Option<ChildStdin>,
}

/// All of them. Dropping it kills those that are left.
#[derive(Debug)]
pub(super) struct Processes {
    workers: Vec<Process>,
    heard: mpsc::Receiver<(usize, Heard)>,
    /// Hold the processes: aborted, they kill them.
    listeners: JoinSet<()>,
}

impl Processes {
    /// Starts one for each plan.
    pub(super) async fn start(plans: &[WorkerPlan]) -> Result<Processes> {
        let program = node::program("conch-load").context("find the program of the workers")?;
        let (out, heard) = mpsc::channel(REPORTS_MAX);
        let mut processes = Processes {
            workers: Vec::new(),
            heard,
            listeners: JoinSet::new(),
        };
        for (index, plan) in plans.iter().enumerate() {
            let mut child = Command::new(&program)
                .arg("worker")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // A Ctrl-C is for this process, which tells the workers what to do.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .context("start a worker")?;
            let mut input = child.stdin.take().context("a worker has an input")?;
            processes.listeners.spawn(listen(index, child, out.clone()));
            let mut line = serde_json::to_string(plan).context("write a plan")?;
            line.push('\n');
            // A worker that died at once shows by its end.
            let _ = input.write_all(line.as_bytes()).await;
            processes.workers.push(Process { input: Some(input) });
        }
        Ok(processes)
    }

    pub(super) fn count(&self) -> usize {
        self.workers.len()
    }

    /// The next report. `None`: all have ended and everything was heard.
    pub(super) async fn next(&mut self) -> Option<(usize, Heard)> {
        self.heard.recv().await
    }

    /// Gives an order to all that listen.
    pub(super) async fn give(&mut self, order: Order) {
        let mut line = serde_json::to_string(&order).expect("an order is plain numbers and words");
        line.push('\n');
        for worker in &mut self.workers {
            if let Some(input) = &mut worker.input
                && input.write_all(line.as_bytes()).await.is_err()
            {
                worker.input = None;
            }
        }
    }
}

async fn listen(index: usize, mut child: Child, out: mpsc::Sender<(usize, Heard)>) {
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let heard = match serde_json::from_str(&line) {
                Ok(said) => Heard::Said(said),
                Err(error) => Heard::Nonsense(error.to_string()),
            };
            if out.send((index, heard)).await.is_err() {
                return;
            }
        }
    }
    let status = child.wait().await.ok();
    let _ = out.send((index, Heard::Ended(status))).await;
}
