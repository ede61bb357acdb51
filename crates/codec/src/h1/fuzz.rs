//! Entry points for fuzz targets: whatever the bytes, these neither panic nor contradict themselves.
//!
//! The unit tests call them with seeded mutations of valid messages.

use bytes::BytesMut;
use tidegate_types::{EndStream, RequestHead};

use super::body::{Decoder, Trailers};
use super::encode;
use super::options::{NameCase, ServerOptions};
use super::output::Output;
use super::parse::{HeadScan, Limits, parse_request, parse_response};
use super::rules::Asked;
use crate::stream::BodyFrame;

const LIMITS: Limits = Limits { bytes: 60 * 1024, fields: 100 };

/// What a message came to: the same however its bytes were cut.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// More bytes are needed.
    Incomplete,
    /// A rule is broken, as its `%RESPONSE_CODE_DETAILS%` says.
    Refused(&'static str),
    /// The head as text, the body, the trailers as text, and the bytes behind the message.
    Whole(String, Vec<u8>, String, usize),
}

/// Reads a request and its body; what is understood must survive serialising and reading again.
pub fn fuzz_request(bytes: &[u8]) {
    let options = ServerOptions::default();
    let mut buf = BytesMut::from(bytes);
    let Ok(Some(parsed)) = parse_request(&mut buf, &mut HeadScan::default(), &options) else { return };
    let end = EndStream::from_last(parsed.framing == super::rules::Framing::None);
    let again = reparse(&parsed.head, end);
    assert!(again.is_some_and(|again| same(&again, &parsed.head)), "lost on the way: {:?}", parsed.head);
    let mut decoder = Decoder::new(parsed.framing, LIMITS, Trailers::Keep);
    while let Ok(Some(_)) = decoder.decode(&mut buf) {}
}

/// Reads a response and its body.
pub fn fuzz_response(bytes: &[u8]) {
    for asked in [Asked::Ordinary, Asked::Head, Asked::Connect, Asked::Upgrade] {
        let mut buf = BytesMut::from(bytes);
        let Ok(Some(parsed)) = parse_response(&mut buf, &mut HeadScan::default(), LIMITS, asked, None) else {
            continue;
        };
        let mut decoder = Decoder::new(parsed.framing, LIMITS, Trailers::Keep);
        while let Ok(Some(_)) = decoder.decode(&mut buf) {}
    }
}

/// Reads a request that arrives in these pieces.
pub fn read_request(pieces: &[&[u8]]) -> Reading {
    let options = ServerOptions::default();
    let mut buf = BytesMut::new();
    let mut scan = HeadScan::default();
    let mut body: Option<(Decoder, String)> = None;
    let mut data = Vec::new();
    let mut trailers = String::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        if body.is_none() {
            match parse_request(&mut buf, &mut scan, &options) {
                Ok(None) => continue,
                Ok(Some(parsed)) => {
                    let decoder = Decoder::new(parsed.framing, LIMITS, Trailers::Keep);
                    body = Some((decoder, format!("{:?}", parsed.head)));
                }
                Err(refused) => return Reading::Refused(refused.violation.details()),
            }
        }
        let Some((decoder, _)) = &mut body else { continue };
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(BodyFrame::Data(chunk, _))) => data.extend_from_slice(&chunk),
                Ok(Some(BodyFrame::Trailers(map))) => trailers = format!("{map:?}"),
                Ok(None) => break,
                Err(violation) => return Reading::Refused(violation.details()),
            }
        }
    }
    match body {
        Some((decoder, head)) if decoder.is_done() || decoder.is_tunnel() => {
            Reading::Whole(head, data, trailers, buf.len())
        }
        _ => Reading::Incomplete,
    }
}

fn reparse(head: &RequestHead, end: EndStream) -> Option<RequestHead> {
    let mut output = Output::default();
    encode::request_head(&mut output, head, end, NameCase::Lower);
    let mut buf = std::mem::take(output.text(0));
    let options = ServerOptions { scheme: head.scheme, ..ServerOptions::default() };
    parse_request(&mut buf, &mut HeadScan::default(), &options).ok().flatten().map(|parsed| *parsed.head)
}

/// Equal, but for the length that a request without a body may gain.
fn same(one: &RequestHead, other: &RequestHead) -> bool {
    let fields = |head: &RequestHead| {
        let mut headers = head.headers.clone();
        headers.remove(http::header::CONTENT_LENGTH);
        headers
    };
    one.method == other.method
        && one.path == other.path
        && one.authority == other.authority
        && one.upgrade == other.upgrade
        && fields(one) == fields(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::h1::corpus::{ACCEPTED, BAD_CHUNKS, REFUSED};

    /// Bytes that matter to HTTP come up more often than others.
    fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
        const TELLING: &[u8] = b"\r\n\t\0 :;,/?#*@0159afxX\x7f\x80\xff\"-+";
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..=bytes.len());
            let byte = if random.bool() { random.u8(..) } else { TELLING[random.usize(0..TELLING.len())] };
            match random.u8(0..4) {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = byte,
                3 => bytes.truncate(at.max(8)),
                _ => {}
            }
        }
    }

    #[test]
    fn mutated_messages_never_panic_and_read_the_same_in_any_pieces() {
        let mut random = fastrand::Rng::with_seed(7);
        let requests: Vec<&str> =
            ACCEPTED.iter().copied().chain(REFUSED.iter().map(|(text, ..)| *text)).collect();
        for _ in 0..20_000 {
            let mut bytes = requests[random.usize(0..requests.len())].as_bytes().to_vec();
            mutate(&mut random, &mut bytes);
            fuzz_request(&bytes);
            fuzz_response(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat());
            let cut = random.usize(0..=bytes.len());
            let (one, other) = bytes.split_at(cut);
            let pieces = read_request(&[one, other]);
            let whole = read_request(&[&bytes]);
            let both_refused = matches!((&pieces, &whole), (Reading::Refused(_), Reading::Refused(_)));
            assert!(
                both_refused || pieces == whole,
                "{:?}: {pieces:?} {whole:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }

    #[test]
    fn every_message_reads_the_same_byte_by_byte_and_cut_anywhere() {
        for text in ACCEPTED {
            let whole = read_request(&[text.as_bytes()]);
            assert!(matches!(whole, Reading::Whole(_, _, _, 0)), "{text:?}: {whole:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read_request(&bytes), whole, "{text:?}");
            for cut in 1..text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(read_request(&[one, other]), whole, "{text:?} at {cut}");
                assert!(matches!(read_request(&[one]), Reading::Incomplete | Reading::Whole(..)), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_refused_whole_is_refused_in_pieces() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = BAD_CHUNKS.iter().map(|body| [head, body].concat());
        for text in REFUSED.iter().map(|(text, ..)| (*text).to_owned()).chain(chunks) {
            assert!(matches!(read_request(&[text.as_bytes()]), Reading::Refused(_)), "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert!(matches!(read_request(&bytes), Reading::Refused(_)), "{text:?}");
        }
    }

    #[test]
    fn accepted_requests_survive_serialising() {
        ACCEPTED.iter().for_each(|text| fuzz_request(text.as_bytes()));
    }
}
