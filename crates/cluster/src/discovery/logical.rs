//! Logical DNS: the name is the host, wherever it is at the moment.

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{EndpointConfig, LocalityEndpoints};
use tidegate_net::dns::Found;

use super::{Taken, Takes, host};
use crate::shared::ClusterShared;

/// The one name of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Logical {
    place: LocalityEndpoints,
    template: EndpointConfig,
}

impl Logical {
    /// `None`: there is no name, which the configuration does not allow.
    pub(super) fn of(config: &ClusterConfig) -> Option<Self> {
        let place = config.endpoints.first()?;
        let template = place.endpoints.first()?.clone();
        Some(Self { place: LocalityEndpoints { endpoints: Vec::new(), ..place.clone() }, template })
    }

    pub(super) fn name(&self) -> &str {
        self.template.name.as_deref().unwrap_or_default()
    }
}

impl Takes for Logical {
    /// A host whose address is in the answer stays, with its connections, whatever the order; another one takes the
    /// place of one that is not. An answer without addresses says nothing, as in Envoy: the host keeps those that it has.
    fn take(&mut self, cluster: &ClusterShared, found: &[Found]) -> Taken {
        let Some(endpoint) = host(&self.template, found) else { return Taken::Useless };
        let place = LocalityEndpoints { endpoints: vec![endpoint], ..self.place.clone() };
        match cluster.move_sole_host(&place) {
            true => Taken::Changed,
            false => Taken::Same,
        }
    }
}
