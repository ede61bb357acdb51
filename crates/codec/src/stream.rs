//! One request and its response, the same for every HTTP version.
//!
//! Sending never blocks: `send_*` serialise into the stream's output buffer (large body chunks are
//! kept by reference) and `poll_flush` writes. A well-behaved caller flushes before it sends more than
//! its buffer limit, so that memory per stream stays bounded: nothing is read that cannot be written on.

use std::borrow::Cow;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

/// A part of a message after its head.
#[derive(Debug)]
pub enum BodyFrame {
    /// Body bytes, never empty unless they end the message.
    Data(Bytes, EndStream),
    /// Trailers, which end the message.
    Trailers(HeaderMap),
}

/// What a client stream receives before the body.
#[derive(Debug)]
pub enum ResponseFrame {
    /// A 1xx head other than 101; the final head is still to come.
    Informational(ResponseHead),
    /// The final head.
    Head(ResponseHead, EndStream),
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer closed its connection (FIN) where more was due.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer's connection ended inside a message (RFC 9112 §8).
    #[error("connection ended inside a message")]
    Truncated,
    /// The connection broke.
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The peer broke the protocol; `details` is Envoy's `%RESPONSE_CODE_DETAILS%` value.
    #[error("protocol error: {details}")]
    Protocol {
        /// For instance `http1.codec_error`.
        details: &'static str,
    },
    /// The stream alone was ended, on a version that multiplexes: by the peer, or by us.
    /// [`ResetCode::Refused`] is the proof that the request was not processed (RFC 9113 §8.7).
    #[error("stream reset: {code:?}")]
    Reset {
        /// Why.
        code: ResetCode,
        /// Whether the peer said so.
        by_peer: bool,
    },
}

/// Why a stream was reset: the error codes that mean something above the codec (RFC 9113 §7; HTTP/3 has
/// the same under other numbers, RFC 9114 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// Nothing is wrong: the response is complete and the rest of the request is not needed.
    NoError,
    /// The peer broke the protocol.
    Protocol,
    /// The sender of the reset failed.
    Internal,
    /// The request was not processed at all: it may be sent again, whatever its method.
    Refused,
    /// Nobody wants the exchange any more.
    Cancel,
    /// The connection of a `CONNECT` broke.
    Connect,
    /// The peer asks for too much.
    EnhanceYourCalm,
    /// The request is to be sent over HTTP/1.1.
    Http11Required,
    /// Any other code, as it stood in the frame.
    Other(u32),
}

/// How a client ended an exchange, and not its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// By a reset.
    Reset(ResetCode),
    /// By what it sent behind the head (RFC 9113 §8.1.1).
    Malformed {
        /// `%RESPONSE_CODE_DETAILS%`.
        details: &'static str,
        /// Whether that broke the protocol; else it exceeded a limit of ours.
        is_violation: bool,
    },
}

/// Why there is no request to serve.
#[derive(Debug)]
pub enum HeadError {
    /// The client went away: there is nobody to answer. `partial` if some bytes of a head had come.
    Gone {
        /// Whether a request had begun.
        partial: bool,
    },
    /// What came is no request that could be answered: its stream was reset (RFC 9113 §8.1.1), and maybe its
    /// connection ends.
    Malformed {
        /// `%RESPONSE_CODE_DETAILS%`.
        details: &'static str,
        /// Whether the client broke the protocol; else it exceeded a limit of ours.
        is_violation: bool,
    },
    /// The request is refused with this status and closes the connection (RFC 9112 §2.2, §9.6).
    Refused {
        /// The status to answer.
        status: StatusCode,
        /// The body to answer.
        body: &'static str,
        /// `%RESPONSE_CODE_DETAILS%`.
        details: Cow<'static, str>,
        /// What of the head could be read, for access logs and counters.
        head: Option<Box<RequestHead>>,
    },
}

/// One exchange, served.
pub trait ServerStream {
    /// Reads the request's head. Boxed: it is handed on a dozen times and large to move.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Box<RequestHead>, EndStream), HeadError>>;

