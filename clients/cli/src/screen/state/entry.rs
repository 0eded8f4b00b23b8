//! Signing up and logging in: a form of a handle and a password.

use super::input::Input;

/// Longest handle and password that can be typed, in characters; the server has lower limits of its own.
pub(crate) const HANDLE_CHARS_MAX: usize = 64;
pub(crate) const PASSWORD_CHARS_MAX: usize = 300;
/// What the server takes as a password, in characters.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;

/// What the form is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    LogIn,
    SignUp,
}

/// A line of the form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Handle,
    Password,
    /// The password again, as nobody sees what is typed.
    Repeated,
}

/// See the file's head. Not `Debug`: it holds a password.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) purpose: Purpose,
    pub(crate) field: Field,
    pub(crate) handle: Input,
    pub(crate) password: Input,
    pub(crate) repeated: Input,
    /// The server is being asked.
    pub(crate) busy: bool,
    /// What went wrong, or why the form is there.
    pub(crate) word: Option<String>,
}

/// A form that is filled in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) purpose: Purpose,
    pub(crate) handle: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filled")
            .field("purpose", &self.purpose)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// An empty form; with a password that the environment gave.
    pub(crate) fn new(password: Option<&str>) -> Entry {
        let password = Input::of(password.unwrap_or_default());
        Entry {
            purpose: Purpose::LogIn,
            field: Field::Handle,
            handle: Input::default(),
            repeated: password.clone(),
            password,
            busy: false,
            word: None,
        }
    }

    pub(crate) fn input(&mut self) -> &mut Input {
        match self.field {
            Field::Handle => &mut self.handle,
            Field::Password => &mut self.password,
            Field::Repeated => &mut self.repeated,
        }
    }

    pub(crate) fn chars_max(&self) -> usize {
        match self.field {
            Field::Handle => HANDLE_CHARS_MAX,
            Field::Password | Field::Repeated => PASSWORD_CHARS_MAX,
        }
    }

    pub(crate) fn fields(&self) -> &'static [Field] {
        match self.purpose {
            Purpose::LogIn => &[Field::Handle, Field::Password],
            Purpose::SignUp => &[Field::Handle, Field::Password, Field::Repeated],
        }
    }

    /// The next line, or the one before, around the ends.
    pub(crate) fn step(&mut self, back: bool) {
        let fields = self.fields();
        let at = fields.iter().position(|it| *it == self.field).unwrap_or(0);
        let step = if back { fields.len() - 1 } else { 1 };
        self.field = fields[(at + step) % fields.len()];
    }

    pub(crate) fn turn(&mut self, purpose: Purpose) {
        self.purpose = purpose;
        self.word = None;
        if !self.fields().contains(&self.field) {
            self.field = Field::Password;
        }
    }

    /// The form as it is to be sent; `None` while something is missing, which the cursor and the word then point at.
    pub(crate) fn submit(&mut self) -> Option<Filled> {
        if self.busy {
            return None;
        }
        let handle = self.handle.text().trim().trim_start_matches('@').to_owned();
        let chars = self.password.text().chars().count();
        let (field, word) = if handle.is_empty() {
            (Field::Handle, "which handle?".to_owned())
        } else if chars == 0 {
            (Field::Password, String::new())
        } else if self.purpose == Purpose::SignUp && !PASSWORD_CHARS.contains(&chars) {
            let (least, most) = (PASSWORD_CHARS.start(), PASSWORD_CHARS.end());
            let word = format!("a password has {least} to {most} characters; this one has {chars}");
            (Field::Password, word)
        } else if self.purpose == Purpose::SignUp && self.repeated.is_empty() {
            (Field::Repeated, String::new())
        } else if self.purpose == Purpose::SignUp && self.repeated.text() != self.password.text() {
            self.password.take();
            self.repeated.take();
            let word = "the two passwords differ: type them again".to_owned();
            (Field::Password, word)
        } else {
            self.busy = true;
            self.word = None;
            return Some(Filled {
                purpose: self.purpose,
                handle,
                password: self.password.text().to_owned(),
            });
        };
        self.field = field;
        self.word = Some(word).filter(|it| !it.is_empty());
        None
    }

    /// The server said no, or could not be asked. `field`: what was typed there is wrong.
    pub(crate) fn on_failed(&mut self, word: String, field: Option<Field>) {
        self.busy = false;
        self.word = Some(word);
        if let Some(field) = field {
            self.field = field;
            if field != Field::Handle {
                self.password.take();
                self.repeated.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn filled(entry: &mut Entry, handle: &str, password: &str, repeated: &str) -> Option<Filled> {
        entry.handle = Input::of(handle);
        entry.password = Input::of(password);
        entry.repeated = Input::of(repeated);
        entry.submit()
    }

    #[test]
    fn log_in_takes_any_password_and_sign_up_a_proper_one_twice() {
        let mut entry = Entry::new(None);
        assert!(filled(&mut entry, "@ada", "short", "").is_some_and(|it| it.handle == "ada"));
        assert!(entry.submit().is_none(), "one request at a time");
        entry.on_failed("no".to_owned(), Some(Field::Password));
        assert!(entry.password.is_empty());
        entry.turn(Purpose::SignUp);
        assert!(filled(&mut entry, "ada", "short", "short").is_none());
        assert!(filled(&mut entry, "ada", "long enough", "").is_none());
        assert_eq!((entry.field, &entry.word), (Field::Repeated, &None));
        assert!(filled(&mut entry, "ada", "long enough", "long enuogh").is_none());
        assert!(entry.word.is_some());
        assert!(filled(&mut entry, "ada", "long enough", "long enough").is_some());
    }

    #[test]
    fn no_password_is_printed_for_debugging() {
        let mut entry = Entry::new(None);
        let filled = filled(&mut entry, "ada", "correct horse", "").unwrap();
        assert!(!format!("{filled:?}").contains("horse"));
    }
}
