//! Field sections that came: requests, responses, trailers (RFC 9114 §4).

use bytes::Bytes;
use http::StatusCode;
use tidegate_types::EndStream;

use super::codes::{
    self, BAD_PAYLOAD, EXCESSIVE_LOAD, Fault, GENERAL_PROTOCOL_ERROR, HEADERS_TOO_LARGE, Handled, LENGTH,
    NO_ERROR, TOO_MANY_TRAILERS,
};
use super::conn::{Core, Side};
use super::streams::{Failure, Key, Phase};
use crate::fields::{Dialect, Limits, RequestFields, RequestRules, ResponseFields, TrailerFields, Verdict};
use crate::hpack::Field;
use crate::multiplex::Event;
use crate::qpack;
use crate::stream::{ResetCode, ResponseFrame};

/// Where in a message a section stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Head,
    Trailers,
}

impl Core {
    /// A section before the body.
    pub(crate) fn handle_head(&mut self, key: Key, section: &Bytes) -> Handled {
        match &self.side {
            Side::Server(options) => {
                let rules = RequestRules::from(&**options);
                self.handle_request(key, section, rules)
            }
            Side::Client(options) => {
                let limits = Limits::from(&**options);
                self.handle_response(key, section, limits)
            }
        }
    }

    fn handle_request(&mut self, key: Key, section: &Bytes, rules: RequestRules) -> Handled {
        let mut fields = RequestFields::new(rules);
        self.decode(key, section, |field, size| fields.push(field, size))?;
        // Before the end is looked for: a stream whose end is known cannot be stopped, as Envoy does.
        let judged = fields.finish(EndStream::No);
        let end = if judged.is_ok() { self.probe_end(key) } else { EndStream::No };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        stream.rx.phase = if end.is_end() { Phase::Ended } else { Phase::Body };
        stream.reader.wake();
        match judged {
            Ok(received) => {
                stream.rx.left = received.length;
                if stream.rx.left.take(0, end).is_err() {
                    return self.refuse(key, Section::Head, Verdict::Length);
                }
                let dropped = received.dropped;
                stream.rx.request = Some(received);
                self.count_dropped(dropped);
                Ok(())
            }
            Err(verdict) => self.refuse(key, Section::Head, verdict),
        }
    }

    fn handle_response(&mut self, key: Key, section: &Bytes, limits: Limits) -> Handled {
        let mut fields = ResponseFields::new(limits);
        self.decode(key, section, |field, size| fields.push(field, size))?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        // As of requests. That nothing follows an informational head is seen later.
        let (head, length) = match fields.finish(EndStream::No, &stream.rx.asked) {
            Ok(response) => response,
            Err(verdict) => return self.refuse(key, Section::Head, verdict),
        };
        let end = if head.status.is_informational() { EndStream::No } else { self.probe_end(key) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        stream.reader.wake();
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            if stream.rx.responses.len() >= MAX_INFORMATIONAL {
                self.fail_stream(
                    key,
                    EXCESSIVE_LOAD,
                    codes::reset_name(EXCESSIVE_LOAD),
                    Failure::Protocol(codes::INVALID),
                );
                return Ok(());
            }
            stream.rx.responses.push_back(ResponseFrame::Informational(head));
            return Ok(());
        }
        (stream.rx.phase, stream.rx.left) = (Phase::Body, length);
        if end.is_end() {
            if stream.rx.left.take(0, EndStream::Yes).is_err() {
                self.fail_stream(key, GENERAL_PROTOCOL_ERROR, BAD_PAYLOAD, Failure::Protocol(LENGTH));
                return Ok(());
            }
            stream.rx.phase = Phase::Ended;
        }
        stream.rx.responses.push_back(ResponseFrame::Head(head, end));
        Ok(())
    }

