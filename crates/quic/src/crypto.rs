//! TLS inside of QUIC (RFC 9001), over rustls: sessions that tell more than quinn-proto's own do.
//!
//! [`server`] and [`client`] wrap rustls configurations for `quinn_proto`. Certificates, names and tickets are those
//! configurations' business. With these sessions a [`Conn`](crate::Conn) can tell the cipher and whether it was
//! resumed, and can close with [`CloseCode::NoError`](crate::CloseCode::NoError), for which quinn-proto has no call (see
//! the module `keys`). Sessions of other crates get both from [`initial_keys`], [`keys()`], [`header_key`],
//! [`packet_key`], [`Later`] and a [`Handshake`] as their handshake data.

mod compact;
pub(crate) mod keys;
mod retry;
mod session;

use std::sync::Arc;

use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, crypto};
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection, ServerConnection, Suite, Version};

pub use compact::suite as compact_suite;
pub use keys::{Later, header as header_key, initial as initial_keys, packet as packet_key, pair as keys};
pub use retry::tag as retry_tag;
pub use session::{Handshake, Session};

/// The one version of QUIC that is spoken (RFC 9000).
pub(crate) const VERSION: u32 = 1;

/// Why a TLS configuration does not do for QUIC.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// TLS 1.3 is missing, or the size of early data is neither 0 nor 2^32-1 (RFC 9001 section 4.6.1).
    #[error("the TLS configuration does not do for QUIC: {0}")]
    Tls(#[from] rustls::Error),
    /// Initial packets are protected with it whatever is negotiated (RFC 9001 section 5.2).
    #[error("QUIC needs TLS13_AES_128_GCM_SHA256 among the cipher suites")]
    NoInitialSuite,
}

/// A server's part of `quinn_proto`, for [`ServerConfig::with_crypto`](crate::ServerConfig::with_crypto).
///
/// # Errors
/// [`CryptoError`].
pub fn server(tls: Arc<rustls::ServerConfig>) -> Result<Arc<dyn crypto::ServerConfig>, CryptoError> {
    let suite = initial_suite(tls.crypto_provider())?;
    // What is wrong with the configuration is wrong for every connection: so one is tried here.
    ServerConnection::new(tls.clone(), Version::V1, Vec::new())?;
    Ok(Arc::new(Server { tls, suite }))
}

/// A client's part of `quinn_proto`, for [`ClientConfig::new`](crate::ClientConfig::new).
///
/// # Errors
/// [`CryptoError`].
pub fn client(tls: Arc<rustls::ClientConfig>) -> Result<Arc<dyn crypto::ClientConfig>, CryptoError> {
    let suite = initial_suite(tls.crypto_provider())?;
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let trial = ClientConnection::new(Arc::new(without_tickets(&tls)), Version::V1, name, Vec::new());
    trial?;
    Ok(Arc::new(Client { tls, suite }))
}

/// A trial must not use up a ticket of the real configuration.
fn without_tickets(tls: &rustls::ClientConfig) -> rustls::ClientConfig {
    let mut tls = tls.clone();
    tls.resumption = rustls::client::Resumption::disabled();
    tls
}

/// The suite of Initial packets (RFC 9001 section 5.2).
///
/// # Errors
/// [`CryptoError::NoInitialSuite`].
pub fn initial_suite(provider: &CryptoProvider) -> Result<Suite, CryptoError> {
    provider
        .cipher_suites
        .iter()
        .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .find_map(|suite| suite.tls13()?.quic_suite())
        .ok_or(CryptoError::NoInitialSuite)
}

struct Server {
    tls: Arc<rustls::ServerConfig>,
    suite: Suite,
}

impl crypto::ServerConfig for Server {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<crypto::Keys, crypto::UnsupportedVersion> {
        if version != VERSION {
            return Err(crypto::UnsupportedVersion);
        }
        Ok(keys::initial(self.suite, dst_cid, rustls::Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry::tag(orig_dst_cid, packet)
    }

    #[allow(clippy::expect_used, reason = "the same call has been tried when this was made")]
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let tls = ServerConnection::new(self.tls.clone(), Version::V1, written(params));
        Box::new(Session::new(Connection::Server(tls.expect("a usable configuration")), self.suite))
    }
}

struct Client {
    tls: Arc<rustls::ClientConfig>,
    suite: Suite,
}

impl crypto::ClientConfig for Client {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        if version != VERSION {
            return Err(ConnectError::UnsupportedVersion);
        }
        let invalid = || ConnectError::InvalidServerName(server_name.to_owned());
        let name = ServerName::try_from(server_name).map_err(|_| invalid())?.to_owned();
        let tls = ClientConnection::new(self.tls.clone(), Version::V1, name, written(params));
        Ok(Box::new(Session::new(Connection::Client(tls.map_err(|_| invalid())?), self.suite)))
    }
}

fn written(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}
