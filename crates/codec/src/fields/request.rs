//! Request heads from fields (RFC 9113 §8.3.1, RFC 8441 §4).

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, header};
use tidegate_types::{EndStream, RequestHead, Scheme};

use super::asked::Asked;
use super::length::ContentLength;
use super::rules::{check_authority, check_connection_field, check_path, check_scheme, is_visible};
use super::tally::{Dialect, Limits, Tally, Verdict, field_value};
use crate::h1::parse::join_request_fields;
use crate::h1::rules::parse_length;
use crate::hpack::{ENTRY_OVERHEAD, Field, Name};

/// What a connection says about all of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestRules {
    pub(crate) limits: Limits,
    /// Extended CONNECT was announced.
    pub(crate) allow_connect: bool,
    /// Forward `expect: 100-continue` instead of answering it.
    pub(crate) proxy_100_continue: bool,
    /// The scheme of requests whose own is neither `http` nor `https`.
    pub(crate) scheme: Scheme,
}

/// A request that can be served.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: Box<RequestHead>,
    /// As the head's own frame says: an empty part of a body may have come behind it.
    pub(crate) end: EndStream,
    pub(crate) asked: Asked,
    /// What DATA must amount to.
    pub(crate) length: ContentLength,
    /// The client waits for 100, which is ours to send.
    pub(crate) expects_continue: bool,
    /// HTTP/3's empty method, which Envoy answers.
    pub(crate) is_nameless: bool,
    /// Bytes of names and values.
    pub(crate) bytes: u64,
    /// Fields dropped for underscores in their names.
    pub(crate) dropped: u32,
}

/// The fields of a request's head.
#[derive(Debug)]
pub(crate) struct RequestFields {
    rules: RequestRules,
    tally: Tally,
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    host: Option<Bytes>,
    length: Option<u64>,
    cookie: Cookie,
    expects_continue: bool,
    is_nameless: bool,
}

#[derive(Debug)]
enum Cookie {
    None,
    One(HeaderValue),
    Joined(BytesMut),
}

impl RequestFields {
    pub(crate) fn new(rules: RequestRules) -> Self {
        Self {
            rules,
            tally: Tally::new(rules.limits),
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            host: None,
            length: None,
            cookie: Cookie::None,
            expects_continue: false,
            is_nameless: false,
        }
    }

    /// Takes the next field and its size (RFC 7541 §4.1).
    pub(crate) fn push(&mut self, field: Field, size: usize) {
        if self.tally.is_open() {
            let taken = self.take(field, size);
            self.tally.judge(taken);
        }
    }

    /// Judges the head as a whole. `end` as on its HEADERS frame.
    pub(crate) fn finish(mut self, end: EndStream) -> Result<Received, Verdict> {
        if let Some(verdict) = self.tally.verdict {
            return Err(verdict);
        }
        let asked_method = self.method.take().ok_or(Verdict::Message)?;
        let connect = asked_method == Method::CONNECT;
        self.check_shape(&asked_method).map_err(|verdict| verdict.under(self.rules.limits.dialect))?;
        let mut length = self.length.map_or(ContentLength::Any, ContentLength::Remaining);
        let plain_connect = connect && self.protocol.is_none();
        if !plain_connect && length.take(0, end).is_err() {
            return Err(Verdict::Message);
        }
        if connect && self.length.is_some() {
            // A tunnel has no length (RFC 9110 §9.3.6).
            self.tally.headers.remove(header::CONTENT_LENGTH);
            length = ContentLength::Any;
        }
        if self.tally.repeated {
            join_request_fields(&mut self.tally.headers).map_err(|_| Verdict::Field)?;
        }
        self.put_cookie()?;
        if let Some(protocol) = &self.protocol {
            // Routes match on what HTTP/1.1 would have said, and it goes to upstreams that speak that.
            let protocol = HeaderValue::from_maybe_shared(protocol.clone()).map_err(|_| Verdict::Field)?;
            self.tally.append(header::UPGRADE, protocol)?;
            self.tally.append(header::CONNECTION, HeaderValue::from_static("upgrade"))?;
        }
        // `:authority` wins over `host` (RFC 9113 §8.3.1).
        let authority = self.authority.or(self.host).unwrap_or_default();
        let head = Box::new(RequestHead {
            // What HTTP/1.1 would have said (RFC 8441 §5).
            method: if self.protocol.is_some() { Method::GET } else { asked_method },
            scheme: self.scheme.unwrap_or(self.rules.scheme),
            authority,
            path: self.path.unwrap_or_default(),
            version: self.rules.limits.dialect.version(),
            headers: self.tally.headers,
            upgrade: self.protocol,
            names: None,
        });
        Ok(Received {
            asked: Asked::of(&head),
            head,
            end,
            length,
            expects_continue: self.expects_continue,
            is_nameless: self.is_nameless,
            bytes: self.tally.bytes as u64,
            dropped: self.tally.dropped,
        })
    }

