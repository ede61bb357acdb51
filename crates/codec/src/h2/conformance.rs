//! What a server must answer to frames that break a rule, section by section of RFC 9113 (the cases of h2spec).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_testkit::io::pair;
use tidegate_types::EndStream;

use super::ServerExchange;
use super::frames::{goaway, kind, ping};
use super::options::ServerOptions;
use super::testing::*;
use crate::stream::{BodyFrame, ServerStream};

use Expect::{Connection, PingAnswer, Served, Stream};

const NO_ERROR: u8 = 0x0;
const PROTOCOL: u8 = 0x1;
const FLOW_CONTROL: u8 = 0x3;
const STREAM_CLOSED: u8 = 0x5;
const FRAME_SIZE: u8 = 0x6;
const COMPRESSION: u8 = 0x9;

#[derive(Clone, Copy, Debug)]
enum Expect {
    /// GOAWAY with one of these, and the end.
    Connection(&'static [u8]),
    /// RST_STREAM or GOAWAY with one of these.
    Stream(&'static [u8]),
    /// A response on stream 1.
    Served,
    PingAnswer,
}

/// Answers when the request is complete; `/index.html` never.
async fn answer(mut exchange: ServerExchange) {
    let (head, end) = head_of(&mut exchange).await;
    let mut ended = end.is_end();
    while !ended {
        ended = match std::future::poll_fn(|cx| exchange.poll_body(cx)).await {
            Ok(BodyFrame::Data(_, end)) => end.is_end(),
            Ok(BodyFrame::Trailers(_)) => true,
            Err(_) => return,
        };
    }
    if head.path_str() == "/index.html" {
        std::future::pending::<()>().await;
    }
    exchange.send_head(&ok(), EndStream::Yes);
}

/// `:method GET`, `:scheme http`, `:path /index.html`: stays half closed.
const HELD: &[u8] = &[0x82, 0x86, 0x85, 0x41, 1, b'a'];

fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

fn with(head: &[u8], name: &str, value: &str) -> Vec<u8> {
    [head, &literal(name, value)].concat()
}

/// A request with `head` alone.
fn request(head: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, WHOLE, 1, head)
}

async fn check(name: &str, frames: &[Vec<u8>], expect: Expect) -> Result<(), String> {
    let (near, mut far) = pair();
    let served = serve(near, ServerOptions::default(), answer);
    far.write_all(&hello(&[])).await;
    settle().await;
    for frame in frames {
        far.write_all(frame).await;
        settle().await;
        if served.task.is_finished() {
            break;
        }
    }
    let got = frames_of(&far.read_available());
    let away = got.iter().find(|frame| frame.0 == kind::GOAWAY).map(|frame| frame.3[7]);
    let reset = got.iter().find(|frame| frame.0 == kind::RST_STREAM).map(|frame| frame.3[3]);
    let fits = match expect {
        Connection(codes) => away.is_some_and(|code| codes.contains(&code)) && served.task.is_finished(),
        Stream(codes) => [away, reset].iter().flatten().any(|code| codes.contains(code)),
        Served => got.iter().any(|frame| frame.0 == kind::HEADERS && frame.2 == 1) && away.is_none(),
        PingAnswer => got.iter().any(|frame| frame.0 == kind::PING && frame.1 == 1) && away.is_none(),
    };
    if fits { Ok(()) } else { Err(format!("{name}: expected {expect:?}, got {got:?}")) }
}

fn framing() -> Vec<(&'static str, Vec<Vec<u8>>, Expect)> {
    let get = || request(GET);
    let huge = vec![0; 16_385];
    vec![
        ("4.1 unknown type", vec![frame(0xff, 0, 0, b"x"), get()], Served),
        ("4.1 undefined flags", vec![frame(kind::PING, 0x16, 0, &[0; 8])], PingAnswer),
        ("4.1 reserved bit", vec![frame(kind::PING, 0, 0x8000_0000, &[0; 8])], PingAnswer),
        ("4.2 large DATA", vec![frame(1, OPEN, 1, POST), frame(0, 0, 1, &huge)], Stream(&[FRAME_SIZE])),
        ("4.2 large HEADERS", vec![frame(1, WHOLE, 1, &huge)], Connection(&[FRAME_SIZE])),
        ("4.3 bad block", vec![frame(1, WHOLE, 1, &[0x40])], Connection(&[COMPRESSION])),
        ("4.3 PRIORITY within", vec![frame(1, 1, 1, GET), frame(2, 0, 1, &[0; 5])], Connection(&[PROTOCOL])),
        (
            "4.3 other stream within",
            vec![frame(1, 1, 1, GET), frame(1, WHOLE, 3, GET)],
            Connection(&[PROTOCOL]),
        ),
        ("5.1 idle DATA", vec![frame(0, 1, 1, b"x")], Connection(&[PROTOCOL])),
        ("5.1 idle RST_STREAM", vec![frame(3, 0, 1, &[0; 4])], Connection(&[PROTOCOL])),
        ("5.1 idle WINDOW_UPDATE", vec![frame(8, 0, 1, &[0, 0, 0, 1])], Connection(&[PROTOCOL])),
        ("5.1 idle CONTINUATION", vec![frame(9, OPEN, 1, GET)], Connection(&[PROTOCOL])),
        ("5.1 half closed DATA", vec![request(HELD), frame(0, 1, 1, b"x")], Stream(&[STREAM_CLOSED])),
        ("5.1 half closed HEADERS", vec![request(HELD), request(GET)], Stream(&[STREAM_CLOSED])),
        (
            "5.1 reset DATA",
            vec![frame(1, OPEN, 1, POST), frame(3, 0, 1, &[0, 0, 0, 8]), frame(0, 1, 1, b"x")],
            Stream(&[STREAM_CLOSED]),
        ),
        ("5.1 closed DATA", vec![get(), frame(0, 1, 1, b"x")], Stream(&[STREAM_CLOSED])),
        ("5.1 closed HEADERS", vec![get(), get()], Stream(&[STREAM_CLOSED])),
        ("5.1.1 even", vec![frame(1, WHOLE, 2, GET)], Connection(&[PROTOCOL])),
        ("5.1.1 smaller", vec![frame(1, WHOLE, 5, GET), frame(1, WHOLE, 3, GET)], Connection(&[PROTOCOL])),
        ("5.5 unknown within", vec![frame(1, 1, 1, GET), frame(0xff, 0, 0, b"x")], Connection(&[PROTOCOL])),
    ]
}

fn frame_definitions() -> Vec<(&'static str, Vec<Vec<u8>>, Expect)> {
    let open = || frame(kind::HEADERS, OPEN, 1, POST);
    let most = 0x7fff_ffff_u32.to_be_bytes();
    vec![
        ("6.1 DATA on 0", vec![frame(0, 1, 0, b"x")], Connection(&[PROTOCOL])),
        ("6.1 padding", vec![open(), frame(0, 0x9, 1, &[9, 0])], Connection(&[PROTOCOL])),
        ("6.2 HEADERS on 0", vec![frame(1, WHOLE, 0, GET)], Connection(&[PROTOCOL])),
        ("6.2 padding", vec![frame(1, 0xd, 1, &[90, 0x82])], Connection(&[PROTOCOL])),
        ("6.3 PRIORITY on 0", vec![frame(2, 0, 0, &[0, 0, 0, 0, 1])], Connection(&[PROTOCOL])),
        ("6.3 length", vec![open(), frame(2, 0, 1, &[0; 4])], Stream(&[FRAME_SIZE])),
        ("6.4 RST_STREAM on 0", vec![frame(3, 0, 0, &[0; 4])], Connection(&[PROTOCOL])),
        ("6.4 length", vec![open(), frame(3, 0, 1, &[0; 3])], Connection(&[FRAME_SIZE])),
        ("6.5 ACK with payload", vec![frame(4, 1, 0, &[0; 6])], Connection(&[FRAME_SIZE])),
        ("6.5 on a stream", vec![frame(4, 0, 1, &[])], Connection(&[PROTOCOL])),
        ("6.5 length", vec![frame(4, 0, 0, &[0; 3])], Connection(&[FRAME_SIZE])),
        ("6.5.2 ENABLE_PUSH", vec![frame(4, 0, 0, &[0, 2, 0, 0, 0, 2])], Connection(&[PROTOCOL])),
        ("6.5.2 window", vec![frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0])], Connection(&[FLOW_CONTROL])),
        ("6.5.2 frame size", vec![frame(4, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])], Connection(&[PROTOCOL])),
        ("6.5.2 unknown", vec![frame(4, 0, 0, &[0, 0xff, 0, 0, 0, 1]), ping(1).to_vec()], PingAnswer),
        ("6.7 PING", vec![ping(7).to_vec()], PingAnswer),
        ("6.7 on a stream", vec![frame(6, 0, 1, &[0; 8])], Connection(&[PROTOCOL])),
        ("6.7 length", vec![frame(6, 0, 0, &[0; 6])], Connection(&[FRAME_SIZE])),
        ("6.8 on a stream", vec![frame(7, 0, 1, &[0; 8])], Connection(&[PROTOCOL])),
        ("6.8 GOAWAY", vec![goaway(0, 0).to_vec()], Connection(&[NO_ERROR])),
        ("6.9 zero", vec![frame(8, 0, 0, &[0; 4])], Connection(&[PROTOCOL])),
        ("6.9 zero on a stream", vec![open(), frame(8, 0, 1, &[0; 4])], Stream(&[PROTOCOL])),
        ("6.9 length", vec![frame(8, 0, 0, &[0; 3])], Connection(&[FRAME_SIZE])),
        ("6.9.1 overflow", vec![frame(8, 0, 0, &most), frame(8, 0, 0, &most)], Connection(&[FLOW_CONTROL])),
        ("6.9.1 overflow on a stream", vec![open(), frame(8, 0, 1, &most)], Stream(&[FLOW_CONTROL])),
        ("6.10 on 0", vec![frame(1, 1, 1, GET), frame(9, OPEN, 0, &[])], Connection(&[PROTOCOL])),
        ("6.10 after the end", vec![open(), frame(9, OPEN, 1, GET)], Connection(&[PROTOCOL])),
        ("6.10 continued", vec![frame(1, 1, 1, &GET[..3]), frame(9, OPEN, 1, &GET[3..])], Served),
    ]
}

