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
    /// The group of the key exchange, as Envoy prints it (`%DOWNSTREAM_TLS_GROUP%`); empty if there was none.
    pub group: &'static str,
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
    /// What names the certificate that signed the peer's: of the chain that was sent, else of those trusted.
    pub peer_issuer: Option<CertificateMarks>,
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
    /// What names each certificate of the chain, likewise.
    pub marks: Vec<CertificateMarks>,
}

/// What names a certificate, in hexadecimal digits of lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateMarks {
    /// Serial number without leading zeros.
    pub serial: String,
    /// SHA-256 of the DER form.
    pub sha256: String,
    /// SHA-1 of the DER form.
    pub sha1: String,
}

impl CertificateInfo {
    /// The leaf as PEM, percent-encoded as Envoy does it in `x-forwarded-client-cert` and
    /// `%DOWNSTREAM_PEER_CERT%`.
    pub fn url_encoded_pem(&self) -> String {
        encoded(self.chain.first().into_iter())
    }

    /// The whole chain, likewise.
    pub fn url_encoded_chain(&self) -> String {
        encoded(self.chain.iter())
    }
}

fn encoded<'a>(certificates: impl Iterator<Item = &'a Vec<u8>>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN%20CERTIFICATE-----%0A");
        // RFC 7468 §2: lines of 64 characters, which are 48 bytes.
        for line in der.chunks(48) {
            base64(line, &mut text);
            text.push_str("%0A");
        }
        text.push_str("-----END%20CERTIFICATE-----%0A");
    }
    text
}

/// RFC 4648 §4, with what a URL cannot carry percent-encoded.
fn base64(bytes: &[u8], into: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit > group.len() {
                into.push_str("%3D");
                continue;
            }
            match DIGITS.get((bits >> (18 - 6 * digit) & 63) as usize) {
                Some(b'+') => into.push_str("%2B"),
                Some(b'/') => into.push_str("%2F"),
                Some(digit) => into.push(char::from(*digit)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_by_rfc_4648() {
        for (bytes, text) in [
            (b"f".as_slice(), "Zg%3D%3D"),
            (b"fo", "Zm8%3D"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xff], "%2B%2F%2F%2F"),
        ] {
            let mut got = String::new();
            base64(bytes, &mut got);
            assert_eq!(got, text);
        }
    }
}
