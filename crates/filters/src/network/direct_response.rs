//! `envoy.filters.network.direct_response`: sends a fixed text to whoever connects, and closes.
//!
//! Configuration, as in Envoy's `Config` message: `response` (a `DataSource`; none: nothing is sent) and
//! `keep_open_after_response`, with which the connection stays until the client ends it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use serde::Deserialize;
use tidegate_filter::{FactoryContext, RespondFlow, Responder, ResponderType};
use tidegate_types::{ConnectionInfo, EndStream};

use crate::config::DataSource;

/// The filter's type.
pub struct DirectResponse;

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    response: DataSource,
    keep_open_after_response: bool,
}

impl ResponderType for DirectResponse {
    const NAME: &'static str = "envoy.filters.network.direct_response";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config";
    type Config = Config;
    type Factory = Config;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        Ok(config)
    }

    fn open(factory: &Arc<Config>, _: &Rc<ConnectionInfo>) -> Box<dyn Responder> {
        Box::new(Connection { config: factory.clone() })
    }
}

struct Connection {
    config: Arc<Config>,
}

impl Responder for Connection {
    fn on_open(&mut self, info: &Rc<ConnectionInfo>, out: &mut BytesMut) -> RespondFlow {
        *info.state.details.borrow_mut() = Some("direct_response".into());
        out.extend_from_slice(self.config.response.bytes());
        match self.config.keep_open_after_response {
            true => RespondFlow::Continue,
            false => RespondFlow::Close,
        }
    }

    fn on_read(
        &mut self,
        _: &Rc<ConnectionInfo>,
        _: &mut BytesMut,
        _: EndStream,
        _: &mut BytesMut,
    ) -> RespondFlow {
        RespondFlow::Continue
    }
}

#[cfg(test)]
mod tests {
    use tidegate_testkit::network::NetworkHarness;

    use super::*;

    #[test]
    fn one_text_for_everybody() {
        let harness =
            NetworkHarness::responder::<DirectResponse>(r#"{"response": {"inline_bytes": "aGk="}}"#).unwrap();
        let mut run = harness.open();
        assert_eq!(run.greet(), (RespondFlow::Close, "hi".into()));
        assert_eq!(run.info().state.details.borrow().as_deref(), Some("direct_response"));
    }

    #[test]
    fn it_may_stay() {
        let config = r#"{"keep_open_after_response": true, "response": {"inline_string": "hi"}}"#;
        let mut run = NetworkHarness::responder::<DirectResponse>(config).unwrap().open();
        assert_eq!(run.greet(), (RespondFlow::Continue, "hi".into()));
        assert_eq!(run.answer("abc", EndStream::No), (RespondFlow::Continue, "".into()));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let refused =
            NetworkHarness::responder::<DirectResponse>(r#"{"response": {"filename": "/no/such"}}"#);
        assert_eq!(
            refused.err().unwrap()[0].to_string(),
            "typed_config.response: /no/such: No such file or directory (os error 2)"
        );
    }
}
