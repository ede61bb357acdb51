//! The streams of a connection: a slab, whose places are used again with their memory, and an index by number.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tidegate_types::EndStream;
use tokio::time::Instant;

use super::codes::MESSAGING_RULE;
use super::flow::RecvWindow;
use crate::fields::Asked;
use crate::fields::{ContentLength, Received, Verdict};
use crate::multiplex::Waiter;
use crate::stream::{BodyFrame, ResetCode, ResponseFrame, StreamError};

/// A stream's place in the slab.
pub(crate) type Key = usize;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// 0 while a client's stream waits for room.
    pub(crate) id: u32,
    /// Whether it counts against the limit of open streams (RFC 9113 §5.1.2).
    pub(crate) is_open: bool,
    /// Whether somebody holds it, or is to be given it.
    pub(crate) owner: Owner,
    /// When a client opened it.
    pub(crate) opened: Option<Instant>,
    /// How it ended before its time.
    pub(crate) failed: Option<Failure>,
    pub(crate) rx: Receiving,
    pub(crate) tx: Sending,
    pub(crate) reader: Waiter,
    pub(crate) writer: Waiter,
}

/// Who takes care of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: the place is free.
    Free,
    /// An exchange, or the queue of those to be accepted.
    Exchange,
    /// The connection, until the rest of a complete response is out.
    Connection,
}

/// What comes.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) phase: Phase,
    pub(crate) window: RecvWindow,
    pub(crate) left: ContentLength,
    /// A request that nobody took.
    pub(crate) request: Option<Received>,
    /// Why the request is none.
    pub(crate) refused: Option<Verdict>,
    /// Of a client: what it asked, and the heads that nobody took.
    pub(crate) asked: Asked,
    pub(crate) responses: VecDeque<ResponseFrame>,
    body: VecDeque<Bytes>,
    /// Small parts behind `body`, put together: a part costs what it holds.
    tail: BytesMut,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// Bytes handed on, whose window is still held.
    pub(crate) held: usize,
    /// Bytes that were dropped unread.
    pub(crate) dropped: usize,
}

/// How far the message is that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its (final) head is awaited.
    Head,
    Body,
    /// END_STREAM came.
    Ended,
}

/// What goes.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) phase: SendPhase,
    /// Negative after the peer made windows smaller (RFC 9113 §6.9.2).
    pub(crate) window: i64,
    /// Waits for window, or for the socket.
    pub(crate) body: VecDeque<Bytes>,
    /// Bytes of `body`.
    pub(crate) buffered: usize,
    pub(crate) trailers: Option<BytesMut>,
    /// Whether the stream stands in the line of those that can send.
    pub(crate) in_line: bool,
    /// A client's head that waits for room, and whether it is all.
    pub(crate) head: Option<BytesMut>,
    /// Bytes written to the connection before the stream's head.
    pub(crate) head_at: u64,
}

/// How far the message is that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendPhase {
    /// Its (final) head is awaited.
    Head,
    Body,
    /// All of it is here.
    Ended,
    /// END_STREAM is in the connection's output.
    Done,
}

/// How a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Reset {
        code: ResetCode,
        by_peer: bool,
    },
    /// The peer broke a rule in this stream; `%RESPONSE_CODE_DETAILS%`.
    Protocol(&'static str),
    /// What the peer sent in this stream is over a limit; `%RESPONSE_CODE_DETAILS%`.
    Unwanted(&'static str),
    /// The peer broke a rule elsewhere, and its connection ended.
    Violation,
    /// The peer closed the connection.
    Closed,
    /// The connection broke.
    Io(std::io::ErrorKind),
}

impl Failure {
    /// Whether the peer ended it by what it sent, and not because it lost interest: what came before is still
    /// looked at, as by a proxy that handles frame by frame.
    pub(crate) fn is_by_content(self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Unwanted(_) | Self::Violation)
    }

    pub(crate) fn to_error(self) -> StreamError {
        match self {
            Self::Reset { code, by_peer } => StreamError::Reset { code, by_peer },
            Self::Protocol(details) => StreamError::Protocol { details },
            // Not the protocol's fault: as if the peer had given up, in Envoy's view.
            Self::Unwanted(_) => StreamError::Reset { code: ResetCode::Internal, by_peer: true },
            Self::Violation => StreamError::Protocol { details: MESSAGING_RULE },
            Self::Closed => StreamError::Closed,
            Self::Io(kind) => StreamError::Io(kind.into()),
        }
    }
}

