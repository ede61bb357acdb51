//! Opening connections to upstreams, without blocking.
//!
//! [`dial`] is one attempt at one address. A host with several is tried in an [`Order`] that mixes families, by
//! attempts that [`race`] ("happy eyeballs"). Timeouts are the caller's: dropping a future closes its sockets.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tidegate_types::Address;
use tokio::net::{TcpSocket, UnixStream};

use crate::io::{BoxIo, StreamIo};
use crate::options::Keepalive;
use crate::socket_option::SocketOption;

mod order;
mod race;

pub use order::{Family, Order};
pub use race::{ATTEMPT_DELAY, Won, race};

/// How to dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialOptions {
    /// `SO_KEEPALIVE` and its times (`upstream_connection_options.tcp_keepalive`); `None` leaves it off.
    pub keepalive: Option<Keepalive>,
    /// Where connections come from (`upstream_bind_config`): the first of the target's family, or else the first.
    /// Empty: the kernel chooses.
    pub bindings: Vec<Binding>,
}

/// What a socket is told before it connects. Those of Unix-domain sockets are told nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The source; port 0 for any.
    pub address: Option<SocketAddr>,
    /// It may be one that this machine does not have.
    pub freebind: bool,
    /// Set before the socket is bound.
    pub options: Vec<SocketOption>,
}

impl DialOptions {
    /// Where datagrams to `target` come from, if that is said: an address of its family.
    pub fn source_for(&self, target: SocketAddr) -> Option<SocketAddr> {
        let source = self.binding(target)?.address;
        source.filter(|source| source.is_ipv4() == target.is_ipv4())
    }

    fn binding(&self, target: SocketAddr) -> Option<&Binding> {
        let same =
            |binding: &&Binding| binding.address.is_some_and(|address| address.is_ipv4() == target.is_ipv4());
        self.bindings.iter().find(same).or(self.bindings.first())
    }
}

impl Binding {
    fn apply(&self, socket: &TcpSocket, target: SocketAddr) -> Result<(), DialError> {
        let freebind = self.freebind.then(|| SocketOption::freebind(target.is_ipv4()));
        for option in freebind.iter().chain(&self.options) {
            // As in Envoy, nothing is said of which one it was.
            let failed = |_| DialError::Local { transport: "".into(), bind: false };
            option.apply(socket).map_err(failed)?;
        }
        let Some(address) = self.address else { return Ok(()) };
        if address.port() == 0 {
            // The port is chosen with the target known: many more connections fit. Without it, fewer do.
            let _ = SocketOption::late_port().apply(socket);
        }
        socket.bind(address).map_err(|error| local(&format!("failed_to_bind_to_{address}"), &error, true))
    }
}

