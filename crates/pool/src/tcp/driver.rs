//! The pool's task: attempts' results, spare connections that stirred, grants of limits, the timer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Inner, Pool};
use crate::dialer::Opened;
use crate::error::PoolError;
use crate::h1::bell::Bell;
use crate::machine::ConnKey;

/// Runs until the pool is dropped.
pub(super) async fn drive(pool: Weak<Pool>, bell: Arc<Bell>) {
    let mut timer = pin!(None::<Sleep>);
    poll_fn(|cx| {
        bell.answer_with(cx.waker());
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        loop {
            pool.answer_bell();
            let due = pool.inner.borrow().machine.poll_timeout();
            pool.armed.set(due);
            let Some(due) = due else { return Poll::Pending };
            match timer.as_mut().as_pin_mut() {
                None => timer.set(Some(sleep_until(due))),
                Some(sleep) if sleep.deadline() != due => sleep.reset(due),
                Some(_) => {}
            }
            if !expired(timer.as_mut().as_pin_mut(), cx) {
                return Poll::Pending;
            }
            pool.inner.borrow_mut().machine.handle_timeout(Instant::now());
            pool.run_events();
        }
    })
    .await;
}

fn expired(timer: Option<Pin<&mut Sleep>>, cx: &mut Context<'_>) -> bool {
    timer.is_some_and(|timer| timer.poll(cx).is_ready())
}

/// Starts an attempt.
pub(super) fn open(pool: &Rc<Pool>, key: ConnKey) -> JoinHandle<()> {
    let attempt = pool.connector.connect(pool.options.clone());
    let pool = Rc::downgrade(pool);
    tokio::task::spawn_local(async move {
        let result = attempt.await;
        if let Some(pool) = pool.upgrade() {
            pool.attempt_done(key, result);
        }
    })
}

impl Pool {
    fn answer_bell(self: &Rc<Self>) {
        for key in self.bell.take_stirred() {
            // A stale entry of a connection that a session has, or that is gone, finds nothing spare.
            if self.inner.borrow_mut().slot_mut(key).has_fired() {
                self.look_at_spare(key);
            }
        }
        let granted = self.inner.borrow().machine.waiters().is_granted();
        if granted {
            self.inner.borrow_mut().machine.handle_grant(Instant::now());
        }
        self.run_events();
    }

    fn attempt_done(self: &Rc<Self>, key: ConnKey, result: Result<Opened, PoolError>) {
        let now = Instant::now();
        let mut inner = self.inner.borrow_mut();
        let Inner { machine, slots, .. } = &mut *inner;
        match result {
            Ok(opened) => {
                let Some(slot) = slots.get_mut(key.index()) else { return };
                slot.connected(opened);
                machine.handle_connected(now, key, 1);
            }
            Err(error) => machine.handle_connect_failed(now, key, error),
        }
        drop(inner);
        self.run_events();
        self.look_at_spare(key);
    }

    /// Polls a connection that no session has for its end, which leaves its waker registered.
    pub(super) fn look_at_spare(self: &Rc<Self>, key: ConnKey) {
        let mut inner = self.inner.borrow_mut();
        let Inner { machine, slots, .. } = &mut *inner;
        if !machine.is_idle(key) {
            return;
        }
        let Some(how) = slots.get_mut(key.index()).and_then(|slot| slot.watch(&self.bell, key)) else {
            return;
        };
        machine.handle_closed(Instant::now(), key, how);
        drop(inner);
        self.run_events();
    }
}
