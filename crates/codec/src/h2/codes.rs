//! Error codes (RFC 9113 §7) and the library's errors, in the words of the streams above.

use h2::Reason;

use crate::stream::ResetCode;

impl From<Reason> for ResetCode {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NO_ERROR => Self::NoError,
            Reason::PROTOCOL_ERROR => Self::Protocol,
            Reason::INTERNAL_ERROR => Self::Internal,
            Reason::REFUSED_STREAM => Self::Refused,
            Reason::CANCEL => Self::Cancel,
            Reason::CONNECT_ERROR => Self::Connect,
            Reason::ENHANCE_YOUR_CALM => Self::EnhanceYourCalm,
            Reason::HTTP_1_1_REQUIRED => Self::Http11Required,
            other => Self::Other(other.into()),
        }
    }
}

impl From<ResetCode> for Reason {
    fn from(code: ResetCode) -> Self {
        match code {
            ResetCode::NoError => Self::NO_ERROR,
            ResetCode::Protocol => Self::PROTOCOL_ERROR,
            ResetCode::Internal => Self::INTERNAL_ERROR,
            ResetCode::Refused => Self::REFUSED_STREAM,
            ResetCode::Cancel => Self::CANCEL,
            ResetCode::Connect => Self::CONNECT_ERROR,
            ResetCode::EnhanceYourCalm => Self::ENHANCE_YOUR_CALM,
            ResetCode::Http11Required => Self::HTTP_1_1_REQUIRED,
            ResetCode::Other(code) => code.into(),
        }
    }
}

/// `%RESPONSE_CODE_DETAILS%` of an invalid message (RFC 9113 §8.1.1).
pub(crate) const MESSAGING_RULE: &str = "http2.violation.of.messaging.rule";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_both_ways() {
        for code in 0..20_u32 {
            let there = ResetCode::from(Reason::from(code));
            assert_eq!(u32::from(Reason::from(there)), code);
        }
    }
}
