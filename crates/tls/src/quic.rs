//! TLS inside QUIC (RFC 9001): what quinn-proto is configured with on either side.
//!
//! No sockets, no HTTP. A listener's connections get one configuration from [`server_config`], whose sessions ask
//! a [`Pick`] which of the filter chains' contexts speaks, once the ClientHello tells for whom it is. A cluster's
//! connections get theirs from a [`QuicClient`]. What a handshake brought is asked of the connection: [`info`].

mod client;
mod hello;
mod picked;
mod server;
mod session;
mod transport;

pub use client::{Beginning, QuicClient};
pub use hello::{Addresses, Hello};
pub use picked::{Pick, while_accepting};
pub use server::server_config;
pub use transport::{client_transport, server_transport};

use std::rc::Rc;

use tidegate_quic::Conn;
use tidegate_types::TlsInfo;

pub(crate) use session::Session;

use session::Facts;

/// Facts of a connection's TLS: complete once its handshake is, and of a resumed session with its ClientHello, so
/// that they are there for early data. `None` before, and for a connection that was not configured here.
pub fn info(conn: &Conn) -> Option<Rc<TlsInfo>> {
    let facts = conn.handshake().session?.downcast::<Facts>().ok()?;
    facts.info.get().cloned().map(Rc::new)
}

#[cfg(test)]
mod tests;
