//! The operators: names, arguments, values.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Deref;
use std::time::Duration;

use http::{HeaderMap, Version};
use tidegate_types::{Address, CloseType, RequestHead, ResponseHead, StreamInfo};

use super::time::TimeFormat;
use super::value::{Shown, Value};
use crate::LogContext;

mod field;
mod grpc;
mod metadata;
mod names;
mod server_name;
mod tls;

use field::{Field, Fields, Source};
use grpc::GrpcStyle;
use metadata::Metadata;
pub(super) use names::NAMES;
use names::UNSUPPORTED;
use server_name::NameSource;
use tls::TlsOperator;

/// One operator with its argument.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    /// A header of the request, the response or the trailers.
    Field(Fields),
    Protocol,
    ResponseCode,
    ResponseCodeDetails {
        spaces: bool,
    },
    ConnectionTermination,
    LocalClose,
    Closing(Closing),
    /// At which event the line is written.
    LogType,
    Flags {
        long: bool,
    },
    BytesReceived,
    BytesSent,
    Span(Point, Point, Unit),
    /// `DURATION`, which runs until the stream's end.
    Duration,
    UpstreamCluster,
    UpstreamAddress(Upstream, AddressPart),
    UpstreamAttempts,
    UpstreamFailure,
    UpstreamProtocol,
    UpstreamConnectionId,
    DownstreamAddress(Downstream, AddressPart),
    ConnectionId,
    FilterChainName,
    Metadata(Metadata),
    RouteName,
    VirtualCluster,
    LocalReplyBody,
    HeaderBytes(Source),
    Grpc(GrpcStyle),
    Tls(TlsOperator),
    DownstreamFailure,
    RequestedServerName(NameSource),
    Path {
        query: bool,
        original: Original,
    },
    QueryParam(Box<str>),
    QueryParams,
    /// What was known when the format was parsed.
    Fixed(Option<Box<str>>),
}

