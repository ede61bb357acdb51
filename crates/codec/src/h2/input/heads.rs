//! Header blocks that came: requests, responses, trailers (RFC 9113 §4.3, §6.2, §8.1).
//!
//! Each block is decoded, whatever becomes of it: the decoder's table is part of the connection.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tidegate_types::EndStream;
use tokio::time::Instant;

use super::{ARENA, Handled, Target, violation};
use crate::fields::{Dialect, Limits, RequestFields, RequestRules, ResponseFields, TrailerFields, Verdict};
use crate::h2::arena;
use crate::h2::codes::{
    COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, INTERNAL_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
    STREAM_CLOSED,
};
use crate::h2::conn::{Core, Role, Side};
use crate::h2::frames::{END_HEADERS, END_STREAM, FrameHead, PRIORITY, STREAM_MASK, number};
use crate::h2::streams::{Failure, Key, Owner, Phase};
use crate::hpack::Field;
use crate::multiplex::{ConnError, Event};
use crate::stream::ResponseFrame;

/// A block in many frames, so far.
pub(crate) struct Block {
    pub(crate) stream: u32,
    start: Start,
    data: BytesMut,
    frames: usize,
}

/// A block that is whole.
struct Whole {
    stream: u32,
    start: Start,
    data: Bytes,
}

/// What a block's first frame says and does.
#[derive(Clone, Copy)]
struct Start {
    end: EndStream,
    depends_on_itself: bool,
    opens: Opens,
}

/// Whether a block opened a stream. It does so with its first frame: an exchange can be bored by the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    No,
    Stream,
    /// There are too many.
    Refused,
}

impl Core {
    /// RFC 9113 §6.2.
    pub(super) fn handle_headers(
        &mut self,
        head: FrameHead,
        input: &mut BytesMut,
        now: &mut Option<Instant>,
    ) -> Handled {
        let payload = input.get(..head.len).unwrap_or_default();
        let Some(mut content) = head.content(payload).filter(|_| head.stream != 0) else {
            return Err(violation(PROTOCOL_ERROR));
        };
        let mut depends_on_itself = false;
        if head.has(PRIORITY) {
            let Some(depends_on) = payload.get(content.clone()).filter(|it| it.len() >= 5).and_then(number)
            else {
                return Err(violation(FRAME_SIZE_ERROR));
            };
            depends_on_itself = depends_on & STREAM_MASK == head.stream;
            content.start += 5;
        }
        let (stream, end) = (head.stream, EndStream::from_last(head.has(END_STREAM)));
        let start = Start { end, depends_on_itself, opens: self.open_request(stream, now) };
        if !head.has(END_HEADERS) {
            let data = BytesMut::from(payload.get(content).unwrap_or_default());
            self.rx.block = Some(Box::new(Block { stream, start, data, frames: 1 }));
            return Ok(());
        }
        let data = if content.len() > ARENA {
            input.split_to(head.len).freeze().slice(content)
        } else {
            arena::keep(payload.get(content).unwrap_or_default())
        };
        self.handle_block(Whole { stream, start, data })
    }

