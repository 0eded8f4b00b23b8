//! Layouts of the frames that a client sends; `hello` holds the largest.
//!
//! `decode` runs in the node on bytes from anywhere: each arm checks the reference, the layout, and every limit that
//! [`crate::limits`] sets for it. SEND, READ, CREDIT, PING and the other fixed layouts do not allocate. `encode` runs in
//! the SDK. Unknown flag bits are refused, because a node must not take half of what a client means.

use bytes::{BufMut, BytesMut};

use super::client::{ClientFrame, History, Send};
use super::{FrameHeader, WireError, frame_type, hello};
use crate::event::{FIRST_CHANGE_KIND, SendFlags};
use crate::generated::conch as fb;
use crate::layout::{at_most, cut, exact, halves, id, put_frame, zero};
use crate::limits::{
    SEND_MANY_BYTES_MAX, SEND_MANY_ITEMS_MAX, SYNC_TOKEN_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::{ChannelId, Code, MessageKey, table};

/// HISTORY's flag: keep the newest end of the range.
const NEWEST_FIRST: u16 = 1;
impl<'a> ClientFrame<'a> {
    /// Decodes what a client sent. Hot frames borrow from `body`.
    pub fn decode(header: FrameHeader, body: &'a [u8]) -> Result<ClientFrame<'a>, WireError> {
        header.check(body)?;
        Ok(match header.frame_type {
            frame_type::HELLO => {
                header.reference_unset()?;
                ClientFrame::Hello(hello::decode(body)?)
            }
            frame_type::AUTH_REFRESH => {
                let request = header.reference_set()?;
                let token = table::root::<fb::AuthRefresh<'_>>(body)?.token();
                at_most(
                    token.len(),
                    TOKEN_BYTES_MAX,
                    "token is longer than its limit",
                )?;
                ClientFrame::AuthRefresh {
                    request,
                    token: token.to_owned(),
                }
            }
            frame_type::SEND => ClientFrame::Send {
                request: header.reference_set()?,
                send: decode_send(body)?,
            },
            frame_type::SEND_MANY => ClientFrame::SendMany {
                request: header.reference_set()?,
                sends: decode_sends(body)?,
            },
            frame_type::OPEN_CHANNEL => ClientFrame::OpenChannel {
                request: header.reference_set()?,
                cursor: hello::decode_cursor(&fb::OpenCursor(exact(body)?))?,
            },
            frame_type::CLOSE_CHANNEL => {
                exact::<0>(body)?;
                ClientFrame::CloseChannel {
                    alias: header.reference_set()?,
                }
            }
            frame_type::HISTORY => ClientFrame::History {
                request: header.reference_set()?,
                history: decode_history(body)?,
            },
            frame_type::SYNC => {
                let request = header.reference_set()?;
                let sync = table::root::<fb::Sync<'_>>(body)?;
                let token = sync.token().map_or(&[][..], |token| token.bytes());
                at_most(
                    token.len(),
                    SYNC_TOKEN_BYTES_MAX,
                    "sync token is longer than its limit",
                )?;
                at_least_one(sync.rows_max())?;
                ClientFrame::Sync {
                    request,
                    token: token.to_vec(),
                    rows_max: sync.rows_max(),
                }
            }
            frame_type::READ => {
                let mark = fb::ReadMark(exact(body)?);
                ClientFrame::Read {
                    request: header.reference,
                    channel: ChannelId(id(mark.channel())?),
                    seq: mark.seq(),
                }
            }
            frame_type::CREDIT => {
                header.reference_unset()?;
                ClientFrame::Credit {
                    bytes: u32::from_le_bytes(exact(body)?),
                }
            }
            frame_type::PING => {
                exact::<0>(body)?;
                ClientFrame::Ping {
                    nonce: header.reference,
                }
            }
            frame_type::GOODBYE => {
                header.reference_unset()?;
                exact::<0>(body)?;
                ClientFrame::Goodbye
            }
            _ => ClientFrame::Skipped {
                frame_type: header.unknown()?,
            },
        })
    }

    /// Appends the whole frame to `out`. Values must lie within [`crate::limits`].
    pub fn encode(&self, out: &mut BytesMut) {
        let frame_type = self.frame_type();
        match self {
            ClientFrame::Hello(hello) => {
                put_frame(out, frame_type, 0, |out| hello::put(out, hello))
            }
            ClientFrame::AuthRefresh { request, token } => {
                put_frame(out, frame_type, *request, |out| {
                    table::put(out, |builder| {
                        let token = Some(builder.create_string(token));
                        let root = fb::AuthRefresh::create(builder, &fb::AuthRefreshArgs { token });
                        builder.finish_minimal(root);
                    });
                })
            }
            ClientFrame::Send { request, send } => {
                put_frame(out, frame_type, *request, |out| put_send(out, send))
            }
            ClientFrame::SendMany { request, sends } => {
                put_frame(out, frame_type, *request, |out| {
                    for send in sends {
                        out.put_u32_le((size_of::<fb::SendHdr>() + send.tail.len()) as u32);
                        put_send(out, send);
                    }
                })
            }
            ClientFrame::OpenChannel { request, cursor } => {
                put_frame(out, frame_type, *request, |out| {
                    out.put_slice(&hello::open_cursor(cursor).0)
                });
            }
            ClientFrame::CloseChannel { alias } => put_frame(out, frame_type, *alias, |_| {}),
            ClientFrame::History { request, history } => {
                put_frame(out, frame_type, *request, |out| {
                    let flags = if history.newest_first {
                        NEWEST_FIRST
                    } else {
                        0
                    };
                    let channel = halves(history.channel.0);
                    out.put_slice(
                        &fb::HistoryRange::new(
                            &channel,
                            history.from,
                            history.to,
                            history.items_max,
                            flags,
                        )
                        .0,
                    );
                })
            }
            ClientFrame::Sync {
                request,
                token,
                rows_max,
            } => put_frame(out, frame_type, *request, |out| {
                table::put(out, |builder| {
                    let token = (!token.is_empty()).then(|| builder.create_vector(token));
                    let root = fb::Sync::create(
                        builder,
                        &fb::SyncArgs {
                            token,
                            rows_max: *rows_max,
                        },
                    );
                    builder.finish_minimal(root);
                });
            }),
            ClientFrame::Read {
                request,
                channel,
                seq,
            } => put_frame(out, frame_type, *request, |out| {
                out.put_slice(&fb::ReadMark::new(&halves(channel.0), *seq).0);
            }),
            ClientFrame::Credit { bytes } => {
                put_frame(out, frame_type, 0, |out| out.put_u32_le(*bytes))
            }
            ClientFrame::Ping { nonce } => put_frame(out, frame_type, *nonce, |_| {}),
            ClientFrame::Goodbye | ClientFrame::Skipped { .. } => {
                put_frame(out, frame_type, 0, |_| {})
            }
        }
    }

    /// The type byte of this frame.
    pub fn frame_type(&self) -> u8 {
        match self {
            ClientFrame::Hello(_) => frame_type::HELLO,
            ClientFrame::AuthRefresh { .. } => frame_type::AUTH_REFRESH,
            ClientFrame::Send { .. } => frame_type::SEND,
            ClientFrame::SendMany { .. } => frame_type::SEND_MANY,
            ClientFrame::OpenChannel { .. } => frame_type::OPEN_CHANNEL,
            ClientFrame::CloseChannel { .. } => frame_type::CLOSE_CHANNEL,
            ClientFrame::History { .. } => frame_type::HISTORY,
            ClientFrame::Sync { .. } => frame_type::SYNC,
            ClientFrame::Read { .. } => frame_type::READ,
            ClientFrame::Credit { .. } => frame_type::CREDIT,
            ClientFrame::Ping { .. } => frame_type::PING,
            ClientFrame::Goodbye => frame_type::GOODBYE,
            ClientFrame::Skipped { frame_type } => *frame_type,
        }
    }
}

fn at_least_one(items_max: u16) -> Result<(), WireError> {
    match items_max {
        0 => Err(WireError::new(
            Code::Invalid,
            "a page of no items is asked for",
        )),
        _ => Ok(()),
    }
}

fn decode_send(body: &[u8]) -> Result<Send<'_>, WireError> {
    let (header, tail) = cut(body)?;
    let header = fb::SendHdr(header);
    zero(header.pad())?;
    let flags = SendFlags(header.flags());
    if flags.0 & !SendFlags::KNOWN.0 != 0 {
        return Err(WireError::bad("SEND has a flag that is not known"));
    }
    if header.kind() == 0 || header.kind() >= FIRST_CHANGE_KIND {
        return Err(WireError::bad("kind of a SEND is not a message's"));
    }
    if header.alias() == 0 {
        return Err(WireError::new(Code::BadAlias, "alias is 0"));
    }
    Ok(Send {
        key: MessageKey(header.key().into()),
        alias: header.alias(),
        kind: header.kind(),
        flags,
        tail,
    })
}

fn decode_sends(body: &[u8]) -> Result<Vec<Send<'_>>, WireError> {
    at_most(
        body.len(),
        SEND_MANY_BYTES_MAX,
        "SEND_MANY is longer than its limit",
    )?;
    let mut sends: Vec<Send<'_>> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        at_most(
            sends.len() + 1,
            SEND_MANY_ITEMS_MAX,
            "more messages than SEND_MANY may have",
        )?;
        let (item_len, behind) = cut(rest)?;
        let (item, behind) = behind
            .split_at_checked(u32::from_le_bytes(item_len) as usize)
            .ok_or(WireError::bad("item of SEND_MANY ends behind the frame"))?;
        let send = decode_send(item)?;
        if sends.first().is_some_and(|first| first.alias != send.alias) {
            return Err(WireError::bad("SEND_MANY names more than one channel"));
        }
        sends.push(send);
        rest = behind;
    }
    if sends.is_empty() {
        return Err(WireError::bad("SEND_MANY is empty"));
    }
    Ok(sends)
}

fn put_send(out: &mut BytesMut, send: &Send<'_>) {
    out.put_slice(&fb::SendHdr::new(&send.key.0, send.alias, send.kind, send.flags.0, 0).0);
    out.put_slice(send.tail);
}

fn decode_history(body: &[u8]) -> Result<History, WireError> {
    let range = fb::HistoryRange(exact(body)?);
    if range.flags() & !NEWEST_FIRST != 0 {
        return Err(WireError::bad("HISTORY has a flag that is not known"));
    }
    if range.to() < range.from() {
        return Err(WireError::new(Code::Invalid, "range ends before it begins"));
    }
    at_least_one(range.items_max())?;
    Ok(History {
        channel: ChannelId(id(range.channel())?),
        from: range.from(),
        to: range.to(),
        items_max: range.items_max(),
        newest_first: range.flags() & NEWEST_FIRST != 0,
    })
}
