//! Field names, remembered: a worker sees the same few dozen again and again.
//!
//! A known name costs a comparison of its bytes; an unknown one is judged and hashed by `http`, and costs an
//! allocation unless `http` has a constant for it.

use std::cell::RefCell;

use http::HeaderName;

use super::Name;

/// What these bytes name.
pub(crate) fn name(raw: &[u8]) -> Name {
    match raw {
        [b':', ..] => pseudo(raw),
        _ if raw.is_empty() || raw.len() > MAX_REMEMBERED => judge(raw).map_or(Name::Invalid, Name::Header),
        _ => NAMES.with_borrow_mut(|names| {
            let slot = &mut names[place(raw)];
            if let Some(known) = slot
                && known.as_str().as_bytes() == raw
            {
                return Name::Header(known.clone());
            }
            match judge(raw) {
                // The newest takes the place: no peer can fill a table that does not grow.
                Some(name) => Name::Header(slot.insert(name).clone()),
                None => Name::Invalid,
            }
        }),
    }
}

fn pseudo(raw: &[u8]) -> Name {
    match raw {
        b":authority" => Name::Authority,
        b":method" => Name::Method,
        b":path" => Name::Path,
        b":protocol" => Name::Protocol,
        b":scheme" => Name::Scheme,
        b":status" => Name::Status,
        _ => Name::UnknownPseudo,
    }
}

fn judge(raw: &[u8]) -> Option<HeaderName> {
    HeaderName::from_lowercase(raw).ok()
}

/// Longer names are rare and not remembered.
const MAX_REMEMBERED: usize = 64;

/// Places in the table: 4 KB a worker, and the names.
const PLACES: usize = 128;

thread_local! {
    static NAMES: RefCell<[Option<HeaderName>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// Length, first, middle and last byte tell most names apart.
fn place(raw: &[u8]) -> usize {
    let at = |index: usize| raw.get(index).copied().map_or(0, usize::from);
    (raw.len() * 31 + at(0) * 7 + at(raw.len() / 2) * 17 + at(raw.len() - 1) * 3) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_share_a_place_do_not_mix() {
        let names: Vec<String> = (0..1000).map(|n| format!("x-{n:03}")).collect();
        for raw in names.iter().chain(&names) {
            assert!(matches!(name(raw.as_bytes()), Name::Header(name) if name == raw.as_str()));
        }
        assert_eq!(name(b"cookie"), Name::Header(http::header::COOKIE));
    }

    #[test]
    fn only_lower_case_tokens_are_names() {
        let long = "x".repeat(200);
        assert!(matches!(name(long.as_bytes()), Name::Header(name) if name == long.as_str()));
        let long_upper = format!("{long}X");
        for raw in ["", "a b", "a:", "\u{e9}", "Cookie", "x-Y", "a\0", long_upper.as_str()] {
            assert_eq!(name(raw.as_bytes()), Name::Invalid, "{raw:?}");
            assert_eq!(name(raw.as_bytes()), Name::Invalid);
        }
        assert_eq!((name(b":method"), name(b":")), (Name::Method, Name::UnknownPseudo));
    }
}
