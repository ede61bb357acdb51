//! What upstreams, routes and logs are told of a request's scheme, as by Envoy 1.40.

use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, H2Origin, H2Stream, Manners};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Proxy};
use serde_json::{Value, json};

/// What the upstream, a field of the configuration and the access log are told.
type Told = (String, String, String, String);

fn answer(stream: H2Stream) {
    stream.request();
    stream.answer(200, "ok");
}

/// What is told of a request that an HTTP/2 client asks with these fields.
fn told(origin: &H2Origin, config: Config, scheme: &str, more: &[(&str, &str)]) -> Told {
    let mut fields = vec![(":method", "GET"), (":scheme", scheme), (":authority", "a.test"), (":path", "/")];
    fields.extend(more);
    tell(origin, config, |proxy| {
        let client = H2Client::connect(proxy.address);
        assert_eq!(client.message(client.request(&fields, true)).status(), 200);
    })
}

fn tell(origin: &H2Origin, config: Config, ask: impl FnOnce(&Proxy)) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let proxy = Proxy::start(&config.hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({}))
        .virtual_host(json!({"request_headers_to_add": [{"header": {"key": "x-scheme", "value": "%REQ(:SCHEME)%"}}]}))
        .access_log(&log, text_format("%REQ(:SCHEME)% %REQ(X-FORWARDED-PROTO)%\n")));
    ask(&proxy);
    let request = origin.await_streams(1)[0].request();
    let field = |name| request.header(name).unwrap_or_default().to_owned();
    (field(":scheme"), field("x-forwarded-proto"), field("x-scheme"), await_lines(&log, 1).remove(0))
}

fn all(scheme: &str, proto: &str, field: &str, log: &str) -> Told {
    (scheme.to_owned(), proto.to_owned(), field.to_owned(), log.to_owned())
}

fn transformation(of: Value) -> Value {
    json!({"scheme_header_transformation": of})
}

/// Whatever its connection is; a proxy before us may have ended TLS.
#[test]
fn an_http2_client_has_its_say() {
    for (scheme, more, expected) in [
        ("https", &[][..], all("https", "http", "https", "https http")),
        ("http", &[("x-forwarded-proto", "https")], all("http", "https", "http", "http https")),
        ("HTTP", &[], all("http", "http", "http", "http http")),
    ] {
        let origin = H2Origin::with(Manners::default(), answer);
        assert_eq!(told(&origin, Config::new(origin.address()), scheme, more), expected, "{scheme} {more:?}");
    }
}

/// Upstreams know two schemes; any other is told as what the client's connection is.
#[test]
fn another_scheme_is_told_as_the_connections() {
    let origin = H2Origin::with(Manners::default(), answer);
    let (scheme, proto, ..) = told(&origin, Config::new(origin.address()), "ftp", &[]);
    assert_eq!((scheme.as_str(), proto.as_str()), ("http", "http"));
}

#[test]
fn an_http1_client_names_it_by_its_target_or_by_x_forwarded_proto() {
    for (head, expected) in [
        ("GET https://a.test/ HTTP/1.1\r\n", all("https", "http", "https", "https http")),
        ("GET / HTTP/1.1\r\nx-forwarded-proto: https\r\n", all("https", "https", "https", "https https")),
        ("GET / HTTP/1.1\r\n", all("http", "http", "http", "http http")),
    ] {
        let origin = H2Origin::with(Manners::default(), answer);
        let seen = tell(&origin, Config::new(origin.address()), |proxy| {
            let request = format!("{head}host: a.test\r\n\r\n");
            assert_eq!(proxy.connect().ask(&request).status, 200);
        });
        assert_eq!(seen, expected, "{head}");
    }
}

#[test]
fn scheme_to_overwrite_wins_over_everybody() {
    let origin = H2Origin::with(Manners::default(), answer);
    let config = Config::new(origin.address()).hcm(transformation(json!({"scheme_to_overwrite": "https"})));
    assert_eq!(told(&origin, config, "http", &[]), all("https", "https", "https", "https https"));

    let origin = H2Origin::tls(Manners::default(), answer);
    let both = json!({"scheme_to_overwrite": "http", "match_upstream": true});
    let config = Config::new(origin.address()).tls_upstream().hcm(transformation(both));
    assert_eq!(told(&origin, config, "https", &[]), all("http", "http", "http", "http http"));
}

/// Last of all: what the configuration adds was told the client's, and `x-forwarded-proto` stays.
#[test]
fn match_upstream_tells_upstreams_what_their_connection_is() {
    let wanted = || transformation(json!({"match_upstream": true}));
    let origin = H2Origin::with(Manners::default(), answer);
    let config = Config::new(origin.address()).hcm(wanted());
    assert_eq!(told(&origin, config, "https", &[]), all("http", "http", "https", "http http"));

    let origin = H2Origin::tls(Manners::default(), answer);
    let config = Config::new(origin.address()).tls_upstream().hcm(wanted());
    assert_eq!(told(&origin, config, "http", &[]), all("https", "http", "http", "https http"));
}

/// Hosts of one cluster may differ; as in Envoy, a retry keeps what the first attempt was told.
#[test]
fn match_upstream_goes_by_the_host_that_is_asked_first() {
    let origins = |status: u16| {
        let answer = move |stream: H2Stream| {
            stream.request();
            stream.answer(status, "ok");
        };
        [H2Origin::tls(Manners::default(), answer), H2Origin::with(Manners::default(), answer)]
    };
    let start = |origins: &[H2Origin; 2], route: Value| {
        let host = |origin: &H2Origin, label: &str| {
            let address = origin.address();
            json!({"endpoint": {"address": {"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port()}}},
                "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"speaks": label}}}})
        };
        let raw = json!({"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}});
        let matched = json!([{"name": "raw", "match": {"speaks": "raw"}, "transport_socket": raw}]);
        let config = Config::new(origins[0].address())
            .hcm(transformation(json!({"match_upstream": true})))
            .tls_upstream()
            .http2_upstream(json!({}))
            .route(route)
            .cluster(json!({"transport_socket_matches": matched,
                "load_assignment": {"endpoints": [{"lb_endpoints": [
                    host(&origins[0], "tls"), host(&origins[1], "raw")]}]}}));
        Proxy::start(&config)
    };
    let told = |origin: &H2Origin| -> Vec<String> {
        let requests = origin.streams().into_iter().map(|stream| stream.request());
        requests.map(|request| request.header(":scheme").unwrap_or_default().to_owned()).collect()
    };

    let both = origins(200);
    let proxy = start(&both, json!({}));
    (0..4).for_each(|_| assert_eq!(proxy.get("/").status, 200));
    assert_eq!((told(&both[0]), told(&both[1])), (vec!["https".to_owned(); 2], vec!["http".to_owned(); 2]));

    let both = origins(503);
    let again = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1}});
    let proxy = start(&both, json!({"route": again}));
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!((told(&both[0]).len(), told(&both[1]).len()), (1, 1));
    assert_eq!(told(&both[0]), told(&both[1]));
}
