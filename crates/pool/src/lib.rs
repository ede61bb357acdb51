//! Connection pools: one per (host, priority) on each worker.
//!
//! [`machine`] decides (sans-IO: which connection takes a stream, when to open one, who waits, who fails,
//! what closes when); a driver does. [`h1`] drives HTTP/1.1, [`h2`] HTTP/2, [`h3`] HTTP/3, [`auto`] what the peer chooses
//! over TCP, [`grid`] HTTP/3 with that behind it, [`tcp`] the sessions of the TCP proxy; connections are opened through a
//! [`dialer::Dialer`] or a [`quic::QuicDialer`]. [`limits`] are the circuit breakers that all
//! workers share, [`learned`] is what is known of how long hosts let connections idle. No cluster names, no load
//! balancing, no retries here.
//!
//! Start from [`HttpPool`] to use a pool, from [`machine::Machine`] to understand one.

pub mod alternates;
pub mod auto;
pub mod dialer;
mod driver;
pub mod error;
pub mod grid;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod host;
mod http;
pub mod learned;
pub mod limits;
pub mod machine;
pub mod multiplexed;
mod parting;
pub mod proxy_protocol;
pub mod quic;
pub mod report;
pub mod solo;
pub mod stats;
pub mod tcp;

pub use driver::{Kind, Neighbour, Neighbours, Pool};
pub use error::PoolError;
pub use h1::ConnFacts;
pub use http::{Acquire, Failed, HttpPool, Lease};
/// What messages may be, in the versions that carry many at once.
pub use tidegate_codec::multiplex::{MessageOptions, ObsText, Underscores};
/// What a leased connection speaks.
pub use tidegate_codec::stream;
/// What lies below a connection's protocol, and what a stream asks of it.
pub use tidegate_net::{ProxyAddresses, TransportFactory, TransportOptions};
