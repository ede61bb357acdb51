//! The tables: the static one (RFC 7541 Appendix A) and a connection's dynamic one (§2.3.2, §4).

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, header};

use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Name};

/// A field as a table holds it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// Bytes of the name, also of one that is not valid.
    pub(super) name_len: usize,
    pub(super) value: Bytes,
}

impl Entry {
    /// RFC 7541 §4.1.
    pub(super) fn size(&self) -> usize {
        self.name_len + self.value.len() + ENTRY_OVERHEAD
    }
}

/// What a connection's peer told us to remember. Takes memory with the first entry.
#[derive(Debug)]
pub(super) struct DynamicTable {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

impl DynamicTable {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: DEFAULT_TABLE_SIZE }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// RFC 7541 §4.3.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict_to(max);
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// RFC 7541 §4.4: an entry over the maximum empties the table and is no error.
    pub(super) fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict_to(self.max.saturating_sub(size));
        if size <= self.max {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Counted from 0, the newest.
    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        assert_eq!(self.size, self.entries.iter().map(Entry::size).sum::<usize>());
        assert!(self.size <= self.max);
        (self.entries.len(), self.size)
    }
}

/// An entry of the static table.
#[derive(Debug)]
pub(super) struct StaticEntry {
    pub(super) name: Name,
    pub(super) name_len: usize,
    pub(super) value: &'static str,
}

/// Counted from 1.
pub(super) fn static_entry(index: usize) -> Option<&'static StaticEntry> {
    STATIC.get(index.wrapping_sub(1))
}

/// The index of the first entry with this name; 0 if there is none.
pub(super) fn static_index(name: &HeaderName) -> u8 {
    match *name {
        header::ACCEPT_CHARSET => 15,
        header::ACCEPT_ENCODING => 16,
        header::ACCEPT_LANGUAGE => 17,
        header::ACCEPT_RANGES => 18,
        header::ACCEPT => 19,
        header::ACCESS_CONTROL_ALLOW_ORIGIN => 20,
        header::AGE => 21,
        header::ALLOW => 22,
        header::AUTHORIZATION => 23,
        header::CACHE_CONTROL => 24,
        header::CONTENT_DISPOSITION => 25,
        header::CONTENT_ENCODING => 26,
        header::CONTENT_LANGUAGE => 27,
        header::CONTENT_LENGTH => 28,
        header::CONTENT_LOCATION => 29,
        header::CONTENT_RANGE => 30,
        header::CONTENT_TYPE => 31,
        header::COOKIE => 32,
        header::DATE => 33,
        header::ETAG => 34,
        header::EXPECT => 35,
        header::EXPIRES => 36,
        header::FROM => 37,
        header::HOST => 38,
        header::IF_MATCH => 39,
        header::IF_MODIFIED_SINCE => 40,
        header::IF_NONE_MATCH => 41,
        header::IF_RANGE => 42,
        header::IF_UNMODIFIED_SINCE => 43,
        header::LAST_MODIFIED => 44,
        header::LINK => 45,
        header::LOCATION => 46,
        header::MAX_FORWARDS => 47,
        header::PROXY_AUTHENTICATE => 48,
        header::PROXY_AUTHORIZATION => 49,
        header::RANGE => 50,
        header::REFERER => 51,
        header::REFRESH => 52,
        header::RETRY_AFTER => 53,
        header::SERVER => 54,
        header::SET_COOKIE => 55,
        header::STRICT_TRANSPORT_SECURITY => 56,
        header::TRANSFER_ENCODING => 57,
        header::USER_AGENT => 58,
        header::VARY => 59,
        header::VIA => 60,
        header::WWW_AUTHENTICATE => 61,
        _ => 0,
    }
}

/// Entries of the static table.
pub(super) const STATIC_LEN: usize = STATIC.len();

const fn pseudo(name: Name, name_len: usize, value: &'static str) -> StaticEntry {
    StaticEntry { name, name_len, value }
}

