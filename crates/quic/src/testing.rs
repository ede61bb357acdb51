//! For tests: configurations with the test authority's certificates.
//!
//! For development only (feature `testing`). Failures panic: that is how a test fails.
#![allow(clippy::expect_used, reason = "a test helper: a panic is how a test fails")]

use std::sync::Arc;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ClientConfig, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("a suite for Initial packets")))
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
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a suite for Initial packets")))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}
