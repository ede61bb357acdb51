//! TLS towards clients: handshakes, clean ends, certificates that change, bad input.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use integration_tests::binary::root;
use integration_tests::config::{file_log, text_format};
use integration_tests::{Config, Origin, Proxy, wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const OWN: &str = "type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn certs() -> std::path::PathBuf {
    root().join("crates/testkit/certs")
}

fn pair(name: &str) -> Value {
    let file = |end: &str| json!({"filename": certs().join(format!("{name}.{end}"))});
    json!({"certificate_chain": file("pem"), "private_key": file("key")})
}

fn context(common: Value) -> Value {
    json!({"@type": DOWNSTREAM, "common_tls_context": common})
}

fn socket(typed: Value) -> Value {
    json!({"name": "tls", "typed_config": typed})
}

/// A TLS listener with the certificate `server`; `chain` changes the filter chain.
fn config(origin: &Origin, context: Value) -> Config {
    let mut config = Config::new(origin.address());
    config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = socket(context);
    config
}

fn plain_context() -> Value {
    context(json!({"tls_certificates": [pair("server")]}))
}

fn ssl(name: &str, proxy: &Proxy) -> u64 {
    proxy.stat(&format!("listener.127.0.0.1_0.ssl.{name}"))
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs().join("ca.pem")).unwrap()).unwrap();
    roots
}

fn client_config() -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots()).with_no_client_auth())
}

fn mutual(name: &str) -> Arc<ClientConfig> {
    let chain = CertificateDer::pem_file_iter(certs().join(format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs().join(format!("{name}.key"))).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots());
    Arc::new(builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap())
}

fn connect(proxy: &Proxy, config: &Arc<ClientConfig>) -> Tls {
    let socket = TcpStream::connect(proxy.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let name = ServerName::try_from("server.test").unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket)
}

fn ask(tls: &mut Tls) -> String {
    tls.write_all(GET).unwrap();
    let mut text = String::new();
    while !text.contains("\r\n\r\n") || !text.ends_with("ok") {
        let mut buf = [0; 4096];
        let read = tls.read(&mut buf).unwrap();
        assert!(read > 0, "cut after {text}");
        text.push_str(std::str::from_utf8(&buf[..read]).unwrap());
    }
    text
}

#[test]
fn an_idle_close_is_clean_and_counted() {
    let origin = Origin::ok();
    for (policy, clean) in [("ALWAYS", true), ("NOT_ON_IDLE", false), ("NEVER", false)] {
        let typed = json!({"@type": OWN, "close_notify": policy, "downstream_tls_context": {
            "common_tls_context": {"tls_certificates": [pair("server")]}}});
        let idle = json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0s"});
        let proxy = Proxy::start(&config(&origin, typed).hcm(idle));
        let mut tls = connect(&proxy, &client_config());
        assert!(ask(&mut tls).starts_with("HTTP/1.1 200"));
        // rustls tells a FIN without close_notify apart.
        match tls.read(&mut [0; 10]) {
            Ok(read) => assert!(clean && read == 0, "{policy}"),
            Err(error) => assert!(!clean && error.kind() == ErrorKind::UnexpectedEof, "{policy}: {error}"),
        }
        assert_eq!(proxy.stat("http.ingress.downstream_cx_idle_timeout"), 1);
        proxy.admin.await_stat("http.ingress.downstream_cx_ssl_active", 0);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_ssl_total"), 1);
        assert_eq!(ssl("handshake", &proxy), 1);
        assert_eq!(ssl("close_notify_sent", &proxy), u64::from(clean));
        assert_eq!(ssl("versions.TLSv1.3", &proxy), 1);
        assert_eq!(ssl("curves.X25519MLKEM768", &proxy), 1);
        assert_eq!(ssl("connection_error", &proxy), 0);
    }
}