    /// A section behind the body.
    pub(crate) fn handle_trailers(&mut self, key: Key, section: &Bytes) -> Handled {
        let mut fields = TrailerFields::new(Limits::from(self.side.common()));
        self.decode(key, section, |field, size| fields.push(field, size))?;
        self.count(Event::Trailers);
        self.count_dropped(fields.dropped());
        // That nothing follows is seen later.
        match fields.finish(EndStream::Yes) {
            Ok(trailers) => {
                let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
                stream.rx.phase = Phase::Trailers;
                stream.rx.trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
                Ok(())
            }
            Err(verdict) => self.refuse(key, Section::Trailers, verdict),
        }
    }

    /// RFC 9204 §2.2.3.
    fn decode(&mut self, key: Key, section: &Bytes, mut sink: impl FnMut(Field, usize)) -> Handled {
        let id = self.streams.get(key).and_then(|stream| stream.id);
        let required = qpack::decode(section, self.sections.table(), &mut sink).map_err(|error| {
            Fault::section(match error {
                qpack::Error::Prefix => "Error decoding headers on stream {}: Incomplete header data prefix.",
                qpack::Error::Truncated => "Error decoding headers on stream {}: Incomplete header block.",
                qpack::Error::Integer => "Error decoding headers on stream {}: Encoded integer too large.",
                qpack::Error::Static => "Error decoding headers on stream {}: Static table entry not found.",
                qpack::Error::Dynamic => {
                    "Error decoding headers on stream {}: Dynamic table entry not found."
                }
                qpack::Error::Huffman => {
                    "Error decoding headers on stream {}: Error in Huffman-encoded string."
                }
            })
            .about(id.map_or(0, u64::from))
        })?;
        if let Some(id) = id
            && self.sections.acknowledge(id, required)
        {
            self.wake();
        }
        Ok(())
    }

    fn count_dropped(&self, fields: u32) {
        for _ in 0..fields {
            self.count(Event::UnderscoreDropped);
        }
    }

    /// A message that is not taken costs its stream, and a malformed one the connection, unless configured otherwise
    /// (RFC 9114 §4.1.2).
    pub(crate) fn refuse(&mut self, key: Key, section: Section, verdict: Verdict) -> Handled {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if section == Section::Head {
            stream.rx.refused = Some(verdict);
        }
        self.count(verdict.event());
        let is_trailers = section == Section::Trailers;
        let details = match verdict {
            Verdict::TooMany if is_trailers => TOO_MANY_TRAILERS,
            _ => verdict.details(Dialect::Http3),
        };
        let spares_connection = self.side.common().messages.override_stream_error_on_invalid_http_message;
        let (code, name) = match verdict {
            Verdict::Field | Verdict::Message if !spares_connection => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.fail(Failure::Protocol(details));
                }
                return Err(Fault::malformed(match self.side {
                    Side::Server(_) => details,
                    Side::Client(_) => "Invalid headers",
                }));
            }
            Verdict::Misplaced if is_trailers && !spares_connection => return Err(codes::TRAILERS),
            Verdict::Field
            | Verdict::Message
            | Verdict::Misplaced
            | Verdict::Underscore
            | Verdict::Length => (GENERAL_PROTOCOL_ERROR, BAD_PAYLOAD),
            // Envoy's answer.
            Verdict::Contradiction => (NO_ERROR, codes::reset_name(NO_ERROR)),
            Verdict::TooLarge => (EXCESSIVE_LOAD, HEADERS_TOO_LARGE),
            Verdict::TooMany => (EXCESSIVE_LOAD, codes::reset_name(EXCESSIVE_LOAD)),
        };
        // To have us reset a stream costs the peer as little as to reset it (CVE-2025-8671).
        self.note_premature(key);
        let failure = match (&self.side, verdict) {
            // What an upstream may say is ours to limit: nobody broke a rule, in Envoy's eyes neither who says a status
            // twice.
            (Side::Client(_), Verdict::TooLarge | Verdict::TooMany | Verdict::Contradiction) => {
                Failure::Reset { code: ResetCode::EnhanceYourCalm, by_peer: false }
            }
            _ => Failure::Protocol(details),
        };
        self.fail_stream(key, code, name, failure);
        Ok(())
    }
}

/// 1xx heads that wait to be read. Stops an upstream that sends nothing else.
const MAX_INFORMATIONAL: usize = 32;
