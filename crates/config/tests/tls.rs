//! TLS contexts and transport sockets: what is read, and what is refused where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tidegate_config::tls::{CipherSuite, CloseNotify, Curve, SanKind, TlsVersion, TrustChain, UpstreamTls};
use tidegate_config::transport::{ProxyVersion, TransportSocket, UpstreamTransport};
use tidegate_config::{Bootstrap, Format, from_str};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn load(cluster_socket: &str, listener_socket: &str) -> Result<Bootstrap, Vec<String>> {
    load_with("[]", cluster_socket, listener_socket)
}

fn load_with(secrets: &str, cluster_socket: &str, listener_socket: &str) -> Result<Bootstrap, Vec<String>> {
    let manager = r#"{"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in", "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}], "route_config": {"virtual_hosts": []}}"#;
    let listener = format!(
        r#"{{"address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 0}}}}, "filter_chains": [{{"transport_socket": {listener_socket}, "filters": [{{"name": "http", "typed_config": {manager}}}]}}]}}"#
    );
    let text = format!(
        r#"{{"static_resources": {{"secrets": {secrets}, "clusters": [{{"name": "c", "transport_socket": {cluster_socket}}}], "listeners": [{listener}]}}}}"#
    );
    from_str(&text, "f", Format::Json).map_err(|errors| {
        let text = |error: &tidegate_config::ConfigError| {
            let text = error.to_string();
            let (_, after) = text.split_once(": ").unwrap();
            after
                .replace("static_resources.clusters[0].transport_socket", "U")
                .replace("static_resources.listeners[0].filter_chains[0].transport_socket", "D")
                .replace(".typed_config.common_tls_context", ".common")
        };
        errors.iter().map(text).collect()
    })
}

