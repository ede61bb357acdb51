//! Sockets and what is done to them: options, listening, dialing, and the [`Io`] trait through which
//! codecs read and write.
//!
//! No TLS, no HTTP, no retries. This is the one crate of the data path that may touch descriptors.

pub mod clock;
pub mod dial;
pub mod dns;
pub mod io;
pub mod listen;
pub mod options;
pub mod peek;
pub mod prefetch;
pub mod socket_option;
pub mod splice;
pub mod transport;
pub mod udp;

pub use dial::{Binding, DialError, DialOptions, Dialed, Family, Order, Won, dial, race};
pub use io::{BoxIo, Io, StreamIo};
pub use options::Keepalive;
pub use peek::{Peek, Peeked};
pub use splice::Pipe;
pub use transport::{
    Connecting, ProxyAddresses, ServerTransport, Transport, TransportError, TransportFactory,
    TransportOptions,
};