/// Which path `PATH` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Original {
    /// The client's, if it was rewritten.
    Preferred,
    /// The client's or nothing.
    Only,
    /// The one that went upstream.
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressPart {
    Whole,
    Host,
    Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    Host,
    Remote,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Downstream {
    Remote,
    DirectRemote,
    Local,
}

/// A moment of a stream, as `COMMON_DURATION` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamTxBegin,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// What became of an operator's text.
pub(super) enum Parsed {
    Operator(Operator),
    Unknown,
    Unsupported,
    Wrong(String),
}

/// Finds an operator.
pub(super) fn parse(name: &str, argument: Option<&str>, length: Option<usize>) -> Parsed {
    let operator = match (with_argument(name, argument, length), argument) {
        (Some(result), _) => result,
        (None, None) => match plain(name) {
            Some(operator) => Ok(operator),
            None if UNSUPPORTED.contains(&name) => return Parsed::Unsupported,
            None => return Parsed::Unknown,
        },
        (None, Some(_)) if UNSUPPORTED.contains(&name) => return Parsed::Unsupported,
        (None, Some(_)) if plain(name).is_some() => Err("takes no argument".to_owned()),
        (None, Some(_)) => return Parsed::Unknown,
    };
    match operator {
        Err(reason) => Parsed::Wrong(reason),
        Ok(Operator::Field(_) | Operator::StartTime(_)) => operator.map_or(Parsed::Unknown, Parsed::Operator),
        Ok(_) if length.is_some() && !TAKES_LENGTH.contains(&name) => {
            Parsed::Wrong("its value cannot be cut to a length".to_owned())
        }
        Ok(operator) => Parsed::Operator(operator),
    }
}

/// Besides header operators, those whose value may be cut.
const TAKES_LENGTH: &[&str] = &["ENVIRONMENT"];

/// Operators that may or must have an argument; `None` for the others.
fn with_argument(
    name: &str,
    argument: Option<&str>,
    length: Option<usize>,
) -> Option<Result<Operator, String>> {
    let required = || argument.filter(|text| !text.is_empty()).ok_or_else(|| "needs an argument".to_owned());
    let field =
        |source: Source| required().and_then(|text| Fields::parse(source, text, length)).map(Operator::Field);
    Some(match name {
        "REQUESTED_SERVER_NAME" => {
            NameSource::parse(argument.filter(|text| !text.is_empty())?).map(Operator::RequestedServerName)
        }
        "REQ" => field(Source::Request),
        "RESP" => field(Source::Response),
        "TRAILER" => field(Source::Trailers),
        "STREAM_ID" if argument.is_none() => {
            Fields::parse(Source::Request, "x-request-id", length).map(Operator::Field)
        }
        "START_TIME" => match argument.filter(|text| !text.is_empty()) {
            None => Ok(Operator::StartTime(TimeFormat::iso())),
            Some(text) => TimeFormat::parse(text)
                .map(Operator::StartTime)
                .map_err(|part| format!("`{part}` is not supported in a time format")),
        },
        "COMMON_DURATION" => required().and_then(common_duration),
        "RESPONSE_CODE_DETAILS" => match argument {
            None => Ok(Operator::ResponseCodeDetails { spaces: false }),
            Some("ALLOW_WHITESPACES") => Ok(Operator::ResponseCodeDetails { spaces: true }),
            Some(_) => Err("expected `ALLOW_WHITESPACES`".to_owned()),
        },
        "DYNAMIC_METADATA" => required().map(|path| Operator::Metadata(Metadata::parse(path))),
        "GRPC_STATUS" => GrpcStyle::parse(argument).map(Operator::Grpc),
        "PATH" => path(argument.unwrap_or_default()),
        "QUERY_PARAM" => required().map(|key| Operator::QueryParam(key.into())),
        "QUERY_PARAMS" => match argument.unwrap_or("ORIG") {
            "ORIG" => Ok(Operator::QueryParams),
            other => Err(format!("`{other}` is not supported, expected `ORIG`")),
        },
        "ENVIRONMENT" => required().map(|key| {
            let value = std::env::var(key).ok();
            Operator::Fixed(value.map(|value| cut(&value, length).into()))
        }),
        _ => return TlsOperator::parse(name, argument).map(|operator| operator.map(Operator::Tls)),
    })
}

/// The first `length` bytes, or fewer when that would split a character.
fn cut(text: &str, length: Option<usize>) -> &str {
    let mut end = length.unwrap_or(usize::MAX).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn path(argument: &str) -> Result<Operator, String> {
    let mut words = argument.split(':');
    let query = match words.next().unwrap_or_default() {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("`{other}` is not `WQ` or `NQ`")),
    };
    let original = match words.next().unwrap_or_default() {
        "" | "ORIG_OR_PATH" => Original::Preferred,
        "ORIG" => Original::Only,
        "PATH" => Original::No,
        other => return Err(format!("`{other}` is not `ORIG`, `PATH` or `ORIG_OR_PATH`")),
    };
    Ok(Operator::Path { query, original })
}

fn common_duration(argument: &str) -> Result<Operator, String> {
    let words: Vec<_> = argument.split(':').collect();
    let (from, to, unit) = match *words {
        [from, to] => (from, to, "ms"),
        [from, to, unit] => (from, to, unit),
        _ => return Err("expected `START:END:UNIT`".to_owned()),
    };
    let point = |text: &str| {
        Ok(match text {
            "DS_RX_BEG" => Point::DownstreamRxBegin,
            "DS_RX_END" => Point::DownstreamRxEnd,
            "US_TX_BEG" => Point::UpstreamTxBegin,
            "US_RX_BEG" => Point::UpstreamRxBegin,
            "US_RX_END" => Point::UpstreamRxEnd,
            "DS_TX_BEG" => Point::DownstreamTxBegin,
            "DS_TX_END" => Point::DownstreamTxEnd,
            other => return Err(format!("`{other}` is no point in time that this build knows")),
        })
    };
    let unit = match unit {
        "ms" => Unit::Milliseconds,
        "us" => Unit::Microseconds,
        "ns" => Unit::Nanoseconds,
        other => return Err(format!("`{other}` is not `ms`, `us` or `ns`")),
    };
    Ok(Operator::Span(point(from)?, point(to)?, unit))
}

/// Operators without an argument.
fn plain(name: &str) -> Option<Operator> {
    use AddressPart::{Host, Port, Whole};
    use Unit::Milliseconds;
    Some(match name {
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTermination,
        "DOWNSTREAM_LOCAL_CLOSE_REASON" => Operator::LocalClose,
        "UPSTREAM_LOCAL_CLOSE_REASON" => Operator::Closing(Closing::UpstreamReason),
        "DOWNSTREAM_DETECTED_CLOSE_TYPE" => Operator::Closing(Closing::Type),
        "UPSTREAM_DETECTED_CLOSE_TYPE" => Operator::Closing(Closing::UpstreamType),
        "RESPONSE_FLAGS" => Operator::Flags { long: false },
        "RESPONSE_FLAGS_LONG" => Operator::Flags { long: true },
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::Span(Point::DownstreamRxBegin, Point::DownstreamRxEnd, Milliseconds),
        "RESPONSE_DURATION" => Operator::Span(Point::DownstreamRxBegin, Point::UpstreamRxBegin, Milliseconds),
        "RESPONSE_TX_DURATION" => {
            Operator::Span(Point::UpstreamRxBegin, Point::DownstreamTxEnd, Milliseconds)
        }
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
        "UPSTREAM_HOST" | "UPSTREAM_HOST_NAME" => Operator::UpstreamAddress(Upstream::Host, Whole),
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamAddress(Upstream::Host, Host),
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamAddress(Upstream::Local, Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamAddress(Upstream::Local, Host),
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamAddress(Upstream::Local, Port),
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamAddress(Upstream::Remote, Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamAddress(Upstream::Remote, Host),
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamAddress(Upstream::Remote, Port),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamAttempts,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamFailure,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "UPSTREAM_CONNECTION_ID" => Operator::UpstreamConnectionId,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamAddress(Downstream::Remote, Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamAddress(Downstream::Remote, Host),
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamAddress(Downstream::Remote, Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamAddress(Downstream::DirectRemote, Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamAddress(Downstream::DirectRemote, Host)
        }
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamAddress(Downstream::DirectRemote, Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamAddress(Downstream::Local, Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamAddress(Downstream::Local, Host),
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamAddress(Downstream::Local, Port),
        "CONNECTION_ID" => Operator::ConnectionId,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "ROUTE_NAME" => Operator::RouteName,
        "LOCAL_REPLY_BODY" => Operator::LocalReplyBody,
        "REQUEST_HEADERS_BYTES" => Operator::HeaderBytes(Source::Request),
        "RESPONSE_HEADERS_BYTES" => Operator::HeaderBytes(Source::Response),
        "GRPC_STATUS_NUMBER" => Operator::Grpc(GrpcStyle::Number),
        "HOSTNAME" => Operator::Fixed(hostname()),
        "ACCESS_LOG_TYPE" => Operator::LogType,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamFailure,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName(NameSource::Sni),
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualCluster,
        "TRACE_ID" => Operator::Fixed(None),
        _ => return None,
    })
}

/// The machine's name, looked up when a configuration is loaded.
fn hostname() -> Option<Box<str>> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .ok()?;
    let name = text.trim();
    (!name.is_empty()).then(|| name.into())
}

impl Operator {
    /// The operator's value for a stream.
    pub(super) fn value<'a>(&'a self, cx: &LogContext<'a>) -> Value<'a> {
        let info = cx.info;
        match self {
            Self::StartTime(format) => Value::Shown(Shown::Time(format, info.start_time)),
            Self::Field(fields) => fields.value(cx),
            Self::Protocol => Value::maybe_text(info.protocol.get().and_then(version)),
            Self::ResponseCode => Value::Number(info.response_code.get().into()),
            Self::ResponseCodeDetails { spaces } => details(info, *spaces),
            Self::ConnectionTermination => match info.connection_termination_details.get() {
                Some(details) => Value::text(details),
                None => owned(&info.connection.termination_details, str::to_owned),
            },
            Self::LogType => Value::text(info.log_type.get()),
            Self::LocalClose => owned(&info.connection.state.local_close_reason, str::to_owned),
            Self::Closing(closing) => closing.value(info),
            // `-` also where missing values are left out: the absence of flags is a fact.
            Self::Flags { long: false } => Value::Shown(Shown::Flags(info.flags.get())),
            Self::Flags { long: true } => Value::Text(Cow::Owned(info.flags.get().long())),
            Self::BytesReceived => Value::Number(info.bytes_received.get()),
            Self::BytesSent => Value::Number(info.bytes_sent.get()),
            Self::Duration => {
                let elapsed = info.ended.get().or_else(|| info.start_time.elapsed().ok());
                Value::maybe_number(elapsed.map(|elapsed| in_unit(elapsed, Unit::Milliseconds)))
            }
            Self::Span(from, to, unit) => {
                let span = from.of(info).zip(to.of(info)).and_then(|(from, to)| to.checked_sub(from));
                Value::maybe_number(span.map(|span| in_unit(span, *unit)))
            }
            Self::UpstreamCluster => owned(&info.cluster, str::to_owned),
            Self::UpstreamAddress(which, part) => upstream_address(info, *which, *part),
            Self::UpstreamAttempts => Value::Number(info.attempts.get().into()),
            Self::UpstreamFailure => {
                let reason = info.upstream_transport_failure.borrow();
                Value::maybe_owned(
                    reason.as_deref().filter(|text| !text.is_empty()).map(|text| underscored(text, false)),
                )
            }
            Self::UpstreamProtocol => {
                let protocol = info.upstream.borrow().as_ref().and_then(|upstream| upstream.protocol);
                Value::maybe_text(protocol.and_then(version))
            }
            Self::UpstreamConnectionId => Value::maybe_number(
                info.upstream.borrow().as_ref().and_then(|upstream| upstream.connection_id),
            ),
            Self::DownstreamAddress(Downstream::Remote, part) => {
                owned_address(&info.remote_address.borrow(), *part)
            }
            Self::DownstreamAddress(Downstream::DirectRemote, part) => {
                address(&info.connection.direct_remote_address, *part)
            }
            Self::DownstreamAddress(Downstream::Local, part) => {
                address(&info.connection.local_address, *part)
            }
            Self::ConnectionId => Value::Number(info.connection.id),
            Self::FilterChainName => {
                let name = &*info.connection.filter_chain;
                Value::maybe_owned((!name.is_empty()).then(|| name.to_owned()))
            }
            Self::Metadata(metadata) => metadata.value(info),
            Self::VirtualCluster => owned(&info.virtual_cluster, str::to_owned),
            Self::RouteName => Value::maybe_owned(
                info.route_name.borrow().as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
            ),
            Self::LocalReplyBody => {
                Value::maybe_text(Some(cx.local_reply_body).filter(|body| !body.is_empty()))
            }
            Self::HeaderBytes(source) => Value::maybe_number(header_bytes(cx, *source)),
            Self::Grpc(style) => style.value(cx),
            Self::Tls(operator) => operator.value(info),
            Self::DownstreamFailure => downstream_failure(info),
            Self::RequestedServerName(source) => source.value(cx, info),
            Self::Path { query, original } => Value::maybe_text(path_value(cx.request, *query, *original)),
            Self::QueryParam(key) => Value::maybe_text(cx.request.and_then(|head| query_param(head, key))),
            Self::QueryParams => Value::maybe_text(cx.request.and_then(RequestHead::query)),
            Self::Fixed(text) => Value::maybe_text(text.as_deref()),
        }
    }
}

/// A text that is learned late, if it was.
fn owned<T: Deref<Target = str>>(text: &RefCell<Option<T>>, copy: impl Fn(&str) -> String) -> Value<'static> {
    Value::maybe_owned(text.borrow().as_deref().map(copy))
}

/// Envoy tells it of connections, not of the requests on them.
fn downstream_failure(info: &StreamInfo) -> Value<'static> {
    match info.log_type.get() {
        StreamInfo::REQUEST_END => Value::Missing,
        _ => owned(&info.connection.transport_failure, |text| underscored(text, false)),
    }
}

/// How connections end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Closing {
    Type,
    UpstreamType,
    UpstreamReason,
}

impl Closing {
    fn value(self, info: &StreamInfo) -> Value<'static> {
        let state = &info.connection.state;
        match self {
            Self::Type => Value::text(state.close_type.get().name()),
            Self::UpstreamType => {
                // Of requests nothing else is known.
                let served = info.upstream.borrow().as_ref().map(|_| CloseType::Normal);
                Value::maybe_text(state.upstream_close_type.get().or(served).map(CloseType::name))
            }
            Self::UpstreamReason => owned(&state.upstream_local_close_reason, str::to_owned),
        }
    }
}

impl Point {
    fn of(self, info: &StreamInfo) -> Option<Duration> {
        match self {
            Self::DownstreamRxBegin => Some(Duration::ZERO),
            Self::DownstreamRxEnd => info.request_complete.get(),
            Self::UpstreamTxBegin => info.first_upstream_tx.get(),
            Self::UpstreamRxBegin => info.first_upstream_rx.get(),
            Self::UpstreamRxEnd => info.last_upstream_rx.get(),
            Self::DownstreamTxBegin => info.first_downstream_tx.get(),
            Self::DownstreamTxEnd => info.ended.get(),
        }
    }
}

fn in_unit(duration: Duration, unit: Unit) -> u64 {
    let value = match unit {
        Unit::Milliseconds => duration.as_millis(),
        Unit::Microseconds => duration.as_micros(),
        Unit::Nanoseconds => duration.as_nanos(),
    };
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The details; nearly all are static texts without spaces.
fn details(info: &StreamInfo, spaces: bool) -> Value<'static> {
    match &*info.details.borrow() {
        None => Value::Missing,
        Some(Cow::Borrowed(text)) if spaces || !text.contains(char::is_whitespace) => Value::text(text),
        Some(text) => Value::Text(Cow::Owned(underscored(text, spaces))),
    }
}

fn underscored(text: &str, spaces: bool) -> String {
    if spaces { text.to_owned() } else { text.replace(char::is_whitespace, "_") }
}

/// A version as Envoy writes it.
fn version(version: Version) -> Option<&'static str> {
    Some(match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => return None,
    })
}

