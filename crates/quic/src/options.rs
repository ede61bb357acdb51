//! How an endpoint behaves: which worker it is, and what bounds its handshakes.

use std::sync::Arc;

use quinn_proto::ServerConfig;

/// One of the workers that share an address by `SO_REUSEPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// From 0; less than `count`.
    pub index: u32,
    /// How many there are; at least 1.
    pub count: u32,
}

impl Worker {
    /// The only one.
    pub const ALONE: Self = Self { index: 0, count: 1 };
}

/// What strangers may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes under way (counting attempts that nobody accepted yet) above which an address must be proved by
    /// a Retry (RFC 9000 section 8.1.2) before anything is kept for it. It stops floods from forged addresses.
    pub retry_above: usize,
    /// Handshakes under way above which new ones are refused. It bounds their memory, also against clients with
    /// proven addresses: 4,096 of some 30 KB each.
    pub max_half_open: usize,
    /// Attempts that wait for [`Endpoint::poll_incoming`](crate::Endpoint::poll_incoming); above it they are
    /// ignored, and the client sends again.
    pub backlog: usize,
    /// Connections that are closed and only linger to repeat their `CONNECTION_CLOSE` (RFC 9000 section 10.2.1);
    /// above it they are forgotten at once.
    pub lingering: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { retry_above: 1024, max_half_open: 4096, backlog: 1024, lingering: 1024 }
    }
}

/// How an [`Endpoint`](crate::Endpoint) behaves.
#[derive(Clone)]
pub struct EndpointOptions {
    /// What new connections get; `None`: none are taken.
    pub server: Option<Arc<ServerConfig>>,
    /// Whose socket this is. Every connection id that is issued says so.
    pub worker: Worker,
    /// Bounds.
    pub limits: Limits,
    /// The key of stateless resets (RFC 9000 section 10.3). All workers share it, so that any of them can tell a
    /// client that its connection is gone; `None`: a random one.
    pub reset_key: Option<[u8; 32]>,
}

/// What an endpoint makes of datagrams; may change while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Whether any are looked at.
    pub hears: bool,
    /// Attempts to connect are answered as if no version of QUIC were spoken here (RFC 9000 section 6).
    pub speaks_no_version: bool,
    /// Bytes of the longest datagram that is looked at.
    pub longest: usize,
    /// Datagrams that are read for each connection before the worker's other tasks get a turn, up to a bound.
    pub for_each_connection: usize,
    /// Whether the kernel is given several datagrams in one call (GSO).
    pub batches: bool,
}

impl Default for Reception {
    fn default() -> Self {
        Self {
            hears: true,
            speaks_no_version: false,
            longest: usize::MAX,
            for_each_connection: 32,
            batches: true,
        }
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self { server: None, worker: Worker::ALONE, limits: Limits::default(), reset_key: None }
    }
}
