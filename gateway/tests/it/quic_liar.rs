//! A QUIC client that believes to have been granted more than the node grants, and takes it.
//!
//! quinn's clients keep to the transport parameters of their peer; this one changes them on their way in.

use std::any::Any;
use std::sync::Arc;

use conch_wire::ClientFrame;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey};
use quinn::{
    ClientConfig, ConnectError, ConnectionError, ConnectionId, Side, TransportConfig,
    TransportErrorCode, VarInt,
};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;

use crate::client::encoded;
use crate::quic::world;
use crate::quic_client::{Options, QuicClient, dial};
use crate::world::{World, eventually};

/// RFC 9000, section 18.2.
const INITIAL_MAX_DATA: u8 = 0x04;
const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u8 = 0x06;
const INITIAL_MAX_STREAMS_BIDI: u8 = 0x08;

/// Parameters that are taken for this, whatever the node says; at least 64.
type Lies = &'static [(u8, u32)];

struct Liar {
    honest: Arc<QuicClientConfig>,
    lies: Lies,
}

struct Session {
    honest: Box<dyn crypto::Session>,
    lies: Lies,
}

impl crypto::ClientConfig for Liar {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let honest = self.honest.clone();
        Ok(Box::new(Session {
            honest: honest.start_session(version, server_name, params)?,
            lies: self.lies,
        }))
    }
}

/// A variable-length integer: its value, and its bytes.
fn varint(bytes: &[u8]) -> (u64, usize) {
    let len = 1 << (bytes[0] >> 6);
    let first = u64::from(bytes[0] & 0x3f);
    let rest = bytes[1..len].iter();
    (rest.fold(first, |value, b| value << 8 | u64::from(*b)), len)
}

fn changed(honest: &TransportParameters, lies: Lies) -> TransportParameters {
    let mut written = Vec::new();
    honest.write(&mut written);
    let (mut rest, mut out) = (&written[..], Vec::new());
    while !rest.is_empty() {
        let (id, id_len) = varint(rest);
        let (value_len, len_len) = varint(&rest[id_len..]);
        let end = id_len + len_len + value_len as usize;
        if !lies.iter().any(|(lied, _)| u64::from(*lied) == id) {
            out.extend_from_slice(&rest[..end]);
        }
        rest = &rest[end..];
    }
    for (id, value) in lies {
        // In the shortest form.
        if *value < 1 << 14 {
            out.extend_from_slice(&[*id, 2]);
            out.extend_from_slice(&(0x4000 | *value as u16).to_be_bytes());
        } else {
            out.extend_from_slice(&[*id, 4]);
            out.extend_from_slice(&(0x8000_0000 | value).to_be_bytes());
        }
    }
    TransportParameters::read(Side::Client, &mut &out[..]).unwrap()
}

impl crypto::Session for Session {
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let honest = self.honest.transport_parameters()?;
        Ok(honest.map(|honest| changed(&honest, self.lies)))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.honest.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.honest.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.honest.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.honest.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.honest.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.honest.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.honest.read_handshake(buf)
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.honest.write_handshake(buf)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.honest.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.honest.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.honest.export_keying_material(output, label, context)
    }
}

/// A session of a client that takes these for granted.
async fn enter(world: &World, name: &str, lies: Lies) -> QuicClient {
    let tls = Options::of(world).tls(Arc::default());
    let honest = Arc::new(QuicClientConfig::try_from(tls).unwrap());
    let mut config = ClientConfig::new(Arc::new(Liar { honest, lies }));
    let mut transport = TransportConfig::default();
    transport
        .receive_window(VarInt::from_u32(4_000))
        .send_window(1 << 30);
    config.transport_config(Arc::new(transport));
    let at = world.node.quic().unwrap().address;
    let (endpoint, connection) = dial(at, config).await;
    let person = world.sign_up(name).await;
    let mut client = QuicClient::over(endpoint, connection.unwrap()).await;
    client.hello(&person.token).await;
    client
}

/// The connection ended with this transport error, and nothing of it is left; others go on.
async fn ended_with(world: &World, client: QuicClient, code: TransportErrorCode) {
    let ended = client.ended().await;
    assert!(
        matches!(&ended, ConnectionError::ConnectionClosed(close) if close.error_code == code),
        "{ended:?}"
    );
    drop(client);
    let listener = world.node.quic_listener().unwrap();
    eventually(|| world.node.api.edge.hub.is_empty() && listener.open_connections() == 0).await;
    let ben = world.sign_up("ben").await;
    QuicClient::enter(world, &ben).await.ping().await;
}

#[tokio::test]
async fn p071_a_client_that_ignores_the_limit_of_streams_is_closed_by_quic() {
    let world = world().await;
    let client = enter(&world, "ann", &[(INITIAL_MAX_STREAMS_BIDI, 10_000)]).await;
    let half = encoded(&ClientFrame::Sync {
        request: 3,
        token: Vec::new(),
        rows_max: 1,
    });
    let mut open = Vec::new();
    for _ in 0..10_000 {
        let Ok((mut send, recv)) = client.connection.open_bi().await else {
            break;
        };
        let _ = send.write_all(&half[..9]).await;
        open.push((send, recv));
        if client.connection.close_reason().is_some() {
            break;
        }
    }
    ended_with(&world, client, TransportErrorCode::STREAM_LIMIT_ERROR).await;
}

#[tokio::test]
async fn p071_a_client_that_ignores_the_windows_is_closed_by_quic() {
    let world = world().await;
    let lies: Lies = &[
        (INITIAL_MAX_DATA, 100_000_000),
        (INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, 100_000_000),
    ];
    let mut client = enter(&world, "ann", lies).await;
    // It reads nothing, so that the node soon reads nothing of it.
    let ping = encoded(&ClientFrame::Ping { nonce: 9 });
    client.say_bytes(&ping.repeat(100_000)).await;
    ended_with(&world, client, TransportErrorCode::FLOW_CONTROL_ERROR).await;
}
