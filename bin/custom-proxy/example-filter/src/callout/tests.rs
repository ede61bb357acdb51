#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use http::{Method, StatusCode};
use tidegate_filter::CalloutError;
use tidegate_testkit::filter::{Answer, FakeCluster, FilterHarness, Message};
use tidegate_types::{RequestHead, ResponseFlags, ResponseHead};

use super::Callout;

const CONFIG: &str = r#"{"cluster": "authz", "path_prefix": "/check", "timeout": "1s",
    "forward_headers": ["Cookie"], "deny_status": 401}"#;

fn request() -> Message<RequestHead> {
    let head = RequestHead::new(Method::POST, "example.com", "/cart?id=1");
    Message::new(head).header("cookie", "a=b").header("x-private", "1").chunk("body")
}

fn harness(service: &FakeCluster) -> FilterHarness {
    FilterHarness::new::<Callout>(CONFIG).unwrap().cluster("authz", service)
}

// ANCHOR: test
#[tokio::test]
async fn an_allowed_request_goes_on_as_it_was() {
    let service = FakeCluster::new([Answer::status(StatusCode::OK)]);
    let harness = harness(&service);
    let out = harness.open().request(request()).await.forwarded();
    assert_eq!((out.body(), out.head.headers.len()), ("body".into(), 2));

    let asked = &service.calls()[0];
    assert_eq!((asked.head.path_str(), asked.timeout), ("/check/cart?id=1", Duration::from_secs(1)));
    assert_eq!(asked.head.headers.keys().collect::<Vec<_>>(), ["cookie"]);
    assert_eq!(harness.stat("http.test.callout.allowed"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_costs_the_timeout_and_a_503() {
    let harness = harness(&FakeCluster::new([Answer::Hang]));
    let start = tokio::time::Instant::now();
    let reply = harness.open().request(request()).await.reply();
    assert_eq!((reply.status.as_u16(), &*reply.details), (503, "callout_timed_out"));
    assert_eq!(reply.flags, ResponseFlags::UNAUTHORIZED);
    // The clock is virtual: this second takes no time.
    assert!(start.elapsed() >= Duration::from_secs(1));
}
// ANCHOR_END: test

#[tokio::test]
async fn a_denied_request_is_answered_with_the_services_words() {
    let head = ResponseHead::new(StatusCode::FOUND);
    let service = FakeCluster::new([Answer::Respond { head, body: "who?".into(), after: Duration::ZERO }]);
    let harness = harness(&service);
    let reply = harness.open().request(request()).await.reply();
    assert_eq!((reply.status.as_u16(), &*reply.body, &*reply.details), (401, &b"who?"[..], "callout_denied"));
    assert_eq!(harness.stat("http.test.callout.denied"), Some(1));
}

#[tokio::test]
async fn a_route_can_switch_it_off() {
    let service = FakeCluster::default();
    let harness = harness(&service).route(r#"{"disabled": true}"#).unwrap();
    harness.open().request(request()).await.forwarded();
    assert!(service.calls().is_empty());
}

#[tokio::test]
async fn a_service_that_cannot_be_asked_is_failed_closed_or_open() {
    let broken = FakeCluster::new([Answer::Fail(CalloutError::Failed("connection refused"))]);
    let reply = harness(&broken).open().request(request()).await.reply();
    assert_eq!((reply.status.as_u16(), &*reply.details), (503, "callout_failed"));

    let no_cluster = FilterHarness::new::<Callout>(CONFIG).unwrap();
    let reply = no_cluster.open().request(request()).await.reply();
    assert_eq!(&*reply.details, "callout_no_cluster");

    let open = FilterHarness::new::<Callout>(r#"{"cluster": "authz", "fail_open": true}"#).unwrap();
    open.open().request(request()).await.forwarded();
    assert_eq!(open.stat("http.test.callout.failed"), Some(1));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let refused = |config| FilterHarness::new::<Callout>(config).err().unwrap()[0].to_string();
    assert_eq!(
        refused(r#"{"cluster": "a", "timeot": "1s"}"#),
        "typed_config.timeot: unknown field `timeot` (did you mean `timeout`?)"
    );
    assert_eq!(
        refused(r#"{"cluster": "a", "deny_status": 200}"#),
        "typed_config.deny_status: must be an error status, 400 to 599"
    );
}
