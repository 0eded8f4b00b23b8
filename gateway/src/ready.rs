//! The ready file: where the node really listens, for whoever started it.
//!
//! ```json
//! {"http":"127.0.0.1:41307","url":"http://127.0.0.1:41307","metrics":"127.0.0.1:33517","node":"conch-1","pid":4711,"version":"0.1.0"}
//! ```
//! With QUIC also `"quic":"127.0.0.1:4433"`, and under `--dev` without certificate files `"quic_certificate_sha256":"…"`.
//! It appears whole (written beside, then renamed) when the node takes requests, and is removed at a clean stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What the file says.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub http: SocketAddr,
    pub url: String,
    pub metrics: SocketAddr,
    pub node: String,
    pub pid: u32,
    pub version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_certificate_sha256: Option<String>,
}

impl Ready {
    /// Writes the file whole.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.write_all(b"\n")?;
        drop(file);
        std::fs::rename(beside, path)
    }
}
