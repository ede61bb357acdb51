//! The HTTP/2 pool: [`crate::multiplexed`], with HTTP/2 spoken.
//!
//! A connection counts as connected when its transport is: requests do not wait for the peer's SETTINGS.

use tidegate_codec::h2::{ClientConn, ClientDriver};

use crate::multiplexed::{self, Speaks};

pub(crate) mod connector;
mod stats;

pub use crate::driver::{Connect, Neighbour, Neighbours};
pub use connector::SocketConnector;
pub use stats::{CodecStats, Counting};
pub use tidegate_codec::h2::{ClientOptions, FloodLimits, KeepaliveOptions};

/// HTTP/2, as a pool knows it.
pub struct Http2;

/// Connections to one host that speak HTTP/2.
pub type Pool = crate::driver::Pool<multiplexed::Multiplexed<Http2>>;

/// Waits for a place on a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<multiplexed::Multiplexed<Http2>>;

/// A connection that may carry streams.
pub type Opened = multiplexed::Opened<Http2>;

/// A stream's place on a connection.
pub type Lease<K = multiplexed::Multiplexed<Http2>> = multiplexed::Lease<Http2, K>;

pub(crate) type Slot = multiplexed::slot::Slot<Http2>;
pub(crate) type Dialed = multiplexed::slot::Dialed<Http2>;

impl Speaks for Http2 {
    type Conn = ClientConn;
    type Driver = ClientDriver;
    const PROTOCOL: &'static str = "http2";
    const LOGGED: &'static str = "upstream h2";
}

#[cfg(test)]
mod tests;
