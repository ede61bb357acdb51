#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_config::transport::TransportSocket;
use tidegate_config::{Bootstrap, Format, from_str};
use tidegate_net::TransportOptions;
use tidegate_quic::crypto::Handshake;
use tidegate_quic::proto::crypto::Session as _;
use tidegate_quic::proto::transport_parameters::TransportParameters;
use tidegate_quic::proto::{Side, TransportErrorCode};

use super::picked::Picked;
use super::session::initial_suite;
use super::*;
use crate::{ClientContext, ServerContext, TlsStats};

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/certs");

fn read(text: &str) -> Bootstrap {
    from_str(&text.replace("$C", CERTS), "f", Format::Json).unwrap()
}

/// A context with the certificate `name`; `common` are further fields of `common_tls_context`, `own` of the transport
/// socket.
fn try_server(name: &str, common: &str, own: &str) -> (Arc<ServerContext>, TlsStats) {
    let text = r#"{"static_resources": {"listeners": [{
        "address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 0}},
        "udp_listener_config": {"quic_options": {}},
        "filter_chains": [{
            "transport_socket": {"name": "quic", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
                "downstream_tls_context": {"common_tls_context": {"tls_certificates": [
                    {"certificate_chain": {"filename": "$C/NAME.pem"}, "private_key": {"filename": "$C/NAME.key"}}] COMMON}
                OWN
            }},
            "filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "h", "codec_type": "HTTP3", "route_config": {"virtual_hosts": []},
                "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
            }}]
        }]
    }]}}"#;
    let text = text.replace("NAME", name).replace("COMMON", common).replace("OWN", own);
    let TransportSocket::Quic(config) = &read(&text).listeners[0].filter_chains[0].transport_socket else {
        panic!("no QUIC")
    };
    let stats = TlsStats::detached();
    (ServerContext::quic(config, stats.clone()).unwrap(), stats)
}

fn server(name: &str) -> Arc<ServerContext> {
    try_server(name, "", "}").0
}

fn try_client(fields: &str) -> (QuicClient, TlsStats) {
    let text = r#"{"static_resources": {"clusters": [{"name": "c",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http3_protocol_options": {}}}},
        "transport_socket": {"name": "quic", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
            "upstream_tls_context": {FIELDS}}}}]}}"#;
    let bootstrap = read(&text.replace("FIELDS", fields));
    let stats = TlsStats::detached();
    let tls = bootstrap.clusters[0].transport_socket.tls().unwrap();
    let context = ClientContext::new(tls, stats.clone()).unwrap();
    let options = bootstrap.clusters[0].protocol.http3().unwrap();
    (QuicClient::new(context, "host.test", options), stats)
}

fn client(fields: &str) -> QuicClient {
    try_client(fields).0
}

const TRUST: &str = r#""sni": "server.test", "common_tls_context": {"validation_context": {"trusted_ca": {"filename": "$C/ca.pem"}}}"#;

/// A context for each name; `*` is for everybody.
struct Named(HashMap<&'static str, Arc<ServerContext>>);

impl Pick for Named {
    fn pick(&self, hello: &Hello) -> Option<Arc<ServerContext>> {
        let name = hello.server_name.as_deref().unwrap_or_default();
        self.0.get(name).or_else(|| self.0.get("*")).cloned()
    }
}

type Boxed = Box<dyn tidegate_quic::proto::crypto::Session>;

/// How a handshake ended.
struct Outcome {
    client: Boxed,
    server: Picked,
    failed: Option<tidegate_quic::proto::TransportError>,
    early: bool,
}

fn facts(session: &dyn tidegate_quic::proto::crypto::Session) -> Handshake {
    *session.handshake_data().expect("no handshake data").downcast().unwrap()
}

fn tls(session: &dyn tidegate_quic::proto::crypto::Session) -> TlsInfo {
    let facts = facts(session).session.unwrap().downcast::<Facts>().unwrap();
    facts.info().expect("no facts")
}

fn visit(client: &QuicClient, pick: Named) -> Outcome {
    converse(start(client, &TransportOptions::default()), pick)
}

/// What `tidegate_quic::connect` does with a [`Beginning`].
fn start(client: &QuicClient, options: &TransportOptions) -> Boxed {
    let (sessions, server_name) = client.sessions(options).unwrap();
    sessions.start_session(1, &server_name, &parameters()).unwrap()
}

/// What a side says now, in parts as datagrams would bring them: of one epoch each.
fn flights(side: &mut dyn tidegate_quic::proto::crypto::Session) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut said = Vec::new();
        let keys = side.write_handshake(&mut said);
        all.extend(said.chunks(1000).map(<[u8]>::to_vec));
        if keys.is_none() {
            return all;
        }
    }
}

