//! Failures in Envoy's words: `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and its upstream twin print BoringSSL's
//! error codes and names, which people search for. Here rustls's errors get them.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use crate::observed::{Refusal, RefusalKind};
use crate::stats::SslCounters;

/// A reason code of BoringSSL's SSL library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    code: u32,
    name: &'static str,
}

impl Fault {
    pub(crate) const ENCRYPTED_LENGTH_TOO_LONG: Self = Self::ssl(146, "ENCRYPTED_LENGTH_TOO_LONG");
    pub(crate) const HTTPS_PROXY_REQUEST: Self = Self::ssl(155, "HTTPS_PROXY_REQUEST");
    pub(crate) const HTTP_REQUEST: Self = Self::ssl(156, "HTTP_REQUEST");
    pub(crate) const UNEXPECTED_RECORD: Self = Self::ssl(225, "UNEXPECTED_RECORD");
    pub(crate) const WRONG_VERSION_NUMBER: Self = Self::ssl(247, "WRONG_VERSION_NUMBER");

    const BAD_SIGNATURE: Self = Self::ssl(114, "BAD_SIGNATURE");
    const DECODE_ERROR: Self = Self::ssl(137, "DECODE_ERROR");
    const BAD_RECORD_MAC: Self = Self::ssl(139, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC");
    pub(crate) const EXCESSIVE_MESSAGE_SIZE: Self = Self::ssl(150, "EXCESSIVE_MESSAGE_SIZE");
    const NO_SHARED_CIPHER: Self = Self::ssl(184, "NO_SHARED_CIPHER");
    const NO_SHARED_GROUP: Self = Self::ssl(266, "NO_SHARED_GROUP");
    const UNEXPECTED_MESSAGE: Self = Self::ssl(223, "UNEXPECTED_MESSAGE");
    pub(crate) const UNSUPPORTED_PROTOCOL: Self = Self::ssl(240, "UNSUPPORTED_PROTOCOL");
    const NO_COMMON_SIGNATURE_ALGORITHMS: Self = Self::ssl(253, "NO_COMMON_SIGNATURE_ALGORITHMS");

    const fn ssl(reason: u32, name: &'static str) -> Self {
        // ERR_PACK(ERR_LIB_SSL, reason)
        Self { code: (16 << 24) + reason, name }
    }

    fn entry(self) -> String {
        format!("{}:SSL routines:OPENSSL_internal:{}", self.code, self.name)
    }

    /// The whole reason, as Envoy prints it.
    pub fn text(self) -> String {
        wrap(&self.entry())
    }
}

/// The failure's text and statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As in `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`, with blanks (the log's formatter replaces them).
    pub text: String,
    /// What it counts under.
    pub counted: Counted,
}

/// A statistic of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// `ssl.connection_error`.
    ConnectionError,
    /// `ssl.fail_verify_no_cert`.
    NoCertificate,
    /// One of `ssl.fail_verify_*`.
    Refused(RefusalKind),
}

impl Counted {
    /// Counts it.
    pub fn count(self, counters: &SslCounters) {
        match self {
            Self::ConnectionError => counters.connection_error().inc(),
            Self::NoCertificate => counters.fail_verify_no_cert().inc(),
            Self::Refused(RefusalKind::Chain) => counters.fail_verify_error().inc(),
            Self::Refused(RefusalKind::Name) => counters.fail_verify_san().inc(),
            Self::Refused(RefusalKind::Hash) => counters.fail_verify_cert_hash().inc(),
            Self::Refused(RefusalKind::Untold) => {}
        }
    }
}

/// What a connection's failure is called and counts as. `refusal` is what our own verifier noted.
pub fn explain(error: &Error, refusal: Option<&Refusal>) -> Failure {
    if let (Error::InvalidCertificate(_) | Error::General(_) | Error::Other(_), Some(refusal)) =
        (error, refusal)
    {
        return Failure { text: verify_failed(&refusal.text), counted: Counted::Refused(refusal.kind) };
    }
    let fault = match error {
        Error::NoCertificatesPresented => {
            let entry = "268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did \
                         not provide required client certificate";
            return Failure { text: wrap(entry), counted: Counted::NoCertificate };
        }
        Error::InvalidCertificate(error) => return certificate(error),
        Error::AlertReceived(alert) => {
            return Failure { text: wrap(&alert_entry(*alert)), counted: Counted::ConnectionError };
        }
        Error::DecryptError => {
            let entry = format!(
                "503316581:Cipher functions:OPENSSL_internal:BAD_DECRYPT|{}",
                Fault::BAD_RECORD_MAC.entry()
            );
            return Failure { text: wrap(&entry), counted: Counted::ConnectionError };
        }
        Error::PeerIncompatible(why) => incompatible(why),
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => Fault::EXCESSIVE_MESSAGE_SIZE,
        Error::PeerSentOversizedRecord | Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            Fault::ENCRYPTED_LENGTH_TOO_LONG
        }
        // What is no TLS at all has no version either, which BoringSSL looks at first.
        Error::InvalidMessage(
            InvalidMessage::UnknownProtocolVersion | InvalidMessage::InvalidContentType,
        ) => Fault::WRONG_VERSION_NUMBER,
        Error::InvalidMessage(_) => Fault::DECODE_ERROR,
        Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme) => {
            Fault::BAD_SIGNATURE
        }
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Fault::UNEXPECTED_MESSAGE
        }
        // No code of BoringSSL says it better than rustls does.
        other => {
            return Failure { text: wrap(&other.to_string()), counted: Counted::ConnectionError };
        }
    };
    Failure { text: fault.text(), counted: Counted::ConnectionError }
}