fn upstream_address(info: &StreamInfo, which: Upstream, part: AddressPart) -> Value<'static> {
    let upstream = info.upstream.borrow();
    let Some(upstream) = upstream.as_ref() else { return Value::Missing };
    match which {
        Upstream::Host => owned_address(&upstream.host, part),
        // Neither is known before there is a connection.
        Upstream::Remote => connected(upstream.remote_address.as_deref(), part),
        Upstream::Local => connected(upstream.local_address.as_deref(), part),
    }
}

fn connected(address: Option<&Address>, part: AddressPart) -> Value<'static> {
    address.map_or(Value::Missing, |address| owned_address(address, part))
}

fn address(address: &Address, part: AddressPart) -> Value<'_> {
    match (part, address) {
        (AddressPart::Whole, _) | (AddressPart::Host, Address::Unix(_)) => {
            Value::Shown(Shown::Address(address))
        }
        (AddressPart::Host, Address::Ip(ip)) => Value::Shown(Shown::Ip(ip.ip())),
        (AddressPart::Port, _) => Value::maybe_number(address.port().map(u64::from)),
    }
}

/// As [`address`] for an address behind a cell: IP addresses are copied, paths are rare.
fn owned_address(address: &Address, part: AddressPart) -> Value<'static> {
    match (part, address) {
        (AddressPart::Whole, _) | (AddressPart::Host, Address::Unix(_)) => {
            Value::Shown(Shown::Owned(address.clone()))
        }
        (AddressPart::Host, Address::Ip(ip)) => Value::Shown(Shown::Ip(ip.ip())),
        (AddressPart::Port, _) => Value::maybe_number(address.port().map(u64::from)),
    }
}

