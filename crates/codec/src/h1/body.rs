//! Bodies from bytes: the decoder for every framing of RFC 9112 §6 and §7.
//!
//! Sans-IO: bytes go into a `BytesMut`, [`Decoder::decode`] takes frames off it without copying, and
//! [`Decoder::at_eof`] says what the end of the connection means. Trailers are checked also when they are
//! dropped.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tidegate_types::EndStream;

use super::parse::{HeadScan, Limits, parse_trailers};
use super::rules::{self, Framing, Violation};
use crate::stream::{BodyFrame, StreamError};

/// Whether trailers reach the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailers {
    /// They are handed on.
    Keep,
    /// They are checked and dropped.
    Drop,
}

/// Reads one message's body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: Limits,
    trailers: Trailers,
    /// Bytes of chunk extensions so far. Bounded, since each costs the sender one byte and us a read
    /// without any body to show for it.
    extensions: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length(u64),
    ChunkSize { scanned: usize },
    ChunkData(u64),
    ChunkEnd,
    TrailerSection(HeadScan),
    UntilClose,
    Tunnel,
    Done,
    Failed(Violation),
}

impl Decoder {
    /// For a message of this framing; `limits` bound its trailers.
    pub fn new(framing: Framing, limits: Limits, trailers: Trailers) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize { scanned: 0 },
            Framing::UntilClose => State::UntilClose,
            Framing::Tunnel => State::Tunnel,
        };
        Self { state, limits, trailers, extensions: 0 }
    }

    /// Whether the body is complete and its end was handed out.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the connection carries another protocol now.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// Whether the end of the connection ends the message.
    pub fn is_until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Whether all that is still due lies in the next `available` bytes.
    pub fn needs_at_most(&self, available: usize) -> bool {
        match self.state {
            State::Done => true,
            State::Length(left) => left <= available as u64,
            _ => false,
        }
    }

    /// Takes the next frame off `buf`; `None` if more bytes are needed.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<BodyFrame>, Violation> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Failed(violation) => return Err(violation),
                State::UntilClose | State::Tunnel => {
                    return Ok(
                        (!buf.is_empty()).then(|| BodyFrame::Data(buf.split().freeze(), EndStream::No))
                    );
                }
                State::Length(left) => {
                    let Some((data, left)) = take_data(buf, left) else { return Ok(None) };
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Some(BodyFrame::Data(data, EndStream::from_last(left == 0))));
                }
                State::ChunkData(left) => {
                    let Some((data, left)) = take_data(buf, left) else { return Ok(None) };
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Ok(Some(self.look_ahead(data, buf)));
                }
                State::ChunkSize { .. } | State::ChunkEnd | State::TrailerSection(_) => {
                    match self.skip_framing(buf) {
                        Ok(Skipped::Incomplete) => return Ok(None),
                        Ok(Skipped::ToData) => {}
                        Ok(Skipped::ToEnd(frame)) => return Ok(Some(frame)),
                        Err(violation) => self.state = State::Failed(violation),
                    }
                }
            }
        }
    }

    /// What the peer's end of stream means here.
    pub fn at_eof(&mut self) -> Result<BodyFrame, StreamError> {
        match self.state {
            State::UntilClose | State::Tunnel => {
                self.state = State::Done;
                Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes))
            }
            _ => Err(StreamError::Closed),
        }
    }

    /// Looks behind a piece of a chunk: the end that is here already saves its own frame, and for a small
    /// response a second write.
    fn look_ahead(&mut self, data: Bytes, buf: &mut BytesMut) -> BodyFrame {
        if !matches!(self.state, State::ChunkEnd) {
            return BodyFrame::Data(data, EndStream::No);
        }
        // Only over what consists of no trailers: those need a frame of their own.
        if buf.starts_with(b"\r\n0\r\n\r\n") {
            buf.advance(7);
            self.state = State::Done;
            return BodyFrame::Data(data, EndStream::Yes);
        }
        BodyFrame::Data(data, EndStream::No)
    }

    /// Walks over everything that is not data, a step a line.
    fn skip_framing(&mut self, buf: &mut BytesMut) -> Result<Skipped, Violation> {
        loop {
            match &mut self.state {
                // ChunkEnd => ChunkSize
                State::ChunkEnd => {
                    match buf.get(..2) {
                        Some(b"\r\n") => buf.advance(2),
                        None if buf.first().is_none_or(|&byte| byte == b'\r') => {
                            return Ok(Skipped::Incomplete);
                        }
                        _ => return Err(Violation::Chunk),
                    }
                    self.state = State::ChunkSize { scanned: 0 };
                }
                // ChunkSize => (ChunkData | TrailerSection)
                State::ChunkSize { scanned } => {
                    let Some(found) = buf.get(*scanned..).and_then(|rest| memchr(b'\n', rest)) else {
                        *scanned = buf.len();
                        let too_long = buf.len() > MAX_CHUNK_LINE;
                        return if too_long { Err(Violation::Chunk) } else { Ok(Skipped::Incomplete) };
                    };
                    let end = *scanned + found;
                    let line =
                        buf.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Violation::Chunk)?;
                    let (size, extension) = rules::parse_chunk_size(line)?;
                    self.extensions += extension;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(Violation::Chunk);
                    }
                    buf.advance(end + 1);
                    if size > 0 {
                        self.state = State::ChunkData(size);
                        return Ok(Skipped::ToData);
                    }
                    self.state = State::TrailerSection(HeadScan::default());
                }
                // TrailerSection => Done
                State::TrailerSection(scan) => {
                    let Some(extent) = scan.find_end(buf, self.limits, 0)? else {
                        return Ok(Skipped::Incomplete);
                    };
                    let block = buf.split_to(extent.len).freeze();
                    let trailers = parse_trailers(&block)?;
                    self.state = State::Done;
                    return Ok(Skipped::ToEnd(if trailers.is_empty() || self.trailers == Trailers::Drop {
                        BodyFrame::Data(Bytes::new(), EndStream::Yes)
                    } else {
                        BodyFrame::Trailers(trailers)
                    }));
                }
                _ => return Ok(Skipped::ToData),
            }
        }
    }
}

enum Skipped {
    Incomplete,
    ToData,
    ToEnd(BodyFrame),
}

/// Up to `left` bytes off `buf`, and what is left after them.
fn take_data(buf: &mut BytesMut, left: u64) -> Option<(Bytes, u64)> {
    if buf.is_empty() {
        return None;
    }
    let take = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
    Some((buf.split_to(take).freeze(), left - take as u64))
}

/// Bytes of a chunk-size line. Stops a peer whose line never ends.
const MAX_CHUNK_LINE: usize = 16 * 1024;

/// Bytes of chunk extensions in a message, all together.
const MAX_EXTENSIONS: usize = 32 * 1024;

#[cfg(test)]
mod tests;
