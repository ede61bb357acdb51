//! Network filters over real sockets: the built-in ones, in front of a terminal filter, and those that answer
//! by themselves.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::config::{file_log, filter, text_format};
use integration_tests::process::run;
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, End, Nobody, Origin, Proxy, Wire, binary};
use serde_json::{Value, json};

const ECHO: &str = "envoy.extensions.filters.network.echo.v3.Echo";
const DIRECT: &str = "envoy.extensions.filters.network.direct_response.v3.Config";
const CONNECTIONS: &str = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
const RATE: &str = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
const RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";

fn echo() -> Value {
    filter("envoy.filters.network.echo", ECHO, json!({}))
}

fn connection_limit(fields: Value) -> Value {
    let mut limit = filter("cl", CONNECTIONS, json!({"stat_prefix": "cl", "max_connections": 1}));
    integration_tests::config::merge(&mut limit["typed_config"], fields);
    limit
}

fn rbac(action: &str, fields: Value) -> Value {
    let policy = json!({"permissions": [{"any": true}], "principals": [{"remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}]});
    let mut rbac = filter(
        "rb",
        RBAC,
        json!({"stat_prefix": "rb", "rules": {"action": action, "policies": {"my policy": policy}}}),
    );
    integration_tests::config::merge(&mut rbac["typed_config"], fields);
    rbac
}

/// A listener with these filters and a log of its connections.
fn chain(filters: &[Value], log: &Path) -> Config {
    let format = "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %DOWNSTREAM_LOCAL_CLOSE_REASON% \
                  %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n";
    Config::new(Nobody::new().address()).listener(json!({
        "filter_chains": [{"filters": filters}],
        "access_log": [file_log(log, text_format(format))],
    }))
}

/// A proxy with such a listener, and its log.
fn start(filters: &[Value]) -> (Proxy, Log) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let options =
        Options { arguments: vec!["--file-flush-interval-msec".into(), "10".into()], ..Options::default() };
    (options.start(&chain(filters, &file)), Log { file, _folder: folder })
}

struct Log {
    file: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Log {
    fn lines(&self, count: usize) -> Vec<String> {
        await_lines(&self.file, count)
    }
}

#[test]
fn echo_returns_everything_also_after_the_clients_fin() {
    let (proxy, log) = start(&[echo()]);
    let mut client = proxy.connect();
    assert_eq!(client.send("hello").exactly(5).unwrap(), b"hello");
    let much: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    client.send(&much).finish();
    assert_eq!(client.exactly(much.len()).unwrap(), much);
    assert_eq!(client.end(), End::Fin);
    assert_eq!(log.lines(1), ["- - - - 200005 200005"]);
    proxy.admin.await_stat("listener.127.0.0.1_0.downstream_cx_active", 0);
}

#[test]
fn echo_keeps_an_idle_connection_and_survives_a_reset() {
    let (proxy, log) = start(&[echo()]);
    let mut idle = proxy.connect();
    let mut gone = proxy.connect();
    gone.send("x");
    gone.reset();
    assert!(idle.is_quiet_for(Duration::from_millis(200)));
    assert_eq!(idle.send("hello").exactly(5).unwrap(), b"hello");
    assert_eq!(log.lines(1).len(), 1);
}

#[test]
fn direct_response_ends_with_fin_whatever_the_client_sends() {
    let (proxy, log) = start(&[filter("d", DIRECT, json!({"response": {"inline_string": "hello client"}}))]);
    for sends in ["", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = proxy.connect();
        client.send(sends);
        assert_eq!(client.end(), End::Fin);
        assert_eq!(client.text(), "hello client");
    }
    assert!(
        log.lines(2).iter().all(|line| line.starts_with("- - - direct_response ") && line.ends_with(" 12"))
    );
}

#[test]
fn connection_limit_frees_a_place_when_a_connection_ends() {
    let (proxy, log) = start(&[connection_limit(json!({})), echo()]);
    let mut first = proxy.connect();
    assert_eq!(first.send("a").exactly(1).unwrap(), b"a");
    let mut second = proxy.connect();
    assert_eq!(second.end(), End::Fin);
    assert_eq!(log.lines(1), ["- - over_connection_limit - 0 0"]);
    drop(first);
    proxy.admin.await_stat("connection_limit.cl.active_connections", 0);
    assert_eq!(proxy.connect().send("b").exactly(1).unwrap(), b"b");
    assert_eq!(proxy.stat("connection_limit.cl.limited_connections"), 1);
}

#[test]
fn connection_limit_is_exact_over_workers() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        chain(&[connection_limit(json!({"max_connections": 7})), echo()], &folder.path().join("log"));
    let proxy = Options { concurrency: 2, ..Options::default() }.start(&config);
    let mut clients: Vec<Wire> = (0..40).map(|_| proxy.connect()).collect();
    proxy.admin.await_stat("connection_limit.cl.limited_connections", 33);
    proxy.admin.await_stat("connection_limit.cl.active_connections", 7);
    let open = clients.iter_mut().map(|client| client.is_quiet_for(Duration::from_millis(10)));
    assert_eq!(open.filter(|open| *open).count(), 7);
}

#[test]
fn connection_limit_holds_a_refused_connection_for_its_delay() {
    let (proxy, _log) = start(&[connection_limit(json!({"delay": "0.3s"})), echo()]);
    let _first = proxy.connect();
    proxy.admin.await_stat("connection_limit.cl.active_connections", 1);
    let start = Instant::now();
    let mut second = proxy.connect();
    assert_eq!(second.end(), End::Fin);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn local_ratelimit_flags_what_it_refuses() {
    let bucket = json!({"stat_prefix": "rl", "token_bucket": {"max_tokens": 1, "fill_interval": "600s"}});
    let (proxy, log) = start(&[filter("rl", RATE, bucket), echo()]);
    assert_eq!(proxy.connect().send("a").exactly(1).unwrap(), b"a");
    assert_eq!(proxy.connect().end(), End::Fin);
    assert!(log.lines(2).contains(&"URX - local_ratelimit_close_over_limit - 0 0".to_owned()));
    assert_eq!(proxy.stat("local_rate_limit.rl.rate_limited"), 1);
}

#[test]
fn rbac_judges_at_the_first_byte() {
    let (proxy, log) =
        start(&[rbac("DENY", json!({"shadow_rules": {}, "shadow_rules_stat_prefix": "sh_"})), echo()]);
    let mut client = proxy.connect();
    assert!(client.is_quiet_for(Duration::from_millis(100)));
    assert_eq!(proxy.stat("rb.rbac.denied"), 0);
    client.send("hello");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(log.lines(1), ["- rbac_access_denied_matched_policy[my_policy] rbac_deny_close - 5 0"]);
    assert_eq!((proxy.stat("rb.rbac.denied"), proxy.stat("rb.rbac.sh_.shadow_denied")), (1, 1));
}

#[test]
fn what_a_client_sends_across_our_close_is_judged_by_nobody() {
    let direct = filter("d", DIRECT, json!({"response": {"inline_string": "hi"}}));
    let (proxy, log) = start(&[rbac("DENY", json!({})), direct]);
    let mut client = proxy.connect();
    assert_eq!(client.end(), End::Fin);
    client.send("late").finish();
    assert_eq!(log.lines(1), ["- - - direct_response 0 2"]);
    assert_eq!(proxy.stat("rb.rbac.denied"), 0);
}

#[test]
fn filters_stand_before_the_connection_manager() {
    let origin = Origin::ok();
    let mut config = Config::new(origin.address());
    let filters = config.0.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters").unwrap();
    let hcm = filters[0].take();
    let continuous = json!({"enforcement_type": "CONTINUOUS"});
    *filters = json!([connection_limit(json!({})), rbac("ALLOW", continuous), hcm]);
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
    }
    assert_eq!(proxy.stat("rb.rbac.allowed"), 3);
    assert_eq!(proxy.connect().end(), End::Fin);
    // Refused before the connection manager knows of it.
    assert_eq!(proxy.stat("http.ingress.downstream_cx_total"), 1);
}

#[test]
fn a_chain_in_the_wrong_order_is_refused_in_envoys_words() {
    let folder = tempfile::tempdir().unwrap();
    let said = |filters: &[Value]| {
        let file = folder.path().join("c.json");
        std::fs::write(&file, chain(filters, Path::new("/dev/null")).0.to_string()).unwrap();
        let said = run(Command::new(binary::tidegate()).arg("--mode").arg("validate").arg("-c").arg(&file));
        assert_ne!(said.code, Some(0));
        said.stderr
    };
    let text = said(&[echo(), echo()]);
    let expected = "Error: terminal filter named envoy.filters.network.echo of type envoy.filters.network.echo must \
                    be the last filter in a network filter chain.";
    assert!(text.contains(expected), "{text}");
    let text = said(&[connection_limit(json!({}))]);
    let expected = "Error: non-terminal filter named cl of type envoy.filters.network.connection_limit is the last \
                    filter in a network filter chain.";
    assert!(text.contains(expected), "{text}");
}
