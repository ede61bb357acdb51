//! Every file in `config-examples`: it validates, the book names it, and it does what it is for.

use std::process::Command;

use integration_tests::examples::{self, Running};
use integration_tests::process::run;
use integration_tests::proxy::Options;
use integration_tests::tls_origin::{Answer, TlsOrigin};
use integration_tests::{Nobody, Origin, Response, binary, documents};

#[test]
fn every_example_validates() {
    let mut command = Command::new(binary::tidegate());
    // The files that one of them watches are named from there.
    let said = run(command.current_dir(binary::root()).arg("validate").args(examples::all()));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn every_example_is_named_by_the_book() {
    let book: String =
        documents::files(binary::root()).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for example in examples::all() {
        let name = example.strip_prefix(binary::root()).unwrap().to_str().unwrap();
        assert!(book.contains(name), "no page names {name}");
    }
}

#[test]
fn every_example_does_what_it_is_for() {
    behaviour(&Options::default());
    let own = examples::start("connection-reuse.json", &Options::default(), &[]);
    assert_eq!(get(&own, "a.test", "/orders", "").text(), "one");
}

#[test]
fn messages_of_our_own_are_refused_when_strict() {
    let file = binary::root().join("config-examples/connection-reuse.json");
    let arguments = ["--mode", "validate", "--envoy-strict", "-c"];
    let said = run(Command::new(binary::tidegate()).args(arguments).arg(file));
    assert_eq!(said.code, Some(1));
    for own in ["`tidegate.connection_reuse` is Tidegate's own", "the router's own message for single routes"]
    {
        assert!(said.stderr.contains(own), "{}", said.stderr);
    }
}

/// What the examples do, on any proxy that reads them.
#[track_caller]
pub(crate) fn behaviour(options: &Options) {
    minimal(options);
    routing(options);
    headers(options);
    static_site(options);
    edge(options);
    websocket(options);
    unix_socket(options);
    tls_upstream(options);
    tcp_proxy(options);
    consistent_hashing(options);
    outlier_detection(options);
    let plain = [
        "overload.json",
        "timeouts-and-retries.json",
        "retries.json",
        "http2.json",
        "grpc.json",
        "circuit-breakers.json",
        "health-checks.json",
        "access-log.json",
        "runtime.json",
        "happy-eyeballs.json",
        "monitoring/tidegate.json",
    ];
    proxy_protocol(options);
    sni_chains(options);
    for name in plain {
        let running = examples::start(name, options, &[]);
        let text = get(&running, "a.test", "/", "").text();
        assert!(text == "one" || text == "two", "{name}: {text}");
    }
}

#[track_caller]
fn get(running: &Running, host: &str, path: &str, headers: &str) -> Response {
    running.proxy.connect().ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n"))
}

/// Of three hosts one fails, and then another one is not there.
fn outlier_detection(options: &Options) {
    let bad = Origin::answering(|_| "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_owned());
    let (good, nobody) = (Origin::named("one"), Nobody::new());
    for (first, statuses) in [(bad.address(), [500, 500, 500]), (nobody.address(), [200, 200, 200])] {
        let ports = [first.port(), good.address().port(), good.address().port()].map(|port| port.to_string());
        let replace = [("8001", &*ports[0]), ("8002", &*ports[1]), ("8003", &*ports[2])];
        let running = examples::start("outlier-detection.json", options, &replace);
        assert_eq!(get(&running, "a.test", "/healthz", "").status, 200);
        let mut answers: Vec<_> = (0..9).map(|_| get(&running, "a.test", "/", "").status).collect();
        answers.sort_unstable();
        assert_eq!(answers[6..], statuses);
        running.proxy.admin.await_stat("cluster.backend.outlier_detection.ejections_active", 1);
        assert!((0..9).all(|_| get(&running, "a.test", "/", "").text() == "one"));
        // Two of three are enough.
        assert_eq!(get(&running, "a.test", "/healthz", "").status, 200);
    }
}

fn proxy_protocol(options: &Options) {
    let running = examples::start("proxy-protocol.json", options, &[]);
    for (client, expected) in [("192.0.2.7", "two"), ("198.51.100.7", "one")] {
        let header = format!("PROXY TCP4 {client} 203.0.113.1 5000 80\r\n");
        let answer = running.proxy.connect().ask(&format!("{header}GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!(answer.text(), expected);
    }
}

fn sni_chains(options: &Options) {
    let running = examples::start("sni-chains.json", options, &[]);
    assert_eq!(get(&running, "a.test", "/", "").text(), "one");
}

fn tls_upstream(options: &Options) {
    let origin = TlsOrigin::new("server", Answer::Keep);
    let port = origin.address().port().to_string();
    let running = examples::start("tls-upstream.json", options, &[("18443", &port)]);
    assert_eq!(get(&running, "a.test", "/", "").status, 200);
    assert_eq!(get(&running, "server.test", "/by-host/", "").status, 200);
    assert_eq!(get(&running, "a.test", "/by-host/", "").status, 503);
    let running = examples::start("mixed-tls.json", options, &[("18443", &port)]);
    let mut answers = [(); 2].map(|()| get(&running, "a.test", "/", "").text());
    answers.sort();
    assert_eq!(answers, ["ok", "one"]);
}

#[track_caller]
fn minimal(options: &Options) {
    for name in ["minimal.json", "minimal.yaml"] {
        let running = examples::start(name, options, &[]);
        assert_eq!(get(&running, "a.test", "/", "").text(), "one", "{name}");
    }
}

fn routing(options: &Options) {
    let running = examples::start("routing.json", options, &[]);
    let www = "www.example.com";
    let bare = get(&running, "example.com", "/a?b", "");
    assert_eq!((bare.status, bare.header("location")), (301, Some("http://www.example.com/a?b")));
    assert_eq!(get(&running, www, "/healthz", "").text(), "ok\n");
    assert_eq!(get(&running, www, "/x", "x-beta: 1\r\n").text(), "two");
    get(&running, www, "/api/v1/users", "");
    assert_eq!(running.one.requests().pop().unwrap().path(), "/v1/users");
    get(&running, www, "/items/42", "");
    assert_eq!(running.one.requests().pop().unwrap().path(), "/item?id=42");
    let old = get(&running, "any.example.com", "/old/page", "");
    assert_eq!((old.status, old.header("location")), (308, Some("http://any.example.com/new/page")));
    get(&running, "else.test", "/", "");
    assert_eq!(running.one.requests().pop().unwrap().header("host"), Some(www));
}

fn headers(options: &Options) {
    let running = examples::start("headers.json", options, &[]);
    let response = get(&running, "a.test", "/api", "x-user: me\r\nx-debug: 1\r\n");
    assert_eq!(response.header("server"), Some("gate"));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(response.header("x-upstream").unwrap(), running.one.address().to_string());
    let seen = running.one.request();
    assert_eq!((seen.header("x-tenant"), seen.header("x-client")), (Some("me"), Some("127.0.0.1")));
    assert_eq!(seen.header("x-debug"), None);
}

fn static_site(options: &Options) {
    let running = examples::start("static-site.json", options, &[]);
    let page = get(&running, "a.test", "/", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(get(&running, "a.test", "/else", "").status, 404);
}

fn edge(options: &Options) {
    let running = examples::start("edge.json", options, &[]);
    let redirected = get(&running, "a.test", "/a%2fb", "");
    assert_eq!((redirected.status, redirected.header("location")), (307, Some("/a/b")));
    assert_eq!(get(&running, "a.test", "/", "x_y: 1\r\n").status, 400);
    get(&running, "a.test", "/a//b/../c", "x-forwarded-for: 1.2.3.4\r\n");
    let seen = running.one.request();
    assert_eq!((seen.path(), seen.header("host")), ("/a/c", Some("a.test")));
    assert!(seen.header("x-forwarded-for").unwrap().starts_with("1.2.3.4,"));
    assert_eq!(seen.header("x-envoy-external-address"), Some("127.0.0.1"));
}

fn websocket(options: &Options) {
    let running = examples::start("websocket.json", options, &[]);
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\n";
    assert_eq!(get(&running, "a.test", "/", upgrade).status, 403);
    // This upstream knows no WebSocket; that it was asked is what counts.
    get(&running, "a.test", "/chat", upgrade);
    assert_eq!(running.one.request().header("upgrade"), Some("websocket"));
}

fn unix_socket(options: &Options) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut wire = integration_tests::Wire::new(stream);
            while wire.request().is_some() {
                wire.send(integration_tests::origin::OK);
            }
        }
    });
    let running = examples::start("unix-socket.json", options, &[("/run/app.sock", path.to_str().unwrap())]);
    assert_eq!(get(&running, "a.test", "/", "").text(), "ok");
}

fn tcp_proxy(options: &Options) {
    let running = examples::start("tcp-proxy.json", options, &[]);
    let answers: Vec<String> = (0..40).map(|_| running.proxy.get("/").text()).collect();
    assert!(answers.iter().any(|answer| answer == "one") && answers.iter().any(|answer| answer == "two"));
}

fn consistent_hashing(options: &Options) {
    let running = examples::start("consistent-hashing.json", options, &[]);
    let first = running.proxy.get("/").text();
    assert!((0..20).all(|_| running.proxy.get("/").text() == first));
}
