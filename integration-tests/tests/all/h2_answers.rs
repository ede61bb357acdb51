//! What HTTP/2 upstreams answer amiss, and what is told of it; in which order fields arrive. As by Envoy 1.40.

use std::path::Path;

use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, H2Origin, H2Stream, Manners};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy};
use serde_json::json;
use tidegate_testkit::h2::code;

const LINE: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

fn start(handler: impl Fn(H2Stream) + Send + Sync + 'static, folder: &Path) -> (H2Origin, Proxy) {
    let origin = H2Origin::with(Manners::default(), handler);
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({}));
    let proxy = Proxy::start(&config.access_log(&folder.join("access.log"), text_format(LINE)));
    (origin, proxy)
}

fn line(folder: &Path) -> String {
    await_lines(&folder.join("access.log"), 1).remove(0)
}

#[test]
fn a_response_over_the_limits_is_the_upstreams_reset() {
    let folder = tempfile::tempdir().unwrap();
    let long = "v".repeat(3000);
    let handler = move |stream: H2Stream| stream.head(200, &[("x-a", &long), ("x-b", &long)], true);
    let origin = H2Origin::with(Manners::default(), handler);
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).cluster_http(json!({
        "explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}},
        "common_http_protocol_options": {"max_response_headers_kb": 4},
    }));
    let log = folder.path().join("access.log");
    let proxy = Proxy::start(&config.access_log(&log, text_format(LINE)));
    let answer = H2Client::connect(proxy.address).ask("/");
    assert_eq!(answer.status(), 503);
    assert!(answer.text().ends_with("reset reason: remote reset"), "{}", answer.text());
    assert_eq!(line(folder.path()), "503 UR upstream_reset_before_response_started{remote_reset}");
    assert_eq!(proxy.stat("cluster.origin.http2.header_list_size_too_large"), 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_rx_reset"), 1);
}

#[test]
fn a_response_is_passed_on_up_to_its_bad_trailers() {
    let folder = tempfile::tempdir().unwrap();
    let handler = |stream: H2Stream| {
        stream.head(200, &[], false);
        stream.body("part", false);
        stream.trailers(&[("connection", "close")]);
    };
    let (_origin, proxy) = start(handler, folder.path());
    let answer = H2Client::connect(proxy.address).ask("/");
    assert_eq!((answer.status(), answer.text(), answer.ended), (200, "part".to_owned(), false));
    assert_eq!(answer.reset, Some(code::INTERNAL_ERROR));
    assert_eq!(line(folder.path()), "200 UPE upstream_reset_after_response_started{protocol_error}");
}

#[test]
fn a_connect_error_has_its_own_word() {
    let folder = tempfile::tempdir().unwrap();
    let (_origin, proxy) = start(|stream| stream.reset(code::CONNECT_ERROR), folder.path());
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 503);
    let details = "upstream_reset_before_response_started{remote_error_with_CONNECT_request}";
    assert_eq!(line(folder.path()), format!("503 UR {details}"));
}

#[test]
fn a_late_try_without_retries_left_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let origin = H2Origin::with(Manners::default(), |_| {});
    let policy = json!({"retry_on": "5xx", "num_retries": 0, "per_try_timeout": "0.2s"});
    let config = Config::new(origin.address()).route(json!({"route": {"retry_policy": policy}}));
    let config = config.hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({}));
    let proxy = Proxy::start(&config.access_log(&folder.path().join("access.log"), text_format(LINE)));
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 504);
    assert_eq!(line(folder.path()), "504 URX,UT upstream_per_try_timeout");
}

#[test]
fn fields_keep_their_order_when_others_are_taken_out() {
    let origin = Origin::ok();
    let internal = json!({
        "codec_type": "AUTO", "use_remote_address": true,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
    });
    let config = Config::new(origin.address()).hcm(internal);
    let config = config.virtual_host(json!({"request_headers_to_remove": ["x-gone"]}));
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    let fields = [
        ("x-a", "1"),
        ("x-envoy-retry-on", "5xx"),
        ("x-b", "2"),
        ("x-gone", "3"),
        ("x-envoy-max-retries", "1"),
    ];
    client.message(client.begin("GET", "/", &fields, true));
    let request = origin.request();
    let names: Vec<&str> =
        request.head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let expected = [
        "host",
        "x-a",
        "x-b",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-envoy-internal",
        "x-request-id",
        "x-envoy-expected-rq-timeout-ms",
    ];
    assert_eq!(names, expected);
}
