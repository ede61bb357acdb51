//! What the admin server counts of itself: `http.admin.` and `listener.admin.http.admin.`.

use http::StatusCode;
use tidegate_http::{HcmStats, ListenerHttpStats};
use tidegate_stats::{GaugeHold, Scope, Store};
use tidegate_types::CloseReason;

/// The same counters as a connection manager's, of which a plain server moves a few.
pub(super) struct AdminStats {
    manager: HcmStats,
    listener: ListenerHttpStats,
}

impl AdminStats {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            manager: HcmStats::new(store, Scope::http("admin")),
            listener: ListenerHttpStats::new(store, Scope::listener_http("admin", "admin")),
        }
    }

    /// Counts a connection until it is dropped.
    pub(super) fn connection(&self) -> Connection {
        self.manager.downstream_cx_total().inc();
        self.manager.downstream_cx_http1_total().inc();
        let _active = self.manager.downstream_cx_active().hold();
        Connection { stats: self.manager.clone(), _active, reason: CloseReason::Drained }
    }

    /// Counts a request with its answer.
    pub(super) fn answered(&self, status: StatusCode) {
        let stats = &self.manager;
        stats.downstream_rq_total().inc();
        stats.downstream_rq_http1_total().inc();
        stats.downstream_rq_completed().inc();
        self.listener.downstream_rq_completed().inc();
        match status.as_u16() / 100 {
            2 => {
                stats.downstream_rq_2xx().inc();
                self.listener.downstream_rq_2xx().inc();
            }
            4 => {
                stats.downstream_rq_4xx().inc();
                self.listener.downstream_rq_4xx().inc();
            }
            5 => {
                stats.downstream_rq_5xx().inc();
                self.listener.downstream_rq_5xx().inc();
            }
            // Nothing else is answered.
            _ => {}
        }
    }
}

/// A connection in the gauges.
pub(super) struct Connection {
    stats: HcmStats,
    _active: GaugeHold,
    /// Why it ends, unless somebody knows better: the process goes.
    reason: CloseReason,
}

impl Connection {
    /// The connection ended by itself.
    pub(super) fn closed(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.downstream_cx_destroy().inc();
        self.stats.downstream_cx_close_reason().of(self.reason).inc();
    }
}
