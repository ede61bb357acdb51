//! `envoy.transport_sockets.quic`: TLS inside QUIC, of both sides.

use std::sync::Arc;

use crate::reader::{Message, Reader};
use crate::tls::{DownstreamTls, TlsVersion, UpstreamTls};

/// `envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuicDownstream {
    /// `downstream_tls_context`.
    pub tls: Arc<DownstreamTls>,
    /// `enable_early_data`, true when unset: requests may come with the first datagrams of a resumed session
    /// (0-RTT).
    pub early_data: bool,
    /// `enable_resumption`, true when unset: clients get tickets.
    pub resumption: bool,
}

impl Message for QuicDownstream {
    const NAME: &'static str = "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport";

    fn read(r: &Reader<'_>) -> Self {
        let tls = r.required_message::<DownstreamTls>("downstream_tls_context");
        if r.has("downstream_tls_context") {
            check_downstream(r, &tls);
        }
        let early_data = r.bool("enable_early_data").or(true);
        let resumption = r.bool("enable_resumption").or(true);
        if early_data && !resumption {
            // Envoy's words.
            r.problem(
                "QUIC early data is enabled but resumption is disabled. Early data requires resumption.",
            );
        }
        Self { tls: Arc::new(tls), early_data, resumption }
    }
}

fn check_downstream(r: &Reader<'_>, tls: &DownstreamTls) {
    if tls.require_client_certificate && tls.common.validation.is_none() {
        // Envoy's words.
        r.cx.report(tls.place.problem(
            "QUIC downstream TLS context sets require_client_certificate but configures no validation context.",
        ));
    }
    if tls.common.params.maximum < TlsVersion::V1_3 {
        r.cx.report(tls.place.problem(BELOW_1_3));
    }
}

/// `envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport`.
pub(super) struct QuicUpstream(pub(super) UpstreamTls);

impl Message for QuicUpstream {
    const NAME: &'static str = "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.required_message("upstream_tls_context"))
    }
}

/// RFC 9001 §4.2.
pub(crate) const BELOW_1_3: &str = "QUIC needs TLS 1.3: `tls_params.tls_maximum_protocol_version` forbids it";
