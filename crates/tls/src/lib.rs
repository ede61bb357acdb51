//! TLS by rustls, in both directions: contexts from Envoy's messages, and the `Io` that speaks it.
//!
//! No HTTP, no pools. Whoever reads and writes the connection sees plain bytes; handshakes happen below.
//!
//! Start from [`TlsIo`].

mod blocks;
pub mod certificate;
pub mod client;
pub mod failure;
pub mod io;
pub mod names;
pub mod observed;
mod opening;
pub mod stats;
pub mod verify;

pub use client::ClientContext;
pub use io::{CloseNotify, Settings, TlsIo};
pub use stats::TlsStats;
