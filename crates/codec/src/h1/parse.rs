//! Heads from bytes: the incremental search for a head's end, and the request and response parsers.
//!
//! Sans-IO. Cuts bytes apart; what they may say is judged by [`rules`]. Values are slices
//! of the head's own block, so that parsing copies nothing. Start from [`HeadScan`], then
//! [`parse_request`] and [`parse_response`].

mod names;
mod target;
mod written;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use memchr::memchr;
use tidegate_types::fields::remove_in_order;
use tidegate_types::spare;
use tidegate_types::{RequestHead, ResponseHead};

use self::names::Meaning;
use super::options::{KeptNames, ServerOptions};
use super::rules::{self, Asked, Fields, Framing, Keep, Violation};

/// Bounds on a head, or on trailers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, from the first of the start line to the last CRLF.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// The search for the empty line that ends a head; never looks at a byte twice, however the head is
/// cut into reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

/// A complete head's extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, with the empty line.
    pub len: usize,
    /// Lines, without the empty line.
    pub lines: usize,
}

/// Where the lines of a head end, as one call of [`HeadScan::find_end`] found it: what the parser need not look
/// for again.
#[derive(Debug, Default)]
struct LineEnds {
    /// The line that the first of `ends` ends.
    first: usize,
    count: usize,
    ends: [u32; MAX_LINE_ENDS],
}

impl LineEnds {
    fn push(&mut self, end: usize) {
        if let Some(place) = self.ends.get_mut(self.count) {
            *place = end as u32;
            self.count += 1;
        }
    }

    /// Where line `line` ends that begins at `start`.
    fn of(&self, line: usize, start: usize, block: &[u8]) -> Option<usize> {
        let known = line.checked_sub(self.first).filter(|at| *at < self.count);
        match known.and_then(|at| self.ends.get(at)) {
            Some(end) => Some(*end as usize),
            None => memchr(b'\n', block.get(start..)?).map(|end| start + end),
        }
    }
}

impl HeadScan {
    /// Goes on in `buf`, which begins where the head begins. `start_lines` is 1 for a head and 0 for
    /// trailers.
    pub fn find_end(
        &mut self,
        buf: &[u8],
        limits: Limits,
        start_lines: usize,
    ) -> Result<Option<Extent>, Violation> {
        self.find_lines(buf, limits, start_lines, &mut LineEnds::default())
    }

    /// The same, which notes the lines' ends.
    fn find_lines(
        &mut self,
        buf: &[u8],
        limits: Limits,
        start_lines: usize,
        ends: &mut LineEnds,
    ) -> Result<Option<Extent>, Violation> {
        ends.first = self.lines;
        while let Some(found) = buf.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let end = self.scanned + found;
            // A recipient MAY take a bare LF for a line's end (RFC 9112 §2.2); readers that differ in it
            // can be played off against each other.
            if end == self.line_start || buf.get(end - 1) != Some(&b'\r') {
                return Err(Violation::LineEnd);
            }
            self.scanned = end + 1;
            if self.scanned > limits.bytes {
                return Err(Violation::HeadTooLarge);
            }
            if end - 1 == self.line_start {
                return Ok(Some(Extent { len: self.scanned, lines: self.lines }));
            }
            ends.push(end);
            self.line_start = self.scanned;
            self.lines += 1;
            if self.lines > limits.fields.saturating_add(start_lines) {
                return Err(Violation::TooManyFields);
            }
        }
        self.scanned = buf.len();
        if buf.len() >= limits.bytes { Err(Violation::HeadTooLarge) } else { Ok(None) }
    }

    /// Whether the search has seen any byte.
    pub fn has_begun(&self) -> bool {
        self.scanned > 0
    }
}

/// A request head and what its fields say about the connection.
#[derive(Debug)]
pub struct ParsedRequest {
    /// The head.
    pub head: Box<RequestHead>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may serve another request afterwards.
    pub persists: bool,
    /// Whether the client waits for 100 (Continue).
    pub expects_continue: bool,
}

