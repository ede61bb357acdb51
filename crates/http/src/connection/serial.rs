//! A connection that carries one exchange after the other, and the idle times between them.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Version;
use tidegate_codec::ServerStream;
use tidegate_codec::h1::{Next, Readable, ServerConn};
use tidegate_codec::multiplex::Traffic;
use tidegate_types::drain::DrainPhase;
use tidegate_types::{CloseReason, Compat};
use tokio::time::Instant;

use super::account::Account;
use super::close::Close;
use super::opening;
use super::stream_cx::StreamCx;
use super::{ConnectionCx, Draining};
use crate::exchange::{self, ExchangeEnd};
use crate::hcm::{HcmSlot, WorkerHcm};

/// What ends an idle wait.
enum Event {
    /// Bytes of a request.
    Request,
    /// The client closed, in this way.
    ClosedByPeer(CloseReason),
    /// `idle_timeout`.
    Idle,
    /// `max_connection_duration`.
    Age,
    /// The drain window after one of those is over.
    DrainWindowOver(CloseReason),
    /// The listener's drain has come to idle connections.
    Drain,
    /// The listener or the process goes away.
    Shutdown,
}

/// How serving one exchange after the other ends.
pub(super) enum Outcome {
    /// The connection closes, for this reason.
    Over(Close, CloseReason),
    /// Its first bytes, or its handshake, say that it carries many exchanges at once.
    Multiplexed,
}

/// Serves exchanges until the connection is to be closed, or turns out to be of the other kind.
pub(super) async fn run(
    cx: &ConnectionCx,
    conn: &mut ServerConn,
    slot: &HcmSlot,
    account: &mut Account,
) -> Outcome {
    let over = |close, reason| Outcome::Over(close, reason);
    loop {
        let hcm = slot.current();
        match next_event(cx, conn, &hcm, account.idle_since(cx.born)).await {
            Event::Request => {
                // The configuration of now, not of when the wait began: a reload reaches open connections.
                let hcm = slot.current();
                let begun = cx.clock.now();
                if cx.served.get() == 0 && opening::carries_many(cx, conn, &hcm).await {
                    return Outcome::Multiplexed;
                }
                if let Some((close, reason)) = one_exchange(cx, conn, hcm, slot, account, begun).await {
                    return over(close, reason);
                }
                if cx.served_in_time.get().is_some() {
                    account.soft_drain();
                }
                account.idle(cx.clock.now());
            }
            // It is us who do not wait for the handshake any longer.
            Event::ClosedByPeer(CloseReason::ConnectTimeout) => {
                return over(Close::Now, CloseReason::ConnectTimeout);
            }
            Event::ClosedByPeer(how) => return over(Close::Remote, how),
            Event::Shutdown => return over(Close::Linger, CloseReason::Drained),
            Event::DrainWindowOver(reason) => return over(drain_close(&hcm), reason),
            Event::Idle => {
                cx.idle_reached(&hcm.shared.stats);
                if let Some(close) = start_drain(cx, &hcm, CloseReason::IdleTimeout) {
                    return over(close, CloseReason::IdleTimeout);
                }
            }
            Event::Drain => {
                hcm.shared.stats.downstream_cx_drain_close().inc();
                if let Some(close) = start_drain(cx, &hcm, CloseReason::Drained) {
                    return over(close, CloseReason::Drained);
                }
            }
            Event::Age => {
                cx.age_reached(&hcm.shared.stats);
                let told = hcm.shared.config.timeouts.http1_safe_max_connection_duration;
                // Who never sent a request expects no response.
                if told && cx.served.get() > 0 {
                    // The next response is the last; without one the connection stays.
                    account.soft_drain();
                } else if let Some(close) = start_drain(cx, &hcm, CloseReason::MaxDuration) {
                    return over(close, CloseReason::MaxDuration);
                }
            }
        }
    }
}

