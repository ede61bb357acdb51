//! Frames that came, handled where they lie in the read buffer (RFC 9113 §6). Heads are in `heads`.
//!
//! An `Err` ends the connection; what concerns a stream alone ends that with RST_STREAM. Frames of streams that have
//! ended are ignored as far as the RFC allows: they cross what ended them.

mod heads;

use bytes::{Buf, Bytes, BytesMut};
use tidegate_types::EndStream;
use tokio::time::Instant;

pub(crate) use self::heads::Block;
use super::arena;
use super::codes::{
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, INTERNAL_ERROR, MESSAGING_RULE, PROTOCOL_ERROR, REFUSED_STREAM,
    RESET, STREAM_CLOSED,
};
use super::conn::{Core, GoAway, Greeting, PING, Role};
use super::frames::{self, ACK, FrameHead, MAX_FRAME, MAX_WINDOW, STREAM_MASK, kind, number};
use super::preface::PREFACE;
use super::settings::max_frame;
use super::streams::{Failure, Key, Owner, Phase, SendPhase, Stream};
use crate::multiplex::{ALTSVC, AltSvc, ConnError, Event, Flood};
use crate::stream::ResetCode;

pub(crate) type Handled = Result<(), ConnError>;

pub(crate) fn violation(code: u32) -> ConnError {
    ConnError::Violation(ResetCode::from_wire(code))
}

/// What a frame's stream is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Known(Key),
    /// It was, or was passed over; `forgiven` if we reset it and the frame may have crossed that.
    Closed {
        forgiven: bool,
    },
    /// It has not been opened.
    Idle,
}

impl Core {
    /// Handles the frames that are whole.
    pub(crate) fn handle_input(&mut self) -> Handled {
        if self.wire.input.is_empty() || self.is_over() {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.wire.input);
        let handled = self.handle_bytes(&mut input);
        self.wire.input = input;
        handled
    }

    fn handle_bytes(&mut self, input: &mut BytesMut) -> Handled {
        let opens = matches!(self.rx.greeting, Greeting::Preface | Greeting::PartOfPreface);
        if opens && !self.handle_preface(input)? {
            return Ok(());
        }
        let mut now = None;
        while let Some(head) = FrameHead::parse(input) {
            if head.len > MAX_FRAME && head.len > max_frame(self.side.common()) {
                // What begins with something else than SETTINGS is no frame (RFC 9113 §3.4); else §4.2.
                let opens = self.rx.greeting == Greeting::Settings && head.kind != kind::SETTINGS;
                return Err(violation(if opens { PROTOCOL_ERROR } else { FRAME_SIZE_ERROR }));
            }
            if input.len() < FrameHead::LEN + head.len {
                break;
            }
            input.advance(FrameHead::LEN);
            if let Err(flood) = self.rx.floods.on_frame(head) {
                return Err(self.flooded(flood));
            }
            if head.kind == kind::DATA {
                self.admit(head)?;
                self.handle_data(head, input)?;
            } else {
                let len = input.len();
                self.admit(head)?;
                self.handle_frame(head, input, &mut now)?;
                // What was not split off.
                input.advance((head.len + input.len()).saturating_sub(len));
            }
        }
        // Only now, as Envoy: what came with the resets has been looked at.
        if self.rx.floods.resets_exceeded() { Err(violation(INTERNAL_ERROR)) } else { Ok(()) }
    }

    /// Whether the client's first bytes were all there (RFC 9113 §3.4).
    fn handle_preface(&mut self, input: &mut BytesMut) -> Result<bool, ConnError> {
        let seen = input.len().min(PREFACE.len());
        if input.get(..seen) != PREFACE.get(..seen) {
            return Err(violation(PROTOCOL_ERROR));
        }
        if seen > 0 && self.rx.greeting == Greeting::Preface {
            self.greet();
            self.rx.greeting = Greeting::PartOfPreface;
        }
        if seen < PREFACE.len() {
            return Ok(false);
        }
        input.advance(seen);
        self.rx.greeting = Greeting::Settings;
        Ok(true)
    }

    fn flooded(&self, flood: Flood) -> ConnError {
        self.count(Event::Flood(flood));
        ConnError::Flood(flood)
    }

