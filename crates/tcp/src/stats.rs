//! Statistics of a TCP proxy: Envoy's names, and those that tell of idle connections and of closes.
//!
//! Source: Envoy docs, "TCP proxy: statistics", and runs of Envoy 1.40.

use tidegate_stats::{stat_block, stat_family};
use tidegate_types::CloseReason;

stat_family! {
    /// `downstream_cx_close_reason.<reason>`: adds up to `downstream_cx_destroy`.
    pub struct CloseReasons(CloseReason) = "downstream_cx_close_reason";
}

stat_block! {
    /// `tcp.<stat_prefix>.`
    pub struct TcpStats {
        counters {
            /// Sessions.
            downstream_cx_total,
            /// Sessions whose cluster does not exist.
            downstream_cx_no_route,
            /// Sessions that ended. Not in Envoy.
            downstream_cx_destroy,
            /// Sessions closed because their listener or the process went.
            downstream_cx_drain_close,
            /// Sessions closed by the overload manager.
            downstream_cx_overload_close,
            /// Bytes from clients.
            downstream_cx_rx_bytes_total,
            /// Bytes to clients.
            downstream_cx_tx_bytes_total,
            /// Reading from clients paused: the upstream is slow.
            downstream_flow_control_paused_reading_total,
            /// Reading from clients resumed.
            downstream_flow_control_resumed_reading_total,
            /// Sessions whose client spoke before there was an upstream.
            early_data_received_count_total,
            /// `idle_timeout` fired.
            idle_timeout,
            /// `max_downstream_connection_duration` fired.
            max_downstream_connection_duration,
            /// Route decisions that were delayed.
            route_delayed_total,
            /// Sessions that lost their client with bytes for the upstream left.
            upstream_flush_total,
        }
        gauges {
            /// Sessions in which nothing is under way. Not in Envoy.
            downstream_cx_idle,
            /// Bytes from clients that wait to be sent on.
            downstream_cx_rx_bytes_buffered,
            /// Bytes that wait to be sent to clients.
            downstream_cx_tx_bytes_buffered,
            /// Sessions that flush to the upstream after their client left.
            upstream_flush_active,
        }
        histograms {
            /// Milliseconds since the last byte, when a session ended. Not in Envoy.
            downstream_cx_idle_age_at_close_ms,
            /// Milliseconds without a byte, when the next one came; pauses below 1 ms are none. Not in Envoy.
            downstream_cx_idle_age_at_reuse_ms,
        }
        families {
            /// Sessions that ended, by reason; adds up to `downstream_cx_destroy`. Not in Envoy.
            downstream_cx_close_reason: CloseReasons,
        }
    }
}
