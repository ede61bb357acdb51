//! What HTTP/1.1 allows: every judgment about framing and validity (RFC 9112) is made in this file.
//!
//! The parsers beside it only cut bytes apart. Strict by intent: what two readers could understand
//! differently is refused and never forwarded (RFC 9112 §11.2). Start from [`Violation`], which maps a
//! broken rule to the answer, and [`Fields`], which gathers the fields that frame a message.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version, header};
use tidegate_types::fields::remove_in_order;

/// A rule that a message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A line ends in a bare LF, or holds a bare CR (RFC 9112 §2.2).
    #[error("bare CR or LF")]
    LineEnd,
    /// A request or status line of another shape (RFC 9112 §3, §4).
    #[error("malformed start line")]
    StartLine,
    /// Not a method, or one that Envoy does not know (RFC 9110 §9.1).
    #[error("bad method")]
    Method,
    /// Not a request target (RFC 9112 §3.2).
    #[error("bad request target")]
    Target,
    /// A form of target that the method does not take, or one without a host (RFC 9112 §3.2).
    #[error("bad URL")]
    Url,
    /// An absolute-form target that is neither `http` nor `https`.
    #[error("bad scheme")]
    Scheme,
    /// Not `HTTP/d.d`.
    #[error("malformed version")]
    Version,
    /// A version that is not served: HTTP/1.0 where it is not accepted, or not HTTP/1.x at all.
    #[error("version not accepted")]
    LowVersion,
    /// A field line without a colon, with space before it, folded, or with a name that is no token
    /// (RFC 9112 §5).
    #[error("malformed field line")]
    FieldLine,
    /// A control character (RFC 9110 §5.5).
    #[error("control character in the head")]
    Character,
    /// No `Host` (RFC 9112 §3.2).
    #[error("no Host")]
    MissingHost,
    /// Two `Host` fields, or one that is no authority (RFC 9112 §3.2).
    #[error("bad Host")]
    BadHost,
    /// `Connection` names a field that must not be removed.
    #[error("bad Connection option")]
    ConnectionOption,
    /// Malformed, repeated or too large `Content-Length` (RFC 9112 §6.3).
    #[error("bad Content-Length")]
    Length,
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.1).
    #[error("Content-Length with Transfer-Encoding")]
    LengthAndCoding,
    /// A transfer coding other than one single `chunked` (RFC 9112 §6.1, §7).
    #[error("unsupported Transfer-Encoding")]
    Coding,
    /// `Transfer-Encoding` where the version or the status has none (RFC 9112 §6.1).
    #[error("Transfer-Encoding not allowed here")]
    CodingNotAllowed,
    /// `Content-Length` in a 1xx or 204 response (RFC 9110 §8.6).
    #[error("Content-Length not allowed here")]
    LengthNotAllowed,
    /// A `CONNECT` request with a body.
    #[error("body not allowed here")]
    BodyNotAllowed,
    /// A malformed chunk (RFC 9112 §7.1).
    #[error("malformed chunk")]
    Chunk,
    /// The head is over the byte limit.
    #[error("head too large")]
    HeadTooLarge,
    /// More fields than allowed.
    #[error("too many fields")]
    TooManyFields,
    /// A 101 response to a request that asked for no upgrade (RFC 9110 §15.2.2).
    #[error("upgrade not asked for")]
    Upgrade,
}