impl Receiving {
    /// DATA came.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() > MAX_JOINED || self.body.is_empty() && self.tail.is_empty() {
            if !self.tail.is_empty() {
                self.body.push_back(std::mem::take(&mut self.tail).freeze());
            }
            self.body.push_back(data);
        } else {
            self.tail.extend_from_slice(&data);
            if self.tail.len() > TAIL {
                self.body.push_back(std::mem::take(&mut self.tail).freeze());
            }
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Bytes> {
        match self.body.pop_front() {
            None if self.tail.is_empty() => None,
            None => Some(std::mem::take(&mut self.tail).freeze()),
            data => data,
        }
    }

    /// Whether nothing is left to be read.
    pub(crate) fn is_drained(&self) -> bool {
        self.phase == Phase::Ended && !self.has_body()
    }

    pub(crate) fn has_body(&self) -> bool {
        !self.body.is_empty() || !self.tail.is_empty() || self.trailers.is_some()
    }

    /// The next part of the body, if there is one.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<BodyFrame> {
        if let Some(data) = self.pop() {
            self.held = data.len();
            let last = self.phase == Phase::Ended && !self.has_body();
            return Some(BodyFrame::Data(data, EndStream::from_last(last)));
        }
        if let Some(trailers) = self.trailers.take() {
            return Some(BodyFrame::Trailers(*trailers));
        }
        (self.phase == Phase::Ended).then(|| BodyFrame::Data(Bytes::new(), EndStream::Yes))
    }

    /// Bytes that nobody took, and nobody will any more.
    pub(crate) fn unread(&self) -> usize {
        self.dropped + self.waiting()
    }

    fn waiting(&self) -> usize {
        self.body.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Forgets what nobody took: bytes whose window is to be given back.
    pub(crate) fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        self.dropped += waiting;
        let all = std::mem::take(&mut self.held) + waiting;
        forget(&mut self.body);
        self.tail = BytesMut::new();
        self.trailers = None;
        all
    }
}

/// Empties a queue. Of most streams it never held anything, and costs no call.
#[inline]
fn forget(parts: &mut VecDeque<Bytes>) {
    if parts.capacity() > 0 {
        parts.clear();
        parts.shrink_to(KEPT);
    }
}

impl Sending {
    /// Forgets what was not sent.
    pub(crate) fn clear(&mut self) {
        forget(&mut self.body);
        self.buffered = 0;
        self.trailers = None;
        self.head = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_empty() && self.trailers.is_none()
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            id: 0,
            is_open: false,
            owner: Owner::Free,
            opened: None,
            failed: None,
            rx: Receiving {
                phase: Phase::Head,
                window: RecvWindow::new(0),
                left: ContentLength::Any,
                request: None,
                refused: None,
                asked: Asked::Ordinary,
                responses: VecDeque::new(),
                body: VecDeque::new(),
                tail: BytesMut::new(),
                trailers: None,
                held: 0,
                dropped: 0,
            },
            tx: Sending {
                phase: SendPhase::Head,
                window: 0,
                body: VecDeque::new(),
                buffered: 0,
                trailers: None,
                in_line: false,
                head: None,
                head_at: 0,
            },
            reader: Waiter::default(),
            writer: Waiter::default(),
        }
    }

    /// Whether both directions have ended, or the stream was reset (RFC 9113 §5.1).
    pub(crate) fn is_closed(&self) -> bool {
        self.failed.is_some() || self.rx.phase == Phase::Ended && self.tx.phase == SendPhase::Done
    }

    /// Wakes whoever waits for anything.
    pub(crate) fn wake(&mut self) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    places: Vec<Stream>,
    free: Vec<Key>,
    /// By number; ascending, since numbers are given out in that order.
    index: VecDeque<(u32, Key)>,
    /// The stream that the last frame was for: the next is often for the same.
    recent: (u32, Key),
}

