//! What configurations of QUIC and HTTP/3 may not ask of a process that was started like this: how many workers it
//! has, and whether it keeps to Envoy's ways.

use tidegate_config::cluster::UpstreamProtocol;
use tidegate_config::{ClusterConfig, ListenerConfig};
use tidegate_types::json::{JsonPath, Problem, Span};

use crate::cli::ServeOptions;

/// What is wrong with a cluster that stands at `path`. In quotes Envoy's words.
pub(super) fn cluster(config: &ClusterConfig, path: &JsonPath, options: &ServeOptions) -> Option<Problem> {
    let http = path.field("typed_extension_protocol_options");
    let problem = |message: String| Problem::new(http.clone(), Span::default(), message);
    if let UpstreamProtocol::Auto(protocols) = &config.protocol
        && protocols.http3.is_some()
        && protocols.alternate_protocols.is_none()
        && options.compat().is_strict()
    {
        let message = "alternate protocols cache must be configured when HTTP/3 is enabled with auto_config";
        return Some(problem(message.to_owned()));
    }
    let workers = options.workers();
    let cache = config.protocol.alternate_protocols()?;
    // The workers' caches would overwrite each other's file.
    (cache.store.is_some() && workers > 1).then(|| {
        cache.place.problem(format!("options has key value store but Envoy has concurrency = {workers}"))
    })
}

/// What is wrong with a listener.
pub(super) fn listener(config: &ListenerConfig, options: &ServeOptions) -> Option<Problem> {
    // Each worker has a socket of its own.
    let shared = config.udp.is_some() && !config.enable_reuse_port && options.workers() > 1;
    shared.then(|| {
        let message = format!(
            "listener `{}`: Listening on UDP when concurrency is > 1 without the SO_REUSEPORT socket option results in \
             unstable packet proxying. Configure the reuse_port listener option or set concurrency = 1.",
            config.name
        );
        Problem::new(JsonPath::root(), Span::default(), message)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::Parser;
    use tidegate_config::{Format, from_str};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    fn options(line: &str) -> ServeOptions {
        Line::parse_from(std::iter::once("tidegate").chain(line.split_whitespace())).options
    }

    fn said(cache: &str, line: &str) -> Option<String> {
        let text = r#"{"static_resources": {"clusters": [{"name": "c",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "auto_config": {"http3_protocol_options": {} CACHE}}},
            "transport_socket": {"name": "q", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", "upstream_tls_context": {}}}}]}}"#;
        let bootstrap = from_str(&text.replace("CACHE", cache), "f", Format::Json).unwrap();
        let path = JsonPath::root().field("c");
        cluster(&bootstrap.clusters[0], &path, &options(line)).map(|problem| problem.message)
    }

    const CACHE: &str = r#", "alternate_protocols_cache_options": {"name": "a" STORE}"#;
    const STORE: &str = r#", "key_value_store_config": {"name": "kv", "typed_config": {"@type": "type.googleapis.com/envoy.config.common.key_value.v3.KeyValueStoreConfig",
        "config": {"name": "f", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig", "filename": "/f"}}}}"#;

    #[test]
    fn a_store_is_for_one_worker() {
        let stored = CACHE.replace("STORE", STORE);
        assert_eq!(said(&stored, "--concurrency 1"), None);
        let two = "options has key value store but Envoy has concurrency = 2";
        assert_eq!(said(&stored, "--concurrency 2").as_deref(), Some(two));
        assert_eq!(said(&CACHE.replace("STORE", ""), "--concurrency 2"), None);
    }

    #[test]
    fn only_envoy_needs_a_cache() {
        assert_eq!(said("", "--concurrency 1"), None);
        let strict = "alternate protocols cache must be configured when HTTP/3 is enabled with auto_config";
        assert_eq!(said("", "--envoy-strict").as_deref(), Some(strict));
        assert_eq!(said(&CACHE.replace("STORE", ""), "--envoy-strict"), None);
    }

    #[test]
    fn workers_do_not_share_a_udp_socket() {
        let text = r#"{"static_resources": {"listeners": [{"name": "l", "enable_reuse_port": false,
            "address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 1}},
            "udp_listener_config": {"quic_options": {}}, "filter_chains": [{
            "transport_socket": {"name": "q", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
                "downstream_tls_context": {"common_tls_context": {"tls_certificates": [{"certificate_chain": {"inline_string": "x"}, "private_key": {"inline_string": "y"}}]}}}},
            "filters": [{"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "HTTP3", "stat_prefix": "in", "route_config": {"virtual_hosts": []},
                "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}]}}"#;
        let config = from_str(text, "f", Format::Json).unwrap().listeners[0].clone();
        assert!(listener(&config, &options("--concurrency 1")).is_none());
        let problem = listener(&config, &options("--concurrency 2")).unwrap();
        assert!(problem.message.contains("Listening on UDP when concurrency is > 1"), "{}", problem.message);
    }
}
