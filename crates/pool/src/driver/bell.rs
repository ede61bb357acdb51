//! How anything, on any thread, makes a pool's task look around: readable idle connections, grants of
//! limits, a nearer deadline, the pool's end.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use crate::machine::ConnKey;

/// Wakes the pool's task.
#[derive(Debug, Default)]
pub struct Bell {
    /// Idle connections whose sockets stirred.
    stirred: Mutex<Vec<ConnKey>>,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        // Waking only puts the task in a queue: nobody comes back here under the lock.
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }

    /// Registers the task.
    pub(crate) fn answer_with(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Something happened on a connection.
    pub(crate) fn stir(&self, key: ConnKey) {
        self.stirred.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        self.ring();
    }

    /// Moves the connections that stirred into `keys`, which is empty and whose memory is used for the next ones.
    pub(crate) fn take_stirred(&self, keys: &mut Vec<ConnKey>) {
        std::mem::swap(keys, &mut *self.stirred.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// How a pool watches one connection that it holds.
#[derive(Default)]
pub(crate) struct Watch(Option<(Arc<IdleWatch>, Waker)>);

impl Watch {
    /// What to look at the connection with, which rings `bell` when it stirs. One waker per connection, not per idle
    /// period: waking tokio's registration compares wakers.
    #[inline]
    pub(crate) fn arm(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Context<'_> {
        let (watch, waker) = self.0.get_or_insert_with(|| {
            let watch = IdleWatch::new(key, bell.clone());
            let waker = Waker::from(watch.clone());
            (watch, waker)
        });
        watch.arm();
        Context::from_waker(waker)
    }

    /// The connection is somebody else's to look at, or gone.
    #[inline]
    pub(crate) fn disarm(&self) {
        if let Some((watch, _)) = &self.0 {
            watch.disarm();
        }
    }

    /// Whether the connection stirred since it was armed; `None` if it never was.
    #[inline]
    pub(crate) fn has_fired(&self) -> Option<bool> {
        self.0.as_ref().map(|(watch, _)| watch.has_fired())
    }
}

/// The waker of one connection while it is idle.
#[derive(Debug)]
struct IdleWatch {
    key: ConnKey,
    /// Not while the connection is lent out: its user has a waker of its own then, and ours may still
    /// be registered until that one takes its place.
    armed: AtomicBool,
    fired: AtomicBool,
    bell: Arc<Bell>,
}

impl IdleWatch {
    fn new(key: ConnKey, bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { key, armed: AtomicBool::new(false), fired: AtomicBool::new(false), bell })
    }

    fn arm(&self) {
        self.fired.store(false, Relaxed);
        self.armed.store(true, Relaxed);
    }

    fn disarm(&self) {
        self.armed.store(false, Relaxed);
    }

    fn has_fired(&self) -> bool {
        self.fired.load(Relaxed)
    }
}

impl Wake for IdleWatch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.armed.load(Relaxed) && !self.fired.swap(true, Relaxed) {
            self.bell.stir(self.key);
        }
    }
}
