#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::Poll;

use bytes::BytesMut;
use rustls::server::{ServerConfig, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, pki_types::CertificateDer};
use tidegate_config::{Format, from_str};
use tidegate_net::{BoxIo, Io, TransportError, TransportOptions};
use tidegate_testkit::io::pair;
use tidegate_types::{Address, ConnectionInfo};

use super::*;
use crate::io::TlsIo;
use crate::verify::{ClientVerifier, Trust};
use rustls::pki_types::pem::PemObject;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/certs");

fn try_config(fields: &str) -> Result<Arc<UpstreamTls>, String> {
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "c", "transport_socket": {{"name": "tls", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"{fields}}}}}}}]}}}}"#
    );
    let bootstrap =
        from_str(&text.replace("$C", CERTS), "f", Format::Json).map_err(|all| all[0].to_string())?;
    Ok(bootstrap.clusters[0].transport_socket.tls().unwrap().clone())
}

fn context(fields: &str) -> Arc<ClientContext> {
    ClientContext::new(&try_config(fields).unwrap(), TlsStats::detached()).unwrap()
}

fn validation(fields: &str) -> String {
    format!(r#", "common_tls_context": {{"validation_context": {{{fields}}}}}"#)
}

const CA: &str = r#""trusted_ca": {"filename": "$C/ca.pem"}"#;

fn origin(name: &str) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(format!("{CERTS}/{name}.pem")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(format!("{CERTS}/{name}.key")).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let key = rustls::sign::CertifiedKey::new(chain.map(Result::unwrap).collect(), key);
    ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(Listening(Arc::new(key))))
}

/// Notes the name that it is asked for.
#[derive(Debug)]
struct Listening(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Listening {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        crate::observed::note_choice(hello.server_name(), None);
        Some(self.0.clone())
    }
}

/// What came of a connection: the client's end, and the name that the origin was asked for.
struct Outcome {
    client: Result<BoxIo, TransportError>,
    asked: Option<String>,
    alpn: Option<Vec<u8>>,
}

async fn connect(
    context: &Arc<ClientContext>,
    origin: &Arc<ServerConfig>,
    options: TransportOptions,
) -> Outcome {
    let (near, far) = pair();
    let address = || Address::Unix("test".into());
    let connection = Rc::new(ConnectionInfo::new(1, address(), address(), "test".into()));
    let settings = Arc::new(Settings {
        stats: TlsStats::detached(),
        close_notify: Default::default(),
        timed_out: None,
        peer_validated: false,
        authorities: Vec::new(),
        local: None,
    });
    let session = UnbufferedServerConnection::new(origin.clone()).unwrap();
    let mut server = TlsIo::server(Box::new(far), session, settings, None, connection, None);
    let transport = context.transport("host.test", &[b"http/1.1"]);
    let mut connecting = transport.connect(Box::new(near), Rc::new(options));
    let mut client = None;
    poll_fn(|cx| {
        let _ = server.poll_read_ready(cx);
        if client.is_none()
            && let Poll::Ready(done) = connecting.as_mut().poll(cx)
        {
            client = Some(done);
        }
        let _ = server.poll_read_ready(cx);
        if client.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut client = client.unwrap();
    // A byte there and back, so that tickets arrive.
    if let Ok(client) = &mut client {
        let mut buf = BytesMut::with_capacity(64);
        poll_fn(|cx| client.poll_write(cx, &[IoSlice::new(b"?")])).await.unwrap();
        poll_fn(|cx| server.poll_read(cx, &mut buf)).await.unwrap();
        poll_fn(|cx| server.poll_write(cx, &[IoSlice::new(b"!")])).await.unwrap();
        poll_fn(|cx| client.poll_read(cx, &mut buf)).await.unwrap();
    }
    let tls = server.tls();
    Outcome {
        asked: tls.and_then(|tls| tls.server_name.as_deref().map(str::to_owned)),
        alpn: tls.and_then(|tls| tls.alpn.clone()),
        client,
    }
}

/// What the client notes of that, too.
fn noted(outcome: &Outcome) -> Option<&str> {
    outcome.client.as_ref().ok()?.tls()?.server_name.as_deref()
}

async fn outcome(fields: &str, origin_name: &str) -> (Result<bool, String>, TlsStats) {
    let context = context(fields);
    let outcome = connect(&context, &Arc::new(origin(origin_name)), TransportOptions::default()).await;
    let verdict =
        outcome.client.map(|io| io.tls().unwrap().peer_validated).map_err(|error| error.reason.into_owned());
    (verdict, context.stats.clone())
}

fn failed(why: &str) -> Result<bool, String> {
    Err(format!(
        "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_{why}:TLS_error_end"
    ))
}

fn chain_failed(why: &str) -> Result<bool, String> {
    failed(&format!("X509_verify_cert:_certificate_verification_error_at_depth_0:_{why}"))
}

#[tokio::test]
async fn without_a_validation_context_anybody_is_accepted() {
    for name in ["server", "expired", "self", "stranger"] {
        assert_eq!(outcome("", name).await.0, Ok(false), "{name}");
    }
}

#[tokio::test]
async fn with_an_authority_the_chain_must_lead_to_it() {
    for (name, expected) in [
        ("server", Ok(true)),
        ("server-rsa", Ok(true)),
        ("chained", Ok(true)),
        ("stranger", chain_failed("unable_to_get_local_issuer_certificate")),
        ("self", chain_failed("self_signed_certificate")),
        ("expired", chain_failed("certificate_has_expired")),
        ("early", chain_failed("certificate_is_not_yet_valid")),
        ("client", chain_failed("unsupported_certificate_purpose")),
    ] {
        let (verdict, stats) = outcome(&validation(CA), name).await;
        assert_eq!(verdict, expected, "{name}");
        let refused = u64::from(expected.is_err());
        assert_eq!(stats.counters().fail_verify_error().value(), refused, "{name}");
        assert_eq!(stats.counters().handshake().value(), 1 - refused, "{name}");
        assert_eq!(stats.counters().connection_error().value(), 0, "{name}");
    }
}

#[tokio::test]
async fn rules_may_be_relaxed_and_tightened() {
    let expired = validation(&format!(r#"{CA}, "allow_expired_certificate": true"#));
    assert_eq!(outcome(&expired, "expired").await.0, Ok(true));
    assert_eq!(outcome(&expired, "stranger").await.0, chain_failed("unable_to_get_local_issuer_certificate"));
    let untrusted = validation(&format!(r#"{CA}, "trust_chain_verification": "ACCEPT_UNTRUSTED""#));
    let (verdict, stats) = outcome(&untrusted, "stranger").await;
    assert_eq!((verdict, stats.counters().fail_verify_error().value()), (Ok(false), 1));
    let depth = |most: u32| validation(&format!(r#"{CA}, "max_verify_depth": {most}"#));
    assert_eq!(outcome(&depth(2), "chained").await.0, Ok(true));
    assert_eq!(
        outcome(&depth(1), "chained").await.0,
        failed(
            "X509_verify_cert:_certificate_verification_error_at_depth_1:_unable_to_get_local_issuer_certificate"
        )
    );
    // The second one is of version 1.
    for list in ["ca.crl", "plain.crl"] {
        let crl = validation(&format!(r#"{CA}, "crl": {{"filename": "$C/{list}"}}"#));
        assert_eq!(outcome(&crl, "server").await.0, Ok(true));
        assert_eq!(
            outcome(&crl, "revoked").await.0,
            chain_failed("certificate_revocation_check_against_provided_CRLs_failed:_certificate_revoked")
        );
        assert_eq!(
            outcome(&crl, "chained").await.0,
            chain_failed(
                "certificate_revocation_check_against_provided_CRLs_failed:_unable_to_get_certificate_CRL"
            )
        );
    }
    // A certificate that is trusted for itself.
    let own = validation(r#""trusted_ca": {"filename": "$C/self.pem"}"#);
    assert_eq!(outcome(&own, "self").await.0, Ok(true));
}

#[tokio::test]
async fn names_are_matched_by_kind() {
    let names = |kind: &str, matcher: &str| {
        validation(&format!(
            r#"{CA}, "match_typed_subject_alt_names": [{{"san_type": "{kind}", "matcher": {{{matcher}}}}}]"#
        ))
    };
    let all = "server.test,_localhost,_127.0.0.1,_spiffe://test/server";
    for (kind, matcher, matches) in [
        ("DNS", r#""exact": "SERVER.test""#, true),
        ("DNS", r#""exact": "other.test""#, false),
        ("DNS", r#""suffix": ".test""#, true),
        ("DNS", r#""prefix": "Server""#, false),
        ("DNS", r#""prefix": "Server", "ignore_case": true"#, true),
        ("DNS", r#""safe_regex": {"regex": "serv.*"}"#, true),
        ("DNS", r#""safe_regex": {"regex": "serv"}"#, false),
        ("URI", r#""exact": "spiffe://test/server""#, true),
        ("URI", r#""exact": "server.test""#, false),
        ("IP_ADDRESS", r#""exact": "127.0.0.1""#, true),
        ("EMAIL", r#""contains": "server""#, false),
    ] {
        let (verdict, stats) = outcome(&names(kind, matcher), "server").await;
        if matches {
            assert_eq!(verdict, Ok(true), "{kind} {matcher}");
        } else {
            assert_eq!(
                verdict,
                failed(&format!("SAN_matcher,_certificate_SANs_are_[{all}]")),
                "{kind} {matcher}"
            );
            assert_eq!(stats.counters().fail_verify_san().value(), 1);
        }
    }
    assert_eq!(outcome(&names("DNS", r#""exact": "api.wild.test""#), "wild").await.0, Ok(true));
    assert!(outcome(&names("DNS", r#""exact": "a.b.wild.test""#), "wild").await.0.is_err());
}

#[tokio::test]
async fn pinned_hashes_suffice_without_an_authority() {
    let der = CertificateDer::from_pem_file(format!("{CERTS}/server.pem")).unwrap();
    let hash = crate::certificate::facts(&[der]).unwrap().sha256;
    let pinned = validation(&format!(r#""verify_certificate_hash": ["{hash}"]"#));
    assert_eq!(outcome(&pinned, "server").await.0, Ok(false));
    let (verdict, stats) = outcome(&pinned, "stranger").await;
    assert_eq!(verdict, failed("cert_hash_and_spki"));
    assert_eq!(stats.counters().fail_verify_cert_hash().value(), 1);
}

#[tokio::test]
async fn the_name_asked_for_is_the_requests_or_the_hosts_or_the_configured_one() {
    let origin = Arc::new(origin("server"));
    let ask = |fields: &'static str, name: Option<&'static str>| {
        let origin = origin.clone();
        async move {
            let options =
                TransportOptions { server_name: name.map(Into::into), ..TransportOptions::default() };
            let outcome = connect(&context(fields), &origin, options).await;
            assert_eq!(noted(&outcome), outcome.asked.as_deref());
            outcome.asked
        }
    };
    assert_eq!(ask("", None).await, None);
    assert_eq!(ask(r#", "sni": "conf.test""#, None).await.as_deref(), Some("conf.test"));
    assert_eq!(
        ask(r#", "sni": "conf.test", "auto_host_sni": true"#, None).await.as_deref(),
        Some("host.test")
    );
    assert_eq!(ask(r#", "sni": "conf.test""#, Some("req.test")).await.as_deref(), Some("req.test"));
    assert_eq!(ask(r#", "sni": "conf.test""#, Some("127.0.0.1")).await, None);
}

#[tokio::test]
async fn the_certificate_may_have_to_carry_the_name_asked_for() {
    let fields = |sni: &str| {
        format!(
            r#", "sni": "{sni}", "auto_sni_san_validation": true, "common_tls_context": {{"validation_context": {{{CA}}}}}"#
        )
    };
    assert_eq!(outcome(&fields("server.test"), "server").await.0, Ok(true));
    assert_eq!(
        outcome(&fields("a.test"), "server").await.0,
        failed("SAN_matcher,_certificate_SANs_are_[server.test,_localhost,_127.0.0.1,_spiffe://test/server]")
    );
}

#[tokio::test]
async fn a_request_may_ask_for_names_and_no_session_carries_over() {
    let context = context(&validation(CA));
    let origin = Arc::new(origin("server"));
    let ask = |name: Option<&str>| {
        let verify_names = name.map(Into::into).into_iter().collect();
        TransportOptions {
            server_name: Some("server.test".into()),
            verify_names,
            ..TransportOptions::default()
        }
    };
    assert!(connect(&context, &origin, ask(None)).await.client.is_ok());
    assert!(connect(&context, &origin, ask(Some("server.test"))).await.client.is_ok());
    let refused = connect(&context, &origin, ask(Some("nope.test"))).await.client.err().unwrap();
    assert!(
        refused
            .reason
            .contains("verify_SAN_list,_expected_SANs:_[nope.test],_certificate_SANs:_[server.test,_")
    );
    // Sessions of connections that ask for the same are resumed.
    let again = connect(&context, &origin, ask(Some("server.test"))).await.client.unwrap();
    assert!(again.tls().unwrap().resumed);
}

#[tokio::test]
async fn sessions_are_resumed_unless_switched_off() {
    let origin = Arc::new(origin("server"));
    for (fields, resumed) in [("", true), (r#", "max_session_keys": 0"#, false)] {
        let context = context(fields);
        for expected in [false, resumed] {
            let io = connect(&context, &origin, TransportOptions::default()).await.client.unwrap();
            assert_eq!(io.tls().unwrap().resumed, expected);
        }
    }
}

#[tokio::test]
async fn protocols_are_offered_by_the_request_the_configuration_or_the_cluster() {
    let mut server = origin("server");
    server.alpn_protocols = vec![b"x".to_vec(), b"y".to_vec(), b"http/1.1".to_vec()];
    let server = Arc::new(server);
    let plain = TransportOptions::default();
    assert_eq!(connect(&context(""), &server, plain.clone()).await.alpn.unwrap(), b"http/1.1");
    let configured = context(r#", "common_tls_context": {"alpn_protocols": ["y"]}"#);
    assert_eq!(connect(&configured, &server, plain).await.alpn.unwrap(), b"y");
    let asked = TransportOptions { alpn: vec![Arc::from(&b"x"[..])], ..TransportOptions::default() };
    assert_eq!(connect(&configured, &server, asked).await.alpn.unwrap(), b"x");
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{CERTS}/ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = CertificateDer::pem_file_iter(format!("{CERTS}/server.pem")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(format!("{CERTS}/server.key")).unwrap();
    let origin = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let context = context(
        r#", "common_tls_context": {"tls_certificates": [{"certificate_chain": {"filename": "$C/client.pem"},
        "private_key": {"filename": "$C/client.key"}}]}"#,
    );
    let io = connect(&context, &Arc::new(origin), TransportOptions::default()).await.client.unwrap();
    let local = io.tls().unwrap().local.clone().unwrap();
    assert_eq!(local.subject, r"CN=client,O=Acme\, Inc,C=DE");
}

#[tokio::test]
async fn a_servers_verifier_judges_clients_alike() {
    let config = try_config(&validation(CA)).unwrap();
    let trust = Trust::new(config.common.validation.as_deref(), TlsStats::detached()).unwrap();
    let chain = CertificateDer::pem_file_iter(format!("{CERTS}/server.pem")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(format!("{CERTS}/server.key")).unwrap();
    let origin = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(ClientVerifier::new(trust, true)))
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let origin = Arc::new(origin);
    let show = |name: &str| {
        context(&format!(
            r#", "common_tls_context": {{"tls_params": {{"tls_maximum_protocol_version": "TLSv1_2"}},
            "tls_certificates": [{{"certificate_chain": {{"filename": "$C/{name}.pem"}},
            "private_key": {{"filename": "$C/{name}.key"}}}}]}}"#
        ))
    };
    assert!(connect(&show("client"), &origin, TransportOptions::default()).await.client.is_ok());
    let refused =
        connect(&show("stranger"), &origin, TransportOptions::default()).await.client.err().unwrap();
    assert!(refused.reason.contains("TLSV1_ALERT_UNKNOWN_CA"), "{}", refused.reason);
}

#[tokio::test]
async fn parameters_bound_what_is_negotiated() {
    let origin = Arc::new(origin("server"));
    let with = |params: &str| context(&format!(r#", "common_tls_context": {{"tls_params": {{{params}}}}}"#));
    let io = connect(&with(""), &origin, TransportOptions::default()).await.client.unwrap();
    assert_eq!(io.tls().unwrap().version, "TLSv1.3");
    let old = with(
        r#""tls_maximum_protocol_version": "TLSv1_2", "cipher_suites": ["ECDHE-ECDSA-CHACHA20-POLY1305"]"#,
    );
    let io = connect(&old, &origin, TransportOptions::default()).await.client.unwrap();
    assert_eq!(
        (io.tls().unwrap().version, io.tls().unwrap().cipher),
        ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")
    );
}

#[test]
fn bad_content_is_blamed_at_its_place() {
    let error = |fields: &str| {
        let problems = ClientContext::new(&try_config(fields).unwrap(), TlsStats::detached()).err().unwrap();
        problems.iter().map(|problem| problem.to_string().replace(CERTS, "$C")).collect::<Vec<_>>()
    };
    let at = "static_resources.clusters[0].transport_socket.typed_config.common_tls_context";
    let pair = |chain: &str, key: &str| {
        format!(
            r#", "common_tls_context": {{"tls_certificates": [{{"certificate_chain": {{"filename": "$C/{chain}"}},
            "private_key": {{"filename": "$C/{key}"}}}}]}}"#
        )
    };
    assert_eq!(
        error(&pair("client.pem", "server.key")),
        [format!(
            "{at}.tls_certificates[0].private_key: the private key `$C/server.key` cannot be used: it does not belong to the certificate"
        )]
    );
    assert_eq!(
        error(&pair("client.pem", "make.sh")),
        [format!(
            "{at}.tls_certificates[0].private_key: the private key `$C/make.sh` cannot be used: there is no PEM private key in it"
        )]
    );
    assert_eq!(
        error(&pair("make.sh", "client.key")),
        [format!(
            "{at}.tls_certificates[0].certificate_chain: the certificate chain `$C/make.sh` cannot be used: there is no PEM certificate in it"
        )]
    );
    assert_eq!(
        error(&validation(r#""trusted_ca": {"inline_string": "x"}"#)),
        [format!(
            "{at}.validation_context.trusted_ca: trusted CA certificates of the inline text: there is no PEM certificate in it"
        )]
    );
    assert_eq!(
        error(&validation(&format!(r#"{CA}, "crl": {{"filename": "$C/ca.pem"}}"#))),
        [format!(
            "{at}.validation_context.crl: revocation lists of `$C/ca.pem`: there is no PEM revocation list in it"
        )]
    );
}

#[tokio::test]
async fn changed_files_take_effect_and_bad_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let put = |name: &str| std::fs::copy(format!("{CERTS}/{name}"), &file).unwrap();
    put("other-ca.pem");
    let context = context(&validation(&format!(r#""trusted_ca": {{"filename": "{}"}}"#, file.display())));
    let origin = Arc::new(origin("server"));
    let passes = async || connect(&context, &origin, TransportOptions::default()).await.client.is_ok();
    assert!(!passes().await);
    assert!(!context.refresh().unwrap());
    put("ca.pem");
    assert!(context.refresh().unwrap());
    assert_eq!(context.listing().ca[0].info.subject, "CN=tidegate-test-ca");
    assert!(passes().await);
    put("make.sh");
    assert!(context.refresh().is_err());
    assert!(passes().await);
}
