//! Which route a request takes, and what routes do: redirects, rewrites, direct responses, weights.

use std::collections::BTreeMap;

use integration_tests::config::cluster;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

/// A proxy whose routes answer with their number: which one took the request.
fn numbered(matches: &[Value]) -> Proxy {
    let answer = |(number, matcher): (usize, &Value)| json!({"match": matcher, "direct_response": {"status": 200, "body": {"inline_string": number.to_string()}}});
    let routes: Vec<Value> = matches.iter().enumerate().map(answer).collect();
    Proxy::start(&Config::with_clusters(&[]).routes(json!(routes)))
}

/// The number of the route, `-` for none.
#[track_caller]
fn taken(proxy: &Proxy, target: &str, headers: &str) -> String {
    let response = proxy.connect().ask(&format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{headers}\r\n"));
    if response.status == 404 { "-".to_owned() } else { response.text() }
}

#[track_caller]
fn targets(matches: &[Value], expected: &[(&str, &str)]) {
    let proxy = numbered(matches);
    for (target, number) in expected {
        assert_eq!(taken(&proxy, target, ""), *number, "{target}");
    }
}

#[test]
fn paths() {
    targets(
        &[json!({"path": "/exact"}), json!({"path_separated_prefix": "/sep"}), json!({"prefix": "/pre"})],
        &[
            ("/exact", "0"),
            ("/exact?x", "0"),
            ("/exact/", "-"),
            ("/EXACT", "-"),
            ("/sep", "1"),
            ("/sep/x", "1"),
            ("/sep?x", "1"),
            ("/separate", "-"),
            ("/prefix", "2"),
            ("/%70re", "-"),
        ],
    );
}

#[test]
fn regular_expressions_match_the_whole_path() {
    targets(
        &[json!({"safe_regex": {"regex": "/a/[0-9]+"}})],
        &[("/a/1", "0"), ("/a/1?q", "0"), ("/a/1/", "-"), ("/b/a/1", "-")],
    );
}

#[test]
fn the_first_match_wins() {
    targets(
        &[json!({"prefix": "/a"}), json!({"path": "/a/b"}), json!({"prefix": "/"})],
        &[("/a/b", "0"), ("/a", "0"), ("/x", "2")],
    );
}

#[test]
fn case_can_be_ignored() {
    targets(
        &[
            json!({"prefix": "/foo", "case_sensitive": false}),
            json!({"path": "/Bar", "case_sensitive": false}),
        ],
        &[("/FOO/x", "0"), ("/bAR", "1"), ("/bARx", "-")],
    );
}

#[test]
fn headers() {
    let on = |matcher: Value| json!({"prefix": "/", "headers": [matcher]});
    let proxy = numbered(&[
        on(json!({"name": "x-a", "string_match": {"exact": "1"}})),
        on(json!({"name": "x-b", "present_match": true})),
        on(json!({"name": "x-e", "range_match": {"start": 1, "end": 5}})),
        on(json!({"name": ":method", "string_match": {"exact": "POST"}})),
        on(json!({"name": "x-f", "string_match": {"safe_regex": {"regex": "a.c"}}})),
        on(
            json!({"name": "x-g", "string_match": {"prefix": "p"}, "invert_match": true, "treat_missing_header_as_empty": false}),
        ),
    ]);
    for (headers, number) in [
        ("x-a: 1\r\n", "0"),
        ("x-a: 2\r\n", "-"),
        ("X-B:\r\n", "1"),
        ("x-e: 4\r\n", "2"),
        ("x-e: 5\r\n", "-"),
        ("x-f: abc\r\n", "4"),
        ("x-f: abcd\r\n", "-"),
        ("x-g: q\r\n", "5"),
        ("x-g: pq\r\n", "-"),
    ] {
        assert_eq!(taken(&proxy, "/", headers), number, "{headers:?}");
    }
}

#[test]
fn query_parameters() {
    let on = |matcher: Value| json!({"prefix": "/", "query_parameters": [matcher]});
    let proxy = numbered(&[
        on(json!({"name": "a", "string_match": {"exact": "1"}})),
        on(json!({"name": "b", "present_match": true})),
    ]);
    for (target, number) in [
        ("/?a=1", "0"),
        ("/?x&a=1&y", "0"),
        ("/?a=1&a=2", "0"),
        ("/?a=2&a=1", "-"),
        ("/?a=%31", "-"),
        ("/?b", "1"),
        ("/?A=1", "-"),
        ("/", "-"),
    ] {
        assert_eq!(taken(&proxy, target, ""), number, "{target}");
    }
}

#[test]
fn a_fraction_of_zero_and_of_all() {
    let fraction = |numerator: u32| json!({"prefix": "/", "runtime_fraction": {"default_value": {"numerator": numerator}}});
    targets(&[fraction(0), fraction(100)], &[("/", "1")]);
}

#[test]
fn hosts() {
    let host = |(name, domains): &(&str, Value)| {
        json!({"name": name, "domains": domains, "routes": [{
            "match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}},
        }]})
    };
    let hosts = [
        ("star", json!(["*"])),
        ("prefix", json!(["foo.*", "foo.b.*"])),
        ("suffix", json!(["*.bar.com", "*-x.com"])),
        ("longer", json!(["*.a.bar.com"])),
        ("exact", json!(["foo.bar.com"])),
        ("port", json!(["p.com:8080"])),
    ];
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    let proxy = Proxy::start(&Config::with_clusters(&[]).route_config(json!({"virtual_hosts": hosts})));
    for (host, expected) in [
        ("foo.bar.com", "exact"),
        ("FOO.BAR.COM", "exact"),
        ("x.bar.com", "suffix"),
        ("bar.com", "star"),
        (".bar.com", "star"),
        ("y.a.bar.com", "longer"),
        ("b-x.com", "suffix"),
        ("foo.org", "prefix"),
        ("foo.", "star"),
        ("foo.bar.com:81", "prefix"),
        ("p.com:8080", "port"),
        ("p.com", "star"),
    ] {
        let response = proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(response.text(), expected, "{host}");
    }
}

#[test]
fn redirects() {
    let to = |path: &str, redirect: Value| json!({"match": {"prefix": path}, "redirect": redirect});
    let routes = json!([
        to("/https", json!({"https_redirect": true})),
        to("/host", json!({"host_redirect": "b.test", "response_code": "TEMPORARY_REDIRECT"})),
        to("/path", json!({"path_redirect": "/else", "response_code": "FOUND"})),
        to("/prefix", json!({"prefix_rewrite": "/new", "response_code": "PERMANENT_REDIRECT"})),
        to("/port", json!({"port_redirect": 8443, "response_code": "SEE_OTHER"})),
        to("/strip", json!({"host_redirect": "b.test", "strip_query": true})),
    ]);
    let proxy = Proxy::start(&Config::with_clusters(&[]).routes(routes));
    for (path, status, location) in [
        ("/https?q=1", 301, "https://a.test/https?q=1"),
        ("/host/x", 307, "http://b.test/host/x"),
        ("/path?q", 302, "http://a.test/else?q"),
        ("/prefix/x?q", 308, "http://a.test/new/x?q"),
        ("/port", 303, "http://a.test:8443/port"),
        ("/strip?q", 301, "http://b.test/strip"),
    ] {
        let response = proxy.get(path);
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{path}");
        assert_eq!(response.header("content-length"), Some("0"));
    }
}

#[test]
fn rewrites() {
    let origin = Origin::ok();
    let to = |matcher: Value, mut action: Value| {
        action["cluster"] = json!("origin");
        json!({"match": matcher, "route": action})
    };
    let routes = json!([
        to(json!({"prefix": "/old"}), json!({"prefix_rewrite": "/new"})),
        to(
            json!({"prefix": "/re"}),
            json!({"regex_rewrite": {
            "pattern": {"regex": "^/re/([a-z]+)/(.*)$"}, "substitution": "/\\2/\\1"}})
        ),
        to(json!({"prefix": "/host"}), json!({"host_rewrite_literal": "b.test"})),
        to(json!({"prefix": "/from"}), json!({"host_rewrite_header": "x-host"})),
    ]);
    let proxy = Proxy::start(&Config::new(origin.address()).routes(routes));
    for (sent, path, host, original) in [
        ("/old/x?q", "/new/x?q", "a.test", Some("/old/x?q")),
        ("/re/ab/c", "/c/ab", "a.test", Some("/re/ab/c")),
        ("/host", "/host", "b.test", None),
        ("/from", "/from", "c.test", None),
    ] {
        proxy.connect().ask(&format!("GET {sent} HTTP/1.1\r\nhost: a.test\r\nx-host: c.test\r\n\r\n"));
        let seen = origin.requests().pop().unwrap();
        assert_eq!((seen.path(), seen.header("host")), (path, Some(host)), "{sent}");
        assert_eq!(seen.header("x-envoy-original-path"), original, "{sent}");
    }
}

#[test]
fn weights_divide_requests() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let clusters = [cluster("origin", &[one.address()]), cluster("two", &[two.address()])];
    let weighted = json!({"weighted_clusters": {"clusters": [
        {"name": "origin", "weight": 75, "response_headers_to_add": [{"header": {"key": "x-side", "value": "one"}}]},
        {"name": "two", "weight": 25, "response_headers_to_add": [{"header": {"key": "x-side", "value": "two"}}]},
    ]}});
    let routes = json!([{"match": {"prefix": "/"}, "route": weighted}]);
    let proxy = Proxy::start(&Config::with_clusters(&clusters).routes(routes));
    let mut client = proxy.connect();
    let mut counts = BTreeMap::new();
    for _ in 0..400 {
        let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(response.header("x-side"), Some(response.text().as_str()));
        *counts.entry(response.text()).or_insert(0) += 1;
    }
    // 300 are expected; 9 standard deviations away is not chance.
    assert!((220..380).contains(&counts["one"]), "{counts:?}");
}

