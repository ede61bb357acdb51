//! `--envoy-strict`: the rows of the list of differences that it turns back to Envoy's behaviour.

use std::time::Duration;

use integration_tests::proxy::Options;
use integration_tests::{Config, End, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const QUIET: Duration = Duration::from_millis(300);

fn strict(config: &Config) -> Proxy {
    Options { arguments: vec!["--envoy-strict".to_owned()], ..Options::default() }.start(config)
}

/// Idle soon, then a drain window, then a delayed close.
fn closing(window: &str, delayed: &str) -> Value {
    json!({
        "common_http_protocol_options": {"idle_timeout": "0.2s"},
        "drain_timeout": window,
        "delayed_close_timeout": delayed,
    })
}

#[test]
fn an_idle_close_waits_without_answering_and_late_bytes_are_reset() {
    let origin = Origin::ok();
    let proxy = strict(&Config::new(origin.address()).hcm(closing("0.2s", "60s")));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 1);
    assert!(client.is_quiet_for(2 * QUIET), "no FIN before the second window is over");
    client.finish();
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy_remote", 1);

    let proxy = strict(&Config::new(origin.address()).hcm(closing("0s", "1s")));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 1);
    client.send(GET);
    assert_eq!(client.end(), End::Reset);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_delayed_close_timeout"), 1);
    assert_eq!(origin.requests().len(), 2, "the late request was not served");
}

#[test]
fn a_request_in_the_drain_window_is_answered_and_the_close_waits_for_its_end() {
    let origin = Origin::ok();
    let proxy = strict(&Config::new(origin.address()).hcm(closing("60s", "0.2s")));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 1);
    let response = client.ask(GET);
    assert_eq!((response.status, response.closes()), (200, true));
    assert!(client.is_quiet_for(QUIET), "no FIN before the windows are over");
}

#[test]
fn an_announced_close_waits_for_the_drain_from_the_response_on() {
    // Longer than the window that follows.
    let origin = Origin::script(|mut peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(700));
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let times = json!({"drain_timeout": "0.5s", "delayed_close_timeout": "0s"});
    let aged = json!({"common_http_protocol_options": {"max_connection_duration": "0.6s"}});
    for (failed, config) in [(true, json!({})), (false, aged)] {
        let proxy = strict(&Config::new(origin.address()).hcm(times.clone()).hcm(config));
        let mut client = proxy.connect();
        if failed {
            proxy.admin.post("/healthcheck/fail");
        }
        let response = client.ask(GET);
        assert_eq!((response.status, response.closes()), (200, true));
        assert!(client.is_quiet_for(QUIET), "no FIN before the window is over");
        assert_eq!(client.end(), End::Fin);
    }
}

#[test]
fn one_stray_byte_begins_a_stream_and_stops_the_idle_clock() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(closing("0.1s", "0.1s"));
    let proxy = strict(&config);
    let mut client = proxy.connect();
    client.send("\r\n");
    assert!(client.is_quiet_for(4 * QUIET));
    assert_eq!(client.ask(GET).status, 200);

    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("\r\n");
    assert_eq!(client.end(), End::Fin);
}

#[test]
fn a_reused_connection_that_closes_is_a_503() {
    // Each connection answers once and closes on the second request.
    let script = |mut peer: integration_tests::origin::Peer| {
        if peer.request().is_some() {
            peer.send(integration_tests::origin::OK);
            peer.request();
        }
    };
    let origin = Origin::script(script);
    let config = Config::new(origin.address());
    let proxy = strict(&config);
    assert_eq!((proxy.get("/").status, proxy.get("/").status), (200, 503));
    let proxy = Proxy::start(&config);
    assert_eq!((proxy.get("/").status, proxy.get("/").status), (200, 200));
}

#[test]
fn extensions_of_the_configuration_are_refused() {
    let origin = Origin::ok();
    let layer = json!({"name": "l", "static_layer": {"tidegate": {"compat": {"connection_per_host": true}}}});
    let config = Config::new(origin.address()).bootstrap(json!({"layered_runtime": {"layers": [layer]}}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    std::fs::write(&file, config.0.to_string()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(integration_tests::binary::tidegate());
        command.args(["--mode", "validate", "-c"]).arg(&file).args(arguments).output().unwrap()
    };
    assert!(run(&[]).status.success());
    let refused = run(&["--envoy-strict"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text.contains("`tidegate.compat.connection_per_host` is Tidegate's own"), "{text}");
}
