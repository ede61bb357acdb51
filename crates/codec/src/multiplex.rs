//! Connections that carry many exchanges at once, the same for every version that has them.
//!
//! [`ServerConnection`] is one to a client, [`ClientConnection`] and [`ClientDrive`] are the two halves of one to an
//! upstream. `h2` and `h3` implement them; the code above never knows which. Each is owned, driven and dropped by
//! one task; how a connection begins is its version's own business.

mod alt_svc;
mod events;
mod resets;
mod waiter;

use std::io;
use std::task::{Context, Poll};

use tidegate_types::{Address, CloseReason};

pub use self::alt_svc::AltSvc;
pub(crate) use self::alt_svc::KIND as ALTSVC;
pub use self::events::{ConnError, Event, Flood, Observer};
pub(crate) use self::resets::PrematureResets;
pub(crate) use self::waiter::Waiter;
pub use crate::fields::{MessageOptions, ObsText, ServerOptions, Underscores};
use crate::stream::{ClientStream, ResetCode, ServerStream};

/// Bytes on a connection, below HTTP and above TLS; of HTTP/3 those of UDP payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

/// How a version's connections are accounted for, whichever end we are.
pub trait Accounting {
    /// Whether a fault of the peer is counted and said under a name of its own ([`Event::TxCloseNamed`]) and nowhere
    /// else, and the streams of a connection end before it: as Envoy accounts for HTTP/3, and not for HTTP/2.
    const NAMES_FAULTS: bool = false;
}

/// A connection to a client.
///
/// [`ServerConnection::poll_accept`] drives everything, and must be polled as long as there are exchanges; it wakes
/// its task for whatever an exchange sends. Idle timeouts and drains are the owner's to decide, in this order:
/// [`ServerConnection::announce_goaway`], some time later [`ServerConnection::final_goaway`], and when
/// [`ServerConnection::streams`] is 0 [`ServerConnection::poll_shutdown`].
pub trait ServerConnection: Accounting {
    /// One request and its response. Dropping it before its end resets it.
    type Exchange: ServerStream;

    /// The next exchange; drives the connection and must be called until it is pending, since bytes are written
    /// then. `None` when the client has closed the connection, or said goodbye and has nothing left. After an error
    /// come the exchanges that the client opened shortly before, to be told of the end, and `None`.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Exchange, ConnError>>>;

    /// Whether polls may leave a short output unwritten, because more is about to come: until
    /// [`ServerConnection::write_waiting`], which is to be soon.
    fn let_output_wait(&mut self, _may_wait: bool) {}

    /// Whether the last poll left something unwritten for that.
    fn does_output_wait(&self) -> bool {
        false
    }

    /// Writes what was left.
    fn write_waiting(&mut self, _cx: &mut Context<'_>) {}

    /// Asks the client to open no more streams, and still serves those that it does (RFC 9113 §6.8, RFC 9114
    /// §5.2).
    fn announce_goaway(&mut self);

    /// Streams that were not received by now are refused (the last GOAWAY); those under way are finished.
    fn final_goaway(&mut self);

    /// Whether a drain has begun.
    fn is_draining(&self) -> bool;

    /// Ends the connection now: its exchanges fail. With a code the client is told.
    fn close_now(&mut self, code: Option<ResetCode>);

    /// Exchanges that live. The task is woken when the last one ends.
    fn streams(&self) -> u32;

    /// Whether the response of an exchange is not complete yet, or was not when the connection ended.
    fn is_unanswered(&self) -> bool {
        self.streams() > 0
    }

    /// Gives back the room for streams, if there are none. For a connection that has been without for a while: to
    /// make room for many costs more than they do.
    fn release_places(&mut self);

    /// Whether an exchange asked for the connection to be drained ([`ServerStream::announce_close`]). The task is
    /// woken when one does.
    fn is_close_announced(&self) -> bool;

    /// Whether its handshake is still under way, where it has one of its own.
    fn is_opening(&self) -> bool {
        false
    }

    /// Whether a request's head has begun of which there is no exchange yet.
    fn is_head_open(&self) -> bool;

    /// Says why the shutdown or drop that follows comes.
    fn before_close(&mut self, reason: CloseReason);

    /// What to tell the client of the close that follows, where the version has words for it.
    fn explain_close(&mut self, _words: &str) {}

    /// Ends our direction after everything written, and with it the connection where the version has no half-closed
    /// ones. The exchanges that are left fail.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads and drops what still comes; ready when the client has closed, when the connection breaks, or when more
    /// came than a closing connection is worth.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Makes the close that follows (by drop) a hard one.
    fn abort(&mut self);

    /// Whether the client was seen to have closed.
    fn is_closed_by_peer(&self) -> bool;

    /// What the connection has carried, ever.
    fn traffic(&self) -> Traffic;

    /// Our end, if it has a name.
    fn local_address(&self) -> Option<Address>;

    /// The client's end, if it has a name.
    fn peer_address(&self) -> Option<Address>;
}

/// The half of a connection to an upstream that opens exchanges. Clones are the same connection.
pub trait ClientConnection: Clone {
    /// One request and its response. Dropping it before its end cancels it.
    type Exchange: ClientExchange;

