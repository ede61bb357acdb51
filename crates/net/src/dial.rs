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

mod order;
mod race;

pub use order::{Family, Order};
pub use race::{ATTEMPT_DELAY, Won, race};

/// How to dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialOptions {
    /// `SO_KEEPALIVE` and its times (`upstream_connection_options.tcp_keepalive`); `None` leaves it off.
    pub keepalive: Option<Keepalive>,
    /// Where connections come from (`upstream_bind_config.source_address`); port 0 for any.
    pub source: Option<SocketAddr>,
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
    if let Some(source) = options.source {
        socket.bind(source).map_err(|error| local("bind_error", &error, true))?;
    }
    let stream = socket.connect(address).await.map_err(|error| refused(&error))?;
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
fn refused(error: &io::Error) -> DialError {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    let kind = match error.kind() {
        ConnectionRefused | ConnectionReset | ConnectionAborted | TimedOut | HostUnreachable => {
            "delayed_connect_error"
        }
        _ => "immediate_connect_error",
    };
    DialError::Remote { transport: describe(kind, error) }
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
        let options = DialOptions { source: Some("192.0.2.1:0".parse().unwrap()), ..Default::default() };
        let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let error = dial(&target.into(), &options).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, DialError::Local { bind: true, .. }), "{error}");
    }

    #[tokio::test]
    async fn bytes_flow_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keepalive = Keepalive { time: Some(Duration::from_secs(7)), interval: None, probes: Some(3) };
        let options = DialOptions { keepalive: Some(keepalive), source: None };
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
