//! Access logs: Envoy's default line, text and JSON formats, filters.

use integration_tests::config::{file_log, text_format};
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

fn logged(format: Value, request: &str) -> String {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let proxy = Proxy::start(&Config::new(origin.address()).access_log(&log, format));
    proxy.connect().ask(request);
    await_lines(&log, 1).remove(0)
}

const REQUEST: &str =
    "POST /p?q HTTP/1.1\r\nhost: a.test\r\nuser-agent: test/1\r\ncontent-length: 3\r\n\r\nabc";

#[test]
fn the_default_line_is_envoys() {
    let line = logged(Value::Null, REQUEST);
    let (time, rest) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
    assert_eq!((time.len(), time.as_bytes()[10], time.as_bytes()[23]), (24, b'T', b'Z'), "{time}");
    let rest = rest.strip_prefix("\"POST /p?q HTTP/1.1\" 200 - 3 2 ").unwrap_or_else(|| panic!("{line}"));
    let words: Vec<&str> = rest.split(' ').collect();
    assert!(words[0].parse::<u64>().is_ok() && words[1].parse::<u64>().is_ok(), "{line}");
    assert_eq!((words[2], words[3]), ("\"-\"", "\"test/1\""));
    assert_eq!(words[4].len(), 38, "a request id in quotes: {line}");
    assert_eq!(words[5], "\"a.test\"");
    assert!(words[6].starts_with("\"127.0.0.1:"), "{line}");
}

#[test]
fn a_text_format_has_a_dash_for_what_is_missing() {
    let format = "%REQ(X-MISSING)%|%RESP(x-missing)%|%PROTOCOL%|%ROUTE_NAME%|%UPSTREAM_CLUSTER%|%REQ(:PATH):3%|\
                  %RESPONSE_CODE_DETAILS%|%REQ(X-NO?USER-AGENT)%|%BYTES_RECEIVED%|%BYTES_SENT%|100%%\n";
    let line = logged(text_format(format), REQUEST);
    assert_eq!(line, "-|-|HTTP/1.1|-|origin|/p?|via_upstream|test/1|3|2|100%");
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    let format = json!({"json_format": {
        "status": "%RESPONSE_CODE%",
        "mixed": "%RESPONSE_CODE% %REQ(x-missing)%",
        "missing": "%REQ(x-missing)%",
        "Agent": "%REQ(user-agent)%",
        "nested": {"sent": "%BYTES_SENT%", "list": ["%PROTOCOL%", 1, true]},
        "constant": "text",
    }});
    let line = logged(format, REQUEST);
    let expected = r#"{"Agent":"test/1","constant":"text","missing":null,"mixed":"200 -","nested":{"list":["HTTP/1.1",1,true],"sent":2},"status":200}"#;
    assert_eq!(line, expected);
}

#[test]
fn json_escapes_what_a_client_sends() {
    let request = "GET /\"\\x HTTP/1.1\r\nhost: a\r\n\r\n";
    let line = logged(json!({"json_format": {"path": "%REQ(:PATH)%"}}), request);
    let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(value["path"], "/\"\\x");
}

#[test]
fn a_request_that_never_parsed_is_logged() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)%\n");
    let proxy = Proxy::start(&Config::new(origin.address()).access_log(&log, format));
    let mut client = proxy.connect();
    client.ask("GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n");
    assert_eq!(await_lines(&log, 1), ["400 DPE http1.codec_error -"]);
}

#[test]
fn a_client_that_leaves_is_logged_with_dc() {
    let origin = Origin::script(|mut peer| while peer.request().is_some() {});
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    let proxy = Proxy::start(&Config::new(origin.address()).access_log(&log, format));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    origin.await_requests(1);
    drop(client);
    assert_eq!(await_lines(&log, 1), ["0 DC downstream_remote_disconnect"]);
}

#[test]
fn filters_choose_what_is_logged() {
    let origin = Origin::answering(|request| {
        let status = request.path().trim_start_matches('/').to_owned();
        format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")
    });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut entry = file_log(&log, text_format("%RESPONSE_CODE%\n"));
    entry["filter"] = json!({"status_code_filter": {
        "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "access_log.min"}},
    }});
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"access_log": [entry]})));
    for status in ["/200", "/503", "/404", "/500"] {
        proxy.get(status);
    }
    assert_eq!(await_lines(&log, 2), ["503", "500"]);
}

#[test]
fn a_listeners_log_has_filters_too() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let (all, none) = (folder.path().join("all.log"), folder.path().join("none.log"));
    let filtered = |path: &std::path::Path, status: u16| {
        let mut log = file_log(path, text_format("%RESPONSE_CODE%\n"));
        log["filter"] = json!({"status_code_filter": {"comparison": {
            "op": "LE", "value": {"default_value": status, "runtime_key": "limit"}}}});
        log
    };
    let config = Config::new(origin.address()).listener(json!({"access_log": [filtered(&all, 100)]}));
    let proxy = Proxy::start(&config);
    proxy.get("/");
    assert_eq!(await_lines(&all, 1).len(), 1);
    proxy.admin.await_stat("filesystem.write_buffered", 1);
    proxy.admin.await_stat("filesystem.write_completed", 1);
    assert_eq!(proxy.stat("filesystem.write_total_buffered"), 0);

    // A connection has no status: it counts as 0, and `GE 1` leaves it out.
    let mut log = filtered(&none, 1);
    log["filter"]["status_code_filter"]["comparison"]["op"] = json!("GE");
    let config = config.listener(json!({"access_log": [log, file_log(&all, text_format("2\n"))]}));
    let proxy = Proxy::start(&config);
    proxy.get("/");
    assert_eq!(await_lines(&all, 2).len(), 2);
    assert_eq!(std::fs::read_to_string(&none).unwrap(), "");
}

#[test]
fn lines_wait_for_the_flush_interval() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let config = Config::new(origin.address()).access_log(&log, text_format("x\n"));
    let arguments = vec!["--file-flush-interval-msec".to_owned(), "3600000".to_owned()];
    let mut proxy = Options { arguments, ..Options::default() }.start(&config);
    proxy.get("/");
    proxy.admin.await_stat("filesystem.write_buffered", 1);
    assert_eq!(proxy.stat("filesystem.write_total_buffered"), 2);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    proxy.admin.post("/quitquitquit");
    proxy.process.exit();
    assert_eq!(await_lines(&log, 1), ["x"]);
}