#[test]
fn a_header_can_name_the_cluster() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let clusters = [cluster("origin", &[one.address()]), cluster("two", &[two.address()])];
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster_header": "x-to"}}]);
    let proxy = Proxy::start(&Config::with_clusters(&clusters).routes(routes));
    for (to, body) in [("origin", "one"), ("two", "two")] {
        let response = proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-to: {to}\r\n\r\n"));
        assert_eq!(response.text(), body);
    }
}

#[test]
fn round_robin_takes_hosts_in_turn_and_by_weight() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let mut hosts = cluster("origin", &[one.address(), two.address()]);
    hosts["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] = json!(3);
    hosts["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["load_balancing_weight"] = json!(1);
    let proxy = Proxy::start(&Config::with_clusters(&[hosts]));
    let mut client = proxy.connect();
    let texts: Vec<String> =
        (0..40).map(|_| client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text()).collect();
    assert_eq!(texts.iter().filter(|text| *text == "one").count(), 30);
}

#[test]
fn require_tls_redirects() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).virtual_host(json!({"require_tls": "ALL"})));
    let response = proxy.get("/a?b");
    assert_eq!((response.status, response.header("location")), (301, Some("https://a.test/a?b")));
}

#[test]
fn ten_thousand_hosts_and_a_thousand_routes_are_served() {
    let route = |n: usize| {
        json!({"match": {"prefix": format!("/{n}/")},
               "direct_response": {"status": 200, "body": {"inline_string": n.to_string()}}})
    };
    let mut hosts: Vec<Value> = (0..10_000)
        .map(|n| json!({"name": n.to_string(), "domains": [format!("h{n}.test")], "routes": [route(n)]}))
        .collect();
    let routes: Vec<Value> = (0..1_000).map(route).collect();
    hosts.push(json!({"name": "all", "domains": ["*"], "routes": routes}));
    let proxy = Proxy::start(&Config::with_clusters(&[]).route_config(json!({"virtual_hosts": hosts})));
    let ask = |host: &str, n: u32| {
        proxy.connect().ask(&format!("GET /{n}/ HTTP/1.1\r\nhost: {host}\r\n\r\n")).text()
    };
    assert_eq!((ask("h9999.test", 9999), ask("other", 999)), ("9999".to_owned(), "999".to_owned()));
}

#[test]
fn direct_responses() {
    let routes = json!([
        {"match": {"path": "/text"}, "direct_response": {"status": 200, "body": {"inline_string": "hi"}}},
        {"match": {"path": "/none"}, "direct_response": {"status": 204}},
        {"match": {"path": "/json"}, "direct_response": {"status": 418, "body": {"inline_string": "{}"}},
         "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"},
                                      "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
    ]);
    let proxy = Proxy::start(&Config::with_clusters(&[]).routes(routes));
    let text = proxy.get("/text");
    assert_eq!((text.text().as_str(), text.header("content-type")), ("hi", Some("text/plain")));
    assert_eq!(text.names(), ["content-length", "content-type", "date", "server"]);
    let none = proxy.get("/none");
    assert_eq!((none.status, none.header("content-length")), (204, None));
    let teapot = proxy.get("/json");
    assert!(teapot.head.starts_with("HTTP/1.1 418 Unknown\r\n"));
    assert_eq!(teapot.headers("content-type"), ["application/json"]);
    let head = proxy.connect().ask("HEAD /text HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((head.header("content-length"), head.text().as_str()), (Some("2"), ""));
}
