//! Field names, remembered: a worker sees the same few dozen again and again, in the same spelling.
//!
//! A name that is known costs a comparison of its bytes; an unknown one is judged and lower-cased by
//! `http`, and one that `http` has no constant for would cost an allocation a message. Measured with
//! callgrind: 1,500 of 27,700 instructions of a small request.

use std::cell::RefCell;

use http::{HeaderName, header};

use crate::h1::rules;

/// What a name means to the codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: the field belongs to the message as it is.
    None,
    /// It may say something about framing or the connection: [`rules::Fields`] must look.
    Connection,
}

/// The name's spelling on the wire, what it is and what it means. `None` if it is not a valid name.
#[inline]
pub(super) fn known(raw: &[u8]) -> Option<(HeaderName, Meaning)> {
    if raw.len() > MAX_RAW || raw.is_empty() {
        return judge(raw);
    }
    NAMES.with_borrow_mut(|names| {
        let slot = &mut names[place(raw)];
        if let Some(name) = slot
            && name.raw.get(..usize::from(name.len)) == Some(raw)
        {
            return Some((name.name.clone(), name.meaning));
        }
        let (name, meaning) = judge(raw)?;
        let mut spelling = [0; MAX_RAW];
        spelling[..raw.len()].copy_from_slice(raw);
        // The newest takes the place: no peer can fill a table that does not grow.
        *slot = Some(Known { raw: spelling, len: raw.len() as u8, name: name.clone(), meaning });
        Some((name, meaning))
    })
}

#[cold]
#[inline(never)]
fn judge(raw: &[u8]) -> Option<(HeaderName, Meaning)> {
    let name = HeaderName::from_bytes(raw).ok()?;
    let meaning = if rules::is_meaningful(&name) { Meaning::Connection } else { Meaning::None };
    Some((name, meaning))
}

struct Known {
    raw: [u8; MAX_RAW],
    len: u8,
    name: HeaderName,
    meaning: Meaning,
}

/// Longer names are rare and not remembered.
const MAX_RAW: usize = 39;

/// Places in the table: 10 KB a worker.
const PLACES: usize = 128;

thread_local! {
    static NAMES: RefCell<[Option<Known>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// Length, first, middle and last byte tell most names apart.
fn place(raw: &[u8]) -> usize {
    let at = |index: usize| raw.get(index).copied().map_or(0, usize::from);
    (raw.len() * 31 + at(0) * 7 + at(raw.len() / 2) * 17 + at(raw.len() - 1) * 3) % PLACES
}

/// Fields of requests whose repeated lines become one, joined with commas; others stay apart. The same
/// list as Envoy 1.40's.
pub(super) fn is_joined_in_requests(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCESS_CONTROL_REQUEST_HEADERS
            | header::ACCESS_CONTROL_REQUEST_METHOD
            | header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_TYPE
            | header::EXPECT
            | header::IF_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::ORIGIN
            | header::PRAGMA
            | header::REFERER
            | header::USER_AGENT
            | header::VIA
    ) || matches!(
        name.as_str(),
        "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-request-id"
            | "grpc-timeout"
            | "x-envoy-original-path"
            | "authentication"
    )
}

/// The same for responses.
pub(super) fn is_joined_in_responses(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AGE
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_TYPE
            | header::DATE
            | header::ETAG
            | header::LOCATION
            | header::VARY
            | header::VIA
    ) || name.as_str() == "x-request-id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spelling_is_its_own_and_the_name_is_the_same() {
        for raw in ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR", "X-Forwarded-For"] {
            assert_eq!(
                known(raw.as_bytes()),
                Some((HeaderName::from_static("x-forwarded-for"), Meaning::None))
            );
        }
        assert_eq!(known(b"Connection"), Some((http::header::CONNECTION, Meaning::Connection)));
        assert_eq!(known(b"keep-alive").unwrap().1, Meaning::Connection);
    }

    #[test]
    fn names_that_share_a_place_do_not_mix() {
        let names: Vec<String> = (0..1000).map(|n| format!("x-{n:03}")).collect();
        for name in names.iter().chain(&names) {
            assert_eq!(known(name.as_bytes()).unwrap().0, name.as_str());
        }
    }

    #[test]
    fn invalid_names_are_refused_every_time() {
        for raw in ["", "a b", "a:", "\u{e9}", " a"] {
            assert_eq!(known(raw.as_bytes()), None);
            assert_eq!(known(raw.as_bytes()), None);
        }
        let long = "x".repeat(200);
        assert_eq!(known(long.as_bytes()).unwrap().0, long.as_str());
    }
}
