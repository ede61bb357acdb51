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
mod words;

pub use client::{Beginning, QuicClient};
pub use hello::{Addresses, Hello};
pub use picked::{Pick, while_accepting};
pub use server::server_config;
pub use transport::{client_transport, server_transport};

use std::rc::Rc;
use std::sync::Arc;

use tidegate_quic::Conn;
use tidegate_types::TlsInfo;

pub(crate) use session::Session;

use session::Facts;

/// Facts of a connection's TLS: complete once its handshake is, and of a resumed session with its ClientHello, so
/// that they are there for early data. `None` before, and for a connection that was not configured here.
pub fn info(conn: &Conn) -> Option<Rc<TlsInfo>> {
    facts(conn)?.info()
}

/// Asks for the same of a connection that somebody else owns from here on. `None` for one that was not configured here,
/// and before its ClientHello.
pub fn facts(conn: &Conn) -> Option<LiveFacts> {
    conn.handshake().session?.downcast::<Facts>().ok().map(LiveFacts)
}

/// What is known of a connection's TLS by now.
#[derive(Clone)]
pub struct LiveFacts(Arc<Facts>);

impl LiveFacts {
    /// As [`info`].
    pub fn info(&self) -> Option<Rc<TlsInfo>> {
        self.0.info().map(Rc::new)
    }

    /// The same for who keeps it, once: nobody is told any more afterwards, and it is held no longer here.
    pub fn take(&self) -> Option<Rc<TlsInfo>> {
        self.0.take().map(Rc::new)
    }
}

#[cfg(test)]
mod tests;
