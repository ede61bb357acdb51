//! `envoy.filters.network.echo`: sends back what the client sends, until it ends. No configuration, no idle
//! timeout, no statistics, as in Envoy.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use serde::Deserialize;
use tidegate_filter::{FactoryContext, RespondFlow, Responder, ResponderType};
use tidegate_types::{ConnectionInfo, EndStream};

/// The filter's type.
pub struct Echo;

/// The message has no fields.
#[derive(Debug, Deserialize)]
pub struct Config {}

impl ResponderType for Echo {
    const NAME: &'static str = "envoy.filters.network.echo";
    const TYPE_URL: &'static str = "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo";
    type Config = Config;
    type Factory = ();

    fn build(_: Config, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>, _: &Rc<ConnectionInfo>) -> Box<dyn Responder> {
        Box::new(Connection)
    }
}

struct Connection;

impl Responder for Connection {
    fn on_read(
        &mut self,
        _: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        _: EndStream,
        out: &mut BytesMut,
    ) -> RespondFlow {
        out.unsplit(data.split());
        RespondFlow::Continue
    }
}

#[cfg(test)]
mod tests {
    use tidegate_testkit::network::NetworkHarness;

    use super::*;

    #[test]
    fn the_answer_is_the_question() {
        let harness = NetworkHarness::responder::<Echo>("{}").unwrap();
        let mut run = harness.open();
        assert_eq!(run.greet(), (RespondFlow::Continue, "".into()));
        assert_eq!(run.answer("abc", EndStream::No), (RespondFlow::Continue, "abc".into()));
        assert!(NetworkHarness::responder::<Echo>(r#"{"a": 1}"#).is_err());
    }
}
