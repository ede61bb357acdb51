//! One stream through one filter, in the order of calls that the stream engine keeps.

use std::rc::Rc;

use http::StatusCode;
use tidegate_filter::{Cx, Flow, HeadFlow, HttpFilter, LocalReply, RequestFilter, ResponseFilter, Stream};
use tidegate_types::{BodyBuf, EndStream, RequestHead, ResponseHead, details};

use super::{Message, Outcome};

/// A stream that has just begun, and the filter's halves on it.
pub struct Run {
    filter: HttpFilter,
    stream: Rc<Stream>,
    cx: Cx,
}

impl Run {
    pub(super) fn new(filter: HttpFilter, stream: Rc<Stream>) -> Self {
        let cx = Cx::new(stream.clone(), 0);
        Self { filter, stream, cx }
    }

    /// The stream.
    pub fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// Takes a request through the filter.
    pub async fn request(&mut self, message: impl Into<Message<RequestHead>>) -> Outcome<RequestHead> {
        let message = message.into();
        let outcome = match &mut self.filter.request {
            Some(half) => request(half.as_mut(), &self.cx, message).await,
            None => Outcome::Forwarded(message),
        };
        if let Outcome::Forwarded(message) = &outcome {
            self.stream.set_request(Box::new(message.head.clone()));
        }
        outcome
    }

    /// Takes a response through the filter.
    pub async fn response(&mut self, message: impl Into<Message<ResponseHead>>) -> Outcome<ResponseHead> {
        let message = message.into();
        match &mut self.filter.response {
            Some(half) => response(half.as_mut(), &self.cx, message).await,
            None => Outcome::Forwarded(message),
        }
    }

    /// Takes a 1xx head through the filter.
    pub async fn informational(&mut self, head: &mut ResponseHead) -> Flow {
        match &mut self.filter.response {
            Some(half) => half.on_informational(&self.cx, head).resolve().await,
            None => Flow::Continue,
        }
    }
}

macro_rules! go {
    ($flow:expr) => {
        match $flow {
            Flow::Continue => {}
            Flow::Reply(reply) => return Outcome::Replied(reply),
            Flow::Reset(reason) => return Outcome::Reset(reason),
        }
    };
}

macro_rules! walk {
    ($name:ident, $half:ident, $head:ty, $status:ident, $body:literal, $details:ident) => {
        async fn $name(half: &mut dyn $half, cx: &Cx, message: Message<$head>) -> Outcome<$head> {
            let Message { mut head, chunks, mut trailers } = message;
            let head_ends = EndStream::from_last(chunks.is_empty() && trailers.is_none());
            let flow = half.on_head(cx, &mut head, head_ends).resolve().await;
            let (mut skip, mut out) = (false, Vec::new());
            match flow {
                HeadFlow::Continue => {
                    let last = chunks.len().saturating_sub(1);
                    for (index, chunk) in chunks.into_iter().enumerate() {
                        let end = EndStream::from_last(index == last && trailers.is_none());
                        let mut data = BodyBuf::from(chunk);
                        go!(half.on_data(cx, &mut data, end).resolve().await);
                        out.extend(data.chunks().cloned());
                    }
                }
                HeadFlow::Skip => (skip, out) = (true, chunks),
                HeadFlow::Reply(reply) => return Outcome::Replied(reply),
                HeadFlow::Buffer { limit } => {
                    let mut body = BodyBuf::new();
                    for chunk in chunks {
                        body.push(chunk);
                        if body.len() > limit {
                            let reply = LocalReply::new(StatusCode::$status, $body, details::$details);
                            return Outcome::Replied(Box::new(reply));
                        }
                    }
                    go!(half.on_buffered(cx, &mut head, &mut body).resolve().await);
                    out.extend(body.chunks().cloned());
                }
            }
            if let (false, Some(trailers)) = (skip, &mut trailers) {
                go!(half.on_trailers(cx, trailers).resolve().await);
            }
            Outcome::Forwarded(Message { head, chunks: out, trailers })
        }
    };
}

walk!(request, RequestFilter, RequestHead, PAYLOAD_TOO_LARGE, "Payload Too Large", REQUEST_PAYLOAD_TOO_LARGE);
walk!(
    response,
    ResponseFilter,
    ResponseHead,
    INTERNAL_SERVER_ERROR,
    "Internal Server Error",
    RESPONSE_PAYLOAD_TOO_LARGE
);
