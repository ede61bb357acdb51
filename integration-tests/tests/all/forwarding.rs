//! A request and its response through the proxy: what each side sees.

use integration_tests::{Config, Origin, Proxy};
use serde_json::json;

#[test]
fn the_upstream_sees_the_request_in_lower_case_with_envoys_headers() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let request = "GET /a?b=c HTTP/1.1\r\nX-One: 1\r\nHost: a.test\r\nX-Two:   2 \r\nX-Empty:\r\n\r\n";
    let response = proxy.connect().ask(request);
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));

    let seen = origin.request();
    let lines: Vec<&str> = seen.head.split("\r\n").collect();
    assert_eq!(lines[..5], ["GET /a?b=c HTTP/1.1", "host: a.test", "x-one: 1", "x-two: 2", "x-empty: "]);
    assert_eq!(lines[5], "x-forwarded-proto: http");
    assert!(
        lines[6].starts_with("x-request-id: ") && lines[6].len() == "x-request-id: ".len() + 36,
        "{}",
        lines[6]
    );
    assert_eq!(lines[7..], ["x-envoy-expected-rq-timeout-ms: 15000", "", ""]);
}

#[test]
fn the_client_sees_the_response_with_service_time_date_and_server() {
    let origin = Origin::saying("HTTP/1.1 200 Fine\r\nX-A: 1\r\nServer: mine\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(&Config::new(origin.address()));
    let response = proxy.get("/");
    assert!(response.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", response.head);
    assert_eq!(
        response.names(),
        ["x-a", "server", "content-length", "x-envoy-upstream-service-time", "date"]
    );
    assert_eq!(response.header("server"), Some("envoy"));
}

#[test]
fn a_post_is_carried_with_its_length() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let response = proxy.connect().ask("POST /p HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(response.status, 200);
    let seen = origin.request();
    assert_eq!((seen.header("content-length"), seen.body.as_slice()), (Some("5"), &b"hello"[..]));
}

#[test]
fn a_post_without_a_body_says_so_upstream_and_a_get_does_not() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    for method in ["POST", "PUT", "PATCH", "OPTIONS", "GET", "DELETE", "HEAD"] {
        proxy.connect().ask(&format!("{method} / HTTP/1.1\r\nhost: a.test\r\n\r\n"));
    }
    let lengths: Vec<bool> =
        origin.requests().iter().map(|request| request.header("content-length") == Some("0")).collect();
    assert_eq!(lengths, [true, true, true, true, false, false, false]);
}

#[test]
fn hop_by_hop_headers_end_at_the_proxy() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::start(&Config::new(origin.address()));
    let response = proxy.connect().ask(
        "GET / HTTP/1.1\r\nhost: a.test\r\nConnection: x-named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: 3\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!((response.header("connection"), response.header("keep-alive")), (None, None));
    assert_eq!(response.header("x-kept"), Some("1"));
    let seen = origin.request();
    for name in ["connection", "x-named", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("1"));
}

#[test]
fn use_remote_address_appends_the_client_and_says_who_is_external() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(json!({"use_remote_address": true}));
    let proxy = Proxy::start(&config);
    proxy.connect().ask("GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 10.1.2.3\r\n\r\n");
    let seen = origin.request();
    assert!(seen.header("x-forwarded-for").unwrap().starts_with("10.1.2.3,"), "{}", seen.head);
    assert_eq!(seen.header("x-envoy-external-address"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
}

#[test]
fn a_request_id_of_the_client_is_kept_only_behind_an_edge() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let id = "11111111-2222-4333-8444-555555555555";
    proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-request-id: {id}\r\n\r\n"));
    assert_eq!(origin.request().header("x-request-id"), Some(id));
}

#[test]
fn via_and_server_name_are_as_configured() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(json!({"server_name": "tide", "via": "gate"}));
    let response = Proxy::start(&config).get("/");
    assert_eq!((response.header("server"), response.header("via")), (Some("tide"), Some("gate")));
    assert_eq!(origin.request().header("via"), Some("gate"));
}

#[test]
fn normalised_paths_are_matched_and_forwarded() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(json!({"normalize_path": true, "merge_slashes": true}));
    let proxy = Proxy::start(&config);
    for (sent, expected) in
        [("/a/../b", "/b"), ("/a//b", "/a/b"), ("/%41?x=/../y", "/A?x=/../y"), ("/../x", "/x")]
    {
        assert_eq!(proxy.get(sent).status, 200);
        assert_eq!(origin.requests().last().unwrap().path(), expected);
    }
    assert_eq!(proxy.get("/a%00").status, 400);
}

#[test]
fn an_absolute_target_is_split_into_host_and_path() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    proxy.connect().ask("GET http://b.test/x?y HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let seen = origin.request();
    assert_eq!((seen.path(), seen.header("host")), ("/x?y", Some("b.test")));
}

#[test]
fn a_unix_domain_upstream_and_listener_work() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let (upstream, front) = (folder.path().join("up.sock"), folder.path().join("front.sock"));
    let listener = std::os::unix::net::UnixListener::bind(&upstream).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut wire = integration_tests::Wire::new(stream.try_clone().unwrap());
            while wire.request().is_some() {
                (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            }
        }
    });
    let endpoint = json!({"endpoint": {"address": {"pipe": {"path": upstream}}}});
    let mut config = Config::new(([127, 0, 0, 1], 1).into()).cluster(json!({
        "load_assignment": {"endpoints": [{"lb_endpoints": [endpoint]}]},
    }));
    let mut second = config.0["static_resources"]["listeners"][0].clone();
    second["name"] = json!("unix");
    second["address"] = json!({"pipe": {"path": front}});
    config.0["static_resources"]["listeners"].as_array_mut().unwrap().push(second);
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").text(), "ok");
    let mut client = integration_tests::Wire::connect_unix(&front);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").text(), "ok");
}

#[test]
fn counters_carry_envoys_names() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    }
    proxy.admin.await_stat("http.ingress.downstream_rq_2xx", 3);
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
    let stats = proxy.admin.stats();
    let expected = [
        ("http.ingress.downstream_rq_total", 3),
        ("http.ingress.downstream_cx_total", 1),
        ("http.ingress.downstream_cx_active", 1),
        ("http.ingress.downstream_rq_active", 0),
        ("http.ingress.downstream_rq_completed", 3),
        ("cluster.origin.upstream_rq_total", 3),
        ("cluster.origin.upstream_rq_200", 3),
        ("cluster.origin.upstream_rq_2xx", 3),
        ("cluster.origin.upstream_rq_completed", 3),
        ("cluster.origin.upstream_cx_total", 1),
        ("cluster.origin.upstream_cx_http1_total", 1),
        ("cluster.origin.upstream_cx_active", 1),
        ("cluster.origin.membership_total", 1),
    ];
    for (name, value) in expected {
        assert_eq!(stats.get(name), value, "{name}");
    }
    drop(client);
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 1);
}
