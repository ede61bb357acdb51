//! Header mutation by routes, virtual hosts and route configurations.

use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

fn add(name: &str, value: &str, action: &str) -> Value {
    json!({"header": {"key": name, "value": value}, "append_action": action})
}

const OVERWRITE: &str = "OVERWRITE_IF_EXISTS_OR_ADD";
const APPEND: &str = "APPEND_IF_EXISTS_OR_ADD";

#[test]
fn three_levels_add_in_the_order_route_host_configuration() {
    let origin = Origin::ok();
    let level = |name: &str| {
        json!({
            "request_headers_to_add": [add("x-all", name, APPEND), add("x-last", name, OVERWRITE)],
            "response_headers_to_add": [add("x-all", name, APPEND), add("x-last", name, OVERWRITE)],
        })
    };
    let config = Config::new(origin.address())
        .route(level("route"))
        .virtual_host(level("host"))
        .route_config(level("configuration"));
    let response = Proxy::start(&config).get("/");
    let seen = origin.request();
    let all: Vec<&str> = seen.head.lines().filter_map(|line| line.strip_prefix("x-all: ")).collect();
    assert_eq!(all, ["route", "host", "configuration"]);
    assert_eq!(seen.header("x-last"), Some("configuration"));
    assert_eq!(response.headers("x-all"), ["route", "host", "configuration"]);
    assert_eq!(response.headers("x-last"), ["configuration"]);
}

#[test]
fn the_most_specific_level_can_win() {
    let origin = Origin::ok();
    let level = |name: &str| json!({"request_headers_to_add": [add("x-last", name, OVERWRITE)]});
    let config = Config::new(origin.address())
        .route(level("route"))
        .virtual_host(level("host"))
        .route_config(level("configuration"))
        .route_config(json!({"most_specific_header_mutations_wins": true}));
    Proxy::start(&config).get("/");
    assert_eq!(origin.request().header("x-last"), Some("route"));
}

#[test]
fn append_actions_do_what_they_are_named() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).route(json!({"request_headers_to_add": [
        add("x-append", "new", APPEND),
        add("x-over", "new", OVERWRITE),
        add("x-absent", "new", "ADD_IF_ABSENT"),
        add("x-present", "new", "ADD_IF_ABSENT"),
        add("x-exists", "new", "OVERWRITE_IF_EXISTS"),
        add("x-not", "new", "OVERWRITE_IF_EXISTS"),
    ]}));
    let proxy = Proxy::start(&config);
    proxy.connect().ask(
        "GET / HTTP/1.1\r\nhost: a\r\nx-append: old\r\nx-over: old\r\nx-present: old\r\nx-exists: old\r\n\r\n",
    );
    let seen = origin.request();
    let all: Vec<&str> = seen.head.lines().filter_map(|line| line.strip_prefix("x-append: ")).collect();
    assert_eq!(all, ["old", "new"]);
    assert_eq!(seen.header("x-over"), Some("new"));
    assert_eq!(seen.header("x-absent"), Some("new"));
    assert_eq!(seen.header("x-present"), Some("old"));
    assert_eq!(seen.header("x-exists"), Some("new"));
    assert_eq!(seen.header("x-not"), None);
}

#[test]
fn headers_are_removed_on_both_sides() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nx-gone: 1\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n");
    let config = Config::new(origin.address()).virtual_host(
        json!({"request_headers_to_remove": ["X-Gone"], "response_headers_to_remove": ["X-Gone"]}),
    );
    let proxy = Proxy::start(&config);
    let response = proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\nx-gone: 1\r\nx-kept: 1\r\n\r\n");
    assert_eq!((response.header("x-gone"), response.header("x-kept")), (None, Some("1")));
    let seen = origin.request();
    assert_eq!((seen.header("x-gone"), seen.header("x-kept")), (None, Some("1")));
}

#[test]
fn local_reply_config_rewrites_the_answer() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).virtual_host(json!({"routes": []})).hcm(json!({"local_reply_config": {
        "mappers": [{
            "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 404, "runtime_key": "x"}}}},
            "status_code": 410,
            "headers_to_add": [add("x-m", "1", APPEND)],
        }],
        "body_format": {"text_format_source": {"inline_string": "gone %RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n"}},
    }}));
    let response = Proxy::start(&config).get("/");
    assert_eq!((response.status, response.header("x-m")), (410, Some("1")));
    assert_eq!(response.text(), "gone 410 route_not_found\n");
}

