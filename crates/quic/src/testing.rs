//! For tests: a network in memory, and configurations with the test authority's certificates.
//!
//! [`pair`] gives both ends of a connection over a [`Network`]; [`Network::endpoint`] and [`Network::connect`] give the
//! parts. For development only (feature `testing`). Failures panic: that is how a test fails.
#![allow(clippy::expect_used, clippy::panic, reason = "a test helper: a panic is how a test fails")]

mod network;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use quinn_proto::{ClientConfig, ServerConfig, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use network::{Network, Passage, Path, Sighting};

use crate::{Conn, Endpoint, EndpointOptions, Event, Loss};

/// The name in the server's certificate.
pub const SERVER_NAME: &str = "server.test";

const AUTHORITY: &[u8] = include_bytes!("../../testkit/certs/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../testkit/certs/server.pem");
const KEY: &[u8] = include_bytes!("../../testkit/certs/server.key");

/// A server for [`SERVER_NAME`] that speaks these protocols and takes early data.
pub fn server_config(alpn: &[&str]) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    tls.alpn_protocols = protocols(alpn);
    tls.max_early_data_size = u32::MAX;
    let crypto = crate::crypto::server(Arc::new(tls)).expect("a usable configuration");
    let mut config = ServerConfig::with_crypto(crypto);
    let mut transport = TransportConfig::default();
    // What HTTP/3 needs (RFC 9114 section 6.2) and some.
    transport.max_concurrent_uni_streams(10u32.into());
    config.transport_config(Arc::new(transport));
    config
}

/// A client that trusts the test authority, speaks these protocols, and sends early data once it has a ticket.
pub fn client_config(alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY).expect("a certificate")).expect("an authority");
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = protocols(alpn);
    tls.enable_early_data = true;
    let mut config = ClientConfig::new(crate::crypto::client(Arc::new(tls)).expect("a usable configuration"));
    let mut transport = TransportConfig::default();
    // Servers open none of the other kind.
    transport.max_concurrent_uni_streams(10u32.into()).max_concurrent_bidi_streams(0u32.into());
    config.transport_config(Arc::new(transport));
    config
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.iter_mut().for_each(|suite| *suite = crate::crypto::compact_suite(*suite));
    Arc::new(provider)
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Where [`pair`] and [`serve`] put the server.
pub fn server_address() -> SocketAddr {
    ([192, 0, 2, 1], 443).into()
}

/// An address for the client of that number.
pub fn client_address(number: u8) -> SocketAddr {
    ([198, 51, 100, number], 40_000).into()
}

/// A server with [`server_config`] at [`server_address`].
pub fn serve(network: &Network, alpn: &[&str]) -> Endpoint {
    let server = Some(Arc::new(server_config(alpn)));
    network.endpoint(server_address(), EndpointOptions { server, ..EndpointOptions::default() })
}

/// A client's connection to [`server_address`] with [`client_config`]; its handshake has not begun.
///
/// # Panics
/// When the configuration is no good.
pub fn client(network: &Network, number: u8, alpn: &[&str]) -> Conn {
    let config = client_config(alpn);
    network.connect(client_address(number), server_address(), config, SERVER_NAME).expect("a connection")
}

/// A client and a server, connected.
///
/// # Panics
/// When they cannot.
pub async fn pair(network: &Network, alpn: &[&str]) -> (Conn, Conn) {
    let endpoint = serve(network, alpn);
    let mut client = client(network, 1, alpn);
    let mut server = None;
    let mut waiting = 2;
    poll_fn(|cx| {
        // Both are driven until both are connected: the last packet of one makes the other so.
        if server.is_none()
            && let Poll::Ready(attempt) = endpoint.poll_incoming(cx)
        {
            server = Some(attempt.expect("an attempt").accept().expect("a connection"));
        }
        for conn in [Some(&mut client), server.as_mut()].into_iter().flatten() {
            while let Poll::Ready(event) = conn.poll_event(cx) {
                match event {
                    Event::Connected => waiting -= 1,
                    Event::Lost(loss) => panic!("{loss}"),
                    _ => {}
                }
            }
        }
        if waiting == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (client, server.expect("a server"))
}

/// Drives a connection until its handshake is over; other events are lost.
///
/// # Errors
/// The loss.
pub async fn connected(conn: &mut Conn) -> Result<(), Loss> {
    loop {
        match poll_fn(|cx| conn.poll_event(cx)).await {
            Event::Connected => {
                conn.flush();
                return Ok(());
            }
            Event::Lost(loss) => return Err(loss),
            _ => {}
        }
    }
}
