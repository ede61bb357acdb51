//! A panic in a filter costs its own stream, not the worker.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// The future panicked and is gone.
#[derive(Debug)]
pub(super) struct Panicked;

/// Runs `future`, turning a panic into an error. `tick` runs before every poll but the first.
///
/// Unwind safety: what the future shares with the rest of the worker are cells and statistics, whose every
/// operation completes before other code runs; the future itself is dropped.
pub(super) async fn catch<F: Future>(
    mut future: Pin<&mut F>,
    tick: impl Fn(),
) -> Result<F::Output, Panicked> {
    let mut polled = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut polled, true) {
            tick();
        }
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_the_next_future_runs() {
        assert!(catch(pin!(async { panic!("a filter's bug") }), || ()).await.is_err());
        assert_eq!(catch(pin!(async { 7 }), || ()).await.unwrap(), 7);
    }
}
