//! HTTP/2 (RFC 9113), both roles, as an engine of our own.
//!
//! [`ServerConn`] gives a [`ServerExchange`] for each request, [`ClientConn`] a [`ClientExchange`] for each that
//! is to be sent; both are the streams of [`crate::stream`]. Underneath is one structure for both roles, `conn::Core`:
//! `input` handles frames where they lie in the read buffer, `streams` holds what came until it is asked for,
//! `output` puts what goes into one output that the connection's task writes. `crate::fields` and `crate::hpack` turn
//! heads into fields and blocks.
//!
//! It is ours, and not the `h2` crate, since that took 25,000 instructions and 17 allocations a request and half,
//! and 47 KB for an idle connection.
//!
//! What is bounded, and by what:
//! - bytes received: by the windows, given back when a part was taken; small parts are put together;
//! - heads: by `max_head_bytes` and `max_headers`; blocks in many frames by twice that, and by their frames;
//! - streams: by `max_concurrent_streams`; 1xx heads of one by 32; frames that cost only us by [`FloodLimits`];
//! - bytes to be sent: bodies stand in line above 128 KB of output; above 256 KB nothing is read; frames that
//!   the peer does not take by `max_outbound_frames` and `max_outbound_control_frames`;
//! - an idle connection: no buffers; the decoder's table (`hpack_table_size`) once the peer uses it.
//!
//! Where Envoy closes a connection without a word, the peer is told by GOAWAY (RFC 9113 §5.4.1), but for one that
//! has not sent a preface. A client that closes its direction has closed the connection.

mod arena;
pub mod client;
mod codes;
#[cfg(test)]
mod conformance;
mod conn;
mod flood;
mod flow;
mod frames;
mod input;
mod keepalive;
pub mod options;
mod output;
pub mod preface;
pub mod server;
mod settings;
mod streams;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod testing;

pub use client::{ClientConn, ClientDriver, ClientExchange};
pub use options::{ClientOptions, FloodLimits, KeepaliveOptions, Options, ServerOptions};
pub use server::{ServerConn, ServerExchange};

pub use crate::multiplex::{ClientEvent, ConnError, Event, Flood, Observer};
