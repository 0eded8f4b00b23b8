//! The bodies that tell of channels: CHANNEL_HEAD, CHANNEL_OPENED and SYNC_CHANGES.
//!
//! Called by `server_codec`. All three carry the same 28-byte head. Rows of a listing share their vtables, so that a page of
//! 500 short rows stays within the verifier's bounds; a test holds that.

use bytes::BytesMut;

use super::WireError;
use super::server::{ChannelHead, ChannelOpened, SyncChanges, SyncRow};
use crate::event::{ChannelKind, MemberRole};
use crate::generated::conch as fb;
use crate::layout::{halves, id};
use crate::limits::{SYNC_ROWS_MAX, SYNC_TOKEN_BYTES_MAX, TITLE_CHARS_MAX};
use crate::table::{self, put_text};
use crate::{ChannelId, Code, UserId};

pub(super) fn decode_head(head: &fb::ChannelHead) -> Result<ChannelHead, WireError> {
    Ok(ChannelHead {
        channel: ChannelId(id(head.channel())?),
        head_seq: head.head_seq(),
        head_ordinal: head.head_ordinal(),
        read_seq: head.read_seq(),
        read_ordinal: head.read_ordinal(),
        mentions: head.mentions(),
    })
}

pub(super) fn channel_head(head: &ChannelHead) -> fb::ChannelHead {
    fb::ChannelHead::new(
        &halves(head.channel.0),
        head.head_seq,
        head.head_ordinal,
        head.read_seq,
        head.read_ordinal,
        head.mentions,
    )
}

fn decode_kind(kind: u8) -> Result<ChannelKind, WireError> {
    ChannelKind::from_u8(kind).ok_or(WireError::bad("kind of a channel is not known"))
}

fn decode_title(title: Option<&str>) -> Result<String, WireError> {
    let title = title.unwrap_or_default();
    if title.chars().count() > TITLE_CHARS_MAX {
        return Err(WireError::too_large("title is longer than its limit"));
    }
    Ok(title.to_owned())
}

pub(super) fn decode_opened(body: &[u8]) -> Result<ChannelOpened, WireError> {
    let opened = table::root::<fb::ChannelOpened<'_>>(body)?;
    if opened.alias() == 0 {
        return Err(WireError::new(Code::BadAlias, "alias is 0"));
    }
    Ok(ChannelOpened {
        alias: opened.alias(),
        head: decode_head(opened.head())?,
        kind: decode_kind(opened.kind())?,
        title: decode_title(opened.title())?,
        peer: opened.peer().map(id).transpose()?.map(UserId),
        first_seq: opened.first_seq(),
        resync: opened.resync(),
    })
}

pub(super) fn put_opened(out: &mut BytesMut, opened: &ChannelOpened) {
    table::put(out, |builder| {
        let title = put_text(builder, &opened.title);
        let peer = opened.peer.map(|peer| halves(peer.0));
        let root = fb::ChannelOpened::create(
            builder,
            &fb::ChannelOpenedArgs {
                alias: opened.alias,
                head: Some(&channel_head(&opened.head)),
                kind: opened.kind as u8,
                title,
                peer: peer.as_ref(),
                first_seq: opened.first_seq,
                resync: opened.resync,
            },
        );
        builder.finish_minimal(root);
    });
}

pub(super) fn decode_changes(body: &[u8]) -> Result<SyncChanges, WireError> {
    let changes = table::root::<fb::SyncChanges<'_>>(body)?;
    let token = changes.token().map_or(&[][..], |token| token.bytes());
    if token.len() > SYNC_TOKEN_BYTES_MAX {
        return Err(WireError::too_large("sync token is longer than its limit"));
    }
    let mut rows = Vec::new();
    if let Some(list) = changes.rows() {
        if list.len() > SYNC_ROWS_MAX {
            return Err(WireError::too_large("more rows than SYNC_CHANGES may have"));
        }
        rows.reserve_exact(list.len());
        for row in list {
            rows.push(decode_row(row)?);
        }
    }
    Ok(SyncChanges {
        reset: changes.reset(),
        rows,
        more: changes.more(),
        token: token.to_vec(),
    })
}

fn decode_row(row: fb::SyncRow<'_>) -> Result<SyncRow, WireError> {
    Ok(SyncRow {
        head: decode_head(row.head())?,
        kind: decode_kind(row.kind())?,
        title: decode_title(row.title())?,
        peer: row.peer().map(id).transpose()?.map(UserId),
        first_seq: row.first_seq(),
        left_seq: row.left_seq(),
        role: MemberRole::from_u8(row.role())
            .ok_or(WireError::bad("role of a member is not known"))?,
    })
}

pub(super) fn put_changes(out: &mut BytesMut, changes: &SyncChanges) {
    table::put(out, |builder| {
        let rows = (!changes.rows.is_empty()).then(|| {
            let rows: Vec<_> = changes
                .rows
                .iter()
                .map(|row| {
                    let title = put_text(builder, &row.title);
                    let peer = row.peer.map(|peer| halves(peer.0));
                    fb::SyncRow::create(
                        builder,
                        &fb::SyncRowArgs {
                            head: Some(&channel_head(&row.head)),
                            kind: row.kind as u8,
                            role: row.role as u8,
                            first_seq: row.first_seq,
                            title,
                            peer: peer.as_ref(),
                            left_seq: row.left_seq,
                        },
                    )
                })
                .collect();
            builder.create_vector(&rows)
        });
        let token = (!changes.token.is_empty()).then(|| builder.create_vector(&changes.token));
        let root = fb::SyncChanges::create(
            builder,
            &fb::SyncChangesArgs {
                reset: changes.reset,
                more: changes.more,
                rows,
                token,
            },
        );
        builder.finish_minimal(root);
    });
}