const fn field(name: HeaderName, name_len: usize) -> StaticEntry {
    StaticEntry { name: Name::Header(name), name_len, value: "" }
}

static STATIC: [StaticEntry; 61] = [
    pseudo(Name::Authority, 10, ""),
    pseudo(Name::Method, 7, "GET"),
    pseudo(Name::Method, 7, "POST"),
    pseudo(Name::Path, 5, "/"),
    pseudo(Name::Path, 5, "/index.html"),
    pseudo(Name::Scheme, 7, "http"),
    pseudo(Name::Scheme, 7, "https"),
    pseudo(Name::Status, 7, "200"),
    pseudo(Name::Status, 7, "204"),
    pseudo(Name::Status, 7, "206"),
    pseudo(Name::Status, 7, "304"),
    pseudo(Name::Status, 7, "400"),
    pseudo(Name::Status, 7, "404"),
    pseudo(Name::Status, 7, "500"),
    field(header::ACCEPT_CHARSET, 14),
    pseudo(Name::Header(header::ACCEPT_ENCODING), 15, "gzip, deflate"),
    field(header::ACCEPT_LANGUAGE, 15),
    field(header::ACCEPT_RANGES, 13),
    field(header::ACCEPT, 6),
    field(header::ACCESS_CONTROL_ALLOW_ORIGIN, 27),
    field(header::AGE, 3),
    field(header::ALLOW, 5),
    field(header::AUTHORIZATION, 13),
    field(header::CACHE_CONTROL, 13),
    field(header::CONTENT_DISPOSITION, 19),
    field(header::CONTENT_ENCODING, 16),
    field(header::CONTENT_LANGUAGE, 16),
    field(header::CONTENT_LENGTH, 14),
    field(header::CONTENT_LOCATION, 16),
    field(header::CONTENT_RANGE, 13),
    field(header::CONTENT_TYPE, 12),
    field(header::COOKIE, 6),
    field(header::DATE, 4),
    field(header::ETAG, 4),
    field(header::EXPECT, 6),
    field(header::EXPIRES, 7),
    field(header::FROM, 4),
    field(header::HOST, 4),
    field(header::IF_MATCH, 8),
    field(header::IF_MODIFIED_SINCE, 17),
    field(header::IF_NONE_MATCH, 13),
    field(header::IF_RANGE, 8),
    field(header::IF_UNMODIFIED_SINCE, 19),
    field(header::LAST_MODIFIED, 13),
    field(header::LINK, 4),
    field(header::LOCATION, 8),
    field(header::MAX_FORWARDS, 12),
    field(header::PROXY_AUTHENTICATE, 18),
    field(header::PROXY_AUTHORIZATION, 19),
    field(header::RANGE, 5),
    field(header::REFERER, 7),
    field(header::REFRESH, 7),
    field(header::RETRY_AFTER, 11),
    field(header::SERVER, 6),
    field(header::SET_COOKIE, 10),
    field(header::STRICT_TRANSPORT_SECURITY, 25),
    field(header::TRANSFER_ENCODING, 17),
    field(header::USER_AGENT, 10),
    field(header::VARY, 4),
    field(header::VIA, 3),
    field(header::WWW_AUTHENTICATE, 16),
];

#[cfg(test)]
mod tests {
    //! The static table agrees with itself.
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lengths_and_indices_are_those_of_the_names() {
        for (at, entry) in STATIC.iter().enumerate() {
            if let Name::Header(name) = &entry.name {
                assert_eq!(entry.name_len, name.as_str().len(), "{name}");
                assert_eq!(usize::from(static_index(name)), at + 1, "{name}");
            }
        }
        assert_eq!(static_index(&header::TE), 0);
        assert!(static_entry(0).is_none() && static_entry(62).is_none());
        assert_eq!(static_entry(61).unwrap().name, Name::Header(header::WWW_AUTHENTICATE));
    }
}
