//! "Happy eyeballs" (RFC 8305 §5): attempts that overlap, of which the first to finish counts.
//!
//! What an attempt is, and in which order they come, is the caller's: [`race`] only starts, awaits and drops them.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// How long an attempt is alone before the next one joins it: "Connection Attempt Delay", 100 ms to 2 s with 250 ms
/// recommended (RFC 8305 §5); Envoy's is fixed at 300 ms.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// The attempt that was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Won<T> {
    /// What it yielded.
    pub value: T,
    /// How long after the race it was started: what attempts before it cost.
    pub after: Duration,
}

/// Starts the first attempt now, and the next one [`ATTEMPT_DELAY`] after the last one or at once when one fails.
/// The first that succeeds wins; the others are dropped, and with them their sockets, before this returns. Dropping
/// the race drops all.
///
/// # Errors
/// The last failure when all have failed; `None` if there was nothing to attempt.
pub async fn race<A, T, E>(attempts: impl Iterator<Item = A>) -> Result<Won<T>, Option<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut timer = pin!(sleep(ATTEMPT_DELAY));
    let mut race = Race { begun: Instant::now(), attempts: attempts.fuse(), running: Vec::new(), last: None };
    let mut next = Next::Due;
    poll_fn(|cx| {
        loop {
            if next == Next::Due {
                next = race.start(timer.as_mut());
            }
            match race.poll(cx) {
                Polled::Won(won) => return Poll::Ready(Ok(won)),
                Polled::Lost => next = Next::Due,
                Polled::Pending if race.running.is_empty() => return Poll::Ready(Err(race.last.take())),
                Polled::Pending if next == Next::Waits && timer.as_mut().poll(cx).is_ready() => {
                    next = Next::Due;
                }
                Polled::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The next attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Starts now.
    Due,
    /// Starts when the timer fires.
    Waits,
    /// There is none.
    Exhausted,
}

struct Race<I, A, E> {
    begun: Instant,
    attempts: I,
    running: Vec<Running<A>>,
    last: Option<E>,
}

struct Running<A> {
    attempt: Pin<Box<A>>,
    after: Duration,
}

enum Polled<T> {
    Won(Won<T>),
    /// One has failed.
    Lost,
    Pending,
}

impl<I, A, T, E> Race<I, A, E>
where
    I: Iterator<Item = A>,
    A: Future<Output = Result<T, E>>,
{
    fn start(&mut self, timer: Pin<&mut Sleep>) -> Next {
        let Some(attempt) = self.attempts.next() else { return Next::Exhausted };
        let now = Instant::now();
        self.running.push(Running { attempt: Box::pin(attempt), after: now - self.begun });
        timer.reset(now + ATTEMPT_DELAY);
        Next::Waits
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled<T> {
        for (index, running) in self.running.iter_mut().enumerate() {
            match running.attempt.as_mut().poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(value)) => {
                    let after = running.after;
                    // The losers' sockets close now, and not with the future.
                    self.running.clear();
                    return Polled::Won(Won { value, after });
                }
                Poll::Ready(Err(error)) => {
                    self.running.remove(index);
                    self.last = Some(error);
                    return Polled::Lost;
                }
            }
        }
        Polled::Pending
    }
}

#[cfg(test)]
mod tests;
