//! TLS by rustls, in both directions: contexts from Envoy's messages, and the `Io` that speaks it.
//!
//! No HTTP, no pools. Whoever reads and writes the connection sees plain bytes; handshakes happen below.
//!
//! Start from [`ServerContext`], [`ClientContext`] and, behind both, [`TlsIo`].

mod blocks;
pub mod certificate;
pub mod client;
pub mod failure;
pub mod io;
pub mod listing;
pub mod names;
pub mod observed;
mod opening;
pub mod quic;
pub mod server;
mod sessions;
pub mod stats;
mod tickets;
pub mod verify;

pub use client::ClientContext;
pub use io::{Settings, TlsIo};
pub use server::ServerContext;
pub use stats::TlsStats;
