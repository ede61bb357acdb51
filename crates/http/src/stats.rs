//! Statistics of a connection manager, under Envoy's names.

use tidegate_codec::multiplex::{Event, Flood, Observer};
use tidegate_stats::{stat_block, stat_family};
use tidegate_types::CloseReason;

mod http3;

pub use http3::{Http3Observer, Http3Stats};

stat_family! {
    /// `downstream_cx_close_reason.<reason>`: adds up to `downstream_cx_destroy`.
    pub struct CloseReasons(CloseReason) = "downstream_cx_close_reason";
}

stat_block! {
    /// `http.<stat_prefix>.`: the manager's connections and requests.
    pub struct HcmStats {
        counters {
            /// Connections.
            downstream_cx_total,
            /// Connections that sent at least one byte of HTTP/1.
            downstream_cx_http1_total,
            /// Connections that spoke HTTP/2.
            downstream_cx_http2_total,
            /// Connections that spoke HTTP/3.
            downstream_cx_http3_total,
            /// TLS connections.
            downstream_cx_ssl_total,
            /// The idle timer fired.
            downstream_cx_idle_timeout,
            /// `max_connection_duration` passed.
            downstream_cx_max_duration_reached,
            /// `max_requests_per_connection` was reached.
            downstream_cx_max_requests_reached,
            /// A response announced the close because of a drain.
            downstream_cx_drain_close,
            /// The peer did not close within `delayed_close_timeout`.
            downstream_cx_delayed_close_timeout,
            /// The overload manager announced the close.
            downstream_cx_overload_disable_keepalive,
            /// The client broke HTTP.
            downstream_cx_protocol_error,
            /// Connections closed.
            downstream_cx_destroy,
            /// Closed by us.
            downstream_cx_destroy_local,
            /// Closed by the client.
            downstream_cx_destroy_remote,
            /// Closed with a request under way.
            downstream_cx_destroy_active_rq,
            /// Closed by us with a request under way.
            downstream_cx_destroy_local_active_rq,
            /// Closed by the client with a request under way.
            downstream_cx_destroy_remote_active_rq,
            /// Bytes received.
            downstream_cx_rx_bytes_total,
            /// Bytes sent.
            downstream_cx_tx_bytes_total,
            /// Connections that were upgraded.
            downstream_cx_upgrades_total,
            /// Reads from the client were paused.
            downstream_flow_control_paused_reading_total,
            /// Reads from the client went on.
            downstream_flow_control_resumed_reading_total,
            /// Requests, counted at their first byte.
            downstream_rq_total,
            /// Requests over HTTP/1.
            downstream_rq_http1_total,
            /// Requests over HTTP/2.
            downstream_rq_http2_total,
            /// Requests over HTTP/3.
            downstream_rq_http3_total,
            /// Requests that got a response.
            downstream_rq_completed,
            /// Informational responses.
            downstream_rq_1xx,
            /// Responses with a 2xx status.
            downstream_rq_2xx,
            /// Responses with a 3xx status.
            downstream_rq_3xx,
            /// Responses with a 4xx status.
            downstream_rq_4xx,
            /// Responses with a 5xx status.
            downstream_rq_5xx,
            /// `stream_idle_timeout` fired.
            downstream_rq_idle_timeout,
            /// `request_timeout` fired.
            downstream_rq_timeout,
            /// `request_headers_timeout` fired.
            downstream_rq_header_timeout,
            /// `max_stream_duration` fired.
            downstream_rq_max_duration_reached,
            /// Streams that ended before the request was complete.
            downstream_rq_rx_reset,
            /// Streams that we reset.
            downstream_rq_tx_reset,
            /// Responses that ended before their request.
            downstream_rq_response_before_rq_complete,
            /// Requests answered with 413.
            downstream_rq_too_large,
            /// Responses too large to buffer.
            rs_too_large,
            /// Connections closed for resetting too many streams too early.
            downstream_rq_too_many_premature_resets,
            /// Requests refused by the overload manager.
            downstream_rq_overload_close,
            /// Requests answered by the overload manager.
            rq_overload_local_reply,
            /// Upgrades where none is configured.
            downstream_rq_ws_on_non_ws_route,
            /// Requests with a path that is not relative.
            downstream_rq_non_relative_path,
            /// Requests whose path could not be normalised.
            downstream_rq_failed_path_normalization,
            /// Requests redirected to their normalised path.
            downstream_rq_redirected_with_normalized_path,
            /// Requests refused because of their client's address.
            downstream_rq_rejected_via_ip_detection,
            /// Requests that reached the router.
            rq_total,
            /// Requests that no route matched.
            no_route,
            /// Requests whose cluster does not exist.
            no_cluster,
            /// Requests answered by a direct response.
            rq_direct_response,
            /// Requests answered by a redirect.
            rq_redirect,
            /// Redirects of upstreams that were to be followed and were not: no absolute URL.
            passthrough_internal_redirect_bad_location,
            /// To another scheme.
            passthrough_internal_redirect_unsafe_scheme,
            /// More than `max_internal_redirects`.
            passthrough_internal_redirect_too_many_redirects,
            /// No route takes the new request.
            passthrough_internal_redirect_no_route,
            /// One of `predicates` refused.
            passthrough_internal_redirect_predicate,
            /// Upstream failures after the response began.
            rq_reset_after_downstream_response_started,
        }
        gauges {
            /// Connections now.
            downstream_cx_active,
            /// Connections without a request now.
            downstream_cx_idle,
            /// HTTP/1 connections now.
            downstream_cx_http1_active,
            /// HTTP/2 connections now.
            downstream_cx_http2_active,
            /// HTTP/3 connections now.
            downstream_cx_http3_active,
            /// TLS connections now.
            downstream_cx_ssl_active,
            /// HTTP/1 connections past their age that wait for one more request.
            downstream_cx_http1_soft_drain,
            /// Upgraded connections now.
            downstream_cx_upgrades_active,
            /// Bytes waiting to be parsed.
            downstream_cx_rx_bytes_buffered,
            /// Bytes waiting to be sent.
            downstream_cx_tx_bytes_buffered,
            /// Requests now.
            downstream_rq_active,
        }
        histograms {
            /// Life time of connections in ms.
            downstream_cx_length_ms,
            /// First byte of the request to the end of the stream, in ms.
            downstream_rq_time,
            /// Milliseconds that a connection had idled when its next request came.
            downstream_cx_idle_age_at_reuse_ms,
            /// Milliseconds that a connection had idled when it was closed.
            downstream_cx_idle_age_at_close_ms,
        }
        families {
            /// Closed connections by reason; adds up to `downstream_cx_destroy`.
            downstream_cx_close_reason: CloseReasons,
        }
    }
}

