//! HTTP/2 as others speak it: curl, nghttp, h2load and python-h2 are clients; nghttpd, nginx and python-h2 are
//! upstreams. Each test says when it is skipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::peers::{python, script, serve};
use integration_tests::process::{Process, run};
use integration_tests::proxy::Options;
use integration_tests::tls_origin::certificate;
use integration_tests::{Config, H2Client, H2Origin, Nobody, Origin, Proxy, Wire, binary, wait};
use serde_json::{Value, json};

const GET: &str = "GET /large.txt HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn peer(name: &str, variable: &str) -> Option<PathBuf> {
    let found = binary::peer(name, variable)
        .or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|path| path.is_file()));
    if found.is_none() {
        binary::skipped(name);
    }
    found
}

/// Answers with the method and the length of the body.
fn counting() -> Origin {
    Origin::answering(|request| {
        let text = format!("{} {}", request.line().split(' ').next().unwrap_or_default(), request.body.len());
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    })
}

fn auto(address: SocketAddr) -> Config {
    Config::new(address).hcm(json!({"codec_type": "AUTO"}))
}

#[test]
fn curl_speaks_http_2_in_every_way_it_knows() {
    let Some(curl) = peer("curl", "CURL_BIN") else { return };
    let origin = counting();
    let plain = Proxy::start(&auto(origin.address()));
    let tls = Proxy::start(&auto(origin.address()).tls_listener());
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 3 << 20]).unwrap();
    let data = format!("@{}", large.display());
    let plain_url = format!("http://{}/", plain.address);
    let port = tls.address.port();
    let (resolve, tls_url) =
        (format!("server.test:{port}:127.0.0.1"), format!("https://server.test:{port}/"));
    let authority = certificate("ca.pem").display().to_string();
    let secure = ["--cacert", &authority, "--resolve", &resolve];
    let ask = |arguments: &[&[&str]], url: &str| {
        let mut command = Command::new(&curl);
        command.args(["-sS", "--max-time", "20", "-w", " %{http_version} %{http_code}"]);
        command.args(arguments.concat());
        let said = run(command.arg(url));
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        said.stdout
    };
    // `Upgrade: h2c` is not taken up, as Envoy does not.
    assert_eq!(ask(&[&["--http2"]], &plain_url), "GET 0 1.1 200");
    assert_eq!(ask(&[&["--http2-prior-knowledge"]], &plain_url), "GET 0 2 200");
    assert_eq!(
        ask(&[&["--http2-prior-knowledge", "--data-binary", &data]], &plain_url),
        "POST 3145728 2 200"
    );
    assert_eq!(ask(&[&secure], &tls_url), "GET 0 2 200");
    assert_eq!(ask(&[&secure, &["--data-binary", &data]], &tls_url), "POST 3145728 2 200");
    assert_eq!(ask(&[&secure, &["--http1.1"]], &tls_url), "GET 0 1.1 200");
    let head = ask(&[&["--http2-prior-knowledge", "-I"]], &plain_url);
    assert!(head.starts_with("HTTP/2 200"), "{head}");
}

#[test]
fn nghttp_checks_every_frame() {
    let Some(nghttp) = peer("nghttp", "NGHTTP_BIN") else { return };
    let body = "y".repeat(300_000);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let origin = Origin::answering(move |_| answer.clone());
    let proxy = Proxy::start(&auto(origin.address()));
    let url = format!("http://{}/", proxy.address);
    let folder = tempfile::tempdir().unwrap();
    let upload = folder.path().join("upload");
    std::fs::write(&upload, vec![b'x'; 1 << 20]).unwrap();
    let upload = upload.display().to_string();
    for arguments in [&[][..], &["-w16", "-W16"], &["-m20"], &["-d", &upload, "-H", ":method: POST"]] {
        let said = run(Command::new(&nghttp).args(["-t", "20"]).args(arguments).arg(&url));
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        let times = if arguments == ["-m20"] { 20 } else { 1 };
        assert_eq!(said.stdout.trim_end().len(), body.len() * times, "{arguments:?}: {}", said.stderr);
        assert!(!said.stderr.to_lowercase().contains("error"), "{arguments:?}: {}", said.stderr);
    }
    assert_eq!(origin.requests().last().map(|request| request.body.len()), Some(1 << 20));
}

#[test]
fn h2load_sees_no_error() {
    let Some(h2load) = peer("h2load", "H2LOAD_BIN") else { return };
    let one = Origin::ok();
    let two = H2Origin::with(Default::default(), |stream| {
        stream.request();
        stream.answer(200, "ok");
    });
    let folder = tempfile::tempdir().unwrap();
    let upload = folder.path().join("upload");
    std::fs::write(&upload, vec![b'x'; 20_000]).unwrap();
    let upload = upload.display().to_string();
    let load = |config: &Config, scheme: &str, more: &[&str]| {
        let proxy = Options { concurrency: 2, ..Options::default() }.start(config);
        let url = format!("{scheme}://{}/", proxy.address);
        let said = run(Command::new(&h2load).args(["-n", "800", "-c", "8", "-m", "16"]).args(more).arg(&url));
        let whole = "800 total, 800 started, 800 done, 800 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.stdout.contains(whole), "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("status codes: 800 2xx, 0 3xx, 0 4xx, 0 5xx"), "{}", said.stdout);
        proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_http2_total"), 8);
    };
    load(&auto(one.address()), "http", &[]);
    load(&auto(one.address()), "http", &["-d", &upload]);
    load(&auto(one.address()).tls_listener(), "https", &[]);
    load(&auto(two.address()).http2_upstream(json!({})), "http", &["-d", &upload]);
}

