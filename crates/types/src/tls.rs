//! Facts of a TLS session, for access logs, headers and filters. How they come about is the `tls` crate's.

use std::sync::Arc;
use std::time::SystemTime;

/// A TLS session after its handshake.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3` (`%DOWNSTREAM_TLS_VERSION%`).
    pub version: &'static str,
    /// The suite under its OpenSSL name for TLS 1.2 and the RFC's for TLS 1.3, as Envoy prints it
    /// (`%DOWNSTREAM_TLS_CIPHER%`).
    pub cipher: &'static str,
    /// The name that the client asked for (RFC 6066 §3).
    pub server_name: Option<Arc<str>>,
    /// The protocol agreed on (RFC 7301).
    pub alpn: Option<Vec<u8>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Hexadecimal session identifier, empty if there is none (`%DOWNSTREAM_TLS_SESSION_ID%`).
    pub session_id: String,
    /// What the peer showed, if anything.
    pub peer: Option<Arc<CertificateInfo>>,
    /// Whether the peer's certificate was verified against a trusted authority.
    pub peer_validated: bool,
    /// What we showed, if anything.
    pub local: Option<Arc<CertificateInfo>>,
}

/// Facts of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Subject by RFC 2253, most specific part first (`CN=a,O=b`).
    pub subject: String,
    /// Issuer, likewise.
    pub issuer: String,
    /// Serial number, hexadecimal in lower case without leading zeros.
    pub serial: String,
    /// SHA-256 of the DER form, hexadecimal in lower case.
    pub sha256: String,
    /// SHA-1 of the DER form, likewise.
    pub sha1: String,
    /// `subjectAltName` entries by kind.
    pub uri_sans: Vec<String>,
    /// DNS names.
    pub dns_sans: Vec<String>,
    /// IP addresses as text.
    pub ip_sans: Vec<String>,
    /// Mail addresses.
    pub email_sans: Vec<String>,
    /// Begin of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// The whole chain as it was sent, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}
