//! A listener on one worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tidegate_http::DrainPhase;
use tidegate_listener::{Chains, Listener};
use tidegate_types::GracefulDrain;

use super::ListenerUpdate;
use super::chain::{WorkerChain, renew};

/// A listener on one worker, with its filter chains.
pub(super) struct WorkerListener {
    pub(super) listener: Rc<Listener>,
    chains: RefCell<Vec<WorkerChain>>,
    /// No longer in the configuration; gone when their last connection is.
    draining: RefCell<Vec<Rc<WorkerChain>>>,
    /// `/drain_listeners?graceful`, which nothing takes back.
    graceful: Cell<Option<GracefulDrain>>,
}

impl WorkerListener {
    pub(super) fn new(listener: Rc<Listener>, chains: Vec<WorkerChain>) -> Rc<Self> {
        Rc::new(Self {
            listener,
            chains: RefCell::new(chains),
            draining: RefCell::default(),
            graceful: Cell::default(),
        })
    }

    /// The chains as the listener wants them.
    pub(super) fn choice(update: &ListenerUpdate, chains: &[WorkerChain]) -> Rc<Chains> {
        let chains = chains.iter().map(|chain| chain.chain.clone()).collect();
        Chains::new(update.snapshot.index.clone(), chains)
    }

    /// The same socket serves another configuration; the chains that it no longer has.
    pub(super) fn update(
        &self,
        update: &ListenerUpdate,
        open: impl Fn(&crate::snapshot::ChainSnapshot) -> WorkerChain,
    ) -> Vec<Rc<WorkerChain>> {
        let mut old = self.chains.take();
        let new = renew(&mut old, &update.snapshot.chains, open);
        if let Some(graceful) = self.graceful.get() {
            new.iter().for_each(|chain| chain.drain.begin(graceful));
        }
        self.listener.set_chains(Self::choice(update, &new));
        self.listener.set_options(update.options.clone());
        self.chains.replace(new);
        let gone: Vec<_> = old.into_iter().map(Rc::new).collect();
        self.draining.borrow_mut().extend(gone.iter().cloned());
        gone
    }

    /// A chain goes: its idle connections close now, the others with their requests, and what is left after
    /// `drain_time` at once.
    pub(super) async fn retire_chain(&self, chain: Rc<WorkerChain>, drain_time: Duration) {
        chain.drain.set(DrainPhase::CloseIdle);
        let gone = async {
            while chain.drain.connections() > 0 {
                tokio::time::sleep(super::POLL).await;
            }
        };
        if tokio::time::timeout(drain_time, gone).await.is_err() {
            chain.drain.set(DrainPhase::CloseAll);
        }
        self.draining.borrow_mut().retain(|other| !Rc::ptr_eq(other, &chain));
    }

    /// The listener itself drains.
    pub(super) fn drain(&self, graceful: GracefulDrain) {
        self.graceful.set(Some(graceful));
        self.chains.borrow().iter().for_each(|chain| chain.drain.begin(graceful));
    }

    /// For the connections of the chains that are served.
    pub(super) fn set_phase(&self, phase: DrainPhase) {
        self.chains.borrow().iter().for_each(|chain| chain.drain.set(phase));
    }

    /// Connections that wait look at their timers again, and the listener whether to accept.
    pub(super) fn overload_changed(&self) {
        self.listener.overload_changed();
        self.chains.borrow().iter().for_each(|chain| chain.drain.wake());
        self.draining.borrow().iter().for_each(|chain| chain.drain.wake());
    }

    /// Closes every connection now.
    pub(super) fn close_all(&self) {
        self.set_phase(DrainPhase::CloseAll);
        self.draining.borrow().iter().for_each(|chain| chain.drain.set(DrainPhase::CloseAll));
    }
}