stat_block! {
    /// `http.async-client.`: requests of the proxy's own that are routed, as copies for mirrors are. The other names
    /// are those that such a router has, and never count here.
    pub struct AsyncClientStats {
        counters {
            /// Requests that were sent.
            rq_total,
            /// Never: each knows its route,
            no_route,
            /// and its cluster;
            no_cluster,
            /// none is refused,
            rq_overload_local_reply,
            /// answered,
            rq_direct_response,
            /// or redirected here,
            rq_redirect,
            /// by an upstream either,
            passthrough_internal_redirect_bad_location,
            /// to another scheme,
            passthrough_internal_redirect_unsafe_scheme,
            /// too often,
            passthrough_internal_redirect_too_many_redirects,
            /// to nowhere,
            passthrough_internal_redirect_no_route,
            /// or against a predicate.
            passthrough_internal_redirect_predicate,
            /// No downstream sees a reset.
            rq_reset_after_downstream_response_started,
        }
    }
}

stat_block! {
    /// `listener.<address>.http.<stat_prefix>.`: the manager's responses by listener.
    pub struct ListenerHttpStats {
        counters {
            /// Requests that got a response.
            downstream_rq_completed,
            /// Informational responses.
            downstream_rq_1xx,
            /// Responses with a 2xx status.
            downstream_rq_2xx,
            /// Responses with a 3xx status.
            downstream_rq_3xx,
            /// Responses with a 4xx status.
            downstream_rq_4xx,
            /// Responses with a 5xx status.
            downstream_rq_5xx,
        }
    }
}

