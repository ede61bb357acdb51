//! Raw HTTP/2 peers over real sockets: every frame is scripted and visible.
//!
//! [`H2Client`] talks to the proxy, [`H2Origin`] is talked to; both are an [`H2Conn`] underneath, which logs each
//! frame, puts messages together, and by itself does only what its [`Manners`] say. The frames are
//! [`tidegate_testkit::h2::Frame`]s.

mod client;
mod conn;
mod message;
mod origin;
mod pipe;
mod state;

pub use client::{H2Client, request_fields};
pub use conn::{H2Conn, Manners};
pub use message::Message;
pub use origin::{H2Origin, H2Stream};
pub use tidegate_testkit::h2::{Frame, code, flag, hpack, kind, setting};

#[cfg(test)]
mod tests;
