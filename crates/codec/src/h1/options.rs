//! Settings of the HTTP/1.1 codec, each limit with whom it stops.

use bytes::Bytes;
use tidegate_types::{OtherNames, Scheme};

/// Default of `max_head_bytes`: Envoy's `max_request_headers_kb` (60 KiB). Stops a peer that makes us
/// buffer an endless head.
pub const DEFAULT_MAX_HEAD_BYTES: usize = 60 * 1024;

/// Default of a response's `max_head_bytes`: Envoy's limit on responses is looser than on requests, and
/// upstreams are trusted more. Stops an upstream that never ends its head.
pub const DEFAULT_MAX_RESPONSE_HEAD_BYTES: usize = 96 * 1024;

/// Default of `max_headers`: Envoy's `max_headers_count`. Stops a peer that spends our time on
/// thousands of tiny fields.
pub const DEFAULT_MAX_HEADERS: usize = 100;

/// Default of `buffer_limit`: Envoy's `per_connection_buffer_limit_bytes` (1 MiB). Bounds one read.
pub const DEFAULT_BUFFER_LIMIT: usize = 1024 * 1024;

/// How the names of fields are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameCase {
    /// `content-type`, as Envoy does.
    #[default]
    Lower,
    /// `Content-Type`: Envoy's `proper_case_words`.
    Proper,
}

/// What is kept of the way in which a peer writes its heads: Envoy's `preserve_case` formatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptNames {
    /// How names are written that the peer did not write.
    pub others: OtherNames,
    /// Pass a response's reason phrase on.
    pub reason: bool,
}

/// Settings of a [`ServerConn`](super::ServerConn): Envoy's `Http1ProtocolOptions` and the limits of the
/// connection manager.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Bytes of a request head, or of its trailers, before 431. See [`DEFAULT_MAX_HEAD_BYTES`].
    pub max_head_bytes: usize,
    /// Fields of a request before 431. See [`DEFAULT_MAX_HEADERS`].
    pub max_headers: usize,
    /// Bytes that one read may take. See [`DEFAULT_BUFFER_LIMIT`].
    pub buffer_limit: usize,
    /// Serve HTTP/1.0 requests; without it they are answered 426.
    pub accept_http_10: bool,
    /// The authority of an HTTP/1.0 request without `Host`; without it such a request is refused.
    pub default_host_for_http_10: Option<Bytes>,
    /// Pass trailers on; without it they are checked and dropped.
    pub enable_trailers: bool,
    /// Take `GET http://host/path` for what it says (RFC 9112 §3.2.2).
    pub allow_absolute_url: bool,
    /// With `Transfer-Encoding` beside `Content-Length`, drop the latter and close after the response
    /// (RFC 9112 §6.1) instead of refusing. Leave it off: this pair is how requests are smuggled.
    pub allow_chunked_length: bool,
    /// Accept methods that Envoy does not know.
    pub allow_custom_methods: bool,
    /// Keep the connection after a request without `Host`, which is understood and yet no request.
    pub keep_without_host: bool,
    /// Forward `Expect: 100-continue` instead of answering it here.
    pub proxy_100_continue: bool,
    /// How response field names are written.
    pub name_case: NameCase,
    /// Names of request fields go on as the client wrote them; `None`: in the next codec's case.
    pub keep_names: Option<KeptNames>,
    /// The scheme of requests that do not name one: the connection's.
    pub scheme: Scheme,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_head_bytes: DEFAULT_MAX_HEAD_BYTES,
            max_headers: DEFAULT_MAX_HEADERS,
            buffer_limit: DEFAULT_BUFFER_LIMIT,
            accept_http_10: false,
            default_host_for_http_10: None,
            enable_trailers: false,
            allow_absolute_url: true,
            allow_chunked_length: false,
            allow_custom_methods: false,
            keep_without_host: false,
            proxy_100_continue: false,
            name_case: NameCase::Lower,
            keep_names: None,
            scheme: Scheme::Http,
        }
    }
}

/// Settings of a [`ClientConn`](super::ClientConn).
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Bytes of a response head, or of its trailers, before the response is a protocol error. See
    /// [`DEFAULT_MAX_RESPONSE_HEAD_BYTES`].
    pub max_head_bytes: usize,
    /// Fields of a response before it is a protocol error.
    pub max_headers: usize,
    /// Bytes that one read may take. See [`DEFAULT_BUFFER_LIMIT`].
    pub buffer_limit: usize,
    /// Pass trailers on, both ways.
    pub enable_trailers: bool,
    /// How request field names are written.
    pub name_case: NameCase,
    /// Names of response fields go on as the upstream wrote them; `None`: in the next codec's case.
    pub keep_names: Option<KeptNames>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            max_head_bytes: DEFAULT_MAX_RESPONSE_HEAD_BYTES,
            max_headers: DEFAULT_MAX_HEADERS,
            buffer_limit: DEFAULT_BUFFER_LIMIT,
            enable_trailers: false,
            name_case: NameCase::Lower,
            keep_names: None,
        }
    }
}
