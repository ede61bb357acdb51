//! The HTTP connection manager: it serves the requests of a downstream connection through filters and
//! router.
//!
//! Build a [`Hcm`] from configuration, give each worker an [`HcmSlot`] of it, and run [`serve`] for
//! every connection. It decides nothing about hosts and knows no socket and no HTTP version.

pub mod access_log;
mod chain;
mod connection;
mod date;
mod exchange;
mod hcm;
mod local_reply;
mod request;
mod response;
mod stats;
mod timers;

pub use connection::{serve, serve_http3};
pub use hcm::{BuildContext, Hcm, HcmSlot};
pub use stats::{CodecStats, HcmStats, Http2Stats, Http3Observer, Http3Stats, ListenerHttpStats};
pub use tidegate_types::{Drain, DrainPhase, DrainWatch};
