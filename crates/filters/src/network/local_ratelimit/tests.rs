#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_filter::NetworkFlow;
use tidegate_testkit::network::NetworkHarness;
use tidegate_types::ResponseFlags;

use super::LocalRateLimit;

fn harness(fields: &str) -> NetworkHarness {
    let bucket = r#""token_bucket": {"max_tokens": 1, "fill_interval": "3s"}"#;
    NetworkHarness::new::<LocalRateLimit>(&format!(r#"{{"stat_prefix": "p", {bucket} {fields}}}"#))
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

async fn refused(harness: &NetworkHarness) -> bool {
    match harness.open().on_open().await {
        NetworkFlow::Close(close) => {
            assert_eq!(close.reason, "local_ratelimit_close_over_limit");
            assert_eq!(close.flags, ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            true
        }
        _ => false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_token_is_refused() {
    let harness = harness("");
    assert!(!refused(&harness).await);
    assert!(refused(&harness).await);
    assert_eq!(harness.stat("local_rate_limit.p.rate_limited"), Some(1));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(!refused(&harness).await);
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_takes_no_tokens() {
    let harness = harness(r#", "runtime_enabled": {"default_value": false}"#);
    for _ in 0..3 {
        assert!(!refused(&harness).await);
    }
}

#[tokio::test(start_paused = true)]
async fn filters_with_one_key_and_like_buckets_share() {
    let (one, two, other) = (
        harness(r#", "share_key": "shared-in-test""#),
        harness(r#", "share_key": "shared-in-test""#),
        harness(r#", "share_key": "another-in-test""#),
    );
    assert!(!refused(&one).await);
    assert!(refused(&two).await);
    assert!(!refused(&other).await);
    let unlike = NetworkHarness::new::<LocalRateLimit>(
        r#"{"stat_prefix": "p", "share_key": "shared-in-test",
            "token_bucket": {"max_tokens": 2, "fill_interval": "3s"}}"#,
    )
    .unwrap();
    assert!(!refused(&unlike).await);
    drop((one, two));
    assert!(!refused(&harness(r#", "share_key": "shared-in-test""#)).await);
}

#[test]
fn a_bucket_is_required() {
    let refused = NetworkHarness::new::<LocalRateLimit>(r#"{"stat_prefix": "p"}"#).err().unwrap();
    assert_eq!(refused[0].to_string(), "typed_config: missing field `token_bucket`");
}
