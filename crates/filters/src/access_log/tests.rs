#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use tidegate_filter::{AccessLog, AccessLogContext, LogContext, Registry};
use tidegate_stats::Store;
use tidegate_testkit::filter::stream_info;
use tidegate_types::json::{self, JsonPath, TypedConfig};
use tidegate_types::{RequestHead, ResponseHead};

const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";

fn build(type_url: &str, config: &str) -> Result<Arc<dyn AccessLog>, String> {
    let registry: Registry = crate::registry();
    let value = Arc::new(json::parse(config).unwrap());
    let typed = TypedConfig {
        name: "log".into(),
        type_url: type_url.into(),
        path: JsonPath::root().field("typed_config"),
        span: value.span,
        value,
    };
    let cx = AccessLogContext { stats: &Store::new(1), flush_interval: Duration::from_millis(200) };
    registry.build_access_log(&typed, &cx).map_err(|problems| problems[0].to_string())
}

/// One stream's line in a file of its own.
fn line(fields: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = build(FILE, &format!(r#"{{"path": "{}"{fields}}}"#, path.display())).unwrap();
    log_one(&*log);
    read(&*log, &path)
}

fn log_one(log: &dyn AccessLog) {
    let info = stream_info();
    info.response_code.set(200);
    info.ended.set(Some(Duration::from_millis(7)));
    let mut request = RequestHead::new(Method::GET, "example.com", "/a\"b");
    request.headers.insert(http::header::USER_AGENT, HeaderValue::from_static("curl"));
    let response = ResponseHead::new(StatusCode::OK);
    log.log(&LogContext {
        request: Some(&request),
        response: Some(&response),
        response_trailers: None,
        local_reply_body: "",
        info: &info,
    });
}

fn read(log: &dyn AccessLog, path: &Path) -> String {
    log.flush();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_default_line_is_envoys() {
    let line = line("");
    assert!(line.starts_with("[1970-01-01T00:00:00.000Z] \"GET /a\"b "), "{line}");
    assert!(line.ends_with("200 - 0 0 7 - \"-\" \"curl\" \"-\" \"example.com\" \"-\"\n"), "{line}");
}

#[test]
fn text_formats_are_written_as_they_are() {
    let format =
        r#", "log_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %REQ(X-NO)%\n"}}"#;
    assert_eq!(line(format), "200 -\n");
    assert_eq!(line(r#", "format": "%REQ(:METHOD)%;""#), "GET;");
    assert_eq!(line(r#", "log_format": {"omit_empty_values": true, "text_format": "[%REQ(X-NO)%]"}"#), "[]");
}

#[test]
fn json_formats_keep_types_and_nest() {
    let tree = r#"{"status": "%RESPONSE_CODE%", "n": {"p": "p:%REQ(:PATH)%", "none": "%REQ(X-NO)%"}, "l": [1, true]}"#;
    let expected = "{\"l\":[1,true],\"n\":{\"none\":null,\"p\":\"p:/a\\\"b\"},\"status\":200}\n";
    assert_eq!(line(&format!(r#", "log_format": {{"json_format": {tree}}}"#)), expected);
    assert_eq!(line(&format!(r#", "typed_json_format": {tree}"#)), expected);
    let omit = r#", "log_format": {"omit_empty_values": true, "json_format": {"a": "%REQ(X-NO)%", "b": "x%REQ(X-NO)%"}}"#;
    assert_eq!(line(omit), "{\"b\":\"x\"}\n");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let refused = |type_url, config| build(type_url, config).err().unwrap();
    assert_eq!(refused(FILE, r#"{"path": ""}"#), "typed_config: `path` must not be empty");
    assert_eq!(
        refused(FILE, r#"{"path": "/dev/null", "format": "x", "json_format": {}}"#),
        "typed_config: only one of format, json_format, typed_json_format and log_format may be set"
    );
    assert_eq!(
        refused(STDOUT, r#"{"log_format": {}}"#),
        "typed_config.log_format: exactly one of text_format, text_format_source and json_format must be set"
    );
    assert_eq!(
        refused(STDOUT, r#"{"log_format": {"json_format": []}}"#),
        "typed_config.log_format.json_format: expected an object, found an array"
    );
    assert!(refused(STDOUT, r#"{"log_format": {"text_format": "%NOPE%"}}"#).contains("NOPE"));
    assert!(refused(FILE, r#"{"path": "/nonexistent/x"}"#).contains("unable to open file '/nonexistent/x'"));
}
