//! What breaks a rule, byte by byte: the code and Envoy's reason that follow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::borrow::Cow;
use std::task::{Context, Waker};

use http::StatusCode;
use tidegate_quic::Side;
use tidegate_types::EndStream;

use super::options::Options;
use super::testing::*;
use super::{ClientOptions, ServerOptions};
use crate::fields::{MessageOptions, Underscores};
use crate::multiplex::{ClientConnection, ClientDrive, ClientEvent, ConnError, Event, ServerConnection};
use crate::stream::{ClientEnd, ClientStream, HeadError, ResetCode, ServerStream, StreamError};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

const GET: Fields<'static> =
    &[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"host"), (b":path", b"/")];

/// Whose end, what comes in unidirectional streams, and the code and reason that follow.
type Case<'a> = (&'a [Side], &'a [&'a [u8]], u64, &'a str);

/// The code of the connection's close, those of STOP_SENDING and RESET_STREAM, and the details.
type Judged = (Option<u64>, (Option<u64>, Option<u64>), Option<&'static str>);

/// A control stream that begins as it must.
const CONTROL: &[u8] = b"\x00\x04\x00";

/// How a server closes when `bytes` come in a request, or after their end.
fn on_request(bytes: &[u8], ends: bool) -> Option<(Option<u64>, String)> {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    let id = request_id(0);
    if ends {
        script.send_all(id, bytes)
    } else {
        script.send(id, bytes)
    }
    let (mut exchanges, _) = accept_all(&mut conn);
    for exchange in &mut exchanges {
        let _ = now(|cx| exchange.poll_head(cx));
        while let Some(Ok(frame)) = now(|cx| exchange.poll_body(cx)) {
            if !matches!(frame, crate::stream::BodyFrame::Data(_, EndStream::No)) {
                break;
            }
        }
    }
    script.closed()
}

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// What a client sends on a request stream, whether it ends it then, the code of the close, and its reason.
type Bad = (Vec<u8>, bool, u64, &'static str);

/// Such bytes close the connection so, however they are cut.
fn assert_closed(cases: &[Bad]) {
    for (bytes, ends, code, reason) in cases {
        assert_eq!(on_request(bytes, *ends), Some((Some(*code), (*reason).to_owned())), "{bytes:x?}");
        // It makes no difference how it is cut.
        if bytes.len() < 100 {
            let (script, mut conn, _) = Script::server(ServerOptions::default());
            let mut exchanges = Vec::new();
            for byte in bytes {
                script.send(request_id(0), [*byte]);
                exchanges.extend(accept_all(&mut conn).0);
                for exchange in &mut exchanges {
                    let _ = now(|cx| exchange.poll_head(cx));
                    let _ = now(|cx| exchange.poll_body(cx));
                }
            }
            if *ends {
                script.send_all(request_id(0), b"");
                exchanges.extend(accept_all(&mut conn).0);
                for exchange in &mut exchanges {
                    let _ = now(|cx| exchange.poll_body(cx));
                }
            }
            assert_eq!(script.closed(), Some((Some(*code), (*reason).to_owned())), "{bytes:x?}");
        }
    }
}

#[test]
fn frames_that_end_or_follow_each_other_wrongly() {
    let (get, trailers, data) = (headers(GET), headers(&[(b"x", b"y")]), frame(0, b"abc"));
    assert_closed(&[
        (data.clone(), false, 0x105, "151:Unexpected DATA frame received."),
        (concat(&[&get, &trailers, &data]), false, 0x105, "151:Unexpected DATA frame received."),
        (
            concat(&[&get, &trailers, &trailers]),
            false,
            0x105,
            "151:HEADERS frame received after trailing HEADERS.",
        ),
        (vec![], true, 0x105, "151:Received FIN before finishing receiving HTTP headers."),
        (get[..5].to_vec(), true, 0x105, "151:Received FIN before finishing receiving HTTP headers."),
        (get[..1].to_vec(), true, 0x105, "151:Received FIN before finishing receiving HTTP headers."),
        (concat(&[&get, &data[..4]]), true, 0x106, "132:Received FIN in the middle of a frame."),
        (concat(&[&get, &data[..1]]), true, 0x106, "132:Received FIN in the middle of a frame."),
        (
            concat(&[&get, &frame(0x21, b"abc")[..3]]),
            true,
            0x106,
            "132:Received FIN in the middle of a frame.",
        ),
    ]);
}

#[test]
fn frames_that_have_no_place_on_request_streams() {
    let get = headers(GET);
    assert_closed(&[
        (frame(4, b""), false, 0x105, "133:Settings frame received on data stream"),
        (concat(&[&get, &frame(7, b"\x00")]), false, 0x105, "133:Goaway frame received on data stream"),
        (frame(0xd, b"\x00"), false, 0x105, "133:Max Push Id frame received on data stream"),
        (frame(0xf0700, b"\x00"), false, 0x105, "133:Priority update frame received on data stream"),
        (frame(5, b"\x00"), false, 0x106, "132:PUSH_PROMISE frame received."),
        (frame(3, b"\x00"), false, 0x106, "132:CANCEL_PUSH frame received."),
        (frame(2, b""), false, 0x105, "171:HTTP/2 frame received in a HTTP/3 connection: 2"),
        (
            concat(&[&get, &frame(6, b"12345678")]),
            false,
            0x105,
            "171:HTTP/2 frame received in a HTTP/3 connection: 6",
        ),
        (frame(8, b""), false, 0x105, "171:HTTP/2 frame received in a HTTP/3 connection: 8"),
        (frame(9, b""), false, 0x105, "171:HTTP/2 frame received in a HTTP/3 connection: 9"),
    ]);
}

#[test]
fn sections_that_cannot_be_read_and_frames_without_content() {
    assert_closed(&[
        (
            frame(1, b""),
            false,
            0x200,
            "126:Error decoding headers on stream 0: Incomplete header data prefix.",
        ),
        (
            frame(1, b"\x00\x00\xff\x24"),
            false,
            0x200,
            "126:Error decoding headers on stream 0: Static table entry not found.",
        ),
        (
            frame(1, b"\x00\x00\x51\x0b/ind"),
            false,
            0x200,
            "126:Error decoding headers on stream 0: Incomplete header block.",
        ),
        (
            frame(1, b"\x00\x00\x80"),
            false,
            0x200,
            "126:Error decoding headers on stream 0: Dynamic table entry not found.",
        ),
        (frame(1, b"\x00\x00"), false, 0x106, "132:http3.invalid_header_field"),
        (frame(0x21, b"").repeat(1001), false, 0x107, "132:Too many frames without content"),
    ]);
}

#[test]
fn frames_that_do_no_harm() {
    let (get, trailers, data) = (headers(GET), headers(&[(b"x", b"y")]), frame(0, b"abc"));
    for harmless in [
        concat(&[&frame(0x21, vec![0; 100_000]), &get, &frame(0x40, b"x"), &data, &frame(0, b""), &trailers]),
        concat(&[&get, &data, &trailers, &frame(0x21, b"x")]),
        frame(0, b"x")[..1].to_vec(),
        frame(0x21, b"").repeat(1000),
    ] {
        let ends = harmless.len() > 4 && harmless.len() != 2000;
        assert_eq!(on_request(&harmless, ends), None);
    }
}

/// How a server or a client closes when these unidirectional streams come.
fn on_uni(side: Side, streams: &[&[u8]]) -> Option<(Option<u64>, String)> {
    if side == Side::Server {
        let (script, mut conn, _) = Script::server(ServerOptions::default());
        for (index, bytes) in streams.iter().enumerate() {
            script.send(uni_id(Side::Client, index as u64), bytes);
        }
        let _ = accept_all(&mut conn);
        return script.closed();
    }
    let (script, _conn, mut driver) = Script::client(ClientOptions::default());
    for (index, bytes) in streams.iter().enumerate() {
        script.send(uni_id(Side::Server, index as u64), bytes);
    }
    let _ = events(&mut driver);
    script.closed()
}

const BOTH: [Side; 2] = [Side::Server, Side::Client];

/// A control stream with these frames behind its SETTINGS.
fn after(frames: &[u8]) -> Vec<u8> {
    concat(&[CONTROL, frames])
}

/// Such streams close the connection so.
fn assert_closed_beside(cases: &[Case<'_>]) {
    for (sides, streams, code, reason) in cases {
        for side in *sides {
            let expected = Some((Some(*code), (*reason).to_owned()));
            assert_eq!(on_uni(*side, streams), expected, "{side:?} {streams:x?}");
        }
    }
}

#[test]
fn streams_of_which_there_is_one_or_none() {
    assert_closed_beside(&[
        (&BOTH, &[CONTROL, CONTROL], 0x103, "153:Control stream is received twice."),
        (&BOTH, &[b"\x02", b"\x02"], 0x103, "153:QPACK encoder stream is received twice."),
        (&BOTH, &[b"\x03", b"\x03"], 0x103, "153:QPACK decoder stream is received twice."),
        (&[Side::Server], &[b"\x01"], 0x101, "205:Received server push stream"),
        (&[Side::Client], &[b"\x01"], 0x108, "205:Received server push stream"),
    ]);
}

#[test]
fn frames_on_the_control_stream() {
    assert_closed_beside(&[
        (
            &BOTH,
            &[b"\x00\x07\x01\x00"],
            0x10a,
            "157:First frame received on control stream is type 7, but it must be SETTINGS.",
        ),
        (
            &BOTH,
            &[b"\x00\x21\x00"],
            0x10a,
            "157:First frame received on control stream is type 33, but it must be SETTINGS.",
        ),
        (&BOTH, &[&after(b"\x04\x00")], 0x105, "152:SETTINGS frame can only be received once."),
        (&BOTH, &[&after(b"\x00\x00")], 0x105, "134:Invalid frame type 0 received on control stream."),
        (&BOTH, &[&after(b"\x01\x00")], 0x105, "134:Invalid frame type 1 received on control stream."),
        (&BOTH, &[&after(b"\x05\x01\x00")], 0x106, "132:PUSH_PROMISE frame received."),
        (&[Side::Server], &[&after(b"\x03\x01\x00")], 0x106, "132:CANCEL_PUSH frame received."),
        (&[Side::Client], &[&after(b"\x03\x01\x00")], 0x108, "205:Received server push stream"),
        (
            &[Side::Client],
            &[&after(b"\x0d\x01\x00")],
            0x105,
            "134:Invalid frame type 13 received on control stream.",
        ),
        (
            &[Side::Server],
            &[&after(b"\x0d\x01\x05\x0d\x01\x04")],
            0x108,
            "132:MAX_PUSH_ID received with a lower push ID",
        ),
        (&BOTH, &[&after(b"\x06\x00")], 0x105, "171:HTTP/2 frame received in a HTTP/3 connection: 6"),
    ]);
}

#[test]
fn farewells_that_make_no_sense() {
    assert_closed_beside(&[
        (
            &BOTH,
            &[&after(b"\x07\x01\x04\x07\x01\x08")],
            0x108,
            "167:GOAWAY received with ID 8 greater than previously received ID 4",
        ),
        (&[Side::Client], &[&after(b"\x07\x01\x05")], 0x108, "166:GOAWAY with invalid stream ID"),
        (&BOTH, &[&after(b"\x07\x02\x04\x04")], 0x106, "132:Superfluous data in GOAWAY frame."),
        (
            &BOTH,
            &[&after(b"\x07\x09\x04\x04\x04\x04\x04\x04\x04\x04\x04")],
            0x106,
            "132:Superfluous data in GOAWAY frame.",
        ),
        (&BOTH, &[&after(b"\x07\x00")], 0x106, "132:Unable to read GOAWAY ID."),
    ]);
}

#[test]
fn settings_that_are_refused() {
    assert_closed_beside(&[
        (
            &BOTH,
            &[b"\x00\x04\x02\x02\x00"],
            0x109,
            "169:received HTTP/2 specific setting in HTTP/3 session: 2",
        ),
        (&BOTH, &[b"\x00\x04\x04\x06\x01\x06\x01"], 0x109, "158:Duplicate setting identifier."),
        (&BOTH, &[b"\x00\x04\x01\x06"], 0x106, "132:Unable to read setting value."),
        (
            &BOTH,
            &[b"\x00\x04\x02\x08\x02"],
            0x109,
            "207:Received SETTINGS_ENABLE_CONNECT_PROTOCOL with invalid value 2",
        ),
        (&BOTH, &[b"\x00\x04\x80\x01\x00\x00"], 0x107, "132:Too many frames without content"),
    ]);
}

#[test]
fn streams_of_qpack_that_cannot_be_read() {
    assert_closed_beside(&[
        (
            &BOTH,
            &[b"\x02\x3f\xe2\xff\x03"],
            0x201,
            "185:Encoder stream error: Error updating dynamic table capacity.",
        ),
        (
            &BOTH,
            &[b"\x02\xc0\x01x"],
            0x201,
            "178:Encoder stream error: Error inserting entry with name reference.",
        ),
        (
            &BOTH,
            &[b"\x03\x80"],
            0x202,
            "190:Decoder stream error: Header Acknowledgement received for stream 0 with no outstanding header blocks.",
        ),
        (&BOTH, &[b"\x03\x00"], 0x202, "187:Decoder stream error: Invalid increment value 0."),
        (
            &BOTH,
            &[b"\x03\x01"],
            0x202,
            "189:Decoder stream error: Increment value 1 raises known received count to 1 exceeding inserted entry count 0",
        ),
    ]);
}

#[test]
fn streams_beside_the_requests_that_do_no_harm() {
    let large = [&b"\x21\x80\x01\x00\x00"[..], &[0; 65536]].concat();
    for harmless in [
        &[&b""[..]][..],
        &[CONTROL, b"\x02\x20", b"\x03\x40"],
        &[&after(&large)],
        &[&after(b"\x80\x0f\x07\x00\x01\x00\x21\x00\x07\x01\x04\x07\x01\x04")],
        &[b"\x54", b"\x40", b"\x21abcdef"],
        &[b"\x00\x04\x09\x06\x01\x07\x00\x01\x00\x4a\x0a\x00\x21\x00"],
    ] {
        assert_eq!(on_uni(Side::Server, harmless), None, "{harmless:x?}");
        assert_eq!(on_uni(Side::Client, harmless), None, "{harmless:x?}");
    }
}

#[test]
fn unknown_streams_are_stopped_and_known_ones_may_not_end() {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.send(uni_id(Side::Client, 0), b"\x21abc");
    script.send_all(uni_id(Side::Client, 1), b"\x40");
    let _ = accept_all(&mut conn);
    assert_eq!((script.given_up(uni_id(Side::Client, 0)), script.closed()), ((Some(0x103), None), None));
    for (bytes, reset) in
        [(CONTROL, false), (b"\x02", false), (b"\x03", false), (CONTROL, true), (b"\x02", true)]
    {
        let (script, mut conn, _) = Script::server(ServerOptions::default());
        let id = uni_id(Side::Client, 0);
        script.send(id, bytes);
        let _ = accept_all(&mut conn);
        if reset {
            script.reset(id, 0x100)
        } else {
            script.send_all(id, b"")
        }
        let (_, ended) = accept_all(&mut conn);
        assert!(matches!(ended, Some(Some(ConnError::Violation(ResetCode::Protocol)))), "{ended:?}");
        assert_eq!(script.closed().unwrap().0, Some(0x104));
    }
    // Nor may ours be refused.
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    let _ = accept_all(&mut conn);
    script.stop(uni_id(Side::Server, 0), 0x100);
    let _ = accept_all(&mut conn);
    assert_eq!(script.closed().unwrap().0, Some(0x104));
    // A server opens no streams for requests.
    let (script, _conn, mut driver) = Script::client(ClientOptions::default());
    script.send(tidegate_quic::StreamId::new(Side::Server, tidegate_quic::Dir::Bi, 0), b"");
    let _ = events(&mut driver);
    assert_eq!(script.closed().unwrap().0, Some(0x103));
}

/// What becomes of a request with these fields.
fn judged(options: Options, fields: Fields<'_>) -> Judged {
    let (script, mut conn, _) = Script::server(ServerOptions { common: options, ..ServerOptions::default() });
    script.send_all(request_id(0), headers(fields));
    let (mut exchanges, _) = accept_all(&mut conn);
    let details = match now(|cx| exchanges[0].poll_head(cx)).unwrap() {
        Ok(_) => None,
        Err(HeadError::Malformed { details, is_violation: true }) => Some(details),
        Err(HeadError::Refused {
            status: StatusCode::BAD_REQUEST, details: Cow::Borrowed(details), ..
        }) => Some(details),
        Err(error) => panic!("{error:?}"),
    };
    (script.closed().and_then(|closed| closed.0), script.given_up(request_id(0)), details)
}

fn with<'a>(more: &[(&'a [u8], &'a [u8])]) -> Vec<(&'a [u8], &'a [u8])> {
    let mut fields: Vec<(&'a [u8], &'a [u8])> = GET.to_vec();
    fields.extend_from_slice(more);
    fields
}

#[test]
fn malformed_requests() {
    const INVALID: Option<&str> = Some("http3.invalid_header_field");
    let lenient = || {
        Options::from(MessageOptions {
            override_stream_error_on_invalid_http_message: true,
            ..MessageOptions::default()
        })
    };
    let closes: &[Vec<(&[u8], &[u8])>] = &[
        GET[1..].to_vec(),
        [&GET[..1], &GET[2..]].concat(),
        [&GET[..2], &GET[3..]].concat(),
        GET[..3].to_vec(),
        [&GET[..2], &GET[3..], &[(b"host", b"host")]].concat(),
        with(&[(b"host", b"other")]),
        with(&[(b"connection", b"close")]),
        with(&[(b"transfer-encoding", b"chunked")]),
        with(&[(b"te", b"gzip")]),
        with(&[(b"X-Upper", b"a")]),
        with(&[(b"a b", b"a")]),
        with(&[(b"x", b"a\nb")]),
        with(&[(b"content-length", b"abc")]),
        [GET, &[(b":protocol", b"websocket")]].concat(),
    ];
    for fields in closes {
        assert_eq!(judged(Options::default(), fields), (Some(0x106), (None, None), INVALID), "{fields:x?}");
        assert_eq!(judged(lenient(), fields), (None, (Some(0x101), Some(0x101)), INVALID), "{fields:x?}");
    }
    let misplaced: &[Vec<(&[u8], &[u8])>] =
        &[with(&[(b":path", b"/")]), [&GET[..3], &[(b"x", b"y")], &GET[3..]].concat()];
    for fields in misplaced {
        assert_eq!(
            judged(Options::default(), fields),
            (None, (Some(0x101), Some(0x101)), INVALID),
            "{fields:x?}"
        );
    }
    let length = with(&[(b"content-length", b"1")]);
    assert_eq!(judged(Options::default(), &length).2, Some("http3.inconsistent_content_length"));
    assert_eq!(judged(Options::default(), &with(&[(b"x", b"\xe9")])).0, Some(0x106));
    let twice = [&GET[..1], GET].concat();
    assert_eq!(judged(Options::default(), &twice), (None, (Some(0x100), Some(0x100)), INVALID));
    let nameless = [&[(&b":method"[..], &b""[..])], &GET[1..]].concat();
    assert_eq!(
        judged(Options::default(), &nameless),
        (None, (None, None), Some("http.invalid_method")),
        "is answered"
    );
    let worse = [&nameless[..], &[(b"X-Upper", b"a")]].concat();
    assert_eq!(judged(Options::default(), &worse), (Some(0x106), (None, None), INVALID));
    let worse = with(&[(b":path", b"/"), (b"X-Upper", b"a")]);
    assert_eq!(
        judged(Options::default(), &worse),
        (Some(0x106), (None, None), INVALID),
        "a field that must not be outweighs one that is misplaced"
    );
    let path = [&GET[..3], &[(&b":path"[..], &b"*"[..])]].concat();
    assert_eq!(judged(Options::default(), &path), (None, (Some(0x100), Some(0x100)), INVALID));
    let many = with(&[(&b"x"[..], &b"y"[..]); 97]);
    assert_eq!(judged(Options::default(), &many).2, Some("http3.too_many_headers"));
    assert_eq!(judged(Options::default(), &many).1, (Some(0x107), Some(0x107)));
    let large = vec![b'v'; 62_000];
    let large = with(&[(b"x", &large)]);
    assert_eq!(
        judged(Options::default(), &large),
        (None, (Some(0x107), Some(0x107)), Some("http3.headers_too_large"))
    );
    let huge = vec![b'v'; 200_000];
    let huge = with(&[(b"x", &huge)]);
    let (closed, (stopped, reset), details) = judged(Options::default(), &huge);
    assert_eq!((closed, stopped, reset), (None, Some(0x107), Some(0x107)), "without reading it");
    assert_eq!(details, Some("http3.headers_too_large"));
    let underscore =
        Options::from(MessageOptions { underscores: Underscores::Reject, ..MessageOptions::default() });
    let fields = with(&[(b"x_y", b"z")]);
    assert_eq!(
        judged(underscore, &fields),
        (None, (Some(0x101), Some(0x101)), Some("http3.unexpected_underscore"))
    );
    assert_eq!(
        judged(Options::default(), &[&GET[..2], &[(b":authority", b"")], &GET[3..]].concat()),
        (None, (None, None), None),
        "an authority without a name"
    );
    assert_eq!(
        judged(Options::default(), &with(&[(b"host", b"host"), (b"te", b"trailers")])),
        (None, (None, None), None)
    );
}

#[test]
fn bodies_and_trailers_that_break_a_rule() {
    let post = with(&[(b"content-length", b"5")]);
    for (body, options) in [
        (frame(0, b"abcd"), Options::default()),
        (frame(0, b"abcdef"), Options::default()),
        (concat(&[&frame(0, b"abcd"), &headers(&[(b"x", b"y")])]), Options::default()),
    ] {
        let (script, mut conn, _) =
            Script::server(ServerOptions { common: options, ..ServerOptions::default() });
        script.send(request_id(0), headers(&post));
        let (mut exchanges, _) = accept_all(&mut conn);
        let exchange = &mut exchanges[0];
        assert!(matches!(now(|cx| exchange.poll_head(cx)), Some(Ok((_, EndStream::No)))));
        script.send_all(request_id(0), body);
        let _ = accept_all(&mut conn);
        let error = loop {
            match now(|cx| exchange.poll_body(cx)).unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let details = "http3.inconsistent_content_length";
        assert!(matches!(error, StreamError::Protocol { details: told } if told == details), "{error}");
        assert_eq!(exchange.ended_by_client(), Some(ClientEnd::Malformed { details, is_violation: true }));
        assert_eq!((script.given_up(request_id(0)).1, script.closed()), (Some(0x101), None));
    }
    for (trailers, code, details) in [
        (headers(&[(b":path", b"/")]), Err(0x106), None),
        (headers(&[(b"Upper", b"x")]), Err(0x106), None),
        (headers(&[(b"connection", b"x")]), Err(0x106), Some("http3.invalid_header_field")),
        (headers(&[(&b"x"[..], &b"y"[..]); 101]), Ok(0x107), Some("http3.too_many_trailers")),
    ] {
        let (script, mut conn, _) = Script::server(ServerOptions::default());
        script.send(request_id(0), headers(GET));
        let (mut exchanges, _) = accept_all(&mut conn);
        let _ = now(|cx| exchanges[0].poll_head(cx)).unwrap().unwrap();
        script.send_all(request_id(0), trailers);
        let _ = accept_all(&mut conn);
        let error = now(|cx| exchanges[0].poll_body(cx)).unwrap().unwrap_err();
        match (error, details) {
            (StreamError::Protocol { details: told }, Some(details)) => assert_eq!(told, details),
            (error, details) => assert!(matches!(error, StreamError::Closed) && details.is_none(), "{error}"),
        }
        let told = match script.closed() {
            Some((Some(closed), _)) => Err(closed),
            _ => Ok(script.given_up(request_id(0)).1.unwrap()),
        };
        assert_eq!(told, code);
    }
}

#[test]
fn responses_that_break_a_rule() {
    for (bytes, code, closes) in [
        (headers(&[(b"x", b"y")]), 0x106, true),
        (headers(&[(b":status", b"101")]), 0x106, true),
        (headers(&[(b":status", b"200"), (b"connection", b"close")]), 0x106, true),
        (frame(0, b"x"), 0x105, true),
        (frame(5, b"x"), 0x106, true),
        (vec![], 0x105, true),
        (response(103), 0x105, true),
        (headers(&[(b":status", b"200"), (b"x", b"\xe9")]), 0x106, true),
        (headers(&[(b":status", b"200"), (b":path", b"/")]), 0x106, true),
        (headers(&[(b":status", b"200"), (b":status", b"200"), (b"X", b"")]), 0x106, true),
        (headers(&[(b"x", b"y"), (b":status", b"200")]), 0x101, false),
        (headers(&[(b":status", b"200"), (b"content-length", b"1")]), 0x101, false),
        (response(103).repeat(40), 0x107, false),
    ] {
        let (script, conn, mut driver) = Script::client(ClientOptions::default());
        script.push(tidegate_quic::Event::Connected);
        let _ = events(&mut driver);
        let mut exchange = conn.open();
        exchange.send_head(&get(), EndStream::Yes);
        let _ = events(&mut driver);
        script.send_all(request_id(0), bytes.clone());
        let ended = events(&mut driver);
        let mut cx = Context::from_waker(Waker::noop());
        let error = loop {
            match exchange.poll_head(&mut cx) {
                std::task::Poll::Ready(Ok(_)) => {}
                std::task::Poll::Ready(Err(error)) => break error,
                std::task::Poll::Pending => panic!("{bytes:x?}"),
            }
        };
        if closes {
            assert_eq!(script.closed().unwrap().0, Some(code), "{bytes:x?}");
            let error = match ended.last() {
                Some(ClientEvent::Closed(Err(error))) => error,
                other => panic!("{bytes:x?} {other:?}"),
            };
            assert!(matches!(error, ConnError::Violation(_) | ConnError::Malformed), "{bytes:x?} {error}");
        } else {
            assert!(matches!(error, StreamError::Protocol { .. }), "{bytes:x?} {error}");
            // The request was complete: there is nothing to reset, and nothing more to stop.
            assert_eq!((script.closed(), driver.streams()), (None, 1), "{bytes:x?} {code}");
        }
    }
}

#[test]
fn a_status_twice_costs_its_stream() {
    let (script, conn, mut driver) = Script::client(ClientOptions::default());
    script.push(tidegate_quic::Event::Connected);
    let _ = events(&mut driver);
    let mut exchange = conn.open();
    exchange.send_head(&get(), EndStream::No);
    let _ = events(&mut driver);
    script.send_all(request_id(0), headers(&[(b":status", b"200"), (b":status", b"201")]));
    assert!(events(&mut driver).is_empty());
    let error = now(|cx| exchange.poll_head(cx)).unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Reset { by_peer: false, .. }), "{error}");
    assert_eq!(
        exchange.failure_details().as_deref(),
        Some("QUIC_STREAM_NO_ERROR|FROM_SELF|codec_error"),
        "a local reset, as in Envoy"
    );
    assert_eq!((script.closed(), script.given_up(request_id(0))), (None, (Some(0x100), Some(0x100))));
}

#[test]
fn resets_are_counted_by_name() {
    let (script, mut conn, seer) = Script::server(ServerOptions::default());
    script.send(request_id(0), headers(GET));
    script.send(request_id(1), headers(GET));
    let (exchanges, _) = accept_all(&mut conn);
    script.reset(request_id(0), 0x10c);
    script.stop(request_id(1), 0x1234);
    let _ = accept_all(&mut conn);
    assert_eq!(seer.count(Event::RxReset), 2);
    assert_eq!(seer.count(Event::RxResetNamed("QUIC_STREAM_CANCELLED")), 1);
    // Codes of STOP_SENDING are not.
    assert_eq!(seer.count(Event::RxResetNamed("QUIC_STREAM_UNKNOWN_APPLICATION_ERROR_CODE")), 0);
    assert_eq!(script.given_up(request_id(0)), (None, Some(0x10c)));
    assert_eq!(script.given_up(request_id(1)), (Some(0x100), Some(0x1234)));
    drop(exchanges);
    let _ = accept_all(&mut conn);
    assert_eq!((conn.streams(), script.closed()), (0, None));
}
