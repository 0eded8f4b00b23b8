//! Handles: the unique names that people find each other by. Pure.
//!
//! A handle is folded when it is parsed (NFC, then lower case) and must then be plain ASCII, so that no two handles look
//! alike and every keyboard can type every one. Only the folded form exists: it is stored, shown, compared.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// Shortest handle, in characters.
pub const HANDLE_CHARS_MIN: usize = 3;
/// Longest handle, in characters.
pub const HANDLE_CHARS_MAX: usize = 32;

/// A valid, folded handle: 3–32 of `a-z 0-9 _ . -`, with at least one letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(String);

/// Why a text is no handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HandleError {
    #[error("a handle has at least {HANDLE_CHARS_MIN} characters")]
    TooShort,
    #[error("a handle has at most {HANDLE_CHARS_MAX} characters")]
    TooLong,
    #[error("a handle is made of a-z, 0-9, '_', '.' and '-'")]
    BadCharacter,
    #[error("a handle has at least one letter or digit")]
    OnlyPunctuation,
}

impl Handle {
    /// Folds and checks what somebody typed. Surrounding white space is a bad character, not trimmed.
    pub fn parse(typed: &str) -> Result<Handle, HandleError> {
        // One over is enough to know; no folding of these characters makes a text shorter than a quarter.
        if typed.chars().nth(4 * HANDLE_CHARS_MAX).is_some() {
            return Err(HandleError::TooLong);
        }
        let folded: String = typed.nfc().flat_map(char::to_lowercase).collect();
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-');
        if !folded.chars().all(allowed) {
            return Err(HandleError::BadCharacter);
        }
        match folded.len() {
            0..HANDLE_CHARS_MIN => Err(HandleError::TooShort),
            HANDLE_CHARS_MIN..=HANDLE_CHARS_MAX => {
                let alphanumeric = folded.bytes().any(|byte| byte.is_ascii_alphanumeric());
                alphanumeric
                    .then_some(Handle(folded))
                    .ok_or(HandleError::OnlyPunctuation)
            }
            _ => Err(HandleError::TooLong),
        }
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A handle that was valid when it was stored.
    pub(super) fn stored(folded: String) -> Handle {
        Handle(folded)
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    fn from_str(typed: &str) -> Result<Handle, HandleError> {
        Handle::parse(typed)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Result<String, HandleError> {
        Handle::parse(typed).map(|handle| handle.to_string())
    }

    #[test]
    fn handles_fold_to_one_form() {
        for typed in ["alice.b-c_9", "ALICE.B-C_9", "Alice.b-C_9"] {
            assert_eq!(parse(typed), Ok("alice.b-c_9".into()));
        }
        // The Kelvin sign is canonically the letter K.
        assert_eq!(parse("\u{212A}arl"), Ok("karl".into()));
        assert_eq!(parse("abc").as_deref(), Ok("abc"));
        assert_eq!(parse(&"x".repeat(32)), Ok("x".repeat(32)));
        assert_eq!(parse("..1"), Ok("..1".into()));
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(parse(""), Err(HandleError::TooShort));
        assert_eq!(parse("ab"), Err(HandleError::TooShort));
        assert_eq!(parse(&"x".repeat(33)), Err(HandleError::TooLong));
        assert_eq!(parse(&"x".repeat(1 << 20)), Err(HandleError::TooLong));
        assert_eq!(parse("..."), Err(HandleError::OnlyPunctuation));
    }

    #[test]
    fn look_alikes_and_other_scripts_are_no_handles() {
        let bad = [
            "al ice",
            " alice",
            "alice\n",
            "al\0ice",
            "alice/",
            "ali@ce",
            "älice",
            "a\u{308}lice",
            "\u{430}lice",
            "ａｌｉｃｅ",
            "ali\u{200B}ce",
            "ali\u{202E}ce",
            "İstanbul",
            "straße",
            "ﬁsh",
            "٣٤٥",
            "😀😀😀",
        ];
        for typed in bad {
            assert_eq!(parse(typed), Err(HandleError::BadCharacter), "{typed:?}");
        }
    }
}
