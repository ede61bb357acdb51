//! Error codes (RFC 9114 §8.1, RFC 9204 §6) in the words of the streams above, and the faults that end a connection.
//!
//! Envoy counts under the names of its QUIC library, and says that library's number in the reason of a close: a
//! [`Fault`] knows them.

use crate::multiplex::ConnError;
use crate::stream::ResetCode;

pub(crate) const NO_ERROR: u64 = 0x100;
pub(crate) const GENERAL_PROTOCOL_ERROR: u64 = 0x101;
pub(crate) const INTERNAL_ERROR: u64 = 0x102;
pub(crate) const STREAM_CREATION_ERROR: u64 = 0x103;
pub(crate) const CLOSED_CRITICAL_STREAM: u64 = 0x104;
pub(crate) const FRAME_UNEXPECTED: u64 = 0x105;
pub(crate) const FRAME_ERROR: u64 = 0x106;
pub(crate) const EXCESSIVE_LOAD: u64 = 0x107;
pub(crate) const ID_ERROR: u64 = 0x108;
pub(crate) const SETTINGS_ERROR: u64 = 0x109;
pub(crate) const MISSING_SETTINGS: u64 = 0x10a;
pub(crate) const REQUEST_REJECTED: u64 = 0x10b;
pub(crate) const REQUEST_CANCELLED: u64 = 0x10c;
pub(crate) const REQUEST_INCOMPLETE: u64 = 0x10d;
pub(crate) const CONNECT_ERROR: u64 = 0x10f;
pub(crate) const VERSION_FALLBACK: u64 = 0x110;
pub(crate) const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
pub(crate) const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
pub(crate) const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;

/// A reset's code as the peer said it. What is wrong with a stream in Envoy's eyes is so here: most codes say that a
/// rule was broken, also H3_INTERNAL_ERROR.
pub(crate) fn from_wire(code: u64) -> ResetCode {
    match code {
        NO_ERROR => ResetCode::NoError,
        EXCESSIVE_LOAD => ResetCode::EnhanceYourCalm,
        REQUEST_REJECTED => ResetCode::Refused,
        REQUEST_CANCELLED => ResetCode::Cancel,
        CONNECT_ERROR => ResetCode::Connect,
        GENERAL_PROTOCOL_ERROR..=MISSING_SETTINGS | REQUEST_INCOMPLETE | VERSION_FALLBACK => {
            ResetCode::Protocol
        }
        QPACK_DECOMPRESSION_FAILED..=QPACK_DECODER_STREAM_ERROR => ResetCode::Protocol,
        other => ResetCode::Other(u32::try_from(other).unwrap_or(u32::MAX)),
    }
}

/// The code to be said for this.
pub(crate) fn to_wire(code: ResetCode) -> u64 {
    match code {
        ResetCode::NoError => NO_ERROR,
        ResetCode::Protocol => GENERAL_PROTOCOL_ERROR,
        ResetCode::Internal => INTERNAL_ERROR,
        ResetCode::Refused => REQUEST_REJECTED,
        ResetCode::Cancel => REQUEST_CANCELLED,
        ResetCode::Connect => CONNECT_ERROR,
        ResetCode::EnhanceYourCalm => EXCESSIVE_LOAD,
        ResetCode::Http11Required => VERSION_FALLBACK,
        ResetCode::Other(code) => u64::from(code),
    }
}

/// Envoy's name for a stream's code, in `quic_reset_stream_error_code_*`.
pub(crate) fn reset_name(code: u64) -> &'static str {
    match code {
        NO_ERROR => "QUIC_STREAM_NO_ERROR",
        GENERAL_PROTOCOL_ERROR => "QUIC_STREAM_GENERAL_PROTOCOL_ERROR",
        INTERNAL_ERROR => "QUIC_STREAM_INTERNAL_ERROR",
        STREAM_CREATION_ERROR => "QUIC_STREAM_STREAM_CREATION_ERROR",
        CLOSED_CRITICAL_STREAM => "QUIC_STREAM_CLOSED_CRITICAL_STREAM",
        FRAME_UNEXPECTED => "QUIC_STREAM_FRAME_UNEXPECTED",
        FRAME_ERROR => "QUIC_STREAM_FRAME_ERROR",
        EXCESSIVE_LOAD => "QUIC_STREAM_EXCESSIVE_LOAD",
        ID_ERROR => "QUIC_STREAM_ID_ERROR",
        SETTINGS_ERROR => "QUIC_STREAM_SETTINGS_ERROR",
        MISSING_SETTINGS => "QUIC_STREAM_MISSING_SETTINGS",
        REQUEST_REJECTED => "QUIC_STREAM_REQUEST_REJECTED",
        REQUEST_CANCELLED => "QUIC_STREAM_CANCELLED",
        REQUEST_INCOMPLETE => "QUIC_STREAM_REQUEST_INCOMPLETE",
        CONNECT_ERROR => "QUIC_STREAM_CONNECT_ERROR",
        VERSION_FALLBACK => "QUIC_STREAM_VERSION_FALLBACK",
        QPACK_DECOMPRESSION_FAILED => "QUIC_STREAM_DECOMPRESSION_FAILED",
        QPACK_ENCODER_STREAM_ERROR => "QUIC_STREAM_ENCODER_STREAM_ERROR",
        QPACK_DECODER_STREAM_ERROR => "QUIC_STREAM_DECODER_STREAM_ERROR",
        _ => "QUIC_STREAM_UNKNOWN_APPLICATION_ERROR_CODE",
    }
}

