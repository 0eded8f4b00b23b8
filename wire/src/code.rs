//! Error codes: one closed set, used in ERROR frames, as WebSocket close codes and as HTTP problem codes.
//!
//! The hundreds say what a client does: 41xx retry here, 42xx reconnect and resume, 43xx reconnect afresh, 44xx fix the
//! request, 45xx authenticate again, 46xx stop. `docs/protocol.md` has a row for each; a test compares the two.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A numbered answer to what could not be done. Numbers and names are for ever.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $variant = $number,)* }

        impl Code {
            /// Every code, in numeric order.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The stable name used in HTTP problems and logs.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The code of a number, if it is one of ours.
            pub fn from_u16(number: u16) -> Option<Code> {
                match number { $($number => Some(Code::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// Too many requests of this kind; wait `retry_after_ms`.
    RateLimited = 4100, "rate_limited";
    /// A bounded queue or the memory behind the index is full; nothing was stored.
    Overloaded = 4101, "overloaded";
    /// The disk's reserve is reached: reads go on, sends are refused.
    StorageFull = 4102, "storage_full";
    /// Whether the message was stored is not known: keep its key and try again.
    OutcomeUnknown = 4103, "outcome_unknown";
    /// The owner or the store cannot be reached now; nothing was stored.
    Unavailable = 4104, "unavailable";
    /// The node is shutting down or draining.
    GoingAway = 4200, "going_away";
    /// Nothing was received for 45 s.
    IdleTimeout = 4201, "idle_timeout";
    /// The client did not read for 30 s while events waited.
    SlowConsumer = 4202, "slow_consumer";
    /// The node failed inside; it is not the client's fault.
    InternalError = 4203, "internal_error";
    /// Another connection took this session's place.
    SessionReplaced = 4204, "session_replaced";
    /// What the client knows is of another generation, or trimmed: forget and load again.
    Resync = 4300, "resync";
    /// The bytes are not a valid frame.
    BadFrame = 4400, "bad_frame";
    /// A frame type that this node does not know and that may not be skipped.
    UnknownFrame = 4401, "unknown_frame";
    /// The channel, user or message does not exist for this user.
    NotFound = 4402, "not_found";
    /// The user may see it but not do this to it.
    Forbidden = 4403, "forbidden";
    /// The same key was used for other content, or the state changed under the request.
    Conflict = 4404, "conflict";
    /// A field is out of its range or not acceptable; the detail names it.
    Invalid = 4405, "invalid";
    /// The channel has used up its sequence numbers.
    ChannelFull = 4406, "channel_full";
    /// A cap of members, devices or open channels is reached.
    LimitReached = 4407, "limit_reached";
    /// An alias that is not open on this connection, or one that may not be used.
    BadAlias = 4408, "bad_alias";
    /// A frame that this moment of the session does not allow.
    UnexpectedFrame = 4409, "unexpected_frame";
    /// A frame or body above its limit.
    TooLarge = 4413, "too_large";
    /// A protocol version that this node does not speak.
    UnsupportedVersion = 4426, "unsupported_version";
    /// The token is missing, malformed, forged or not for this deployment.
    Unauthenticated = 4500, "unauthenticated";
    /// The token has expired.
    TokenExpired = 4501, "token_expired";
    /// No HELLO within 5 s.
    HelloTimeout = 4502, "hello_timeout";
    /// The device was logged out or revoked.
    DeviceRevoked = 4600, "device_revoked";
    /// The flood went on after refusals.
    Flooding = 4601, "flooding";
    /// The account was closed or banned.
    AccountClosed = 4602, "account_closed";
    /// The channel is out of order after repeated failures inside; it can be read.
    Quarantined = 4603, "quarantined";
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number from a peer that may be newer: one of ours, or for a number that is not, the one of its
    /// hundred that asks the same of a client. `None` outside 4100 ..= 4699.
    pub fn nearest(number: u16) -> Option<Code> {
        Code::from_u16(number).or(match number / 100 {
            41 => Some(Code::Unavailable),
            42 => Some(Code::InternalError),
            43 => Some(Code::Resync),
            44 => Some(Code::Invalid),
            45 => Some(Code::Unauthenticated),
            46 => Some(Code::Flooding),
            _ => None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}
