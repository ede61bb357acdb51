//! `example.filters.http.greeting`: adds one header field to each response. The smallest filter there is.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use tidegate_filter::{FactoryContext, HeadFlow, HttpFilter, HttpFilterType, Stream, from_response_fn};

// ANCHOR: greeting
/// The filter's type: this is what the registry gets.
pub struct Greeting;

/// What stands in `typed_config`.
#[derive(Deserialize)]
pub struct Config {
    /// The value of `x-greeting`.
    text: String,
}

impl HttpFilterType for Greeting {
    const NAME: &'static str = "example.filters.http.greeting";
    const TYPE_URL: &'static str = "type.googleapis.com/example.filters.http.greeting.v1.Greeting";
    type Config = Config;
    type RouteConfig = Config;
    type Factory = HeaderValue;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<HeaderValue, String> {
        HeaderValue::from_str(&config.text).map_err(|_| "`text` is not a valid header value".to_owned())
    }

    fn open(greeting: &Arc<HeaderValue>, _: &Rc<Stream>) -> HttpFilter {
        let greeting = greeting.clone();
        from_response_fn(move |_cx, head| {
            head.headers.insert("x-greeting", (*greeting).clone());
            HeadFlow::Continue
        })
    }
}
// ANCHOR_END: greeting

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::StatusCode;
    use tidegate_testkit::filter::FilterHarness;
    use tidegate_types::ResponseHead;

    use super::*;

    // ANCHOR: greeting_test
    #[tokio::test]
    async fn every_response_is_greeted() {
        let harness = FilterHarness::new::<Greeting>(r#"{"text": "hello"}"#).unwrap();
        let out = harness.open().response(ResponseHead::new(StatusCode::OK)).await.forwarded();
        assert_eq!(out.head.headers["x-greeting"], "hello");
    }
    // ANCHOR_END: greeting_test

    #[test]
    fn a_text_that_is_no_header_value_is_refused() {
        let problems = FilterHarness::new::<Greeting>(r#"{"text": "\n"}"#).err().unwrap();
        assert_eq!(problems[0].to_string(), "typed_config: `text` is not a valid header value");
    }
}
