//! Byte credit that this client grants: the server pushes no more than this before it hears from us.
//!
//! Charged are the whole frames of pushed events (DELIVER and EVENT), header included. When half of the credit is used,
//! all that was used is granted again, so the server never waits for a client that reads.

/// The account of one connection. Starts full with HELLO's `credit_bytes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    window_bytes: u32,
    used_bytes: u32,
}

impl Credit {
    pub(crate) fn new(window_bytes: u32) -> Credit {
        Credit {
            window_bytes,
            used_bytes: 0,
        }
    }

    /// A pushed frame arrived; says what to grant now.
    pub(crate) fn on_pushed(&mut self, frame_bytes: u32) -> Option<u32> {
        self.used_bytes = self.used_bytes.saturating_add(frame_bytes);
        if self.used_bytes < self.window_bytes.div_ceil(2) {
            return None;
        }
        Some(std::mem::take(&mut self.used_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_what_was_used_once_half_is_gone() {
        let mut credit = Credit::new(1_000);
        assert_eq!(credit.on_pushed(499), None);
        assert_eq!(credit.on_pushed(1), Some(500));
        assert_eq!(credit.on_pushed(100), None);
        assert_eq!(credit.on_pushed(900), Some(1_000));
    }

    /// The server stops when what it may push is used up, and one frame may take it below zero.
    #[test]
    fn server_is_never_left_without_credit_by_a_reader() {
        for window in [1, 2, 100, 1_001] {
            for frame in [1, 50, 99, 2_000] {
                let mut credit = Credit::new(window);
                let mut left = i64::from(window);
                for _ in 0..200 {
                    assert!(left > 0, "window {window}, frame {frame}");
                    left -= i64::from(frame);
                    left += credit.on_pushed(frame).map_or(0, i64::from);
                }
            }
        }
    }
}
