//! Why a QUIC connection failed or ended, in Envoy's words: those of its QUIC library.

use tidegate_quic::proto::{ConnectionClose, TransportErrorCode};
use tidegate_quic::{ConnectionError, Loss};
use tidegate_types::ResetReason;

use crate::error::PoolError;

/// A connection's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As `quic_connection_close_error_code_*` ends.
    pub name: &'static str,
    /// What there is to add.
    pub details: String,
    /// Whether the peer said so.
    pub by_peer: bool,
}

impl Failure {
    /// What `loss` is.
    pub fn of(loss: &Loss) -> Self {
        let local = |name, details: String| Self { name, details, by_peer: false };
        let error = match loss {
            Loss::Socket { .. } => return local("QUIC_PACKET_WRITE_ERROR", loss.to_string()),
            Loss::Connection(error) => error,
        };
        match error {
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(alert) => local(name_of_alert(alert), tls_failure(alert, &error.reason)),
                None => local(name_of(error.code), error.reason.clone()),
            },
            ConnectionError::ConnectionClosed(close) => Self::told(close),
            ConnectionError::ApplicationClosed(close) => {
                let details = String::from_utf8_lossy(&close.reason).into_owned();
                Self { name: "QUIC_IETF_GQUIC_ERROR_MISSING", details, by_peer: true }
            }
            ConnectionError::Reset => Self {
                name: "QUIC_PUBLIC_RESET",
                details: "Received stateless reset.".to_owned(),
                by_peer: true,
            },
            ConnectionError::TimedOut => {
                local("QUIC_NETWORK_IDLE_TIMEOUT", "No recent network activity.".to_owned())
            }
            ConnectionError::LocallyClosed => local("QUIC_NO_ERROR", "Closed by application".to_owned()),
            ConnectionError::VersionMismatch => {
                local("QUIC_INVALID_VERSION", "Server does not support our version.".to_owned())
            }
            ConnectionError::CidsExhausted => {
                local("QUIC_INTERNAL_ERROR", "No connection ids are left.".to_owned())
            }
        }
    }

    /// The peer's transport, or its TLS, closed.
    fn told(close: &ConnectionClose) -> Self {
        let reason = String::from_utf8_lossy(&close.reason);
        // A peer of Envoy's kind begins with its library's number.
        let text = reason.split_once(':').filter(|(number, _)| number.parse::<u16>().is_ok());
        let details = text.map_or(&*reason, |(_, text)| text).to_owned();
        let name = match alert(close.error_code) {
            // It has no number of the library's.
            _ if text.is_none() && close.error_code != TransportErrorCode::NO_ERROR => {
                "QUIC_IETF_GQUIC_ERROR_MISSING"
            }
            Some(alert) => name_of_alert(alert),
            None => name_of(close.error_code),
        };
        Self { name, details, by_peer: true }
    }

    /// As a pool tells it.
    pub fn into_error(self) -> PoolError {
        let reason = match self.by_peer {
            true => ResetReason::RemoteConnectionFailure,
            false => ResetReason::LocalConnectionFailure,
        };
        let text = format!("{} with details: {}", self.name, self.details).replace(' ', "_");
        PoolError::Connect { reason, transport: Some(text.into()) }
    }
}

/// The TLS alert that a code carries (RFC 9001 §4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some(code as u8)
}

/// As BoringSSL and the QUIC library on it say it.
fn tls_failure(alert: u8, reason: &str) -> String {
    let words = match alert {
        40 => "handshake failure",
        42 => "bad certificate",
        43 => "unsupported certificate",
        44 => "certificate revoked",
        45 => "certificate expired",
        46 => "certificate unknown",
        47 => "illegal parameter",
        48 => "unknown CA",
        49 => "access denied",
        50 => "decode error",
        51 => "decrypt error",
        70 => "protocol version",
        71 => "insufficient security",
        80 => "internal error",
        109 => "missing extension",
        110 => "unsupported extension",
        112 => "unrecognized name",
        116 => "certificate required",
        120 => "no application protocol",
        _ => "unknown",
    };
    let stack = match alert {
        42..=46 | 48 | 51 => {
            ". SSLErrorStack:[handshake.cc:320] error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED"
                .to_owned()
        }
        _ if reason.is_empty() => String::new(),
        _ => format!(": {reason}"),
    };
    format!("TLS handshake failure (ENCRYPTION_HANDSHAKE) {alert}: {words}{stack}")
}