fn messages() -> Vec<(&'static str, Vec<Vec<u8>>, Expect)> {
    let open = || frame(kind::HEADERS, OPEN, 1, POST);
    let protocol = Stream(&[PROTOCOL]);
    let trailers = |name: &str| vec![open(), frame(1, WHOLE, 1, &literal(name, "x"))];
    let short = frame(1, OPEN, 1, &with(POST, "content-length", "1"));
    vec![
        ("8.1 trailers without an end", vec![open(), frame(1, OPEN, 1, &literal("x", "y"))], protocol),
        ("8.1 trailers", trailers("x"), Served),
        ("8.2 upper case", vec![request(&with(GET, "X", "y"))], protocol),
        ("8.1 pseudo in trailers", trailers(":path"), protocol),
        ("8.2.2 connection", vec![request(&with(GET, "connection", "close"))], protocol),
        ("8.2.2 te", vec![request(&with(GET, "te", "gzip"))], protocol),
        ("8.2.2 te: trailers", vec![request(&with(GET, "te", "trailers"))], Served),
        ("8.3 unknown pseudo", vec![request(&with(GET, ":test", "x"))], protocol),
        ("8.3 response's pseudo", vec![request(&with(GET, ":status", "200"))], protocol),
        ("8.3 late pseudo", vec![request(&[&literal("x", "y"), GET].concat())], protocol),
        ("8.3.1 empty path", vec![request(&[&[0x82, 0x86, 0x44, 0], &GET[3..]].concat())], protocol),
        ("8.3.1 no method", vec![request(&GET[1..])], protocol),
        ("8.3.1 no scheme", vec![request(&[&GET[..1], &GET[2..]].concat())], protocol),
        ("8.3.1 no path", vec![request(&[&GET[..2], &GET[3..]].concat())], protocol),
        ("8.3.1 two methods", vec![request(&[&[0x82], GET].concat())], protocol),
        ("8.3.1 no authority", vec![request(&GET[..3])], protocol),
        ("8.3.1 bad authority", vec![request(&[&GET[..3], b"\x41\x03a b"].concat())], protocol),
        ("8.1.1 length", vec![short.clone(), frame(0, 1, 1, b"xy")], protocol),
        ("8.1.1 length of two frames", vec![short, frame(0, 0, 1, b"x"), frame(0, 1, 1, b"y")], protocol),
        ("8.2.1 space in a value", vec![request(&with(GET, "x", "a\rb"))], protocol),
        (
            "RFC 8441 not offered",
            vec![request(&with(&with(&GET[1..], ":method", "CONNECT"), ":protocol", "x"))],
            protocol,
        ),
    ]
}

