//! `transport_socket_matches`: what is read, what is refused, and what a reload takes for the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_config::{ClusterConfig, Format, from_str};

const RAW: &str = r#"{"name": "raw", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}"#;
const TLS: &str = r#"{"name": "tls", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}"#;
const QUIC: &str = r#"{"name": "quic", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
    "upstream_tls_context": {"sni": "a.test"}}}"#;

/// A cluster with these matches, this socket for the rest, and these options of HTTP.
fn read(matches: &str, rest: &str, http: &str) -> Result<ClusterConfig, String> {
    let options = format!(
        r#""envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {{
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", {http}}}"#
    );
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "c", "transport_socket_matches": {matches},
        "transport_socket": {rest}, "typed_extension_protocol_options": {{{options}}}}}]}}}}"#
    );
    match from_str(&text, "f.json", Format::Json) {
        Ok(bootstrap) => Ok(ClusterConfig::clone(&bootstrap.clusters[0])),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

const HTTP1: &str = r#""explicit_http_config": {"http_protocol_options": {}}"#;

fn one(labels: &str, socket: &str) -> String {
    format!(r#"[{{"name": "m", "match": {labels}, "transport_socket": {socket}}}]"#)
}

#[test]
fn labels_and_sockets_are_kept_in_order() {
    let cluster = read(&one(r#"{"a": 1, "b": {"c": [true]}}"#, TLS), RAW, HTTP1).unwrap();
    let [only] = cluster.transport_matches.as_slice() else { panic!("{cluster:?}") };
    let keys: Vec<_> = only.labels.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((only.name.as_str(), keys), ("m", vec!["a", "b"]));
    let tls: Vec<_> = cluster.transports().map(|socket| socket.tls().is_some()).collect();
    assert_eq!(tls, [false, true]);
    assert!(cluster.same_but_content(&cluster));
    for other in [one(r#"{"a": 2, "b": {"c": [true]}}"#, TLS), one("{}", TLS), "[]".to_owned()] {
        assert!(!cluster.same_but_content(&read(&other, RAW, HTTP1).unwrap()));
    }
}

#[test]
fn mistakes_are_told() {
    let refused = |matches: &str, rest: &str, http: &str, expected: &str| {
        let errors = read(matches, rest, http).expect_err(expected);
        assert!(errors.contains(expected), "{errors}");
    };
    refused(&format!(r#"[{{"transport_socket": {RAW}}}]"#), RAW, HTTP1, "missing field `name`");
    refused(r#"[{"name": "m"}]"#, RAW, HTTP1, "missing field `transport_socket`");
    refused(&one("[]", RAW), RAW, HTTP1, "match");
    refused(&one("{}", RAW), TLS, r#""auto_config": {}"#, "ALPN, which `m` does not negotiate");
    refused(&one("{}", TLS), RAW, r#""auto_config": {}"#, "`transport_socket` is not one that negotiates");
    let http3 = r#""explicit_http_config": {"http3_protocol_options": {}}"#;
    refused(&one("{}", TLS), QUIC, http3, "`m` is no QUIC, which HTTP/3 needs of all hosts");
    read(&one("{}", QUIC), QUIC, http3).unwrap();
}
