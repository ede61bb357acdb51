//! How streams and connections end, and what is counted for it.

use tidegate_types::ResetReason;
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
    /// The peer closed the connection under the stream, before a response began.
    PeerClosed,
    /// The peer closed the connection inside a message.
    PeerClosedInMessage,
    /// The peer broke the protocol.
    ProtocolError,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The attempt failed.
    ConnectFailed,
    /// The attempt took too long.
    ConnectTimeout,
    /// It took no more streams (lifetime limit, drain, GOAWAY) and lost its last one.
    Drained,
    /// Idle for `idle_timeout`.
    IdleTimeout,
    /// Idle when `max_connection_duration` fired.
    MaxDuration,
    /// Given up for a pool that has no connection, under a reached limit.
    Reclaimed,
    /// The peer had announced the end.
    Announced,
    /// The peer closed.
    ByPeer,
    /// Closed with a stream that could not be ended otherwise.
    WithStream,
}

impl CloseCause {
    fn is_remote(self) -> bool {
        matches!(self, Self::ByPeer | Self::ConnectFailed)
    }
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
                self.detach(key);
                self.freed(now, key);
            }
            StreamEnd::CompleteAndAnnounced => {
                self.detach(key);
                self.shared.stats.upstream_cx_close_notify().inc();
                self.retire(now, key, CloseCause::Announced);
            }
            StreamEnd::CompleteAtClose | StreamEnd::CompleteAtAnnouncedClose => {
                self.detach(key);
                if end == StreamEnd::CompleteAtAnnouncedClose {
                    self.shared.stats.upstream_cx_close_notify().inc();
                }
                self.retire(now, key, CloseCause::ByPeer);
            }
            StreamEnd::CompleteWithExcess => {
                self.detach(key);
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, CloseCause::WithStream);
            }
            StreamEnd::RequestIncompleteAndAnnounced => {
                self.shared.stats.upstream_cx_close_notify().inc();
                self.retire(now, key, CloseCause::WithStream);
            }
            StreamEnd::RequestIncomplete | StreamEnd::Aborted => {
                self.retire(now, key, CloseCause::WithStream);
            }
            StreamEnd::PeerClosed => self.retire(now, key, CloseCause::ByPeer),
            StreamEnd::PeerClosedInMessage => {
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, CloseCause::ByPeer);
            }
            StreamEnd::ProtocolError => {
                self.shared.stats.upstream_cx_protocol_error().inc();
                self.retire(now, key, CloseCause::WithStream);
            }
        }
        self.settle(now);
    }

    /// The peer closed the connection: idle, under way, or with all its streams.
    pub fn handle_closed(&mut self, now: Instant, key: ConnKey) {
        match self.conns.get(key.0).map(|conn| conn.state) {
            None => return,
            Some(State::Connecting { .. }) => {
                let reason = ResetReason::RemoteConnectionFailure;
                self.attempt_failed(now, key, PoolError::Connect { reason, transport: None });
            }
            Some(_) => self.retire(now, key, CloseCause::ByPeer),
        }
        self.settle(now);
    }

    /// The peer sent what nobody asked for on an idle connection: the next response could not be trusted.
    pub fn handle_unexpected_data(&mut self, now: Instant, key: ConnKey) {
        if self.conns.contains(key.0) {
            // No protocol error for Envoy: it is often an answer (408) to a request that never came.
            self.retire(now, key, CloseCause::WithStream);
        }
        self.settle(now);
    }

    /// The peer announced that the connection takes no more streams (GOAWAY). Ready | Busy => Draining
    pub fn handle_announced(&mut self, now: Instant, key: ConnKey) {
        if !self.conns.contains(key.0) {
            return;
        }
        self.shared.stats.upstream_cx_close_notify().inc();
        self.start_drain(key);
        self.rest(now, key);
        self.open_connections(now);
        self.settle(now);
    }

    /// No new streams will come: idle connections close, the others with their last stream.
    pub fn handle_drain(&mut self, now: Instant) {
        self.draining = true;
        let serve_first = !self.pending.is_empty();
        for key in self.keys() {
            match self.conns.get(key.0).map(|conn| (conn.state, conn.active)) {
                Some((State::Ready, _)) => {
                    self.start_drain(key);
                    self.rest(now, key);
                }
                Some((State::Busy, _)) if !serve_first => self.start_drain(key),
                Some((State::Connecting { .. }, _)) if !serve_first => {
                    self.close(now, key, CloseCause::Drained)
                }
                _ => {}
            }
        }
        self.settle(now);
    }

    /// Closes the connection that has idled longest, for another pool's sake.
    pub fn handle_reclaim(&mut self, now: Instant) -> bool {
        let Some((key, _)) = self.oldest_idle() else { return false };
        self.close(now, key, CloseCause::Reclaimed);
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
            return self.retire(now, key, CloseCause::Reclaimed);
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
    fn retire(&mut self, now: Instant, key: ConnKey, cause: CloseCause) {
        self.close(now, key, cause);
        self.open_connections(now);
    }

    /// Ready | Busy => Draining
    pub(super) fn start_drain(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        let was = std::mem::replace(&mut conn.state, State::Draining);
        if was == State::Ready {
            self.ready.remove(&mut self.conns, key);
        }
    }

    /// Any state => closed
    pub(super) fn close(&mut self, now: Instant, key: ConnKey, cause: CloseCause) {
        let Some(conn) = self.conns.get(key.0) else { return };
        match conn.state {
            State::Ready => self.ready.remove(&mut self.conns, key),
            State::Connecting { .. } => {
                self.connecting_capacity -= conn.expected_capacity();
                self.connecting -= 1;
            }
            State::Busy | State::Draining => {}
        }
        let conn = self.conns.remove(key.0);
        let stats = &self.shared.stats;
        stats.upstream_cx_active().dec();
        stats.upstream_cx_destroy().inc();
        if cause.is_remote() {
            stats.upstream_cx_destroy_remote().inc();
        } else {
            stats.upstream_cx_destroy_local().inc();
        }
        if conn.active > 0 {
            stats.upstream_cx_destroy_with_active_rq().inc();
            if cause.is_remote() {
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
        self.shared.limits.connections.release();
        if let Some(host) = &self.shared.host_connections {
            host.release();
        }
        self.events.push_back(Event::Close(key, cause));
    }

    #[inline]
    fn detach(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key.0) {
            conn.active -= 1;
            self.stream_gone();
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