/// Envoy's name for a fault of QUIC or its handshake that ends a connection (RFC 9000 §20.1), in
/// `quic_connection_close_error_code_*`.
pub(crate) fn transport_name(code: u64) -> Option<&'static str> {
    match code {
        STREAM_LIMIT => Some("QUIC_INVALID_STREAM_ID"),
        CERTIFICATE_UNKNOWN => Some("QUIC_TLS_CERTIFICATE_UNKNOWN"),
        CERTIFICATE_REQUIRED => Some("QUIC_TLS_CERTIFICATE_REQUIRED"),
        0x100..=0x1ff => Some("QUIC_HANDSHAKE_FAILED"),
        _ => None,
    }
}

const STREAM_LIMIT: u64 = 0x4;

/// TLS alerts (RFC 8446 §6.2) are behind 0x100 (RFC 9001 §4.8).
const CERTIFICATE_UNKNOWN: u64 = 0x100 + 46;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// On the wire.
    pub(crate) code: u64,
    /// Envoy's, as the close's reason begins.
    pub(crate) number: u16,
    /// Envoy's, in `quic_connection_close_error_code_*`.
    pub(crate) name: &'static str,
    /// With `{}` for what it is about.
    pub(crate) text: &'static str,
    /// A type, an identifier or a stream.
    pub(crate) about: u64,
    /// What that is more than, `{than}`.
    pub(crate) than: u64,
}

pub(crate) type Handled<T = ()> = Result<T, Fault>;

impl Fault {
    const fn new(code: u64, number: u16, name: &'static str, text: &'static str) -> Self {
        Self { code, number, name, text, about: 0, than: 0 }
    }

    /// The same, about this.
    pub(crate) const fn about(self, about: u64) -> Self {
        Self { about, ..self }
    }

    /// The same, about what is more than it may be.
    pub(crate) const fn more(self, about: u64, than: u64) -> Self {
        Self { about, than, ..self }
    }

    /// What the peer is told beside the code, as Envoy words it.
    pub(crate) fn reason(self) -> String {
        format!("{}:{}", self.number, self.words())
    }

    /// The same without the number.
    pub(crate) fn words(self) -> String {
        self.text.replace("{}", &self.about.to_string()).replace("{than}", &self.than.to_string())
    }

    /// What the owner of the connection is told.
    pub(crate) fn to_error(self) -> ConnError {
        if self.is_message() { ConnError::Malformed } else { ConnError::Violation(from_wire(self.code)) }
    }

    /// Whether the peer's message is at fault, and not its connection: exchanges are told so.
    pub(crate) fn is_message(self) -> bool {
        self.number == MALFORMED.number
    }

    /// A malformed message, and Envoy's details.
    pub(crate) const fn malformed(details: &'static str) -> Self {
        Self { text: details, ..MALFORMED }
    }

    /// A frame that is cut, or longer than what it holds (RFC 9114 §7.1).
    pub(crate) const fn frame(text: &'static str) -> Self {
        Self { text, ..MALFORMED }
    }

    /// A frame that has no place on a request stream (RFC 9114 §7.2).
    pub(crate) const fn on_request(text: &'static str) -> Self {
        Self::new(FRAME_UNEXPECTED, 133, "QUIC_HTTP_FRAME_UNEXPECTED_ON_SPDY_STREAM", text)
    }

    /// Frames of a request in an order that makes no message (RFC 9114 §4.1).
    pub(crate) const fn sequence(text: &'static str) -> Self {
        Self::new(FRAME_UNEXPECTED, 151, "QUIC_HTTP_INVALID_FRAME_SEQUENCE_ON_SPDY_STREAM", text)
    }

