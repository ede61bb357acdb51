//! What a hook answers, and when.

use std::future::Future;
use std::pin::Pin;

use tidegate_types::ResetReason;

use crate::LocalReply;

/// A boxed future of one worker.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A hook's answer: now, or later. `Later` is the only place where a filter allocates.
///
/// The future finishing is "resume"; the stream's end drops it, which is "cancel".
pub enum Step<'a, T> {
    /// The answer.
    Now(T),
    /// Wait for the answer: this direction of the stream stands still meanwhile.
    Later(LocalFuture<'a, T>),
}

impl<'a, T> Step<'a, T> {
    /// Wraps a future.
    pub fn later(future: impl Future<Output = T> + 'a) -> Self {
        Self::Later(Box::pin(future))
    }

    /// The answer, waiting for it if need be.
    pub async fn resolve(self) -> T {
        match self {
            Self::Now(value) => value,
            Self::Later(future) => future.await,
        }
    }
}

/// How a message goes on after a filter saw its head.
#[derive(Debug)]
pub enum HeadFlow {
    /// On to the next filter.
    Continue,
    /// On to the next filter, and leave this one out of the message's body and trailers.
    Skip,
    /// Collect the whole body first, then call `on_buffered`. A body over `limit` bytes is answered
    /// with 413.
    Buffer {
        /// Bytes.
        limit: usize,
    },
    /// Answer the client; the message goes no further.
    Reply(Box<LocalReply>),
}

/// How a message goes on after a filter saw a part of its body or its trailers.
#[derive(Debug)]
pub enum Flow {
    /// On to the next filter.
    Continue,
    /// Answer the client, if no response has begun; otherwise the stream is reset.
    Reply(Box<LocalReply>),
    /// End the stream without an answer.
    Reset(ResetReason),
}
