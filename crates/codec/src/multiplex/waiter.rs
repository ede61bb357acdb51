//! Who waits for something of a stream.

use std::task::{Context, Waker};

/// A task that may wait.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// Kept between waits, since to clone one costs more than to compare it.
    waker: Option<Waker>,
    waits: bool,
}

impl Waiter {
    #[inline]
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waits = true;
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    #[inline]
    pub(crate) fn wake(&mut self) {
        if let (true, Some(waker)) = (std::mem::take(&mut self.waits), &self.waker) {
            waker.wake_by_ref();
        }
    }

    /// Nobody waits any more.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.waits = false;
    }
}