impl Streams {
    /// A fresh stream, for an exchange.
    pub(crate) fn insert(&mut self, recv_window: u32, send_window: u32) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.places.push(Stream::new());
            self.places.len() - 1
        });
        if let Some(stream) = self.places.get_mut(key) {
            stream.owner = Owner::Exchange;
            stream.rx.window = RecvWindow::new(recv_window);
            stream.tx.window = i64::from(send_window);
        }
        key
    }

    /// The stream gets its number: higher than all before.
    pub(crate) fn name(&mut self, key: Key, id: u32) {
        if let Some(stream) = self.places.get_mut(key) {
            stream.id = id;
            self.index.push_back((id, key));
            // Its head is what is looked at next.
            self.recent = (id, key);
        }
    }

    #[inline]
    pub(crate) fn find(&mut self, id: u32) -> Option<Key> {
        if self.recent.0 == id {
            return Some(self.recent.1);
        }
        if self.index.back().is_none_or(|last| last.0 < id) {
            return None;
        }
        let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
        self.recent = *self.index.get(at)?;
        Some(self.recent.1)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&Stream> {
        self.places.get(key)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.places.get_mut(key)
    }

    /// All that live.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.places.iter().filter(|stream| stream.owner != Owner::Free)
    }

    /// As `iter`.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        self.places.iter_mut().enumerate().filter(|(_, stream)| stream.owner != Owner::Free)
    }

    /// The stream is no more.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(stream) = self.places.get_mut(key).filter(|stream| stream.owner != Owner::Free) else {
            return;
        };
        let id = stream.id;
        stream.rx.clear();
        stream.rx.dropped = 0;
        stream.tx.clear();
        (stream.rx.request, stream.rx.refused) = (None, None);
        stream.rx.responses.clear();
        stream.id = 0;
        stream.is_open = false;
        stream.owner = Owner::Free;
        stream.failed = None;
        (stream.rx.phase, stream.rx.left) = (Phase::Head, ContentLength::Any);
        (stream.tx.phase, stream.tx.in_line, stream.tx.head_at) = (SendPhase::Head, false, 0);
        stream.reader.forget();
        stream.writer.forget();
        if id != 0 {
            self.recent = (0, 0);
            match self.index.front() {
                Some(first) if first.0 == id => drop(self.index.pop_front()),
                _ => {
                    if let Ok(at) = self.index.binary_search_by_key(&id, |entry| entry.0) {
                        self.index.remove(at);
                    }
                }
            }
        }
        self.free.push(key);
    }

    /// Gives the places back, all but a few, if none is in use.
    pub(crate) fn shrink(&mut self) {
        if self.free.len() == self.places.len() && self.places.len() > KEPT {
            *self = Self::default();
        }
    }
}

/// Parts up to this size are put together with others that wait: each costs 32 bytes beside its own.
const MAX_JOINED: usize = 1024;

/// Bytes of small parts put together.
const TAIL: usize = 16 * 1024;

/// Places that an idle connection keeps, and parts that a place keeps room for.
const KEPT: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn places_are_used_again_and_numbers_found() {
        let mut streams = Streams::default();
        let keys: Vec<_> = (0..10)
            .map(|n| {
                let key = streams.insert(10, 10);
                streams.name(key, 2 * n + 1);
                key
            })
            .collect();
        assert_eq!((streams.find(7), streams.find(8), streams.find(21)), (Some(keys[3]), None, None));
        streams.remove(keys[3]);
        assert_eq!((streams.find(7), streams.find(9)), (None, Some(keys[4])));
        let again = streams.insert(10, 10);
        assert_eq!(again, keys[3]);
        streams.name(again, 101);
        assert_eq!(streams.find(101), Some(again));
        for (key, _) in streams.iter_mut().map(|(key, stream)| (key, stream.id)).collect::<Vec<_>>() {
            streams.remove(key);
        }
        assert_eq!(streams.places.len(), 10, "kept for the next ones");
        streams.shrink();
        assert_eq!((streams.places.capacity(), streams.find(101)), (0, None));
    }

    #[test]
    fn small_parts_are_put_together() {
        let mut streams = Streams::default();
        let key = streams.insert(10, 10);
        let rx = &mut streams.get_mut(key).unwrap().rx;
        for _ in 0..10_000 {
            rx.push(Bytes::from_static(b"x"));
        }
        rx.push(Bytes::from(vec![b'y'; 2000]));
        rx.phase = Phase::Ended;
        assert!(rx.body.len() <= 4, "{}", rx.body.len());
        let mut all = 0;
        loop {
            let Some(BodyFrame::Data(data, end)) = rx.next() else { panic!("no part") };
            all += data.len();
            assert_eq!(rx.is_drained(), end.is_end());
            if end.is_end() {
                break;
            }
        }
        assert_eq!(all, 12_000);
    }
}
