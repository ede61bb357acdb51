//! A connection to a client: many exchanges at once.
//!
//! [`ServerConn::poll_accept`] drives everything, and must be polled as long as there are exchanges; it wakes
//! its task for whatever an exchange sends. Apart from the clock of `connection_keepalive` it decides nothing
//! about time: idle timeouts and drains are the caller's, in this order: [`ServerConn::announce_goaway`], some
//! time later [`ServerConn::final_goaway`], and when [`ServerConn::streams`] is 0 [`ServerConn::poll_shutdown`].

mod exchange;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ServerExchange;
use super::events::{ConnError, Observer};
use super::frames;
use super::options::ServerOptions;
use super::shared::{Shared, StreamLink};
use super::wire::{Role, Transport, Wire};
use crate::stream::ResetCode;

/// An HTTP/2 connection to a client.
pub struct ServerConn {
    shared: Rc<Shared>,
    options: Rc<ServerOptions>,
    state: State,
    drain: Drain,
    discarded: usize,
}

enum State {
    /// The preface and SETTINGS are on their way (RFC 9113 §3.4).
    Handshake(Box<Handshake<Transport, Bytes>>),
    Open(Box<Connection<Transport, Bytes>>),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The client was asked to open no more streams, and may.
    Announced,
    /// Streams above this one are refused.
    Final(u32),
}

impl ServerConn {
    /// Serves `io`, of which `seen` was read already (the preface, or nothing).
    pub fn new(io: BoxIo, seen: BytesMut, options: Rc<ServerOptions>, observer: Rc<dyn Observer>) -> Self {
        let common = &options.common;
        let wire = Wire::new(io, seen, Role::Server, common.floods, Rc::clone(&observer));
        let shared = Shared::new(wire, observer, common.keepalive);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(common.max_concurrent_streams)
            .initial_window_size(common.initial_stream_window_size)
            .initial_connection_window_size(common.initial_connection_window_size)
            .header_table_size(common.hpack_table_size)
            .max_header_list_size(common.hard_head_limit())
            .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
            .max_send_buffer_size(common.send_buffer());
        if common.allow_connect {
            builder.enable_connect_protocol();
        }
        let handshake = builder.handshake(Transport(Rc::clone(&shared.wire)));
        Self { shared, options, state: State::Handshake(Box::new(handshake)), drain: Drain::No, discarded: 0 }
    }