/// Why a request is refused, and what could be read of it.
#[derive(Debug)]
pub struct RefusedRequest {
    /// The rule.
    pub violation: Violation,
    /// The head, when it could be cut apart.
    pub head: Option<Box<RequestHead>>,
    /// Nothing follows the head, and the client would go on.
    pub leaves_connection: bool,
}

impl From<Violation> for RefusedRequest {
    fn from(violation: Violation) -> Self {
        Self { violation, head: None, leaves_connection: false }
    }
}

/// Takes a complete request head off `buf`, or says that more bytes are needed.
pub fn parse_request(
    buf: &mut BytesMut,
    scan: &mut HeadScan,
    options: &ServerOptions,
) -> Result<Option<ParsedRequest>, RefusedRequest> {
    let limits = Limits { bytes: options.max_head_bytes, fields: options.max_headers };
    // No need to wait for a line's end that may never come: TLS on a plaintext port, for instance.
    if buf.first().is_some_and(|first| !first.is_ascii_alphabetic() && !options.allow_custom_methods) {
        return Err(Violation::Method.into());
    }
    let mut ends = LineEnds::default();
    let Some(extent) = scan.find_lines(buf, limits, 1, &mut ends)? else { return Ok(None) };
    let block = buf.split_to(extent.len).freeze();
    let (line, at) = first_line(&block, &ends)?;
    let line = RequestLine::parse(line)?;
    let target = target::parse(&block, line.target, &line.method, options)?;

    let mut headers = header_map(extent.lines + ADDED_FIELDS)?;
    let fields = parse_fields(&block, at, &ends, &mut headers, names::is_joined_in_requests)?;
    let authority = match target.authority {
        Some(authority) => authority,
        None => fields.host.as_ref().map(|host| block.slice_ref(host.as_bytes())).unwrap_or_default(),
    };
    let mut head = Box::new(RequestHead {
        method: line.method,
        scheme: target.scheme.unwrap_or(options.scheme),
        authority,
        path: target.path,
        version: line.version,
        headers,
        upgrade: None,
        names: options.keep_names.map(|keep| written::request(&block, at, keep)),
    });
    match judge_request(&mut head, &fields, options) {
        Ok(framing) => Ok(Some(ParsedRequest {
            framing,
            // After a message with both framings the connection MUST be closed (RFC 9112 §6.1).
            persists: fields.persists(head.version)
                && !(framing == Framing::Chunked && fields.content_length().is_some()),
            expects_continue: fields.expects_continue
                && !options.proxy_100_continue
                && head.version == Version::HTTP_11,
            head,
        })),
        Err(violation) => {
            if violation == Violation::MissingHost {
                head.authority = Bytes::new();
            }
            let framing = fields.request_framing(&head.method, head.version, options.allow_chunked_length);
            let leaves_connection = framing == Ok(Framing::None) && fields.persists(head.version);
            Err(RefusedRequest { violation, head: Some(head), leaves_connection })
        }
    }
}

/// The rules that need the whole head; completes it with what they find.
fn judge_request(
    head: &mut RequestHead,
    fields: &Fields,
    options: &ServerOptions,
) -> Result<Framing, Violation> {
    let http_10 = head.version == Version::HTTP_10;
    if head.version == Version::HTTP_09 || http_10 && !options.accept_http_10 {
        return Err(Violation::LowVersion);
    }
    match &fields.host {
        Some(host) if !rules::is_authority(host.as_bytes()) => return Err(Violation::BadHost),
        Some(_) => {}
        // A target that names the host is enough for Envoy.
        None if !head.authority.is_empty() => {}
        None => match &options.default_host_for_http_10 {
            Some(host) if http_10 => head.authority = host.clone(),
            _ => return Err(Violation::MissingHost),
        },
    }
    let framing = fields.request_framing(&head.method, head.version, options.allow_chunked_length)?;
    let nominated = fields.nominated()?;
    if !nominated.is_empty() {
        remove_in_order(&mut head.headers, |name| nominated.contains(name));
    }
    if framing == Framing::Chunked && fields.content_length().is_some() {
        remove_in_order(&mut head.headers, |name| *name == http::header::CONTENT_LENGTH);
    }
    if fields.expects_continue && !options.proxy_100_continue {
        remove_in_order(&mut head.headers, |name| *name == http::header::EXPECT);
    }
    let upgrade = fields.upgrade(head.version, framing).cloned();
    head.upgrade = upgrade.as_ref().map(|protocol| Bytes::copy_from_slice(protocol.as_bytes()));
    fields.settle_upgrade(&mut head.headers, upgrade);
    if head.upgrade.is_some() || head.method == Method::CONNECT { Ok(Framing::Tunnel) } else { Ok(framing) }
}

