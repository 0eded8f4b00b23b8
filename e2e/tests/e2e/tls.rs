//! One conversation over every transport: WebSocket, WebSocket over TLS, QUIC with the certificate of the files, and the same with
//! one that the node made for development.

use anyhow::{Result, ensure};
use conch_e2e::{PASSWORD, Place, SOON, enter_over, message};
use conch_loadtest::http::Api;
use conch_loadtest::raw::Transport;
use conch_wire::ServerFrame;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_between_tls_and_quic_under_one_certificate() -> Result<()> {
    let mut place = Place::with_quic()?;
    place.plan = place.plan.with_tls()?;
    converse(&place, Transport::Tls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_between_websocket_and_quic_in_development() -> Result<()> {
    converse(&Place::with_quic()?, Transport::WebSocket).await
}

/// Ann is on the given transport and Ben on QUIC; each hears the other.
async fn converse(place: &Place, transport: Transport) -> Result<()> {
    let node = place.start().await?;
    let api = match node.certificate() {
        Some(certificate) => Api::trusting(node.base_url(), &certificate.pem)?,
        None => Api::new(node.base_url()),
    };
    let ann = api.sign_up("ann", PASSWORD).await?;
    let ben = api.sign_up("ben", PASSWORD).await?;
    let channel = api.direct(&ann.access_token, ben.user).await?;
    let mut ann = enter_over(&node, &ann, channel, 1, transport).await?;
    let mut ben = enter_over(&node, &ben, channel, 1, Transport::Quic).await?;
    for n in 0..10 {
        let (speaker, hearer) = match n % 2 {
            0 => (&mut ann, &mut ben),
            _ => (&mut ben, &mut ann),
        };
        let ack = speaker.say(1, &message(n)).await?;
        let frame = hearer
            .wait_for("the message", SOON, |f| {
                matches!(f, ServerFrame::Deliver { .. })
            })
            .await?;
        let ServerFrame::Deliver { event, .. } = frame else {
            anyhow::bail!("{frame:?}");
        };
        ensure!(event.seq == ack.seq && event.text() == Some(&*format!("message {n}")));
    }
    let other = match transport {
        Transport::Tls => Transport::WebSocket,
        _ => Transport::Tls,
    };
    ensure!(
        node.doors().endpoint(other).is_err(),
        "one HTTP port speaks TLS or does not"
    );
    Ok(())
}
