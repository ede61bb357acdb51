//! The built-in HTTP filters, end to end.

use integration_tests::config::filter;
use integration_tests::{Config, End, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const HEADER_MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const RATE_LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

fn set(name: &str, value: &str) -> Value {
    json!({"append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
}

#[test]
fn header_mutation_changes_both_sides_and_routes_add_to_it() {
    let origin = Origin::ok();
    let mutations = json!({"mutations": {
        "request_mutations": [{"remove": "x-gone"}, set("x-up", "filter")],
        "response_mutations": [set("x-down", "filter")],
    }});
    let route = json!({"typed_per_filter_config": {"mutate": {
        "@type": format!("type.googleapis.com/{HEADER_MUTATION}PerRoute"),
        "mutations": {"request_mutations": [set("x-route", "route")], "response_mutations": [set("x-down", "route")]},
    }}});
    let config = Config::new(origin.address())
        .filters(json!([filter("mutate", HEADER_MUTATION, mutations)]))
        .route(route);
    let proxy = Proxy::start(&config);
    let response = proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\nx-gone: 1\r\n\r\n");
    assert_eq!(response.headers("x-down"), ["route"]);
    let seen = origin.request();
    assert_eq!(
        (seen.header("x-gone"), seen.header("x-up"), seen.header("x-route")),
        (None, Some("filter"), Some("route"))
    );
}

#[test]
fn header_mutation_reaches_local_replies() {
    let origin = Origin::ok();
    let mutations = json!({"mutations": {"response_mutations": [set("x-down", "1")]}});
    let config = Config::new(origin.address())
        .filters(json!([filter("mutate", HEADER_MUTATION, mutations)]))
        .virtual_host(json!({"routes": []}));
    let response = Proxy::start(&config).get("/");
    assert_eq!((response.status, response.header("x-down")), (404, Some("1")));
}

#[test]
fn buffer_gives_a_chunked_body_its_length() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).filters(json!([filter(
        "buffer",
        BUFFER,
        json!({"max_request_bytes": 100})
    )]));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = origin.request();
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("6"), None));
    assert_eq!(seen.body, b"abcdef");
}

#[test]
fn buffer_refuses_what_is_too_large() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).filters(json!([filter(
        "buffer",
        BUFFER,
        json!({"max_request_bytes": 10})
    )]));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n").send("a".repeat(20));
    let response = client.response();
    assert_eq!(
        (response.status, response.text().as_str(), response.closes()),
        (413, "Payload Too Large", true)
    );
    assert_ne!(client.end(), End::Open);
    assert_eq!(origin.connections(), 0);
}

fn rate_limit(tokens: u32) -> Value {
    let all = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": all,
        "filter_enforced": all,
        "response_headers_to_add": [{"header": {"key": "x-limited", "value": "1"}}],
    })
}

#[test]
fn local_ratelimit_refuses_beyond_its_tokens() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).filters(json!([filter("limit", RATE_LIMIT, rate_limit(3))]));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.ask(GET).status, 200);
    }
    for _ in 0..2 {
        let response = client.ask(GET);
        assert_eq!((response.status, response.text().as_str()), (429, "local_rate_limited"));
        assert_eq!(response.header("x-limited"), Some("1"));
    }
    assert_eq!(origin.requests().len(), 3);
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("limit.http_local_rate_limit.{name}"));
    assert_eq!((count("enabled"), count("ok"), count("rate_limited"), count("enforced")), (5, 3, 2, 2));
}

#[test]
fn local_ratelimit_counts_over_all_workers() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).filters(json!([filter("limit", RATE_LIMIT, rate_limit(10))]));
    let options = integration_tests::proxy::Options { concurrency: 4, ..Default::default() };
    let proxy = options.start(&config);
    let passed = (0..40).filter(|_| proxy.get("/").status == 200).count();
    assert_eq!(passed, 10);
}

#[test]
fn a_filter_can_be_disabled_by_a_route() {
    let origin = Origin::ok();
    let off = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
    let config = Config::new(origin.address())
        .filters(json!([filter("limit", RATE_LIMIT, rate_limit(1))]))
        .routes(json!([
            {"match": {"prefix": "/free"}, "route": {"cluster": "origin"}, "typed_per_filter_config": {"limit": off}},
            {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
        ]));
    let proxy = Proxy::start(&config);
    let statuses: Vec<u16> =
        ["/free", "/free", "/", "/", "/free"].iter().map(|path| proxy.get(path).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 200]);
}
