//! Requests and responses of several sizes.
#![allow(clippy::expect_used, clippy::panic)]

use bytes::{Bytes, BytesMut};
use http::Method;
use tidegate_codec::h1::ServerOptions;
use tidegate_codec::h1::parse::{HeadScan, parse_request};
use tidegate_types::RequestHead;

/// A health check's or `curl`'s request: 3 fields.
pub const SMALL: &str = "GET /items/1 HTTP/1.1\r\n\
    Host: bench.test\r\n\
    User-Agent: curl/8.5.0\r\n\
    Accept: */*\r\n\r\n";

/// A browser's or an API client's request: 8 fields.
pub const MEDIUM: &str = "GET /items/1?fields=name,price HTTP/1.1\r\n\
    Host: bench.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: http://bench.test/items?page=4\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Cache-Control: max-age=0\r\n\r\n";

/// The answer of the origins: 5 fields and [`BODY`].
pub const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 12\r\n\
    Cache-Control: no-store\r\n\
    ETag: \"0123456789abcdef\"\r\n\
    X-Origin: 1\r\n\r\nhello, world";

/// The body of every response here: what a client waits for.
pub const BODY: &str = "hello, world";

/// [`MEDIUM`] with 12 more fields, some with names that no table knows: 20 fields.
pub fn large() -> String {
    let more = (0..12).map(|n| format!("X-Trace-Baggage-{n}: key-{n}=value-{n};ttl=3600\r\n"));
    let head = MEDIUM.strip_suffix("\r\n").unwrap_or(MEDIUM);
    head.chars().chain(more.collect::<String>().chars()).chain("\r\n".chars()).collect()
}

/// A parsed request.
pub fn parsed(text: &str) -> RequestHead {
    let mut buf = BytesMut::from(text.as_bytes());
    let parsed = parse_request(&mut buf, &mut HeadScan::default(), &ServerOptions::default());
    *parsed.expect("a valid head").expect("a whole head").head
}

/// `GET path` for `host`, with the fields of [`MEDIUM`].
pub fn request_for(host: String, path: String) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, Bytes::from(host), Bytes::from(path));
    head.headers = parsed(MEDIUM).headers;
    head
}
