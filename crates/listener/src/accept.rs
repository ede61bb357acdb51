//! The accept loop.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tidegate_net::listen::{Accepted, Acceptor, is_exhaustion};

use tidegate_types::overload::OverloadAction::{RejectIncomingConnections, StopAcceptingConnections};

use crate::listener::Listener;
use crate::pipeline;

/// Accepts until the listener is told to stop, then takes what the kernel still holds.
pub(crate) async fn run(listener: Rc<Listener>, acceptor: Acceptor) {
    loop {
        // Clients wait in the kernel's queue meanwhile.
        let accepts = !listener.overload().is_saturated(StopAcceptingConnections);
        let accepted = tokio::select! {
            biased;
            () = listener.stopping().notified() => break,
            () = listener.watch_overload().notified() => continue,
            accepted = poll_fn(|cx| acceptor.poll_accept(cx)), if accepts => accepted,
        };
        let burst = listener.options().accept_burst.max(1);
        let pause = match admit_burst(&listener, &acceptor, accepted, burst).await {
            Next::Wait => continue,
            Next::Yield => Duration::ZERO,
            Next::Pause => EXHAUSTION_PAUSE,
        };
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = listener.stopping().notified() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    // Lets the runtime look for I/O events first: it may not know yet what the kernel has queued.
    tokio::task::yield_now().await;
    if let Poll::Ready(accepted) = try_accept(&acceptor).await {
        let _ = admit_burst(&listener, &acceptor, accepted, u32::MAX).await;
    }
}

enum Next {
    /// The queue is empty.
    Wait,
    /// More may be queued; others first.
    Yield,
    /// Out of descriptors.
    Pause,
}

/// Admits `first` and what else is queued, up to `burst`.
async fn admit_burst(
    listener: &Rc<Listener>,
    acceptor: &Acceptor,
    first: io::Result<Accepted>,
    burst: u32,
) -> Next {
    let mut accepted = first;
    let mut taken = 0;
    let next = loop {
        match accepted {
            Ok(connection) => {
                taken += 1;
                admit(listener, connection);
            }
            Err(error) => {
                listener.stats().accept_error();
                if is_exhaustion(&error) {
                    tracing::warn!(target: "connection", listener = &**listener.name(), %error,
                        "cannot accept, pausing");
                    break Next::Pause;
                }
                // The connection was gone before it was accepted (ECONNABORTED): the next one may live.
                taken += 1;
            }
        }
        if taken >= burst {
            break Next::Yield;
        }
        match try_accept(acceptor).await {
            Poll::Ready(more) => accepted = more,
            Poll::Pending => break Next::Wait,
        }
    };
    if taken > 0 {
        listener.stats().accepted_together(u64::from(taken));
    }
    next
}

/// Accepts without waiting; the task is woken by the next connection after `Pending`.
async fn try_accept(acceptor: &Acceptor) -> Poll<io::Result<Accepted>> {
    poll_fn(|cx| Poll::Ready(acceptor.poll_accept(cx))).await
}

fn admit(listener: &Rc<Listener>, connection: Accepted) {
    let options = listener.options();
    // Half an overload rejects half of the connections.
    let overload = listener.overload().level(RejectIncomingConnections);
    if overload > 0.0 && fastrand::f64() < overload {
        return listener.stats().overload_reject();
    }
    // Over a limit: accepted and closed at once, as Envoy does; left in the queue it would hang until a
    // timeout. The process's limit is asked first, as there.
    let global = match &options.limit {
        None => None,
        Some(limit) => match limit.reserve() {
            Some(reservation) => Some(reservation),
            None => return listener.stats().global_overflow(),
        },
    };
    let Some(own) = options.own_limit.reserve() else { return listener.stats().overflow() };
    tokio::task::spawn_local(pipeline::run(listener.clone(), connection, (global, own)));
}

/// How long not to accept when the process is out of descriptors: long enough not to spin, short enough
/// that a client hardly notices.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(100);
