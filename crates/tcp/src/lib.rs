//! The TCP proxy: the terminal filter that joins a downstream connection to one of a cluster.
//!
//! [`TcpProxy`] is a configuration made ready, shared by all workers; [`TcpTerminal`] is a worker's hold on it
//! behind one filter chain. A session is one task: `session::run` is its life in order (find a cluster, connect,
//! relay both ways, part), `relay` the part that every byte passes.
//!
//! No HTTP. Hosts, limits and pools are the cluster's; this crate owns the session: its timers, its two
//! directions, its access log.

mod buffers;
mod clock;
mod connect;
mod direction;
mod end;
mod part;
mod proxy;
mod relay;
mod session;
mod stats;
mod terminal;

pub use proxy::TcpProxy;
pub use stats::TcpStats;
pub use terminal::{TcpSlot, TcpTerminal};

#[cfg(test)]
mod tests;
