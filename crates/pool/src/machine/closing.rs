//! How streams and connections end, and what is counted for it.

use tidegate_types::{CloseReason, ResetReason};
use tokio::time::Instant;

use super::{ConnKey, Event, Machine, State};
use crate::error::PoolError;
use crate::host::HostStat;

/// How a stream left its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Both messages are complete; the connection may go on.
    Complete,
    /// Complete, and the peer announced that it will close (`connection: close`, HTTP/1.0).
    CompleteAndAnnounced,
    /// Complete: the response's end was the connection's end.
    CompleteAtClose,
    /// The same, and the peer had announced it.
    CompleteAtAnnouncedClose,
    /// Complete, and the peer sent more than the response.
    CompleteWithExcess,
    /// The response is complete, the request is not: an HTTP/1.1 connection is of no more use.
    RequestIncomplete,
    /// The same, and the peer announced that it will close.
    RequestIncompleteAndAnnounced,
    /// The stream never used its connection.
    Unused,
    /// Its owner gave it up.
    Aborted,
    /// Only this stream was reset; the connection may go on (HTTP/2, HTTP/3).
    Reset,
    /// A deadline of its owner's passed.
    TimedOut,
    /// The peer closed the connection under the stream, in this way, before a response began.
    PeerClosed(CloseReason),
    /// The peer closed the connection, in this way, inside a message.
    PeerClosedInMessage(CloseReason),
    /// The peer broke the protocol.
    ProtocolError,
    /// A TCP session ended, and its connection with it.
    Session(CloseReason),
}

/// A connection that the machine closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// How long it had had no stream, in ms; `None` for one that had, or was not connected.
    pub idle_ms: Option<u64>,
    /// It was an attempt that failed.
    pub attempt: bool,
}

