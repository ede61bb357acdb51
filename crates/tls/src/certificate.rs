//! The facts of an X.509 certificate (RFC 5280), for access logs, headers and `/certs`. Verifies nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use tidegate_types::{CertificateInfo, CertificateMarks};
use x509_parser::prelude::*;

/// A certificate that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct BadCertificate(String);

/// The facts of the first certificate of `chain`.
pub fn facts(chain: &[CertificateDer<'_>]) -> Result<CertificateInfo, BadCertificate> {
    let leaf = chain.first().ok_or_else(|| BadCertificate("empty chain".to_owned()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| BadCertificate(error.to_string()))?;
    let mut info = CertificateInfo {
        subject: name(parsed.subject()),
        issuer: name(parsed.issuer()),
        serial: serial(&parsed),
        sha256: fingerprint(&digest::SHA256, leaf),
        sha1: fingerprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf),
        uri_sans: Vec::new(),
        dns_sans: Vec::new(),
        ip_sans: Vec::new(),
        email_sans: Vec::new(),
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
        chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
        marks: chain.iter().map(|certificate| marks(certificate)).collect(),
    };
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for entry in &names.value.general_names {
            match entry {
                GeneralName::URI(uri) => info.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => info.dns_sans.push((*dns).to_owned()),
                GeneralName::RFC822Name(mail) => info.email_sans.push((*mail).to_owned()),
                GeneralName::IPAddress(bytes) => info.ip_sans.extend(address(bytes)),
                _ => {}
            }
        }
    }
    Ok(info)
}

/// As [`facts`], remembered for the certificates that a worker sees again and again (each connection to an
/// upstream shows the same one).
pub fn remembered(chain: &[CertificateDer<'_>]) -> Option<Arc<CertificateInfo>> {
    let leaf = chain.first()?;
    SEEN.with_borrow_mut(|seen| {
        if let Some(info) = seen.get(leaf.as_ref())
            && info.chain.iter().map(Vec::as_slice).eq(chain.iter().map(AsRef::as_ref))
        {
            return Some(info.clone());
        }
        let info = Arc::new(facts(chain).ok()?);
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert(leaf.as_ref().into(), info.clone());
        Some(info)
    })
}

/// The common name of the subject, which stands in for a missing list of names.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

fn marks(der: &[u8]) -> CertificateMarks {
    let parsed = X509Certificate::from_der(der);
    CertificateMarks {
        serial: parsed.map(|(_, parsed)| serial(&parsed)).unwrap_or_default(),
        sha256: fingerprint(&digest::SHA256, der),
        sha1: fingerprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, der),
    }
}

fn serial(certificate: &X509Certificate<'_>) -> String {
    let digits = hexadecimal(certificate.raw_serial());
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

/// RFC 2253: the most specific part first, escaped as §2.4 says.
fn name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let mut sets: Vec<_> = name.iter_rdn().collect();
    sets.reverse();
    for (i, set) in sets.into_iter().enumerate() {
        for (j, attribute) in set.iter().enumerate() {
            if j > 0 {
                text.push('+');
            } else if i > 0 {
                text.push(',');
            }
            let oid = attribute.attr_type().to_id_string();
            let key = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
            text.push_str(key.map_or(oid.as_str(), |(_, name)| name));
            text.push('=');
            escape(attribute.as_str().unwrap_or_default(), &mut text);
        }
    }
    text
}

fn escape(value: &str, into: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        let edge_blank = c == ' ' && (i == 0 || i == last);
        if edge_blank || (c == '#' && i == 0) || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            into.push('\\');
        }
        into.push(c);
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(ip.to_string())
}

fn time(time: ASN1Time) -> SystemTime {
    match u64::try_from(time.timestamp()) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

fn fingerprint(algorithm: &'static digest::Algorithm, der: &[u8]) -> String {
    hexadecimal(digest::digest(algorithm, der).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Certificates that a worker remembers; beyond, it begins anew. Peers cannot make it grow further.
const MAX_SEEN: usize = 64;

/// Short names, as OpenSSL prints them.
const ATTRIBUTES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

thread_local! {
    static SEEN: RefCell<HashMap<Box<[u8]>, Arc<CertificateInfo>>> = RefCell::default();
}