fn socket(kind: &str, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!(r#"{{"name": "t", "typed_config": {{"@type": "{TLS}.{kind}"{comma}{fields}}}}}"#)
}

fn upstream(fields: &str) -> Arc<UpstreamTls> {
    let bootstrap = load(&socket("UpstreamTlsContext", fields), "null").unwrap();
    bootstrap.clusters[0].transport_socket.tls().unwrap().clone()
}

#[track_caller]
fn refused(fields: &str, expected: &[&str]) {
    let errors = load(&socket("UpstreamTlsContext", fields), "null").err().unwrap_or_default();
    assert_eq!(errors, expected, "{fields}");
}

#[track_caller]
fn refused_downstream(fields: &str, expected: &[&str]) {
    let errors = load("null", &socket("DownstreamTlsContext", fields)).err().unwrap_or_default();
    assert_eq!(errors, expected, "{fields}");
}

const CERTIFICATE: &str = r#""tls_certificates": [{"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_bytes": "aw=="}}]"#;

#[test]
fn an_empty_upstream_context_has_the_documented_defaults() {
    let context = upstream("");
    assert_eq!(context.common.params.minimum, TlsVersion::V1_2);
    assert_eq!(context.common.params.maximum, TlsVersion::V1_3);
    assert_eq!((context.max_session_keys, context.close_notify), (1, CloseNotify::Always));
    assert!(context.common.validation.is_none() && context.sni.is_none() && context.own.is_none());
}

#[test]
fn all_fields_of_an_upstream_context_are_read() {
    let hash = "ab".repeat(32);
    let pairs = vec!["AB"; 32].join(":");
    let context = upstream(&format!(
        r#""sni": "a.example", "auto_host_sni": true, "auto_sni_san_validation": true, "max_session_keys": 0,
        "common_tls_context": {{{CERTIFICATE}, "alpn_protocols": ["h2,http/1.1", "x"],
        "tls_params": {{"tls_minimum_protocol_version": "TLSv1_3", "ecdh_curves": ["X25519MLKEM768", "prime256v1:P-384"],
          "cipher_suites": ["[ECDHE-ECDSA-AES128-GCM-SHA256|TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"]}},
        "validation_context": {{"trusted_ca": {{"inline_string": "ca", "watched_directory": {{"path": "/x"}}}},
          "verify_certificate_hash": ["{hash}", "{pairs}"],
          "verify_certificate_spki": ["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="],
          "match_typed_subject_alt_names": [{{"san_type": "URI", "matcher": {{"prefix": "spiffe://"}}}}],
          "trust_chain_verification": "ACCEPT_UNTRUSTED", "max_verify_depth": 3, "allow_expired_certificate": true}}}}"#
    ));
    assert_eq!(context.sni.as_deref(), Some("a.example"));
    assert_eq!(context.max_session_keys, 0);
    assert_eq!(context.common.alpn_protocols, ["h2", "http/1.1", "x"]);
    assert_eq!(context.common.params.curves, [Curve::X25519Mlkem768, Curve::P256, Curve::P384]);
    assert_eq!(context.common.params.cipher_suites, [CipherSuite::EcdsaAes128, CipherSuite::RsaAes256]);
    let validation = context.common.validation.as_ref().unwrap();
    assert_eq!(validation.certificate_hashes, [[0xab; 32]; 2]);
    assert_eq!(validation.spki_hashes.len(), 1);
    assert_eq!(validation.names[0].kind, SanKind::Uri);
    assert_eq!(validation.trust_chain, TrustChain::AcceptUntrusted);
    assert_eq!(validation.trusted_ca.as_ref().unwrap().watched_directory.as_deref(), Some("/x"));
    assert_eq!(&context.common.certificates[0].key.bytes[..], b"k");
    assert!(!format!("{context:?}").contains("\"k\""), "secrets stay out of debug output");
}

#[test]
fn what_envoy_refuses_is_refused() {
    let names = r#""match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]"#;
    let validation =
        |fields: &str| format!(r#""common_tls_context": {{"validation_context": {{{fields}}}}}"#);
    refused(
        &validation(names),
        &[
            "U.common.validation_context.match_typed_subject_alt_names: matching names without `trusted_ca` is insecure: anybody can write any name",
        ],
    );
    refused(
        &validation(
            r#""match_typed_subject_alt_names": [{"matcher": {"exact": "a"}}], "trusted_ca": {"inline_string": "x"}"#,
        ),
        &["U.common.validation_context.match_typed_subject_alt_names[0].san_type: missing field `san_type`"],
    );
    refused(
        &validation(r#""allow_expired_certificate": true"#),
        &[
            "U.common.validation_context.allow_expired_certificate: without `trusted_ca`, expiry is never looked at",
        ],
    );
    refused(
        &validation(r#""crl": {"inline_string": "x"}"#),
        &["U.common.validation_context.crl: a revocation list has no use without `trusted_ca`"],
    );
    refused(
        &validation(r#""verify_certificate_hash": ["ab"]"#),
        &["U.common.validation_context.verify_certificate_hash: `ab` is no SHA-256 in hexadecimal"],
    );
    refused(
        &validation(r#""verify_certificate_spki": ["abc"]"#),
        &["U.common.validation_context.verify_certificate_spki: `abc` is no SHA-256 in base64"],
    );
    refused(
        &validation(r#""trusted_ca": {"filename": "/nonexistent/ca.pem"}"#),
        &[
            "U.common.validation_context.trusted_ca.filename: cannot read `/nonexistent/ca.pem`: No such file or directory (os error 2)",
        ],
    );
    refused(
        &validation(r#""trusted_ca": {"environment_variable": "TIDEGATE_NO_SUCH_VARIABLE"}"#),
        &[
            "U.common.validation_context.trusted_ca.environment_variable: there is no environment variable `TIDEGATE_NO_SUCH_VARIABLE`",
        ],
    );
    refused(
        &validation(r#""match_subject_alt_names": [{"exact": "a"}]"#),
        &[
            "U.common.validation_context.match_subject_alt_names: matching names without `trusted_ca` is insecure: anybody can write any name",
        ],
    );
    refused(
        r#""auto_sni_san_validation": true"#,
        &[
            "U.typed_config.auto_sni_san_validation: without `trusted_ca` in the validation context, a name proves nothing",
        ],
    );
    refused(
        r#""allow_renegotiation": true"#,
        &[
            "U.typed_config.allow_renegotiation: renegotiation is not supported: the TLS library refuses it, and TLS 1.3 has none (expected false)",
        ],
    );
    refused_downstream(
        "",
        &[
            "D.typed_config: a downstream TLS context needs a certificate in `common_tls_context.tls_certificates`",
        ],
    );
    let key = format!(
        r#""common_tls_context": {{{CERTIFICATE}}}, "session_ticket_keys": {{"keys": [{{"inline_string": "abc"}}]}}"#
    );
    refused_downstream(
        &key,
        &["D.typed_config.session_ticket_keys.keys[0]: a session ticket key has 80 bytes, not 3"],
    );
}

#[test]
fn certificates_are_whole() {
    let certificate =
        |fields: &str| format!(r#""common_tls_context": {{"tls_certificates": [{{{fields}}}]}}"#);
    let at = "U.common.tls_certificates[0]";
    refused(&certificate(""), &[&format!("{at}: an empty certificate")]);
    refused(
        &certificate(r#""certificate_chain": {"inline_string": "c"}"#),
        &[&format!("{at}: missing field `private_key`")],
    );
    refused(
        &certificate(r#""private_key": {"inline_string": "c"}"#),
        &[&format!("{at}: missing field `certificate_chain`")],
    );
    let two = CERTIFICATE.replace(
        "}]",
        r#"}, {"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_string": "k"}}]"#,
    );
    refused(
        &format!(r#""common_tls_context": {{{two}}}"#),
        &["U.typed_config: an upstream TLS context takes one certificate at most"],
    );
}

#[test]
fn names_that_the_library_lacks_are_told_with_the_alternatives() {
    let params = |fields: &str| format!(r#""common_tls_context": {{"tls_params": {{{fields}}}}}"#);
    let suites = "ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-CHACHA20-POLY1305, \
                  ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-CHACHA20-POLY1305";
    refused(
        &params(r#""cipher_suites": ["ECDHE-RSA-AES128-SHA"]"#),
        &[&format!(
            "U.common.tls_params.cipher_suites: cipher suite `ECDHE-RSA-AES128-SHA` is not supported by this build, which has {suites}; those of TLS 1.3 cannot be chosen"
        )],
    );
    refused(
        &params(r#""ecdh_curves": ["P-521"]"#),
        &[
            "U.common.tls_params.ecdh_curves: curve `P-521` is not supported by this build, which has X25519MLKEM768, X25519, P-256, P-384",
        ],
    );
    refused(
        &params(r#""cipher_suites": ["[ECDHE-RSA-AES128-GCM-SHA256"]"#),
        &[&format!(
            "U.common.tls_params.cipher_suites: cipher suite `[ECDHE-RSA-AES128-GCM-SHA256` is not supported by this build, which has {suites}; those of TLS 1.3 cannot be chosen"
        )],
    );
    refused(
        &params(r#""ecdh_curves": ["P-256", "prime256v1"]"#),
        &["U.common.tls_params.ecdh_curves: curve `prime256v1` is there twice"],
    );
    refused(
        &params(r#""compliance_policies": ["FIPS"]"#),
        &["U.common.tls_params.compliance_policies: `FIPS` is no compliance policy; FIPS_202205 is"],
    );
    refused(
        &params(r#""tls_minimum_protocol_version": "TLSv1_1""#),
        &[
            "U.common.tls_params.tls_minimum_protocol_version: `TLSv1_1` is known to Envoy, but not supported by this build (expected one of TLS_AUTO, TLSv1_2, TLSv1_3)",
        ],
    );
    refused(
        &params(r#""tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_2""#),
        &[
            "U.common.tls_params.tls_maximum_protocol_version: the maximum lies below the minimum: no handshake could succeed",
        ],
    );
}

#[test]
fn secret_discovery_is_named() {
    let sds = "only secrets of `static_resources.secrets` are found by name: this build has no secret discovery service (SDS)";
    for field in ["validation_context_sds_secret_config", "tls_certificate_sds_secret_configs"] {
        refused(
            &format!(
                r#""common_tls_context": {{"{field}": {{"name": "x", "sds_config": {{"ads": {{}}}}}}}}"#
            ),
            &[&format!("U.common.{field}.sds_config: {sds}")],
        );
    }
    refused(
        r#""common_tls_context": {"combined_validation_context": {"default_validation_context": {}, "validation_context_sds_secret_config": {"name": "x", "sds_config": {}}}}"#,
        &[&format!(
            "U.common.combined_validation_context.validation_context_sds_secret_config.sds_config: {sds}"
        )],
    );
}

const SECRETS: &str = r#"[
    {"name": "s", "tls_certificate": {"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_string": "k"}}},
    {"name": "s", "validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "b"}}], "trusted_ca": {"inline_string": "ca"}}},
    {"name": "names", "validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "b"}}]}},
    {"name": "keys", "session_ticket_keys": {"keys": {"inline_string": "01234567890123456789012345678901234567890123456789012345678901234567890123456789"}}},
    {"name": "g", "generic_secret": {"secret": {"inline_string": "x"}}}]"#;

/// What is named is what would be read had it been written in its place.
#[test]
fn static_secrets_are_found_by_name_and_kind() {
    let fields = r#""common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "s"}], "validation_context_sds_secret_config": {"name": "s"}}"#;
    let context = |fields: &str| load_with(SECRETS, &socket("UpstreamTlsContext", fields), "null");
    let bootstrap = context(fields).unwrap();
    let common = &bootstrap.clusters[0].transport_socket.tls().unwrap().common;
    assert_eq!(&*common.certificates[0].chain.bytes, b"c");
    assert!(common.validation.as_ref().unwrap().trusted_ca.is_some());

    let combined = r#""common_tls_context": {"combined_validation_context": {"validation_context_sds_secret_config": {"name": "s"}, "default_validation_context": {"max_verify_depth": 3, "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]}}}"#;
    let bootstrap = context(combined).unwrap();
    let merged =
        bootstrap.clusters[0].transport_socket.tls().unwrap().common.validation.as_ref().unwrap().clone();
    // Lists go on behind the defaults'.
    assert_eq!((merged.names.len(), merged.max_verify_depth), (2, Some(3)));
    assert!(merged.trusted_ca.is_some());

    let downstream = r#""common_tls_context": {"tls_certificate_sds_secret_configs": {"name": "s"}}, "session_ticket_keys_sds_secret_config": {"name": "keys"}"#;
    let bootstrap = load_with(SECRETS, "null", &socket("DownstreamTlsContext", downstream)).unwrap();
    let TransportSocket::Tls(context) = &bootstrap.listeners[0].filter_chains[0].transport_socket else {
        panic!("no TLS")
    };
    assert_eq!(context.ticket_keys.len(), 1);
}

#[test]
fn secrets_that_are_not_there_are_named_in_envoys_words() {
    let wrong = |fields: &str| {
        load_with(
            SECRETS,
            &socket("UpstreamTlsContext", &format!(r#""common_tls_context": {{{fields}}}"#)),
            "null",
        )
        .unwrap_err()
    };
    assert_eq!(
        wrong(r#""tls_certificate_sds_secret_configs": [{"name": "names"}]"#),
        ["U.common.tls_certificate_sds_secret_configs[0]: Unknown static secret: names"]
    );
    assert_eq!(
        wrong(r#""validation_context_sds_secret_config": {"name": "keyz"}"#),
        [
            "U.common.validation_context_sds_secret_config: Unknown static certificate validation context: keyz"
        ]
    );
    assert_eq!(
        wrong(r#""validation_context_sds_secret_config": {"name": "names"}"#),
        [
            "static_resources.secrets[2].validation_context.match_typed_subject_alt_names: matching names without `trusted_ca` is insecure: anybody can write any name"
        ]
    );
    assert_eq!(
        wrong(&format!(r#"{CERTIFICATE}, "tls_certificate_sds_secret_configs": [{{"name": "s"}}]"#)),
        [
            "U.typed_config: an upstream TLS context takes one certificate at most",
            "U.common: SDS and non-SDS TLS certificates may not be mixed in server contexts",
        ]
    );
    let twice = r#"[{"name": "g", "generic_secret": {"secret": {"inline_string": "x"}}}, {"name": "g", "generic_secret": {"secret": {"inline_string": "x"}}}, {"name": "e"}]"#;
    let errors = load_with(twice, "null", "null").unwrap_err();
    assert_eq!(
        errors,
        [
            "static_resources.secrets[1]: Duplicate static GenericSecret secret name g",
            "static_resources.secrets[2]: nothing is chosen (expected one of tls_certificate, session_ticket_keys, validation_context, generic_secret)",
        ]
    );
}

#[test]
fn a_socket_of_the_other_side_is_refused() {
    let errors =
        load(&socket("DownstreamTlsContext", &format!(r#""common_tls_context": {{{CERTIFICATE}}}"#)), "null");
    assert!(
        errors.unwrap_err()[0]
            .starts_with("U.typed_config: this transport socket is for filter chains, not for clusters")
    );
    let errors = load("null", &socket("UpstreamTlsContext", ""));
    assert!(
        errors.unwrap_err()[0]
            .starts_with("D.typed_config: this transport socket is for clusters, not for filter chains")
    );
}

#[test]
fn tidegates_own_socket_wraps_either_context() {
    let own = |fields: &str| {
        format!(
            r#"{{"name": "tidegate.transport_sockets.tls", "typed_config": {{"@type": "type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext", {fields}}}}}"#
        )
    };
    let downstream = own(&format!(
        r#""close_notify": "NOT_ON_IDLE", "downstream_tls_context": {{"common_tls_context": {{{CERTIFICATE}}}}}"#
    ));
    let upstream = own(r#""close_notify": "NEVER", "upstream_tls_context": {"sni": "a"}"#);
    let bootstrap = load(&upstream, &downstream).unwrap();
    let TransportSocket::Tls(context) = &bootstrap.listeners[0].filter_chains[0].transport_socket else {
        panic!()
    };
    assert_eq!(context.close_notify, CloseNotify::NotOnIdle);
    assert!(context.own.is_some());
    let context = bootstrap.clusters[0].transport_socket.tls().unwrap();
    assert_eq!((context.close_notify, context.sni.as_deref()), (CloseNotify::Never, Some("a")));
    assert_eq!(
        load(&own(r#""close_notify": "NEVER""#), "null").unwrap_err(),
        ["U.typed_config: nothing is chosen (expected one of downstream_tls_context, upstream_tls_context)"]
    );
}

#[test]
fn a_proxy_header_lies_around_another_transport() {
    let proxy = |fields: &str| {
        format!(
            r#"{{"name": "p", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", {fields}}}}}"#
        )
    };
    let inner = socket("UpstreamTlsContext", r#""sni": "a""#);
    let text = proxy(&format!(
        r#""transport_socket": {inner}, "config": {{"version": "V2", "added_tlvs": [{{"type": 5, "value": "YWJj"}}], "pass_through_tlvs": {{"match_type": "INCLUDE", "tlv_type": [1, 2]}}}}"#
    ));
    let bootstrap = load(&text, "null").unwrap();
    let UpstreamTransport::ProxyProtocol(config) = &bootstrap.clusters[0].transport_socket else { panic!() };
    assert_eq!(config.version, ProxyVersion::V2);
    assert_eq!((config.added_tlvs[0].kind, &config.added_tlvs[0].value[..]), (5, &b"abc"[..]));
    assert_eq!(config.transport_socket.tls().unwrap().sni.as_deref(), Some("a"));
    let errors = load(&proxy(r#""config": {"added_tlvs": [{"type": 256}]}"#), "null").unwrap_err();
    assert_eq!(
        errors,
        [
            "U.typed_config.transport_socket: missing field `transport_socket`",
            "U.typed_config.config.added_tlvs[0].type: 256 is out of range: a type is 0 to 255",
        ]
    );
}