fn listening(pick: Named) -> Picked {
    let mut encoded = Vec::new();
    parameters().write(&mut encoded);
    Picked::new(Arc::new(pick), initial_suite().unwrap(), encoded)
}

/// All defaults.
fn parameters() -> TransportParameters {
    TransportParameters::read(Side::Client, &mut &b""[..]).unwrap()
}

/// All that both sides have to say, in order.
fn converse(mut client: Boxed, pick: Named) -> Outcome {
    let mut server = listening(pick);
    let mut early = false;
    let mut failed = None;
    for _ in 0..10 {
        let said = flights(&mut *client);
        failed = failed.or(said.iter().find_map(|part| server.read_handshake(part).err()));
        early |= server.early_crypto().is_some();
        let said = flights(&mut server);
        failed = failed.or(said.iter().find_map(|part| client.read_handshake(part).err()));
        if failed.is_some() {
            break;
        }
    }
    Outcome { client, server, failed, early }
}

fn everybody(context: &Arc<ServerContext>) -> Named {
    Named(HashMap::from([("*", context.clone())]))
}

#[test]
fn both_sides_agree_and_tell_the_facts() {
    let outcome = visit(&client(TRUST), everybody(&server("server")));
    assert!(outcome.failed.is_none() && !outcome.client.is_handshaking() && !outcome.server.is_handshaking());
    let (near, far) = (tls(&*outcome.client), tls(&outcome.server));
    assert_eq!((near.version, near.cipher, near.group), ("TLSv1.3", far.cipher, "X25519MLKEM768"));
    assert_eq!(near.peer.unwrap().subject, "CN=server");
    assert!(near.peer_validated && !near.resumed);
    assert_eq!(near.server_name.as_deref(), Some("server.test"));
    assert_eq!(far.server_name.as_deref(), Some("server.test"));
    assert_eq!((far.alpn.as_deref(), far.peer.is_none()), (Some(&b"h3"[..]), true));
    assert_eq!(facts(&outcome.server).server_name.as_deref(), Some("server.test"));
}

#[test]
fn the_context_is_chosen_by_the_name_asked_for() {
    let named = |name: &'static str| {
        Named(HashMap::from([(name, server("wild")), ("server.test", server("server"))]))
    };
    let outcome = visit(&client(r#""sni": "api.wild.test""#), named("api.wild.test"));
    assert_eq!(tls(&*outcome.client).peer.unwrap().subject, "CN=wild");
    let outcome = visit(&client(TRUST), named("api.wild.test"));
    assert_eq!(tls(&*outcome.client).peer.unwrap().subject, "CN=server");
}

#[test]
fn who_is_served_by_nobody_gets_no_answer_and_is_known_by_name() {
    let outcome = visit(&client(r#""sni": "Stranger.test""#), Named(HashMap::new()));
    assert!(outcome.failed.is_none() && outcome.server.is_handshaking());
    assert_eq!(facts(&outcome.server).server_name.as_deref(), Some("stranger.test"));
    assert!(outcome.client.is_handshaking());
}

#[test]
fn a_session_is_resumed_with_early_data_once() {
    let (client, context) = (client(TRUST), server("server"));
    assert!(!visit(&client, everybody(&context)).early);
    let again = visit(&client, everybody(&context));
    assert!(again.early && again.client.early_data_accepted() == Some(true));
    assert!(tls(&again.server).resumed && tls(&*again.client).resumed);
    assert_eq!(tls(&again.server).server_name.as_deref(), Some("server.test"));
}

#[test]
fn early_data_that_is_said_twice_counts_once() {
    let (client, context) = (client(TRUST), server("server"));
    visit(&client, everybody(&context));
    let said = flights(&mut *start(&client, &TransportOptions::default())).concat();
    let listen = |said: &[u8]| {
        let mut server = listening(everybody(&context));
        server.read_handshake(said).unwrap();
        server.early_crypto().is_some()
    };
    assert!(listen(&said));
    assert!(!listen(&said));
}

#[test]
fn early_data_and_resumption_can_be_switched_off() {
    for (own, resumed) in [
        (r#"}, "enable_early_data": false"#, true),
        (r#"}, "enable_early_data": false, "enable_resumption": false"#, false),
        (r#", "disable_stateful_session_resumption": true}"#, true),
        (r#", "disable_stateless_session_resumption": true}, "enable_early_data": false"#, true),
    ] {
        let (client, (context, _)) = (client(TRUST), try_server("server", "", own));
        visit(&client, everybody(&context));
        let again = visit(&client, everybody(&context));
        assert!(!again.early, "{own}");
        assert_eq!(tls(&again.server).resumed, resumed, "{own}");
    }
}

#[test]
fn a_client_refuses_a_host_that_it_does_not_trust() {
    let (client, stats) = try_client(TRUST);
    let outcome = visit(&client, everybody(&server("stranger")));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(48));
    assert_eq!(stats.counters().fail_verify_error().value(), 1);
    assert_eq!(stats.counters().connection_error().value(), 0);

    let names = r#""sni": "server.test", "common_tls_context": {"validation_context": {
        "trusted_ca": {"filename": "$C/ca.pem"},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "other.test"}}]}}"#;
    let (client, stats) = try_client(names);
    let outcome = visit(&client, everybody(&server("server")));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(46));
    assert_eq!(stats.counters().fail_verify_san().value(), 1);
    assert!(client.verifies());

    // Unlike over TCP, the name that was asked for is looked for without being configured to be.
    let asked = TRUST.replace("server.test", "other.test");
    let outcome = visit(&try_client(&asked).0, everybody(&server("server")));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(46));
}