#[test]
fn python_and_openssl_see_a_clean_end_of_an_idle_connection() {
    let origin = Origin::ok();
    let idle = json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0s"});
    let proxy = Proxy::start(&config(&origin, plain_context()).hcm(idle));
    let ca = certs().join("ca.pem");
    let script = format!(
        r#"
import ssl, socket
context = ssl.create_default_context(cafile="{}")
socket = socket.create_connection(("127.0.0.1", {}))
s = context.wrap_socket(socket, server_hostname="server.test", suppress_ragged_eofs=False)
s.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
assert s.recv(1000).startswith(b"HTTP/1.1 200")
assert s.recv(1000) == b""
s.unwrap()
print("clean")
"#,
        ca.display(),
        proxy.address.port()
    );
    match Command::new("python3").args(["-c", &script]).output() {
        Ok(output) => assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "clean",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => eprintln!("skipped: no python3 ({error})"),
    }
    let openssl = format!(
        "(printf 'GET / HTTP/1.1\\r\\nhost: a.test\\r\\n\\r\\n'; sleep 2) | openssl s_client -connect {} -servername server.test -CAfile {} -verify_return_error -brief 2>&1",
        proxy.address,
        ca.display()
    );
    if Command::new("openssl").arg("version").output().is_err() {
        return eprintln!("skipped: no openssl");
    }
    let output = Command::new("sh").args(["-c", &openssl]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("HTTP/1.1 200") && text.contains("Verification: OK"), "{text}");
    assert!(!text.contains("unexpected eof") && !text.contains("error:"), "{text}");
}

