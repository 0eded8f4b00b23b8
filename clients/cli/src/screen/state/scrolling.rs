//! Which part of the window is in view, and loading what comes into view next.

use super::App;
use super::conversation::Scroll;
use crate::screen::layout::Layout;
use crate::screen::transcript::Transcript;

impl App {
    /// The list takes the place of the conversation.
    pub(crate) fn is_list_alone(&self) -> bool {
        let layout = Layout::of(self);
        layout.sidebar.is_some() && layout.transcript.area() == 0
    }

    /// Moves the view by so many rows; up is less than none.
    pub(super) fn scroll(&mut self, rows: isize) {
        let height = usize::from(Layout::of(self).transcript.height);
        let moved = {
            let Some(transcript) = Transcript::of(self) else {
                return;
            };
            if transcript.count() == 0 || height == 0 {
                return;
            }
            let (index, hidden) = transcript.edge();
            if rows < 0 {
                transcript.up(index, hidden, rows.unsigned_abs(), height)
            } else {
                transcript.down(index, hidden, rows.unsigned_abs())
            }
        };
        self.put_edge(moved);
        self.load_around();
    }

    /// After a change of size the same events are in view, and no more is hidden of one than it has.
    pub(super) fn keep_in_view(&mut self) {
        if self
            .open
            .as_ref()
            .is_some_and(|it| it.scroll != Scroll::Newest)
        {
            self.scroll(0);
        }
    }

    pub(super) fn go_to_newest(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.scroll = Scroll::Newest;
        if open.cut_off {
            let page = open.begin_newest();
            self.load(page);
        }
    }

    /// Loads what is above the view when it comes near, and below.
    pub(super) fn load_around(&mut self) {
        let height = usize::from(Layout::of(self).transcript.height);
        if height == 0 {
            return;
        }
        let near = {
            let Some(transcript) = Transcript::of(self) else {
                return;
            };
            let (index, hidden) = transcript.edge();
            let above = transcript.rows_above(index, hidden, 2 * height);
            (
                above < 2 * height,
                transcript.rows_below(index, hidden, height) < height,
            )
        };
        let (near_top, near_bottom) = near;
        let Some(open) = &mut self.open else { return };
        let older = if near_top { open.begin_older() } else { None };
        let newer = if near_bottom {
            open.begin_newer()
        } else {
            None
        };
        for page in older.into_iter().chain(newer) {
            self.load(page);
        }
    }

    fn put_edge(&mut self, (index, hidden): (usize, usize)) {
        let (is_last, element) = {
            let Some(transcript) = Transcript::of(self) else {
                return;
            };
            (index + 1 == transcript.count(), transcript.element(index))
        };
        let Some(open) = &mut self.open else { return };
        open.scroll = match element {
            // At the very end the view follows again.
            _ if is_last && hidden == 0 && !open.cut_off => Scroll::Newest,
            Some(element) => Scroll::At { element, hidden },
            None => Scroll::Newest,
        };
    }
}

impl Transcript<'_> {
    /// The element at the lower edge of the view, and how many of its rows are below it.
    pub(crate) fn edge(&self) -> (usize, usize) {
        let newest = (self.count().saturating_sub(1), 0);
        match self.scroll() {
            Scroll::Newest => newest,
            Scroll::At { element, hidden } => match self.find(element) {
                Some(index) => (index, hidden.min(self.height(index).saturating_sub(1))),
                None => newest,
            },
        }
    }

    /// The edge `rows` further up, but not so far that the view is not full.
    fn up(
        &self,
        mut index: usize,
        mut hidden: usize,
        rows: usize,
        height: usize,
    ) -> (usize, usize) {
        hidden += rows;
        while index > 0 && hidden >= self.height(index) {
            hidden -= self.height(index);
            index -= 1;
        }
        hidden = hidden.min(self.height(index).saturating_sub(1));
        let missing = height.saturating_sub(self.rows_above(index, hidden, height));
        self.down(index, hidden, missing)
    }

    fn down(&self, mut index: usize, mut hidden: usize, mut rows: usize) -> (usize, usize) {
        while rows > hidden {
            if index + 1 >= self.count() {
                return (index, 0);
            }
            rows -= hidden + 1;
            index += 1;
            hidden = self.height(index).saturating_sub(1);
        }
        (index, hidden - rows)
    }

    /// Rows from the edge upwards, at most `limit`.
    pub(crate) fn rows_above(&self, index: usize, hidden: usize, limit: usize) -> usize {
        if self.count() == 0 {
            return 0;
        }
        let mut rows = self.height(index).saturating_sub(hidden);
        for index in (0..index).rev() {
            if rows >= limit {
                return limit;
            }
            rows += self.height(index);
        }
        rows.min(limit)
    }

    /// Rows below the edge, at most `limit`.
    fn rows_below(&self, index: usize, hidden: usize, limit: usize) -> usize {
        let mut rows = hidden;
        for index in index + 1..self.count() {
            if rows >= limit {
                return limit;
            }
            rows += self.height(index);
        }
        rows.min(limit)
    }
}
