//! A connection to an upstream: the pool opens exchanges on it, a task of its own drives it.
//!
//! [`connect`] gives both halves: [`ClientConn::open`] for exchanges, [`ClientDriver::poll_event`] to be polled
//! until it says [`ClientEvent::Closed`]. How many exchanges fit, and when one is too many, is the pool's to
//! know; a stream over the peer's limit waits in the library until there is room.

mod exchange;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ClientExchange;
use super::events::{ConnError, Observer};
use super::options::ClientOptions;
use super::shared::Shared;
use super::wire::{Role, Transport, Wire};
use crate::stream::ResetCode;

/// Opens exchanges. Clones are the same connection.
#[derive(Clone)]
pub struct ClientConn {
    shared: Rc<Shared>,
    options: Rc<ClientOptions>,
    requests: SendRequest<Bytes>,
}

/// Reads and writes.
pub struct ClientDriver {
    shared: Rc<Shared>,
    options: Rc<ClientOptions>,
    /// `None` when it is over.
    connection: Option<Box<Connection<Transport, Bytes>>>,
    /// How it ended, until that is told.
    ended: Option<Result<(), ConnError>>,
}

/// What the pool must know of.
#[derive(Debug)]
pub enum ClientEvent {
    /// SETTINGS came: so many streams may be open at once ([`ClientConn::capacity`]).
    Capacity(u32),
    /// GOAWAY came: no new streams. Those above `last_stream` fail with [`ResetCode::Refused`], the others
    /// finish.
    GoAway {
        /// The highest stream that the peer may have processed.
        last_stream: u32,
        /// Why.
        code: ResetCode,
    },
    /// The connection is over; exchanges that were left have failed. `Ok` if the peer closed it, or if it goes away
    /// and the last exchange has ended.
    Closed(Result<(), ConnError>),
}

/// Speaks HTTP/2 on `io`: the preface and SETTINGS go out with the first request, which need not wait for the
/// peer's SETTINGS (RFC 9113 §3.4).
///
/// # Errors
/// None that the peer could cause: nothing is written yet.
pub fn connect(
    io: BoxIo,
    options: Rc<ClientOptions>,
    observer: Rc<dyn Observer>,
) -> io::Result<(ClientConn, ClientDriver)> {
    let wire = Wire::new(io, BytesMut::new(), Role::Client, options.floods, Rc::clone(&observer));
    let shared = Shared::new(wire, observer, options.keepalive);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(options.hard_head_limit())
        .max_send_buffer_size(options.send_buffer());
    // The first bytes fit the wire's block, so this cannot wait.
    let handshake = pin!(builder.handshake(Transport(Rc::clone(&shared.wire))));
    let Poll::Ready(Ok((requests, connection))) = handshake.poll(&mut Context::from_waker(Waker::noop()))
    else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let conn = ClientConn { shared: Rc::clone(&shared), options: Rc::clone(&options), requests };
    Ok((conn, ClientDriver { shared, options, connection: Some(Box::new(connection)), ended: None }))
}

impl ClientConn {
    /// A new exchange; nothing happens until its head is sent.
    pub fn open(&self) -> ClientExchange {
        ClientExchange::new(Rc::clone(&self.shared), self.requests.clone(), Rc::clone(&self.options))
    }

    /// Streams that may be open at once: the configured number, or the peer's if that is less. Before the
    /// peer's SETTINGS came, the configured one.
    pub fn capacity(&self) -> u32 {
        capacity(&self.shared, &self.options)
    }

    /// Exchanges that live, from their head on.
    pub fn streams(&self) -> u32 {
        self.shared.streams()
    }

    /// Whether GOAWAY came.
    pub fn is_going_away(&self) -> bool {
        self.shared.wire.borrow().facts.goaway.is_some()
    }

