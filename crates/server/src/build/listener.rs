//! A listener from its configuration: what did not change is that of the previous configuration.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use tidegate_config::listener::FilterChainConfig;
use tidegate_config::runtime::Answers;
use tidegate_config::{Bootstrap, ListenerConfig};
use tidegate_http::BuildContext;
use tidegate_listener::ChainIndex;
use tidegate_types::json::Problem;

use super::{Builder, access_logs, chain, listener_filters, quic_listener};
use crate::snapshot::{ChainSnapshot, ListenerFilters, ListenerSnapshot, Snapshot};

/// Builds a listener, or takes it over.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn build(
    config: &Arc<ListenerConfig>,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<ListenerSnapshot, Vec<Problem>> {
    if let Some(old) = unchanged(config, bootstrap, previous) {
        return Ok(old.clone());
    }
    let runtime = &bootstrap.runtime;
    let (built, answers) = runtime.recorded(|| new(config, bootstrap, builder, previous));
    built.map(|listener| ListenerSnapshot { answers, ..listener })
}

fn new(
    config: &Arc<ListenerConfig>,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<ListenerSnapshot, Vec<Problem>> {
    let stat_name = ListenerSnapshot::stat_name(config);
    let cx = context(config, &stat_name, bootstrap, builder);
    let mut problems = Vec::new();
    let filters = listener_filters::build(config, bootstrap, builder, previous).unwrap_or_else(|more| {
        problems.extend(more);
        ListenerFilters::default()
    });
    let mut chains = Vec::new();
    let namesake = previous.and_then(|previous| {
        let same = |old: &&ListenerSnapshot| {
            old.config.name == config.name && ListenerSnapshot::stat_name(&old.config) == stat_name
        };
        previous.listeners.iter().find(same)
    });
    for chain in config.all_chains() {
        let built = match unchanged_chain(config, chain, bootstrap, previous) {
            Some(old) => Ok(old),
            None => {
                let (built, answers) = bootstrap.runtime.recorded(|| chain::build(chain, &cx, namesake));
                built.map(|chain| Arc::new(ChainSnapshot { answers, ..chain }))
            }
        };
        match built {
            Ok(chain) => chains.push(chain),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let logs = access_logs(&config.access_log, bootstrap, builder)?;
    // https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/runtime
    let limit = format!("envoy.resource_limits.listener.{}.connection_limit", config.name);
    let max_connections = bootstrap.runtime.integer(&limit);
    let index = Arc::new(ChainIndex::new(config));
    let answers = Answers::default();
    let quic = quic_listener::build(config, &index, &chains, &bootstrap.runtime)?;
    let config = config.clone();
    Ok(ListenerSnapshot { config, filters, index, chains, quic, logs, max_connections, answers })
}

/// What the filter chains of a listener are built with.
pub(super) fn context<'a>(
    config: &ListenerConfig,
    stat_name: &'a str,
    bootstrap: &'a Bootstrap,
    builder: &'a Builder<'_>,
) -> BuildContext<'a> {
    BuildContext {
        registry: builder.registry,
        store: builder.store,
        listener: stat_name,
        buffer_limit: config.per_connection_buffer_limit_bytes as usize,
        runtime: &bootstrap.runtime,
        node: &bootstrap.node,
        local_address: local_address(),
        log_flush_interval: builder.options.log_flush_interval(),
        compat: builder.options.compat(),
    }
}

/// A connection manager is built anew when anything that it was built from differs; an unchanged one keeps
/// the state of its filters.
fn unchanged<'a>(
    config: &ListenerConfig,
    bootstrap: &Bootstrap,
    previous: Option<&'a Snapshot>,
) -> Option<&'a ListenerSnapshot> {
    let previous = previous?;
    if previous.base.bootstrap.node != bootstrap.node || previous.base.bootstrap.runtime != bootstrap.runtime
    {
        return None;
    }
    let same = |old: &&ListenerSnapshot| old.config.name == config.name && *old.config == *config;
    previous.listeners.iter().find(same).filter(|old| old.answers.hold(&bootstrap.runtime))
}

/// A chain of which nothing but the match differs, in a listener of which it sees no difference: it keeps the
/// state of its filters.
fn unchanged_chain(
    listener: &ListenerConfig,
    chain: &FilterChainConfig,
    bootstrap: &Bootstrap,
    previous: Option<&Snapshot>,
) -> Option<Arc<ChainSnapshot>> {
    let previous = previous?;
    if previous.base.bootstrap.node != bootstrap.node || previous.base.bootstrap.runtime != bootstrap.runtime
    {
        return None;
    }
    let same = |old: &&ListenerSnapshot| {
        old.config.name == listener.name
            && old.config.per_connection_buffer_limit_bytes == listener.per_connection_buffer_limit_bytes
            && ListenerSnapshot::stat_name(&old.config) == ListenerSnapshot::stat_name(listener)
    };
    let old = previous.listeners.iter().find(same)?;
    let kept =
        |old: &&Arc<ChainSnapshot>| old.config.same_but_match(chain) && old.answers.hold(&bootstrap.runtime);
    let kept = old.chains.iter().find(kept)?;
    // Under the new configuration, whose match may differ.
    Some(Arc::new(ChainSnapshot { config: Arc::new(chain.clone()), ..(**kept).clone() }))
}

/// The address that this machine would use towards the Internet: Envoy's "local address", which stands in
/// for a loopback client in `x-forwarded-for`. Connecting a UDP socket sends nothing.
fn local_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}