/// `RST` from the peer, as Envoy's error queue says it.
pub(crate) const RESET: &str =
    "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end";

fn wrap(entry: &str) -> String {
    format!("TLS_error:|{entry}:TLS_error_end")
}

fn verify_failed(why: &str) -> String {
    if why.is_empty() {
        return wrap("268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED");
    }
    wrap(&format!(
        "268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: {why}"
    ))
}

fn certificate(error: &CertificateError) -> Failure {
    let why = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate is not yet valid"
        }
        CertificateError::Revoked => {
            "certificate revocation check against provided CRLs failed: certificate revoked"
        }
        CertificateError::UnknownRevocationStatus => {
            "certificate revocation check against provided CRLs failed: unable to get certificate CRL"
        }
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "unsupported certificate purpose"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            return Failure {
                text: verify_failed("SAN matcher"),
                counted: Counted::Refused(RefusalKind::Name),
            };
        }
        CertificateError::BadSignature => {
            return Failure { text: Fault::BAD_SIGNATURE.text(), counted: Counted::ConnectionError };
        }
        _ => "certificate rejected",
    };
    Failure {
        text: verify_failed(&format!("X509_verify_cert: certificate verification error at depth 0: {why}")),
        counted: Counted::Refused(RefusalKind::Chain),
    }
}

fn incompatible(why: &PeerIncompatible) -> Fault {
    match why {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => Fault::UNSUPPORTED_PROTOCOL,
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::UncompressedEcPointsRequired => Fault::NO_SHARED_GROUP,
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => Fault::NO_COMMON_SIGNATURE_ALGORITHMS,
        _ => Fault::NO_SHARED_CIPHER,
    }
}

/// An alert of the peer: BoringSSL's code is 1000 and the alert's number (RFC 8446 §6).
fn alert_entry(alert: AlertDescription) -> String {
    let number = u8::from(alert);
    let name = match alert {
        AlertDescription::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        AlertDescription::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        AlertDescription::RecordOverflow => "TLSV1_ALERT_RECORD_OVERFLOW",
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::NoCertificate => "SSLV3_ALERT_NO_CERTIFICATE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::UserCanceled => "TLSV1_ALERT_USER_CANCELLED",
        AlertDescription::NoRenegotiation => "TLSV1_ALERT_NO_RENEGOTIATION",
        AlertDescription::UnsupportedExtension => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        AlertDescription::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        AlertDescription::BadCertificateStatusResponse => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        AlertDescription::BadCertificateHashValue => "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
        AlertDescription::UnknownPSKIdentity => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        AlertDescription::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => "UNKNOWN_ALERT_TYPE",
    };
    format!("{}:SSL routines:OPENSSL_internal:{name}", (16 << 24) + 1000 + u32::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_boringssls() {
        for (fault, code) in [
            (Fault::HTTP_REQUEST, 268_435_612),
            (Fault::HTTPS_PROXY_REQUEST, 268_435_611),
            (Fault::WRONG_VERSION_NUMBER, 268_435_703),
            (Fault::EXCESSIVE_MESSAGE_SIZE, 268_435_606),
            (Fault::ENCRYPTED_LENGTH_TOO_LONG, 268_435_602),
            (Fault::UNEXPECTED_RECORD, 268_435_681),
            (Fault::UNSUPPORTED_PROTOCOL, 268_435_696),
            (Fault::NO_SHARED_CIPHER, 268_435_640),
            (Fault::NO_SHARED_GROUP, 268_435_722),
            (Fault::BAD_RECORD_MAC, 268_435_595),
        ] {
            assert_eq!(fault.code, code, "{}", fault.name);
        }
        let text = explain(&Error::AlertReceived(AlertDescription::HandshakeFailure), None).text;
        assert_eq!(
            text,
            "TLS_error:|268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"
        );
    }
}
