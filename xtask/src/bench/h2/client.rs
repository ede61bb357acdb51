//! The client's side: [`Exchanges`] keeps a number of streams with one fixed [`Request`] under way.

use std::rc::Rc;

use super::super::load::{Exchange, Protocol, ProtocolError};
use super::header_block::{HeaderBlock, Table};
use super::hpack::{Decoder, Name};
use super::{
    DEFAULT_WINDOW, Frame, Frames, MAX_FRAME, PREFACE, flag, kind, push, push_headers, push_settings,
    push_window_update, setting,
};

/// What is asked for, and what answer is right: the same on all connections.
pub(in super::super) struct Request {
    headers: HeaderBlock,
    body: Vec<u8>,
    expected_body: u64,
    /// The answer must end in trailers with `grpc-status: 0`.
    is_grpc: bool,
}

impl Request {
    /// A GET, or with a body a POST of at most one frame, for `path`.
    pub(in super::super) fn new(scheme: &str, path: &str, body: &[u8], expected_body: u64) -> Self {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let length = body.len().to_string();
        let mut fields = pseudo_headers(method, scheme, path);
        if !body.is_empty() {
            fields.push(("content-length", &length));
        }
        fields.extend([("user-agent", USER_AGENT), ("accept", "*/*")]);
        Self { headers: HeaderBlock::new(&fields), body: body.to_vec(), expected_body, is_grpc: false }
    }

    /// A unary gRPC call with a message of `sent` bytes, answered by one of `received` bytes.
    pub(in super::super) fn grpc(path: &str, sent: usize, received: u64) -> Self {
        let mut fields = pseudo_headers("POST", "http", path);
        fields.extend([
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", USER_AGENT),
            ("grpc-accept-encoding", "identity"),
        ]);
        let mut body = vec![0];
        body.extend_from_slice(&(sent as u32).to_be_bytes());
        body.resize(MESSAGE_HEAD + sent, b'y');
        let expected_body = received + MESSAGE_HEAD as u64;
        Self { headers: HeaderBlock::new(&fields), body, expected_body, is_grpc: true }
    }
}

fn pseudo_headers<'a>(method: &'a str, scheme: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", scheme), (":authority", "bench.test"), (":path", path)]
}

const USER_AGENT: &str = "tidegate-bench";

/// A gRPC message's flag and length.
pub(super) const MESSAGE_HEAD: usize = 5;

/// As browsers have it: no response of the benchmark waits for its stream's window.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;

/// One connection's streams.
pub(in super::super) struct Exchanges {
    request: Rc<Request>,
    streams: usize,
    next_id: u32,
    active: Vec<Stream>,
    frames: Frames,
    reader: Reader,
    table: Table,
    /// How much of requests' bodies the server takes now, on the connection and on each new stream.
    window: i64,
    stream_window: i64,
    /// Streams whose body waits for the connection's window.
    held: Vec<u32>,
}

/// What reading needs beside the streams.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    /// A header block of which only the beginning has arrived, and the flags of its first frame.
    block: Vec<u8>,
    block_flags: u8,
    /// Body bytes since the last WINDOW_UPDATE.
    unacknowledged: u32,
}

struct Stream {
    id: u32,
    token: u64,
    status: u16,
    body: u64,
    has_grpc_ok: bool,
}

impl Exchanges {
    /// A connection with at most `streams` requests under way.
    pub(in super::super) fn new(request: Rc<Request>, streams: usize) -> Self {
        Self {
            request,
            streams,
            next_id: 1,
            active: Vec::with_capacity(streams),
            frames: Frames::default(),
            reader: Reader::default(),
            table: Table::default(),
            window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            held: Vec::new(),
        }
    }

