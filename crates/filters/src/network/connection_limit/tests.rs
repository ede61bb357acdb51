#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_filter::NetworkFlow;
use tidegate_testkit::network::{NetworkHarness, NetworkRun};
use tidegate_types::CloseReason;
use tokio::time::Instant;

use super::ConnectionLimit;

fn harness(fields: &str) -> NetworkHarness {
    NetworkHarness::new::<ConnectionLimit>(&format!(
        r#"{{"stat_prefix": "p", "max_connections": 2 {fields}}}"#
    ))
    .unwrap_or_else(|problems| panic!("{problems:?}"))
}

async fn opened(harness: &NetworkHarness) -> (NetworkRun, bool) {
    let mut run = harness.open();
    let refused = match run.on_open().await {
        NetworkFlow::Close(close) => {
            assert_eq!(close.reason, "over_connection_limit");
            assert!(close.flags.is_empty());
            true
        }
        NetworkFlow::Skip => false,
        NetworkFlow::Continue => panic!("nothing to see in the bytes"),
    };
    (run, refused)
}

fn stats(harness: &NetworkHarness) -> [Option<u64>; 2] {
    ["limited_connections", "active_connections"]
        .map(|name| harness.stat(&format!("connection_limit.p.{name}")))
}

#[tokio::test]
async fn the_third_connection_is_refused_until_another_ends() {
    let harness = harness("");
    let (mut first, refused) = opened(&harness).await;
    assert!(!refused);
    let (_second, refused) = opened(&harness).await;
    assert!(!refused);
    let (mut third, refused) = opened(&harness).await;
    assert!(refused);
    assert_eq!(stats(&harness), [Some(1), Some(3)]);
    third.on_close(CloseReason::Refused);
    assert_eq!(stats(&harness), [Some(1), Some(2)]);
    first.on_close(CloseReason::PeerFin);
    assert!(!opened(&harness).await.1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_may_be_delayed() {
    let harness = harness(r#", "delay": "1.5s""#);
    let _open = [opened(&harness).await, opened(&harness).await];
    let start = Instant::now();
    assert!(opened(&harness).await.1);
    assert_eq!(start.elapsed(), Duration::from_millis(1500));
}

#[tokio::test]
async fn switched_off_it_neither_limits_nor_counts() {
    let harness = harness(r#", "runtime_enabled": {"default_value": false}"#);
    for _ in 0..3 {
        let (mut run, refused) = opened(&harness).await;
        assert!(!refused);
        run.on_close(CloseReason::PeerFin);
    }
    assert_eq!(stats(&harness), [Some(0), Some(0)]);
    let on = NetworkHarness::with_runtime::<ConnectionLimit>(
        r#"{"stat_prefix": "p", "max_connections": 1,
            "runtime_enabled": {"default_value": false, "runtime_key": "k"}}"#,
        &[("k", 1)],
    )
    .unwrap();
    let _first = opened(&on).await;
    assert!(opened(&on).await.1);
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |config| NetworkHarness::new::<ConnectionLimit>(config).err().unwrap()[0].to_string();
    assert_eq!(
        refused(r#"{"stat_prefix": "p", "max_connections": "0"}"#),
        "typed_config.max_connections: must be at least 1"
    );
    assert_eq!(refused(r#"{"stat_prefix": "p"}"#), "typed_config: missing field `max_connections`");
    assert_eq!(
        refused(r#"{"stat_prefix": "", "max_connections": 1}"#),
        "typed_config.stat_prefix: must not be empty"
    );
}
