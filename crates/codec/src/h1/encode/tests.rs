#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Buf;
use http::HeaderValue;

use super::*;

fn text(output: &mut Output) -> String {
    let text = std::mem::take(output.text(0));
    String::from_utf8(text.chunk().to_vec()).unwrap()
}

#[test]
fn chunk_sizes_are_hex() {
    for size in [1, 9, 10, 15, 16, 255, 4096, 65_536, usize::MAX] {
        let mut text = BytesMut::new();
        chunk_size(&mut text, size);
        assert_eq!(text, format!("{size:x}\r\n"));
    }
}

#[test]
fn names_take_the_case_asked_for() {
    let mut head = RequestHead::new(Method::GET, "a", "/");
    head.headers.insert("x-rEQUEST-iD2z", HeaderValue::from_static("v"));
    let mut output = Output::default();
    request_head(&mut output, &head, EndStream::Yes, NameCase::Proper);
    assert_eq!(text(&mut output), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id2z: v\r\n\r\n");
}

#[test]
fn written_names_come_before_the_connections_case() {
    let mut head = RequestHead::new(Method::POST, "a", "/");
    head.headers.insert("x-added", HeaderValue::from_static("v"));
    for (others, added) in [(OtherNames::Lower, "x-added"), (OtherNames::Proper, "X-Added")] {
        let mut names = WrittenNames::new(others);
        names.note("HOST".into());
        names.note("Transfer-ENCODING".into());
        head.names = Some(Box::new(names));
        let mut output = Output::default();
        let mut encoder = request_head(&mut output, &head, EndStream::No, NameCase::Proper);
        let expected =
            format!("POST / HTTP/1.1\r\nHOST: a\r\n{added}: v\r\nTransfer-ENCODING: chunked\r\n\r\n");
        assert_eq!(text(&mut output), expected);
        // Trailers are in lower case for Envoy, always.
        encoder.trailers(&mut output, &head.headers, Trailers::Keep);
        assert_eq!(text(&mut output), "0\r\nx-added: v\r\n\r\n");
    }
}

#[test]
fn a_reason_phrase_that_was_kept_is_the_one_written() {
    let mut head = ResponseHead::new(StatusCode::OK);
    let mut names = WrittenNames::new(OtherNames::Lower);
    names.reason = "Okey Dokey".into();
    head.names = Some(Box::new(names));
    let mut output = Output::default();
    informational_head(&mut output, &head, NameCase::Lower);
    assert_eq!(text(&mut output), "HTTP/1.1 200 Okey Dokey\r\n\r\n");
}

#[test]
fn the_callers_framing_fields_do_not_reach_the_wire() {
    let mut head = RequestHead::new(Method::POST, "a", "/");
    for (name, value) in [
        ("transfer-encoding", "gzip"),
        ("content-length", "1,2"),
        ("connection", "x"),
        ("upgrade", "y"),
        ("keep-alive", "z"),
        ("host", "b"),
        ("proxy-connection", "c"),
    ] {
        head.headers.append(name, HeaderValue::from_static(value));
    }
    let mut output = Output::default();
    let encoder = request_head(&mut output, &head, EndStream::No, NameCase::Lower);
    assert_eq!(encoder, Encoder::Chunked);
    assert_eq!(text(&mut output), "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");

    head.headers.append("content-length", HeaderValue::from_static("3"));
    head.headers.append("content-length", HeaderValue::from_static("4"));
    let encoder = request_head(&mut output, &head, EndStream::No, NameCase::Lower);
    assert_eq!(encoder, Encoder::Length(3));
    assert_eq!(text(&mut output), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
}

#[test]
fn a_large_chunk_goes_out_by_reference_between_its_frame() {
    let mut output = Output::default();
    let mut encoder = Encoder::Chunked;
    let data = Bytes::from(vec![b'x'; 20_000]);
    encoder.data(&mut output, data.clone(), EndStream::Yes);
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let count = output.gather(&mut slices);
    assert_eq!(count, 3);
    assert_eq!(
        (&slices[0][..], slices[1].as_ptr(), &slices[2][..]),
        (&b"4e20\r\n"[..], data.as_ptr(), &b"\r\n0\r\n\r\n"[..])
    );
    assert!(encoder.is_done());
}
