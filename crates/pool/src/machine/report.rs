//! What the machine says of itself, for the admin page.

use tokio::time::Instant;

use super::{Machine, State};
use crate::report::{IdleAge, PoolReport};

impl Machine {
    /// As it is now; who and where it is are the pool's to say. Looks at every connection.
    pub fn report(&self, now: Instant) -> PoolReport {
        let learned = self.shared.idle_limit.as_ref().and_then(|learned| learned.learned());
        let mut report = PoolReport {
            streams: self.active,
            pending: self.pending.len(),
            learned_idle_ms: learned.map(|limit| limit.as_millis() as u64),
            last_close_reasons: self.last_closes.names(),
            ..PoolReport::default()
        };
        let mut ages = Vec::new();
        for (_, conn) in &self.conns {
            let count = match conn.state {
                State::Connecting { .. } => &mut report.connecting,
                State::Ready => &mut report.ready,
                State::Busy => &mut report.busy,
                State::Draining | State::Probing => &mut report.draining,
            };
            *count += 1;
            if conn.idle {
                ages.push(now.saturating_duration_since(conn.idle_since).as_millis() as u64);
            }
        }
        report.idle_age = IdleAge::of(ages);
        report
    }
}
