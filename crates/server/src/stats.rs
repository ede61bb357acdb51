//! Statistics of the process and its control plane, under Envoy's names; `config.` is our own.

use tidegate_cluster::stats::ManagerStats;
use tidegate_stats::{Scope, Store, stat_block};

stat_block! {
    /// `server.`
    pub(crate) struct ServerStats {
        counters { static_unknown_fields, dynamic_unknown_fields, wip_protos }
        gauges {
            state, live, concurrency, total_connections, parent_connections, uptime, version,
            hot_restart_epoch, hot_restart_generation, memory_allocated, memory_heap_size,
            memory_physical_size, days_until_first_cert_expiring,
            seconds_until_first_ocsp_response_expiring
        }
        histograms { initialization_time_ms }
    }
}

stat_block! {
    /// `listener_manager.`
    pub(crate) struct ListenerManagerStats {
        counters {
            listener_added, listener_modified, listener_removed, listener_stopped,
            listener_in_place_updated, listener_create_success, listener_create_failure
        }
        gauges {
            total_listeners_active, total_listeners_warming, total_listeners_draining,
            total_filter_chains_draining, workers_started
        }
    }
}

stat_block! {
    /// `config.`: reloads.
    pub(crate) struct ConfigStats {
        counters { reload_attempt, reload_success, reload_failed }
        gauges { generation }
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct ControlStats {
    /// `server.`
    pub(crate) server: ServerStats,
    /// `listener_manager.`
    pub(crate) listeners: ListenerManagerStats,
    /// `cluster_manager.`
    pub(crate) clusters: ManagerStats,
    /// `config.`
    pub(crate) config: ConfigStats,
}

impl ControlStats {
    /// The statistics in `store`.
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            server: ServerStats::new(store, Scope::new("server", &[])),
            listeners: ListenerManagerStats::new(store, Scope::new("listener_manager", &[])),
            clusters: ManagerStats::of(store),
            config: ConfigStats::new(store, Scope::new("config", &[])),
        }
    }
}
