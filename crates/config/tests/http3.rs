//! QUIC and HTTP/3 of both sides: what is read, its defaults, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{AlternateProtocols, Http3Selection, KeyValueFile, UpstreamProtocol};
use tidegate_config::hcm::CodecType;
use tidegate_config::listener::{NetworkFilterConfig, UdpListenerConfig};
use tidegate_config::protocol::{Http3Options, QuicKeepalive, QuicOptions};
use tidegate_config::transport::{TransportSocket, UpstreamTransport};
use tidegate_config::{Bootstrap, Format, HcmConfig, ListenerConfig, from_str};

/// A listener of QUIC and a cluster that speaks HTTP/3. Each test replaces parts, by their text.
const BASE: &str = r#"{"static_resources": {
"clusters": [{"name": "c",
"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
"explicit_http_config": {"http3_protocol_options": {}}}},
"transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", "upstream_tls_context": {"sni": "a.test"}}}}],
"listeners": [{"address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 443}},
"udp_listener_config": {"quic_options": {}},
"filter_chains": [{"transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
"downstream_tls_context": {"common_tls_context": {"tls_certificates": [{"certificate_chain": {"inline_string": "x"}, "private_key": {"inline_string": "y"}}]}}}},
"filters": [{"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"codec_type": "HTTP3", "stat_prefix": "in",
"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
"route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"]}]}}}]}]}]}}
"#;

fn read(changes: &[(&str, &str)]) -> Result<Bootstrap, Vec<String>> {
    let mut text = BASE.to_owned();
    for (part, other) in changes {
        assert!(text.contains(part), "{part}");
        text = text.replacen(part, other, 1);
    }
    from_str(&text, "f.json", Format::Json)
        .map_err(|errors| errors.iter().map(|error| short(&error.to_string())).collect())
}

/// An error without its place; `C` and `L` stand for the paths of the cluster and the listener, `E` and `U` for those
/// of the cluster's protocol options and the listener's QUIC options.
fn short(error: &str) -> String {
    let error = error.splitn(4, ':').last().unwrap().trim_start();
    let extension =
        "C.typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    error
        .replace("static_resources.clusters[0]", "C")
        .replace(extension, "E")
        .replace("static_resources.listeners[0]", "L")
        .replace("L.udp_listener_config.quic_options", "U")
}

fn refused(changes: &[(&str, &str)], errors: &[&str]) {
    assert_eq!(read(changes).map(drop).unwrap_err(), errors, "{changes:?}");
}

fn listener(changes: &[(&str, &str)]) -> ListenerConfig {
    ListenerConfig::clone(&read(changes).unwrap().listeners[0])
}

const EXTENSIONS: &str = "\"typed_extension_protocol_options\": {";

const QUIC: &str = r#""quic_options": {}"#;
const EXPLICIT: &str = r#""explicit_http_config": {"http3_protocol_options": {}}"#;
const CODEC: &str = r#""codec_type": "HTTP3","#;
const UDP: &str = r#""protocol": "UDP", "#;

fn udp(options: &str) -> UdpListenerConfig {
    *listener(&[(QUIC, &format!("\"quic_options\": {{{options}}}"))]).udp.unwrap()
}

