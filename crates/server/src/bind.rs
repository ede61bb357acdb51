//! Binding the sockets of listeners: all of them before anything changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::ListenerConfig;
use tidegate_config::values::TcpKeepalive;
use tidegate_net::listen::{Bound, Keepalive, ListenError, ListenOptions, bind};

use crate::plan::{Address, ListenerPlan, Step};

/// A listener whose sockets could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{listener}`: {error}")]
pub(crate) struct BindError {
    pub(crate) listener: String,
    error: ListenError,
}

/// Binds what `plan` opens, by listener name.
///
/// # Errors
/// All that could not be bound; the sockets of the others are closed again.
pub(crate) fn bind_all(
    listeners: &[Arc<ListenerConfig>],
    plan: &ListenerPlan,
    workers: usize,
) -> Result<HashMap<String, Bound>, Vec<BindError>> {
    let mut bound = HashMap::new();
    let mut errors = Vec::new();
    for (listener, step) in listeners.iter().zip(&plan.steps) {
        let Step::Open(_, address) = step else { continue };
        if !listener.bind_to_port {
            continue;
        }
        match bind(&listener.address, &options(listener, workers, *address)) {
            Ok(sockets) => {
                bound.insert(listener.name.clone(), sockets);
            }
            Err(error) => errors.push(BindError { listener: listener.name.clone(), error }),
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

fn options(config: &ListenerConfig, workers: usize, address: Address) -> ListenOptions {
    ListenOptions {
        sockets: workers,
        reuse_port: config.enable_reuse_port,
        backlog: config.tcp_backlog_size,
        unix_mode: config.unix_mode,
        keepalive: keepalive(config.tcp_keepalive),
        take_over: address == Address::TakenOver,
    }
}

fn keepalive(config: Option<TcpKeepalive>) -> Option<Keepalive> {
    let seconds = |s: Option<u32>| s.map(|s| Duration::from_secs(u64::from(s)));
    match config? {
        TcpKeepalive::Off => None,
        TcpKeepalive::On { probes, time_s, interval_s } => {
            Some(Keepalive { time: seconds(time_s), interval: seconds(interval_s), probes })
        }
    }
}
