//! What a QUIC listener's connections begin with: the TLS contexts of its filter chains, and QUIC's own settings.

use std::sync::Arc;

use tidegate_config::ListenerConfig;
use tidegate_config::listener::{NetworkFilterConfig, UdpListenerConfig};
use tidegate_config::runtime::Runtime;
use tidegate_filter::Arrival;
use tidegate_listener::ChainIndex;
use tidegate_quic::Reception;
use tidegate_tls::ServerContext;
use tidegate_tls::quic::{Hello, Pick, server_config};
use tidegate_types::Address;
use tidegate_types::json::Problem;

use crate::snapshot::{ChainSnapshot, QuicSnapshot, TransportSnapshot};

/// For a listener with these chains; `None`: it is TCP's.
///
/// # Errors
/// When the library lacks what QUIC needs.
pub(super) fn build(
    config: &Arc<ListenerConfig>,
    index: &Arc<ChainIndex>,
    chains: &[Arc<ChainSnapshot>],
    runtime: &Runtime,
) -> Result<Option<Arc<QuicSnapshot>>, Vec<Problem>> {
    let Some(udp) = &config.udp else { return Ok(None) };
    let contexts = chains.iter().map(|chain| match &chain.transport {
        TransportSnapshot::Quic(context) => Some(context.clone()),
        TransportSnapshot::Raw | TransportSnapshot::Tls(_) => None,
    });
    let contexts: Vec<_> = contexts.collect();
    let reset_key = contexts.iter().flatten().next().and_then(|context| context.reset_key());
    let pick = ByChain { index: index.clone(), contexts };
    // Of the connection managers: keepalive, as far as they are alike.
    let managers = chains.iter().filter_map(|chain| match chain.config.filters.last() {
        Some(NetworkFilterConfig::Http(manager)) => Some(&manager.http3),
        _ => None,
    });
    let options = managers.clone().next().cloned().unwrap_or_default();
    match server_config(Arc::new(pick), udp, &options) {
        Some(server) => Ok(Some(QuicSnapshot::new(Arc::new(server), reception(udp, runtime), reset_key))),
        None => {
            let message = format!("listener `{}`: the TLS library lacks what QUIC needs", config.name);
            Err(vec![Problem::new(Default::default(), Default::default(), message)])
        }
    }
}

fn reception(udp: &UdpListenerConfig, runtime: &Runtime) -> Reception {
    Reception {
        hears: runtime.flag(&udp.enabled.runtime_key).unwrap_or(udp.enabled.default),
        speaks_no_version: udp.reject_new_connections,
        longest: usize::from(udp.max_rx_datagram_size),
        for_each_connection: udp.packets_per_connection as usize,
        batches: udp.gso,
    }
}

/// The context of the chain that the listener's match chooses.
struct ByChain {
    index: Arc<ChainIndex>,
    contexts: Vec<Option<Arc<ServerContext>>>,
}

impl Pick for ByChain {
    fn pick(&self, hello: &Hello) -> Option<Arc<ServerContext>> {
        let addresses = hello.addresses?;
        let mut arrival = Arrival::new(Address::Ip(addresses.local), Address::Ip(addresses.remote));
        tidegate_listener::describe_quic(&mut arrival, hello.server_name.as_deref());
        self.contexts.get(self.index.find(&arrival)?)?.clone()
    }
}
