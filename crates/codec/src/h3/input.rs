//! Frames of request streams (RFC 9114 §4.1, §7.2), taken from the transport as far as they are wanted: heads as they
//! come, bodies when an exchange asks. So the transport's windows open no faster than bodies are read.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tidegate_quic::{ReadError, StreamId};
use tidegate_types::EndStream;

use super::codes::{
    self, BAD_PAYLOAD, FLOOD, Fault, GENERAL_PROTOCOL_ERROR, HTTP2_FRAME, Handled, LENGTH, REQUEST_CANCELLED,
};
use super::conn::{Core, Ended, Role, varint};
use super::frames::{FrameHead, is_http2, kind};
use super::heads::Section;
use super::streams::{Failure, Key, Origin, Owner, Part, Phase, Receiving, SendPhase};
use super::transport::Transport;
use crate::fields::Verdict;
use crate::multiplex::Event;
use crate::stream::{BodyFrame, ResetCode};

/// The next thing in a stream.
enum Step {
    /// A field section, whole.
    Section(Bytes),
    /// A section over what is kept of one.
    TooLarge,
    /// Some of a DATA frame's payload.
    Data(Bytes),
    End,
    Reset(u64),
    /// Nothing more has come.
    Blocked,
}

impl Core {
    /// Something came in a stream: heads are read, and who reads the body is told.
    pub(crate) fn handle_readable(&mut self, key: Key) -> Handled {
        loop {
            let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.failed.is_none()) else {
                return Ok(());
            };
            if stream.rx.phase != Phase::Head || self.sections.holds(stream.id) {
                break;
            }
            let step = match self.step(key) {
                Ok(step) => step,
                Err(fault) => {
                    // It was a request, however wrong.
                    self.appear(key);
                    return Err(fault);
                }
            };
            match step {
                Step::Section(section) => {
                    self.appear(key);
                    if self.waits_for_entries(key, Section::Head, &section)? {
                        break;
                    }
                    self.handle_head(key, &section)?;
                }
                Step::TooLarge => {
                    self.appear(key);
                    self.refuse(key, Section::Head, Verdict::TooLarge)?;
                }
                Step::Reset(code) => {
                    self.handle_reset(key, code);
                    return Ok(());
                }
                Step::Blocked | Step::Data(_) | Step::End => {
                    self.appear_if_begun(key);
                    return Ok(());
                }
            }
        }
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if stream.rx.input.is_empty()
            && let Some(code) = stream.rx.reset.take()
        {
            // It came right behind the head.
            self.handle_reset(key, code);
            return Ok(());
        }
        if let (Some(id), false, None) = (stream.id, stream.rx.fin, stream.rx.reset)
            && stream.rx.input.is_empty()
        {
            // Who does not read must all the same hear of a reset.
            match self.quic.read(id, 0) {
                Err(ReadError::Reset(code)) => {
                    self.handle_reset(key, code.into_inner());
                    return Ok(());
                }
                Ok(None) => stream.rx.fin = true,
                _ => {}
            }
        }
        if let Some(stream) = self.streams.get_mut(key) {
            stream.reader.wake();
        }
        Ok(())
    }

    /// A stream of which bytes came is somebody's.
    fn appear_if_begun(&mut self, key: Key) {
        let begun = self.streams.get(key).is_some_and(|stream| {
            !stream.rx.partial.is_empty() || stream.rx.part != Part::Between || stream.rx.empty > 0
        });
        if begun {
            self.appear(key);
        }
    }

    fn appear(&mut self, key: Key) {
        let is_new = self.streams.get(key).is_some_and(|stream| stream.owner == Owner::Connection);
        if is_new && self.side.role() == Role::Server {
            self.begin_exchange(key);
            self.rx.accept.push_back(key);
        }
    }

    /// The next thing in a stream.
    fn step(&mut self, key: Key) -> Handled<Step> {
        let longest = self.side.common().messages.max_block_bytes();
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Blocked) };
        let (Some(id), rx) = (stream.id, &mut stream.rx) else { return Ok(Step::Blocked) };
        loop {
            if rx.input.is_empty() {
                if let Some(code) = rx.reset.take() {
                    return Ok(Step::Reset(code));
                }
                if rx.fin {
                    return end(rx);
                }
                match self.quic.read(id, MAX_READ) {
                    Ok(Some(bytes)) => rx.input = bytes,
                    Ok(None) => rx.fin = true,
                    Err(ReadError::Blocked | ReadError::Closed) => return Ok(Step::Blocked),
                    Err(ReadError::Reset(code)) => return Ok(Step::Reset(code.into_inner())),
                }
                continue;
            }
            match rx.part {
                Part::Between => {
                    let Some(head) = rx.next_head() else { continue };
                    begin(rx, head)?;
                    match rx.part {
                        Part::Section(len) if len > longest => return Ok(Step::TooLarge),
                        Part::Section(0) => {
                            rx.part = Part::Between;
                            return Ok(Step::Section(Bytes::new()));
                        }
                        _ => {}
                    }
                }
                Part::Section(len) if rx.partial.is_empty() && len <= rx.input.len() => {
                    rx.part = Part::Between;
                    return Ok(Step::Section(rx.input.split_to(len)));
                }
                Part::Section(len) => {
                    let now = len.min(rx.input.len());
                    if rx.partial.is_empty() {
                        // No more than what came promises: who announces much and sends little holds little.
                        rx.partial.reserve(len.min(2 * now));
                    }
                    rx.partial.extend_from_slice(&rx.input.split_to(now));
                    rx.part = Part::Section(len - now);
                    if len == now {
                        rx.part = Part::Between;
                        return Ok(Step::Section(std::mem::take(&mut rx.partial).freeze()));
                    }
                }
                Part::Data(len) => {
                    let now = len.min(rx.input.len() as u64);
                    rx.part = if now == len { Part::Between } else { Part::Data(len - now) };
                    let data = rx.input.split_to(now as usize);
                    return Ok(Step::Data(gather(&mut *self.quic, id, rx, data)));
                }
                Part::Skip(len) => {
                    let now = len.min(rx.input.len() as u64);
                    rx.input.advance(now as usize);
                    rx.part = if now == len { Part::Between } else { Part::Skip(len - now) };
                }
            }
        }
    }

    /// Whether the stream ends here, as far as is known without waiting.
    pub(crate) fn probe_end(&mut self, key: Key) -> EndStream {
        let Some(stream) = self.streams.get_mut(key) else { return EndStream::No };
        let rx = &mut stream.rx;
        if !rx.fin
            && rx.reset.is_none()
            && rx.input.is_empty()
            && let Some(id) = stream.id
        {
            match self.quic.read(id, 0) {
                Ok(None) => rx.fin = true,
                Err(ReadError::Reset(code)) => rx.reset = Some(code.into_inner()),
                _ => {}
            }
        }
        EndStream::from_last(rx.is_at_end())
    }

    /// The next part of a body, for the exchange that asks.
    pub(crate) fn poll_body(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<BodyFrame, Failure>> {
        loop {
            let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Failure::Closed)) };
            match (stream.failed, stream.rx.phase) {
                (None, Phase::Ended) => {
                    return Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)));
                }
                (Some(failure), _) => return Poll::Ready(Err(failure)),
                (None, Phase::Head) => {
                    stream.reader.wait(cx);
                    return Poll::Pending;
                }
                (None, Phase::Body | Phase::Trailers) => {}
            }
            if self.sections.holds(stream.id) {
                stream.reader.wait(cx);
                return Poll::Pending;
            }
            let taken = match self.step(key) {
                Ok(Step::Data(data)) => self.take_data(key, data),
                Ok(Step::Section(section)) => self.take_trailers(key, &section).map(|()| None),
                Ok(Step::TooLarge) => self.refuse(key, Section::Trailers, Verdict::TooLarge).map(|()| None),
                Ok(Step::End) => Ok(self.take_end(key)),
                Ok(Step::Reset(code)) => {
                    self.handle_reset(key, code);
                    Ok(None)
                }
                Ok(Step::Blocked) => {
                    if let Some(stream) = self.streams.get_mut(key) {
                        stream.reader.wait(cx);
                    }
                    return Poll::Pending;
                }
                Err(fault) => Err(fault),
            };
            match taken {
                Ok(Some(frame)) => {
                    // The transport may have credit to give.
                    self.wake();
                    return Poll::Ready(Ok(frame));
                }
                Ok(None) => {}
                Err(fault) => self.end(Ended::Fault(fault)),
            }
        }
    }

    fn take_data(&mut self, key: Key, data: Bytes) -> Handled<Option<BodyFrame>> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        if stream.rx.left.take(data.len(), EndStream::No).is_err() {
            self.fail_stream(key, GENERAL_PROTOCOL_ERROR, BAD_PAYLOAD, Failure::Protocol(LENGTH));
            return Ok(None);
        }
        let end = self.probe_end(key);
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        if stream.rx.left.take(0, end).is_err() {
            self.fail_stream(key, GENERAL_PROTOCOL_ERROR, BAD_PAYLOAD, Failure::Protocol(LENGTH));
            return Ok(None);
        }
        if end.is_end() {
            stream.rx.phase = Phase::Ended;
        }
        Ok(Some(BodyFrame::Data(data, end)))
    }

    fn take_trailers(&mut self, key: Key, section: &Bytes) -> Handled {
        if self.waits_for_entries(key, Section::Trailers, section)? {
            return Ok(());
        }
        self.handle_trailers(key, section)
    }

    fn take_end(&mut self, key: Key) -> Option<BodyFrame> {
        let stream = self.streams.get_mut(key)?;
        if stream.rx.left.take(0, EndStream::Yes).is_err() {
            self.fail_stream(key, GENERAL_PROTOCOL_ERROR, BAD_PAYLOAD, Failure::Protocol(LENGTH));
            return None;
        }
        stream.rx.phase = Phase::Ended;
        Some(match stream.rx.trailers.take() {
            Some(trailers) => BodyFrame::Trailers(*trailers),
            None => BodyFrame::Data(Bytes::new(), EndStream::Yes),
        })
    }

    /// RESET_STREAM came: what was to come is no message (RFC 9114 §4.1.1).
    fn handle_reset(&mut self, key: Key, code: u64) {
        self.count_rx_reset(code);
        self.note_premature(key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let (id, done) = (stream.id, stream.tx.phase == SendPhase::Done);
        stream.rx.fin = true;
        if stream.failed.is_none() {
            stream.fail(Failure::Reset { code: codes::from_wire(code), by_peer: true });
            stream.why = Some((codes::reset_name(code), Origin::Peer));
        }
        stream.tx.phase = SendPhase::Done;
        if let (Some(id), false) = (id, done) {
            self.quic.reset(id, varint(REQUEST_CANCELLED));
        }
        if self.streams.get(key).is_some_and(|stream| stream.owner == Owner::Connection) {
            self.remove(key);
        }
        self.wake();
    }

    /// STOP_SENDING came: our direction is reset with the same code (RFC 9000 §3.5).
    pub(crate) fn handle_stop(&mut self, id: StreamId, code: u64) {
        let Some(key) = self.streams.find(id) else {
            self.tx.undelivered = self.tx.undelivered.saturating_sub(1);
            return self.quic.reset(id, varint(code));
        };
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.tx.phase == SendPhase::Done {
            // What the peer does not take is delivered all the same.
            if stream.failed.is_none() && !stream.tx.is_cut {
                self.tx.undelivered = self.tx.undelivered.saturating_sub(1);
                self.quic.reset(id, varint(code));
            }
            return;
        }
        // Envoy counts it as a reset, and its code not.
        self.count(Event::RxReset);
        if codes::from_wire(code) == ResetCode::Refused {
            self.count(Event::RxRefused);
        }
        self.note_premature(key);
        self.quic.reset(id, varint(code));
        let Some(stream) = self.streams.get_mut(key) else { return };
        let reads = !stream.rx.fin;
        stream.tx.phase = SendPhase::Done;
        stream.tx.clear();
        if self.side.role() == Role::Client {
            // The response may say more, or the reset that follows (RFC 9114 §4.1.1).
            stream.tx.is_cut = true;
            stream.writer.wake();
            return;
        }
        if stream.failed.is_none() {
            stream.fail(Failure::Reset { code: codes::from_wire(code), by_peer: true });
        }
        let owner = stream.owner;
        if reads {
            self.quic.stop(id, varint(codes::NO_ERROR));
        }
        if owner == Owner::Connection {
            self.remove(key);
        }
        self.wake();
    }

    fn count_rx_reset(&self, code: u64) {
        self.count(Event::RxReset);
        if codes::from_wire(code) == ResetCode::Refused {
            self.count(Event::RxRefused);
        }
        self.count(Event::RxResetNamed(codes::reset_name(code)));
    }
}

