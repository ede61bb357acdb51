//! Both directions of a session, and what they tell of it.

use std::task::Context;

use bytes::BytesMut;
use tidegate_net::Io;
use tidegate_pool::stats::UpstreamStats;

use crate::TcpStats;
use crate::direction::{Direction, Fault};
use crate::end::{End, Side};

/// Both directions.
#[derive(Debug)]
pub(crate) struct Relay {
    /// From the client.
    up: Direction,
    /// To the client.
    down: Direction,
    /// Whose end was passed on first.
    first_end: Option<Side>,
    limit: usize,
}

/// What one poll moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    to_upstream: u64,
    from_upstream: u64,
}

impl Relay {
    /// A relay that may hold `limit` bytes a direction; the client has sent `early` already.
    pub(crate) fn new(early: BytesMut, limit: usize) -> Self {
        let (up, down) = (Direction::new(early), Direction::new(BytesMut::new()));
        Self { up, down, first_end: None, limit }
    }

    /// Whether bytes are in our hands.
    pub(crate) fn holds_bytes(&self) -> bool {
        self.up.holds_bytes() || self.down.holds_bytes()
    }

    /// Moves what can be moved; `Some` when the session is over.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut dyn Io,
        upstream: &mut dyn Io,
    ) -> Option<End> {
        let up = self.up.poll(cx, downstream, upstream, self.limit);
        self.note_end(Side::Downstream);
        let down = self.down.poll(cx, upstream, downstream, self.limit);
        self.note_end(Side::Upstream);
        let (side, error) = match (up, down) {
            (Ok(()), Ok(())) => {
                let over = self.up.is_ended() && self.down.is_ended();
                return self.first_end.filter(|_| over).map(|first| End::Both { first });
            }
            (Err(Fault::Reading(error)), _) | (_, Err(Fault::Writing(error))) => (Side::Downstream, error),
            (Err(Fault::Writing(error)), _) | (_, Err(Fault::Reading(error))) => (Side::Upstream, error),
        };
        let finished = match side {
            Side::Downstream => self.up.is_ended(),
            Side::Upstream => self.down.is_ended(),
        };
        Some(End::broken(side, &error, finished))
    }

    fn note_end(&mut self, side: Side) {
        let direction = match side {
            Side::Downstream => &self.up,
            Side::Upstream => &self.down,
        };
        if self.first_end.is_none() && direction.is_ended() {
            self.first_end = Some(side);
        }
    }

    /// Where the counts stand.
    pub(crate) fn counts(&self) -> Counts {
        let (up, down) = (&self.up, &self.down);
        Counts {
            bytes: Moved {
                received: up.read,
                sent: down.written,
                to_upstream: up.written,
                from_upstream: down.read,
            },
            up: (up.pauses, up.resumes),
            down: (down.pauses, down.resumes),
        }
    }
}

/// Counts of a relay at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) bytes: Moved,
    up: (u64, u64),
    down: (u64, u64),
}

impl Counts {
    /// Of a session that has counted `received` bytes before it had an upstream.
    pub(crate) fn early(received: usize) -> Self {
        Self { bytes: Moved { received: received as u64, ..Moved::default() }, ..Self::default() }
    }

    /// Adds what happened since `before` to the statistics.
    pub(crate) fn add(&self, before: &Self, tcp: &TcpStats, cluster: &UpstreamStats) {
        let (now, then) = (&self.bytes, &before.bytes);
        if now.received != then.received || now.to_upstream != then.to_upstream {
            tcp.downstream_cx_rx_bytes_total().add(now.received - then.received);
            cluster.upstream_cx_tx_bytes_total().add(now.to_upstream - then.to_upstream);
        }
        if now.sent != then.sent || now.from_upstream != then.from_upstream {
            cluster.upstream_cx_rx_bytes_total().add(now.from_upstream - then.from_upstream);
            tcp.downstream_cx_tx_bytes_total().add(now.sent - then.sent);
        }
        if self.up != before.up {
            tcp.downstream_flow_control_paused_reading_total().add(self.up.0 - before.up.0);
            tcp.downstream_flow_control_resumed_reading_total().add(self.up.1 - before.up.1);
            cluster.upstream_flow_control_backed_up_total().add(self.up.0 - before.up.0);
            cluster.upstream_flow_control_drained_total().add(self.up.1 - before.up.1);
        }
        if self.down != before.down {
            cluster.upstream_flow_control_paused_reading_total().add(self.down.0 - before.down.0);
            cluster.upstream_flow_control_resumed_reading_total().add(self.down.1 - before.down.1);
        }
    }
}
