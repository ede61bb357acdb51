//! HTTP/2 settings of both sides: what they mean and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::UpstreamProtocol;
use tidegate_config::hcm::{CodecType, TunnelEnd};
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::protocol::{Http1Options, Http2Keepalive, Http2Options};
use tidegate_config::route::Action;
use tidegate_config::{Bootstrap, Format, HcmConfig, from_str};

/// One cluster, one listener; `CLUSTER` and `MANAGER` stand for further fields, on lines 3 and 6.
const BASE: &str = r#"{"static_resources": {
"clusters": [{"name": "backend",
CLUSTER "connect_timeout": "1s"}],
"listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
"filter_chains": [{"filters": [{"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
MANAGER "stat_prefix": "in",
"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
"route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"]}]}}}]}]}]}}
"#;

fn read(cluster: &str, manager: &str) -> Result<Bootstrap, Vec<String>> {
    let text = BASE.replace("CLUSTER", cluster).replace("MANAGER", manager);
    from_str(&text, "f.json", Format::Json)
        .map_err(|errors| errors.iter().map(|error| short(&error.to_string())).collect())
}

/// An error without its place; `C`, `E` and `M` stand for the paths of the cluster, its protocol options and the
/// manager.
fn short(error: &str) -> String {
    let error = error.splitn(4, ':').last().unwrap().trim_start();
    let extension =
        "C.typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    error
        .replace("static_resources.clusters[0]", "C")
        .replace(extension, "E")
        .replace("static_resources.listeners[0].filter_chains[0].filters[0].typed_config", "M")
}

fn upstream(options: &str) -> String {
    format!(
        "\"typed_extension_protocol_options\": {{\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\": {{\
         \"@type\": \"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\", {options}}}}},"
    )
}

fn protocol(cluster: &str) -> UpstreamProtocol {
    read(cluster, "").unwrap().clusters[0].protocol.clone()
}

