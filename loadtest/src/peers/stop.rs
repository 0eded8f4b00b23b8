//! The wish that a comparison ends now: Ctrl-C or SIGTERM, heard by loops that block and by futures.

use std::future::Future;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Cheap to clone; all clones hear it.
#[derive(Clone, Debug)]
pub struct Stop {
    is_wished: watch::Receiver<bool>,
}

impl Stop {
    /// Never wished: for tests.
    pub fn never() -> Stop {
        Stop {
            is_wished: watch::channel(false).1,
        }
    }

    /// Wished by Ctrl-C or SIGTERM from here on. Must be called within a tokio runtime.
    pub fn on_signals() -> Result<Stop> {
        let (wish, is_wished) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let _ = wish.send(true);
            // Kept, so that nobody takes its end for the wish.
            std::future::pending::<()>().await;
        });
        Ok(Stop { is_wished })
    }

    /// An error once it is wished.
    pub fn check(&self) -> Result<()> {
        ensure!(!*self.is_wished.borrow(), "interrupted");
        Ok(())
    }

    /// Does `work`, or drops it when it is wished.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut is_wished = self.is_wished.clone();
        let wished = async {
            if is_wished.wait_for(|it| *it).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            done = work => done,
            () = wished => bail!("interrupted"),
        }
    }
}