    /// A frame that has no place on the control stream (RFC 9114 §7.2).
    pub(crate) const fn on_control(text: &'static str) -> Self {
        Self::new(FRAME_UNEXPECTED, 134, "QUIC_HTTP_FRAME_UNEXPECTED_ON_CONTROL_STREAM", text)
    }

    /// A section that cannot be read (RFC 9204 §2.2.3).
    pub(crate) const fn section(text: &'static str) -> Self {
        Self::new(QPACK_DECOMPRESSION_FAILED, 126, "QUIC_QPACK_DECOMPRESSION_FAILED", text)
    }

    /// An end of the control, encoder or decoder stream (RFC 9114 §6.2.1, RFC 9204 §4.2).
    pub(crate) const fn critical(text: &'static str) -> Self {
        Self::new(CLOSED_CRITICAL_STREAM, 156, "QUIC_HTTP_CLOSED_CRITICAL_STREAM", text)
    }

    /// A second stream of a kind of which there is one (RFC 9114 §6.2.1, RFC 9204 §4.2).
    pub(crate) const fn duplicate(text: &'static str) -> Self {
        Self::new(STREAM_CREATION_ERROR, 153, "QUIC_HTTP_DUPLICATE_UNIDIRECTIONAL_STREAM", text)
    }
}

const MALFORMED: Fault = Fault::new(FRAME_ERROR, 132, "QUIC_HTTP_FRAME_ERROR", "");

/// Pseudo-header fields and names that are none, in trailers (RFC 9114 §4.3). Envoy says so with the transport's
/// INTERNAL_ERROR; to it no message is at fault.
pub(crate) const TRAILERS: Fault =
    Fault::new(FRAME_ERROR, 56, "QUIC_INVALID_HEADERS_STREAM_DATA", "Trailers are malformed");

/// RFC 9114 §7.2.8.
pub(crate) const HTTP2_FRAME: Fault = Fault::new(
    FRAME_UNEXPECTED,
    171,
    "QUIC_HTTP_RECEIVE_SPDY_FRAME",
    "HTTP/2 frame received in a HTTP/3 connection: {}",
);

/// RFC 9114 §6.2.1.
pub(crate) const NO_SETTINGS: Fault = Fault::new(
    MISSING_SETTINGS,
    157,
    "QUIC_HTTP_MISSING_SETTINGS_FRAME",
    "First frame received on control stream is type {}, but it must be SETTINGS.",
);

/// RFC 9114 §7.2.4.
pub(crate) const SECOND_SETTINGS: Fault = Fault::new(
    FRAME_UNEXPECTED,
    152,
    "QUIC_HTTP_INVALID_FRAME_SEQUENCE_ON_CONTROL_STREAM",
    "SETTINGS frame can only be received once.",
);

/// RFC 9114 §7.2.4.
pub(crate) const DUPLICATE_SETTING: Fault = Fault::new(
    SETTINGS_ERROR,
    158,
    "QUIC_HTTP_DUPLICATE_SETTING_IDENTIFIER",
    "Duplicate setting identifier.",
);

/// RFC 9114 §7.2.4.1.
pub(crate) const HTTP2_SETTING: Fault = Fault::new(
    SETTINGS_ERROR,
    169,
    "QUIC_HTTP_RECEIVE_SPDY_SETTING",
    "received HTTP/2 specific setting in HTTP/3 session: {}",
);

/// A setting that is 0 or 1, and is said to be more (RFC 9220 §3, RFC 9297 §2.1.1).
pub(crate) const fn setting(text: &'static str) -> Fault {
    Fault::new(SETTINGS_ERROR, 207, "QUIC_HTTP_INVALID_SETTING_VALUE", text)
}

/// RFC 9114 §5.2.
pub(crate) const GOAWAY_GREW: Fault = Fault::new(
    ID_ERROR,
    167,
    "QUIC_HTTP_GOAWAY_ID_LARGER_THAN_PREVIOUS",
    "GOAWAY received with ID {} greater than previously received ID {than}",
);

/// RFC 9114 §5.2.
pub(crate) const GOAWAY_STREAM: Fault =
    Fault::new(ID_ERROR, 166, "QUIC_HTTP_GOAWAY_INVALID_STREAM_ID", "GOAWAY with invalid stream ID");

/// RFC 9114 §7.2.7.
pub(crate) const PUSH_ID_SHRANK: Fault =
    Fault::new(ID_ERROR, 132, "QUIC_HTTP_FRAME_ERROR", "MAX_PUSH_ID received with a lower push ID");

