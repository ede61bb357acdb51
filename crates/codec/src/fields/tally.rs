//! The limits on a block's fields, and what has become of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use tidegate_types::spare;

use crate::hpack::ENTRY_OVERHEAD;
use crate::multiplex::Event;

/// Whose rules hold, where the two versions or Envoy's codecs for them differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Http2,
    Http3,
}

impl Dialect {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::Http2 => Version::HTTP_2,
            Self::Http3 => Version::HTTP_3,
        }
    }
}

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
    /// HTTP/3's for a pseudo-header field twice, or behind one that is none (RFC 9114 §4.3): ends the stream alone in
    /// any case.
    #[error("misplaced pseudo-header field")]
    Misplaced,
    /// HTTP/3's for a path that is none for this method, and for a method or a status that is said twice: ends the
    /// stream alone in any case, with H3_NO_ERROR, as in Envoy.
    #[error("pseudo-header fields that contradict each other")]
    Contradiction,
    /// HTTP/3's for a head that ends a message whose length it says to be more: ends the stream alone in any case.
    #[error("body shorter than content-length")]
    Length,
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
    pub(crate) fn details(self, dialect: Dialect) -> &'static str {
        match (dialect, self) {
            (Dialect::Http2, Self::Field | Self::Misplaced) => "http2.invalid.header.field",
            (Dialect::Http2, Self::Message | Self::Contradiction | Self::Length) => {
                "http2.violation.of.messaging.rule"
            }
            (Dialect::Http2, Self::TooLarge) => "http2.header_list_size_too_large",
            (Dialect::Http2, Self::TooMany) => "http2.too_many_headers",
            (Dialect::Http2, Self::Underscore) => "http2.unexpected_underscore",
            (Dialect::Http3, Self::Field | Self::Misplaced | Self::Message | Self::Contradiction) => {
                "http3.invalid_header_field"
            }
            (Dialect::Http3, Self::Length) => "http3.inconsistent_content_length",
            (Dialect::Http3, Self::TooLarge) => "http3.headers_too_large",
            (Dialect::Http3, Self::TooMany) => "http3.too_many_headers",
            (Dialect::Http3, Self::Underscore) => "http3.unexpected_underscore",
        }
    }

    /// The verdict as this dialect knows it.
    pub(crate) fn under(self, dialect: Dialect) -> Self {
        match (dialect, self) {
            (Dialect::Http2, Self::Misplaced) => Self::Field,
            (Dialect::Http2, Self::Contradiction) => Self::Message,
            _ => self,
        }
    }

    /// What statistics call it.
    pub(crate) fn event(self) -> Event {
        match self {
            Self::Field | Self::Message | Self::Misplaced | Self::Contradiction | Self::Length => {
                Event::MessagingError
            }
            Self::TooLarge => Event::HeadTooLarge,
            Self::TooMany => Event::HeaderOverflow,
            Self::Underscore => Event::UnderscoreRejected,
        }
    }

    /// Whether the message is malformed, and not just unwanted: `http2.rx_messaging_error`.
    pub(crate) fn is_malformed(self) -> bool {
        matches!(self, Self::Field | Self::Message | Self::Misplaced | Self::Contradiction | Self::Length)
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
    pub(crate) obs_text: ObsText,
    pub(crate) dialect: Dialect,
}

/// What to do with values that have bytes above 0x7f (`obs-text`, RFC 9110 §5.5): Envoy's `disallow_obs_text`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObsText {
    /// They are values like any other.
    #[default]
    Allow,
    /// They are no values.
    Refuse,
}

/// What to do with names that some servers confuse: Envoy's `headers_with_underscores_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They are fields like any other.
    #[default]
    Allow,
    /// They are left out.
    Drop,
    /// They end the stream.
    Reject,
}

/// What all blocks gather: fields that are no pseudo-header fields, and counts.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) limits: Limits,
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

    /// Keeps the first verdict. With HTTP/3 a field that must not be outweighs what is wrong between fields: Envoy
    /// looks at each field as it is decoded, and at the message behind.
    pub(super) fn judge(&mut self, taken: Result<(), Verdict>) {
        let Err(verdict) = taken else { return };
        let verdict = verdict.under(self.limits.dialect);
        if self.verdict.is_none() || verdict == Verdict::Field {
            self.verdict = Some(verdict);
        }
    }

    /// Whether another field can still change what becomes of the block.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.verdict, None | Some(Verdict::Misplaced | Verdict::Contradiction))
    }

    /// Looks at a value's bytes before anything is made of it.
    pub(super) fn check_text(&self, value: &[u8]) -> Result<(), Verdict> {
        if self.limits.obs_text == ObsText::Refuse && !value.is_ascii() {
            Err(Verdict::Field)
        } else {
            Ok(())
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
            self.headers = room();
        }
        // The map has a limit of its own; a configured one may lie above it.
        self.repeated |= self.headers.try_append(name, value).map_err(|_| Verdict::TooMany)?;
        Ok(())
    }
}

/// A map with room for a head.
fn room() -> HeaderMap {
    let mut headers = spare::take_map();
    if headers.capacity() < EXPECTED_FIELDS {
        headers.reserve(EXPECTED_FIELDS);
    }
    headers
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

/// Bytes of fields, 32 for each beside its text (RFC 9113 §10.5.1).
pub(crate) fn size_of(headers: &http::HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum()
}