    /// A new exchange; nothing happens until its head is sent.
    fn open(&self) -> Self::Exchange;

    /// Streams that may be open at once: the configured number, or the peer's if that is less.
    fn capacity(&self) -> u32;

    /// Exchanges that live, from their head on.
    fn streams(&self) -> u32;

    /// Whether GOAWAY came.
    fn is_going_away(&self) -> bool;

    /// Whether the peer was seen to have closed.
    fn is_closed_by_peer(&self) -> bool;

    /// Whether the peer takes extended CONNECT (RFC 8441 §3, RFC 9220 §3).
    fn takes_extended_connect(&self) -> bool;

    /// What the connection has carried, ever.
    fn traffic(&self) -> Traffic;

    /// Our end, if it has a name.
    fn local_address(&self) -> Option<Address>;

    /// The upstream's end, if it has a name.
    fn peer_address(&self) -> Option<Address>;
}

/// The half of a connection to an upstream that reads and writes.
pub trait ClientDrive: Accounting {
    /// Drives the connection and says what happened; to be called until it is pending: bytes are written then.
    /// Not to be polled after [`ClientEvent::Closed`].
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ClientEvent>;

    /// Exchanges that live, from their head on.
    fn streams(&self) -> u32;

    /// Says why the shutdown or drop that follows comes.
    fn before_close(&mut self, reason: CloseReason);

    /// Ends our direction after everything written, without GOAWAY, as Envoy does. Exchanges that are left fail.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads, after [`ClientDrive::poll_shutdown`], and forgets it: what is unread when a socket closes turns the
    /// close into an RST. 0 at the peer's end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Makes the close that follows (by drop) a hard one.
    fn abort(&mut self);
}

/// An exchange among many.
pub trait ClientExchange: ClientStream {
    /// Whether the request was handed on to its end.
    fn is_request_complete(&self) -> bool;

    /// Whether the response was read to its end.
    fn is_response_complete(&self) -> bool;
}

/// What the pool must know of.
#[derive(Debug)]
pub enum ClientEvent {
    /// So many streams may be open at once ([`ClientConnection::capacity`]).
    Capacity(u32),
    /// GOAWAY came: no new streams. Those that the peer will not process fail with [`ResetCode::Refused`], the
    /// others finish.
    GoAway {
        /// The highest stream that the peer may have processed; in HTTP/3 the first that it will not.
        last_stream: u64,
        /// Why; HTTP/3 has no reason to give.
        code: ResetCode,
    },
    /// ALTSVC came.
    AltSvc(AltSvc),
    /// The connection is over; exchanges that were left have failed. `Ok` if the peer closed it, or if it goes away
    /// and the last exchange has ended.
    Closed(Result<(), ConnError>),
}