/// An idle or old connection drains: one that has served requests stays for `drain_timeout`, so that a
/// request which is already on its way is answered (deviations, row 1).
fn start_drain(cx: &ConnectionCx, hcm: &WorkerHcm, reason: CloseReason) -> Option<Close> {
    let window = hcm.shared.config.timeouts.drain_window(fastrand::f64);
    if cx.served.get() == 0 {
        return Some(last_close(hcm.shared.compat));
    }
    if window.is_zero() {
        return Some(drain_close(hcm));
    }
    cx.draining.set(Some(Draining { over: cx.clock.tick() + window, reason }));
    None
}

/// How a connection ends whose client was told by the last response, or never sent a request. Envoy just closes,
/// and resets what was on its way: a pipelined request then takes the response before it along (RFC 9112 §9.6).
fn last_close(compat: Compat) -> Close {
    if compat.is_strict() { Close::Now } else { Close::Told }
}

/// How the drain ends.
fn drain_close(hcm: &WorkerHcm) -> Close {
    if hcm.shared.compat.is_strict() { Close::Deaf } else { Close::Linger }
}

/// Waits between exchanges: for bytes, the client's close, a deadline or a drain.
async fn next_event(cx: &ConnectionCx, conn: &mut ServerConn, hcm: &WorkerHcm, idle_since: Instant) -> Event {
    if conn.has_buffered_input() {
        return Event::Request;
    }
    // Envoy's way: any byte, a blank line too, begins a stream.
    let strict = hcm.shared.compat.is_strict();
    let received = conn.rx_bytes();
    // The first poll is the one that brought us here, whose time the clock has.
    let mut ticked = true;
    poll_fn(|task| {
        if !std::mem::take(&mut ticked) {
            cx.clock.tick();
        }
        match conn.poll_readable(task) {
            Poll::Ready(Readable::Bytes) => return Poll::Ready(Event::Request),
            Poll::Ready(Readable::Closed) => return Poll::Ready(Event::ClosedByPeer(CloseReason::PeerFin)),
            Poll::Ready(Readable::Broken(error)) => {
                return Poll::Ready(Event::ClosedByPeer(CloseReason::of_io(&error)));
            }
            Poll::Pending if strict && conn.rx_bytes() > received => return Poll::Ready(Event::Request),
            Poll::Pending => {}
        }
        if cx.drain.poll_reached(task, DrainPhase::CloseIdle).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        // Looked at again at each wake-up: overload may have made it nearer, or a drain begun.
        let deadlines = [cx.idle_deadline(&hcm.shared, idle_since), cx.drain_deadline()];
        poll_idle_deadline(cx, task, deadlines)
    })
    .await
}

fn poll_idle_deadline(
    cx: &ConnectionCx,
    task: &mut Context<'_>,
    [idle, drain]: [Option<Instant>; 2],
) -> Poll<Event> {
    let (deadlines, event): ([Option<Instant>; 3], _) = match cx.draining.get() {
        Some(Draining { over, reason }) => ([Some(over), None, None], Some(Event::DrainWindowOver(reason))),
        None => ([idle, cx.age_deadline(), drain], None),
    };
    let nearest = deadlines.into_iter().flatten().min();
    std::task::ready!(cx.timer.borrow_mut().poll(task, nearest, cx.clock.now()));
    Poll::Ready(event.unwrap_or_else(|| match nearest {
        _ if nearest == cx.age_deadline() => Event::Age,
        _ if nearest == drain => Event::Drain,
        _ => Event::Idle,
    }))
}

