//! The command line: validation with its errors, exit codes, the schema.

use std::path::Path;
use std::process::Command;

use integration_tests::process::{Finished, Process, run};
use integration_tests::{Config, Nobody, binary};
use serde_json::json;

fn tidegate(arguments: &[&str]) -> Finished {
    run(Command::new(binary::tidegate()).args(arguments))
}

fn in_file<T>(name: &str, text: &str, check: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    check(&file)
}

fn validate(text: &str) -> Finished {
    in_file("c.json", text, |file| tidegate(&["validate", file.to_str().unwrap()]))
}

fn valid() -> Config {
    Config::new(([127, 0, 0, 1], 1).into())
}

#[test]
fn a_valid_file_is_ok() {
    in_file("c.json", &valid().0.to_string(), |file| {
        let name = file.to_str().unwrap();
        for arguments in [vec!["validate", name], vec!["-c", name, "--mode", "validate"]] {
            let said = tidegate(&arguments);
            assert_eq!((said.code, said.stdout), (Some(0), format!("configuration '{name}' OK\n")));
        }
    });
}

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let text = r#"{
  "static_resources": {
    "listeners": [
      {
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": "http"}},
        "filter_chainz": []
      }
    ],
    "clusters": [
      {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5",
        "lb_policy": "ROUND_ROBBIN",
        "load_assignment": {"cluster_name": "origin"}
      }
    ]
  }
}
"#;
    let said = validate(text);
    assert_eq!(said.code, Some(1));
    for (place, word, hint) in [
        ("c.json:6:", "port_value", ""),
        ("c.json:7:", "filter_chainz", "did you mean `filter_chains`"),
        ("c.json:14:", "connect_timeout", ""),
        ("c.json:15:", "ROUND_ROBBIN", "ROUND_ROBIN"),
    ] {
        let line = said.stderr.lines().find(|line| line.contains(place) && line.contains(word));
        let line = line.unwrap_or_else(|| panic!("no {place} {word} in\n{}", said.stderr));
        assert!(line.contains(hint), "no {hint} in {line}");
        // file:line:column
        let column = line.split(place).nth(1).unwrap().split([':', ' ']).next().unwrap();
        assert!(column.parse::<u32>().is_ok(), "no column in {line}");
    }
}

#[test]
fn what_envoy_knows_and_this_build_does_not_is_never_ignored() {
    let said = validate(&valid().cluster(json!({"lrs_server": {"self": {}}})).0.to_string());
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("lrs_server") && said.stderr.contains("not supported"), "{}", said.stderr);
}

#[test]
fn broken_references_and_duplicates_are_errors() {
    let unknown = valid().route(json!({"route": {"cluster": "orgin"}}));
    let mut twice = valid();
    let same = twice.0["static_resources"]["clusters"][0].clone();
    twice.0["static_resources"]["clusters"].as_array_mut().unwrap().push(same);
    let regex = valid().route(json!({"match": {"prefix": null, "safe_regex": {"regex": "("}}}));
    let mut listeners = valid();
    listeners.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] =
        json!(10_000);
    let mut other = listeners.0["static_resources"]["listeners"][0].clone();
    other["name"] = json!("other");
    listeners.0["static_resources"]["listeners"].as_array_mut().unwrap().push(other);
    let filter = valid()
        .filters(json!([{"name": "x", "typed_config": {"@type": "type.googleapis.com/no.such.Filter"}}]));
    for (config, words) in [
        (unknown, ["orgin", "origin"]),
        (twice, ["origin", "duplicate"]),
        (regex, ["invalid regex", "safe_regex"]),
        (listeners, ["127.0.0.1:10000", "address"]),
        (filter, ["no.such.Filter", "@type"]),
    ] {
        let said = validate(&config.0.to_string());
        assert_eq!(said.code, Some(1), "{words:?}");
        for word in words {
            assert!(said.stderr.contains(word), "no {word} in {}", said.stderr);
        }
    }
}

#[test]
fn text_that_is_no_json_is_placed() {
    let said = validate("{\n  \"admin\": nope\n}\n");
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("c.json:2:"), "{}", said.stderr);
}

