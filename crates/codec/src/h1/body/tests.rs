#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::h1::corpus::BAD_CHUNKS;

const LIMITS: Limits = Limits { bytes: 1000, fields: 10 };

fn chunked() -> Decoder {
    Decoder::new(Framing::Chunked, LIMITS, Trailers::Keep)
}

fn all(decoder: &mut Decoder, text: &str) -> Result<(String, bool), Violation> {
    let mut buf = BytesMut::from(text);
    let mut data = Vec::new();
    while let Some(frame) = decoder.decode(&mut buf)? {
        if let BodyFrame::Data(chunk, _) = frame {
            data.extend_from_slice(&chunk);
        }
    }
    Ok((String::from_utf8(data).unwrap(), decoder.is_done()))
}

#[test]
fn bad_chunks_are_refused() {
    for text in BAD_CHUNKS {
        let mut decoder = chunked();
        assert!(all(&mut decoder, text).is_err(), "{text:?}");
        assert!(all(&mut decoder, "0\r\n\r\n").is_err(), "{text:?} did not stay refused");
    }
}

#[test]
fn a_length_takes_its_bytes_and_no_more() {
    let mut decoder = Decoder::new(Framing::Length(4), LIMITS, Trailers::Keep);
    let mut buf = BytesMut::from("ab");
    assert!(
        matches!(decoder.decode(&mut buf), Ok(Some(BodyFrame::Data(data, EndStream::No))) if data == "ab")
    );
    assert!(matches!(decoder.decode(&mut buf), Ok(None)));
    buf.extend_from_slice(b"cdef");
    assert!(decoder.needs_at_most(2) && !decoder.needs_at_most(1));
    assert!(
        matches!(decoder.decode(&mut buf), Ok(Some(BodyFrame::Data(data, EndStream::Yes))) if data == "cd")
    );
    assert_eq!(buf, "ef");
    assert!(decoder.is_done());
}

#[test]
fn the_end_that_is_here_comes_with_the_last_data() {
    let mut buf = BytesMut::from("3\r\nabc\r\n0\r\n\r\nnext");
    let mut decoder = chunked();
    assert!(
        matches!(decoder.decode(&mut buf), Ok(Some(BodyFrame::Data(data, EndStream::Yes))) if data == "abc")
    );
    assert_eq!(buf, "next");
}

#[test]
fn trailers_are_bounded_and_cannot_frame() {
    let mut buf = BytesMut::from("0\r\nContent-Length: 5\r\nX-T: 1\r\nHost: b\r\n\r\n");
    let Ok(Some(BodyFrame::Trailers(trailers))) = chunked().decode(&mut buf) else { panic!("no trailers") };
    assert_eq!((trailers.len(), &trailers["x-t"]), (1, &http::HeaderValue::from_static("1")));
    assert_eq!(
        all(&mut chunked(), &format!("0\r\n{}", "A: b\r\n".repeat(11))),
        Err(Violation::TooManyFields)
    );
    assert_eq!(all(&mut chunked(), &format!("0\r\nA: {}", "b".repeat(1000))), Err(Violation::HeadTooLarge));
}

#[test]
fn extensions_and_size_lines_are_bounded() {
    let line = format!("1;{}\r\na\r\n", "x".repeat(1000));
    assert_eq!(all(&mut chunked(), &line.repeat(20)), Ok(("a".repeat(20), false)));
    assert_eq!(all(&mut chunked(), &line.repeat(40)), Err(Violation::Chunk));
    assert_eq!(all(&mut chunked(), &"0".repeat(20_000)), Err(Violation::Chunk));
}

#[test]
fn the_end_of_the_connection_ends_only_what_it_may() {
    let mut until_close = Decoder::new(Framing::UntilClose, LIMITS, Trailers::Keep);
    assert_eq!(all(&mut until_close, "abc"), Ok(("abc".into(), false)));
    assert!(until_close.at_eof().is_ok() && until_close.is_done());
    assert!(chunked().at_eof().is_err());
    assert!(Decoder::new(Framing::Length(1), LIMITS, Trailers::Keep).at_eof().is_err());
}
