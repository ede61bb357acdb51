//! `envoy.filters.network.sni_cluster`: the server name that the client asked for names the cluster to which the
//! TCP proxy behind this filter goes. No configuration.
//!
//! Something must have read the name by then: the listener filter `tls_inspector`. Without a name the TCP proxy
//! keeps its own cluster.

use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::{FactoryContext, NetworkFilter, NetworkFilterType, NetworkFlow, Step};
use tidegate_types::ConnectionInfo;

/// The filter's type.
pub struct SniCluster;

/// The message has no fields.
#[derive(Debug, Deserialize)]
pub struct Config {}

impl NetworkFilterType for SniCluster {
    const NAME: &'static str = "envoy.filters.network.sni_cluster";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster";
    type Config = Config;
    type Factory = ();

    fn build(_: Config, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection)
    }
}

struct Connection;

impl NetworkFilter for Connection {
    fn on_open(&mut self, info: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        let name = info.requested_server_name.borrow().clone();
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            *info.state.cluster.borrow_mut() = Some(name);
        }
        Step::Now(NetworkFlow::Skip)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_testkit::network::{NetworkHarness, connection};

    use super::*;

    #[tokio::test]
    async fn the_server_name_is_the_cluster() {
        let harness = NetworkHarness::new::<SniCluster>("{}").unwrap();
        for (name, cluster) in [(None, None), (Some(""), None), (Some("a.example"), Some("a.example"))] {
            let info = connection();
            *info.requested_server_name.borrow_mut() = name.map(Arc::from);
            let mut run = harness.open_on(info);
            assert!(matches!(run.on_open().await, NetworkFlow::Skip));
            assert_eq!(run.info().state.cluster.borrow().as_deref(), cluster);
        }
    }
}
