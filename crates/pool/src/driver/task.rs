//! A pool's task: attempts' results, connections that stirred, grants of limits, the timer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::bell::Bell;
use super::{Drive, Slot};
use crate::error::PoolError;
use crate::machine::ConnKey;

/// Runs until the pool is dropped.
pub(super) async fn drive<P: Drive>(pool: Weak<P>, bell: Arc<Bell>) {
    // Made at the first deadline: a pool without one needs no timer.
    let mut timer = pin!(None::<Sleep>);
    let mut stirred = Vec::new();
    poll_fn(|cx| {
        bell.answer_with(cx.waker());
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        let core = pool.core();
        loop {
            answer_bell(&pool, &mut stirred);
            let due = core.inner.borrow().machine.poll_timeout();
            core.armed.set(due);
            let Some(due) = due else { return Poll::Pending };
            match timer.as_mut().as_pin_mut() {
                None => timer.set(Some(sleep_until(due))),
                Some(sleep) if sleep.deadline() != due => sleep.reset(due),
                Some(_) => {}
            }
            if !expired(timer.as_mut().as_pin_mut(), cx) {
                return Poll::Pending;
            }
            core.inner.borrow_mut().machine.handle_timeout(Instant::now());
            pool.run_events();
        }
    })
    .await;
}

fn expired(timer: Option<Pin<&mut Sleep>>, cx: &mut Context<'_>) -> bool {
    timer.is_some_and(|timer| timer.poll(cx).is_ready())
}

/// Starts an attempt, in a task of its own so that it goes on when its stream gives up.
pub(super) fn open<P: Drive>(pool: &Rc<P>, key: ConnKey) -> JoinHandle<()> {
    let attempt = pool.connect();
    let limits = pool.core().limits.clone();
    let pool = Rc::downgrade(pool);
    let departures = limits.departures.begun();
    tokio::task::spawn_local(async move {
        // The socket whose place this is may be about to be closed by another worker, within microseconds.
        while !limits.departures.are_done(departures) {
            tokio::task::yield_now().await;
        }
        let result = attempt.await;
        if let Some(pool) = pool.upgrade() {
            attempt_done(&pool, key, result);
        }
    })
}

fn answer_bell<P: Drive>(pool: &Rc<P>, keys: &mut Vec<ConnKey>) {
    let core = pool.core();
    core.bell.take_stirred(keys);
    for key in keys.drain(..) {
        // A stale entry of a connection that is lent out or gone finds nothing to look at.
        if core.inner.borrow().has_fired(key) {
            pool.look(key);
        }
    }
    if core.inner.borrow().machine.waiters().is_granted() {
        core.inner.borrow_mut().machine.handle_grant(Instant::now());
    }
    pool.run_events();
}

fn attempt_done<P: Drive>(pool: &Rc<P>, key: ConnKey, result: Result<<P::Slot as Slot>::Opened, PoolError>) {
    let now = Instant::now();
    let mut inner = pool.core().inner.borrow_mut();
    match result {
        Ok(opened) => {
            let Some(slot) = inner.slots.get_mut(key.index()) else { return };
            let concurrency = slot.connected(opened);
            inner.machine.handle_connected(now, key, concurrency);
        }
        Err(error) => inner.machine.handle_connect_failed(now, key, error),
    }
    drop(inner);
    pool.run_events();
    if P::Slot::WATCHED_WHILE_BUSY {
        // After its first streams, so that their heads leave with the connection's first bytes.
        pool.core().bell.stir(key);
    } else {
        // Registers its waker.
        pool.watch(key);
    }
}
