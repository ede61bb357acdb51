//! The custom build: a filter from another crate with an asynchronous callout.

use integration_tests::config::{cluster, filter};
use integration_tests::proxy::Options;
use integration_tests::{Config, End, Nobody, Origin, Proxy, binary};
use serde_json::json;

const CALLOUT: &str = "example.filters.http.callout.v1.Callout";
const GREETING: &str = "example.filters.http.greeting.v1.Greeting";

fn start(config: &Config) -> Proxy {
    Options { binary: binary::custom_proxy(), ..Options::default() }.start(config)
}

/// Allows what has a key.
fn service() -> Origin {
    Origin::answering(|request| {
        let status = if request.header("x-key") == Some("good") { "200 OK" } else { "403 Forbidden" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsaid")
    })
}

#[test]
fn a_callout_decides_about_each_request() {
    let (origin, service) = (Origin::ok(), service());
    let clusters = [cluster("origin", &[origin.address()]), cluster("authz", &[service.address()])];
    let callout = json!({"cluster": "authz", "path_prefix": "/check", "timeout": "10s",
                         "forward_headers": ["x-key"], "deny_status": 401});
    let config = Config::with_clusters(&clusters).filters(json!([
        filter("greet", GREETING, json!({"text": "hello"})),
        filter("ask", CALLOUT, callout),
    ]));
    let proxy = start(&config);
    let mut client = proxy.connect();
    let allowed = client.ask("POST /a?b HTTP/1.1\r\nhost: a\r\nx-key: good\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!((allowed.status, allowed.header("x-greeting")), (200, Some("hello")));
    assert_eq!(origin.request().body, b"body");
    assert_eq!(service.request().path(), "/check/a?b");

    let denied = client.ask("GET / HTTP/1.1\r\nhost: a\r\nx-key: bad\r\n\r\n");
    assert_eq!(
        (denied.status, denied.text().as_str(), denied.header("x-greeting")),
        (401, "said", Some("hello"))
    );
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(service.connections(), 1, "callouts use the cluster's pool");
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("http.ingress.callout.allowed"), 1);
    assert_eq!(stats.get("http.ingress.callout.denied"), 1);
    assert_eq!(stats.get("cluster.authz.upstream_rq_total"), 2);
}

#[test]
fn a_service_that_is_down_is_failed_closed() {
    let (origin, nobody) = (Origin::ok(), Nobody::new());
    let clusters = [cluster("origin", &[origin.address()]), cluster("authz", &[nobody.address()])];
    let config = Config::with_clusters(&clusters).filters(json!([filter(
        "ask",
        CALLOUT,
        json!({"cluster": "authz", "timeout": "10s"})
    )]));
    let proxy = start(&config);
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!(proxy.stat("http.ingress.callout.failed"), 1);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_client_that_leaves_cancels_the_callout() {
    let origin = Origin::ok();
    let service = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let clusters = [cluster("origin", &[origin.address()]), cluster("authz", &[service.address()])];
    let config = Config::with_clusters(&clusters).filters(json!([filter(
        "ask",
        CALLOUT,
        json!({"cluster": "authz", "timeout": "60s"})
    )]));
    let proxy = start(&config);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    service.await_requests(1);
    client.reset();
    integration_tests::wait::until("the callout's end", || service.open_connections() == 0);
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
}

#[test]
fn it_serves_what_the_standard_binary_serves() {
    let origin = Origin::ok();
    assert_eq!(start(&Config::new(origin.address())).get("/").text(), "ok");
}

#[test]
fn a_network_filter_stands_before_a_terminal_one() {
    let preamble =
        filter("preamble", "example.filters.network.preamble.v1.Preamble", json!({"text": "HELO\n"}));
    let echo = filter("echo", "envoy.extensions.filters.network.echo.v3.Echo", json!({}));
    let chain = json!({"filter_chains": [{"filters": [preamble, echo]}]});
    let proxy = start(&Config::new(Nobody::new().address()).listener(chain));
    let mut client = proxy.connect();
    client.send("HELO\nhello");
    assert_eq!(client.exactly(5).unwrap(), b"hello");
    assert_eq!(client.send("more").exactly(4).unwrap(), b"more");
    let mut stranger = proxy.connect();
    stranger.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(stranger.end(), End::Fin);
    assert_eq!((proxy.stat("preamble.accepted"), proxy.stat("preamble.refused")), (1, 1));
}