#[test]
fn format_operators_are_filled_in() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).route(json!({
        "name": "the-route",
        "request_headers_to_add": [
            add("x-format", "%REQ(x-in)%|%PROTOCOL%|%UPSTREAM_CLUSTER%|%ROUTE_NAME%|100%%", APPEND),
            add("x-empty", "%REQ(x-missing)%", APPEND),
        ],
        "response_headers_to_add": [add("x-code", "%RESPONSE_CODE%|%UPSTREAM_HOST%", APPEND)],
    }));
    let proxy = Proxy::start(&config);
    let response = proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\nx-in: 1\r\n\r\n");
    let seen = origin.request();
    assert_eq!(seen.header("x-format"), Some("1|HTTP/1.1|origin|the-route|100%"));
    assert_eq!(seen.header("x-empty"), None);
    assert_eq!(response.header("x-code").unwrap(), format!("200|{}", origin.address()));
}

#[test]
fn route_level_mutations_reach_local_replies() {
    let config = Config::with_clusters(&[integration_tests::config::cluster("origin", &[])])
        .virtual_host(json!({"response_headers_to_add": [add("x-flags", "%RESPONSE_FLAGS%", APPEND)]}));
    let response = Proxy::start(&config).get("/");
    assert_eq!((response.status, response.header("x-flags")), (503, Some("UH")));
}

fn preserve_case(options: Value) -> Value {
    let mut config = json!({"@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"});
    integration_tests::config::merge(&mut config, options);
    json!({"header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": config}}})
}

#[test]
fn names_reach_the_other_side_as_they_were_written() {
    let origin =
        Origin::saying("HTTP/1.1 200 Okey Dokey\r\nConTent-LenGth: 2\r\nX-fOO: a\r\nx-Foo: b\r\n\r\nhi");
    let request = "POST /a HTTP/1.1\r\nHoSt: a\r\nContent-LENGTH: 2\r\nX-aBc: 1\r\nx-AbC: 2\r\n\r\nhi";
    let added = json!({
        "request_headers_to_add": [add("x-added", "1", APPEND)],
        "response_headers_to_add": [add("x-added", "1", APPEND)],
    });
    let config = Config::new(origin.address())
        .virtual_host(added)
        .hcm(json!({"http_protocol_options": preserve_case(json!({}))}))
        .cluster_http(json!({"explicit_http_config": {"http_protocol_options": preserve_case(
            json!({"forward_reason_phrase": true, "formatter_type_on_envoy_headers": "PROPER_CASE"}))}}));
    let proxy = Proxy::start(&config);
    let response = proxy.connect().ask(request);
    let seen = origin.request().head;
    for line in
        ["HoSt: a", "Content-LENGTH: 2", "X-aBc: 1", "X-aBc: 2", "x-added: 1", "x-forwarded-proto: http"]
    {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert!(response.head.starts_with("HTTP/1.1 200 Okey Dokey\r\n"), "{}", response.head);
    for line in ["ConTent-LenGth: 2", "X-fOO: a", "X-fOO: b", "X-Added: 1", "Server: envoy"] {
        assert!(response.head.contains(&format!("\r\n{line}\r\n")), "{line} in {}", response.head);
    }
    assert!(response.head.contains("\r\nX-Envoy-Upstream-Service-Time: "), "{}", response.head);
}

#[test]
fn written_names_are_those_of_their_own_side_only() {
    let origin = Origin::saying("HTTP/1.1 200 Okey Dokey\r\nConTent-LenGth: 2\r\n\r\nhi");
    let config = Config::new(origin.address())
        .hcm(json!({"http_protocol_options": preserve_case(json!({"forward_reason_phrase": true}))}))
        .cluster_http(json!({"explicit_http_config": {"http_protocol_options":
            {"header_key_format": {"proper_case_words": {}}}}}));
    let response = Proxy::start(&config).connect().ask("GET /a HTTP/1.1\r\nHOST: a\r\n\r\n");
    // What the request brings along comes before what the cluster says.
    let seen = origin.request().head;
    assert!(seen.contains("\r\nHOST: a\r\n") && seen.contains("\r\nx-forwarded-proto: http\r\n"), "{seen}");
    assert!(response.head.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"), "{}", response.head);
}
