//! Binding the sockets of listeners, TCP's and UDP's: all of them before anything changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::ListenerConfig;
use tidegate_config::socket_option::SocketState;
use tidegate_config::values::TcpKeepalive;
use tidegate_net::listen::{Keepalive, ListenError, ListenOptions, bind};
use tidegate_net::socket_option::{ListenerSocketOptions, SocketOption};
use tidegate_net::udp::{self, UdpOptions};

use crate::plan::{Address, ListenerPlan, Step};
use crate::workers::SocketUpdate;

/// A listener whose sockets could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{listener}`: {error}")]
pub(crate) struct BindError {
    pub(crate) listener: String,
    error: ListenError,
}

/// The sockets of a listener, one a worker.
pub(crate) struct Bound {
    /// The address as it turned out: port 0 replaced.
    pub(crate) address: tidegate_types::Address,
    pub(crate) sockets: Vec<SocketUpdate>,
}

impl Bound {
    fn udp(address: SocketAddr, sockets: Vec<UdpSocket>) -> Self {
        let sockets = sockets.into_iter().map(SocketUpdate::OpenUdp).collect();
        Self { address: address.into(), sockets }
    }

    /// The same UDP sockets once more.
    fn duplicates(&self) -> io::Result<Vec<UdpSocket>> {
        let udp = self.sockets.iter().filter_map(|socket| match socket {
            SocketUpdate::OpenUdp(socket) => Some(socket.try_clone()),
            _ => None,
        });
        udp.collect()
    }
}

/// The UDP sockets of the process. All connections of a listener share them, also those of one that drains: a
/// listener that comes to the same address gets the same sockets.
#[derive(Default)]
pub(crate) struct UdpSockets(RefCell<HashMap<SocketAddr, Vec<UdpSocket>>>);

impl UdpSockets {
    fn of(&self, address: SocketAddr) -> Option<Vec<UdpSocket>> {
        let held = self.0.borrow();
        held.get(&address)?.iter().map(|socket| socket.try_clone().ok()).collect()
    }

    /// Remembers the sockets of a listener that serves from now on.
    pub(crate) fn hold(&self, bound: &Bound) {
        if let (tidegate_types::Address::Ip(address), Ok(sockets)) = (&bound.address, bound.duplicates())
            && !sockets.is_empty()
        {
            self.0.borrow_mut().insert(*address, sockets);
        }
    }

    /// Closes those of addresses that no listener has, once connections there have had their time.
    pub(crate) fn release(&self, is_used: impl Fn(SocketAddr) -> bool) {
        self.0.borrow_mut().retain(|address, _| is_used(*address));
    }
}

/// Binds what `plan` opens, by listener name.
///
/// # Errors
/// All that could not be bound; the sockets of the others are closed again.
pub(crate) fn bind_all(
    listeners: &[Arc<ListenerConfig>],
    plan: &ListenerPlan,
    workers: usize,
    held: &UdpSockets,
) -> Result<HashMap<String, Bound>, Vec<BindError>> {
    let mut bound = HashMap::new();
    let mut errors = Vec::new();
    for (listener, step) in listeners.iter().zip(&plan.steps) {
        let Step::Open(_, address) = step else { continue };
        if !listener.bind_to_port {
            continue;
        }
        match bind_one(listener, workers, *address, held) {
            Ok(sockets) => {
                bound.insert(listener.name.clone(), sockets);
            }
            Err(error) => errors.push(BindError { listener: listener.name.clone(), error }),
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

fn bind_one(
    listener: &ListenerConfig,
    workers: usize,
    address: Address,
    held: &UdpSockets,
) -> Result<Bound, ListenError> {
    if let (Some(_), tidegate_types::Address::Ip(ip)) = (&listener.udp, &listener.address) {
        return match held.of(*ip) {
            Some(sockets) => Ok(Bound::udp(*ip, sockets)),
            None => {
                let options = UdpOptions {
                    sockets: workers,
                    reuse_port: listener.enable_reuse_port,
                    socket_options: socket_options(listener),
                };
                let bound = udp::bind(*ip, &options)?;
                Ok(Bound::udp(bound.address, bound.sockets))
            }
        };
    }
    let bound = bind(&listener.address, &options(listener, workers, address))?;
    let sockets = bound.sockets.into_iter().map(SocketUpdate::Open).collect();
    Ok(Bound { address: bound.address, sockets })
}

fn options(config: &ListenerConfig, workers: usize, address: Address) -> ListenOptions {
    ListenOptions {
        sockets: workers,
        reuse_port: config.enable_reuse_port,
        backlog: config.tcp_backlog_size,
        unix_mode: config.unix_mode,
        keepalive: keepalive(config.tcp_keepalive),
        take_over: address == Address::TakenOver,
        socket_options: socket_options(config),
    }
}

/// Those that have fields of their own, then those given by number: in Envoy's order.
fn socket_options(config: &ListenerConfig) -> ListenerSocketOptions {
    let mut told = ListenerSocketOptions::default();
    let is_ipv4 = match &config.address {
        tidegate_types::Address::Ip(ip) => ip.is_ipv4(),
        tidegate_types::Address::Unix(_) => true,
    };
    if config.transparent {
        told.prebind.push(SocketOption::transparent(is_ipv4));
    }
    if config.freebind {
        told.prebind.push(SocketOption::freebind(is_ipv4));
    }
    for option in &config.socket_options {
        let state = match option.state {
            SocketState::Prebind => &mut told.prebind,
            SocketState::Bound => &mut told.bound,
            SocketState::Listening => &mut told.listening,
        };
        state.push(SocketOption {
            level: option.level,
            name: option.name,
            value: option.value.clone().into(),
        });
    }
    if let Some(queue) = config.tcp_fast_open_queue_length {
        told.listening.push(SocketOption::fast_open(queue));
    }
    told
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