impl Violation {
    /// The status that answers the request.
    pub fn status(self) -> StatusCode {
        match self {
            Self::LowVersion => StatusCode::UPGRADE_REQUIRED,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The body that answers the request: Envoy's.
    pub fn body(self) -> &'static str {
        match self {
            // The connection manager, not the codec, refuses it in Envoy, without a body.
            Self::MissingHost => "",
            Self::LowVersion => "Upgrade Required",
            Self::HeadTooLarge | Self::TooManyFields => "Request Header Fields Too Large",
            Self::Coding => "Not Implemented",
            _ => "Bad Request",
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%` for the rule.
    pub fn details(self) -> &'static str {
        use tidegate_types::details;
        match self {
            Self::LowVersion => details::LOW_VERSION,
            Self::MissingHost => details::MISSING_HOST,
            Self::Url => "http1.invalid_url",
            Self::Scheme => "http1.invalid_scheme",
            Self::BadHost => "http.invalid_authority",
            Self::HeadTooLarge => "http1.headers_too_large",
            Self::TooManyFields => "http1.too_many_headers",
            Self::Character => "http1.invalid_characters",
            Self::ConnectionOption => "http1.connection_header_rejected",
            Self::LengthAndCoding => "http1.content_length_and_chunked_not_allowed",
            Self::Coding => "http1.invalid_transfer_encoding",
            Self::CodingNotAllowed => "http1.transfer_encoding_not_allowed",
            Self::LengthNotAllowed => "http1.content_length_not_allowed",
            Self::BodyNotAllowed => "http1.body_disallowed",
            _ => details::HTTP1_CODEC_ERROR,
        }
    }
}

/// How a message's end is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The head is all.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
    /// Not HTTP any more, both ways.
    Tunnel,
}

impl Framing {
    fn length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Unsupported,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Valid(u64),
    Invalid,
}

/// The fields of one message that say how it is framed and what becomes of its connection.
///
/// They belong to the connection and not to the message (RFC 9110 §7.6.1): of what [`Fields::take`] sees, only
/// `content-length` goes on into the header map.
#[derive(Debug, Default)]
pub struct Fields {
    length: Length,
    coding: Coding,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// The seconds of `Keep-Alive: timeout=N`.
    pub keep_alive_timeout: Option<u32>,
    upgrade_option: bool,
    /// The value of `Upgrade`.
    pub upgrade: Option<HeaderValue>,
    /// The value of `Host`.
    pub host: Option<HeaderValue>,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    nominated: Vec<HeaderName>,
}

/// What to do with a field after [`Fields::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It belongs to the message.
    Yes,
    /// It belongs to the message with this value.
    As(&'static str),
    /// It belongs to the connection, or is kept elsewhere.
    No,
}

impl Fields {
    /// Looks at one field of a message.
    pub fn take(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<Keep, Violation> {
        // One look for the common case, a field that means nothing here; names are compared as enum
        // discriminants.
        match *name {
            header::HOST => {
                if self.host.replace(value.clone()).is_some() {
                    return Err(Violation::BadHost);
                }
                Ok(Keep::No)
            }
            header::CONTENT_LENGTH => Ok(self.take_length(value)),
            header::TRANSFER_ENCODING => {
                self.coding = match self.coding {
                    Coding::None if value.as_bytes().eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                    _ => Coding::Unsupported,
                };
                Ok(Keep::No)
            }
            // What an upgrade is about keeps its place among the others, until it turns out that there is none.
            header::CONNECTION => Ok(if self.take_connection(value) { Keep::Yes } else { Keep::No }),
            header::UPGRADE => {
                self.upgrade = Some(value.clone());
                Ok(Keep::Yes)
            }
            header::EXPECT => {
                self.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                Ok(Keep::Yes)
            }
            // `te: trailers` is the one option that means something end to end (gRPC).
            header::TE => {
                let mut options = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                Ok(if options.any(|option| option == b"trailers") { Keep::As("trailers") } else { Keep::No })
            }
            _ if name.as_str() == "keep-alive" => {
                self.keep_alive_timeout = keep_alive_timeout(value.as_bytes());
                Ok(Keep::No)
            }
            _ if is_connection_field(name) => {
                // An old field for an old proxy; Envoy obeys it.
                self.close |=
                    name.as_str() == "proxy-connection" && value.as_bytes().eq_ignore_ascii_case(b"close");
                Ok(Keep::No)
            }
            _ => Ok(Keep::Yes),
        }
    }

    fn take_length(&mut self, value: &HeaderValue) -> Keep {
        let Some(length) = parse_length(value.as_bytes()) else {
            self.length = Length::Invalid;
            return Keep::No;
        };
        match self.length {
            Length::None => {
                self.length = Length::Valid(length);
                Keep::Yes
            }
            // Repeated, even if equal: a recipient may refuse it (RFC 9112 §6.3), and Envoy does, both ways.
            _ => {
                self.length = Length::Invalid;
                Keep::No
            }
        }
    }

    /// Whether `upgrade` is among the options.
    fn take_connection(&mut self, value: &HeaderValue) -> bool {
        let mut upgrade = false;
        for option in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
            } else if !option.is_empty()
                && !option.eq_ignore_ascii_case(b"te")
                && self.nominated.len() <= MAX_NOMINATED
            {
                self.nominated.extend(HeaderName::from_bytes(option));
            }
        }
        self.upgrade_option |= upgrade;
        upgrade
    }

    /// Leaves `Connection` and `Upgrade` in `headers` if there is an upgrade, to `protocol`, and nothing but what it
    /// is about in them.
    pub fn settle_upgrade(&self, headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
        if self.upgrade.is_none() && !self.upgrade_option {
            return;
        }
        let Some(protocol) = protocol else {
            return remove_in_order(headers, |name| matches!(*name, header::CONNECTION | header::UPGRADE));
        };
        headers.insert(header::UPGRADE, protocol);
        if let Some(option) = headers.get(header::CONNECTION) {
            let alone = option.as_bytes().eq_ignore_ascii_case(b"upgrade");
            let option = if alone { option.clone() } else { HeaderValue::from_static("Upgrade") };
            headers.insert(header::CONNECTION, option);
        }
    }

    /// The fields that a request's `Connection` names, to be removed (RFC 9110 §7.6.1).
    pub fn nominated(&self) -> Result<&[HeaderName], Violation> {
        if self.nominated.contains(&header::HOST) {
            return Err(Violation::MissingHost);
        }
        // To drop one of these on a client's word would change what the request says or whom it is from.
        let protected = |name: &HeaderName| {
            matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING)
                || name.as_str().starts_with("x-forwarded-")
        };
        if self.nominated.len() > MAX_NOMINATED || self.nominated.iter().any(protected) {
            return Err(Violation::ConnectionOption);
        }
        Ok(&self.nominated)
    }

    /// The length that the message announced.
    pub fn content_length(&self) -> Option<u64> {
        match self.length {
            Length::Valid(length) => Some(length),
            Length::None | Length::Invalid => None,
        }
    }

    /// Judges a request's framing (RFC 9112 §6.3). `allow_both` drops `Content-Length` beside `chunked`.
    pub fn request_framing(
        &self,
        method: &Method,
        version: Version,
        allow_both: bool,
    ) -> Result<Framing, Violation> {
        let connect = *method == Method::CONNECT;
        match (self.coding, self.length) {
            (Coding::Unsupported, _) => Err(Violation::Coding),
            // A reader of HTTP/1.0 does not know the field: its framing would be another (§6.1).
            (Coding::Chunked, _) if version < Version::HTTP_11 => Err(Violation::CodingNotAllowed),
            (Coding::Chunked, _) if connect => Err(Violation::Coding),
            (Coding::Chunked, Length::None) => Ok(Framing::Chunked),
            (Coding::Chunked, Length::Valid(_)) if allow_both => Ok(Framing::Chunked),
            (Coding::Chunked, _) => Err(Violation::LengthAndCoding),
            (Coding::None, Length::Valid(length)) if connect && length > 0 => Err(Violation::BodyNotAllowed),
            (Coding::None, Length::Valid(length)) => Ok(Framing::length(length)),
            (Coding::None, Length::None) => Ok(Framing::None),
            (Coding::None, Length::Invalid) => Err(Violation::Length),
        }
    }

    /// Judges a response's framing (RFC 9112 §6.3).
    pub fn response_framing(&self, request: Asked, status: StatusCode) -> Result<Framing, Violation> {
        if self.length == Length::Invalid {
            return Err(Violation::Length);
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            if self.coding != Coding::None {
                return Err(Violation::CodingNotAllowed);
            }
            if self.content_length().is_some_and(|length| length > 0) {
                return Err(Violation::LengthNotAllowed);
            }
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return if request == Asked::Upgrade { Ok(Framing::Tunnel) } else { Err(Violation::Upgrade) };
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return Ok(Framing::None);
        }
        if request == Asked::Connect && status.is_success() {
            return Ok(Framing::Tunnel);
        }
        match (self.coding, self.content_length()) {
            (Coding::Unsupported, _) => Err(Violation::Coding),
            (Coding::Chunked, Some(_)) => Err(Violation::LengthAndCoding),
            _ if request == Asked::Head || status == StatusCode::NOT_MODIFIED => Ok(Framing::None),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            (Coding::None, Some(length)) => Ok(Framing::length(length)),
            (Coding::None, None) => Ok(Framing::UntilClose),
        }
    }

    /// The protocol that a request asks to switch to, if it may.
    ///
    /// `Upgrade` may be ignored (RFC 9110 §7.8), and is, beside a body, since the bytes after the head
    /// can only be one of both, and for `h2c`, as Envoy does.
    pub fn upgrade(&self, version: Version, framing: Framing) -> Option<&HeaderValue> {
        let upgrade = self.upgrade.as_ref()?;
        let h2c = upgrade.as_bytes().eq_ignore_ascii_case(b"h2c");
        (self.upgrade_option && version == Version::HTTP_11 && framing == Framing::None && !h2c)
            .then_some(upgrade)
    }

    /// Whether the sender lets the connection live after this message (RFC 9112 §9.3).
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// What of the request decides how its response is framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// An ordinary request.
    #[default]
    Ordinary,
    /// `HEAD`: no body follows.
    Head,
    /// `CONNECT`: a 2xx makes a tunnel.
    Connect,
    /// An upgrade: 101 makes a tunnel.
    Upgrade,
}

impl Asked {
    /// What a request with this method and upgrade asks.
    pub fn of(method: &Method, upgrade: bool) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ if upgrade => Self::Upgrade,
            _ => Self::Ordinary,
        }
    }

