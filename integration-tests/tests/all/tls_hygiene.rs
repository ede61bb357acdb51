//! What a scanner would look for: versions and ciphers that are not offered, clean ends for common clients, and
//! what bad beginnings leave behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::process::run;
use integration_tests::tls_origin::certificate;
use integration_tests::{Config, Origin, Proxy, binary, wait};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::listener_filters::client_hello;

const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// A TLS listener with an ECDSA and an RSA certificate, so that no cipher is missing for want of a key.
fn config(origin: &Origin, chain: Value) -> Config {
    let mut config = Config::new(origin.address());
    let pair = |name: &str| {
        json!({"certificate_chain": {"filename": certificate(&format!("{name}.pem"))},
               "private_key": {"filename": certificate(&format!("{name}.key"))}})
    };
    let place = &mut config.0["static_resources"]["listeners"][0]["filter_chains"][0];
    place["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": DOWNSTREAM,
        "common_tls_context": {"tls_certificates": [pair("server"), pair("server-rsa")]},
    }});
    integration_tests::config::merge(place, chain);
    config
}

/// What `openssl s_client` says with these arguments, and whether it got a session.
fn openssl(tool: &Path, proxy: &Proxy, arguments: &[&str]) -> (bool, String) {
    let address = proxy.address.to_string();
    let mut command = Command::new(tool);
    command.args(["s_client", "-brief", "-connect", &address, "-servername", "server.test"]);
    let said = run(command.args(arguments));
    (said.code == Some(0), said.stdout + &said.stderr)
}

#[test]
fn old_versions_and_weak_ciphers_are_not_offered() {
    let Some(tool) = binary::peer("openssl", "OPENSSL_BIN") else { return binary::skipped("openssl") };
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin, json!({})));
    for version in ["-tls1", "-tls1_1"] {
        let (connected, said) = openssl(&tool, &proxy, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!connected, "{version}: {said}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (connected, said) = openssl(&tool, &proxy, &[version]);
        assert!(connected && said.contains(&format!("Protocol version: {name}")), "{said}");
    }
    // Each cipher that openssl knows of TLS 1.2, one by one.
    let known =
        run(Command::new(&tool).args(["ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]));
    let names: Vec<&str> = known.stdout.trim().split(':').collect();
    assert!(names.len() > 30, "{names:?}");
    let offered: Vec<&str> = names
        .into_iter()
        .filter(|name| openssl(&tool, &proxy, &["-tls1_2", "-cipher", &format!("{name}:@SECLEVEL=0")]).0)
        .collect();
    assert!(offered.len() >= 4, "{offered:?}");
    for name in offered {
        let forward_secret = name.starts_with("ECDHE-");
        let sealed = name.contains("GCM") || name.contains("CHACHA20");
        assert!(forward_secret && sealed, "{name}");
    }
    assert_eq!(proxy.stat("listener.127.0.0.1_0.ssl.versions.TLSv1"), 0);
}

#[test]
fn python_and_openssl_see_a_clean_idle_close_in_both_versions() {
    let origin = Origin::ok();
    let idle = json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0s"});
    let proxy = Proxy::start(&config(&origin, json!({})).hcm(idle));
    let ca = certificate("ca.pem");
    let script = r#"
import ssl, socket, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.maximum_version = context.minimum_version = getattr(ssl.TLSVersion, sys.argv[3])
for request in (b"", b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    s = context.wrap_socket(s, server_hostname="server.test", suppress_ragged_eofs=False)
    if request:
        s.sendall(request)
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    assert s.recv(1000) == b""
    s.unwrap()
print("clean")
"#;
    match binary::peer("python3", "PYTHON_BIN") {
        None => binary::skipped("python3"),
        Some(python) => {
            for version in ["TLSv1_2", "TLSv1_3"] {
                let port = proxy.address.port().to_string();
                let said = run(Command::new(&python).args(["-c", script]).arg(&ca).args([&port, version]));
                assert_eq!(said.stdout.trim(), "clean", "{version}: {}", said.stderr);
            }
        }
    }
    let Some(tool) = binary::peer("openssl", "OPENSSL_BIN") else { return binary::skipped("openssl") };
    for version in ["-tls1_2", "-tls1_3"] {
        // Its input stays open: the end is the proxy's.
        let line = format!(
            "(printf 'GET / HTTP/1.1\\r\\nhost: a.test\\r\\n\\r\\n'; sleep 3) | {} s_client {version} -connect {} -servername server.test -CAfile {} -verify_return_error -brief 2>&1",
            tool.display(),
            proxy.address,
            ca.display()
        );
        let text = run(Command::new("sh").args(["-c", &line])).stdout;
        assert!(text.contains("HTTP/1.1 200") && text.contains("Verification: OK"), "{text}");
        assert!(!text.contains("unexpected eof") && !text.contains("error:"), "{text}");
    }
}

#[test]
fn bad_beginnings_end_in_time_and_leave_no_memory() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin, json!({"transport_socket_connect_timeout": "0.5s"})));
    let hello = {
        let name = ServerName::try_from("server.test").unwrap();
        let roots = rustls::RootCertStore::empty();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    };
    let garbage = [&[22, 3, 1, 0x40, 0][..], &[0xa5; 64 * 1024]].concat();
    let round = |stalls: &[usize]| {
        let open = |bytes: &[u8]| {
            let mut socket = TcpStream::connect(proxy.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let _ = socket.write_all(bytes);
            socket
        };
        let mut sockets: Vec<_> = stalls.iter().map(|length| open(&hello[..*length])).collect();
        // A client that leaves in its hello; one that shouts; one that asks for what nobody has.
        let truncated = open(&hello[..hello.len() / 2]);
        truncated.shutdown(std::net::Shutdown::Write).unwrap();
        sockets.extend([truncated, open(&garbage), open(&client_hello("a.test"))]);
        for mut socket in sockets {
            let _ = socket.read_to_end(&mut Vec::new());
        }
    };
    let settled = || {
        proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
        proxy.admin.await_stat("listener.127.0.0.1_0.downstream_cx_active", 0);
    };
    let stalls: Vec<usize> = (0..hello.len()).collect();
    let begun = Instant::now();
    round(&stalls);
    assert!(begun.elapsed() >= Duration::from_millis(495) && begun.elapsed() < Duration::from_secs(20));
    settled();
    let ssl = |name: &str| proxy.stat(&format!("listener.127.0.0.1_0.{name}"));
    assert_eq!(ssl("downstream_cx_transport_socket_connect_timeout"), stalls.len() as u64);
    assert_eq!(ssl("ssl.connection_error"), 2);
    assert_eq!(ssl("ssl.handshake"), 0);
    // The first round has made what is made once; the others leave nothing.
    let (descriptors, memory) = (proxy.process.descriptors(), proxy.process.resident_bytes());
    for _ in 0..3 {
        round(&stalls);
    }
    settled();
    wait::until("closed descriptors", || proxy.process.descriptors() <= descriptors);
    let grown = proxy.process.resident_bytes().saturating_sub(memory);
    // A few KB for each would be more: the hello alone is that long.
    assert!(grown < 16 << 20, "{} handshakes left {grown} bytes", 3 * stalls.len());
    assert_eq!(proxy.admin.get("/ready").status, 200);
}
