//! Taking fields out of a message without moving the others.
//!
//! `HeaderMap::remove` puts the last field into the gap, which peers see: Envoy keeps the order.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Removes the fields that `remove` names and keeps the others in their order. Costs a walk over the names if there
/// are none.
pub fn remove_in_order(headers: &mut HeaderMap, remove: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&remove) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.capacity());
    for (name, value) in headers.iter().filter(|(name, _)| !remove(name)) {
        kept.append(name, value.clone());
    }
    *headers = kept;
}

/// Removes one field, in all its lines, and answers its first value. Costs a look-up if there is none.
pub fn take_in_order(headers: &mut HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let value = headers.get(name)?.clone();
    remove_in_order(headers, |other| other == name);
    Some(value)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect()
    }

    #[test]
    fn the_others_stay_where_they_are() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", "2"), ("host", "x"), ("b", "3"), ("c", "4"), ("d", "5")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let b = HeaderName::from_static("b");
        assert_eq!(take_in_order(&mut headers, &header::HOST), Some(HeaderValue::from_static("x")));
        assert_eq!(lines(&headers), ["a: 1", "b: 2", "b: 3", "c: 4", "d: 5"]);
        assert_eq!(take_in_order(&mut headers, &b), Some(HeaderValue::from_static("2")));
        assert_eq!(lines(&headers), ["a: 1", "c: 4", "d: 5"]);
        assert_eq!(take_in_order(&mut headers, &b), None);
    }
}