/// Writes what an exchange left: the end of a short response. Not before every task that is ready had its turn: a worker
/// that first reads all that came and then writes all that is to go finds its peers awake for most of the writes, and to
/// wake one costs the kernel more than to append to its queue. `Some`: the client did not take it.
async fn write_rest(
    cx: &ConnectionCx,
    conn: &mut ServerConn,
    slot: &HcmSlot,
) -> Option<(Close, CloseReason)> {
    let idle_since = cx.clock.now();
    let mut in_line = false;
    poll_fn(|task| {
        if !std::mem::replace(&mut in_line, true) {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        cx.clock.tick();
        match conn.poll_flush(task) {
            Poll::Ready(Ok(())) => return Poll::Ready(None),
            Poll::Ready(Err(_)) => {
                let how = conn.ended().unwrap_or(CloseReason::PeerRst);
                return Poll::Ready(Some((Close::Remote, how)));
            }
            Poll::Pending => {}
        }
        if cx.drain.poll_reached(task, DrainPhase::CloseAll).is_ready() {
            return Poll::Ready(Some((Close::Now, CloseReason::Drained)));
        }
        // No request is under way any more: the connection's own times hold.
        let hcm = slot.current();
        let deadline = cx.idle_deadline(&hcm.shared, idle_since);
        poll_idle_deadline(cx, task, [deadline, None]).map(|event| {
            let reason = match event {
                Event::DrainWindowOver(reason) => reason,
                Event::Age => {
                    cx.age_reached(&hcm.shared.stats);
                    CloseReason::MaxDuration
                }
                _ => {
                    cx.idle_reached(&hcm.shared.stats);
                    CloseReason::IdleTimeout
                }
            };
            Some((Close::Now, reason))
        })
    })
    .await
}

/// Serves one exchange, of which the first byte came when it has `begun`; the close that follows it, if one does, and why.
async fn one_exchange(
    cx: &ConnectionCx,
    conn: &mut ServerConn,
    hcm: Rc<WorkerHcm>,
    slot: &HcmSlot,
    account: &mut Account,
    begun: Instant,
) -> Option<(Close, CloseReason)> {
    cx.served.set(cx.served.get().saturating_add(1));
    cx.why.set(None);
    cx.info.state.protocol.set(Some(Version::HTTP_11));
    account.request(cx.clock.now(), Version::HTTP_11);
    let delayed_close = hcm.shared.config.timeouts.delayed_close;
    let compat = hcm.shared.compat;
    let stream = StreamCx::alone(cx, Version::HTTP_11, begun);
    // Boxed: the state of a request lives on the heap while there is one, not in every idle connection. It is begun
    // where it stays: moving it there costs 500 instructions.
    let exchange = Box::write(Box::new_uninit(), exchange::serve(&stream, hcm, conn));
    let end = Box::into_pin(exchange).await;
    cx.clock.set(stream.clock.now());
    let lost = if conn.buffered() > 0 { write_rest(cx, conn, slot).await } else { None };
    account.count_traffic(Traffic { rx: conn.rx_bytes(), tx: conn.tx_bytes() });
    if lost.is_some() {
        return lost;
    }
    let why = |otherwise| cx.why.get().unwrap_or(otherwise);
    match end {
        end @ (ExchangeEnd::Complete | ExchangeEnd::Replied) => {
            let close = match conn.finish_exchange() {
                Next::KeepAlive => return None,
                // Envoy waits for the end of the drain window, whatever the response announced.
                Next::Close if compat.is_strict() && cx.draining.get().is_some() => Close::Deaf,
                // FIN at once, and a request that crosses it meets no RST (deviations, row 1).
                Next::Close if cx.draining.get().is_some() => Close::Linger,
                Next::Close if end == ExchangeEnd::Replied && delayed_close.is_some() => Close::Delayed,
                Next::Close => last_close(compat),
            };
            // Unless we had a reason of our own the client asked for it, or speaks HTTP/1.0.
            Some((close, why(CloseReason::Announced)))
        }
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed if delayed_close.is_some() => {
            Some((Close::Delayed, why(CloseReason::RequestReset)))
        }
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed | ExchangeEnd::Reset => {
            Some((Close::Now, why(CloseReason::RequestReset)))
        }
        // A failed write may be all that there is to see.
        ExchangeEnd::Gone => Some((Close::RemoteActive, conn.ended().unwrap_or(CloseReason::PeerRst))),
    }
}
