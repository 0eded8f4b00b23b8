//! Layouts of the frames that a node sends, except HISTORY_PAGE, which has a file of its own.
//!
//! `decode` runs in clients; events share the memory of the body that they came in. A client is a little more tolerant
//! than a node, so that nodes may be newer: unknown flags of events and acks are kept, and an unknown error code becomes
//! the one of its hundred. Kinds, roles, counts and lengths are checked all the same. `encode` runs in the node.

use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::{FlatBufferBuilder, WIPOffset};

use super::history_page;
use super::server::{
    ChannelHead, ChannelOpened, ErrorFrame, Limits, ServerFrame, SyncChanges, SyncRow, Welcome,
};
use super::{EVENT_HEADER_BYTES, FrameHeader, WireError, frame_type};
use crate::event::{
    Ack, AckFlags, ChannelKind, Event, FIRST_CHANGE_KIND, MemberRole, PendingAnswer,
};
use crate::generated::conch as fb;
use crate::layout::{exact, halves, id, join, put_frame, time, time_parts, zero};
use crate::limits::{
    GOAWAY_ENDPOINTS_MAX, HELLO_PENDING_MAX, SEND_MANY_ITEMS_MAX, SEQ_MAX, SYNC_ROWS_MAX,
    SYNC_TOKEN_BYTES_MAX, TITLE_CHARS_MAX,
};
use crate::{ChannelId, Code, DeviceId, SessionId, UserId, table};

/// Bytes of one ack.
const ACK_BYTES: usize = size_of::<fb::SendAck>();
/// States of a [`fb::PendingAnswer`].
const PENDING_UNKNOWN: u8 = 0;
const PENDING_STORED: u8 = 1;
const PENDING_ABSENT: u8 = 2;

impl ServerFrame {
    /// Decodes what a server sent. Events share `body`.
    pub fn decode(header: FrameHeader, body: Bytes) -> Result<ServerFrame, WireError> {
        header.check(&body)?;
        Ok(match header.frame_type {
            frame_type::WELCOME => {
                header.reference_unset()?;
                ServerFrame::Welcome(Box::new(decode_welcome(&body)?))
            }
            frame_type::DELIVER => {
                let event = Event::decode_body(body)?;
                if event.kind >= FIRST_CHANGE_KIND {
                    return Err(WireError::bad("DELIVER of an event that is no message"));
                }
                ServerFrame::Deliver {
                    alias: header.reference_set()?,
                    event,
                }
            }
            frame_type::EVENT => {
                let event = Event::decode_body(body)?;
                if event.kind < FIRST_CHANGE_KIND {
                    return Err(WireError::bad("EVENT of a message"));
                }
                ServerFrame::Event {
                    alias: header.reference_set()?,
                    event,
                }
            }
            frame_type::SEND_ACK => ServerFrame::SendAck {
                request: header.reference_set()?,
                acks: decode_acks(&body)?,
            },
            frame_type::CHANNEL_HEAD => {
                header.reference_unset()?;
                ServerFrame::ChannelHead(decode_head(&fb::ChannelHead(exact(&body)?))?)
            }
            frame_type::SYNC_NOW => {
                header.reference_unset()?;
                exact::<0>(&body)?;
                ServerFrame::SyncNow
            }
            frame_type::CHANNEL_OPENED => ServerFrame::ChannelOpened {
                request: header.reference,
                opened: decode_opened(&body)?,
            },
            frame_type::SYNC_CHANGES => ServerFrame::SyncChanges {
                request: header.reference,
                changes: decode_changes(&body)?,
            },
            frame_type::HISTORY_PAGE => ServerFrame::HistoryPage {
                request: header.reference_set()?,
                page: history_page::decode(body)?,
            },
            frame_type::ERROR => ServerFrame::Error {
                request: header.reference,
                error: decode_error(&body)?,
            },
            frame_type::SERVER_CREDIT => {
                header.reference_unset()?;
                ServerFrame::Credit {
                    bytes: u32::from_le_bytes(exact(&body)?),
                }
            }
            frame_type::PONG => ServerFrame::Pong {
                nonce: header.reference,
                inbox_position: u64::from_le_bytes(exact(&body)?),
            },
            frame_type::GOAWAY => {
                header.reference_unset()?;
                decode_goaway(&body)?
            }
            frame_type::AUTH_EXPIRING => {
                header.reference_unset()?;
                let expiring = table::root::<fb::AuthExpiring<'_>>(&body)?;
                ServerFrame::AuthExpiring {
                    expires_in_ms: expiring.expires_in_ms(),
                }
            }
            frame_type::AUTH_REFRESHED => {
                let refreshed = table::root::<fb::AuthRefreshed<'_>>(&body)?;
                ServerFrame::AuthRefreshed {
                    request: header.reference_set()?,
                    expires_in_ms: refreshed.expires_in_ms(),
                }
            }
            _ => ServerFrame::Skipped {
                frame_type: header.unknown()?,
            },
        })
    }

