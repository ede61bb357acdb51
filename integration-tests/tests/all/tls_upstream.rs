//! TLS towards hosts: what is verified and asked for, how failures look, how connections end.

use std::path::Path;
use std::process::Command;

use integration_tests::config::text_format;
use integration_tests::process::run;
use integration_tests::proxy::{Options, await_lines};
use integration_tests::tls_origin::{Answer, TlsEnd, TlsOrigin, certificate};
use integration_tests::{Config, Origin, Proxy, Response, binary, wait};
use serde_json::{Value, json};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const FORMAT: &str =
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
const BODY: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";

fn tls(mut context: Value) -> Value {
    context["@type"] = TLS.into();
    json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}})
}

fn own(close_notify: &str) -> Value {
    json!({"transport_socket": {"name": "tidegate.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext",
        "close_notify": close_notify,
        "upstream_tls_context": {},
    }}})
}

/// Trusts the tests' authority, and more.
fn trusting(mut more: Value) -> Value {
    more["trusted_ca"] = json!({"filename": certificate("ca.pem")});
    tls(json!({"sni": "server.test", "common_tls_context": {"validation_context": more}}))
}

/// Asks once, with what the access log says.
#[track_caller]
fn once(config: Config) -> (Proxy, Response, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let proxy = Proxy::start(&config.access_log(&log, text_format(FORMAT)));
    let response = proxy.get("/");
    let line = await_lines(&log, 1).remove(0);
    (proxy, response, line)
}

#[test]
fn a_request_goes_up_by_tls() {
    let origin = TlsOrigin::new("server", Answer::Keep);
    let names = json!({"match_typed_subject_alt_names": [
        {"san_type": "DNS", "matcher": {"exact": "server.test"}}]});
    let (proxy, response, line) = once(Config::new(origin.address()).cluster(trusting(names)));
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(line, "200 - via_upstream -");
    let seen = origin.seen().remove(0);
    assert_eq!((seen.server_name.as_deref(), seen.alpn.as_deref()), (Some("server.test"), Some("http/1.1")));
    for (name, value) in [
        ("ssl.handshake", 1),
        ("ssl.versions.TLSv1.3", 1),
        ("ssl.curves.X25519MLKEM768", 1),
        ("ssl.sigalgs.ecdsa_secp256r1_sha256", 1),
        ("ssl.session_reused", 0),
        ("ssl.no_certificate", 0),
        ("upstream_cx_total", 1),
    ] {
        assert_eq!(proxy.stat(&format!("cluster.origin.{name}")), value, "{name}");
    }
}

