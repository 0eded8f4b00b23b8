//! What others wrote, made safe to show: the one way from a stranger's text to a terminal, for lines and for the screen.
//!
//! Texts, titles, names and handles may hold anything that Unicode has. What comes out of here
//!
//! * holds no control character but the line break, and that only out of [`text`]: nothing commands the terminal;
//! * does not change the direction of what follows it, and has nothing invisible in it to fake a name with;
//! * consists of clusters (what a person takes for one character) of at most [`CLUSTER_CHARS_MAX`] characters and
//!   [`CLUSTER_COLUMNS_MAX`] columns, none of them of no width: marks piled upon marks stay in their line.
//!
//! Characters whose width terminals disagree on are taken in their simplest form (no joined or tinted emoji), so that a
//! line is as wide as this program thinks.

use ratatui::buffer::CellWidth;
use unicode_segmentation::UnicodeSegmentation;

/// Characters in one cluster; further combining marks are dropped.
const CLUSTER_CHARS_MAX: usize = 6;
/// Columns of one cluster.
const CLUSTER_COLUMNS_MAX: usize = 4;
/// Columns of a name or title; they stand in lines with other things.
const NAME_COLUMNS_MAX: usize = 48;
/// Stands for what cannot be shown.
const REPLACED: char = '\u{fffd}';

/// One line: breaks become blanks.
pub(crate) fn line(text: &str) -> String {
    made_safe(text, false)
}

/// Several lines: `\n` stays.
pub(crate) fn text(text: &str) -> String {
    made_safe(text, true)
}

/// A name, handle or title: one line, trimmed and not too long.
pub(crate) fn name(name: &str) -> String {
    let safe = line(name);
    cut(safe.trim(), NAME_COLUMNS_MAX)
}

/// Columns that a safe text without line breaks takes.
pub(crate) fn width(text: &str) -> usize {
    clusters(text).map(cluster_width).sum()
}

/// What a person takes for characters.
pub(crate) fn clusters(text: &str) -> impl Iterator<Item = &str> {
    text.graphemes(true)
}

/// Columns of one safe cluster, as the screen counts them.
pub(crate) fn cluster_width(cluster: &str) -> usize {
    cluster.cell_width().into()
}

/// The beginning of a safe line that fits into `columns`, with `…` if something is missing.
pub(crate) fn cut(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut cut = String::new();
    for cluster in clusters(line) {
        let columns = cluster_width(cluster);
        if columns > left {
            break;
        }
        left -= columns;
        cut.push_str(cluster);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

fn made_safe(text: &str, multiline: bool) -> String {
    let plain = without_harm(text, multiline);
    let mut safe = String::with_capacity(plain.len());
    for cluster in clusters(&plain) {
        put_cluster(&mut safe, cluster);
    }
    safe
}

/// Replaces or drops single characters.
fn without_harm(text: &str, multiline: bool) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut last = None;
    for c in text.chars() {
        let shown = match c {
            '\n' if multiline => Some('\n'),
            // The break after a carriage return is the one that counts.
            '\r' => None,
            '\n' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
            c if c.is_control() || turns_around(c) => Some(REPLACED),
            c if is_joiner(c) => last.filter(|before| is_joining_script(*before)).map(|_| c),
            c if is_tint(c) => last.filter(|before| !is_emoji(*before)).map(|_| c),
            c if is_invisible(c) => None,
            c => Some(c),
        };
        plain.extend(shown);
        last = shown.or(last);
    }
    plain
}

fn put_cluster(safe: &mut String, cluster: &str) {
    if cluster == "\n" {
        safe.push('\n');
        return;
    }
    let is_long = cluster.chars().nth(CLUSTER_CHARS_MAX).is_some();
    let is_pile = cluster.chars().skip(1).all(is_mark);
    let kept = match cluster.char_indices().nth(CLUSTER_CHARS_MAX) {
        Some((end, _)) if is_pile => &cluster[..end],
        _ => cluster,
    };
    match cluster_width(kept) {
        1..=CLUSTER_COLUMNS_MAX if is_pile || !is_long => safe.push_str(kept),
        // Endless chains of letters, and marks without anything that they could mark. Something has to stand between
        // their neighbours, which might join.
        _ => safe.push(REPLACED),
    }
}

/// Combining marks of no script in particular, the kind that is piled up.
fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}')
}

