//! `envoy.filters.network.set_filter_state`: leaves objects by name, made from format strings when the connection
//! opens, for what the configuration refers to by their names: the TCP proxy's `hash_policy.filter_state`, and its
//! cluster (`envoy.tcp_proxy.cluster`).
//!
//! Configuration: `on_new_connection`, a list as of the HTTP filter of that name ([`crate::filter_state`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use tidegate_filter::{FactoryContext, LogContext, NetworkFilter, NetworkFilterType, NetworkFlow, Step};
use tidegate_types::{ConnectionInfo, StreamInfo};

use crate::filter_state::{Made, ObjectRule};

/// The filter's type.
pub struct SetFilterState;

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    on_new_connection: Vec<ObjectRule>,
}

impl NetworkFilterType for SetFilterState {
    const NAME: &'static str = "envoy.filters.network.set_filter_state";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config";
    type Config = Config;
    type Factory = Config;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        Ok(config)
    }

    fn open(factory: &Arc<Config>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection { config: factory.clone() })
    }
}

struct Connection {
    config: Arc<Config>,
}

impl NetworkFilter for Connection {
    fn on_open(&mut self, info: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        let stream = StreamInfo::new(info.clone(), SystemTime::now());
        let context = LogContext {
            request: None,
            response: None,
            response_trailers: None,
            local_reply_body: "",
            info: &stream,
        };
        for made in self.config.on_new_connection.iter().filter_map(|rule| rule.make(&context)) {
            match made {
                Made::Object(object) => info.state.objects().set(object),
                Made::TcpCluster(cluster) => *info.state.cluster.borrow_mut() = Some(cluster),
            }
        }
        Step::Now(NetworkFlow::Skip)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_testkit::network::NetworkHarness;

    use super::*;

    #[tokio::test]
    async fn objects_are_made_when_the_connection_opens() {
        let harness = NetworkHarness::new::<SetFilterState>(
            r#"{"on_new_connection": [
                {"object_key": "k", "factory_key": "envoy.hashable_string", "format_string": {"text_format": "a%CONNECTION_ID%"}},
                {"object_key": "envoy.tcp_proxy.cluster", "format_string": {"text_format": "other"}}]}"#,
        );
        let mut run = harness.unwrap().open();
        assert!(matches!(run.on_open().await, NetworkFlow::Skip));
        let (id, state) = (run.info().id, &run.info().state);
        assert_eq!(state.objects().hashable("k").as_deref(), Some(&*format!("a{id}")));
        assert_eq!(state.cluster.borrow().as_deref(), Some("other"));
    }
}
