//! `envoy.filters.listener.http_inspector`: hears from the first line whether a plain client speaks HTTP, for
//! `application_protocols` of filter chains: `http/1.0`, `http/1.1` or `h2c`.
//!
//! `HttpInspector` has no fields in Envoy. Counters `http_inspector.`: `http10_found`, `http11_found`,
//! `http2_found`, `http_not_found`, `read_error` (no line end within 64 KiB).

use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::listener::MOST_BYTES;
use tidegate_filter::{Arrival, FactoryContext, ListenerFilter, ListenerFilterType, ListenerFlow};
use tidegate_stats::{Scope, stat_block};

/// The filter's type.
pub struct HttpInspector;

/// The configuration: nothing to configure.
#[derive(Debug, Deserialize)]
pub struct Config {}

stat_block! {
    /// What was heard.
    struct InspectorStats {
        counters {
            read_error,
            http10_found,
            http11_found,
            http2_found,
            http_not_found,
        }
    }
}

/// The statistics, which all workers share.
pub struct Inspector {
    stats: InspectorStats,
}

impl ListenerFilterType for HttpInspector {
    const NAME: &'static str = "envoy.filters.listener.http_inspector";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    type Config = Config;
    type Factory = Inspector;

    fn build(_: Config, cx: &FactoryContext<'_>) -> Result<Inspector, String> {
        Ok(Inspector { stats: InspectorStats::new(cx.stats, Scope::root().child("http_inspector")) })
    }

    fn open(factory: &Arc<Inspector>) -> Box<dyn ListenerFilter> {
        Box::new(Connection { inspector: factory.clone() })
    }
}

struct Connection {
    inspector: Arc<Inspector>,
}

impl ListenerFilter for Connection {
    fn inspect(&mut self, arrival: &mut Arrival, bytes: &[u8]) -> ListenerFlow {
        // What TLS hides cannot be heard, and ALPN has said it already.
        if arrival.transport_protocol.as_deref().is_some_and(|protocol| protocol != "raw_buffer") {
            return ListenerFlow::DONE;
        }
        let stats = &self.inspector.stats;
        let (protocol, count) = match heard(bytes) {
            Heard::Unclear if bytes.len() >= MOST_BYTES => {
                stats.read_error().inc();
                return ListenerFlow::Refuse;
            }
            Heard::Unclear => return ListenerFlow::NeedMore,
            Heard::Http2 => ("h2c", stats.http2_found()),
            Heard::Http11 => ("http/1.1", stats.http11_found()),
            Heard::Http10 => ("http/1.0", stats.http10_found()),
            Heard::Other => {
                stats.http_not_found().inc();
                return ListenerFlow::DONE;
            }
        };
        count.inc();
        arrival.application_protocols = vec![protocol.as_bytes().to_vec()];
        ListenerFlow::DONE
    }
}

/// What the first bytes sound like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Unclear,
    Http10,
    Http11,
    Http2,
    Other,
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Judges a first line as Envoy's parser does: generous with the method, strict about the rest. Measured on
/// Envoy 1.40.
fn heard(bytes: &[u8]) -> Heard {
    if bytes.starts_with(PREFACE) {
        return Heard::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Heard::Unclear;
    }
    // A method is a token (RFC 9110 §5.6.2), which ends at a blank: what cannot be one is known before the line's end.
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    match bytes.get(method) {
        None => return Heard::Unclear,
        Some(b' ' | b'\t') if method > 0 => {}
        Some(_) => return Heard::Other,
    }
    let rest = &bytes[method..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        let printable = |byte: &u8| (0x20..0x7f).contains(byte) || matches!(byte, b'\t' | b'\r');
        return if rest.iter().all(printable) { Heard::Unclear } else { Heard::Other };
    };
    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let Some(target) = words.next() else { return Heard::Other };
    if !target.iter().all(u8::is_ascii_graphic) {
        return Heard::Other;
    }
    match (words.next(), words.next()) {
        // HTTP/0.9 has no version.
        (None, _) => Heard::Http10,
        (Some(b"HTTP/1.1"), None) => Heard::Http11,
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Heard::Http10
        }
        _ => Heard::Other,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_heard_as_envoy_hears_them() {
        for (line, expected) in [
            (&b"POST / HTTP/1.1\r\n"[..], Heard::Http11),
            (b"GET / HTTP/1.1\n", Heard::Http11),
            (b" GET / HTTP/1.1\r\n", Heard::Other),
            (b"\r\nGET / HTTP/1.1\r\n", Heard::Other),
            (b"GET /\r\n", Heard::Http10),
            (b"GET / HTTP/0.9\r\n", Heard::Http10),
            (b"GET / HTTP/1.3\r\n", Heard::Http10),
            (b"GET / HTTP/1.1x\r\n", Heard::Other),
            (b"G@T / HTTP/1.1\r\n", Heard::Other),
            (b"GET  / HTTP/1.1\r\n", Heard::Http11),
            (b"GET\t/ HTTP/1.1\r\n", Heard::Http11),
            (b"GET / http/1.1\r\n", Heard::Other),
            (b"GET / HTTP/11\r\n", Heard::Other),
            (b"GET\r\n", Heard::Other),
            (b"GET http://a/ HTTP/1.1\r\n", Heard::Http11),
            (b"OPTIONS * HTTP/1.1\r\n", Heard::Http11),
            (b"PRI * HTTP/1.1\r\n\r\n", Heard::Http11),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Heard::Http10),
            (b"GET / HTTP/1.1\r", Heard::Unclear),
            (b"GET /\x80 HTTP/1.1\r\n", Heard::Other),
            (b"GET / HTTP/1.1 \r\n", Heard::Http11),
            (b"HTTP/1.1 200 OK\r\n", Heard::Other),
            (b"\x16\x03\x01\x00\x05", Heard::Other),
            (b"XYZZY", Heard::Unclear),
            (b"", Heard::Unclear),
            (PREFACE, Heard::Http2),
        ] {
            assert_eq!(heard(line), expected, "{}", line.escape_ascii());
            for end in 0..line.len() {
                let part = heard(&line[..end]);
                assert!(part == Heard::Unclear || part == expected, "{}", line[..end].escape_ascii());
            }
        }
    }
}
