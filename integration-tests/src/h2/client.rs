//! A raw HTTP/2 client.

use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

use super::conn::{H2Conn, Manners};
use super::{Message, pipe};
use crate::tls_origin::certificate;
use crate::wait::PATIENCE;

/// A client connection: an [`H2Conn`] that numbers its streams. Closed on drop.
#[derive(Debug)]
pub struct H2Client {
    conn: H2Conn,
    next: AtomicU32,
}

impl Deref for H2Client {
    type Target = H2Conn;

    fn deref(&self) -> &H2Conn {
        &self.conn
    }
}

impl Drop for H2Client {
    fn drop(&mut self) {
        self.conn.close();
    }
}

impl H2Client {
    /// With prior knowledge over TCP, well-mannered; preface and SETTINGS are sent.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, Manners::default())
    }

    /// As [`connect`](Self::connect), with manners.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    #[track_caller]
    pub fn with(address: SocketAddr, manners: Manners) -> Self {
        Self::greeting(Self::over(address, None, manners))
    }

    /// Sends nothing by itself at first: the preface is the test's.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    #[track_caller]
    pub fn silent(address: SocketAddr, manners: Manners) -> Self {
        Self::reading(Self::over(address, None, manners))
    }

    /// Over TLS with these ALPN names, trusting the tests' authority, asking for `server.test`.
    ///
    /// # Panics
    /// When the handshake fails.
    #[track_caller]
    pub fn tls(address: SocketAddr, alpn: &[&str], manners: Manners) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate("ca.pem")).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("server.test").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Self::greeting(Self::over(address, Some(tls), manners))
    }

    #[track_caller]
    fn over(address: SocketAddr, tls: Option<ClientConnection>, manners: Manners) -> (H2Conn, Arc<Socket>) {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        let socket = pipe::shared(stream);
        let conn = H2Conn::new(&socket, tls.map(Into::into), manners).unwrap();
        (conn, socket)
    }

    /// The preface goes out before anything is read: what the reader answers must not come before it.
    fn greeting((conn, socket): (H2Conn, Arc<Socket>)) -> Self {
        conn.hello(true);
        Self::reading((conn, socket))
    }

    fn reading((conn, socket): (H2Conn, Arc<Socket>)) -> Self {
        let reader = conn.clone();
        std::thread::spawn(move || reader.read_all(socket, false, None));
        Self { conn, next: AtomicU32::new(1) }
    }

    /// The number of the next stream.
    pub fn next_stream(&self) -> u32 {
        self.next.fetch_add(2, Ordering::SeqCst)
    }

    /// Begins a request with these fields, pseudo-fields included.
    pub fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, fields: &[(N, V)], end: bool) -> u32 {
        let stream = self.next_stream();
        self.head(stream, fields, end);
        stream
    }

    /// Begins a request of that method with more fields.
    pub fn begin(&self, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
        self.request(&request_fields(method, path, more), end)
    }

    /// Sends a GET.
    pub fn get(&self, path: &str) -> u32 {
        self.begin("GET", path, &[], true)
    }

    /// Sends a POST with a body that fits the windows.
    pub fn post(&self, path: &str, body: &[u8]) -> u32 {
        let stream = self.begin("POST", path, &[], body.is_empty());
        if !body.is_empty() {
            self.body(stream, body, true);
        }
        stream
    }

    /// A GET and its response.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn ask(&self, path: &str) -> Message {
        self.message(self.get(path))
    }
}

/// The fields of a request for `a.test` over `http`.
pub fn request_fields<'a>(
    method: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.test")];
    fields.extend_from_slice(more);
    fields
}
