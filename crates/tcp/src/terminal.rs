//! A TCP proxy on one worker, behind one filter chain.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::Directory;
use tidegate_listener::{Connection, Presence, Serving, Terminal};
use tidegate_types::{ConnectionInfo, Drain};

use crate::TcpProxy;
use crate::end::End;
use crate::session::{self, Session};

/// What new sessions of a chain find: replacing it is how a reload reaches them. Running sessions keep what
/// they began with.
#[derive(Debug)]
pub struct TcpSlot(RefCell<Arc<TcpProxy>>);

impl TcpSlot {
    /// A slot that serves `proxy`.
    pub fn new(proxy: Arc<TcpProxy>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(proxy)))
    }

    /// Serves `proxy` from the next session on.
    pub fn set(&self, proxy: Arc<TcpProxy>) {
        *self.0.borrow_mut() = proxy;
    }
}

/// Serves connections as TCP sessions.
pub struct TcpTerminal {
    slot: Rc<TcpSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
}

impl TcpTerminal {
    /// Sessions to the clusters of `directory`, which end when `drain` says that time is up.
    pub fn new(slot: Rc<TcpSlot>, directory: Rc<Directory>, drain: Rc<Drain>) -> Self {
        Self { slot, directory, drain }
    }
}

impl Terminal for TcpTerminal {
    fn serve(&self, connection: Connection) -> Serving {
        let proxy = self.slot.0.borrow().clone();
        let Connection { io, info, buffer_limit, presence } = connection;
        let session = Session::begin(proxy, info, presence, buffer_limit as usize, self.drain.watch());
        Box::pin(session::run(session, io, self.directory.clone()))
    }

    fn refused(&self, info: &Rc<ConnectionInfo>, presence: Presence) {
        let proxy = self.slot.0.borrow().clone();
        Session::begin(proxy, info.clone(), presence, 0, self.drain.watch()).end(End::Refused);
    }
}
