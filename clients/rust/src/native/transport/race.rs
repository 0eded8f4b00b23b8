//! QUIC with a head start against WebSocket: whoever is connected first.
//!
//! WebSocket begins when the head start is over, or at once when QUIC has failed. If it wins while QUIC is still trying,
//! that attempt is handed back: its end tells whether UDP is blocked or only slow.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::sleep;

/// An attempt that can outlive the race.
pub(super) type Attempt<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How the race ended.
pub(super) enum Winner<Q, W, E> {
    Quic(Q),
    WebSocket(W, Rival<Q, E>),
}

/// What became of QUIC when WebSocket won.
pub(super) enum Rival<Q, E> {
    Failed(E),
    Running(Attempt<Q, E>),
}

/// The error is that of the attempt that failed last.
pub(super) async fn race<Q, W, E>(
    mut quic: Attempt<Q, E>,
    websocket: impl Future<Output = Result<W, E>>,
    head_start: Duration,
) -> Result<Winner<Q, W, E>, E> {
    let alone = tokio::select! {
        biased;
        ended = &mut quic => Some(ended),
        () = sleep(head_start) => None,
    };
    match alone {
        Some(Ok(quic)) => return Ok(Winner::Quic(quic)),
        Some(Err(error)) => return Ok(Winner::WebSocket(websocket.await?, Rival::Failed(error))),
        None => {}
    }
    let mut websocket = pin!(websocket);
    tokio::select! {
        biased;
        ended = &mut quic => match ended {
            Ok(quic) => Ok(Winner::Quic(quic)),
            Err(error) => Ok(Winner::WebSocket(websocket.await?, Rival::Failed(error))),
        },
        ended = &mut websocket => match ended {
            Ok(websocket) => Ok(Winner::WebSocket(websocket, Rival::Running(quic))),
            Err(_) => Ok(Winner::Quic(quic.await?)),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::cell::Cell;

    use tokio::sync::oneshot;

    use super::*;

    type Ended = Result<&'static str, &'static str>;

    /// An attempt that ends when told to.
    fn attempt() -> (oneshot::Sender<Ended>, Attempt<&'static str, &'static str>) {
        let (end, ended) = oneshot::channel::<Ended>();
        (end, Box::pin(async { ended.await.unwrap() }))
    }

    #[tokio::test]
    async fn websocket_does_not_begin_while_quic_has_its_head_start() {
        let (end, quic) = attempt();
        let begun = Cell::new(false);
        let websocket = async {
            begun.set(true);
            std::future::pending::<Ended>().await
        };
        end.send(Ok("quic")).unwrap();
        let winner = race(quic, websocket, Duration::from_secs(3_600)).await;
        assert!(matches!(winner, Ok(Winner::Quic("quic"))));
        assert!(!begun.get());
    }

    #[tokio::test]
    async fn websocket_begins_at_once_when_quic_failed() {
        let (end, quic) = attempt();
        end.send(Err("blocked")).unwrap();
        let winner = race(quic, async { Ok("ws") }, Duration::from_secs(3_600)).await;
        assert!(matches!(
            winner,
            Ok(Winner::WebSocket("ws", Rival::Failed("blocked")))
        ));
    }

    #[tokio::test]
    async fn silent_quic_loses_and_is_handed_back() {
        let (end, quic) = attempt();
        let winner = race(quic, async { Ok("ws") }, Duration::ZERO).await;
        let Ok(Winner::WebSocket("ws", Rival::Running(quic))) = winner else {
            panic!("QUIC was silent");
        };
        end.send(Ok("late")).unwrap();
        assert_eq!(quic.await, Ok("late"));
    }

    #[tokio::test]
    async fn whoever_is_left_decides() {
        let (end, quic) = attempt();
        let websocket = async {
            end.send(Ok("quic")).unwrap();
            Err::<(), _>("refused")
        };
        let winner = race(quic, websocket, Duration::ZERO).await;
        assert!(matches!(winner, Ok(Winner::Quic("quic"))));
        let (end, quic) = attempt();
        end.send(Err("blocked")).unwrap();
        let lost = race(quic, async { Err::<(), _>("refused") }, Duration::ZERO).await;
        assert!(matches!(lost, Err("refused")));
    }
}
