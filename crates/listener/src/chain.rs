//! The filter chains of a listener on its worker, and the choice among them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_filter::listener::Arrival;
use tidegate_net::ServerTransport;

use crate::{ChainIndex, Terminal};

/// What serves the connections that match it: a transport, network filters, a terminal.
pub struct Chain {
    /// `name`; may be empty.
    pub name: Arc<str>,
    /// Wraps the connection's bytes; `None`: plain text.
    pub transport: Option<Rc<dyn ServerTransport>>,
    /// `transport_socket_connect_timeout`: the longest that a handshake may take.
    pub handshake_timeout: Option<Duration>,
    /// Owns the connection behind the last network filter.
    pub terminal: Rc<dyn Terminal>,
}

impl Chain {
    /// A plain chain without a name.
    pub fn plain(terminal: Rc<dyn Terminal>) -> Rc<Self> {
        Rc::new(Self { name: "".into(), transport: None, handshake_timeout: None, terminal })
    }
}

/// All filter chains of a listener.
pub struct Chains {
    index: Arc<ChainIndex>,
    /// As numbered by the index.
    chains: Vec<Rc<Chain>>,
}

impl Chains {
    /// Chains in the order of [`ListenerConfig::all_chains`](tidegate_config::ListenerConfig::all_chains), from
    /// which `index` was made.
    pub fn new(index: Arc<ChainIndex>, chains: Vec<Rc<Chain>>) -> Rc<Self> {
        Rc::new(Self { index, chains })
    }

    /// One chain for all connections.
    pub fn only(chain: Rc<Chain>) -> Rc<Self> {
        Self::new(Arc::new(ChainIndex::only()), vec![chain])
    }

    /// The chain for a connection.
    pub(crate) fn find(&self, arrival: &Arrival) -> Option<&Rc<Chain>> {
        self.chains.get(self.index.find(arrival)?)
    }
}
