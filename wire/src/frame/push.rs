//! DELIVER and EVENT from an event body that was encoded once: per connection only the 8-byte header differs.
//!
//! Called by the gateway for every recipient of every event, so nothing is decoded and nothing is allocated. Bodies come
//! from [`crate::Event::encode_body`] by way of the owner or the store, never from outside.

use bytes::{BufMut, BytesMut};

use super::{EVENT_HEADER_BYTES, EventBytes, frame_type};
use crate::event::{EVENT_FLAGS_AT, EVENT_KIND_AT, EventFlags, FIRST_CHANGE_KIND};
use crate::limits::PUSHED_BODY_BYTES_MAX;
use crate::{Alias, layout};

/// Appends a DELIVER (or, by its kind, an EVENT) of an event body that was encoded once. A body above
/// [`crate::limits::PUSHED_BODY_BYTES_MAX`] goes out as BODY_OMITTED with the size of its tail. Returns the bytes appended.
///
/// # Panics
/// When `body` is shorter than an event header, which no encoded event is.
pub fn put_event(out: &mut BytesMut, alias: Alias, body: &EventBytes) -> usize {
    let start = out.len();
    let (header, tail) = body
        .split_first_chunk::<EVENT_HEADER_BYTES>()
        .expect("encoded events have a header");
    let frame_type = if header[EVENT_KIND_AT] < FIRST_CHANGE_KIND {
        frame_type::DELIVER
    } else {
        frame_type::EVENT
    };
    layout::put_frame(out, frame_type, alias, |out| {
        if body.len() <= PUSHED_BODY_BYTES_MAX {
            out.put_slice(body);
        } else {
            let mut header = *header;
            header[EVENT_FLAGS_AT] |= EventFlags::BODY_OMITTED.0;
            out.put_slice(&header);
            out.put_u32_le(tail.len() as u32);
        }
    });
    out.len() - start
}
