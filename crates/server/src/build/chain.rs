//! A filter chain from its configuration.

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::TcpProxyConfig;
use tidegate_config::listener::{FilterChainConfig, NetworkFilterConfig};
use tidegate_config::runtime::Answers;
use tidegate_config::transport::TransportSocket;
use tidegate_config::values::TimeoutOverride;
use tidegate_filter::{AccessLogContext, BuiltNetwork, FactoryContext, NetworkRole};
use tidegate_http::{BuildContext, Hcm, access_log};
use tidegate_listener::{ChainEntry, ListenerStats, NetworkFilters, check_order};
use tidegate_stats::Scope;
use tidegate_tcp::TcpProxy;
use tidegate_tls::{ServerContext, TlsStats};
use tidegate_types::Compat;
use tidegate_types::json::{Problem, TypedConfig};

use crate::snapshot::{ChainSnapshot, ListenerSnapshot, TerminalSnapshot, TransportSnapshot};

/// Builds a chain of the listener that `cx` describes.
///
/// # Errors
/// Everything that is wrong with its filters and its transport.
pub(super) fn build(
    config: &Arc<FilterChainConfig>,
    cx: &BuildContext<'_>,
    previous: Option<&ListenerSnapshot>,
) -> Result<ChainSnapshot, Vec<Problem>> {
    let (filters, terminal) = filters(config, cx, previous)?;
    Ok(ChainSnapshot {
        transport: transport(config, cx, previous)?,
        handshake_timeout: handshake_timeout(config.transport_socket_connect_timeout, cx.compat),
        filters,
        terminal,
        config: config.clone(),
        answers: Answers::default(),
        table_answers: Answers::default(),
    })
}

/// Each kind of transport is a line here.
fn transport(
    config: &FilterChainConfig,
    cx: &BuildContext<'_>,
    previous: Option<&ListenerSnapshot>,
) -> Result<TransportSnapshot, Vec<Problem>> {
    if let Some(same) = previous.and_then(|previous| same_context(&config.transport_socket, previous)) {
        return Ok(same);
    }
    match &config.transport_socket {
        TransportSocket::Raw => Ok(TransportSnapshot::Raw),
        TransportSocket::Tls(tls) => {
            let stats = TlsStats::server(cx.store, &Scope::listener(cx.listener));
            let timed_out = ListenerStats::handshake_timeouts(cx.store, cx.listener);
            ServerContext::new(tls, stats, Some(timed_out)).map(TransportSnapshot::Tls)
        }
        TransportSocket::Quic(quic) => {
            let stats = TlsStats::quic_server(cx.store, &Scope::listener(cx.listener));
            ServerContext::quic(quic, stats).map(TransportSnapshot::Quic)
        }
    }
}

/// The context that open connections and sessions hang on: it takes a change of its files over by itself.
fn same_context(socket: &TransportSocket, previous: &ListenerSnapshot) -> Option<TransportSnapshot> {
    let same = |chain: &&Arc<ChainSnapshot>| chain.config.transport_socket.same_but_content(socket);
    previous.chains.iter().find(same).map(|chain| chain.transport.clone())
}

/// The filters that see the connection's bytes, and the last one, which owns the connection. Each kind of
/// terminal is a line here.
fn filters(
    config: &FilterChainConfig,
    cx: &BuildContext<'_>,
    previous: Option<&ListenerSnapshot>,
) -> Result<(NetworkFilters, TerminalSnapshot), Vec<Problem>> {
    if config.filters.is_empty() {
        return Ok((NetworkFilters::default(), TerminalSnapshot::Nothing));
    }
    in_order(config, cx)?;
    let (mut filters, mut terminal, mut problems) = (Vec::new(), None, Vec::new());
    for filter in &config.filters {
        let built = match filter {
            NetworkFilterConfig::Http(hcm) => {
                let former = previous.and_then(|previous| former(config, previous));
                Hcm::rebuild(hcm, cx, former).map(|hcm| terminal = Some(TerminalSnapshot::Http(hcm)))
            }
            NetworkFilterConfig::Tcp(proxy) => {
                tcp_proxy(proxy, cx).map(|proxy| terminal = Some(TerminalSnapshot::Tcp(proxy)))
            }
            NetworkFilterConfig::Other(other) => network_filter(other, cx).map(|built| match built {
                BuiltNetwork::Filter(filter) => filters.push(filter),
                BuiltNetwork::Responder(factory) => terminal = Some(TerminalSnapshot::Respond(factory)),
            }),
        };
        problems.extend(built.err().into_iter().flatten());
    }
    match terminal {
        Some(terminal) if problems.is_empty() => Ok((filters.into(), terminal)),
        None if problems.is_empty() => Err(vec![general(config, "no terminal filter")]),
        _ => Err(problems),
    }
}