    fn on_frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError> {
        let is_inside_block = !self.reader.block.is_empty();
        if is_inside_block != (frame.kind == kind::CONTINUATION) {
            return Err(ProtocolError("a frame inside a header block"));
        }
        match frame.kind {
            kind::DATA => self.on_data(frame, out, done)?,
            kind::HEADERS if frame.has(flag::END_HEADERS) => {
                self.on_block(frame.stream, frame.flags, frame.content()?, done)?;
            }
            kind::HEADERS => {
                self.reader.block.extend_from_slice(frame.content()?);
                self.reader.block_flags = frame.flags;
            }
            kind::CONTINUATION => {
                self.reader.block.extend_from_slice(frame.payload);
                if frame.has(flag::END_HEADERS) {
                    let block = std::mem::take(&mut self.reader.block);
                    self.on_block(frame.stream, self.reader.block_flags, &block, done)?;
                }
            }
            kind::RST_STREAM => {
                if let Some(at) = self.position(frame.stream) {
                    let stream = self.active.swap_remove(at);
                    self.held.retain(|id| *id != stream.id);
                    done(Exchange { token: stream.token, is_good: false, close: false });
                }
            }
            kind::SETTINGS => self.on_settings(frame, out)?,
            kind::PING if !frame.has(flag::ACK) => push(out, kind::PING, flag::ACK, 0, frame.payload),
            kind::GOAWAY => return Err(ProtocolError("the server said GOAWAY")),
            kind::PUSH_PROMISE => return Err(ProtocolError("a push although they are disabled")),
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += frame.increment();
                self.release(out);
            }
            // A body that was sent at once needs no more window; priorities and extensions do not matter.
            _ => {}
        }
        Ok(())
    }

    fn on_settings(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if frame.has(flag::ACK) {
            return Ok(());
        }
        let (mut table_size, mut limit) = (None, u32::MAX);
        frame.settings(|id, value| match id {
            setting::HEADER_TABLE_SIZE => table_size = Some(value),
            setting::MAX_CONCURRENT_STREAMS => limit = value,
            setting::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
            _ => {}
        });
        self.table.allow(table_size);
        push(out, kind::SETTINGS, flag::ACK, 0, &[]);
        if (limit as usize) < self.streams {
            return Err(ProtocolError("the server allows fewer streams than the scenario needs"));
        }
        if self.stream_window < self.request.body.len() as i64 {
            return Err(ProtocolError("the server's window is smaller than the request's body"));
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError> {
        // RFC 9113 section 6.9.1: padding counts for flow control too.
        self.reader.unacknowledged += frame.payload.len() as u32;
        if self.reader.unacknowledged >= CONNECTION_WINDOW / 2 {
            push_window_update(out, 0, self.reader.unacknowledged);
            self.reader.unacknowledged = 0;
        }
        let length = frame.content()?.len() as u64;
        // A stream that was reset may still bring what was under way.
        let Some(at) = self.position(frame.stream) else { return Ok(()) };
        self.active[at].body += length;
        if frame.has(flag::END_STREAM) {
            self.finish(at, done);
        }
        Ok(())
    }

    fn on_block(
        &mut self,
        id: u32,
        flags: u8,
        block: &[u8],
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError> {
        let (mut status, mut has_grpc_ok) = (None, false);
        self.reader.decoder.decode(block, |name, value| match name {
            Name::Status => status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            Name::GrpcStatus => has_grpc_ok = value == b"0",
            Name::Path | Name::Other => {}
        })?;
        let Some(at) = self.position(id) else { return Ok(()) };
        let stream = &mut self.active[at];
        stream.has_grpc_ok |= has_grpc_ok;
        if stream.status < 200 {
            stream.status = status.ok_or(ProtocolError("a response without a status"))?;
        } else if status.is_some() || flags & flag::END_STREAM == 0 {
            return Err(ProtocolError("a second response on a stream"));
        }
        if flags & flag::END_STREAM != 0 {
            self.finish(at, done);
        }
        Ok(())
    }

    fn position(&self, id: u32) -> Option<usize> {
        // Answers mostly come in the order of the requests.
        self.active.iter().position(|stream| stream.id == id)
    }

    fn finish(&mut self, at: usize, done: &mut dyn FnMut(Exchange)) {
        let stream = self.active.swap_remove(at);
        let request = &self.request;
        let is_good = stream.status == 200
            && stream.body == request.expected_body
            && (stream.has_grpc_ok || !request.is_grpc);
        // An answer may come before the body was taken.
        self.held.retain(|id| *id != stream.id);
        done(Exchange { token: stream.token, is_good, close: false });
    }

    /// Sends the bodies that the connection's window allows now.
    fn release(&mut self, out: &mut Vec<u8>) {
        let length = self.request.body.len();
        while self.window >= length as i64 {
            let Some(id) = self.held.pop() else { return };
            self.window -= length as i64;
            push(out, kind::DATA, flag::END_STREAM, id, &self.request.body);
        }
    }
}

impl Protocol for Exchanges {
    fn capacity(&self) -> usize {
        self.streams
    }

    fn start(&mut self, token: u64, out: &mut Vec<u8>) {
        if self.next_id == 1 {
            out.extend_from_slice(PREFACE);
            push_settings(out, &[(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW)]);
            push_window_update(out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW as u32);
        }
        let id = self.next_id;
        self.next_id += 2;
        let has_body = !self.request.body.is_empty();
        let end = if has_body { flag::NONE } else { flag::END_STREAM };
        push_headers(out, end, id, |out| self.request.headers.encode(&mut self.table, out));
        debug_assert!(self.request.body.len() <= MAX_FRAME);
        self.active.push(Stream { id, token, status: 0, body: 0, has_grpc_ok: false });
        if has_body {
            self.held.push(id);
            self.release(out);
        }
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError> {
        // Taken out so that a frame may change the rest of this value.
        let mut frames = std::mem::take(&mut self.frames);
        let outcome = frames.read(bytes, &mut |frame| self.on_frame(frame, out, done));
        self.frames = frames;
        outcome
    }
}
