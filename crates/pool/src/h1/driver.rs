//! The pool's task: connection attempts' results, stirred idle connections, grants of limits, the timer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::bell::Bell;
use super::conn::Connected;
use super::{Inner, Pool};
use crate::machine::ConnKey;

/// Runs until the pool is dropped.
pub(super) async fn drive(pool: Weak<Pool>, bell: Arc<Bell>) {
    // Made at the first deadline: a pool without one needs no timer.
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

fn expired(timer: Option<std::pin::Pin<&mut Sleep>>, cx: &mut Context<'_>) -> bool {
    timer.is_some_and(|timer| timer.poll(cx).is_ready())
}

/// Starts an attempt, in a task of its own so that it goes on when its stream gives up.
pub(super) fn open(pool: &Rc<Pool>, key: ConnKey) -> JoinHandle<()> {
    let attempt = pool.connector.connect();
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
            // A stale entry of a connection that is lent out or gone finds nothing idle.
            if self.inner.borrow().slot(key).is_some_and(super::Slot::has_fired) {
                self.look_at_idle(key);
            }
        }
        let granted = self.inner.borrow().machine.waiters().is_granted();
        if granted {
            self.inner.borrow_mut().machine.handle_grant(Instant::now());
        }
        self.run_events();
    }

    fn attempt_done(self: &Rc<Self>, key: ConnKey, result: Connected) {
        let now = Instant::now();
        let mut inner = self.inner.borrow_mut();
        let Inner { machine, slots, .. } = &mut *inner;
        match result {
            Ok((conn, facts)) => {
                let Some(slot) = slots.get_mut(key.index()) else { return };
                slot.connected(conn, facts);
                machine.handle_connected(now, key, 1);
            }
            Err(error) => machine.handle_connect_failed(now, key, error),
        }
        drop(inner);
        self.run_events();
        self.watch(key);
    }
}
