//! The harness of the tests that run the built binary with real sockets.
//!
//! A test writes a [`Config`], starts a scripted upstream ([`Origin`]) and the proxy ([`Proxy`]), and talks to
//! it byte by byte ([`Wire`]). Everything is on loopback and port 0, so that tests run side by side; every
//! wait has a deadline and ends as soon as what it waits for is there. Blocking sockets and threads: the
//! tested side is the one that is asynchronous.
//!
//! The same tests run on Envoy: `TIDEGATE_BIN=/path/to/envoy cargo test -p integration-tests` shows which
//! expectations are Envoy's and which are Tidegate's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod admin;
pub mod binary;
pub mod census;
pub mod closes;
pub mod config;
pub mod documents;
pub mod examples;
pub mod h2;
pub mod h3;
pub mod h3_peers;
pub mod message;
pub mod origin;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod race;
pub mod relay;
pub mod stalls;
pub mod tls_client;
pub mod tls_origin;
pub mod wait;
pub mod wire;

pub use admin::{Admin, Stats};
pub use config::Config;
pub use h2::{H2Client, H2Origin};
pub use message::{Request, Response};
pub use origin::{Gate, Nobody, Origin, Peer};
pub use proxy::Proxy;
pub use relay::Relay;
pub use wire::{End, Wire};
