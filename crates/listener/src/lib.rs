//! Accepting downstream connections: one accept loop per listener and worker, and the pipeline that a
//! connection passes before its terminal filter owns it.
//!
//! Everything in a [`Listener`] belongs to one worker. Sockets are bound by `net::listen` on the main
//! thread; what serves a connection is the [`Chain`] that matches
//! it and, behind its transport and filters, the [`Terminal`] (the HTTP connection manager, the TCP proxy).
//! No HTTP and no clusters here. Start from [`Listener::start`]; the pipeline is `pipeline::run`.

mod accept;
mod chain;
mod index;
mod inspect;
mod limit;
mod listener;
mod network;
mod pipeline;
mod presence;
mod stats;

pub use chain::{Chain, Chains};
pub use index::ChainIndex;
pub use limit::{ConnectionLimit, Reservation};
pub use listener::{Listener, ListenerOptions};
pub use network::{ChainEntry, NetworkFilters, RespondTerminal, behind, check_order};
pub use pipeline::{Connection, HalfClose, Serving, Terminal};
pub use presence::Presence;
pub use stats::ListenerStats;
