//! The pool's task: attempts' results, grants of limits, the timer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_types::Address;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Inner, Pool};
use crate::dialer::Opened;
use crate::error::PoolError;
use crate::h1::bell::Bell;
use crate::machine::{Closed, ConnKey};
use crate::parting;
use crate::stats::UpstreamStats;

/// The driver's side of one connection: an attempt, then a connection until its session takes it.
#[derive(Default)]
pub(super) struct Slot {
    opened: Option<Opened>,
    /// The connection's number, once there is one.
    id: Option<u64>,
    attempt: Option<JoinHandle<()>>,
    /// How long its session had idled when it ended, for the log.
    pub(super) idle: Duration,
}

impl Slot {
    pub(super) fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    pub(super) fn take(&mut self) -> Option<Opened> {
        self.opened.take()
    }

    /// The connection is no more. One line says why.
    pub(super) fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        // `target` and fields are those of the other pools.
        tracing::debug!(
            target: "pool",
            connection = self.id,
            kind = "upstream tcp",
            peer = host.map(tracing::field::display),
            cluster = stats.scope().name(),
            reason = closed.reason.name(),
            idle_ms = self.idle.as_millis() as u64,
            "closing an upstream connection: {}",
            closed.reason.words(),
        );
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        if let Some(Opened { mut io, .. }) = self.opened.take() {
            io.before_close(closed.reason);
            if parting::is_due(closed.reason) {
                parting::part(io);
            }
        }
        *self = Self::default();
    }
}

/// Runs until the pool is dropped.
pub(super) async fn drive(pool: Weak<Pool>, bell: Arc<Bell>) {
    let mut timer = pin!(None::<Sleep>);
    poll_fn(|cx| {
        bell.answer_with(cx.waker());
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        loop {
            pool.answer_grants();
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
    fn answer_grants(self: &Rc<Self>) {
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
                *slot = Slot { id: Some(opened.id), opened: Some(opened), ..Slot::default() };
                machine.handle_connected(now, key, 1);
            }
            Err(error) => machine.handle_connect_failed(now, key, error),
        }
        drop(inner);
        self.run_events();
    }
}
