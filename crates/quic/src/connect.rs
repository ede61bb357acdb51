//! [`connect`]: a client's connection with a socket of its own.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use quinn_proto::ClientConfig;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::conn::Conn;
use crate::conn::alarm::Alarm;
use crate::hub::{Driver, Hub};
use crate::link::{Link, UdpLink};

/// Why no connection was even tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket is of no use.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The name or the address is of no use.
    #[error(transparent)]
    Config(#[from] quinn_proto::ConnectError),
}

/// Begins a connection. `socket` is connected to `remote`, so that an ICMP error ends the attempt at once
/// ([`Loss::Socket`](crate::Loss::Socket)). The first packet is sent by the first
/// [`Conn::poll_event`].
///
/// # Errors
/// [`ConnectError`].
///
/// # Panics
/// Outside of a `LocalSet` or `LocalRuntime`.
pub fn connect(
    socket: UdpSocket,
    remote: SocketAddr,
    config: ClientConfig,
    server_name: &str,
) -> Result<Conn, ConnectError> {
    connect_over(Box::new(UdpLink::to(socket, remote)?), remote, config, server_name)
}

pub(crate) fn connect_over(
    link: Box<dyn Link>,
    remote: SocketAddr,
    config: ClientConfig,
    server_name: &str,
) -> Result<Conn, ConnectError> {
    let hub = Hub::of_client(link);
    let connected = hub.proto.borrow_mut().connect(Instant::now().into_std(), config, remote, server_name);
    let (handle, proto) = connected?;
    let core = hub.admit(handle, proto);
    hub.owned.set(true);
    // It sleeps until the connection is dropped, and sees it to its end.
    spawn_local(Driver { hub: hub.clone(), alarm: Alarm::default() });
    Ok(Conn::new(hub, core))
}