fn manager(fields: &str) -> HcmConfig {
    let bootstrap = read("", fields).unwrap();
    match &bootstrap.listeners[0].filter_chains[0].filters[0] {
        NetworkFilterConfig::Http(manager) => HcmConfig::clone(manager),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(cluster: &str, manager: &str, expected: &[&str]) {
    assert_eq!(read(cluster, manager).err().unwrap_or_default(), expected);
}

#[test]
fn defaults_are_envoys() {
    let manager = manager("");
    assert_eq!((manager.codec_type, manager.http2), (CodecType::Auto, Http2Options::default()));
}

#[test]
fn every_field_of_a_manager() {
    let manager = manager(
        r#""codec_type": "HTTP2", "max_request_headers_kb": 256, "http2_protocol_options": {"hpack_table_size": 0, "max_concurrent_streams": 7,
        "initial_stream_window_size": 65535, "initial_connection_window_size": 65536, "allow_connect": true,
        "max_outbound_frames": 8, "max_outbound_control_frames": 9,
        "max_consecutive_inbound_frames_with_empty_payload": 0, "max_inbound_priority_frames_per_stream": 0,
        "max_inbound_window_update_frames_per_data_frame_sent": 3,
        "override_stream_error_on_invalid_http_message": false, "use_oghttp2_codec": true,
        "disallow_obs_text": true, "enable_huffman_encoding": false, "max_metadata_size": "18446744073709551615",
        "stream_reset_burst": 0, "stream_reset_rate": 4294967296, "max_header_field_size_kb": 256,
        "custom_settings_parameters": [{"identifier": 65535, "value": 4294967295}, {"identifier": 2, "value": 0},
        {"identifier": 65535, "value": 4294967295}, {"identifier": 5, "value": 7}],
        "connection_keepalive": {"interval": "30s", "timeout": "0.001s", "interval_jitter": {"value": 0},
        "connection_idle_interval": "10s"}},"#,
    );
    let expected = Http2Options {
        hpack_table_size: 0,
        max_concurrent_streams: 7,
        initial_stream_window_size: 65_535,
        initial_connection_window_size: 65_536,
        allow_connect: true,
        max_outbound_frames: 8,
        max_outbound_control_frames: 9,
        max_consecutive_inbound_frames_with_empty_payload: 0,
        max_inbound_priority_frames_per_stream: 0,
        max_inbound_window_update_frames_per_data_frame_sent: 3,
        stream_reset_burst: 0,
        stream_reset_rate: 1 << 32,
        max_header_field_size_kb: Some(256),
        disallow_obs_text: true,
        custom_settings: vec![(65_535, u32::MAX), (2, 0), (5, 7)],
        stream_error_on_invalid_http_messaging: false,
        override_stream_error_on_invalid_http_message: Some(false),
        connection_keepalive: Some(Http2Keepalive {
            interval: Some(Duration::from_secs(30)),
            timeout: Duration::from_millis(1),
            interval_jitter: 0.0,
            connection_idle_interval: Some(Duration::from_secs(10)),
        }),
    };
    assert_eq!((manager.codec_type, manager.http2), (CodecType::Http2, expected));
}

#[test]
fn protocols_of_clusters() {
    assert!(protocol("").http2().is_none());
    let explicit = |options| upstream(&format!("\"explicit_http_config\": {options}"));
    let streams = r#"{"http2_protocol_options": {"max_concurrent_streams": 5}}"#;
    let http2 = protocol(&explicit(streams));
    assert!(matches!(&http2, UpstreamProtocol::Http2(http2) if http2.max_concurrent_streams == 5));
    assert_eq!(protocol(r#""http2_protocol_options": {"max_concurrent_streams": 5},"#), http2);
    let both = protocol(&upstream(
        r#""use_downstream_protocol_config": {"http_protocol_options": {"enable_trailers": true}}"#,
    ));
    assert!(both.http1().is_some_and(|http1| http1.enable_trailers));
    assert_eq!(both.http2(), Some(&Http2Options::default()));
    let old = r#""protocol_selection": "USE_DOWNSTREAM_PROTOCOL",
        "http_protocol_options": {"enable_trailers": true}, "http2_protocol_options": {},"#;
    assert_eq!(protocol(old), both);
}

const TLS_SOCKET: &str = r#""transport_socket": {"name": "tls", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}},"#;

#[test]
fn what_alpn_chooses_has_options_of_both() {
    let auto = r#""auto_config": {"http2_protocol_options": {"max_concurrent_streams": 7}}"#;
    let auto = protocol(&(TLS_SOCKET.to_owned() + &upstream(auto)));
    assert!(matches!(auto, UpstreamProtocol::Auto(_)));
    assert_eq!(auto.http2().map(|http2| http2.max_concurrent_streams), Some(7));
    assert_eq!(auto.http1(), Some(&Http1Options::default()));
}

#[test]
fn what_is_refused_of_clusters() {
    let both = "http2_protocol_options: `http2_protocol_options` cannot be set together with \
        `http_protocol_options` (expected at most one of http_protocol_options, http2_protocol_options";
    for (cluster, error) in [
        (
            upstream("\"auto_config\": {}"),
            "C: `auto_config` chooses by ALPN, and the `transport_socket` is not one that negotiates it"
                .into(),
        ),
        (
            TLS_SOCKET.to_owned() + &upstream("\"auto_config\": {\"http3_protocol_options\": {}}"),
            "C: HTTP3 requires a QuicUpstreamTransport transport socket: backend".into(),
        ),
        (
            upstream(
                "\"explicit_http_config\": {\"http_protocol_options\": {}, \"http2_protocol_options\": {}}",
            ),
            format!("E.explicit_http_config.{both}, http3_protocol_options)"),
        ),
        (
            upstream("\"explicit_http_config\": {}"),
            "E.explicit_http_config: nothing is chosen (expected one of http_protocol_options, \
                http2_protocol_options, http3_protocol_options)"
                .into(),
        ),
        ("\"http_protocol_options\": {}, \"http2_protocol_options\": {},".into(), format!("C.{both})")),
        (
            format!(
                "\"http2_protocol_options\": {{}}, {}",
                upstream("\"use_downstream_protocol_config\": {}")
            ),
            "C: `typed_extension_protocol_options` and the cluster's own HTTP options exclude each other"
                .to_owned(),
        ),
    ] {
        refused(&cluster, "", &[&error]);
    }
}

#[test]
fn ranges_and_required_fields() {
    let options = |fields: &str| format!("\"http2_protocol_options\": {{{fields}}},");
    for (fields, error) in [
        (
            "\"max_concurrent_streams\": 0",
            "max_concurrent_streams: 0 is out of range (expected 1 to 2147483647)",
        ),
        (
            "\"initial_stream_window_size\": 65534",
            "initial_stream_window_size: 65534 is out of range (expected 65535 to 2147483647)",
        ),
        (
            "\"initial_connection_window_size\": 2147483648",
            "initial_connection_window_size: 2147483648 is out of range (expected 65535 to 2147483647)",
        ),
        ("\"max_outbound_frames\": 0", "max_outbound_frames: 0 is out of range (expected 1 to 4294967295)"),
        (
            "\"max_outbound_control_frames\": 0",
            "max_outbound_control_frames: 0 is out of range (expected 1 to 4294967295)",
        ),
        (
            "\"max_inbound_window_update_frames_per_data_frame_sent\": 0",
            "max_inbound_window_update_frames_per_data_frame_sent: 0 is out of range (expected 1 to 4294967295)",
        ),
        ("\"connection_keepalive\": {}", "connection_keepalive.timeout: missing field `timeout`"),
        (
            "\"connection_keepalive\": {\"timeout\": \"0s\"}",
            "connection_keepalive.timeout: the duration is too short (expected at least 0.001s)",
        ),
        (
            "\"connection_keepalive\": {\"timeout\": \"1s\", \"interval\": \"0s\"}",
            "connection_keepalive.interval: the duration is too short (expected at least 0.001s)",
        ),
        (
            "\"connection_keepalive\": {\"timeout\": \"1s\", \"interval_jitter\": {\"value\": 101}}",
            "connection_keepalive.interval_jitter.value: 101 is out of range (expected 0 to 100)",
        ),
        (
            "\"allow_metadata\": true",
            "allow_metadata: this value is not supported by this build (expected false)",
        ),
        (
            "\"max_header_field_size_kb\": 63",
            "max_header_field_size_kb: 63 is out of range (expected 64 to 256)",
        ),
        (
            "\"custom_settings_parameters\": [{\"identifier\": 65536, \"value\": 1}]",
            "custom_settings_parameters[0].identifier: 65536 is out of range (expected 0 to 65535)",
        ),
        (
            "\"custom_settings_parameters\": [{\"identifier\": 9}]",
            "custom_settings_parameters[0].value: missing field `value`",
        ),
        (
            "\"custom_settings_parameters\": [{\"value\": 9}]",
            "custom_settings_parameters[0].identifier: missing field `identifier`",
        ),
        (
            "\"custom_settings_parameters\": [{\"identifier\": 2, \"value\": 1}]",
            "custom_settings_parameters: server push is not supported",
        ),
        (
            "\"custom_settings_parameters\": [{\"identifier\": 8, \"value\": 0}]",
            "custom_settings_parameters: SETTINGS_ENABLE_CONNECT_PROTOCOL (0x8) is set by `allow_connect` alone",
        ),
        (
            "\"custom_settings_parameters\": [{\"identifier\": 9, \"value\": 0}, {\"identifier\": 9, \"value\": 1}]",
            "custom_settings_parameters: identifier 0x9 has two values, 0 and 1",
        ),
        (
            "\"max_concurrent_streams\": 5, \"custom_settings_parameters\": [{\"identifier\": 3, \"value\": 5}]",
            "custom_settings_parameters: identifier 0x3 is also set by `max_concurrent_streams`",
        ),
    ] {
        refused("", &options(fields), &[&format!("M.http2_protocol_options.{error}")]);
    }
}

#[test]
fn what_the_manager_says_of_its_http2() {
    let error = "M: `max_header_field_size_kb` is more than `max_request_headers_kb`, which is 60";
    refused("", "\"http2_protocol_options\": {\"max_header_field_size_kb\": 64},", &[error]);
    let deprecated = |more: &str| {
        let field = "\"http2_protocol_options\": {\"stream_error_on_invalid_http_messaging\": true},";
        manager(&format!("{field}{more}")).http2.override_stream_error_on_invalid_http_message
    };
    assert_eq!(deprecated(""), Some(true));
    assert_eq!(deprecated("\"stream_error_on_invalid_http_message\": false,"), None);
}

#[test]
fn tunnels_end_upstream_or_here() {
    let routes = |upgrade: &str| {
        let route = format!(
            "\"route_config\": {{\"virtual_hosts\": [{{\"name\": \"v\", \"domains\": [\"*\"], \"routes\": [{{\
             \"match\": {{\"connect_matcher\": {{}}}}, \"route\": {{\"cluster\": \"backend\", \
             \"upgrade_configs\": [{upgrade}]}}}}]}}]}}"
        );
        let text = BASE.replace("CLUSTER", "").replace("MANAGER", "");
        let text = text.replace(
            "\"route_config\": {\"virtual_hosts\": [{\"name\": \"v\", \"domains\": [\"*\"]}]}",
            &route,
        );
        from_str(&text, "f.json", Format::Json)
    };
    let tunnel = |upgrade: &str| {
        let bootstrap = routes(upgrade).unwrap();
        let NetworkFilterConfig::Http(manager) = &bootstrap.listeners[0].filter_chains[0].filters[0] else {
            panic!("no manager")
        };
        match &manager.route_config.virtual_hosts[0].routes[0].action {
            Action::Route(action) => action.upgrades[0].tunnel,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tunnel(r#"{"upgrade_type": "CONNECT"}"#), TunnelEnd::Upstream);
    assert_eq!(tunnel(r#"{"upgrade_type": "connect", "connect_config": {}}"#), TunnelEnd::Here);
    let wrong = |upgrade: &str| routes(upgrade).unwrap_err()[0].to_string();
    let misplaced = wrong(r#"{"upgrade_type": "websocket", "connect_config": {}}"#);
    assert!(misplaced.contains("only an upgrade of the type `CONNECT`"), "{misplaced}");
    for field in [r#""allow_post": true"#, r#""proxy_protocol_config": {}"#] {
        let text = wrong(&format!(r#"{{"upgrade_type": "CONNECT", "connect_config": {{{field}}}}}"#));
        assert!(text.contains("not supported by this build"), "{text}");
    }
}
