//! Trailers from fields (RFC 9113 §8.1).

use http::{HeaderMap, header};
use tidegate_types::EndStream;

use super::rules::check_connection_field;
use super::tally::{Dialect, Limits, Tally, Verdict, field_value};
use crate::hpack::{Field, Name};

/// The fields of a block that ends a message.
#[derive(Debug)]
pub(crate) struct TrailerFields {
    tally: Tally,
    /// `content-length` came.
    length: bool,
}

impl TrailerFields {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { tally: Tally::new(limits), length: false }
    }

    /// Takes the next field and its size (RFC 7541 §4.1).
    pub(crate) fn push(&mut self, field: Field, size: usize) {
        if self.tally.verdict.is_none() {
            let taken = self.take(field, size);
            self.tally.judge(taken);
        }
    }

    /// Fields left out for underscores in their names.
    pub(crate) fn dropped(&self) -> u32 {
        self.tally.dropped
    }

    /// Judges them as a whole; `end` as on their HEADERS frame. An empty map if nothing is to be passed on.
    pub(crate) fn finish(self, end: EndStream) -> Result<HeaderMap, Verdict> {
        match self.tally.verdict {
            Some(verdict) => Err(verdict),
            // Trailers MUST end the stream (RFC 9113 §8.1); a length cannot come after what it measures.
            None if !end.is_end() || self.length => Err(Verdict::Message),
            None => Ok(self.tally.headers),
        }
    }

    fn take(&mut self, field: Field, size: usize) -> Result<(), Verdict> {
        let Name::Header(name) = field.name else {
            // No pseudo-header fields here (RFC 9113 §8.1).
            return Err(Verdict::Misplaced);
        };
        self.tally.check_text(&field.value)?;
        let value = field_value(field.value, field.sensitive)?;
        check_connection_field(&name, value.as_bytes())?;
        if !self.tally.admit(&name)? {
            return Ok(());
        }
        self.tally.count(size)?;
        match name {
            // Envoy lets it pass in HTTP/3; nobody needs it.
            header::CONTENT_LENGTH => self.length = self.tally.limits.dialect == Dialect::Http2,
            // They route and frame, for which it is too late (RFC 9110 §6.5.1).
            header::HOST | header::TE => {}
            _ => self.tally.append(name, value)?,
        }
        Ok(())
    }
}
