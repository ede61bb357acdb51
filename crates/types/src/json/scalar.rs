//! The text forms of proto3 JSON: durations, base64 and field names.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// Reads a `google.protobuf.Duration`: seconds with up to nine fraction digits and an `s`, `"0.25s"`.
///
/// # Errors
/// The message for the user; Envoy accepts no negative duration, and neither does this.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let number = text.strip_suffix('s').ok_or(DURATION_FORM)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return Err(DURATION_FORM);
    }
    if negative {
        return Err("Invalid duration: Expected positive duration");
    }
    let seconds = seconds.parse().ok().filter(|s| *s <= MAX_SECONDS).ok_or("the duration is out of range")?;
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| DURATION_FORM)?;
    Ok(Duration::new(seconds, nanos))
}

/// What [`parse_duration`] says of text that is no duration.
pub const DURATION_FORM: &str = "not a duration in seconds such as \"0.25s\"";

/// The limit of `google.protobuf.Duration`, about 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// For `#[serde(deserialize_with)]` in filters' messages: a required duration.
///
/// # Errors
/// When the value is no string that [`parse_duration`] reads.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// For `#[serde(default, deserialize_with)]` in filters' messages: a duration that may be unset.
///
/// # Errors
/// As [`duration`].
pub fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(D::Error::custom)).transpose()
}

/// Reads base64 as proto3 JSON writes `bytes`: standard or URL-safe alphabet, padding optional.
/// `None` when it is neither.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut group = 0u32;
        for byte in chunk {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(six);
        }
        let bytes = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        group <<= 6 * (4 - chunk.len());
        out.extend(group.to_be_bytes().into_iter().skip(1).take(bytes));
    }
    Some(out)
}

/// Whether `key` names the field `name` (snake_case): as it is, or in proto3 JSON's lowerCamelCase.
pub fn names_field(key: &str, name: &str) -> bool {
    if key.as_bytes().first() != name.as_bytes().first() {
        return false;
    }
    if key == name {
        return true;
    }
    // Without building the camel-case name: this is asked for every pair of key and field. Bytes will do, since fields
    // have ASCII names.
    let mut key = key.bytes();
    let mut upper = false;
    for byte in name.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let expected = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = false;
        if key.next() != Some(expected) {
            return false;
        }
    }
    key.next().is_none()
}

/// `connect_timeout` to `connectTimeout`, as protoc derives JSON names.
pub fn lower_camel(name: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}