/// Overrides and isolates of writing direction turn what follows them around.
fn turns_around(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Scripts in which a joiner changes how letters look: Arabic and its neighbours, those of India and South-East Asia.
fn is_joining_script(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{10ff}' | '\u{1780}'..='\u{18af}')
}

/// Skin tones.
fn is_tint(c: char) -> bool {
    matches!(c, '\u{1f3fb}'..='\u{1f3ff}')
}

fn is_emoji(c: char) -> bool {
    matches!(c, '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}')
}

/// Takes no room, or room without a sign: marks of direction, fillers, selectors of variants, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_message_commands_a_terminal() {
        let shown = text("\u{1b}[2Jred\u{202e}\r\nnext\tcell\u{9b}31m\u{7f}");
        assert_eq!(
            shown,
            "\u{fffd}[2Jred\u{fffd}\nnext cell\u{fffd}31m\u{fffd}"
        );
        assert_eq!(line("a\nb\u{2028}c"), "a b c");
    }

    #[test]
    fn piled_marks_stay_in_their_line() {
        let pile = format!("a{}b", "\u{301}".repeat(10_000));
        let shown = line(&pile);
        assert_eq!(width(&shown), 2);
        assert!(shown.chars().count() <= CLUSTER_CHARS_MAX + 1, "{shown:?}");
        assert_eq!(line(&"\u{301}".repeat(10_000)), "\u{fffd}");
    }

    #[test]
    fn endless_clusters_end() {
        for piece in ["क\u{94d}", "\u{1100}", "\u{600}"] {
            for cluster in clusters(&line(&piece.repeat(5_000))) {
                assert!(cluster_width(cluster) <= CLUSTER_COLUMNS_MAX);
            }
        }
    }

    #[test]
    fn names_cannot_be_faked_by_what_is_not_seen() {
        assert_eq!(name(" a\u{200b}d\u{feff}a\u{200d}\u{fe0f}\u{3164} "), "ada");
        assert!(width(&name(&"界".repeat(500))) <= NAME_COLUMNS_MAX);
    }

    #[test]
    fn ordinary_text_is_left_as_it_is() {
        for words in [
            "Grüße, 世界!",
            "مرحبا",
            "नमस्ते",
            "می\u{200c}خواهم",
            "e\u{301}",
            "🇮🇸 👍",
        ] {
            assert_eq!(line(words), words);
        }
        assert_eq!(line("👍\u{1f3fd} ❤\u{fe0f}"), "👍 ❤");
    }

    #[test]
    fn cut_lines_fit() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("世界世界", 4), "世…");
        assert_eq!(cut("ab", 0), "");
    }

    /// What breaks lines and screens, mixed with ordinary text.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            "[\u{0}-\u{20}\u{7f}-\u{9f}\u{200b}-\u{206f}]",
            "[\u{300}-\u{36f}\u{fe00}-\u{fe0f}\u{1f3fb}-\u{1f3ff}\u{200d}]{1,9}",
            "[\u{900}-\u{97f}\u{1100}-\u{11ff}]{1,20}",
            "[a-z 界👍]{1,9}",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(input in hostile()) {
            let safe = text(&input);
            prop_assert!(!safe.chars().any(|c| (c.is_control() && c != '\n') || turns_around(c)));
            for cluster in clusters(&safe).filter(|it| *it != "\n") {
                prop_assert!((1..=CLUSTER_COLUMNS_MAX).contains(&cluster_width(cluster)), "{cluster:?}");
            }
            prop_assert!(!line(&input).contains('\n'));
            prop_assert!(width(&cut(&line(&input), 9)) <= 9);
        }
    }
}
