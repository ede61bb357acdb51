//! Clusters whose hosts are wherever requests were going.

use integration_tests::config::filter;
use integration_tests::proxy::Options;
use integration_tests::{Config, Origin, Proxy, examples, wait};
use serde_json::{Value, json};

const PROXY: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";

fn cluster(lb: Value) -> Value {
    json!({
        "name": "origin",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1s",
        "cleanup_interval": "0.2s",
        "original_dst_lb_config": lb,
    })
}

fn stat(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("cluster.origin.{name}"))
}

fn ask(proxy: &Proxy, head: &str) -> integration_tests::Response {
    let mut client = proxy.connect();
    client.send(format!("{head}\r\n\r\n"));
    client.response()
}

#[test]
fn a_header_says_where_to_go() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::start(&Config::with_clusters(&[cluster(json!({"use_http_header": true}))]));
    let to =
        |to: &str| ask(&proxy, &format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-original-dst-host: {to}"));
    assert_eq!(to(&one.address().to_string()).text(), "one");
    assert_eq!(to(&two.address().to_string()).text(), "two");
    wait::until("both are there", || stat(&proxy, "membership_total") == 2);
    // They have connections: nobody takes those away.
    assert_eq!(to(&one.address().to_string()).text(), "one");
    assert_eq!(to("nonsense").status, 503);
    assert_eq!(ask(&proxy, "GET / HTTP/1.1\r\nhost: a.test").status, 503);
    assert_eq!(stat(&proxy, "original_dst_host_invalid"), 1);
    assert_eq!(stat(&proxy, "upstream_cx_none_healthy"), 2);
    assert_eq!(to("127.0.0.1:1").status, 503);
    wait::until("what cannot be reached came and left", || {
        stat(&proxy, "membership_change") >= 3 && stat(&proxy, "membership_total") == 2
    });
}

#[test]
fn hosts_leave_when_nobody_goes_there() {
    let origin = Origin::ok();
    let lb = json!({"use_http_header": true, "http_header_name": "X-To"});
    let idle = json!({"common_http_protocol_options": {"idle_timeout": "0.1s"}});
    let proxy = Proxy::start(&Config::with_clusters(&[cluster(lb)]).cluster(idle));
    let head = format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-to: {}", origin.address());
    assert_eq!(ask(&proxy, &head).status, 200);
    wait::until("it left", || {
        stat(&proxy, "membership_change") >= 2 && stat(&proxy, "membership_total") == 0
    });
}

#[test]
fn a_restored_address_is_where_to_go() {
    let origin = Origin::named("one");
    let listener = json!({"listener_filters": [filter("pp", PROXY, json!({}))]});
    let proxy = Proxy::start(&Config::with_clusters(&[cluster(json!({}))]).listener(listener));
    let request = "GET / HTTP/1.1\r\nhost: a.test";
    let port = origin.address().port();
    let restored = format!("PROXY TCP4 192.0.2.1 127.0.0.1 7 {port}\r\n{request}");
    assert_eq!(ask(&proxy, &restored).text(), "one");
    // Without addresses the connection was going to the proxy itself.
    let response = ask(&proxy, &format!("PROXY UNKNOWN\r\n{request}"));
    assert_eq!((response.status, response.text()), (503, "no healthy upstream".into()));
}

#[test]
fn the_example_works() {
    let running = examples::start("original-dst.json", &Options::default(), &[]);
    assert_eq!(running.proxy.get("/").status, 503);
    let to = running.two.address();
    let head = format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-original-dst-host: {to}");
    assert_eq!(ask(&running.proxy, &head).text(), "two");
}
