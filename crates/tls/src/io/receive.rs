//! The receiving half of [`TlsIo`], the handshake included.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustls::server::UnbufferedServerConnection;
use tidegate_types::{CloseReason, TlsInfo};

use super::session::{Session, Task, Turn};
use super::{Closing, End, TlsIo};
use crate::failure::{self, Counted, RESET};
use crate::names;
use crate::observed;
use crate::opening::{self, Opening, Refused};

/// What is waited for.
pub(crate) enum Until<'a> {
    /// The end of the handshake.
    Established,
    /// Plaintext, the stream's end or an error.
    Ready,
    /// Likewise; plaintext goes into the buffer, which held `start` bytes.
    Data { into: &'a mut BytesMut, start: usize },
}

/// Why the connection cannot go on.
enum Fatal {
    Tls(rustls::Error),
    Refused(Refused),
}

impl TlsIo {
    /// Receives and processes until what is waited for is there: bytes moved, 0 at the end of the stream.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut until: Until<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.parting.is_some() {
            ready!(self.poll_parting(cx));
        }
        self.check()?;
        self.poll_deadline(cx)?;
        while self.end == End::Open {
            let turn = match self.turn(&mut until) {
                Ok(turn) => turn,
                // What came before is still good: the error is told next time.
                Err(fatal) => match (self.fail(fatal), until.moved()) {
                    (error, 0) => {
                        ready!(self.poll_parting(cx));
                        return Poll::Ready(Err(error));
                    }
                    (_, moved) => return Poll::Ready(Ok(moved)),
                },
            };
            if matches!(until, Until::Established) && self.info.is_some() {
                return Poll::Ready(Ok(0));
            }
            match turn {
                Turn::Again | Turn::Sent => {}
                Turn::Plaintext if self.wants_more(&until) => {}
                Turn::Plaintext => return Poll::Ready(Ok(until.moved())),
                Turn::PeerClosed | Turn::Closed => self.peer_said_goodbye(),
                Turn::Blocked if until.moved() > 0 => return Poll::Ready(Ok(until.moved())),
                Turn::Blocked => {
                    if self.outgoing.urgent {
                        // What cannot be sent now has set its waker; reading goes on.
                        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    ready!(self.poll_fill(cx))?;
                }
            }
        }
        Poll::Ready(Ok(until.moved()))
    }

    /// Whether more can be moved without a system call.
    fn wants_more(&self, until: &Until<'_>) -> bool {
        match until {
            Until::Data { into, .. } => {
                self.stash.is_empty() && !self.received.is_empty() && into.len() < into.capacity()
            }
            Until::Established => true,
            Until::Ready => false,
        }
    }

    /// One turn of the session, and what it brought about.
    fn turn(&mut self, until: &mut Until<'_>) -> Result<Turn, Fatal> {
        // A client speaks first.
        if !self.opened && (self.session.is_server() || !self.received.is_empty()) {
            match opening::judge(self.received.bytes()) {
                Opening::Unknown => return Ok(Turn::Blocked),
                Opening::Refused(refused) => return Err(Fatal::Refused(refused)),
                Opening::Goodbye => {
                    self.end = End::Over;
                    return Ok(Turn::Again);
                }
                Opening::Tls => self.opened = true,
            }
        }
        let task = match until {
            Until::Data { into, .. } => Task::Receive(into, &mut self.stash),
            Until::Ready | Until::Established => Task::Wait,
        };
        let before = self.outgoing.len();
        let turn = self.session.turn(&mut self.received, &mut self.outgoing, task);
        if self.outgoing.len() > before {
            self.outgoing.urgent |= !self.session.says_tickets();
            self.received.forget();
            self.without_alpn = None;
        }
        if self.info.is_none() {
            observed::collect(&mut self.observed);
            match turn {
                Err(rustls::Error::NoApplicationProtocol) if self.begin_without_alpn() => {
                    return Ok(Turn::Again);
                }
                Ok(_) if !self.session.common().is_handshaking() => self.establish(),
                _ => {}
            }
        }
        turn.map_err(Fatal::Tls)
    }

    /// Envoy ignores a client's protocols when it has none of them, where RFC 7301 §3.2 has an alert: the
    /// hello is processed again by a server that knows no ALPN.
    fn begin_without_alpn(&mut self) -> bool {
        let Some(config) = self.without_alpn.take() else { return false };
        let Ok(session) = UnbufferedServerConnection::new(config) else { return false };
        self.session = Session::Server(session);
        self.outgoing.clear();
        self.received.rewind();
        true
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(timeout) = self.timeout else { return Ok(()) };
        if self.info.is_some() {
            self.timeout = None;
            self.deadline = None;
            return Ok(());
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if deadline.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.timeout = None;
        if let Some(counter) = &self.settings.timed_out {
            counter.inc();
        }
        if let Some(connection) = &self.connection {
            *connection.termination_details.borrow_mut() = Some(TIMED_OUT.into());
        }
        Err(self.failed(ErrorKind::TimedOut, None))
    }

    /// Receives once. A peer's FIN ends the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            let ready = self.io.poll_read_ready(cx);
            if ready.is_pending() {
                self.rest();
                return Poll::Pending;
            }
        }
        let Some(room) = self.received.room() else {
            let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::HandshakePayloadTooLarge);
            return Poll::Ready(Err(self.fail(Fatal::Tls(error))));
        };
        match self.io.poll_read(cx, room) {
            Poll::Pending => {
                self.rest();
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => {
                self.peer_left();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => {
                if error.kind() == ErrorKind::ConnectionReset {
                    return Poll::Ready(Err(self.failed(error.kind(), Some(RESET.to_owned()))));
                }
                Poll::Ready(Err(error))
            }
        }
    }

    /// Waiting takes no memory that it does not need.
    fn rest(&mut self) {
        self.received.rest();
        self.outgoing.rest();
    }

    fn peer_said_goodbye(&mut self) {
        self.end = End::Over;
        self.settings.stats.counters().close_notify_received().inc();
        // RFC 8446 §6.1: what follows is ignored.
        self.received.release();
    }

    fn peer_left(&mut self) {
        self.end = End::Over;
        self.received.release();
        if self.info.is_some() {
            let counters = self.settings.stats.counters();
            counters.unexpected_eof().inc();
            if self.closing == Closing::Said && self.reason == Some(CloseReason::IdleTimeout) {
                counters.unexpected_eof_during_idle_close().inc();
            }
        }
    }

    /// Counts a failure, and tells the peer as far as the socket lets it at once.
    fn fail(&mut self, fatal: Fatal) -> io::Error {
        let counters = self.settings.stats.counters();
        let text = match fatal {
            Fatal::Refused(Refused { fault, answer }) => {
                counters.connection_error().inc();
                self.outgoing.push(answer);
                fault.text()
            }
            Fatal::Tls(error) => {
                let failure = failure::explain(&error, self.observed.refusal.as_ref());
                failure.counted.count(counters);
                self.session.last_words(&mut self.received, &mut self.outgoing);
                if self.session.is_server() && failure.counted != Counted::ConnectionError {
                    self.parting = Some(Box::pin(tokio::time::sleep(PARTING)));
                }
                failure.text
            }
        };
        if !self.outgoing.is_empty() {
            let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
            self.skip_arrived();
        }
        self.note_partial();
        self.received.release();
        self.failed(ErrorKind::InvalidData, Some(text))
    }
}

