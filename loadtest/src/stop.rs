//! The wish that a run ends now: Ctrl-C or SIGTERM, heard by loops that block and by futures. A second one is heard too, by who
//! takes time to end.

use std::future::Future;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Cheap to clone; all clones hear it.
#[derive(Clone, Debug)]
pub struct Stop {
    wishes: watch::Receiver<u32>,
}

impl Stop {
    /// Never wished: for tests.
    pub fn never() -> Stop {
        Stop {
            wishes: watch::channel(0).1,
        }
    }

    /// Wished by Ctrl-C or SIGTERM from here on. Must be called within a tokio runtime.
    pub fn on_signals() -> Result<Stop> {
        let (wish, wishes) = watch::channel(0);
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        tokio::spawn(async move {
            // The sender is kept for ever, so that nobody takes its end for a wish.
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                wish.send_modify(|count| *count += 1);
            }
        });
        Ok(Stop { wishes })
    }

    /// Whether it is wished.
    pub fn is_wished(&self) -> bool {
        *self.wishes.borrow() > 0
    }

    /// An error once it is wished.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.is_wished(), "interrupted");
        Ok(())
    }

    /// Does `work`, or drops it when it is wished.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.or_after(1, work).await
    }

    /// Does `work`, or drops it at the second wish: for what ends in order at the first.
    pub async fn or_again<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.or_after(2, work).await
    }

    async fn or_after<T>(&self, wishes: u32, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut heard = self.wishes.clone();
        let wished = async {
            if heard.wait_for(|it| *it >= wishes).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            done = work => done,
            () = wished => bail!("interrupted"),
        }
    }
}