#[test]
fn what_a_client_certificate_says_reaches_the_upstream_and_the_log() {
    let origin = Origin::ok();
    let mut tls = context(json!({
        "tls_certificates": [pair("server")],
        "validation_context": {"trusted_ca": {"filename": certs().join("ca.pem")}},
    }));
    tls["require_client_certificate"] = json!(true);
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("log");
    let format = "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_SUBJECT%|%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n";
    let config = config(&origin, tls)
        .hcm(json!({
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": true, "subject": true},
        }))
        .listener(json!({"access_log": [file_log(&lines, text_format(format))]}));
    let proxy = Proxy::start(&config);
    let mut client = connect(&proxy, &mutual("client"));
    ask(&mut client);
    drop(client);
    let request = &origin.requests()[0];
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    let xfcc = request.header("x-forwarded-client-cert").unwrap();
    assert!(xfcc.starts_with("By=spiffe://test/server;Hash="), "{xfcc}");
    assert!(xfcc.ends_with(r#";Subject="CN=client,O=Acme\, Inc,C=DE";URI=spiffe://test/client"#), "{xfcc}");

    for (config, failure, counter) in [
        (client_config(), "PEER_DID_NOT_RETURN_A_CERTIFICATE", "fail_verify_no_cert"),
        (mutual("stranger"), "unable_to_get_local_issuer_certificate", "fail_verify_error"),
    ] {
        let mut refused = connect(&proxy, &config);
        let _ = refused.write_all(GET);
        assert!(refused.read(&mut [0; 10]).is_err());
        proxy.admin.await_stat(&format!("listener.127.0.0.1_0.ssl.{counter}"), 1);
        let logged = || std::fs::read_to_string(&lines).unwrap_or_default();
        wait::until("the log", || logged().contains(failure));
    }
    assert_eq!(ssl("connection_error", &proxy), 0);
    let text = std::fs::read_to_string(&lines).unwrap();
    assert!(text.starts_with("TLSv1.3 TLS_AES_256_GCM_SHA384 spiffe://test/client CN=server|-\n"), "{text}");
}

#[test]
fn a_refused_client_is_named_in_the_log_and_meets_no_reset() {
    let origin = Origin::ok();
    let mut tls = context(json!({
        "tls_certificates": [pair("server")],
        "validation_context": {"trusted_ca": {"filename": certs().join("ca.pem")}},
    }));
    tls["require_client_certificate"] = json!(true);
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("log");
    let format = text_format(
        "%PROTOCOL% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_ISSUER_SERIAL% %DOWNSTREAM_PEER_SUBJECT%\n",
    );
    let proxy =
        Proxy::start(&config(&origin, tls).listener(json!({"access_log": [file_log(&lines, format)]})));
    let mut refused = connect(&proxy, &mutual("stranger"));
    // The request is written before the alert is read: in TLS 1.3 the client takes its handshake for done.
    refused.write_all(GET).unwrap();
    assert!(refused.read(&mut [0; 10]).is_err());
    let _ = refused.sock.write_all(&[0; 100]);
    assert_eq!(refused.sock.read(&mut [0; 10]).unwrap(), 0);
    drop(refused);
    wait::until("the log", || std::fs::read_to_string(&lines).unwrap_or_default().contains("CN=stranger"));
    let mut accepted = connect(&proxy, &mutual("client"));
    ask(&mut accepted);
    drop(accepted);
    let logged = || std::fs::read_to_string(&lines).unwrap_or_default();
    wait::until("the second line", || logged().lines().count() == 2);
    let text = logged();
    let (first, second) = text.split_once('\n').unwrap();
    assert!(first.starts_with("- TLSv1.3 - "), "{first}");
    // It sent no chain: its issuer is the authority.
    assert!(second.starts_with("HTTP/1.1 TLSv1.3 ") && !second.contains(" - "), "{second}");
}

#[test]
fn what_is_not_tls_of_today_is_refused_as_envoy_refuses_it() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("log");
    let format = text_format("%RESPONSE_CODE% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n");
    let listener = json!({"access_log": [file_log(&lines, format)]});
    let proxy = Proxy::start(&config(&origin, plain_context()).listener(listener));
    // A hello of TLS 1.1, as far as its version.
    let old = [22, 3, 1, 0, 100, 1, 0, 0, 96, 3, 2];
    for (bytes, answer, reason) in [
        (GET, &[][..], "268435612:SSL_routines:OPENSSL_internal:HTTP_REQUEST"),
        (&[0; 100], &[21, 3, 1, 0, 2, 2, 70], "268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER"),
        (&old, &[21, 3, 1, 0, 2, 2, 70], "268435696:SSL_routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL"),
    ] {
        let mut socket = TcpStream::connect(proxy.address).unwrap();
        socket.write_all(bytes).unwrap();
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        assert_eq!(got, answer, "{reason}");
        let line = format!("0 TLS_error:|{reason}:TLS_error_end\n");
        wait::until("the log", || std::fs::read_to_string(&lines).unwrap_or_default().contains(&line));
    }
    proxy.admin.await_stat("listener.127.0.0.1_0.ssl.connection_error", 3);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_ssl_total"), 3);
    // As in Envoy, they exist although nothing comes by a discovery service.
    let all = proxy.admin.get("/stats").text();
    assert!(all.contains("server_ssl_socket_factory.ssl_context_update_by_sds: 0"), "{all}");
    assert!(origin.requests().is_empty());
}

#[test]
fn changed_certificates_are_taken_over_without_dropping_a_connection() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let put = |from: &str, end: &str, to: &str| {
        std::fs::copy(certs().join(format!("{from}.{end}")), at(to)).unwrap();
    };
    put("server", "pem", "cert.pem");
    put("server", "key", "key.pem");
    let certificate = json!({
        "certificate_chain": {"filename": at("cert.pem")},
        "private_key": {"filename": at("key.pem")},
    });
    let proxy = Proxy::start(&config(&origin, context(json!({"tls_certificates": [certificate]}))));
    let mut old = connect(&proxy, &client_config());
    ask(&mut old);
    let shown = |tls: &Tls| tls.conn.peer_certificates().unwrap()[0].to_vec();
    let first = shown(&old);

    std::fs::write(at("cert.pem"), "garbage").unwrap();
    wait::until("the warning", || proxy.log().contains("changed certificate files refused"));
    let mut still = connect(&proxy, &client_config());
    ask(&mut still);
    assert_eq!(shown(&still), first);

    put("server-rsa", "key", "key.pem");
    put("server-rsa", "pem", "cert.pem");
    wait::until("the new certificate", || {
        let mut new = connect(&proxy, &client_config());
        ask(&mut new);
        shown(&new) != first
    });
    // A reload of the same file leaves connections alone, too.
    assert_eq!(proxy.admin.post("/reload").status, 200);
    ask(&mut old);
    ask(&mut still);
    let certs = proxy.admin.get("/certs").text();
    let certs: Value = serde_json::from_str(&certs).unwrap();
    assert_eq!(certs["certificates"][0]["cert_chain"][0]["subject_alt_names"][0]["dns"], "server.test");
    assert!(proxy.stat("server.days_until_first_cert_expiring") > 30_000);
}

