//! `envoy.config.route.v3.HeaderMatcher`, for filters that look at requests.

use http::HeaderName;
use serde::Deserialize;
use tidegate_types::RequestHead;

use super::StringMatcher;

/// A test of one field of a request, or of a pseudo-header field.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Message")]
pub struct HeaderMatcher {
    name: Name,
    test: Test,
    inverted: bool,
    missing_is_empty: bool,
}

#[derive(Debug)]
enum Name {
    Path,
    Method,
    Authority,
    Scheme,
    Field(HeaderName),
}

#[derive(Debug)]
enum Test {
    /// `present_match`: there, or not.
    Present(bool),
    Text(StringMatcher),
    /// `range_match`: from, up to but not including.
    Range(i64, i64),
}

impl HeaderMatcher {
    /// Whether the request passes. A field that is missing fails every test of its value, inverted or not, unless
    /// it is to be taken for an empty one (Envoy docs, `HeaderMatcher`).
    pub fn matches(&self, head: &RequestHead) -> bool {
        let value = match (self.value(head), &self.test) {
            (value, Test::Present(wanted)) => return (value.is_some() == *wanted) != self.inverted,
            (Some(value), _) => value,
            (None, _) if self.missing_is_empty => String::new(),
            (None, _) => return false,
        };
        let passes = match &self.test {
            Test::Present(_) => true,
            Test::Text(text) => text.matches(&value),
            Test::Range(from, to) => value.parse().is_ok_and(|value: i64| (*from..*to).contains(&value)),
        };
        passes != self.inverted
    }

    /// Lines of the same name are one, joined by commas (RFC 9110 §5.3).
    fn value(&self, head: &RequestHead) -> Option<String> {
        let text = |text: &[u8]| (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned());
        match &self.name {
            Name::Path => text(&head.path),
            Name::Method => Some(head.method.as_str().to_owned()),
            Name::Authority => text(&head.authority),
            Name::Scheme => Some(head.scheme.as_str().to_owned()),
            Name::Field(name) => {
                let lines = head.headers.get_all(name).iter();
                let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
                (!lines.is_empty()).then(|| lines.join(","))
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    name: String,
    exact_match: Option<String>,
    safe_regex_match: Option<RegexMatcher>,
    range_match: Option<Range>,
    present_match: Option<bool>,
    prefix_match: Option<String>,
    suffix_match: Option<String>,
    contains_match: Option<String>,
    string_match: Option<StringMatcher>,
    invert_match: bool,
    treat_missing_header_as_empty: bool,
}

#[derive(Deserialize)]
struct RegexMatcher {
    regex: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    start: i64,
    end: i64,
}

impl TryFrom<Message> for HeaderMatcher {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        let name = match message.name.as_str() {
            "" => return Err("`name` must not be empty".to_owned()),
            ":path" => Name::Path,
            ":method" => Name::Method,
            ":authority" => Name::Authority,
            ":scheme" => Name::Scheme,
            name => {
                Name::Field(HeaderName::try_from(name).map_err(|_| format!("`{name}` is no header name"))?)
            }
        };
        let text = |make: fn(String) -> String, text: Option<String>| text.map(make);
        let regex = message.safe_regex_match.map(|matcher| format!("^(?:{})$", matcher.regex));
        let patterns = [
            text(|exact| format!("^{}$", regex::escape(&exact)), message.exact_match),
            text(|prefix| format!("^{}", regex::escape(&prefix)), message.prefix_match),
            text(|suffix| format!("{}$", regex::escape(&suffix)), message.suffix_match),
            text(|part| regex::escape(&part), message.contains_match),
            regex,
        ];
        let patterns = patterns.into_iter().flatten().map(|pattern| {
            StringMatcher::of_regex(&pattern).map(Test::Text).map_err(|error| error.to_string())
        });
        let others = [
            message.string_match.map(Test::Text),
            message.present_match.map(Test::Present),
            message.range_match.map(|range| Test::Range(range.start, range.end)),
        ];
        let mut tests = patterns.collect::<Result<Vec<_>, _>>()?;
        tests.extend(others.into_iter().flatten());
        let test = match (tests.pop(), tests.is_empty()) {
            // Only the name: it must be there.
            (None, _) => Test::Present(true),
            (Some(test), true) => test,
            (Some(_), false) => return Err("more than one kind of match is set".to_owned()),
        };
        Ok(Self {
            name,
            test,
            inverted: message.invert_match,
            missing_is_empty: message.treat_missing_header_as_empty,
        })
    }
}