#[test]
fn a_host_that_fails_verification_is_503_uf_with_envoys_reason() {
    let stranger = json!({});
    let named =
        json!({"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "other.test"}}]});
    let pinned = json!({"verify_certificate_hash": ["ab".repeat(32)]});
    let listed = json!({"crl": {"filename": certificate("ca.crl")}});
    let at_depth = "X509_verify_cert:_certificate_verification_error_at_depth_0:_";
    let sans = "server.test,_localhost,_127.0.0.1,_spiffe://test/server";
    for (name, rules, counter, why) in [
        ("expired", &stranger, "fail_verify_error", format!("{at_depth}certificate_has_expired")),
        ("early", &stranger, "fail_verify_error", format!("{at_depth}certificate_is_not_yet_valid")),
        (
            "stranger",
            &stranger,
            "fail_verify_error",
            format!("{at_depth}unable_to_get_local_issuer_certificate"),
        ),
        ("self", &stranger, "fail_verify_error", format!("{at_depth}self_signed_certificate")),
        (
            "revoked",
            &listed,
            "fail_verify_error",
            format!(
                "{at_depth}certificate_revocation_check_against_provided_CRLs_failed:_certificate_revoked"
            ),
        ),
        ("server", &named, "fail_verify_san", format!("SAN_matcher,_certificate_SANs_are_[{sans}]")),
        ("server", &pinned, "fail_verify_cert_hash", "cert_hash_and_spki".to_owned()),
    ] {
        let origin = TlsOrigin::new(name, Answer::Keep);
        let (proxy, response, line) = once(Config::new(origin.address()).cluster(trusting(rules.clone())));
        assert_eq!((response.status, response.text().as_str()), (503, BODY), "{name}");
        let reason = format!(
            "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_{why}:TLS_error_end"
        );
        let details = format!("upstream_reset_before_response_started{{remote_connection_failure|{reason}}}");
        assert_eq!(line, format!("503 UF {details} {reason}"), "{name}");
        let stats = proxy.admin.stats();
        for (counter, value) in [(counter, 1), ("handshake", 0), ("connection_error", 0)] {
            assert_eq!(stats.get(&format!("cluster.origin.ssl.{counter}")), value, "{name} {counter}");
        }
        for counter in
            ["cx_total", "cx_connect_fail", "cx_destroy", "cx_destroy_remote", "cx_close_reason.tls_error"]
        {
            assert_eq!(stats.get(&format!("cluster.origin.upstream_{counter}")), 1, "{name} {counter}");
        }
        assert_eq!(stats.get("cluster.origin.upstream_rq_pending_failure_eject"), 1);
        assert_eq!(stats.get("cluster.origin.upstream_rq_total"), 0);
        assert!(origin.seen().is_empty());
    }
}

#[test]
fn a_host_that_does_not_speak_tls_is_told_from_one_that_leaves() {
    let plain = Origin::script(|mut peer| {
        peer.send("HTTP/1.1 400 Bad Request\r\n\r\n");
        peer.request();
    });
    let (proxy, response, line) = once(Config::new(plain.address()).cluster(tls(json!({}))));
    assert_eq!((response.status, response.text().as_str()), (503, BODY));
    let reason = "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end";
    assert_eq!(
        line,
        format!(
            "503 UF upstream_reset_before_response_started{{remote_connection_failure|{reason}}} {reason}"
        )
    );
    assert_eq!(proxy.stat("cluster.origin.ssl.connection_error"), 1);

    let gone = Origin::script(|_| {});
    let (proxy, response, line) = once(Config::new(gone.address()).cluster(tls(json!({}))));
    assert_eq!((response.status, response.text().as_str()), (503, BODY));
    // Its close may come as an RST: it did not read our hello.
    assert!(
        line.starts_with("503 UF upstream_reset_before_response_started{remote_connection_failure"),
        "{line}"
    );
    assert_eq!(proxy.stat("cluster.origin.ssl.connection_error"), 0);
}

#[test]
fn a_host_that_says_goodbye_in_the_handshake_has_closed() {
    let origin = Origin::script(|mut peer| {
        // A warning: close_notify.
        peer.send("\u{15}\u{3}\u{3}\0\u{2}\u{1}\0");
        peer.request();
    });
    let (proxy, response, line) = once(Config::new(origin.address()).cluster(tls(json!({}))));
    assert_eq!((response.status, response.text().as_str()), (503, BODY));
    assert_eq!(line, "503 UF upstream_reset_before_response_started{remote_connection_failure} -");
    assert_eq!(proxy.stat("cluster.origin.ssl.connection_error"), 0);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_connect_fail"), 1);
}

#[test]
fn the_connect_timeout_covers_the_handshake() {
    let silent = Origin::script(|mut peer| {
        peer.wire.end();
    });
    let config =
        Config::new(silent.address()).cluster(tls(json!({}))).cluster(json!({"connect_timeout": "0.2s"}));
    let (proxy, response, line) = once(config);
    assert_eq!(response.status, 503);
    assert!(response.text().ends_with("reset reason: connection timeout"), "{}", response.text());
    assert_eq!(line, "503 UF upstream_reset_before_response_started{connection_timeout} -");
    for (counter, value) in [
        ("upstream_cx_connect_timeout", 1),
        ("upstream_cx_connect_fail", 1),
        ("upstream_cx_destroy_local", 1),
        ("ssl.connection_error", 0),
    ] {
        assert_eq!(proxy.stat(&format!("cluster.origin.{counter}")), value, "{counter}");
    }
}

#[test]
fn sessions_are_resumed() {
    let origin = TlsOrigin::new("server", Answer::Close);
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(trusting(json!({}))));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status, 200);
    }
    let resumed: Vec<bool> = origin.seen().iter().map(|seen| seen.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
    assert_eq!(proxy.stat("cluster.origin.ssl.session_reused"), 2);
    assert_eq!(proxy.stat("cluster.origin.ssl.handshake"), 3);
}

