//! The TCP proxy's message: what is accepted, what it means, and what is refused as Envoy refuses it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::PreconnectPolicy;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::tcp_proxy::{BackOff, ConnectMode, TcpClusters};
use tidegate_config::{Format, TcpProxyConfig, from_str};

/// A configuration whose TCP proxy holds `fields`.
fn read(fields: &str) -> Result<TcpProxyConfig, Vec<String>> {
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "backend", "type": "STATIC"}}],
        "listeners": [{{"name": "in", "address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 0}}}},
        "filter_chains": [{{"filters": [{{"name": "envoy.filters.network.tcp_proxy", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {fields}
        }}}}]}}]}}]}}}}"#
    );
    let bootstrap = from_str(&text, "f.json", Format::Json)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    match &bootstrap.listeners[0].filter_chains[0].filters[0] {
        NetworkFilterConfig::Tcp(config) => Ok((**config).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_envoys() {
    let config = read(r#""stat_prefix": "t", "cluster": "backend""#).unwrap();
    assert_eq!(config.clusters, TcpClusters::One("backend".into()));
    assert_eq!(config.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((config.max_duration, config.max_connect_attempts, config.backoff), (None, 1, None));
    assert_eq!(config.connect_mode, ConnectMode::Immediate);
}

#[test]
fn fields_mean_what_they_say() {
    let config = read(
        r#""stat_prefix": "t", "idle_timeout": "0s", "max_downstream_connection_duration": "0.001s",
        "max_downstream_connection_duration_jitter_percentage": {"value": 50}, "max_connect_attempts": 3,
        "backoff_options": {"base_interval": "0.05s"},
        "access_log_options": {"access_log_flush_interval": "1s", "flush_access_log_on_start": true},
        "weighted_clusters": {"clusters": [{"name": "backend", "weight": 4294967295}, {"name": "nope", "weight": 4294967295}]},
        "metadata_match": {"filter_metadata": {"envoy.lb": {"v": "1"}}},
        "upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": 0"#,
    )
    .unwrap();
    assert_eq!((config.idle_timeout, config.max_duration), (None, Some(Duration::from_millis(1))));
    assert_eq!((config.max_duration_jitter_percent, config.max_connect_attempts), (50.0, 3));
    let backoff = BackOff { base: Duration::from_millis(50), max: Duration::from_millis(500) };
    assert_eq!(config.backoff, Some(backoff));
    let log = config.access_log_options;
    assert_eq!((log.flush_interval, log.on_start), (Some(Duration::from_secs(1)), true));
    assert!(matches!(&config.clusters, TcpClusters::Weighted(all) if all.len() == 2));
    assert!(config.metadata_match.len() == 1);
    assert_eq!((config.connect_mode, config.max_early_data), (ConnectMode::OnData, Some(0)));
    // Envoy takes both and answers each session with NC.
    assert!(read(r#""stat_prefix": "t", "cluster": """#).is_ok());
    assert!(read(r#""stat_prefix": "t", "cluster": "nope""#).is_ok());
    assert!(read(r#""stat_prefix": "t", "cluster": "b", "access_log_flush_interval": "1s""#).is_ok());
}

#[test]
fn what_envoy_refuses_is_refused() {
    let weighted =
        |clusters: &str| format!(r#""stat_prefix": "t", "weighted_clusters": {{"clusters": [{clusters}]}}"#);
    let with = |field: &str| format!(r#""stat_prefix": "t", "cluster": "backend", {field}"#);
    let cases = [
        (r#""cluster": "backend""#.to_owned(), "missing field `stat_prefix`"),
        (r#""stat_prefix": "", "cluster": "backend""#.to_owned(), "must not be empty"),
        (r#""stat_prefix": "t""#.to_owned(), "nothing is chosen"),
        (
            with(r#""weighted_clusters": {"clusters": [{"name": "b", "weight": 1}]}"#),
            "cannot be set together",
        ),
        (weighted(""), "must not be empty"),
        (weighted(r#"{"name": "b", "weight": 0}"#), "0 is out of range"),
        (weighted(r#"{"name": "b"}"#), "missing field `weight`"),
        (weighted(r#"{"weight": 1}"#), "missing field `name`"),
        (with(r#""max_connect_attempts": 0"#), "0 is out of range"),
        (with(r#""max_downstream_connection_duration": "0.0005s""#), "too short"),
        (with(r#""access_log_options": {"access_log_flush_interval": "0.0005s"}"#), "too short"),
        (
            with(r#""access_log_flush_interval": "1s", "access_log_options": {}"#),
            "`access_log_flush_interval` cannot be set together with `access_log_options`",
        ),
        (with(r#""hash_policy": [{"source_ip": {}}, {"source_ip": {}}]"#), "at most one hash policy"),
        (with(r#""hash_policy": [{}]"#), "nothing is chosen"),
        (with(r#""hash_policy": [{"filter_state": {}}]"#), "missing field `key`"),
        (with(r#""backoff_options": {}"#), "missing field `base_interval`"),
        (
            with(r#""backoff_options": {"base_interval": "1s", "max_interval": "0.5s"}"#),
            "must not be shorter than `base_interval`",
        ),
        (
            with(r#""upstream_connect_mode": "ON_DOWNSTREAM_DATA""#),
            "must be set when `upstream_connect_mode` is not IMMEDIATE",
        ),
        (with(r#""upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE""#), "not supported by this build"),
        (
            with(r#""tunneling_config": {"hostname": "h"}"#),
            "`tunneling_config` is known to Envoy, but not supported",
        ),
        (with(r#""on_demand": {}"#), "`on_demand` is known to Envoy, but not supported"),
        (with(r#""idle_time": "1s""#), "did you mean `idle_timeout`?"),
    ];
    for (fields, expected) in cases {
        let errors = read(&fields).expect_err(&fields);
        assert!(errors.iter().any(|error| error.contains(expected)), "{fields}: {errors:#?}");
    }
}

#[test]
fn the_pools_idle_timeout() {
    let cluster = |options: &str| {
        let text = format!(
            r#"{{"static_resources": {{"clusters": [{{"name": "backend", "type": "STATIC",
            "typed_extension_protocol_options": {{{options}}}}}]}}}}"#
        );
        let bootstrap =
            from_str(&text, "f.json", Format::Json).unwrap_or_else(|errors| panic!("{errors:#?}"));
        bootstrap.clusters[0].tcp_idle_timeout
    };
    let tcp = |field: &str| {
        format!(
            r#""envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions":
            {{"@type": "type.googleapis.com/envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"{field}}}"#
        )
    };
    assert_eq!(cluster(""), Some(Duration::from_secs(600)));
    assert_eq!(cluster(&tcp("")), Some(Duration::from_secs(600)));
    assert_eq!(cluster(&tcp(r#", "idle_timeout": "120s""#)), Some(Duration::from_secs(120)));
    assert_eq!(cluster(&tcp(r#", "idle_timeout": "0s""#)), None);
}

#[test]
fn connections_ahead_of_demand() {
    let cluster = |policy: &str| {
        let text = format!(
            r#"{{"static_resources": {{"clusters": [{{"name": "backend", "type": "STATIC"{policy}}}]}}}}"#
        );
        from_str(&text, "f.json", Format::Json).map(|bootstrap| bootstrap.clusters[0].preconnect)
    };
    let ratios = |per_upstream, predictive| PreconnectPolicy { per_upstream, predictive };
    assert_eq!(cluster("").unwrap(), ratios(1.0, 1.0));
    assert_eq!(cluster(r#", "preconnect_policy": {}"#).unwrap(), ratios(1.0, 1.0));
    let both =
        r#", "preconnect_policy": {"per_upstream_preconnect_ratio": 1.5, "predictive_preconnect_ratio": 3}"#;
    assert_eq!(cluster(both).unwrap(), ratios(1.5, 3.0));
    for (field, expected) in [
        (r#""per_upstream_preconnect_ratio": 0.9"#, "0.9 is out of range (expected 1 to 3)"),
        (r#""per_upstream_preconnect_ratio": 3.1"#, "3.1 is out of range (expected 1 to 3)"),
        (r#""predictive_preconnect_ratio": 0"#, "0 is out of range (expected 1 to 3)"),
        (r#""predictive_preconnect_ratio": "NaN""#, "expected a number"),
        (
            r#""preconnect_enabled_metadata": {}"#,
            "`preconnect_enabled_metadata` is known to Envoy, but not supported",
        ),
        (r#""per_upstream_ratio": 2"#, "unknown field `per_upstream_ratio`"),
    ] {
        let errors = cluster(&format!(r#", "preconnect_policy": {{{field}}}"#)).expect_err(field);
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{field}: {errors:#?}");
    }
}