    /// Appends the whole frame to `out`. Values must lie within [`crate::limits`].
    pub fn encode(&self, out: &mut BytesMut) {
        let frame_type = self.frame_type();
        match self {
            ServerFrame::Welcome(welcome) => {
                put_frame(out, frame_type, 0, |out| put_welcome(out, welcome))
            }
            ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
                put_frame(out, frame_type, *alias, |out| event.put_body(out));
            }
            ServerFrame::SendAck { request, acks } => put_frame(out, frame_type, *request, |out| {
                for ack in acks {
                    let (ts_lo, ts_hi) = time_parts(ack.time_ms);
                    out.put_slice(&fb::SendAck::new(ack.seq, ts_lo, ts_hi, ack.flags.0).0);
                }
            }),
            ServerFrame::ChannelHead(head) => {
                put_frame(out, frame_type, 0, |out| {
                    out.put_slice(&channel_head(head).0)
                });
            }
            ServerFrame::SyncNow | ServerFrame::Skipped { .. } => {
                put_frame(out, frame_type, 0, |_| {})
            }
            ServerFrame::ChannelOpened { request, opened } => {
                put_frame(out, frame_type, *request, |out| put_opened(out, opened));
            }
            ServerFrame::SyncChanges { request, changes } => {
                put_frame(out, frame_type, *request, |out| put_changes(out, changes));
            }
            ServerFrame::HistoryPage { request, page } => history_page::put(out, *request, page),
            ServerFrame::Error { request, error } => {
                put_frame(out, frame_type, *request, |out| put_error(out, error));
            }
            ServerFrame::Credit { bytes } => {
                put_frame(out, frame_type, 0, |out| out.put_u32_le(*bytes))
            }
            ServerFrame::Pong {
                nonce,
                inbox_position,
            } => {
                put_frame(out, frame_type, *nonce, |out| {
                    out.put_u64_le(*inbox_position)
                });
            }
            ServerFrame::Goaway {
                code,
                delay_min_ms,
                delay_max_ms,
                endpoints,
            } => {
                put_frame(out, frame_type, 0, |out| {
                    table::put(out, |builder| {
                        let endpoints = (!endpoints.is_empty()).then(|| {
                            let names: Vec<_> = endpoints
                                .iter()
                                .map(|name| builder.create_string(name))
                                .collect();
                            builder.create_vector(&names)
                        });
                        let root = fb::Goaway::create(
                            builder,
                            &fb::GoawayArgs {
                                code: code.number(),
                                delay_min_ms: *delay_min_ms,
                                delay_max_ms: *delay_max_ms,
                                endpoints,
                            },
                        );
                        builder.finish_minimal(root);
                    });
                });
            }
            ServerFrame::AuthExpiring { expires_in_ms } => put_frame(out, frame_type, 0, |out| {
                table::put(out, |builder| {
                    let args = fb::AuthExpiringArgs {
                        expires_in_ms: *expires_in_ms,
                    };
                    let root = fb::AuthExpiring::create(builder, &args);
                    builder.finish_minimal(root);
                });
            }),
            ServerFrame::AuthRefreshed {
                request,
                expires_in_ms,
            } => put_frame(out, frame_type, *request, |out| {
                table::put(out, |builder| {
                    let args = fb::AuthRefreshedArgs {
                        expires_in_ms: *expires_in_ms,
                    };
                    let root = fb::AuthRefreshed::create(builder, &args);
                    builder.finish_minimal(root);
                });
            }),
        }
    }

    /// The type byte of this frame.
    pub fn frame_type(&self) -> u8 {
        match self {
            ServerFrame::Welcome(_) => frame_type::WELCOME,
            ServerFrame::Deliver { .. } => frame_type::DELIVER,
            ServerFrame::Event { .. } => frame_type::EVENT,
            ServerFrame::SendAck { .. } => frame_type::SEND_ACK,
            ServerFrame::ChannelHead(_) => frame_type::CHANNEL_HEAD,
            ServerFrame::SyncNow => frame_type::SYNC_NOW,
            ServerFrame::ChannelOpened { .. } => frame_type::CHANNEL_OPENED,
            ServerFrame::SyncChanges { .. } => frame_type::SYNC_CHANGES,
            ServerFrame::HistoryPage { .. } => frame_type::HISTORY_PAGE,
            ServerFrame::Error { .. } => frame_type::ERROR,
            ServerFrame::Credit { .. } => frame_type::SERVER_CREDIT,
            ServerFrame::Pong { .. } => frame_type::PONG,
            ServerFrame::Goaway { .. } => frame_type::GOAWAY,
            ServerFrame::AuthExpiring { .. } => frame_type::AUTH_EXPIRING,
            ServerFrame::AuthRefreshed { .. } => frame_type::AUTH_REFRESHED,
            ServerFrame::Skipped { frame_type } => *frame_type,
        }
    }
}

