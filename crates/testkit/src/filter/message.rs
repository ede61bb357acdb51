//! Scripted messages and what becomes of them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_filter::LocalReply;
use tidegate_types::{RequestHead, ResetReason, ResponseHead};

/// A message: a head, the chunks of its body as they arrive, and trailers.
#[derive(Debug)]
pub struct Message<H> {
    /// The head.
    pub head: H,
    /// The body, chunk by chunk. None at all means that the head ends the message.
    pub chunks: Vec<Bytes>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
}

impl<H> Message<H> {
    /// A message that is only a head.
    pub fn new(head: H) -> Self {
        Self { head, chunks: Vec::new(), trailers: None }
    }

    /// Adds a chunk of body.
    #[must_use]
    pub fn chunk(mut self, chunk: impl Into<Bytes>) -> Self {
        self.chunks.push(chunk.into());
        self
    }

    /// Adds a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let trailers = self.trailers.get_or_insert_default();
        trailers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// The whole body.
    pub fn body(&self) -> Bytes {
        self.chunks.concat().into()
    }
}

impl Message<RequestHead> {
    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.head.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

impl Message<ResponseHead> {
    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.head.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

impl<H> From<H> for Message<H> {
    fn from(head: H) -> Self {
        Self::new(head)
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome<H> {
    /// It went on, perhaps changed.
    Forwarded(Message<H>),
    /// The filter answered the client.
    Replied(Box<LocalReply>),
    /// The filter ended the stream.
    Reset(ResetReason),
}

#[allow(clippy::panic, reason = "a test helper: a panic is how a test fails")]
impl<H: std::fmt::Debug> Outcome<H> {
    /// The message.
    ///
    /// # Panics
    /// When it did not go on.
    #[track_caller]
    pub fn forwarded(self) -> Message<H> {
        match self {
            Self::Forwarded(message) => message,
            other => panic!("the message did not go on: {other:?}"),
        }
    }

    /// The filter's reply.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn reply(self) -> LocalReply {
        match self {
            Self::Replied(reply) => *reply,
            other => panic!("the filter did not reply: {other:?}"),
        }
    }
}
