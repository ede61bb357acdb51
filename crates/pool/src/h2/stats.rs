//! `cluster.<name>.http2.`: what happens on upstream connections besides their requests.

use tidegate_codec::multiplex::{Event, Flood, Observer};
use tidegate_stats::stat_block;

stat_block! {
    /// `cluster.<name>.http2.`. Names are Envoy's; those of queues that this codec does not have stay 0.
    pub struct CodecStats {
        counters {
            /// Envoy sends none upstream, nor do we, but for a peer that broke the protocol.
            goaway_sent,
            /// A PING was not answered in time: the connection was closed.
            keepalive_timeout,
            /// RST_STREAM frames received.
            rx_reset,
            /// RST_STREAM frames sent.
            tx_reset,
            /// Streams that the peer refused.
            stream_refused_errors,
            tx_flush_timeout,
            /// Floods: the peer's frames went over a limit, and the connection was closed.
            outbound_flood,
            outbound_control_flood,
            inbound_empty_frames_flood,
            inbound_priority_frames_flood,
            inbound_window_update_frames_flood,
            /// Responses whose head was over a limit.
            header_overflow,
            header_list_size_too_large,
            headers_cb_no_stream,
            /// Invalid messages.
            rx_messaging_error,
            trailers,
            metadata_empty_frames,
            dropped_headers_with_underscores,
            requests_rejected_with_underscores_in_headers,
        }
        gauges {
            /// Streams that live.
            streams_active,
            pending_send_bytes,
            deferred_stream_close,
            outbound_frames_active,
            outbound_control_frames_active,
        }
    }
}

/// Counts a cluster's connections.
#[derive(Clone, Debug)]
pub struct Counting(pub CodecStats);

impl Observer for Counting {
    fn on_event(&self, event: Event) {
        let stats = &self.0;
        match event {
            Event::StreamOpened => stats.streams_active().inc(),
            Event::StreamClosed => stats.streams_active().dec(),
            Event::RxReset => stats.rx_reset().inc(),
            // Envoy counts the streams that it refuses itself: none, of an upstream.
            Event::RxRefused | Event::TxRefused => {}
            Event::TxReset => stats.tx_reset().inc(),
            Event::GoawaySent => stats.goaway_sent().inc(),
            Event::KeepaliveTimeout => stats.keepalive_timeout().inc(),
            Event::HeaderOverflow => stats.header_overflow().inc(),
            Event::HeadTooLarge => stats.header_list_size_too_large().inc(),
            Event::Flood(Flood::EmptyFrames) => stats.inbound_empty_frames_flood().inc(),
            Event::Flood(Flood::Priority) => stats.inbound_priority_frames_flood().inc(),
            Event::Flood(Flood::WindowUpdate) => stats.inbound_window_update_frames_flood().inc(),
            Event::Flood(Flood::Outbound) => stats.outbound_flood().inc(),
            Event::Flood(Flood::OutboundControl) => stats.outbound_control_flood().inc(),
            // Of clients only.
            Event::Flood(Flood::PrematureResets) => {}
            // As Envoy, whose counter is of requests.
            Event::Trailers => {}
            Event::UnderscoreDropped => stats.dropped_headers_with_underscores().inc(),
            Event::UnderscoreRejected => stats.requests_rejected_with_underscores_in_headers().inc(),
            Event::MessagingError => stats.rx_messaging_error().inc(),
            // HTTP/3's.
            Event::RxResetNamed(_)
            | Event::TxResetNamed(_)
            | Event::RxCloseNamed(_)
            | Event::TxCloseNamed(_) => {}
        }
    }
}
