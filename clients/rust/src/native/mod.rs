//! The driver: the core with tokio, a WebSocket, a folder on disk and the HTTP API.
//!
//! | file | concept |
//! |---|---|
//! | `client.rs` | what an application holds: [`Client`] and what it gives out |
//! | `builder.rs` | how one is made |
//! | `driver.rs` | the task that runs the core: inputs in, outputs carried out in their order |
//! | `socket.rs` | one WebSocket connection |
//! | `store.rs` | the data folder: its lock, and the SQLite database with rows of the core |
//! | `login.rs` | tokens: kept, refreshed, handed out |
//! | `http.rs` | the HTTP API |
//! | `tls.rs` | whom to trust |

mod builder;
mod client;
mod driver;
mod http;
mod login;
mod socket;
mod store;
mod tls;

pub use builder::ClientBuilder;
pub use client::{Client, ClientError, EventStream, SendHandle, SendOutcome};
pub use http::{Api, ApiError, Channel, Device, Login, Member, Person};
pub use login::{Account, TokenError, TokenFuture, TokenProvider};
pub use store::StoreError;
