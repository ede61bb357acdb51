//! A TLS client that notes how its connection ends, and can talk on after that.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::tls_origin::{TlsEnd, certificate};
use crate::wait::PATIENCE;
use crate::wire::late_bytes_meet_a_reset;

/// A connection of a client that trusts the tests' authority and asks for `server.test`.
#[derive(Debug)]
pub struct TlsClient {
    tls: ClientConnection,
    socket: TcpStream,
    received: Vec<u8>,
}

impl TlsClient {
    /// Connects with these versions of TLS; the handshake comes with the first bytes.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(address: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate("ca.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("server.test").unwrap();
        let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { tls: ClientConnection::new(Arc::new(config), name).unwrap(), socket, received: Vec::new() }
    }

    /// Completes the handshake.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn handshake(&mut self) {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket).unwrap();
        }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the handshake fails.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.handshake();
        self.tls.writer().write_all(bytes.as_ref()).unwrap();
        while self.tls.wants_write() && self.tls.write_tls(&mut self.socket).is_ok() {}
    }

    /// Everything up to and including `mark`.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn through(&mut self, mark: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(at) = text.find(mark) {
                self.received.drain(..at + mark.len());
                return text[..at + mark.len()].to_owned();
            }
            assert!(self.receive().is_none(), "no {mark:?} in {text:?}");
        }
    }

    /// Waits for the proxy's end; what it sent until then is thrown away.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn end(&mut self) -> TlsEnd {
        loop {
            if let Some(end) = self.receive() {
                return end;
            }
        }
    }

    /// Talks on after the proxy's end: whether that meets an RST.
    pub fn is_reset_by(&mut self, bytes: &[u8]) -> bool {
        let mut record = Vec::new();
        let _ = self.tls.writer().write_all(bytes);
        let _ = self.tls.write_tls(&mut record);
        late_bytes_meet_a_reset(&self.socket, &record)
    }

    /// One receive: the end, if that is what came.
    #[track_caller]
    fn receive(&mut self) -> Option<TlsEnd> {
        let reset = match self.tls.read_tls(&mut self.socket) {
            Ok(0) => Some(false),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(true),
            Err(error) => panic!("no end within {:?}: {error}", Duration::from_secs(20)),
        };
        let state = self.tls.process_new_packets().unwrap();
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut plain).unwrap();
        self.received.extend(plain);
        reset.map(|reset| TlsEnd { close_notify: state.peer_has_closed(), reset })
    }
}
