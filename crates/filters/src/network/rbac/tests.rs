#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_filter::NetworkFlow;
use tidegate_testkit::network::{NetworkHarness, NetworkRun};
use tidegate_types::EndStream;
use tokio::time::Instant;

use super::Rbac;

/// Denies the harness's client.
const DENY: &str = r#""rules": {"action": "DENY", "policies": {"my policy": {
    "permissions": [{"any": true}],
    "principals": [{"remote_ip": {"address_prefix": "192.0.2.0", "prefix_len": 24}}]}}}"#;
const SHADOW: &str = r#""shadow_rules": {"action": "ALLOW"}"#;

fn harness(fields: &str) -> NetworkHarness {
    NetworkHarness::new::<Rbac>(&format!(r#"{{"stat_prefix": "p", {fields}}}"#))
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The answer to some bytes: `None` if the connection goes on, else why it was closed.
async fn closed(run: &mut NetworkRun) -> Option<String> {
    match run.on_read("hello", EndStream::No).await {
        (NetworkFlow::Close(close), _) => Some(close.reason.into_owned()),
        (NetworkFlow::Continue | NetworkFlow::Skip, data) => {
            assert_eq!(data, "hello");
            None
        }
    }
}

fn stats(harness: &NetworkHarness, shadow: &str) -> [Option<u64>; 4] {
    ["allowed".into(), "denied".into(), format!("{shadow}shadow_allowed"), format!("{shadow}shadow_denied")]
        .map(|name| harness.stat(&format!("p.rbac.{name}")))
}

#[tokio::test]
async fn a_denial_names_its_policy() {
    let harness = harness(DENY);
    let mut run = harness.open();
    assert!(matches!(run.on_open().await, NetworkFlow::Continue));
    assert_eq!(closed(&mut run).await.as_deref(), Some("rbac_deny_close"));
    let details = run.info().termination_details.borrow().clone();
    assert_eq!(details.as_deref(), Some("rbac_access_denied_matched_policy[my_policy]"));
    assert_eq!(stats(&harness, ""), [Some(0), Some(1), Some(0), Some(0)]);
}

#[tokio::test]
async fn who_no_policy_allows_is_denied_by_none() {
    let mut run = harness(r#""rules": {}"#).open();
    assert_eq!(closed(&mut run).await.as_deref(), Some("rbac_deny_close"));
    let details = run.info().termination_details.borrow().clone();
    assert_eq!(details.as_deref(), Some("rbac_access_denied_matched_policy[none]"));
}

#[tokio::test]
async fn shadow_rules_count_and_nothing_more() {
    let harness = harness(&format!(r#"{SHADOW}, "shadow_rules_stat_prefix": "sh_""#));
    assert_eq!(closed(&mut harness.open()).await, None);
    assert_eq!(stats(&harness, "sh_."), [Some(0), Some(0), Some(0), Some(1)]);
}

#[tokio::test]
async fn judged_once_or_at_each_read() {
    let allow =
        r#""rules": {"policies": {"a": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}"#;
    let once = harness(allow);
    assert!(matches!(once.open().on_read("x", EndStream::No).await.0, NetworkFlow::Skip));
    let each = harness(&format!(r#"{allow}, "enforcement_type": "CONTINUOUS""#));
    let mut run = each.open();
    for _ in 0..3 {
        assert!(matches!(run.on_read("x", EndStream::No).await.0, NetworkFlow::Continue));
    }
    assert_eq!(stats(&each, ""), [Some(3), Some(0), Some(0), Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_denial_may_be_delayed() {
    let mut run = harness(&format!(r#"{DENY}, "delay_deny": "2s""#)).open();
    let start = Instant::now();
    assert!(closed(&mut run).await.is_some());
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn without_rules_it_is_out_of_the_way() {
    assert!(matches!(harness(r#""delay_deny": "1s""#).open().on_open().await, NetworkFlow::Skip));
}

#[test]
fn what_it_does_not_know_is_refused_with_its_place() {
    let refused = |fields: &str| {
        let config = format!(r#"{{"stat_prefix": "p", {fields}}}"#);
        NetworkHarness::new::<Rbac>(&config).err().unwrap()[0].to_string()
    };
    assert_eq!(refused(r#""matcher": {}"#), "typed_config.matcher: not supported by this build");
    let policy = |permission: &str, principal: &str| {
        let lists = format!(r#""permissions": [{permission}], "principals": [{principal}]"#);
        refused(&format!(r#""rules": {{"policies": {{"a": {{{lists}}}}}}}"#))
    };
    let any = r#"{"any": true}"#;
    assert_eq!(
        policy(r#"{"not_rule": {"header": {"name": "x"}}}"#, any),
        "typed_config.rules.policies.a.permissions[0].not_rule.header: a connection has no request: not \
         supported by RBAC network filter"
    );
    assert_eq!(
        policy(any, r#"{"metadata": {}}"#),
        "typed_config.rules.policies.a.principals[0].metadata: not supported by this build: there is no dynamic \
         metadata"
    );
    assert_eq!(
        policy(r#"{"destination_port_range": {"start": 5, "end": 5}}"#, any),
        "typed_config.rules.policies.a.permissions[0]: range start 5 cannot be greater or equal than range end 5"
    );
    assert_eq!(policy("", any), "typed_config.rules.policies.a.permissions: must have at least one item");
    assert_eq!(
        policy(r#"{"any": false}"#, any),
        "typed_config.rules.policies.a.permissions[0].any: `any` can only be true"
    );
    assert_eq!(
        policy(any, "{}"),
        "typed_config.rules.policies.a.principals[0]: a principal must have exactly one identifier"
    );
}
