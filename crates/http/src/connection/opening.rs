//! Whether a connection carries one exchange after the other or many at once: by configuration, by its TLS
//! handshake, by its first bytes.

use std::future::poll_fn;
use std::task::Poll;

use tidegate_codec::h1::{Readable, ServerConn};
use tidegate_codec::h2::preface::{Detected, detect};
use tidegate_config::hcm::CodecType;
use tidegate_types::drain::DrainPhase;

use super::ConnectionCx;
use crate::hcm::WorkerHcm;

/// Judges a connection whose first bytes came.
///
/// A protocol that the handshake agreed on decides, as in Envoy. The beginning of a preface waits for more of it,
/// for as long as a head may take; then it is an HTTP/1.1 request, and a late one.
pub(super) async fn carries_many(cx: &ConnectionCx, conn: &mut ServerConn, hcm: &WorkerHcm) -> bool {
    match (hcm.shared.config.codec_type, conn.alpn()) {
        (CodecType::Http1, _) => return false,
        // HTTP/3 does not come here.
        (CodecType::Http2 | CodecType::Http3, _) => return true,
        (CodecType::Auto, Some(protocol)) => return protocol == b"h2",
        (CodecType::Auto, None) => {}
    }
    let timeouts = &hcm.shared.config.timeouts;
    let patience = [hcm.shared.request_headers_timeout, timeouts.request, timeouts.stream_idle];
    let patience = patience.into_iter().flatten().min().map(|time| cx.clock.now() + time);
    poll_fn(|task| {
        cx.clock.tick();
        loop {
            match detect(conn.input()) {
                Detected::Http1 => return Poll::Ready(false),
                Detected::Http2 => return Poll::Ready(true),
                Detected::Undecided => {}
            }
            match conn.poll_more(task) {
                Poll::Ready(Readable::Bytes) => {}
                // The exchange that takes what came finds the end of it.
                Poll::Ready(Readable::Closed | Readable::Broken(_)) => return Poll::Ready(false),
                // Nothing is lost with it: the exchange sees the drain, too.
                Poll::Pending if cx.drain.poll_reached(task, DrainPhase::CloseIdle).is_ready() => {
                    return Poll::Ready(false);
                }
                Poll::Pending => {
                    return cx.timer.borrow_mut().poll(task, patience, cx.clock.now()).map(|()| false);
                }
            }
        }
    })
    .await
}
