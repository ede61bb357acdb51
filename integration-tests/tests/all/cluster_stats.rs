//! `track_cluster_stats`, and what a host's numbers say of gRPC calls. Figures without a clock in them are Envoy's for
//! the same bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use integration_tests::h2::{H2Origin, Manners};
use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::{Value, json};

const GET: &str = "GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok";
const NO: &str = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";

fn tracking(origin: SocketAddr, what: &Value) -> Config {
    Config::new(origin)
        .bootstrap(json!({"stats_flush_interval": "0.05s"}))
        .cluster(json!({"track_cluster_stats": what}))
}

/// Sums and counts of the cluster's tracked histograms, once `name` has `count` records.
fn tracked(proxy: &Proxy, name: &str, count: u64) -> BTreeMap<String, u64> {
    wait::until_some("the histograms", || {
        let page = proxy.admin.get("/stats/prometheus").text();
        let values: BTreeMap<String, u64> = page.lines().filter_map(value).collect();
        (values.get(&format!("{name}_count")) == Some(&count)).then_some(values)
    })
}

fn value(line: &str) -> Option<(String, u64)> {
    let (name, rest) = line.strip_prefix("envoy_cluster_upstream_")?.split_once('{')?;
    let kept = name.ends_with("_sum") || name.ends_with("_count");
    let number = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
    kept.then(|| (name.to_owned(), number as u64))
}

fn sums(values: &BTreeMap<String, u64>, side: &str) -> [u64; 3] {
    ["headers_size", "headers_count", "body_size"].map(|what| values[&format!("{side}_{what}_sum")])
}

#[test]
fn sizes_of_requests_and_responses() {
    for (request, expected) in [(GET, [148, 7, 0]), (POST, [164, 8, 5])] {
        let origin = Origin::saying(ANSWER);
        let proxy = Proxy::start(&tracking(origin.address(), &json!({"request_response_sizes": true})));
        assert_eq!(proxy.connect().ask(request).status, 200);
        let values = tracked(&proxy, "rs_body_size", 1);
        assert_eq!(sums(&values, "rq"), expected);
        assert_eq!(sums(&values, "rs"), [29, 3, 2]);
        assert!(!values.contains_key("rq_timeout_budget_percent_used_count"));
    }
}

#[test]
fn each_try_is_measured() {
    let origin = Origin::script(|mut peer| {
        for answer in [NO, ANSWER] {
            peer.request();
            peer.send(answer);
        }
    });
    let what = json!({"request_response_sizes": true, "timeout_budgets": true});
    let policy = json!({"route": {"retry_policy": {"retry_on": "5xx"}}});
    let proxy = Proxy::start(&tracking(origin.address(), &what).route(policy));
    assert_eq!(proxy.connect().ask(POST).status, 200);
    let values = tracked(&proxy, "rs_body_size", 2);
    assert_eq!((values["rq_headers_count_count"], values["rq_body_size_sum"]), (2, 10));
    assert_eq!(sums(&values, "rs"), [29 + 25, 5, 2]);
    assert_eq!(values["rq_timeout_budget_per_try_percent_used_count"], 2);
    assert_eq!(values["rq_timeout_budget_percent_used_count"], 1);
}

/// A request that nobody took has a size, and used up no share of the route's time.
#[test]
fn a_refused_connection_is_measured_without_an_answer() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let what = json!({"request_response_sizes": true, "timeout_budgets": true});
    let proxy = Proxy::start(&tracking(gone, &what));
    assert_eq!(proxy.connect().ask(POST).status, 503);
    let values = tracked(&proxy, "rq_headers_count", 1);
    assert_eq!(sums(&values, "rq"), [164, 8, 0]);
    assert_eq!(values.get("rs_headers_count_count").copied().unwrap_or(0), 0);
    assert_eq!(values["rq_timeout_budget_per_try_percent_used_count"], 1);
    assert_eq!(values.get("rq_timeout_budget_percent_used_count").copied().unwrap_or(0), 0);
}

#[test]
fn budgets_of_requests_that_were_too_late() {
    let silent = || Origin::script(|mut peer| while peer.request().is_some() {});
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.05s"});
    for (route, budgets, of_tries) in [
        // The try that the route's time ends is no measure of its own time.
        (json!({"timeout": "0.1s"}), [100, 1], 0),
        (json!({"timeout": "0s", "retry_policy": policy}), [0, 1], 2),
    ] {
        let origin = silent();
        // The deprecated name.
        let config = tracking(origin.address(), &Value::Null).cluster(json!({"track_timeout_budgets": true}));
        let proxy = Proxy::start(&config.route(json!({"route": route})));
        assert_eq!(proxy.connect().ask(GET).status, 504);
        let values = tracked(&proxy, "rq_timeout_budget_percent_used", budgets[1]);
        assert!(values["rq_timeout_budget_percent_used_sum"] >= budgets[0], "{values:?}");
        let tries = values.get("rq_timeout_budget_per_try_percent_used_count").copied();
        assert_eq!(tries.unwrap_or(0), of_tries);
        assert!(of_tries == 0 || values["rq_timeout_budget_per_try_percent_used_sum"] >= 200, "{values:?}");
    }
}

