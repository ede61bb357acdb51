//! `listener.<address>.ssl.` and `cluster.<name>.ssl.`, under Envoy's names.

use tidegate_stats::{DynScope, OwnedGauge, Scope, Store, stat_block};

stat_block! {
    /// The fixed part of `ssl.`.
    pub struct SslCounters {
        counters {
            /// Handshakes that succeeded, resumed ones included.
            handshake,
            /// Handshakes and records that failed, but for a certificate's sake.
            connection_error,
            /// Handshakes that resumed a session.
            session_reused,
            /// Handshakes in which the peer showed no certificate.
            no_certificate,
            /// Refused: a certificate was required, and none was shown.
            fail_verify_no_cert,
            /// Refused: not trusted, expired, revoked.
            fail_verify_error,
            /// Refused: not one of the names asked for.
            fail_verify_san,
            /// Refused: none of the pinned hashes.
            fail_verify_cert_hash,
            /// OCSP staples that were sent or asked for in vain.
            ocsp_staple_failed, ocsp_staple_omitted, ocsp_staple_responses, ocsp_staple_requests,
            /// Not in Envoy: `close_notify` alerts sent.
            close_notify_sent,
            /// Not in Envoy: `close_notify` alerts received.
            close_notify_received,
            /// Not in Envoy: connections that the peer ended without a `close_notify`.
            unexpected_eof,
            /// Not in Envoy: those of them that we had begun to close for idleness.
            unexpected_eof_during_idle_close
        }
    }
}

stat_block! {
    /// `<side>_ssl_socket_factory.`: secrets come with the configuration, so that all of them stay 0.
    pub struct FactoryCounters {
        counters {
            /// Connections refused because a secret had not come yet.
            downstream_context_secrets_not_ready, upstream_context_secrets_not_ready,
            /// Secrets that came.
            ssl_context_update_by_sds
        }
    }
}

stat_block! {
    /// The same of QUIC: `quic_<side>_transport_socket_factory.`.
    pub struct QuicFactoryCounters {
        counters {
            /// Connections refused because a secret had not come yet.
            downstream_context_secrets_not_ready, upstream_context_secrets_not_ready,
            /// Secrets that came.
            context_config_update_by_sds
        }
    }
}

/// What the connections of one listener or cluster count. `Send`: made once at configuration time, cloned
/// freely.
#[derive(Clone, Debug)]
pub struct TlsStats {
    counters: SslCounters,
    names: DynScope,
    /// What nobody holds is not printed.
    _factory: Option<FactoryCounters>,
    _quic_factory: Option<QuicFactoryCounters>,
}

impl TlsStats {
    /// The statistics `<owner>ssl.` of a listener.
    pub fn server(store: &Store, owner: &Scope) -> Self {
        let factory = FactoryCounters::new(store, owner.child("server_ssl_socket_factory"));
        Self { _factory: Some(factory), ..Self::new(store, owner) }
    }

    /// Those of a listener of QUIC.
    pub fn quic_server(store: &Store, owner: &Scope) -> Self {
        let factory = QuicFactoryCounters::new(store, owner.child("quic_server_transport_socket_factory"));
        Self { _quic_factory: Some(factory), ..Self::new(store, owner) }
    }

    /// Those of a cluster.
    pub fn client(store: &Store, owner: &Scope) -> Self {
        let factory = FactoryCounters::new(store, owner.child("client_ssl_socket_factory"));
        Self { _factory: Some(factory), ..Self::new(store, owner) }
    }

    /// Those of a cluster that speaks QUIC, TCP beside it or not.
    pub fn quic_client(store: &Store, owner: &Scope) -> Self {
        let factory = QuicFactoryCounters::new(store, owner.child("quic_client_transport_socket_factory"));
        Self { _quic_factory: Some(factory), ..Self::client(store, owner) }
    }

    fn new(store: &Store, owner: &Scope) -> Self {
        let scope = owner.child("ssl");
        Self {
            counters: SslCounters::new(store, scope.clone()),
            names: DynScope::new(store, scope),
            _factory: None,
            _quic_factory: None,
        }
    }

    /// Statistics that no store prints, for tests.
    pub fn detached() -> Self {
        Self {
            counters: SslCounters::detached(),
            names: DynScope::detached(),
            _factory: None,
            _quic_factory: None,
        }
    }

    /// The fixed counters.
    pub fn counters(&self) -> &SslCounters {
        &self.counters
    }

    /// Counts `family.name` (`ciphers.TLS_AES_128_GCM_SHA256`). Takes a lock: three times a handshake.
    pub(crate) fn count(&self, family: &str, name: &str) {
        self.names.counter(&format!("{family}.{name}")).inc();
    }

    /// A gauge of a dynamic name.
    pub(crate) fn gauge(&self, name: &str) -> OwnedGauge {
        self.names.gauge(name)
    }

    /// The value of `family.name`, for tests.
    pub fn value(&self, family: &str, name: &str) -> u64 {
        self.names.counter(&format!("{family}.{name}")).value()
    }
}
