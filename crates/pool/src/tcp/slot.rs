//! The driver's side of one connection: an attempt, then a connection until its session takes it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_types::{Address, CloseReason};
use tokio::task::JoinHandle;

use super::spare::{Early, Spare};
use crate::dialer::Opened;
use crate::driver::bell::{Bell, IdleWatch};
use crate::driver::{self, Stirred};
use crate::machine::{Closed, ConnKey};
use crate::parting;
use crate::stats::UpstreamStats;

/// See the module.
#[derive(Default)]
pub struct Slot {
    spare: Option<Spare>,
    /// The connection's number, once there is one.
    id: Option<u64>,
    attempt: Option<JoinHandle<()>>,
    watch: Option<(Arc<IdleWatch>, Waker)>,
    /// How long its session had idled when it ended, for the log.
    pub(super) idle: Duration,
}

impl Slot {
    /// Hands the connection to its session.
    pub(super) fn take(&mut self) -> Option<Opened> {
        self.unwatch();
        self.spare.take().map(Spare::into_opened)
    }

    /// Nobody looks at it any more.
    fn unwatch(&mut self) {
        if let Some((watch, _)) = self.watch.take() {
            watch.disarm();
        }
    }
}

impl driver::Slot for Slot {
    type Opened = Opened;

    const WATCHED_WHILE_BUSY: bool = false;

    fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    fn connected(&mut self, opened: Opened) -> u32 {
        *self = Self { id: Some(opened.id), spare: Some(Spare::new(opened)), ..Self::default() };
        1
    }

    fn has_fired(&self) -> bool {
        self.watch.as_ref().is_some_and(|(watch, _)| watch.has_fired())
    }

    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        let Some(spare) = &mut self.spare else { return Poll::Pending };
        let (watch, waker) = self.watch.get_or_insert_with(|| {
            let watch = IdleWatch::new(key, bell.clone());
            let waker = Waker::from(watch.clone());
            (watch, waker)
        });
        watch.arm();
        match spare.poll_stirred(&mut Context::from_waker(waker)) {
            Poll::Ready(Early::Ended(how)) => Poll::Ready(Stirred::Closed(how)),
            // A server that speaks first: its session will read that, and whatever follows.
            Poll::Ready(Early::Spoke) => {
                self.unwatch();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        let (idle_ms, words) = match (&self.spare, closed.reason) {
            // Envoy's words for the pool's own timeout; a session's is the proxy's.
            (Some(_), CloseReason::IdleTimeout) => (closed.idle_ms.unwrap_or(0), "per client idle timeout"),
            (Some(_), reason) => (closed.idle_ms.unwrap_or(0), reason.words()),
            (None, reason) => (self.idle.as_millis() as u64, reason.words()),
        };
        // `target` and fields are those of the other pools.
        tracing::debug!(
            target: "pool",
            connection = self.id,
            kind = "upstream tcp",
            peer = host.map(tracing::field::display),
            cluster = stats.scope().name(),
            reason = closed.reason.name(),
            idle_ms,
            "closing an upstream connection: {words}",
        );
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.unwatch();
        if let Some(Opened { mut io, .. }) = self.spare.take().map(Spare::into_opened) {
            io.before_close(closed.reason);
            if parting::is_due(closed.reason) {
                parting::part(io);
            }
        }
        *self = Self::default();
    }
}