#[test]
fn a_client_shows_its_certificate_where_one_is_required() {
    const REQUIRED: &str = r#", "require_client_certificate": true}"#;
    const CHECK: &str = r#", "validation_context": {"trusted_ca": {"filename": "$C/ca.pem"}}"#;
    let with = |name: &str| {
        client(
            &r#""common_tls_context": {"tls_certificates": [{"certificate_chain": {"filename": "$C/NAME.pem"},
            "private_key": {"filename": "$C/NAME.key"}}]}"#
                .replace("NAME", name),
        )
    };
    let (context, stats) = try_server("server", CHECK, REQUIRED);
    let outcome = visit(&with("client"), everybody(&context));
    assert!(outcome.failed.is_none());
    let info = tls(&outcome.server);
    assert_eq!(info.peer.unwrap().subject, r"CN=client,O=Acme\, Inc,C=DE");
    assert!(info.peer_validated);

    let outcome = visit(&with("stranger"), everybody(&context));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(48));
    assert_eq!(stats.counters().fail_verify_error().value(), 1);

    let outcome = visit(&client(""), everybody(&context));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(116));
    // As in Envoy.
    assert_eq!(stats.counters().fail_verify_no_cert().value(), 0);
}

#[test]
fn another_protocol_is_refused() {
    let client = client(TRUST);
    let options = TransportOptions { alpn: vec![Arc::from(&b"h2"[..])], ..TransportOptions::default() };
    let outcome = converse(start(&client, &options), everybody(&server("server")));
    assert_eq!(outcome.failed.unwrap().code, TransportErrorCode::crypto(120));
}

#[test]
fn protocols_are_those_configured() {
    for (protocols, refused) in [(r#""h2""#, true), (r#""h2", "h3""#, false)] {
        let common = format!(r#""common_tls_context": {{"alpn_protocols": [{protocols}]}}"#);
        let outcome =
            visit(&self::client(&format!(r#""sni": "server.test", {common}"#)), everybody(&server("server")));
        assert_eq!(outcome.failed.map(|error| error.code), refused.then(|| TransportErrorCode::crypto(120)));
    }
}

#[test]
fn names_are_the_requests_or_the_hosts_or_the_configured_one() {
    let ask = |fields: &str, name: Option<&str>| {
        let options = TransportOptions { server_name: name.map(Into::into), ..TransportOptions::default() };
        let client = client(fields);
        let begun = client.begin(&options).unwrap();
        (client.server_name(&options).map(|name| name.to_string()), begun.server_name)
    };
    assert_eq!(ask("", None), (None, "0.0.0.0".to_owned()));
    assert_eq!(ask(r#""sni": "a.test""#, None).1, "a.test");
    assert_eq!(ask(r#""sni": "a.test", "auto_host_sni": true"#, None).1, "host.test");
    assert_eq!(ask(r#""sni": "a.test""#, Some("b.test")).0.as_deref(), Some("b.test"));
}

#[test]
fn what_is_no_hello_ends_the_connection() {
    let mut server = Picked::new(Arc::new(Named(HashMap::new())), initial_suite().unwrap(), Vec::new());
    assert!(server.read_handshake(&[1]).is_ok_and(|news| !news));
    let error = server.read_handshake(&[0xff; 3]).unwrap_err();
    assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION);
}