fn decode_welcome(body: &[u8]) -> Result<Welcome, WireError> {
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

fn put_welcome(out: &mut BytesMut, welcome: &Welcome) {
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

fn decode_acks(body: &[u8]) -> Result<Vec<Ack>, WireError> {
    let (acks, rest) = body.as_chunks::<ACK_BYTES>();
    if acks.is_empty() || !rest.is_empty() {
        return Err(WireError::bad("SEND_ACK is not a list of acks"));
    }
    if acks.len() > SEND_MANY_ITEMS_MAX {
        return Err(WireError::too_large(
            "more acks than SEND_MANY has messages",
        ));
    }
    acks.iter()
        .map(|bytes| {
            let ack = fb::SendAck(*bytes);
            match ack.seq() {
                seq @ 1..=SEQ_MAX => Ok(Ack {
                    seq,
                    time_ms: time(ack.ts_lo(), ack.ts_hi()),
                    flags: AckFlags(ack.flags()),
                }),
                _ => Err(WireError::bad("seq is out of range")),
            }
        })
        .collect()
}

fn decode_head(head: &fb::ChannelHead) -> Result<ChannelHead, WireError> {
    Ok(ChannelHead {
        channel: ChannelId(id(head.channel())?),
        head_seq: head.head_seq(),
        head_ordinal: head.head_ordinal(),
        read_seq: head.read_seq(),
        read_ordinal: head.read_ordinal(),
        mentions: head.mentions(),
    })
}

fn channel_head(head: &ChannelHead) -> fb::ChannelHead {
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

fn put_text<'a>(builder: &mut FlatBufferBuilder<'a>, text: &str) -> Option<WIPOffset<&'a str>> {
    (!text.is_empty()).then(|| builder.create_string(text))
}

fn decode_opened(body: &[u8]) -> Result<ChannelOpened, WireError> {
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

fn put_opened(out: &mut BytesMut, opened: &ChannelOpened) {
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

fn decode_changes(body: &[u8]) -> Result<SyncChanges, WireError> {
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

fn put_changes(out: &mut BytesMut, changes: &SyncChanges) {
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

/// A code that this version knows, or the one that says what to do for its hundred.
fn decode_code(number: u16) -> Result<Code, WireError> {
    Code::nearest(number).ok_or(WireError::bad("error code is out of range"))
}

fn decode_error(body: &[u8]) -> Result<ErrorFrame, WireError> {
    let error = table::root::<fb::Error<'_>>(body)?;
    Ok(ErrorFrame {
        code: decode_code(error.code())?,
        retry_after_ms: error.retry_after_ms(),
        refused_type: error.refused_type(),
        item: error.item(),
        detail: error.detail().unwrap_or_default().to_owned(),
    })
}

fn put_error(out: &mut BytesMut, error: &ErrorFrame) {
    table::put(out, |builder| {
        let detail = put_text(builder, &error.detail);
        let root = fb::Error::create(
            builder,
            &fb::ErrorArgs {
                code: error.code.number(),
                retry_after_ms: error.retry_after_ms,
                refused_type: error.refused_type,
                item: error.item,
                detail,
            },
        );
        builder.finish_minimal(root);
    });
}

fn decode_goaway(body: &[u8]) -> Result<ServerFrame, WireError> {
    let goaway = table::root::<fb::Goaway<'_>>(body)?;
    let mut endpoints = Vec::new();
    if let Some(list) = goaway.endpoints() {
        if list.len() > GOAWAY_ENDPOINTS_MAX {
            return Err(WireError::too_large("more endpoints than GOAWAY may name"));
        }
        endpoints.extend(list.iter().map(str::to_owned));
    }
    Ok(ServerFrame::Goaway {
        code: decode_code(goaway.code())?,
        delay_min_ms: goaway.delay_min_ms(),
        delay_max_ms: goaway.delay_max_ms(),
        endpoints,
    })
}

const _: () = assert!(size_of::<fb::EventHdr>() == EVENT_HEADER_BYTES);
