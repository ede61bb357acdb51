//! [`TlsIo`]: an [`Io`] that speaks TLS over another one, in either role.
//!
//! The handshake happens inside the first reads and writes. A connection that waits holds no buffer: blocks
//! are taken when the socket becomes readable and given back when their bytes are used up. A response of a
//! record is one `send`; a record that arrives whole is one `recv`. Configures nothing: contexts do.

mod established;
mod outgoing;
mod receive;
mod received;
mod session;
mod write;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use tidegate_config::tls::CloseNotify;
use tidegate_net::{BoxIo, Io};
use tidegate_stats::OwnedCounter;
use tidegate_types::{Address, CertificateInfo, CloseReason, ConnectionInfo, TlsInfo};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::observed::Observed;
use crate::stats::TlsStats;
use outgoing::Outgoing;
use receive::Until;
use received::Received;
use session::Session;

/// What the connections of one context share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they count.
    pub stats: TlsStats,
    /// When a connection that we end is ended with `close_notify` (RFC 8446 §6.1). Some old clients take one
    /// on an idle connection for a broken answer.
    pub close_notify: CloseNotify,
    /// Counts handshakes that took too long.
    pub timed_out: Option<OwnedCounter>,
    /// Whether a peer's certificate, if it shows one, was verified against a trusted authority.
    pub peer_validated: bool,
    /// The authorities that peers' certificates are verified against.
    pub authorities: Vec<CertificateInfo>,
    /// The certificate that a client shows when asked. A server's is noted by its resolver.
    pub local: Option<Arc<CertificateInfo>>,
}

/// A connection that speaks TLS.
pub struct TlsIo {
    io: BoxIo,
    session: Session,
    settings: Arc<Settings>,
    received: Received,
    outgoing: Outgoing,
    /// Plaintext that did not fit into the reader's buffer.
    stash: BytesMut,
    /// Whether the last byte of what was encrypted was not yet reported as written: see [`write`].
    owed: bool,
    observed: Observed,
    info: Option<Rc<TlsInfo>>,
    connection: Option<Rc<ConnectionInfo>>,
    /// What a server falls back to when no protocol is shared: the same without ALPN.
    without_alpn: Option<Arc<ServerConfig>>,
    timeout: Option<Duration>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Until when a client that was refused is still listened to.
    parting: Option<Pin<Box<Sleep>>>,
    /// Whether the first bytes passed for TLS.
    opened: bool,
    end: End,
    closing: Closing,
    reason: Option<CloseReason>,
    failed: Option<Failed>,
}

/// How far the peer's direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// `close_notify` or FIN came.
    Over,
}

/// How far our direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// The farewell is among the outgoing bytes, or there is to be none.
    Said,
    /// The socket is to be reset.
    Abort,
}

struct Failed {
    kind: ErrorKind,
    text: String,
}

impl TlsIo {
    /// A client over a connected `io`. Give it to [`TlsIo::poll_handshake`], or just read and write.
    pub fn client(io: BoxIo, session: UnbufferedClientConnection, settings: Arc<Settings>) -> Self {
        Self::new(io, Session::Client(session), settings)
    }

    /// Notes the name that a client asks for.
    pub fn asking(mut self, name: Option<Arc<str>>) -> Self {
        self.observed.server_name = name;
        self
    }

    /// A server over an accepted `io`. Clients that share no protocol get `without_alpn`, if given. What the
    /// handshake yields is put into `connection`; one that takes longer than `timeout` fails as
    /// [`ErrorKind::TimedOut`].
    pub fn server(
        io: BoxIo,
        session: UnbufferedServerConnection,
        settings: Arc<Settings>,
        without_alpn: Option<Arc<ServerConfig>>,
        connection: Rc<ConnectionInfo>,
        timeout: Option<Duration>,
    ) -> Self {
        let mut server = Self::new(io, Session::Server(session), settings);
        if without_alpn.is_some() {
            server.received = Received::rewindable();
        }
        server.without_alpn = without_alpn;
        server.connection = Some(connection);
        server.timeout = timeout;
        server
    }

