//! When an attempt counts, and for whom: retries that wait, time-outs between attempts, what follows a 1xx, mirrors,
//! gRPC responses that are cut. As by Envoy 1.40.

use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::config::cluster;
use integration_tests::{Config, Nobody, Origin, Proxy};
use serde_json::json;

const FAILED: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nwait: 60\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn stats(proxy: &Proxy, names: &[&str]) -> Vec<u64> {
    let stats = proxy.admin.stats();
    names.iter().map(|name| stats.get(&format!("cluster.origin.upstream_rq_{name}"))).collect()
}

/// A value of `/clusters`, of the host at `address`.
fn host_stat(proxy: &Proxy, cluster: &str, address: std::net::SocketAddr, name: &str) -> u64 {
    let line = format!("{cluster}::{address}::{name}::");
    let page = proxy.admin.get("/clusters");
    let value = page.text().lines().find_map(|found| found.strip_prefix(&line)?.parse().ok());
    value.unwrap_or_else(|| panic!("{line} in {}", page.text()))
}

/// A retry counts when it is made; a time that is over before that is the route's alone, and no code of an attempt.
#[test]
fn a_retry_that_never_comes_is_none() {
    let origin = Origin::answering(|_| FAILED.to_owned());
    let limited = json!({"reset_headers": [{"name": "wait", "format": "SECONDS"}]});
    let policy = json!({"retry_on": "5xx", "rate_limited_retry_back_off": limited});
    let route = json!({"route": {"timeout": "0.2s", "retry_policy": policy}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(route));
    let response = proxy.get("/");
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    let none = ["retry", "retry_backoff_ratelimited", "timeout", "504", "5xx", "completed"];
    assert_eq!(stats(&proxy, &none), [0; 6]);
    assert_eq!(stats(&proxy, &["total"]), [1]);
    assert_eq!(proxy.stat("cluster.origin.retry.upstream_rq_503"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_5xx"), 1);
}

/// One that comes counts with its kind.
#[test]
fn a_retry_that_is_made_counts() {
    let asked = AtomicUsize::new(0);
    let origin = Origin::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => FAILED.to_owned(),
        _ => OK.to_owned(),
    });
    let policy = json!({"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}});
    let proxy =
        Proxy::start(&Config::new(origin.address()).route(json!({"route": {"retry_policy": policy}})));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(
        stats(&proxy, &["retry", "retry_backoff_exponential", "retry_success", "total"]),
        [1, 1, 1, 2]
    );
}

/// The client was told something: no other attempt may tell it again, and its end is no missing answer.
#[test]
fn nothing_is_retried_after_a_1xx() {
    let origin = Origin::script(|mut wire| {
        if wire.request().is_some() {
            wire.send("HTTP/1.1 103 Early Hints\r\n\r\n");
        }
    });
    let policy = json!({"route": {"retry_policy": {"retry_on": "5xx,reset"}}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(policy));
    let response = proxy.get("/");
    assert_eq!(
        (response.status, response.text().as_str()),
        (
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        )
    );
    assert_eq!(stats(&proxy, &["total", "retry", "retry_limit_exceeded", "503"]), [1, 0, 0, 0]);
    assert_eq!(host_stat(&proxy, "origin", origin.address(), "rq_error"), 0);
}

#[test]
fn a_mirror_that_is_refused_is_an_error_of_its_host() {
    let (origin, nobody) = (Origin::ok(), Nobody::new());
    let clusters = [cluster("origin", &[origin.address()]), cluster("mirror", &[nobody.address()])];
    let mirrors = json!({"route": {"request_mirror_policies": [{"cluster": "mirror"}]}});
    let proxy = Proxy::start(&Config::with_clusters(&clusters).route(mirrors));
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.mirror.upstream_rq_503", 1);
    assert_eq!(host_stat(&proxy, "mirror", nobody.address(), "rq_error"), 1);
}

/// However it is cut.
#[test]
fn a_cut_grpc_response_counts_as_reset_after_its_start() {
    let origin = Origin::script(|mut wire| {
        if wire.request().is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\npart");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(
        "POST /s/m HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
    );
    client.end();
    proxy.admin.await_stat("http.ingress.rq_reset_after_downstream_response_started", 1);
}
