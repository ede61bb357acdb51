//! A byte stream that a codec owns: TCP, Unix-domain, later TLS, or two ends in memory for tests.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use tidegate_types::{Address, CloseReason, TlsInfo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::Peek;

/// A connection's bytes, owned by one task of one worker.
pub trait Io {
    /// Reads once into the spare capacity of `buf` (the caller reserves it): bytes read, 0 at the
    /// peer's end of stream.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Ready when a read is worth trying. Costs no system call and needs no buffer: this is how an idle
    /// connection waits.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes once: bytes written.
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Says why the [`Io::poll_shutdown`] or drop that follows comes: a transport may part differently from
    /// an idle peer.
    fn before_close(&mut self, _reason: CloseReason) {}

    /// Ends our direction: FIN after everything written, and after the transport's own farewell.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes the close that follows (by drop) an RST.
    fn abort_on_drop(&mut self);

    /// Our end, if it has a name.
    fn local_address(&self) -> Option<Address>;

    /// The other end, if it has a name.
    fn peer_address(&self) -> Option<Address>;

    /// The TCP socket itself, if its bytes are exactly the connection's bytes: what can be spliced.
    fn plain_tcp(&self) -> Option<&TcpStream> {
        None
    }

    /// Looks at bytes without taking them, where that can be done: on plain sockets.
    fn peek(&mut self) -> Option<&mut dyn Peek> {
        None
    }

    /// The TLS session, once there is one.
    fn tls(&self) -> Option<&Rc<TlsInfo>> {
        None
    }

    /// Why the transport failed, after an error (`%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`).
    fn failure(&self) -> Option<&str> {
        None
    }
}

/// An [`Io`] behind a pointer: a virtual call is about 2 ns against a system call's 2 us.
pub type BoxIo = Box<dyn Io>;

/// [`Io`] over a tokio socket.
#[derive(Debug)]
pub struct StreamIo<S>(pub(crate) S);

impl StreamIo<TcpStream> {
    /// Wraps a TCP connection.
    pub fn tcp(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl StreamIo<UnixStream> {
    /// Wraps a Unix-domain connection.
    pub fn unix(stream: UnixStream) -> Self {
        Self(stream)
    }
}

/// Reads once into the spare capacity of `buf`.
///
/// tokio clears the readiness after a read that does not fill the buffer, so a small message costs
/// one `recv` and not a second one that only says `EAGAIN`.
#[allow(unsafe_code)]
pub fn poll_read_buf<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    if !buf.has_remaining_mut() || buf.capacity() == buf.len() {
        buf.reserve(1);
    }
    let mut spare = ReadBuf::uninit(buf.spare_capacity_mut());
    std::task::ready!(Pin::new(stream).poll_read(cx, &mut spare))?;
    let read = spare.filled().len();
    // SAFETY: `ReadBuf` counts as filled only bytes that were initialised, and they lie directly after
    // `buf`'s length, in its own spare capacity.
    unsafe { buf.set_len(buf.len() + read) };
    Poll::Ready(Ok(read))
}

macro_rules! socket_io {
    ($socket:ty, $address:expr, $abort:expr, $plain:expr) => {
        impl Io for StreamIo<$socket> {
            fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
                poll_read_buf(&mut self.0, cx, buf)
            }

            fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_read_ready(cx)
            }

            fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
                match bufs {
                    // `send` is cheaper than `sendmsg` with one element.
                    [one] => Pin::new(&mut self.0).poll_write(cx, one),
                    many => Pin::new(&mut self.0).poll_write_vectored(cx, many),
                }
            }

            fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }

            fn abort_on_drop(&mut self) {
                $abort(&self.0);
            }

            fn local_address(&self) -> Option<Address> {
                self.0.local_addr().ok().map($address)
            }

            fn peer_address(&self) -> Option<Address> {
                self.0.peer_addr().ok().map($address)
            }

            fn plain_tcp(&self) -> Option<&TcpStream> {
                $plain(&self.0)
            }

            fn peek(&mut self) -> Option<&mut dyn Peek> {
                Some(self)
            }
        }
    };
}

socket_io!(
    TcpStream,
    Address::from,
    |socket: &TcpStream| {
        // A failure only means that the close is a FIN.
        let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
    },
    Some
);
socket_io!(
    UnixStream,
    |address: tokio::net::unix::SocketAddr| Address::Unix(
        address.as_pathname().map(Into::into).unwrap_or_default()
    ),
    |_: &UnixStream| {},
    |_| None
);
