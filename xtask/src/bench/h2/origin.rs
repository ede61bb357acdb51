//! The server's side: [`Origin`] answers `/h2/N` with N bytes, and `/bench.Bench/N` as a unary gRPC call. It
//! refuses what the origin's HTTP/1.1 answers and the other way round, so that no proxy can be measured with
//! another protocol than it was set up for.

use std::collections::VecDeque;

use super::super::load::ProtocolError;
use super::client::MESSAGE_HEAD;
use super::header_block::{HeaderBlock, Table};
use super::hpack::{Decoder, Name};
use super::{
    DEFAULT_WINDOW, Frame, Frames, MAX_FRAME, PREFACE, flag, kind, push, push_head, push_headers,
    push_settings, push_window_update, setting,
};

/// The path of gRPC calls, up to the size of the answer.
pub(in super::super) const GRPC_PATH: &str = "/bench.Bench/";

/// The path of all else.
pub(in super::super) const PLAIN_PATH: &str = "/h2/";

/// One connection, without its socket.
pub(in super::super) struct Origin {
    /// Bytes of the client's preface still to come.
    preface_left: usize,
    frames: Frames,
    decoder: Decoder,
    /// A header block of which only the beginning has arrived, and the flags of its first frame.
    block: Vec<u8>,
    block_flags: u8,
    table: Table,
    /// The answer whose headers are in the client's table, or may go there.
    tabled: Option<(Answer, HeaderBlock)>,
    /// What the client takes, on the connection and on each new stream.
    window: i64,
    stream_window: i64,
    /// Requests that have not ended.
    incoming: Vec<Stream>,
    /// Answers whose body waits for a window.
    outgoing: VecDeque<Stream>,
    /// Body bytes since the last WINDOW_UPDATE.
    unacknowledged: u32,
}

struct Stream {
    id: u32,
    answer: Answer,
    left: usize,
    window: i64,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    size: usize,
    is_grpc: bool,
}

/// As of many servers, and the least that RFC 9113 section 6.5.2 recommends.
const MAX_STREAMS: u32 = 100;

/// What clients may send before they are told more.
const RECEIVE_WINDOW: u32 = 1 << 20;

static BODY: [u8; MAX_FRAME] = [b'x'; MAX_FRAME];

impl Origin {
    /// A connection at its beginning; its greeting goes to `out`.
    pub(in super::super) fn new(out: &mut Vec<u8>) -> Self {
        push_settings(
            out,
            &[(setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS), (setting::INITIAL_WINDOW_SIZE, RECEIVE_WINDOW)],
        );
        push_window_update(out, 0, RECEIVE_WINDOW - DEFAULT_WINDOW as u32);
        Self {
            preface_left: PREFACE.len(),
            frames: Frames::default(),
            decoder: Decoder::default(),
            block: Vec::new(),
            block_flags: 0,
            table: Table::default(),
            tabled: None,
            window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            unacknowledged: 0,
        }
    }

