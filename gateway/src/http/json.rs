//! Strict JSON in, plain JSON out.
//!
//! A body is UTF-8 JSON with `Content-Type: application/json`, ≤ 64 KiB. Unknown fields, duplicate keys, numbers out of
//! range and deep nesting are refused by the types (`deny_unknown_fields`) and serde's own limits.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use conch_wire::Code;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{HttpReason, Problem};

/// A decoded body, and its bytes as they came.
#[derive(Debug)]
pub struct Body<T>(pub T, pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(';').next())
            .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"));
        if !json {
            return Err(Problem::http(
                HttpReason::UnsupportedMediaType,
                "Content-Type must be application/json",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e: BytesRejection| {
                if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    Problem::wire(Code::TooLarge, "the body is above 64 KiB")
                } else {
                    Problem::http(HttpReason::BadRequest, "the body could not be read")
                }
            })?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| Problem::http(HttpReason::BadJson, why(&e)))?;
        Ok(Body(value, bytes))
    }
}

/// Names of fields may be told back; values may be secrets and are not.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let about_a_field = ["unknown field", "missing field", "duplicate field"]
        .iter()
        .any(|start| text.starts_with(start));
    if about_a_field && text.len() <= 300 {
        text
    } else {
        format!(
            "not what this route takes, at line {} column {}",
            error.line(),
            error.column()
        )
    }
}

/// A JSON answer with this status.
pub fn answer<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => with_text(status, text),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// JSON that is text already.
pub fn with_text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A decimal id in a path or body: digits only, no leading zero, below 2⁶³.
pub fn parse_id<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = text.len() == 1 || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}
