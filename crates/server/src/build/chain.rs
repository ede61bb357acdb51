//! A filter chain from its configuration.

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::listener::{FilterChainConfig, NetworkFilterConfig};
use tidegate_config::transport::TransportSocket;
use tidegate_config::values::TimeoutOverride;
use tidegate_http::{BuildContext, Hcm};
use tidegate_types::Compat;
use tidegate_types::json::Problem;

use crate::snapshot::{ChainSnapshot, TerminalSnapshot, TransportSnapshot};

/// Builds a chain of the listener that `cx` describes.
///
/// # Errors
/// Everything that is wrong with its filters and its transport.
pub(super) fn build(
    config: &Arc<FilterChainConfig>,
    cx: &BuildContext<'_>,
) -> Result<Arc<ChainSnapshot>, Vec<Problem>> {
    Ok(Arc::new(ChainSnapshot {
        transport: transport(config)?,
        handshake_timeout: handshake_timeout(config.transport_socket_connect_timeout, cx.compat),
        terminal: terminal(config, cx)?,
        config: config.clone(),
    }))
}

/// Each kind of transport is a line here.
fn transport(config: &FilterChainConfig) -> Result<TransportSnapshot, Vec<Problem>> {
    match &config.transport_socket {
        TransportSocket::Raw => Ok(TransportSnapshot::Raw),
        TransportSocket::Tls(_) => Err(vec![general(config, "TLS is not served by this build yet")]),
    }
}

/// The last filter owns the connection. Each kind of terminal is a line here.
fn terminal(config: &FilterChainConfig, cx: &BuildContext<'_>) -> Result<TerminalSnapshot, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut terminal = None;
    for (index, filter) in config.filters.iter().enumerate() {
        match filter {
            NetworkFilterConfig::Http(hcm) if index + 1 == config.filters.len() => {
                match Hcm::build(hcm, cx) {
                    Ok(hcm) => terminal = Some(TerminalSnapshot::Http(hcm)),
                    Err(more) => problems.extend(more),
                }
            }
            NetworkFilterConfig::Http(_) => problems.push(general(
                config,
                "terminal filter `http_connection_manager` must be the last filter in a network filter chain",
            )),
            NetworkFilterConfig::Tcp(_) => {
                problems.push(general(config, "the TCP proxy is not served by this build yet"));
            }
            NetworkFilterConfig::Other(other) => problems.push(Problem::new(
                other.path.clone(),
                other.span,
                format!("no network filter has the type `{}` in this build", other.type_url),
            )),
        }
    }
    match terminal {
        Some(terminal) if problems.is_empty() => Ok(terminal),
        None if problems.is_empty() => Err(vec![general(config, "no terminal filter")]),
        _ => Err(problems),
    }
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