/// What python-h2 says of each of its requests.
fn result(status: u16, length: usize, trailers: Value) -> Value {
    json!({"status": status, "length": length, "intact": true, "trailers": trailers, "reset": null})
}

#[test]
fn python_h2_on_both_sides() {
    let Some(python) = python("h2", "H2_PYTHON") else { return binary::skipped("Python with h2") };
    let (_server, address) = serve(&mut script(&python, "h2_server.py"));
    let proxy = Proxy::start(&auto(address).http2_upstream(json!({})));
    let (host, port) = (proxy.address.ip().to_string(), proxy.address.port().to_string());
    let said = run(script(&python, "h2_client.py").args([host, port]));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let mut found: Value = serde_json::from_str(&said.stdout).unwrap();
    // A local reply has a body, and no trailers.
    let reset = found.as_object_mut().unwrap().remove("reset").unwrap();
    assert_eq!((&reset["status"], &reset["trailers"]), (&json!(503), &json!({})));
    let large = 256 * 8192;
    assert_eq!(
        found,
        json!({
            "plain": result(200, 0, json!({"x-length": "0"})),
            "large": result(200, large, json!({"x-length": large.to_string()})),
            "trailed": result(200, 5, json!({"x-length": "5"})),
            "many": 50,
            "refused": result(200, 0, json!({"x-length": "0"})),
            "last": result(200, 0, json!({"x-length": "0"})),
            "after": result(200, 0, json!({"x-length": "0"})),
        })
    );
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_safe_retry_success"), 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 2);
}

/// Many requests from clients of both versions, to a server that has `/large.txt`.
fn fetch_large(proxy: &Proxy, body: &str) {
    std::thread::scope(|scope| {
        for client in 0..8_u32 {
            scope.spawn(move || {
                if client.is_multiple_of(2) {
                    let mut client = proxy.connect();
                    for number in 0..30 {
                        let response = client.ask(GET);
                        assert_eq!(response.status, 200, "{number}");
                        assert!(response.text() == body, "{number}");
                    }
                } else {
                    let client = H2Client::connect(proxy.address);
                    for number in 0..30 {
                        let response = client.ask("/large.txt");
                        assert_eq!(response.status(), 200, "{number}");
                        assert!(response.text() == body, "{number}");
                    }
                }
            });
        }
    });
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), 0);
    assert!(proxy.stat("cluster.origin.upstream_cx_http2_total") > 0);
}

/// What a server refuses at once is asked again at once, as far as `max_retries` (3) allows: these may refuse more.
fn many_retries() -> Value {
    json!({"circuit_breakers": {"thresholds": [{"max_retries": 100}]}})
}

/// Starts a server that cannot choose its port: one that was free a moment ago.
fn start(command: impl FnOnce(SocketAddr) -> Command) -> (Process, SocketAddr) {
    let address = Nobody::new().address();
    let process = Process::start(&mut command(address));
    wait::until("a server", || Wire::try_connect(address).is_ok());
    (process, address)
}

#[test]
fn nghttpd_serves_behind_it() {
    let Some(nghttpd) = peer("nghttpd", "NGHTTPD_BIN") else { return };
    let folder = tempfile::tempdir().unwrap();
    let body = "nghttpd".repeat(10_000);
    std::fs::write(folder.path().join("large.txt"), &body).unwrap();
    for tls in [false, true] {
        let (_process, address) = start(|address| {
            let mut command = Command::new(&nghttpd);
            command.args(["-a", "127.0.0.1", "--echo-upload", "--trailer", "x-trailer: t", "-m", "3", "-d"]);
            command.arg(folder.path());
            if tls {
                command.arg(address.port().to_string());
                command.args([certificate("server.key"), certificate("server.pem")]);
            } else {
                command.arg("--no-tls").arg(address.port().to_string());
            }
            command
        });
        let config = auto(address).http2_upstream(json!({})).cluster(many_retries());
        let proxy = Proxy::start(&if tls { config.tls_upstream() } else { config });
        fetch_large(&proxy, &body);
        let client = H2Client::connect(proxy.address);
        let upload = "z".repeat(200_000);
        let stream = client.post("/echo", upload.as_bytes());
        let response = client.message(stream);
        assert!(response.status() == 200 && response.text() == upload, "{}", response.body.len());
        assert_eq!(response.trailer("x-trailer"), Some("t"));
        assert_eq!(client.ask("/none").status(), 404);
    }
}

/// nginx says GOAWAY after `keepalive_requests`, and no request may be lost to that.
#[test]
fn nginx_serves_http_2_behind_it() {
    let Some(nginx) = peer("nginx", "NGINX_BIN") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let body = "nginx".repeat(20_000);
    std::fs::write(at.join("large.txt"), &body).unwrap();
    let (_process, address) = start(|address| {
        let configuration = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; \
             fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
             server {{ listen {address} http2; root {0}; keepalive_requests 10; }} }}\n",
            at.display()
        );
        std::fs::write(at.join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new(nginx);
        // Its workers must not end up as another user, who may not read the folder.
        command.arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(["-g", "user root;"]);
        command
    });
    let proxy = Proxy::start(&auto(address).http2_upstream(json!({})).cluster(many_retries()));
    fetch_large(&proxy, &body);
    assert!(proxy.stat("cluster.origin.upstream_cx_total") >= 24);
    assert_eq!(H2Client::connect(proxy.address).ask("/none").status(), 404);
}
