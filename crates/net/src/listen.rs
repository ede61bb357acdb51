//! Listening sockets: binding them on the main thread, where an error can still be reported well, and
//! accepting on the workers.
//!
//! With `SO_REUSEPORT` each worker gets its own socket and the kernel spreads connections over them. Without
//! it, and for Unix-domain sockets, the workers share one socket through duplicated descriptors. Options
//! that Linux lets accepted sockets inherit (`TCP_NODELAY`, keepalive) are set here once, so that accepting
//! costs one system call a connection. Start from [`bind`] and [`Acceptor`].

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockAddr, Socket, Type};
use tidegate_types::Address;
use tokio::net::{TcpListener, UnixListener};

use crate::io::{BoxIo, StreamIo};
pub use crate::options::Keepalive;
use crate::socket_option::{ListenerSocketOptions, apply_all};

/// How to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// Sockets to make: one a worker.
    pub sockets: usize,
    /// One socket with `SO_REUSEPORT` per worker instead of a shared one. Ignored for Unix-domain sockets.
    pub reuse_port: bool,
    /// Connections that the kernel completes before they are accepted; `None`: the kernel's `somaxconn`,
    /// as Envoy does.
    pub backlog: Option<u32>,
    /// Permission bits of a Unix-domain socket's file.
    pub unix_mode: Option<u32>,
    /// Keepalive of accepted connections.
    pub keepalive: Option<Keepalive>,
    /// Whether this process may already listen on the address (a listener that takes over from its
    /// predecessor): without it, a socket that anybody holds there is an error even where `SO_REUSEPORT`
    /// would silently share it.
    pub take_over: bool,
    /// What the sockets are told beside that. Of Unix-domain sockets not before they are bound, as in Envoy.
    pub socket_options: ListenerSocketOptions,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("cannot bind '{address}': Address already in use")]
    InUse {
        /// The address.
        address: Address,
    },
    /// Ports below 1024, or a directory that is not ours.
    #[error("cannot bind '{address}': {error}")]
    Denied {
        /// The address.
        address: Address,
        /// The system's words.
        error: io::Error,
    },
    /// The address does not belong to this machine.
    #[error("cannot bind '{address}': it is no address of this machine")]
    NotOurs {
        /// The address.
        address: Address,
    },
    /// Anything else.
    #[error("cannot bind '{address}': {error}")]
    Other {
        /// The address.
        address: Address,
        /// The system's words.
        error: io::Error,
    },
}

impl ListenError {
    pub(crate) fn new(address: &Address, error: io::Error) -> Self {
        let address = address.clone();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address, error },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Other { address, error },
        }
    }
}

/// Bound and listening sockets, not yet on any worker.
#[derive(Debug)]
pub struct Bound {
    /// The address as it turned out: port 0 replaced.
    pub address: Address,
    /// One socket a worker.
    pub sockets: Vec<ListenSocket>,
}

/// A listening socket on its way to its worker.
#[derive(Debug)]
pub struct ListenSocket {
    address: Address,
    socket: Socket,
}

/// Binds `address` and listens.
///
/// Port 0: the first socket's port is everybody's. A Unix-domain socket file left behind by a dead process is
/// removed; one that answers is an error.
///
/// # Errors
/// [`ListenError`], which names the address.
pub fn bind(address: &Address, options: &ListenOptions) -> Result<Bound, ListenError> {
    let bound = match address {
        Address::Ip(ip) => bind_ip(*ip, options),
        Address::Unix(path) => bind_unix(path, options),
    };
    bound.map_err(|error| ListenError::new(address, error))
}

fn bind_ip(address: SocketAddr, options: &ListenOptions) -> io::Result<Bound> {
    if options.reuse_port && !options.take_over && address.port() != 0 {
        // Without SO_REUSEPORT the kernel refuses an address on which anybody listens.
        new_ip_socket(address, Sharing::Refused, options)?;
    }
    let sharing = if options.reuse_port { Sharing::Allowed } else { Sharing::Refused };
    let first = new_ip_socket(address, sharing, options)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    while sockets.len() < options.sockets {
        sockets.push(if options.reuse_port {
            new_ip_socket(bound, sharing, options)?
        } else {
            sockets[0].try_clone()?
        });
    }
    // Listening is last: connections are answered only once all sockets exist, so that none of them is
    // spread by the kernel to a group that is still growing.
    for socket in &sockets {
        set_ip_options(socket, options)?;
        listen(socket, options)?;
    }
    Ok(Bound::new(bound.into(), sockets))
}

