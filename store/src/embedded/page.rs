//! A page of events being filled from several layers. Pure.

use crate::contract::ReadLimit;
use crate::row::EventRow;

/// Takes events in one direction until a limit is reached; the first one always fits.
#[derive(Debug)]
pub(super) struct Page {
    rows: Vec<EventRow>,
    bytes: usize,
    limit: ReadLimit,
    newest_first: bool,
    full: bool,
}

impl Page {
    pub(super) fn new(limit: ReadLimit, newest_first: bool) -> Page {
        Page {
            rows: Vec::new(),
            bytes: 0,
            limit,
            newest_first,
            full: false,
        }
    }

    pub(super) fn newest_first(&self) -> bool {
        self.newest_first
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes the next event; `false` when the page is full.
    pub(super) fn push(&mut self, row: EventRow) -> bool {
        if self.full {
            return false;
        }
        let bytes = self.bytes + row.body.len();
        let over = self.rows.len() >= self.limit.events || bytes > self.limit.bytes;
        if over && !self.rows.is_empty() {
            self.full = true;
            return false;
        }
        self.bytes = bytes;
        self.rows.push(row);
        self.full = self.rows.len() >= self.limit.events;
        !self.full
    }

    /// The events, ascending.
    pub(super) fn into_rows(mut self) -> Vec<EventRow> {
        if self.newest_first {
            self.rows.reverse();
        }
        self.rows
    }
}
