//! The HTTP/3 pool: [`crate::multiplexed`], with HTTP/3 spoken on connections of QUIC.
//!
//! A connection counts as connected when its handshake is complete. What its peer allows is exact: streams beyond that
//! wait for it, or for another connection.

use tidegate_codec::h3::{ClientConn, ClientDriver};

use crate::multiplexed::{self, Speaks};

mod connector;
mod stats;

pub use connector::QuicConnector;
pub use stats::{CodecStats, Counting};
pub use tidegate_codec::h3::ClientOptions;

/// HTTP/3, as a pool knows it.
pub struct Http3;

/// Connections to one host that speak HTTP/3.
pub type Pool = crate::driver::Pool<multiplexed::Multiplexed<Http3>>;

/// Waits for a place on a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<multiplexed::Multiplexed<Http3>>;

/// A connection that may carry streams.
pub type Opened = multiplexed::Opened<Http3>;

/// A stream's place on a connection.
pub type Lease = multiplexed::Lease<Http3>;

/// What Envoy says of an attempt that `connect_timeout` ended.
pub const TIMEOUT_TEXT: &str = "QUIC_NO_ERROR_with_details:_Closed_by_application";

impl Speaks for Http3 {
    type Conn = ClientConn;
    type Driver = ClientDriver;
    const PROTOCOL: &'static str = "http3";
    const LOGGED: &'static str = "upstream h3";
}
