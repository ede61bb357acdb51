//! What lies between a dialed socket and the codec: nothing, TLS, a PROXY header, or one on the other.
//!
//! A [`Transport`] is made once for a cluster and used for each of its connections. No TLS here: only the
//! place where it plugs in.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_types::connection_state::ProxyTlvs;
use tidegate_types::{Address, ConnectionInfo};

use crate::BoxIo;

/// What one stream asks of the connection that carries it. Connections are shared only among streams that ask
/// for the same: this is part of a pool's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransportOptions {
    /// The server name to ask for, in place of the configured one (`auto_sni`).
    pub server_name: Option<Arc<str>>,
    /// The names of which the certificate must carry one (`auto_san_validation`); empty: as configured.
    pub verify_names: Vec<Arc<str>>,
    /// Protocols to offer, in place of the configured ones.
    pub alpn: Vec<Arc<[u8]>>,
    /// What a PROXY header tells of the downstream connection.
    pub proxy: Option<ProxyAddresses>,
}

/// The two ends of the downstream connection, for a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyAddresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// Type-length-value entries to pass on (PROXY protocol 2, §2.2.7).
    pub tlvs: Arc<[(u8, Box<[u8]>)]>,
}

impl ProxyAddresses {
    /// The two ends of a TCP connection; other ones have no addresses to tell.
    pub fn of(connection: &ConnectionInfo) -> Option<Self> {
        let (Address::Ip(source), Address::Ip(destination)) =
            (&connection.remote_address, &connection.local_address)
        else {
            return None;
        };
        Some(Self {
            source: *source,
            destination: *destination,
            tlvs: connection.state.value::<ProxyTlvs>().map(|tlvs| tlvs.0.clone()).unwrap_or_default(),
        })
    }
}

/// Wraps connections.
pub trait Transport {
    /// Makes `io` a connection that speaks this transport, handshake included. Timeouts are the caller's:
    /// dropping the future closes the socket.
    fn connect(&self, io: BoxIo, options: Rc<TransportOptions>) -> Connecting;
}

/// A cluster's transports, shared by all workers: each takes one for each host that it connects to.
pub trait TransportFactory: std::fmt::Debug + Send + Sync {
    /// The transport of connections to the host with that name (empty if it has none). `fallback_alpn` are
    /// protocols to offer where neither the configuration nor a stream names any.
    fn of_host(&self, hostname: &str, fallback_alpn: &[&[u8]]) -> Rc<dyn Transport>;
}

/// A handshake under way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<BoxIo, TransportError>>>>;

/// Why the transport was not established.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TransportError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, as Envoy prints it; empty when the peer just closed.
    pub reason: Cow<'static, str>,
    /// Whether the peer ended the connection (counts as a remote close).
    pub closed_by_peer: bool,
}

/// Makes accepted connections speak a transport: the downstream's side.
pub trait ServerTransport {
    /// Wraps `io` without waiting for anything: the handshake happens inside the first reads, so that whoever
    /// serves the connection counts it, and times it, from the moment it was accepted (as Envoy does). What
    /// the handshake yields is put into `connection`. A handshake that takes longer than `timeout` ends the
    /// connection as [`std::io::ErrorKind::TimedOut`].
    fn accept(&self, io: BoxIo, connection: &Rc<ConnectionInfo>, timeout: Option<Duration>) -> BoxIo;
}
