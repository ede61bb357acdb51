//! A stream's place on a connection.

use std::rc::Rc;

use tidegate_codec::ClientStream;
use tidegate_codec::multiplex::{ClientConnection, ClientExchange};
use tidegate_codec::stream::ResetCode;

use super::slot::{Link, Slot};
use super::{Multiplexed, Speaks};
use crate::driver::{Holds, Kind, Pool};
use crate::h1::ConnFacts;
use crate::http::Failed;
use crate::machine::{ConnKey, StreamEnd};
use crate::stats::UpstreamStats;

/// An exchange. Ends with [`Lease::finish`] or [`Lease::failed`]; dropped before, it counts as given up and is
/// cancelled (HTTP/2: RST_STREAM, CANCEL). Its connection goes on in any case.
#[must_use = "dropping a lease cancels the exchange"]
pub struct Lease<V: Speaks, K: Kind<Slot: Holds<Slot<V>>> = Multiplexed<V>> {
    pool: Rc<Pool<K>>,
    key: ConnKey,
    link: Rc<Link<V>>,
    exchange: Option<Box<<V::Conn as ClientConnection>::Exchange>>,
    reused: bool,
}

impl<V: Speaks, K: Kind<Slot: Holds<Slot<V>>>> Lease<V, K> {
    #[inline]
    pub(crate) fn new(pool: Rc<Pool<K>>, key: ConnKey, link: Rc<Link<V>>, reused: bool) -> Self {
        let exchange = Some(Box::new(link.conn.open()));
        Self { pool, key, link, exchange, reused }
    }

    /// The exchange.
    #[inline]
    #[allow(clippy::expect_used)]
    pub fn stream(&mut self) -> &mut dyn ClientStream {
        // Only `finish`, `failed` and `drop` take it, and they end the lease.
        self.exchange.as_deref_mut().expect("a lease has an exchange")
    }

    /// What is known of the connection.
    pub fn facts(&self) -> &Rc<ConnFacts> {
        &self.link.facts
    }

    /// Whether the connection was there before the stream came.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The exchange is over, as far as it went: what is left of it is cancelled.
    #[inline]
    pub fn finish(mut self) {
        self.end(StreamEnd::Reset, |stats| stats.upstream_rq_tx_reset().inc());
    }

    /// The exchange failed. Counted as Envoy does: by who reset the stream, and why.
    pub fn failed(mut self, how: Failed) {
        let end = match how {
            // It was not refused: the peer closed before what it had promised to finish.
            Failed::PeerClosed(how) | Failed::PeerClosedInMessage(how) if self.link.over.get() => {
                StreamEnd::PeerClosed(how)
            }
            _ => StreamEnd::Reset,
        };
        self.end(end, |stats| match how {
            Failed::PeerClosed(_) | Failed::PeerClosedInMessage(_) => {
                stats.upstream_rq_pending_failure_eject().inc();
            }
            Failed::StreamReset { code: ResetCode::Refused | ResetCode::Connect, .. } => {}
            Failed::StreamReset { code: ResetCode::Protocol, .. }
            | Failed::StreamReset { by_peer: false, .. }
            | Failed::Protocol
            | Failed::TimedOut => stats.upstream_rq_tx_reset().inc(),
            Failed::StreamReset { by_peer: true, .. } => stats.upstream_rq_rx_reset().inc(),
        });
    }

    /// Gives the place back; `incomplete` and `count` are for an exchange that is not complete.
    #[inline]
    fn end(&mut self, incomplete: StreamEnd, count: impl FnOnce(&UpstreamStats)) {
        let Some(mut exchange) = self.exchange.take() else { return };
        let complete = exchange.is_request_complete() && exchange.is_response_complete();
        if !complete {
            exchange.reset();
            self.pool.machine(|machine| count(machine.stats()));
        }
        drop(exchange);
        if self.link.gone.get() {
            return;
        }
        let end = if complete { StreamEnd::Complete } else { incomplete };
        self.pool.end_stream(self.key, end, |slot, stats| {
            if let Some(slot) = slot.held() {
                slot.count_traffic(stats);
            }
        });
    }
}

impl<V: Speaks, K: Kind<Slot: Holds<Slot<V>>>> Drop for Lease<V, K> {
    fn drop(&mut self) {
        self.end(StreamEnd::Reset, |stats| stats.upstream_rq_tx_reset().inc());
    }
}
