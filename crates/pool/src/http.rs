//! A pool of connections that carry HTTP, whichever version: its users never know which one is below.

use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use tidegate_codec::stream::ResetCode;
use tidegate_codec::{ClientStream, StreamError};
use tidegate_types::CloseReason;
use tokio::time::Instant;

use crate::driver::Neighbour;
use crate::error::PoolError;
use crate::grid::{self, Ways};
use crate::h1::ConnFacts;
use crate::h3::Http3;
use crate::machine::Care;
use crate::{auto, h1, h2, h3};

/// Connections to one host, of one protocol, with one priority, on one worker.
#[derive(Clone)]
pub enum HttpPool {
    /// HTTP/1.1.
    H1(Rc<h1::Pool>),
    /// HTTP/2.
    H2(Rc<h2::Pool>),
    /// HTTP/3.
    H3(Rc<h3::Pool>),
    /// Whichever of the first two the peer chooses.
    Auto(Rc<auto::Pool>),
    /// HTTP/3, and what the peer chooses over TCP.
    Grid(Rc<grid::Grid<Http3>>),
}

/// A place in a pool's queue, or the answer. Dropping it gives the place up (`upstream_rq_cancelled`).
#[must_use = "futures do nothing unless polled"]
pub struct Acquire(Waiting);

enum Waiting {
    H1(h1::Acquire),
    H2(h2::Acquire),
    H3(h3::Acquire),
    Auto(auto::Acquire),
    Grid(grid::Acquire<Http3>),
}

/// A connection, or a place on one, for one exchange. Ends with [`Lease::finish`] or [`Lease::failed`]; dropped
/// before, the exchange counts as given up: its stream is cancelled, an HTTP/1.1 connection closed under it.
#[must_use = "dropping a lease gives the exchange up"]
pub struct Lease(Lent);

enum Lent {
    H1(h1::Lease),
    H2(h2::Lease),
    H3(h3::Lease),
    AutoH1(h1::Lease<auto::Auto>),
    AutoH2(h2::Lease<auto::Auto>),
}

/// How an exchange failed, for the connection's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The peer closed or broke the connection, in this way, before the response's head.
    PeerClosed(CloseReason),
    /// The peer closed or broke the connection, in this way, inside the response.
    PeerClosedInMessage(CloseReason),
    /// The peer broke the protocol.
    Protocol,
    /// Only this stream was reset; the connection goes on where it can.
    StreamReset {
        /// Why. [`ResetCode::Refused`] proves that the request was not processed.
        code: ResetCode,
        /// Whether the peer said so.
        by_peer: bool,
    },
    /// A deadline of the request's passed: an HTTP/1.1 connection is closed under it, another one's stream
    /// cancelled.
    TimedOut,
}

/// Calls the pool, whichever it is.
macro_rules! each {
    ($pool:expr, $name:ident => $call:expr) => {
        match $pool {
            HttpPool::H1($name) => $call,
            HttpPool::H2($name) => $call,
            HttpPool::H3($name) => $call,
            HttpPool::Auto($name) => $call,
            HttpPool::Grid($name) => $call,
        }
    };
}

/// Calls the lease, whichever it is.
macro_rules! each_lease {
    ($lease:expr, $name:ident => $call:expr) => {
        match $lease {
            Lent::H1($name) => $call,
            Lent::H2($name) => $call,
            Lent::H3($name) => $call,
            Lent::AutoH1($name) => $call,
            Lent::AutoH2($name) => $call,
        }
    };
}

impl HttpPool {
    /// Asks for a connection: at once if one that suits is ready, else when one is free or connected.
    #[inline]
    pub fn acquire_at(&self, now: Instant, care: Care, ways: Ways) -> Acquire {
        Acquire(match self {
            Self::H1(pool) => Waiting::H1(pool.acquire_at(now, care)),
            Self::H2(pool) => Waiting::H2(pool.acquire_at(now, care)),
            Self::H3(pool) => Waiting::H3(pool.acquire_at(now, care)),
            Self::Auto(pool) => Waiting::Auto(pool.acquire_at(now, care)),
            Self::Grid(grid) => Waiting::Grid(grid.acquire_at(now, care, ways)),
        })
    }

    /// Closes idle connections now and the others with their streams, for a reason.
    pub fn drain(&self, reason: CloseReason) {
        each!(self, pool => pool.drain(reason));
    }

