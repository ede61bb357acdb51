//! The driver's side of one connection.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tidegate_types::Address;
use tokio::task::JoinHandle;

use super::conn::{Conn, ConnFacts, IdleEnd, Traffic};
use crate::driver::bell::{Bell, IdleWatch};
use crate::driver::{self, Stirred};
use crate::machine::{Closed, ConnKey};
use crate::parting;
use crate::stats::UpstreamStats;

/// Empty, an attempt, a connection in the pool, or what stays here of one that is lent out.
#[derive(Default)]
pub struct Slot {
    conn: Option<Box<dyn Conn>>,
    facts: Option<Rc<ConnFacts>>,
    attempt: Option<JoinHandle<()>>,
    watch: Option<(Arc<IdleWatch>, Waker)>,
    counted: Traffic,
}

impl Slot {
    #[inline]
    pub(super) fn lend(&mut self) -> Option<(Box<dyn Conn>, Rc<ConnFacts>)> {
        if let Some((watch, _)) = &self.watch {
            watch.disarm();
        }
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
        let now = conn.traffic();
        stats.upstream_cx_rx_bytes_total().add(now.rx.saturating_sub(self.counted.rx));
        stats.upstream_cx_tx_bytes_total().add(now.tx.saturating_sub(self.counted.tx));
        self.counted = now;
    }

    #[inline]
    fn log_end(&self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        let facts = self.facts.as_deref();
        tracing::debug!(
            target: "pool",
            connection = facts.map(|facts| facts.id),
            kind = "upstream h1",
            peer = facts
                .and_then(|facts| facts.remote_address.as_deref())
                .or(host)
                .map(tracing::field::display),
            cluster = stats.scope().name(),
            reason = closed.reason.name(),
            idle_ms = closed.idle_ms.unwrap_or(0),
            "closing an upstream connection: {}",
            closed.reason.words(),
        );
    }
}

impl driver::Slot for Slot {
    type Opened = (Box<dyn Conn>, ConnFacts);

    const WATCHED_WHILE_BUSY: bool = false;

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
        self.watch.as_ref().is_some_and(|(watch, _)| watch.has_fired())
    }

    #[inline]
    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        let Some(conn) = &mut self.conn else { return Poll::Pending };
        let (watch, waker) = self.watch.get_or_insert_with(|| {
            // One per connection, not per idle period: waking tokio's registration compares wakers.
            let watch = IdleWatch::new(key, bell.clone());
            let waker = Waker::from(watch.clone());
            (watch, waker)
        });
        watch.arm();
        conn.poll_idle(&mut Context::from_waker(waker)).map(|end| match end {
            IdleEnd::Closed(how) => Stirred::Closed(how),
            IdleEnd::UnexpectedData => Stirred::UnexpectedData,
        })
    }

    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        self.log_end(closed, host, stats);
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        if let Some((watch, _)) = &self.watch {
            watch.disarm();
        }
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
