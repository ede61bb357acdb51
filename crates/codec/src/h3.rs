//! HTTP/3 (RFC 9114), both roles, as an engine of our own over [`tidegate_quic::Conn`].
//!
//! [`ServerConn`] gives a [`ServerExchange`] for each request, [`ClientConn`] a [`ClientExchange`] for each that is to be
//! sent; both are the streams of [`crate::stream`]. Underneath is one structure for both roles, `conn::Core`: `input`
//! takes frames from the transport, `heads` judges what they say, `output` gives the transport what goes, `control` and
//! `sections` are the streams beside the requests. `crate::fields` and `crate::qpack` turn heads into fields and sections.
//!
//! It is ours, and not the `h3` crate, for what that lacks: settings, GOAWAY, codes and 1xx under our hand, limits, and
//! no task and no channel for a request.
//!
//! What is bounded, and by what:
//! - bytes received: by the transport's windows, which open as bodies are read, and not before;
//! - heads: by `max_head_bytes` and `max_headers`; sections by twice that; SETTINGS by 16 KB;
//! - a dynamic table of the peer's: by the 64 KB that we announce; sections that wait for it: 100;
//! - streams: by the transport's limits; 1xx heads of one by 32; frames without content by 1000 in a row;
//! - bytes to be sent: by the transport's send window; what it has not taken, by who sends: see [`crate::stream`];
//! - an idle connection: this structure, and the transport's.
//!
//! Codes and reasons of closes are Envoy's where it notices at all; the RFC's where it does not.

pub mod client;
mod codes;
#[cfg(test)]
mod conformance;
mod conn;
mod control;
mod frames;
#[cfg(test)]
mod fuzz;
mod heads;
mod input;
pub mod options;
mod output;
mod sections;
pub mod server;
mod settings;
mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod together;
mod transport;

pub use client::{ClientConn, ClientDriver, ClientExchange, connect};
pub use options::{ClientOptions, Options, ServerOptions};
pub use server::{ServerConn, ServerExchange};
