//! Connections outside of all pools, for health checks: one exchange after the other, driven by their owner.
//!
//! Nothing is counted, nobody waits, nothing is opened here: see [`crate::dialer::Dialer`] for that. Start from
//! [`HttpLine`]; [`TcpLine`] is for those that know bytes only.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tidegate_codec::ClientStream;
use tidegate_codec::h2::client::connect;
use tidegate_codec::h2::{self, ClientDriver, ClientExchange};
use tidegate_codec::multiplex::{ClientConnection, ClientDrive, ClientEvent, Observer};
use tidegate_codec::stream::ResetCode;
use tidegate_codec::{h1, stream::StreamError};
use tidegate_net::{BoxIo, ProxyAddresses};
use tidegate_types::Address;

/// A connection that speaks HTTP.
pub enum HttpLine {
    /// HTTP/1.1.
    Http1(Box<h1::ClientConn>),
    /// HTTP/2, of which one stream is used.
    Http2(Box<Multiplexed>),
}

/// An HTTP/2 connection.
pub struct Multiplexed {
    conn: h2::ClientConn,
    driver: ClientDriver,
    exchange: Option<ClientExchange>,
    over: bool,
}

/// What became of a connection while it was looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// It is of no more use.
    Over,
    /// The peer goes away in peace (GOAWAY without an error): the exchange under way may end.
    GoingAway,
    /// The peer goes away with an error.
    Refused,
}

impl HttpLine {
    /// Speaks HTTP/1.1 on `io`.
    pub fn http1(io: BoxIo, options: Rc<h1::ClientOptions>) -> Self {
        Self::Http1(Box::new(h1::ClientConn::new(io, options)))
    }

    /// Speaks HTTP/2 on `io`.
    ///
    /// # Errors
    /// None that the peer could cause.
    pub fn http2(io: BoxIo, options: Rc<h2::ClientOptions>, observer: Rc<dyn Observer>) -> io::Result<Self> {
        let (conn, driver) = connect(io, options, observer)?;
        Ok(Self::Http2(Box::new(Multiplexed { conn, driver, exchange: None, over: false })))
    }

    /// The exchange under way, or a new one.
    pub fn stream(&mut self) -> &mut dyn ClientStream {
        match self {
            Self::Http1(conn) => &mut **conn,
            Self::Http2(line) => line.exchange.get_or_insert_with(|| line.conn.open()),
        }
    }

    /// The exchange is over, as far as it went. Whether another one may follow.
    pub fn finish(&mut self) -> bool {
        match self {
            Self::Http1(conn) => conn.is_reusable(),
            Self::Http2(line) => {
                // Dropped before its end it is reset.
                line.exchange = None;
                !line.over && !line.conn.is_going_away()
            }
        }
    }

    /// Reads and writes what is not the exchange's own; without an exchange it tells the connection's end. An
    /// HTTP/1.1 connection has nothing of its own while an exchange is under way: not to be called then.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<LineEvent> {
        match self {
            Self::Http1(conn) => conn.poll_idle_closed(cx).map(|_| LineEvent::Over),
            Self::Http2(line) => line.poll_event(cx),
        }
    }

    /// Whether [`HttpLine::poll_idle`] is to be called while an exchange is under way, too.
    pub fn is_multiplexed(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

impl Multiplexed {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LineEvent> {
        loop {
            if self.over {
                return Poll::Pending;
            }
            match ready!(self.driver.poll_event(cx)) {
                ClientEvent::Capacity(_) | ClientEvent::AltSvc(_) => {}
                ClientEvent::GoAway { code: ResetCode::NoError, .. } => {
                    return Poll::Ready(LineEvent::GoingAway);
                }
                ClientEvent::GoAway { .. } => return Poll::Ready(LineEvent::Refused),
                ClientEvent::Closed(_) => {
                    self.over = true;
                    return Poll::Ready(LineEvent::Over);
                }
            }
        }
    }
}

/// A connection that carries bytes.
pub struct TcpLine {
    io: BoxIo,
    output: Bytes,
    input: BytesMut,
}

impl TcpLine {
    /// Uses `io`.
    pub fn new(io: BoxIo) -> Self {
        Self { io, output: Bytes::new(), input: BytesMut::new() }
    }

    /// Writes `bytes` with the next polls.
    pub fn send(&mut self, bytes: Bytes) {
        self.output = bytes;
    }

    /// What came and was not forgotten.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Forgets what came.
    pub fn forget_input(&mut self) {
        self.input.clear();
    }

    /// Its two ends, ours first, if they have addresses.
    pub fn ends(&self) -> Option<ProxyAddresses> {
        match (self.io.local_address()?, self.io.peer_address()?) {
            (Address::Ip(source), Address::Ip(destination)) => {
                Some(ProxyAddresses { source, destination, tlvs: Arc::from([]) })
            }
            _ => None,
        }
    }

    /// Writes, and reads once: ready when bytes came, or with why none will.
    pub fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.output.is_empty() {
            match self.io.poll_write(cx, &[io::IoSlice::new(&self.output)]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(StreamError::Closed)),
                Poll::Ready(Ok(written)) => self.output.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => break,
            }
        }
        self.input.reserve(READ);
        match ready!(self.io.poll_read(cx, &mut self.input))? {
            0 => Poll::Ready(Err(StreamError::Closed)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Read at a time.
const READ: usize = 1024;