    /// The pseudo-header fields that this method needs and must not have.
    fn check_shape(&self, method: &Method) -> Result<(), Verdict> {
        let connect = *method == Method::CONNECT;
        let valid = if connect && self.protocol.is_none() {
            // RFC 9113 §8.5.
            self.scheme.is_none() && self.path.is_none() && self.names_authority()
        } else {
            let path = match self.path.as_deref() {
                Some([b'/', ..]) => true,
                Some(b"*") => *method == Method::OPTIONS,
                Some(_) => false,
                None => return Err(Verdict::Message),
            };
            // `:protocol` is for CONNECT alone (RFC 8441 §4).
            let tunnel = self.protocol.is_none() || connect && self.names_authority();
            if !(tunnel && self.scheme.is_some() && self.is_addressed()) {
                return Err(Verdict::Message);
            }
            return if path { Ok(()) } else { Err(Verdict::Contradiction) };
        };
        if valid { Ok(()) } else { Err(Verdict::Message) }
    }

    /// Whether `:authority` has a name.
    fn names_authority(&self) -> bool {
        self.authority.as_ref().is_some_and(|authority| !authority.is_empty())
    }

    /// Whether it says whom it is for.
    fn is_addressed(&self) -> bool {
        match (self.rules.limits.dialect, &self.authority, &self.host) {
            (Dialect::Http2, authority, host) => authority.is_some() || host.is_some(),
            // Both MUST say the same (RFC 9114 §4.3.1); that `host` alone is not enough is Envoy's rule.
            (Dialect::Http3, Some(authority), host) => host.as_ref().is_none_or(|host| host == authority),
            (Dialect::Http3, None, _) => false,
        }
    }

    fn take(&mut self, field: Field, size: usize) -> Result<(), Verdict> {
        let Field { name, value, sensitive } = field;
        self.tally.check_text(&value)?;
        match name {
            Name::Header(name) => return self.take_header(name, value, sensitive, size),
            // Pseudo-header fields come first (RFC 9113 §8.3).
            _ if self.tally.regular => return Err(Verdict::Misplaced),
            Name::Method => {
                let is_empty = value.is_empty() && self.rules.limits.dialect == Dialect::Http3;
                // Envoy answers it, if nothing else is wrong.
                self.is_nameless |= is_empty;
                let name = if is_empty { NAMELESS } else { &value[..] };
                let method = Method::from_bytes(name).map_err(|_| Verdict::Field)?;
                once(&mut self.method, method).map_err(|_| match self.rules.limits.dialect {
                    Dialect::Http2 => Verdict::Field,
                    Dialect::Http3 => Verdict::Contradiction,
                })?;
            }
            Name::Scheme => {
                let scheme = match &value[..] {
                    b"http" => Scheme::Http,
                    b"https" => Scheme::Https,
                    other => {
                        check_scheme(other)?;
                        self.rules.scheme
                    }
                };
                once(&mut self.scheme, scheme)?;
            }
            Name::Authority => {
                // With HTTP/3 an empty one says nothing, as in Envoy; RFC 9114 §4.3.1 has none for `https`.
                if !value.is_empty() || self.rules.limits.dialect == Dialect::Http2 {
                    check_authority(&value)?;
                }
                once(&mut self.authority, value)?;
            }
            Name::Path => {
                check_path(&value)?;
                once(&mut self.path, value)?;
            }
            Name::Protocol => {
                if !self.rules.allow_connect || value.is_empty() || !value.is_ascii() || !is_visible(&value) {
                    return Err(Verdict::Field);
                }
                once(&mut self.protocol, value)?;
            }
            Name::Status | Name::UnknownPseudo | Name::Invalid => return Err(Verdict::Field),
        }
        self.tally.count(size)
    }