    /// RFC 9113 §6.10.
    pub(super) fn handle_continuation(&mut self, head: FrameHead, input: &BytesMut) -> Handled {
        let Some(block) = &mut self.rx.block else { return Err(violation(PROTOCOL_ERROR)) };
        block.data.extend_from_slice(input.get(..head.len).unwrap_or_default());
        block.frames += 1;
        let most = self.side.common().messages.max_block_bytes();
        if block.data.len() > most || block.frames > MAX_FRAMES + most / BYTES_PER_FRAME {
            return Err(violation(ENHANCE_YOUR_CALM));
        }
        if !head.has(END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.rx.block.take() else { return Ok(()) };
        let Block { stream, start, data, .. } = *block;
        self.handle_block(Whole { stream, start, data: data.freeze() })
    }

    /// The first frame of a client's new stream.
    fn open_request(&mut self, id: u32, now: &mut Option<Instant>) -> Opens {
        // Odd ones are a client's (RFC 9113 §5.1.1).
        if self.side.role() == Role::Client || self.target(id) != Target::Idle || id.is_multiple_of(2) {
            return Opens::No;
        }
        self.rx.last_stream = id;
        self.rx.floods.on_stream();
        if self.open >= self.side.common().max_concurrent_streams
            || self.tx.last_served.is_some_and(|last| id > last)
        {
            return Opens::Refused;
        }
        let key = self.insert();
        self.streams.name(key, id);
        self.open += 1;
        self.rx.accept.push_back(key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.is_open = true;
            stream.opened = Some(*now.get_or_insert_with(Instant::now));
        }
        Opens::Stream
    }

    fn handle_block(&mut self, block: Whole) -> Handled {
        match block.start.opens {
            Opens::Stream => return self.handle_request(block),
            Opens::Refused => {
                self.decode(&block, |_, _| {})?;
                return self.answer_reset(block.stream, REFUSED_STREAM);
            }
            Opens::No => {}
        }
        match self.target(block.stream) {
            Target::Known(key) => self.handle_known(key, block),
            Target::Idle => Err(violation(PROTOCOL_ERROR)),
            // It crossed what ended its stream.
            Target::Closed { forgiven: true } => self.decode(&block, |_, _| {}),
            Target::Closed { forgiven: false } => match &self.side {
                Side::Client(_) => self.decode(&block, |_, _| {}),
                // RFC 9113 §5.1, closed, and §5.1.1: a lower number may never have been used.
                Side::Server(_) if block.stream == self.rx.last_stream => Err(violation(STREAM_CLOSED)),
                Side::Server(_) => Err(violation(PROTOCOL_ERROR)),
            },
        }
    }

    fn decode(&mut self, block: &Whole, mut sink: impl FnMut(Field, usize)) -> Handled {
        self.rx.decoder.decode(&block.data, &mut sink).map_err(|_| violation(COMPRESSION_ERROR))
    }

    /// The whole head of a client's new stream.
    fn handle_request(&mut self, block: Whole) -> Handled {
        let Side::Server(options) = &self.side else { return Ok(()) };
        let mut fields = RequestFields::new(RequestRules::from(&**options));
        self.decode(&block, |field, size| fields.push(field, size))?;
        let key = self.streams.find(block.stream);
        let Some((key, stream)) = key.and_then(|key| Some((key, self.streams.get_mut(key)?))) else {
            // Its exchange did not wait.
            return Ok(());
        };
        if stream.failed.is_some() {
            return Ok(());
        }
        stream.rx.phase = if block.start.end.is_end() { Phase::Ended } else { Phase::Body };
        stream.reader.wake();
        match fields.finish(block.start.end) {
            Ok(received) => {
                stream.rx.left = received.length;
                let dropped = received.dropped;
                stream.rx.request = Some(received);
                self.count_dropped(dropped);
            }
            Err(verdict) => {
                stream.rx.refused = Some(verdict);
                return self.refuse(key, verdict);
            }
        }
        if block.start.depends_on_itself {
            // RFC 7540 §5.3.1.
            return self.stream_error(key, PROTOCOL_ERROR);
        }
        self.check_outbound()
    }

    fn count_dropped(&self, fields: u32) {
        for _ in 0..fields {
            self.count(Event::UnderscoreDropped);
        }
    }

    /// A block for a stream that there is: a response, or trailers.
    fn handle_known(&mut self, key: Key, block: Whole) -> Handled {
        let is_server = matches!(self.side, Side::Server(_));
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let late = match stream.failed {
            Some(Failure::Reset { by_peer: true, .. }) if is_server => Some(STREAM_CLOSED),
            Some(_) => None,
            None if stream.rx.phase == Phase::Ended => Some(STREAM_CLOSED),
            None if stream.rx.phase == Phase::Head => return self.handle_response(key, &block),
            None => return self.handle_trailers(key, &block),
        };
        self.decode(&block, |_, _| {})?;
        match late {
            Some(code) => self.stream_error(key, code),
            None => Ok(()),
        }
    }

    fn handle_trailers(&mut self, key: Key, block: &Whole) -> Handled {
        let mut fields = TrailerFields::new(Limits::from(self.side.common()));
        self.decode(block, |field, size| fields.push(field, size))?;
        self.count(Event::Trailers);
        self.count_dropped(fields.dropped());
        let trailers: HeaderMap = match fields.finish(block.start.end) {
            Ok(trailers) => trailers,
            Err(verdict) => return self.refuse(key, verdict),
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if stream.rx.left.take(0, EndStream::Yes).is_err() {
            return self.length_error(key);
        }
        if !trailers.is_empty() && stream.owner == Owner::Exchange {
            stream.rx.trailers = Some(Box::new(trailers));
        }
        self.end_receiving(key);
        Ok(())
    }

    fn handle_response(&mut self, key: Key, block: &Whole) -> Handled {
        let mut fields = ResponseFields::new(Limits::from(self.side.common()));
        self.decode(block, |field, size| fields.push(field, size))?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let (head, length) = match fields.finish(block.start.end, &stream.rx.asked) {
            Ok(response) => response,
            Err(verdict) => return self.refuse(key, verdict),
        };
        let informational =
            head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS;
        if informational {
            if stream.rx.responses.len() >= MAX_INFORMATIONAL {
                return self.stream_error(key, ENHANCE_YOUR_CALM);
            }
            stream.rx.responses.push_back(ResponseFrame::Informational(head));
            stream.reader.wake();
            return Ok(());
        }
        (stream.rx.phase, stream.rx.left) = (Phase::Body, length);
        if block.start.end.is_end() && stream.rx.left.take(0, EndStream::Yes).is_err() {
            return self.stream_error(key, PROTOCOL_ERROR);
        }
        stream.rx.responses.push_back(ResponseFrame::Head(head, block.start.end));
        stream.reader.wake();
        if block.start.end.is_end() {
            self.end_receiving(key);
        }
        Ok(())
    }

    /// A message that is not taken costs its stream, and a malformed one the connection, unless configured
    /// otherwise (RFC 9113 §8.1.1).
    fn refuse(&mut self, key: Key, verdict: Verdict) -> Handled {
        let code = if verdict.is_malformed() { PROTOCOL_ERROR } else { INTERNAL_ERROR };
        self.count(verdict.event());
        let details = verdict.details(Dialect::Http2);
        let spares_connection = self.side.common().messages.override_stream_error_on_invalid_http_message;
        if !verdict.is_malformed() {
            return self.end_by_content(key, code, Failure::Unwanted(details));
        }
        if spares_connection {
            return self.end_by_content(key, code, Failure::Protocol(details));
        }
        self.fail_stream(key, code, Failure::Protocol(details));
        Err(ConnError::Violation(crate::stream::ResetCode::Protocol))
    }
}

/// Frames of a block: so many, and one more for each so many bytes that it may have. Stops heads in pieces of a
/// byte (CVE-2024-27316).
const MAX_FRAMES: usize = 1024;
const BYTES_PER_FRAME: usize = 1024;

/// 1xx heads that wait to be read. Stops an upstream that sends nothing else.
const MAX_INFORMATIONAL: usize = 32;
