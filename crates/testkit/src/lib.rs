//! What tests share: byte streams in memory and a filter harness, in virtual time, and HTTP/2 by hand.
//!
//! For development only, never a dependency of what ships. [`io::pair`] gives the two ends of a connection
//! whose delays run on tokio's clock, so that a test with `start_paused` takes no time;
//! [`filter::FilterHarness`] runs one filter against scripted messages,
//! [`network::NetworkHarness`] a network filter against scripted bytes; [`dns::DnsServer`] answers by script;
//! [`udp::UdpPath`] is a path for datagrams that gets better and worse; [`h2`] has frames and header blocks for
//! scripted HTTP/2 peers. Failures panic: that is how a test fails.

pub mod dns;
pub mod filter;
pub mod h2;
pub mod io;
pub mod network;
pub mod stream;
pub mod udp;

pub use io::{MemIo, pair};
