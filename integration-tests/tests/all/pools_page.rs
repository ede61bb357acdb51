//! The admin page `/pools`, and what pools learn of their hosts' idle timeouts.

use std::time::Duration;

use integration_tests::origin::OK;
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, Origin, Proxy, wait};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn page(proxy: &Proxy) -> Value {
    let reply = proxy.admin.get("/pools");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    reply.json()
}

/// The only pool of the only host of the first cluster, once it looks like that.
fn pool(proxy: &Proxy, looks: impl Fn(&Value) -> bool) -> Value {
    wait::until_some("a pool", || {
        let pool = page(proxy)["clusters"][0]["hosts"][0]["pools"][0].clone();
        looks(&pool).then_some(pool)
    })
}

/// What was learned of the only host, once something was.
fn learned(proxy: &Proxy) -> u64 {
    wait::until_some("a lesson", || page(proxy)["clusters"][0]["hosts"][0]["learned_idle_ms"].as_u64())
}

/// Closes connections that idle for `limit`.
fn impatient(limit: Duration) -> Origin {
    Origin::script(move |mut peer| {
        while !peer.wire.is_quiet_for(limit) && peer.request().is_some() {
            peer.send(OK);
        }
    })
}

#[test]
fn it_shows_limits_and_what_each_pool_holds() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 2, "max_pending_requests": 7, "max_requests": 9});
    let config = Config::new(origin.address())
        .cluster(json!({"circuit_breakers": {"thresholds": [limits]}}))
        .cluster(json!({"typed_extension_protocol_options": {"tidegate.connection_reuse": {
            "@type": "type.googleapis.com/tidegate.upstreams.v1.ConnectionReuse", "max_connecting": 5}}}));
    let proxy = Proxy::start(&config);
    let empty = page(&proxy);
    let cluster = &empty["clusters"][0];
    assert_eq!(cluster["name"], "origin");
    assert_eq!(
        cluster["limits"]["default"],
        json!({
            "max_connections": 2, "max_pending_requests": 7, "max_requests": 9, "max_retries": 3,
            "max_connection_pools": null, "max_connecting": 5,
            "remaining": {
                "max_connections": 2, "max_pending_requests": 7, "max_requests": 9, "max_retries": 3,
                "max_connection_pools": null, "max_connecting": 5,
            },
        })
    );
    assert_eq!(cluster["limits"]["high"]["max_connections"], 1024);
    let address = origin.address().to_string();
    assert_eq!(
        cluster["hosts"],
        json!([{
            "address": address, "health": "healthy", "ejected_ms_left": null, "learned_idle_ms": null, "last_close_reasons": [],
            "pools": [],
        }])
    );

    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    let full = pool(&proxy, |pool| pool["busy"] == 2 && pool["pending"] == 1);
    assert_eq!(
        full,
        json!({
            "worker": 0, "protocol": "http1", "connecting": 0, "ready": 0, "busy": 2, "draining": 0,
            "streams": 2, "pending": 1, "idle_age_ms": {"p50": null, "p90": null, "max": null},
            "learned_idle_ms": null, "last_close_reasons": [],
        })
    );
    let remaining = &page(&proxy)["clusters"][0]["limits"]["default"]["remaining"];
    assert_eq!((&remaining["max_connections"], &remaining["max_pending_requests"]), (&json!(0), &json!(6)));

    gate.open(3);
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    let idle = pool(&proxy, |pool| pool["ready"] == 2 && pool["streams"] == 0);
    assert!(idle["idle_age_ms"]["p50"].as_u64() <= idle["idle_age_ms"]["max"].as_u64());

    let text = proxy.admin.get("/pools?format=text");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=UTF-8"));
    for line in [
        "origin::default_priority::max_connections::2".to_owned(),
        "origin::default_priority::remaining::max_connections::0".to_owned(),
        format!("origin::{address}::health::healthy"),
        format!("origin::{address}::worker_0::http1::ready::2"),
        format!("origin::{address}::worker_0::http1::pending::0"),
    ] {
        assert!(text.text().lines().any(|other| other == line), "{line} in {}", text.text());
    }
    assert_eq!(proxy.admin.get("/pools?filter=nobody").json(), json!({"clusters": []}));
    assert_eq!(proxy.admin.get("/pools?filter=(").status, 400);
}

#[test]
fn it_asks_every_worker() {
    let origin = Origin::ok();
    let proxy = Options { concurrency: 3, ..Options::default() }.start(&Config::new(origin.address()));
    let mut seen = std::collections::BTreeSet::new();
    // The kernel spreads connections over workers as it likes.
    for _ in 0..200 {
        assert_eq!(proxy.get("/").status, 200);
        let page = page(&proxy);
        assert!(page.get("missing_workers").is_none());
        let pools = page["clusters"][0]["hosts"][0]["pools"].as_array().unwrap().clone();
        seen.extend(pools.iter().map(|pool| pool["worker"].as_u64().unwrap()));
        if seen.len() == 3 {
            break;
        }
    }
    assert_eq!(Vec::from_iter(seen), [0, 1, 2]);
}

#[test]
fn what_a_server_announces_is_its_limit() {
    let origin =
        Origin::saying("HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=100\r\ncontent-length: 0\r\n\r\n");
    let proxy = Proxy::start(&Config::new(origin.address()));
    let response = proxy.get("/");
    assert_eq!((response.status, response.header("keep-alive")), (200, None));
    assert_eq!(pool(&proxy, |pool| pool["ready"] == 1)["learned_idle_ms"], 5_000);
}

#[test]
fn the_age_at_which_a_server_closes_is_its_limit() {
    let origin = impatient(Duration::from_millis(300));
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").status, 200);
    let learned = learned(&proxy);
    assert!((290..2_000).contains(&learned), "{learned} ms");
    // It outlives the pool, which went with its connection.
    assert_eq!(page(&proxy)["clusters"][0]["hosts"][0]["pools"], json!([]));
    let text = proxy.admin.get("/pools?format=text").text();
    assert!(text.contains(&format!("::learned_idle_ms::{learned}\n")), "{text}");
}

#[test]
fn nothing_is_learned_where_that_is_off() {
    let off = json!({"typed_extension_protocol_options": {"tidegate.connection_reuse": {
        "@type": "type.googleapis.com/tidegate.upstreams.v1.ConnectionReuse", "learn_idle": false}}});
    let strict = Options { arguments: vec!["--envoy-strict".to_owned()], ..Options::default() };
    for (options, change) in [(Options::default(), off), (strict, json!({}))] {
        let origin = Origin::saying("HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n");
        let proxy = options.start(&Config::new(origin.address()).cluster(change));
        assert_eq!(proxy.get("/").status, 200);
        assert_eq!(pool(&proxy, |pool| pool["ready"] == 1)["learned_idle_ms"], Value::Null);
    }
}
