//! HTTP/1.1 (RFC 9112), both roles.
//!
//! [`rules`] judges, [`parse`] cuts heads apart, [`body`] finds the end of bodies, `encode` writes; all
//! of that is sans-IO. [`ServerConn`] and [`ClientConn`] put it on an [`Io`](tidegate_net::Io).

pub mod body;
mod buffers;
pub mod client;
#[cfg(test)]
mod corpus;
mod encode;
#[doc(hidden)]
pub mod fuzz;
pub mod options;
pub(crate) mod output;
pub mod parse;
#[cfg(test)]
mod roundtrip;
pub mod rules;
pub mod server;
pub(crate) mod wire;

pub use client::{ClientConn, IdleEvent};
pub use options::{ClientOptions, KeptNames, NameCase, ServerOptions};
pub use server::{Next, Readable, ServerConn};
