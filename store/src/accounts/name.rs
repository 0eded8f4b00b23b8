//! Display names: what others see instead of a handle. Pure.
//!
//! Any script and emoji, but nothing that breaks out of its place on a screen: no controls, no line separators, no
//! bidirectional embeddings, overrides or isolates; and something to see.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// Longest display name, in Unicode scalar values after normalisation.
pub const DISPLAY_NAME_CHARS_MAX: usize = 64;

/// A valid display name: trimmed, NFC, 1–64 characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DisplayName(String);

/// Why a text is no display name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DisplayNameError {
    #[error("a display name has something to see")]
    Empty,
    #[error("a display name has at most {DISPLAY_NAME_CHARS_MAX} characters")]
    TooLong,
    #[error("a display name has no control, line-breaking or direction-changing characters")]
    BadCharacter,
}

impl DisplayName {
    /// Trims, normalises and checks what somebody typed.
    pub fn parse(typed: &str) -> Result<DisplayName, DisplayNameError> {
        let typed = typed.trim();
        // NFC at most composes a base with its marks; a text of this length has no form that fits.
        if typed.chars().nth(8 * DISPLAY_NAME_CHARS_MAX).is_some() {
            return Err(DisplayNameError::TooLong);
        }
        let name: String = typed.nfc().collect();
        if name.chars().any(is_disruptive) {
            return Err(DisplayNameError::BadCharacter);
        }
        if name.chars().all(|c| c.is_whitespace() || is_invisible(c)) {
            return Err(DisplayNameError::Empty);
        }
        if name.chars().count() > DISPLAY_NAME_CHARS_MAX {
            return Err(DisplayNameError::TooLong);
        }
        Ok(DisplayName(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that was valid when it was stored.
    pub(super) fn stored(name: String) -> DisplayName {
        DisplayName(name)
    }
}

fn is_disruptive(c: char) -> bool {
    let separates_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let changes_direction = matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let annotates = matches!(c, '\u{FFF9}'..='\u{FFFB}');
    c.is_control() || separates_lines || changes_direction || annotates
}

/// Characters without a glyph that are fine inside a name (joiners of emoji and scripts) but make none alone.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2060}'..='\u{2065}'
            | '\u{206A}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}' | '\u{FFA0}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

impl FromStr for DisplayName {
    type Err = DisplayNameError;

    fn from_str(typed: &str) -> Result<DisplayName, DisplayNameError> {
        DisplayName::parse(typed)
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Result<String, DisplayNameError> {
        DisplayName::parse(typed).map(|name| name.to_string())
    }

    #[test]
    fn names_are_trimmed_and_normalised() {
        assert_eq!(parse("  Ada  Lovelace\n"), Ok("Ada  Lovelace".into()));
        assert_eq!(parse("Zoe\u{308}"), Ok("Zoë".into()));
        for name in ["李小龍", "محمد", "שלום", "O'Neil-Ünal", "👩‍👩‍👧 family", "x"]
        {
            assert_eq!(parse(name), Ok(name.into()));
        }
    }

    #[test]
    fn lengths_count_normalised_characters() {
        assert_eq!(parse(&"e\u{301}".repeat(64)), Ok("é".repeat(64)));
        assert_eq!(parse(&"𝄞".repeat(65)), Err(DisplayNameError::TooLong));
        assert_eq!(parse(&"x".repeat(65)), Err(DisplayNameError::TooLong));
        assert_eq!(parse(&"x".repeat(1 << 20)), Err(DisplayNameError::TooLong));
    }

    #[test]
    fn a_name_has_something_to_see() {
        for blank in [
            "",
            "   ",
            "\u{200B}",
            "\u{3164} \u{2060}",
            "\u{FEFF}\u{FE0F}",
            "\u{2800}",
        ] {
            assert_eq!(parse(blank), Err(DisplayNameError::Empty), "{blank:?}");
        }
    }

    #[test]
    fn a_name_stays_in_its_place() {
        let bad = [
            "a\0b",
            "a\nb",
            "a\u{1B}[31m",
            "a\u{85}b",
            "a\u{202E}b",
            "a\u{2066}b",
            "a\u{2028}b",
        ];
        for name in bad {
            assert_eq!(parse(name), Err(DisplayNameError::BadCharacter), "{name:?}");
        }
    }
}
