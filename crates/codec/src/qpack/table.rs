//! The static table (RFC 9204 Appendix A).

use http::{HeaderName, header};

use crate::hpack::Name;

/// An entry.
#[derive(Debug)]
pub(super) struct StaticEntry {
    pub(super) name: Name,
    pub(super) name_len: usize,
    pub(super) value: &'static str,
}

/// Counted from 0.
pub(super) fn static_entry(index: usize) -> Option<&'static StaticEntry> {
    STATIC.get(index)
}

/// The index of the first entry with this name.
pub(super) fn static_index(name: &HeaderName) -> Option<u8> {
    Some(match *name {
        header::ACCEPT => 29,
        header::ACCEPT_ENCODING => 31,
        header::ACCEPT_LANGUAGE => 72,
        header::ACCEPT_RANGES => 32,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS => 73,
        header::ACCESS_CONTROL_ALLOW_HEADERS => 33,
        header::ACCESS_CONTROL_ALLOW_METHODS => 76,
        header::ACCESS_CONTROL_ALLOW_ORIGIN => 35,
        header::ACCESS_CONTROL_EXPOSE_HEADERS => 79,
        header::ACCESS_CONTROL_REQUEST_HEADERS => 80,
        header::ACCESS_CONTROL_REQUEST_METHOD => 81,
        header::AGE => 2,
        header::ALT_SVC => 83,
        header::AUTHORIZATION => 84,
        header::CACHE_CONTROL => 36,
        header::CONTENT_DISPOSITION => 3,
        header::CONTENT_ENCODING => 42,
        header::CONTENT_LENGTH => 4,
        header::CONTENT_SECURITY_POLICY => 85,
        header::CONTENT_TYPE => 44,
        header::COOKIE => 5,
        header::DATE => 6,
        header::ETAG => 7,
        header::FORWARDED => 88,
        header::IF_MODIFIED_SINCE => 8,
        header::IF_NONE_MATCH => 9,
        header::IF_RANGE => 89,
        header::LAST_MODIFIED => 10,
        header::LINK => 11,
        header::LOCATION => 12,
        header::ORIGIN => 90,
        header::RANGE => 55,
        header::REFERER => 13,
        header::SERVER => 92,
        header::SET_COOKIE => 14,
        header::STRICT_TRANSPORT_SECURITY => 56,
        header::UPGRADE_INSECURE_REQUESTS => 94,
        header::USER_AGENT => 95,
        header::VARY => 59,
        header::X_CONTENT_TYPE_OPTIONS => 61,
        header::X_FRAME_OPTIONS => 97,
        header::X_XSS_PROTECTION => 62,
        _ => return static_index_by_text(name.as_str()),
    })
}

/// Names that `http` has no constant for. Their lengths tell most others apart.
fn static_index_by_text(name: &str) -> Option<u8> {
    match (name.len(), name) {
        (7, "purpose") => Some(91),
        (9, "expect-ct") => Some(87),
        (10, "early-data") => Some(86),
        (15, "x-forwarded-for") => Some(96),
        (19, "timing-allow-origin") => Some(93),
        _ => None,
    }
}

/// The index of the entry with this name and value.
pub(super) fn static_value(name: &HeaderName, value: &[u8]) -> Option<u8> {
    let entries = static_index(name)?;
    let all = match *name {
        // Theirs do not stand together.
        header::ACCESS_CONTROL_ALLOW_HEADERS if value == b"*" => return Some(75),
        _ => STATIC.iter().enumerate().skip(usize::from(entries)),
    };
    all.take_while(|(_, entry)| matches!(&entry.name, Name::Header(known) if known == name))
        .find(|(_, entry)| !entry.value.is_empty() && entry.value.as_bytes() == value)
        .map(|(index, _)| index as u8)
}

const fn pseudo(name: Name, name_len: usize, value: &'static str) -> StaticEntry {
    StaticEntry { name, name_len, value }
}

const fn field(name: HeaderName, name_len: usize, value: &'static str) -> StaticEntry {
    StaticEntry { name: Name::Header(name), name_len, value }
}

const fn own(name: &'static str, value: &'static str) -> StaticEntry {
    StaticEntry { name: Name::Header(HeaderName::from_static(name)), name_len: name.len(), value }
}

