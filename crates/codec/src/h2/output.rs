//! What goes: heads, DATA in turn and within the windows, and the small frames.
//!
//! Everything is put into one output for the connection, which its task writes. DATA is put there at once
//! while the output is short, so that a response is one write; beyond that the streams stand in line and each
//! sends a frame in its turn.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use super::conn::{Core, Role};
use super::frames::{self, END_HEADERS, END_STREAM, FrameHead, MAX_FRAME, MAX_WINDOW, STREAM_MASK, kind};
use super::streams::{Failure, Key, Owner, Phase, SendPhase};
use crate::fields::Asked;
use crate::fields::{Unsendable, WriteFields, write_request, write_response, write_trailers};
use crate::hpack;
use crate::multiplex::Flood;
use crate::multiplex::{ConnError, Event};
use crate::stream::ResetCode;

/// What a stream's turn came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A frame went, and more is there.
    Again,
    /// Nothing is left.
    Drained,
    /// The stream's window is used up.
    Closed,
    /// The connection's window is used up.
    Waits,
}

impl Core {
    /// Puts a small frame.
    pub(crate) fn put(&mut self, frame: &[u8]) {
        self.tx.frames += 1;
        self.wire.output.text(frame.len()).extend_from_slice(frame);
    }

    /// Puts the answer to a frame of the peer: too many that it does not take are a flood.
    pub(crate) fn answer(&mut self, frame: &[u8]) -> Result<(), ConnError> {
        self.put(frame);
        self.count_answer()
    }

    /// The last frame was an answer.
    pub(crate) fn count_answer(&mut self) -> Result<(), ConnError> {
        self.tx.control += 1;
        self.tx.control_until = self.wire.tx + self.wire.output.len() as u64;
        self.check_outbound()
    }

    /// Whether too much waits for a peer that does not take it.
    pub(crate) fn check_outbound(&self) -> Result<(), ConnError> {
        let limits = &self.side.common().floods;
        let flood = if self.tx.control > limits.max_outbound_control_frames {
            Flood::OutboundControl
        } else if self.tx.frames > limits.max_outbound_frames {
            Flood::Outbound
        } else {
            return Ok(());
        };
        self.count(Event::Flood(flood));
        Err(ConnError::Flood(flood))
    }

