use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};
use tidegate_types::json::parse;
use tidegate_types::{
    Address, ConnectionInfo, RequestHead, ResponseFlags, ResponseHead, StreamInfo, UpstreamInfo,
};

use super::*;

fn ip(text: &str) -> Address {
    Address::Ip(text.parse().unwrap())
}

struct Exchange {
    request: RequestHead,
    response: ResponseHead,
    info: StreamInfo,
}

impl Exchange {
    fn new() -> Self {
        let connection = ConnectionInfo::new(7, ip("127.0.0.1:10000"), ip("[::1]:5000"), "l".into());
        let start = SystemTime::UNIX_EPOCH + Duration::new(1_460_751_420, 310_042_000);
        let info = StreamInfo::new(Rc::new(connection), start);
        info.protocol.set(Some(Version::HTTP_11));
        info.response_code.set(200);
        info.bytes_sent.set(154);
        info.ended.set(Some(Duration::from_micros(226_900)));
        info.first_upstream_rx.set(Some(Duration::from_millis(100)));
        *info.upstream.borrow_mut() = Some(UpstreamInfo {
            host: Arc::new(ip("10.0.35.28:80")),
            remote_address: Some(Rc::new(ip("10.0.35.28:80"))),
            local_address: None,
            connection_id: Some(3),
            protocol: None,
            tls: None,
        });
        let mut request = RequestHead::new(Method::POST, "locations", "/api/v1/locations?k=v&k=w");
        request.headers.insert("user-agent", HeaderValue::from_static("nsq2http \"x\""));
        let mut response = ResponseHead::new(StatusCode::OK);
        response.headers.insert("x-envoy-upstream-service-time", HeaderValue::from_static("226"));
        Self { request, response, info }
    }

    fn cx(&self) -> LogContext<'_> {
        LogContext {
            request: Some(&self.request),
            response: Some(&self.response),
            response_trailers: None,
            local_reply_body: "",
            info: &self.info,
        }
    }

    fn text(&self, format: &str) -> String {
        let mut out = String::new();
        Format::parse(format).unwrap().write(&self.cx(), &mut out);
        out
    }

    fn json(&self, format: &str, omit: bool) -> String {
        let mut out = String::new();
        JsonFormat::parse(&parse(format).unwrap(), omit).unwrap().write(&self.cx(), &mut out);
        out
    }
}

#[test]
fn the_default_line_is_envoys() {
    let exchange = Exchange::new();
    let mut line = String::new();
    Format::default_access_log().write(&exchange.cx(), &mut line);
    assert_eq!(
        line,
        "[2016-04-15T20:17:00.310Z] \"POST /api/v1/locations?k=v&k=w HTTP/1.1\" 200 - 0 154 226 226 \
         \"-\" \"nsq2http \"x\"\" \"-\" \"locations\" \"10.0.35.28:80\"\n"
    );
}

#[test]
fn times_take_strftime_and_envoys_fractions() {
    let exchange = Exchange::new();
    for (format, expected) in [
        ("%START_TIME(%s.%3f %f %6f %1f)%", "1460751420.310 310042000 310042 3"),
        ("%START_TIME(%a %A %b %B %e %j %y %I %p)%", "Fri Friday Apr April 15 106 16 08 PM"),
        (
            "%START_TIME(%T %D %F %R %z %Z %u %w %C %%)%",
            "20:17:00 04/15/16 2016-04-15 20:17 +0000 UTC 5 5 20 %",
        ),
        ("%START_TIME(%E3S %E*S %E*f %Y/%m/%dT%H)%", "00.310 00.310042 310042 2016/04/15T20"),
    ] {
        assert_eq!(exchange.text(format), expected, "{format}");
    }
}

