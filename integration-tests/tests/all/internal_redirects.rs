//! Redirects of upstreams that are followed here (`internal_redirect_policy`).

use integration_tests::config::text_format;
use integration_tests::h2::Manners;
use integration_tests::origin::OK;
use integration_tests::proxy::await_lines;
use integration_tests::{Config, H2Client, H2Origin, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET /one?q=1 HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Answers the first requests with redirects to these places.
fn redirecting(status: &'static str, places: &'static [&'static str]) -> Origin {
    Origin::script(move |mut peer| {
        let mut places = places.iter();
        while peer.request().is_some() {
            match places.next() {
                Some(place) => peer.send(format!(
                    "HTTP/1.1 {status} X\r\nlocation: {place}\r\nx-c: 1\r\ncontent-length: 0\r\n\r\n"
                )),
                None => peer.send(OK),
            };
        }
    })
}

fn config(origin: &Origin, policy: Value) -> Config {
    Config::new(origin.address()).route(json!({"route": {"internal_redirect_policy": policy}}))
}

fn followed(proxy: &Proxy) -> [u64; 2] {
    let stats = proxy.admin.stats();
    ["succeeded", "failed"]
        .map(|how| stats.get(&format!("cluster.origin.upstream_internal_redirect_{how}_total")))
}

#[test]
fn a_redirect_is_followed_within_the_request() {
    let origin = redirecting("302", &["http://b.test/two#part"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = text_format("%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:AUTHORITY)%%REQ(:PATH)%\n");
    let config = config(&origin, json!({"response_headers_to_copy": ["x-c"]})).access_log(&log, format);
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    let second = origin.requests()[1].head.to_ascii_lowercase();
    assert!(second.starts_with("get /two http/1.1\r\nhost: b.test\r\n"), "{second}");
    assert!(second.contains("x-envoy-original-url: http://a.test/one?q=1\r\n"), "{second}");
    assert!(second.contains("x-c: 1\r\n"), "{second}");
    assert_eq!(await_lines(&log, 2), ["302 internal_redirect b.test/two", "200 via_upstream b.test/two"]);
    assert_eq!(followed(&proxy), [1, 0]);
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("http.ingress.{name}"));
    assert_eq!(["downstream_rq_total", "downstream_rq_2xx", "downstream_rq_3xx"].map(count), [2, 1, 0]);
    assert_eq!(stats.get("cluster.origin.upstream_rq_302"), 0);
    // The connection goes on.
    assert_eq!(client.ask(GET).status, 200);
}

#[test]
fn the_body_goes_along_and_a_303_fetches() {
    let post = "POST /one HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";
    for (status, start, body) in [("307", "post /two", "body"), ("303", "get /two", "")] {
        let origin = redirecting(status, &["http://a.test/two"]);
        let proxy = Proxy::start(&config(&origin, json!({"redirect_response_codes": [303, 307]})));
        assert_eq!(proxy.connect().ask(post).status, 200);
        let request = origin.requests().remove(1);
        let second = request.head.to_ascii_lowercase();
        assert!(second.starts_with(start), "{second}");
        assert_eq!(request.body, body.as_bytes());
        assert_eq!(second.contains("content-length"), status == "307", "{second}");
    }
}

#[test]
fn a_redirect_that_may_not_be_followed_is_the_response() {
    let list = json!({"name": "list", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        "allowed_route_names": ["other"],
    }});
    let cases = [
        (&["/two"][..], json!({}), "bad_location"),
        (&["https://b.test/two"], json!({}), "unsafe_scheme"),
        (&["http://b.test/two"], json!({"max_internal_redirects": 0}), "too_many_redirects"),
        (&["http://b.test/two"], json!({"predicates": [list]}), "predicate"),
    ];
    for (places, policy, counter) in cases {
        let origin = redirecting("302", places);
        let proxy = Proxy::start(&config(&origin, policy));
        let response = proxy.connect().ask(GET);
        assert_eq!((response.status, response.header("location")), (302, Some(places[0])), "{counter}");
        assert_eq!(followed(&proxy), [0, 1]);
        let counter = format!("http.ingress.passthrough_internal_redirect_{counter}");
        assert_eq!(proxy.admin.stat(&counter), 1, "{counter}");
        assert_eq!(proxy.admin.stat("cluster.origin.upstream_rq_302"), 1);
    }
}

#[test]
fn a_redirect_to_no_route_is_the_response() {
    let origin = redirecting("302", &["http://b.test/two"]);
    let routes = json!([{"match": {"prefix": "/one"}, "route": {
        "cluster": "origin", "internal_redirect_policy": {},
    }}]);
    let proxy = Proxy::start(&Config::new(origin.address()).routes(routes));
    assert_eq!(proxy.connect().ask(GET).status, 302);
    assert_eq!(proxy.admin.stat("http.ingress.passthrough_internal_redirect_no_route"), 1);
}

#[test]
fn redirects_are_followed_on_a_connection_of_many_streams() {
    let origin = H2Origin::with(Manners::default(), |stream| match stream.request().header(":path") {
        Some("/one") => stream.head(302, &[("location", "http://b.test/two")], true),
        _ => stream.answer(200, "ok"),
    });
    let config = Config::new(origin.address())
        .hcm(json!({"codec_type": "HTTP2"}))
        .http2_upstream(json!({}))
        .route(json!({"route": {"internal_redirect_policy": {}}}));
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    let stream = client.get("/one");
    assert_eq!(client.message(stream).status(), 200);
    assert_eq!(followed(&proxy), [1, 0]);
}
