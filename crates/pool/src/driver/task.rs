//! A pool's task: attempts' results, connections that stirred, grants of limits, the timer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::bell::Bell;
use super::{Kind, Pool, Slot};
use crate::error::PoolError;
use crate::machine::ConnKey;

/// Runs until the pool is dropped.
pub(super) async fn drive<K: Kind>(pool: Weak<Pool<K>>, bell: Arc<Bell>) {
    // Made at the first deadline: a pool without one needs no timer.
    let mut timer = pin!(None::<Sleep>);
    let mut stirred = Vec::new();
    poll_fn(|cx| {
        bell.answer_with(cx.waker());
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        loop {
            answer_bell(&pool, &mut stirred);
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

/// Starts an attempt, in a task of its own so that it goes on when its stream gives up.
pub(super) fn open<K: Kind>(pool: &Rc<Pool<K>>, key: ConnKey) -> JoinHandle<()> {
    let attempt = pool.kind.connect();
    let limits = pool.limits.clone();
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

fn answer_bell<K: Kind>(pool: &Rc<Pool<K>>, keys: &mut Vec<ConnKey>) {
    pool.bell.take_stirred(keys);
    for key in keys.drain(..) {
        // A stale entry of a connection that is lent out or gone finds nothing to look at.
        if pool.inner.borrow().has_fired(key) {
            pool.look(key);
        }
    }
    if pool.inner.borrow().machine.waiters().is_granted() {
        pool.inner.borrow_mut().machine.handle_grant(Instant::now());
    }
    pool.run_events();
}

fn attempt_done<K: Kind>(
    pool: &Rc<Pool<K>>,
    key: ConnKey,
    result: Result<<K::Slot as Slot>::Opened, PoolError>,
) {
    let now = Instant::now();
    if result.is_ok() {
        pool.kind.attempted(Ok(()));
    }
    let mut inner = pool.inner.borrow_mut();
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
    let watched_while_busy = pool.inner.borrow().is_watched_while_busy(key);
    if watched_while_busy {
        // After its first streams, so that their heads leave with the connection's first bytes.
        pool.bell.stir(key);
    } else {
        // Registers its waker.
        pool.watch(key);
    }
}
