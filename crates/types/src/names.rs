//! Field names as an HTTP/1.1 peer wrote them: what Envoy's `preserve_case` formatter remembers of a head.
//!
//! `HeaderMap` knows names in lower case alone. A codec that was told to notes the written ones beside the head, and
//! whichever HTTP/1.1 codec sends the head on asks for them. Start from [`WrittenNames`].

use bytes::Bytes;

/// How the names are written that the peer did not write: those of fields that were added on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherNames {
    /// `x-request-id`.
    #[default]
    Lower,
    /// `X-Request-Id`.
    Proper,
}

/// The names of a head's fields as they were written, and its reason phrase.
#[derive(Clone, Debug)]
pub struct WrittenNames {
    names: Vec<Bytes>,
    /// How other names are written.
    pub others: OtherNames,
    /// A response's reason phrase, where it is to be passed on; empty: the status's own.
    pub reason: Bytes,
}

impl WrittenNames {
    /// Of a head without fields so far.
    pub fn new(others: OtherNames) -> Self {
        Self { names: Vec::new(), others, reason: Bytes::new() }
    }

    /// Notes how a name is written; of several lines of one field, the first counts.
    pub fn note(&mut self, name: Bytes) {
        if self.find(&name).is_none() {
            self.names.push(name);
        }
    }

    /// How the peer wrote `name`. A look through all of them: heads are short, and few configurations ask for this.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        self.names.iter().find(|written| written.eq_ignore_ascii_case(name)).map(|written| &**written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_of_writing_a_name_counts() {
        let mut names = WrittenNames::new(OtherNames::Proper);
        for name in ["X-aBc", "x-AbC", "HoSt"] {
            names.note(Bytes::from(name));
        }
        assert_eq!(names.find(b"x-abc"), Some(&b"X-aBc"[..]));
        assert_eq!(names.find(b"host"), Some(&b"HoSt"[..]));
        assert_eq!(names.find(b"x-ab"), None);
    }
}