/// A new connection.
pub struct Dialed {
    /// Its bytes.
    pub io: BoxIo,
    /// Our end.
    pub local: Option<Address>,
    /// The end that answered.
    pub remote: Address,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// The remote end, or the way to it, refused.
    Remote {
        /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`: `delayed_connect_error:_Connection_refused`.
        transport: Cow<'static, str>,
    },
    /// No socket here, or the source address cannot be bound.
    Local {
        /// The same for our own failure.
        transport: Cow<'static, str>,
        /// Whether it was the source address (`bind_errors`).
        bind: bool,
    },
}

impl DialError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub fn transport(&self) -> &Cow<'static, str> {
        match self {
            Self::Remote { transport } | Self::Local { transport, .. } => transport,
        }
    }
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.transport())
    }
}

impl std::error::Error for DialError {}

/// Connects to `address`.
///
/// # Errors
/// By whom it failed.
pub async fn dial(address: &Address, options: &DialOptions) -> Result<Dialed, DialError> {
    match address {
        Address::Ip(ip) => dial_tcp(*ip, options).await,
        Address::Unix(path) => dial_unix(path).await,
    }
}

async fn dial_tcp(address: SocketAddr, options: &DialOptions) -> Result<Dialed, DialError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| local("socket_error", &error, false))?;
    if let Some(binding) = options.binding(address) {
        binding.apply(&socket, address)?;
    }
    let stream = socket.connect(address).await.map_err(|error| refused(&error, address))?;
    // Options that fail cost latency at most: the connection is good without them.
    let _ = stream.set_nodelay(true);
    if let Some(keepalive) = &options.keepalive {
        let _ = keepalive.apply(&SockRef::from(&stream));
    }
    let local = stream.local_addr().ok().map(Address::from);
    Ok(Dialed { io: Box::new(StreamIo::tcp(stream)), local, remote: Address::Ip(address) })
}

async fn dial_unix(path: &std::path::Path) -> Result<Dialed, DialError> {
    use std::os::unix::ffi::OsStrExt;
    let remote = Address::Unix(path.to_owned());
    // Envoy writes an abstract name with `@`, the kernel with NUL.
    let stream = match path.as_os_str().as_bytes().split_first() {
        Some((b'@', name)) => {
            let mut abstract_name = vec![0];
            abstract_name.extend_from_slice(name);
            UnixStream::connect(std::ffi::OsStr::from_bytes(&abstract_name)).await
        }
        _ => UnixStream::connect(path).await,
    };
    // The kernel answers at once on a Unix-domain socket.
    let stream = stream.map_err(|error| {
        let reason = describe("immediate_connect_error", &error);
        DialError::Remote { transport: format!("{reason}|remote_address:{}", path.display()).into() }
    })?;
    Ok(Dialed { io: Box::new(StreamIo::unix(stream)), local: None, remote })
}

/// A failed `connect`: one that the peer or the network answered is "delayed", one that the kernel refused
/// is "immediate" (Envoy: `ConnectionImpl`).
fn refused(error: &io::Error, address: SocketAddr) -> DialError {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    let transport = match error.kind() {
        ConnectionRefused | ConnectionReset | ConnectionAborted | TimedOut | HostUnreachable => {
            describe("delayed_connect_error", error)
        }
        _ => format!("{}|remote_address:{address}", describe("immediate_connect_error", error)).into(),
    };
    DialError::Remote { transport }
}

fn local(kind: &str, error: &io::Error, bind: bool) -> DialError {
    DialError::Local { transport: describe(kind, error), bind }
}

/// `kind:_Connection_refused`: the system's words without Rust's ` (os error 111)`, blanks as Envoy prints
/// them in response-code details.
fn describe(kind: &str, error: &io::Error) -> Cow<'static, str> {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    format!("{kind}:_{}", words.replace(' ', "_")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use std::io::IoSlice;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::net::{TcpListener, UnixListener};

    #[tokio::test]
    async fn a_refusal_carries_envoys_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = dial(&address.into(), &DialOptions::default()).await.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "delayed_connect_error:_Connection_refused");
    }

    #[tokio::test]
    async fn an_unbindable_source_is_our_failure() {
        let source = Binding { address: Some("192.0.2.1:0".parse().unwrap()), ..Binding::default() };
        let options = DialOptions { bindings: vec![source], ..Default::default() };
        let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let error = dial(&target.into(), &options).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, DialError::Local { bind: true, .. }), "{error}");
        assert_eq!(error.to_string(), "failed_to_bind_to_192.0.2.1:0:_Cannot_assign_requested_address");
    }

    #[tokio::test]
    async fn the_source_of_the_targets_family_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let source =
            |address: &str| Binding { address: Some(address.parse().unwrap()), ..Binding::default() };
        let bindings = vec![source("[::1]:0"), source("127.0.0.3:0")];
        let options = DialOptions { bindings, ..Default::default() };
        let dialed = dial(&target.into(), &options).await.unwrap();
        let Some(Address::Ip(local)) = dialed.local else { panic!("no address") };
        assert_eq!(local.ip(), std::net::IpAddr::from([127, 0, 0, 3]));
    }

    #[tokio::test]
    async fn an_option_that_cannot_be_set_is_our_failure() {
        let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let binding = Binding { options: vec![SocketOption::int(9999, 9999, 1)], ..Binding::default() };
        let options = DialOptions { bindings: vec![binding], ..Default::default() };
        let error = dial(&target.into(), &options).await.map(|_| ()).unwrap_err();
        assert_eq!(error, DialError::Local { transport: "".into(), bind: false });
    }

    #[tokio::test]
    async fn bytes_flow_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keepalive = Keepalive { time: Some(Duration::from_secs(7)), interval: None, probes: Some(3) };
        let options = DialOptions { keepalive: Some(keepalive), bindings: Vec::new() };
        let mut dialed = dial(&address.into(), &options).await.unwrap();
        assert_eq!(dialed.remote, Address::Ip(address));
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(dialed.local, Some(Address::Ip(peer)));
        std::future::poll_fn(|cx| dialed.io.poll_write(cx, &[IoSlice::new(b"hi")])).await.unwrap();
        let mut server: BoxIo = Box::new(StreamIo::tcp(server));
        let mut got = BytesMut::with_capacity(16);
        std::future::poll_fn(|cx| server.poll_read(cx, &mut got)).await.unwrap();
        assert_eq!(&got[..], b"hi");
    }

    #[tokio::test]
    async fn unix_sockets_by_path_and_by_abstract_name() {
        let name = format!("@tidegate-dial-{}", std::process::id());
        let listener = UnixListener::bind(name.replacen('@', "\0", 1)).unwrap();
        let mut dialed = dial(&Address::Unix(name.into()), &DialOptions::default()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        drop(server);
        let mut got = BytesMut::with_capacity(1);
        let read = std::future::poll_fn(|cx| match dialed.io.poll_read_ready(cx) {
            Poll::Ready(_) => dialed.io.poll_read(cx, &mut got),
            Poll::Pending => Poll::Pending,
        });
        assert_eq!(read.await.unwrap(), 0);
        let error = dial(&Address::Unix("/nowhere/x".into()), &DialOptions::default()).await.map(|_| ());
        let expected = "immediate_connect_error:_No_such_file_or_directory|remote_address:/nowhere/x";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
