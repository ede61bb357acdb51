//! The driver's side of one connection: an attempt, then a connection until its session takes it.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_types::{Address, CloseReason};
use tokio::task::JoinHandle;

use super::spare::{Early, Spare};
use crate::dialer::Opened;
use crate::driver::bell::{Bell, Watch};
use crate::driver::{self, Stirred, log_end};
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
    watch: Watch,
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
        std::mem::take(&mut self.watch).disarm();
    }
}

impl driver::Slot for Slot {
    type Opened = Opened;

    #[inline]
    fn is_watched_while_busy(&self) -> bool {
        false
    }

    fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    fn connected(&mut self, opened: Opened) -> u32 {
        *self = Self { id: Some(opened.id), spare: Some(Spare::new(opened)), ..Self::default() };
        1
    }

    fn has_fired(&self) -> bool {
        self.watch.has_fired().unwrap_or(false)
    }

    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        let Some(spare) = &mut self.spare else { return Poll::Pending };
        match spare.poll_stirred(&mut self.watch.arm(bell, key)) {
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
            (Some(_), CloseReason::IdleTimeout) => (closed.idle_ms, "per client idle timeout"),
            (Some(_), reason) => (closed.idle_ms, reason.words()),
            (None, reason) => (Some(self.idle.as_millis() as u64), reason.words()),
        };
        log_end("upstream tcp", self.id, host, Closed { idle_ms, ..closed }, words, stats);
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
