//! Parting from the peers of a session that is over, so that none of them meets an RST it was not meant to.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_net::BoxIo;
use tidegate_types::{CloseReason, DrainPhase, DrainWatch};
use tokio::time::{Instant, sleep_until};

use crate::buffers;
use crate::end::Parting;

/// How long bytes that cross our FIN are read and discarded, as `delayed_close_timeout` is by default. Bounds
/// what a peer that never closes can hold.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is to be parted from.
pub(crate) struct Leaving {
    io: BoxIo,
    shut: bool,
}

impl Leaving {
    /// Begins to part from `io`: `None` when nothing is left to be done.
    pub(crate) fn new(mut io: BoxIo, parting: Parting, reason: CloseReason) -> Option<Self> {
        io.before_close(reason);
        match parting {
            Parting::Close => None,
            Parting::Reset => {
                io.abort_on_drop();
                None
            }
            Parting::Fin => Some(Self { io, shut: false }),
        }
    }

    /// Ready when the peer has closed too, or is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shut {
            match self.io.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        for _ in 0..ROUNDS {
            match self.io.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let mut discarded = buffers::take(buffers::SIZE);
            let read = self.io.poll_read(cx, &mut discarded);
            buffers::give(discarded);
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Reads in one poll, before other connections get their turn.
const ROUNDS: usize = 16;

/// Sends the FINs and waits, for a bounded time, for the peers'.
pub(crate) async fn part(mut leaving: [Option<Leaving>; 2], drain: &DrainWatch) {
    let peers = async {
        poll_fn(|cx| {
            for slot in &mut leaving {
                if slot.as_mut().is_some_and(|leaving| leaving.poll(cx).is_ready()) {
                    *slot = None;
                }
            }
            let over = leaving.iter().all(Option::is_none);
            // The process goes: it waits for nobody any more.
            if over || drain.poll_reached(cx, DrainPhase::CloseAll).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    };
    tokio::select! {
        () = peers => {}
        () = sleep_until(Instant::now() + PATIENCE) => {}
    }
}
