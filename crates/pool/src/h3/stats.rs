//! `cluster.<name>.http3.`: what happens on upstream connections besides their requests.

use tidegate_codec::multiplex::{Event, Observer};
use tidegate_stats::{EndedBy, QuicCodes, stat_block};

stat_block! {
    /// `cluster.<name>.http3.`. Names are Envoy's.
    pub struct CodecStats {
        counters {
            dropped_headers_with_underscores,
            metadata_not_supported_error,
            requests_rejected_with_underscores_in_headers,
            /// GOAWAY frames sent; we send none upstream, nor does Envoy.
            goaway_sent,
            /// Streams that the peer reset, or wanted no more of.
            rx_reset,
            /// Streams reset by us.
            tx_reset,
            tx_flush_timeout,
            /// Connections of QUIC's draft 29, which is not spoken.
            quic_version_h3_29,
            /// Connections of QUIC version 1, counted at their end.
            quic_version_rfc_v1,
        }
    }
}

/// Counts a cluster's connections.
#[derive(Clone, Debug)]
pub struct Counting {
    /// The cluster's.
    pub codec: CodecStats,
    /// The process's.
    pub codes: QuicCodes,
}

impl Observer for Counting {
    fn on_event(&self, event: Event) {
        let stats = &self.codec;
        match event {
            Event::RxReset => stats.rx_reset().inc(),
            Event::TxReset => stats.tx_reset().inc(),
            Event::RxResetNamed(name) => self.codes.stream(EndedBy::Peer, name),
            Event::TxResetNamed(name) => self.codes.stream(EndedBy::Us, name),
            Event::RxCloseNamed(name) => {
                stats.quic_version_rfc_v1().inc();
                self.codes.connection(EndedBy::Peer, name);
            }
            Event::TxCloseNamed(name) => {
                stats.quic_version_rfc_v1().inc();
                self.codes.connection(EndedBy::Us, name);
            }
            Event::GoawaySent => stats.goaway_sent().inc(),
            Event::UnderscoreDropped => stats.dropped_headers_with_underscores().inc(),
            Event::UnderscoreRejected => stats.requests_rejected_with_underscores_in_headers().inc(),
            // Envoy has no counters for these here.
            Event::StreamOpened
            | Event::StreamClosed
            | Event::RxRefused
            | Event::TxRefused
            | Event::KeepaliveTimeout
            | Event::HeaderOverflow
            | Event::HeadTooLarge
            | Event::Flood(_)
            | Event::Trailers
            | Event::MessagingError => {}
        }
    }
}
