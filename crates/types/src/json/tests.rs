#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default)]
struct Sample {
    max_tokens: u64,
    small: u8,
    #[serde(deserialize_with = "duration")]
    fill_interval: Duration,
    mode: Mode,
    names: Vec<String>,
    nested: Option<Box<Sample>>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            max_tokens: 1,
            small: 0,
            fill_interval: Duration::from_secs(1),
            mode: Mode::Off,
            names: vec![],
            nested: None,
        }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Off,
    FullyOn,
}

fn decode(text: &str) -> Result<Sample, Vec<String>> {
    let path = JsonPath::root().field("config");
    from_node(&parse(text).unwrap(), &path)
        .map_err(|all| all.iter().map(|p| format!("{}:{}: {p}", p.span.line, p.span.column)).collect())
}

#[test]
fn positions_are_lines_and_characters() {
    let node = parse("{\n  \"ü\": [1, {\"b\": null}]\n}").unwrap();
    let member = &node.members()[0];
    assert_eq!((member.key_span.line, member.key_span.column), (2, 3));
    let Kind::Array(items) = &member.value.kind else { panic!("array") };
    assert_eq!((items[1].span.line, items[1].span.column), (2, 12));
    assert_eq!(items[0].kind, Kind::Number("1".into()));
}

#[test]
fn refuses_what_is_not_json() {
    let fault = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(fault("{\"a\":1,}"), "1:8: a comma before `}` is not JSON");
    assert_eq!(fault("[1,]"), "1:4: a comma before `]` is not JSON");
    assert_eq!(fault("{\"a\":1,\n \"a\":2}"), "2:2: key `a` is given twice");
    assert_eq!(
        fault("{ // x\n}"),
        "1:3: expected a key in double quotes, found a comment, which JSON does not have"
    );
    assert_eq!(fault("{\"a\": 01}"), "1:9: `01` is no JSON number");
    assert_eq!(fault("{\"a\": tru}"), "1:7: expected a value, found `t`");
    assert_eq!(fault(""), "1:1: expected a value, found the end of the file");
    assert_eq!(fault("{} {}"), "1:4: expected the end of the file after the top-level value");
    assert_eq!(fault("\"\\ud800x\""), "1:8: expected `\\u` and four hex digits");
    assert!(fault(&"[".repeat(200)).contains("deeper than 100"));
}

#[test]
fn escapes() {
    let node = parse(r#""a\n\u00e9\ud83d\ude00\/""#).unwrap();
    assert_eq!(node.as_str(), Some("a\né😀/"));
}

#[test]
fn proto3_json_conventions() {
    let sample = decode(
        r#"{"maxTokens": "18446744073709551615", "fill_interval": "0.25s", "mode": 1, "names": ["x"],
            "small": 2.0, "nested": {"mode": "FULLY_ON", "names": null}}"#,
    )
    .unwrap();
    assert_eq!(sample.max_tokens, u64::MAX);
    assert_eq!(sample.fill_interval, Duration::from_millis(250));
    assert_eq!((sample.mode, sample.small), (Mode::FullyOn, 2));
    assert_eq!(sample.nested.unwrap().mode, Mode::FullyOn);
}

#[test]
fn problems_have_place_path_and_nearest_name() {
    assert_eq!(
        decode("{\"max_token\": 1,\n\"zzz\": 2,\n\"nested\": {\"Mode\": 1}}").unwrap_err(),
        [
            "1:2: config.max_token: unknown field `max_token` (did you mean `max_tokens`?)",
            "2:1: config.zzz: unknown field `zzz`",
            "3:12: config.nested.Mode: unknown field `Mode` (did you mean `mode`?)",
        ]
    );
    assert_eq!(
        decode("{\"nested\": {\"mode\": \"FULL_ON\"}}").unwrap_err(),
        [
            "1:21: config.nested.mode: unknown value `FULL_ON` (expected one of OFF, FULLY_ON; did you mean `FULLY_ON`?)"
        ]
    );
    assert_eq!(
        decode("{\"fill_interval\": \"500ms\"}").unwrap_err(),
        ["1:19: config.fill_interval: not a duration in seconds such as \"0.25s\""]
    );
    assert_eq!(
        decode("{\"names\": [\"a\", 1]}").unwrap_err(),
        ["1:17: config.names[1]: invalid type: integer `1`, expected a string"]
    );
    assert_eq!(
        decode("{\"small\": 300}").unwrap_err(),
        ["1:11: config.small: invalid value: integer `300`, expected u8"]
    );
}

#[test]
fn durations() {
    assert_eq!(parse_duration("1.000000001s"), Ok(Duration::new(1, 1)));
    assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    assert_eq!(parse_duration("-1s"), Err("Invalid duration: Expected positive duration"));
    for bad in ["500ms", "1", "s", ".5s", "1.s", "1.0000000001s", "1e3s", " 1s"] {
        assert_eq!(parse_duration(bad), Err(DURATION_FORM), "{bad}");
    }
}

#[test]
fn base64() {
    assert_eq!(decode_base64("aGVsbG8="), Some(b"hello".to_vec()));
    assert_eq!(decode_base64("-_8"), Some(vec![0xfb, 0xff]));
    assert_eq!(decode_base64("a"), None);
    assert_eq!(decode_base64("a*b="), None);
}

#[test]
fn equality_ignores_places() {
    let typed = |text: &str| TypedConfig {
        name: "n".into(),
        type_url: "type.googleapis.com/a.B".into(),
        value: Arc::new(parse(text).unwrap()),
        path: JsonPath::root(),
        span: Span::default(),
    };
    assert_eq!(typed("{\"a\":1}"), typed("\n\n{ \"a\": 1 }"));
    assert_ne!(typed("{\"a\":1}"), typed("{\"a\":2}"));
    assert_eq!(typed("{}").message_name(), "a.B");
}

#[test]
fn nodes_print_as_json_and_decode_as_they_stand() {
    let text = r#"{"b":[1,2.5,-3,null,true],"a":{"x":"q\"\\\n\u0001é"},"e":[],"o":{}}"#;
    let node = parse(text).unwrap();
    assert_eq!(node.to_string(), text);
    assert_eq!(parse(&format!("{node:#}")).unwrap(), node);
    let free: Node = from_node(&node, &JsonPath::root()).unwrap();
    assert_eq!(free, node);
}

#[test]
fn field_names_in_both_spellings() {
    assert!(
        names_field("connect_timeout", "connect_timeout") && names_field("connectTimeout", "connect_timeout")
    );
    assert!(names_field("http1SafeMax", "http1_safe_max") && names_field("acceptHttp10", "accept_http_10"));
    for other in
        ["connectTimeou", "connectTimeouts", "connecttimeout", "ConnectTimeout", "connect_Timeout", ""]
    {
        assert!(!names_field(other, "connect_timeout"), "{other}");
    }
}

/// Whatever a file holds, the parser answers.
#[test]
fn no_text_panics() {
    let text = r#"{"a\u00e9\ud83d\ude00": [1, -2.5e3, true, false, null, "x\n"], "b": {"ü": {}}}"#;
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        let (before, after) = text.split_at(at);
        let _ = parse(before);
        for odd in ["", "\"", "\\", "\\u", "{", "]", ",", "é", "0", "\0"] {
            let mut rest = after.chars();
            rest.next();
            let _ = parse(&format!("{before}{odd}{}", rest.as_str()));
        }
    }
}