/// A response head and what its fields say about the connection.
#[derive(Debug)]
pub struct ParsedResponse {
    /// The head.
    pub head: ResponseHead,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may serve another request afterwards.
    pub persists: bool,
    /// Whether the peer said that it closes the connection (`connection: close`, HTTP/1.0).
    pub announces_close: bool,
    /// After how many idle seconds it says that it will (`Keep-Alive: timeout=N`).
    pub keep_alive_timeout: Option<u32>,
}

/// Takes a complete response head off `buf`, or says that more bytes are needed.
pub fn parse_response(
    buf: &mut BytesMut,
    scan: &mut HeadScan,
    limits: Limits,
    asked: Asked,
    keep: Option<KeptNames>,
) -> Result<Option<ParsedResponse>, Violation> {
    let mut ends = LineEnds::default();
    let Some(extent) = scan.find_lines(buf, limits, 1, &mut ends)? else {
        // Not HTTP at all: say so without waiting for a line's end.
        let start = buf.len().min(STATUS_LINE_START.len());
        return if buf.get(..start) == STATUS_LINE_START.get(..start) {
            Ok(None)
        } else {
            Err(Violation::StartLine)
        };
    };
    let block = buf.split_to(extent.len).freeze();
    let (line, at) = first_line(&block, &ends)?;
    let (version, status) = parse_status_line(line)?;
    let names = keep.map(|keep| written::response(&block, line, at, keep));
    let mut headers = header_map(extent.lines + ADDED_FIELDS)?;
    let mut fields = parse_fields(&block, at, &ends, &mut headers, names::is_joined_in_responses)?;
    // Meaningless here, and gone from the map: an upstream's mistake that must not vanish silently.
    if let Some(host) = fields.host.take() {
        append(&mut headers, http::header::HOST, host)?;
    }
    let framing = fields.response_framing(asked, status)?;
    let nominated = fields.nominated()?;
    if !nominated.is_empty() {
        remove_in_order(&mut headers, |name| nominated.contains(name));
    }
    match framing {
        Framing::Tunnel => {
            // A tunnel has no length (RFC 9110 §9.3.6).
            remove_in_order(&mut headers, |name| *name == http::header::CONTENT_LENGTH);
        }
        Framing::None if status == StatusCode::NO_CONTENT || status.is_informational() => {
            remove_in_order(&mut headers, |name| *name == http::header::CONTENT_LENGTH);
        }
        _ => {}
    }
    let switches = framing == Framing::Tunnel && status == StatusCode::SWITCHING_PROTOCOLS;
    fields.settle_upgrade(&mut headers, fields.upgrade.clone().filter(|_| switches));
    // HTTP/1.0 knows no chunks: whoever sends them may be a relay that does not see their end (RFC 9112 §6.1).
    let faulty = version == Version::HTTP_10 && framing == Framing::Chunked;
    let announces_close = !fields.persists(version) || faulty;
    let persists = !announces_close && !matches!(framing, Framing::UntilClose | Framing::Tunnel);
    let head = ResponseHead { status, version, headers, names };
    let keep_alive_timeout = fields.keep_alive_timeout;
    Ok(Some(ParsedResponse { head, framing, persists, announces_close, keep_alive_timeout }))
}