fn manager(listener: &ListenerConfig) -> &HcmConfig {
    match &listener.filter_chains[0].filters[0] {
        NetworkFilterConfig::Http(manager) => manager,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_envoys() {
    let listener = listener(&[]);
    assert_eq!(listener.name, "127.0.0.1:443/udp");
    let udp = listener.udp.as_deref().unwrap();
    let quic = QuicOptions {
        max_concurrent_streams: 100,
        initial_stream_window_size: 16 << 20,
        initial_connection_window_size: 24 << 20,
        num_timeouts_to_trigger_port_migration: None,
        keepalive: QuicKeepalive::default(),
        idle_network_timeout: None,
        max_packet_length: None,
    };
    assert_eq!(udp.quic, quic);
    assert_eq!((udp.idle_timeout.as_secs(), udp.crypto_handshake_timeout.as_secs()), (300, 20));
    assert_eq!((udp.packets_per_connection, udp.max_sessions_per_event_loop), (32, 16));
    assert_eq!((udp.max_rx_datagram_size, udp.gso), (1500, true));
    assert!(udp.enabled.default && !udp.disable_active_migration && !udp.reject_new_connections);
    assert_eq!(manager(&listener).codec_type, CodecType::Http3);
    assert_eq!(manager(&listener).http3, Http3Options::default());
    let TransportSocket::Quic(socket) = &listener.filter_chains[0].transport_socket else { panic!() };
    assert!(socket.early_data && socket.resumption);
}

#[test]
fn a_listener_says_how_it_speaks_quic() {
    let all = udp(r#"
        "quic_protocol_options": {"max_concurrent_streams": 7, "initial_stream_window_size": 1,
            "initial_connection_window_size": 2, "num_timeouts_to_trigger_port_migration": 0,
            "connection_keepalive": {"max_interval": "0s", "initial_interval": "0.001s"}, "max_packet_length": 1300},
        "idle_timeout": "0s", "crypto_handshake_timeout": "1s",
        "enabled": {"default_value": false, "runtime_key": "quic.on"},
        "packets_to_read_to_connection_count_ratio": 1, "max_sessions_per_event_loop": 2,
        "send_disable_active_migration": true, "reject_new_connections": true,
        "crypto_stream_config": {"name": "a", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.quic.crypto_stream.v3.CryptoServerStreamConfig"}},
        "proof_source_config": {"name": "b", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.quic.proof_source.v3.ProofSourceConfig"}},
        "connection_id_generator_config": {"name": "c", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.quic.connection_id_generator.v3.DeterministicConnectionIdGeneratorConfig"}}
    "#);
    assert_eq!(all.quic.max_concurrent_streams, 7);
    assert_eq!((all.quic.initial_stream_window_size, all.quic.initial_connection_window_size), (1, 2));
    let keepalive = QuicKeepalive {
        max_interval: Some(Duration::ZERO),
        initial_interval: Some(Duration::from_millis(1)),
    };
    assert_eq!((all.quic.keepalive, all.quic.max_packet_length), (keepalive, Some(1300)));
    // Less than the least is the least, as in Envoy.
    assert_eq!((all.idle_timeout.as_millis(), all.crypto_handshake_timeout.as_secs()), (1, 5));
    assert_eq!((all.enabled.default, all.enabled.runtime_key.as_str()), (false, "quic.on"));
    assert!(all.disable_active_migration && all.reject_new_connections);
    // The one within wins, as in Envoy.
    let both = udp(r#""idle_timeout": "7s", "quic_protocol_options": {"idle_network_timeout": "9s"}"#);
    assert_eq!(both.idle_timeout.as_secs(), 9);

    let writer = |kind: &str| {
        let config = format!(
            r#""udp_packet_packet_writer_config": {{"name": "w", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.udp_packet_writer.v3.{kind}"}}}},
            "downstream_socket_config": {{"max_rx_datagram_size": "9000", "prefer_gro": true}}, {QUIC}"#
        );
        *listener(&[(QUIC, &config)]).udp.unwrap()
    };
    assert!(writer("UdpGsoBatchWriterFactory").gso);
    let plain = writer("UdpDefaultWriterFactory");
    assert_eq!((plain.gso, plain.max_rx_datagram_size), (false, 9000));
}

#[test]
fn what_is_out_of_range_is_refused() {
    for (options, error) in [
        (
            r#""max_concurrent_streams": 0"#,
            "max_concurrent_streams: 0 is out of range (expected 1 to 4294967295)",
        ),
        (
            r#""initial_stream_window_size": 16777217"#,
            "initial_stream_window_size: 16777217 is out of range (expected 1 to 16777216)",
        ),
        (
            r#""initial_connection_window_size": 0"#,
            "initial_connection_window_size: 0 is out of range (expected 1 to 25165824)",
        ),
        (
            r#""num_timeouts_to_trigger_port_migration": 6"#,
            "num_timeouts_to_trigger_port_migration: 6 is out of range (expected 0 to 5)",
        ),
        (
            r#""idle_network_timeout": "0.5s""#,
            "idle_network_timeout: the duration is too short (expected at least 1s)",
        ),
        (
            r#""connection_keepalive": {"initial_interval": "0.0005s"}"#,
            "connection_keepalive.initial_interval: the duration is too short: 0s, or at least 0.001s",
        ),
        (
            r#""max_packet_length": 1199"#,
            "max_packet_length: 1199 is out of range: QUIC needs datagrams of 1200 bytes",
        ),
        (
            r#""connection_options": "AKDU""#,
            "connection_options: these are options of one library (QUICHE), which this build does not use",
        ),
        (
            r#""enable_scone": true"#,
            "enable_scone: this value is not supported by this build (expected false)",
        ),
        (
            r#""connection_migration": {}"#,
            "connection_migration: `connection_migration` is known to Envoy, but not supported by this build",
        ),
    ] {
        let changed = format!("\"quic_options\": {{\"quic_protocol_options\": {{{options}}}}}");
        refused(&[(QUIC, &changed)], &[&format!("U.quic_protocol_options.{error}")]);
    }
    for (options, error) in [
        (
            r#""packets_to_read_to_connection_count_ratio": 0"#,
            "U.packets_to_read_to_connection_count_ratio: 0 is out of range (expected 1 to 4294967295)",
        ),
        (r#""enabled": {}"#, "U.enabled.default_value: missing field `default_value`"),
        (
            r#""server_preferred_address_config": {}"#,
            "U.server_preferred_address_config: `server_preferred_address_config` is known to Envoy, but not supported \
             by this build",
        ),
        (
            r#""connection_id_generator_config": {"name": "c", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.quic.connection_id_generator.quic_lb.v3.Config"}}"#,
            "U.connection_id_generator_config: `envoy.extensions.quic.connection_id_generator.quic_lb.v3.Config` is not \
             supported by this build (expected \
             envoy.extensions.quic.connection_id_generator.v3.DeterministicConnectionIdGeneratorConfig)",
        ),
    ] {
        refused(&[(QUIC, &format!("\"quic_options\": {{{options}}}"))], &[error]);
    }
    let socket =
        |size: &str| format!("\"downstream_socket_config\": {{\"max_rx_datagram_size\": {size}}}, {QUIC}");
    refused(
        &[(QUIC, &socket("65536"))],
        &[
            "L.udp_listener_config.downstream_socket_config.max_rx_datagram_size: 65536 is out of range (expected 1 to 65535)",
        ],
    );
    refused(
        &[(QUIC, &socket("1199"))],
        &[
            "L.udp_listener_config.downstream_socket_config.max_rx_datagram_size: QUIC needs datagrams of 1200 bytes (RFC 9000 §14)",
        ],
    );
}

#[test]
fn a_listener_of_quic_is_whole() {
    const RAW: &str = "envoy.transport_sockets.quic\", \"typed_config\": {\"@type\": \
        \"type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport\",\n\
        \"downstream_tls_context\": {";
    const TLS: &str = "envoy.transport_sockets.tls\", \"typed_config\": {\"@type\": \
        \"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\",";
    let no_quic = "a UDP listener speaks QUIC here, and needs `udp_listener_config.quic_options`";
    for (changes, error) in [
        (&[("\"udp_listener_config\": {\"quic_options\": {}},", "")][..], format!("L: {no_quic}")),
        (&[(QUIC, "")], format!("L.udp_listener_config: {no_quic}")),
        (&[(CODEC, "")], "L.filter_chains[0]: Non-HTTP/3 codec configured on QUIC listener.".to_owned()),
        (
            &[(RAW, TLS), ("\"y\"}}]}}}},", "\"y\"}}]}}},")],
            "L.filter_chains[0]: wrong transport socket config specified for quic transport socket".to_owned(),
        ),
        (
            &[("\"udp_listener_config\"", "\"bind_to_port\": false, \"udp_listener_config\"")],
            "L: bind_to_port: false is not supported for UDP listeners".to_owned(),
        ),
        (
            &[(
                "\"udp_listener_config\"",
                "\"listener_filters\": [{\"name\": \"t\", \"typed_config\": {\"@type\": \
                 \"type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector\"}}], \
                 \"udp_listener_config\"",
            )],
            "L.listener_filters[0].typed_config: listener filter `t` is for TCP: a QUIC listener has none in this build"
                .to_owned(),
        ),
        (
            &[("\"downstream_tls_context\": {", "\"enable_resumption\": false, \"downstream_tls_context\": {")],
            "L.filter_chains[0].transport_socket.typed_config: QUIC early data is enabled but resumption is disabled. \
             Early data requires resumption."
                .to_owned(),
        ),
        (
            &[("\"downstream_tls_context\": {", "\"downstream_tls_context\": {\"require_client_certificate\": true, ")],
            "L.filter_chains[0].transport_socket.typed_config.downstream_tls_context: QUIC downstream TLS context sets \
             require_client_certificate but configures no validation context."
                .to_owned(),
        ),
        (
            &[(
                "{\"common_tls_context\": {",
                "{\"common_tls_context\": {\"tls_params\": {\"tls_maximum_protocol_version\": \"TLSv1_2\"}, ",
            )],
            "L.filter_chains[0].transport_socket.typed_config.downstream_tls_context: QUIC needs TLS 1.3: \
             `tls_params.tls_maximum_protocol_version` forbids it"
                .to_owned(),
        ),
        (
            &[("QuicDownstreamTransport", "QuicUpstreamTransport"), ("downstream_tls_context\": {\"common", "upstream_tls_context\": {\"common")],
            "L.filter_chains[0].transport_socket.typed_config: this transport socket is for clusters, not for filter \
             chains (expected one of type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
             type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport, \
             type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext, \
             type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer)"
                .to_owned(),
        ),
    ] {
        let errors = read(changes).map(drop).unwrap_err();
        assert!(errors.contains(&error), "{error}\nis not among\n{}", errors.join("\n"));
    }
    refused(
        &[(UDP, "")],
        &[
            "L.filter_chains[0]: the transport socket `envoy.transport_sockets.quic` needs a UDP address and \
             `udp_listener_config.quic_options`",
            "L.filter_chains[0]: HTTP/3 codec configured on non-QUIC listener.",
            "L.udp_listener_config: the listener's address is not UDP's: set `address.socket_address.protocol`",
        ],
    );
}

#[test]
fn tcp_and_udp_share_a_port() {
    let beside = r#""listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 443}}, "filter_chains": [{}]}, "#;
    let both = read(&[("\"listeners\": [", beside)]).unwrap();
    let names: Vec<_> = both.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:443", "127.0.0.1:443/udp"]);
}

#[test]
fn a_manager_has_options_of_http3() {
    let options = r#""codec_type": "HTTP3", "http3_protocol_options": {"allow_extended_connect": true,
        "override_stream_error_on_invalid_http_message": true, "disable_connection_flow_control_for_streams": true,
        "quic_protocol_options": {"connection_keepalive": {"max_interval": "5s"}}},"#;
    let listener = listener(&[(CODEC, options)]);
    let http3 = &manager(&listener).http3;
    assert!(http3.allow_extended_connect && http3.disable_connection_flow_control_for_streams);
    assert_eq!(http3.override_stream_error_on_invalid_http_message, Some(true));
    assert_eq!(http3.quic.keepalive.max_interval, Some(Duration::from_secs(5)));
}

fn auto(fields: &str) -> String {
    format!("\"auto_config\": {{\"http3_protocol_options\": {{}}{fields}}}")
}

#[test]
fn clusters_speak_http3_alone_or_among_others() {
    let protocol = |options: &str| read(&[(EXPLICIT, options)]).unwrap().clusters[0].protocol.clone();
    assert!(
        matches!(protocol(EXPLICIT), UpstreamProtocol::Http3(options) if *options == Http3Options::default())
    );
    let as_downstream = protocol(r#""use_downstream_protocol_config": {"http3_protocol_options": {}}"#);
    assert!(matches!(&as_downstream, UpstreamProtocol::AsDownstream(options) if options.http3.is_some()));
    let cacheless = protocol(&auto(""));
    assert!(cacheless.http3().is_some() && cacheless.alternate_protocols().is_none());
    let cached = protocol(&auto(r#", "alternate_protocols_cache_options": {"name": "a"}"#));
    let cache = cached.alternate_protocols().unwrap();
    assert_eq!((cache.name.as_str(), cache.max_entries, &cache.store), ("a", 1024, &None));
    let socket = &read(&[]).unwrap().clusters[0].transport_socket;
    assert!(matches!(socket, UpstreamTransport::Quic(tls) if tls.sni.as_deref() == Some("a.test")));
}

#[test]
fn when_tcp_is_tried_beside_http3() {
    let selection = |fields: &str| {
        format!(
            r#""tidegate.http3_selection": {{"@type": "type.googleapis.com/tidegate.upstreams.v1.Http3Selection"{fields}}}"#
        )
    };
    let with = |options: &str, own: &str| {
        let text = format!("{EXTENSIONS}{own}, ");
        read(&[(EXTENSIONS, &text), (EXPLICIT, options)])
    };
    assert_eq!(read(&[]).unwrap().clusters[0].http3_selection, Http3Selection::default());
    let delay = |own: &str| with(&auto(""), own).unwrap().clusters[0].http3_selection.tcp_delay;
    assert_eq!(delay(&selection("")), Duration::from_millis(300));
    assert_eq!(delay(&selection(r#", "tcp_delay": "0.05s""#)), Duration::from_millis(50));
    assert_eq!(delay(&selection(r#", "tcp_delay": "0s""#)), Duration::ZERO);
    let records = |own: &str| with(&auto(""), own).unwrap().clusters[0].http3_selection.https_records;
    assert!(records(&selection("")) && !records(&selection(r#", "https_records": false"#)));
    let refused = |options: &str, fields: &str| with(options, &selection(fields)).map(drop).unwrap_err();
    let at = "C.typed_extension_protocol_options[\"tidegate.http3_selection\"]";
    let needs = "`tidegate.http3_selection` needs `auto_config` with `http3_protocol_options`";
    assert_eq!(refused(EXPLICIT, ""), [format!("{at}: {needs}")]);
    let text = "Invalid duration: Expected positive duration (expected a duration such as \"0.25s\")";
    assert_eq!(refused(&auto(""), r#", "tcp_delay": "-1s""#), [format!("{at}.tcp_delay: {text}")]);
}

#[test]
fn a_cache_of_alternate_protocols() {
    let options = |fields: &str| auto(&format!(", \"alternate_protocols_cache_options\": {{{fields}}}"));
    let all = options(
        r#""name": "a", "max_entries": 3, "prepopulated_entries": [{"hostname": "b.test", "port": 8443}],
        "canonical_suffixes": [".test", "nodot"],
        "key_value_store_config": {"name": "kv", "typed_config": {"@type": "type.googleapis.com/envoy.config.common.key_value.v3.KeyValueStoreConfig",
            "config": {"name": "file", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig",
                "filename": "/f", "flush_interval": "2s", "max_entries": 0}}}}"#,
    );
    let read_all = read(&[(EXPLICIT, &all)]).unwrap();
    let expected = AlternateProtocols {
        name: "a".to_owned(),
        max_entries: 3,
        store: Some(KeyValueFile {
            filename: "/f".to_owned(),
            flush_interval: Some(Duration::from_secs(2)),
            max_entries: None,
        }),
        prepopulated: vec![("b.test".to_owned(), 8443)],
        canonical_suffixes: vec![".test".to_owned()],
        place: Default::default(),
    };
    assert_eq!(read_all.clusters[0].protocol.alternate_protocols(), Some(&expected));
    let at = "E.auto_config.alternate_protocols_cache_options";
    for (fields, error) in [
        ("", "missing field `name`"),
        (r#""name": "", "max_entries": 1"#, ".name: must not be empty"),
        (r#""name": "a", "max_entries": 0"#, ".max_entries: 0 is out of range (expected 1 to 4294967295)"),
        (
            r#""name": "a", "prepopulated_entries": [{"hostname": "b", "port": 65535}]"#,
            ".prepopulated_entries[0].port: 65535 is out of range (expected 1 to 65534)",
        ),
        (
            r#""name": "a", "prepopulated_entries": [{"hostname": "b c", "port": 1}]"#,
            ".prepopulated_entries[0].hostname: `b c` is no host name",
        ),
        (
            r#""name": "a", "key_value_store_config": {"name": "kv", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig"}}"#,
            ".key_value_store_config: `envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig` is not \
             supported by this build (expected envoy.config.common.key_value.v3.KeyValueStoreConfig)",
        ),
    ] {
        let errors = read(&[(EXPLICIT, &options(fields))]).map(drop).unwrap_err();
        let [only] = &errors[..] else { panic!("{errors:?}") };
        assert!(only.starts_with(at) && only.ends_with(error), "{only}");
    }
    let other = r#""clusters": [{"name": "d",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "auto_config": {"http3_protocol_options": {}, "alternate_protocols_cache_options": {"name": "a", "max_entries": 9}}}},
        "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", "upstream_tls_context": {}}}}, "#;
    let errors = read(&[(EXPLICIT, &all), ("\"clusters\": [", other)]).map(drop).unwrap_err();
    assert!(errors[0].ends_with("the cache `a` has other options in cluster `d`"), "{errors:?}");
}

#[test]
fn what_is_refused_of_clusters() {
    const QUIC_SOCKET: &str = "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport\", \
        \"upstream_tls_context\": {\"sni\": \"a.test\"}";
    const TLS_SOCKET: &str =
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\", \"sni\": \"a.test\"";
    let no_quic = "C: HTTP3 requires a QuicUpstreamTransport transport socket: c";
    refused(&[(QUIC_SOCKET, TLS_SOCKET)], &[no_quic]);
    refused(&[(QUIC_SOCKET, TLS_SOCKET), (EXPLICIT, &auto(""))], &[no_quic]);
    refused(
        &[(
            "\"sni\": \"a.test\"",
            "\"common_tls_context\": {\"tls_params\": {\"tls_maximum_protocol_version\": \"TLSv1_2\"}}",
        )],
        &["C.transport_socket.typed_config.upstream_tls_context: QUIC needs TLS 1.3: \
           `tls_params.tls_maximum_protocol_version` forbids it"],
    );
    let migrating =
        EXPLICIT.replace("{}", r#"{"quic_protocol_options": {"num_timeouts_to_trigger_port_migration": 1}}"#);
    refused(
        &[(EXPLICIT, &migrating)],
        &[
            "C: `num_timeouts_to_trigger_port_migration`: connections to upstreams do not change their port in this \
           build: only 0 is supported",
        ],
    );
    let host = |address: &str| {
        format!(
            r#""load_assignment": {{"cluster_name": "c", "endpoints": [{{"lb_endpoints": [{{"endpoint": {{"address": {{{address}}}}}}}]}}]}}, "typed_ext"#
        )
    };
    refused(
        &[("\"typed_ext", &host(r#""pipe": {"path": "/p"}"#))],
        &["C: HTTP/3 needs UDP, which the host `/p` does not have"],
    );
    let udp = host(r#""socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 1}"#);
    assert!(read(&[("\"typed_ext", &udp)]).is_ok());
    let errors = read(&[
        ("\"typed_ext", &udp),
        (EXPLICIT, r#""explicit_http_config": {"http2_protocol_options": {}}"#),
    ]);
    let [error] = &errors.map(drop).unwrap_err()[..] else { panic!() };
    assert!(
        error.ends_with("`UDP` is for listeners of HTTP/3 and for hosts that speak it (expected TCP)"),
        "{error}"
    );
}