impl Machine {
    /// A stream ended.
    pub fn handle_stream_end(&mut self, now: Instant, key: ConnKey, end: StreamEnd) {
        let Some(conn) = self.conns.get(key.0) else { return };
        if conn.active == 0 {
            return;
        }
        match end {
            StreamEnd::Complete | StreamEnd::Unused | StreamEnd::Reset => {
                if end == StreamEnd::Complete {
                    self.learn_from_exchange(now, key);
                }
                self.detach(key);
                self.freed(now, key);
            }
            StreamEnd::CompleteAndAnnounced => {
                self.detach(key);
                self.shared.stats.upstream_cx_close_notify().inc();
                self.retire(now, key, CloseReason::Announced);
            }
            StreamEnd::CompleteAtClose | StreamEnd::CompleteAtAnnouncedClose => {
                self.detach(key);
                if end == StreamEnd::CompleteAtAnnouncedClose {
                    self.shared.stats.upstream_cx_close_notify().inc();
                }
                self.retire(now, key, CloseReason::PeerFin);
            }
            StreamEnd::CompleteWithExcess => {
                self.detach(key);
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, CloseReason::ProtocolError);
            }
            StreamEnd::RequestIncompleteAndAnnounced => {
                self.shared.stats.upstream_cx_close_notify().inc();
                self.retire(now, key, CloseReason::Announced);
            }
            StreamEnd::RequestIncomplete | StreamEnd::Aborted => {
                self.retire(now, key, CloseReason::RequestReset);
            }
            StreamEnd::TimedOut => self.retire(now, key, CloseReason::RequestTimeout),
            StreamEnd::PeerClosed(how) => {
                self.learn_from_stale(now, key);
                self.retire(now, key, how);
            }
            StreamEnd::PeerClosedInMessage(how) => {
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, how);
            }
            StreamEnd::ProtocolError => {
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, CloseReason::ProtocolError);
            }
            StreamEnd::Session(reason) => self.retire(now, key, reason),
        }
        self.settle(now);
    }

    /// The peer closed the connection, in this way: idle, under way, or with all its streams.
    pub fn handle_closed(&mut self, now: Instant, key: ConnKey, how: CloseReason) {
        match self.conns.get(key.0).map(|conn| conn.state) {
            None => return,
            Some(State::Connecting { .. }) => {
                let reason = ResetReason::RemoteConnectionFailure;
                self.attempt_failed(now, key, PoolError::Connect { reason, transport: None });
            }
            Some(_) => {
                if how.is_remote() {
                    self.learn_from_close(now, key);
                }
                self.retire(now, key, how);
            }
        }
        self.settle(now);
    }

    /// The peer broke the protocol of a connection that carries many streams: they are reset before it is closed, as
    /// in Envoy, so that it has none then.
    pub fn handle_violated(&mut self, now: Instant, key: ConnKey) {
        if self.is_connected(key) {
            self.shared.stats.upstream_cx_protocol_error().inc();
        }
        self.handle_malformed(now, key);
    }

    /// The same, for a malformed message, which is not counted as the connection's fault.
    pub fn handle_malformed(&mut self, now: Instant, key: ConnKey) {
        if !self.is_connected(key) {
            return self.handle_closed(now, key, CloseReason::ProtocolError);
        }
        while self.conns.get(key.0).is_some_and(|conn| conn.active > 0) {
            self.detach(key);
        }
        self.retire(now, key, CloseReason::ProtocolError);
        self.settle(now);
    }

    fn is_connected(&self, key: ConnKey) -> bool {
        self.conns.get(key.0).is_some_and(|conn| !matches!(conn.state, State::Connecting { .. }))
    }

    /// The peer sent what nobody asked for on an idle connection: the next response could not be trusted.
    pub fn handle_unexpected_data(&mut self, now: Instant, key: ConnKey) {
        if self.conns.contains(key.0) {
            self.learn_from_close(now, key);
            // No protocol error for Envoy: it is often an answer (408) to a request that never came.
            self.retire(now, key, CloseReason::ProtocolError);
        }
        self.settle(now);
    }

    /// The peer announced that the connection takes no more streams (GOAWAY). Ready | Busy => Draining
    pub fn handle_announced(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        // A second GOAWAY only names the last stream (RFC 9113 §6.8).
        if matches!(conn.state, State::Connecting { .. }) || std::mem::replace(&mut conn.announced, true) {
            return;
        }
        self.shared.stats.upstream_cx_close_notify().inc();
        self.learn_from_close(now, key);
        self.forget_probe(now, key);
        self.start_drain(key, CloseReason::Announced);
        self.rest(now, key);
        self.open_connections(now);
        self.settle(now);
    }

    /// No new streams will come, for this reason: idle connections close, the others with their last stream.
    pub fn handle_drain(&mut self, now: Instant, reason: CloseReason) {
        self.draining = Some(reason);
        let serve_first = !self.pending.is_empty();
        for key in self.keys() {
            match self.conns.get(key.0).map(|conn| (conn.state, conn.active)) {
                Some((State::Ready | State::Probing, _)) => {
                    self.forget_probe(now, key);
                    self.start_drain(key, reason);
                    self.rest(now, key);
                }
                Some((State::Busy, _)) if !serve_first => self.start_drain(key, reason),
                Some((State::Connecting { .. }, _)) if !serve_first => self.close(now, key, reason),
                _ => {}
            }
        }
        self.settle(now);
    }

    /// Closes the connection that has idled longest, or an attempt made ahead of demand, for another pool's sake.
    pub fn handle_reclaim(&mut self, now: Instant) -> bool {
        let Some((key, _)) = self.oldest_idle() else { return false };
        self.close(now, key, CloseReason::Overflow);
        self.settle(now);
        true
    }

    /// Busy | Ready => (Ready | Busy | Draining | closed), after a stream left.
    #[inline]
    fn freed(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get(key.0) else { return };
        // First come, first served holds between pools too: under a reached limit a pool with a full
        // queue must not keep its connections for ever while another has none.
        if conn.active == 0 && conn.state != State::Draining && self.must_yield(self.pending.oldest()) {
            return self.retire(now, key, CloseReason::Overflow);
        }
        match conn.state {
            State::Busy => self.serve(now, key),
            _ => self.rest(now, key),
        }
        if !self.pending.is_empty() {
            self.open_connections(now);
        }
    }

    /// Closes a connection and thinks of those who waited for it.
    fn retire(&mut self, now: Instant, key: ConnKey, reason: CloseReason) {
        self.close(now, key, reason);
        self.open_connections(now);
    }

    /// Ready | Busy => Draining
    pub(super) fn start_drain(&mut self, key: ConnKey, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        let was = std::mem::replace(&mut conn.state, State::Draining);
        if was != State::Draining {
            conn.fate = reason;
        }
        if was == State::Ready {
            self.ready.remove(&mut self.conns, key);
        }
    }

    /// Any state => closed
    pub(super) fn close(&mut self, now: Instant, key: ConnKey, reason: CloseReason) {
        self.forget_probe(now, key);
        let Some(conn) = self.conns.get(key.0) else { return };
        match conn.state {
            State::Ready => self.ready.remove(&mut self.conns, key),
            State::Connecting { .. } => {
                self.connecting_capacity -= conn.expected_capacity();
                self.connecting -= 1;
                self.shared.limits.connecting.release();
            }
            State::Busy | State::Draining | State::Probing => {}
        }
        let conn = self.conns.remove(key.0);
        let stats = &self.shared.stats;
        stats.upstream_cx_active().dec();
        stats.upstream_cx_destroy().inc();
        stats.upstream_cx_close_reason().of(reason).inc();
        self.last_closes.add(reason);
        self.shared.host.closed(reason);
        if reason.is_remote() {
            stats.upstream_cx_destroy_remote().inc();
        } else {
            stats.upstream_cx_destroy_local().inc();
        }
        if conn.active > 0 {
            stats.upstream_cx_destroy_with_active_rq().inc();
            if reason.is_remote() {
                stats.upstream_cx_destroy_remote_with_active_rq().inc();
            } else {
                stats.upstream_cx_destroy_local_with_active_rq().inc();
            }
        }
        let lived = now.saturating_duration_since(conn.created);
        stats.upstream_cx_length_ms().record(lived.as_millis() as u64);
        stats.upstream_rq_per_cx().record(u64::from(conn.carried));
        self.shared.host.dec(HostStat::CxActive);
        for _ in 0..conn.active {
            self.stream_gone();
        }
        self.shared.limits.departures.begin();
        self.shared.limits.connections.release();
        if let Some(host) = &self.shared.host_connections {
            host.release();
        }
        let idle_ms = conn.idle.then(|| {
            let idle = now.saturating_duration_since(conn.idle_since).as_millis() as u64;
            self.shared.stats.upstream_cx_idle().dec();
            self.shared.stats.upstream_cx_idle_age_at_close_ms().record(idle);
            idle
        });
        let failed = matches!(
            reason,
            CloseReason::ConnectFailed
                | CloseReason::ConnectFailedHere
                | CloseReason::ConnectTimeout
                | CloseReason::TlsError
        );
        let attempt = failed && matches!(conn.state, State::Connecting { .. });
        self.events.push_back(Event::Close(key, Closed { reason, idle_ms, attempt }));
    }

    #[inline]
    fn detach(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key.0) {
            conn.active -= 1;
            let ready = conn.state == State::Ready;
            self.stream_gone();
            if ready {
                self.ready.recount(&mut self.conns, key);
            }
        }
    }

    #[inline]
    fn stream_gone(&mut self) {
        self.active -= 1;
        self.shared.stats.upstream_rq_active().dec();
        self.shared.host.dec(HostStat::RqActive);
        self.shared.limits.requests.release();
    }

    pub(super) fn keys(&self) -> Vec<ConnKey> {
        self.conns.iter().map(|(key, _)| ConnKey(key)).collect()
    }
}
