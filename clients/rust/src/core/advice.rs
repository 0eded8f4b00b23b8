//! What a code asks of a client, by its hundred. The one place that knows the classes of `docs/protocol.md`.

use conch_wire::Code;

/// What to do about a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// 41xx: the same again, on this connection, later.
    RetryHere,
    /// 42xx: connect again and resume.
    Resume,
    /// 43xx: forget cursors and token, connect again and load afresh.
    Afresh,
    /// 44xx: the same again will be refused again.
    FixRequest,
    /// 45xx: a new token first.
    Authenticate,
    /// 46xx: no further attempt.
    Stop,
}

impl Advice {
    /// By number, because a close may carry one that this version has no name for. Anything else, WebSocket's own close
    /// codes included, is a lost connection.
    pub(crate) fn of(number: u16) -> Advice {
        match number / 100 {
            41 => Advice::RetryHere,
            43 => Advice::Afresh,
            44 => Advice::FixRequest,
            // Slow to say HELLO is no fault of the token.
            45 if number != Code::HelloTimeout.number() => Advice::Authenticate,
            46 => Advice::Stop,
            _ => Advice::Resume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_decide() {
        for (code, advice) in [
            (Code::RateLimited, Advice::RetryHere),
            (Code::OutcomeUnknown, Advice::RetryHere),
            (Code::GoingAway, Advice::Resume),
            (Code::Resync, Advice::Afresh),
            (Code::Conflict, Advice::FixRequest),
            (Code::TokenExpired, Advice::Authenticate),
            (Code::HelloTimeout, Advice::Resume),
            (Code::DeviceRevoked, Advice::Stop),
        ] {
            assert_eq!(Advice::of(code.number()), advice, "{code}");
        }
        assert_eq!(Advice::of(1006), Advice::Resume);
        assert_eq!(Advice::of(4_699), Advice::Stop);
    }
}
