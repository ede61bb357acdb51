//! What the pool needs to know of an HTTP/1.1 connection, and how it gets one.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tidegate_codec::ClientStream;
use tidegate_codec::multiplex::Traffic;
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason, TlsInfo};

use crate::error::PoolError;

/// A connection that carries one exchange after the other.
pub trait Conn: ClientStream {
    /// What the last exchange, complete for its user, left of the connection.
    fn after_exchange(&self) -> AfterExchange;

    /// How long the peer lets the connection idle, if it said so.
    fn announced_idle_limit(&self) -> Option<Duration> {
        None
    }

    /// Watches an idle connection: ready when it is of no more use. No system call unless something
    /// happened.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<IdleEnd>;

    /// What is below, for a farewell in the background; `None` if there is nothing to part from.
    fn into_io(self: Box<Self>) -> Option<BoxIo> {
        None
    }

    /// Bytes on the connection since it was made.
    fn traffic(&self) -> Traffic;

    /// Says why the drop that follows comes.
    fn before_close(&mut self, _reason: CloseReason) {}
}

/// What an exchange left of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExchange {
    /// Another one may follow.
    Reusable,
    /// The peer announced that it will close (`connection: close`, HTTP/1.0).
    Announced,
    /// It announced it, and did it.
    AnnouncedAndClosed,
    /// The response ended with the connection.
    Closed,
    /// The peer sent more than the response.
    Excess,
    /// The response is complete and the request is not: the rest of it would be taken for a request.
    RequestIncomplete,
    /// The same, and the peer announced that it will close.
    RequestIncompleteAndAnnounced,
}

/// How an idle connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleEnd {
    /// The peer closed it, in this way.
    Closed(CloseReason),
    /// The peer sent bytes that nobody asked for.
    UnexpectedData,
}

/// What is known of a connection as long as it lives.
#[derive(Debug)]
pub struct ConnFacts {
    /// Unique in the process (`%UPSTREAM_CONNECTION_ID%`).
    pub id: u64,
    /// Our end, if it has a name.
    pub local_address: Option<Rc<Address>>,
    /// The end that answered.
    pub remote_address: Option<Rc<Address>>,
    /// The protocol spoken.
    pub protocol: Version,
    /// The TLS session, if there is one.
    pub tls: Option<Rc<TlsInfo>>,
}

/// What an attempt gives.
pub type Opened = (Box<dyn Conn>, ConnFacts);

/// An attempt's result.
pub type Connected = Result<Opened, PoolError>;
