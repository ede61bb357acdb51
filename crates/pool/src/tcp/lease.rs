//! A session's hold on its connection's place under the limits.

use std::rc::Rc;
use std::time::Duration;

use tidegate_types::{Address, CloseReason, TlsInfo};

use super::Pool;
use crate::machine::ConnKey;
use crate::stats::UpstreamStats;

/// What is known of a session's upstream connection.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Unique in the process (`%UPSTREAM_CONNECTION_ID%`).
    pub id: u64,
    /// Our end, if it has a name.
    pub local_address: Option<Rc<Address>>,
    /// The end that answered.
    pub remote_address: Option<Rc<Address>>,
    /// The TLS session, if there is one.
    pub tls: Option<Rc<TlsInfo>>,
}

/// Counts a session's connection while it lives. Ends with [`Lease::end`]; dropped before, the session counts
/// as given up.
#[must_use = "dropping a lease counts the session as given up"]
pub struct Lease {
    pool: Rc<Pool>,
    key: ConnKey,
    facts: Facts,
    stats: UpstreamStats,
    open: bool,
}

impl Lease {
    pub(super) fn new(pool: Rc<Pool>, key: ConnKey, facts: Facts, stats: UpstreamStats) -> Self {
        Self { pool, key, facts, stats, open: true }
    }

    /// What is known of the connection.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The cluster's statistics, for bytes and flow control.
    #[inline]
    pub fn stats(&self) -> &UpstreamStats {
        &self.stats
    }

    /// The session is over: its connection leaves the statistics and the limits now, whatever its owner still
    /// does to part from the peer. `PeerFin` and `PeerRst` mean that the upstream ended it.
    /// `idle` is for how long no byte had passed.
    pub fn end(mut self, reason: CloseReason, idle: Duration) {
        self.open = false;
        self.pool.end_session(self.key, reason, idle);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.open {
            self.pool.end_session(self.key, CloseReason::RequestReset, Duration::ZERO);
        }
    }
}
