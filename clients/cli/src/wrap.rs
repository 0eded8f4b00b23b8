//! Text in rows of a given width. Pure.

use unicode_segmentation::UnicodeSegmentation;

use crate::harmless::{cluster_width, width};

/// Rows of a safe text, each at most `columns` wide (but for a single cluster that is wider than that): broken at line
/// breaks, then at blanks, then anywhere.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let mut rows = Vec::new();
    for line in text.split('\n') {
        wrap_line(line, columns.max(1), &mut rows);
    }
    rows
}

fn wrap_line<'a>(line: &'a str, columns: usize, rows: &mut Vec<&'a str>) {
    let mut start = 0;
    let mut used = 0;
    // Behind the last blank of this row.
    let mut word = 0;
    for (at, cluster) in line.grapheme_indices(true) {
        let needed = cluster_width(cluster);
        if cluster == " " && used + needed > columns {
            // The blank at which the line breaks is not shown.
            rows.push(&line[start..at]);
            (start, word, used) = (at + 1, at + 1, 0);
            continue;
        }
        while used + needed > columns && at > start {
            let end = if word > start { word } else { at };
            rows.push(line[start..end].trim_end_matches(' '));
            start = end;
            used = width(&line[start..at]);
        }
        used += needed;
        if cluster == " " {
            word = at + 1;
        }
    }
    rows.push(&line[start..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::harmless;

    #[test]
    fn lines_break_at_blanks_if_they_can() {
        assert_eq!(wrap("the old harbour", 8), ["the old", "harbour"]);
        assert_eq!(wrap("the harbour", 3), ["the", "har", "bou", "r"]);
        assert_eq!(wrap("one\n\ntwo", 9), ["one", "", "two"]);
        assert_eq!(wrap("", 9), [""]);
        assert_eq!(wrap("  kept", 9), ["  kept"]);
    }

    #[test]
    fn wide_characters_are_not_cut_in_half() {
        assert_eq!(wrap("世界世界", 5), ["世界", "世界"]);
        assert_eq!(wrap("a世界", 2), ["a", "世", "界"]);
    }

    proptest! {
        #[test]
        fn rows_fit_and_nothing_but_blanks_is_lost(input in "[a-z 界👍\u{301}\n]{0,60}", columns in 2_usize..20) {
            let text = harmless::text(&input);
            let rows = wrap(&text, columns);
            for row in &rows {
                prop_assert!(width(row) <= columns, "{row:?}");
            }
            let solid = |text: &str| text.replace([' ', '\n'], "");
            prop_assert_eq!(solid(&rows.concat()), solid(&text));
        }
    }
}