#[test]
fn a_handshake_that_stalls_at_any_byte_ends_in_time_and_leaves_nothing() {
    let origin = Origin::ok();
    let mut config = config(&origin, plain_context());
    config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket_connect_timeout"] =
        json!("0.5s");
    let proxy = Proxy::start(&config);
    let hello = {
        let mut client =
            ClientConnection::new(client_config(), ServerName::try_from("server.test").unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    };
    let descriptors = || proxy.process.descriptors();
    let before = descriptors();
    let begun = Instant::now();
    let stalled: Vec<_> = (0..hello.len())
        .step_by(16)
        .map(|length| {
            let mut socket = TcpStream::connect(proxy.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.write_all(&hello[..length]).unwrap();
            socket
        })
        .collect();
    let count = stalled.len() as u64;
    for mut socket in stalled {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let timeouts = "listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout";
    proxy.admin.await_stat(timeouts, count);
    assert_eq!(ssl("connection_error", &proxy), 0);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_destroy_local"), count);
    // 64 KB of garbage in a record that claims to be a handshake.
    let mut socket = TcpStream::connect(proxy.address).unwrap();
    let _ = socket.write_all(&[22, 3, 1, 0x40, 0]);
    let _ = socket.write_all(&[0xa5; 64 * 1024]);
    let _ = socket.read_to_end(&mut Vec::new());
    proxy.admin.await_stat("listener.127.0.0.1_0.ssl.connection_error", 1);
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    wait::until("closed descriptors", || descriptors() <= before);
}

#[test]
fn sessions_are_resumed_and_counted() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin, plain_context()));
    let config = client_config();
    for _ in 0..3 {
        ask(&mut connect(&proxy, &config));
    }
    assert_eq!((ssl("handshake", &proxy), ssl("session_reused", &proxy)), (3, 2));
}

#[test]
fn one_crypto_provider_is_built_in() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"aws-lc-rs\""));
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "tidegate", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output();
    let Ok(tree) = tree else { return eprintln!("skipped: no cargo") };
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(!tree.lines().any(|line| line.starts_with("ring ")), "{tree}");
}

#[test]
fn a_context_takes_its_certificate_and_its_trust_from_static_secrets() {
    let origin = Origin::ok();
    let named = context(json!({
        "tls_certificate_sds_secret_configs": {"name": "own"},
        "validation_context_sds_secret_config": {"name": "clients"},
    }));
    let secrets = json!([
        {"name": "clients", "validation_context": {"trusted_ca": {"filename": certs().join("ca.pem")}}},
        {"name": "own", "tls_certificate": pair("server")},
    ]);
    let config = config(&origin, named).bootstrap(json!({"static_resources": {"secrets": secrets}}));
    let proxy = Proxy::start(&config);
    let mut tls = connect(&proxy, &mutual("client"));
    assert!(ask(&mut tls).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(ssl("no_certificate", &proxy), 0);
    let shown = proxy.admin.get("/config_dump?resource=static_secrets");
    let shown: Value = serde_json::from_slice(&shown.body).unwrap();
    // A kind after the other, without what is secret.
    assert_eq!(shown["configs"][0]["name"], "own");
    assert_eq!(shown["configs"][0]["secret"]["tls_certificate"]["private_key"]["filename"], "[redacted]");
    assert_eq!(shown["configs"][1]["name"], "clients");
}
