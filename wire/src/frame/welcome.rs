//! The body of WELCOME: who and where the client is, what holds on this connection, and what became of its pending sends.
//!
//! Called by `server_codec`. An answer about a pending send is one struct: a state, and for a stored message its place; the
//! place of the other states must be zero, so that each answer has one encoding.

use bytes::BytesMut;

use super::WireError;
use super::server::{Limits, Welcome};
use crate::event::PendingAnswer;
use crate::generated::conch as fb;
use crate::layout::{halves, id, join, time, time_parts, zero};
use crate::limits::{HELLO_PENDING_MAX, SEQ_MAX};
use crate::{DeviceId, SessionId, UserId, table};

/// States of a [`fb::PendingAnswer`].
const PENDING_UNKNOWN: u8 = 0;
const PENDING_STORED: u8 = 1;
const PENDING_ABSENT: u8 = 2;

pub(super) fn decode(body: &[u8]) -> Result<Welcome, WireError> {
    let welcome = table::root::<fb::Welcome<'_>>(body)?;
    let pending = welcome.pending().unwrap_or_default();
    if pending.len() > HELLO_PENDING_MAX {
        return Err(WireError::too_large("more answers than HELLO may ask for"));
    }
    let limits = welcome.limits();
    Ok(Welcome {
        minor: welcome.minor(),
        features: welcome.features().map_or(0, join),
        session: SessionId(id(welcome.session())?),
        user: UserId(id(welcome.user())?),
        device: DeviceId(id(welcome.device())?),
        time_ms: join(welcome.time()),
        generation: welcome.generation(),
        inbox_position: join(welcome.inbox_position()),
        limits: Limits {
            text_chars_max: limits.text_chars_max(),
            payload_bytes_max: limits.payload_bytes_max(),
            frame_bytes_max: limits.frame_bytes_max(),
            pushed_body_bytes_max: limits.pushed_body_bytes_max(),
            send_many_items_max: limits.send_many_items_max(),
            send_many_bytes_max: limits.send_many_bytes_max(),
            sends_in_flight_max: limits.sends_in_flight_max(),
            requests_in_flight_max: limits.requests_in_flight_max(),
            history_items_max: limits.history_items_max(),
            history_bytes_max: limits.history_bytes_max(),
            sync_rows_max: limits.sync_rows_max(),
            group_members_max: limits.group_members_max(),
            heartbeat_ms: limits.heartbeat_ms(),
            silence_max_ms: limits.silence_max_ms(),
        },
        pending: pending
            .iter()
            .map(decode_pending)
            .collect::<Result<_, _>>()?,
        resumed: welcome.resumed(),
        node: welcome.node().unwrap_or_default().to_owned(),
    })
}

fn decode_pending(answer: &fb::PendingAnswer) -> Result<PendingAnswer, WireError> {
    zero(answer.pad())?;
    let time_ms = time(answer.ts_lo(), answer.ts_hi());
    match (answer.state(), answer.seq(), time_ms) {
        (PENDING_STORED, 1..=SEQ_MAX, _) => Ok(PendingAnswer::Stored {
            seq: answer.seq(),
            time_ms,
        }),
        (PENDING_ABSENT, 0, 0) => Ok(PendingAnswer::Absent),
        (PENDING_UNKNOWN, 0, 0) => Ok(PendingAnswer::Unknown),
        _ => Err(WireError::bad("answer about a pending send is not known")),
    }
}

fn pending_answer(answer: &PendingAnswer) -> fb::PendingAnswer {
    match answer {
        PendingAnswer::Stored { seq, time_ms } => {
            let (ts_lo, ts_hi) = time_parts(*time_ms);
            fb::PendingAnswer::new(*seq, ts_lo, ts_hi, PENDING_STORED, 0)
        }
        PendingAnswer::Absent => fb::PendingAnswer::new(0, 0, 0, PENDING_ABSENT, 0),
        PendingAnswer::Unknown => fb::PendingAnswer::new(0, 0, 0, PENDING_UNKNOWN, 0),
    }
}

pub(super) fn put(out: &mut BytesMut, welcome: &Welcome) {
    table::put(out, |builder| {
        let limits = &welcome.limits;
        let limits = Some(fb::Limits::create(
            builder,
            &fb::LimitsArgs {
                text_chars_max: limits.text_chars_max,
                payload_bytes_max: limits.payload_bytes_max,
                frame_bytes_max: limits.frame_bytes_max,
                pushed_body_bytes_max: limits.pushed_body_bytes_max,
                send_many_items_max: limits.send_many_items_max,
                send_many_bytes_max: limits.send_many_bytes_max,
                sends_in_flight_max: limits.sends_in_flight_max,
                requests_in_flight_max: limits.requests_in_flight_max,
                history_items_max: limits.history_items_max,
                history_bytes_max: limits.history_bytes_max,
                sync_rows_max: limits.sync_rows_max,
                group_members_max: limits.group_members_max,
                heartbeat_ms: limits.heartbeat_ms,
                silence_max_ms: limits.silence_max_ms,
            },
        ));
        let pending = (!welcome.pending.is_empty())
            .then(|| builder.create_vector_from_iter(welcome.pending.iter().map(pending_answer)));
        let node = (!welcome.node.is_empty()).then(|| builder.create_string(&welcome.node));
        let features = (welcome.features != 0).then(|| halves(welcome.features));
        let root = fb::Welcome::create(
            builder,
            &fb::WelcomeArgs {
                minor: welcome.minor,
                features: features.as_ref(),
                session: Some(&halves(welcome.session.0)),
                user: Some(&halves(welcome.user.0)),
                device: Some(&halves(welcome.device.0)),
                time: Some(&halves(welcome.time_ms)),
                generation: welcome.generation,
                inbox_position: Some(&halves(welcome.inbox_position)),
                limits,
                pending,
                resumed: welcome.resumed,
                node,
            },
        );
        builder.finish_minimal(root);
    });
}