    /// Reads the next part of the request after its head. Must not be called again after the end.
    /// Answers `Expect: 100-continue` first, unless a final response was begun or told otherwise.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>>;

    /// Ready when the client is gone. To be polled while the response is awaited; bytes of a
    /// pipelined request are kept, up to a bound.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// How the client ended the exchange, once [`ServerStream::poll_gone`], a read or a write has found that it
    /// did; `None` when its connection is gone.
    fn ended_by_client(&self) -> Option<ClientEnd> {
        None
    }

    /// Bytes of the request's body that came and nobody has read.
    fn unread(&self) -> u64 {
        0
    }

    /// Whether the client waits for 100 (Continue) that nobody has sent yet and that is not the upstream's
    /// to send (RFC 9110 §10.1.1).
    fn expects_continue(&self) -> bool;

    /// Whether the request came in early data of a handshake that is not over yet (RFC 8470): somebody else may
    /// have recorded and sent it again.
    fn is_early(&self) -> bool {
        false
    }

    /// Ready when that handshake is over, which proves the request to be no replay, or the client gone.
    fn poll_confirmed(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// The response is near: asks for the memory that it will touch, where that is not the stream's own.
    fn fetch(&self) {}

    /// Serialises a 1xx head other than 101.
    fn send_informational(&mut self, head: &ResponseHead);

    /// The response will announce that the connection closes after it; on versions that multiplex, the
    /// connection drains.
    fn announce_close(&mut self);

    /// Serialises the final head. The codec adds framing fields (`content-length`, `transfer-encoding`) and
    /// `connection` as its version needs.
    fn send_head(&mut self, head: &ResponseHead, end: EndStream);

    /// Appends body bytes.
    fn send_data(&mut self, data: Bytes, end: EndStream);

    /// Appends trailers, which end the response; dropped where the version or the settings have none.
    fn send_trailers(&mut self, trailers: &HeaderMap);

    /// Writes what was sent; ready when nothing is left in the stream's buffer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Whether what [`ServerStream::poll_flush`] waits for is the client, which takes nothing more: on versions that
    /// multiplex, a stream also waits for its turn.
    fn is_held_back(&self) -> bool {
        true
    }

    /// Bytes sent and not yet written.
    fn buffered(&self) -> usize;

    /// Ends the exchange where it stands: the rest of the request is not read, the response, if begun, is
    /// visibly incomplete. Versions that multiplex say NO_ERROR if the response was complete, INTERNAL_ERROR
    /// if it was cut.
    fn reset(&mut self);

    /// [`ServerStream::reset`] with a code, where the version has codes.
    fn reset_with(&mut self, _code: ResetCode) {
        self.reset();
    }
}

/// One exchange, asked.
pub trait ClientStream {
    /// Serialises the request's head; `host` comes from [`RequestHead::authority`].
    fn send_head(&mut self, head: &RequestHead, end: EndStream);

    /// Appends body bytes.
    fn send_data(&mut self, data: Bytes, end: EndStream);

    /// Appends trailers, which end the request; dropped where the version or the settings have none.
    fn send_trailers(&mut self, trailers: &HeaderMap);

    /// Writes what was sent; ready when nothing is left in the stream's buffer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// [`ServerStream::is_held_back`], by the upstream.
    fn is_held_back(&self) -> bool {
        true
    }

    /// Bytes sent and not yet written.
    fn buffered(&self) -> usize;

    /// Whether nothing of this exchange's request has been handed to the socket: the proof that the upstream
    /// has not processed it, however the exchange failed.
    fn is_unwritten(&self) -> bool;

    /// What the transport has to say about a failure, for `%RESPONSE_CODE_DETAILS%` and
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; nothing on most versions.
    fn failure_details(&self) -> Option<String> {
        None
    }

    /// Reads a response head: informational ones first, then the final one. 101 is final.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, StreamError>>;

    /// Reads the next part of the response after its head. Must not be called again after the end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>>;

    /// Cancels the exchange (CANCEL, on versions that multiplex).
    fn reset(&mut self);

    /// [`ClientStream::reset`] with a code, where the version has codes.
    fn reset_with(&mut self, _code: ResetCode) {
        self.reset();
    }
}
