//! What goes: heads, DATA and trailers are put into their stream's queue, and given to the transport in one call a
//! stream and turn of the connection's task.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tidegate_quic::{Dir, StreamId, WriteError};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use super::codes;
use super::conn::{Core, Role, varint};
use super::frames::{FrameHead, kind};
use super::streams::{Failure, KEPT, Key, Origin, Owner, Phase, SendPhase};
use crate::fields::{Asked, Unsendable, write_request, write_response, write_trailers};
use crate::multiplex::Event;
use crate::qpack::Encoder;
use crate::stream::ResetCode;

impl Core {
    /// Gives the transport what stands in line.
    pub(crate) fn write(&mut self) {
        self.write_control();
        self.write_decoder();
        while let Some(key) = self.tx.line.pop_front() {
            self.write_stream(key);
        }
    }

    fn write_stream(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let tx = &mut stream.tx;
        tx.in_line = false;
        let (Some(id), None, false) = (stream.id, stream.failed, tx.phase == SendPhase::Done) else { return };
        if !tx.queue.is_empty() {
            match self.quic.write(id, tx.queue.make_contiguous()) {
                Ok(written) => {
                    tx.is_written = true;
                    tx.buffered = tx.buffered.saturating_sub(written);
                    while tx.queue.front().is_some_and(Bytes::is_empty) {
                        tx.queue.pop_front();
                    }
                }
                // Blocked streams are told when there is room, stopped ones that they are.
                Err(WriteError::Blocked | WriteError::Stopped(_)) => {}
                // A client's early data that was rejected; the event that says so is on its way.
                Err(WriteError::Closed) => return,
            }
        }
        if !tx.queue.is_empty() {
            return;
        }
        stream.writer.wake();
        if tx.phase == SendPhase::Ended {
            tx.phase = SendPhase::Done;
            tx.is_written = true;
            self.quic.finish(id);
            self.tx.undelivered += 1;
            if stream.owner == Owner::Connection {
                self.leave(key, ResetCode::NoError);
            }
        }
    }

    /// Whether the transport took what it could of the stream, and not all.
    pub(crate) fn is_held_back(&self, key: Key) -> bool {
        self.streams.get(key).is_some_and(|stream| !stream.tx.queue.is_empty() && !stream.tx.in_line)
    }

    /// The stream has something to send, or may send again.
    pub(crate) fn enter_line(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let ready = !stream.tx.queue.is_empty() || stream.tx.phase == SendPhase::Ended;
        if ready && !stream.tx.in_line && stream.id.is_some() && stream.failed.is_none() {
            stream.tx.in_line = true;
            self.tx.line.push_back(key);
        }
    }

    /// [`Core::enter_line`] for a stream that the transport names.
    pub(crate) fn enter_line_of(&mut self, id: StreamId) {
        if let Some(key) = self.streams.find(id) {
            self.enter_line(key);
        }
    }

    /// Writes a HEADERS frame.
    fn headers(
        &mut self,
        encode: impl FnOnce(&mut Encoder, &mut BytesMut) -> Result<(), Unsendable>,
    ) -> Result<Bytes, Unsendable> {
        let text = &mut self.tx.text;
        if text.capacity() < HEAD_ROOM {
            text.reserve(TEXT_BLOCK);
        }
        // The frame's type, and room for a length of two bytes, which holds for nearly all heads.
        text.extend_from_slice(&[kind::HEADERS as u8, 0, 0]);
        if let Err(unsendable) = encode(&mut Encoder, text) {
            text.clear();
            return Err(unsendable);
        }
        let len = text.len() - 3;
        if len <= 0x3fff {
            let [high, low] = (len as u16 | 0x4000).to_be_bytes();
            if let Some(place) = text.get_mut(1..3) {
                place.copy_from_slice(&[high, low]);
            }
            return Ok(text.split().freeze());
        }
        let mut long = BytesMut::with_capacity(len + FrameHead::MAX);
        FrameHead { kind: kind::HEADERS, len: len as u64 }.put(&mut long);
        long.extend_from_slice(text.get(3..).unwrap_or_default());
        text.clear();
        Ok(long.freeze())
    }

