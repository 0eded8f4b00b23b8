//! Layouts of the frames that a node sends; `welcome`, `channels` and `history_page` hold the larger ones.
//!
//! `decode` runs in clients; events share the memory of the body that they came in. A client is a little more tolerant
//! than a node, so that nodes may be newer: unknown flags of events and acks are kept, and an unknown error code becomes
//! the one of its hundred. Kinds, roles, counts and lengths are checked all the same. `encode` runs in the node.

use bytes::{BufMut, Bytes, BytesMut};

use super::server::{ErrorFrame, ServerFrame};
use super::{
    EVENT_HEADER_BYTES, FrameHeader, WireError, channels, frame_type, history_page, welcome,
};
use crate::Code;
use crate::event::{Ack, AckFlags, Event, FIRST_CHANGE_KIND};
use crate::generated::conch as fb;
use crate::layout::{exact, put_frame, time, time_parts};
use crate::limits::{GOAWAY_ENDPOINTS_MAX, SEND_MANY_ITEMS_MAX, SEQ_MAX};
use crate::table::{self, put_text};

/// Bytes of one ack.
const ACK_BYTES: usize = size_of::<fb::SendAck>();
impl ServerFrame {
    /// Decodes what a server sent. Events share `body`.
    pub fn decode(header: FrameHeader, body: Bytes) -> Result<ServerFrame, WireError> {
        header.check(&body)?;
        Ok(match header.frame_type {
            frame_type::WELCOME => {
                header.reference_unset()?;
                ServerFrame::Welcome(Box::new(welcome::decode(&body)?))
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
                ServerFrame::ChannelHead(channels::decode_head(&fb::ChannelHead(exact(&body)?))?)
            }
            frame_type::SYNC_NOW => {
                header.reference_unset()?;
                exact::<0>(&body)?;
                ServerFrame::SyncNow
            }
            frame_type::CHANNEL_OPENED => ServerFrame::ChannelOpened {
                request: header.reference,
                opened: channels::decode_opened(&body)?,
            },
            frame_type::SYNC_CHANGES => ServerFrame::SyncChanges {
                request: header.reference,
                changes: channels::decode_changes(&body)?,
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
                put_frame(out, frame_type, 0, |out| welcome::put(out, welcome))
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
                    out.put_slice(&channels::channel_head(head).0)
                });
            }
            ServerFrame::SyncNow | ServerFrame::Skipped { .. } => {
                put_frame(out, frame_type, 0, |_| {})
            }
            ServerFrame::ChannelOpened { request, opened } => {
                put_frame(out, frame_type, *request, |out| {
                    channels::put_opened(out, opened)
                });
            }
            ServerFrame::SyncChanges { request, changes } => {
                put_frame(out, frame_type, *request, |out| {
                    channels::put_changes(out, changes)
                });
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