    /// The same request with its tunnel refused: the response is framed like any other.
    pub fn refused(self) -> Self {
        if self == Self::Head { Self::Head } else { Self::Ordinary }
    }

    /// Whether a response with this status turns the connection into a tunnel.
    pub fn makes_tunnel(self, status: StatusCode) -> bool {
        match self {
            Self::Connect => status.is_success(),
            Self::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Ordinary | Self::Head => false,
        }
    }
}

/// Whether a field belongs to the connection and is never passed on (RFC 9110 §7.6.1).
pub fn is_connection_field(name: &HeaderName) -> bool {
    // Compared as names and not as text: for nearly every field that is a look at a discriminant.
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
        || CONNECTION_FIELDS.contains(name)
}

/// Whether a field may mean something to [`Fields::take`]. Must hold for every name that it looks for.
pub fn is_meaningful(name: &HeaderName) -> bool {
    is_connection_field(name)
        || matches!(*name, header::HOST | header::CONTENT_LENGTH | header::EXPECT | header::TE)
}

static CONNECTION_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Seconds of the parameter `timeout` of a `Keep-Alive` field (RFC 2068 §19.7.1.1); anything else says nothing.
fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    let mut parameters = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let timeout = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(b"timeout=".len())?;
        name.eq_ignore_ascii_case(b"timeout=").then_some(value)
    })?;
    parse_length(timeout).and_then(|seconds| u32::try_from(seconds).ok())
}