    fn take_header(
        &mut self,
        name: HeaderName,
        value: Bytes,
        sensitive: bool,
        size: usize,
    ) -> Result<(), Verdict> {
        self.tally.regular = true;
        if name == header::HOST {
            check_authority(&value)?;
            single(&mut self.host, value)?;
            return self.tally.count(size);
        }
        if self.rules.limits.dialect == Dialect::Http3 && !value.is_ascii() {
            // Envoy's rule, for requests.
            return Err(Verdict::Field);
        }
        let value = field_value(value, sensitive)?;
        // One look for the common case, a field that means nothing here; names are compared as enum
        // discriminants.
        match name {
            header::CONTENT_LENGTH => {
                single(&mut self.length, parse_length(value.as_bytes()).ok_or(Verdict::Field)?)?;
            }
            header::COOKIE => {
                // Crumbs count as what they become, `; ` between them.
                let between = if matches!(self.cookie, Cookie::None) { 0 } else { 2 };
                self.tally.count(value.len() + between + ENTRY_OVERHEAD)?;
                if between == 0 && self.rules.limits.dialect == Dialect::Http3 {
                    // Its place is here.
                    self.tally.append(name, HeaderValue::from_static(""))?;
                }
                self.cookie.push(value);
                return Ok(());
            }
            header::TE if value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                self.tally.count(size)?;
                return self.tally.append(name, HeaderValue::from_static("trailers"));
            }
            header::EXPECT
                if !self.rules.proxy_100_continue
                    && value.as_bytes().eq_ignore_ascii_case(b"100-continue") =>
            {
                self.expects_continue = true;
                return self.tally.count(size);
            }
            _ => check_connection_field(&name, value.as_bytes())?,
        }
        if !self.tally.admit(&name)? {
            return Ok(());
        }
        self.tally.count(size)?;
        self.tally.append(name, value)
    }

    /// The crumbs become one field again (RFC 9113 §8.2.3), as in Envoy behind all others, or with HTTP/3 where the first
    /// one was.
    fn put_cookie(&mut self) -> Result<(), Verdict> {
        let value = match std::mem::replace(&mut self.cookie, Cookie::None) {
            Cookie::None => return Ok(()),
            Cookie::One(value) => value,
            Cookie::Joined(crumbs) => field_value(crumbs.freeze(), false)?,
        };
        match (self.rules.limits.dialect, self.tally.headers.get_mut(header::COOKIE)) {
            (Dialect::Http3, Some(place)) => {
                *place = value;
                Ok(())
            }
            _ => self.tally.append(header::COOKIE, value),
        }
    }
}

impl Cookie {
    fn push(&mut self, crumb: HeaderValue) {
        match self {
            Self::None => *self = Self::One(crumb),
            Self::One(first) => {
                let mut joined = BytesMut::with_capacity(JOINED_COOKIE.max(first.len() + crumb.len() + 2));
                joined.extend_from_slice(first.as_bytes());
                joined.extend_from_slice(b"; ");
                joined.extend_from_slice(crumb.as_bytes());
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => {
                joined.extend_from_slice(b"; ");
                joined.extend_from_slice(crumb.as_bytes());
            }
        }
    }
}

/// Refuses a pseudo-header field that is said twice.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Verdict> {
    if place.is_some() {
        return Err(Verdict::Misplaced);
    }
    *place = Some(value);
    Ok(())
}

/// Refuses a field that is said twice.
fn single<T>(place: &mut Option<T>, value: T) -> Result<(), Verdict> {
    once(place, value).map_err(|_| Verdict::Field)
}

/// What a method without a name is called in logs.
const NAMELESS: &[u8] = b"-";

/// Room for the crumbs of one request.
const JOINED_COOKIE: usize = 256;
