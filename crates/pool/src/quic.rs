//! How a pool opens a QUIC connection: a UDP socket of its own, and the cluster's TLS on it.
//!
//! The counterpart of [`crate::dialer`], which is for connections of bytes. What is spoken on the connection is
//! [`crate::h3`]'s matter; `connect_timeout`, which covers all of this, is the machine's. Start from [`QuicDialer`].

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use tidegate_codec::multiplex::{Event as Counted, Observer};
use tidegate_net::{DialOptions, TransportError, TransportOptions, udp};
use tidegate_quic::{ClientConfig, Conn, Event, Loss, connect};
use tidegate_types::tls::TlsInfo;
use tidegate_types::{Address, ResetReason};
use tokio::net::lookup_host;

use crate::dialer::Eyeballs;
use crate::error::PoolError;
use crate::host::Addresses;
use crate::stats::UpstreamStats;

mod failure;

pub use failure::Failure;

pub use tidegate_quic::Conn as Connection;

/// A cluster's QUIC, shared by all workers.
pub trait QuicTransports: std::fmt::Debug + Send + Sync {
    /// That of connections to the host with that name (empty if it has none).
    fn of_host(&self, hostname: &str) -> Rc<dyn QuicTransport>;
}

/// The TLS of connections to one host, and what QUIC is told of the cluster's options.
pub trait QuicTransport {
    /// What a connection begins with for streams that ask for this.
    ///
    /// # Errors
    /// Why there can be none, as Envoy words it.
    fn begin(&self, options: &TransportOptions) -> Result<Beginning, TransportError>;

    /// Facts of the session, once its handshake is complete.
    fn session(&self, conn: &Conn) -> Option<Rc<TlsInfo>>;

    /// The name that is asked for (SNI) for streams that ask for this: the host part of the origin.
    fn server_name(&self, options: &TransportOptions) -> Option<Arc<str>>;

    /// Whether certificates are verified against authorities, so that names in them mean something.
    fn verifies(&self) -> bool;
}

/// What a connection begins with.
pub struct Beginning {
    /// TLS, windows, timeouts.
    pub config: ClientConfig,
    /// SNI; an address where there is none to ask for.
    pub server_name: String,
}

/// Opens connections to one host.
pub struct QuicDialer {
    /// The host's addresses.
    pub addresses: Arc<Addresses>,
    /// Where connections go instead of the host.
    pub elsewhere: Option<Elsewhere>,
    /// Where the host may have several addresses that are to be tried.
    pub eyeballs: Option<Eyeballs>,
    /// Where connections come from.
    pub dial: Rc<DialOptions>,
    /// TLS.
    pub transport: Rc<dyn QuicTransport>,
    /// What the pool's streams ask of its connections.
    pub options: Rc<TransportOptions>,
    /// For `bind_errors`.
    pub stats: UpstreamStats,
    /// Counts how attempts end.
    pub observer: Rc<dyn Observer>,
}

