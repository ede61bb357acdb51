//! The queue of pools that wait for a unit of a limit. The oldest waiting stream is served first; a unit is handed over
//! before the waiter is woken, so that nobody can take it in between and no wake-up is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

/// A pool's place in a limit's queue.
#[derive(Debug, Default)]
pub struct Waiter {
    granted: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Why a pool waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Arrival of the stream that has waited longest.
    pub since: Instant,
    /// Whether the pool has no connection at all: other pools give up theirs for it.
    pub starving: bool,
}

impl Waiter {
    /// Whom to wake when a unit was handed over.
    pub fn set_waker(&self, waker: Option<Waker>) {
        *lock(&self.waker) = waker;
    }

    /// Takes the unit that was handed over, if any. The caller owns it then.
    pub fn take(&self) -> bool {
        self.granted.load(SeqCst) && self.granted.swap(false, SeqCst)
    }

    /// Whether a unit was handed over and not taken.
    pub fn is_granted(&self) -> bool {
        self.granted.load(SeqCst)
    }

    pub(super) fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Length of the queue, read without its lock.
    len: AtomicUsize,
    /// How many of them have no connection.
    starving: AtomicUsize,
    queue: Mutex<VecDeque<(Arc<Waiter>, Claim)>>,
}

impl Waiting {
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.len.load(SeqCst) > 0
    }

    #[inline]
    pub(super) fn any_starving(&self) -> bool {
        self.starving.load(SeqCst) > 0
    }

    /// `None` asks for any starving pool.
    pub(super) fn starving_since_before(&self, since: Option<Instant>) -> bool {
        let queue = lock(&self.queue);
        queue.iter().any(|(_, claim)| claim.starving && since.is_none_or(|since| claim.since < since))
    }

    pub(super) fn enter(&self, waiter: &Arc<Waiter>, claim: Claim) {
        let mut queue = lock(&self.queue);
        if let Some((_, old)) = queue.iter_mut().find(|(queued, _)| Arc::ptr_eq(queued, waiter)) {
            *old = claim;
        } else if !waiter.is_granted() {
            queue.push_back((waiter.clone(), claim));
        }
        self.publish(&queue);
    }

    /// Whether it was queued.
    pub(super) fn leave(&self, waiter: &Arc<Waiter>) -> bool {
        let mut queue = lock(&self.queue);
        let before = queue.len();
        queue.retain(|(queued, _)| !Arc::ptr_eq(queued, waiter));
        self.publish(&queue);
        queue.len() < before
    }

    /// Hands a unit got by `take` to the pool whose stream has waited longest.
    pub(super) fn serve(&self, take: impl FnOnce() -> bool) -> Option<Arc<Waiter>> {
        let mut queue = lock(&self.queue);
        let (first, _) = queue.iter().enumerate().min_by_key(|(_, (_, claim))| claim.since)?;
        if !take() {
            return None;
        }
        let (waiter, _) = queue.remove(first)?;
        waiter.granted.store(true, SeqCst);
        self.publish(&queue);
        Some(waiter)
    }

    fn publish(&self, queue: &VecDeque<(Arc<Waiter>, Claim)>) {
        self.len.store(queue.len(), SeqCst);
        self.starving.store(queue.iter().filter(|(_, claim)| claim.starving).count(), SeqCst);
    }
}

/// Locks, ignoring poison: the queue is valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
