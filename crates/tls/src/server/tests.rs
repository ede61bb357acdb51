#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::path::Path;

use bytes::BytesMut;
use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption, UnbufferedClientConnection};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidegate_config::transport::TransportSocket;
use tidegate_net::Io;
use tidegate_testkit::io::pair;
use tidegate_types::{Address, TlsInfo};

use super::*;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/certs");

fn pair_of(name: &str) -> String {
    format!(
        r#"{{"certificate_chain": {{"filename": "{CERTS}/{name}.pem"}}, "private_key": {{"filename": "{CERTS}/{name}.key"}}}}"#
    )
}

/// A context of `common` (fields of `common_tls_context`) and `own` (fields of the downstream context).
fn context(common: &str, own: &str) -> Arc<ServerContext> {
    let text = format!(
        r#"{{"static_resources": {{"listeners": [{{
            "name": "l", "address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 0}}}},
            "filter_chains": [{{
                "transport_socket": {{"name": "tls", "typed_config": {{
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {{{common}}} {own}
                }}}},
                "filters": [{{"name": "http", "typed_config": {{
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "h", "route_config": {{"virtual_hosts": []}},
                    "http_filters": [{{"name": "router", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]
                }}}}]
            }}]
        }}]}}}}"#
    );
    let bootstrap = tidegate_config::from_str(&text, "test", tidegate_config::Format::Json).unwrap();
    let TransportSocket::Tls(config) = &bootstrap.listeners[0].filter_chains[0].transport_socket else {
        panic!("no TLS")
    };
    ServerContext::new(config, TlsStats::detached(), None).unwrap()
}