fn header_bytes(cx: &LogContext<'_>, source: Source) -> Option<u64> {
    let fields = |headers: &HeaderMap| {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    };
    let bytes = match source {
        Source::Request => {
            let head = cx.request?;
            let pseudo = [":method", ":scheme", ":authority", ":path"].iter().map(|name| name.len());
            let values = head.method.as_str().len() + head.scheme.as_str().len();
            pseudo.sum::<usize>() + values + head.authority.len() + head.path.len() + fields(&head.headers)
        }
        Source::Response => {
            let head: &ResponseHead = cx.response?;
            ":status".len() + 3 + fields(&head.headers)
        }
        Source::Trailers => fields(cx.response_trailers?),
    };
    u64::try_from(bytes).ok()
}

fn path_value(head: Option<&RequestHead>, query: bool, original: Original) -> Option<&str> {
    let head = head?;
    let before = || Field::parse("x-envoy-original-path").ok().and_then(|field| field.of_request(head));
    let path = match original {
        Original::Preferred => before().or(Some(head.path_str())),
        Original::Only => before(),
        Original::No => Some(head.path_str()),
    }?;
    if query { Some(path) } else { path.split(['?', '#']).next() }
}

/// The first value of a query parameter, as written.
fn query_param<'a>(head: &'a RequestHead, key: &str) -> Option<&'a str> {
    head.query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}
