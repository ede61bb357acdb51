//! How a connection ends, so that no peer loses bytes that it was meant to read.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tidegate_codec::multiplex::{ServerConnection, Traffic};
use tidegate_codec::{ServerStream, h1};
use tokio::time::Instant;

use super::ConnectionCx;
use crate::hcm::Hcm;
use tidegate_types::drain::DrainPhase;
use tidegate_types::{CloseReason, CloseType, ConnectionInfo};

/// How a connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The client closed while nothing was under way.
    Remote,
    /// The client closed with a request under way.
    RemoteActive,
    /// FIN and done: the handshake did not end in time; with `--envoy-strict` also where the client was told or
    /// never spoke.
    Now,
    /// FIN at once, then late bytes are read and discarded for `delayed_close_timeout`, so that they
    /// meet a FIN and not an RST (deviations, row 1).
    Linger,
    /// FIN, and the connection counts as closed, for the client was told or never spoke; what still comes is
    /// discarded aside ([`listen_on`]).
    Told,
    /// Envoy's end of a drain (`--envoy-strict`): nothing is answered until the drain window and
    /// `delayed_close_timeout` are over; late bytes turn the close into an RST.
    Deaf,
    /// The client gets `delayed_close_timeout` to read the response to its unfinished request; then FIN.
    Delayed,
    /// The client had its time: FIN.
    Waited,
}

/// What a farewell needs of a connection, whatever it speaks.
pub(super) trait Ending: 'static {
    /// Says why the end that follows comes.
    fn before_close(&mut self, reason: CloseReason);
    /// What to tell the client of the end, where it can be told.
    fn explain_close(&mut self, words: &str);
    /// Sends FIN after everything written.
    fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads and drops; ready when the client has closed.
    fn poll_discard(&mut self, task: &mut Context<'_>) -> Poll<()>;
    /// Ready when the client is gone; reads what it must.
    fn poll_gone(&mut self, task: &mut Context<'_>) -> Poll<()>;
    /// Makes the end an RST.
    fn abort(&mut self);
    /// Bytes read and written, ever.
    fn traffic(&self) -> Traffic;
}

impl Ending for h1::ServerConn {
    fn before_close(&mut self, reason: CloseReason) {
        h1::ServerConn::before_close(self, reason);
    }

    fn explain_close(&mut self, _words: &str) {}

    fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        h1::ServerConn::poll_shutdown(self, task)
    }

    fn poll_discard(&mut self, task: &mut Context<'_>) -> Poll<()> {
        h1::ServerConn::poll_discard(self, task)
    }

    fn poll_gone(&mut self, task: &mut Context<'_>) -> Poll<()> {
        ServerStream::poll_gone(self, task)
    }

    fn abort(&mut self) {
        h1::ServerConn::abort(self);
    }

    fn traffic(&self) -> Traffic {
        Traffic { rx: self.rx_bytes(), tx: self.tx_bytes() }
    }
}

/// A connection that carries many exchanges.
pub(super) struct OfMany<C>(pub(super) C);

impl<C: ServerConnection + 'static> Ending for OfMany<C> {
    fn before_close(&mut self, reason: CloseReason) {
        self.0.before_close(reason);
    }

    fn explain_close(&mut self, words: &str) {
        self.0.explain_close(words);
    }

    fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(task)
    }

    fn poll_discard(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.0.poll_discard(task)
    }

    fn poll_gone(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.0.poll_discard(task)
    }

    fn abort(&mut self) {
        self.0.abort();
    }

    fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
}

/// Carries out `close`; dropping the connection afterwards ends it. Answers how it came to close in the end.
pub(super) async fn run(close: Close, cx: &ConnectionCx, conn: &mut impl Ending, hcm: &Hcm) -> Close {
    let patience = hcm.config.timeouts.delayed_close.map(|delay| Instant::now() + delay);
    match close {
        Close::Remote | Close::RemoteActive => {}
        Close::Now | Close::Told | Close::Waited => {
            shut_down(cx, conn).await;
            discard(cx, conn, None).await;
        }
        Close::Linger => {
            shut_down(cx, conn).await;
            if discard(cx, conn, patience).await {
                delayed_close_over(cx, hcm);
            }
        }
        Close::Delayed => {
            if discard(cx, conn, patience).await {
                delayed_close_over(cx, hcm);
            }
            shut_down(cx, conn).await;
        }
        Close::Deaf => return wait_deaf(cx, conn, hcm).await,
    }
    close
}