/// Puts what has come behind `data` together with it: the transport gives a packet's worth at a time, and each part that
/// is handed on costs far more than to copy it.
fn gather(quic: &mut dyn Transport, id: StreamId, rx: &mut Receiving, data: Bytes) -> Bytes {
    let mut all = BytesMut::new();
    while data.len().max(all.len()) < GATHERED {
        if rx.input.is_empty() {
            match quic.read(id, MAX_READ) {
                Ok(Some(bytes)) => rx.input = bytes,
                Ok(None) => rx.fin = true,
                Err(ReadError::Reset(code)) => rx.reset = Some(code.into_inner()),
                Err(_) => {}
            }
            if rx.input.is_empty() {
                break;
            }
        }
        if rx.part == Part::Between {
            match FrameHead::parse(&rx.input) {
                Some((FrameHead { kind: kind::DATA, len }, head)) if len > 0 => {
                    rx.input.advance(head);
                    rx.part = Part::Data(len);
                }
                _ => break,
            }
        }
        let Part::Data(len) = rx.part else { break };
        let now = len.min(rx.input.len() as u64);
        rx.part = if now == len { Part::Between } else { Part::Data(len - now) };
        if all.is_empty() {
            all.reserve(GATHERED + MAX_PACKET);
            all.extend_from_slice(&data);
        }
        all.extend_from_slice(&rx.input.split_to(now as usize));
    }
    if all.is_empty() { data } else { all.freeze() }
}

