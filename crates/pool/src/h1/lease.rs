//! A connection lent to one stream.

use std::rc::Rc;

use tidegate_codec::ClientStream;

use super::Http1;
use super::conn::{AfterExchange, Conn, ConnFacts};
use super::slot::Slot;
use crate::driver::{Holds, Kind, Pool};
use crate::http::Failed;
use crate::machine::{ConnKey, StreamEnd};

/// A connection for one exchange. Ends with [`Lease::finish`] or [`Lease::failed`]; dropped before, the
/// exchange counts as given up and the connection is closed under it.
#[must_use = "dropping a lease closes the connection"]
pub struct Lease<K: Kind<Slot: Holds<Slot>> = Http1> {
    pool: Rc<Pool<K>>,
    key: ConnKey,
    conn: Option<Box<dyn Conn>>,
    facts: Rc<ConnFacts>,
    reused: bool,
}

impl<K: Kind<Slot: Holds<Slot>>> Lease<K> {
    #[inline]
    pub(crate) fn new(
        pool: Rc<Pool<K>>,
        key: ConnKey,
        conn: Box<dyn Conn>,
        facts: Rc<ConnFacts>,
        reused: bool,
    ) -> Self {
        Self { pool, key, conn: Some(conn), facts, reused }
    }

    /// The exchange.
    #[inline]
    #[allow(clippy::expect_used)]
    pub fn stream(&mut self) -> &mut dyn ClientStream {
        // Only `finish`, `failed` and `drop` take it, and they end the lease.
        self.conn.as_deref_mut().expect("a lease has a connection")
    }

    /// What is known of the connection.
    pub fn facts(&self) -> &Rc<ConnFacts> {
        &self.facts
    }

    /// Whether the connection carried an exchange before: a close by the peer may then be its idle
    /// timeout, and says nothing about this request.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The exchange is over, as far as it went: the connection goes back to the pool if it can carry
    /// another one, else it is closed.
    #[inline]
    pub fn finish(mut self) {
        let Some(conn) = self.conn.take() else { return };
        let end = match conn.after_exchange() {
            AfterExchange::Reusable => {
                if let Some(limit) = conn.announced_idle_limit() {
                    self.pool.machine(|machine| machine.handle_idle_announced(limit));
                }
                StreamEnd::Complete
            }
            AfterExchange::Announced => StreamEnd::CompleteAndAnnounced,
            AfterExchange::AnnouncedAndClosed => StreamEnd::CompleteAtAnnouncedClose,
            AfterExchange::Closed => StreamEnd::CompleteAtClose,
            AfterExchange::Excess => StreamEnd::CompleteWithExcess,
            AfterExchange::RequestIncompleteAndAnnounced => StreamEnd::RequestIncompleteAndAnnounced,
            AfterExchange::RequestIncomplete => StreamEnd::RequestIncomplete,
        };
        self.give_back(conn, end);
    }

    #[inline]
    fn give_back(&self, conn: Box<dyn Conn>, end: StreamEnd) {
        self.pool.end_stream(self.key, end, |slot, stats| {
            if let Some(slot) = slot.held() {
                slot.give_back(conn, stats);
            }
        });
    }

    /// The connection failed under the exchange.
    pub fn failed(mut self, how: Failed) {
        let end = match how {
            Failed::PeerClosed(how) => StreamEnd::PeerClosed(how),
            Failed::PeerClosedInMessage(how) => StreamEnd::PeerClosedInMessage(how),
            Failed::TimedOut => StreamEnd::TimedOut,
            // HTTP/1.1 resets no streams.
            Failed::Protocol | Failed::StreamReset { .. } => StreamEnd::ProtocolError,
        };
        if let Some(conn) = self.conn.take() {
            self.give_back(conn, end);
        }
    }
}

impl<K: Kind<Slot: Holds<Slot>>> Drop for Lease<K> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.give_back(conn, StreamEnd::Aborted);
        }
    }
}