/// The end that an origin sees of a connection that idled.
fn idle_end(socket: Value, answer: Answer) -> (Proxy, TlsEnd) {
    let origin = TlsOrigin::new("server", answer);
    let config = Config::new(origin.address())
        .cluster(socket)
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "0.2s"}}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    let end = origin.await_end(0);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_idle_timeout"), 1);
    (proxy, end)
}

#[test]
fn an_idle_close_is_a_farewell_and_what_crosses_it_meets_no_reset() {
    let (proxy, end) = idle_end(tls(json!({})), Answer::TalkAfterEnd);
    assert_eq!(end, TlsEnd { close_notify: true, reset: false });
    proxy.admin.await_stat("cluster.origin.ssl.close_notify_sent", 1);
    proxy.admin.await_stat("cluster.origin.ssl.close_notify_received", 1);
    assert_eq!(proxy.stat("cluster.origin.ssl.unexpected_eof"), 0);
}

#[test]
fn the_farewell_can_be_left_out() {
    for how in ["NEVER", "NOT_ON_IDLE"] {
        let (proxy, end) = idle_end(own(how), Answer::Keep);
        assert_eq!(end, TlsEnd { close_notify: false, reset: false }, "{how}");
        assert_eq!(proxy.stat("cluster.origin.ssl.close_notify_sent"), 0, "{how}");
    }
    let (_, end) = idle_end(own("ALWAYS"), Answer::Keep);
    assert!(end.close_notify);
}

#[test]
fn a_host_that_leaves_without_a_farewell_is_counted() {
    for (answer, unexpected) in [(Answer::Close, 0), (Answer::Truncate, 1)] {
        let origin = TlsOrigin::new("server", answer);
        let proxy = Proxy::start(&Config::new(origin.address()).cluster(tls(json!({}))));
        assert_eq!(proxy.get("/").status, 200);
        origin.await_end(0);
        proxy.admin.await_stat("cluster.origin.ssl.unexpected_eof", unexpected);
        proxy.admin.await_stat("cluster.origin.ssl.close_notify_received", 1 - unexpected);
    }
}

#[test]
fn requests_ask_for_the_name_of_their_host() {
    let origin = TlsOrigin::new("wild", Answer::Keep);
    let config = Config::new(origin.address()).cluster(trusting(json!({}))).cluster_http(json!({
        "upstream_http_protocol_options": {"auto_sni": true, "auto_san_validation": true}}));
    let proxy = Proxy::start(&config);
    let ask = |host: &str| proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).status;
    assert_eq!(["a.wild.test:80", "b.wild.test", "a.wild.test", "other.test"].map(ask), [200, 200, 200, 503]);
    let names: Vec<_> = origin.seen().into_iter().map(|seen| seen.server_name.unwrap()).collect();
    assert_eq!(names, ["a.wild.test", "b.wild.test"]);
    assert_eq!(proxy.stat("cluster.origin.ssl.fail_verify_san"), 1);
}

