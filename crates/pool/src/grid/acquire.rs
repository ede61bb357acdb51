//! Waiting for a connection of either kind.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::race::{Next, QuicThen, Race};
use super::{Grid, Hope, Lease, QuicPool};
use crate::auto;
use crate::driver;
use crate::error::PoolError;
use crate::machine::Care;
use crate::multiplexed::{Multiplexed, Speaks};

/// A place in the queues of one pool or both, or the answer. Dropping it gives the places up.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<V: Speaks>(Waiting<V>);

enum Waiting<V: Speaks> {
    Quic(driver::Acquire<Multiplexed<V>>),
    Tcp(auto::Acquire),
    Race(Box<Racing<V>>),
}

struct Racing<V: Speaks> {
    grid: Rc<Grid<V>>,
    race: Race,
    quic: Option<Hope<V>>,
    tcp: Option<auto::Acquire>,
    /// When TCP starts beside QUIC.
    delay: Option<Pin<Box<Sleep>>>,
    care: Care,
}

impl<V: Speaks> Acquire<V> {
    #[inline]
    pub(super) fn quic(acquire: driver::Acquire<Multiplexed<V>>) -> Self {
        Self(Waiting::Quic(acquire))
    }

    #[inline]
    pub(super) fn tcp(acquire: auto::Acquire) -> Self {
        Self(Waiting::Tcp(acquire))
    }

    /// Starts a race; TCP begins after `delay`.
    pub(super) fn race(grid: Rc<Grid<V>>, quic: &Rc<QuicPool<V>>, care: Care, delay: Duration) -> Self {
        let mut racing = Racing {
            race: Race::new(),
            quic: Some(grid.hope(quic, care)),
            tcp: None,
            delay: (!delay.is_zero()).then(|| Box::pin(sleep(delay))),
            grid,
            care,
        };
        if delay.is_zero() {
            let next = racing.race.handle_delay();
            // Starts it: there is nobody to tell of a failure yet.
            let _ = racing.carry_out(next);
        }
        Self(Waiting::Race(Box::new(racing)))
    }
}

impl<V: Speaks> Future for Acquire<V> {
    type Output = Result<Lease<V>, PoolError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Quic(acquire) => Pin::new(acquire).poll(cx).map_ok(Lease::Quic),
            Waiting::Tcp(acquire) => Pin::new(acquire).poll(cx).map_ok(Lease::Tcp),
            Waiting::Race(racing) => racing.poll(cx),
        }
    }
}

impl<V: Speaks> Racing<V> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lease<V>, PoolError>> {
        loop {
            let quic = self.quic.as_mut().map(|hope| &mut hope.acquire);
            let next = if let Some(answer) = poll_some(quic, cx) {
                self.quic = None;
                match answer {
                    Ok(lease) => {
                        // Cancels TCP.
                        (self.tcp, self.delay) = (None, None);
                        return Poll::Ready(Ok(Lease::Quic(lease)));
                    }
                    Err(error) => self.race.handle_quic_failed(error),
                }
            } else if let Some(answer) = poll_some(self.tcp.as_mut(), cx) {
                self.tcp = None;
                match answer {
                    Ok(lease) => {
                        self.tcp_won();
                        return Poll::Ready(Ok(Lease::Tcp(lease)));
                    }
                    Err(error) => self.race.handle_tcp_failed(error),
                }
            } else if self.delay.as_mut().is_some_and(|delay| delay.as_mut().poll(cx).is_ready()) {
                self.race.handle_delay()
            } else {
                return Poll::Pending;
            };
            if let Some(error) = self.carry_out(next) {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn carry_out(&mut self, next: Next) -> Option<PoolError> {
        match next {
            Next::Wait => None,
            Next::StartTcp => {
                self.delay = None;
                self.tcp = Some(self.grid.tcp.acquire_at(Instant::now(), self.care));
                self.grid.make_room_for_tcp();
                None
            }
            Next::Fail(error) => Some(error),
        }
    }

    fn tcp_won(&mut self) {
        match self.race.handle_tcp_won() {
            QuicThen::Broken => self.grid.mark_broken(),
            QuicThen::Runs => {
                if let Some(quic) = self.quic.take() {
                    self.grid.follow(quic);
                }
            }
        }
    }
}

impl<V: Speaks> Drop for Racing<V> {
    fn drop(&mut self) {
        (self.quic, self.tcp) = (None, None);
        self.grid.look_empty();
    }
}

fn poll_some<F: Future + Unpin>(future: Option<&mut F>, cx: &mut Context<'_>) -> Option<F::Output> {
    match Pin::new(future?).poll(cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
