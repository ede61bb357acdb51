//! The limits on a block's fields, and what has become of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::h2::options::{Options, Underscores};
use crate::hpack::ENTRY_OVERHEAD;

/// Why a block is not served. Nothing of it is answered: the stream or the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Verdict {
    /// A field that must not be (RFC 9113 §8.1.1): ends the connection, or with
    /// `override_stream_error_on_invalid_http_message` the stream, with PROTOCOL_ERROR.
    #[error("invalid field")]
    Field,
    /// Fields that do not make a message (RFC 9113 §8.1.1); ends the same.
    #[error("fields that make no message")]
    Message,
    /// Over `max_request_headers_kb`: ends the stream with INTERNAL_ERROR, as do those below.
    #[error("header list too large")]
    TooLarge,
    /// Over `max_headers_count`.
    #[error("too many fields")]
    TooMany,
    /// `headers_with_underscores_action: REJECT_REQUEST`.
    #[error("underscore in a field's name")]
    Underscore,
}

impl Verdict {
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::Field => "http2.invalid.header.field",
            Self::Message => "http2.violation.of.messaging.rule",
            Self::TooLarge => "http2.header_list_size_too_large",
            Self::TooMany => "http2.too_many_headers",
            Self::Underscore => "http2.unexpected_underscore",
        }
    }

    /// Whether the message is malformed, and not just unwanted: `http2.rx_messaging_error`.
    pub(crate) fn is_malformed(self) -> bool {
        matches!(self, Self::Field | Self::Message)
    }
}

/// Bounds on a block, counted as Envoy counts: pseudo-header fields and each cookie crumb are fields too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of names and values, without RFC 7541's 32 a field.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
    pub(crate) underscores: Underscores,
}

impl From<&Options> for Limits {
    fn from(options: &Options) -> Self {
        Self {
            bytes: options.max_head_bytes as usize,
            fields: options.max_headers,
            underscores: options.underscores,
        }
    }
}

/// What all blocks gather: fields that are no pseudo-header fields, and counts.
#[derive(Debug)]
pub(super) struct Tally {
    limits: Limits,
    pub(super) headers: HeaderMap,
    /// Bytes of names and values.
    pub(super) bytes: usize,
    count: usize,
    /// A name came twice.
    pub(super) repeated: bool,
    /// A field that is no pseudo-header field came.
    pub(super) regular: bool,
    /// Fields dropped for their underscores.
    pub(super) dropped: u32,
    pub(super) verdict: Option<Verdict>,
}

impl Tally {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            headers: HeaderMap::new(),
            bytes: 0,
            count: 0,
            repeated: false,
            regular: false,
            dropped: 0,
            verdict: None,
        }
    }

    /// Counts one more field of this size (RFC 7541 §4.1).
    pub(super) fn count(&mut self, size: usize) -> Result<(), Verdict> {
        self.bytes += size.saturating_sub(ENTRY_OVERHEAD);
        self.count += 1;
        if self.bytes > self.limits.bytes {
            Err(Verdict::TooLarge)
        } else if self.count > self.limits.fields {
            Err(Verdict::TooMany)
        } else {
            Ok(())
        }
    }

    /// Whether the name may pass, or the field is to be dropped.
    pub(super) fn admit(&mut self, name: &HeaderName) -> Result<bool, Verdict> {
        if self.limits.underscores == Underscores::Allow || !name.as_str().contains('_') {
            return Ok(true);
        }
        if self.limits.underscores == Underscores::Reject {
            return Err(Verdict::Underscore);
        }
        self.dropped += 1;
        Ok(false)
    }

    /// Keeps a field.
    pub(super) fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Verdict> {
        if self.headers.capacity() == 0 {
            self.headers.reserve(EXPECTED_FIELDS);
        }
        // The map has a limit of its own; a configured one may lie above it.
        self.repeated |= self.headers.try_append(name, value).map_err(|_| Verdict::TooMany)?;
        Ok(())
    }
}

/// A field's value, if it is one (RFC 9113 §8.2.1).
pub(super) fn field_value(value: Bytes, sensitive: bool) -> Result<HeaderValue, Verdict> {
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| Verdict::Field)?;
    if sensitive {
        value.set_sensitive(true);
    }
    Ok(value)
}

/// Room in a head's map, also for the fields that a proxy adds: growing it means hashing every name again.
const EXPECTED_FIELDS: usize = 14;
