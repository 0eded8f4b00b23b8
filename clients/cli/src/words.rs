//! What to say about refusals and the connection, and what a person can do about them. Pure.

use conch_client::core::{ConnectionState, RefusalReason, StopReason};
use conch_client::wire::Code;
use conch_client::{ApiError, ClientError, Rebuilt, RebuiltReason, Transport};

/// What went wrong, and the next step.
pub(crate) fn failure(error: &ClientError) -> String {
    match error {
        ClientError::Api(error) => api_failure(error),
        ClientError::Offline => "not connected: it works again with the connection".to_owned(),
        ClientError::Refused(code) => refusal(RefusalReason::Server(*code)),
        ClientError::Invalid { code, .. } if *code == Code::TooLarge => {
            "too long: a message has at most 100,000 characters".to_owned()
        }
        ClientError::OutboxFull => {
            "too many messages wait: wait for the connection, or take refused ones back".to_owned()
        }
        ClientError::OtherAccount => {
            "this data folder belongs to another account: take another one with --data".to_owned()
        }
        ClientError::LoggedIn => "somebody is logged in here: /logout first".to_owned(),
        ClientError::Storage => {
            "the data folder cannot be written: make room, then start this program again".to_owned()
        }
        ClientError::Closed => {
            "this program lost hold of its data folder: start it again".to_owned()
        }
        other => other.to_string(),
    }
}

fn api_failure(error: &ApiError) -> String {
    match error {
        ApiError::Network(why) => {
            format!("the server cannot be reached ({why}): is it running, is --server right?")
        }
        ApiError::LoggedOut => "the login has ended: /login HANDLE".to_owned(),
        ApiError::Answer(why) => {
            format!("what answers there is no Conch node ({why}): is --server right?")
        }
        ApiError::Refused {
            code,
            detail,
            retry_after_ms,
            ..
        } => match code.as_str() {
            "wrong_credentials" => {
                "handle and password do not belong together: try again, or sign up".to_owned()
            }
            "handle_taken" => "this handle belongs to somebody: take another, or log in".to_owned(),
            "invalid_handle" => {
                "a handle is 3 to 32 of a–z, 0–9, _ . - with a letter or digit in it".to_owned()
            }
            "invalid_password" => "a password has 8 to 256 characters".to_owned(),
            "sign_up_closed" => {
                "this server makes no accounts on request: ask whoever runs it".to_owned()
            }
            "limit_reached" => detail.clone(),
            "forbidden" => "only an owner or admin of the group may do that".to_owned(),
            "not_found" => "there is no such person, device or group for you".to_owned(),
            "rate_limited" | "overloaded" | "unavailable" => {
                let seconds = retry_after_ms.div_ceil(1_000).max(1);
                format!("the server is busy: again in {seconds} s")
            }
            _ => format!("{detail} ({code})"),
        },
    }
}

/// Why a message was given up, and what to do.
pub(crate) fn refusal(reason: RefusalReason) -> String {
    let code = match reason {
        RefusalReason::Server(code) => code,
        RefusalReason::Expired => {
            return "it waited for too long: look whether it arrived, else send it again"
                .to_owned();
        }
        RefusalReason::Cancelled => return "it was taken back".to_owned(),
    };
    let words = match code {
        Code::NotFound | Code::Forbidden => "you are not a member here any more: ask to be let in",
        Code::TooLarge => "too long for this server: send it in parts",
        Code::ChannelFull => "this conversation is full: begin a new group",
        Code::Quarantined => {
            "this conversation is out of order: it can be read; tell whoever runs the server"
        }
        Code::Conflict => "the server has another message under its name: send it again",
        Code::Invalid => "the server does not accept it: change it",
        _ => return format!("refused ({}): send it again", code.name()),
    };
    words.to_owned()
}

/// What became of a data folder that could not be read.
pub(crate) fn rebuilt(rebuilt: &Rebuilt) -> String {
    let why = match rebuilt.reason {
        RebuiltReason::Damaged => "the data folder was damaged",
        RebuiltReason::NewerVersion => "the data folder is of a later version of this program",
        RebuiltReason::Missing => "the data folder had lost its database",
    };
    let kept = match (rebuilt.outbox_kept, rebuilt.outbox_is_whole) {
        (0, true) => String::new(),
        (kept, true) => format!("; {kept} unsent messages were kept"),
        (kept, false) => format!("; {kept} unsent messages were kept, others may be lost"),
    };
    let aside = rebuilt.set_aside.as_ref();
    let aside = aside.map_or(String::new(), |it| {
        format!(" (the old one: {})", it.display())
    });
    format!("{why} and is filled again from the server{kept}{aside}")
}

/// What carries the connection.
pub(crate) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "QUIC",
        Transport::WebSocket => "WebSocket",
    }
}

/// Why the server asks for patience.
pub(crate) fn delay(code: Code) -> &'static str {
    match code {
        Code::RateLimited => "too fast for the server",
        Code::StorageFull => "the server's disk is full",
        _ => "the server is busy",
    }
}

/// What to say about the connection.
pub(crate) fn connection(state: ConnectionState) -> String {
    match state {
        ConnectionState::Connecting => "connecting…".to_owned(),
        ConnectionState::Online => "connected".to_owned(),
        ConnectionState::Offline { retry_in_ms, code } => {
            let why = code.map_or(String::new(), |code| format!(" (code {code})"));
            format!(
                "no connection{why}; next attempt in {}.{} s",
                retry_in_ms / 1_000,
                retry_in_ms % 1_000 / 100
            )
        }
        ConnectionState::Stopped(reason) => stopped(reason),
    }
}

/// Why no further attempt is made.
pub(crate) fn stopped(reason: StopReason) -> String {
    match reason {
        StopReason::Closed => "disconnected".to_owned(),
        StopReason::LoggedOut => "the login has ended: /login HANDLE".to_owned(),
        StopReason::Ended(code) => match code {
            Code::DeviceRevoked => "this device was logged out: /login HANDLE".to_owned(),
            Code::AccountClosed => "the account was closed".to_owned(),
            Code::SessionReplaced => {
                "another program took this device's place: end it, or take another --data"
                    .to_owned()
            }
            code => format!("the server ended this login: {}", code.name()),
        },
        StopReason::UnsupportedVersion => {
            "this program is too old for the server: update it".to_owned()
        }
        StopReason::WrongAccount => {
            "the data folder belongs to another account: take another --data".to_owned()
        }
        StopReason::Storage => "the data folder cannot be written".to_owned(),
    }
}

/// Whether logging in again mends it.
pub(crate) fn is_login_over(reason: StopReason) -> bool {
    matches!(
        reason,
        StopReason::LoggedOut | StopReason::Ended(Code::DeviceRevoked)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> ClientError {
        ClientError::Api(ApiError::Refused {
            status: 400,
            code: code.to_owned(),
            detail: "detail".to_owned(),
            retry_after_ms: 2_500,
        })
    }

    #[test]
    fn failures_say_what_to_do() {
        for (error, step) in [
            (refused("wrong_credentials"), "sign up"),
            (refused("handle_taken"), "log in"),
            (refused("rate_limited"), "again in 3 s"),
            (refused("something_new"), "detail (something_new)"),
            (
                ClientError::Api(ApiError::Network("refused".to_owned())),
                "--server",
            ),
            (ClientError::Refused(Code::ChannelFull), "new group"),
        ] {
            assert!(failure(&error).contains(step), "{}", failure(&error));
        }
    }
}
