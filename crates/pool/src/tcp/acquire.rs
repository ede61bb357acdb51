//! Waiting for a session's connection.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::{Connection, Pool};
use crate::error::PoolError;
use crate::machine::{ConnKey, StreamEnd, StreamKey};

/// An attempt that a session waits for, or the refusal. Dropping it gives the attempt up
/// (`upstream_rq_cancelled`).
#[must_use = "futures do nothing unless polled"]
pub struct Acquire(State);

enum State {
    Ready(Result<Connection, PoolError>),
    Waiting { pool: Rc<Pool>, token: usize },
    Taken,
}

/// The pool's side of a waiting session.
#[derive(Default)]
pub(super) struct Wait {
    pub(super) stream: Option<StreamKey>,
    pub(super) outcome: Option<Result<ConnKey, PoolError>>,
    pub(super) waker: Option<Waker>,
}

impl Acquire {
    /// A refusal.
    pub fn refused(error: PoolError) -> Self {
        Self(State::Ready(Err(error)))
    }

    pub(super) fn ready(result: Result<Connection, PoolError>) -> Self {
        Self(State::Ready(result))
    }

    pub(super) fn waiting(pool: Rc<Pool>, token: usize) -> Self {
        Self(State::Waiting { pool, token })
    }
}

impl Future for Acquire {
    type Output = Result<Connection, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.0, State::Taken) {
            State::Ready(result) => Poll::Ready(result),
            State::Waiting { pool, token } => match pool.poll_wait(token, cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => {
                    self.0 = State::Waiting { pool, token };
                    Poll::Pending
                }
            },
            // Polled again after its end: nothing will ever come.
            State::Taken => Poll::Pending,
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let State::Waiting { pool, token } = std::mem::replace(&mut self.0, State::Taken) {
            pool.give_up(token);
        }
    }
}

impl Pool {
    fn poll_wait(self: &Rc<Self>, token: usize, cx: &mut Context<'_>) -> Poll<Result<Connection, PoolError>> {
        let mut inner = self.inner.borrow_mut();
        let Some(wait) = inner.waits.get_mut(token) else { return Poll::Pending };
        let Some(outcome) = wait.outcome.take() else {
            wait.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        inner.waits.remove(token);
        // The connection is in its slot: nobody else can have it while our session is attached.
        Poll::Ready(outcome.and_then(|key| inner.lend(self, key).ok_or_else(PoolError::lost)))
    }

    fn give_up(self: &Rc<Self>, token: usize) {
        let mut inner = self.inner.borrow_mut();
        let Some(wait) = inner.waits.try_remove(token) else { return };
        match (wait.outcome, wait.stream) {
            (None, Some(stream)) => inner.machine.handle_cancel(Instant::now(), stream),
            // Its only stream is over: the connection is closed.
            (Some(Ok(key)), _) => inner.machine.handle_stream_end(Instant::now(), key, StreamEnd::Unused),
            _ => return,
        }
        drop(inner);
        self.run_events();
    }
}
