//! Response heads from fields (RFC 9113 §8.3.2).

use http::{HeaderName, HeaderValue, StatusCode, header};
use tidegate_types::{EndStream, ResponseHead};

use super::asked::Asked;
use super::length::ContentLength;
use super::rules::check_connection_field;
use super::tally::{Dialect, Limits, Tally, Verdict, field_value};
use crate::h1::parse::join_response_fields;
use crate::h1::rules::parse_length;
use crate::hpack::{Field, Name};

/// The fields of a response's head, final or informational.
#[derive(Debug)]
pub(crate) struct ResponseFields {
    tally: Tally,
    status: Option<StatusCode>,
    length: Option<u64>,
}

impl ResponseFields {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { tally: Tally::new(limits), status: None, length: None }
    }

    /// Takes the next field and its size (RFC 7541 §4.1).
    pub(crate) fn push(&mut self, field: Field, size: usize) {
        if self.tally.is_open() {
            let taken = self.take(field, size);
            self.tally.judge(taken);
        }
    }

    /// Judges the head as a whole. `end` as on its HEADERS frame. The length is that of the DATA to come: none for
    /// what has no body (RFC 9110 §6.4.1). A body that is missing at the head's end is told by
    /// [`ContentLength::take`], as one that is cut short later: it ends the stream alone.
    pub(crate) fn finish(
        mut self,
        end: EndStream,
        asked: &Asked,
    ) -> Result<(ResponseHead, ContentLength), Verdict> {
        if let Some(verdict) = self.tally.verdict {
            return Err(verdict);
        }
        let mut status = self.status.ok_or(Verdict::Message)?;
        if status.is_informational() && end.is_end() {
            return Err(Verdict::Message);
        }
        if self.tally.repeated {
            join_response_fields(&mut self.tally.headers).map_err(|_| Verdict::Field)?;
        }
        let tunnel = status.is_success() && matches!(asked, Asked::Connect | Asked::Upgrade(_));
        let length = if tunnel {
            self.tally.headers.remove(header::CONTENT_LENGTH);
            ContentLength::Any
        } else if asked.is_bodiless(status) {
            ContentLength::Remaining(0)
        } else {
            self.length.map_or(ContentLength::Any, ContentLength::Remaining)
        };
        if tunnel && let Asked::Upgrade(protocol) = asked {
            // What HTTP/1.1 would have said (RFC 8441 §5).
            status = StatusCode::SWITCHING_PROTOCOLS;
            let protocol = HeaderValue::from_maybe_shared(protocol.clone()).map_err(|_| Verdict::Field)?;
            self.tally.append(header::UPGRADE, protocol)?;
        }
        let head = ResponseHead {
            status,
            version: self.tally.limits.dialect.version(),
            headers: self.tally.headers,
            names: None,
        };
        Ok((head, length))
    }

    fn take(&mut self, field: Field, size: usize) -> Result<(), Verdict> {
        let Field { name, value, sensitive } = field;
        self.tally.check_text(&value)?;
        match name {
            Name::Header(name) => {
                if self.tally.limits.dialect == Dialect::Http3 && !value.is_ascii() {
                    // Envoy's rule.
                    return Err(Verdict::Field);
                }
                self.take_header(name, field_value(value, sensitive)?, size)
            }
            Name::Status => {
                let status = StatusCode::from_bytes(&value).map_err(|_| Verdict::Field)?;
                // HTTP/2 has no such status (RFC 9113 §8.6).
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(Verdict::Field);
                }
                if self.tally.regular {
                    return Err(Verdict::Misplaced);
                }
                if self.status.replace(status).is_some() {
                    // As of HTTP/3 alone; here a second one is a field that must not be.
                    return Err(match self.tally.limits.dialect {
                        Dialect::Http2 => Verdict::Field,
                        Dialect::Http3 => Verdict::Contradiction,
                    });
                }
                self.tally.count(size)
            }
            _ => Err(Verdict::Field),
        }
    }

    fn take_header(&mut self, name: HeaderName, value: HeaderValue, size: usize) -> Result<(), Verdict> {
        self.tally.regular = true;
        if name == header::CONTENT_LENGTH {
            let length = parse_length(value.as_bytes()).ok_or(Verdict::Field)?;
            if self.length.replace(length).is_some() {
                return Err(Verdict::Field);
            }
            // These have none (RFC 9110 §8.6); 0 is harmless and goes no further.
            if self.status.is_some_and(|status| status.is_informational() || status == StatusCode::NO_CONTENT)
            {
                return if length == 0 { self.tally.count(size) } else { Err(Verdict::Field) };
            }
        } else {
            check_connection_field(&name, value.as_bytes())?;
        }
        if !self.tally.admit(&name)? {
            return Ok(());
        }
        self.tally.count(size)?;
        self.tally.append(name, value)
    }
}
