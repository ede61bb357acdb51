//! How sessions learn that their host began to fail, where they are to end then. Of one worker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// The sessions of a host.
#[derive(Default)]
pub(crate) struct Cuts(RefCell<Vec<Weak<Flag>>>);

/// A session's.
pub struct Cut(Rc<Flag>);

#[derive(Default)]
struct Flag {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Entries that are gone are looked for when there are so many.
const MIN_PRUNE: usize = 16;

impl Cuts {
    pub(crate) fn watch(&self) -> Cut {
        let flag = Rc::new(Flag::default());
        let mut all = self.0.borrow_mut();
        if all.len() >= MIN_PRUNE && all.len() == all.capacity() {
            all.retain(|flag| flag.strong_count() > 0);
        }
        all.push(Rc::downgrade(&flag));
        Cut(flag)
    }

    pub(crate) fn fire(&self) {
        for flag in self.0.take().iter().filter_map(Weak::upgrade) {
            flag.fired.set(true);
            if let Some(waker) = flag.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Cut {
    /// Ready when the session is to end.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.fired.get() {
            return Poll::Ready(());
        }
        match &mut *self.0.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_once_its_host_fails() {
        let cuts = Cuts::default();
        let (first, gone) = (cuts.watch(), cuts.watch());
        drop(gone);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.poll(&mut cx).is_pending());
        cuts.fire();
        assert!(first.poll(&mut cx).is_ready());
        assert!(cuts.watch().poll(&mut cx).is_pending());
    }
}
