//! The statistics that pools write: `cluster.<name>.upstream_*` and the circuit breakers' gauges.
//!
//! Names and meanings follow Envoy docs, "Cluster manager statistics". What is known of a cluster beside
//! its connections and requests (members, response codes) is in the `cluster` crate.

use tidegate_codec::multiplex::Traffic;
use tidegate_stats::{stat_block, stat_family};
use tidegate_types::CloseReason;

stat_family! {
    /// `upstream_cx_close_reason.<reason>`: adds up to `upstream_cx_destroy`.
    pub struct CloseReasons(CloseReason) = "upstream_cx_close_reason";
}

stat_block! {
    /// `cluster.<name>.`: connections and the requests that they carry.
    pub struct UpstreamStats {
        counters {
            /// Connections created, also those refused later.
            upstream_cx_total,
            /// Connections created by HTTP/1.1 pools.
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_http3_total,
            /// Connections that ended before they were connected.
            upstream_cx_connect_fail,
            /// `connect_timeout` fired.
            upstream_cx_connect_timeout,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_connect_with_0_rtt,
            /// Requests that got a connection which had carried others.
            upstream_cx_reuse_hit,
            /// Requests that got a new connection; adds up with the hits to those that used one.
            upstream_cx_reuse_miss,
            /// A connection idled for the upstream's `idle_timeout`.
            upstream_cx_idle_timeout,
            /// `max_connection_duration` fired.
            upstream_cx_max_duration_reached,
            /// Retired because of `max_requests_per_connection`.
            upstream_cx_max_requests,
            /// The peer announced the connection's end (`connection: close`, GOAWAY).
            upstream_cx_close_notify,
            /// The peer broke the protocol.
            upstream_cx_protocol_error,
            /// A limit refused to open a connection.
            upstream_cx_overflow,
            /// `max_connecting` put an attempt off.
            upstream_cx_connecting_overflow,
            /// `max_connection_pools` refused a pool.
            upstream_cx_pool_overflow,
            /// The load balancer found no host.
            upstream_cx_none_healthy,
            upstream_cx_preconnect_skipped,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_rx_bytes_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_http3_broken,
            bind_errors,
            /// Streams attached to a connection: attempts, not client requests.
            upstream_rq_total,
            /// Streams that found no ready connection.
            upstream_rq_pending_total,
            /// `max_pending_requests` refused a stream.
            upstream_rq_pending_overflow,
            /// `max_requests` refused a stream.
            upstream_rq_active_overflow,
            /// Pending streams that failed with a connection attempt.
            upstream_rq_pending_failure_eject,
            /// Streams that their owner gave up while they were pending.
            upstream_rq_cancelled,
            /// Streams reset by the peer, where streams can be (codes other than REFUSED_STREAM and
            /// PROTOCOL_ERROR).
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            /// Streams reset by us, or for a protocol error.
            upstream_rq_tx_reset,
            upstream_rq_0rtt,
        }
        gauges {
            upstream_cx_active,
            /// Connections without a stream now.
            upstream_cx_idle,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_rq_active,
            upstream_rq_pending_active,
            upstream_queue_overloaded,
        }
        histograms {
            /// Milliseconds to connect, handshakes included.
            upstream_cx_connect_ms,
            /// Milliseconds that a request waited for its connection; 0 for one that was ready.
            upstream_rq_wait_for_cx_ms,
            /// Milliseconds that a connection lived.
            upstream_cx_length_ms,
            /// Streams that a connection carried.
            upstream_rq_per_cx,
            /// Milliseconds that a connection had idled when a stream took it.
            upstream_cx_idle_age_at_reuse_ms,
            /// Milliseconds that a connection had idled when it was closed.
            upstream_cx_idle_age_at_close_ms,
        }
        families {
            /// Closed connections by reason; adds up to `upstream_cx_destroy`.
            upstream_cx_close_reason: CloseReasons,
        }
    }
}

impl UpstreamStats {
    /// Adds what a connection carried since `counted`, which is moved to `now`.
    #[inline]
    pub(crate) fn count_traffic(&self, counted: &mut Traffic, now: Traffic) {
        self.upstream_cx_rx_bytes_total().add(now.rx.saturating_sub(counted.rx));
        self.upstream_cx_tx_bytes_total().add(now.tx.saturating_sub(counted.tx));
        *counted = now;
    }
}

stat_block! {
    /// `cluster.<name>.circuit_breakers.<priority>.`: 1 while a limit is reached.
    pub struct BreakerStats {
        gauges { cx_open, rq_pending_open, rq_open, rq_retry_open, cx_pool_open }
    }
}

stat_block! {
    /// The rest of the same scope, listed only with `track_remaining`.
    pub struct RemainingStats {
        gauges { remaining_cx, remaining_pending, remaining_rq, remaining_retries, remaining_cx_pools }
    }
}
