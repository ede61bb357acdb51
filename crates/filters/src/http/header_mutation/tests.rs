#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::{HeaderMap, Method, StatusCode};
use tidegate_testkit::filter::{FilterHarness, Message};
use tidegate_types::{RequestHead, ResponseHead};

use super::HeaderMutation;

fn request() -> Message<RequestHead> {
    Message::new(RequestHead::new(Method::GET, "example.com", "/"))
}

fn response() -> Message<ResponseHead> {
    Message::new(ResponseHead::new(StatusCode::OK))
}

fn text(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn harness(config: &str) -> FilterHarness {
    FilterHarness::new::<HeaderMutation>(config).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn refused(config: &str) -> String {
    let problems = FilterHarness::new::<HeaderMutation>(config).err().unwrap();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn mutations_run_in_order_with_their_append_actions() {
    let harness = harness(
        r#"{"mutations": {"request_mutations": [
            {"remove": "X-Gone"},
            {"append": {"header": {"key": "x-a", "value": "2"}}},
            {"append": {"header": {"key": "x-b", "value": "2"}, "append_action": "ADD_IF_ABSENT"}},
            {"append": {"header": {"key": "x-c", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
            {"append": {"header": {"key": "x-d", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS"}},
            {"append": {"header": {"key": "x-e", "value": ""}}},
            {"append": {"header": {"key": "x-f", "value": ""}, "keep_empty_value": true}},
            {"remove_on_match": {"key_matcher": {"prefix": "X-Secret-", "ignore_case": true}}}]}}"#,
    );
    let request = request()
        .header("x-gone", "1")
        .header("x-a", "1")
        .header("x-b", "1")
        .header("x-c", "1")
        .header("x-c", "1b")
        .header("x-secret-1", "s")
        .header("x-secret-2", "s");
    let out = harness.open().request(request).await.forwarded();
    let mut lines = text(&out.head.headers);
    lines.sort();
    assert_eq!(lines, ["x-a: 1", "x-a: 2", "x-b: 1", "x-c: 2", "x-f: "]);
}

#[tokio::test]
async fn levels_of_the_route_follow_the_filter_and_the_flag_picks_the_winner() {
    let set = |value: &str| {
        format!(
            r#"{{"mutations": {{"response_mutations": [{{"append": {{"header": {{"key": "x", "value": "{value}"}},
               "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}}}]}}}}"#
        )
    };
    for (flag, winner) in [(false, "x: table"), (true, "x: route")] {
        let config =
            set("filter").replacen('{', &format!(r#"{{"most_specific_header_mutations_wins": {flag},"#), 1);
        let harness = harness(&config).route(&set("table")).unwrap().route(&set("route")).unwrap();
        let out = harness.open().response(response()).await.forwarded();
        assert_eq!(text(&out.head.headers), [winner]);
    }
}

#[tokio::test]
async fn values_are_rendered_from_the_head_as_it_stands() {
    let harness = harness(
        r#"{"mutations": {"request_mutations": [
            {"append": {"header": {"key": "x-a", "value": "%REQ(:PATH)%%%"}}},
            {"append": {"header": {"key": "x-b", "value": "<%REQ(X-A)%>"}}},
            {"append": {"header": {"key": "x-c", "value": "%REQ(X-NO)%"}}}],
          "response_mutations": [{"append": {"header": {"key": "x-d", "value": "%REQ(:PATH)% %RESP(X-UP)%"}}}]}}"#,
    );
    let mut run = harness.open();
    let out = run.request(request()).await.forwarded();
    assert_eq!(text(&out.head.headers), ["x-a: /%", "x-b: </%>"]);
    let out = run.response(response().header("x-up", "1")).await.forwarded();
    assert_eq!(text(&out.head.headers), ["x-up: 1", "x-d: / 1"]);
}

#[tokio::test]
async fn trailers_are_changed_and_bodies_are_not() {
    let harness = harness(
        r#"{"mutations": {"response_trailers_mutations": [{"append": {"header": {"key": "t", "value": "1"}}}]}}"#,
    );
    let message = response().chunk("body").trailer("a", "b");
    let out = harness.open().response(message).await.forwarded();
    assert_eq!(text(&out.trailers.unwrap()), ["a: b", "t: 1"]);
    assert_eq!(out.chunks, ["body"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let one = |mutation: &str| refused(&format!(r#"{{"mutations": {{"request_mutations": [{mutation}]}}}}"#));
    let at = "typed_config.mutations.request_mutations[0]";
    assert_eq!(one("{}"), format!("{at}: exactly one of remove, append and remove_on_match must be set"));
    assert_eq!(
        one(r#"{"append": {"header": {"key": ":path", "value": "/"}}}"#),
        format!("{at}.append: :-prefixed or host headers may not be modified")
    );
    assert_eq!(one(r#"{"remove": "a b"}"#), format!("{at}: `a b` is not a valid header name"));
    assert_eq!(
        one(r#"{"append": {"header": {"key": "x", "value": "\n"}}}"#),
        format!("{at}.append: `\\n` is not a valid header value")
    );
    assert_eq!(
        refused(r#"{"mutations": {"cookie_mutations": []}}"#),
        "typed_config.mutations.cookie_mutations: unknown field `cookie_mutations`"
    );
}

#[tokio::test]
async fn query_parameters_change_and_the_others_stay_as_they_are() {
    let harness = harness(
        r#"{"mutations": {"query_parameter_mutations": [
            {"remove": "gone"},
            {"append": {"record": {"key": "a", "value": "1 &%REQ(X-V)%"}}},
            {"append": {"record": {"key": "b", "value": "2"}, "action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
            {"append": {"record": {"key": "c", "value": "3"}, "action": "ADD_IF_ABSENT"}},
            {"append": {"record": {"key": "f", "value": "5"}, "action": "OVERWRITE_IF_EXISTS"}}]}}"#,
    );
    for (path, expected) in [
        ("/p?z=%20x&g%6fne=1&b=1&b=2&c&q+w=%26", "/p?z=%20x&c&q+w=%26&a=1%20%26v%2Fv&b=2"),
        ("/p?f=1&gone", "/p?a=1%20%26v%2Fv&b=2&c=3&f=5"),
    ] {
        let head = RequestHead::new(Method::GET, "example.com", path);
        let out = harness.open().request(Message::new(head).header("x-v", "v/v")).await.forwarded();
        assert_eq!(out.head.path_str(), expected);
    }
    let removed = self::harness(r#"{"mutations": {"query_parameter_mutations": [{"remove": "a"}]}}"#);
    let head = RequestHead::new(Method::GET, "example.com", "/p?a=1");
    assert_eq!(removed.open().request(head).await.forwarded().head.path_str(), "/p");
}
