//! HTTP/1.1 as the load generator speaks it: one request at a time, responses read piece by piece.
//!
//! [`ResponseReader`] understands what a benchmark meets (a status line, `content-length`, chunked coding,
//! `connection: close`) and refuses everything else; it is no general parser. [`H1`] makes it a [`Protocol`].

use super::load::{Exchange, Protocol, ProtocolError};

/// Where in a response the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body {
        left: u64,
    },
    ChunkSize,
    /// `left` counts the chunk's data and the CRLF after it.
    Chunk {
        left: u64,
    },
    Trailers,
}

/// A response that has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Bytes of body, chunk framing not counted.
    pub(super) body: u64,
    /// The server will close the connection.
    pub(super) close: bool,
}

/// Reads responses from byte slices that may end anywhere.
#[derive(Debug)]
pub(super) struct ResponseReader {
    state: State,
    /// A head or a chunk line of which only the beginning has arrived.
    partial: Vec<u8>,
    response: Response,
}

/// Longest head and chunk line that the reader takes, so that a broken proxy cannot fill the memory.
const LINE_LIMIT: usize = 64 * 1024;

const FRESH: Response = Response { status: 0, body: 0, close: false };

impl ResponseReader {
    /// A reader at the beginning of a response.
    pub(super) fn new() -> Self {
        Self { state: State::Head, partial: Vec::new(), response: FRESH }
    }

    /// Reads from the front of `bytes`; answers how many it took and, at its end, the response.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Response>), ProtocolError> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self.state {
                State::Head => {
                    let Some(taken) = self.gather(rest, b"\r\n\r\n")? else { return Ok((bytes.len(), None)) };
                    at += taken;
                    let used = if self.partial.is_empty() { &rest[..taken] } else { &self.partial[..] };
                    let (response, state) = read_head(used)?;
                    self.partial.clear();
                    // An interim response is followed by the real one.
                    if response.status < 200 {
                        continue;
                    }
                    (self.response, self.state) = (response, state);
                    if state == (State::Body { left: 0 }) {
                        return Ok((at, Some(self.finish())));
                    }
                }
                State::Body { left } => {
                    let taken = left.min(rest.len() as u64);
                    at += taken as usize;
                    self.response.body += taken;
                    self.state = State::Body { left: left - taken };
                    return Ok((at, (left == taken).then(|| self.finish())));
                }
                State::ChunkSize => {
                    let Some(taken) = self.gather(rest, b"\r\n")? else { return Ok((bytes.len(), None)) };
                    at += taken;
                    let used = if self.partial.is_empty() { &rest[..taken] } else { &self.partial[..] };
                    let size = read_chunk_size(used)?;
                    self.partial.clear();
                    self.response.body += size;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk { left: size + 2 } };
                }
                State::Chunk { left } => {
                    let taken = left.min(rest.len() as u64);
                    at += taken as usize;
                    self.state = State::Chunk { left: left - taken };
                    if left > taken {
                        return Ok((at, None));
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailers => {
                    let Some(taken) = self.gather(rest, b"\r\n")? else { return Ok((bytes.len(), None)) };
                    at += taken;
                    let is_last = if self.partial.is_empty() { taken == 2 } else { self.partial == b"\r\n" };
                    self.partial.clear();
                    if is_last {
                        return Ok((at, Some(self.finish())));
                    }
                }
            }
        }
    }

    fn finish(&mut self) -> Response {
        self.state = State::Head;
        std::mem::replace(&mut self.response, FRESH)
    }

    /// Looks for `end`; answers how many bytes of `rest` belong before and to it. When earlier bytes had been
    /// kept, the whole is in `partial`; when `end` is still missing, `rest` is kept too.
    fn gather(&mut self, rest: &[u8], end: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.partial.is_empty() {
            if let Some(at) = find(rest, end) {
                return Ok(Some(at + end.len()));
            }
            self.partial.extend_from_slice(rest);
        } else {
            // The end may lie across the border: search from where a match could begin.
            let kept = self.partial.len();
            let from = kept.saturating_sub(end.len() - 1);
            self.partial.extend_from_slice(rest);
            if let Some(at) = find(&self.partial[from..], end) {
                let length = from + at + end.len();
                self.partial.truncate(length);
                return Ok(Some(length - kept));
            }
        }
        if self.partial.len() > LINE_LIMIT { Err(ProtocolError("endless head")) } else { Ok(None) }
    }
}