    /// Takes received bytes and appends what is to be sent.
    pub(in super::super) fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let skipped = self.preface_left.min(bytes.len());
        self.preface_left -= skipped;
        // Taken out so that a frame may change the rest of this value.
        let mut frames = std::mem::take(&mut self.frames);
        let outcome = frames.read(&bytes[skipped..], &mut |frame| self.on_frame(frame, out));
        self.frames = frames;
        outcome
    }

    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match frame.kind {
            kind::HEADERS if frame.has(flag::END_HEADERS) => {
                self.on_block(frame.stream, frame.flags, frame.content()?, out)?;
            }
            kind::HEADERS => {
                self.block.extend_from_slice(frame.content()?);
                self.block_flags = frame.flags;
            }
            kind::CONTINUATION => {
                self.block.extend_from_slice(frame.payload);
                if frame.has(flag::END_HEADERS) {
                    let block = std::mem::take(&mut self.block);
                    self.on_block(frame.stream, self.block_flags, &block, out)?;
                }
            }
            kind::DATA => self.on_data(frame, out),
            kind::RST_STREAM => {
                self.incoming.retain(|stream| stream.id != frame.stream);
                self.outgoing.retain(|stream| stream.id != frame.stream);
            }
            kind::SETTINGS if !frame.has(flag::ACK) => self.on_settings(frame, out),
            kind::PING if !frame.has(flag::ACK) => push(out, kind::PING, flag::ACK, 0, frame.payload),
            kind::WINDOW_UPDATE => {
                if frame.stream == 0 {
                    self.window += frame.increment();
                } else {
                    let mut streams = self.incoming.iter_mut().chain(&mut self.outgoing);
                    if let Some(stream) = streams.find(|stream| stream.id == frame.stream) {
                        stream.window += frame.increment();
                    }
                }
                self.pump(out);
            }
            // A client that says GOAWAY closes when it has its answers.
            _ => {}
        }
        Ok(())
    }

    fn on_settings(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        let mut table_size = None;
        let former = self.stream_window;
        frame.settings(|id, value| match id {
            setting::HEADER_TABLE_SIZE => table_size = Some(value),
            setting::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
            _ => {}
        });
        self.table.allow(table_size);
        // RFC 9113 section 6.9.2: a change counts for streams that are open already.
        for stream in self.incoming.iter_mut().chain(&mut self.outgoing) {
            stream.window += self.stream_window - former;
        }
        push(out, kind::SETTINGS, flag::ACK, 0, &[]);
        self.pump(out);
    }

    fn on_block(&mut self, id: u32, flags: u8, block: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let mut answer = None;
        self.decoder.decode(block, |name, value| {
            if name == Name::Path {
                answer = wanted(value);
            }
        })?;
        let ends = flags & flag::END_STREAM != 0;
        if let Some(at) = self.incoming.iter().position(|stream| stream.id == id) {
            // Trailers.
            let stream = self.incoming.swap_remove(at);
            self.answer(stream, out);
            return Ok(());
        }
        let answer = answer.ok_or(ProtocolError("a request for an unknown path"))?;
        let left = answer.size + if answer.is_grpc { MESSAGE_HEAD } else { 0 };
        let stream = Stream { id, answer, left, window: self.stream_window };
        if ends {
            self.answer(stream, out);
        } else {
            self.incoming.push(stream);
        }
        Ok(())
    }

    fn on_data(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        let length = frame.payload.len() as u32;
        self.unacknowledged += length;
        if self.unacknowledged >= RECEIVE_WINDOW / 2 {
            push_window_update(out, 0, self.unacknowledged);
            self.unacknowledged = 0;
        }
        let Some(at) = self.incoming.iter().position(|stream| stream.id == frame.stream) else { return };
        if frame.has(flag::END_STREAM) {
            let stream = self.incoming.swap_remove(at);
            self.answer(stream, out);
        } else if length > 0 {
            push_window_update(out, frame.stream, length);
        }
    }

    /// Begins an answer, and ends it when the windows allow that.
    fn answer(&mut self, stream: Stream, out: &mut Vec<u8>) {
        let Stream { id, answer, left, .. } = stream;
        let flags = if left == 0 { flag::END_STREAM } else { flag::NONE };
        let (tabled, headers) = self.tabled.get_or_insert_with(|| (answer, answer.headers()));
        push_headers(out, flags, id, |out| {
            if *tabled == answer {
                headers.encode(&mut self.table, out);
            } else {
                answer.headers().encode_literally(out);
            }
        });
        if left > 0 {
            self.outgoing.push_back(stream);
            self.pump(out);
        }
    }

    /// Sends bodies, a frame of each in turn, as the windows allow.
    fn pump(&mut self, out: &mut Vec<u8>) {
        let mut blocked = 0;
        while blocked < self.outgoing.len() && self.window > 0 {
            let Some(mut stream) = self.outgoing.pop_front() else { return };
            let allowed = self.window.min(stream.window).clamp(0, MAX_FRAME as i64) as usize;
            let length = stream.left.min(allowed);
            if length == 0 {
                blocked += 1;
                self.outgoing.push_back(stream);
                continue;
            }
            blocked = 0;
            let first = stream.left == stream.answer.size + MESSAGE_HEAD && stream.answer.is_grpc;
            stream.left -= length;
            stream.window -= length as i64;
            self.window -= length as i64;
            let ends = stream.left == 0 && !stream.answer.is_grpc;
            push_head(out, length, kind::DATA, if ends { flag::END_STREAM } else { flag::NONE }, stream.id);
            let at = out.len();
            out.extend_from_slice(&BODY[..length]);
            if let (true, Some(head)) = (first, out[at..].first_chunk_mut::<MESSAGE_HEAD>()) {
                let [a, b, c, d] = (stream.answer.size as u32).to_be_bytes();
                *head = [0, a, b, c, d];
            }
            if stream.left > 0 {
                self.outgoing.push_back(stream);
            } else if stream.answer.is_grpc {
                push_headers(out, flag::END_STREAM, stream.id, |out| out.extend_from_slice(GRPC_TRAILERS));
            }
        }
    }
}