impl TlsIo {
    /// What a handshake that failed had agreed on, for the access log.
    fn note_partial(&mut self) {
        let common = self.session.common();
        let (None, Some(connection), Some(version)) =
            (&self.info, &self.connection, common.protocol_version())
        else {
            return;
        };
        let partial = TlsInfo {
            version: names::version(version),
            cipher: common.negotiated_cipher_suite().map_or("", |suite| names::cipher(suite.suite())),
            peer: self.observed.refused.take(),
            ..TlsInfo::default()
        };
        // Nothing else sets it before the handshake is done.
        let _ = connection.tls.set(Rc::new(partial));
    }

    /// A client of TLS 1.3 whose certificate we refuse takes its handshake for done, and its request may be on
    /// its way: after our FIN it is read and discarded, so that it meets no RST, which would take the alert
    /// with it. Until the client closes, but not for longer than [`PARTING`].
    fn poll_parting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = &mut self.parting else { return Poll::Ready(()) };
        if patience.as_mut().poll(cx).is_ready() || self.io.poll_shutdown(cx).is_pending() {
            self.parting = None;
            return Poll::Ready(());
        }
        while let Some(room) = self.received.room() {
            let read = ready!(self.io.poll_read(cx, room));
            self.received.release();
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
        self.parting = None;
        Poll::Ready(())
    }

    /// Takes what has arrived off the socket: closing it with unread bytes would be an RST, which could take
    /// the alert with it.
    fn skip_arrived(&mut self) {
        self.received.release();
        for _ in 0..MAX_SKIPPED {
            let Some(room) = self.received.room() else { return };
            let read = self.io.poll_read(&mut Context::from_waker(Waker::noop()), room);
            self.received.release();
            if !matches!(read, Poll::Ready(Ok(1..))) {
                return;
            }
        }
    }
}

/// How long a client whose certificate was refused may take to notice: several round trips around the world.
const PARTING: Duration = Duration::from_secs(1);

/// Reads for the sake of an alert: bounds what a peer that we give up can make us do.
const MAX_SKIPPED: usize = 4;

impl Until<'_> {
    fn moved(&self) -> usize {
        match self {
            Self::Data { into, start } => into.len() - start,
            Self::Ready | Self::Established => 0,
        }
    }
}

/// `%CONNECTION_TERMINATION_DETAILS%`, in Envoy's words.
const TIMED_OUT: &str = "transport socket timeout was reached";