/// A frame begins on a request stream.
fn begin(rx: &mut Receiving, head: FrameHead) -> Handled {
    if head.len > 0 {
        rx.empty = 0;
    } else {
        rx.empty += 1;
        if rx.empty > MAX_EMPTY {
            return Err(FLOOD);
        }
    }
    rx.part = match head.kind {
        kind::DATA if rx.phase != Phase::Body => {
            return Err(Fault::sequence("Unexpected DATA frame received."));
        }
        kind::DATA if head.len == 0 => Part::Between,
        kind::DATA => Part::Data(head.len),
        kind::HEADERS if rx.phase == Phase::Trailers => {
            return Err(Fault::sequence("HEADERS frame received after trailing HEADERS."));
        }
        kind::HEADERS => Part::Section(usize::try_from(head.len).unwrap_or(usize::MAX)),
        kind::SETTINGS => return Err(Fault::on_request("Settings frame received on data stream")),
        kind::GOAWAY => return Err(Fault::on_request("Goaway frame received on data stream")),
        kind::MAX_PUSH_ID => return Err(Fault::on_request("Max Push Id frame received on data stream")),
        kind::PRIORITY_UPDATE | kind::PRIORITY_UPDATE_PUSH => {
            return Err(Fault::on_request("Priority update frame received on data stream"));
        }
        // No push was ever allowed (RFC 9114 §7.2.5); the code is Envoy's.
        kind::PUSH_PROMISE => return Err(Fault::frame("PUSH_PROMISE frame received.")),
        kind::CANCEL_PUSH => return Err(Fault::frame("CANCEL_PUSH frame received.")),
        other if is_http2(other) => return Err(HTTP2_FRAME.about(other)),
        // RFC 9114 §9.
        _ if head.len == 0 => Part::Between,
        _ => Part::Skip(head.len),
    };
    Ok(())
}

/// The end of a stream, which MUST NOT be inside a frame (RFC 9114 §7.1).
fn end(rx: &Receiving) -> Handled<Step> {
    let whole = rx.part == Part::Between && rx.partial.is_empty();
    match (rx.phase, whole) {
        (Phase::Head, _) => Err(Fault::sequence("Received FIN before finishing receiving HTTP headers.")),
        (_, true) => Ok(Step::End),
        (_, false) => Err(Fault::frame("Received FIN in the middle of a frame.")),
    }
}

/// Bytes of a body that are put together, and what the last part may add to them.
const GATHERED: usize = 16 * 1024;
const MAX_PACKET: usize = 1500;

/// Bytes that one read takes of a stream, of which a part may lie about until it is asked for.
const MAX_READ: usize = 64 * 1024;

/// Frames without content in a row, in one stream. Stops a peer that has us handle a frame for 2 bytes.
const MAX_EMPTY: u32 = 1000;
