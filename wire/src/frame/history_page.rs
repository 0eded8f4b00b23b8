//! HISTORY_PAGE: events cost 16 bytes each beside their tails, because a page names its authors once and its seqs by place.
//!
//! ```text
//! HistoryHdr 32   channel, generation, range covered, first and head seq, count of authors, count of items
//! U64 × authors   in order of first appearance
//! items           HistoryItem 16 {len, time, index of author, kind, flags}, tail of `len` bytes
//! ```
//!
//! Pages are gapless: item `i` has seq `covered_from + i`, so a page has exactly as many items as seqs it covers. The node
//! writes pages from stored bodies without decoding or allocating per event; clients get events that share the page's memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::server::HistoryPage;
use super::{EVENT_HEADER_BYTES, EventBytes, WireError, frame_type};
use crate::event::{Event, EventFlags};
use crate::generated::conch as fb;
use crate::layout::{cut, halves, id, put_frame, time, time_parts, zero};
use crate::limits::{HISTORY_ITEMS_MAX, SEQ_MAX};
use crate::{ChannelId, UserId};

const AUTHOR_BYTES: usize = size_of::<fb::U64>();
const ITEM_BYTES: usize = size_of::<fb::HistoryItem>();

/// What a page takes of an event.
struct Item<'a> {
    author: [u8; AUTHOR_BYTES],
    ts_lo: u32,
    ts_hi: u16,
    kind: u8,
    flags: u8,
    tail: &'a [u8],
}

/// Appends a HISTORY_PAGE made from stored event bodies; `page.events` is ignored, `bodies` take its place. There must be
/// as many as the page covers, ascending.
///
/// # Panics
/// When a body is shorter than an event header, which no encoded event is.
pub fn put_history_page(
    out: &mut BytesMut,
    request: u32,
    page: &HistoryPage,
    bodies: &[EventBytes],
) {
    put_items(
        out,
        request,
        page,
        bodies.iter().map(|body| stored_item(body)),
    );
}

/// Appends the page with its own events.
pub(super) fn put(out: &mut BytesMut, request: u32, page: &HistoryPage) {
    let items = page.events.iter().map(|event| {
        let (ts_lo, ts_hi) = time_parts(event.time_ms);
        Item {
            author: halves(event.author.0).0,
            ts_lo,
            ts_hi,
            kind: event.kind,
            flags: event.flags.0,
            tail: &event.tail,
        }
    });
    put_items(out, request, page, items);
}

fn stored_item(body: &[u8]) -> Item<'_> {
    let (header, tail) = body
        .split_first_chunk::<EVENT_HEADER_BYTES>()
        .expect("encoded events have a header");
    let header = fb::EventHdr(*header);
    Item {
        author: header.author().0,
        ts_lo: header.ts_lo(),
        ts_hi: header.ts_hi(),
        kind: header.kind(),
        flags: header.flags(),
        tail,
    }
}

/// Two passes over the items: the authors go straight into `out`, then items find their author's index there.
fn put_items<'a>(
    out: &mut BytesMut,
    request: u32,
    page: &HistoryPage,
    items: impl ExactSizeIterator<Item = Item<'a>> + Clone,
) {
    debug_assert_eq!(
        items.len() as u64,
        seqs_covered(page.covered_from, page.covered_to),
        "pages are gapless"
    );
    put_frame(out, frame_type::HISTORY_PAGE, request, |out| {
        let header_at = out.len();
        let authors_at = header_at + size_of::<fb::HistoryHdr>();
        out.put_bytes(0, size_of::<fb::HistoryHdr>());
        for item in items.clone() {
            if author_index(&out[authors_at..], item.author).is_none() {
                out.put_slice(&item.author);
            }
        }
        let items_at = out.len();
        for item in items.clone() {
            let author = author_index(&out[authors_at..items_at], item.author)
                .expect("written by the first pass");
            let item_len = item.tail.len() as u32;
            out.put_slice(
                &fb::HistoryItem::new(
                    item_len, item.ts_lo, item.ts_hi, author, item.kind, item.flags, 0,
                )
                .0,
            );
            out.put_slice(item.tail);
        }
        let header = fb::HistoryHdr::new(
            &halves(page.channel.0),
            page.generation,
            page.covered_from,
            page.covered_to,
            page.first_seq,
            page.head_seq,
            ((items_at - authors_at) / AUTHOR_BYTES) as u16,
            items.len() as u16,
        );
        out[header_at..authors_at].copy_from_slice(&header.0);
    });
}

fn author_index(authors: &[u8], author: [u8; AUTHOR_BYTES]) -> Option<u16> {
    authors
        .as_chunks::<AUTHOR_BYTES>()
        .0
        .iter()
        .position(|known| *known == author)
        .map(|index| index as u16)
}

fn seqs_covered(from: u32, to: u32) -> u64 {
    (u64::from(to) + 1).saturating_sub(u64::from(from))
}

/// Decodes the body of a page.
pub(super) fn decode(mut body: Bytes) -> Result<HistoryPage, WireError> {
    let header = fb::HistoryHdr(cut(&body)?.0);
    body.advance(size_of::<fb::HistoryHdr>());
    let items = usize::from(header.items());
    if items > HISTORY_ITEMS_MAX {
        return Err(WireError::too_large("more events than a page may have"));
    }
    if items as u64 != seqs_covered(header.covered_from(), header.covered_to()) {
        return Err(WireError::bad(
            "page does not have as many events as it covers",
        ));
    }
    if items > 0 && (header.covered_from() == 0 || header.covered_to() > SEQ_MAX) {
        return Err(WireError::bad("seq is out of range"));
    }
    let authors_len = usize::from(header.authors()) * AUTHOR_BYTES;
    if authors_len > body.len() {
        return Err(WireError::bad("authors end behind the page"));
    }
    let authors = body.split_to(authors_len);
    let (authors, _) = authors.as_chunks::<AUTHOR_BYTES>();
    let mut events = Vec::with_capacity(items);
    for index in 0..items as u32 {
        events.push(decode_item(
            &mut body,
            authors,
            header.covered_from() + index,
        )?);
    }
    if !body.is_empty() {
        return Err(WireError::bad("page goes on behind its last event"));
    }
    Ok(HistoryPage {
        channel: ChannelId(id(header.channel())?),
        generation: header.generation(),
        covered_from: header.covered_from(),
        covered_to: header.covered_to(),
        first_seq: header.first_seq(),
        head_seq: header.head_seq(),
        events,
    })
}

/// Cuts one event off the front of `rest`.
fn decode_item(
    rest: &mut Bytes,
    authors: &[[u8; AUTHOR_BYTES]],
    seq: u32,
) -> Result<Event, WireError> {
    let item = fb::HistoryItem(cut(rest)?.0);
    zero(item.pad())?;
    rest.advance(ITEM_BYTES);
    let author = authors
        .get(usize::from(item.author()))
        .ok_or(WireError::bad("author of an event is not in the page"))?;
    if item.len() as usize > rest.len() {
        return Err(WireError::bad("event ends behind the page"));
    }
    let event = Event {
        author: UserId(id(&fb::U64(*author))?),
        seq,
        time_ms: time(item.ts_lo(), item.ts_hi()),
        kind: item.kind(),
        flags: EventFlags(item.flags()),
        tail: rest.split_to(item.len() as usize),
    };
    event.check()?;
    Ok(event)
}
