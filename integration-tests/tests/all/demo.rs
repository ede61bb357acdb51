//! The binary without arguments.

use std::net::TcpListener;
use std::process::Command;

use integration_tests::process::Process;
use integration_tests::{Wire, binary, wait};

/// The only test with fixed ports: they are the demo's promise.
#[test]
fn the_demo_answers_where_it_says() {
    if ["127.0.0.1:10000", "127.0.0.1:9901"].iter().any(|address| TcpListener::bind(address).is_err()) {
        return binary::skipped("free ports 10000 and 9901");
    }
    let mut process = Process::start(&mut Command::new(binary::tidegate()));
    wait::until("the greeting", || process.output().contains("curl http://127.0.0.1:10000/"));
    assert!(process.try_exit().is_none(), "{}", process.output());
    let mut client = Wire::connect(([127, 0, 0, 1], 10000).into());
    let echo =
        client.ask("POST /hello HTTP/1.1\r\nhost: demo\r\nx-mine: 1\r\ncontent-length: 4\r\n\r\nbody").json();
    assert_eq!(echo["you_asked_for"], "POST /hello");
    assert_eq!(
        (echo["body"].as_str(), echo["headers_the_upstream_saw"]["x-mine"].as_str()),
        (Some("body"), Some("1"))
    );
    assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nhost: demo\r\n\r\n").text(), "ok\n");
    let mut admin = Wire::connect(([127, 0, 0, 1], 9901).into());
    assert_eq!(admin.ask("GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").text(), "LIVE\n");
}