fn certificates(names: &[&str]) -> String {
    let list: Vec<_> = names.iter().map(|name| pair_of(name)).collect();
    format!(r#""tls_certificates": [{}]"#, list.join(","))
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{CERTS}/ca.pem")).unwrap()).unwrap();
    roots
}

fn client_config() -> ClientConfig {
    ClientConfig::builder().with_root_certificates(roots()).with_no_client_auth()
}

struct Outcome {
    client: io::Result<Rc<TlsInfo>>,
    server: Option<Rc<TlsInfo>>,
    reason: Option<String>,
}

/// One request over a new connection.
async fn visit(context: &Arc<ServerContext>, config: &Arc<ClientConfig>, name: &str) -> Outcome {
    let (near, far) = pair();
    let address = || Address::Unix("test".into());
    let info = Rc::new(ConnectionInfo::new(1, address(), address(), "test".into()));
    let mut server = context.transport().accept(Box::new(far), &info, None);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = UnbufferedClientConnection::new(config.clone(), name).unwrap();
    let settings = Arc::new(Settings {
        stats: TlsStats::detached(),
        close_notify: Default::default(),
        timed_out: None,
        peer_validated: true,
        authorities: Vec::new(),
        local: None,
    });
    let mut client = TlsIo::client(Box::new(near), session, settings);
    let ask = async {
        poll_fn(|cx| client.poll_write(cx, &[IoSlice::new(b"ping")])).await?;
        let mut buf = BytesMut::with_capacity(100);
        // Tickets come with the answer.
        poll_fn(|cx| client.poll_read(cx, &mut buf)).await?;
        if buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(client.tls().unwrap().clone())
    };
    let serve = async {
        let mut buf = BytesMut::with_capacity(100);
        if poll_fn(|cx| server.poll_read(cx, &mut buf)).await.is_ok_and(|read| read > 0) {
            let _ = poll_fn(|cx| server.poll_write(cx, &[IoSlice::new(b"pong")])).await;
        }
        drop(server);
    };
    let (client, ()) = tokio::join!(ask, serve);
    let reason = info.transport_failure.borrow().as_ref().map(ToString::to_string);
    Outcome { client, server: info.tls.get().cloned(), reason }
}

async fn shown(context: &Arc<ServerContext>, config: &Arc<ClientConfig>, name: &str) -> String {
    let outcome = visit(context, config, name).await;
    let server = outcome.server.expect("no handshake");
    assert_eq!(
        server.server_name.as_deref(),
        name.parse::<std::net::IpAddr>().is_err().then(|| name.to_ascii_lowercase()).as_deref()
    );
    server.local.as_ref().unwrap().subject.clone()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_by_what_the_client_can() {
    let context = context(&certificates(&["server-rsa", "server", "a", "wild"]), "");
    let any = Arc::new({
        let mut config = client_config();
        config.dangerous().set_certificate_verifier(Arc::new(Anyone));
        config.resumption = Resumption::disabled();
        config
    });
    for (name, subject) in [
        ("a.test", "CN=a"),
        ("A.TEST", "CN=a"),
        ("x.wild.test", "CN=wild"),
        ("x.y.wild.test", "CN=server-rsa"),
        ("wild.test", "CN=server-rsa"),
        ("unknown.test", "CN=server-rsa"),
        // RSA and ECDSA of one name.
        ("server.test", "CN=server"),
        // No name: the first ECDSA.
        ("127.0.0.1", "CN=server"),
    ] {
        assert_eq!(shown(&context, &any, name).await, subject, "{name}");
    }
    let rsa = Arc::new({
        let mut config = client_config();
        config.dangerous().set_certificate_verifier(Arc::new(OnlyRsa));
        config.resumption = Resumption::disabled();
        config
    });
    assert_eq!(shown(&context, &rsa, "server.test").await, "CN=server-rsa");
    let refused = visit(&context, &rsa, "a.test").await;
    assert!(refused.client.is_err());
    assert!(refused.reason.is_some());
}

#[tokio::test]
async fn sessions_are_resumed_as_configured() {
    for (own, resumes_12, resumes_13) in [
        ("", true, true),
        (r#", "disable_stateless_session_resumption": true"#, true, false),
        (
            r#", "disable_stateless_session_resumption": true, "disable_stateful_session_resumption": true"#,
            false,
            false,
        ),
    ] {
        let context = context(&certificates(&["server"]), own);
        for (version, resumes) in
            [(&rustls::version::TLS12, resumes_12), (&rustls::version::TLS13, resumes_13)]
        {
            let config = Arc::new(
                ClientConfig::builder_with_protocol_versions(&[version])
                    .with_root_certificates(roots())
                    .with_no_client_auth(),
            );
            let first = visit(&context, &config, "server.test").await;
            assert!(!first.client.unwrap().resumed);
            let second = visit(&context, &config, "server.test").await;
            assert_eq!(second.client.unwrap().resumed, resumes, "{version:?} {own}");
            assert_eq!(second.server.unwrap().resumed, resumes);
        }
    }
}

#[tokio::test]
async fn clients_show_their_certificate() {
    let trust = format!(r#", "validation_context": {{"trusted_ca": {{"filename": "{CERTS}/ca.pem"}}}}"#);
    let require = r#", "require_client_certificate": true"#;
    let context = context(&format!("{}{trust}", certificates(&["server"])), require);
    let with = |name: &str| {
        let chain = CertificateDer::pem_file_iter(format!("{CERTS}/{name}.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{CERTS}/{name}.key")).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots());
        Arc::new(builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap())
    };
    let config = with("client");
    for resumed in [false, true] {
        let outcome = visit(&context, &config, "server.test").await;
        let server = outcome.server.unwrap();
        assert_eq!(server.resumed, resumed);
        let peer = server.peer.as_ref().unwrap();
        assert_eq!(peer.subject, "CN=client,O=Acme\\, Inc,C=DE");
        assert_eq!(peer.uri_sans, ["spiffe://test/client"]);
        assert!(server.peer_validated);
    }
    let counters = context.stats.counters();
    assert_eq!(context.stats.value("sigalgs", "ecdsa_secp256r1_sha256"), 1);

    let none = visit(&context, &Arc::new(client_config()), "server.test").await;
    assert!(none.client.is_err());
    assert!(none.reason.unwrap().contains("PEER_DID_NOT_RETURN_A_CERTIFICATE"));
    assert_eq!(counters.fail_verify_no_cert().value(), 1);

    let stranger = visit(&context, &with("stranger"), "server.test").await;
    assert!(stranger.client.is_err());
    let reason = stranger.reason.unwrap();
    assert!(reason.ends_with("unable to get local issuer certificate:TLS_error_end"), "{reason}");
    assert_eq!(counters.fail_verify_error().value(), 1);
    assert_eq!(counters.connection_error().value(), 0);
}

#[tokio::test]
async fn changed_files_are_taken_over_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let put = |name: &str| {
        fs::copy(format!("{CERTS}/{name}.pem"), at("cert.pem")).unwrap();
        fs::copy(format!("{CERTS}/{name}.key"), at("key.pem")).unwrap();
    };
    put("server");
    let context = context(
        &format!(
            r#""tls_certificates": [{{"certificate_chain": {{"filename": "{}"}}, "private_key": {{"filename": "{}"}}}}]"#,
            at("cert.pem"),
            at("key.pem")
        ),
        "",
    );
    assert_eq!(context.files().len(), 2);
    assert!(context.files().contains(Path::new(&at("key.pem"))));
    let config = Arc::new(client_config());
    assert_eq!(shown(&context, &config, "server.test").await, "CN=server");
    assert_eq!(context.refresh(), Ok(false));

    // Half of a change, nothing, and garbage.
    fs::copy(format!("{CERTS}/server-rsa.pem"), at("cert.pem")).unwrap();
    let error = context.refresh().unwrap_err();
    assert!(error.contains("not belong"), "{error}");
    fs::write(at("cert.pem"), "garbage").unwrap();
    assert!(context.refresh().is_err());
    fs::remove_file(at("cert.pem")).unwrap();
    assert!(context.refresh().unwrap_err().contains("cert.pem"));
    let fresh = Arc::new(client_config());
    assert_eq!(shown(&context, &fresh, "server.test").await, "CN=server");

    put("server-rsa");
    assert_eq!(context.refresh(), Ok(true));
    let fresh = Arc::new(client_config());
    assert_eq!(shown(&context, &fresh, "server.test").await, "CN=server-rsa");
    // A session of before is still good.
    assert!(visit(&context, &config, "server.test").await.client.unwrap().resumed);
    assert_eq!(context.listing().chain[0].info.subject, "CN=server-rsa");
}

/// Verifies nothing.
#[derive(Debug)]
struct Anyone;

/// Verifies nothing, and only RSA.
#[derive(Debug)]
struct OnlyRsa;

macro_rules! verifies_nothing {
    ($verifier:ty, $schemes:expr) => {
        impl rustls::client::danger::ServerCertVerifier for $verifier {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: rustls::pki_types::UnixTime,
            ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
                Ok(rustls::client::danger::ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }

            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }

            fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
                $schemes
            }
        }
    };
}

verifies_nothing!(
    Anyone,
    vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::RSA_PSS_SHA256]
);
verifies_nothing!(OnlyRsa, vec![rustls::SignatureScheme::RSA_PSS_SHA256]);

#[test]
fn resets_are_known_to_whoever_has_the_certificate() {
    let key = |name: &str| context(&certificates(&[name]), "").reset_key().unwrap();
    let names: Vec<_> = fs::read_dir(CERTS)
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().path().file_name()?.to_str()?.strip_suffix(".key")?.to_owned())
        })
        .filter(|name| Path::new(&format!("{CERTS}/{name}.pem")).exists() && !name.contains("ca"))
        .collect();
    let [one, other, ..] = &names[..] else { panic!("{names:?}") };
    assert_eq!(key(one), key(one));
    assert_ne!(key(one), key(other));
}
