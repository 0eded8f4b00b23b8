//! Refusals over HTTP: `application/problem+json` with a stable `code`.
//!
//! ```json
//! {"type":"urn:conch:problem:not_found","title":"Not found","status":404,"code":"not_found","detail":"…","retry_after_ms":250}
//! ```
//! `code` is [`conch_wire::Code::name`], or one of the names below that only HTTP has. `detail` is for people. Nothing in
//! a refusal says whether an account or a channel exists that the asker may not see.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conch_router::Refused;
use conch_wire::Code;
use serde_json::json;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $status:ident;)*) => {
        /// Why a request is refused, where the wire has no code for it. Names are for ever.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum HttpReason { $($(#[doc = $doc])* $variant,)* }

        impl HttpReason {
            /// Every reason with its name and meaning, for the documentation.
            pub const ALL: &'static [(&'static str, &'static str)] = &[$(($name, concat!($($doc,)*)),)*];

            fn parts(self) -> (&'static str, StatusCode) {
                match self { $(HttpReason::$variant => ($name, StatusCode::$status),)* }
            }
        }
    };
}

reasons! {
    /// The body is not the JSON that this route takes.
    BadJson = "bad_json", BAD_REQUEST;
    /// The request is malformed outside its body.
    BadRequest = "bad_request", BAD_REQUEST;
    /// `Content-Type` is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The request was not complete in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// There is no such route.
    NoSuchRoute = "no_such_route", NOT_FOUND;
    /// The route does not take this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// Handle and password do not belong together.
    WrongCredentials = "wrong_credentials", UNAUTHORIZED;
    /// The handle belongs to somebody.
    HandleTaken = "handle_taken", CONFLICT;
    /// The handle is not 3–32 of `a-z 0-9 _ . -`.
    InvalidHandle = "invalid_handle", BAD_REQUEST;
    /// The password is not 8–256 characters.
    InvalidPassword = "invalid_password", BAD_REQUEST;
    /// The display name is not 1–64 characters.
    InvalidDisplayName = "invalid_display_name", BAD_REQUEST;
    /// This node makes no accounts on request.
    SignUpClosed = "sign_up_closed", FORBIDDEN;
    /// The `Origin` is not one of this node's.
    OriginRefused = "origin_refused", FORBIDDEN;
    /// The `Idempotency-Key` was used for another request.
    IdempotencyMismatch = "idempotency_mismatch", CONFLICT;
    /// The route needs a WebSocket upgrade.
    UpgradeRequired = "upgrade_required", UPGRADE_REQUIRED;
}

/// What a problem is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Wire(Code),
    Http(HttpReason),
}

/// A refusal on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub reason: Reason,
    pub detail: String,
    /// 0: no advice.
    pub retry_after_ms: u32,
}

/// What handlers return.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    pub fn wire(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            reason: Reason::Wire(code),
            detail: detail.into(),
            retry_after_ms: 0,
        }
    }

    pub fn http(reason: HttpReason, detail: impl Into<String>) -> Problem {
        Problem {
            reason: Reason::Http(reason),
            detail: detail.into(),
            retry_after_ms: 0,
        }
    }

    pub fn not_found() -> Problem {
        Problem::wire(
            Code::NotFound,
            "there is no such thing, or it is not yours to see",
        )
    }

    /// Something failed inside; what it was is in the log.
    pub fn internal(error: &dyn std::error::Error) -> Problem {
        tracing::error!(%error, source = ?error.source().map(ToString::to_string), "a request failed inside");
        Problem {
            retry_after_ms: 1_000,
            ..Problem::wire(Code::Unavailable, "the node cannot do this now")
        }
    }

    pub fn retry_after(mut self, ms: u32) -> Problem {
        self.retry_after_ms = ms;
        self
    }

    fn name(&self) -> &'static str {
        match self.reason {
            Reason::Wire(code) => code.name(),
            Reason::Http(reason) => reason.parts().0,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self.reason {
            Reason::Wire(code) => status_of(code),
            Reason::Http(reason) => reason.parts().1,
        }
    }

    /// Whether the request certainly changed nothing.
    pub fn is_certain(&self) -> bool {
        self.reason != Reason::Wire(Code::OutcomeUnknown)
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::RateLimited | Code::Flooding => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded | Code::OutcomeUnknown | Code::Unavailable | Code::GoingAway => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Forbidden | Code::AccountClosed => StatusCode::FORBIDDEN,
        Code::Conflict | Code::ChannelFull | Code::LimitReached | Code::Quarantined => {
            StatusCode::CONFLICT
        }
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
        Code::Unauthenticated | Code::TokenExpired | Code::DeviceRevoked => {
            StatusCode::UNAUTHORIZED
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Problem {
            reason: Reason::Wire(refused.code),
            detail: refused.detail.to_owned(),
            retry_after_ms: refused.retry_after_ms,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let code = self.name();
        let mut body = json!({
            "type": format!("urn:conch:problem:{code}"),
            "title": status.canonical_reason().unwrap_or("Refused"),
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail,
        });
        if self.retry_after_ms > 0 {
            body["retry_after_ms"] = self.retry_after_ms.into();
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.retry_after_ms > 0 {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(self.retry_after_ms.div_ceil(1_000)),
            );
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"conch\""),
            );
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_names_do_not_collide_with_the_wires() {
        for (name, meaning) in HttpReason::ALL {
            assert!(Code::ALL.iter().all(|code| code.name() != *name), "{name}");
            assert!(!meaning.is_empty());
        }
    }
}