/// The connection manager that served this chain.
fn former<'a>(config: &FilterChainConfig, previous: &'a ListenerSnapshot) -> Option<&'a Hcm> {
    let mut chains = previous.chains.iter();
    match &chains.find(|old| old.config.same_but_match(config))?.terminal {
        TerminalSnapshot::Http(hcm) => Some(hcm),
        _ => None,
    }
}

fn tcp_proxy(config: &Arc<TcpProxyConfig>, cx: &BuildContext<'_>) -> Result<Arc<TcpProxy>, Vec<Problem>> {
    let log_cx = AccessLogContext { stats: cx.store, flush_interval: cx.log_flush_interval };
    let logs = access_log::build(&config.access_log, cx.registry, &log_cx, cx.runtime)?;
    Ok(TcpProxy::new(config.clone(), logs, cx.store))
}

/// Whether the last filter, and no other, is terminal. Those that nobody knows are left to [`network_filter`].
fn in_order(config: &FilterChainConfig, cx: &BuildContext<'_>) -> Result<(), Vec<Problem>> {
    let mut known = Vec::new();
    for filter in &config.filters {
        let entry = match filter {
            NetworkFilterConfig::Http(_) => (HCM, HCM, NetworkRole::Terminal),
            NetworkFilterConfig::Tcp(_) => (TCP_PROXY, TCP_PROXY, NetworkRole::Terminal),
            NetworkFilterConfig::Other(other) => match cx.registry.network_role(&other.type_url) {
                Some((kind, role)) => (other.name.as_str(), kind, role),
                None => return Ok(()),
            },
        };
        known.push(entry);
    }
    let entries: Vec<_> = known.iter().map(|&(name, kind, role)| ChainEntry { name, kind, role }).collect();
    check_order(&entries).map_err(|(index, message)| {
        vec![match &config.filters[index] {
            NetworkFilterConfig::Other(other) => Problem::new(other.path.clone(), other.span, message),
            NetworkFilterConfig::Http(_) | NetworkFilterConfig::Tcp(_) => general(config, &message),
        }]
    })
}

const HCM: &str = "envoy.filters.network.http_connection_manager";
const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

fn network_filter(config: &TypedConfig, cx: &BuildContext<'_>) -> Result<BuiltNetwork, Vec<Problem>> {
    let runtime = |key: &str| cx.runtime.integer(key).or_else(|| cx.runtime.flag(key).map(u64::from));
    let factory = FactoryContext {
        stats: cx.store,
        scope: &Scope::root(),
        runtime: &runtime,
        local_cluster: &cx.node.cluster,
    };
    cx.registry.build_network(config, &factory)
}

fn general(config: &FilterChainConfig, message: &str) -> Problem {
    Problem::new(Default::default(), Default::default(), format!("filter chain `{}`: {message}", config.name))
}

/// 10 s unless configured: a handshake that never ends must not hold a connection (deviations, row 3). Envoy has
/// no default.
fn handshake_timeout(configured: TimeoutOverride, compat: Compat) -> Option<Duration> {
    match configured {
        TimeoutOverride::After(time) => Some(time),
        TimeoutOverride::Off => None,
        TimeoutOverride::Inherit => (!compat.is_strict()).then_some(Duration::from_secs(10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_bounded_unless_strict_or_told_otherwise() {
        let all = |configured| {
            [Compat::Tidegate, Compat::EnvoyStrict].map(|compat| handshake_timeout(configured, compat))
        };
        assert_eq!(all(TimeoutOverride::Inherit), [Some(Duration::from_secs(10)), None]);
        assert_eq!(all(TimeoutOverride::Off), [None, None]);
    }
}
