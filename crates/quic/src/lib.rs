//! QUIC for one worker: quinn-proto's sans-IO core, driven by the task that owns a connection.
//!
//! No HTTP, no certificates, no policy about when a connection ends. An [`Endpoint`] is one UDP socket of one
//! worker and its task, which hands every datagram to the connection that it belongs to; [`Conn`] is one
//! connection, polled by the one task that owns it, with all its streams. Nothing is `Send` and nothing is locked.
//!
//! The order of calls, on either side:
//!
//! 1. [`Endpoint::poll_incoming`] and [`Incoming::accept`], or [`connect`], give a [`Conn`].
//! 2. Its task calls [`Conn::poll_event`] until it is pending, handles each [`Event`], reads and writes streams
//!    meanwhile, and calls [`Conn::poll_event`] again when it has done so: what stands to be sent is sent when
//!    `poll_event` becomes pending, and not before.
//! 3. After [`Event::Lost`], or when it wants to be rid of it, it drops the [`Conn`]. What is owed to the peer
//!    after that (`CONNECTION_CLOSE` again, RFC 9000 section 10.2) is the endpoint's business.

mod cid;
mod close;
mod conn;
mod connect;
pub mod crypto;
mod endpoint;
mod hub;
mod incoming;
mod link;
mod options;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod versions;

pub use close::{CloseCode, Loss};
pub use conn::{Conn, EarlyData, Event, ReadError, WriteError};
pub use connect::{ConnectError, connect};
pub use endpoint::Endpoint;
pub use incoming::{AcceptError, Incoming};
pub use options::{EndpointOptions, Limits, Reception, Worker};
/// The sans-IO core, for what configures it (`TransportConfig`, `crypto::rustls`).
pub use quinn_proto as proto;
pub use quinn_proto::{
    ClientConfig, ConnectionError, Dir, ServerConfig, Side, StreamId, TransportConfig, VarInt,
};
pub use stats::{ConnStats, EndpointStats};
