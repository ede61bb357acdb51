//! HTTP/1.1 messages as the tests see them: a head as text, a body put together.
//!
//! Not a parser to trust: it reads what well-behaved peers write, and keeps the exact bytes of the head for
//! assertions.

use crate::wire::End;

/// A request as an upstream received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The exact head, with its blank line.
    pub head: String,
    /// The body, chunks put together.
    pub body: Vec<u8>,
    /// The trailer lines, as sent.
    pub trailers: String,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

/// A response as the client received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The exact head, with its blank line.
    pub head: String,
    /// The body, chunks put together.
    pub body: Vec<u8>,
    /// The trailer lines, as sent.
    pub trailers: String,
}

/// A body as it was framed.
struct Body {
    data: Vec<u8>,
    trailers: String,
    /// Where it ends in the bytes.
    end: usize,
}

impl Request {
    /// A whole request at the start of `bytes`, and its length.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let start = head_end(bytes)?;
        let head = String::from_utf8_lossy(&bytes[..start]).into_owned();
        let body = match (chunked(&head), header(&head, "content-length")) {
            (true, _) => chunks(bytes, start)?,
            (false, Some(length)) => sized(bytes, start, length.parse().ok()?)?,
            (false, None) => sized(bytes, start, 0)?,
        };
        Some((Self { head, body: body.data, trailers: body.trailers, connection: 0 }, body.end))
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The target.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

impl Response {
    /// A whole final response to `method` at the start of `bytes`, and its length. Interim ones (1xx but 101)
    /// are responses of their own.
    pub fn parse(bytes: &[u8], method: &str, end: End) -> Option<(Self, usize)> {
        let start = head_end(bytes)?;
        let head = String::from_utf8_lossy(&bytes[..start]).into_owned();
        let status = head.split(' ').nth(1)?.split_whitespace().next()?.parse().ok()?;
        let body = match (chunked(&head), header(&head, "content-length")) {
            _ if method == "HEAD"
                || status < 200
                || status == 204
                || (status == 304 && start == bytes.len()) =>
            {
                sized(bytes, start, 0)?
            }
            (true, _) => chunks(bytes, start)?,
            (false, Some(length)) => sized(bytes, start, length.parse().ok()?)?,
            (false, None) if end != End::Open => sized(bytes, start, bytes.len() - start)?,
            (false, None) => return None,
        };
        Some((Self { status, head, body: body.data, trailers: body.trailers }, body.end))
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        headers(&self.head, name).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The names of the headers in their order.
    pub fn names(&self) -> Vec<&str> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect()
    }

    /// Whether the proxy said that it closes.
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// Where the head ends, its blank line included.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn headers<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    headers(head, name).next()
}

fn chunked(head: &str) -> bool {
    header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
}

fn sized(bytes: &[u8], start: usize, length: usize) -> Option<Body> {
    let end = start.checked_add(length)?;
    Some(Body { data: bytes.get(start..end)?.to_vec(), trailers: String::new(), end })
}

fn chunks(bytes: &[u8], start: usize) -> Option<Body> {
    let mut data = Vec::new();
    let mut at = start;
    loop {
        let line = line(bytes, at)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
    }
    let mut trailers = String::new();
    loop {
        let line = line(bytes, at)?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some(Body { data, trailers, end: at });
        }
        trailers.push_str(&line);
        trailers.push_str("\r\n");
    }
}

fn line(bytes: &[u8], start: usize) -> Option<String> {
    let rest = bytes.get(start..)?;
    let length = rest.windows(2).position(|window| window == b"\r\n")?;
    Some(String::from_utf8_lossy(&rest[..length]).into_owned())
}
