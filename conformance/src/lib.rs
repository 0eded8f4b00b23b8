//! One conformance script for every client of Conch, in any language.
//!
//! A **case** is a file in `scripts/`: what a scripted server does step by step, and what the client under test must say
//! on the wire and show to its person. The client is any program that speaks the line protocol of [`host`] on its standard
//! input and output; `docs/conformance.md` describes both formats. The program `conch-conform` runs cases and says which
//! failed.
//!
//! ```text
//! scripts/*.json ──script──► runner ──steps──► server ◄─WebSocket, QUIC─► client under test
//!                              └──────host: lines on stdin/stdout──────────┘
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `script.rs` | the format of a case |
//! | `world.rs` | what the server's store holds: channels, logs, marks, keys (pure) |
//! | `session/`, `server.rs` | what the server answers, by itself or as the script says |
//! | `rules.rs` | what holds for every frame of a client, in every case (pure) |
//! | `showing.rs` | what holds for everything that a client shows, in every case (pure) |
//! | `transport/` | the seam below a session: WebSocket and QUIC |
//! | `host.rs` | the client's process and its lines |
//! | `runner.rs` | one step after the other, each with a deadline |

pub mod host;
mod rules;
mod runner;
pub mod script;
mod server;
mod session;
mod showing;
mod transport;
mod world;

pub use runner::{Outcome, Settings, fresh_folder, run_all};
pub use script::{Case, Feature, load_folder};
pub use transport::Transport;
