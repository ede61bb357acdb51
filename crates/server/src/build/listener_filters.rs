//! A listener's filters from their configuration.

use std::sync::Arc;

use tidegate_config::{Bootstrap, ListenerConfig, TypedConfig};
use tidegate_filter::{FactoryContext, ListenerFilterFactory};
use tidegate_stats::Scope;
use tidegate_types::json::Problem;

use super::Builder;
use crate::snapshot::{ListenerFilters, Snapshot};

/// Builds them all, or takes those of the listener's former self, with their state, if nothing differs.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn build(
    config: &ListenerConfig,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<ListenerFilters, Vec<Problem>> {
    warn_of_blind_matches(config);
    let runtime = &bootstrap.runtime;
    let former = previous.and_then(|previous| {
        let same = |old: &tidegate_config::ListenerConfig| {
            old.name == config.name && old.listener_filters == config.listener_filters
        };
        previous.listeners.iter().find(|old| same(&old.config))
    });
    if let Some(former) = former.filter(|former| former.filters.answers.hold(runtime)) {
        return Ok(former.filters.clone());
    }
    let (filters, answers) = runtime.recorded(|| new(config, bootstrap, builder));
    Ok(ListenerFilters { all: filters?, answers })
}

fn new(
    config: &ListenerConfig,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
) -> Result<Vec<Arc<dyn ListenerFilterFactory>>, Vec<Problem>> {
    let runtime = &bootstrap.runtime;
    let values = |key: &str| runtime.integer(key).or_else(|| runtime.flag(key).map(u64::from));
    let cx = FactoryContext {
        stats: builder.store,
        scope: &Scope::root(),
        runtime: &values,
        local_cluster: &bootstrap.node.cluster,
    };
    let mut problems = Vec::new();
    let mut filters = Vec::new();
    for filter in &config.listener_filters {
        match builder.registry.build_listener(filter, &cx) {
            Ok(filter) => filters.push(filter),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(filters) } else { Err(problems) }
}

/// Names and protocols are found by listener filters alone, and none is added by itself (Envoy 1.40 adds none
/// either): the chains that ask for them would never be chosen, in silence.
fn warn_of_blind_matches(config: &ListenerConfig) {
    let has = |name: &str| {
        config.listener_filters.iter().any(|filter: &TypedConfig| filter.message_name().ends_with(name))
    };
    // QUIC tells without one.
    if has(".TlsInspector") || config.udp.is_some() {
        return;
    }
    for chain in &config.filter_chains {
        let asked = &chain.matching;
        let wants_tls = !asked.server_names.is_empty() || asked.transport_protocol == "tls";
        let wants_protocol = !asked.application_protocols.is_empty() && !has(".HttpInspector");
        if wants_tls || wants_protocol {
            tracing::warn!(target: "config",
                "listener `{}`: filter chain `{}` can only match what a listener filter finds \
                 (server_names, transport_protocol, application_protocols), and there is no \
                 `envoy.filters.listener.tls_inspector`", config.name, chain.name);
        }
    }
}
