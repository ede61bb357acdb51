//! `ORIGINAL_DST` clusters: what their fields mean, and mistakes in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{Discovery, OriginalDstConfig};
use tidegate_config::{Format, from_str};

fn read(fields: &str) -> Result<Discovery, String> {
    let text = format!(r#"{{"static_resources": {{"clusters": [{{"name": "c", {fields}}}]}}}}"#);
    match from_str(&text, "f.json", Format::Json) {
        Ok(bootstrap) => Ok(bootstrap.clusters[0].discovery.clone()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

fn original(fields: &str) -> Result<OriginalDstConfig, String> {
    match read(&format!(r#""type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED" {fields}"#))? {
        Discovery::OriginalDst(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_and_defaults() {
    let plain = OriginalDstConfig { cleanup_interval: Duration::from_secs(5), header: None, port: None };
    assert_eq!(original("").unwrap(), plain);
    let usual = Some("x-envoy-original-dst-host".to_owned());
    let config = original(r#", "original_dst_lb_config": {"use_http_header": true}"#).unwrap();
    assert_eq!(config, OriginalDstConfig { header: usual, ..plain });
    let fields = r#", "cleanup_interval": "0.5s", "original_dst_lb_config":
        {"use_http_header": true, "http_header_name": "X-To", "upstream_port_override": 65535}"#;
    let config = OriginalDstConfig {
        cleanup_interval: Duration::from_millis(500),
        header: Some("x-to".into()),
        port: Some(65535),
    };
    assert_eq!(original(fields).unwrap(), config);
    let custom = r#""cluster_type": {"name": "envoy.cluster.original_dst"}, "lb_policy": "CLUSTER_PROVIDED""#;
    assert!(matches!(read(custom), Ok(Discovery::OriginalDst(_))));
}

#[test]
fn mistakes_are_named() {
    let lb = |fields: &str| original(&format!(r#", "original_dst_lb_config": {{{fields}}}"#)).unwrap_err();
    assert!(lb(r#""http_header_name": "x-to""#).contains("`http_header_name` needs `use_http_header`"));
    assert!(lb(r#""upstream_port_override": 65536"#).contains("65536 is out of range"));
    assert!(lb(r#""metadata_key": {"key": "a"}"#).contains("metadata_key"));
    assert!(original(r#", "cleanup_interval": "0s""#).unwrap_err().contains("must not be 0"));
    assert!(
        original(r#", "load_assignment": {"cluster_name": "c"}"#)
            .unwrap_err()
            .contains("no `load_assignment`")
    );
    assert!(read(r#""type": "ORIGINAL_DST""#).unwrap_err().contains("must be CLUSTER_PROVIDED"));
    let elsewhere = read(r#""type": "STATIC", "lb_policy": "CLUSTER_PROVIDED""#).unwrap_err();
    assert!(elsewhere.contains("only for clusters of type `ORIGINAL_DST`"), "{elsewhere}");
}