/// RFC 7541, by h2spec's `hpack` cases.
fn header_compression() -> Vec<(&'static str, Vec<Vec<u8>>, Expect)> {
    let bad = |tail: &[u8]| vec![request(&[GET, tail].concat())];
    let compression = Connection(&[COMPRESSION]);
    // `x` with a value in Huffman code.
    let huffman = |value: &[u8]| [&[0, 1, b'x', 0x80 | value.len() as u8], value].concat();
    vec![
        ("2.3.3 index beyond the tables", bad(&[0xc6]), compression),
        ("2.3.3 name beyond the tables", bad(&[0x7f, 7, 1, b'v']), compression),
        ("4.2 size update at the end", bad(&[0x21]), compression),
        ("5.2 padding of more than 7 bits", bad(&huffman(&[0x1f, 0xff])), compression),
        ("5.2 padding of zeros", bad(&huffman(&[0x18])), compression),
        ("5.2 EOS within", bad(&huffman(&[0xff, 0xff, 0xff, 0xff])), compression),
        ("5.2 cut", bad(&[0, 1, b'x', 9, b'v']), compression),
        ("6.1 index 0", bad(&[0x80]), compression),
        (
            "6.3 size update over the limit",
            vec![request(&[&[0x3f, 0xe1, 0xff, 3], GET].concat())],
            compression,
        ),
        ("6.3 size update", vec![request(&[&[0x20], GET].concat())], Served),
        ("6.2 never indexed", bad(&[0x10, 1, b'x', 1, b'v']), Served),
        ("in two frames", vec![frame(1, 1, 1, GET), frame(9, OPEN, 1, &[0x80])], compression),
    ]
}

