//! The request streams of a connection: a slab, whose places are used again with their memory, and an index by id.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tidegate_quic::StreamId;
use tokio::time::Instant;

use super::codes::INVALID;
use super::frames::FrameHead;
use crate::fields::{Asked, ContentLength, Received, Verdict};
use crate::multiplex::Waiter;
use crate::stream::{ResetCode, ResponseFrame, StreamError};

/// A stream's place in the slab.
pub(crate) type Key = usize;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// None while a client's stream waits for room.
    pub(crate) id: Option<StreamId>,
    /// Whether somebody holds it, or is to be given it.
    pub(crate) owner: Owner,
    /// When a client opened it.
    pub(crate) opened: Option<Instant>,
    /// Whether it came before the handshake was over.
    pub(crate) is_early: bool,
    /// How it ended before its time.
    pub(crate) failed: Option<Failure>,
    /// By which code of Envoy's, and whose.
    pub(crate) why: Option<(&'static str, Origin)>,
    pub(crate) rx: Receiving,
    pub(crate) tx: Sending,
    pub(crate) reader: Waiter,
    pub(crate) writer: Waiter,
}

/// Who ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Us,
    Peer,
}

/// Who takes care of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: the place is free.
    Free,
    /// The connection: nothing came in it yet, or the rest of a complete response is not out.
    Connection,
    /// An exchange, or the queue of those to be accepted.
    Exchange,
}

/// What comes. A body stays in the transport until it is asked for.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) phase: Phase,
    pub(crate) part: Part,
    /// Read and not yet looked at.
    pub(crate) input: Bytes,
    /// A frame's head, or a section, that has not come to its end.
    pub(crate) partial: BytesMut,
    /// The transport has told the stream's end.
    pub(crate) fin: bool,
    /// It has told a reset, which it does once, while something before that was looked for.
    pub(crate) reset: Option<u64>,
    pub(crate) left: ContentLength,
    /// Frames without content, in a row.
    pub(crate) empty: u32,
    /// A request that nobody took.
    pub(crate) request: Option<Received>,
    /// Why the request is none.
    pub(crate) refused: Option<Verdict>,
    /// Of a client: what it asked, and the heads that nobody took.
    pub(crate) asked: Asked,
    pub(crate) responses: VecDeque<ResponseFrame>,
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// How far the message is that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its (final) head is awaited.
    Head,
    Body,
    /// Trailers came; nothing may follow.
    Trailers,
    /// All of it was handed on, or there is no more than the head.
    Ended,
}

/// Where in a frame the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A frame's head is awaited.
    Between,
    /// So many bytes of a section are.
    Section(usize),
    /// So many bytes of DATA are.
    Data(u64),
    /// So many bytes of a frame that means nothing to us are.
    Skip(u64),
}

/// What goes.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) phase: SendPhase,
    /// Frames that the transport has not taken, the heads of DATA frames apart from what they hold.
    pub(crate) queue: VecDeque<Bytes>,
    /// Bytes of `queue`.
    pub(crate) buffered: usize,
    /// Whether the stream stands in the line of those that have something to send.
    pub(crate) in_line: bool,
    /// The transport has taken something.
    pub(crate) is_written: bool,
    /// A server wanted no more of the request, and may answer all the same.
    pub(crate) is_cut: bool,
}

/// How far the message is that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendPhase {
    /// Its (final) head is awaited.
    Head,
    Body,
    /// All of it is here.
    Ended,
    /// The transport has all of it, or wants no more.
    Done,
}

/// How a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Reset {
        code: ResetCode,
        by_peer: bool,
    },
    /// The peer broke a rule in this stream, or a limit; `%RESPONSE_CODE_DETAILS%`.
    Protocol(&'static str),
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
        matches!(self, Self::Protocol(_) | Self::Violation)
    }

    pub(crate) fn to_error(self) -> StreamError {
        match self {
            Self::Reset { code, by_peer } => StreamError::Reset { code, by_peer },
            Self::Protocol(details) => StreamError::Protocol { details },
            Self::Violation => StreamError::Protocol { details: INVALID },
            Self::Closed => StreamError::Closed,
            Self::Io(kind) => StreamError::Io(kind.into()),
        }
    }
}

impl Receiving {
    /// The head of the next frame, if enough came.
    #[inline]
    pub(crate) fn next_head(&mut self) -> Option<FrameHead> {
        FrameHead::take(&mut self.partial, &mut self.input)
    }

    /// Nothing more is read.
    fn clear(&mut self) {
        self.input = Bytes::new();
        self.partial = BytesMut::new();
        self.trailers = None;
    }

    /// Whether the end was told and nothing is left before it.
    pub(crate) fn is_at_end(&self) -> bool {
        self.fin && self.input.is_empty() && self.part == Part::Between && self.partial.is_empty()
    }
}