/// Parses a complete trailer section. Fields that frame or route are
/// dropped (RFC 9110 §6.5.1).
pub fn parse_trailers(block: &Bytes) -> Result<HeaderMap, Violation> {
    let mut trailers = HeaderMap::new();
    for_each_field(block, 0, &LineEnds::default(), |name, value, _| {
        let forbidden = rules::is_connection_field(&name)
            || matches!(name, http::header::CONTENT_LENGTH | http::header::HOST | http::header::TE);
        if forbidden { Ok(()) } else { append(&mut trailers, name, value) }
    })?;
    Ok(trailers)
}

struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    version: Version,
}

impl<'a> RequestLine<'a> {
    /// `method SP request-target SP HTTP-version` (RFC 9112 §3), with exactly these spaces.
    fn parse(line: &'a [u8]) -> Result<Self, Violation> {
        let (method, rest) = split_once(line, b' ').ok_or(Violation::StartLine)?;
        let method = Method::from_bytes(method).map_err(|_| Violation::Method)?;
        match split_once(rest, b' ') {
            Some((target, version)) => Ok(Self { method, target, version: parse_version(version)? }),
            // HTTP/0.9, to which Envoy gives the same answer as to 1.0.
            None if rest.first() == Some(&b'/') => {
                Ok(Self { method, target: rest, version: Version::HTTP_09 })
            }
            None => Err(Violation::StartLine),
        }
    }
}

fn parse_version(text: &[u8]) -> Result<Version, Violation> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        // Refused as too low whatever it is, as Envoy does.
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Ok(Version::HTTP_09)
        }
        _ => Err(Violation::Version),
    }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 §4); the last space may be missing, as
/// servers without reason phrases leave it out.
fn parse_status_line(line: &[u8]) -> Result<(Version, StatusCode), Violation> {
    let (version, rest) = split_once(line, b' ').ok_or(Violation::StartLine)?;
    let version = parse_version(version)?;
    let (code, reason) = rest.split_at_checked(3).ok_or(Violation::StartLine)?;
    let reason_is_text = match reason.split_first() {
        None => true,
        Some((b' ', reason)) => reason.iter().all(|&byte| byte >= b' ' && byte != 0x7f || byte == b'\t'),
        Some(_) => false,
    };
    if !reason_is_text || !code.iter().all(u8::is_ascii_digit) {
        return Err(Violation::StartLine);
    }
    if version == Version::HTTP_09 {
        return Err(Violation::Version);
    }
    StatusCode::from_bytes(code).map(|status| (version, status)).map_err(|_| Violation::StartLine)
}

fn first_line<'b>(block: &'b Bytes, ends: &LineEnds) -> Result<(&'b [u8], usize), Violation> {
    let end = ends.of(0, 0, block).ok_or(Violation::StartLine)?;
    let line = block.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Violation::LineEnd)?;
    Ok((line, end + 1))
}

/// Parses the field lines from `at` into `headers`, without those that [`Fields`] keeps back.
fn parse_fields(
    block: &Bytes,
    at: usize,
    ends: &LineEnds,
    headers: &mut HeaderMap,
    joined: fn(&HeaderName) -> bool,
) -> Result<Fields, Violation> {
    let mut fields = Fields::default();
    let mut repeated = false;
    for_each_field(block, at, ends, |name, value, meaning| {
        if meaning == Meaning::None {
            repeated |= headers.try_append(name, value).map_err(|_| Violation::TooManyFields)?;
            return Ok(());
        }
        match fields.take(&name, &value)? {
            Keep::Yes => {
                repeated |= headers.try_append(name, value).map_err(|_| Violation::TooManyFields)?;
                Ok(())
            }
            Keep::As(value) => append(headers, name, HeaderValue::from_static(value)),
            Keep::No => Ok(()),
        }
    })?;
    if repeated {
        join_repeated(headers, joined)?;
    }
    Ok(fields)
}

