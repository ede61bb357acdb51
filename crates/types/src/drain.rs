//! How a worker's connections learn that they should go.
//!
//! One [`Drain`] per filter chain and worker. Every connection holds a [`DrainWatch`]; a change of
//! phase wakes those that wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How far draining has gone. Phases only go up, except that `Announce` can be taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Serving.
    #[default]
    Serving,
    /// Every response announces the close (`POST /healthcheck/fail`, `POST /drain_listeners?graceful`); idle connections
    /// are left alone.
    Announce,
    /// As `Announce`, and idle connections begin to drain, too (the last part of `POST /drain_listeners?graceful`).
    AnnounceIdle,
    /// As `Announce`, and connections without a stream close at once (SIGTERM, a removed listener).
    CloseIdle,
    /// Time is up: every connection closes now.
    CloseAll,
}

/// The drain state of one filter chain's connections on one worker.
#[derive(Debug, Default)]
pub struct Drain {
    phase: Cell<DrainPhase>,
    watchers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    connections: Cell<usize>,
}

impl Drain {
    /// A state that serves.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        self.phase.get()
    }

    /// Moves to `phase` and wakes the connections that wait.
    pub fn set(&self, phase: DrainPhase) {
        self.phase.set(phase);
        self.wake();
    }

    /// Wakes the connections that wait, to look again at what else they go by.
    pub fn wake(&self) {
        let wakers: Vec<Waker> = self.watchers.borrow().iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Connections that hold a watch.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// A connection's own place in the list.
    pub fn watch(self: &Rc<Self>) -> DrainWatch {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut watchers = self.watchers.borrow_mut();
            watchers.push(None);
            watchers.len() - 1
        });
        self.connections.set(self.connections.get() + 1);
        DrainWatch { drain: self.clone(), slot }
    }
}

/// One connection's view of its [`Drain`].
#[derive(Debug)]
pub struct DrainWatch {
    drain: Rc<Drain>,
    slot: usize,
}

impl DrainWatch {
    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        self.drain.phase.get()
    }

    /// Ready when the phase is at least `phase`.
    pub fn poll_reached(&self, cx: &mut Context<'_>, phase: DrainPhase) -> Poll<()> {
        if self.drain.phase.get() >= phase {
            return Poll::Ready(());
        }
        self.register(cx);
        Poll::Pending
    }

    /// Wakes this task at the next change of phase, and at [`Drain::wake`].
    pub fn register(&self, cx: &Context<'_>) {
        let slot = &mut self.drain.watchers.borrow_mut()[self.slot];
        match slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        self.drain.watchers.borrow_mut()[self.slot] = None;
        self.drain.free.borrow_mut().push(self.slot);
        self.drain.connections.set(self.drain.connections.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_phase_wakes_those_who_wait_and_slots_are_reused() {
        let drain = Drain::new();
        let watch = drain.watch();
        let mut waiting = pin!(poll_fn(|cx| watch.poll_reached(cx, DrainPhase::CloseIdle)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drain.set(DrainPhase::Announce);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drain.set(DrainPhase::CloseIdle);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        assert_eq!(drain.connections(), 1);
        drop(drain.watch());
        drop(drain.watch());
        assert_eq!(drain.watchers.borrow().len(), 2);
    }
}
