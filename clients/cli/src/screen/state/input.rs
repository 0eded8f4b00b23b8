//! The line that is being written: several lines of it, edited by what a person takes for characters.
//!
//! The text is the person's own and goes out as it is; what is drawn of it is made harmless cluster by cluster, because
//! pasted text is often somebody else's.

use unicode_segmentation::UnicodeSegmentation;

use crate::harmless;

/// A text and where the cursor stands in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    text: String,
    /// Byte offset, always between two clusters.
    cursor: usize,
}

/// A direction of the cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    Left,
    Right,
    WordLeft,
    WordRight,
    LineStart,
    LineEnd,
}

/// The text as it is drawn, and the cursor's place in it.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) rows: Vec<String>,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// A place where the cursor may stand: byte, (row, column).
type Stop = (usize, (usize, usize));

impl Input {
    pub(crate) fn of(text: &str) -> Input {
        Input {
            text: text.to_owned(),
            cursor: text.len(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Puts text in at the cursor, without control characters; at most so that `chars_max` are there. Says whether all of
    /// it went in.
    pub(crate) fn insert(&mut self, text: &str, multiline: bool, chars_max: usize) -> bool {
        let room = chars_max.saturating_sub(self.text.chars().count());
        let clean = clean(text, multiline);
        let end = clean.char_indices().nth(room).map(|(at, _)| at);
        let fitting = &clean[..end.unwrap_or(clean.len())];
        self.text.insert_str(self.cursor, fitting);
        self.cursor = self.boundary(self.cursor + fitting.len());
        end.is_none()
    }

    pub(crate) fn go(&mut self, to: To) {
        self.cursor = self.place(to);
    }

    /// Removes everything between the cursor and there.
    pub(crate) fn delete(&mut self, to: To) {
        let there = self.place(to);
        let (from, to) = (there.min(self.cursor), there.max(self.cursor));
        self.text.replace_range(from..to, "");
        self.cursor = self.boundary(from);
    }

    /// One drawn row up or down in rows of `columns`; false where there is none.
    pub(crate) fn go_row(&mut self, down: bool, columns: usize) -> bool {
        let (_, places) = self.lay_out(columns);
        let here = places.iter().find(|(byte, _)| *byte == self.cursor);
        let (row, column) = here.map_or((0, 0), |(_, place)| *place);
        let wanted = if down {
            Some(row + 1)
        } else {
            row.checked_sub(1)
        };
        let near = places
            .into_iter()
            .filter(|(_, place)| Some(place.0) == wanted)
            .min_by_key(|(_, place)| place.1.abs_diff(column));
        if let Some((byte, _)) = near {
            self.cursor = byte;
        }
        near.is_some()
    }

    /// Rows of `columns`, broken anywhere.
    pub(crate) fn drawn(&self, columns: usize) -> Drawn {
        let (rows, places) = self.lay_out(columns);
        let here = places.into_iter().find(|(byte, _)| *byte == self.cursor);
        let (row, column) = here.map_or((0, 0), |(_, place)| place);
        Drawn { rows, row, column }
    }

    /// The rows, and every place where the cursor may stand.
    fn lay_out(&self, columns: usize) -> (Vec<String>, Vec<Stop>) {
        let mut rows = Vec::new();
        let mut places = Vec::new();
        let mut open = String::new();
        let mut used = 0;
        for (at, cluster) in self.text.grapheme_indices(true) {
            let shown = shown(cluster);
            let needed = harmless::width(&shown);
            if used > 0 && cluster != "\n" && used + needed > columns {
                rows.push(std::mem::take(&mut open));
                used = 0;
            }
            places.push((at, (rows.len(), used)));
            if cluster == "\n" {
                rows.push(std::mem::take(&mut open));
                used = 0;
            } else {
                open.push_str(&shown);
                used += needed;
            }
        }
        rows.push(open);
        if used >= columns.max(1) {
            // The cursor stands behind the end of a full row.
            rows.push(String::new());
            used = 0;
        }
        places.push((self.text.len(), (rows.len() - 1, used)));
        (rows, places)
    }

    fn place(&self, to: To) -> usize {
        let (before, after) = self.text.split_at(self.cursor);
        match to {
            To::Left => before
                .grapheme_indices(true)
                .next_back()
                .map_or(0, |(at, _)| at),
            To::Right => after
                .graphemes(true)
                .next()
                .map_or(self.cursor, |it| self.cursor + it.len()),
            To::WordLeft => {
                let words = before.trim_end();
                words
                    .char_indices()
                    .rfind(|(_, c)| c.is_whitespace())
                    .map_or(0, |(at, c)| at + c.len_utf8())
            }
            To::WordRight => {
                let blank = after.len() - after.trim_start().len();
                let word = after[blank..].find(char::is_whitespace);
                self.cursor + word.map_or(after.len(), |at| blank + at)
            }
            To::LineStart => before.rfind('\n').map_or(0, |at| at + 1),
            To::LineEnd => self.cursor + after.find('\n').unwrap_or(after.len()),
        }
    }

    /// The end of the cluster that `at` lies in: what was put in may have joined with what stood there.
    fn boundary(&self, at: usize) -> usize {
        self.text
            .grapheme_indices(true)
            .map(|(start, _)| start)
            .find(|start| *start >= at)
            .unwrap_or(self.text.len())
    }
}

fn clean(text: &str, multiline: bool) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars()
        .flat_map(|c| match c {
            '\n' if multiline => vec!['\n'],
            '\n' => vec![' '],
            '\t' => vec![' '; 4],
            c if c.is_control() => Vec::new(),
            c => vec![c],
        })
        .collect()
}

fn shown(cluster: &str) -> String {
    let shown = harmless::line(cluster);
    if shown.is_empty() {
        "\u{fffd}".to_owned()
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: usize = 1_000;

    #[test]
    fn cursor_moves_by_what_people_take_for_characters() {
        let mut input = Input::of("ae\u{301}世👍");
        input.go(To::Left);
        input.go(To::Left);
        input.delete(To::Left);
        assert_eq!(input.text(), "a世👍");
        input.delete(To::Right);
        assert_eq!(input.text(), "a👍");
    }

    #[test]
    fn words_and_lines_are_deleted() {
        let mut input = Input::of("one two\nthree four  ");
        input.delete(To::WordLeft);
        assert_eq!(input.text(), "one two\nthree ");
        input.delete(To::LineStart);
        assert_eq!(input.text(), "one two\n");
        input.go(To::Left);
        input.go(To::WordLeft);
        input.delete(To::LineEnd);
        assert_eq!(input.text(), "one \n");
    }

    #[test]
    fn paste_keeps_lines_and_drops_commands() {
        let mut input = Input::default();
        assert!(input.insert("a\r\nb\rc\t\u{1b}[31m", true, MANY));
        assert_eq!(input.text(), "a\nb\nc    [31m");
        let mut input = Input::default();
        assert!(input.insert("a\nb", false, MANY));
        assert_eq!(input.text(), "a b");
        assert!(!input.insert("123456", false, 5));
        assert_eq!(input.text(), "a b12");
    }

    #[test]
    fn cursor_is_drawn_where_it_is() {
        let mut input = Input::of("世界ab\nx");
        let drawn = input.drawn(4);
        assert_eq!(drawn.rows, ["世界", "ab", "x"]);
        assert_eq!((drawn.row, drawn.column), (2, 1));
        assert!(input.go_row(false, 4));
        assert_eq!((input.drawn(4).row, input.drawn(4).column), (1, 1));
        assert!(input.go_row(false, 4) && !input.go_row(false, 4));
        assert!(input.go_row(true, 4) && input.go_row(true, 4) && !input.go_row(true, 4));
        let full = Input::of("abcd");
        assert_eq!((full.drawn(4).row, full.drawn(4).column), (1, 0));
    }

    proptest! {
        #[test]
        fn editing_never_panics_and_fits(
            pieces in proptest::collection::vec(("\\PC{0,6}|\u{301}|\n|\u{1f1e6}", 0_u8..8), 0..40),
            columns in 1_usize..12,
        ) {
            let mut input = Input::default();
            for (text, step) in pieces {
                input.insert(&text, true, 100);
                match step {
                    0 => input.go(To::Left),
                    1 => input.go(To::WordLeft),
                    2 => input.delete(To::Left),
                    3 => input.delete(To::Right),
                    4 => input.delete(To::WordLeft),
                    5 => input.go(To::LineStart),
                    6 => drop(input.go_row(false, columns)),
                    _ => drop(input.go_row(true, columns)),
                }
                let drawn = input.drawn(columns);
                prop_assert!(drawn.row < drawn.rows.len());
                prop_assert!(input.text().chars().count() <= 100);
            }
        }
    }
}