#[test]
fn several_files_are_checked_in_one_run() {
    in_file("good.json", &valid().0.to_string(), |good| {
        in_file("bad.json", "{\"x\": 1}", |bad| {
            let said = tidegate(&["validate", bad.to_str().unwrap(), good.to_str().unwrap()]);
            assert_eq!(said.code, Some(1));
            assert!(said.stdout.contains("good.json' OK"), "{}", said.stdout);
            assert!(said.stderr.contains("bad.json"), "{}", said.stderr);
        });
    });
}

#[test]
fn a_missing_file_is_an_error() {
    let said = tidegate(&["validate", "/nonexistent.json"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("/nonexistent.json"), "{}", said.stderr);
}

#[test]
fn wrong_arguments_end_with_1() {
    for arguments in [vec!["--nope"], vec!["--mode", "foo"], vec!["-l", "foo"], vec!["--concurrency", "abc"]]
    {
        let said = tidegate(&arguments);
        assert_eq!(said.code, Some(1), "{arguments:?}");
        assert!(!said.stderr.is_empty());
    }
    assert_eq!(tidegate(&["--version"]).code, Some(0));
    assert_eq!(tidegate(&["--help"]).code, Some(0));
}

#[test]
fn a_runtime_key_that_nothing_reads_is_a_warning() {
    let mut config = valid();
    let name = config.0["static_resources"]["listeners"][0]["name"].as_str().unwrap().to_owned();
    let read = format!("envoy.resource_limits.listener.{name}.connection_limit");
    let layer = json!({"name": "static", "static_layer": {read: 5, "envoy.no_such_feature": true}});
    config.0["layered_runtime"] = json!({"layers": [layer]});
    let said = validate(&config.0.to_string());
    assert_eq!(said.code, Some(0));
    assert!(
        said.stderr.starts_with("warning: runtime key `envoy.no_such_feature` has no effect"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = valid();
    let port = taken.local_addr().unwrap().port();
    config.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = json!(port);
    in_file("c.json", &config.0.to_string(), |file| {
        let said = tidegate(&["-c", file.to_str().unwrap()]);
        assert_eq!(said.code, Some(1));
        let place = format!("127.0.0.1:{port}");
        assert!(
            said.stderr.contains(&place) && said.stderr.contains("Address already in use"),
            "{}",
            said.stderr
        );
    });
}

#[test]
fn an_admin_port_in_use_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = valid();
    config.0["admin"]["address"]["socket_address"]["port_value"] = json!(taken.local_addr().unwrap().port());
    in_file("c.json", &config.0.to_string(), |file| {
        let said = tidegate(&["-c", file.to_str().unwrap()]);
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("Address already in use"), "{}", said.stderr);
    });
}

#[test]
fn the_schema_is_json_schema() {
    let said = tidegate(&["schema"]);
    assert_eq!(said.code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"), "{}", schema["$schema"]);
    assert!(said.stdout.contains("max_pending_requests"));
}

#[test]
fn camel_case_numbers_as_strings_and_enums_by_number_are_read() {
    let nobody = Nobody::new();
    let mut config = Config::new(nobody.address());
    let cluster = &mut config.0["static_resources"]["clusters"][0];
    cluster["connectTimeout"] = json!("0.25s");
    cluster.as_object_mut().unwrap().remove("connect_timeout");
    cluster["lbPolicy"] = json!(0);
    cluster["perConnectionBufferLimitBytes"] = json!("32768");
    let said = validate(&config.0.to_string());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn log_path_takes_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("c.json"), folder.path().join("log"));
    std::fs::write(&file, valid().0.to_string()).unwrap();
    let mut command = Command::new(binary::tidegate());
    command.arg("-c").arg(&file).arg("--log-path").arg(&log).args([
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
    ]);
    let process = Process::start(&mut command);
    integration_tests::wait::until("the log", || {
        std::fs::read_to_string(&log).is_ok_and(|text| !text.is_empty())
    });
    assert_eq!(process.output(), "");
}
