//! Requests that came in early data (0-RTT), before the handshake proved that they are no replay (RFC 8470).

use std::future::poll_fn;

use http::{HeaderName, HeaderValue, Method};
use tidegate_types::RequestHead;

use super::{Abort, Exchange, WatchClient};

/// Says that a request may be a replay (RFC 8470 §5.1). The upstream that will not have it answers 425.
const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

impl Exchange<'_> {
    /// Marks an early request with a safe method; any other one waits until the handshake is over, and needs no mark
    /// then (RFC 8470 §4). Envoy marks them all and leaves it to the upstream.
    pub(super) async fn judge_early(&self, head: &mut RequestHead) -> Result<(), Abort> {
        if !self.server.borrow().is_early() {
            return Ok(());
        }
        if is_safe(&head.method) {
            // One that the client sent stays (RFC 8470 §5.1).
            head.headers.entry(EARLY_DATA).or_insert(HeaderValue::from_static("1"));
            return Ok(());
        }
        // Boxed: few requests wait here, and the others need no room for it.
        let confirmed = poll_fn(|cx| self.server.borrow_mut().poll_confirmed(cx));
        Box::pin(self.guard(confirmed, WatchClient::Yes)).await
    }
}

/// RFC 9110 §9.2.1.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}
