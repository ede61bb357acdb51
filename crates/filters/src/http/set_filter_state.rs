//! `envoy.filters.http.set_filter_state`: leaves objects by name, made from format strings, for what the configuration
//! refers to by their names: a route's `hash_policy.filter_state`.
//!
//! Configuration: `on_request_headers`, a list of `{"object_key", "factory_key", "format_string", "skip_if_empty",
//! "read_only"}` ([`crate::filter_state`]). Per route the same message, applied after the filter's own, the most
//! specific level last.

use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::{
    Cx, FactoryContext, HeadFlow, HttpFilter, HttpFilterType, LogContext, RequestFilter, Step, Stream,
};
use tidegate_types::{EndStream, RequestHead};

use crate::filter_state::{Made, ObjectRule};

/// The filter's type.
pub struct SetFilterState;

/// The configuration, of a connection manager's filter as of a level of the route.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    on_request_headers: Vec<ObjectRule>,
}

impl HttpFilterType for SetFilterState {
    const NAME: &'static str = "envoy.filters.http.set_filter_state";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config";
    type Config = Config;
    type RouteConfig = Config;
    type Factory = Config;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        checked(config)
    }

    fn build_route(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        checked(config)
    }

    fn open(factory: &Arc<Config>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Request { config: factory.clone() })
    }
}

fn checked(config: Config) -> Result<Config, String> {
    match config.on_request_headers.iter().any(ObjectRule::is_for_tcp) {
        true => Err("`envoy.tcp_proxy.cluster` means nothing to requests".to_owned()),
        false => Ok(config),
    }
}

struct Request {
    config: Arc<Config>,
}

impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        let stream = cx.stream();
        let context = LogContext {
            request: Some(head),
            response: None,
            response_trailers: None,
            local_reply_body: "",
            info: stream.info(),
        };
        let levels = cx.route_configs::<Config>();
        let all = std::iter::once(&self.config).chain(&levels);
        for rule in all.flat_map(|config| &config.on_request_headers) {
            if let Some(Made::Object(object)) = rule.make(&context) {
                stream.set_object(object);
            }
        }
        Step::Now(HeadFlow::Skip)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::Method;
    use tidegate_testkit::filter::{FilterHarness, Message};

    use super::*;

    fn harness(rules: &str) -> Result<FilterHarness, String> {
        let config = format!(r#"{{"on_request_headers": [{rules}]}}"#);
        FilterHarness::new::<SetFilterState>(&config)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// What a hash policy finds under `k` for a request with `x-k: v`.
    async fn found(rules: &str) -> Option<String> {
        let mut stream = harness(rules).unwrap().open();
        let head = RequestHead::new(Method::GET, "a.test", "/");
        stream.request(Message::new(head).header("x-k", "v")).await;
        stream.stream().hashable_object("k").map(|text| text.to_string())
    }

    fn rule(factory: &str, text: &str, more: &str) -> String {
        format!(
            r#"{{"object_key": "k", "factory_key": "{factory}",
                 "format_string": {{"text_format_source": {{"inline_string": "{text}"}}}} {more}}}"#
        )
    }

    #[tokio::test]
    async fn objects_are_made_of_formats() {
        let hashable = |text| rule("envoy.hashable_string", text, "");
        assert_eq!(found(&hashable("<%REQ(x-k)%>")).await.as_deref(), Some("<v>"));
        assert_eq!(found(&hashable("%REQ(x-no)%")).await.as_deref(), Some("-"));
        assert_eq!(found(&rule("envoy.string", "a", "")).await, None);
        let twice = format!("{}, {}", hashable("a"), hashable("b"));
        assert_eq!(found(&twice).await.as_deref(), Some("b"));
        let kept =
            format!("{}, {}", hashable("a"), rule("envoy.hashable_string", "", r#", "skip_if_empty": true"#));
        assert_eq!(found(&kept).await.as_deref(), Some("a"));
    }

    #[test]
    fn mistakes_are_told() {
        for (rules, expected) in [
            (rule("nope", "", ""), "no objects of `nope`"),
            (rule("", "", ""), "no objects of `k`"),
            (rule("envoy.tcp_proxy.cluster", "", ""), "means nothing to requests"),
            (rule("envoy.string", "%NOPE%", ""), "NOPE"),
            (rule("envoy.string", "", r#", "shared_with_upstream": "ONCE""#), "not shared with upstream"),
            (r#"{"object_key": "", "format_string": {"text_format": "a"}}"#.to_owned(), "must not be empty"),
            (r#"{"object_key": "envoy.string"}"#.to_owned(), "format_string"),
            (r#"{"object_key": "envoy.string", "format_string": {}}"#.to_owned(), "exactly one of"),
        ] {
            let error = harness(&rules).err().unwrap();
            assert!(error.contains(expected), "{rules}: {error}");
        }
    }
}
