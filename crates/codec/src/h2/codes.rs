//! Error codes (RFC 9113 §7) in the words of the streams above.

use crate::stream::ResetCode;

pub(crate) const NO_ERROR: u32 = 0x0;
pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
pub(crate) const INTERNAL_ERROR: u32 = 0x2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
pub(crate) const STREAM_CLOSED: u32 = 0x5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const CANCEL: u32 = 0x8;
pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
pub(crate) const CONNECT_ERROR: u32 = 0xa;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;
pub(crate) const HTTP_1_1_REQUIRED: u32 = 0xd;

impl ResetCode {
    /// The code as it stands in a frame.
    pub(crate) fn from_wire(code: u32) -> Self {
        match code {
            NO_ERROR => Self::NoError,
            PROTOCOL_ERROR => Self::Protocol,
            INTERNAL_ERROR => Self::Internal,
            REFUSED_STREAM => Self::Refused,
            CANCEL => Self::Cancel,
            CONNECT_ERROR => Self::Connect,
            ENHANCE_YOUR_CALM => Self::EnhanceYourCalm,
            HTTP_1_1_REQUIRED => Self::Http11Required,
            other => Self::Other(other),
        }
    }

    /// The code for a frame.
    pub(crate) fn to_wire(self) -> u32 {
        match self {
            Self::NoError => NO_ERROR,
            Self::Protocol => PROTOCOL_ERROR,
            Self::Internal => INTERNAL_ERROR,
            Self::Refused => REFUSED_STREAM,
            Self::Cancel => CANCEL,
            Self::Connect => CONNECT_ERROR,
            Self::EnhanceYourCalm => ENHANCE_YOUR_CALM,
            Self::Http11Required => HTTP_1_1_REQUIRED,
            Self::Other(code) => code,
        }
    }
}

/// `%RESPONSE_CODE_DETAILS%` of an invalid message (RFC 9113 §8.1.1).
pub(crate) const MESSAGING_RULE: &str = "http2.violation.of.messaging.rule";

/// `%RESPONSE_CODE_DETAILS%` of a stream that was reset, by whomsoever.
pub(crate) const RESET: &str = "http2.remote_reset";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_both_ways() {
        for code in 0..20_u32 {
            assert_eq!(ResetCode::from_wire(code).to_wire(), code);
        }
    }
}
