//! TLS as the load generator speaks it: rustls over non-blocking sockets, TLS 1.3, every handshake a full one.
//!
//! The client offers X25519 alone: what is compared is the proxies' work, and not which of them knows the
//! newest key exchange. Start from [`Client::new`]; a [`Session`] sits between a connection's protocol and its
//! socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::certificate;
use crate::failure::{Context, Failure};

/// What all sessions share.
#[derive(Clone)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Trusts the bench's certificate and nothing else; offers the protocol `alpn` and insists on it.
    pub(super) fn new(alpn: &str) -> Result<Self, Failure> {
        let name = ServerName::try_from(certificate::NAME).context("the server name")?;
        Ok(Self { config: Arc::new(config(alpn)?), name })
    }

    /// A stream over a blocking socket.
    pub(super) fn stream(&self, socket: TcpStream) -> Result<impl Read + Write + use<>, Failure> {
        Ok(StreamOwned::new(self.session()?.tls, socket))
    }

    /// A session at its beginning.
    pub(super) fn session(&self) -> Result<Session, Failure> {
        let tls = ClientConnection::new(self.config.clone(), self.name.clone()).context("a TLS session")?;
        Ok(Session { tls })
    }
}

/// Trusts the bench's certificate and nothing else; offers the protocol `alpn` and insists on it.
pub(super) fn config(alpn: &str) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(certificate::CERTIFICATE.as_bytes());
    roots.add(certificate.context("the certificate")?).context("the certificate")?;
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// One connection's TLS.
pub(super) struct Session {
    tls: ClientConnection,
}

impl Session {
    /// Encrypts `plain` (after the handshake, if that is still under way) and sends what can be sent.
    pub(super) fn send(&mut self, socket: &mut TcpStream, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)?;
        self.flush(socket)
    }

    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(socket)?;
        }
        Ok(())
    }

    /// Takes received bytes, answers the handshake, and appends what they said to `plain`.
    pub(super) fn receive(
        &mut self,
        socket: &mut TcpStream,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let known = plain.len();
            plain.resize(known + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut plain[known..])?;
        }
        self.flush(socket)
    }
}
