//! Which hosts' connections have something to do: one waker a host, one task for all.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The hosts that were woken.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    woken: Vec<usize>,
    waker: Option<Waker>,
}

/// A host's waker.
#[derive(Debug)]
pub(super) struct Chime {
    bell: Arc<Bell>,
    host: usize,
    rung: AtomicBool,
}

impl Bell {
    /// Takes the hosts that were woken since the last time, in `into`.
    pub(super) fn poll_woken(&self, cx: &mut Context<'_>, into: &mut Vec<usize>) -> Poll<()> {
        let mut state = self.lock();
        if state.woken.is_empty() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        into.append(&mut state.woken);
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chime {
    pub(super) fn new(bell: &Arc<Bell>, host: usize) -> Arc<Self> {
        Arc::new(Self { bell: bell.clone(), host, rung: AtomicBool::new(false) })
    }

    /// To be called before the host's connection is polled: it is woken for what happens from now on.
    pub(super) fn arm(&self) {
        self.rung.store(false, SeqCst);
    }
}

impl Wake for Chime {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, SeqCst) {
            return;
        }
        let mut state = self.bell.lock();
        state.woken.push(self.host);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