/// `1*DIGIT` that fits 64 bits (RFC 9110 §8.6): no sign, no list, no space.
pub fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `chunk-size [ chunk-ext ]` without its CRLF (RFC 9112 §7.1): the size and the extension's length.
pub fn parse_chunk_size(line: &[u8]) -> Result<(u64, usize), Violation> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at_checked(digits).ok_or(Violation::Chunk)?;
    if size.is_empty() {
        return Err(Violation::Chunk);
    }
    let value = size.iter().try_fold(0_u64, |value, &byte| {
        let digit = if byte.is_ascii_digit() { byte - b'0' } else { (byte | 0x20) - b'a' + 10 };
        value.checked_mul(16).map(|value| value | u64::from(digit))
    });
    // White space after the size is what some senders pad with, and Envoy takes; it hides nothing.
    let extension = rest.trim_ascii();
    let well_formed = matches!(extension.first(), None | Some(b';'))
        && !rest.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f);
    match value {
        Some(value) if well_formed => Ok((value, rest.len())),
        _ => Err(Violation::Chunk),
    }
}

/// Whether the text is `uri-host [ ":" port ]` as far as its characters go (RFC 9110 §4.2, RFC 3986
/// §3.2.2). `@` passes, as it does in Envoy.
pub fn is_authority(text: &[u8]) -> bool {
    text.iter().all(|&byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b':'
                    | b'['
                    | b']'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b'@'
            )
    })
}

/// Methods that Envoy accepts by default (`allow_custom_methods` off).
pub fn is_known_method(method: &Method) -> bool {
    const OTHERS: [&str; 25] = [
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "MSEARCH",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
    ];
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::HEAD | Method::DELETE | Method::OPTIONS => true,
        Method::PATCH | Method::CONNECT | Method::TRACE => true,
        _ => OTHERS.contains(&method.as_str()),
    }
}

/// Fields that one `Connection` may name. Stops a peer that makes us remove fields one by one.
const MAX_NOMINATED: usize = 10;

#[cfg(test)]
mod tests;
