//! The `alt-svc` field: which other endpoints serve an origin (RFC 7838 §3).
//!
//! Only syntax: who may be believed, and for how long, is [`super::Alternates`]'s matter. Start from [`parse`].

use std::time::Duration;

/// How long an advertisement without `ma` holds (RFC 7838 §3.1).
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer is no better: keeps sums of times far from their limits.
const LONGEST_MAX_AGE: u64 = 10 * 365 * 24 * 60 * 60;

/// What one field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertised {
    /// What was advertised before is not to be used any more.
    Clear,
    /// These serve the origin, the preferred one first.
    Services(Vec<Service>),
}

/// An alternative service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// An ALPN protocol id, percent-decoded.
    pub protocol: Vec<u8>,
    /// Its host; empty: the origin's.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How long this holds, since the response was made.
    pub max_age: Duration,
    /// Whether it holds on when the network changes.
    pub persist: bool,
}

/// The field is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an alt-svc field")]
pub struct Malformed;

/// Parses a field's value.
///
/// # Errors
/// One malformed element spoils the field, as in Envoy.
pub fn parse(value: &[u8]) -> Result<Advertised, Malformed> {
    let mut rest = Cursor(value);
    rest.skip_blanks();
    // Case-sensitive (RFC 7838 §3).
    if rest.0.trim_ascii_end() == b"clear" {
        return Ok(Advertised::Clear);
    }
    let mut services = Vec::new();
    loop {
        // Empty elements of a list are to be ignored (RFC 9110 §5.6.1.2).
        while rest.take(b',') {
            rest.skip_blanks();
        }
        if rest.0.is_empty() {
            break;
        }
        services.push(service(&mut rest)?);
        rest.skip_blanks();
        if !rest.0.is_empty() && rest.0[0] != b',' {
            return Err(Malformed);
        }
    }
    if services.is_empty() { Err(Malformed) } else { Ok(Advertised::Services(services)) }
}

/// `alt-value`.
fn service(rest: &mut Cursor<'_>) -> Result<Service, Malformed> {
    let protocol = percent_decode(rest.token()?)?;
    if !rest.take(b'=') {
        return Err(Malformed);
    }
    let (host, port) = authority(&rest.quoted()?)?;
    let mut service = Service { protocol, host, port, max_age: DEFAULT_MAX_AGE, persist: false };
    loop {
        rest.skip_blanks();
        if !rest.take(b';') {
            return Ok(service);
        }
        rest.skip_blanks();
        let name = rest.token()?;
        if !rest.take(b'=') {
            return Err(Malformed);
        }
        let value = if rest.0.first() == Some(&b'"') { rest.quoted()? } else { rest.token()?.to_vec() };
        match name.to_ascii_lowercase().as_slice() {
            b"ma" => service.max_age = max_age(&value)?,
            // Any other value is to be ignored (RFC 7838 §3.1), as are unknown parameters.
            b"persist" => service.persist = value == b"1",
            _ => {}
        }
    }
}

fn max_age(value: &[u8]) -> Result<Duration, Malformed> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Ok(Duration::from_secs(value.iter().fold(0, add).min(LONGEST_MAX_AGE)))
}

/// `[ uri-host ] ":" port`.
fn authority(text: &[u8]) -> Result<(String, u16), Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    let (host, port) = text.rsplit_once(':').ok_or(Malformed)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(Malformed)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']').ok_or(Malformed)?,
        None if host.contains(':') => return Err(Malformed),
        None => host,
    };
    if !host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'"' | b'[' | b']'))
    {
        return Err(Malformed);
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// `protocol-id`: what ALPN ids contain beside token characters is percent-encoded (RFC 7838 §3).
fn percent_decode(token: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(token.len());
    let mut bytes = token.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(*digit).to_digit(16)).ok_or(Malformed);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).map_err(|_| Malformed)?);
    }
    Ok(decoded)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// `OWS`.
    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// `quoted-string`, without its quotes and backslashes (RFC 9110 §5.6.4).
    fn quoted(&mut self) -> Result<Vec<u8>, Malformed> {
        if !self.take(b'"') {
            return Err(Malformed);
        }
        let mut text = Vec::new();
        loop {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            match byte {
                b'"' => return Ok(text),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first().ok_or(Malformed)?;
                    self.0 = rest;
                    text.push(*escaped);
                }
                byte => text.push(*byte),
            }
        }
    }
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn services(value: &str) -> Vec<(String, String, u16, u64)> {
        match parse(value.as_bytes()).unwrap() {
            Advertised::Clear => panic!("clear"),
            Advertised::Services(services) => services
                .into_iter()
                .map(|s| (String::from_utf8(s.protocol).unwrap(), s.host, s.port, s.max_age.as_secs()))
                .collect(),
        }
    }

    #[test]
    fn fields_of_the_rfc() {
        let day = 86_400;
        assert_eq!(services("h3=\":443\""), [("h3".into(), "".into(), 443, day)]);
        assert_eq!(services("h3=\":443\"; ma=3600"), [("h3".into(), "".into(), 443, 3600)]);
        assert_eq!(
            services("h2=\"alt.example.com:8000\", h3=\"[2001:db8::1]:443\";MA=\"5\" ;persist=1"),
            [("h2".into(), "alt.example.com".into(), 8000, day), ("h3".into(), "2001:db8::1".into(), 443, 5)]
        );
        assert_eq!(services("w%3Dx%3Ay%23z=\":1\"")[0].0, "w=x:y#z");
        assert_eq!(
            services(" , h3=\":1\" ,, h3=\"A\\.b:2\"; v=\"46,43\",")[1],
            ("h3".into(), "a.b".into(), 2, day)
        );
        let persistent = parse(b"h3=\":443\"; persist=1").unwrap();
        assert!(matches!(persistent, Advertised::Services(s) if s[0].persist));
        assert_eq!(services("h3=\":1\"; ma=99999999999999999999")[0].3, LONGEST_MAX_AGE);
    }

    #[test]
    fn clear_is_case_sensitive_and_alone() {
        assert_eq!(parse(b" clear "), Ok(Advertised::Clear));
        for field in ["Clear", "clear, h3=\":1\"", "h3=\":1\", clear"] {
            assert_eq!(parse(field.as_bytes()), Err(Malformed), "{field}");
        }
    }

    #[test]
    fn one_malformed_element_spoils_the_field() {
        let fields = [
            "",
            " ",
            ",",
            "h3",
            "h3=",
            "h3=:443",
            "h3=\":443",
            "h3=\"443\"",
            "h3=\":0\"",
            "h3=\":65536\"",
            "h3=\":+1\"",
            "h3=\":1\"; ma",
            "h3=\":1\"; ma=",
            "h3=\":1\"; ma=-1",
            "h3=\":1\"; ma=1s",
            "h%3=\":1\"",
            "h%zz=\":1\"",
            "h3=\"a:b:1\"",
            "h3=\"[::1:1\"",
            "h3=\"a b:1\"",
            "h3=\":1\" h2=\":1\"",
            "h3=\":1\\",
            "h3=\"\u{e9}:1\"",
        ];
        for field in fields {
            assert_eq!(parse(field.as_bytes()), Err(Malformed), "{field}");
        }
    }
}
