//! `REQ`, `RESP` and `TRAILER`: a header's value, or another's when it is absent.

use http::{HeaderMap, HeaderName};
use tidegate_types::RequestHead;

use crate::LogContext;
use crate::format::value::Value;

/// Where a header stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Source {
    Request,
    Response,
    Trailers,
}

/// `(X?Y):Z`.
#[derive(Clone, Debug)]
pub(in crate::format) struct Fields {
    source: Source,
    main: Field,
    alternative: Option<Field>,
    /// Bytes.
    length: Option<usize>,
}

/// A header, or what HTTP/2 calls a pseudo-header.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Header(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    /// A pseudo-header that no message of this kind has.
    Never,
}

impl Field {
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        Ok(match lower.as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            other if other.starts_with(':') => Self::Never,
            other => Self::Header(other.parse().map_err(|_| format!("`{name}` is no header name"))?),
        })
    }

    pub(super) fn of_request<'a>(&self, head: &'a RequestHead) -> Option<&'a str> {
        match self {
            Self::Header(name) => text(&head.headers, name),
            Self::Method => Some(head.method.as_str()),
            Self::Path => Some(head.path_str()).filter(|path| !path.is_empty()),
            Self::Authority => Some(head.authority_str()).filter(|host| !host.is_empty()),
            Self::Scheme => Some(head.scheme.as_str()),
            Self::Status | Self::Never => None,
        }
    }
}

/// The first value of a header; bytes that are not UTF-8 make it missing.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

impl Fields {
    pub(super) fn parse(source: Source, argument: &str, length: Option<usize>) -> Result<Self, String> {
        let (main, alternative) = match argument.split_once('?') {
            Some((main, alternative)) => (main, Some(alternative)),
            None => (argument, None),
        };
        if alternative.is_some_and(|text| text.contains('?')) {
            return Err("more than one alternative header".to_owned());
        }
        let alternative = alternative.filter(|name| !name.is_empty()).map(Field::parse).transpose()?;
        Ok(Self { source, main: Field::parse(main)?, alternative, length })
    }

    pub(super) fn value<'a>(&self, cx: &LogContext<'a>) -> Value<'a> {
        let found = self.find(&self.main, cx);
        let found = found.or_else(|| self.find(self.alternative.as_ref()?, cx));
        Value::maybe_text(found.map(|text| super::cut(text, self.length)))
    }

    fn find<'a>(&self, field: &Field, cx: &LogContext<'a>) -> Option<&'a str> {
        match (self.source, field) {
            (Source::Request, Field::Scheme) => {
                let told = cx.info.upstream_scheme.get();
                Some(told.unwrap_or(cx.request?.scheme).as_str())
            }
            (Source::Request, field) => field.of_request(cx.request?),
            (Source::Response, Field::Header(name)) => text(&cx.response?.headers, name),
            // A status borrowed from the head lives as long as it does.
            (Source::Response, Field::Status) => cx.response.map(|head| head.status.as_str()),
            (Source::Trailers, Field::Header(name)) => text(cx.response_trailers?, name),
            (Source::Response | Source::Trailers, _) => None,
        }
    }
}