#[test]
fn a_proxy_header_tells_of_the_client() {
    let origin = Origin::script(|mut peer| {
        let line = peer.wire.through("\r\n");
        while peer.request().is_some() {
            let body = line.trim_end();
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let socket = json!({"transport_socket": {"name": "proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "transport_socket": {"name": "raw", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(socket));
    for _ in 0..2 {
        let mut client = proxy.connect();
        let (from, to) = (client.local_address(), proxy.address);
        for _ in 0..2 {
            let told = client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").text();
            assert_eq!(told, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", from.port(), to.port()));
        }
    }
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 2);
}

fn write(folder: &Path, config: &Config) -> std::path::PathBuf {
    let file = folder.join("proxy.json");
    std::fs::write(&file, config.0.to_string()).unwrap();
    file
}

#[test]
fn validation_reads_keys_and_warns_of_names_that_nobody_checks() {
    let folder = tempfile::tempdir().unwrap();
    let validate = |socket: Value, arguments: &[&str]| {
        let file = write(folder.path(), &Config::new("127.0.0.1:1".parse().unwrap()).cluster(socket));
        run(Command::new(binary::tidegate()).args(["--mode", "validate", "-c"]).arg(file).args(arguments))
    };
    let pair = |key: &str| {
        tls(json!({"common_tls_context": {"tls_certificates": [{
            "certificate_chain": {"filename": certificate("client.pem")},
            "private_key": {"filename": certificate(key)}}]}}))
    };
    assert_eq!(validate(pair("client.key"), &[]).code, Some(0));
    let said = validate(pair("server.key"), &[]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("tls_certificates[0].private_key: the private key"), "{}", said.stderr);
    assert!(said.stderr.contains("it does not belong to the certificate"), "{}", said.stderr);
    let said = validate(trusting(json!({})), &[]);
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.contains("accepts any certificate that its `trusted_ca` signed"), "{}", said.stderr);
    assert_eq!(validate(own("NEVER"), &[]).code, Some(0));
    let said = validate(own("NEVER"), &["--envoy-strict"]);
    assert!(said.stderr.contains("`tidegate.transport_sockets.tls` is Tidegate's own"), "{}", said.stderr);
    assert_eq!(said.code, Some(1));
}

#[test]
fn the_dump_hides_keys() {
    let key = std::fs::read_to_string(certificate("client.key")).unwrap();
    let socket = tls(json!({"common_tls_context": {"tls_certificates": [{
        "certificate_chain": {"filename": certificate("client.pem")},
        "private_key": {"inline_string": key}}]}}));
    let origin = TlsOrigin::new("server", Answer::Keep);
    let proxy = Options::default().start(&Config::new(origin.address()).cluster(socket));
    assert_eq!(proxy.get("/").status, 200);
    let dump = proxy.admin.get("/config_dump").text();
    assert!(dump.contains("[redacted]") && dump.contains("client.pem") && !dump.contains("PRIVATE KEY"));
}

#[test]
fn a_closed_idle_connection_is_replaced_without_an_error() {
    let origin = TlsOrigin::new("server", Answer::Keep);
    let config = Config::new(origin.address())
        .cluster(tls(json!({})))
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "0.1s"}}));
    let proxy = Proxy::start(&config);
    for number in 0..3 {
        assert_eq!(proxy.get("/").status, 200);
        assert!(origin.await_end(number).close_notify);
    }
    wait::until("the gauge", || proxy.stat("cluster.origin.upstream_cx_active") == 0);
}

#[test]
fn a_changed_authority_is_taken_over_without_a_new_cluster() {
    let origin = TlsOrigin::new("server", Answer::Close);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let put = |name: &str| std::fs::copy(certificate(name), &file).unwrap();
    put("other-ca.pem");
    let socket =
        tls(json!({"common_tls_context": {"validation_context": {"trusted_ca": {"filename": file}}}}));
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(socket));
    assert_eq!(proxy.get("/").status, 503);
    put("ca.pem");
    wait::until("the new authority", || proxy.get("/").status == 200);
    put("make.sh");
    wait::until("the warning", || proxy.log().contains("changed certificate files refused"));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.stat("cluster_manager.cluster_modified"), 0);
    assert!(proxy.admin.get("/certs").text().contains("ca.pem"));
}