/// RFC 9114 §4.6: no push was ever allowed.
pub(crate) const PUSHED: Fault =
    Fault::new(ID_ERROR, 205, "QUIC_HTTP_RECEIVE_SERVER_PUSH", "Received server push stream");

/// A client cannot push (RFC 9114 §6.2.2); the code is Envoy's.
pub(crate) const CLIENT_PUSHED: Fault = Fault { code: GENERAL_PROTOCOL_ERROR, ..PUSHED };

/// RFC 9114 §6.1.
pub(crate) const SERVER_BIDI: Fault = Fault::new(
    STREAM_CREATION_ERROR,
    154,
    "QUIC_HTTP_SERVER_INITIATED_BIDIRECTIONAL_STREAM",
    "Server created bidirectional stream.",
);

/// RFC 9114 §10.5: frames that cost us and not the peer, or a frame too large to be kept.
pub(crate) const FLOOD: Fault =
    Fault::new(EXCESSIVE_LOAD, 132, "QUIC_HTTP_FRAME_ERROR", "Too many frames without content");

/// The peer's encoder stream (RFC 9204 §4.3).
pub(crate) fn encoder_stream(number: u16, text: &'static str) -> Fault {
    let name = match number {
        174 => "QUIC_QPACK_ENCODER_STREAM_INTEGER_TOO_LARGE",
        175 => "QUIC_QPACK_ENCODER_STREAM_STRING_LITERAL_TOO_LONG",
        176 => "QUIC_QPACK_ENCODER_STREAM_HUFFMAN_ENCODING_ERROR",
        177 => "QUIC_QPACK_ENCODER_STREAM_INVALID_STATIC_ENTRY",
        178 => "QUIC_QPACK_ENCODER_STREAM_ERROR_INSERTING_STATIC",
        179 => "QUIC_QPACK_ENCODER_STREAM_INSERTION_INVALID_RELATIVE_INDEX",
        181 => "QUIC_QPACK_ENCODER_STREAM_ERROR_INSERTING_DYNAMIC",
        182 => "QUIC_QPACK_ENCODER_STREAM_ERROR_INSERTING_LITERAL",
        183 => "QUIC_QPACK_ENCODER_STREAM_DUPLICATE_INVALID_RELATIVE_INDEX",
        _ => "QUIC_QPACK_ENCODER_STREAM_SET_DYNAMIC_TABLE_CAPACITY",
    };
    Fault::new(QPACK_ENCODER_STREAM_ERROR, number, name, text)
}

/// The peer's decoder stream (RFC 9204 §4.4).
pub(crate) fn decoder_stream(number: u16, text: &'static str) -> Fault {
    let name = match number {
        187 => "QUIC_QPACK_DECODER_STREAM_INVALID_ZERO_INCREMENT",
        189 => "QUIC_QPACK_DECODER_STREAM_IMPOSSIBLE_INSERT_COUNT",
        190 => "QUIC_QPACK_DECODER_STREAM_INCORRECT_ACKNOWLEDGEMENT",
        _ => "QUIC_QPACK_DECODER_STREAM_INTEGER_TOO_LARGE",
    };
    Fault::new(QPACK_DECODER_STREAM_ERROR, number, name, text)
}

/// `%RESPONSE_CODE_DETAILS%` of a body that is not as long as its head says.
pub(crate) const LENGTH: &str = "http3.inconsistent_content_length";

/// `%RESPONSE_CODE_DETAILS%` of a malformed message.
pub(crate) const INVALID: &str = "http3.invalid_header_field";

/// Envoy's names for the resets with which it answers what came: its codes are finer than those on the wire.
pub(crate) const BAD_PAYLOAD: &str = "QUIC_BAD_APPLICATION_PAYLOAD";
pub(crate) const HEADERS_TOO_LARGE: &str = "QUIC_HEADERS_TOO_LARGE";

/// `%RESPONSE_CODE_DETAILS%` of trailers over `max_headers_count`.
pub(crate) const TOO_MANY_TRAILERS: &str = "http3.too_many_trailers";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_mean_something_survive_both_ways() {
        for code in [
            NO_ERROR,
            GENERAL_PROTOCOL_ERROR,
            REQUEST_REJECTED,
            REQUEST_CANCELLED,
            CONNECT_ERROR,
            EXCESSIVE_LOAD,
            0x10e,
            0x1234,
        ] {
            assert_eq!(to_wire(from_wire(code)), code);
        }
        assert_eq!(to_wire(ResetCode::Internal), INTERNAL_ERROR);
        assert_eq!(from_wire(u64::MAX), ResetCode::Other(u32::MAX));
    }
}
