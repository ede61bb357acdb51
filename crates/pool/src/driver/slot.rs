//! The pool's side of one connection, and what happens on it.

use std::sync::Arc;
use std::task::Poll;

use tidegate_codec::multiplex::AltSvc;
use tidegate_types::{Address, CloseReason};
use tokio::task::JoinHandle;

use super::bell::Bell;
use crate::machine::{Closed, ConnKey};
use crate::stats::UpstreamStats;

/// The pool's side of one connection: empty, an attempt, or a connection.
pub trait Slot: Default {
    /// What an attempt gives.
    type Opened: 'static;

    /// Whether the connection is watched by the pool while it has streams, too, and not by its streams.
    fn is_watched_while_busy(&self) -> bool;

    /// An attempt is under way.
    fn begin(&mut self, attempt: JoinHandle<()>);

    /// The attempt succeeded. Answers how many streams the connection takes at a time.
    fn connected(&mut self, opened: Self::Opened) -> u32;

    /// Whether the connection stirred since it was looked at last.
    fn has_fired(&self) -> bool;

    /// Looks what happened, and registers for what comes next. To be called until it is pending, unless the
    /// connection ended.
    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred>;

    /// The connection is no more: closes it if it is here, gives the attempt up. One line says why.
    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats);
}

/// The one line that says why a connection closed, the same for every protocol.
#[inline]
pub(crate) fn log_end(
    kind: &'static str,
    connection: Option<u64>,
    peer: Option<&Address>,
    closed: Closed,
    words: &str,
    stats: &UpstreamStats,
) {
    tracing::debug!(
        target: "pool",
        connection,
        kind,
        peer = peer.map(tracing::field::display),
        cluster = stats.scope().name(),
        reason = closed.reason.name(),
        idle_ms = closed.idle_ms.unwrap_or(0),
        "closing an upstream connection: {words}",
    );
}

/// What happened on a connection that a pool watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stirred {
    /// It ended, in this way.
    Closed(CloseReason),
    /// Its peer broke the protocol of the connection, or a limit on its frames.
    Violated,
    /// A message of its peer was malformed, which ended it.
    Malformed,
    /// The peer sent bytes that nobody asked for.
    UnexpectedData,
    /// So many streams may be open at once.
    Capacity(u32),
    /// The peer takes no more streams.
    GoingAway,
    /// The peer says where else its origins are served.
    Advertised(AltSvc),
}

/// A slot that may hold a connection of a protocol: it is one, or is of a pool that speaks several.
pub trait Holds<S> {
    /// That protocol's part, if that is what the connection speaks.
    fn held(&mut self) -> Option<&mut S>;
}

impl<S: Slot> Holds<S> for S {
    #[inline]
    fn held(&mut self) -> Option<&mut S> {
        Some(self)
    }
}
