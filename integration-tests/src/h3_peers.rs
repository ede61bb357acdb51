//! What tests of HTTP/3 need: pieces of configuration, and answers that independent peers look at.

use serde_json::{Value, json};

use crate::tls_origin::certificate;
use crate::{Config, Origin};

impl Config {
    /// Listens with QUIC, with the tests' certificate for `server.test`; `options` are its `quic_options`.
    pub fn quic_listener(self, options: Value) -> Self {
        let pair = json!({
            "certificate_chain": {"filename": certificate("server.pem")},
            "private_key": {"filename": certificate("server.key")},
        });
        let mut config = self.hcm(json!({"codec_type": "HTTP3"})).listener(json!({
            "address": {"socket_address": {"protocol": "UDP"}},
            "udp_listener_config": {"quic_options": options},
        }));
        config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.quic",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
                "downstream_tls_context": {"common_tls_context": {
                    "alpn_protocols": ["h3"], "tls_certificates": [pair],
                }},
            },
        });
        config
    }

    /// Speaks HTTP/3 to the first cluster, whose certificate must be the tests' one for `server.test`.
    pub fn http3_upstream(self, options: Value) -> Self {
        let explicit = json!({"http_protocol_options": null, "http3_protocol_options": options});
        self.cluster_http(json!({"explicit_http_config": explicit})).cluster(json!({"transport_socket": {
            "name": "envoy.transport_sockets.quic",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
                "upstream_tls_context": {
                    "sni": "server.test",
                    "common_tls_context": {
                        "validation_context": {"trusted_ca": {"filename": certificate("ca.pem")}},
                    },
                },
            },
        }}))
    }
}

/// An HTTP/1.1 origin: `/large` has 3 MB, `/trailers` has a trailer, `/page` is HTML; anything else says the method,
/// the length of the body and its trailers.
pub fn counting_origin() -> Origin {
    Origin::answering(|request| {
        let line = request.line().to_owned();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if path == "/trailers" {
            return "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-end: 1\r\n\r\n"
                .to_owned();
        }
        let (kind, text) = match path {
            "/large" => ("text/plain", "l".repeat(3 << 20)),
            "/page" => ("text/html", "<html><body><p id=said>served by HTTP/3</p></body></html>".to_owned()),
            _ if request.trailers.is_empty() => ("text/plain", format!("{method} {}", request.body.len())),
            _ => ("text/plain", format!("{method} {} {}", request.body.len(), request.trailers.trim())),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", text.len());
        if method == "HEAD" { head } else { head + &text }
    })
}
