//! The web page: files that were built into the program (`build.rs`), served from memory under a strict policy.
//!
//! Nothing here reads a disk or looks at more of a request than its path and two headers. A program that was built without the
//! page says so on `/`. The page is of this node's origin and talks to it alone; the policy says the same to the browser:
//! scripts and styles from here only, nothing inline, no frames, no other hosts, and script URLs through one Trusted Types
//! policy of the page's.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};

use super::problem::{HttpReason, Problem};

/// A file of the page.
struct PageFile {
    /// Without the leading slash.
    path: &'static str,
    bytes: &'static [u8],
    /// The same, compressed with gzip.
    packed: Option<&'static [u8]>,
}

static FILES: &[PageFile] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

const INDEX: &str = "index.html";
/// Files under this folder carry a hash of their content in their name.
const HASHED: &str = "assets/";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types conch";

/// What `/` adds for people when the page is not in this program.
pub(super) const HOW_TO_BUILD: &str =
    "The web page is not in this program. To build it in: make page, then build again.\n";

/// Whether this program has the page.
pub(super) fn is_built() -> bool {
    find(INDEX).is_some()
}

/// The page itself, for a browser; `None` for programs that want no HTML, and without the page.
pub(super) fn index(headers: &HeaderMap) -> Option<Response> {
    let wants = accepts(headers, header::ACCEPT, "text/html");
    find(INDEX)
        .filter(|_| wants)
        .map(|file| file.answer(headers))
}

/// Whatever no route took: a file of the page, or nothing.
pub(super) async fn file(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    match find(path) {
        Some(file) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            file.answer(request.headers())
        }
        Some(_) => {
            Problem::http(HttpReason::MethodNotAllowed, "not by this method").into_response()
        }
        None => Problem::http(HttpReason::NoSuchRoute, "no such route").into_response(),
    }
}

fn find(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

fn accepts(headers: &HeaderMap, name: header::HeaderName, what: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split([',', ';']).any(|part| part.trim() == what))
}

impl PageFile {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let packed = self
            .packed
            .filter(|_| accepts(headers, header::ACCEPT_ENCODING, "gzip"));
        let mut response = packed.unwrap_or(self.bytes).into_response();
        let cache = if self.path.starts_with(HASHED) {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let answer = response.headers_mut();
        let mut put = |name, value| answer.insert(name, HeaderValue::from_static(value));
        put(header::CONTENT_TYPE, content_type(self.path));
        put(header::CACHE_CONTROL, cache);
        put(header::VARY, "accept, accept-encoding");
        put(header::CONTENT_SECURITY_POLICY, POLICY);
        put(header::REFERRER_POLICY, "no-referrer");
        put(
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        );
        put(
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        );
        if packed.is_some() {
            put(header::CONTENT_ENCODING, "gzip");
        }
        response
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    static FILE: PageFile = PageFile {
        path: "assets/x.js",
        bytes: b"1;",
        packed: Some(b"packed"),
    };

    #[test]
    fn every_file_goes_out_under_the_policy() {
        let response = FILE.answer(&HeaderMap::new());
        let header = |name| response.headers().get(name).unwrap().to_str().unwrap();
        assert!(header("content-security-policy").contains("default-src 'none'"));
        assert!(header("content-security-policy").contains("require-trusted-types-for 'script'"));
        assert!(!header("content-security-policy").contains("unsafe"));
        assert_eq!(header("content-type"), "text/javascript; charset=utf-8");
        assert!(header("cache-control").contains("immutable"));
        assert!(!response.headers().contains_key("content-encoding"));
    }

    #[test]
    fn compressed_only_for_who_takes_it() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("br, gzip;q=0.8"),
        );
        assert_eq!(FILE.answer(&headers).headers()["content-encoding"], "gzip");
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert!(
            !FILE
                .answer(&headers)
                .headers()
                .contains_key("content-encoding")
        );
    }

    #[test]
    fn programs_get_no_html() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert!(index(&headers).is_none());
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/html,application/xhtml+xml"),
        );
        assert_eq!(index(&headers).is_some(), is_built());
    }
}