    /// Whether the peer closed its direction.
    pub fn is_closed_by_peer(&self) -> bool {
        self.shared.wire.borrow().facts.eof
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 §3).
    pub fn takes_extended_connect(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Bytes read from the upstream, ever.
    pub fn rx_bytes(&self) -> u64 {
        self.shared.wire.borrow().rx
    }

    /// Bytes written to the upstream, ever.
    pub fn tx_bytes(&self) -> u64 {
        self.shared.wire.borrow().tx
    }

    /// Our end, if it has a name.
    pub fn local_address(&self) -> Option<Address> {
        self.shared.wire.borrow().io.local_address()
    }

    /// The upstream's end, if it has a name.
    pub fn peer_address(&self) -> Option<Address> {
        self.shared.wire.borrow().io.peer_address()
    }
}

impl ClientDriver {
    /// Drives the connection and says what happened; to be called until it is pending: bytes are written then.
    /// Not to be polled after [`ClientEvent::Closed`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ClientEvent> {
        self.shared.set_task(cx);
        loop {
            if let Some(event) = self.take_event() {
                return Poll::Ready(event);
            }
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(ClientEvent::Closed(self.ended.take().unwrap_or(Ok(()))));
            };
            let progress = Pin::new(connection).poll(cx);
            self.shared.settle_suspects();
            let ended = match progress {
                Poll::Ready(Ok(())) => self.closed_by_peer(),
                Poll::Ready(Err(error)) => match self.shared.conn_error(&error) {
                    ConnError::Io(_) if self.shared.wire.borrow().facts.eof => self.closed_by_peer(),
                    error => Err(error),
                },
                Poll::Pending if self.shared.has_intolerable_message(&self.options) => {
                    Err(ConnError::Violation(ResetCode::Protocol))
                }
                Poll::Pending if self.shared.wire.borrow().facts.has_news() => continue,
                Poll::Pending => match self.shared.poll_settle(cx) {
                    // The library finds the failure again and tells the exchanges.
                    Poll::Ready(ConnError::Io(_)) => continue,
                    Poll::Ready(error) => Err(error),
                    Poll::Pending => return Poll::Pending,
                },
            };
            self.end(cx, ended);
        }
    }

    /// The peer closed the connection, for the reason that it gave before if it gave one.
    fn closed_by_peer(&self) -> Result<(), ConnError> {
        match self.shared.wire.borrow().facts.goaway {
            Some(goaway) if goaway.code != 0 => Err(ConnError::PeerError(Reason::from(goaway.code).into())),
            _ => Ok(()),
        }
    }

    /// Open => Closed: the exchanges fail, the peer is told why.
    fn end(&mut self, cx: &mut Context<'_>, ended: Result<(), ConnError>) {
        if let Err(error) = &ended {
            self.shared.tell(error, &self.options);
        }
        self.ended = Some(ended);
        self.connection = None;
        let _ = self.shared.wire.borrow_mut().poll_flush(cx);
    }

    fn take_event(&self) -> Option<ClientEvent> {
        let facts = &mut self.shared.wire.borrow_mut().facts;
        if std::mem::take(&mut facts.settings_came) {
            let peer = facts.peer_max_streams.unwrap_or(u32::MAX);
            return Some(ClientEvent::Capacity(peer.min(self.options.max_concurrent_streams)));
        }
        if std::mem::take(&mut facts.goaway_came) {
            let goaway = facts.goaway?;
            let code = ResetCode::from(Reason::from(goaway.code));
            return Some(ClientEvent::GoAway { last_stream: goaway.last_stream, code });
        }
        None
    }

    /// Exchanges that live, from their head on.
    pub fn streams(&self) -> u32 {
        self.shared.streams()
    }

    /// Says why the shutdown or drop that follows comes.
    pub fn before_close(&mut self, reason: CloseReason) {
        self.shared.wire.borrow_mut().io.before_close(reason);
    }

    /// Sends FIN after everything written, without GOAWAY, as Envoy does. Exchanges that are left fail.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection = None;
        let wire = &mut *self.shared.wire.borrow_mut();
        ready!(wire.poll_flush(cx))?;
        wire.io.poll_shutdown(cx)
    }

    /// Reads, after [`ClientDriver::poll_shutdown`], and forgets it: what is unread when a socket closes turns the
    /// close into an RST. 0 at the peer's end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.shared.wire.borrow_mut().poll_drop_input(cx)
    }

    /// Makes the close that follows (by drop) an RST.
    pub fn abort(&mut self) {
        self.shared.wire.borrow_mut().io.abort_on_drop();
    }
}

fn capacity(shared: &Shared, options: &ClientOptions) -> u32 {
    let peer = shared.wire.borrow().facts.peer_max_streams.unwrap_or(u32::MAX);
    peer.min(options.max_concurrent_streams)
}

impl fmt::Debug for ClientConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConn").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDriver").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