    /// Drives the connection; ready with the next request, and with `None` when the connection is over. To be
    /// called until it is pending: bytes are written then.
    ///
    /// # Errors
    /// Why the connection ended. It is not polled again, and remains to be closed.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ServerExchange, ConnError>>> {
        self.shared.set_task(cx);
        loop {
            let progress = match &mut self.state {
                State::Closed => return Poll::Ready(None),
                State::Handshake(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(connection)) => {
                        self.state = State::Open(Box::new(connection));
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                    Poll::Pending => Poll::Pending,
                },
                State::Open(connection) => connection.poll_accept(cx),
            };
            if progress.is_pending() {
                self.shared.settle_suspects();
            }
            if self.shared.has_intolerable_message(&self.options.common) {
                return Poll::Ready(Some(Err(self.fail(cx, ConnError::Violation(ResetCode::Protocol)))));
            }
            match progress {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let link = StreamLink::new(Rc::clone(&self.shared), respond.stream_id().as_u32());
                    self.shared.wire.borrow_mut().facts.on_accepted(link.id);
                    let refuse = matches!(self.drain, Drain::Final(last) if link.id > last);
                    match ServerExchange::new(request, respond, link, &self.options) {
                        Some(mut exchange) if refuse => exchange.refuse(),
                        Some(exchange) => return Poll::Ready(Some(Ok(exchange))),
                        None => {}
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = self.shared.conn_error(&error);
                    // An end by FIN or RST outside of any exchange is nobody's fault.
                    let quiet = matches!(error, ConnError::Io(_)) && self.shared.wire.borrow().facts.eof;
                    let error = self.fail(cx, error);
                    return Poll::Ready((!quiet).then_some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.set_closed();
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            return match self.shared.poll_settle(cx) {
                // The library finds the failure again and tells the exchanges.
                Poll::Ready(ConnError::Io(_)) => continue,
                Poll::Ready(error) => Poll::Ready(Some(Err(self.fail(cx, error)))),
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn set_closed(&mut self) {
        self.shared.set_over();
        self.state = State::Closed;
    }

    /// Open => Closed: the exchanges fail, the peer is told why.
    fn fail(&mut self, cx: &mut Context<'_>, error: ConnError) -> ConnError {
        self.shared.tell(&error, &self.options.common);
        self.set_closed();
        let _ = self.shared.wire.borrow_mut().poll_flush(cx);
        error
    }

    /// Asks the client to open no more streams, and still serves those that it does (GOAWAY 2^31-1, RFC 9113
    /// §6.8).
    pub fn announce_goaway(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Announced;
            self.shared.inject(&frames::goaway(frames::ANNOUNCE, Reason::NO_ERROR.into()));
        }
    }

    /// Streams that were not received by now are refused (the last GOAWAY); those under way are finished.
    pub fn final_goaway(&mut self) {
        if !matches!(self.drain, Drain::Final(_)) {
            let last = self.shared.wire.borrow().facts.last_received;
            self.drain = Drain::Final(last);
            self.shared.goaway(Reason::NO_ERROR);
        }
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Ends the connection now: its exchanges fail. With a code the client is told by GOAWAY.
    pub fn close_now(&mut self, code: Option<ResetCode>) {
        if let (Some(code), false) = (code, matches!(self.state, State::Closed)) {
            self.shared.goaway(code.into());
        }
        self.set_closed();
    }

    /// Exchanges that live. The task is woken when the last one ends.
    pub fn streams(&self) -> u32 {
        self.shared.streams()
    }

    /// Whether an exchange asked for the connection to be drained
    /// ([`announce_close`](crate::ServerStream::announce_close)). The task is woken when one does.
    pub fn is_close_announced(&self) -> bool {
        self.shared.is_close_announced()
    }

    /// Whether a request's head has begun and not ended: nothing else can come meanwhile (RFC 9113 §4.3).
    pub fn is_head_open(&self) -> bool {
        self.shared.wire.borrow().is_head_open()
    }

    /// Says why the shutdown or drop that follows comes.
    pub fn before_close(&mut self, reason: CloseReason) {
        self.shared.wire.borrow_mut().io.before_close(reason);
    }

    /// Sends FIN after everything written. The exchanges that are left fail.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.set_closed();
        let wire = &mut *self.shared.wire.borrow_mut();
        ready!(wire.poll_flush(cx))?;
        wire.io.poll_shutdown(cx)
    }

    /// Reads and drops what still comes; ready at the client's FIN, when the connection breaks, or when more
    /// came than a closing connection is worth.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.shared.wire.borrow_mut().poll_drop_input(cx)) {
                Ok(read @ 1..) => {
                    self.discarded = self.discarded.saturating_add(read);
                    if self.discarded > MAX_DISCARD {
                        return Poll::Ready(());
                    }
                }
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Makes the close that follows (by drop) an RST.
    pub fn abort(&mut self) {
        self.shared.wire.borrow_mut().io.abort_on_drop();
    }

    /// Whether the client's FIN was read.
    pub fn is_closed_by_peer(&self) -> bool {
        self.shared.wire.borrow().facts.eof
    }

    /// Bytes read from the client, ever.
    pub fn rx_bytes(&self) -> u64 {
        self.shared.wire.borrow().rx
    }

    /// Bytes written to the client, ever.
    pub fn tx_bytes(&self) -> u64 {
        self.shared.wire.borrow().tx
    }

    /// Our end, if it has a name.
    pub fn local_address(&self) -> Option<Address> {
        self.shared.wire.borrow().io.local_address()
    }

    /// The client's end, if it has a name.
    pub fn peer_address(&self) -> Option<Address> {
        self.shared.wire.borrow().io.peer_address()
    }
}

impl fmt::Debug for ServerConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConn").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

/// Bytes that a closing connection reads and drops before it gives up. Stops an endless upload.
const MAX_DISCARD: usize = 1024 * 1024;

/// Streams that a client opened and reset before they were looked at. Stops rapid resets (CVE-2023-44487); the
/// number is Envoy's `premature_reset_total_stream_count`. The library's own (20) is a batch of requests that a
/// browser gives up.
const MAX_EARLY_RESETS: usize = 500;

#[cfg(test)]
mod tests;
