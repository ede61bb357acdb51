//! UDP sockets that listen for QUIC: one a worker, all of the same address.
//!
//! With `SO_REUSEPORT` the kernel would spread datagrams by their addresses, and a client whose address changes (a NAT
//! that rebinds) would reach a worker that knows nothing of it. Therefore the group of sockets gets a filter that picks
//! the socket by the connection id; workers issue ids accordingly (`quic::cid`). Without `SO_REUSEPORT` the workers
//! share one socket, and hand each other what is not theirs. Start from [`bind`].

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::listen::ListenError;
use crate::socket_option::{ListenerSocketOptions, apply_all};

mod steer;

/// How to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpOptions {
    /// Sockets to make: one a worker.
    pub sockets: usize,
    /// One socket with `SO_REUSEPORT` per worker instead of a shared one.
    pub reuse_port: bool,
    /// What the sockets are told beside that; they never listen.
    pub socket_options: ListenerSocketOptions,
}

/// Bound sockets, not yet on any worker.
#[derive(Debug)]
pub struct UdpBound {
    /// The address as it turned out: port 0 replaced.
    pub address: SocketAddr,
    /// One socket a worker, in the workers' order.
    pub sockets: Vec<UdpSocket>,
}

/// Binds `address`, on which nobody may listen yet.
///
/// # Errors
/// [`ListenError`], which names the address.
pub fn bind(address: SocketAddr, options: &UdpOptions) -> Result<UdpBound, ListenError> {
    bind_all(address, options).map_err(|error| ListenError::new(&address.into(), error))
}

fn bind_all(address: SocketAddr, options: &UdpOptions) -> io::Result<UdpBound> {
    if options.reuse_port && address.port() != 0 {
        // Without SO_REUSEPORT the kernel refuses an address on which anybody listens; with it, it would silently
        // share it with another process.
        socket(address, Sharing::Refused, options)?;
    }
    let sharing = if options.reuse_port { Sharing::Allowed } else { Sharing::Refused };
    let first = socket(address, sharing, options)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    while sockets.len() < options.sockets {
        sockets.push(if options.reuse_port {
            socket(bound, sharing, options)?
        } else {
            sockets[0].try_clone()?
        });
    }
    // The order in which they were bound is the order in which the filter counts them.
    if options.reuse_port
        && sockets.len() > 1
        && let Err(error) = steer::by_connection_id(&sockets[0], sockets.len())
    {
        tracing::warn!(target: "connection", %error, %bound,
            "datagrams are not steered to their workers: they hand them to each other");
    }
    Ok(UdpBound { address: bound, sockets: sockets.into_iter().map(Into::into).collect() })
}

/// A client's socket at `source`; port 0 for any.
///
/// # Errors
/// When the address cannot be bound.
pub fn client(source: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(source), Type::DGRAM.nonblocking(), None)?;
    enlarge(&socket);
    socket.bind(&source.into())?;
    Ok(socket.into())
}

#[derive(Clone, Copy)]
enum Sharing {
    Allowed,
    Refused,
}

fn socket(address: SocketAddr, sharing: Sharing, options: &UdpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), None)?;
    if let Sharing::Allowed = sharing {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Envoy's `ipv4_compat` is off by default: `::` is IPv6 only.
        socket.set_only_v6(true)?;
    }
    enlarge(&socket);
    apply_all(&options.socket_options.prebind, &socket)?;
    socket.bind(&address.into())?;
    apply_all(&options.socket_options.bound, &socket)?;
    Ok(socket)
}

/// Best effort: the kernel has limits of its own (`net.core.rmem_max`, `wmem_max`), and even they are twice what a socket
/// has by default.
fn enlarge(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
}

/// Bytes that the kernel keeps for a worker that is busy: 2 MB are 16 ms at 1 Gbit/s. The default, 208 KB, loses
/// datagrams of a burst.
const BUFFER: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests;