/// `HeaderMap` has a limit of its own, at which it would panic; a configured limit may lie above it.
fn header_map(fields: usize) -> Result<HeaderMap, Violation> {
    let mut headers = spare::take_map();
    if headers.capacity() < fields {
        headers.try_reserve(fields).map_err(|_| Violation::TooManyFields)?;
    }
    Ok(headers)
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Violation> {
    headers.try_append(name, value).map(|_| ()).map_err(|_| Violation::TooManyFields)
}

/// Joins the lines of fields that Envoy joins (RFC 9110 §5.3).
fn join_repeated(headers: &mut HeaderMap, joined: fn(&HeaderName) -> bool) -> Result<(), Violation> {
    let repeated = |name: &&HeaderName| joined(name) && headers.get_all(*name).iter().nth(1).is_some();
    let names: Vec<HeaderName> = headers.keys().filter(repeated).cloned().collect();
    for name in names {
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        let value = Bytes::from(lines.join(&b','));
        headers.insert(name, HeaderValue::from_maybe_shared(value).map_err(|_| Violation::Character)?);
    }
    Ok(())
}

/// Joins the lines of a request's fields that Envoy joins, whatever the version.
pub(crate) fn join_request_fields(headers: &mut HeaderMap) -> Result<(), Violation> {
    join_repeated(headers, names::is_joined_in_requests)
}

/// Joins the lines of a response's fields that Envoy joins, whatever the version.
pub(crate) fn join_response_fields(headers: &mut HeaderMap) -> Result<(), Violation> {
    join_repeated(headers, names::is_joined_in_responses)
}

fn for_each_field(
    block: &Bytes,
    mut at: usize,
    ends: &LineEnds,
    mut each: impl FnMut(HeaderName, HeaderValue, Meaning) -> Result<(), Violation>,
) -> Result<(), Violation> {
    for line in 1.. {
        let rest = block.get(at..).ok_or(Violation::LineEnd)?;
        if rest.starts_with(b"\r\n") {
            return Ok(());
        }
        // Names are short: a word-wise search for the colon is cheaper than a vector search. A folded line begins
        // with a space, which no name holds: it fails as a name (RFC 9112 §5.2). So does space before the
        // colon (§5.1).
        let colon = colon_or_end(rest).ok_or(Violation::LineEnd)?;
        let (name, after) = rest.split_at(colon);
        if after.first() != Some(&b':') {
            return Err(Violation::FieldLine);
        }
        let end = ends.of(line, at + colon, block).ok_or(Violation::LineEnd)?;
        let begin = at + colon + 1;
        let value = block.get(begin..end).and_then(|value| value.strip_suffix(b"\r"));
        let value = trim_ows(value.ok_or(Violation::LineEnd)?);
        let value = block.slice(begin + value.start..begin + value.end);
        let (name, meaning) = names::known(name)
            .ok_or_else(|| if name.contains(&0) { Violation::Character } else { Violation::FieldLine })?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Violation::Character)?;
        each(name, value, meaning)?;
        at = end + 1;
    }
    Ok(())
}

/// Where the first colon or line feed is.
fn colon_or_end(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The high bit of each byte that is 0; above the first of them others may be set, too.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * b':' as u64)) | zeros(word ^ (ONES * b'\n' as u64));
        if found != 0 {
            return Some(index * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let found = rest.iter().position(|&byte| byte == b':' || byte == b'\n')?;
    Some(words.len() * 8 + found)
}

/// What is left without optional white space (RFC 9110 §5.6.3) at both ends: space and tab, nothing else.
fn trim_ows(text: &[u8]) -> Range<usize> {
    let is_white = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().take_while(is_white).count();
    let white = text.iter().skip(start).rev().take_while(is_white).count();
    start..text.len() - white
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = memchr(at, text)?;
    Some((text.get(..found)?, text.get(found + 1..)?))
}

const STATUS_LINE_START: &[u8] = b"HTTP/1.";

/// Room in a head's map for the fields that a proxy adds: growing it means hashing every name again.
const ADDED_FIELDS: usize = 8;

/// Lines whose ends are noted: those of nearly all heads.
const MAX_LINE_ENDS: usize = 32;

#[cfg(test)]
mod tests;
