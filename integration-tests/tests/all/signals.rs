//! Signals: draining, the second SIGTERM, reopened logs.

use std::time::Duration;

use integration_tests::config::text_format;
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, End, Gate, Origin, Proxy, Wire, wait};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn patient() -> Options {
    Options { arguments: vec!["--drain-time-s".to_owned(), "60".to_owned()], ..Options::default() }
}

/// Row 4 of "Coming from Envoy".
#[test]
fn sigterm_lets_the_active_request_finish() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let mut proxy = patient().start(&Config::new(origin.address()));
    gate.open(1);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).status, 200);
    let mut active = proxy.connect();
    active.send(GET);
    origin.await_requests(2);

    proxy.process.signal("TERM");
    assert_eq!(idle.end(), End::Fin);
    wait::until("the listener's end", || Wire::try_connect(proxy.address).is_err());
    assert!(active.is_quiet_for(Duration::from_millis(50)));
    assert!(proxy.process.try_exit().is_none());

    gate.open(1);
    let response = active.response();
    assert_eq!((response.status, response.closes()), (200, true));
    assert_eq!(active.end(), End::Fin);
    assert_eq!(proxy.process.exit().code(), Some(0));
}

#[test]
fn sigterm_without_connections_ends_at_once() {
    let origin = Origin::ok();
    for signal in ["TERM", "INT"] {
        let mut proxy = patient().start(&Config::new(origin.address()));
        proxy.process.signal(signal);
        assert_eq!(proxy.process.exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let mut proxy = patient().start(&Config::new(origin.address()));
    let mut active = proxy.connect();
    active.send(GET);
    origin.await_requests(1);
    proxy.process.signal("TERM");
    wait::until("the listener's end", || Wire::try_connect(proxy.address).is_err());
    assert!(proxy.process.try_exit().is_none());
    proxy.process.signal("TERM");
    proxy.process.exit();
    assert_ne!(active.end(), End::Open);
}

#[test]
fn the_drain_time_bounds_the_wait() {
    let origin = Origin::script(|mut peer| while peer.request().is_some() {});
    let options =
        Options { arguments: vec!["--drain-time-s".to_owned(), "1".to_owned()], ..Options::default() };
    let mut proxy = options.start(&Config::new(origin.address()));
    let mut active = proxy.connect();
    active.send(GET);
    origin.await_requests(1);
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.exit().code(), Some(0));
    assert_ne!(active.end(), End::Open);
}

#[test]
fn access_logs_are_whole_after_the_end() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let config = Config::new(origin.address()).access_log(&log, text_format("%REQ(:PATH)%\n"));
    let mut proxy = patient().start(&config);
    let mut client = proxy.connect();
    for number in 0..100 {
        client.ask(&format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
    proxy.process.signal("TERM");
    proxy.process.exit();
    let lines: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines, (0..100).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[test]
fn sigusr1_reopens_logs() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let (log, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let config = Config::new(origin.address()).access_log(&log, text_format("%REQ(:PATH)%\n"));
    let proxy = Proxy::start(&config);
    proxy.get("/before");
    await_lines(&log, 1);
    std::fs::rename(&log, &rotated).unwrap();
    proxy.process.signal("USR1");
    wait::until("the new log", || log.exists());
    proxy.get("/after");
    assert_eq!(await_lines(&log, 1), ["/after"]);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "/before\n");
}
