//! The driver's side of one connection.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tidegate_codec::multiplex::Traffic;
use tidegate_types::Address;
use tokio::task::JoinHandle;

use super::conn::{Conn, ConnFacts, IdleEnd};
use crate::driver::bell::{Bell, Watch};
use crate::driver::{self, Stirred, log_end};
use crate::machine::{Closed, ConnKey};
use crate::parting;
use crate::stats::UpstreamStats;

/// Empty, an attempt, a connection in the pool, or what stays here of one that is lent out.
#[derive(Default)]
pub struct Slot {
    conn: Option<Box<dyn Conn>>,
    facts: Option<Rc<ConnFacts>>,
    attempt: Option<JoinHandle<()>>,
    watch: Watch,
    counted: Traffic,
}

impl Slot {
    #[inline]
    pub(crate) fn lend(&mut self) -> Option<(Box<dyn Conn>, Rc<ConnFacts>)> {
        self.watch.disarm();
        Some((self.conn.take()?, self.facts.clone()?))
    }

    /// An exchange is over.
    #[inline]
    pub(super) fn give_back(&mut self, conn: Box<dyn Conn>, stats: &UpstreamStats) {
        self.count_traffic(conn.as_ref(), stats);
        self.conn = Some(conn);
    }

    /// Adds what the connection carried since the last look to the statistics.
    #[inline]
    fn count_traffic(&mut self, conn: &dyn Conn, stats: &UpstreamStats) {
        stats.count_traffic(&mut self.counted, conn.traffic());
    }
}

impl driver::Slot for Slot {
    type Opened = (Box<dyn Conn>, ConnFacts);

    #[inline]
    fn is_watched_while_busy(&self) -> bool {
        false
    }

    fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    fn connected(&mut self, (conn, facts): Self::Opened) -> u32 {
        self.attempt = None;
        self.conn = Some(conn);
        self.facts = Some(Rc::new(facts));
        1
    }

    #[inline]
    fn has_fired(&self) -> bool {
        self.watch.has_fired().unwrap_or(false)
    }

    #[inline]
    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        let Some(conn) = &mut self.conn else { return Poll::Pending };
        conn.poll_idle(&mut self.watch.arm(bell, key)).map(|end| match end {
            IdleEnd::Closed(how) => Stirred::Closed(how),
            IdleEnd::UnexpectedData => Stirred::UnexpectedData,
        })
    }

    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        let facts = self.facts.as_deref();
        let peer = facts.and_then(|facts| facts.remote_address.as_deref()).or(host);
        log_end("upstream h1", facts.map(|facts| facts.id), peer, closed, closed.reason.words(), stats);
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.watch.disarm();
        if let Some(mut conn) = self.conn.take() {
            conn.before_close(closed.reason);
            self.count_traffic(conn.as_ref(), stats);
            if parting::is_due(closed.reason)
                && let Some(io) = conn.into_io()
            {
                parting::part(io);
            }
        }
        *self = Self::default();
    }
}
