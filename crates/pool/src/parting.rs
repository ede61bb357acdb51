//! Closing a connection harmlessly: the transport's farewell and FIN, then reading for a while.
//!
//! A socket that is closed while bytes of its peer arrive, or lie unread, answers with an RST, which can take away
//! what the peer has not read yet, and which old clients report as an error. What crosses an idle close is mostly
//! the peer's own `close_notify`. One task a worker does this, for all its pools: connections end in places
//! where no task can be started, such as the drop of a cluster.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tidegate_codec::multiplex::{ClientDrive, ClientEvent};
use tidegate_net::BoxIo;
use tidegate_types::CloseReason;

/// How long a peer is listened to after our FIN.
const LISTEN_TIME: Duration = Duration::from_secs(1);

/// How much of it is read. Stops a peer that goes on talking.
const LISTEN_BYTES: usize = 64 * 1024;

/// Read at a time.
const CHUNK: usize = 4 * 1024;

/// Whether a connection that ends for this reason is whole, so that its peer deserves a farewell.
pub(crate) fn is_due(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::IdleTimeout
            | CloseReason::MaxDuration
            | CloseReason::MaxRequests
            | CloseReason::Drained
            | CloseReason::HostUnhealthy
            | CloseReason::Overflow
            | CloseReason::Announced
    )
}

/// Starts the worker's task unless it runs. Must be called where local tasks can be started.
pub(crate) fn prepare() {
    LEAVING.with(|leaving| {
        if !leaving.running.replace(true) {
            tokio::task::spawn_local(run(Running(leaving.clone())));
        }
    });
}

/// A connection that leaves.
pub(crate) trait Parting {
    /// Sends what is left, and FIN.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads, and forgets it; 0 at the peer's end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

impl Parting for BoxIo {
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // No buffer while there is nothing to read.
        ready!(self.poll_read_ready(cx))?;
        let mut chunk = BytesMut::with_capacity(CHUNK);
        self.poll_read(cx, &mut chunk)
    }
}

/// A connection of many streams, without any.
pub(crate) struct Multiplexed<C, D> {
    driver: D,
    /// The other half, which nobody uses any more.
    _conn: C,
    /// It has still frames to write, such as the reset of its last stream.
    speaks: bool,
}

impl<C, D: ClientDrive> Multiplexed<C, D> {
    /// `over`: it was driven to its end.
    pub(crate) fn new(driver: D, conn: C, over: bool) -> Self {
        Self { driver, _conn: conn, speaks: !over }
    }
}

impl<C, D: ClientDrive> Parting for Multiplexed<C, D> {
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while std::mem::take(&mut self.speaks) {
            self.speaks = match self.driver.poll_event(cx) {
                Poll::Ready(ClientEvent::Closed(_)) | Poll::Pending => false,
                Poll::Ready(_) => true,
            };
        }
        self.driver.poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.driver.poll_discard(cx)
    }
}

/// Closes `leaver`: our end now, the rest in the background; at once where no task runs, as at the end of the
/// process.
pub(crate) fn part(mut leaver: impl Parting + 'static) {
    // Not later: who counts connections at the upstream must see this one's FIN before the SYN of the one that
    // takes its place under a limit. What cannot be said now, the task says.
    let _ = leaver.poll_shutdown(&mut Context::from_waker(Waker::noop()));
    LEAVING.with(|leaving| {
        if leaving.running.get() {
            leaving.queue.borrow_mut().push(Box::new(leaver));
            let waker = leaving.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    });
}

thread_local! {
    static LEAVING: Rc<Leaving> = Rc::default();
}

#[derive(Default)]
struct Leaving {
    queue: RefCell<Vec<Box<dyn Parting>>>,
    waker: RefCell<Option<Waker>>,
    running: Cell<bool>,
}

/// Held by the task: without it nothing is queued.
struct Running(Rc<Leaving>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.queue.take();
    }
}

async fn run(running: Running) {
    poll_fn(|cx| {
        // First the waker: what is queued after the look below wakes us.
        *running.0.waker.borrow_mut() = Some(cx.waker().clone());
        for leaver in running.0.queue.take() {
            tokio::task::spawn_local(farewell(leaver));
        }
        Poll::<()>::Pending
    })
    .await;
}

async fn farewell(mut leaver: Box<dyn Parting>) {
    let whole = async {
        if poll_fn(|cx| leaver.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut read = 0;
        while read < LISTEN_BYTES {
            match poll_fn(|cx| leaver.poll_discard(cx)).await {
                Ok(0) | Err(_) => return,
                Ok(length) => read += length,
            }
        }
    };
    // Whatever is left undone: the socket closes now.
    let _ = tokio::time::timeout(LISTEN_TIME, whole).await;
}

#[cfg(test)]
mod tests;
