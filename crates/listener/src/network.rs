//! Network filters at work: the chain before a terminal filter, and terminal filters that answer by themselves.
//!
//! [`behind`] puts filters in front of any [`Terminal`]: they are opened in order before the terminal sees the
//! connection, then stand in its [`Io`](tidegate_net::Io) ([`io::FilteredIo`]) until they are done.
//! [`respond::RespondTerminal`] serves connections with a [`Responder`](tidegate_filter::Responder).
//! Without network filters nothing of this is on a connection's path. Which filters may stand where is
//! [`order`]'s matter.

mod filters;
mod io;
mod open;
mod order;
mod respond;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use tidegate_filter::NetworkFilterFactory;

use crate::{Connection, HalfClose, QuicConnection, Serving, Terminal, quic};

pub use order::{ChainEntry, check_order};
pub use respond::RespondTerminal;

/// The network filters of a filter chain before its terminal one: plain data that workers share.
pub type NetworkFilters = Arc<[Arc<dyn NetworkFilterFactory>]>;

/// `terminal` behind `filters`; `terminal` itself when there are none.
pub fn behind(filters: &NetworkFilters, terminal: Rc<dyn Terminal>) -> Rc<dyn Terminal> {
    if filters.is_empty() {
        return terminal;
    }
    Rc::new(Filtered { filters: filters.clone(), terminal })
}

struct Filtered {
    filters: NetworkFilters,
    terminal: Rc<dyn Terminal>,
}

impl Terminal for Filtered {
    fn serve(&self, connection: Connection) -> Serving {
        let (filters, terminal) = (self.filters.clone(), self.terminal.clone());
        Box::pin(async move {
            let info = connection.info.clone();
            // Filters first: the terminal filter serves no connection that they refuse.
            match open::open(&filters, connection, terminal.half_close()).await {
                Ok(connection) => {
                    drop((filters, info));
                    terminal.serve(connection).await;
                }
                Err(presence) => terminal.refused(&info, presence),
            }
        })
    }

    fn serve_quic(&self, connection: QuicConnection) -> Serving {
        let (filters, terminal) = (self.filters.clone(), self.terminal.clone());
        Box::pin(async move {
            let info = connection.info.clone();
            // They see the connection begin and end, and no bytes: those are QUIC's, as in Envoy.
            match open::admit(&filters, &info).await {
                Ok(filters) => {
                    terminal.serve_quic(connection).await;
                    drop(filters);
                }
                Err(reason) => {
                    let QuicConnection { conn, presence, .. } = connection;
                    quic::close(conn, &reason).await;
                    terminal.refused(&info, presence);
                }
            }
        })
    }

    fn half_close(&self) -> HalfClose {
        self.terminal.half_close()
    }
}