stat_block! {
    /// `http1.`: the downstream codec, all listeners together.
    pub struct CodecStats {
        counters {
            /// Fields dropped because of an underscore in their name.
            dropped_headers_with_underscores = "http1.dropped_headers_with_underscores",
            /// Metadata is no part of HTTP/1.
            metadata_not_supported_error = "http1.metadata_not_supported_error",
            /// Requests refused because of an underscore in a field's name.
            requests_rejected_with_underscores_in_headers = "http1.requests_rejected_with_underscores_in_headers",
            /// Connections closed because too many responses were queued.
            response_flood = "http1.response_flood",
        }
    }
}

stat_block! {
    /// `http2.`: the downstream codec, all listeners together.
    pub struct Http2Stats {
        counters {
            /// RST_STREAM received.
            rx_reset,
            /// RST_STREAM sent.
            tx_reset,
            /// Streams reset because the client did not take the rest of a complete response.
            tx_flush_timeout,
            /// GOAWAY sent; not the one that only announces.
            goaway_sent,
            /// Connections closed because a PING was not answered in time.
            keepalive_timeout,
            /// Requests reset for the number of their fields.
            header_overflow,
            /// Requests reset for the size of their heads.
            header_list_size_too_large,
            /// Trailers received.
            trailers,
            /// Invalid messages received.
            rx_messaging_error,
            /// Streams refused: over `max_concurrent_streams`, or after the last GOAWAY.
            stream_refused_errors,
            /// Fields dropped because of an underscore in their name.
            dropped_headers_with_underscores,
            /// Requests reset because of an underscore in a field's name.
            requests_rejected_with_underscores_in_headers,
            /// Connections closed for frames that the client did not take.
            outbound_flood,
            /// The same, for answers to PING and SETTINGS and for RST_STREAM.
            outbound_control_flood,
            /// Connections closed for empty frames.
            inbound_empty_frames_flood,
            /// Connections closed for PRIORITY frames.
            inbound_priority_frames_flood,
            /// Connections closed for WINDOW_UPDATE frames.
            inbound_window_update_frames_flood,
            /// METADATA frames without content: never, as METADATA is not read.
            metadata_empty_frames,
            /// Heads for streams that were gone: never, as such a head is read for its effect on HPACK only.
            headers_cb_no_stream,
        }
        gauges {
            /// Streams now.
            streams_active,
            /// What waits in queues that this codec does not have: 0.
            pending_send_bytes,
            /// As `pending_send_bytes`.
            deferred_stream_close,
            /// As `pending_send_bytes`.
            outbound_frames_active,
            /// As `pending_send_bytes`.
            outbound_control_frames_active,
        }
    }
}

impl Observer for Http2Stats {
    fn on_event(&self, event: Event) {
        match event {
            Event::StreamOpened => self.streams_active().inc(),
            Event::StreamClosed => self.streams_active().dec(),
            Event::RxReset => self.rx_reset().inc(),
            Event::RxRefused => {}
            Event::TxRefused => self.stream_refused_errors().inc(),
            Event::TxReset => self.tx_reset().inc(),
            Event::GoawaySent => self.goaway_sent().inc(),
            Event::KeepaliveTimeout => self.keepalive_timeout().inc(),
            Event::HeaderOverflow => self.header_overflow().inc(),
            Event::HeadTooLarge => self.header_list_size_too_large().inc(),
            Event::UnderscoreDropped => self.dropped_headers_with_underscores().inc(),
            Event::UnderscoreRejected => self.requests_rejected_with_underscores_in_headers().inc(),
            Event::Trailers => self.trailers().inc(),
            Event::MessagingError => self.rx_messaging_error().inc(),
            // HTTP/3's.
            Event::Flood(Flood::EmptyFrames) => self.inbound_empty_frames_flood().inc(),
            Event::Flood(Flood::Priority) => self.inbound_priority_frames_flood().inc(),
            Event::Flood(Flood::WindowUpdate) => self.inbound_window_update_frames_flood().inc(),
            Event::Flood(Flood::Outbound) => self.outbound_flood().inc(),
            Event::Flood(Flood::OutboundControl) => self.outbound_control_flood().inc(),
            // Counted by the connection manager.
            Event::Flood(Flood::PrematureResets) => {}
            Event::RxResetNamed(_)
            | Event::TxResetNamed(_)
            | Event::RxCloseNamed(_)
            | Event::TxCloseNamed(_) => {}
        }
    }
}
