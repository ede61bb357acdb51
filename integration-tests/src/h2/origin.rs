//! A scripted HTTP/2 upstream.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use socket2::Socket;

use super::conn::{H2Conn, Manners};
use super::{Frame, Message, pipe};
use crate::census::Census;
use crate::origin::Gate;
use crate::tls_origin::certificate;
use crate::wait;

/// An upstream on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct H2Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: Mutex<Vec<H2Conn>>,
    streams: Mutex<Vec<H2Stream>>,
    open: AtomicUsize,
    census: Census,
    most_streams: AtomicUsize,
}

/// One stream of the upstream, to be answered from any thread.
#[derive(Clone, Debug)]
pub struct H2Stream {
    /// Its connection.
    pub conn: H2Conn,
    /// Which connection that is, counted from 0.
    pub connection: usize,
    /// Its number.
    pub id: u32,
}

impl H2Stream {
    /// The whole request.
    pub fn request(&self) -> Message {
        self.conn.message(self.id)
    }

    /// Sends a head with that status.
    pub fn head(&self, status: u16, more: &[(&str, &str)], end: bool) {
        let status = status.to_string();
        let mut fields = vec![(":status", status.as_str())];
        fields.extend_from_slice(more);
        self.conn.head(self.id, &fields, end);
    }

    /// Sends DATA as the windows allow.
    pub fn body(&self, bytes: impl AsRef<[u8]>, end: bool) {
        self.conn.body(self.id, bytes.as_ref(), end);
    }

    /// Sends trailers.
    pub fn trailers(&self, fields: &[(&str, &str)]) {
        self.conn.head(self.id, fields, true);
    }

    /// Sends a whole response.
    pub fn answer(&self, status: u16, body: &str) {
        self.head(status, &[], body.is_empty());
        if !body.is_empty() {
            self.body(body, true);
        }
    }

    /// Sends RST_STREAM.
    pub fn reset(&self, code: u32) {
        self.conn.send(&Frame::reset(self.id, code));
    }
}

impl H2Origin {
    /// Runs `handler` on a thread for each stream once its request's head is there.
    pub fn with(manners: Manners, handler: impl Fn(H2Stream) + Send + Sync + 'static) -> Self {
        Self::start(manners, None, Arc::new(handler))
    }

    /// As [`with`](Self::with), over TLS with the certificate `server` and ALPN `h2`.
    ///
    /// # Panics
    /// When there is no certificate.
    pub fn tls(manners: Manners, handler: impl Fn(H2Stream) + Send + Sync + 'static) -> Self {
        Self::tls_with(manners, &["h2"], handler)
    }

    /// As [`tls`](Self::tls), with another ALPN, or none.
    ///
    /// # Panics
    /// When there is no certificate.
    pub fn tls_with(
        manners: Manners,
        alpn: &[&str],
        handler: impl Fn(H2Stream) + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::start(manners, Some(Arc::new(config)), Arc::new(handler))
    }

    /// Answers nothing by itself: the test takes the streams from [`await_streams`](Self::await_streams).
    pub fn manual(manners: Manners) -> Self {
        Self::with(manners, |_| {})
    }

    /// Answers each whole request with 200 and `ok`.
    pub fn ok() -> Self {
        Self::with(Manners::default(), |stream| {
            stream.request();
            stream.answer(200, "ok");
        })
    }

    /// Answers each whole request with 200 once `gate` lets it.
    pub fn gated(manners: Manners, gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::with(manners, move |stream| {
            stream.request();
            gate.pass();
            stream.answer(200, "ok");
        })
    }

    fn start(
        manners: Manners,
        tls: Option<Arc<ServerConfig>>,
        handler: Arc<dyn Fn(H2Stream) + Send + Sync>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let socket = pipe::shared(stream);
                shared.census.enter(&socket);
                let (seen, manners) = (shared.clone(), manners.clone());
                let (tls, handler) = (tls.clone(), handler.clone());
                std::thread::spawn(move || serve(socket, tls, manners, &seen, handler));
            }
        });
        Self { address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections, counted at each accept.
    pub fn census(&self) -> &Census {
        &self.seen.census
    }

    /// Connections so far whose handshake was completed.
    pub fn connections(&self) -> usize {
        self.seen.connections.lock().unwrap().len()
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// The connection of that number, from 0.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn connection(&self, number: usize) -> H2Conn {
        wait::until_some("a connection", || self.seen.connections.lock().unwrap().get(number).cloned())
    }

    /// The streams so far.
    pub fn streams(&self) -> Vec<H2Stream> {
        self.seen.streams.lock().unwrap().clone()
    }

    /// The streams that are open now, over all connections that are.
    pub fn open_streams(&self) -> usize {
        self.seen.open_streams()
    }

    /// The most streams open at once, over all connections.
    pub fn most_streams(&self) -> usize {
        self.seen.most_streams.load(Ordering::SeqCst)
    }

    /// Waits for that many streams.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn await_streams(&self, count: usize) -> Vec<H2Stream> {
        wait::until("streams at the upstream", || self.streams().len() >= count);
        self.streams()
    }
}

impl Seen {
    fn open_streams(&self) -> usize {
        let connections = self.connections.lock().unwrap();
        let open = connections.iter().filter(|conn| conn.end_so_far() == crate::wire::End::Open);
        open.map(H2Conn::open_streams).sum()
    }
}

fn serve(
    socket: Arc<Socket>,
    tls: Option<Arc<ServerConfig>>,
    manners: Manners,
    seen: &Arc<Seen>,
    handler: Arc<dyn Fn(H2Stream) + Send + Sync>,
) {
    let tls = tls.map(|config| ServerConnection::new(config).unwrap().into());
    let Ok(conn) = H2Conn::new(&socket, tls, manners) else { return };
    let connection = {
        let mut all = seen.connections.lock().unwrap();
        all.push(conn.clone());
        all.len() - 1
    };
    seen.open.fetch_add(1, Ordering::SeqCst);
    conn.hello(false);
    let shared = seen.clone();
    let on_stream = Box::new(move |conn: &H2Conn, id: u32| {
        let stream = H2Stream { conn: conn.clone(), connection, id };
        shared.streams.lock().unwrap().push(stream.clone());
        shared.most_streams.fetch_max(shared.open_streams(), Ordering::SeqCst);
        let handler = handler.clone();
        std::thread::spawn(move || handler(stream));
    });
    conn.read_all(socket, true, Some(on_stream));
    seen.open.fetch_sub(1, Ordering::SeqCst);
    // The proxy's FIN is answered by this side's.
    conn.close();
}
