//! The body of HELLO, and the cursor that it shares with OPEN_CHANNEL.
//!
//! Called by `client_codec`. HELLO is what a node reads before it knows who is there, so each of its parts has a limit of its
//! own, and the whole one that is far below other frames'. The token is not looked into here.

use bytes::BytesMut;

use super::client::{Cursor, Hello, PushMode};
use super::{HEADER_BYTES, WireError};
use crate::event::PendingSend;
use crate::generated::conch as fb;
use crate::layout::{at_most, halves, id, join};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, HELLO_BYTES_MAX, HELLO_CURSORS_MAX, HELLO_PENDING_MAX,
    SYNC_TOKEN_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::{Alias, ChannelId, Code, MessageKey, SessionId, table};

/// Top bit of an alias: the server chose it.
const SERVER_ALIAS: Alias = 1 << 31;

pub(super) fn decode(body: &[u8]) -> Result<Hello, WireError> {
    at_most(
        HEADER_BYTES + body.len(),
        HELLO_BYTES_MAX,
        "HELLO is longer than its limit",
    )?;
    let hello = table::root::<fb::Hello<'_>>(body)?;
    let client = hello.client().unwrap_or_default();
    let sync_token = hello.sync_token().map_or(&[][..], |token| token.bytes());
    let cursors = hello.cursors().unwrap_or_default();
    let pending = hello.pending().unwrap_or_default();
    at_most(
        client.len(),
        CLIENT_NAME_BYTES_MAX,
        "client name is longer than its limit",
    )?;
    at_most(
        hello.token().len(),
        TOKEN_BYTES_MAX,
        "token is longer than its limit",
    )?;
    at_most(
        sync_token.len(),
        SYNC_TOKEN_BYTES_MAX,
        "sync token is longer than its limit",
    )?;
    at_most(
        cursors.len(),
        HELLO_CURSORS_MAX,
        "more cursors than HELLO may have",
    )?;
    at_most(
        pending.len(),
        HELLO_PENDING_MAX,
        "more pending sends than HELLO may ask about",
    )?;
    Ok(Hello {
        minor: hello.minor(),
        features: hello.features().map_or(0, join),
        token: hello.token().to_owned(),
        client: client.to_owned(),
        sync_token: sync_token.to_vec(),
        cursors: cursors
            .iter()
            .map(decode_cursor)
            .collect::<Result<_, _>>()?,
        pending: pending
            .iter()
            .map(|pending| {
                Ok(PendingSend {
                    channel: ChannelId(id(pending.channel())?),
                    key: MessageKey(pending.key().into()),
                })
            })
            .collect::<Result<_, WireError>>()?,
        replaces: hello.replaces().map(id).transpose()?.map(SessionId),
        credit_bytes: hello.credit_bytes(),
        push: match hello.push_mode() {
            0 => PushMode::All,
            1 => PushMode::Opened,
            _ => return Err(WireError::bad("push mode is not known")),
        },
    })
}

pub(super) fn put(out: &mut BytesMut, hello: &Hello) {
    table::put(out, |builder| {
        let token = Some(builder.create_string(&hello.token));
        let client = (!hello.client.is_empty()).then(|| builder.create_string(&hello.client));
        let sync_token =
            (!hello.sync_token.is_empty()).then(|| builder.create_vector(&hello.sync_token));
        let cursors = (!hello.cursors.is_empty())
            .then(|| builder.create_vector_from_iter(hello.cursors.iter().map(open_cursor)));
        let pending =
            (!hello.pending.is_empty()).then(|| {
                builder.create_vector_from_iter(hello.pending.iter().map(|pending| {
                    fb::PendingSend::new(&halves(pending.channel.0), &pending.key.0)
                }))
            });
        let features = (hello.features != 0).then(|| halves(hello.features));
        let replaces = hello.replaces.map(|session| halves(session.0));
        let root = fb::Hello::create(
            builder,
            &fb::HelloArgs {
                minor: hello.minor,
                features: features.as_ref(),
                token,
                client,
                sync_token,
                cursors,
                pending,
                replaces: replaces.as_ref(),
                credit_bytes: hello.credit_bytes,
                push_mode: hello.push as u8,
            },
        );
        builder.finish_minimal(root);
    });
}

/// A cursor whose alias a client may choose: not 0, top bit clear.
pub(super) fn decode_cursor(open: &fb::OpenCursor) -> Result<Cursor, WireError> {
    let alias = open.alias();
    if alias == 0 || alias >= SERVER_ALIAS {
        return Err(WireError::new(
            Code::BadAlias,
            "alias is not one that a client may choose",
        ));
    }
    let cursor = open.cursor();
    Ok(Cursor {
        channel: ChannelId(id(cursor.channel())?),
        generation: cursor.generation(),
        seq: cursor.seq(),
        alias,
    })
}

pub(super) fn open_cursor(cursor: &Cursor) -> fb::OpenCursor {
    let place = fb::Cursor::new(&halves(cursor.channel.0), cursor.generation, cursor.seq);
    fb::OpenCursor::new(&place, cursor.alias)
}
