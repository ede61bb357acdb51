//! Statistics of HTTP/3: Envoy's `http3.`, and the error codes of a listener's connections and streams.

use tidegate_codec::multiplex::{Event, Observer};
use tidegate_stats::{EndedBy, QuicCodes, Store, stat_block};

stat_block! {
    /// `http3.`: the downstream codec, all listeners together.
    pub struct Http3Stats {
        counters {
            /// Streams that clients reset or asked to stop.
            rx_reset,
            /// Streams reset by us.
            tx_reset,
            /// Streams reset because the client did not take the rest of a complete response.
            tx_flush_timeout,
            /// GOAWAY sent; not the one that only announces.
            goaway_sent,
            /// Fields dropped because of an underscore in their name.
            dropped_headers_with_underscores,
            /// Requests reset because of an underscore in a field's name.
            requests_rejected_with_underscores_in_headers,
            /// Metadata is no part of HTTP/3.
            metadata_not_supported_error,
            /// Connections of QUIC's draft 29, which is not spoken.
            quic_version_h3_29,
            /// Connections of QUIC version 1, counted at their end.
            quic_version_rfc_v1,
        }
    }
}

/// Counts what happens on the connections of one listener.
#[derive(Clone)]
pub struct Http3Observer {
    stats: Http3Stats,
    codes: QuicCodes,
}

impl Http3Observer {
    /// For the listener of that name in statistics.
    pub fn new(store: &Store, stats: Http3Stats, listener: &str) -> Self {
        Self { stats, codes: QuicCodes::downstream(store, listener) }
    }
}

impl Observer for Http3Observer {
    fn on_event(&self, event: Event) {
        let stats = &self.stats;
        match event {
            Event::RxReset => stats.rx_reset().inc(),
            Event::TxReset => stats.tx_reset().inc(),
            Event::GoawaySent => stats.goaway_sent().inc(),
            Event::UnderscoreDropped => stats.dropped_headers_with_underscores().inc(),
            Event::UnderscoreRejected => stats.requests_rejected_with_underscores_in_headers().inc(),
            Event::RxResetNamed(name) => self.codes.stream(EndedBy::Peer, name),
            Event::TxResetNamed(name) => self.codes.stream(EndedBy::Us, name),
            Event::RxCloseNamed(name) => self.codes.connection(EndedBy::Peer, name),
            Event::TxCloseNamed(name) => self.codes.connection(EndedBy::Us, name),
            // Envoy has no names for the rest.
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
