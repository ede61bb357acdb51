//! Waiting for a connection.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::{Kind, Pool};
use crate::error::PoolError;
use crate::machine::{ConnKey, StreamKey};

/// A place in a pool's queue, or the answer. Dropping it gives the place up
/// (`upstream_rq_cancelled`).
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<K: Kind>(State<K>);

enum State<K: Kind> {
    Ready(Result<K::Lent, PoolError>),
    Waiting { pool: Rc<Pool<K>>, token: usize },
    Taken,
}

/// The pool's side of a waiting stream.
pub(super) struct Wait {
    pub(super) since: Instant,
    pub(super) stream: Option<StreamKey>,
    pub(super) outcome: Option<Result<ConnKey, PoolError>>,
    pub(super) waker: Option<Waker>,
}

impl Wait {
    pub(super) fn new(since: Instant) -> Self {
        Self { since, stream: None, outcome: None, waker: None }
    }
}

impl<K: Kind> Acquire<K> {
    #[inline]
    pub(crate) fn ready(result: Result<K::Lent, PoolError>) -> Self {
        Self(State::Ready(result))
    }

    pub(super) fn waiting(pool: Rc<Pool<K>>, token: usize) -> Self {
        Self(State::Waiting { pool, token })
    }

    /// Whether there is an answer, which is left where it is: for who wants only to know.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        match &self.0 {
            State::Ready(answer) => Poll::Ready(answer.as_ref().map(|_| ()).map_err(PoolError::clone)),
            State::Waiting { pool, token } => pool.poll_settled(*token, cx),
            State::Taken => Poll::Pending,
        }
    }

    /// An answer that no pool gave.
    pub fn refused(error: PoolError) -> Self {
        Self(State::Ready(Err(error)))
    }
}

impl<K: Kind> Future for Acquire<K> {
    type Output = Result<K::Lent, PoolError>;

    #[inline]
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

impl<K: Kind> Drop for Acquire<K> {
    fn drop(&mut self) {
        if let State::Waiting { pool, token } = std::mem::replace(&mut self.0, State::Taken) {
            pool.give_up(token);
        }
    }
}