static STATIC: [StaticEntry; 99] = [
    pseudo(Name::Authority, 10, ""),
    pseudo(Name::Path, 5, "/"),
    field(header::AGE, 3, "0"),
    field(header::CONTENT_DISPOSITION, 19, ""),
    field(header::CONTENT_LENGTH, 14, "0"),
    field(header::COOKIE, 6, ""),
    field(header::DATE, 4, ""),
    field(header::ETAG, 4, ""),
    field(header::IF_MODIFIED_SINCE, 17, ""),
    field(header::IF_NONE_MATCH, 13, ""),
    field(header::LAST_MODIFIED, 13, ""),
    field(header::LINK, 4, ""),
    field(header::LOCATION, 8, ""),
    field(header::REFERER, 7, ""),
    field(header::SET_COOKIE, 10, ""),
    pseudo(Name::Method, 7, "CONNECT"),
    pseudo(Name::Method, 7, "DELETE"),
    pseudo(Name::Method, 7, "GET"),
    pseudo(Name::Method, 7, "HEAD"),
    pseudo(Name::Method, 7, "OPTIONS"),
    pseudo(Name::Method, 7, "POST"),
    pseudo(Name::Method, 7, "PUT"),
    pseudo(Name::Scheme, 7, "http"),
    pseudo(Name::Scheme, 7, "https"),
    pseudo(Name::Status, 7, "103"),
    pseudo(Name::Status, 7, "200"),
    pseudo(Name::Status, 7, "304"),
    pseudo(Name::Status, 7, "404"),
    pseudo(Name::Status, 7, "503"),
    field(header::ACCEPT, 6, "*/*"),
    field(header::ACCEPT, 6, "application/dns-message"),
    field(header::ACCEPT_ENCODING, 15, "gzip, deflate, br"),
    field(header::ACCEPT_RANGES, 13, "bytes"),
    field(header::ACCESS_CONTROL_ALLOW_HEADERS, 28, "cache-control"),
    field(header::ACCESS_CONTROL_ALLOW_HEADERS, 28, "content-type"),
    field(header::ACCESS_CONTROL_ALLOW_ORIGIN, 27, "*"),
    field(header::CACHE_CONTROL, 13, "max-age=0"),
    field(header::CACHE_CONTROL, 13, "max-age=2592000"),
    field(header::CACHE_CONTROL, 13, "max-age=604800"),
    field(header::CACHE_CONTROL, 13, "no-cache"),
    field(header::CACHE_CONTROL, 13, "no-store"),
    field(header::CACHE_CONTROL, 13, "public, max-age=31536000"),
    field(header::CONTENT_ENCODING, 16, "br"),
    field(header::CONTENT_ENCODING, 16, "gzip"),
    field(header::CONTENT_TYPE, 12, "application/dns-message"),
    field(header::CONTENT_TYPE, 12, "application/javascript"),
    field(header::CONTENT_TYPE, 12, "application/json"),
    field(header::CONTENT_TYPE, 12, "application/x-www-form-urlencoded"),
    field(header::CONTENT_TYPE, 12, "image/gif"),
    field(header::CONTENT_TYPE, 12, "image/jpeg"),
    field(header::CONTENT_TYPE, 12, "image/png"),
    field(header::CONTENT_TYPE, 12, "text/css"),
    field(header::CONTENT_TYPE, 12, "text/html; charset=utf-8"),
    field(header::CONTENT_TYPE, 12, "text/plain"),
    field(header::CONTENT_TYPE, 12, "text/plain;charset=utf-8"),
    field(header::RANGE, 5, "bytes=0-"),
    field(header::STRICT_TRANSPORT_SECURITY, 25, "max-age=31536000"),
    field(header::STRICT_TRANSPORT_SECURITY, 25, "max-age=31536000; includesubdomains"),
    field(header::STRICT_TRANSPORT_SECURITY, 25, "max-age=31536000; includesubdomains; preload"),
    field(header::VARY, 4, "accept-encoding"),
    field(header::VARY, 4, "origin"),
    field(header::X_CONTENT_TYPE_OPTIONS, 22, "nosniff"),
    field(header::X_XSS_PROTECTION, 16, "1; mode=block"),
    pseudo(Name::Status, 7, "100"),
    pseudo(Name::Status, 7, "204"),
    pseudo(Name::Status, 7, "206"),
    pseudo(Name::Status, 7, "302"),
    pseudo(Name::Status, 7, "400"),
    pseudo(Name::Status, 7, "403"),
    pseudo(Name::Status, 7, "421"),
    pseudo(Name::Status, 7, "425"),
    pseudo(Name::Status, 7, "500"),
    field(header::ACCEPT_LANGUAGE, 15, ""),
    field(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, 32, "FALSE"),
    field(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, 32, "TRUE"),
    field(header::ACCESS_CONTROL_ALLOW_HEADERS, 28, "*"),
    field(header::ACCESS_CONTROL_ALLOW_METHODS, 28, "get"),
    field(header::ACCESS_CONTROL_ALLOW_METHODS, 28, "get, post, options"),
    field(header::ACCESS_CONTROL_ALLOW_METHODS, 28, "options"),
    field(header::ACCESS_CONTROL_EXPOSE_HEADERS, 29, "content-length"),
    field(header::ACCESS_CONTROL_REQUEST_HEADERS, 30, "content-type"),
    field(header::ACCESS_CONTROL_REQUEST_METHOD, 29, "get"),
    field(header::ACCESS_CONTROL_REQUEST_METHOD, 29, "post"),
    field(header::ALT_SVC, 7, "clear"),
    field(header::AUTHORIZATION, 13, ""),
    field(header::CONTENT_SECURITY_POLICY, 23, "script-src 'none'; object-src 'none'; base-uri 'none'"),
    own("early-data", "1"),
    own("expect-ct", ""),
    field(header::FORWARDED, 9, ""),
    field(header::IF_RANGE, 8, ""),
    field(header::ORIGIN, 6, ""),
    own("purpose", "prefetch"),
    field(header::SERVER, 6, ""),
    own("timing-allow-origin", "*"),
    field(header::UPGRADE_INSECURE_REQUESTS, 25, "1"),
    field(header::USER_AGENT, 10, ""),
    own("x-forwarded-for", ""),
    field(header::X_FRAME_OPTIONS, 15, "deny"),
    field(header::X_FRAME_OPTIONS, 15, "sameorigin"),
];

#[cfg(test)]
mod tests {
    //! The static table agrees with itself.

    use super::*;

    #[test]
    fn lengths_and_indices_are_those_of_the_names() {
        for (at, entry) in STATIC.iter().enumerate() {
            if let Name::Header(name) = &entry.name {
                assert_eq!(entry.name_len, name.as_str().len(), "{name}");
                let first = STATIC.iter().position(|other| other.name == entry.name);
                assert_eq!(static_index(name).map(usize::from), first, "{name}");
                let whole = static_value(name, entry.value.as_bytes()).map(usize::from);
                assert_eq!(whole, (!entry.value.is_empty()).then_some(at), "{name}: {}", entry.value);
            }
        }
        assert_eq!((static_index(&header::TE), static_value(&header::AGE, b"1")), (None, None));
        assert!(static_entry(99).is_none());
    }
}