/// Notes for the listener's access log how the connection ends, in Envoy's words.
pub(super) fn note(info: &ConnectionInfo, close: Close, reason: CloseReason) {
    if reason == CloseReason::PeerRst {
        info.state.close_type.set(CloseType::RemoteReset);
    }
    let ours = match (close, reason) {
        (Close::Now | Close::Told | Close::Linger, CloseReason::IdleTimeout) => "on_idle_timeout",
        (Close::Now | Close::Told | Close::Linger, CloseReason::MaxDuration) => {
            "max_connection_duration_reached"
        }
        (Close::Now, CloseReason::ConnectTimeout) => "transport_socket_timeout",
        (Close::Now | Close::Told | Close::Linger, CloseReason::Announced | CloseReason::MaxRequests) => {
            "deferred_close_on_drained_connection"
        }
        // What waits for the client may yet be the client's close.
        _ => return,
    };
    *info.state.local_close_reason.borrow_mut() = Some(ours.into());
}

/// Reads and discards, for at most `delayed_close_timeout`, what a client sends that [`Close::Told`] was meant
/// for: a pipelined request that met an RST would take the last response along (RFC 9112 §9.6). In a task of its
/// own, since the connection is over for everybody else, and no delayed close, which Envoy counts elsewhere.
pub(super) fn listen_on(mut conn: impl Ending, hcm: &Hcm) {
    if let Some(patience) = hcm.config.timeouts.delayed_close {
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(patience, poll_fn(|task| conn.poll_discard(task))).await;
        });
    }
}

async fn wait_deaf(cx: &ConnectionCx, conn: &mut impl Ending, hcm: &Hcm) -> Close {
    let now = cx.clock.tick();
    let window = cx.draining.get().map_or(now, |draining| draining.over.max(now));
    let patience = window + hcm.config.timeouts.delayed_close.unwrap_or_default();
    let received = conn.traffic().rx;
    let left = poll_fn(|task| {
        if conn.poll_gone(task).is_ready() {
            return Poll::Ready(true);
        }
        // The listener or the process goes, which waits for requests and not for what was told to leave.
        if cx.drain.poll_reached(task, DrainPhase::CloseIdle).is_ready() {
            return Poll::Ready(false);
        }
        cx.timer.borrow_mut().poll(task, Some(patience), cx.clock.tick()).map(|()| false)
    })
    .await;
    if left {
        return Close::Remote;
    }
    if hcm.config.timeouts.delayed_close.is_some() && cx.drain.phase() < DrainPhase::CloseIdle {
        delayed_close_over(cx, hcm);
    }
    if conn.traffic().rx > received {
        conn.abort();
    } else {
        shut_down(cx, conn).await;
    }
    Close::Deaf
}

async fn shut_down(cx: &ConnectionCx, conn: &mut impl Ending) {
    if let Some(words) = &*cx.info.state.local_close_reason.borrow() {
        conn.explain_close(words);
    }
    // A peer that does not take our last bytes cannot hold us: what does not fit the socket now is lost
    // with the connection.
    poll_fn(|task| {
        let _ = conn.poll_shutdown(task);
        Poll::Ready(())
    })
    .await;
}

/// Reads and discards until the client closes or `patience` ends: whether it ended.
async fn discard(cx: &ConnectionCx, conn: &mut impl Ending, patience: Option<Instant>) -> bool {
    poll_fn(|task| {
        // Also without patience: bytes that are already here would turn the close into an RST.
        if conn.poll_discard(task).is_ready() || patience.is_none() {
            return Poll::Ready(false);
        }
        cx.timer.borrow_mut().poll(task, patience, cx.clock.tick()).map(|()| true)
    })
    .await
}

/// The client did not close within `delayed_close_timeout`.
pub(super) fn delayed_close_over(cx: &ConnectionCx, hcm: &Hcm) {
    hcm.stats.downstream_cx_delayed_close_timeout().inc();
    *cx.info.state.local_close_reason.borrow_mut() = Some("triggered_delayed_close_timeout".into());
    tracing::debug!(target: "connection", connection = cx.info.id, "triggered delayed close");
}