    /// Writes until nothing is left that can go.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.fill_output();
            if self.wire.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let flushed = self.wire.poll_flush(cx);
            if self.wire.tx >= self.tx.control_until {
                self.tx.control = 0;
            }
            if flushed.is_pending() {
                // A little may have gone: those who wait for room may go on.
                self.fill_output();
            }
            ready!(flushed)?;
            self.tx.frames = 0;
        }
    }

    fn has_room(&self) -> bool {
        self.wire.output.len() < FULL
            && self.tx.frames < (self.side.common().floods.max_outbound_frames / 2).max(1)
    }

    /// Each stream in line sends a frame in its turn.
    fn fill_output(&mut self) {
        let mut vain = 0;
        while vain < self.tx.line.len() && self.has_room() {
            let Some(key) = self.tx.line.pop_front() else { return };
            if !self.streams.get(key).is_some_and(|stream| stream.tx.in_line) {
                continue;
            }
            match self.take_turn(key) {
                Turn::Again => vain = 0,
                Turn::Waits => vain += 1,
                Turn::Drained | Turn::Closed => {
                    self.leave_line(key);
                    continue;
                }
            }
            self.tx.line.push_back(key);
        }
    }

    fn leave_line(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.tx.in_line = false;
        }
    }

    /// Whether the stream has something to send and no window for it (RFC 9113 §5.2).
    pub(crate) fn is_held_back(&self, key: Key) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        !stream.tx.body.is_empty() && stream.tx.window.min(self.tx.window) <= 0
    }

    /// The stream has something to send, or may send again.
    pub(crate) fn enter_line(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let ready = !stream.tx.is_empty() || stream.tx.phase == SendPhase::Ended;
        if ready && !stream.tx.in_line && stream.id != 0 && stream.failed.is_none() {
            stream.tx.in_line = true;
            self.tx.line.push_back(key);
        }
    }

    /// Puts one frame of a stream.
    fn take_turn(&mut self, key: Key) -> Turn {
        let Some(stream) = self.streams.get_mut(key) else { return Turn::Drained };
        let (id, tx) = (stream.id, &mut stream.tx);
        if let Some(data) = tx.body.front_mut() {
            if tx.window <= 0 {
                return Turn::Closed;
            }
            let room = tx.window.min(self.tx.window).min(MAX_FRAME as i64);
            if room <= 0 {
                return Turn::Waits;
            }
            let len = data.len().min(room as usize);
            let part = data.split_to(len);
            if data.is_empty() {
                tx.body.pop_front();
            }
            tx.window -= len as i64;
            self.tx.window -= len as i64;
            tx.buffered -= len;
            let last = tx.phase == SendPhase::Ended && tx.is_empty();
            self.put_data(id, part, last);
            if last {
                self.finish(key);
                return Turn::Drained;
            }
        } else if let Some(trailers) = tx.trailers.take() {
            self.put_encoded(id, EndStream::Yes, &trailers);
            self.finish(key);
            return Turn::Drained;
        } else if tx.phase == SendPhase::Ended {
            self.put_data(id, Bytes::new(), true);
            self.finish(key);
            return Turn::Drained;
        }
        match self.streams.get_mut(key) {
            Some(stream) if !stream.tx.is_empty() => Turn::Again,
            Some(stream) => {
                stream.writer.wake();
                Turn::Drained
            }
            None => Turn::Drained,
        }
    }

    fn put_data(&mut self, stream: u32, data: Bytes, last: bool) {
        let flags = if last { END_STREAM } else { 0 };
        let head = FrameHead { kind: kind::DATA, flags, stream, len: data.len() };
        self.wire.output.text(FrameHead::LEN + data.len().min(COPIED)).extend_from_slice(&head.to_bytes());
        self.wire.output.push(data);
        self.tx.frames += 1;
        self.rx.floods.on_data_sent();
    }

    /// Puts a head or trailers, in as many frames as it takes (RFC 9113 §4.3).
    pub(crate) fn put_block(
        &mut self,
        stream: u32,
        end: EndStream,
        encode: impl FnOnce(&mut hpack::Encoder, &mut BytesMut) -> Result<(), Unsendable>,
    ) -> Result<(), Unsendable> {
        let out = self.wire.output.text(HEAD_ROOM);
        let at = out.len();
        let mut head = FrameHead { kind: kind::HEADERS, flags: END_HEADERS, stream, len: 0 };
        if end.is_end() {
            head.flags |= END_STREAM;
        }
        out.extend_from_slice(&head.to_bytes());
        if let Err(unsendable) = encode(&mut self.tx.encoder, out) {
            out.truncate(at);
            return Err(unsendable);
        }
        head.len = out.len() - at - FrameHead::LEN;
        self.tx.frames += 1;
        if head.len <= MAX_FRAME {
            if let Some(place) = out.get_mut(at..at + FrameHead::LEN) {
                place.copy_from_slice(&head.to_bytes());
            }
            return Ok(());
        }
        let block = out.split_off(at + FrameHead::LEN);
        out.truncate(at);
        let mut parts = block.chunks(MAX_FRAME).peekable();
        head.flags &= !END_HEADERS;
        while let Some(part) = parts.next() {
            head.len = part.len();
            if parts.peek().is_none() {
                head.flags |= END_HEADERS;
            }
            out.extend_from_slice(&head.to_bytes());
            out.extend_from_slice(part);
            (head.kind, head.flags) = (kind::CONTINUATION, 0);
        }
        Ok(())
    }

    /// Puts a block that had to wait, of an encoder of its own.
    fn put_encoded(&mut self, stream: u32, end: EndStream, block: &[u8]) {
        // Cannot fail.
        let _ = self.put_block(stream, end, |encoder, out| {
            encoder.begin(out);
            out.extend_from_slice(block);
            Ok(())
        });
    }

    /// Sends a response's head, final or informational; a body may follow a final one.
    pub(crate) fn send_response(&mut self, key: Key, head: &ResponseHead, asked: &Asked, end: EndStream) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.failed.is_some() || stream.tx.phase != SendPhase::Head {
            return;
        }
        let id = stream.id;
        let is_final = !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_final {
            stream.tx.phase = SendPhase::Body;
        }
        // Cannot fail.
        let _ = self.put_block(id, end, |encoder, out| {
            write_response(encoder, out, head, asked);
            Ok(())
        });
        if end.is_end() {
            self.finish(key);
        }
        self.wake();
    }

    /// Sends DATA: at once if the line is empty and the windows allow.
    pub(crate) fn send_data(&mut self, key: Key, data: Bytes, end: EndStream) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let tx = &mut stream.tx;
        if stream.failed.is_some() || tx.phase != SendPhase::Body || data.is_empty() && !end.is_end() {
            return;
        }
        if end.is_end() {
            tx.phase = SendPhase::Ended;
        }
        if let Some(data) = self.send_whole(key, data) {
            if !data.is_empty()
                && let Some(stream) = self.streams.get_mut(key)
            {
                stream.tx.buffered += data.len();
                stream.tx.body.push_back(data);
            }
            self.send_queued(key);
        }
    }

    /// Sends DATA that is one frame now, as most of it is, without a queue; hands it back otherwise.
    fn send_whole(&mut self, key: Key, data: Bytes) -> Option<Bytes> {
        let can = !data.is_empty() && self.tx.line.is_empty() && self.has_room();
        let Some(stream) = self.streams.get_mut(key).filter(|_| can) else { return Some(data) };
        let len = data.len() as i64;
        let window = stream.tx.window.min(self.tx.window).min(MAX_FRAME as i64);
        if len > window || !stream.tx.is_empty() || stream.id == 0 {
            return Some(data);
        }
        stream.tx.window -= len;
        self.tx.window -= len;
        let (id, last) = (stream.id, stream.tx.phase == SendPhase::Ended);
        if !last {
            stream.writer.wake();
        }
        self.put_data(id, data, last);
        if last {
            // Whoever sends it is awake, and asks for the stream's state next.
            self.finished(key);
        }
        self.wake();
        None
    }

    /// Sends trailers behind what waits.
    pub(crate) fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.failed.is_some() || stream.tx.phase != SendPhase::Body {
            return;
        }
        // They may have to wait, and what the encoder owes the peer is for the next block that goes.
        let mut block = BytesMut::new();
        write_trailers(&mut hpack::Encoder::new(), &mut block, trailers);
        stream.tx.phase = SendPhase::Ended;
        // Trailers without a field that may be sent only end the stream.
        stream.tx.trailers = (!block.is_empty()).then_some(block);
        self.send_queued(key);
    }

    fn send_queued(&mut self, key: Key) {
        let named = self.streams.get(key).is_some_and(|stream| stream.id != 0 && !stream.tx.in_line);
        if named {
            if self.tx.line.is_empty() {
                while self.has_room() {
                    match self.take_turn(key) {
                        Turn::Again => {}
                        Turn::Drained => {
                            self.wake();
                            return;
                        }
                        Turn::Waits => break,
                        // The peer's window update is the next thing to wait for.
                        Turn::Closed => {
                            self.wake();
                            return;
                        }
                    }
                }
            }
            self.enter_line(key);
        }
        self.wake();
    }

    /// END_STREAM went, whose sender may wait for that.
    fn finish(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.writer.wake();
        }
        self.finished(key);
    }

    /// END_STREAM went.
    fn finished(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.tx.phase = SendPhase::Done;
        if stream.rx.phase == Phase::Ended {
            self.close_stream(key);
        }
        if self.streams.get(key).is_some_and(|stream| stream.owner == Owner::Connection) {
            self.leave(key, ResetCode::NoError);
        }
    }

    /// Both directions ended, or the stream was reset: it counts no more.
    pub(crate) fn close_stream(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if std::mem::take(&mut stream.is_open) {
            self.open = self.open.saturating_sub(1);
            if self.side.role() == Role::Client {
                self.open_waiting();
            } else {
                self.rx.resets.on_closed();
            }
        }
    }

    /// A stream without an owner ends, now or when its response is out.
    pub(crate) fn leave(&mut self, key: Key, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let is_server = self.side.role() == Role::Server;
        if !stream.is_closed() && stream.id != 0 {
            match stream.tx.phase {
                // The rest of the request is not needed (RFC 9113 §8.1).
                SendPhase::Done if is_server => self.reset(key, ResetCode::NoError),
                SendPhase::Ended if is_server && stream.tx.window >= stream.tx.buffered as i64 => return,
                _ => self.reset(key, code),
            }
        }
        self.close_stream(key);
        self.remove(key);
    }

    /// The stream is no more.
    pub(crate) fn remove(&mut self, key: Key) {
        self.streams.remove(key);
        if self.side.role() == Role::Client {
            // A server's connection is told when: its clients ask for many streams at once, again and again.
            self.streams.shrink();
        }
    }

    /// Sends RST_STREAM, unless the stream has ended.
    pub(crate) fn reset(&mut self, key: Key, code: ResetCode) {
        self.fail_stream(key, code.to_wire(), Failure::Reset { code, by_peer: false });
    }

    /// Ends a stream with RST_STREAM.
    pub(crate) fn fail_stream(&mut self, key: Key, code: u32, failure: Failure) {
        let is_client = self.side.role() == Role::Client;
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_closed()) else { return };
        let id = stream.id;
        stream.failed = Some(failure);
        stream.tx.clear();
        if !failure.is_by_content() {
            stream.rx.request = None;
        }
        if stream.rx.has_body() {
            // What is forgotten must not look like the end.
            stream.rx.phase = Phase::Body;
        }
        // A response is passed on up to what was wrong with it.
        let keeps = failure.is_by_content() && is_client;
        let unread = if keeps { 0 } else { stream.rx.clear() };
        stream.wake();
        self.give_connection(unread);
        self.close_stream(key);
        if id != 0 {
            self.put_reset(id, code);
        }
        self.wake();
    }

    /// Puts RST_STREAM; frames of the stream that are under way are forgiven.
    pub(crate) fn put_reset(&mut self, id: u32, code: u32) {
        self.put(&frames::reset(id, code));
        self.count(Event::TxReset);
        if code == ResetCode::Refused.to_wire() {
            self.count(Event::TxRefused);
        }
        if self.rx.forgiven.len() == MAX_FORGIVEN {
            self.rx.forgiven.pop_front();
        }
        self.rx.forgiven.push_back(id);
    }

    /// Bytes that were taken from a stream: the peer may send as many again.
    pub(crate) fn give(&mut self, key: Key, len: usize) {
        if len == 0 {
            return;
        }
        if let Some(stream) = self.streams.get_mut(key)
            && stream.rx.phase != Phase::Ended
            && stream.failed.is_none()
            && let Some(increment) = stream.rx.window.give(len)
        {
            let id = stream.id;
            self.put(&frames::window_update(id, increment));
            self.wake();
        }
        self.give_connection(len);
    }

    /// [`Core::give`] for the connection alone.
    pub(crate) fn give_connection(&mut self, len: usize) {
        if !self.is_over()
            && let Some(increment) = self.rx.window.give(len)
        {
            self.put(&frames::window_update(0, increment));
            self.wake();
        }
    }

    /// The window of a stream grows, or of all by SETTINGS; `false` if it grows too large (RFC 9113 §6.9.1).
    pub(crate) fn widen(&mut self, key: Key, by: i64) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return true };
        stream.tx.window += by;
        if stream.tx.window > MAX_WINDOW {
            return false;
        }
        if stream.tx.window > 0 {
            self.enter_line(key);
        }
        true
    }

    /// A client's new stream: sent now, or when others have ended.
    pub(crate) fn open(&mut self, key: Key, head: &RequestHead, end: EndStream) -> Result<(), Unsendable> {
        if self.open < self.capacity() && self.tx.waiting.is_empty() {
            self.name_stream(key, end, |core, id| {
                core.put_block(id, end, |encoder, out| write_request(encoder, out, head))
            })?;
        } else {
            let mut block = BytesMut::new();
            write_request(&mut hpack::Encoder::new(), &mut block, head)?;
            let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
            stream.tx.head = Some(block);
            stream.tx.phase = if end.is_end() { SendPhase::Done } else { SendPhase::Body };
            self.tx.waiting.push_back(key);
        }
        self.wake();
        Ok(())
    }

    /// Streams that may be open at once.
    pub(crate) fn capacity(&self) -> u32 {
        self.peer.max_streams.unwrap_or(u32::MAX).min(self.side.common().max_concurrent_streams)
    }

    /// Waiting => open, as far as there is room.
    pub(crate) fn open_waiting(&mut self) {
        while self.open < self.capacity()
            && let Some(key) = self.tx.waiting.pop_front()
        {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            let Some(block) = stream.tx.head.take() else { continue };
            // The body's end may wait, too.
            let (phase, end) = (stream.tx.phase, EndStream::from_last(stream.tx.phase == SendPhase::Done));
            let named = self.name_stream(key, end, |core, id| {
                core.put_encoded(id, end, &block);
                Ok(())
            });
            if let (Ok(()), Some(stream)) = (named, self.streams.get_mut(key)) {
                stream.tx.phase = phase;
                self.enter_line(key);
            }
        }
    }

    /// Gives a stream its number and its head to the output.
    fn name_stream(
        &mut self,
        key: Key,
        end: EndStream,
        put: impl FnOnce(&mut Self, u32) -> Result<(), Unsendable>,
    ) -> Result<(), Unsendable> {
        let id = self.tx.next_id;
        let head_at = self.wire.tx + self.wire.output.len() as u64;
        if id <= STREAM_MASK {
            put(self, id)?;
        }
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if id > STREAM_MASK {
            // The numbers are used up (RFC 9113 §5.1.1).
            stream.failed = Some(Failure::Reset { code: ResetCode::Refused, by_peer: false });
            stream.wake();
            return Ok(());
        }
        stream.is_open = true;
        stream.tx.window = i64::from(self.peer.initial_window);
        stream.tx.head_at = head_at;
        stream.tx.phase = if end.is_end() { SendPhase::Done } else { SendPhase::Body };
        self.tx.next_id = id + 2;
        self.open += 1;
        self.streams.name(key, id);
        self.rx.floods.on_stream();
        Ok(())
    }
}

/// Bytes of output from which on bodies stand in line: what one `writev` of large parts takes.
const FULL: usize = 128 * 1024;

/// Data that the output copies behind its frame's head.
const COPIED: usize = 8 * 1024;

/// Room for a head.
const HEAD_ROOM: usize = 512;

/// Streams whose late frames are ignored without a word: bounds memory, and a later frame is only answered by
/// another RST_STREAM.
const MAX_FORGIVEN: usize = 64;