/// Position of `needle` in `haystack`.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn read_head(head: &[u8]) -> Result<(Response, State), ProtocolError> {
    let text = std::str::from_utf8(head).map_err(|_| ProtocolError("head is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| digits.parse().ok())
        .ok_or(ProtocolError("bad status line"))?;
    let mut response = Response { status, ..FRESH };
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| ProtocolError("bad content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            response.close |= value.eq_ignore_ascii_case("close");
        }
    }
    let state = match (chunked, length) {
        (true, _) => State::ChunkSize,
        (false, Some(left)) => State::Body { left },
        (false, None) if matches!(status, 100..=199 | 204 | 304) => State::Body { left: 0 },
        (false, None) => return Err(ProtocolError("response without a length")),
    };
    Ok((response, state))
}

fn read_chunk_size(line: &[u8]) -> Result<u64, ProtocolError> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.trim_end().split(';').next().unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| ProtocolError("bad chunk size"))
}

/// A connection that sends one fixed request again and again.
pub(super) struct H1 {
    request: Vec<u8>,
    expected_body: u64,
    reader: ResponseReader,
    token: Option<u64>,
}

impl H1 {
    /// Sends `request` as it is and wants a 200 with `expected_body` bytes.
    pub(super) fn new(request: &[u8], expected_body: u64) -> Self {
        Self { request: request.to_vec(), expected_body, reader: ResponseReader::new(), token: None }
    }
}

impl Protocol for H1 {
    fn capacity(&self) -> usize {
        1
    }

    fn start(&mut self, token: u64, out: &mut Vec<u8>) {
        self.token = Some(token);
        out.extend_from_slice(&self.request);
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError> {
        let mut at = 0;
        while at < bytes.len() {
            let (taken, response) = self.reader.read(&bytes[at..])?;
            at += taken;
            let Some(response) = response else { continue };
            let token = self.token.take().ok_or(ProtocolError("a response that nobody asked for"))?;
            let is_good = response.status == 200 && response.body == self.expected_body;
            done(Exchange { token, is_good, close: response.close });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\na\r\n0123456789\r\n0\r\nt: 1\r\n\r\n\
        HTTP/1.1 503 No\r\ncontent-length: 0\r\nConnection: close\r\n\r\n";

    fn responses(pieces: &[&[u8]]) -> Vec<Response> {
        let mut reader = ResponseReader::new();
        let mut responses = Vec::new();
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() {
                let (taken, response) = reader.read(&piece[at..]).unwrap();
                at += taken;
                responses.extend(response);
            }
        }
        responses
    }

    fn expected() -> Vec<Response> {
        vec![
            Response { status: 200, body: 5, close: false },
            Response { status: 200, body: 13, close: false },
            Response { status: 503, body: 0, close: true },
        ]
    }

    #[test]
    fn responses_in_one_piece() {
        assert_eq!(responses(&[STREAM]), expected());
    }

    #[test]
    fn responses_split_anywhere() {
        for first in 0..STREAM.len() {
            for second in [first, (first + 1).min(STREAM.len()), (first + 7).min(STREAM.len())] {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(responses(&pieces), expected(), "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn responses_byte_by_byte() {
        let pieces: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(responses(&pieces), expected());
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        ] {
            assert!(ResponseReader::new().read(bytes).is_err());
        }
    }

    #[test]
    fn a_wrong_body_is_not_good() {
        let mut client = H1::new(b"GET / HTTP/1.1\r\n\r\n", 6);
        client.start(7, &mut Vec::new());
        let mut seen = Vec::new();
        let mut receive = |bytes: &[u8]| client.receive(bytes, &mut Vec::new(), &mut |e| seen.push(e));
        receive(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
        assert!(receive(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err());
        assert_eq!(seen, [Exchange { token: 7, is_good: false, close: false }]);
    }
}