    /// Sends a response's head, final or informational; a body may follow a final one.
    pub(crate) fn send_response(&mut self, key: Key, head: &ResponseHead, asked: &Asked, end: EndStream) {
        let is_ready = self
            .streams
            .get(key)
            .is_some_and(|stream| stream.failed.is_none() && stream.tx.phase == SendPhase::Head);
        if !is_ready {
            return;
        }
        // Cannot fail.
        let Ok(frame) = self.headers(|encoder, out| {
            write_response(encoder, out, head, asked);
            Ok(())
        }) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.tx.push(frame);
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            stream.tx.phase = if end.is_end() { SendPhase::Ended } else { SendPhase::Body };
        }
        self.enter_line(key);
        self.wake();
    }

    /// Sends DATA.
    pub(crate) fn send_data(&mut self, key: Key, data: Bytes, end: EndStream) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let tx = &mut stream.tx;
        if stream.failed.is_some() || tx.phase != SendPhase::Body || data.is_empty() && !end.is_end() {
            return;
        }
        if end.is_end() {
            tx.phase = SendPhase::Ended;
        }
        if !data.is_empty() {
            let text = &mut self.tx.text;
            if text.capacity() < FrameHead::MAX + COPIED {
                text.reserve(TEXT_BLOCK);
            }
            FrameHead { kind: kind::DATA, len: data.len() as u64 }.put(text);
            if data.len() <= COPIED {
                text.extend_from_slice(&data);
                tx.push(text.split().freeze());
            } else {
                tx.push(text.split().freeze());
                tx.push(data);
            }
        }
        self.enter_line(key);
        self.wake();
    }

    /// Sends trailers behind what waits.
    pub(crate) fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) {
        let is_ready = self
            .streams
            .get(key)
            .is_some_and(|stream| stream.failed.is_none() && stream.tx.phase == SendPhase::Body);
        if !is_ready {
            return;
        }
        let frame = self.headers(|encoder, out| {
            let before = out.len();
            write_trailers(encoder, out, trailers);
            // Trailers without a field that may be sent only end the stream.
            if out.len() > before + PREFIX { Ok(()) } else { Err(Unsendable) }
        });
        let Some(stream) = self.streams.get_mut(key) else { return };
        if let Ok(frame) = frame {
            stream.tx.push(frame);
        }
        stream.tx.phase = SendPhase::Ended;
        self.enter_line(key);
        self.wake();
    }

    /// A stream without an owner ends, now or when its response is out.
    pub(crate) fn leave(&mut self, key: Key, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let is_server = self.side.role() == Role::Server;
        if let (Some(id), None) = (stream.id, stream.failed)
            && !stream.is_closed()
        {
            match stream.tx.phase {
                SendPhase::Ended if is_server => return,
                // The rest of the request is not needed (RFC 9114 §4.1).
                SendPhase::Done if is_server => {
                    if !stream.rx.is_at_end() {
                        self.quic.stop(id, varint(codes::NO_ERROR));
                    }
                }
                _ => self.reset(key, code),
            }
        }
        self.remove(key);
    }

    /// The stream is no more.
    pub(crate) fn remove(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key)
            && let (Some(id), false) = (stream.id, stream.rx.phase == Phase::Ended)
        {
            self.sections.forget(id);
        }
        self.streams.remove(key);
        if self.side.role() == Role::Client {
            self.restock();
            // A server's connection is told when: its clients ask for many streams at once, again and again.
            self.streams.shrink(KEPT);
        }
    }

    /// Resets a stream, unless it has ended.
    pub(crate) fn reset(&mut self, key: Key, code: ResetCode) {
        let wire = codes::to_wire(code);
        self.fail_stream(key, wire, codes::reset_name(wire), Failure::Reset { code, by_peer: false });
    }

    /// Ends a stream in both directions; `name` is what Envoy counts it as.
    pub(crate) fn fail_stream(&mut self, key: Key, code: u64, name: &'static str, failure: Failure) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_closed()) else { return };
        let sent = stream.tx.phase == SendPhase::Done;
        let received = stream.rx.fin;
        stream.fail(failure);
        stream.why = Some((name, Origin::Us));
        if let Some(id) = stream.id {
            if !received {
                self.quic.stop(id, varint(code));
            }
            if !sent {
                self.quic.reset(id, varint(code));
            }
            self.count(Event::TxReset);
            if code == codes::REQUEST_REJECTED {
                self.count(Event::TxRefused);
            }
            self.count(Event::TxResetNamed(name));
        }
        self.wake();
    }

    /// A client's new stream: sent now, or when the peer allows it.
    pub(crate) fn open(&mut self, key: Key, head: &RequestHead, end: EndStream) -> Result<(), Unsendable> {
        let frame = self.headers(|encoder, out| write_request(encoder, out, head))?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        stream.tx.push(frame);
        stream.tx.phase = if end.is_end() { SendPhase::Ended } else { SendPhase::Body };
        self.tx.waiting.push_back(key);
        self.open_waiting();
        self.wake();
        Ok(())
    }

    /// Waiting => open, as far as there are streams.
    fn open_waiting(&mut self) {
        while let Some(&key) = self.tx.waiting.front() {
            let waits = self.streams.get(key).is_some_and(|stream| {
                stream.id.is_none() && stream.owner == Owner::Exchange && stream.failed.is_none()
            });
            if waits {
                let Some(id) = self.tx.stock.pop_front() else { return };
                self.streams.name(key, id);
                self.enter_line(key);
            }
            self.tx.waiting.pop_front();
        }
    }

    /// Opens what the peer allows, so that it is known exactly; nothing is sent by that.
    pub(crate) fn restock(&mut self) {
        if self.side.role() == Role::Server || self.is_over() || self.facts.goaway.is_some() {
            return;
        }
        let most = self.side.common().max_concurrent_streams.max(1) as usize;
        while self.streams.named() + self.tx.stock.len() < most
            && let Some(id) = self.quic.open(Dir::Bi)
        {
            self.tx.stock.push_back(id);
        }
        self.open_waiting();
    }

    /// Streams that may be open at once, as far as the peer allows now.
    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.streams.named() + self.tx.stock.len()).unwrap_or(u32::MAX)
    }

    /// Streams from this one on were not processed, and never will be (RFC 9114 §5.2).
    pub(crate) fn refuse_from(&mut self, first: u64) {
        self.tx.stock.clear();
        self.tx.waiting.clear();
        let refused: Vec<(Key, Option<StreamId>)> = self
            .streams
            .iter_mut()
            .filter(|(_, stream)| stream.failed.is_none() && stream.rx.phase != Phase::Ended)
            .filter(|(_, stream)| stream.id.is_none_or(|id| u64::from(id) >= first))
            .map(|(key, stream)| (key, stream.id))
            .collect();
        for (key, id) in refused {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.fail(Failure::Reset { code: ResetCode::Refused, by_peer: true });
            }
            if let Some(id) = id {
                self.quic.stop(id, varint(codes::REQUEST_CANCELLED));
                self.quic.reset(id, varint(codes::REQUEST_CANCELLED));
            }
        }
    }
}

/// Room for a head, and what is allocated for many of them.
const HEAD_ROOM: usize = 512;
const TEXT_BLOCK: usize = 4096;

/// Data up to this size is copied behind its frame's head.
const COPIED: usize = 1024;

/// Bytes of a section without fields.
const PREFIX: usize = 2;
