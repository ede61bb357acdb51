//! HTTP/2 (RFC 9113), both roles, over the `h2` crate.
//!
//! [`ServerConn`] gives a [`ServerExchange`] for each request, [`ClientConn`] a [`ClientExchange`] for each that
//! is to be sent; both are the streams of [`crate::stream`]. `wire` puts the library on an
//! [`Io`](tidegate_net::Io) and watches the frames that pass; `heads` translates heads, `body` bodies.
//!
//! What the library does not do, and what is done about it:
//! - It tells nobody of resets, floods, the peer's stream limit or a GOAWAY's last stream: `wire` follows the
//!   frames. A GOAWAY in two steps and PINGs with a clock of our own are frames put between the library's.
//! - Its queues of answers (`max_outbound_frames`, `max_outbound_control_frames`) have no length to limit: it
//!   stops reading until they are written.
//! - It keeps 28 KB of buffers per connection (16 to write, 8 to read, 4 to decode Huffman codes). Measured with
//!   mimalloc: an idle connection that served requests has 37 KB allocated, of which 21 KB are resident without
//!   transparent huge pages, 38 KB with them. With these buffers taken on demand and the decoder's table holding
//!   copies, 9 KB were measured: a change to the library.
//! - Some connection errors bear PROTOCOL_ERROR where the RFC has a code of their own. `wire` puts that right
//!   where a frame's length, a setting or the last frame shows it; COMPRESSION_ERROR remains (h2spec takes the end
//!   of the connection for it). Pseudo-header fields in trailers are dropped, not refused (RFC 9113 §8.1).
//! - It resets streams whose `:path` or `:authority` the `http` crate cannot hold, and answers a head over twice
//!   our limit with its own 431; neither request is seen above. A fragment in `:path` is cut off.
//! - A field name in upper case costs the connection, whatever
//!   `override_stream_error_on_invalid_http_message` says.
//! - `SETTINGS_HEADER_TABLE_SIZE` bounds its decoder; its encoder follows the peer's setting alone.
//! - A client that closes its direction has closed the connection: responses under way are lost.

mod blocks;
mod body;
pub mod client;
mod codes;
#[cfg(test)]
mod conformance;
pub mod events;
mod flood;
mod frames;
mod heads;
mod keepalive;
pub mod options;
pub mod preface;
pub mod server;
mod shared;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod testing;
mod wire;

pub use client::{ClientConn, ClientDriver, ClientEvent, ClientExchange};
pub use events::{ConnError, Event, Observer};
pub use flood::Flood;
pub use options::{ClientOptions, FloodLimits, KeepaliveOptions, Options, ServerOptions};
pub use server::{ServerConn, ServerExchange};
