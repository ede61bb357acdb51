//! `health_checks`: what they mean, and every mistake in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{CheckProtocol, Checker, HealthCheckConfig};
use tidegate_config::transport::ProxyVersion;
use tidegate_config::{ClusterConfig, Format, from_str};

const PLAIN: &str =
    r#"{"timeout": "1s", "interval": "2s", "unhealthy_threshold": 2, "healthy_threshold": 3, CHECKER}"#;
const HTTP: &str = r#""http_health_check": {"path": "/h"}"#;

/// A cluster with this check, these other fields, and this `health_check_config`.
fn read(check: &str, cluster: &str, endpoint: &str) -> Result<ClusterConfig, Vec<String>> {
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "backend", "health_checks": [{check}] {cluster},
        "load_assignment": {{"cluster_name": "backend", "endpoints": [{{"lb_endpoints": [{{"endpoint": {{
        "address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 80}}}} {endpoint}}}}}]}}]}}}}]}}}}"#
    );
    let at = "static_resources.clusters[0].";
    match from_str(&text, "f.json", Format::Json) {
        Ok(bootstrap) => Ok(ClusterConfig::clone(&bootstrap.clusters[0])),
        Err(errors) => Err(errors.iter().map(|error| error.to_string().replace(at, "")).collect()),
    }
}

fn check_with(checker: &str) -> Result<HealthCheckConfig, Vec<String>> {
    read(&PLAIN.replace("CHECKER", checker), "", "").map(|cluster| cluster.health_checks[0].clone())
}

#[track_caller]
fn refused(checker: &str, expected: &str) {
    let errors = check_with(checker).expect_err("a problem").join("\n");
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn defaults_are_envoys() {
    let check = check_with(HTTP).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(check.timeout, seconds(1));
    let intervals = &check.intervals;
    assert_eq!([intervals.healthy, intervals.unhealthy, intervals.unhealthy_edge], [seconds(2); 3]);
    assert_eq!(intervals.healthy_edge, seconds(2));
    assert_eq!([intervals.no_traffic, intervals.no_traffic_healthy], [seconds(60); 2]);
    assert_eq!((check.unhealthy_threshold, check.healthy_threshold), (2, 3));
    assert!(check.reuse_connection && check.alpn_protocols.is_empty() && check.events.paths.is_empty());
    let Checker::Http(http) = &check.checker else { panic!("{check:?}") };
    assert_eq!((http.method.as_str(), http.path.as_str(), http.host.as_str()), ("GET", "/h", ""));
    assert_eq!((http.protocol, http.response_buffer_size), (CheckProtocol::Http1, Some(1024)));
    let expected = |status| http.expected_statuses.contain(status);
    assert!(expected(200) && !expected(199) && !expected(201));
    assert!(!http.retriable_statuses.contain(500));
}

#[test]
fn intervals_follow_each_other() {
    let check = check_with(&format!(
        r#""unhealthy_interval": "3s", "no_traffic_interval": "4s", "healthy_edge_interval": "5s", {HTTP}"#
    ));
    let intervals = check.unwrap().intervals;
    assert_eq!((intervals.unhealthy.as_secs(), intervals.unhealthy_edge.as_secs()), (3, 3));
    assert_eq!((intervals.no_traffic.as_secs(), intervals.no_traffic_healthy.as_secs()), (4, 4));
    assert_eq!(intervals.healthy_edge.as_secs(), 5);
}

#[test]
fn payloads_and_sinks() {
    let check = check_with(
        r#""event_log_path": "/a", "event_logger": [{"name": "e", "typed_config": {"@type":
        "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
        "event_log_path": "/b"}}], "always_log_health_check_failures": true, "tcp_health_check": {
        "send": {"text": "68Ff"}, "receive": [{"text": "00"}, {"binary": "aGk="}],
        "proxy_protocol_config": {"version": "V2"}}"#,
    );
    let check = check.unwrap();
    assert_eq!(check.events.paths.iter().map(String::as_str).collect::<Vec<_>>(), ["/a", "/b"]);
    assert!(check.events.failures && !check.events.successes);
    let Checker::Tcp(tcp) = &check.checker else { panic!("{check:?}") };
    assert_eq!((&tcp.send[..], &tcp.receive[..]), (&b"h\xff"[..], &[vec![0], b"hi".to_vec()][..]));
    assert_eq!(tcp.proxy_protocol, Some(ProxyVersion::V2));
}

#[test]
fn endpoints_are_checked_elsewhere() {
    let plain = PLAIN.replace("CHECKER", HTTP);
    let cluster =
        read(&plain, "", r#", "health_check_config": {"port_value": 81, "hostname": "h"}"#).unwrap();
    let endpoint = &cluster.endpoints[0].endpoints[0];
    assert_eq!(endpoint.health_check.address(&endpoint.address).to_string(), "127.0.0.1:81");
    assert_eq!((endpoint.health_check.hostname.as_str(), endpoint.health_check.disabled), ("h", false));
    let elsewhere = r#", "health_check_config": {"disable_active_health_check": true, "address":
        {"socket_address": {"address": "10.0.0.1", "port_value": 7}}}"#;
    let cluster = read(&plain, "", elsewhere).unwrap();
    let endpoint = &cluster.endpoints[0].endpoints[0];
    assert_eq!(endpoint.health_check.address(&endpoint.address).to_string(), "10.0.0.1:7");
    assert!(endpoint.health_check.disabled);
}

#[test]
fn clusters_say_what_follows() {
    let plain = PLAIN.replace("CHECKER", HTTP);
    let cluster = read(
        &plain,
        r#", "ignore_health_on_host_removal": true, "close_connections_on_host_health_failure": true,
        "common_lb_config": {"ignore_new_hosts_until_first_hc": true}"#,
        "",
    );
    let cluster = cluster.unwrap();
    assert!(cluster.ignore_health_on_host_removal && cluster.close_connections_on_host_health_failure);
    assert!(cluster.ignore_new_hosts_until_first_hc);
}

#[test]
fn mistakes_are_told() {
    refused(
        r#""reuse_connection": true"#,
        "nothing is chosen (expected one of http_health_check, tcp_health_check",
    );
    refused(r#""http_health_check": {}"#, "missing field `path`");
    refused(&format!(r#""no_traffic_interval": "0s", {HTTP}"#), "the duration must not be 0");
    refused(&format!(r#""alt_port": 80, {HTTP}"#), "health_check_config.port_value");
    refused(&format!(r#""transport_socket_match_criteria": [], {HTTP}"#), "transport_socket_match_criteria");
    refused(&format!(r#""event_service": {{}}, {HTTP}"#), "see `event_logger`");
    refused(r#""custom_health_check": {"name": "envoy.health_checkers.redis"}"#, "custom checks (redis");
    refused(r#""grpc_health_check": {}"#, "gRPC health checks need a cluster that speaks HTTP/2");
    for (field, expected) in [
        (r#""codec_client_type": "HTTP3""#, "`HTTP3` is known to Envoy"),
        (r#""method": "CONNECT""#, "`CONNECT` is known to Envoy"),
        (r#""send": {"text": "00"}"#, "a request with method GET has no body"),
        (r#""receive": [{"text": "0"}]"#, "`0` is not hexadecimal"),
        (r#""receive": [{}]"#, "nothing is chosen (expected one of text, binary"),
        (r#""response_buffer_size": 1, "receive": [{"text": "0000"}]"#, "2 bytes are more than"),
        (
            r#""expected_statuses": [{"start": 200, "end": 200}]"#,
            "`start` (200) must be at least 100 and below",
        ),
        (r#""retriable_statuses": [{"start": 99, "end": 601}]"#, "`end` at most 600"),
        (r#""host": "a\nb""#, "cannot stand in a header"),
        (r#""request_headers_to_remove": ["host"]"#, "`host` cannot be removed"),
        (r#""request_headers_to_add": [{"header": {"key": ":path"}}]"#, "`:path` cannot be added"),
    ] {
        refused(&format!(r#""http_health_check": {{"path": "/h", {field}}}"#), expected);
    }
    let two = [PLAIN.replace("CHECKER", HTTP), PLAIN.replace("CHECKER", HTTP)].join(",");
    let errors = read(&two, "", "").unwrap_err().join("\n");
    assert!(errors.contains("health check at index 0 is missing a name"), "{errors}");
    let named = |name: &str| {
        let name = format!(r#"{{"name": "{name}", "#);
        PLAIN.replace("CHECKER", HTTP).replacen('{', &name, 1)
    };
    let errors = read(&[named("a"), named("a")].join(","), "", "").unwrap_err().join("\n");
    assert!(errors.contains("duplicate health check name 'a' at index 1"), "{errors}");
    let cluster = read(&[named("a"), named("b")].join(","), "", "").unwrap();
    assert_eq!(cluster.health_checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let errors = read("{}", "", "").unwrap_err().join("\n");
    for field in ["timeout", "interval", "unhealthy_threshold", "healthy_threshold"] {
        assert!(errors.contains(&format!("missing field `{field}`")), "{errors}");
    }
    let pipe = r#", "health_check_config": {"port_value": 1, "address": {"pipe": {"path": "/p"}}}"#;
    let errors = read("", "", pipe).unwrap_err().join("\n");
    assert!(errors.contains("cannot be set for a pipe"), "{errors}");
}