fn name_of_alert(alert: u8) -> &'static str {
    match alert {
        42 => "QUIC_TLS_BAD_CERTIFICATE",
        43 => "QUIC_TLS_UNSUPPORTED_CERTIFICATE",
        44 => "QUIC_TLS_CERTIFICATE_REVOKED",
        45 => "QUIC_TLS_CERTIFICATE_EXPIRED",
        46 => "QUIC_TLS_CERTIFICATE_UNKNOWN",
        80 => "QUIC_TLS_INTERNAL_ERROR",
        112 => "QUIC_TLS_UNRECOGNIZED_NAME",
        116 => "QUIC_TLS_CERTIFICATE_REQUIRED",
        _ => "QUIC_HANDSHAKE_FAILED",
    }
}

fn name_of(code: TransportErrorCode) -> &'static str {
    match code {
        TransportErrorCode::NO_ERROR => "QUIC_NO_ERROR",
        TransportErrorCode::INTERNAL_ERROR => "QUIC_INTERNAL_ERROR",
        TransportErrorCode::CONNECTION_REFUSED => "QUIC_CONNECTION_REFUSED",
        TransportErrorCode::FLOW_CONTROL_ERROR => "QUIC_FLOW_CONTROL_RECEIVED_TOO_MUCH_DATA",
        TransportErrorCode::STREAM_LIMIT_ERROR => "QUIC_INVALID_STREAM_ID",
        TransportErrorCode::STREAM_STATE_ERROR => "QUIC_INVALID_STREAM_ID",
        TransportErrorCode::FINAL_SIZE_ERROR => "QUIC_STREAM_LENGTH_OVERFLOW",
        TransportErrorCode::FRAME_ENCODING_ERROR => "QUIC_INVALID_FRAME_DATA",
        TransportErrorCode::TRANSPORT_PARAMETER_ERROR => "QUIC_TRANSPORT_PARAMETERS_INVALID",
        TransportErrorCode::CRYPTO_BUFFER_EXCEEDED => "QUIC_CRYPTO_BUFFER_EXCEEDED",
        TransportErrorCode::NO_VIABLE_PATH => "QUIC_CONNECTION_MIGRATION_NO_NEW_NETWORK",
        _ => "IETF_QUIC_PROTOCOL_VIOLATION",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tidegate_quic::proto::{ApplicationClose, TransportError};

    use super::*;

    fn text(loss: &Loss) -> String {
        Failure::of(loss).into_error().transport_failure().unwrap().to_owned()
    }

    #[test]
    fn a_closed_port_is_worded_as_envoy_does() {
        let loss = Loss::Socket { errno: 111 };
        let expected =
            "QUIC_PACKET_WRITE_ERROR_with_details:_Write_failed_with_error:_111_(Connection_refused)";
        assert_eq!(text(&loss), expected);
        assert_eq!(Failure::of(&loss).into_error().reason(), ResetReason::LocalConnectionFailure);
    }

    #[test]
    fn an_unknown_authority_is_worded_as_envoy_does() {
        let error = TransportError {
            code: TransportErrorCode::crypto(48),
            frame: None,
            reason: "invalid peer certificate: UnknownIssuer".into(),
        };
        let loss = Loss::Connection(ConnectionError::TransportError(error));
        let expected = "QUIC_HANDSHAKE_FAILED_with_details:_TLS_handshake_failure_(ENCRYPTION_HANDSHAKE)_48:_unknown_CA._SSLErrorStack:[handshake.cc:320]_error:1000007d:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED";
        assert_eq!(text(&loss), expected);
    }

    #[test]
    fn what_the_peer_says_is_a_remote_failure() {
        let close = ConnectionClose {
            error_code: TransportErrorCode::CONNECTION_REFUSED,
            frame_type: None,
            reason: b"85:go away".as_slice().into(),
        };
        let failure = Failure::of(&Loss::Connection(ConnectionError::ConnectionClosed(close)));
        assert_eq!((failure.name, failure.details.as_str()), ("QUIC_CONNECTION_REFUSED", "go away"));
        assert_eq!(failure.into_error().reason(), ResetReason::RemoteConnectionFailure);
        let close = ConnectionClose {
            error_code: TransportErrorCode::crypto(120),
            frame_type: None,
            reason: b"No common ALPN protocols".as_slice().into(),
        };
        assert_eq!(
            text(&Loss::Connection(ConnectionError::ConnectionClosed(close))),
            "QUIC_IETF_GQUIC_ERROR_MISSING_with_details:_No_common_ALPN_protocols"
        );
        let close = ApplicationClose { error_code: 0x100u32.into(), reason: b"bye".as_slice().into() };
        let failure = Failure::of(&Loss::Connection(ConnectionError::ApplicationClosed(close)));
        assert_eq!((failure.name, failure.by_peer), ("QUIC_IETF_GQUIC_ERROR_MISSING", true));
    }
}