#[derive(Clone, Copy)]
enum Sharing {
    Allowed,
    Refused,
}

fn listen(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    apply_all(&options.socket_options.bound, socket)?;
    socket.listen(backlog(options))?;
    apply_all(&options.socket_options.listening, socket)
}

fn new_ip_socket(address: SocketAddr, sharing: Sharing, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    // Connections in TIME_WAIT from the last run must not keep the port.
    socket.set_reuse_address(true)?;
    if let Sharing::Allowed = sharing {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Envoy's `ipv4_compat` is off by default: `::` is IPv6 only.
        socket.set_only_v6(true)?;
    }
    apply_all(&options.socket_options.prebind, &socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn set_ip_options(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let Some(keepalive) = options.keepalive else { return Ok(()) };
    keepalive.apply(socket)
}

fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Bound> {
    let abstract_name = path.as_os_str().as_encoded_bytes().first() == Some(&b'@');
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let address = if abstract_name { abstract_address(path)? } else { SockAddr::unix(path)? };
    if !abstract_name {
        remove_stale(path, &address, options.take_over)?;
    }
    socket.bind(&address)?;
    if let Some(mode) = options.unix_mode.filter(|_| !abstract_name) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    listen(&socket, options)?;
    let mut sockets = vec![socket];
    while sockets.len() < options.sockets {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok(Bound::new(Address::Unix(path.to_owned()), sockets))
}

/// An abstract name is bound with a leading NUL in the place of `@`.
fn abstract_address(path: &Path) -> io::Result<SockAddr> {
    let name = path.as_os_str().as_encoded_bytes().get(1..).unwrap_or_default();
    let mut raw = vec![0];
    raw.extend_from_slice(name);
    let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&raw);
    SockAddr::unix(Path::new(path))
}

/// Removes a socket file that nobody listens on, and nothing else.
fn remove_stale(path: &Path, address: &SockAddr, take_over: bool) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is no socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if !take_over && probe.connect(address).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    std::fs::remove_file(path)
}

fn backlog(options: &ListenOptions) -> i32 {
    // The kernel cuts it to `net.core.somaxconn`.
    options.backlog.map_or(i32::MAX, |n| i32::try_from(n).unwrap_or(i32::MAX))
}

impl Bound {
    fn new(address: Address, sockets: Vec<Socket>) -> Self {
        let sockets =
            sockets.into_iter().map(|socket| ListenSocket { address: address.clone(), socket }).collect();
        Self { address, sockets }
    }
}

/// An accepted connection.
pub struct Accepted {
    /// Its bytes.
    pub io: BoxIo,
    /// The address that the client connected to.
    pub local_address: Address,
    /// The client; an unnamed Unix-domain client has an empty path.
    pub peer_address: Address,
}

/// A listening socket registered with the current worker's runtime.
#[derive(Debug)]
pub struct Acceptor {
    /// Known without asking the kernel, unless bound to a wildcard.
    local_address: Option<Address>,
    socket: AcceptSocket,
}

#[derive(Debug)]
enum AcceptSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Registers `socket` with the runtime of the calling worker.
    ///
    /// # Errors
    /// When the descriptor cannot be registered.
    pub fn new(socket: ListenSocket) -> io::Result<Self> {
        let ListenSocket { address, socket } = socket;
        let descriptor = OwnedFd::from(socket);
        let wildcard = address.ip().is_some_and(|ip| ip.is_unspecified());
        let socket = match &address {
            Address::Ip(_) => AcceptSocket::Tcp(TcpListener::from_std(StdTcpListener::from(descriptor))?),
            Address::Unix(_) => {
                AcceptSocket::Unix(UnixListener::from_std(StdUnixListener::from(descriptor))?)
            }
        };
        Ok(Self { local_address: (!wildcard).then_some(address), socket })
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// What `accept4` says; see [`is_exhaustion`]. Errors of a single connection are worth going on.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (io, peer_address): (BoxIo, _) = match &self.socket {
            AcceptSocket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                (Box::new(StreamIo::tcp(stream)), peer.into())
            }
            AcceptSocket::Unix(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                (Box::new(StreamIo::unix(stream)), Address::Unix(path))
            }
        };
        let local_address = self.local_address.clone().or_else(|| io.local_address());
        // A connection that is gone already has no name left; its reads will say so.
        let local_address = local_address.unwrap_or_else(|| Address::Unix(Default::default()));
        Poll::Ready(Ok(Accepted { io, local_address, peer_address }))
    }
}

/// Whether accepting failed for want of descriptors or memory: trying again at once would spin.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests;