fn host_numbers(proxy: &Proxy) -> [u64; 2] {
    let page = proxy.admin.get("/clusters").text();
    ["rq_success", "rq_error"].map(|name| {
        let line = page.lines().find_map(|line| line.rsplit_once(&format!("::{name}::")));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).1.parse().unwrap()
    })
}

#[test]
fn a_grpc_calls_status_is_its_hosts() {
    const REPLY: (&str, &str) = ("content-type", "application/grpc");
    for (status, expected) in [("0", [2, 0]), ("5", [2, 0]), ("14", [0, 2]), ("2", [0, 2]), ("99", [0, 2])] {
        let origin = H2Origin::with(Manners::default(), move |stream| {
            let request = stream.request();
            if request.header(":path") == Some("/only") {
                return stream.head(200, &[REPLY, ("grpc-status", status)], true);
            }
            stream.head(200, &[REPLY], false);
            stream.body("x", false);
            stream.trailers(&[("grpc-status", status)]);
        });
        let config = Config::new(origin.address()).cluster_http(
            json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}}}),
        );
        let proxy = Proxy::start(&config);
        for path in ["/only", "/trailers"] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n");
            assert_eq!(proxy.connect().ask(&format!("{head}content-length: 0\r\n\r\n")).status, 200);
        }
        assert_eq!(host_numbers(&proxy), expected, "{status}");
        assert_eq!(proxy.stat("cluster.origin.upstream_rq_2xx"), 2);
    }
}

/// Whatever it was: that another one was asked for in its place says that it did not do.
#[test]
fn an_answer_that_is_replaced_is_its_hosts_error() {
    let origin = Origin::script(|mut peer| {
        for answer in ["HTTP/1.1 409 No\r\ncontent-length: 0\r\n\r\n", ANSWER] {
            peer.request();
            peer.send(answer);
        }
    });
    let policy = json!({"route": {"retry_policy": {"retry_on": "retriable-4xx"}}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(policy));
    assert_eq!(proxy.connect().ask(GET).status, 200);
    assert_eq!(host_numbers(&proxy), [1, 1]);
}

/// The counters are Envoy's for the same requests.
#[test]
fn canaries_and_zones_are_counted_apart() {
    let origin = Origin::script(|mut peer| {
        for answer in [ANSWER, NO] {
            peer.request();
            peer.send(answer);
        }
    });
    let port = origin.address().port();
    let host = json!({
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
        "metadata": {"filter_metadata": {"envoy.lb": {"canary": true}}},
    });
    let places = json!([{"locality": {"zone": "there"}, "lb_endpoints": [host]}]);
    let config = Config::new(origin.address())
        .bootstrap(json!({"node": {"locality": {"zone": "here"}}}))
        .cluster(json!({"load_assignment": {"cluster_name": "origin", "endpoints": places}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    assert_eq!([client.ask(GET).status, client.ask(GET).status], [200, 503]);
    for scope in ["canary", "zone.here.there"] {
        let counts = ["200", "2xx", "503", "5xx", "completed"];
        let counts = counts.map(|name| proxy.stat(&format!("cluster.origin.{scope}.upstream_rq_{name}")));
        assert_eq!(counts, [1, 1, 1, 1, 2], "{scope}");
        let time = format!("cluster.origin.{scope}.upstream_rq_time: P0");
        let printed = || proxy.admin.get("/stats?filter=upstream_rq_time").text().contains(&time);
        wait::until("the time", printed);
    }
    let shown = proxy.admin.get("/clusters").text();
    assert!(shown.contains(&format!("origin::127.0.0.1:{port}::canary::true")), "{shown}");
}

#[test]
fn an_answer_may_say_that_it_is_a_canarys() {
    let origin =
        Origin::saying("HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: true\r\ncontent-length: 0\r\n\r\n");
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").header("x-envoy-upstream-canary"), Some("true"));
    assert_eq!(proxy.stat("cluster.origin.canary.upstream_rq_200"), 1);
    assert!(proxy.admin.get("/clusters").text().contains("::canary::false"));
}