#[test]
fn operators_print_their_facts() {
    let exchange = Exchange::new();
    exchange.info.flags.set(ResponseFlags::NO_ROUTE_FOUND);
    exchange.info.detail("a b");
    for (format, expected) in [
        ("100%% %REQ(:METHOD):2%", "100% PO"),
        ("%REQ(x-none?user-agent):4% %REQ(x-none?)%", "nsq2 -"),
        ("%RESP(:STATUS)% %TRAILER(x)%", "200 -"),
        ("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "NR NoRouteFound"),
        ("%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "a_b a b"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "[::1]:5000 ::1"),
        ("%DOWNSTREAM_LOCAL_PORT% %CONNECTION_ID% %UPSTREAM_CONNECTION_ID%", "10000 7 3"),
        ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION%", "100 126 -"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "226900"),
        ("%PATH(NQ)% %PATH(WQ:ORIG)% %QUERY_PARAM(k)%", "/api/v1/locations - v"),
        ("%DOWNSTREAM_TLS_VERSION%%GRPC_STATUS%%REQUESTED_SERVER_NAME%", "---"),
        ("%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_LOCAL_ADDRESS%", "10.0.35.28:80 -"),
    ] {
        assert_eq!(exchange.text(format), expected, "{format}");
    }
}

#[test]
fn grpc_status_falls_back_from_trailers_to_http() {
    let mut exchange = Exchange::new();
    exchange.request.headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    exchange.info.response_code.set(503);
    assert_eq!(exchange.text("%GRPC_STATUS% %GRPC_STATUS_NUMBER%"), "Unavailable 14");
    exchange.response.headers.insert("grpc-status", HeaderValue::from_static("4"));
    assert_eq!(exchange.text("%GRPC_STATUS(SNAKE_STRING)%"), "DEADLINE_EXCEEDED");
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    let exchange = Exchange::new();
    let format = r#"{"z": "%RESPONSE_CODE%", "a": {"d": "%DURATION%", "m": "%REQ(none)%"}, "n": 5,
        "mix": "c%RESPONSE_CODE%-%REQ(none)%", "ua": "%REQ(user-agent)%", "l": [true, null, "%PROTOCOL%"],
        "p": "100%%"}"#;
    assert_eq!(
        exchange.json(format, false),
        r#"{"a":{"d":226,"m":null},"l":[true,null,"HTTP/1.1"],"mix":"c200--","n":5,"p":"100%","ua":"nsq2http \"x\"","z":200}"#
    );
    let sparse = r#"{"m": "%REQ(none)%", "x": "a%REQ(none)%b", "o": {"k": "%REQ(none)%"}, "nul": null,
        "l": ["%PROTOCOL%", "%REQ(none)%", {"q": null}], "rf": "%RESPONSE_FLAGS%", "e": ""}"#;
    assert_eq!(exchange.json(sparse, true), r#"{"e":"","l":["HTTP/1.1"],"rf":"-","x":"ab"}"#);
}

#[test]
fn errors_name_the_operator_and_the_nearest() {
    let error = |text: &str| Format::parse(text).unwrap_err().to_string();
    assert!(error("%RESPONSE_CODES%").contains("did you mean `%RESPONSE_CODE%`"));
    assert_eq!(error("%FILTER_STATE(a)%"), "operator `%FILTER_STATE%` is not supported by this build");
    assert!(error("100% of").contains("byte 3"));
    assert!(error("%REQ%").contains("needs an argument"));
    assert!(error("%REQ(a b)%").contains("no header name"));
    assert!(error("%PROTOCOL(x)%").contains("takes no argument"));
    assert!(error("%START_TIME(%Q)%").contains("%Q"));
    assert!(Format::parse("%REQ(:PATH)").is_err());
    let node = parse(r#"{"a": {"b": ["%NOPE%"]}}"#).unwrap();
    assert_eq!(JsonFormat::parse(&node, false).unwrap_err().0, ".a.b[0]");
}

#[test]
fn missing_values_vanish_in_headers() {
    let exchange = Exchange::new();
    let mut out = String::new();
    Format::parse("a%REQ(none)%b").unwrap().write_with(&exchange.cx(), Missing::Nothing, &mut out);
    assert_eq!(out, "ab");
    assert_eq!(Format::parse("plain%%").unwrap().as_static(), Some("plain%"));
}