/// Frames that act on streams or on windows over several steps.
fn sequences() -> Vec<(&'static str, Vec<Vec<u8>>, Expect)> {
    let open = || frame(kind::HEADERS, OPEN, 1, POST);
    let reset = || frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let depends_on_itself = [&[0, 0, 0, 1, 0], GET].concat();
    let window = |size: u32| frame(4, 0, 0, &[&[0, 4], &size.to_be_bytes()[..]].concat());
    vec![
        ("5.1 half closed RST_STREAM", vec![request(HELD), reset(), ping(1).to_vec()], PingAnswer),
        ("5.1 half closed CONTINUATION", vec![request(HELD), frame(9, OPEN, 1, GET)], Stream(&[PROTOCOL])),
        ("5.1 reset HEADERS", vec![open(), reset(), request(GET)], Stream(&[STREAM_CLOSED])),
        ("5.1 closed PRIORITY", vec![request(GET), frame(2, 0, 1, &[0; 5]), ping(1).to_vec()], PingAnswer),
        (
            "5.1 closed WINDOW_UPDATE",
            vec![request(GET), frame(8, 0, 1, &[0, 0, 0, 1]), ping(1).to_vec()],
            PingAnswer,
        ),
        ("5.3.1 HEADERS on itself", vec![frame(1, WHOLE | 0x20, 1, &depends_on_itself)], Stream(&[PROTOCOL])),
        ("5.3.1 PRIORITY on itself", vec![frame(2, 0, 1, &[0, 0, 0, 1, 0])], Stream(&[PROTOCOL])),
        (
            "6.2 padded and with priority",
            vec![frame(1, WHOLE | 0x28, 1, &[&[2, 0, 0, 0, 0, 0], GET, &[0, 0]].concat())],
            Served,
        ),
        ("6.5.3 settings acknowledged", vec![window(1), ping(1).to_vec()], PingAnswer),
        ("6.5.2 push", vec![frame(4, 0, 0, &[0, 2, 0, 0, 0, 1]), ping(1).to_vec()], PingAnswer),
        ("6.9.2 window made negative", vec![window(0), request(GET), window(1)], Served),
        (
            "6.9.2 window over the most",
            vec![open(), frame(8, 0, 1, &[0x7f, 0, 0, 0]), window(0x7fff_ffff)],
            Connection(&[FLOW_CONTROL]),
        ),
        (
            "7 unknown code of GOAWAY",
            vec![goaway(0, 0xff).to_vec(), ping(1).to_vec()],
            Connection(&[NO_ERROR]),
        ),
        (
            "7 unknown code of RST_STREAM",
            vec![open(), frame(3, 0, 1, &[0, 0, 0, 0xff]), ping(1).to_vec()],
            PingAnswer,
        ),
        (
            "8.4 PUSH_PROMISE",
            vec![open(), frame(5, OPEN, 1, &[&[0, 0, 0, 2], GET].concat())],
            Connection(&[PROTOCOL]),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn broken_rules_are_answered_as_the_rfc_says() {
    let all = || {
        let frames = framing().into_iter().chain(frame_definitions()).chain(sequences());
        frames.chain(header_compression()).chain(messages())
    };
    let mut failures = Vec::new();
    for (name, frames, expect) in all() {
        failures.extend(local(check(name, &frames, expect)).await.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
