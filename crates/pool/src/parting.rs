//! Closing a connection harmlessly: the transport's farewell and FIN, then reading for a while.
//!
//! A socket that is closed while bytes of its peer arrive, or lie unread, answers with an RST, which can take away
//! what the peer has not read yet, and which old clients report as an error. What crosses an idle close is mostly
//! the peer's own `close_notify`. One task a worker does this, for all its pools: connections end in places
//! where no task can be started, such as the drop of a cluster.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
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

/// Closes `io`: our end now, the rest in the background; at once where no task runs, as at the end of the process.
pub(crate) fn part(mut io: BoxIo) {
    // Not later: who counts connections at the upstream must see this one's FIN before the SYN of the one that
    // takes its place under a limit. What cannot be said now, the task says.
    let _ = io.poll_shutdown(&mut Context::from_waker(Waker::noop()));
    LEAVING.with(|leaving| {
        if leaving.running.get() {
            leaving.queue.borrow_mut().push(io);
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
    queue: RefCell<Vec<BoxIo>>,
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
        for io in running.0.queue.take() {
            tokio::task::spawn_local(farewell(io));
        }
        Poll::<()>::Pending
    })
    .await;
}

async fn farewell(mut io: BoxIo) {
    let whole = async {
        if poll_fn(|cx| io.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut read = 0;
        while read < LISTEN_BYTES {
            // No buffer while there is nothing to read.
            if poll_fn(|cx| io.poll_read_ready(cx)).await.is_err() {
                return;
            }
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match poll_fn(|cx| io.poll_read(cx, &mut chunk)).await {
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
