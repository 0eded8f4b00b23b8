//! Identities. Users, channels, devices and sessions are 63-bit numbers (decimal strings in JSON, because JavaScript's
//! numbers end at 2⁵³); a message's key is 128 random bits made once by the SDK.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The largest id: ids are 63-bit so that every language's signed integers hold them.
pub const ID_MAX: u64 = (1 << 63) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse::<i64>().and_then(|n| u64::try_from(n).map_err(|_| "-".parse::<u64>().unwrap_err())).map($name)
            }
        }
    };
}

id! {
    /// A person's account.
    UserId
}
id! {
    /// An ordered log with members.
    ChannelId
}
id! {
    /// One installation of an app that a person has logged in on.
    DeviceId
}
id! {
    /// An authenticated device on one connection.
    SessionId
}

/// The sender's name for a message: the same key always means the same message (within a channel and sender, 7 days).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageKey(pub [u8; 16]);

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