impl Sending {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.buffered += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Forgets what was not sent.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queue.shrink_to(KEPT);
        self.buffered = 0;
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            id: None,
            owner: Owner::Free,
            opened: None,
            is_early: false,
            failed: None,
            why: None,
            rx: Receiving {
                phase: Phase::Head,
                part: Part::Between,
                input: Bytes::new(),
                partial: BytesMut::new(),
                fin: false,
                reset: None,
                left: ContentLength::Any,
                empty: 0,
                request: None,
                refused: None,
                asked: Asked::Ordinary,
                responses: VecDeque::new(),
                trailers: None,
            },
            tx: Sending {
                phase: SendPhase::Head,
                queue: VecDeque::new(),
                buffered: 0,
                in_line: false,
                is_written: false,
                is_cut: false,
            },
            reader: Waiter::default(),
            writer: Waiter::default(),
        }
    }

    /// Whether both directions have ended, or the stream failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.failed.is_some() || self.rx.phase == Phase::Ended && self.tx.phase == SendPhase::Done
    }

    /// Wakes whoever waits for anything.
    pub(crate) fn wake(&mut self) {
        self.reader.wake();
        self.writer.wake();
    }

    /// The stream failed: nothing more is sent or read.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failed = Some(failure);
        self.tx.clear();
        self.rx.clear();
        if !failure.is_by_content() {
            self.rx.request = None;
        }
        self.wake();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    places: Vec<Stream>,
    free: Vec<Key>,
    /// By id; ascending, since ids are given out in that order.
    index: VecDeque<(StreamId, Key)>,
}

impl Streams {
    /// A fresh stream without an owner.
    pub(crate) fn insert(&mut self) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            if self.places.is_empty() {
                // Most connections that were opened a moment ago have one stream.
                self.places.reserve_exact(1);
            }
            self.places.push(Stream::new());
            self.places.len() - 1
        });
        if let Some(stream) = self.places.get_mut(key) {
            stream.owner = Owner::Connection;
        }
        key
    }

    /// The stream gets its id: higher than all before.
    pub(crate) fn name(&mut self, key: Key, id: StreamId) {
        if let Some(stream) = self.places.get_mut(key) {
            stream.id = Some(id);
            self.index.push_back((id, key));
        }
    }

    /// Streams that have an id.
    pub(crate) fn named(&self) -> usize {
        self.index.len()
    }

    #[inline]
    pub(crate) fn find(&self, id: StreamId) -> Option<Key> {
        match self.index.back() {
            Some(last) if last.0 == id => Some(last.1),
            _ => {
                let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
                self.index.get(at).map(|entry| entry.1)
            }
        }
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
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        self.places.iter_mut().enumerate().filter(|(_, stream)| stream.owner != Owner::Free)
    }

    /// The ids are void, and are given out again.
    pub(crate) fn forget_ids(&mut self) {
        self.index.clear();
        for stream in &mut self.places {
            stream.id = None;
        }
    }

    /// The stream is no more.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(stream) = self.places.get_mut(key).filter(|stream| stream.owner != Owner::Free) else {
            return;
        };
        let id = stream.id;
        let mut fresh = Stream::new();
        // Room for what every stream has: wakers, and the queues.
        stream.tx.clear();
        stream.rx.responses.clear();
        std::mem::swap(&mut fresh.tx.queue, &mut stream.tx.queue);
        std::mem::swap(&mut fresh.rx.responses, &mut stream.rx.responses);
        stream.reader.forget();
        stream.writer.forget();
        std::mem::swap(&mut fresh.reader, &mut stream.reader);
        std::mem::swap(&mut fresh.writer, &mut stream.writer);
        *stream = fresh;
        if let Some(id) = id {
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

    /// Gives the places back, all but `kept`, if none is in use.
    pub(crate) fn shrink(&mut self, kept: usize) {
        if self.free.len() == self.places.len() && self.places.len() > kept {
            *self = Self::default();
        }
    }
}

/// Places that a connection between two exchanges keeps, and parts that a place keeps room for.
pub(crate) const KEPT: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tidegate_quic::{Dir, Side};

    use super::*;

    fn id(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, index)
    }

    #[test]
    fn places_are_used_again_and_ids_found() {
        let mut streams = Streams::default();
        let keys: Vec<_> = (0..10)
            .map(|n| {
                let key = streams.insert();
                streams.name(key, id(2 * n));
                key
            })
            .collect();
        assert_eq!(
            (streams.find(id(6)), streams.find(id(7)), streams.find(id(20))),
            (Some(keys[3]), None, None)
        );
        streams.remove(keys[3]);
        assert_eq!((streams.find(id(6)), streams.find(id(8)), streams.named()), (None, Some(keys[4]), 9));
        let again = streams.insert();
        assert_eq!(again, keys[3]);
        streams.name(again, id(100));
        assert_eq!(streams.find(id(100)), Some(again));
        for (key, _) in streams.iter_mut().map(|(key, stream)| (key, stream.id)).collect::<Vec<_>>() {
            streams.remove(key);
        }
        assert_eq!(streams.places.len(), 10, "kept for the next ones");
        streams.shrink(10);
        assert_eq!(streams.places.len(), 10);
        streams.shrink(KEPT);
        assert_eq!((streams.places.capacity(), streams.find(id(100))), (0, None));
    }
}