/// Our address on the way to `remote` now, as the routes say; nothing is sent.
pub fn route_to(remote: &Address) -> Option<IpAddr> {
    let Address::Ip(remote) = remote else { return None };
    let socket = UdpSocket::bind(any(remote)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Any address of that family.
fn any(remote: &SocketAddr) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// Who serves the host's origin, as it says ([`crate::alternates`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// A name, looked up by the system for each attempt, or an address; `None`: the host's addresses.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: u16,
}

/// A connection, its handshake done.
pub struct Opened {
    /// The connection.
    pub conn: Conn,
    /// Facts of its TLS.
    pub tls: Option<Rc<TlsInfo>>,
}

/// An attempt under way. Dropping it gives the attempt up.
pub type Opening = Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>>;

impl QuicDialer {
    /// Starts an attempt.
    pub fn open(&self) -> Opening {
        let attempt = Attempt {
            dial: self.dial.clone(),
            transport: self.transport.clone(),
            options: self.options.clone(),
            stats: self.stats.clone(),
            observer: self.observer.clone(),
        };
        let (eyeballs, elsewhere) = (self.eyeballs.clone(), self.elsewhere.clone());
        let known = match &eyeballs {
            Some(_) => self.addresses.all(),
            None => Arc::from([Address::clone(&self.addresses.primary())]),
        };
        Box::pin(async move {
            let addresses = match elsewhere {
                None => known,
                Some(elsewhere) => elsewhere.addresses(&known).await?,
            };
            match eyeballs {
                Some(eyeballs) if addresses.len() > 1 => {
                    eyeballs.race(&addresses, async |address| attempt.run(address).await).await
                }
                _ => match addresses.first() {
                    Some(address) => attempt.run(address).await,
                    None => Err(local("No_address")),
                },
            }
        })
    }
}

impl Elsewhere {
    /// Its addresses; `known` are the host's.
    async fn addresses(&self, known: &[Address]) -> Result<Arc<[Address]>, PoolError> {
        let Some(host) = &self.host else {
            let moved = known.iter().filter_map(|address| match address {
                Address::Ip(address) => Some(Address::Ip(SocketAddr::new(address.ip(), self.port))),
                Address::Unix(_) => None,
            });
            return Ok(moved.collect());
        };
        // Off the worker where it is a name.
        let found = lookup_host((&**host, self.port)).await.map_err(|error| local(&error.to_string()))?;
        Ok(found.map(Address::Ip).collect())
    }
}

/// What attempts at all of a host's addresses have in common.
struct Attempt {
    dial: Rc<DialOptions>,
    transport: Rc<dyn QuicTransport>,
    options: Rc<TransportOptions>,
    stats: UpstreamStats,
    observer: Rc<dyn Observer>,
}

impl Attempt {
    /// A socket, and the handshake on it.
    async fn run(&self, address: &Address) -> Result<Opened, PoolError> {
        let Address::Ip(remote) = *address else {
            return Err(local("QUIC_needs_an_IP_address"));
        };
        let Beginning { config, server_name } = self.transport.begin(&self.options).map_err(refusal)?;
        let socket = self.socket(remote)?;
        let conn =
            connect(socket, remote, config, &server_name).map_err(|error| local(&error.to_string()))?;
        // Says what became of it even when the attempt is given up.
        let mut trial = Trial { conn: Some(conn), observer: &*self.observer };
        match trial.handshake().await {
            Ok(conn) => {
                let tls = self.transport.session(&conn);
                Ok(Opened { conn, tls })
            }
            Err(loss) => {
                // It is told of as what it is.
                trial.conn = None;
                let failure = Failure::of(&loss);
                self.observer.on_event(match failure.by_peer {
                    true => Counted::RxCloseNamed(failure.name),
                    false => Counted::TxCloseNamed(failure.name),
                });
                Err(failure.into_error())
            }
        }
    }

    fn socket(&self, remote: SocketAddr) -> Result<UdpSocket, PoolError> {
        let source = self.dial.source_for(remote).unwrap_or_else(|| any(&remote));
        let socket = udp::client(source).map_err(|error| {
            self.stats.bind_errors().inc();
            unsent(&error)
        })?;
        // Then the kernel tells of ICMP errors.
        socket.connect(remote).map_err(|error| unsent(&error))?;
        Ok(socket)
    }
}

/// A handshake under way.
struct Trial<'a> {
    conn: Option<Conn>,
    observer: &'a dyn Observer,
}

impl Trial<'_> {
    async fn handshake(&mut self) -> Result<Conn, Loss> {
        let outcome = poll_fn(|cx| {
            let Some(conn) = &mut self.conn else { return Poll::Pending };
            loop {
                match ready!(conn.poll_event(cx)) {
                    Event::Connected => return Poll::Ready(Ok(())),
                    Event::Lost(loss) => return Poll::Ready(Err(loss)),
                    // Streams and credit are the codec's to look for, once it has the connection.
                    _ => {}
                }
            }
        })
        .await;
        let conn = self.conn.take();
        match (outcome, conn) {
            (Ok(()), Some(conn)) => Ok(conn),
            (Err(loss), _) => Err(loss),
            // Only this function takes it.
            (Ok(()), None) => Err(Loss::Socket { errno: 0 }),
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.conn.take().is_some() {
            self.observer.on_event(Counted::TxCloseNamed("QUIC_NO_ERROR"));
        }
    }
}

fn refusal(error: TransportError) -> PoolError {
    let transport = Some(error.reason).filter(|reason| !reason.is_empty());
    PoolError::Connect { reason: ResetReason::LocalConnectionFailure, transport }
}

fn unsent(error: &io::Error) -> PoolError {
    Failure::of(&Loss::Socket { errno: error.raw_os_error().unwrap_or(0) }).into_error()
}

fn local(text: &str) -> PoolError {
    let transport = Some(text.replace(' ', "_").into());
    PoolError::Connect { reason: ResetReason::LocalConnectionFailure, transport }
}
