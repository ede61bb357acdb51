//! Access logs: one call at the end of each stream.

use std::time::Duration;

use http::HeaderMap;
use tidegate_stats::Store;
use tidegate_types::{RequestHead, ResponseHead, StreamInfo};

/// What an access log, a header template or a local-reply template may print.
#[derive(Clone, Copy)]
pub struct LogContext<'a> {
    /// The request's head, unless the stream ended before it was complete.
    pub request: Option<&'a RequestHead>,
    /// The response's head, if one was sent or made.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers.
    pub response_trailers: Option<&'a HeaderMap>,
    /// The body of a local reply (`%LOCAL_REPLY_BODY%`).
    pub local_reply_body: &'a str,
    /// Everything else.
    pub info: &'a StreamInfo,
}

/// What an access logger may use while a configuration is built.
#[derive(Clone, Copy)]
pub struct AccessLogContext<'a> {
    /// Where the logger's statistics live.
    pub stats: &'a Store,
    /// How long a line may be held back before it is written (`--file-flush-interval-msec`).
    pub flush_interval: Duration,
}

/// An access logger: built when a configuration is loaded, shared by all workers.
pub trait AccessLog: Send + Sync {
    /// The stream ended. Must not block.
    fn log(&self, cx: &LogContext<'_>);

    /// The operator rotated the files (SIGUSR1): open them anew.
    fn reopen(&self) {}

    /// Write out what is held back. May block; called on the main thread at exit.
    fn flush(&self) {}
}
