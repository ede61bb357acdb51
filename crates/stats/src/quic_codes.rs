//! By which codes HTTP/3's connections and streams end:
//! `http3.<side>.<rx or tx>.quic_<connection_close or reset_stream>_error_code_<name>`.
//!
//! They are absent from the output until first used, as Envoy's. The names of codes are the caller's.

use crate::dynamic::DynScope;
use crate::scope::Scope;
use crate::store::Store;

/// The counters of one side. Each count takes a lock: once a connection, and for each reset.
#[derive(Clone, Debug)]
pub struct QuicCodes {
    scope: DynScope,
    /// What names begin with, behind the scope.
    prefix: &'static str,
}

/// Who ended a connection or a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedBy {
    /// `tx.`.
    Us,
    /// `rx.`.
    Peer,
}

impl QuicCodes {
    /// `listener.<address>.http3.downstream.`.
    pub fn downstream(store: &Store, listener: &str) -> Self {
        Self { scope: DynScope::new(store, Scope::listener(listener)), prefix: "http3.downstream." }
    }

    /// `http3.upstream.`: of all clusters.
    pub fn upstream(store: &Store) -> Self {
        Self { scope: DynScope::new(store, Scope::new("http3", &["upstream"])), prefix: "" }
    }

    /// Counters that no store prints, for tests.
    pub fn detached() -> Self {
        Self { scope: DynScope::detached(), prefix: "" }
    }

    /// A connection ended, for what Envoy calls `name`.
    pub fn connection(&self, by: EndedBy, name: &str) {
        self.count(by, "connection_close", name);
    }

    /// A stream was reset, for what Envoy calls `name`.
    pub fn stream(&self, by: EndedBy, name: &str) {
        self.count(by, "reset_stream", name);
    }

    fn count(&self, by: EndedBy, what: &str, name: &str) {
        let direction = match by {
            EndedBy::Us => "tx",
            EndedBy::Peer => "rx",
        };
        let name = format!("{}{direction}.quic_{what}_error_code_{name}", self.prefix);
        self.scope.counter(&name).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Filter, text};

    #[test]
    fn names_are_envoys() {
        let store = Store::new(1);
        let upstream = QuicCodes::upstream(&store);
        upstream.connection(EndedBy::Peer, "QUIC_NO_ERROR");
        upstream.connection(EndedBy::Peer, "QUIC_NO_ERROR");
        QuicCodes::upstream(&store).stream(EndedBy::Us, "QUIC_STREAM_CANCELLED");
        let downstream = QuicCodes::downstream(&store, "[::1]:443");
        downstream.connection(EndedBy::Us, "QUIC_HANDSHAKE_FAILED");
        let expected = "\
http3.upstream.rx.quic_connection_close_error_code_QUIC_NO_ERROR: 2
http3.upstream.tx.quic_reset_stream_error_code_QUIC_STREAM_CANCELLED: 1
listener.[__1]_443.http3.downstream.tx.quic_connection_close_error_code_QUIC_HANDSHAKE_FAILED: 1
";
        assert_eq!(text(&store, &Filter::default()), expected);
    }
}