    /// A stream is expected here: see [`Machine::handle_anticipated`](crate::machine::Machine::handle_anticipated).
    pub fn anticipate(&self, ratio: f32) -> bool {
        each!(self, pool => pool.anticipate(ratio))
    }

    /// No connection in any state, no waiting stream.
    pub fn is_empty(&self) -> bool {
        each!(self, pool => pool.is_empty())
    }

    /// No stream, attached or waiting: what connections there are nobody uses.
    pub fn is_unused(&self) -> bool {
        each!(self, pool => pool.streams() == 0)
    }

    /// What is to be done when the pool has lost its last connection and nobody waits: it may be dropped then.
    pub fn on_empty(&self, act: Box<dyn Fn()>) {
        each!(self, pool => pool.on_empty(act));
    }

    /// As those see it that share its connection limit; of a grid the part over TCP.
    pub fn neighbour(&self) -> Weak<dyn Neighbour> {
        fn of<P: Neighbour + 'static>(pool: &Rc<P>) -> Weak<dyn Neighbour> {
            let neighbour: Rc<dyn Neighbour> = pool.clone();
            Rc::downgrade(&neighbour)
        }
        match self {
            Self::H1(pool) => of(pool),
            Self::H2(pool) => of(pool),
            Self::H3(pool) => of(pool),
            Self::Auto(pool) => of(pool),
            Self::Grid(grid) => grid.neighbour(),
        }
    }
}

impl Acquire {
    /// An answer that no pool gave.
    pub fn refused(error: PoolError) -> Self {
        Self(Waiting::H1(h1::Acquire::refused(error)))
    }
}

impl Future for Acquire {
    type Output = Result<Lease, PoolError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lent = match &mut self.0 {
            Waiting::H1(acquire) => ready!(Pin::new(acquire).poll(cx)).map(Lent::H1),
            Waiting::H2(acquire) => ready!(Pin::new(acquire).poll(cx)).map(Lent::H2),
            Waiting::H3(acquire) => ready!(Pin::new(acquire).poll(cx)).map(Lent::H3),
            Waiting::Auto(acquire) => ready!(Pin::new(acquire).poll(cx)).map(Lent::from),
            Waiting::Grid(acquire) => ready!(Pin::new(acquire).poll(cx)).map(|lease| match lease {
                grid::Lease::Quic(lease) => Lent::H3(lease),
                grid::Lease::Tcp(lease) => Lent::from(lease),
            }),
        };
        Poll::Ready(lent.map(Lease))
    }
}

impl From<auto::Lease> for Lent {
    fn from(lease: auto::Lease) -> Self {
        match lease {
            auto::Lease::H1(lease) => Self::AutoH1(lease),
            auto::Lease::H2(lease) => Self::AutoH2(lease),
        }
    }
}

impl Lease {
    /// The exchange.
    #[inline]
    pub fn stream(&mut self) -> &mut dyn ClientStream {
        each_lease!(&mut self.0, lease => lease.stream())
    }

    /// What is known of the connection.
    pub fn facts(&self) -> &Rc<ConnFacts> {
        each_lease!(&self.0, lease => lease.facts())
    }

    /// Whether the connection was there before and may have gone stale: a close by the peer may then be its idle
    /// timeout, and says nothing about this request.
    pub fn is_reused(&self) -> bool {
        each_lease!(&self.0, lease => lease.is_reused())
    }

    /// The exchange is over, as far as it went: the connection goes back to the pool if it can carry another one,
    /// else it is closed. What is left of a stream is cancelled.
    #[inline]
    pub fn finish(self) {
        each_lease!(self.0, lease => lease.finish());
    }

    /// The exchange failed.
    pub fn failed(self, how: Failed) {
        each_lease!(self.0, lease => lease.failed(how));
    }
}

impl Failed {
    /// The failure that `error` is, before or after the response's final head.
    pub fn of(error: &StreamError, after_head: bool) -> Self {
        let (how, in_message) = match error {
            StreamError::Protocol { .. } => return Self::Protocol,
            StreamError::Reset { code, by_peer } => {
                return Self::StreamReset { code: *code, by_peer: *by_peer };
            }
            StreamError::Truncated => (CloseReason::PeerFin, true),
            StreamError::Closed => (CloseReason::PeerFin, after_head),
            StreamError::Io(error) => (CloseReason::of_io(error), after_head),
        };
        if in_message { Self::PeerClosedInMessage(how) } else { Self::PeerClosed(how) }
    }
}
