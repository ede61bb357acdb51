//! A query string.

/// Its parameters in order, percent-decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses what stands behind `?`.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// Adds the parameters of `text`.
    pub(crate) fn add(&mut self, text: &str) {
        self.pairs.extend(Self::parse(text).pairs);
    }

    /// The first value of `key`; empty if it stands there without one.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// All parameters.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// `%41` to `A`; what is no escape stays. A `+` stays too, since it is common in regular expressions and
/// Envoy does the same.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("usedonly&filter=%5Ecluster%7Ca+b&format=json&bad=%zz");
        assert!(query.has("usedonly") && !query.has("type"));
        assert_eq!(query.value("filter"), Some("^cluster|a+b"));
        assert_eq!(query.value("format"), Some("json"));
        assert_eq!(query.value("bad"), Some("%zz"));
        assert!(Query::parse("").pairs().is_empty());
    }
}