    fn new(io: BoxIo, session: Session, settings: Arc<Settings>) -> Self {
        Self {
            io,
            opened: false,
            session,
            settings,
            received: Received::default(),
            outgoing: Outgoing::default(),
            stash: BytesMut::new(),
            owed: false,
            observed: Observed::default(),
            info: None,
            connection: None,
            without_alpn: None,
            timeout: None,
            deadline: None,
            parting: None,
            end: End::Open,
            closing: Closing::No,
            reason: None,
            failed: None,
        }
    }

    /// Ready when the handshake is done and all of it is sent. A peer that ends the connection within it is
    /// [`ErrorKind::UnexpectedEof`].
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.info.is_none() {
            ready!(self.poll_receive(cx, Until::Established))?;
            if self.info.is_none() {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
        if self.outgoing.urgent { self.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Nothing goes on after a failure.
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(failed) => Err(failed.error()),
            None => Ok(()),
        }
    }

    /// Notes a failure: everything fails from here on. `None` of a text is one that Envoy does not print.
    fn failed(&mut self, kind: ErrorKind, text: Option<String>) -> io::Error {
        if let (Some(connection), Some(text)) = (&self.connection, &text) {
            *connection.transport_failure.borrow_mut() = Some(text.as_str().into());
        }
        self.failed.insert(Failed { kind, text: text.unwrap_or_default() }).error()
    }

    fn says_goodbye(&self) -> bool {
        self.info.is_some()
            && self.failed.is_none()
            && match self.settings.close_notify {
                CloseNotify::Always => true,
                CloseNotify::NotOnIdle => self.reason != Some(CloseReason::IdleTimeout),
                CloseNotify::Never => false,
            }
    }
}

impl Failed {
    fn error(&self) -> io::Error {
        if self.text.is_empty() { self.kind.into() } else { io::Error::new(self.kind, self.text.clone()) }
    }
}

impl Io for TlsIo {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if buf.capacity() == buf.len() {
            buf.reserve(1);
        }
        if !self.stash.is_empty() {
            let count = self.stash.len().min(buf.capacity() - buf.len());
            buf.extend_from_slice(self.stash.get(..count).unwrap_or_default());
            self.stash.advance(count);
            if self.stash.is_empty() {
                self.stash = BytesMut::new();
            }
            return Poll::Ready(Ok(count));
        }
        let start = buf.len();
        self.poll_receive(cx, Until::Data { into: buf, start })
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stash.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_receive(cx, Until::Ready).map_ok(|_| ())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_encrypt(cx, bufs)
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.reason = Some(reason);
        self.io.before_close(reason);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing == Closing::No {
            self.closing = Closing::Said;
            self.say_goodbye();
        }
        if !self.outgoing.is_empty() {
            ready!(self.poll_flush(cx))?;
        }
        self.io.poll_shutdown(cx)
    }

    fn abort_on_drop(&mut self) {
        self.closing = Closing::Abort;
        self.io.abort_on_drop();
    }

    fn local_address(&self) -> Option<Address> {
        self.io.local_address()
    }

    fn peer_address(&self) -> Option<Address> {
        self.io.peer_address()
    }

    fn plain_tcp(&self) -> Option<&TcpStream> {
        None
    }

    fn tls(&self) -> Option<&Rc<TlsInfo>> {
        self.info.as_ref()
    }

    fn failure(&self) -> Option<&str> {
        self.failed.as_ref().map(|failed| failed.text.as_str()).filter(|text| !text.is_empty())
    }
}

impl Drop for TlsIo {
    fn drop(&mut self) {
        if self.closing == Closing::No {
            // Whoever has no time to wait for a shutdown still parts politely, if the socket lets it.
            self.say_goodbye();
            if !self.outgoing.is_empty() {
                let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
            }
        }
        self.received.release();
        self.outgoing.clear();
    }
}
