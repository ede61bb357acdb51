//! Accepting downstream connections, TCP's and QUIC's: one accept loop per listener and worker, and the pipeline
//! that a connection passes before its terminal filter owns it.
//!
//! Everything in a [`Listener`] belongs to one worker. Sockets are bound by `net::listen` and `net::udp` on the main
//! thread; what serves a connection is the [`Chain`] that matches
//! it and, behind its transport and filters, the [`Terminal`] (the HTTP connection manager, the TCP proxy).
//! No HTTP and no clusters here. Start from [`Listener::start`] and [`Listener::start_quic`]; the pipelines are `pipeline::run` and `quic::open`.

mod accept;
mod chain;
mod index;
mod inspect;
mod limit;
mod listener;
mod network;
mod pipeline;
mod presence;
mod quic;
mod stats;

pub use chain::{Chain, Chains};
pub use index::ChainIndex;
pub use limit::{ConnectionLimit, Reservation};
pub use listener::{Listener, ListenerOptions};
pub use network::{ChainEntry, NetworkFilters, RespondTerminal, behind, check_order};
pub use pipeline::{Connection, HalfClose, Serving, Terminal};
pub use presence::Presence;
pub use quic::{QuicConnection, describe as describe_quic};
pub use stats::ListenerStats;