    /// Whether a frame may come now at all.
    fn admit(&mut self, head: FrameHead) -> Handled {
        if let Some(block) = &self.rx.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            // RFC 9113 §6.10.
            return Err(violation(PROTOCOL_ERROR));
        }
        if self.rx.greeting == Greeting::Settings {
            // An upstream that answers before its SETTINGS is let go on: the request is on its way.
            if self.side.role() == Role::Server && (head.kind != kind::SETTINGS || head.has(ACK)) {
                return Err(violation(PROTOCOL_ERROR));
            }
            self.rx.greeting = Greeting::Done;
        }
        Ok(())
    }

    fn handle_frame(&mut self, head: FrameHead, input: &mut BytesMut, now: &mut Option<Instant>) -> Handled {
        match head.kind {
            kind::HEADERS => return self.handle_headers(head, input, now),
            kind::CONTINUATION => return self.handle_continuation(head, input),
            _ => {}
        }
        let Some(payload) = input.get(..head.len) else { return Ok(()) };
        match head.kind {
            kind::PRIORITY => self.handle_priority(head, number(payload)),
            kind::RST_STREAM => {
                if self.side.role() == Role::Server {
                    self.rx.floods.on_reset(*now.get_or_insert_with(Instant::now));
                }
                self.handle_reset(head, number(payload))
            }
            kind::SETTINGS => self.handle_settings(head, payload),
            // We never allow it (RFC 9113 §8.4).
            kind::PUSH_PROMISE => Err(violation(PROTOCOL_ERROR)),
            kind::PING => self.handle_ping(head, payload),
            kind::GOAWAY => self.handle_goaway(head, number(payload), payload.get(4..).and_then(number)),
            kind::WINDOW_UPDATE => self.handle_window_update(head, number(payload)),
            ALTSVC if self.side.role() == Role::Client => {
                if let Some(said) = AltSvc::parse(payload, head.stream != 0) {
                    said.keep(&mut self.facts.alt_svc);
                }
                Ok(())
            }
            // RFC 9113 §4.1.
            _ => Ok(()),
        }
    }

    /// What `id`, which is not 0, is to us.
    pub(crate) fn target(&mut self, id: u32) -> Target {
        if let Some(key) = self.streams.find(id) {
            return Target::Known(key);
        }
        let is_idle = match self.side.role() {
            Role::Server => id.is_multiple_of(2) || id > self.rx.last_stream,
            Role::Client => id.is_multiple_of(2) || id >= self.tx.next_id,
        };
        if is_idle { Target::Idle } else { Target::Closed { forgiven: self.rx.forgiven.contains(&id) } }
    }

    /// RFC 9113 §6.1.
    fn handle_data(&mut self, head: FrameHead, input: &mut BytesMut) -> Handled {
        if head.stream == 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        let payload = input.get(..head.len).unwrap_or_default();
        let Some(content) = head.content(payload) else { return Err(violation(PROTOCOL_ERROR)) };
        if self.rx.window.take(head.len).is_err() {
            return Err(violation(FLOW_CONTROL_ERROR));
        }
        let key = match self.target(head.stream) {
            Target::Known(key) => key,
            Target::Idle => return Err(violation(PROTOCOL_ERROR)),
            Target::Closed { forgiven } => {
                input.advance(head.len);
                self.give_connection(head.len);
                // RFC 9113 §5.1, closed. Ours may cross the peer's frames without harm to anybody.
                if !forgiven && self.side.role() == Role::Server {
                    return self.answer_reset(head.stream, STREAM_CLOSED);
                }
                return Ok(());
            }
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let refused = if let Some(failure) = stream.failed {
            let ours = matches!(failure, Failure::Reset { by_peer: true, .. });
            if ours && self.side.role() == Role::Server { Some(STREAM_CLOSED) } else { Some(0) }
        } else if stream.rx.phase == Phase::Ended {
            Some(STREAM_CLOSED)
        } else if self.side.role() == Role::Client && stream.rx.phase == Phase::Head {
            // RFC 9113 §8.1: a response begins with its head.
            return Err(violation(PROTOCOL_ERROR));
        } else if stream.rx.window.take(head.len).is_err() {
            Some(FLOW_CONTROL_ERROR)
        } else {
            None
        };
        if let Some(code) = refused {
            input.advance(head.len);
            self.give_connection(head.len);
            return if code == 0 { Ok(()) } else { self.stream_error(key, code) };
        }
        let data = if content.len() > ARENA {
            let mut data = input.split_to(head.len).freeze();
            data.truncate(content.end);
            data.advance(content.start);
            data
        } else {
            let data = arena::keep(input.get(content.clone()).unwrap_or_default());
            input.advance(head.len);
            data
        };
        self.take_data(key, data, head.has(frames::END_STREAM), head.len - content.len())
    }

    fn take_data(&mut self, key: Key, data: Bytes, last: bool, padding: usize) -> Handled {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let len = data.len();
        if stream.rx.left.take(len, EndStream::from_last(last)).is_err() {
            self.give_connection(len + padding);
            return self.length_error(key);
        }
        let unwanted = stream.owner != Owner::Exchange;
        if !unwanted && len > 0 {
            stream.rx.push(data);
            stream.reader.wake();
        }
        if last {
            self.end_receiving(key);
        }
        self.give(key, if unwanted { len + padding } else { padding });
        Ok(())
    }

    /// END_STREAM came.
    pub(crate) fn end_receiving(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.rx.phase = Phase::Ended;
        stream.reader.wake();
        if stream.tx.phase == SendPhase::Done {
            self.close_stream(key);
        }
    }

    /// A mistake of the peer that concerns one stream.
    pub(crate) fn stream_error(&mut self, key: Key, code: u32) -> Handled {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let id = stream.id;
        if stream.is_closed() {
            return self.answer_reset(id, code);
        }
        self.end_by_content(key, code, Failure::Protocol(MESSAGING_RULE))
    }

    /// A body that is no longer or shorter than its head says concerns nobody else (RFC 9113 §8.1.1).
    pub(crate) fn length_error(&mut self, key: Key) -> Handled {
        let details = match self.side.role() {
            // Envoy's word: its stream is reset by itself.
            Role::Server => RESET,
            Role::Client => MESSAGING_RULE,
        };
        self.end_by_content(key, PROTOCOL_ERROR, Failure::Protocol(details))
    }

    /// Ends a stream alone for what came in it.
    pub(crate) fn end_by_content(&mut self, key: Key, code: u32, failure: Failure) -> Handled {
        // To have us reset a stream costs the peer as little as to reset it (CVE-2025-8671).
        let premature = self.note_premature(key);
        self.fail_stream(key, code, failure);
        premature?;
        self.count_answer()
    }

    /// A stream is about to end by the peer's doing, maybe before its response.
    fn note_premature(&mut self, key: Key) -> Handled {
        match self.streams.get(key) {
            Some(stream) if stream.tx.phase == SendPhase::Head && self.side.role() == Role::Server => {
                let age = stream.opened.map(|opened| opened.elapsed()).unwrap_or_default();
                self.rx.resets.on_reset(age).map_err(|flood| self.flooded(flood))
            }
            _ => Ok(()),
        }
    }

    /// RST_STREAM for what is no stream any more, or was not to be one.
    pub(crate) fn answer_reset(&mut self, id: u32, code: u32) -> Handled {
        self.put_reset(id, code);
        self.count_answer()
    }

    /// RFC 9113 §5.3.2: of no use, and counted.
    fn handle_priority(&mut self, head: FrameHead, depends_on: Option<u32>) -> Handled {
        if head.len != 5 {
            return Err(violation(FRAME_SIZE_ERROR));
        }
        if head.stream == 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        if depends_on.map(|id| id & STREAM_MASK) != Some(head.stream) {
            return Ok(());
        }
        // RFC 7540 §5.3.1: of its stream alone.
        match self.target(head.stream) {
            Target::Known(key) => self.stream_error(key, PROTOCOL_ERROR),
            Target::Idle | Target::Closed { .. } => self.answer_reset(head.stream, PROTOCOL_ERROR),
        }
    }

    /// RFC 9113 §6.4.
    fn handle_reset(&mut self, head: FrameHead, code: Option<u32>) -> Handled {
        let (4, Some(code)) = (head.len, code) else { return Err(violation(FRAME_SIZE_ERROR)) };
        if head.stream == 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        let target = self.target(head.stream);
        if target == Target::Idle {
            return Err(violation(PROTOCOL_ERROR));
        }
        self.count(Event::RxReset);
        if code == REFUSED_STREAM {
            self.count(Event::RxRefused);
        }
        let Target::Known(key) = target else { return Ok(()) };
        if self.streams.get(key).is_none_or(Stream::is_closed) {
            return Ok(());
        }
        let premature = self.note_premature(key);
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        stream.failed = Some(Failure::Reset { code: ResetCode::from_wire(code), by_peer: true });
        stream.tx.clear();
        stream.wake();
        let owner = stream.owner;
        self.close_stream(key);
        if owner == Owner::Connection {
            self.remove(key);
        }
        premature
    }

    /// RFC 9113 §6.5.
    fn handle_settings(&mut self, head: FrameHead, payload: &[u8]) -> Handled {
        if head.stream != 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        if head.has(ACK) {
            self.rx.decoder.settings_acknowledged();
            return if payload.is_empty() { Ok(()) } else { Err(violation(FRAME_SIZE_ERROR)) };
        }
        let (entries, []) = payload.as_chunks::<6>() else { return Err(violation(FRAME_SIZE_ERROR)) };
        let window = self.peer.initial_window;
        for entry in entries {
            self.peer.apply(*entry).map_err(violation)?;
        }
        self.tx.encoder.set_peer_max(self.peer.header_table_size);
        let change = i64::from(self.peer.initial_window) - i64::from(window);
        if change != 0 {
            // RFC 9113 §6.9.2.
            let keys: Vec<Key> = self.streams.iter_mut().map(|(key, _)| key).collect();
            for key in keys {
                if !self.widen(key, change) {
                    return Err(violation(FLOW_CONTROL_ERROR));
                }
            }
        }
        self.facts.settings_came = true;
        self.answer(&frames::SETTINGS_ACK)?;
        self.open_waiting();
        Ok(())
    }

    /// RFC 9113 §6.7.
    fn handle_ping(&mut self, head: FrameHead, payload: &[u8]) -> Handled {
        if head.stream != 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        let Ok(payload) = <[u8; 8]>::try_from(payload) else { return Err(violation(FRAME_SIZE_ERROR)) };
        if head.has(ACK) {
            self.facts.ping_answered |= u64::from_be_bytes(payload) == PING;
            return Ok(());
        }
        self.answer(&frames::pong(payload))
    }

    /// RFC 9113 §6.8.
    fn handle_goaway(&mut self, head: FrameHead, last: Option<u32>, code: Option<u32>) -> Handled {
        if head.stream != 0 {
            return Err(violation(PROTOCOL_ERROR));
        }
        let (Some(last), Some(code)) = (last, code) else { return Err(violation(FRAME_SIZE_ERROR)) };
        let last_stream = last & STREAM_MASK;
        let first = self.facts.goaway.is_none();
        self.facts.goaway = Some(GoAway { last_stream, code });
        self.facts.goaway_came = true;
        match self.side.role() {
            Role::Server if first => self.put_goaway(super::codes::NO_ERROR),
            Role::Server => {}
            Role::Client => self.refuse_above(last_stream),
        }
        Ok(())
    }

    /// Streams that the peer has not processed, and never will.
    fn refuse_above(&mut self, last_stream: u32) {
        let refused = |stream: &Stream| {
            stream.failed.is_none() && !stream.is_closed() && (stream.id == 0 || stream.id > last_stream)
        };
        let keys: Vec<Key> =
            self.streams.iter_mut().filter(|(_, stream)| refused(stream)).map(|(key, _)| key).collect();
        self.tx.waiting.clear();
        for key in keys {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.failed = Some(Failure::Reset { code: ResetCode::Refused, by_peer: true });
                stream.tx.clear();
                stream.wake();
            }
            self.close_stream(key);
        }
    }

    /// RFC 9113 §6.9.
    fn handle_window_update(&mut self, head: FrameHead, increment: Option<u32>) -> Handled {
        let (4, Some(increment)) = (head.len, increment) else { return Err(violation(FRAME_SIZE_ERROR)) };
        let by = i64::from(increment & STREAM_MASK);
        if head.stream == 0 {
            self.tx.window += by;
            return match (by, self.tx.window) {
                (0, _) => Err(violation(PROTOCOL_ERROR)),
                (_, window) if window > MAX_WINDOW => Err(violation(FLOW_CONTROL_ERROR)),
                _ => Ok(()),
            };
        }
        match self.target(head.stream) {
            Target::Idle => Err(violation(PROTOCOL_ERROR)),
            Target::Closed { .. } => Ok(()),
            Target::Known(key) if self.streams.get(key).is_none_or(Stream::is_closed) => Ok(()),
            Target::Known(key) if by == 0 => self.stream_error(key, PROTOCOL_ERROR),
            Target::Known(key) if self.widen(key, by) => Ok(()),
            Target::Known(key) => self.stream_error(key, FLOW_CONTROL_ERROR),
        }
    }
}

/// Data up to this size is copied out of the read buffer, which would be held by it.
pub(crate) const ARENA: usize = 2048;
