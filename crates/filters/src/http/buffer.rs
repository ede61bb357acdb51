//! `envoy.filters.http.buffer`: holds a request back until it is complete, and refuses one that is too
//! large with 413. The template of a filter that wants bodies.
//!
//! Configuration: `max_request_bytes` (required, at least 1). Per route (`BufferPerRoute`): either
//! `disabled: true` or `buffer`, which takes the place of the filter's own configuration.
//!
//! A request that came without a length gets its `content-length`, as in Envoy. The 413 itself is the
//! engine's answer to [`HeadFlow::Buffer`].

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use serde::{Deserialize, Deserializer};
use tidegate_filter::{
    Cx, FactoryContext, Flow, HeadFlow, HttpFilter, HttpFilterType, RequestFilter, Step, Stream,
};
use tidegate_types::{BodyBuf, EndStream, RequestHead};

/// The filter's type.
pub struct Buffer;

/// The configuration of a connection manager's filter.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Bytes of body that a request may have; a larger one is answered with 413.
    #[serde(deserialize_with = "positive")]
    max_request_bytes: u32,
}

/// The configuration at a level of the route.
#[derive(Debug, Deserialize)]
#[serde(try_from = "BufferPerRoute")]
pub enum RouteConfig {
    /// Nothing is held back.
    Disabled,
    /// This limit holds.
    Buffer(Config),
}

impl HttpFilterType for Buffer {
    const NAME: &'static str = "envoy.filters.http.buffer";
    const TYPE_URL: &'static str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
    const ROUTE_TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
    type Config = Config;
    type RouteConfig = RouteConfig;
    type Factory = Config;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        Ok(config)
    }

    fn open(factory: &Arc<Config>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Request { config: factory.clone() })
    }
}

struct Request {
    config: Arc<Config>,
}

impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, _: &'a mut RequestHead, end: EndStream) -> Step<'a, HeadFlow> {
        let limit = match cx.route_config::<RouteConfig>().as_deref() {
            Some(RouteConfig::Disabled) => None,
            Some(RouteConfig::Buffer(config)) => Some(config.max_request_bytes),
            None => Some(self.config.max_request_bytes),
        };
        Step::Now(match limit {
            Some(limit) if !end.is_end() => {
                HeadFlow::Buffer { limit: usize::try_from(limit).unwrap_or(usize::MAX) }
            }
            _ => HeadFlow::Skip,
        })
    }

    fn on_buffered<'a>(
        &'a mut self,
        _: &'a Cx,
        head: &'a mut RequestHead,
        body: &'a mut BodyBuf,
    ) -> Step<'a, Flow> {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| body.len().into());
        Step::Now(Flow::Continue)
    }
}

/// The message as it stands in the file: a oneof.
#[derive(Default, Deserialize)]
#[serde(default)]
struct BufferPerRoute {
    disabled: Option<bool>,
    buffer: Option<Config>,
}

impl TryFrom<BufferPerRoute> for RouteConfig {
    type Error = &'static str;

    fn try_from(message: BufferPerRoute) -> Result<Self, Self::Error> {
        match (message.disabled, message.buffer) {
            (Some(true), None) => Ok(Self::Disabled),
            (None, Some(config)) => Ok(Self::Buffer(config)),
            (Some(false), None) => Err("`disabled` can only be true"),
            _ => Err("exactly one of disabled and buffer must be set"),
        }
    }
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom("must be greater than 0")),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::{Method, StatusCode};
    use tidegate_testkit::filter::{FilterHarness, Message};

    use super::*;

    fn upload() -> Message<RequestHead> {
        Message::new(RequestHead::new(Method::POST, "example.com", "/"))
    }

    fn harness() -> FilterHarness {
        FilterHarness::new::<Buffer>(r#"{"max_request_bytes": 6}"#).unwrap()
    }

    #[tokio::test]
    async fn a_whole_body_goes_on_with_its_length() {
        let out = harness().open().request(upload().chunk("abc").chunk("def")).await.forwarded();
        assert_eq!(out.body(), "abcdef");
        assert_eq!(out.head.headers[CONTENT_LENGTH], "6");
    }

    #[tokio::test]
    async fn a_larger_one_is_refused() {
        let reply = harness().open().request(upload().chunk("abc").chunk("defg")).await.reply();
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!((&*reply.body, &*reply.details), (&b"Payload Too Large"[..], "request_payload_too_large"));
    }

    #[tokio::test]
    async fn a_request_without_a_body_passes_as_it_is() {
        let out = harness().open().request(upload()).await.forwarded();
        assert!(out.head.headers.is_empty());
    }

    #[tokio::test]
    async fn a_route_sets_its_own_limit_or_none() {
        let off = harness().route(r#"{"disabled": true}"#).unwrap();
        let out = off.open().request(upload().chunk("abcdefgh")).await.forwarded();
        assert!(out.head.headers.is_empty());

        let small = harness().route(r#"{"buffer": {"max_request_bytes": 2}}"#).unwrap();
        assert_eq!(small.open().request(upload().chunk("abc")).await.reply().status.as_u16(), 413);
    }

    #[test]
    fn limits_are_validated() {
        let refused = |config| FilterHarness::new::<Buffer>(config).err().unwrap()[0].to_string();
        assert_eq!(
            refused(r#"{"max_request_bytes": 0}"#),
            "typed_config.max_request_bytes: must be greater than 0"
        );
        assert_eq!(refused("{}"), "typed_config: missing field `max_request_bytes`");
        let problems = harness().route(r#"{"disabled": false}"#).err().unwrap();
        assert_eq!(problems[0].to_string(), "typed_config: `disabled` can only be true");
    }
}