/// `grpc-status: 0`, a literal that goes into no table.
const GRPC_TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

impl Answer {
    fn headers(self) -> HeaderBlock {
        if self.is_grpc {
            return HeaderBlock::new(&[(":status", "200"), ("content-type", "application/grpc")]);
        }
        let length = self.size.to_string();
        HeaderBlock::new(&[(":status", "200"), ("content-type", "text/plain"), ("content-length", &length)])
    }
}

/// What a path asks for.
fn wanted(path: &[u8]) -> Option<Answer> {
    let path = std::str::from_utf8(path).ok()?;
    let (size, is_grpc) = match path.strip_prefix(GRPC_PATH) {
        Some(size) => (size, true),
        None => (path.strip_prefix(PLAIN_PATH)?, false),
    };
    Some(Answer { size: size.parse().ok()?, is_grpc })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::super::load::{Exchange, Protocol};
    use super::super::client::{Exchanges, Request};
    use super::*;

    /// Lets a client with `streams` streams make `requests` requests, in pieces of `piece` bytes.
    fn talk(request: Request, streams: usize, requests: u64, piece: usize) -> Vec<Exchange> {
        let mut client = Exchanges::new(Rc::new(request), streams);
        let (mut up, mut down, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        let mut origin = Origin::new(&mut down);
        let mut issued = 0;
        while issued < requests.min(streams as u64) {
            client.start(issued, &mut up);
            issued += 1;
        }
        while !up.is_empty() || !down.is_empty() {
            let before = seen.len();
            for piece in std::mem::take(&mut down).chunks(piece) {
                client.receive(piece, &mut up, &mut |exchange| seen.push(exchange)).unwrap();
            }
            for _ in before..seen.len() {
                if issued < requests {
                    client.start(issued, &mut up);
                    issued += 1;
                }
            }
            for piece in std::mem::take(&mut up).chunks(piece) {
                origin.read(piece, &mut down).unwrap();
            }
        }
        seen.sort_by_key(|exchange| exchange.token);
        seen
    }

    fn all_good(count: u64) -> Vec<Exchange> {
        (0..count).map(|token| Exchange { token, is_good: true, close: false }).collect()
    }

    #[test]
    fn many_small_answers() {
        for piece in [1, 7, 100, 1 << 20] {
            let request = Request::new("http", "/h2/100", &[], 100);
            assert_eq!(talk(request, 8, 50, piece), all_good(50), "pieces of {piece}");
        }
    }

    #[test]
    fn long_answers_wait_for_windows() {
        let size = 1 << 20;
        assert_eq!(talk(Request::new("http", "/h2/1048576", &[], size), 32, 64, 50_000), all_good(64));
    }

    #[test]
    fn bodies_wait_for_windows() {
        let request = Request::new("http", "/h2/5", &[b'y'; 16_000], 5);
        assert_eq!(talk(request, 32, 300, 9_999), all_good(300));
    }

    #[test]
    fn calls_end_in_trailers() {
        let call = |received| Request::grpc("/bench.Bench/40", 20, received);
        assert_eq!(talk(call(40), 4, 9, 11), all_good(9));
        assert!(!talk(call(41), 1, 1, 11)[0].is_good);
        assert!(talk(Request::grpc("/h2/45", 3, 40), 1, 1, 11).iter().all(|exchange| !exchange.is_good));
    }

    #[test]
    fn unknown_paths_are_refused() {
        assert_eq!(wanted(b"/bench.Bench/7"), Some(Answer { size: 7, is_grpc: true }));
        assert_eq!(wanted(b"/h2/7"), Some(Answer { size: 7, is_grpc: false }));
        assert_eq!(wanted(b"/7"), None);
    }
}
